//! What can become of a server: it is killed, frozen, full, read-only, without its scripts, or badly set up.

mod support;

use std::time::Duration;

use windlass_conformance::{complete, draft};
use windlass_core::{
    At, Backend, Claim, Connect, Effect, ErrorKind, Inspect, Kind, Manage, Migrate, NewJob, Nonce, Pushed,
    QueueName, SessionId, Settled, StateKind, Sweep, Verdict,
};
use windlass_redis::{Durability, RedisBackend, RedisOptions};
use windlass_servers::Redis;

const MAIL: QueueName = QueueName::from_static("mail");
const AT: At = At::Server;

fn claim(limit: usize) -> Claim {
    Claim {
        session: SessionId::random(),
        nonce: Nonce::random(),
        queues: vec![MAIL],
        kinds: [(Kind::from_static("greet"), 1)].into_iter().collect(),
        limit,
        ahead: 0,
        suspects: true,
        lease: Duration::from_secs(30),
    }
}

fn options(server: &Redis) -> RedisOptions {
    RedisOptions::new(server.url()).response_timeout(Duration::from_secs(2))
}

async fn refused(options: RedisOptions) -> windlass_core::Error {
    RedisBackend::connect_with(options).await.expect_err("it should be refused")
}

/// Goes on calling until it succeeds: what a worker does about errors that may pass.
async fn until_it_works<T>(mut verb: impl AsyncFnMut() -> windlass_core::Result<T>) -> T {
    for _ in 0..200 {
        match verb().await {
            Ok(done) => return done,
            Err(error) => assert!(error.is_retryable(), "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("it never worked again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_outlives_a_killed_server() {
    let mut server =
        Redis::start_with(&[("appendonly", "yes"), ("appendfsync", "always")]).expect("a private Redis");
    let backend = support::open(options(&server).durability(Durability::Local)).await;
    let mut acknowledged: Vec<NewJob> = Vec::new();
    for _ in 0..5 {
        let pusher = backend.clone();
        let (stored, mut count) = tokio::sync::watch::channel(0);
        let pushing = tokio::spawn(async move {
            let mut jobs = Vec::new();
            loop {
                let job = draft().build();
                match pusher.push(std::slice::from_ref(&job), AT).await {
                    Ok(_) => jobs.push(job),
                    Err(error) => {
                        assert!(error.is_retryable(), "{error}");
                        // After a restart the first may fail: the server has not been killed again yet.
                        if !jobs.is_empty() {
                            return jobs;
                        }
                    }
                }
                stored.send_replace(jobs.len());
            }
        });
        let some = count.wait_for(|count| *count >= 5);
        drop(tokio::time::timeout(Duration::from_secs(20), some).await.expect("it comes to push"));
        server.kill().expect("kill");
        acknowledged.extend(pushing.await.expect("the pusher"));
        server.restart().expect("restart");
    }
    let (mut ran, mut verdicts) = (Vec::new(), Vec::new());
    loop {
        let both = until_it_works(async || backend.settle_and_claim(&verdicts, &claim(500), AT).await).await;
        assert!(both.0.iter().all(|settled| *settled == Settled::Applied(StateKind::Completed)));
        if both.1.jobs.is_empty() {
            break;
        }
        ran.extend(both.1.jobs.iter().map(|job| job.body.id));
        verdicts = both.1.jobs.into_iter().map(|job| Verdict::new(job.lease, complete())).collect();
    }
    let lost: Vec<_> = acknowledged.iter().filter(|job| !ran.contains(&job.body.id)).collect();
    assert!(lost.is_empty(), "{} of {} acknowledged jobs are lost", lost.len(), acknowledged.len());
    let count = ran.len();
    ran.sort_unstable();
    ran.dedup();
    assert_eq!(ran.len(), count, "none ran twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stands_still_times_out_and_goes_on() {
    let server = Redis::start().expect("a private Redis");
    let backend = support::open(options(&server).response_timeout(Duration::from_millis(300))).await;
    let job = draft().build();
    server.freeze().expect("freeze");
    let error = backend.push(std::slice::from_ref(&job), AT).await.expect_err("it stands still");
    assert_eq!((error.kind(), error.operation()), (ErrorKind::Timeout, "push"), "{error}");
    server.thaw().expect("thaw");
    until_it_works(async || backend.push(std::slice::from_ref(&job), AT).await).await;
    assert_eq!(
        backend.claim(&claim(10), AT).await.expect("claim").jobs.len(),
        1,
        "one job, whatever was in doubt"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_were_idle_when_the_server_restarted_are_replaced_unnoticed() {
    let mut server = Redis::start_with(&[("appendonly", "yes")]).expect("a private Redis");
    let backend = support::open(options(&server)).await;
    backend.push(&[draft().build()], AT).await.expect("push");
    for _ in 0..3 {
        server.restart().expect("restart");
        tokio::time::sleep(Duration::from_millis(50)).await;
        // Scripts are gone as well.
        backend.push(&[draft().build()], AT).await.expect("its end was heard of");
    }
    assert_eq!(backend.claim(&claim(10), AT).await.expect("claim").jobs.len(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_forgets_its_scripts_all_the_time_is_told_again() {
    let server = Redis::start().expect("a private Redis");
    let backend = support::open(options(&server)).await;
    let mut ran = 0;
    for _ in 0..50 {
        server.ask(&["SCRIPT", "FLUSH", "SYNC"]).expect("flush");
        backend.push(&[draft().build()], AT).await.expect("push");
        server.ask(&["SCRIPT", "FLUSH", "SYNC"]).expect("flush");
        for run in backend.claim(&claim(1), AT).await.expect("claim").jobs {
            server.ask(&["SCRIPT", "FLUSH", "SYNC"]).expect("flush");
            let settled = backend.settle(&[Verdict::new(run.lease, complete())], AT).await.expect("settle");
            assert_eq!(settled, [Settled::Applied(StateKind::Completed)]);
            ran += 1;
        }
    }
    assert_eq!(ran, 50);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_server_takes_no_dispatch_and_still_takes_verdicts() {
    let server = Redis::start().expect("a private Redis");
    let backend = support::open(options(&server)).await;
    let jobs: Vec<_> = (0..100).map(|_| draft().build()).collect();
    backend.push(&jobs, AT).await.expect("push");
    let runs = backend.claim(&claim(50), AT).await.expect("claim").jobs;
    server.ask(&["CONFIG", "SET", "maxmemory", "1"]).expect("full");
    let refused = draft().build();
    let error = backend.push(std::slice::from_ref(&refused), AT).await.expect_err("it is full");
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, Effect::NotApplied), "{error}");
    let verdicts: Vec<_> = runs.into_iter().map(|run| Verdict::new(run.lease, complete())).collect();
    if server.ask(&["INFO", "server"]).expect("INFO").contains("redis_version:6.") {
        let error = backend.settle(&verdicts, AT).await.expect_err("no script says that it makes room");
        assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, Effect::NotApplied), "{error}");
        server.ask(&["CONFIG", "SET", "maxmemory", "0"]).expect("room");
    }
    let (settled, claimed) =
        backend.settle_and_claim(&verdicts, &claim(50), AT).await.expect("they make room");
    assert!(settled.iter().all(|settled| *settled == Settled::Applied(StateKind::Completed)));
    assert_eq!(claimed.jobs.len(), 50);
    backend.sweep(&Sweep::default(), AT).await.expect("sweep");
    server.ask(&["CONFIG", "SET", "maxmemory", "0"]).expect("room");
    assert!(
        backend.get(&refused.body.job(), AT).await.expect("get").is_none(),
        "what was not applied never appears"
    );
    backend.push(&[refused], AT).await.expect("there is room");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_becomes_a_replica_refuses_until_it_writes_again() {
    let (server, other) = (Redis::start().expect("a private Redis"), Redis::start().expect("another"));
    let backend = support::open(options(&server)).await;
    backend.push(&[draft().build()], AT).await.expect("push");
    server.ask(&["REPLICAOF", "127.0.0.1", &other.port().to_string()]).expect("demoted");
    let job = draft().build();
    let error = backend.push(std::slice::from_ref(&job), AT).await.expect_err("it takes no writes");
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, Effect::NotApplied), "{error}");
    server.ask(&["REPLICAOF", "NO", "ONE"]).expect("promoted");
    until_it_works(async || backend.push(std::slice::from_ref(&job), AT).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_an_operator_disconnects_come_back() {
    let server = Redis::start().expect("a private Redis");
    let backend = support::open(options(&server)).await;
    for _ in 0..20 {
        server.ask(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).expect("kill");
        until_it_works(async || backend.push(&[draft().build()], AT).await).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sleeper_hears_of_work_after_its_connection_was_cut() {
    let server = Redis::start().expect("a private Redis");
    let backend = support::open(options(&server)).await;
    let sleeping = backend.clone();
    let sleeper = tokio::spawn(async move {
        sleeping.wait(SessionId::random(), &[MAIL], None, Duration::from_secs(30)).await
    });
    while !server.ask(&["PUBSUB", "CHANNELS"]).expect("channels").contains("mail") {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    server.ask(&["CLIENT", "KILL", "TYPE", "pubsub"]).expect("kill");
    until_it_works(async || backend.push(&[draft().build()], AT).await).await;
    let wake =
        tokio::time::timeout(Duration::from_secs(5), sleeper).await.expect("at once").expect("the sleeper");
    assert_eq!(wake.expect("wait"), windlass_core::Wake::Work);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_may_evict_jobs_is_refused_unless_it_is_allowed() {
    let server = Redis::start_with(&[("maxmemory-policy", "allkeys-lru")]).expect("a private Redis");
    let error = refused(options(&server)).await;
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("allkeys-lru") && error.to_string().contains("noeviction"), "{error}");
    support::open(options(&server).allow_eviction()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_cannot_keep_the_promised_durability_is_refused_or_says_so() {
    let server = Redis::start().expect("a private Redis");
    let error = refused(options(&server).durability(Durability::Local)).await;
    assert!(error.kind() == ErrorKind::Config && error.to_string().contains("appendonly"), "{error}");

    let patient =
        options(&server).durability(Durability::Replicated(1)).response_timeout(Duration::from_millis(300));
    let backend = support::open(patient).await;
    let job = draft().build();
    let error = backend.push(std::slice::from_ref(&job), AT).await.expect_err("there is no replica");
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, Effect::Unknown), "{error}");
    let replica = Redis::start().expect("a replica");
    replica.ask(&["REPLICAOF", "127.0.0.1", &server.port().to_string()]).expect("replicate");
    // From here on it is to come true, however busy the machine is.
    let patient =
        options(&server).durability(Durability::Replicated(1)).response_timeout(Duration::from_secs(20));
    let backend = support::open(patient).await;
    until_it_works(async || backend.push(std::slice::from_ref(&job), AT).await).await;
    let many = (0..50).map(|_| {
        let backend = backend.clone();
        tokio::spawn(async move { backend.push(&[draft().build()], AT).await })
    });
    for push in many.collect::<Vec<_>>() {
        push.await.expect("a push").expect("it reached the replica");
    }
    let keys = replica.ask(&["HLEN", "{windlass:mail}:b"]).expect("the replica");
    assert_eq!(keys, ":51\r\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_with_the_least_rights_can_do_everything() {
    let server = Redis::start().expect("a private Redis");
    // The line that docs.md gives.
    let documented = include_str!("../docs.md");
    let line =
        documented.lines().find(|line| line.starts_with("ACL SETUSER")).expect("docs.md shows the user");
    let mut words: Vec<&str> = line.split_whitespace().collect();
    let password = words.iter().position(|word| word.starts_with('>')).expect("a password");
    words[password] = ">hunter2";
    server.ask(&words).expect("the user is set");
    let url = format!("redis://windlass:hunter2@127.0.0.1:{}", server.port());
    let backend = RedisBackend::connect(&url).await.expect("it connects");
    let parent = draft();
    let child = draft().parents(&[parent.job()]);
    let other = draft().queue("other");
    backend.push(&[parent.build(), child.build()], AT).await.expect("push");
    let run = backend.claim(&claim(1), AT).await.expect("claim").jobs.remove(0);
    let job = run.lease.job.clone();
    backend.cancel(&job, "no longer", AT).await.expect("cancel");
    let verdict = Verdict { then: vec![other.build()], ..Verdict::new(run.lease, complete()) };
    backend.settle(&[verdict], AT).await.expect("settle");
    backend.sweep(&Sweep::default(), AT).await.expect("sweep");
    backend.pause(&MAIL, AT).await.expect("pause");
    backend.resume(&MAIL, AT).await.expect("resume");
    backend.outcomes(&[job], Duration::from_secs(1), AT).await.expect("outcomes");
    backend.wait(SessionId::random(), &[MAIL], None, Duration::from_secs(1)).await.expect("wait");
    assert_eq!(backend.queues(AT).await.expect("queues").len(), 2);
    backend.migrate().await.expect("migrate");
    // And nothing else.
    for forbidden in
        [&["FLUSHALL"][..], &["KEYS", "*"], &["CONFIG", "SET", "maxmemory", "1"], &["GET", "others"]]
    {
        let client = redis::Client::open(url.as_str()).expect("a URL");
        let mut connection = client.get_multiplexed_async_connection().await.expect("it answers");
        let mut command = redis::cmd(forbidden[0]);
        let answer: redis::RedisResult<redis::Value> =
            command.arg(&forbidden[1..]).query_async(&mut connection).await;
        assert!(answer.is_err(), "{forbidden:?} is allowed");
    }
    let wrong = format!("redis://windlass:wrong@127.0.0.1:{}", server.port());
    let error = RedisBackend::connect(&wrong).await.expect_err("the password is wrong");
    assert!(error.kind() == ErrorKind::Config && !error.to_string().contains("wrong@"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_of_a_newer_format_is_left_alone() {
    let server = Redis::start().expect("a private Redis");
    let backend = support::open(options(&server)).await;
    assert_eq!(backend.pending().await.expect("pending").len(), 1);
    assert_eq!(backend.migrate().await.expect("migrate").len(), 1);
    assert!(backend.migrate().await.expect("migrate").is_empty());
    backend.push(&[draft().build()], AT).await.expect("push");
    server.ask(&["HSET", "{windlass:mail}:m", "format", "2"]).expect("the future");
    let error = backend.claim(&claim(1), AT).await.expect_err("it is newer");
    assert!(error.kind() == ErrorKind::Config && error.to_string().contains("newer"), "{error}");
    server.ask(&["HSET", "{windlass}:m", "format", "2"]).expect("the future");
    assert_eq!(backend.pending().await.expect_err("it is newer").kind(), ErrorKind::Config);
    let fresh = support::open(options(&server)).await;
    assert_eq!(fresh.now(AT).await.expect_err("it is newer").kind(), ErrorKind::Config);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_body_makes_its_job_dead_and_spares_the_others() {
    let server = Redis::start().expect("a private Redis");
    let backend = support::open(options(&server)).await;
    let jobs: Vec<NewJob> = (0..3).map(|_| draft().build()).collect();
    backend.push(&jobs, AT).await.expect("push");
    let client = redis::Client::open(server.url()).expect("a URL");
    let mut connection = client.get_multiplexed_async_connection().await.expect("it answers");
    let id = &jobs[1].body.id.as_uuid().as_bytes()[..];
    let mut body: Vec<u8> = redis::cmd("HGET")
        .arg("{windlass:mail}:b")
        .arg(id)
        .query_async(&mut connection)
        .await
        .expect("a body");
    body.truncate(16);
    let set = redis::cmd("HSET").arg("{windlass:mail}:b").arg(id).arg(body).to_owned();
    set.exec_async(&mut connection).await.expect("damaged");
    let claimed = backend.claim(&claim(10), AT).await.expect("claim").jobs;
    assert_eq!(claimed.iter().map(|job| job.body.id).collect::<Vec<_>>(), [jobs[0].body.id, jobs[2].body.id]);
    let dead: u64 =
        redis::cmd("ZCARD").arg("{windlass:mail}:dd").query_async(&mut connection).await.expect("the dead");
    assert_eq!(dead, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handles_of_one_engine_promise_different_things() {
    let server = Redis::start().expect("a private Redis");
    let fast = support::open(options(&server)).await;
    let refused = fast.with_durability(Durability::Local).await.expect_err("it has no append-only file");
    assert_eq!(refused.kind(), ErrorKind::Config, "{refused}");
    // There is no replica, so what must reach one never does; what need not is not held up by it.
    let replicated = fast.with_durability(Durability::Replicated(1)).await.expect("a handle");
    let (careful, quick) = (draft().build(), draft().build());
    let waiting = tokio::spawn({
        let job = careful.clone();
        async move { replicated.push(&[job], AT).await }
    });
    let pushes = (0..100).map(|_| async { fast.push(&[draft().build()], AT).await });
    for pushed in futures::future::join_all(pushes).await {
        assert_eq!(pushed.expect("push"), [Pushed::Inserted]);
    }
    fast.push(&[quick], AT).await.expect("push");
    let error = waiting.await.expect("no panic").expect_err("it reached no replica");
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, Effect::Unknown), "{error}");
    assert!(fast.get(&careful.body.job(), AT).await.expect("get").is_some(), "it is stored all the same");
}
