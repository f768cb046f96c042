//! The verbs that write, as requests to the writer: each can be run again, should its transaction be void.

use std::future::Future;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::oneshot;
use windlass_core::{
    At, Cancelling, Claim, Claimed, ErrorKind, Held, JobRef, Kept, NewJob, Nonce, Note, Pushed, QueueName,
    Result, SessionId, Settled, Sweep, Swept, Timestamp, Verdict,
};

use crate::error::{Fail, Step};
use crate::store::{Store, is_plain};
use crate::wait::Rings;

/// A verb that writes.
pub(crate) trait Verb: Send + Sync + 'static {
    /// What it answers.
    type Answer: Send;
    /// Its name in the contract.
    const NAME: &'static str;
    /// Whom to wake once it is committed.
    const RINGS: Rings;

    /// Runs it within the transaction.
    fn run(&self, store: &mut Store<'_>) -> impl Future<Output = Step<Self::Answer>> + Send;
    /// The jobs, if all that it does is to push them.
    fn pushes(&self) -> Option<&[NewJob]> {
        None
    }
    /// Its answer, if that is what became of pushed jobs.
    fn pushed(_pushed: Vec<Pushed>) -> Option<Self::Answer> {
        None
    }
}

/// A verb on its way to the writer.
pub(crate) trait Request: Send {
    fn rings(&self) -> Rings;
    /// Whether nobody waits for the answer any more.
    fn is_dropped(&self) -> bool;
    /// Runs it and keeps the answer. Only a failure of the database is an error here.
    fn run<'a>(&'a mut self, store: &'a mut Store<'_>)
    -> BoxFuture<'a, std::result::Result<(), sqlx::Error>>;
    /// The jobs of a push that can go in together with others, and how it is timed.
    fn plain_push(&self) -> Option<(&[NewJob], At)> {
        None
    }
    /// Keeps the answer to a push that went in together with others.
    fn keep_pushed(&mut self, _pushed: Vec<Pushed>) {}
    /// Sends the answer that was kept.
    fn answer(self: Box<Self>);
    /// Sends this error instead.
    fn fail(self: Box<Self>, error: windlass_core::Error);
}

/// A request for one verb.
pub(crate) struct Asked<V: Verb> {
    verb: V,
    at: At,
    kept: Option<Result<V::Answer>>,
    reply: oneshot::Sender<Result<V::Answer>>,
}

impl<V: Verb> Asked<V> {
    pub(crate) fn new(verb: V, at: At) -> (Box<Self>, oneshot::Receiver<Result<V::Answer>>) {
        let (reply, answer) = oneshot::channel();
        (Box::new(Self { verb, at, kept: None, reply }), answer)
    }
}

impl<V: Verb> Request for Asked<V> {
    fn plain_push(&self) -> Option<(&[NewJob], At)> {
        let jobs = self.verb.pushes()?;
        jobs.iter().all(|job| is_plain(&job.body)).then_some((jobs, self.at))
    }

    fn keep_pushed(&mut self, pushed: Vec<Pushed>) {
        self.kept = V::pushed(pushed).map(Ok);
    }

    fn rings(&self) -> Rings {
        V::RINGS
    }

    fn is_dropped(&self) -> bool {
        self.reply.is_closed()
    }

    fn run<'a>(
        &'a mut self,
        store: &'a mut Store<'_>,
    ) -> BoxFuture<'a, std::result::Result<(), sqlx::Error>> {
        Box::pin(async move {
            let answer = match store.tick(self.at) {
                Ok(()) => self.verb.run(store).await,
                Err(refused) => Err(refused),
            };
            self.kept = Some(match answer {
                Ok(answer) => Ok(answer),
                // What a step refuses it refuses before it writes. Bytes that cannot be read are found at any time.
                Err(Fail::Refused(error)) if error.kind() != ErrorKind::Decode => Err(error),
                Err(Fail::Refused(error)) => return Err(sqlx::Error::Decode(Box::new(error))),
                Err(Fail::Database(error)) => return Err(error),
            });
            Ok(())
        })
    }

    fn answer(self: Box<Self>) {
        if let Some(answer) = self.kept {
            let answer = answer.map_err(|error| error.during(crate::backend::NAME, V::NAME));
            // Nobody waits any more: it is done all the same.
            let _ = self.reply.send(answer);
        }
    }

    fn fail(self: Box<Self>, error: windlass_core::Error) {
        let _ = self.reply.send(Err(error.during(crate::backend::NAME, V::NAME)));
    }
}

