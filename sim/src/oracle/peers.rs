//! Who is there: workers from their starts to their ends, dispatchers, operators; and what befalls them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use windlass_core::{JobId, Nonce, QueueName, SessionId, Timestamp};

use super::Oracle;
use super::shadow::Hold;
use crate::seat::Setup;

/// One client: a worker from its start to its end, a dispatcher, or an operator.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) setup: Option<Setup>,
    pub(super) alive: bool,
    pub(super) frozen: bool,
    pub(super) since: Timestamp,
    pub(super) thawed: Timestamp,
    pub(super) cut_off_until: Timestamp,
    /// When something last went wrong for it.
    pub(super) last_trouble: Timestamp,
    pub(super) active: BTreeSet<usize>,
    /// Verdicts in calls that have not returned.
    pub(super) in_flight: BTreeSet<(JobId, u64)>,
    /// Calls that may bring a suspect and have not returned.
    pub(super) seeking: usize,
    /// Verdicts of calls that failed.
    pub(super) failed: BTreeSet<(JobId, u64)>,
    /// Claims whose answers were lost, and when what they took has lapsed.
    pub(super) unknown: BTreeMap<Nonce, Timestamp>,
    /// Since when it cannot extend, and what ran then.
    pub(super) untrusted: Option<(Timestamp, Vec<usize>)>,
    /// Claims since each of its queues went first.
    pub(super) waits: BTreeMap<QueueName, u32>,
    /// Jobs that its last beat called started and no handler had begun, and when that was.
    pub(super) supposed: BTreeMap<(JobId, u64), Timestamp>,
}

impl Oracle {
    /// A worker begins.
    pub(crate) fn arrive(&mut self, setup: &Setup) -> u32 {
        let client = self.join(Some(setup.clone()));
        self.note(&[20, client.into()], || format!("a worker begins as client {client}"));
        client
    }

    /// A new client.
    pub(crate) fn join(&mut self, setup: Option<Setup>) -> u32 {
        let client = u32::try_from(self.peers.len()).unwrap_or(u32::MAX) + 1;
        let now = self.now();
        let peer = Peer {
            setup,
            alive: true,
            frozen: false,
            since: now,
            thawed: Timestamp::MIN,
            cut_off_until: Timestamp::MIN,
            last_trouble: now,
            active: BTreeSet::new(),
            in_flight: BTreeSet::new(),
            seeking: 0,
            failed: BTreeSet::new(),
            unknown: BTreeMap::new(),
            untrusted: None,
            waits: BTreeMap::new(),
            supposed: BTreeMap::new(),
        };
        self.peers.insert(client, peer);
        client
    }

    /// A worker has ended: in good order or not.
    pub(crate) fn leave(&mut self, client: u32, in_order: bool) {
        self.note(&[21, client.into(), in_order.into()], || {
            format!("client {client} {}", if in_order { "has stopped" } else { "is killed" })
        });
        if let Some(peer) = self.peers.get_mut(&client) {
            peer.alive = false;
            peer.frozen = false;
        }
    }

    pub(crate) fn freezes(&mut self, client: u32, frozen: bool) {
        let now = self.now();
        self.note(&[22, client.into(), frozen.into()], || {
            format!("client {client} {}", if frozen { "stands still" } else { "goes on" })
        });
        if let Some(peer) = self.peers.get_mut(&client) {
            peer.frozen = frozen;
            peer.thawed = now;
            peer.last_trouble = now;
        }
    }

    pub(crate) fn cut_off(&mut self, client: u32, time: Duration) {
        let until = self.now().saturating_add(time);
        self.fault();
        self.note(&[23, client.into()], || format!("client {client} is cut off for {time:?}"));
        if let Some(peer) = self.peers.get_mut(&client) {
            peer.cut_off_until = until;
        }
    }

    /// For how much longer a client is cut off.
    pub(crate) fn cut_off_for(&self, client: u32) -> Option<Duration> {
        let left = self.peers.get(&client)?.cut_off_until.since(self.now());
        (!left.is_zero()).then_some(left)
    }

    /// L7: a worker that was told to stop does so within its deadline and a second.
    pub(crate) fn stopped(&mut self, client: u32, told: Timestamp, deadline: Duration) {
        let now = self.now();
        let stood_still = self.peers.get(&client).is_some_and(|peer| peer.frozen || peer.thawed >= told);
        let took = now.since(told);
        let in_time = took <= deadline + Duration::from_secs(1) + Duration::from_millis(10);
        self.expect(stood_still || in_time, "L7", || {
            format!("client {client} took {took:?} to stop, and has {deadline:?} and a second")
        });
    }

    /// Something goes wrong for a client.
    pub(crate) fn takes(&mut self, client: u32) {
        let now = self.now();
        if let Some(peer) = self.peers.get_mut(&client) {
            peer.last_trouble = now;
        }
    }

    /// A session belongs to one worker, from its start to its end.
    pub(super) fn owner(&mut self, client: u32, session: SessionId) {
        let owner = *self.sessions.entry(session.as_u128()).or_insert(client);
        self.expect(owner == client, "sessions", || {
            format!("client {client} has the session of client {owner}")
        });
    }

    /// L2: a worker that lives and has no trouble keeps its leases.
    pub(super) fn could_lapse(&mut self, hold: &Hold) {
        let Some(peer) = self.peers.get(&hold.client) else { return };
        let well = peer.alive && !peer.frozen && hold.delivered;
        // A run that was fenced in trouble may be named by one more beat before it is dropped; no verdict follows.
        let calm = hold.until.since(peer.last_trouble) > hold.lasts * 2 + Duration::from_millis(100);
        self.expect(!(well && calm), "L2", || {
            format!("client {} is well, and lost its lease on {}", hold.client, hold.lease.job)
        });
    }
}
