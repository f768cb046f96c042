//! What is pushed: a job's immutable body, and when it is due.
//!
//! A body is written once and never changes. State, counters and results live beside it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::limits::{
    ATTEMPTS_MAX, DELAY_MAX, METADATA_MAX_BYTES, PARENTS_MAX, PAYLOAD_MAX_BYTES, TAG_MAX_BYTES, TAGS_MAX,
    TIMEOUT_MAX, UNIQUE_KEY_MAX_BYTES,
};
use crate::{Error, JobId, JobRef, Kind, QueueName, Result, Timestamp};

/// One of ten levels, 0 to 9; the higher goes first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Priority(u8);

impl Priority {
    /// 0: when nothing else is ready.
    pub const LOWEST: Self = Self(0);
    /// 2.
    pub const LOW: Self = Self(2);
    /// 5: what a job has unless told otherwise.
    pub const NORMAL: Self = Self(5);
    /// 7.
    pub const HIGH: Self = Self(7);
    /// 9: before everything else.
    pub const HIGHEST: Self = Self(9);

    /// The level `level`.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) above 9.
    pub fn new(level: u8) -> Result<Self> {
        if level > 9 {
            return Err(Error::invalid(format!(
                "priority {level} is out of range: use 0 (last) to 9 (first)"
            )));
        }
        Ok(Self(level))
    }

    /// The level `level`, for constants.
    ///
    /// # Panics
    /// Above 9. In a `const` that is a compile error.
    #[must_use]
    pub const fn level(level: u8) -> Self {
        assert!(level <= 9, "priority is out of range: use 0 (last) to 9 (first)");
        Self(level)
    }

    /// The level as a number.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }
}

impl Default for Priority {
    fn default() -> Self {
        Self::NORMAL
    }
}

/// When a job is due.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Due {
    /// At once.
    #[default]
    Now,
    /// So long after the engine takes it in, by the engine's clock.
    After(Duration),
    /// At this instant; one that has passed means at once.
    At(Timestamp),
}

impl Due {
    /// The instant this means to an engine whose clock shows `now`.
    #[must_use]
    pub fn resolve(self, now: Timestamp) -> Timestamp {
        match self {
            Self::Now => now,
            Self::After(delay) => now.saturating_add(delay),
            Self::At(instant) => instant,
        }
    }

    fn check(self, field: &str) -> Result<()> {
        match self {
            Self::After(delay) => check_delay(field, delay),
            Self::Now | Self::At(_) => Ok(()),
        }
    }
}

fn check_delay(field: &str, delay: Duration) -> Result<()> {
    if delay > DELAY_MAX {
        return Err(Error::invalid(format!(
            "{field} of {} s is too long: at most {} s (100 years)",
            delay.as_secs(),
            DELAY_MAX.as_secs()
        )));
    }
    Ok(())
}

/// What a push does when another job holds its unique key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnConflict {
    /// Insert nothing and name the holder: [`Pushed::Conflict`].
    Skip,
    /// Cancel a *waiting* holder and take its place: [`Pushed::Superseded`]. If a job waits behind the holder, it is
    /// that one which is replaced. A running or finished holder with nobody behind wins: [`Pushed::Conflict`].
    Supersede,
    /// Behind a *running* holder wait blocked until it ends; there is room for one. A waiting or finished holder, or
    /// one already waiting behind: [`Pushed::Conflict`].
    QueueOne,
}

/// When a unique key is free again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Until {
    /// When its holder ends (Completed, Cancelled or Dead), in the same step.
    End,
    /// When its holder is first claimed.
    Start,
    /// So long after its holder was pushed, whatever became of it; while a job waits behind the holder, not before the
    /// holder ends.
    Window(Duration),
}

/// At most one job per key in a named queue.
///
/// The usual names are points on the two axes: *reject* is Skip until End, *replace* Supersede until End,
/// *throttle* Skip until Window, *debounce* and *keep last* Supersede until Start with a delay, *one behind*
/// `QueueOne` until End.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unique {
    /// The key, within the named queue: 1 to 256 bytes without control characters. Compared byte by byte.
    pub key: String,
    /// What a conflict does.
    pub on_conflict: OnConflict,
    /// When the key is free again.
    pub until: Until,
}

/// At most `at_most` jobs of one key that are Ready or Running in a named queue; the rest are Blocked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConcurrencyLimit {
    /// The key, within the named queue: 1 to 128 bytes without control characters.
    pub key: String,
    /// How many at once, 1 or more. Jobs of one key that disagree are each held to their own number.
    pub at_most: u32,
}

