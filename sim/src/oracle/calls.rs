//! What must be true of what a worker asks for, from its own side of the network.

use std::collections::BTreeMap;
use std::time::Duration;

use windlass_core::{Claim, Claimed, Effect, Error, Held, JobId, Kept, Nonce, QueueName, Verdict};

use super::Oracle;
use super::peers::Peer;
use super::shadow::Stand;

/// A call, as far as what is said around it matters.
#[derive(Clone, Debug)]
pub(crate) enum Call {
    Push,
    Round { verdicts: Vec<(JobId, u64)>, claim: Option<(Nonce, Duration, bool, Vec<QueueName>)> },
    Extend(Vec<(JobId, u64, bool)>),
    HandBack(Option<Nonce>),
    Annotate,
    Sweep,
    Manage,
}

impl Call {
    pub(crate) fn round(verdicts: &[Verdict], claim: Option<&Claim>) -> Self {
        Self::Round {
            verdicts: verdicts.iter().map(|verdict| (verdict.lease.job.id, verdict.lease.epoch)).collect(),
            claim: claim.map(|claim| (claim.nonce, claim.lease, claim.suspects, claim.queues.clone())),
        }
    }

    pub(crate) fn extend(held: &[Held]) -> Self {
        let named = |held: &Held| (held.lease.job.id, held.lease.epoch, held.started);
        Self::Extend(held.iter().map(named).collect())
    }

    /// Whether it may bring a suspect.
    fn seeks(&self) -> bool {
        matches!(self, Self::Round { claim: Some((_, _, true, _)), .. })
    }

    /// Whether a copy of it may arrive much later. What operators say is said at once or not at all.
    pub(crate) fn may_linger(&self) -> bool {
        !matches!(self, Self::Manage)
    }
}

impl Peer {
    /// A round is not under way any more.
    fn came_back(&mut self, call: &Call) {
        if let Call::Round { verdicts, .. } = call {
            self.in_flight.retain(|verdict| !verdicts.contains(verdict));
            self.seeking = self.seeking.saturating_sub(usize::from(call.seeks()));
        }
    }
}

impl Oracle {
    /// A client makes a call.
    pub(crate) fn calls(&mut self, client: u32, call: &Call) {
        let now = self.now();
        let Some(peer) = self.peers.get(&client).filter(|peer| peer.setup.is_some()) else { return };
        match call {
            Call::Round { verdicts, claim } => {
                let missing = peer.failed.iter().find(|failed| !verdicts.contains(failed)).copied();
                let twice = call.seeks() && peer.seeking > 0;
                let owes = claim.is_some() && peer.unknown.values().any(|lapses| *lapses > now);
                if let Some((id, epoch)) = missing {
                    self.broken("verdicts", || {
                        format!(
                            "client {client} forgot its verdict on {id} of epoch {epoch} after a failed call"
                        )
                    });
                }
                self.expect(!owes, "L2", || {
                    format!("client {client} claims without having handed back a claim whose answer was lost")
                });
                self.expect(!twice, "S19", || {
                    format!("client {client} asks for a suspect while another claim may bring it one")
                });
                if let Some((_, _, suspects, queues)) = claim {
                    self.asks(client, *suspects, queues);
                }
                if let Some(peer) = self.peers.get_mut(&client) {
                    peer.failed.clear();
                    peer.in_flight.extend(verdicts);
                    peer.seeking += usize::from(call.seeks());
                }
            }
            Call::Extend(held) => {
                self.names_all(client, held);
                self.names_rightly(client, held);
            }
            _ => {}
        }
    }

    /// L2: a beat names every run and every verdict that is not settled yet.
    fn names_all(&mut self, client: u32, held: &[(JobId, u64, bool)]) {
        let Some(peer) = self.peers.get(&client) else { return };
        let mut runs = peer.active.iter().map(|run| (self.runs[*run].job.id, self.runs[*run].epoch, true));
        let mut verdicts = peer.in_flight.iter().chain(&peer.failed);
        let named = |key: &(JobId, u64)| held.iter().any(|held| (held.0, held.1) == *key);
        let missing = runs.find(|run| !held.contains(run)).map(|(id, epoch, _)| (id, epoch));
        let missing = missing.or_else(|| verdicts.find(|key| !named(key)).copied());
        if let Some((id, epoch)) = missing {
            self.broken("L2", || format!("client {client} does not extend {id} of epoch {epoch}"));
        }
    }

