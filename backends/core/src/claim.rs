//! Claiming: Ready to Running, with a lease.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::limits::{LEASE_MAX, LEASE_MIN};
use crate::{Body, Error, Kind, Lease, Nonce, QueueName, Result, SessionId, Timestamp};

/// The kinds a worker can run, each with the newest version of the payload that it knows.
///
/// A job is claimable when its kind is named and its `min_reader` is not above that version. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Kinds(Arc<HashMap<Kind, u16>>);

impl Kinds {
    /// Whether a job of `kind` that asks for at least `min_reader` can be run.
    #[must_use]
    pub fn can_run(&self, kind: &Kind, min_reader: u16) -> bool {
        self.0.get(kind).is_some_and(|version| min_reader <= *version)
    }

    /// The kinds and their versions, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&Kind, u16)> {
        self.0.iter().map(|(kind, version)| (kind, *version))
    }
}

impl FromIterator<(Kind, u16)> for Kinds {
    fn from_iter<I: IntoIterator<Item = (Kind, u16)>>(kinds: I) -> Self {
        Self(Arc::new(kinds.into_iter().collect()))
    }
}

/// What a worker asks for.
#[derive(Clone, Debug)]
pub struct Claim {
    /// Who asks.
    pub session: SessionId,
    /// Random for each call.
    pub nonce: Nonce,
    /// The named queues to look in, the first one first: a later queue is looked in only for what the earlier ones
    /// left of the limit.
    pub queues: Vec<QueueName>,
    /// What the worker can run. What it cannot is moved aside, bounded, and waits for one that can.
    pub kinds: Kinds,
    /// Jobs that start at once. With `ahead` at most 1,000.
    pub limit: usize,
    /// Jobs beyond `limit` that the worker takes ahead and has not started. They count no lost lease until an extend
    /// names them as started.
    pub ahead: usize,
    /// Whether one *suspect* (a job that has lost a lease) may be among them. A worker asks for none while it has
    /// one in hand: so a job that kills its process takes no second suspect with it.
    pub suspects: bool,
    /// How long the leases last without an extend: 1 s to 24 h.
    pub lease: Duration,
}

impl Claim {
    /// Checks the claim; every engine calls it first.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) names the field, the value and the limit.
    pub fn validate(&self) -> Result<()> {
        crate::backend::check_batch("claim", self.limit.saturating_add(self.ahead))?;
        Self::validate_lease(self.lease)
    }

    /// Checks the length of a lease; every engine calls it when one is extended.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) outside of 1 s to 24 h.
    pub fn validate_lease(lease: Duration) -> Result<()> {
        if lease < LEASE_MIN || lease > LEASE_MAX {
            return Err(Error::invalid(format!(
                "lease of {lease:?} is out of range: use {} s to {} s (24 h)",
                LEASE_MIN.as_secs(),
                LEASE_MAX.as_secs()
            )));
        }
        Ok(())
    }
}

/// A claimed job: what a worker needs to run it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClaimedJob {
    /// The right to say how it ended.
    pub lease: Lease,
    /// What it is.
    pub body: Arc<Body>,
    /// Attempts before this one.
    pub attempts: u16,
    /// Leases lost before this one.
    pub lost_leases: u16,
    /// How often the job was revived.
    pub generation: u32,
    /// When the engine took it in.
    pub created_at: Timestamp,
    /// When the job is no longer wanted.
    pub deadline: Option<Timestamp>,
    /// Whether it was taken ahead, beyond the claim's `limit`.
    pub ahead: bool,
    /// Whether it is a suspect: it lost a lease, started or ahead, and no other suspect came with it.
    pub suspect: bool,
}

/// What a claim brought.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Claimed {
    /// The jobs, in claim order. Those taken ahead come last.
    pub jobs: Vec<ClaimedJob>,
    /// Whether there is more to look at now: the limit was filled, or the engine stopped at a bound of its own with
    /// nothing to show for it. With free slots, claim again at once.
    pub more: bool,
    /// When the next Scheduled job of these queues is due; `None` when none is. It may be early, a later push may
    /// bring it forward, and expiring leases do not count. Exact in virtual time.
    pub wake_at: Option<Timestamp>,
    /// What the engine's clock showed.
    pub now: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(limit: usize, ahead: usize, lease: Duration) -> Claim {
        Claim {
            session: SessionId::random(),
            nonce: Nonce::random(),
            queues: vec![QueueName::from_static("mail")],
            kinds: Kinds::default(),
            limit,
            ahead,
            suspects: true,
            lease,
        }
    }

    #[test]
    fn a_claim_is_bounded() {
        claim(1_000, 0, LEASE_MIN).validate().unwrap();
        claim(0, 0, LEASE_MAX).validate().unwrap();
        for bad in [claim(1_000, 1, LEASE_MIN), claim(usize::MAX, 1, LEASE_MIN)] {
            assert!(bad.validate().unwrap_err().to_string().contains("at most 1000"));
        }
        for lease in [Duration::ZERO, Duration::from_millis(999), Duration::MAX] {
            assert!(claim(1, 0, lease).validate().unwrap_err().to_string().contains("lease of"));
        }
    }

    #[test]
    fn kinds_know_versions() {
        let kinds: Kinds = [(Kind::from_static("a"), 2)].into_iter().collect();
        assert!(kinds.can_run(&Kind::from_static("a"), 2));
        assert!(!kinds.can_run(&Kind::from_static("a"), 3));
        assert!(!kinds.can_run(&Kind::from_static("b"), 1));
        assert_eq!(kinds.iter().count(), 1);
    }
}
