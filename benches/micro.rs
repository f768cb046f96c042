//! Micro-benchmarks: the parts of a job's way, each on its own, on the memory engine.
//!
//! `cargo bench --bench micro -- --quick`. What is counted is checked, outside of the time that is taken: that jobs were
//! new, that verdicts were applied, that the worker completed all.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use serde::{Deserialize, Serialize};
use tokio::runtime::Runtime;
use windlass::core::{
    At, Backend, Body, Claim, ClaimedJob, JobId, Kind, NewJob, Nonce, QueueName, Ruling, SessionId, Settled,
    StateKind, Verdict,
};
use windlass::prelude::*;
use windlass::{Codec, MemoryBackend};

const PAYLOAD_BYTES: usize = 100;

/// 100 bytes in JSON: `{"n":,"pad":""}` takes fifteen.
#[derive(Clone, Serialize, Deserialize, Job)]
#[job(name = "noop", timeout = "30s")]
struct Noop {
    n: usize,
    pad: String,
}

impl Noop {
    fn new(n: usize) -> Self {
        Self { n, pad: "x".repeat(PAYLOAD_BYTES - 15 - n.to_string().len()) }
    }
}

impl Handler for Noop {
    type Deps = ();
    type Error = Fault;

    async fn handle(Self { n, .. }: Self, (): (), _cx: &mut Context) -> Result<Outcome, Fault> {
        black_box(n);
        Ok(Outcome::Done)
    }
}

#[derive(Provide)]
struct App {}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime")
}

fn encoding(bench: &mut Criterion) {
    let job = Noop::new(7);
    for (name, codec) in [("json", Codec::Json), ("msgpack", Codec::MsgPack)] {
        let mut group = bench.benchmark_group(name);
        let bytes = codec.encode("noop", &job).expect("it can be written");
        assert!(codec == Codec::MsgPack || bytes.len() == PAYLOAD_BYTES, "{} bytes", bytes.len());
        assert_eq!(codec.decode::<Noop>(&bytes).expect("it can be read").pad, job.pad);
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function("encode", |bench| bench.iter(|| codec.encode("noop", black_box(&job))));
        group.bench_function("decode", |bench| bench.iter(|| codec.decode::<Noop>(black_box(&bytes))));
        group.finish();
    }
}

/// Calls `turn` so often, and gives it a new `state` every `turns` times; making the state takes no time, nor does dropping
/// it. So a measurement is that of a store with a bounded number of jobs in it, however long it runs.
#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
async fn timed<S>(
    times: u64,
    turns: u64,
    mut state: impl AsyncFnMut() -> S,
    mut turn: impl AsyncFnMut(&mut S),
) -> Duration {
    let (mut took, mut left) = (Duration::ZERO, times);
    while left > 0 {
        let mut current = state().await;
        let now = left.min(turns);
        let begun = Instant::now();
        for _ in 0..now {
            turn(&mut current).await;
        }
        took += begun.elapsed();
        left -= now;
    }
    took
}

fn dispatch(bench: &mut Criterion) {
    /// Jobs in a store before a new one is taken.
    const FULL: usize = 100_000;
    let runtime = runtime();
    let empty = async || Queue::new(MemoryBackend::new());
    let mut group = bench.benchmark_group("dispatch");
    group.throughput(Throughput::Elements(1));
    group.bench_function("one", |bench| {
        bench.to_async(&runtime).iter_custom(|times| {
            timed(times, FULL as u64, empty, async |queue| {
                let sent = queue.dispatch(Noop::new(7)).await.expect("memory takes it");
                assert!(sent.is_new());
            })
        });
    });
    group.throughput(Throughput::Elements(1_000));
    group.bench_function("batch of 1000", |bench| {
        bench.to_async(&runtime).iter_custom(|times| {
            timed(times, FULL as u64 / 1_000, empty, async |queue| {
                let sent = queue.dispatch_all((0..1_000).map(Noop::new)).await.expect("memory takes them");
                assert_eq!(sent.len(), 1_000);
            })
        });
    });
    group.finish();
}

/// A store with so many jobs in it, in the contract's own words.
async fn stocked(jobs: usize) -> MemoryBackend {
    let backend = MemoryBackend::new();
    for from in (0..jobs).step_by(1_000) {
        let batch = (from..jobs.min(from + 1_000)).map(|_| {
            NewJob::new(Body::new(
                JobId::fresh(),
                QueueName::from_static("default"),
                Kind::from_static("noop"),
                [b'x'; PAYLOAD_BYTES],
            ))
        });
        backend.push(&batch.collect::<Vec<_>>(), At::Server).await.expect("memory takes them");
    }
    backend
}

/// The contract alone: claim so many, and complete them.
fn claim_and_settle(bench: &mut Criterion) {
    const STOCK: usize = 64_000;
    let runtime = runtime();
    let mut group = bench.benchmark_group("claim and settle");
    for limit in [1, 64] {
        let claim = Claim {
            session: SessionId::random(),
            nonce: Nonce::random(),
            queues: vec![QueueName::from_static("default")],
            kinds: [(Kind::from_static("noop"), 1)].into_iter().collect(),
            limit,
            ahead: 0,
            suspects: true,
            lease: Duration::from_secs(30),
        };
        group.throughput(Throughput::Elements(limit as u64));
        group.bench_function(format!("batch of {limit}"), |bench| {
            bench.to_async(&runtime).iter_custom(|times| {
                let stock = async || (stocked(STOCK).await, claim.clone());
                timed(times, (STOCK / limit) as u64, stock, async |(backend, claim)| {
                    claim.nonce = Nonce::random();
                    let claimed = backend.claim(claim, At::Server).await.expect("memory gives");
                    assert_eq!(claimed.jobs.len(), limit);
                    let done = |job: ClaimedJob| Verdict::new(job.lease, Ruling::Complete { output: None });
                    let verdicts: Vec<Verdict> = claimed.jobs.into_iter().map(done).collect();
                    let settled = backend.settle(&verdicts, At::Server).await.expect("memory takes them");
                    let completed = Settled::Applied(StateKind::Completed);
                    assert!(settled.iter().all(|settled| *settled == completed), "{settled:?}");
                })
            });
        });
    }
    group.finish();
}

/// A whole worker, from its start to its end.
fn drain(bench: &mut Criterion) {
    const JOBS: usize = 10_000;
    let runtime = runtime();
    let mut group = bench.benchmark_group("worker");
    group.throughput(Throughput::Elements(JOBS as u64));
    group.sample_size(20);
    group.bench_function("drain of 10000", |bench| {
        bench.to_async(&runtime).iter_custom(|times| {
            let filled = async || {
                let queue = Queue::new(MemoryBackend::new());
                queue.dispatch_all((0..JOBS).map(Noop::new)).await.expect("memory takes them");
                queue
            };
            timed(times, 1, filled, async |queue| {
                let jobs = Registry::new(App {}).register::<Noop>();
                let worker = Worker::new(queue.clone(), jobs).until_empty();
                let report = tokio::spawn(worker.run()).await.expect("no panic").expect("it runs");
                assert_eq!(report.completed, JOBS as u64, "{report:?}");
            })
        });
    });
    group.finish();
}

criterion_group!(benches, encoding, dispatch, claim_and_settle, drain);
criterion_main!(benches);
