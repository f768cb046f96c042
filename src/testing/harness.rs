//! What a queue under test carries beside its engine: crashes that are planned, and the jobs that run inline.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::crash::Step;
use super::inline::Running;

/// Shared by all handles of a queue under test.
#[derive(Default)]
pub(crate) struct Harness {
    crashes: Mutex<VecDeque<Step>>,
    inline: Mutex<Option<Arc<Running>>>,
    /// Whether a handler was cut off while it waited.
    cut_off: AtomicBool,
}

impl Harness {
    pub(crate) fn plan_crash(&self, step: Step) {
        lock(&self.crashes).push_back(step);
    }

    pub(crate) fn next_crash(&self) -> Option<Step> {
        lock(&self.crashes).pop_front()
    }

    pub(crate) fn note_cut_off(&self) {
        self.cut_off.store(true, Ordering::Relaxed);
    }

    pub(crate) fn was_cut_off(&self) -> bool {
        self.cut_off.load(Ordering::Relaxed)
    }

    /// Puts the jobs that run inline in place; `None` when others are already.
    pub(crate) fn start_inline(&self, running: Arc<Running>) -> Option<()> {
        let mut inline = lock(&self.inline);
        inline.is_none().then(|| *inline = Some(running))
    }

    pub(crate) fn stop_inline(&self) {
        lock(&self.inline).take();
    }

    pub(crate) fn inline(&self) -> Option<Arc<Running>> {
        lock(&self.inline).clone()
    }
}

fn lock<T>(part: &Mutex<T>) -> MutexGuard<'_, T> {
    part.lock().unwrap_or_else(PoisonError::into_inner)
}