macro_rules! verbs {
    ($($(#[$doc:meta])* $verb:ident($($field:ident: $type:ty),*) -> $answer:ty, $name:literal, $rings:ident:
        |$this:ident, $store:ident| $run:expr;)*) => {
        $(
            $(#[$doc])*
            pub(crate) struct $verb {
                $(pub(crate) $field: $type,)*
            }

            impl Verb for $verb {
                type Answer = $answer;
                const NAME: &'static str = $name;
                const RINGS: Rings = Rings::$rings;

                async fn run(&self, $store: &mut Store<'_>) -> Step<$answer> {
                    let $this = self;
                    $run
                }
            }
        )*
    };
}

/// Pushes go in together where they can: many small ones cost as little as one large one.
pub(crate) struct Push {
    pub(crate) jobs: Vec<NewJob>,
}

impl Verb for Push {
    type Answer = Vec<Pushed>;
    const NAME: &'static str = "push";
    const RINGS: Rings = Rings::Work;

    async fn run(&self, store: &mut Store<'_>) -> Step<Vec<Pushed>> {
        store.push(&self.jobs).await
    }

    fn pushes(&self) -> Option<&[NewJob]> {
        Some(&self.jobs)
    }

    fn pushed(pushed: Vec<Pushed>) -> Option<Vec<Pushed>> {
        Some(pushed)
    }
}

verbs! {
    ClaimJobs(claim: Claim) -> Claimed, "claim", Nobody: |this, store| store.claim(&this.claim).await;
    Settle(verdicts: Vec<Verdict>) -> Vec<Settled>, "settle", WorkAndEnds: |this, store| store.settle(&this.verdicts).await;
    SettleAndClaim(verdicts: Vec<Verdict>, claim: Claim) -> (Vec<Settled>, Claimed), "settle and claim", WorkAndEnds:
        |this, store| {
            let settled = store.settle(&this.verdicts).await?;
            Ok((settled, store.claim(&this.claim).await?))
        };
    Extend(session: SessionId, held: Vec<Held>, lease: Duration) -> Vec<Kept>, "extend", Nobody:
        |this, store| store.extend(this.session, &this.held, this.lease).await;
    HandBack(session: SessionId, nonce: Option<Nonce>) -> usize, "hand back", WorkAndEnds:
        |this, store| store.hand_back(this.session, this.nonce).await;
    Annotate(notes: Vec<Note>) -> Vec<bool>, "annotate", Nobody: |this, store| store.annotate(&this.notes).await;
    SweepOnce(sweep: Sweep) -> Swept, "sweep", WorkAndEnds: |this, store| store.sweep(this.sweep).await;
    Cancel(job: JobRef, reason: String) -> Cancelling, "cancel", All: |this, store| store.cancel(&this.job, &this.reason).await;
    Revive(job: JobRef) -> (), "revive", Work: |this, store| store.revive(&this.job).await;
    RunNow(job: JobRef) -> (), "run now", Work: |this, store| store.run_now(&this.job).await;
    Delete(job: JobRef) -> (), "delete", WorkAndEnds: |this, store| store.delete(&this.job).await;
    Pause(queue: QueueName) -> (), "pause", Nobody: |this, store| store.pause(&this.queue, true).await;
    Resume(queue: QueueName) -> (), "resume", Work: |this, store| store.pause(&this.queue, false).await;
    Now() -> Timestamp, "now", Nobody: |_this, store| Ok(store.now);
}
