//! Admission: where a job that is not running goes next.
//!
//! The one place that knows the order of the gates: parents, the unique key's running holder, the due time, the
//! concurrency limit, then the line.

use windlass_core::{Timestamp, WhyBlocked, WhyScheduled};

use crate::mutant::Mutant;
use crate::store::{Line, Rank, Slot, State, Store};

impl Store {
    /// Sends a job that stands in no index through the gates.
    pub(crate) fn admit(&mut self, slot: Slot, due: Timestamp, why: WhyScheduled, now: Timestamp) {
        let sequence = self.next_sequence();
        let job = self.job_mut(slot);
        let priority = job.body.priority;
        let rank = Rank::new(
            if self.mutated(Mutant::PriorityIgnored) { windlass_core::Priority::NORMAL } else { priority },
            sequence,
        );
        let due = match why {
            WhyScheduled::Retry if self.mutated(Mutant::RetryAtOnce) => now,
            _ => due,
        };
        let job = self.job_mut(slot);
        let parents_left = job.more.as_ref().map_or(0, |more| more.parents_left);
        if parents_left > 0 {
            job.more().due = Some(due);
            return self.enter(slot, State::Blocked { why: WhyBlocked::Parents(parents_left), rank });
        }
        if due > now {
            return self.enter(slot, State::Scheduled { due, sequence, why });
        }
        if !self.take_place(slot) {
            return self.enter(slot, State::Blocked { why: WhyBlocked::Limit, rank });
        }
        self.line_up(slot, rank);
    }

    fn line_up(&mut self, slot: Slot, rank: Rank) {
        let line = if self.job(slot).suspect { Line::Suspects } else { Line::Main };
        self.enter(slot, State::Ready { rank, line });
    }

    /// Takes a place under the job's concurrency limit, if it has one. Jobs that already wait for a place go first, so
    /// that one which fails and comes back at once cannot keep them out.
    fn take_place(&mut self, slot: Slot) -> bool {
        let free_for_all = self.mutated(Mutant::LimitIgnored);
        let job = &self.jobs[slot as usize];
        let Some(limit) = job.body.limit() else { return true };
        let places = self.lanes[job.lane as usize].limits.entry(limit.key.clone()).or_default();
        if !free_for_all && (places.taken >= limit.at_most || !places.blocked.is_empty()) {
            return false;
        }
        places.taken += 1;
        true
    }

    /// Moves a job from the state it is in to the gates, giving back the place it held.
    pub(crate) fn readmit(&mut self, slot: Slot, due: Timestamp, why: WhyScheduled, now: Timestamp) {
        let held = self.job(slot).state.holds_place();
        self.leave(slot);
        if held {
            self.give_back_place(slot);
        }
        self.admit(slot, due, why, now);
        if held {
            self.fill_places(slot);
        }
    }

    /// Gives back the place that a job held. `fill_places` must follow once the job stands elsewhere.
    pub(crate) fn give_back_place(&mut self, slot: Slot) {
        if self.mutated(Mutant::PlaceLeaked) {
            return;
        }
        let job = &self.jobs[slot as usize];
        if let Some(limit) = job.body.limit()
            && let Some(places) = self.lanes[job.lane as usize].limits.get_mut(&limit.key)
        {
            places.taken -= 1;
        }
    }

    /// Lets in those who wait for a place under the limit of `slot`, first come first served within a priority.
    pub(crate) fn fill_places(&mut self, slot: Slot) {
        let job = self.job(slot);
        let lane = job.lane;
        let Some(key) = job.body.limit().map(|limit| limit.key.clone()) else { return };
        let key = key.as_str();
        loop {
            let Some(places) = self.lane(lane).limits.get(key) else { return };
            let Some((_, &first)) = places.blocked.first_key_value() else {
                if places.taken == 0 {
                    self.lane(lane).limits.remove(key);
                }
                return;
            };
            let taken = places.taken;
            if self.job(first).body.limit().is_none_or(|limit| taken >= limit.at_most) {
                return;
            }
            self.leave(first);
            if let Some(places) = self.lane(lane).limits.get_mut(key) {
                places.taken += 1;
            }
            let sequence = self.next_sequence();
            self.line_up(first, Rank::new(self.job(first).body.priority, sequence));
        }
    }

    /// Makes Ready what is due in a named queue, at most `bound` jobs. Returns how many.
    pub(crate) fn promote(&mut self, lane: u32, bound: usize, now: Timestamp) -> usize {
        let mut promoted = 0;
        while promoted < bound {
            let Some((&(due, _), &slot)) = self.lane(lane).scheduled.first_key_value() else { break };
            if due > now && !self.mutated(Mutant::EarlyPromotion) {
                break;
            }
            let slot = if self.mutated(Mutant::PromotionReversed) {
                let due = ..=(now, u64::MAX);
                self.lane(lane).scheduled.range(due).next_back().map_or(slot, |(_, slot)| *slot)
            } else {
                slot
            };
            self.leave(slot);
            self.admit(slot, now, WhyScheduled::Delay, now);
            promoted += 1;
        }
        promoted
    }

    /// Unblocks a job: what it waited for is over.
    pub(crate) fn unblock(&mut self, slot: Slot, now: Timestamp) {
        self.leave(slot);
        let due = self.job_mut(slot).more().due.take().unwrap_or(now);
        self.admit(slot, due, WhyScheduled::Delay, now);
    }
}
