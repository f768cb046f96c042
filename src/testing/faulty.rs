//! A wrapper that lets things go wrong above any engine, by the same plan as the memory engine's own.

use std::time::Duration;

use windlass_core::{
    At, Backend, Cancelling, Capabilities, Claim, Claimed, Cursor, Error, Filter, Finished, Held, Inspect,
    JobRef, Kept, Manage, Migrate, Migration, NewJob, Nonce, Note, Page, Pushed, QueueInfo, QueueName,
    Record, Result, SessionId, Settled, Sweep, Swept, Timestamp, Verdict, Wake,
};
use windlass_memory::{Fate, Faults, Verb};

/// An engine that fails as its plan says: for tests against a real server, whose faults cannot be ordered.
///
/// ```
/// use windlass::prelude::*;
/// use windlass::testing::{Faulty, Verb};
///
/// # async fn test<B: windlass::Connect>() -> windlass::Result<()> {
/// let engine = Faulty::new(B::connect("..").await?);
/// engine.faults().lose_next_reply(Verb::Settle, 1);
/// let queue = Queue::new(engine);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Faulty<B> {
    inner: B,
    faults: Faults,
}

impl<B: Backend> Faulty<B> {
    /// Wraps an engine. Nothing goes wrong until it is planned.
    pub fn new(inner: B) -> Self {
        Self { inner, faults: Faults::default() }
    }

    /// The plan.
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// The engine within.
    pub fn inner(&self) -> &B {
        &self.inner
    }

    async fn around<T>(
        &self,
        verb: Verb,
        at: Option<At>,
        call: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        self.faults.lag(verb).await;
        match self.faults.fate(B::NAME, verb, at) {
            Fate::Pass => call.await,
            Fate::Fail(error) => Err(error),
            Fate::LoseReply(lost) => {
                call.await?;
                Err(lost)
            }
        }
    }
}

/// Verbs that are passed on under the plan as they are.
macro_rules! verbs {
    ($($verb:ident: fn $name:ident(&self $(, $arg:ident: $type:ty)*; at) -> $answer:ty;)*) => {
        $(async fn $name(&self $(, $arg: $type)*, at: At) -> Result<$answer> {
            self.around(Verb::$verb, Some(at), self.inner.$name($($arg,)* at)).await
        })*
    };
}

impl<B: Backend> Backend for Faulty<B> {
    const NAME: &'static str = B::NAME;

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn claim(&self, claim: &Claim, at: At) -> Result<Claimed> {
        let call = async {
            let mut claimed = self.inner.claim(claim, at).await?;
            self.faults.tamper(claim, &mut claimed);
            Ok(claimed)
        };
        self.around(Verb::Claim, Some(at), call).await
    }

    async fn settle_and_claim(
        &self,
        verdicts: &[Verdict],
        claim: &Claim,
        at: At,
    ) -> Result<(Vec<Settled>, Claimed)> {
        self.faults.lag(Verb::Claim).await;
        let both = async {
            match self.faults.fate(B::NAME, Verb::Claim, Some(at)) {
                Fate::Fail(error) => {
                    self.inner.settle(verdicts, at).await?;
                    Err(Error::effect_unknown(error))
                }
                fate => {
                    let (settled, mut claimed) = self.inner.settle_and_claim(verdicts, claim, at).await?;
                    self.faults.tamper(claim, &mut claimed);
                    match fate {
                        Fate::LoseReply(lost) => Err(lost),
                        _ => Ok((settled, claimed)),
                    }
                }
            }
        };
        self.around(Verb::Settle, Some(at), both).await
    }

    async fn wait(
        &self,
        session: SessionId,
        queues: &[QueueName],
        due: Option<Timestamp>,
        max: Duration,
    ) -> Result<Wake> {
        self.around(Verb::Wait, None, self.inner.wait(session, queues, due, max)).await
    }

    verbs! {
        Push: fn push(&self, jobs: &[NewJob]; at) -> Vec<Pushed>;
        Settle: fn settle(&self, verdicts: &[Verdict]; at) -> Vec<Settled>;
        Extend: fn extend(&self, session: SessionId, held: &[Held], lease: Duration; at) -> Vec<Kept>;
        Other: fn hand_back(&self, session: SessionId, nonce: Option<Nonce>; at) -> usize;
        Annotate: fn annotate(&self, notes: &[Note]; at) -> Vec<bool>;
        Sweep: fn sweep(&self, sweep: &Sweep; at) -> Swept;
        Other: fn outcomes(&self, jobs: &[JobRef], max_wait: Duration; at) -> Vec<Option<Finished>>;
        Other: fn now(&self; at) -> Timestamp;
    }
}

impl<B: Inspect> Inspect for Faulty<B> {
    verbs! {
        Other: fn get(&self, job: &JobRef; at) -> Option<Record>;
        Other: fn list(&self, filter: &Filter, after: Option<&Cursor>, limit: usize; at) -> Page;
        Other: fn queues(&self; at) -> Vec<QueueInfo>;
    }
}

impl<B: Manage> Manage for Faulty<B> {
    verbs! {
        Other: fn cancel(&self, job: &JobRef, reason: &str; at) -> Cancelling;
        Other: fn revive(&self, job: &JobRef; at) -> ();
        Other: fn run_now(&self, job: &JobRef; at) -> ();
        Other: fn delete(&self, job: &JobRef; at) -> ();
        Other: fn pause(&self, queue: &QueueName; at) -> ();
        Other: fn resume(&self, queue: &QueueName; at) -> ();
    }
}

/// Migrations are not part of the plan.
impl<B: Migrate> Migrate for Faulty<B> {
    async fn pending(&self) -> Result<Vec<Migration>> {
        self.inner.pending().await
    }

    async fn migrate(&self) -> Result<Vec<Migration>> {
        self.inner.migrate().await
    }
}