/// What becomes of a job whose parent is Cancelled or Dead.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ParentFailure {
    /// It is Cancelled, and so are those that wait for it.
    #[default]
    Cancel,
    /// It goes on as if the parent had completed.
    Ignore,
    /// It stays Blocked until a Dead parent is revived and completes. A Cancelled parent never comes back, and cancels.
    Wait,
}

/// The parts of a body that most jobs do without.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Extras {
    /// Labels for people and filters: at most 32, of 1 to 128 bytes.
    pub tags: Vec<String>,
    /// What travels with the job (trace context, tenant): at most 8 KiB in all.
    pub metadata: BTreeMap<String, String>,
    /// At most one job per key.
    pub unique: Option<Unique>,
    /// At most so many at once per key.
    pub limit: Option<ConcurrencyLimit>,
    /// Jobs that must complete first; each must be stored already or stand earlier in the same push.
    pub parents: Vec<JobRef>,
    /// What a parent's failure does.
    pub on_parent_failure: ParentFailure,
    /// When the job is no longer wanted: it is not started after this.
    pub deadline: Option<Due>,
}

/// How long one attempt may take, in whole milliseconds, or as long as it likes. Four bytes, since every waiting job has one.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TimeLimit(u32);

impl TimeLimit {
    /// As long as it likes.
    pub const NONE: Self = Self(u32::MAX);

    /// The limit; `None` for as long as it likes.
    #[must_use]
    pub fn get(self) -> Option<Duration> {
        (self != Self::NONE).then(|| Duration::from_millis(u64::from(self.0)))
    }
}

impl From<Duration> for TimeLimit {
    /// A part of a millisecond counts as a whole one; what is beyond 49 days becomes that, and is refused when it is pushed.
    fn from(limit: Duration) -> Self {
        let millis = limit.as_nanos().div_ceil(1_000_000).min(u128::from(u32::MAX - 1));
        Self(u32::try_from(millis).unwrap_or(u32::MAX - 1))
    }
}

impl From<Option<Duration>> for TimeLimit {
    fn from(limit: Option<Duration>) -> Self {
        limit.map_or(Self::NONE, Self::from)
    }
}

impl fmt::Debug for TimeLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}

/// What a job is: written once, never changed.
#[derive(Clone, PartialEq, Eq)]
pub struct Body {
    /// Made by the client.
    pub id: JobId,
    /// The lane it stands in.
    pub queue: QueueName,
    /// Which handler it is for.
    pub kind: Kind,
    /// The encoded payload, at most 1 MiB. Opaque here.
    pub payload: Box<[u8]>,
    /// The limit of one attempt.
    pub timeout: TimeLimit,
    /// The rest, when there is any.
    pub extras: Option<Box<Extras>>,
    /// How many attempts it has, 1 or more.
    pub max_attempts: u16,
    /// The version of the payload's shape.
    pub version: u16,
    /// The oldest version of a worker's job type that may run it.
    pub min_reader: u16,
    /// The codec of the payload, a number the library gives.
    pub codec: u8,
    /// Which goes first.
    pub priority: Priority,
}

impl Body {
    /// A body with the given parts and the defaults of everything else: 1 attempt, version 1, codec 0, no timeout.
    #[must_use]
    pub fn new(id: JobId, queue: QueueName, kind: Kind, payload: impl Into<Box<[u8]>>) -> Self {
        Self {
            id,
            queue,
            kind,
            payload: payload.into(),
            timeout: TimeLimit::NONE,
            extras: None,
            max_attempts: 1,
            version: 1,
            min_reader: 1,
            codec: 0,
            priority: Priority::NORMAL,
        }
    }

    /// Where the job is.
    #[must_use]
    pub fn job(&self) -> JobRef {
        JobRef::new(self.queue.clone(), self.id)
    }

    /// The extras, made on first use.
    pub fn extras_mut(&mut self) -> &mut Extras {
        self.extras.get_or_insert_default()
    }

    /// The unique key, when there is one.
    #[must_use]
    pub fn unique(&self) -> Option<&Unique> {
        self.extras.as_ref()?.unique.as_ref()
    }

    /// The concurrency limit, when there is one.
    #[must_use]
    pub fn limit(&self) -> Option<&ConcurrencyLimit> {
        self.extras.as_ref()?.limit.as_ref()
    }

    /// The parents, none for most jobs.
    #[must_use]
    pub fn parents(&self) -> &[JobRef] {
        self.extras.as_ref().map_or(&[], |extras| &extras.parents)
    }

    /// The tags, none for most jobs.
    #[must_use]
    pub fn tags(&self) -> &[String] {
        self.extras.as_ref().map_or(&[], |extras| &extras.tags)
    }

