//! A batch of verdicts as columns, in the order of the rows they are about: calls that touch the same rows lock them in one
//! order and never wait for each other in a circle.

use std::collections::HashSet;

use uuid::Uuid;
use windlass_core::limits::{TEXT_MAX_BYTES, clip};
use windlass_core::{
    DeadReason, Error, ErrorKind, Lease, NewJob, Result, Ruling, Settled, StateKind, Verdict,
};

use crate::jobs::{Asked, Jobs, millis};
use crate::rows::dead_number;

/// The line in the handle of a job that was fresh when it was claimed.
const FRESH: i16 = 7;

/// Where a lease's row stands, from its handle. A guess that is wrong finds nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    line: i16,
    rank: i64,
    seq: i64,
}

impl Place {
    pub(crate) fn of(lease: &Lease) -> Self {
        let part = |shift: u32, mask: u64| i64::try_from((lease.handle >> shift) & mask).unwrap_or(-1);
        Self {
            line: i16::try_from(part(60, 7)).unwrap_or(-1),
            rank: part(56, 15),
            seq: part(0, (1 << 56) - 1),
        }
    }
}

/// The epoch as it is stored. No job is claimed two thousand million times: a greater one is a guess.
pub(crate) fn epoch(lease: &Lease) -> i32 {
    i32::try_from(lease.epoch).unwrap_or(-1)
}

pub(crate) fn nonce(lease: &Lease) -> Uuid {
    Uuid::from_u128(lease.nonce.as_u128())
}

#[derive(Default)]
pub(crate) struct Leases<'a> {
    queues: Vec<&'a str>,
    ids: Vec<Uuid>,
    epochs: Vec<i32>,
    nonces: Vec<Uuid>,
    lines: Vec<i16>,
    ranks: Vec<i64>,
    seqs: Vec<i64>,
}

impl<'a> Leases<'a> {
    pub(crate) fn add(&mut self, lease: &'a Lease) {
        let place = Place::of(lease);
        self.queues.push(lease.job.queue.as_str());
        self.ids.push(*lease.job.id.as_uuid());
        self.epochs.push(epoch(lease));
        self.nonces.push(nonce(lease));
        self.lines.push(place.line);
        self.ranks.push(place.rank);
        self.seqs.push(place.seq);
    }

    pub(crate) fn bind<'q>(&self, query: Asked<'q>) -> Asked<'q> {
        query
            .bind(&self.queues)
            .bind(&self.ids)
            .bind(&self.epochs)
            .bind(&self.nonces)
            .bind(&self.lines)
            .bind(&self.ranks)
            .bind(&self.seqs)
    }
}

#[derive(Default)]
pub(crate) struct Verdicts<'a> {
    leases: Leases<'a>,
    order_given: Vec<i32>,
    rulings: Vec<i16>,
    plain: Vec<bool>,
    afters: Vec<i64>,
    messages: Vec<Option<String>>,
    panicked: Vec<bool>,
    outputs: Vec<Option<&'a [u8]>>,
    dead: Vec<Option<i16>>,
    riding: Vec<i32>,
    then: Vec<&'a NewJob>,
    /// Whether anything but the ends of plain jobs may come of it: work for others.
    pub(crate) makes_work: bool,
}

impl<'a> Verdicts<'a> {
    pub(crate) fn new(verdicts: &'a [Verdict]) -> Self {
        let mut order: Vec<usize> = (0..verdicts.len()).collect();
        order.sort_by_key(|at| {
            let lease = &verdicts[*at].lease;
            (lease.job.queue.as_str(), Place::of(lease))
        });
        let mut firsts = HashSet::with_capacity(verdicts.len());
        let first: Vec<bool> = verdicts.iter().map(|verdict| firsts.insert(&verdict.lease.job)).collect();
        let mut columns = Self::default();
        for at in order {
            columns.add(at, &verdicts[at], first[at]);
        }
        for (at, verdict) in verdicts.iter().enumerate() {
            columns.riding.extend(verdict.then.iter().map(|_| number(at)));
            columns.then.extend(&verdict.then);
        }
        columns
    }

    fn add(&mut self, at: usize, verdict: &'a Verdict, first: bool) {
        self.leases.add(&verdict.lease);
        self.order_given.push(number(at));
        let (ruling, after, message, panicked, output, dead) = match &verdict.ruling {
            Ruling::Complete { output } => (0, None, None, false, output.as_deref(), None),
            Ruling::Retry { after, error } => {
                (1, Some(*after), Some(error.message().to_owned()), error.is_panic(), None, None)
            }
            Ruling::Snooze { after } => (2, Some(*after), None, false, None, None),
            Ruling::Cancel { reason } => (3, None, Some(clip(reason, TEXT_MAX_BYTES)), false, None, None),
            Ruling::Bury { error, reason } => {
                let reason: DeadReason = *reason;
                (4, None, Some(error.message().to_owned()), error.is_panic(), None, Some(dead_number(reason)))
            }
            Ruling::Release => (5, None, None, false, None, None),
        };
        let plain = ruling == 0 && first && verdict.then.is_empty();
        self.makes_work |= !plain;
        self.rulings.push(ruling);
        self.plain.push(plain);
        self.afters.push(after.map_or(0, millis));
        self.messages.push(message);
        self.panicked.push(panicked);
        self.outputs.push(output);
        self.dead.push(dead);
    }

