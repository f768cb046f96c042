//! The Postgres engine and the memory engine through the same random histories.

use windlass_conformance::{Env, model};
use windlass_memory::MemoryBackend;

use crate::common::fresh;

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().expect("a number"))
}

/// Histories of a hundred operations, a few at a time. `WINDLASS_MODEL_RUNS` says how many: 500 with
/// `cargo xtask test --long`. `WINDLASS_MODEL_SEED` says where to begin.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_answers_as_the_memory_engine_does() {
    const AT_ONCE: u64 = 4;
    let (first, runs) = (number("WINDLASS_MODEL_SEED", 0), number("WINDLASS_MODEL_RUNS", 40));
    let lanes: Vec<_> = (0..AT_ONCE)
        .map(|lane| {
            tokio::spawn(async move {
                for seed in (first..first + runs).filter(|seed| seed % AT_ONCE == lane) {
                    let (oracle, subject) = (MemoryBackend::new(), fresh().await);
                    model::compare(&oracle, subject.backend(), seed, 100).await?;
                }
                Ok::<(), String>(())
            })
        })
        .collect();
    for lane in lanes {
        if let Err(story) = lane.await.expect("a lane") {
            panic!("{story}");
        }
    }
}
