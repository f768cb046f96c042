//! A large backlog, and many jobs that come due at once: a claim costs what it costs without them, and no call holds the
//! server up. On a server of its own.
//!
//! `WINDLASS_BACKLOG=1000000` runs it at full size and prints the slowest calls. What is asserted is work and processor time:
//! by the clock a call also waits for whatever else the machine does.

mod support;

use std::collections::HashMap;
use std::time::Duration;

use windlass_conformance::{complete, draft};
use windlass_core::{
    At, Backend, Claim, Inspect, Kind, NewJob, Nonce, QueueName, SessionId, StateKind, Sweep, Verdict,
};
use windlass_redis::{RedisBackend, RedisOptions};
use windlass_servers::Redis;

const AT: At = At::Server;
const MAIL: QueueName = QueueName::from_static("mail");
const CLAIM: usize = 64;

fn claim() -> Claim {
    Claim {
        session: SessionId::random(),
        nonce: Nonce::random(),
        queues: vec![MAIL],
        kinds: [(Kind::from_static("greet"), 1)].into_iter().collect(),
        limit: CLAIM,
        ahead: 0,
        suspects: true,
        lease: Duration::from_secs(300),
    }
}

/// How often each command was called so far, by the server's own count.
fn commands(server: &Redis) -> HashMap<String, u64> {
    let info = server.ask(&["INFO", "commandstats"]).expect("INFO");
    let line = |line: &str| -> Option<(String, u64)> {
        let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        Some((name.to_owned(), rest.split(',').next()?.parse().ok()?))
    };
    info.lines().filter_map(line).filter(|(name, _)| name != "info" && name != "ping").collect()
}

fn total(server: &Redis) -> u64 {
    commands(server).values().sum()
}

/// Settles what was claimed and claims more, a few times; the most commands that one round cost.
async fn rounds(server: &Redis, backend: &RedisBackend, verdicts: &mut Vec<Verdict>, times: usize) -> u64 {
    let mut most = 0;
    for _ in 0..times {
        let before = total(server);
        let (_, claimed) = backend.settle_and_claim(verdicts, &claim(), AT).await.expect("work");
        most = most.max(total(server) - before);
        assert_eq!(claimed.jobs.len(), CLAIM);
        *verdicts = claimed.jobs.into_iter().map(|job| Verdict::new(job.lease, complete())).collect();
    }
    most
}

async fn push(backend: &RedisBackend, count: usize, job: impl Fn() -> NewJob) {
    for from in (0..count).step_by(1_000) {
        let batch: Vec<NewJob> = (from..count.min(from + 1_000)).map(|_| job()).collect();
        backend.push(&batch, AT).await.expect("push");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backlog_costs_a_claim_nothing_and_no_call_holds_the_server_up() {
    let whole = std::env::var("WINDLASS_BACKLOG").ok().map(|size| size.parse::<usize>().expect("a number"));
    let waiting = whole.unwrap_or(40_000);
    let delayed = waiting / 10;
    let server = tokio::task::block_in_place(Redis::start).expect("a private Redis");
    let backend = support::open(RedisOptions::new(server.url())).await;
    let mut verdicts = Vec::new();
    push(&backend, 1_000, || draft().build()).await;
    rounds(&server, &backend, &mut verdicts, 1).await;
    let few = rounds(&server, &backend, &mut verdicts, 5).await;
    push(&backend, waiting, || draft().build()).await;
    let many = rounds(&server, &backend, &mut verdicts, 20).await;
    println!("commands a round of {CLAIM}: {few} with hundreds waiting, {many} with {waiting}");
    assert!(many <= few, "{many} commands a round instead of {few}");

    // All due together, in three seconds.
    server.ask(&["CONFIG", "SET", "slowlog-max-len", "10000"]).expect("CONFIG");
    server.ask(&["CONFIG", "SET", "slowlog-log-slower-than", "1000"]).expect("CONFIG");
    let ahead = Duration::from_secs(if whole.is_some() { 20 } else { 3 });
    let due = backend.now(AT).await.expect("now").saturating_add(ahead);
    push(&backend, delayed, || NewJob { due: windlass_core::Due::At(due), ..draft().build() }).await;
    while backend.now(AT).await.expect("now") <= due {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let scheduled = async || backend.queues(AT).await.expect("queues")[0].counts.get(StateKind::Scheduled);
    let (mut left, mut most, mut longest) = (scheduled().await, 0, 0.0_f64);
    assert_eq!(left, delayed as u64);
    let before = rounds(&server, &backend, &mut verdicts, 1).await;
    let after = scheduled().await;
    println!("the first claim let {} in with {before} commands", left - after);
    assert!(left - after <= 200 && left > after, "a claim lets in 200 at most");
    while left > 0 {
        let (calls, before) = (commands(&server), busy(&server));
        backend.sweep(&Sweep::default(), AT).await.expect("sweep");
        let now = commands(&server);
        let scripts = now["evalsha"] - calls["evalsha"];
        let all: u64 = now.values().sum::<u64>() - calls.values().sum::<u64>();
        most = most.max(all / scripts.max(1));
        longest =
            longest.max((busy(&server) - before) / f64::from(u32::try_from(scripts).unwrap_or(1).max(1)));
        let still = scheduled().await;
        assert!(still < left, "a sweep lets some in");
        left = still;
    }
    println!(
        "a call of a sweep: {most} commands and {longest:.4} s of the processor, the mean of the worst round"
    );
    assert!(most <= 200 * 6, "{most} commands a call");
    assert!(longest < 0.05, "{longest} s a call");
    let later = rounds(&server, &backend, &mut verdicts, 20).await;
    assert!(later <= few + 6, "{later} commands a round instead of {few}");
    let (calls, seconds) = (commands(&server)["evalsha"], busy(&server));
    let slowest = slowest(&server).await;
    println!(
        "{calls} calls took {seconds} s of the processor in all; the slowest by the clock, in ms: {slowest:?}"
    );
}

/// Seconds of processor time that the server has used.
fn busy(server: &Redis) -> f64 {
    let info = server.ask(&["INFO", "cpu"]).expect("INFO");
    let line = info.lines().find_map(|line| line.strip_prefix("used_cpu_user:")).expect("a time");
    line.trim().parse().expect("a number")
}

/// The calls that took longest by the server's clock, in ms.
async fn slowest(server: &Redis) -> Vec<u64> {
    let client = redis::Client::open(server.url()).expect("a URL");
    let mut connection = client.get_multiplexed_async_connection().await.expect("it answers");
    let entries: Vec<Vec<redis::Value>> =
        redis::cmd("SLOWLOG").arg("GET").arg(10_000).query_async(&mut connection).await.expect("SLOWLOG");
    let took = |entry: &Vec<redis::Value>| match entry.get(2) {
        Some(redis::Value::Int(micros)) => u64::try_from(*micros).unwrap_or(0) / 1_000,
        _ => 0,
    };
    let mut all: Vec<u64> = entries.iter().map(took).collect();
    all.sort_unstable_by(|a, b| b.cmp(a));
    all.truncate(10);
    all
}
