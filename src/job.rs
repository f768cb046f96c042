//! What a job is: a payload with a stable name and its defaults. How it runs is [`Handler`](crate::Handler)'s matter.

use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use windlass_core::{ConcurrencyLimit, OnConflict, Priority, Until};

use crate::retry::Retry;
use crate::upgrade::Upgrade;

/// A payload that can be dispatched.
///
/// Derive it: `#[derive(Serialize, Deserialize, Job)]` with `#[job(name = "send_welcome_email")]`. Producers need only
/// this; what a worker needs to run it stands in [`Handler`](crate::Handler).
///
/// ```
/// use serde::{Deserialize, Serialize};
/// use windlass::prelude::*;
///
/// #[derive(Serialize, Deserialize, Job)]
/// #[job(name = "send_welcome_email", queue = "mail", max_attempts = 5, timeout = "30s")]
/// struct SendWelcomeEmail {
///     user_id: u64,
/// }
///
/// assert_eq!(SendWelcomeEmail::NAME, "send_welcome_email");
/// assert_eq!(SendWelcomeEmail::TIMEOUT, Some(seconds(30)));
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a job",
    label = "`{Self}` does not implement `Job`",
    note = "add `#[derive(serde::Serialize, serde::Deserialize, windlass::Job)]` and `#[job(name = \"a_stable_name\")]` to `{Self}`"
)]
pub trait Job: Serialize + DeserializeOwned + Send + 'static {
    /// What a run gives back to whoever waits for it; `()` is not stored. The derive writes `()` unless told
    /// `#[job(output = Type)]`.
    type Output: Serialize + DeserializeOwned + Send + 'static;

    /// The stable name under which it is stored, 1 to 128 bytes of `a-z 0-9 _ . -`. Written, never derived from the Rust
    /// path: renaming or moving the type must not orphan what is stored.
    const NAME: &'static str;

    /// Older names that its handler takes as well.
    const ALIASES: &'static [&'static str] = &[];

    /// The version of the payload's shape; raise it when a change of the type cannot read what is stored.
    const VERSION: u16 = 1;

    /// The oldest version of this type that can run what this one writes. A worker that knows only an older one leaves
    /// the job for a newer worker.
    const MIN_READER: u16 = 1;

    /// How to read payloads of older versions.
    const UPGRADES: &'static [Upgrade<Self>] = &[];

    /// The named queue it goes to unless told otherwise.
    const QUEUE: &'static str = "default";

    /// How many attempts it has, 1 to 10,000.
    const MAX_ATTEMPTS: u16 = 20;

    /// How it backs off after a failure.
    const RETRY: Retry = Retry::DEFAULT;

    /// The limit of one attempt: its handler's future is dropped then, and the attempt has failed. At most thirty days.
    const TIMEOUT: Option<Duration> = None;

    /// Which goes first.
    const PRIORITY: Priority = Priority::NORMAL;

    /// Which other job it must not stand beside. None unless it says so.
    fn unique(&self) -> Option<UniqueBy> {
        None
    }

    /// How many of its like may be Ready or Running at once. No limit unless it says so.
    fn limit(&self) -> Option<ConcurrencyLimit> {
        None
    }

    /// Labels for people and filters.
    fn tags(&self) -> Vec<String> {
        Vec::new()
    }
}

/// How a job is unique among those of its kind in its named queue.
///
/// ```
/// use windlass::prelude::*;
///
/// let throttled = UniqueBy::key("ada@example.com").window(minutes(10));
/// let newest_wins = UniqueBy::payload().supersede();
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
#[must_use]
pub struct UniqueBy {
    pub(crate) key: Option<String>,
    pub(crate) on_conflict: OnConflict,
    pub(crate) until: Until,
}

impl UniqueBy {
    /// By this key: a second job is skipped until the first has ended. Within a kind; at most about 250 bytes.
    pub fn key(key: impl Into<String>) -> Self {
        Self { key: Some(key.into()), on_conflict: OnConflict::Skip, until: Until::End }
    }

    /// By the whole payload, as it is encoded.
    pub fn payload() -> Self {
        Self { key: None, on_conflict: OnConflict::Skip, until: Until::End }
    }

    /// A second job takes the place of a waiting first one, which is cancelled.
    pub fn supersede(mut self) -> Self {
        self.on_conflict = OnConflict::Supersede;
        self
    }

    /// A second job waits blocked while the first one runs; a third is skipped.
    pub fn queue_one(mut self) -> Self {
        self.on_conflict = OnConflict::QueueOne;
        self
    }

    /// The key is free again as soon as the job first starts. It says nothing of jobs that come back for another run.
    pub fn until_start(mut self) -> Self {
        self.until = Until::Start;
        self
    }

    /// The key is free again so long after the dispatch, whatever became of the job.
    pub fn window(mut self, window: Duration) -> Self {
        self.until = Until::Window(window);
        self
    }
}
