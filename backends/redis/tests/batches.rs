//! Verdicts of one batch that are about each other's jobs: plain completions are written together, and no later verdict of
//! the batch may see them as not yet written.

mod support;

use windlass_conformance::{complete, draft, retry, secs};
use windlass_core::{
    At, Backend, Claim, Inspect, Kind, Nonce, QueueName, SessionId, Settled, StateKind, Verdict,
};

const AT: At = At::Server;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_verdict_sees_what_those_before_it_in_the_batch_did() {
    let backend = support::open(support::options()).await;
    let jobs: Vec<_> = (0..3).map(|_| draft().build()).collect();
    backend.push(&jobs, AT).await.expect("push");
    let claim = Claim {
        session: SessionId::random(),
        nonce: Nonce::random(),
        queues: vec![QueueName::from_static("mail")],
        kinds: [(Kind::from_static("greet"), 1)].into_iter().collect(),
        limit: 3,
        ahead: 0,
        suspects: true,
        lease: secs(30),
    };
    let runs = backend.claim(&claim, AT).await.expect("claim").jobs;
    let lease = |at: usize| runs[at].lease.clone();
    // The child waits for a job that completes earlier in the same batch, which must not strand it.
    let child = draft().parents(&[lease(0).job]);
    let address = child.job();
    let verdicts = [
        Verdict::new(lease(0), complete()),
        Verdict { then: vec![child.build()], ..Verdict::new(lease(1), complete()) },
        Verdict::new(lease(2), complete()),
        Verdict::new(lease(2), retry(secs(5))),
        Verdict::new(lease(0), retry(secs(5))),
    ];
    let settled = backend.settle(&verdicts, AT).await.expect("settle");
    let done = Settled::Applied(StateKind::Completed);
    assert_eq!(settled, [done, done, done, Settled::AlreadyApplied, Settled::AlreadyApplied]);
    let record = backend.get(&address, AT).await.expect("get").expect("the child is stored");
    assert_eq!(record.state.kind(), StateKind::Ready);
}
