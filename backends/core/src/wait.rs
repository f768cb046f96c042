//! Waiting for something to do.

/// Why a wait ended. A hint: it may lie, and a claim or an extend tells the truth.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wake {
    /// There may be work in one of the queues: claim.
    Work,
    /// Somebody has cancelled a job of this session: extend, and hear which.
    Control,
    /// Nothing happened for as long as was asked.
    Nothing,
}
