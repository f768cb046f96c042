//! The plans of the hot verbs: each statement within them finds its rows by an index. The server itself says so
//! (`auto_explain`), for the very calls that the engine makes.

use std::time::Duration;

use windlass_conformance::{bury, complete, draft, mail, retry};
use windlass_core::{At, Backend, Held, Migrate as _, NewJob, OnConflict, Sweep, Until, Verdict};
use windlass_postgres::{PostgresBackend, PostgresOptions, sqlx};
use windlass_servers::{Postgres, PostgresSettings};

use crate::opening::ask;

/// Tables that grow with the jobs that wait, run or are kept.
const LARGE: [&str; 8] = ["job", "live", "done", "span", "lease", "detail", "key", "child"];

/// What may be read through: the look whether there is any child at all ends at the first one.
const ALLOWED: [&str; 1] = ["1 from \"windlass\".child c limit 1"];

async fn opened(server: &Postgres) -> PostgresBackend {
    let options = PostgresOptions::new().max_connections(2).listen(false);
    PostgresBackend::connect_with(&server.url(), options).await.expect("connect")
}

/// A statement that was planned, and its plan.
struct Planned {
    text: String,
    plan: String,
}

/// What `auto_explain` logged.
fn planned(log: &str) -> Vec<Planned> {
    let entries = log.split(" ms  plan:\n").skip(1);
    let parts = entries.map(|entry| {
        // Lines that go on begin with a tab; the next entry does not.
        let body: Vec<&str> = entry.lines().take_while(|line| line.starts_with('\t')).collect();
        let tree = body.iter().position(|line| line.contains("  (cost=")).unwrap_or(body.len());
        let text = body[..tree].join(" ").split_whitespace().collect::<Vec<_>>().join(" ");
        Planned { text, plan: body[tree..].join("\n") }
    });
    parts.collect()
}

async fn crowd(backend: &PostgresBackend, thousands: usize, make: impl Fn() -> NewJob) {
    for _ in 0..thousands {
        let batch: Vec<_> = (0..1_000).map(|_| make()).collect();
        backend.push(&batch, At::Server).await.expect("push");
    }
}

/// Every hot verb, with verdicts of all sorts, over a backlog with jobs of all sorts.
async fn work(backend: &PostgresBackend) {
    crowd(backend, 5, || draft().build()).await;
    crowd(backend, 1, || draft().after(Duration::from_secs(3_600)).build()).await;
    for n in 0..40 {
        let limited = draft().limit(&format!("limit {}", n % 4), 2).build();
        let keyed = draft().unique(&format!("key {}", n % 20), OnConflict::Skip, Until::End).build();
        let superseding =
            draft().unique(&format!("next {}", n % 3), OnConflict::Supersede, Until::Start).build();
        let parent = draft();
        let child = draft().parents(&[parent.job()]).build();
        backend
            .push(&[limited, keyed, superseding, parent.clone().build(), child], At::Server)
            .await
            .expect("push");
    }
    let mut verdicts: Vec<Verdict> = Vec::new();
    for round in 0..8 {
        let ask = ask(200);
        let (_, claimed) =
            backend.settle_and_claim(&verdicts, &ask, At::Server).await.expect("settle and claim");
        assert_eq!(claimed.jobs.len(), 200);
        let held: Vec<_> =
            claimed.jobs.iter().map(|job| Held { lease: job.lease.clone(), started: true }).collect();
        backend.extend(ask.session, &held, ask.lease, At::Server).await.expect("extend");
        backend.push(&[draft().build()], At::Server).await.expect("push");
        let wait = backend.wait(ask.session, &[mail()], None, Duration::ZERO).await;
        assert_eq!(wait.expect("wait"), windlass_core::Wake::Work);
        let ruling = |place: usize| match place % 50 {
            7 if round % 2 == 0 => retry(Duration::ZERO),
            9 => bury(),
            _ => complete(),
        };
        let jobs = claimed.jobs.into_iter().enumerate();
        verdicts = jobs.map(|(place, job)| Verdict::new(job.lease, ruling(place))).collect();
    }
    backend.settle(&verdicts, At::Server).await.expect("settle");
    // Leases that end, so that a sweep has some to take back.
    let mut short = ask(50);
    short.lease = windlass_core::limits::LEASE_MIN;
    backend.claim(&short, At::Server).await.expect("claim");
    tokio::time::sleep(short.lease + Duration::from_millis(50)).await;
    backend.sweep(&Sweep::default(), At::Server).await.expect("sweep");
    backend.claim(&ask(200), At::Server).await.expect("claim");
}

#[tokio::test]
async fn every_statement_of_a_hot_verb_uses_an_index() {
    let plain = Postgres::start().expect("a server");
    let there = opened(&plain).await;
    if let Err(error) = sqlx::raw_sql("load 'auto_explain'").execute(there.pool()).await {
        // A build of Postgres without its contributed modules, named by hand.
        assert!(std::env::var_os("WINDLASS_POSTGRES_BIN").is_some(), "{error}");
        return;
    }
    drop((there, plain));
    let setting = |name: &'static str, value: &str| (name, value.to_owned());
    let others = vec![
        setting("session_preload_libraries", "auto_explain"),
        setting("auto_explain.log_min_duration", "0"),
        setting("auto_explain.log_nested_statements", "on"),
    ];
    let server = Postgres::start_with(&PostgresSettings { durable: false, others }).expect("a server");
    let backend = opened(&server).await;
    backend.migrate().await.expect("migrate");
    let before = server.log().len();
    work(&backend).await;
    let log = server.log();
    let planned = planned(&log[before..]);
    let mut seen: Vec<&str> = Vec::new();
    for Planned { text, plan } in &planned {
        for table in LARGE {
            let through = plan.lines().any(|line| line.contains(&format!("Seq Scan on {table} ")));
            let allowed = ALLOWED.iter().any(|allowed| text.ends_with(allowed));
            assert!(!through || allowed, "{table} is read through:\n{text}\n{plan}");
            let by_index = |line: &str| {
                line.contains(&format!(" on {table} ")) && (line.contains("Index") || line.contains("Tid"))
            };
            if plan.lines().any(by_index) {
                seen.push(table);
            }
        }
    }
    // A job's details are written without a look.
    for table in LARGE.into_iter().filter(|table| *table != "detail") {
        assert!(seen.contains(&table), "nothing looked into {table}: {} plans", planned.len());
    }
}