    /// S19: a beat calls nothing started that never was, or that would lose a lease with its worker. A job given to a runner
    /// begins in the same instant, though maybe after the beat: so one that is waiting is wrong when it is named twice.
    fn names_rightly(&mut self, client: u32, held: &[(JobId, u64, bool)]) {
        let now = self.now();
        let Some(peer) = self.peers.get(&client) else { return };
        let begins = |id: &JobId| {
            // Bytes that cannot be read and a deadline that has passed end a run before its handler.
            self.jobs.get(id).is_some_and(|shadow| shadow.deed.is_some() && shadow.deadline.is_none())
        };
        let mut supposed = BTreeMap::new();
        let mut wrong = None;
        for (id, epoch, _) in held.iter().filter(|(id, _, started)| *started && begins(id)) {
            let key = (*id, *epoch);
            if self.run_of.contains_key(&key) {
                continue;
            }
            let since = *peer.supposed.get(&key).unwrap_or(&now);
            supposed.insert(key, since);
            let ruled = peer.in_flight.contains(&key) || peer.failed.contains(&key);
            if ruled || (since < now && peer.thawed < since) {
                wrong = Some(key);
            }
        }
        if let Some(peer) = self.peers.get_mut(&client) {
            peer.supposed = supposed;
        }
        if let Some((id, epoch)) = wrong {
            self.broken("S19", || {
                format!("client {client} calls {id} of epoch {epoch} started, and it never was")
            });
        }
    }

    pub(super) fn asks(&mut self, client: u32, suspects: bool, queues: &[QueueName]) {
        let now = self.now();
        let Some(peer) = self.peers.get_mut(&client) else { return };
        let suspect = peer.active.iter().find(|run| self.runs[**run].suspect).copied();
        let blind = peer.untrusted.as_ref().is_some_and(|(since, runs)| {
            now.since(*since) > Duration::from_millis(5) && runs.iter().any(|run| peer.active.contains(run))
        });
        let mut starved = None;
        if let Some(setup) = peer.setup.as_ref().filter(|setup| setup.weighted) {
            // In any so many claims each queue goes first as often as its weight says: at least once.
            let most: u32 = setup.queues.iter().map(|(_, weight)| weight).sum();
            for (name, _) in &setup.queues {
                let waits = peer.waits.entry(QueueName::from_static(name)).or_insert(0);
                *waits += 1;
                if queues.first().is_some_and(|first| first.as_str() == *name) {
                    *waits = 0;
                }
                if *waits > 2 * most {
                    starved = Some(*name);
                }
            }
        }
        if let Some(run) = suspect.filter(|_| suspects) {
            let job = self.runs[run].job.clone();
            self.broken("S19", || format!("client {client} asks for suspects while it runs {job}"));
        }
        self.expect(!blind, "fencing", || format!("client {client} claims although it cannot extend"));
        if let Some(starved) = starved {
            self.broken("L4", || format!("client {client} starves its queue {starved}"));
        }
    }

    /// A client has its answer.
    pub(crate) fn heard(&mut self, client: u32, call: &Call, error: Option<&Error>) {
        let now = self.now();
        if let Some(error) = error {
            self.note(&[24, client.into()], || format!("client {client} hears: {error}"));
        }
        let Some(peer) = self.peers.get_mut(&client) else { return };
        if error.is_some() {
            peer.last_trouble = now;
        }
        match (call, error) {
            (Call::Round { .. }, None) => peer.came_back(call),
            (Call::Round { claim, verdicts }, Some(error)) => {
                peer.came_back(call);
                peer.failed.extend(verdicts);
                if let Some((nonce, lease, ..)) = claim
                    && error.effect() == Effect::Unknown
                {
                    peer.unknown.insert(*nonce, now.saturating_add(*lease));
                }
            }
            (Call::HandBack(Some(nonce)), None) => {
                peer.unknown.remove(nonce);
            }
            (Call::Extend(_), None) => peer.untrusted = None,
            (Call::Extend(_), Some(_)) => {
                peer.untrusted = Some((now, peer.active.iter().copied().collect()));
            }
            _ => {}
        }
    }

    /// A client gave a call up before its answer came.
    pub(crate) fn gave_up(&mut self, client: u32, call: &Call) {
        let now = self.now();
        let Some(peer) = self.peers.get_mut(&client) else { return };
        peer.last_trouble = now;
        match call {
            Call::Round { .. } => peer.came_back(call),
            Call::Extend(_) => peer.untrusted = Some((now, peer.active.iter().copied().collect())),
            _ => {}
        }
    }

    /// A client hears what it was given.
    pub(crate) fn takes_in(&mut self, client: u32, claimed: &Claimed) {
        for job in &claimed.jobs {
            if let Some(shadow) = self.jobs.get_mut(&job.body.id)
                && let Stand::Running(hold) = &mut shadow.stand
                && hold.lease == job.lease
                && hold.client == client
            {
                hold.delivered = true;
            }
        }
    }

    /// A client hears which of its leases stand.
    pub(crate) fn hears_beat(&mut self, client: u32, held: &[Held], kept: &[Kept]) {
        let now = self.now();
        for (held, kept) in held.iter().zip(kept) {
            let run = self.run_of.get(&(held.lease.job.id, held.lease.epoch)).copied();
            if *kept == Kept::CancelRequested
                && let Some(run) = run.and_then(|run| self.runs.get_mut(run))
                && run.client == client
            {
                run.told.get_or_insert(now);
            }
        }
    }
}
