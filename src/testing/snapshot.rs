//! What was dispatched, as a plain value: taken from a fake's log, or from any engine that can be inspected.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use windlass_core::{
    Body, Filter, Inspect, Kind, QueueName, Record, RecordState, Result, StateKind, Timestamp,
};
use windlass_memory::MemoryBackend;

use super::query::Query;
use super::text;
use crate::job::Job;
use crate::queue::Queue;

/// A place in a fake's log of dispatches, from [`Queue::mark`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mark(usize);

/// What was dispatched and what became of it, at one moment. Later dispatches do not change it.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub(crate) entries: Arc<[Entry]>,
}

/// One dispatch in a [`Snapshot`].
#[derive(Clone, Debug)]
pub struct Entry {
    number: usize,
    body: Arc<Body>,
    at: Timestamp,
    due: Timestamp,
    state: Option<StateKind>,
    attempts: u16,
}

impl Entry {
    /// Its number in the log, from 1, as failures show it: `#1`.
    #[must_use]
    pub fn number(&self) -> usize {
        self.number
    }

    /// What was dispatched.
    #[must_use]
    pub fn body(&self) -> &Body {
        &self.body
    }

    /// The name of its type.
    #[must_use]
    pub fn kind(&self) -> &Kind {
        &self.body.kind
    }

    /// The named queue it went to.
    #[must_use]
    pub fn queue(&self) -> &QueueName {
        &self.body.queue
    }

    /// When it was dispatched.
    #[must_use]
    pub fn at(&self) -> Timestamp {
        self.at
    }

    /// When it was due.
    #[must_use]
    pub fn due(&self) -> Timestamp {
        self.due
    }

    /// How long after its dispatch it was due; zero for at once.
    #[must_use]
    pub fn delay(&self) -> Duration {
        self.due.since(self.at)
    }

    /// The state it is in; `None` when it is no longer stored.
    #[must_use]
    pub fn state(&self) -> Option<StateKind> {
        self.state
    }

    /// Handlers that started and gave a verdict.
    #[must_use]
    pub fn attempts(&self) -> u16 {
        self.attempts
    }

    pub(crate) fn state_text(&self) -> &'static str {
        self.state.map_or("gone", StateKind::as_str)
    }
}

impl Snapshot {
    /// Every dispatch, oldest first.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The dispatches of `J`, under its name or an alias, to be narrowed down and asserted.
    pub fn dispatched<J: Job>(&self) -> Query<J> {
        Query::new(self.entries.clone())
    }

    /// The whole as stable text, made for snapshot tests such as insta's: a fake's ids, times and random numbers repeat.
    #[must_use]
    pub fn render(&self) -> String {
        let rows: Vec<[String; 6]> = self
            .entries
            .iter()
            .map(|entry| {
                let attempts = match entry.attempts {
                    0 => String::new(),
                    n => format!(" ({})", text::count(n.into(), "attempt")),
                };
                [
                    format!("#{}", entry.number),
                    entry.kind().to_string(),
                    format!("on \"{}\"", entry.queue()),
                    text::due(entry.delay()),
                    format!("{}{attempts}", entry.state_text()),
                    text::payload(&entry.body),
                ]
            })
            .collect();
        let mut text = text::table("", &rows);
        if text.is_empty() {
            text.push_str("(nothing dispatched)");
        }
        text
    }

    /// The first fifty dispatches as a table for failures, under a title.
    pub(crate) fn listing(entries: &[Entry], title: &str) -> String {
        const MOST: usize = 50;
        if entries.is_empty() {
            return "\n  nothing was dispatched".to_owned();
        }
        let rows: Vec<[String; 5]> = entries
            .iter()
            .take(MOST)
            .map(|entry| {
                [
                    format!("#{}", entry.number),
                    entry.kind().to_string(),
                    format!("on \"{}\"", entry.queue()),
                    text::due(entry.delay()),
                    text::elide(&text::payload(&entry.body), 120),
                ]
            })
            .collect();
        let jobs = text::count(entries.len(), "job");
        let mut listing = format!("\n  {title} ({jobs}, oldest first):\n{}", text::table("    ", &rows));
        if entries.len() > MOST {
            let _ = write!(listing, "\n    ... and {} more", entries.len() - MOST);
        }
        listing
    }
}

impl Queue<MemoryBackend> {
    /// Everything dispatched to a [fake](Self::fake) since it was made or [cleared](Self::clear), and what became of it.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.since(Mark(0))
    }

    /// Now, to ask later what was dispatched [since](Self::since).
    #[must_use]
    pub fn mark(&self) -> Mark {
        Mark(self.backend().recorded_so_far())
    }

    /// What was dispatched since `mark`.
    #[must_use]
    pub fn since(&self, mark: Mark) -> Snapshot {
        let log = self.backend().recorded();
        let entries = log.into_iter().filter(|one| one.number > mark.0).map(|one| {
            let record = self.backend().peek(&one.body.job());
            Entry {
                number: one.number,
                at: one.at,
                due: one.due,
                state: record.as_ref().map(|record| record.state.kind()),
                attempts: record.as_ref().map_or(0, |record| record.attempts),
                body: one.body,
            }
        });
        Snapshot { entries: entries.collect() }
    }

    /// Forgets what was dispatched so far, for assertions on what comes next. The jobs stay where they are.
    pub fn clear(&self) {
        self.backend().forget_recorded();
    }
}

impl<B: Inspect> Queue<B> {
    /// The stored jobs that pass `filter`, by id: the same assertions on any engine.
    ///
    /// An engine has no log, so jobs beyond their retention are missing, duplicates were never stored, and a job counts as
    /// delayed only while it is still Scheduled.
    ///
    /// # Errors
    /// Those of the engine.
    pub async fn snapshot_of(&self, filter: &Filter) -> Result<Snapshot> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut after = None;
        loop {
            let page = self.backend().list(filter, after.as_ref(), 1_000, self.at()).await?;
            for record in page.records {
                entries.push(stored(entries.len() + 1, record));
            }
            after = page.next;
            if after.is_none() {
                return Ok(Snapshot { entries: entries.into() });
            }
        }
    }
}

fn stored(number: usize, record: Record) -> Entry {
    let due = match record.state {
        RecordState::Scheduled { due, .. } => due,
        _ => record.created_at,
    };
    Entry {
        number,
        at: record.created_at,
        due,
        state: Some(record.state.kind()),
        attempts: record.attempts,
        body: record.body,
    }
}
