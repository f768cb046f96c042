//! Identity: of a job, of a worker's session, of one claim; and the lease that binds the three.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{Error, QueueName, Result};

/// The identity of a job: made by the client, so that a dispatch whose answer was lost can be repeated safely.
///
/// Fresh ids are UUIDv7 (time first, so storage keeps them in order). Ids derived from a cause are UUIDv8 with
/// the cause's time first: the same cause gives the same id, and repeating it changes nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JobId(Uuid);

impl JobId {
    /// A fresh id for this moment: UUIDv7, RFC 9562 section 5.7.
    #[must_use]
    pub fn fresh() -> Self {
        Self(Uuid::now_v7())
    }

    /// An id given by the caller, such as one that another system made.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) for the nil id, which marks "no job" in too many systems.
    pub fn from_uuid(id: Uuid) -> Result<Self> {
        if id.is_nil() {
            return Err(Error::invalid("job id is the nil UUID: give a real one, such as UUIDv7"));
        }
        Ok(Self(id))
    }

    /// The id of what `cause` gives rise to as its `ordinal`-th effect in round `round`: always the same.
    ///
    /// UUIDv8 (RFC 9562 section 5.8): 48 bits of the cause's time, then 74 bits of FNV-1a over all the inputs
    /// (Fowler, Noll, Vo; 128 bits wide). It is no secret and need not be; it must only not collide by chance.
    #[must_use]
    pub fn derived(cause: Self, round: u64, ordinal: u32) -> Self {
        const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
        const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
        let mut hash = OFFSET;
        let parts = [&cause.0.as_bytes()[..], &round.to_be_bytes()[..], &ordinal.to_be_bytes()[..]];
        for byte in parts.into_iter().flatten() {
            hash = (hash ^ u128::from(*byte)).wrapping_mul(PRIME);
        }
        let mut bytes = hash.to_be_bytes();
        bytes[..6].copy_from_slice(&cause.0.as_bytes()[..6]);
        Self(uuid::Builder::from_custom_bytes(bytes).into_uuid())
    }

    /// The `n`-th id of a sequence, for tests whose output must not change from run to run. `n` 0 counts as 1.
    #[must_use]
    pub fn sequential(n: u64) -> Self {
        let mut bytes = [0; 16];
        bytes[8..].copy_from_slice(&n.max(1).to_be_bytes());
        Self(uuid::Builder::from_custom_bytes(bytes).into_uuid())
    }

    /// The id as a UUID.
    #[must_use]
    pub const fn as_uuid(&self) -> &Uuid {
        &self.0
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl std::str::FromStr for JobId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let id = Uuid::try_parse(text)
            .map_err(|error| Error::invalid("job id is not a UUID").with_source(error))?;
        Self::from_uuid(id)
    }
}

/// Where a job is: its named queue and its id. Atomicity is per named queue, so an address needs both.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct JobRef {
    /// The named queue that holds the job.
    pub queue: QueueName,
    /// The job.
    pub id: JobId,
}

impl JobRef {
    /// The job `id` in `queue`.
    #[must_use]
    pub const fn new(queue: QueueName, id: JobId) -> Self {
        Self { queue, id }
    }
}

impl fmt::Display for JobRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.queue, self.id)
    }
}

/// One start of one worker process. Random, never a host name: two processes must not share it, ever, since a
/// session that another keeps alive would keep its jobs from being handed on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SessionId(Uuid);

impl SessionId {
    /// A fresh random session: UUIDv4, 122 random bits.
    #[must_use]
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }

    /// The session with these bits, for engines reading it back and for seeded tests.
    #[must_use]
    pub const fn from_u128(bits: u128) -> Self {
        Self(Uuid::from_u128(bits))
    }

    /// The bits of the session.
    #[must_use]
    pub const fn as_u128(self) -> u128 {
        self.0.as_u128()
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A random number for each claim call. A store that lost writes can hand out an epoch twice; it cannot hand out
/// a nonce twice, so the fence compares both.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Nonce(u128);

impl Nonce {
    /// A fresh nonce: 122 random bits.
    #[must_use]
    pub fn random() -> Self {
        Self(Uuid::new_v4().as_u128())
    }

    /// The nonce with these bits, for engines reading it back and for seeded tests.
    #[must_use]
    pub const fn from_u128(bits: u128) -> Self {
        Self(bits)
    }

    /// The bits of the nonce.
    #[must_use]
    pub const fn as_u128(self) -> u128 {
        self.0
    }
}

impl fmt::Debug for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// The right to say how one run of one job ended: what a claim hands out and every verdict carries.
///
/// Whoever presents it is believed only while (id, epoch, nonce) are still those in storage.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Lease {
    /// The job.
    pub job: JobRef,
    /// How often the job had been claimed when this lease was given, this time included. Rises strictly per
    /// job and is never reset, not even by a revival.
    pub epoch: u64,
    /// The nonce of the claim call.
    pub nonce: Nonce,
    /// Whatever the engine wants to see again (a row address, a slot); opaque to everyone else and never trusted
    /// without the comparison above.
    pub handle: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derived_ids_repeat_for_one_cause_and_differ_for_another() {
        let cause = JobId::fresh();
        let id = JobId::derived(cause, 3, 0);
        assert_eq!(id, JobId::derived(cause, 3, 0));
        assert_ne!(id, JobId::derived(cause, 4, 0));
        assert_ne!(id, JobId::derived(cause, 3, 1));
        assert_ne!(id, JobId::derived(JobId::fresh(), 3, 0));
        assert_eq!(id.as_uuid().get_version_num(), 8);
        assert_eq!(
            id.as_uuid().as_bytes()[..6],
            cause.as_uuid().as_bytes()[..6],
            "the cause's time comes first"
        );
    }

    #[test]
    fn fresh_ids_are_version_7_and_rise() {
        let ids: Vec<_> = (0..1000).map(|_| JobId::fresh()).collect();
        assert!(ids.is_sorted() && ids.iter().all(|id| id.as_uuid().get_version_num() == 7));
        assert!(JobId::sequential(1) < JobId::sequential(2));
        assert_eq!(JobId::sequential(0), JobId::sequential(1));
    }

    #[test]
    fn an_id_must_be_a_uuid_and_not_nil() {
        assert!("7".parse::<JobId>().unwrap_err().to_string().contains("job id is not a UUID"));
        let nil = "00000000-0000-0000-0000-000000000000".parse::<JobId>().unwrap_err();
        assert!(nil.to_string().contains("nil"));
        let id = JobId::fresh();
        assert_eq!(id.to_string().parse::<JobId>().unwrap(), id);
        assert_eq!(JobRef::new(QueueName::from_static("mail"), id).to_string(), format!("mail/{id}"));
    }

    #[test]
    fn sessions_and_nonces_are_random_and_survive_storage() {
        let session = SessionId::random();
        assert_ne!(session, SessionId::random());
        assert_eq!(SessionId::from_u128(session.as_u128()), session);
        let nonce = Nonce::random();
        assert_ne!(nonce, Nonce::random());
        assert_eq!(Nonce::from_u128(nonce.as_u128()), nonce);
        assert_eq!(format!("{nonce:?}").len(), 32);
        assert_eq!(format!("{session:?}"), session.to_string());
    }
}
