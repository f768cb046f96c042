//! A batch of jobs as columns: one array a field, so that any number of jobs is one statement.

use std::collections::HashSet;

use sqlx::Postgres;
use sqlx::postgres::PgArguments;
use sqlx::query::Query;
use uuid::Uuid;
use windlass_core::{Body, Due, NewJob, Timestamp, Until};

use crate::extras;

/// What a job has beside its body's columns. The numbers stand in `sql/tables.sql`.
mod flag {
    pub(super) const KEY: i16 = 1;
    pub(super) const LIMIT: i16 = 2;
    pub(super) const KEY_UNTIL_START: i16 = 8;
    /// Not stored: only tells the functions that this is no plain job.
    pub(super) const PARENTS: i16 = 16;
    /// Neither: this job stands earlier in the batch.
    pub(super) const REPEAT: i16 = 32;
    /// Neither: this job is to have a row in `live` from the start, however plain it is.
    pub(super) const IN_LIVE: i16 = 64;
}

#[derive(Default)]
pub(crate) struct Jobs<'a> {
    ids: Vec<Uuid>,
    queues: Vec<&'a str>,
    kinds: Vec<&'a str>,
    payloads: Vec<&'a [u8]>,
    timeouts: Vec<Option<i64>>,
    versions: Vec<i32>,
    min_readers: Vec<i32>,
    max_attempts: Vec<i16>,
    codecs: Vec<i16>,
    priorities: Vec<i16>,
    flags: Vec<i16>,
    afters: Vec<Option<i64>>,
    dues: Vec<Option<i64>>,
    extras: Vec<Option<String>>,
}

/// A query with its arguments so far.
pub(crate) type Asked<'q> = Query<'q, Postgres, PgArguments>;

impl<'a> Jobs<'a> {
    pub(crate) fn new(jobs: impl IntoIterator<Item = &'a NewJob>) -> Self {
        let mut columns = Self::default();
        let mut seen = HashSet::new();
        for job in jobs {
            columns.add(&job.body, job.due);
            if !seen.insert((job.body.id, job.body.queue.as_str()))
                && let Some(flags) = columns.flags.last_mut()
            {
                *flags |= flag::REPEAT;
            }
        }
        columns
    }

    /// The same jobs, none of them fresh: the push joins no generation of the gate, which one that may take its time must
    /// not (`sql/gate.sql`).
    pub(crate) fn in_live(mut self) -> Self {
        for flags in &mut self.flags {
            *flags |= flag::IN_LIVE;
        }
        self
    }

    fn add(&mut self, body: &'a Body, due: Due) {
        self.ids.push(*body.id.as_uuid());
        self.queues.push(body.queue.as_str());
        self.kinds.push(body.kind.as_str());
        self.payloads.push(&body.payload);
        self.timeouts.push(body.timeout.get().map(millis));
        self.versions.push(i32::from(body.version));
        self.min_readers.push(i32::from(body.min_reader));
        self.max_attempts.push(i16::try_from(body.max_attempts).unwrap_or(i16::MAX));
        self.codecs.push(i16::from(body.codec));
        self.priorities.push(i16::from(body.priority.get()));
        self.flags.push(flags(body));
        let (after, at) = match due {
            Due::Now => (None, None),
            Due::After(delay) => (Some(millis(delay)), None),
            Due::At(instant) => (None, Some(instant.as_millis())),
        };
        self.afters.push(after);
        self.dues.push(at);
        self.extras.push(body.extras.as_deref().map(extras::encode));
    }

    pub(crate) fn bind<'q>(&self, query: Asked<'q>) -> Asked<'q> {
        query
            .bind(&self.ids)
            .bind(&self.queues)
            .bind(&self.kinds)
            .bind(&self.payloads)
            .bind(&self.timeouts)
            .bind(&self.versions)
            .bind(&self.min_readers)
            .bind(&self.max_attempts)
            .bind(&self.codecs)
            .bind(&self.priorities)
            .bind(&self.flags)
            .bind(&self.afters)
            .bind(&self.dues)
            .bind(&self.extras)
    }
}

/// A batch of fresh jobs that differ in id and payload only, as most are: the rest travels once.
pub(crate) struct Alike<'a> {
    body: &'a Body,
    ids: Vec<Uuid>,
    payloads: Vec<&'a [u8]>,
}

impl<'a> Alike<'a> {
    /// The batch, if it is one of several such jobs.
    pub(crate) fn new(jobs: &'a [NewJob]) -> Option<Self> {
        let [first, _, ..] = jobs else { return None };
        let body = &*first.body;
        let alike = |job: &NewJob| {
            let other = &*job.body;
            job.due == Due::Now
                && other.extras.is_none()
                && other.queue == body.queue
                && other.kind == body.kind
                && other.timeout == body.timeout
                && (other.version, other.min_reader, other.max_attempts, other.codec, other.priority)
                    == (body.version, body.min_reader, body.max_attempts, body.codec, body.priority)
        };
        jobs.iter().all(alike).then(|| Self {
            body,
            ids: jobs.iter().map(|job| *job.body.id.as_uuid()).collect(),
            payloads: jobs.iter().map(|job| &*job.body.payload).collect(),
        })
    }

    pub(crate) fn bind<'q>(&self, query: Asked<'q>) -> Asked<'q> {
        query
            .bind(self.body.queue.as_str().to_owned())
            .bind(self.body.kind.as_str().to_owned())
            .bind(self.body.timeout.get().map(millis))
            .bind(i32::from(self.body.version))
            .bind(i32::from(self.body.min_reader))
            .bind(i16::try_from(self.body.max_attempts).unwrap_or(i16::MAX))
            .bind(i16::from(self.body.codec))
            .bind(i16::from(self.body.priority.get()))
            .bind(&self.ids)
            .bind(&self.payloads)
    }
}

/// Whether a job needs no other's row: it has no key, limit or parents.
pub(crate) fn is_plain(body: &Body) -> bool {
    flags(body) == 0
}

fn flags(body: &Body) -> i16 {
    let mut flags = 0;
    if let Some(unique) = body.unique() {
        flags |= flag::KEY;
        if unique.until == Until::Start {
            flags |= flag::KEY_UNTIL_START;
        }
    }
    if body.limit().is_some() {
        flags |= flag::LIMIT;
    }
    if !body.parents().is_empty() {
        flags |= flag::PARENTS;
    }
    flags
}

/// Whole milliseconds; a part of one counts as a whole, so that nothing happens early.
pub(crate) fn millis(duration: std::time::Duration) -> i64 {
    Timestamp::from_millis(0).saturating_add(duration).as_millis()
}
