//! The Postgres engine and the memory engine through the same random histories.


use windlass_conformance::{Env, model};
use windlass_memory::MemoryBackend;

/// `WINDLASS_MODEL_RUNS` says how many histories of a hundred operations: 500 with `cargo xtask test --long`.
#[tokio::test]
async fn it_answers_as_the_memory_engine_does() {
    let runs: u64 = std::env::var("WINDLASS_MODEL_RUNS").map_or(12, |runs| runs.parse().expect("a number"));
    let first: u64 = std::env::var("WINDLASS_MODEL_SEED").map_or(0, |seed| seed.parse().expect("a number"));
    for seed in first..first + runs {
        let subject = crate::common::fresh().await;
        let oracle = MemoryBackend::new();
        if let Err(story) = model::compare(&oracle, subject.backend(), seed, 100).await {
            panic!("{story}");
        }
    }
}
