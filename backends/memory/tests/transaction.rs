//! Transactions over memory beyond what the suite asks of every engine: they are optimistic, and fail at the commit.

use windlass_conformance::{complete, draft, mail, release, retry, secs};
use windlass_core::{
    At, Backend, Claim, ErrorKind, Inspect, Kind, Lease, Manage, Nonce, OnConflict, Pushed, Ruling,
    SessionId, Settled, StateKind, Timestamp, Transactional, Until, Verdict,
};
use windlass_memory::MemoryBackend;

const NOW: At = At::Instant(Timestamp::VIRTUAL_START);

async fn running(backend: &MemoryBackend) -> Lease {
    backend.push(&[draft().build()], NOW).await.expect("the verb");
    let claim = Claim {
        session: SessionId::from_u128(1),
        nonce: Nonce::random(),
        queues: vec![mail()],
        kinds: [(Kind::from_static("greet"), 1)].into_iter().collect(),
        limit: 1,
        ahead: 0,
        suspects: true,
        lease: secs(30),
    };
    backend.claim(&claim, NOW).await.expect("the verb").jobs.remove(0).lease
}

async fn count(backend: &MemoryBackend) -> u64 {
    let queues = backend.queues(NOW).await.expect("the verb");
    queues.iter().map(|queue| StateKind::ALL.iter().map(|state| queue.counts.get(*state)).sum::<u64>()).sum()
}

#[tokio::test]
async fn a_commit_fails_when_another_took_the_key_or_the_id() {
    let backend = MemoryBackend::new();
    let keyed = || draft().unique("k", OnConflict::Skip, Until::End).build();
    let (mine, twin) = (keyed(), draft().build());
    let mut tx = backend.begin();
    let batch = [mine, twin.clone()];
    assert_eq!(backend.push_in(&mut tx, &batch, NOW).await.unwrap(), [Pushed::Inserted; 2]);
    backend.push(&[keyed()], NOW).await.unwrap();
    assert_eq!(tx.commit().await.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(count(&backend).await, 1, "nothing of it happened");

    let mut tx = backend.begin();
    backend.push_in(&mut tx, std::slice::from_ref(&twin), NOW).await.unwrap();
    backend.push(&[twin], NOW).await.unwrap();
    assert_eq!(tx.commit().await.unwrap_err().kind(), ErrorKind::Conflict);
}

#[tokio::test]
async fn a_commit_fails_when_its_lease_was_lost() {
    let backend = MemoryBackend::new();
    let lease = running(&backend).await;
    let mut tx = backend.begin();
    let effect = draft().build();
    backend.push_in(&mut tx, std::slice::from_ref(&effect), NOW).await.unwrap();
    let verdicts = [Verdict::new(lease.clone(), complete())];
    let settled = backend.settle_in(&mut tx, &verdicts, NOW).await.unwrap();
    assert_eq!(settled, [Settled::Applied(StateKind::Completed)]);
    backend.hand_back(SessionId::from_u128(1), None, NOW).await.unwrap();
    let error = tx.commit().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.to_string().contains("lease was lost"), "{error}");
    assert!(backend.peek(&effect.body.job()).is_none());
    assert_eq!(backend.peek(&lease.job).unwrap().state.kind(), StateKind::Ready);
}

#[tokio::test]
async fn a_refused_batch_leaves_nothing_in_the_transaction() {
    let backend = MemoryBackend::new();
    let mut tx = backend.begin();
    let batch = [draft().build(), draft().parents(&[draft().job()]).build()];
    let error = backend.push_in(&mut tx, &batch, NOW).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    tx.commit().await.unwrap();
    assert_eq!(count(&backend).await, 0);
}

#[tokio::test]
async fn a_parent_may_be_pushed_in_the_same_transaction() {
    let backend = MemoryBackend::new();
    let mut tx = backend.begin();
    let parent = draft();
    let child = draft().parents(&[parent.job()]);
    backend.push_in(&mut tx, &[parent.build()], NOW).await.unwrap();
    backend.push_in(&mut tx, &[child.clone().build()], NOW).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(backend.peek(&child.job()).unwrap().state.kind(), StateKind::Blocked);
}

#[tokio::test]
async fn a_superseding_push_replaces_at_the_commit() {
    let backend = MemoryBackend::new();
    let keyed = || draft().unique("k", OnConflict::Supersede, Until::End);
    let old = keyed();
    backend.push(&[old.clone().build()], NOW).await.unwrap();
    let mut tx = backend.begin();
    let pushed = backend.push_in(&mut tx, &[keyed().build()], NOW).await.unwrap();
    assert_eq!(pushed, [Pushed::Superseded(old.job().id)]);
    assert_eq!(backend.peek(&old.job()).unwrap().state.kind(), StateKind::Ready);
    tx.commit().await.unwrap();
    assert_eq!(backend.peek(&old.job()).unwrap().state.kind(), StateKind::Cancelled);
}

#[tokio::test]
async fn each_ruling_is_answered_with_the_state_it_leads_to() {
    for asked in [false, true] {
        let come_back = if asked { StateKind::Cancelled } else { StateKind::Scheduled };
        let rulings: [(Ruling, StateKind); 6] = [
            (complete(), StateKind::Completed),
            (retry(secs(1)), come_back),
            (windlass_conformance::snooze(secs(1)), come_back),
            (windlass_conformance::call_off(), StateKind::Cancelled),
            (windlass_conformance::bury(), StateKind::Dead),
            (release(), if asked { StateKind::Cancelled } else { StateKind::Ready }),
        ];
        for (ruling, state) in rulings {
            let backend = MemoryBackend::new();
            let lease = running(&backend).await;
            if asked {
                backend.cancel(&lease.job, "no longer", NOW).await.unwrap();
            }
            let mut tx = backend.begin();
            let verdicts = [Verdict::new(lease.clone(), ruling)];
            let settled = backend.settle_in(&mut tx, &verdicts, NOW).await.unwrap();
            assert_eq!(settled, [Settled::Applied(state)]);
            tx.commit().await.unwrap();
            assert_eq!(backend.peek(&lease.job).unwrap().state.kind(), state);
        }
    }
}

#[tokio::test]
async fn a_transaction_cannot_mix_two_sorts_of_time() {
    let backend = MemoryBackend::new();
    let lease = running(&backend).await;
    let mut tx = backend.begin();
    let pushed = backend.push_in(&mut tx, &[draft().build()], At::Server).await;
    assert_eq!(pushed.unwrap_err().kind(), ErrorKind::Config);
    let verdicts = [Verdict::new(lease, complete())];
    let settled = backend.settle_in(&mut tx, &verdicts, At::Server).await;
    assert_eq!(settled.unwrap_err().kind(), ErrorKind::Config);
}
