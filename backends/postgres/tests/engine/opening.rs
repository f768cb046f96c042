//! Opening a namespace: migrations, schema names, roles, what is wrong with a URL.

use windlass_conformance::{complete, draft, mail};
use windlass_core::{
    At, Backend, Capabilities, Claim, Connect, Effect, ErrorKind, Inspect, Kind, Manage, Migrate, Nonce,
    OnConflict, SessionId, StateKind, Sweep, Until, Verdict,
};
use windlass_postgres::sqlx::{self, AssertSqlSafe, Connection, PgConnection};
use windlass_postgres::{PostgresBackend, PostgresOptions};

use crate::common::{fresh, open, options, url, with};

pub(crate) fn ask(limit: usize) -> Claim {
    Claim {
        session: SessionId::random(),
        nonce: Nonce::random(),
        queues: vec![mail()],
        kinds: [(Kind::from_static("greet"), 1)].into_iter().collect(),
        limit,
        ahead: 0,
        suspects: true,
        lease: std::time::Duration::from_secs(30),
    }
}

#[tokio::test]
async fn it_says_what_it_is() {
    let namespace = with(options().virtual_time(false)).await;
    let backend = windlass_conformance::Env::backend(&namespace);
    let wanted = Capabilities {
        durable: true,
        shared: true,
        atomic_across_queues: true,
        pipelined: true,
        ahead_max: 1_800,
    };
    assert_eq!((PostgresBackend::NAME, backend.capabilities()), ("postgres", wanted));
    assert_eq!(PostgresBackend::SCHEMES, ["postgres", "postgresql"]);
    assert!(format!("{backend:?}").contains(backend.schema()));
}

#[tokio::test]
async fn a_migration_is_told_before_and_done_once_by_many_at_once() {
    let options = options();
    let backend = PostgresBackend::connect_with(&url(), options.clone()).await.expect("connect");
    let pending = backend.pending().await.expect("pending");
    assert_eq!(pending.iter().map(|migration| migration.version).collect::<Vec<_>>(), [1]);
    let mut tasks = Vec::new();
    for _ in 0..6 {
        let other = PostgresBackend::connect_with(&url(), options.clone()).await.expect("connect");
        tasks.push(tokio::spawn(async move { other.migrate().await.expect("migrate") }));
    }
    let mut done = Vec::new();
    for task in tasks {
        done.extend(task.await.expect("a task"));
    }
    assert_eq!(done, pending, "one of them did it");
    assert_eq!(backend.pending().await.expect("pending"), []);
    assert_eq!(backend.migrate().await.expect("migrate"), []);
    backend.drop_namespace().await.expect("drop");
    assert_eq!(backend.pending().await.expect("pending"), pending);
}

#[tokio::test]
async fn a_namespace_that_is_not_there_says_so() {
    let backend = PostgresBackend::connect_with(&url(), options()).await.expect("connect");
    let error = backend.push(&[draft().build()], At::Server).await.expect_err("no schema");
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Config, Effect::NotApplied));
    assert!(error.to_string().contains("run `migrate`"), "{error}");
}

#[tokio::test]
async fn a_migration_is_taken_back_once_by_many_at_once() {
    let options = options().virtual_time(false);
    let backend = open(&options).await;
    backend.push(&[draft().build()], At::Server).await.expect("push");
    assert!(backend.migrate_down(1).await.expect("down").is_empty(), "it is not above");
    let (one, other) = tokio::join!(backend.migrate_down(0), backend.migrate_down(0));
    let (one, other) = (one.expect("down"), other.expect("down"));
    assert_eq!(one.len() + other.len(), 1, "{one:?} {other:?}");
    assert_eq!(backend.pending().await.expect("pending").len(), 1);
    assert!(backend.migrate_down(0).await.expect("down").is_empty(), "nothing is there");
    backend.migrate().await.expect("up again");
    backend.push(&[draft().build()], At::Server).await.expect("push");
    assert_eq!(backend.queues(At::Server).await.expect("queues").len(), 1);
    backend.drop_namespace().await.expect("drop");
}

#[tokio::test]
async fn any_schema_name_will_do() {
    for name in ["My \"odd\" schema", "it's", "select", "$$", "ümlaut-❄", "UPPER.lower"] {
        let name = format!("{name} {}", &uuid::Uuid::new_v4().simple().to_string()[..12]);
        let namespace = with(options().schema(name.clone()).virtual_time(false)).await;
        let backend = windlass_conformance::Env::backend(&namespace);
        assert_eq!(backend.schema(), name);
        let jobs =
            [draft().build(), draft().unique("k", OnConflict::Supersede, Until::End).limit("l", 1).build()];
        backend.push(&jobs, At::Server).await.expect("push");
        let claimed = backend.claim(&ask(10), At::Server).await.expect("claim").jobs;
        assert_eq!(claimed.len(), 2, "{name}");
        let verdicts: Vec<_> = claimed.into_iter().map(|job| Verdict::new(job.lease, complete())).collect();
        backend.settle(&verdicts, At::Server).await.expect("settle");
        backend.sweep(&Sweep::default(), At::Server).await.expect("sweep");
    }
}

