//! The shadow of a job: where it stands, as far as what went over the wire tells.

use std::sync::Arc;
use std::time::Duration;

use windlass_core::{Body, JobId, JobRef, Lease, Nonce, RecordState, SessionId, StateKind, Timestamp};

use crate::jobs::Deed;

/// Where a job stands, as far as what went over the wire tells.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Stand {
    /// Blocked, Scheduled or Ready.
    Waiting,
    Running(Hold),
    Ended(StateKind, Timestamp),
}

/// A lease, as it was given.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Hold {
    pub(super) lease: Lease,
    pub(super) session: SessionId,
    pub(super) client: u32,
    pub(super) until: Timestamp,
    pub(super) lasts: Duration,
    pub(super) started: bool,
    /// Whether the client heard of it.
    pub(super) delivered: bool,
}

/// The shadow of a job.
#[derive(Clone, Debug)]
pub(super) struct Shadow {
    pub(super) job: JobRef,
    pub(super) body: Arc<Body>,
    pub(super) stand: Stand,
    pub(super) created: Timestamp,
    pub(super) due: Timestamp,
    /// Its place among all pushes.
    pub(super) order: u64,
    /// What it is told to do, when that can be read.
    pub(super) deed: Option<Deed>,
    pub(super) deadline: Option<Timestamp>,
    /// Whether an operator ever called it off.
    pub(super) called_off: bool,
    /// Whether no operator has touched it, and nothing but its due time can hold it back.
    pub(super) plain: bool,
    pub(super) epoch: u64,
    pub(super) generation: u32,
    pub(super) attempts: u16,
    pub(super) lost: u16,
    /// Leases lost since its last verdict, and the most of it.
    pub(super) lost_at_once: u16,
    pub(super) most_lost_at_once: u16,
    pub(super) suspect: bool,
    pub(super) settled_by: Option<(u64, Nonce)>,
    pub(super) cancel: bool,
    /// When the last lease ended or will end.
    pub(super) last_until: Timestamp,
}

pub(super) fn ended_at(state: &RecordState) -> Option<Timestamp> {
    match state {
        RecordState::Completed { at, .. }
        | RecordState::Cancelled { at, .. }
        | RecordState::Dead { at, .. } => Some(*at),
        _ => None,
    }
}

/// The lower half of an id: what tells one from another within a history.
#[expect(clippy::cast_possible_truncation, reason = "the lower half is wanted")]
pub(super) fn word(id: JobId) -> u64 {
    id.as_uuid().as_u128() as u64
}