    fn validate(&self) -> Result<()> {
        if self.payload.len() > PAYLOAD_MAX_BYTES {
            return Err(Error::invalid(format!(
                "payload of `{}` has {} bytes: at most {PAYLOAD_MAX_BYTES}; store what is bigger elsewhere and \
                 dispatch its address",
                self.kind,
                self.payload.len()
            )));
        }
        if self.max_attempts == 0 || self.max_attempts > ATTEMPTS_MAX {
            return Err(Error::invalid(format!(
                "max_attempts {} is out of range: use 1 to {ATTEMPTS_MAX}",
                self.max_attempts
            )));
        }
        if self.min_reader > self.version {
            return Err(Error::invalid(format!(
                "min_reader {} is newer than version {}: a worker of the payload's own version must be able to run it",
                self.min_reader, self.version
            )));
        }
        if let Some(timeout) = self.timeout.get()
            && (timeout.is_zero() || timeout > TIMEOUT_MAX)
        {
            return Err(Error::invalid(format!(
                "timeout of {timeout:?} is out of range: more than 0 and at most {} s (30 days)",
                TIMEOUT_MAX.as_secs()
            )));
        }
        self.extras.as_ref().map_or(Ok(()), |extras| extras.validate())
    }
}

impl fmt::Debug for Body {
    /// Leaves the payload out: it may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body")
            .field("id", &self.id)
            .field("queue", &self.queue)
            .field("kind", &self.kind)
            .field("version", &self.version)
            .field("payload_bytes", &self.payload.len())
            .finish_non_exhaustive()
    }
}

impl Extras {
    fn validate(&self) -> Result<()> {
        if self.tags.len() > TAGS_MAX {
            return Err(Error::invalid(format!("{} tags are too many: at most {TAGS_MAX}", self.tags.len())));
        }
        for tag in &self.tags {
            check_text("tag", tag, TAG_MAX_BYTES)?;
        }
        let mut metadata_bytes = 0;
        for (key, value) in &self.metadata {
            check_text("metadata key", key, TAG_MAX_BYTES)?;
            if value.contains('\0') {
                return Err(Error::invalid(format!("metadata value of \"{key}\" holds a NUL character")));
            }
            metadata_bytes += key.len() + value.len();
        }
        if metadata_bytes > METADATA_MAX_BYTES {
            return Err(Error::invalid(format!(
                "metadata has {metadata_bytes} bytes in all: at most {METADATA_MAX_BYTES}"
            )));
        }
        if let Some(unique) = &self.unique {
            check_text("unique key", &unique.key, UNIQUE_KEY_MAX_BYTES)?;
            if let Until::Window(window) = unique.until {
                if window.is_zero() {
                    return Err(Error::invalid(
                        "unique window of 0 s would exclude nothing: give a longer one",
                    ));
                }
                check_delay("unique window", window)?;
            }
        }
        if let Some(limit) = &self.limit {
            check_text("limit key", &limit.key, TAG_MAX_BYTES)?;
            if limit.at_most == 0 {
                return Err(Error::invalid(
                    "limit of 0 jobs at once would block the job for ever: use 1 or more",
                ));
            }
        }
        if self.parents.len() > PARENTS_MAX {
            return Err(Error::invalid(format!(
                "{} parents are too many: at most {PARENTS_MAX}",
                self.parents.len()
            )));
        }
        self.deadline.map_or(Ok(()), |deadline| deadline.check("deadline"))
    }
}

/// Free text that people see: 1 to `max` bytes, no control characters, none that reorder or hide text.
fn check_text(field: &str, text: &str, max: usize) -> Result<()> {
    let shown: String = text.chars().take(40).flat_map(char::escape_debug).collect();
    if text.is_empty() || text.len() > max {
        return Err(Error::invalid(format!("{field} \"{shown}\" has {} bytes: use 1 to {max}", text.len())));
    }
    let hidden = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
    };
    if text.contains(hidden) {
        return Err(Error::invalid(format!("{field} \"{shown}\" holds a control or invisible character")));
    }
    Ok(())
}

/// A job to push.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewJob {
    /// What it is. Shared, so that an engine in this process need not copy it.
    pub body: Arc<Body>,
    /// When it is due.
    pub due: Due,
}

impl NewJob {
    /// `body`, due at once.
    #[must_use]
    pub fn new(body: Body) -> Self {
        Self { body: Arc::new(body), due: Due::Now }
    }

    /// The same, due at `due`.
    #[must_use]
    pub fn due(mut self, due: Due) -> Self {
        self.due = due;
        self
    }

