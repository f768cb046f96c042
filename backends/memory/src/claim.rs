//! Claim: Ready to Running.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use windlass_core::limits::ASIDE_MAX;
use windlass_core::{Claim, Claimed, ClaimedJob, Kind, Lease, Timestamp};

use crate::mutant::Mutant;
use crate::store::{Line, Rank, Run, Slot, State, Store};

impl Store {
    pub(crate) fn claim(&mut self, claim: &Claim, now: Timestamp) -> Claimed {
        let mut jobs = Vec::with_capacity((claim.limit + claim.ahead).min(64));
        let mut budget =
            Budget { promote: ASIDE_MAX, aside: ASIDE_MAX, suspects: claim.suspects, more: false };
        let mut wake_at = None;
        for name in &claim.queues {
            let Some(lane) = self.find_lane(name) else { continue };
            if self.lane(lane).paused && !self.mutated(Mutant::PauseIgnored) {
                continue;
            }
            self.claim_from(lane, claim, now, &mut budget, &mut jobs);
            if let Some((&(due, _), _)) = self.lane(lane).scheduled.first_key_value() {
                wake_at = Some(wake_at.map_or(due, |earlier: Timestamp| earlier.min(due)));
            }
        }
        Claimed { jobs, more: budget.more, wake_at, now }
    }

    fn claim_from(
        &mut self,
        lane: u32,
        claim: &Claim,
        now: Timestamp,
        budget: &mut Budget,
        jobs: &mut Vec<ClaimedJob>,
    ) {
        let promoted = self.promote(lane, budget.promote, now);
        budget.promote -= promoted;
        budget.more |= budget.promote == 0;
        if self.mutated(Mutant::ClaimsRunning) && jobs.len() < claim.limit {
            let running = self.lane(lane).leases.iter().map(|(_, slot)| *slot).next_back();
            if let Some(slot) = running.filter(|slot| self.can_run(*slot, claim)) {
                self.take(slot, claim, now, jobs);
            }
        }
        while budget.suspects && jobs.len() < claim.limit {
            // Not past the page: a queue full of suspects that nobody here can run must not slow every claim.
            let suspect = self.lane(lane).suspects.values().copied().take(ASIDE_MAX).collect::<Vec<_>>();
            let suspect = suspect.into_iter().find(|slot| self.can_run(*slot, claim));
            let Some(slot) = suspect else { break };
            budget.suspects = self.mutated(Mutant::SuspectsUnlimited);
            self.take(slot, claim, now, jobs);
        }
        let mut aside = self.parked_heads(lane, claim);
        let wanted = claim.limit + claim.ahead;
        while jobs.len() < wanted {
            let ready = self.lane(lane).ready.first_key_value().map(|(rank, slot)| (*rank, *slot));
            // What was moved aside keeps its place in line.
            if let Some(Reverse((rank, ..))) = aside.peek()
                && ready.is_none_or(|(head, _)| *rank < head)
            {
                self.take_parked(lane, &mut aside, claim, now, jobs);
                continue;
            }
            let Some((_, slot)) = ready else { return };
            if self.can_run(slot, claim) {
                self.take(slot, claim, now, jobs);
            } else if budget.aside == 0 {
                budget.more = true;
                return;
            } else {
                budget.aside -= 1;
                self.park(slot);
            }
        }
        budget.more |= !aside.is_empty() || !self.lane(lane).ready.is_empty();
    }

    fn can_run(&self, slot: Slot, claim: &Claim) -> bool {
        let body = &self.job(slot).body;
        claim.kinds.can_run(&body.kind, body.min_reader)
    }

    /// Moves a job aside that this claim cannot run; it keeps its place among those aside.
    fn park(&mut self, slot: Slot) {
        let State::Ready { rank, .. } = self.job(slot).state else { return };
        self.leave(slot);
        self.enter(slot, State::Ready { rank, line: Line::Parked });
    }

    /// The heads of the lines of jobs that were moved aside and this claim can run.
    fn parked_heads(&self, lane: u32, claim: &Claim) -> Heads {
        let mut heads = Heads::new();
        let parked = &self.lanes[lane as usize].parked;
        if parked.is_empty() || self.mutated(Mutant::ParkedLost) {
            return heads;
        }
        for (kind, version) in claim.kinds.iter() {
            for (group, line) in parked.range((kind.clone(), 0)..=(kind.clone(), version)) {
                if let Some((rank, slot)) = line.first_key_value() {
                    heads.push(Reverse((*rank, *slot, group.clone())));
                }
            }
        }
        heads
    }

    /// Takes the first of those moved aside, and puts the next of its line among the heads.
    fn take_parked(
        &mut self,
        lane: u32,
        heads: &mut Heads,
        claim: &Claim,
        now: Timestamp,
        jobs: &mut Vec<ClaimedJob>,
    ) {
        let Some(Reverse((_, slot, group))) = heads.pop() else { return };
        self.take(slot, claim, now, jobs);
        let next = self.lane(lane).parked.get(&group).and_then(|line| line.first_key_value());
        if let Some((rank, slot)) = next {
            heads.push(Reverse((*rank, *slot, group)));
        }
    }

    /// Ready to Running, with a new epoch and the claim's nonce.
    fn take(&mut self, slot: Slot, claim: &Claim, now: Timestamp, jobs: &mut Vec<ClaimedJob>) {
        let rank = match &self.job(slot).state {
            State::Ready { rank, .. } => *rank,
            State::Running(run) if self.mutated(Mutant::ClaimsRunning) => run.rank,
            _ => return,
        };
        self.leave(slot);
        let ahead = jobs.len() >= claim.limit;
        let run = Run {
            session: claim.session,
            nonce: claim.nonce,
            since: now,
            until: now.saturating_add(claim.lease),
            started: !ahead,
            rank,
        };
        self.enter(slot, State::Running(Box::new(run)));
        self.free_key_at_start(slot);
        let rise = u64::from(self.job(slot).epoch == 0 || !self.mutated(Mutant::EpochStands));
        let job = self.job_mut(slot);
        job.epoch += rise;
        jobs.push(ClaimedJob {
            lease: Lease {
                job: job.body.job(),
                epoch: job.epoch,
                nonce: claim.nonce,
                handle: u64::from(slot),
            },
            body: job.body.clone(),
            attempts: job.attempts,
            lost_leases: job.lost_leases,
            generation: job.generation,
            created_at: job.created_at,
            deadline: job.more.as_ref().and_then(|more| more.deadline),
            ahead,
            suspect: job.suspect,
        });
    }
}

/// Heads of lines, the first in order on top.
type Heads = BinaryHeap<Reverse<(Rank, Slot, (Kind, u16))>>;

/// What one claim call may still do beyond taking jobs.
struct Budget {
    promote: usize,
    aside: usize,
    suspects: bool,
    more: bool,
}
