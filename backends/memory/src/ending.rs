//! The end of a job, and all that its end sets free in the same step: the place under a limit, the unique key, the
//! children; and retention, which forgets old ends.

use windlass_core::{JobId, ParentFailure, StateKind, Timestamp, Until, WhyBlocked};

use crate::mutant::Mutant;
use crate::store::{End, Ended, Slot, State, Store, shelf};

impl Store {
    /// Ends a job, whatever state it is in, and those that its end calls off.
    pub(crate) fn end(&mut self, slot: Slot, end: End, now: Timestamp) {
        // A worklist, not recursion: a chain of children may be long.
        let mut pending = Vec::new();
        self.end_one(slot, end, now, &mut pending);
        while let Some((slot, id, end)) = pending.pop() {
            // Forgetting an old end may have called it off meanwhile.
            if self.is_blocked(slot, id) {
                self.end_one(slot, end, now, &mut pending);
            }
        }
    }

    fn end_one(&mut self, slot: Slot, end: End, now: Timestamp, pending: &mut Vec<(Slot, JobId, End)>) {
        let kind = end.kind();
        let held = self.job(slot).state.holds_place();
        self.leave(slot);
        let sequence = self.next_sequence();
        self.enter(slot, State::Ended(Box::new(Ended { at: now, sequence, end })));
        if held {
            self.give_back_place(slot);
        }
        // Also when it only waited for a place: it may have stood in the way of one with a larger number.
        self.fill_places(slot);
        self.free_key(slot, now);
        self.tell_children(slot, kind, now, pending);
        self.trim(slot, kind, now);
    }

    /// Frees the unique key of a job that ended, and lets in the one that waits behind it.
    fn free_key(&mut self, slot: Slot, now: Timestamp) {
        if self.mutated(Mutant::KeyNotFreed) {
            return;
        }
        let job = self.job(slot);
        let (lane, id) = (job.lane, job.body.id);
        let Some(unique) = job.body.unique().cloned() else { return };
        let Some(key) = self.lane(lane).keys.get_mut(&unique.key) else { return };
        if key.next == Some(id) {
            key.next = None;
        }
        if key.holder != id {
            return;
        }
        let next = key.next.take();
        if key.until.is_none_or(|until| until <= now) {
            self.lane(lane).keys.remove(&unique.key);
        }
        if let Some(next) = next
            && let Some(&next) = self.lane(lane).ids.get(&next)
        {
            self.hold_key(next);
            self.unblock(next, now);
        }
    }

    /// Makes a job the holder of its unique key.
    pub(crate) fn hold_key(&mut self, slot: Slot) {
        let job = self.job(slot);
        let (lane, holder, pushed) = (job.lane, job.body.id, job.created_at);
        let Some(unique) = job.body.unique().cloned() else { return };
        let until = match unique.until {
            Until::Window(window) => Some(pushed.saturating_add(window)),
            Until::End | Until::Start => None,
        };
        let lane = self.lane(lane);
        if let Some(until) = until {
            lane.windows.insert((until, unique.key.clone()));
        }
        lane.keys.insert(unique.key, crate::store::Key { holder, until, next: None });
    }

    /// Frees a unique key that its holder keeps only until it starts.
    pub(crate) fn free_key_at_start(&mut self, slot: Slot) {
        let job = &self.jobs[slot as usize];
        let early = self.mutated(Mutant::KeyFreedEarly);
        let Some(unique) = job.body.unique().filter(|unique| early || unique.until == Until::Start) else {
            return;
        };
        let lane = &mut self.lanes[job.lane as usize];
        if lane.keys.get(&unique.key).is_some_and(|key| key.holder == job.body.id) {
            lane.keys.remove(&unique.key);
        }
    }

    fn tell_children(
        &mut self,
        slot: Slot,
        parent: StateKind,
        now: Timestamp,
        pending: &mut Vec<(Slot, JobId, End)>,
    ) {
        let Some(children) = self.job_mut(slot).more.as_mut().map(|more| std::mem::take(&mut more.children))
        else {
            return;
        };
        let parent_id = self.job(slot).body.id;
        for (child, id) in children {
            if !self.is_blocked(child, id) {
                continue;
            }
            match (parent, self.parent_failure_policy(child)) {
                (StateKind::Completed, _) | (_, ParentFailure::Ignore) => self.parent_done(child, now),
                (StateKind::Dead, ParentFailure::Wait) => {
                    self.job_mut(slot).more().children.push((child, id));
                }
                _ => pending.push((child, id, orphaned(parent_id))),
            }
        }
    }

    pub(crate) fn parent_failure_policy(&self, child: Slot) -> ParentFailure {
        self.job(child).body.extras.as_ref().map_or(ParentFailure::Cancel, |extras| extras.on_parent_failure)
    }

    fn parent_done(&mut self, child: Slot, now: Timestamp) {
        if self.mutated(Mutant::ChildForgotten) {
            return;
        }
        let early = self.mutated(Mutant::ChildTooEarly);
        let job = self.job_mut(child);
        let left = if early { 0 } else { job.more().parents_left.saturating_sub(1) };
        job.more().parents_left = left;
        // One that waits behind a unique key as well goes on waiting for that.
        if let State::Blocked { why: why @ WhyBlocked::Parents(_), .. } = &mut job.state {
            *why = WhyBlocked::Parents(left);
            if left == 0 {
                self.unblock(child, now);
            }
        }
    }

    /// Whether the slot still holds that job, and it is Blocked.
    fn is_blocked(&self, slot: Slot, id: JobId) -> bool {
        self.jobs
            .get(slot as usize)
            .is_some_and(|job| job.body.id == id && job.state.kind() == StateKind::Blocked)
    }

    /// Forgets the oldest ends of a job's queue beyond the count that is kept.
    fn trim(&mut self, slot: Slot, kind: StateKind, now: Timestamp) {
        let keep = self.keep(kind).count;
        let lane = self.job(slot).lane;
        while self.lane(lane).ended[shelf(kind)].len() as u64 > keep {
            let Some((_, &oldest)) = self.lane(lane).ended[shelf(kind)].first_key_value() else { return };
            self.prune(oldest, now);
        }
    }

    pub(crate) fn keep(&self, kind: StateKind) -> windlass_core::Keep {
        match kind {
            StateKind::Cancelled => self.retention.cancelled,
            StateKind::Dead => self.retention.dead,
            _ => self.retention.completed,
        }
    }

    /// Forgets an ended job. Children that still wait for it (for a revival) are called off: it cannot come back.
    pub(crate) fn prune(&mut self, slot: Slot, now: Timestamp) {
        self.leave(slot);
        let forgotten = self.forget(slot);
        let children = forgotten.more.map(|more| more.children).unwrap_or_default();
        for (child, id) in children {
            if self.is_blocked(child, id) {
                self.end(child, orphaned(forgotten.body.id), now);
            }
        }
    }
}

/// The end of a job whose parent will not complete.
pub(crate) fn orphaned(parent: JobId) -> End {
    End::Cancelled { reason: format!("its parent {parent} did not complete"), superseded_by: None }
}
