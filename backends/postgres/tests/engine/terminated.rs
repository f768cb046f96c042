//! Backends that an administrator ends again and again, while jobs go through.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use windlass_conformance::Env;
use windlass_core::{Effect, ErrorKind};
use windlass_postgres::sqlx::{self, PgPool};
use windlass_postgres::{PostgresBackend, PostgresOptions};

use crate::common::{options, url, with};
use crate::turmoil::through;

/// Ends one backend of an application every few milliseconds, for ever, and counts.
async fn end_backends(pool: PgPool, application: String, ended: Arc<AtomicU32>) {
    let sql = "select pg_terminate_backend(pid) from (select pid from pg_stat_activity where application_name = $1 \
               order by random() limit 1) one";
    loop {
        let done: Option<bool> =
            sqlx::query_scalar(sql).bind(&application).fetch_optional(&pool).await.expect("a superuser");
        ended.fetch_add(u32::from(done == Some(true)), Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(15)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backends_that_are_ended_in_a_loop_lose_and_double_nothing() {
    let namespace = with(options().virtual_time(false)).await;
    let truth = namespace.backend();
    let application = format!("ended_{}", truth.schema());
    let address = format!("{}?application_name={application}", url());
    // With and without a listener: its connection is ended like the others.
    let mut backends = Vec::new();
    for listen in [true, true, false] {
        let options = PostgresOptions::new().schema(truth.schema()).max_connections(3).listen(listen);
        backends.push(PostgresBackend::connect_with(&address, options).await.expect("connect"));
    }
    let ended = Arc::<AtomicU32>::default();
    let ending = tokio::spawn(end_backends(truth.pool().clone(), application, Arc::clone(&ended)));
    let failures = through(&backends, truth, 1_500).await;
    assert!(!ending.is_finished(), "it went on to the end");
    ending.abort();
    let ended = ended.load(Ordering::Relaxed);
    println!("{ended} backends ended: {failures:?}");
    assert!(ended > 10, "{ended} backends were ended");
    let lost = failures.count(ErrorKind::Connection, Effect::Unknown);
    let refused = failures.count(ErrorKind::Connection, Effect::NotApplied);
    assert!(lost > 0 && failures.all() == lost + refused, "nothing but lost connections: {failures:?}");
    // The same handles go on, without anything being started again.
    let calm = through(&backends, truth, 300).await;
    assert!(calm.all() <= 9, "only what was idle as it was ended: {calm:?}");
}
