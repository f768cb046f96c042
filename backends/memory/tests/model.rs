//! The memory engine against itself over random histories: it is deterministic, and its invariants hold throughout.

use windlass_conformance::model;
use windlass_core::{At, Backend, Filter, Inspect, StateKind, Timestamp};
use windlass_memory::MemoryBackend;

#[tokio::test]
async fn two_stores_go_through_the_same_history_alike() {
    let mut seen = [0_u64; 7];
    for seed in 0..200 {
        let (oracle, subject) = (MemoryBackend::new(), MemoryBackend::new());
        model::compare(&oracle, &subject, seed, 100).await.unwrap();
        let later = At::Instant(Timestamp::VIRTUAL_START);
        for queue in oracle.queues(later).await.unwrap() {
            for state in StateKind::ALL {
                seen[state as usize] += queue.counts.get(state);
            }
        }
    }
    assert!(seen.iter().all(|count| *count > 100), "the histories reach every state: {seen:?}");
}

#[tokio::test]
async fn a_difference_is_told_with_its_history() {
    let (oracle, subject) = (MemoryBackend::new(), MemoryBackend::new());
    let stranger = windlass_conformance::draft().build();
    subject.push(&[stranger], At::Instant(Timestamp::VIRTUAL_START)).await.unwrap();
    let story = model::compare(&oracle, &subject, 7, 100).await.unwrap_err();
    assert!(story.starts_with("seed 7, operation 0:") && story.contains("differs"), "{story}");
    let page =
        subject.list(&Filter::default(), None, 10, At::Instant(Timestamp::VIRTUAL_START)).await.unwrap();
    assert!(!page.records.is_empty());
}