    /// Checks the job against [`limits`](crate::limits). Every engine calls it before it stores anything, and a
    /// batch with one bad item is refused as a whole.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) names the field, the value and the limit.
    pub fn validate(&self) -> Result<()> {
        self.due.check("delay")?;
        self.body.validate()
    }

    /// [`validate`](Self::validate) for a whole push, and the limit of a batch.
    ///
    /// # Errors
    /// As `validate`, naming the place of the bad item in the batch.
    pub fn validate_all(batch: &[Self]) -> Result<()> {
        crate::backend::check_batch("push", batch.len())?;
        for (at, job) in batch.iter().enumerate() {
            job.validate().map_err(|error| {
                if batch.len() == 1 {
                    error
                } else {
                    Error::invalid(format!("job {at} of the batch: {}", error.message()))
                }
            })?;
        }
        Ok(())
    }
}

/// What became of one pushed job.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pushed {
    /// It is stored.
    Inserted,
    /// A job with this id is stored already; nothing was changed.
    SameId,
    /// This other job holds the unique key; nothing was stored.
    Conflict(JobId),
    /// It is stored, and this job, which waited with or for the unique key, was cancelled for it.
    Superseded(JobId),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(change: impl FnOnce(&mut Body)) -> NewJob {
        let mut body =
            Body::new(JobId::fresh(), QueueName::from_static("mail"), Kind::from_static("greet"), *b"{}");
        change(&mut body);
        NewJob::new(body)
    }

    fn refused(job: &NewJob) -> String {
        job.validate().expect_err("should be refused").message().to_owned()
    }

    #[test]
    fn priorities_are_ten_levels() {
        assert_eq!(Priority::new(9).unwrap(), Priority::HIGHEST);
        assert_eq!(Priority::default(), Priority::NORMAL);
        assert!(Priority::LOWEST < Priority::LOW && Priority::HIGH < Priority::HIGHEST);
        assert_eq!(Priority::level(3).get(), 3);
        assert!(Priority::new(10).unwrap_err().to_string().contains("priority 10 is out of range"));
        assert!(Priority::new(255).is_err());
    }

    #[test]
    #[should_panic(expected = "priority is out of range")]
    fn a_bad_constant_priority_panics() {
        let _ = Priority::level(10);
    }

    #[test]
    fn the_payload_may_be_empty_or_at_the_limit_but_not_above() {
        job(|body| body.payload = Box::default()).validate().unwrap();
        job(|body| body.payload = vec![0; PAYLOAD_MAX_BYTES].into()).validate().unwrap();
        let text = refused(&job(|body| body.payload = vec![0; PAYLOAD_MAX_BYTES + 1].into()));
        assert!(text.contains("payload of `greet` has 1048577 bytes: at most 1048576"), "{text}");
    }

    #[test]
    fn numbers_out_of_range_are_refused() {
        let attempts = refused(&job(|body| body.max_attempts = 0));
        assert!(attempts.contains("max_attempts 0 is out of range: use 1 to 10000"), "{attempts}");
        assert!(refused(&job(|body| body.max_attempts = u16::MAX)).contains("65535"));
        for timeout in [Duration::ZERO, TIMEOUT_MAX + Duration::from_nanos(1), Duration::MAX] {
            assert!(refused(&job(|body| body.timeout = timeout.into())).contains("timeout of"));
        }
        assert!(refused(&job(|body| body.min_reader = 2)).contains("min_reader 2 is newer than version 1"));
    }

    #[test]
    fn a_time_limit_keeps_milliseconds_and_rounds_up() {
        assert_eq!(TimeLimit::from(None).get(), None);
        assert_eq!(TimeLimit::from(Duration::from_secs(30)).get(), Some(Duration::from_secs(30)));
        assert_eq!(TimeLimit::from(Duration::from_nanos(1)).get(), Some(Duration::from_millis(1)));
        assert_eq!(TimeLimit::from(TIMEOUT_MAX).get(), Some(TIMEOUT_MAX));
        assert_ne!(TimeLimit::from(Duration::MAX), TimeLimit::NONE);
        assert_eq!(format!("{:?} {:?}", TimeLimit::NONE, TimeLimit::from(Duration::ZERO)), "None Some(0ns)");
    }

    #[test]
    fn delays_are_bounded_and_instants_are_clamped() {
        job(|_| {}).due(Due::After(Duration::ZERO)).validate().unwrap();
        job(|_| {}).due(Due::After(DELAY_MAX)).validate().unwrap();
        job(|_| {}).due(Due::At(Timestamp::MIN)).validate().unwrap();
        job(|_| {}).due(Due::At(Timestamp::MAX)).validate().unwrap();
        assert!(refused(&job(|_| {}).due(Due::After(Duration::MAX))).contains("delay of"));
        let late = job(|body| body.extras_mut().deadline = Some(Due::After(Duration::MAX)));
        assert!(refused(&late).contains("deadline of"));
        let now = Timestamp::from_millis(1_000);
        assert_eq!(Due::Now.resolve(now), now);
        assert_eq!(Due::After(Duration::from_secs(1)).resolve(now).as_millis(), 2_000);
        assert_eq!(Due::At(Timestamp::MIN).resolve(now), Timestamp::MIN);
    }

    #[test]
    fn tags_and_metadata_are_bounded_and_visible() {
        let tagged = |tag: &str| {
            let tag = tag.to_owned();
            job(move |body| body.extras_mut().tags = vec![tag])
        };
        for good in ["vip", "tenant:7", "été", "e\u{301}te\u{301}", "a b", &"x".repeat(128)] {
            tagged(good).validate().unwrap();
        }
        for bad in [
            "",
            "a\0",
            "a\nb",
            "\u{1b}[31m",
            "\u{202e}evil",
            "in\u{200b}visible",
            &"x".repeat(129),
            &"x".repeat(1 << 20),
        ] {
            let text = refused(&tagged(bad));
            assert!(text.starts_with("tag ") && text.len() < 600, "{text}");
        }
        let many = job(|body| body.extras_mut().tags = vec!["t".to_owned(); 10_000]);
        assert!(refused(&many).contains("10000 tags are too many: at most 32"));
        let metadata = |key: &str, value: &str| {
            let pair = (key.to_owned(), value.to_owned());
            job(move |body| body.extras_mut().metadata.extend([pair]))
        };
        metadata("trace", "00-ab-01").validate().unwrap();
        assert!(refused(&metadata("", "x")).contains("metadata key"));
        assert!(refused(&metadata("k", "a\0b")).contains("NUL"));
        assert!(refused(&metadata("k", &"v".repeat(METADATA_MAX_BYTES))).contains("metadata has 8193 bytes"));
    }

    #[test]
    fn unique_keys_limits_and_parents_are_checked() {
        let unique = |key: &str, until| {
            let unique = Unique { key: key.to_owned(), on_conflict: OnConflict::Skip, until };
            job(move |body| body.extras_mut().unique = Some(unique))
        };
        unique("ada@example.com", Until::End).validate().unwrap();
        unique("k", Until::Window(DELAY_MAX)).validate().unwrap();
        assert!(refused(&unique("", Until::End)).contains("unique key"));
        assert!(refused(&unique(&"k".repeat(257), Until::End)).contains("use 1 to 256"));
        assert!(refused(&unique("k", Until::Window(Duration::ZERO))).contains("unique window of 0 s"));
        assert!(refused(&unique("k", Until::Window(Duration::MAX))).contains("unique window of"));
        let limit = |key: &str, at_most| {
            let limit = ConcurrencyLimit { key: key.to_owned(), at_most };
            job(move |body| body.extras_mut().limit = Some(limit))
        };
        limit("tenant-7", u32::MAX).validate().unwrap();
        assert!(refused(&limit("k", 0)).contains("limit of 0"));
        assert!(refused(&limit("k\n", 1)).contains("limit key"));
        let parent = JobRef::new(QueueName::from_static("mail"), JobId::fresh());
        let orphan = job(|body| body.extras_mut().parents = vec![parent; PARENTS_MAX + 1]);
        assert!(refused(&orphan).contains("1001 parents are too many"));
    }

    #[test]
    fn a_batch_names_its_bad_item() {
        let bad = job(|body| body.max_attempts = 0);
        let text = NewJob::validate_all(&[job(|_| {}), bad.clone()]).unwrap_err().to_string();
        assert!(text.contains("job 1 of the batch: max_attempts 0"), "{text}");
        assert!(!NewJob::validate_all(&[bad]).unwrap_err().to_string().contains("of the batch"));
        NewJob::validate_all(&[]).unwrap();
        let many = vec![job(|_| {}); crate::limits::BATCH_MAX + 1];
        assert!(NewJob::validate_all(&many).unwrap_err().to_string().contains("1001"));
    }

    #[test]
    fn a_body_shows_no_payload_in_debug_output() {
        let job = job(|body| body.payload = Box::from(*b"hunter2"));
        assert!(!format!("{job:?}").contains("hunter2"));
        assert_eq!(job.body.job().id, job.body.id);
        assert!(job.body.unique().is_none() && job.body.limit().is_none());
        assert!(job.body.parents().is_empty() && job.body.tags().is_empty());
    }
}
