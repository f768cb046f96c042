//! The beat of a session: which leases it still holds, and what it has to say while running.

use crate::limits::{LOG_LINE_MAX_BYTES, TEXT_MAX_BYTES, clip};
use crate::{Lease, Timestamp};

/// A lease that a session still holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Held {
    /// The lease.
    pub lease: Lease,
    /// Whether the handler has started. A job taken ahead counts a lost lease only from then on.
    pub started: bool,
}

/// What became of one held lease.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kept {
    /// It lasts for another lease from now.
    Kept,
    /// It lasts, and somebody has asked for the job's cancellation.
    CancelRequested,
    /// It no longer stands.
    Lost,
}

/// How far a running job has come.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Progress {
    /// 0 to 100.
    pub percent: u8,
    /// What it is doing; clipped to 8 KiB.
    pub note: Box<str>,
}

impl Progress {
    /// `percent` (above 100 counts as 100) and a note, clipped.
    #[must_use]
    pub fn new(percent: u8, note: &str) -> Self {
        Self { percent: percent.min(100), note: clip(note, TEXT_MAX_BYTES).into() }
    }
}

/// A line a handler wrote for people.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogLine {
    /// When the engine took it in.
    pub at: Timestamp,
    /// The text, clipped to 1 KiB.
    pub text: Box<str>,
}

/// What a running job says: fenced like a verdict.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Note {
    /// The right to say so.
    pub lease: Lease,
    /// How far it has come; `None` leaves it as it is.
    pub progress: Option<Progress>,
    /// Lines to append; the last hundred are kept.
    pub log: Vec<Box<str>>,
}

impl Note {
    /// A note that says nothing yet.
    #[must_use]
    pub fn new(lease: Lease) -> Self {
        Self { lease, progress: None, log: Vec::new() }
    }

    /// Appends a line, clipped to 1 KiB.
    pub fn push_line(&mut self, text: &str) {
        self.log.push(clip(text, LOG_LINE_MAX_BYTES).into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{JobId, JobRef, Nonce, QueueName};

    #[test]
    fn progress_and_lines_are_clipped() {
        let progress = Progress::new(250, &"x".repeat(10_000));
        assert_eq!((progress.percent, progress.note.len()), (100, TEXT_MAX_BYTES));
        let job = JobRef::new(QueueName::from_static("mail"), JobId::fresh());
        let mut note = Note::new(Lease { job, epoch: 1, nonce: Nonce::from_u128(1), handle: 0 });
        note.push_line(&"y".repeat(10_000));
        assert_eq!(note.log[0].len(), LOG_LINE_MAX_BYTES);
    }
}
