//! A cluster of three masters with a replica each: jobs of many queues, a slot that moves, a master that dies.

mod support;

use std::time::Duration;

use windlass_conformance::{complete, draft};
use windlass_core::{
    At, Backend, Claim, Inspect, Kind, Nonce, Pushed, QueueName, SessionId, Settled, StateKind, Sweep,
    Verdict, Wake,
};
use windlass_redis::{RedisBackend, RedisOptions};
use windlass_servers::RedisCluster;

const AT: At = At::Server;

fn claim(queues: &[QueueName]) -> Claim {
    Claim {
        session: SessionId::random(),
        nonce: Nonce::random(),
        queues: queues.to_vec(),
        kinds: [(Kind::from_static("greet"), 1)].into_iter().collect(),
        limit: 100,
        ahead: 0,
        suspects: true,
        lease: Duration::from_secs(30),
    }
}

/// Goes on calling until it succeeds: what a worker does about errors that may pass.
async fn until_it_works<T>(mut verb: impl AsyncFnMut() -> windlass_core::Result<T>) -> T {
    for _ in 0..600 {
        match verb().await {
            Ok(done) => return done,
            Err(error) => assert!(error.is_retryable(), "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("it never worked again");
}

async fn drain(backend: &RedisBackend, queues: &[QueueName]) -> usize {
    let mut ran = 0;
    let mut verdicts: Vec<Verdict> = Vec::new();
    loop {
        let one = claim(queues);
        let both = until_it_works(async || {
            let both = backend.settle_and_claim(&verdicts, &one, AT).await;
            if both.is_err() {
                // What the queues before the one that failed gave.
                until_it_works(async || backend.hand_back(one.session, None, AT).await).await;
            }
            both
        });
        let (settled, claimed) = both.await;
        let applied = [Settled::Applied(StateKind::Completed), Settled::AlreadyApplied];
        assert!(settled.iter().all(|settled| applied.contains(settled)), "{settled:?}");
        if claimed.jobs.is_empty() {
            return ran;
        }
        ran += claimed.jobs.len();
        verdicts = claimed.jobs.into_iter().map(|job| Verdict::new(job.lease, complete())).collect();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_of_many_queues_live_through_the_death_of_a_master() {
    let mut cluster = tokio::task::block_in_place(RedisCluster::start).expect("a private cluster");
    let options = RedisOptions::new(cluster.url()).response_timeout(Duration::from_secs(2));
    let backend = support::open(options).await;
    const NAMES: [&str; 6] = ["mail", "bulk", "video", "sms", "audit", "reports"];
    let queues: Vec<QueueName> = NAMES.iter().map(|name| QueueName::from_static(name)).collect();
    let batch =
        || NAMES.iter().flat_map(|name| (0..5).map(|_| draft().queue(name).build())).collect::<Vec<_>>();
    assert_eq!(backend.push(&batch(), AT).await.expect("push"), [Pushed::Inserted; 30]);
    assert_eq!(drain(&backend, &queues).await, 30);

    // A rider for a queue at another node, and a sleeper.
    let parent = draft().queue("mail").build();
    backend.push(&[parent], AT).await.expect("push");
    let run = backend.claim(&claim(&queues), AT).await.expect("claim").jobs.remove(0);
    let riders: Vec<_> = NAMES.iter().map(|name| draft().queue(name).build()).collect();
    let verdict = Verdict { then: riders, ..Verdict::new(run.lease, complete()) };
    backend.settle(&[verdict], AT).await.expect("settle");
    backend.sweep(&Sweep::default(), AT).await.expect("sweep");
    assert_eq!(drain(&backend, &queues).await, 6);
    let (sleeping, all) = (backend.clone(), queues.clone());
    let sleeper =
        tokio::spawn(
            async move { sleeping.wait(SessionId::random(), &all, None, Duration::from_secs(30)).await },
        );
    tokio::time::sleep(Duration::from_millis(200)).await;
    backend.push(&[draft().queue("reports").build()], AT).await.expect("push");
    assert_eq!(sleeper.await.expect("the sleeper").expect("wait"), Wake::Work);
    assert_eq!(drain(&backend, &queues).await, 1);

    // Each master dies once in its turn, the one that was connected to first among them.
    for dead in 0..3 {
        backend.push(&batch(), AT).await.expect("push");
        for queue in cluster.nodes() {
            // What is not replicated is lost with a master: that is what this test is not about.
            drop(queue.ask(&["WAIT", "1", "1000"]));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        cluster.nodes()[dead].kill().expect("kill");
        assert_eq!(drain(&backend, &queues).await, 30, "after the death of master {dead}");
        let live: u64 = until_it_works(async || backend.queues(AT).await)
            .await
            .iter()
            .map(|queue| queue.counts.live())
            .sum();
        assert_eq!(live, 0);
        tokio::task::block_in_place(|| cluster.nodes()[dead].restart()).expect("restart");
        // It comes back as a replica, and must have caught up before the next one dies.
        for node in cluster.nodes() {
            for _ in 0..400 {
                let info = node.ask(&["INFO", "replication"]).unwrap_or_default();
                if info.contains("master_link_status:up")
                    || (info.contains("role:master") && info.contains("slave0"))
                {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}
