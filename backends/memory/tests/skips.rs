//! How the suite's runner treats an engine that skips a property: it says so, and runs all the others.

use std::sync::atomic::{AtomicU32, Ordering};

use windlass_conformance::{Env, World, draft, run};
use windlass_core::Retention;
use windlass_memory::MemoryBackend;

struct Picky(MemoryBackend);

impl Env for Picky {
    type Backend = MemoryBackend;

    fn backend(&self) -> &MemoryBackend {
        &self.0
    }

    async fn with_retention(&self, _: Retention) -> MemoryBackend {
        MemoryBackend::new()
    }

    async fn server_timed(&self) -> MemoryBackend {
        MemoryBackend::new()
    }

    fn skips() -> &'static [(&'static str, &'static str)] {
        &[("it_flies", "it has no wings")]
    }
}

async fn fresh() -> Picky {
    Picky(MemoryBackend::new())
}

#[tokio::test]
async fn a_skipped_property_is_not_run_and_all_others_are() {
    let ran = AtomicU32::new(0);
    let property = async |w: &mut World<Picky>| {
        w.put(draft()).await;
        ran.fetch_add(1, Ordering::Relaxed);
    };
    run("it_flies", fresh, property).await;
    assert_eq!(ran.load(Ordering::Relaxed), 0);
    run("it_walks", fresh, property).await;
    assert_eq!(ran.load(Ordering::Relaxed), 1);
}

#[tokio::test]
#[should_panic(expected = "the job is stored")]
async fn a_property_that_does_not_hold_fails() {
    run("it_walks", fresh, async |w: &mut World<Picky>| drop(w.record(&draft().job()).await)).await;
}
