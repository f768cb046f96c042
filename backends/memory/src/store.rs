//! The data: jobs in a slab, and for each named queue the indexes that say where every job waits.
//!
//! The invariant of this file: a job stands in exactly the index of its state, and the counts agree. Only `enter`
//! and `leave` touch the indexes, so a transition cannot forget one.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::num::NonZeroU64;
use std::sync::Arc;

use slab::Slab;
use windlass_core::{
    At, Body, Counts, DeadReason, Error, ErrorKind, Failure, JobId, JobRef, Kind, Lease, LogLine, Nonce,
    Priority, Progress, QueueName, Result, Retention, SessionId, StateKind, Timestamp, WhyBlocked,
    WhyScheduled,
};

use crate::mutant::Mutant;
use crate::recorder::Recorder;

/// The place of a job in the slab.
pub(crate) type Slot = u32;

/// A place in line: priority first, then entry. One number, so that a line is an ordered map with small keys.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Rank(u64);

impl Rank {
    pub(crate) fn new(priority: Priority, sequence: u64) -> Self {
        // Ten levels need four bits; sixty bits of sequence last for centuries of nanoseconds.
        Self((u64::from(9 - priority.get()) << 60) | sequence)
    }
}

/// Which line of its named queue a Ready job stands in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Line {
    /// The ordinary one.
    Main,
    /// Jobs that lost a lease.
    Suspects,
    /// Jobs that a claim could not run and moved aside.
    Parked,
}

/// A lease in storage.
pub(crate) struct Run {
    pub(crate) session: SessionId,
    pub(crate) nonce: Nonce,
    pub(crate) since: Timestamp,
    pub(crate) until: Timestamp,
    pub(crate) started: bool,
    /// The place in line it was claimed from, for a release.
    pub(crate) rank: Rank,
}

/// How a job ended.
pub(crate) enum End {
    Completed { output: Option<Box<[u8]>> },
    Cancelled { reason: String, superseded_by: Option<JobId> },
    Dead { reason: DeadReason },
}

impl End {
    pub(crate) fn kind(&self) -> StateKind {
        match self {
            Self::Completed { .. } => StateKind::Completed,
            Self::Cancelled { .. } => StateKind::Cancelled,
            Self::Dead { .. } => StateKind::Dead,
        }
    }
}

pub(crate) struct Ended {
    pub(crate) at: Timestamp,
    pub(crate) sequence: u64,
    pub(crate) end: End,
}

pub(crate) enum State {
    Blocked { why: WhyBlocked, rank: Rank },
    Scheduled { due: Timestamp, sequence: u64, why: WhyScheduled },
    Ready { rank: Rank, line: Line },
    Running(Box<Run>),
    Ended(Box<Ended>),
}

impl State {
    pub(crate) fn kind(&self) -> StateKind {
        match self {
            Self::Blocked { .. } => StateKind::Blocked,
            Self::Scheduled { .. } => StateKind::Scheduled,
            Self::Ready { .. } => StateKind::Ready,
            Self::Running(_) => StateKind::Running,
            Self::Ended(ended) => ended.end.kind(),
        }
    }

    /// Whether a job in this state occupies a place under its concurrency limit.
    pub(crate) fn holds_place(&self) -> bool {
        matches!(self, Self::Ready { .. } | Self::Running(_))
    }
}

/// What most jobs do without.
#[derive(Default)]
pub(crate) struct More {
    pub(crate) deadline: Option<Timestamp>,
    /// When a Blocked job is due, once nothing blocks it.
    pub(crate) due: Option<Timestamp>,
    pub(crate) parents_left: u32,
    pub(crate) children: Vec<(Slot, JobId)>,
    pub(crate) cancel_reason: Option<String>,
    pub(crate) last_error: Option<Failure>,
    pub(crate) progress: Option<Progress>,
    pub(crate) log: Vec<LogLine>,
}