#[tokio::test]
async fn a_url_names_the_namespace() {
    let options = options().virtual_time(false);
    let made = open(&options).await;
    let url = format!("{}?schema={}&max_connections=2", url(), made.schema());
    let backend = PostgresBackend::connect(&url).await.expect("connect");
    assert_eq!(backend.schema(), made.schema());
    backend.push(&[draft().build()], At::Server).await.expect("push");
    assert_eq!(made.queues(At::Server).await.expect("queues").len(), 1);
    made.drop_namespace().await.expect("drop");
}

#[tokio::test]
async fn what_is_wrong_with_a_url_is_told_without_the_password() {
    let port = url()
        .rsplit_once(':')
        .and_then(|(_, rest)| rest.split('/').next().map(str::to_owned))
        .expect("a port");
    let cases = [
        ("mysql://ada:hunter2@localhost/db".to_owned(), ErrorKind::Config),
        ("postgres".to_owned(), ErrorKind::Config),
        (format!("postgres://windlass:hunter2@127.0.0.1:{port}/no-such-database"), ErrorKind::Config),
        (format!("postgres://no-such-role:hunter2@127.0.0.1:{port}/postgres"), ErrorKind::Config),
        ("postgres://ada:hunter2@127.0.0.1:1/db".to_owned(), ErrorKind::Connection),
        (format!("postgres://h:hunter2@127.0.0.1:{port}/db?schema=pg_x"), ErrorKind::Config),
    ];
    for (url, kind) in cases {
        let error = PostgresBackend::connect(&url).await.expect_err(&url);
        assert_eq!((error.kind(), error.effect()), (kind, Effect::NotApplied), "{error}");
        let told = format!("{error} {error:?}");
        assert!(!told.contains("hunter2"), "{told}");
    }
}

/// The grants of `docs.md`, and a role that has nothing else.
async fn limited_role(schema: &str) -> (String, String) {
    let role = format!("worker_{}", uuid::Uuid::new_v4().simple());
    let mut connection = PgConnection::connect(&url()).await.expect("connect");
    let grants = include_str!("../../sql/grants.sql").replace("@schema@", schema).replace("@role@", &role);
    sqlx::raw_sql(AssertSqlSafe(format!("create role {role} login; {grants}")))
        .execute(&mut connection)
        .await
        .expect("grants");
    let address = url();
    let (_, host) = address.rsplit_once('@').expect("a user");
    (role.clone(), format!("postgres://{role}@{host}"))
}

#[tokio::test]
async fn a_role_without_ddl_can_do_all_the_verbs_once_it_is_migrated() {
    let namespace = with(options().virtual_time(false)).await;
    let schema = windlass_conformance::Env::backend(&namespace).schema().to_owned();
    let (role, url) = limited_role(&schema).await;
    let options = PostgresOptions::new().schema(schema.clone()).max_connections(2);
    let backend = PostgresBackend::connect_with(&url, options).await.expect("connect");
    assert_eq!(backend.pending().await.expect("pending"), []);
    assert_eq!(backend.migrate().await.expect("migrate"), []);
    let at = At::Server;
    let parent = draft();
    let jobs = [
        parent.clone().build(),
        draft().parents(&[parent.job()]).build(),
        draft().unique("k", OnConflict::QueueOne, Until::Start).limit("l", 1).build(),
        draft().limit("l", 1).build(),
        draft().after(std::time::Duration::from_secs(60)).build(),
    ];
    backend.push(&jobs, at).await.expect("push");
    let ask = ask(10);
    let claimed = backend.claim(&ask, at).await.expect("claim").jobs;
    assert_eq!(claimed.len(), 2);
    let held = windlass_core::Held { lease: claimed[0].lease.clone(), started: true };
    backend.extend(ask.session, &[held], ask.lease, at).await.expect("extend");
    let mut note = windlass_core::Note::new(claimed[0].lease.clone());
    note.push_line("under way");
    assert_eq!(backend.annotate(&[note], at).await.expect("annotate"), [true]);
    assert_eq!(backend.hand_back(ask.session, Some(Nonce::random()), at).await.expect("hand back"), 0);
    let verdicts: Vec<_> = claimed.into_iter().map(|job| Verdict::new(job.lease, complete())).collect();
    backend.settle(&verdicts, at).await.expect("settle");
    backend.run_now(&jobs[4].body.job(), at).await.expect("run now");
    let wake = backend.wait(ask.session, &[mail()], None, std::time::Duration::ZERO).await.expect("wait");
    assert_eq!(wake, windlass_core::Wake::Work);
    backend.cancel(&jobs[4].body.job(), "no longer", at).await.expect("cancel");
    backend.delete(&jobs[4].body.job(), at).await.expect("delete");
    backend.pause(&mail(), at).await.expect("pause");
    backend.resume(&mail(), at).await.expect("resume");
    backend.sweep(&Sweep::default(), at).await.expect("sweep");
    backend.outcomes(&[jobs[0].body.job()], std::time::Duration::ZERO, at).await.expect("outcomes");
    let record = backend.get(&jobs[0].body.job(), at).await.expect("get").expect("the job");
    assert_eq!(record.state.kind(), StateKind::Completed);
    backend.list(&windlass_core::Filter::default(), None, 10, at).await.expect("list");
    backend.queues(at).await.expect("queues");
    let refused = sqlx::raw_sql(AssertSqlSafe(format!("create table \"{schema}\".mine (x int)")))
        .execute(backend.pool())
        .await;
    assert!(refused.is_err(), "it may not change the schema");
    drop(backend);
    let mut connection = PgConnection::connect(&crate::common::url()).await.expect("connect");
    sqlx::raw_sql(AssertSqlSafe(format!("drop owned by {role}; drop role {role}")))
        .execute(&mut connection)
        .await
        .expect("drop the role");
}

