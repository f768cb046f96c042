//! The oracle: a shadow of every job, kept by what went over the wire, against which the store is compared.
//!
//! Of each step at the engine: `push`, `claim`, `settle`, `lease`, `operators`, and `compare` looks whether the store is as
//! it should be afterwards. Of each worker: `peers`, `calls`, `handlers`. Of the end: `drained`, `script`. A broken promise
//! is named by its number in the design: S1 to S9, S12, S13, S15 to S21, L1 to L5, L7.

mod calls;
mod claim;
mod compare;
mod drained;
mod handlers;
mod lease;
mod operators;
mod peers;
mod push;
mod script;
mod settle;
mod shadow;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use windlass_core::{At, Body, JobId, Lease, QueueName, Timestamp};
use windlass_memory::MemoryBackend;

pub(crate) use self::calls::Call;
pub(crate) use self::drained::Queueing;
use self::handlers::Run;
pub(crate) use self::handlers::Said;
use self::peers::Peer;
use self::shadow::{Shadow, Stand};
use crate::{Story, Violation};

/// The oracle, as everybody on stage holds it.
#[derive(Clone)]
pub(crate) struct Stage(Arc<Mutex<Oracle>>);

impl Stage {
    pub(crate) fn new(oracle: Oracle) -> Self {
        Self(Arc::new(Mutex::new(oracle)))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Oracle> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What watches a history.
pub(crate) struct Oracle {
    pub(crate) engine: MemoryBackend,
    seed: u64,
    begun: tokio::time::Instant,
    jobs: BTreeMap<JobId, Shadow>,
    /// Jobs by queue and unique key, in the order of their pushes.
    by_key: BTreeMap<(QueueName, String), Vec<JobId>>,
    by_limit: BTreeMap<(QueueName, String), Vec<JobId>>,
    running: BTreeSet<JobId>,
    /// Plain jobs that were never claimed, by queue.
    fresh: BTreeMap<QueueName, BTreeSet<JobId>>,
    paused: BTreeSet<QueueName>,
    acknowledged: BTreeSet<JobId>,
    past: Vec<Lease>,
    sessions: BTreeMap<u128, u32>,
    peers: BTreeMap<u32, Peer>,
    runs: Vec<Run>,
    run_of: BTreeMap<(JobId, u64), usize>,
    healed: Option<Timestamp>,
    steps: u64,
    pushes: u64,
    faults: u64,
    hash: u64,
    pub(crate) violation: Option<Box<Violation>>,
    pub(crate) story: Option<Story>,
}

impl Oracle {
    pub(crate) fn new(seed: u64, engine: MemoryBackend, told: bool) -> Self {
        Self {
            engine,
            seed,
            begun: tokio::time::Instant::now(),
            jobs: BTreeMap::new(),
            by_key: BTreeMap::new(),
            by_limit: BTreeMap::new(),
            running: BTreeSet::new(),
            fresh: BTreeMap::new(),
            paused: BTreeSet::new(),
            acknowledged: BTreeSet::new(),
            past: Vec::new(),
            sessions: BTreeMap::new(),
            peers: BTreeMap::new(),
            runs: Vec::new(),
            run_of: BTreeMap::new(),
            healed: None,
            steps: 0,
            pushes: 0,
            faults: 0,
            hash: 0xcbf2_9ce4_8422_2325,
            violation: None,
            story: told.then(Vec::new),
        }
    }

    /// The engine's time: tokio's, from a fixed beginning.
    pub(crate) fn now(&self) -> Timestamp {
        Timestamp::VIRTUAL_START.saturating_add(self.begun.elapsed())
    }

    pub(crate) fn at(&self) -> At {
        At::Instant(self.now())
    }

    /// Notes that something was made to go wrong.
    pub(crate) fn fault(&mut self) {
        self.faults += 1;
    }

    pub(crate) fn passed(&self) -> crate::Passed {
        crate::Passed {
            hash: self.hash,
            calls: self.steps,
            runs: self.runs.len() as u64,
            jobs: self.jobs.len() as u64,
            faults: self.faults,
            millis: u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX),
        }
    }

    /// A line of the story, and its part in the hash: FNV-1a by the word, folded so that every bit reaches the lower ones.
    pub(crate) fn note(&mut self, words: &[u64], line: impl FnOnce() -> String) {
        let now = u64::try_from(self.now().as_millis()).unwrap_or(0);
        for word in std::iter::once(&now).chain(words) {
            self.hash = (self.hash ^ word).wrapping_mul(0x0100_0000_01b3);
            self.hash ^= self.hash >> 32;
        }
        if self.story.is_some() {
            let line = format!("{:>9.3} s  {}", self.begun.elapsed().as_secs_f64(), self.shortened(&line()));
            self.story.get_or_insert_default().push(line);
        }
    }

    /// The text with each job by its number among all that were stored, for people: `mail/#12`.
    fn shortened(&self, text: &str) -> String {
        const LENGTH: usize = 36;
        let mut short = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find("00000000-") {
            let known = rest.get(at..at + LENGTH).and_then(|id| self.jobs.get(&id.parse().ok()?));
            let (upto, name) = match known {
                Some(shadow) => (at + LENGTH, format!("#{}", shadow.order)),
                None => (at + 1, "0".to_owned()),
            };
            short.push_str(&rest[..at]);
            short.push_str(&name);
            rest = &rest[upto..];
        }
        short.push_str(rest);
        short
    }

    /// The first violation stands.
    fn broken(&mut self, check: &'static str, text: impl FnOnce() -> String) {
        if self.violation.is_none() {
            let story = self.story.clone().unwrap_or_default();
            let text = self.shortened(&text());
            self.violation = Some(Box::new(Violation { seed: self.seed, check, text, story }));
        }
    }

    pub(crate) fn expect(&mut self, holds: bool, check: &'static str, text: impl FnOnce() -> String) {
        if !holds {
            self.broken(check, text);
        }
    }

    /// Counts a step at the engine; every now and then all records are looked at.
    fn step_taken(&mut self) {
        self.steps += 1;
        if self.steps.is_multiple_of(64) {
            self.look_at_all();
        }
    }

    fn shadow(&mut self, id: JobId) -> Option<&mut Shadow> {
        self.jobs.get_mut(&id)
    }

    /// Takes a new job in.
    fn insert(&mut self, body: &Arc<Body>, due: Timestamp) {
        let (id, now) = (body.id, self.now());
        self.pushes += 1;
        let job = body.job();
        let plain = body.extras.is_none() && body.kind.as_str() == "act";
        if let Some(unique) = body.unique() {
            self.by_key.entry((job.queue.clone(), unique.key.clone())).or_default().push(id);
        }
        if let Some(limit) = body.limit() {
            self.by_limit.entry((job.queue.clone(), limit.key.clone())).or_default().push(id);
        }
        if plain {
            self.fresh.entry(job.queue.clone()).or_default().insert(id);
        }
        let shadow = Shadow {
            job,
            body: Arc::clone(body),
            stand: Stand::Waiting,
            created: now,
            due,
            order: self.pushes,
            deed: script::deed(body),
            deadline: body.extras.as_ref().and_then(|extras| extras.deadline).map(|due| due.resolve(now)),
            called_off: false,
            plain,
            epoch: 0,
            generation: 0,
            attempts: 0,
            lost: 0,
            lost_at_once: 0,
            most_lost_at_once: 0,
            suspect: false,
            settled_by: None,
            cancel: false,
            last_until: Timestamp::MIN,
        };
        self.jobs.insert(id, shadow);
    }

    /// Moves a shadow.
    fn stand(&mut self, id: JobId, stand: Stand) {
        let Some(shadow) = self.jobs.get_mut(&id) else { return };
        if let Stand::Running(hold) = &shadow.stand {
            shadow.last_until = hold.until;
        }
        if matches!(stand, Stand::Running(_)) {
            self.running.insert(id);
        } else {
            self.running.remove(&id);
        }
        if (stand != Stand::Waiting || shadow.epoch > 0)
            && let Some(fresh) = self.fresh.get_mut(&shadow.job.queue)
        {
            fresh.remove(&id);
        }
        shadow.stand = stand;
    }

    /// Keeps a job out of the checks of order.
    fn touched(&mut self, id: JobId) {
        if let Some(shadow) = self.jobs.get_mut(&id) {
            shadow.plain = false;
            if let Some(fresh) = self.fresh.get_mut(&shadow.job.queue) {
                fresh.remove(&id);
            }
        }
    }
}