pub(crate) struct Job {
    pub(crate) body: Arc<Body>,
    pub(crate) state: State,
    pub(crate) more: Option<Box<More>>,
    pub(crate) created_at: Timestamp,
    pub(crate) epoch: u64,
    pub(crate) generation: u32,
    pub(crate) lane: u32,
    pub(crate) attempts: u16,
    pub(crate) lost_leases: u16,
    pub(crate) suspect: bool,
    /// Nonce and epoch of the last lease that was settled, folded, to know a repeat of its verdict. A lease that was reclaimed
    /// or handed back never stands here: nothing its worker says later was applied.
    pub(crate) settled_by: Option<NonZeroU64>,
}

/// Half the bits of a nonce: enough to tell a repeat of the lease with the same epoch from another one, and small, since
/// every job has a place for it. The fence itself compares all bits.
#[expect(clippy::cast_possible_truncation, reason = "folding 128 bits into 64")]
pub(crate) fn folded(lease: &Lease) -> NonZeroU64 {
    let bits = lease.nonce.as_u128();
    // The epoch as well, spread over all bits: a claim that was delivered twice gives its nonce to two leases.
    let epoch = lease.epoch.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    NonZeroU64::new((bits ^ (bits >> 64)) as u64 ^ epoch).unwrap_or(NonZeroU64::MIN)
}

impl Job {
    pub(crate) fn more(&mut self) -> &mut More {
        self.more.get_or_insert_default()
    }

    pub(crate) fn cancel_requested(&self) -> bool {
        self.more.as_ref().is_some_and(|more| more.cancel_reason.is_some())
    }
}

/// A unique key in use.
pub(crate) struct Key {
    pub(crate) holder: JobId,
    /// For a window: when the key is free again, whatever became of the holder.
    pub(crate) until: Option<Timestamp>,
    /// The one job that waits for the holder's end.
    pub(crate) next: Option<JobId>,
}

impl Key {
    /// Whether the window has ended. Not under one that waits behind: it is to be let in at the holder's end.
    pub(crate) fn is_free(&self, now: Timestamp) -> bool {
        self.next.is_none() && self.until.is_some_and(|until| until <= now)
    }
}

/// A concurrency limit in use.
#[derive(Default)]
pub(crate) struct Places {
    pub(crate) taken: u32,
    pub(crate) blocked: BTreeMap<Rank, Slot>,
}

pub(crate) struct Lane {
    pub(crate) name: QueueName,
    pub(crate) paused: bool,
    pub(crate) counts: Counts,
    pub(crate) ids: BTreeMap<JobId, Slot>,
    pub(crate) ready: BTreeMap<Rank, Slot>,
    pub(crate) suspects: BTreeMap<Rank, Slot>,
    pub(crate) parked: BTreeMap<(Kind, u16), BTreeMap<Rank, Slot>>,
    pub(crate) scheduled: BTreeMap<(Timestamp, u64), Slot>,
    pub(crate) leases: BTreeSet<(Timestamp, Slot)>,
    /// Finished jobs by the order of their ends: Completed, Cancelled, Dead.
    pub(crate) ended: [BTreeMap<u64, Slot>; 3],
    pub(crate) keys: HashMap<String, Key>,
    /// When windows of unique keys end.
    pub(crate) windows: BTreeSet<(Timestamp, String)>,
    pub(crate) limits: HashMap<String, Places>,
}

impl Lane {
    fn new(name: QueueName) -> Self {
        Self {
            name,
            paused: false,
            counts: Counts::default(),
            ids: BTreeMap::new(),
            ready: BTreeMap::new(),
            suspects: BTreeMap::new(),
            parked: BTreeMap::new(),
            scheduled: BTreeMap::new(),
            leases: BTreeSet::new(),
            ended: Default::default(),
            keys: HashMap::new(),
            windows: BTreeSet::new(),
            limits: HashMap::new(),
        }
    }
}

