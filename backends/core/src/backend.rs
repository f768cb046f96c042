//! The verbs that every engine has.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use crate::limits::BATCH_MAX;
use crate::{
    At, Claim, Claimed, Error, Finished, Held, JobRef, Kept, NewJob, Nonce, Note, Pushed, QueueName, Result,
    SessionId, Settled, Sweep, Swept, Timestamp, Verdict, Wake,
};

/// What an engine is, where engines differ in degree. What an engine *can* do is a trait it implements.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Capabilities {
    /// Whether what it acknowledged survives the end of this process.
    pub durable: bool,
    /// Whether other processes share it.
    pub shared: bool,
    /// Whether one step can write two named queues. Where it cannot, `then` jobs for another queue pass through an
    /// outbox, and parents must be in the same queue.
    pub atomic_across_queues: bool,
    /// Whether calls of one handle to one named queue take effect in the order in which they were made, those whose answers
    /// are still due among them, and a call costs less while another is under way. A busy worker then sends its next settle and
    /// claim before it has the answer to the last. Where order fails now and then, as after a lost connection or where the two
    /// go over connections of their own, a worker claims out of order as two workers would; nothing else depends on it.
    pub pipelined: bool,
    /// How many jobs a busy worker best has in hand beyond those that run, where jobs are short: all the calls that may be under
    /// way at once share in it, and each can bring a thousand with those that run. Measured for each engine; 900 is a good
    /// start.
    pub ahead_max: usize,
}

/// A storage engine.
///
/// Handles are cheap to clone and share one store. All verbs are batch-shaped; a single operation is a batch of one.
/// A batch may be empty, and then does nothing. Each verb is one atomic step per named queue: dropping its future
/// leaves it done or not done, never half done.
///
/// # Errors
/// Every verb may fail with [`ErrorKind::Connection`](crate::ErrorKind::Connection),
/// [`Timeout`](crate::ErrorKind::Timeout) or [`Unavailable`](crate::ErrorKind::Unavailable); input beyond
/// [`limits`](crate::limits) is [`Invalid`](crate::ErrorKind::Invalid) and changes nothing; an [`At`] of the other
/// sort than the namespace's is [`Config`](crate::ErrorKind::Config). [`Error::effect`] says whether a failed verb may
/// have happened.
pub trait Backend: Clone + fmt::Debug + Send + Sync + Sized + 'static {
    /// The engine's name, such as `memory`.
    const NAME: &'static str;

    /// What it is.
    fn capabilities(&self) -> Capabilities;

    /// Takes jobs in, all or none per named queue, in this order.
    ///
    /// The same id again changes nothing while that job is stored, live or finished: [`Pushed::SameId`].
    fn push(&self, jobs: &[NewJob], at: At) -> impl Future<Output = Result<Vec<Pushed>>> + Send;

    /// Takes jobs out under a lease: Ready to Running.
    ///
    /// Order within a named queue: one suspect if asked for, then by priority and entry into Ready; what was moved
    /// aside and can be run keeps its place. A lone claimer sees that order exactly, several see it up to the jobs in
    /// flight between them. Scheduled jobs that are due enter Ready in due order, a bounded number a call. Across named
    /// queues there is no order but that of the claim. A paused queue gives nothing. Expired leases are left to
    /// [`sweep`](Self::sweep).
    fn claim(&self, claim: &Claim, at: At) -> impl Future<Output = Result<Claimed>> + Send;

    /// Ends runs: each verdict is applied if and only if its lease still stands, and then once. Of two verdicts on one
    /// lease in a batch the first counts. A lease that has expired but was not yet reclaimed still stands: nobody else
    /// has the job. Answers come in the order of the verdicts.
    fn settle(&self, verdicts: &[Verdict], at: At) -> impl Future<Output = Result<Vec<Settled>>> + Send;

    /// [`settle`](Self::settle), then [`claim`](Self::claim): in one round trip where the engine can. The claim need not
    /// see what the verdicts set free. If the claim fails after the settle, the error says
    /// [`Effect::Unknown`](crate::Effect::Unknown), and the verdicts stand. The two are steps of their own: dropping the future
    /// may leave either done without the other.
    fn settle_and_claim(
        &self,
        verdicts: &[Verdict],
        claim: &Claim,
        at: At,
    ) -> impl Future<Output = Result<(Vec<Settled>, Claimed)>> + Send;

    /// The beat of a session: the named leases last for another `lease` from now; what is not named lapses in its time.
    /// A lease that has expired but was not yet reclaimed is kept.
    fn extend(
        &self,
        session: SessionId,
        held: &[Held],
        lease: Duration,
        at: At,
    ) -> impl Future<Output = Result<Vec<Kept>>> + Send;

    /// Hands back at once what a session holds, from the claim with this nonce or, without one, from all its claims: Ready
    /// at their old places, nothing counted. For a claim whose answer was lost, and for the end of a session. At most
    /// 1,000 jobs a call; returns how many, so repeat while it is 1,000.
    fn hand_back(
        &self,
        session: SessionId,
        nonce: Option<Nonce>,
        at: At,
    ) -> impl Future<Output = Result<usize>> + Send;

    /// Progress and log lines of running jobs. `false` for a note whose lease no longer stands: it changed nothing.
    fn annotate(&self, notes: &[Note], at: At) -> impl Future<Output = Result<Vec<bool>>> + Send;

    /// One bounded round of upkeep over all named queues, by any worker at any time: promotes what is due, takes back
    /// what lost its lease (Ready as a suspect, or Dead after the third loss), forgets what is out of retention, and
    /// finishes what an engine could not do in the step that caused it (children of a parent beyond a bound, the outbox).
    fn sweep(&self, sweep: &Sweep, at: At) -> impl Future<Output = Result<Swept>> + Send;

    /// How jobs ended: at once for those that have, `None` for those that have not. When none has, waits until one does
    /// or `max_wait` of real time has passed. Dropping the future costs nothing.
    fn outcomes(
        &self,
        jobs: &[JobRef],
        max_wait: Duration,
        at: At,
    ) -> impl Future<Output = Result<Vec<Option<Finished>>>> + Send;

    /// Sleeps until there may be something to do for this session in these queues, at most `max` of real time. `due` is
    /// when the next Scheduled job of these queues is due as the caller knows it ([`Claimed::wake_at`]); a job that is due
    /// earlier is something to do: claim, and hear when. With no queues it wakes for control only.
    fn wait(
        &self,
        session: SessionId,
        queues: &[QueueName],
        due: Option<Timestamp>,
        max: Duration,
    ) -> impl Future<Output = Result<Wake>> + Send;

    /// What the namespace's clock shows.
    fn now(&self, at: At) -> impl Future<Output = Result<Timestamp>> + Send;
}

/// Refuses a batch of more than [`BATCH_MAX`] items.
pub(crate) fn check_batch(verb: &str, len: usize) -> Result<()> {
    if len > BATCH_MAX {
        return Err(Error::invalid(format!("{verb} of {len} jobs in one call: at most {BATCH_MAX}")));
    }
    Ok(())
}
