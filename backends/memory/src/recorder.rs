//! What a test asks about: everything ever dispatched, whatever became of it since.

use std::sync::Arc;

use windlass_core::{Body, Timestamp};

/// One dispatch, as it was taken in.
#[derive(Clone, Debug)]
pub struct Dispatched {
    /// Which dispatch it was, from 1. Forgetting the log does not start it again.
    pub number: usize,
    /// What was dispatched.
    pub body: Arc<Body>,
    /// When.
    pub at: Timestamp,
    /// When it was due; `at` or earlier means at once.
    pub due: Timestamp,
}

/// The log of dispatches.
#[derive(Default)]
pub(crate) struct Recorder {
    log: Vec<Dispatched>,
    taken_in: usize,
}

impl Recorder {
    pub(crate) fn take_in(&mut self, body: Arc<Body>, at: Timestamp, due: Timestamp) {
        self.taken_in += 1;
        self.log.push(Dispatched { number: self.taken_in, body, at, due });
    }

    pub(crate) fn log(&self) -> Vec<Dispatched> {
        self.log.clone()
    }

    pub(crate) fn taken_in(&self) -> usize {
        self.taken_in
    }

    pub(crate) fn forget(&mut self) {
        self.log.clear();
    }
}