#[tokio::test]
async fn a_role_without_grants_is_told_so() {
    let namespace = fresh().await;
    let schema = windlass_conformance::Env::backend(&namespace).schema().to_owned();
    let role = format!("stranger_{}", uuid::Uuid::new_v4().simple());
    let mut connection = PgConnection::connect(&url()).await.expect("connect");
    sqlx::raw_sql(AssertSqlSafe(format!("create role {role} login")))
        .execute(&mut connection)
        .await
        .expect("a role");
    let address = url();
    let (_, host) = address.rsplit_once('@').expect("a user");
    let options = PostgresOptions::new().schema(schema).max_connections(1);
    let backend =
        PostgresBackend::connect_with(&format!("postgres://{role}@{host}"), options).await.expect("connect");
    let error = backend.push(&[draft().build()], At::Server).await.expect_err("no grant");
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Config, Effect::NotApplied), "{error}");
    assert!(error.to_string().contains("grant"), "{error}");
    drop(backend);
    sqlx::raw_sql(AssertSqlSafe(format!("drop role {role}")))
        .execute(&mut connection)
        .await
        .expect("drop the role");
}

#[tokio::test]
async fn a_pool_of_the_callers_will_do() {
    let namespace = fresh().await;
    let made = windlass_conformance::Env::backend(&namespace);
    let pool = sqlx::PgPool::connect(&url()).await.expect("a pool");
    let options = PostgresOptions::new().schema(made.schema()).listen(false);
    let backend = PostgresBackend::from_pool(pool, options).expect("options");
    let at = At::Instant(windlass_core::Timestamp::VIRTUAL_START);
    let job = draft();
    backend.push(&[job.clone().build()], at).await.expect("push");
    assert!(made.get(&job.job(), at).await.expect("get").is_some());
    let bad = PostgresBackend::from_pool(backend.pool().clone(), PostgresOptions::new().schema(""));
    assert_eq!(bad.expect_err("no name").kind(), ErrorKind::Config);
}

#[tokio::test]
async fn a_job_is_dispatched_from_sql_with_its_transaction() {
    let namespace = with(options().virtual_time(false)).await;
    let backend = windlass_conformance::Env::backend(&namespace);
    let schema = backend.schema();
    let dispatch = |rest: &str| {
        AssertSqlSafe(format!("select \"{schema}\".dispatch('mail', 'greet', '{{\"to\": \"ada\"}}'{rest})"))
    };
    let mut tx = backend.pool().begin().await.expect("begin");
    let id: uuid::Uuid =
        sqlx::query_scalar(dispatch(", priority => 7, max_attempts => 3, timeout => '90 s'"))
            .fetch_one(&mut *tx)
            .await
            .expect("dispatch");
    assert!(
        backend.claim(&ask(10), At::Server).await.expect("claim").jobs.is_empty(),
        "not before the commit"
    );
    tx.commit().await.expect("commit");
    let claimed = backend.claim(&ask(10), At::Server).await.expect("claim").jobs;
    let [job] = &claimed[..] else { panic!("one job: {claimed:?}") };
    assert_eq!((job.body.id.as_uuid(), &*job.body.payload), (&id, &b"{\"to\": \"ada\"}"[..]));
    assert_eq!((job.body.priority.get(), job.body.max_attempts, job.body.codec), (7, 3, 0));
    assert_eq!(job.body.timeout.get(), Some(std::time::Duration::from_secs(90)));
    let keyed = dispatch(", unique_key => 'ada', delay => '1 hour'");
    let first: uuid::Uuid = sqlx::query_scalar(keyed).fetch_one(backend.pool()).await.expect("dispatch");
    let keyed = dispatch(", unique_key => 'ada', delay => '1 hour'");
    let second: uuid::Uuid = sqlx::query_scalar(keyed).fetch_one(backend.pool()).await.expect("dispatch");
    assert_eq!(first, second, "the holder of the key is named");
    for bad in [", priority => 10", ", max_attempts => 0", ", delay => '-1 s'", ", unique_key => ''"] {
        let refused = sqlx::query(dispatch(bad)).execute(backend.pool()).await;
        assert!(refused.is_err(), "{bad}");
    }
}
