//! The SQLite engine against the memory engine over random histories.

mod common;

use common::Folder;
use windlass_conformance::model;
use windlass_memory::MemoryBackend;

/// Histories of 100 operations; `WINDLASS_MODEL_RUNS` asks for more.
#[tokio::test]
async fn it_goes_through_random_histories_as_memory_does() {
    let runs = std::env::var("WINDLASS_MODEL_RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(60);
    for seed in 0..runs {
        let folder = Folder::new();
        let (oracle, subject) = (MemoryBackend::new(), folder.open("jobs.db").await);
        model::compare(&oracle, &subject, seed, 100).await.unwrap();
    }
}
