//! What a test asks about: everything ever dispatched, whatever became of it since.

use std::sync::Arc;

use windlass_core::{Body, Timestamp};

/// One dispatch, as it was taken in.
#[derive(Clone, Debug)]
pub struct Dispatched {
    /// What was dispatched.
    pub body: Arc<Body>,
    /// When.
    pub at: Timestamp,
    /// When it was due; `at` or earlier means at once.
    pub due: Timestamp,
}