    /// Whether jobs ride with them.
    pub(crate) fn has_then(&self) -> bool {
        !self.then.is_empty()
    }

    /// The columns, and the jobs that ride with them if there are any.
    pub(crate) fn bind<'q>(&self, query: Asked<'q>) -> Asked<'q> {
        let query = self
            .leases
            .bind(query)
            .bind(&self.order_given)
            .bind(&self.rulings)
            .bind(&self.plain)
            .bind(&self.afters)
            .bind(&self.messages)
            .bind(&self.panicked)
            .bind(&self.outputs)
            .bind(&self.dead)
            .bind(&self.riding);
        if self.has_then() { Jobs::new(self.then.iter().copied()).bind(query) } else { query }
    }

    /// The queues that the verdicts and the jobs that ride with them are of.
    pub(crate) fn queues(&self) -> HashSet<&'a str> {
        let then = self.then.iter().map(|job| job.body.queue.as_str());
        self.leases.queues.iter().copied().chain(then).collect()
    }
}

/// Completions that differ in little: of fresh jobs of one queue and rank, each named once.
pub(crate) struct Alike<'a> {
    queue: &'a str,
    rank: i64,
    nonces: Vec<Uuid>,
    /// Up to which of the jobs each nonce goes.
    ends: Vec<i32>,
    ids: Vec<Uuid>,
    seqs: Vec<i64>,
    outputs: Vec<Option<&'a [u8]>>,
}

impl<'a> Alike<'a> {
    /// `None` when they are not alike.
    pub(crate) fn new(verdicts: &'a [Verdict]) -> Option<Self> {
        let first = verdicts.first()?;
        let (queue, rank) = (&first.lease.job.queue, Place::of(&first.lease).rank);
        let mut placed = Vec::with_capacity(verdicts.len());
        for verdict in verdicts {
            let Verdict { lease, ruling: Ruling::Complete { output }, then } = verdict else { return None };
            let place = Place::of(lease);
            let alike =
                place.line == FRESH && place.rank == rank && lease.epoch == 1 && lease.job.queue == *queue;
            if !alike || !then.is_empty() {
                return None;
            }
            placed.push((place.seq, lease, output.as_deref()));
        }
        placed.sort_unstable_by_key(|(seq, ..)| *seq);
        if placed.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            return None;
        }
        let mut alike = Self {
            queue: queue.as_str(),
            rank,
            nonces: Vec::new(),
            ends: Vec::new(),
            ids: Vec::with_capacity(placed.len()),
            seqs: Vec::with_capacity(placed.len()),
            outputs: Vec::with_capacity(placed.len()),
        };
        for (seq, lease, output) in placed {
            alike.ids.push(*lease.job.id.as_uuid());
            alike.seqs.push(seq);
            alike.outputs.push(output);
            let (nonce, end) = (nonce(lease), i32::try_from(alike.ids.len()).ok()?);
            match (alike.nonces.last(), alike.ends.last_mut()) {
                (Some(last), Some(ends)) if *last == nonce => *ends = end,
                _ => {
                    alike.nonces.push(nonce);
                    alike.ends.push(end);
                }
            }
        }
        Some(alike)
    }

    pub(crate) fn queue(&self) -> &'a str {
        self.queue
    }

    pub(crate) fn bind<'q>(&self, query: Asked<'q>) -> Asked<'q> {
        query
            .bind(self.queue)
            .bind(self.rank)
            .bind(&self.nonces)
            .bind(&self.ends)
            .bind(&self.ids)
            .bind(&self.seqs)
            .bind(&self.outputs)
    }
}

/// The place in a batch as SQL counts it: from one.
fn number(at: usize) -> i32 {
    i32::try_from(at + 1).unwrap_or(i32::MAX)
}

/// Whether a claim beside a verdict finds the same as one after it, but for the jobs that wait for this one.
pub(crate) fn sets_nothing_free(verdict: &Verdict) -> bool {
    matches!(verdict.ruling, Ruling::Complete { .. })
        && verdict.then.is_empty()
        && Place::of(&verdict.lease).line == FRESH
}

/// What the numbers of an answer mean.
pub(crate) fn settled(answers: &[i16]) -> Result<Vec<Settled>> {
    let one = |answer: &i16| match *answer {
        7 => Ok(Settled::AlreadyApplied),
        8 => Ok(Settled::LeaseLost),
        state => crate::rows::state(state).map(Settled::Applied),
    };
    answers.iter().map(one).collect()
}

/// Whether a verdict ended its job, for those who wait for outcomes.
pub(crate) fn ended(settled: &[Settled]) -> bool {
    settled.iter().any(|settled| matches!(settled, Settled::Applied(state) if StateKind::is_final(*state)))
}

/// An answer with another number of parts than were asked about.
pub(crate) fn same_length(asked: usize, answered: usize) -> Result<()> {
    if asked == answered {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Decode, format!("{answered} answers to {asked} questions")).effect_unknown())
}
