//! What a job costs the server: commands, as it counts them itself, and bytes. On a server of its own.

mod support;

use std::collections::HashMap;

use windlass_core::{
    At, Backend, Body, Claim, JobId, Keep, Kind, NewJob, Nonce, QueueName, Retention, Ruling, SessionId,
    Verdict,
};
use windlass_redis::{RedisBackend, RedisOptions};
use windlass_servers::Redis;

const MAIL: QueueName = QueueName::from_static("mail");
const GREET: Kind = Kind::from_static("greet");

fn usual_job() -> NewJob {
    let mut body = Body::new(JobId::fresh(), MAIL, GREET, [b'x'; 100]);
    body.max_attempts = 5;
    body.timeout = Some(std::time::Duration::from_secs(30)).into();
    NewJob::new(body)
}

async fn opened() -> (Redis, RedisBackend) {
    let server = Redis::start().expect("a private Redis");
    // Few enough that ends are forgotten while others come.
    let completed = Keep::new(1_000, std::time::Duration::from_secs(3_600));
    let retention = Retention { completed, ..Retention::default() };
    let options = RedisOptions::new(server.url()).retention(retention);
    let backend = RedisBackend::connect_with(options).await.expect("it answers");
    (server, backend)
}

/// How often the server was called, by its own count, scripts' inner calls included.
async fn calls(connection: &mut redis::aio::MultiplexedConnection) -> HashMap<String, u64> {
    let info: String = redis::cmd("INFO").arg("commandstats").query_async(connection).await.expect("INFO");
    let line = |line: &str| -> Option<(String, u64)> {
        let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        Some((name.to_owned(), rest.split(',').next()?.parse().ok()?))
    };
    info.lines().filter_map(line).collect()
}

async fn connection(server: &Redis) -> redis::aio::MultiplexedConnection {
    let client = redis::Client::open(server.url()).expect("a URL");
    client.get_multiplexed_async_connection().await.expect("it answers")
}

/// Calls since `before`, without those of the counting itself.
fn since(before: &HashMap<String, u64>, after: &HashMap<String, u64>) -> u64 {
    let told: u64 = after.iter().map(|(name, count)| count - before.get(name).unwrap_or(&0)).sum();
    for (name, count) in after {
        let grown = count - before.get(name).unwrap_or(&0);
        if grown > 0 {
            println!("  {name}: {grown}");
        }
    }
    told - 1
}

#[tokio::test]
#[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
async fn a_job_costs_few_commands() {
    const JOBS: usize = 6_400;
    let (server, backend) = opened().await;
    let mut counting = connection(&server).await;
    backend.push(&[usual_job()], At::Server).await.expect("push");
    let before = calls(&mut counting).await;
    for _ in 0..JOBS / 100 {
        let batch: Vec<_> = (0..100).map(|_| usual_job()).collect();
        backend.push(&batch, At::Server).await.expect("push");
    }
    let pushed = calls(&mut counting).await;
    let a_job = since(&before, &pushed) as f64 / JOBS as f64;
    println!("bulk dispatch, 100 a call: {a_job:.3} commands a job");
    assert!(a_job <= 0.1);

    let mut claim = Claim {
        session: SessionId::random(),
        nonce: Nonce::random(),
        queues: vec![MAIL],
        kinds: [(GREET, 1)].into_iter().collect(),
        limit: 64,
        ahead: 0,
        suspects: true,
        lease: std::time::Duration::from_secs(30),
    };
    let (mut ran, mut verdicts) = (0, Vec::new());
    loop {
        claim.nonce = Nonce::random();
        let (_, claimed) = backend.settle_and_claim(&verdicts, &claim, At::Server).await.expect("work");
        if claimed.jobs.is_empty() {
            break;
        }
        ran += claimed.jobs.len();
        let complete =
            |job: windlass_core::ClaimedJob| Verdict::new(job.lease, Ruling::Complete { output: None });
        verdicts = claimed.jobs.into_iter().map(complete).collect();
    }
    assert_eq!(ran, JOBS + 1);
    let a_job = since(&pushed, &calls(&mut counting).await) as f64 / ran as f64;
    println!("claim and settle, 64 a call: {a_job:.3} commands a job");
    assert!(a_job <= 0.4);
}

#[tokio::test]
#[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
async fn a_waiting_job_takes_few_bytes() {
    const JOBS: usize = 100_000;
    let (server, backend) = opened().await;
    let mut counting = connection(&server).await;
    backend.push(&[usual_job()], At::Server).await.expect("push");
    let used = async |connection: &mut redis::aio::MultiplexedConnection| -> u64 {
        let info: String = redis::cmd("INFO").arg("memory").query_async(connection).await.expect("INFO");
        let line = info.lines().find_map(|line| line.strip_prefix("used_memory:")).expect("used_memory");
        line.trim().parse().expect("a number")
    };
    let before = used(&mut counting).await;
    for _ in 0..JOBS / 1_000 {
        let batch: Vec<_> = (0..1_000).map(|_| usual_job()).collect();
        backend.push(&batch, At::Server).await.expect("push");
    }
    let a_job = (used(&mut counting).await - before) as f64 / JOBS as f64;
    println!("a waiting job with 100 bytes of payload: {a_job:.1} bytes");
    assert!(a_job <= 240.0);
}
