//! What is dispatched in a history, and how it is sent until it is certain what became of it.

use std::time::Duration;

use windlass::envelope::{Draft, Raw};
use windlass::prelude::*;
use windlass::{Dispatched, Effect, Envelope, ParentFailure};
use windlass_core::{Body, JobId, JobRef, Kind, NewJob, Pushed, QueueName};

use crate::history::{History, Plot, QUEUES};
use crate::jobs::{Act, Deed, NewOdd, Odd};
use crate::network::Client;
use crate::rng::Rng;

/// A job of either kind, encoded.
type AnyDraft = Envelope<Raw, Draft>;

impl History {
    pub(crate) fn fresh_id(&mut self) -> JobId {
        self.made += 1;
        JobId::sequential(self.made)
    }

    pub(crate) fn queue_name(&mut self) -> &'static str {
        QUEUES[self.rng.below(QUEUES.len())]
    }

    pub(crate) fn deed(&mut self) -> Deed {
        let rng = &mut self.rng;
        let small = |rng: &mut Rng, low, high| u16::try_from(rng.within(low, high)).unwrap_or(1);
        match rng.below(if self.plot == Plot::Lone { 10 } else { 100 }) {
            0..30 => Deed::Quick,
            30..45 => Deed::Long(small(rng, 1, 20), small(rng, 20, 500)),
            45..55 => Deed::Deaf(small(rng, 1, 20), small(rng, 20, 500)),
            55..65 => Deed::Fail(small(rng, 1, 5)),
            65..69 => Deed::Panic(small(rng, 1, 4)),
            69..77 => Deed::Snooze(small(rng, 1, 3), small(rng, 0, 4_000)),
            77..86 => Deed::Then(u8::try_from(rng.within(1, 3)).unwrap_or(1)),
            86..92 => Deed::Log(u8::try_from(rng.within(1, 19)).unwrap_or(1)),
            92..95 => Deed::Bury,
            95..98 => Deed::GiveUp,
            _ if self.plot == Plot::Mixed && rng.percent(50) => Deed::Poison,
            _ => Deed::Quick,
        }
    }

    /// Sends a job off, or one that was sent before, or bytes that nobody can read.
    pub(crate) fn dispatch(&mut self) {
        let poison = self.plot == Plot::Poison && self.poison.is_none() && self.made > 5;
        let id = self.fresh_id();
        let known = self.stage.lock().refs();
        if !poison && self.plot != Plot::Lone && self.rng.percent(4) {
            return self.garbage(id);
        }
        if !poison && self.plot != Plot::Lone && self.rng.percent(5) {
            return self.diamond();
        }
        if !poison && self.rng.percent(6) {
            // The same id again, with another payload: it must change nothing.
            if let Some(job) = self.rng.pick(&known).cloned() {
                let queue = self.dispatcher();
                let draft =
                    queue.dispatch(Act { deed: Deed::Bury }).id(job.id).on(job.queue.as_str()).into_draft();
                return self.send(queue, draft.ok(), job.id);
            }
        }
        let deed = if poison { Deed::Poison } else { self.deed() };
        if poison {
            self.poison = Some(id);
        }
        let queue = self.dispatcher();
        let on = self.queue_name();
        let draft = if self.plot != Plot::Lone && !poison && self.rng.percent(12) {
            if self.rng.percent(40) {
                queue.dispatch(NewOdd { what: deed }).id(id).on(on).into_draft()
            } else {
                queue.dispatch(Odd { deed }).id(id).on(on).into_draft()
            }
        } else {
            let dispatch = queue.dispatch(Act { deed: deed.clone() }).id(id).on(on);
            let dispatch = self.options(dispatch, on, deed == Deed::Poison);
            dispatch.into_draft()
        };
        self.send(queue, draft.ok(), id);
    }

    pub(crate) fn dispatcher(&mut self) -> Queue<Client> {
        let at = self.rng.below(self.dispatchers.len());
        self.dispatchers[at].clone()
    }

    pub(crate) fn options<'q>(
        &mut self,
        mut dispatch: windlass::Dispatch<'q, Act, Client>,
        on: &str,
        plain: bool,
    ) -> windlass::Dispatch<'q, Act, Client> {
        let rng = &mut self.rng;
        if rng.percent(30) {
            dispatch =
                dispatch.priority(Priority::new([2, 5, 7, 9][rng.below(4)]).unwrap_or(Priority::NORMAL));
        }
        if rng.percent(25) {
            // In crowds, so that several are due at once.
            let delay = if rng.percent(50) { rng.within(1, 6) * 1_000 } else { rng.within(1, 9_000) };
            dispatch = dispatch.delay(Duration::from_millis(delay));
        }
        if plain || self.plot == Plot::Lone {
            return dispatch;
        }
        let rng = &mut self.rng;
        if rng.percent(8) {
            dispatch = dispatch.timeout(rng.millis(100, 2_500));
        }
        if rng.percent(4) {
            dispatch = dispatch.deadline(rng.millis(500, 20_000));
        }
        match rng.below(10) {
            0 | 1 => {
                let unique = UNIQUES[rng.below(UNIQUES.len())];
                dispatch.unique(unique.by())
            }
            2 | 3 => {
                let limit = rng.within(1, 3);
                dispatch.limit(format!("limit-{limit}"), u32::try_from(limit).unwrap_or(1))
            }
            4 => {
                let parents: Vec<JobRef> = self.stage.lock().possible_parents();
                let near: Vec<JobRef> = parents.into_iter().filter(|parent| parent.queue == *on).collect();
                // Late ones: they are more likely to be live.
                let late = &near[near.len().saturating_sub(12)..];
                for _ in 0..=rng.below(3) {
                    if let Some(parent) = rng.pick(late) {
                        dispatch = dispatch.after(parent);
                    }
                }
                let policies = [ParentFailure::Cancel, ParentFailure::Ignore, ParentFailure::Wait];
                dispatch.on_parent_failure(policies[rng.below(3)])
            }
            _ => dispatch,
        }
    }

    /// Sends a draft until it is certain what became of it.
    pub(crate) fn send(&mut self, queue: Queue<Client>, draft: Option<AnyDraft>, id: JobId) {
        let Some(draft) = draft else { return };
        self.send_all(queue, vec![draft], vec![id]);
    }

    /// Sends drafts as one batch until it is certain what became of them.
    fn send_all(&mut self, queue: Queue<Client>, mut drafts: Vec<AnyDraft>, ids: Vec<JobId>) {
        let stage = self.stage.clone();
        let unheard_of = |id: &JobId| !stage.lock().knows(*id);
        let new: Vec<JobId> = ids.iter().filter(|id| unheard_of(id)).copied().collect();
        self.errands.spawn(async move {
            let mut uncertain = false;
            for _ in 0..6 {
                match queue.push(drafts).await {
                    Ok(sent) => {
                        let stored = |sent: &&Dispatched<_>| !matches!(sent.pushed(), Pushed::Conflict(_));
                        sent.iter().filter(stored).for_each(|sent| stage.lock().acknowledge(sent.id()));
                        return;
                    }
                    Err(error) => {
                        uncertain |= error.error().effect() == Effect::Unknown;
                        drafts = error.unsent;
                    }
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            if !uncertain {
                stage.lock().refused_for_certain(&new);
            }
        });
    }

    /// A batch whose jobs wait for one another: one, two after it, one after both.
    fn diamond(&mut self) {
        let queue = self.dispatcher();
        let ids: Vec<JobId> = (0..4).map(|_| self.fresh_id()).collect();
        let on: Vec<&str> = (0..4).map(|_| self.queue_name()).collect();
        let parent = |at: usize| JobRef::new(QueueName::from_static(on[at]), ids[at]);
        let policies = [ParentFailure::Cancel, ParentFailure::Ignore, ParentFailure::Wait];
        let mut drafts = Vec::new();
        for (at, parents) in [&[][..], &[0], &[0], &[1, 2]].into_iter().enumerate() {
            let dispatch = queue.dispatch(Act { deed: self.deed() }).id(ids[at]).on(on[at]);
            let dispatch = dispatch.on_parent_failure(policies[self.rng.below(3)]);
            let dispatch = parents.iter().fold(dispatch, |dispatch, at| dispatch.after(&parent(*at)));
            drafts.extend(dispatch.into_draft());
        }
        self.send_all(queue, drafts, ids);
    }

    pub(crate) fn garbage(&mut self, id: JobId) {
        let queue = self.dispatcher();
        let on = QueueName::from_static(self.queue_name());
        self.errands.spawn(async move {
            let job = NewJob::new(Body::new(id, on, Kind::from_static("act"), *b"{\"deed\":"));
            let _ = queue.backend().push(&[job], windlass::At::Server).await;
        });
    }
}

/// The ways to be unique; each has a key of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Unique {
    Skip,
    Supersede,
    QueueOne,
    Start,
    StartLast,
    Window,
    WindowLast,
}

pub(crate) const UNIQUES: [Unique; 7] = [
    Unique::Skip,
    Unique::Supersede,
    Unique::QueueOne,
    Unique::Start,
    Unique::StartLast,
    Unique::Window,
    Unique::WindowLast,
];

impl Unique {
    pub(crate) fn by(self) -> UniqueBy {
        let key = UniqueBy::key(format!("{self:?}"));
        let window = Duration::from_secs(8);
        match self {
            Self::Skip => key,
            Self::Supersede => key.supersede(),
            Self::QueueOne => key.queue_one(),
            Self::Start => key.until_start(),
            Self::StartLast => key.supersede().until_start(),
            Self::Window => key.window(window),
            Self::WindowLast => key.supersede().window(window),
        }
    }
}
