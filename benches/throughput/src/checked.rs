//! The count of each job's runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

/// One counter a job.
#[derive(Clone)]
pub(crate) struct Runs {
    counts: Arc<Vec<AtomicU8>>,
    total: Arc<AtomicUsize>,
}

impl Runs {
    pub(crate) fn new(jobs: usize) -> Self {
        let counts = std::iter::repeat_with(AtomicU8::default).take(jobs).collect();
        Self { counts: Arc::new(counts), total: Arc::default() }
    }

    pub(crate) fn count(&self, job: usize) {
        self.counts[job].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a run and says whether it was the last one awaited.
    pub(crate) fn count_last(&self, job: usize) -> bool {
        self.count(job);
        self.total.fetch_add(1, Ordering::AcqRel) + 1 == self.counts.len()
    }

    /// Every job ran exactly once.
    pub(crate) fn assert_exactly_once(&self) {
        let off = self.counts.iter().filter(|count| count.load(Ordering::Relaxed) != 1).count();
        assert_eq!(off, 0, "{off} jobs did not run exactly once");
    }
}
