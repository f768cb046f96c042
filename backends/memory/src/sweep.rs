//! Upkeep: due jobs, expired leases, retention by age, windows of unique keys.

use windlass_core::{StateKind, Sweep, Swept, Timestamp};

use crate::mutant::Mutant;
use crate::store::{State, Store, shelf};

impl Store {
    pub(crate) fn sweep(&mut self, sweep: Sweep, now: Timestamp) -> Swept {
        let mut swept = Swept::default();
        let (mut promote, mut reclaim, mut prune) = (sweep.limit, sweep.limit, sweep.limit);
        for lane in 0..u32::try_from(self.lanes.len()).unwrap_or(u32::MAX) {
            let promoted = self.promote(lane, promote, now);
            promote -= promoted;
            swept.promoted += promoted as u64;
            reclaim -= self.reclaim_expired(lane, reclaim, now, &mut swept);
            let pruned = self.prune_aged(lane, prune, now);
            prune -= pruned;
            swept.pruned += pruned as u64;
            self.drop_windows(lane, sweep.limit, now);
        }
        swept.more = promote == 0 || reclaim == 0 || prune == 0;
        swept
    }

    fn reclaim_expired(&mut self, lane: u32, bound: usize, now: Timestamp, swept: &mut Swept) -> usize {
        if self.mutated(Mutant::SweepCompleted)
            && let Some((_, &slot)) = self.lane(lane).ended[shelf(StateKind::Completed)].last_key_value()
        {
            let (priority, sequence) = (self.job(slot).body.priority, self.next_sequence());
            let rank = crate::store::Rank::new(priority, sequence);
            self.leave(slot);
            self.enter(slot, State::Ready { rank, line: crate::store::Line::Suspects });
        }
        let mut done = 0;
        while done < bound {
            let Some(&(until, slot)) = self.lane(lane).leases.first() else { break };
            if until > now && !self.mutated(Mutant::SweepUnexpired) {
                break;
            }
            match self.reclaim(slot, now) {
                StateKind::Cancelled => swept.cancelled += 1,
                StateKind::Dead => swept.buried += 1,
                _ => swept.reclaimed += 1,
            }
            done += 1;
        }
        done
    }

    fn prune_aged(&mut self, lane: u32, bound: usize, now: Timestamp) -> usize {
        let mut done = 0;
        for kind in StateKind::ALL.into_iter().filter(|kind| kind.is_final()) {
            let age = self.keep(kind).age;
            while done < bound {
                let Some((_, &slot)) = self.lane(lane).ended[shelf(kind)].first_key_value() else { break };
                let State::Ended(ended) = &self.job(slot).state else { break };
                if ended.at.saturating_add(age) > now {
                    break;
                }
                self.prune(slot, now);
                done += 1;
            }
        }
        done
    }

    fn drop_windows(&mut self, lane: u32, bound: usize, now: Timestamp) {
        let lane = self.lane(lane);
        for _ in 0..bound {
            let Some((until, _)) = lane.windows.first() else { return };
            if *until > now {
                return;
            }
            let Some((until, key)) = lane.windows.pop_first() else { return };
            // A later push may have taken the key for a window of its own.
            if lane.keys.get(&key).is_some_and(|held| held.until == Some(until) && held.is_free(now)) {
                lane.keys.remove(&key);
            }
        }
    }
}
