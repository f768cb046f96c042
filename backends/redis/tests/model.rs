//! The Redis engine against the memory engine, over random histories.

mod support;

use windlass_conformance::model;
use windlass_memory::MemoryBackend;

/// How many histories of 100 operations: 500 in a long run, fewer every day.
fn runs() -> u64 {
    let set = std::env::var("WINDLASS_MODEL_RUNS").ok();
    set.map_or(40, |runs| runs.parse().expect("WINDLASS_MODEL_RUNS is a number"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_goes_through_the_same_histories_as_the_model() {
    for seed in 0..runs() {
        let subject = support::open(support::options()).await;
        if let Err(story) = model::compare(&MemoryBackend::new(), &subject, seed, 100).await {
            panic!("{story}");
        }
    }
}