/// The index into [`Lane::ended`].
pub(crate) fn shelf(kind: StateKind) -> usize {
    kind as usize - StateKind::Completed as usize
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Timing {
    Server,
    Virtual,
}

pub(crate) struct Store {
    pub(crate) jobs: Slab<Job>,
    pub(crate) lanes: Vec<Lane>,
    lane_of: HashMap<QueueName, u32>,
    pub(crate) retention: Retention,
    /// Sessions that have something to hear: a cancellation of a job they run.
    pub(crate) control: HashSet<SessionId>,
    /// Everything ever dispatched, when it is recorded.
    pub(crate) recorded: Option<Recorder>,
    sequence: u64,
    timing: Option<Timing>,
    latest: Timestamp,
    #[cfg(feature = "mutants")]
    pub(crate) mutant: Option<Mutant>,
}

impl Store {
    pub(crate) fn new(retention: Retention, record: bool) -> Self {
        Self {
            jobs: Slab::new(),
            lanes: Vec::new(),
            lane_of: HashMap::new(),
            retention,
            control: HashSet::new(),
            recorded: record.then(Recorder::default),
            sequence: 0,
            timing: None,
            latest: Timestamp::MIN,
            #[cfg(feature = "mutants")]
            mutant: None,
        }
    }

    /// Whether this store has that fault on purpose.
    #[cfg(feature = "mutants")]
    pub(crate) fn mutated(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    /// Whether this store has that fault on purpose: never, in this build.
    #[cfg(not(feature = "mutants"))]
    #[expect(clippy::unused_self, reason = "the same call with the feature")]
    pub(crate) const fn mutated(&self, _: Mutant) -> bool {
        false
    }

    /// What time it is: the later of the instant given and the latest seen.
    pub(crate) fn tick(&mut self, at: At) -> Result<Timestamp> {
        let (timing, now) = match at {
            At::Server => (Timing::Server, None),
            At::Instant(instant) => (Timing::Virtual, Some(instant)),
        };
        if *self.timing.get_or_insert(timing) != timing {
            return Err(Error::new(
                ErrorKind::Config,
                "this namespace is timed the other way: server time and virtual time cannot be mixed, use a \
                 namespace of its own for each",
            ));
        }
        self.latest = self.latest.max(now.unwrap_or_else(Timestamp::system_now));
        Ok(self.latest)
    }

    pub(crate) fn next_sequence(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }

    pub(crate) fn find_lane(&self, name: &QueueName) -> Option<u32> {
        self.lane_of.get(name).copied()
    }

    pub(crate) fn open_lane(&mut self, name: &QueueName) -> u32 {
        if let Some(lane) = self.find_lane(name) {
            return lane;
        }
        let lane = u32::try_from(self.lanes.len()).unwrap_or(u32::MAX);
        self.lanes.push(Lane::new(name.clone()));
        self.lane_of.insert(name.clone(), lane);
        lane
    }

    pub(crate) fn lane(&mut self, lane: u32) -> &mut Lane {
        &mut self.lanes[lane as usize]
    }

    pub(crate) fn find(&self, job: &JobRef) -> Option<Slot> {
        let lane = self.find_lane(&job.queue)?;
        self.lanes[lane as usize].ids.get(&job.id).copied()
    }

    pub(crate) fn job(&self, slot: Slot) -> &Job {
        &self.jobs[slot as usize]
    }

    pub(crate) fn job_mut(&mut self, slot: Slot) -> &mut Job {
        &mut self.jobs[slot as usize]
    }

    /// Puts a job that is in no index yet into the slab. `enter` must follow.
    pub(crate) fn insert(&mut self, job: Job) -> Slot {
        let (lane, id) = (job.lane, job.body.id);
        let slot =
            Slot::try_from(self.jobs.insert(job)).expect("more than four thousand million jobs in memory");
        self.lane(lane).ids.insert(id, slot);
        slot
    }

    /// Takes a job out of the index of its state. `enter` or `forget` must follow.
    pub(crate) fn leave(&mut self, slot: Slot) {
        let job = &self.jobs[slot as usize];
        let lane = &mut self.lanes[job.lane as usize];
        *lane.counts.get_mut(job.state.kind()) -= 1;
        match &job.state {
            State::Blocked { why: WhyBlocked::Limit, rank } => {
                if let Some(places) = job.body.limit().and_then(|limit| lane.limits.get_mut(&limit.key)) {
                    places.blocked.remove(rank);
                }
            }
            State::Blocked { .. } => {}
            State::Scheduled { due, sequence, .. } => {
                lane.scheduled.remove(&(*due, *sequence));
            }
            State::Ready { rank, line } => match line {
                Line::Main => {
                    lane.ready.remove(rank);
                }
                Line::Suspects => {
                    lane.suspects.remove(rank);
                }
                Line::Parked => {
                    let group = (job.body.kind.clone(), job.body.min_reader);
                    if let Some(parked) = lane.parked.get_mut(&group) {
                        parked.remove(rank);
                        if parked.is_empty() {
                            lane.parked.remove(&group);
                        }
                    }
                }
            },
            State::Running(run) => {
                lane.leases.remove(&(run.until, slot));
            }
            State::Ended(ended) => {
                lane.ended[shelf(ended.end.kind())].remove(&ended.sequence);
            }
        }
    }

    /// Puts a job into the index of `state`, having left the one it was in.
    pub(crate) fn enter(&mut self, slot: Slot, state: State) {
        let drift = self.mutated(Mutant::CountsDrift) && state.kind() == StateKind::Dead;
        let job = &mut self.jobs[slot as usize];
        let lane = &mut self.lanes[job.lane as usize];
        *lane.counts.get_mut(if drift { StateKind::Cancelled } else { state.kind() }) += 1;
        match &state {
            State::Blocked { why: WhyBlocked::Limit, rank } => {
                if let Some(limit) = job.body.limit() {
                    lane.limits.entry(limit.key.clone()).or_default().blocked.insert(*rank, slot);
                }
            }
            State::Blocked { .. } => {}
            State::Scheduled { due, sequence, .. } => {
                lane.scheduled.insert((*due, *sequence), slot);
            }
            State::Ready { rank, line } => {
                match line {
                    Line::Main => &mut lane.ready,
                    Line::Suspects => &mut lane.suspects,
                    Line::Parked => {
                        lane.parked.entry((job.body.kind.clone(), job.body.min_reader)).or_default()
                    }
                }
                .insert(*rank, slot);
            }
            State::Running(run) => {
                lane.leases.insert((run.until, slot));
            }
            State::Ended(ended) => {
                lane.ended[shelf(ended.end.kind())].insert(ended.sequence, slot);
            }
        }
        job.state = state;
    }

    /// Drops a job that has left its index.
    pub(crate) fn forget(&mut self, slot: Slot) -> Job {
        let job = self.jobs.remove(slot as usize);
        self.lane(job.lane).ids.remove(&job.body.id);
        job
    }

    /// The slot of a Running job whose lease this still is: the fence. Everything a worker says passes here.
    pub(crate) fn fenced(&self, lease: &Lease) -> Option<Slot> {
        let slot = Slot::try_from(lease.handle).ok()?;
        let job = self
            .jobs
            .get(slot as usize)
            .filter(|job| job.body.id == lease.job.id && job.body.queue == lease.job.queue);
        let (slot, job) = match job {
            Some(job) => (slot, job),
            None => {
                // The handle is a hint; the address decides.
                let slot = self.find(&lease.job)?;
                (slot, self.job(slot))
            }
        };
        match &job.state {
            State::Running(run)
                if (job.epoch == lease.epoch || self.mutated(Mutant::NoEpochCheck))
                    && (run.nonce == lease.nonce || self.mutated(Mutant::NoNonceCheck)) =>
            {
                Some(slot)
            }
            State::Running(_) if self.mutated(Mutant::NoFence) => Some(slot),
            _ => None,
        }
    }
}
