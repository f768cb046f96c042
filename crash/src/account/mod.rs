//! The accounting: what is stored in the end, held against what the processes said and the plan.
//!
//! A pure function of both, so that its own tests can show it every crime. Instants are compared only where their order is
//! known: one read after the answer to a call against one read before another call was sent.
//!
//! `stored.rs` looks at what is stored, `executions.rs` at what ran, `effects.rs` at what handlers wrote, `causes.rs` at why
//! leases were lost, `window.rs` at what an engine may lose by its settings.

mod causes;
mod effects;
mod executions;
mod stored;
#[cfg(test)]
mod tests;
mod window;

use std::collections::{BTreeMap, HashMap};

use windlass_core::{JobId, QueueInfo, Record};

use crate::effects::Row;
use crate::journal::{Hold, Journal, Wrong};
use crate::options::Options;
use crate::plan::Plan;
use crate::wire::Word;

/// What was counted, and what was wrong.
#[derive(Debug, Default)]
pub(crate) struct Account {
    pub(crate) stored: u64,
    pub(crate) by_state: BTreeMap<&'static str, u64>,
    pub(crate) executions: u64,
    /// Executions after a retry or a snooze that was applied.
    pub(crate) asked_for: u64,
    /// Executions after one whose process was killed.
    pub(crate) after_kill: u64,
    /// Executions after one whose process stood still.
    pub(crate) after_freeze: u64,
    /// Executions after one whose server was killed or stood still.
    pub(crate) after_outage: u64,
    /// Executions after one whose process could not extend its lease while another stood still with the engine's lock.
    pub(crate) after_stall: u64,
    /// Started and not settled when something happened to their process or to the server.
    pub(crate) in_flight: u64,
    /// Verdicts that came too late, and were refused.
    pub(crate) refused: u64,
    /// Verdicts that were sent while their job ran again under a later claim.
    pub(crate) met: u64,
    /// Jobs that died of three lost leases.
    pub(crate) poisoned: u64,
    /// Rows that handlers wrote.
    pub(crate) rows: u64,
    /// What would be wrong, had the engine not been told that it may lose the last moments before a kill.
    pub(crate) forgiven: u64,
    pub(crate) wrong: Vec<(&'static str, String)>,
}

impl Account {
    /// Executions again that nobody asked for.
    pub(crate) fn duplicates(&self) -> u64 {
        self.after_kill + self.after_freeze + self.after_outage + self.after_stall
    }
}

/// What was found when all was done.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) records: Vec<Record>,
    pub(crate) queues: Vec<QueueInfo>,
    /// What handlers wrote, where they were to.
    pub(crate) rows: Vec<Row>,
}

/// Holds what is stored against what was said.
pub(crate) fn account(options: &Options, journal: &Journal, found: &Found) -> Account {
    let (plan, records) = (options.plan(), &found.records[..]);
    let mut accounting = Accounting {
        options,
        plan,
        journal,
        stored: records.iter().map(|record| (record.body.id, record)).collect(),
        parents: stored::children(plan, records),
        done: Account { stored: records.len() as u64, ..Account::default() },
    };
    for Wrong { rule, job, what } in &journal.wrong {
        match job {
            Some(job) => accounting.object_to(*job, rule, what.clone()),
            None => accounting.object(rule, what.clone()),
        }
    }
    if accounting.stored.len() != records.len() {
        accounting.object("counts", format!("{} jobs listed twice", records.len() - accounting.stored.len()));
    }
    accounting.dispatches();
    accounting.counts(records, &found.queues);
    for record in records {
        accounting.record(record);
    }
    accounting.strangers(records);
    accounting.effects(&found.rows);
    let mut in_order: Vec<(&JobId, &Vec<Hold>)> = journal.jobs.iter().collect();
    in_order.sort_by_key(|(id, _)| **id);
    for (id, holds) in in_order {
        let mut holds: Vec<&Hold> = holds.iter().collect();
        holds.sort_by_key(|hold| hold.epoch);
        accounting.executions(*id, &holds);
    }
    accounting.exclusions();
    accounting.in_flight();
    accounting.bounds();
    accounting.done
}

struct Accounting<'a> {
    options: &'a Options,
    plan: Plan,
    journal: &'a Journal,
    stored: HashMap<JobId, &'a Record>,
    /// Children by verdict that are to be there, each with its parent.
    parents: HashMap<JobId, JobId>,
    done: Account,
}

impl<'a> Accounting<'a> {
    fn object(&mut self, rule: &'static str, what: String) {
        self.done.wrong.push((rule, what));
    }

    /// Objects to something about a job, unless the engine may have lost what was said about it.
    fn object_to(&mut self, job: JobId, rule: &'static str, what: String) {
        if self.may_have_lost(job) {
            self.done.forgiven += 1;
        } else {
            self.object(rule, what);
        }
    }

    fn holds(&self, id: JobId) -> &'a [Hold] {
        self.journal.jobs.get(&id).map_or(&[], Vec::as_slice)
    }

    /// The last hold of an epoch: a server that lost the one before may have given it twice.
    fn hold(&self, id: JobId, epoch: u64) -> Option<&'a Hold> {
        self.holds(id).iter().rev().find(|hold| hold.epoch == epoch)
    }

    /// What holds of the sums.
    fn bounds(&mut self) {
        let (duplicates, in_flight) = (self.done.duplicates(), self.done.in_flight);
        if duplicates > in_flight {
            self.object("duplicates", format!("{duplicates} duplicates, with {in_flight} jobs in flight"));
        }
        if self.options.zombies > 0 && self.done.met == 0 {
            let what =
                format!("none of {} zombies met a run of its job: no fence was tried", self.options.zombies);
            self.object("zombies", what);
        }
    }
}

fn final_word(hold: &Hold) -> Option<Word> {
    hold.applied.map(|applied| applied.word).filter(|word| word.is_final())
}
