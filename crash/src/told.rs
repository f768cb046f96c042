//! An engine that tells the collector what is asked of it and what it answers, with points around its verbs.

use std::time::Duration;

use windlass::AnyBackend;
use windlass_core::{
    At, Backend, Cancelling, Capabilities, Claim, Claimed, Cursor, Filter, Finished, Held, Inspect, JobRef,
    Kept, Manage, Migrate, Migration, NewJob, Nonce, Note, Page, Pushed, QueueInfo, QueueName, Record,
    Result, SessionId, Settled, Sweep, Swept, Timestamp, Verdict, Wake,
};

use crate::plan::{Act, Plan, number_of};
use crate::points::{Point, Trapped};
use crate::wire::{Answer, Event, Stamp, Word, now};

/// The engine of a crash worker or dispatcher.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    inner: AnyBackend,
    plan: Plan,
    trapped: Trapped,
}

/// A beat that is under way. Dropped, with an answer or without, it tells of a long one.
struct Beat<'a> {
    trapped: &'a Trapped,
    since: Stamp,
    long: Duration,
}

impl Drop for Beat<'_> {
    fn drop(&mut self) {
        if Duration::from_nanos(now() - self.since) > self.long {
            self.trapped.tell(&Event::Waited(self.since));
        }
    }
}

impl Told {
    pub(crate) fn new(inner: AnyBackend, plan: Plan, trapped: Trapped) -> Self {
        Self { inner, plan, trapped }
    }

    /// Stands still as a zombie, if that is ordered and one of these jobs will linger when it runs again.
    fn haunt(&self, verdicts: &[Verdict]) {
        if !self.trapped.is_set(Point::Haunting) {
            return;
        }
        let lingers = |id| number_of(id).is_some_and(|number| self.plan.act(number) == Act::Linger);
        let complete = verdicts.iter().filter(|verdict| Word::of(&verdict.ruling) == Word::Complete);
        let leases = complete.map(|verdict| (verdict.lease.job.id, verdict.lease.epoch));
        self.trapped.haunt(leases.filter(|(id, _)| lingers(*id)).collect());
    }

    fn sending(&self, verdicts: &[Verdict]) {
        let told = verdicts.iter().map(|v| (v.lease.job.id, v.lease.epoch, Word::of(&v.ruling)));
        self.trapped.tell(&Event::Sending(told.collect()));
    }

    fn answered(&self, verdicts: &[Verdict], settled: &[Settled]) {
        self.trapped.pass(Point::Settled);
        let told = verdicts.iter().zip(settled);
        let told = told.map(|(v, settled)| (v.lease.job.id, v.lease.epoch, Answer::of(*settled)));
        self.trapped.tell(&Event::Answered(told.collect()));
    }

    fn claimed(&self, claimed: &Claimed) {
        if !claimed.jobs.is_empty() {
            let told = claimed.jobs.iter().map(|job| (job.lease.job.id, job.lease.epoch));
            self.trapped.tell(&Event::Claimed(told.collect()));
            self.trapped.pass(Point::Claimed);
        }
    }
}

/// Verbs that are passed on as they are.
macro_rules! pass {
    ($(fn $name:ident(&self $(, $arg:ident: $type:ty)*) -> $answer:ty;)*) => {
        $(async fn $name(&self $(, $arg: $type)*) -> Result<$answer> {
            self.inner.$name($($arg),*).await
        })*
    };
}

impl Backend for Told {
    const NAME: &'static str = "told";

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn push(&self, jobs: &[NewJob], at: At) -> Result<Vec<Pushed>> {
        let pushed = self.trapped.within(Point::Pushing, self.inner.push(jobs, at)).await?;
        self.trapped.pass(Point::Pushed);
        Ok(pushed)
    }

    async fn claim(&self, claim: &Claim, at: At) -> Result<Claimed> {
        let claimed = self.trapped.within(Point::Claiming, self.inner.claim(claim, at)).await?;
        self.claimed(&claimed);
        Ok(claimed)
    }

    async fn settle(&self, verdicts: &[Verdict], at: At) -> Result<Vec<Settled>> {
        self.haunt(verdicts);
        self.sending(verdicts);
        let settled = self.trapped.within(Point::Settling, self.inner.settle(verdicts, at)).await?;
        self.answered(verdicts, &settled);
        Ok(settled)
    }

    async fn settle_and_claim(
        &self,
        verdicts: &[Verdict],
        claim: &Claim,
        at: At,
    ) -> Result<(Vec<Settled>, Claimed)> {
        self.haunt(verdicts);
        self.sending(verdicts);
        let call = self.inner.settle_and_claim(verdicts, claim, at);
        let (settled, claimed) = self.trapped.within(Point::Settling, call).await?;
        self.answered(verdicts, &settled);
        self.claimed(&claimed);
        Ok((settled, claimed))
    }

    async fn extend(&self, session: SessionId, held: &[Held], lease: Duration, at: At) -> Result<Vec<Kept>> {
        let _beat = Beat { trapped: &self.trapped, since: now(), long: lease / 8 };
        self.trapped.within(Point::Extending, self.inner.extend(session, held, lease, at)).await
    }

    pass! {
        fn hand_back(&self, session: SessionId, nonce: Option<Nonce>, at: At) -> usize;
        fn annotate(&self, notes: &[Note], at: At) -> Vec<bool>;
        fn sweep(&self, sweep: &Sweep, at: At) -> Swept;
        fn outcomes(&self, jobs: &[JobRef], max_wait: Duration, at: At) -> Vec<Option<Finished>>;
        fn wait(&self, session: SessionId, queues: &[QueueName], due: Option<Timestamp>, max: Duration) -> Wake;
        fn now(&self, at: At) -> Timestamp;
    }
}

impl Inspect for Told {
    pass! {
        fn get(&self, job: &JobRef, at: At) -> Option<Record>;
        fn list(&self, filter: &Filter, after: Option<&Cursor>, limit: usize, at: At) -> Page;
        fn queues(&self, at: At) -> Vec<QueueInfo>;
    }
}

impl Manage for Told {
    pass! {
        fn cancel(&self, job: &JobRef, reason: &str, at: At) -> Cancelling;
        fn revive(&self, job: &JobRef, at: At) -> ();
        fn run_now(&self, job: &JobRef, at: At) -> ();
        fn delete(&self, job: &JobRef, at: At) -> ();
        fn pause(&self, queue: &QueueName, at: At) -> ();
        fn resume(&self, queue: &QueueName, at: At) -> ();
    }
}

impl Migrate for Told {
    pass! {
        fn pending(&self) -> Vec<Migration>;
        fn migrate(&self) -> Vec<Migration>;
    }
}
