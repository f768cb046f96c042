//! What a run came to: a table for people, a record for tools, the evidence of what was wrong.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::account::Account;
use crate::options::Options;

/// Violations of one rule that are printed.
const SHOWN: usize = 5;

/// The rules that the headline counts, each with the promise.
const RULES: [(&str, &str); 18] = [
    ("lost", "acknowledged, and gone or never ended"),
    ("double", "more than one outcome"),
    ("stale", "verdicts believed that came too late"),
    ("outcome", "outcomes that no attempt reported"),
    ("duplicates", "executions again without a reason, or beyond what was in flight"),
    ("overlap", "at once what must not run at once"),
    ("then", "children without an applied verdict, or none with one"),
    ("atomic", "half of a transaction"),
    ("effects", "rows that are not exactly one a completed job"),
    ("stranger", "jobs that nobody dispatched"),
    ("attempts", "attempts or lost leases miscounted"),
    ("early", "before a delay or a parent was over"),
    ("counts", "counts that are not those of the listing"),
    ("integrity", "the engine's own check"),
    ("runs", "executions without a claim"),
    ("zombies", "no late verdict met a run: nothing was tried"),
    ("errors", "processes that failed by themselves"),
    ("stuck", "no progress"),
];

pub(crate) struct Report {
    pub(crate) options: Options,
    pub(crate) account: Account,
    pub(crate) struck: BTreeMap<(&'static str, String), u64>,
    pub(crate) missed: u64,
    pub(crate) restarts: u64,
    pub(crate) processes: usize,
    pub(crate) events: u64,
    /// How long the server was not there in all.
    pub(crate) away: Duration,
    pub(crate) ways: [u64; 3],
    pub(crate) took: Duration,
}

impl Report {
    /// Whether nothing was wrong, and everything that was planned happened.
    pub(crate) fn is_clean(&self) -> bool {
        self.account.wrong.is_empty() && self.missed == 0
    }

    fn wrong(&self, rule: &str) -> usize {
        self.account.wrong.iter().filter(|(broken, _)| *broken == rule).count()
    }

    /// Faults of which the label begins so.
    fn struck(&self, what: &str) -> u64 {
        self.struck.iter().filter(|((label, _), _)| label.starts_with(what)).map(|(_, count)| count).sum()
    }

    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    fn per_second(&self) -> f64 {
        self.account.stored as f64 / self.took.as_secs_f64()
    }

    pub(crate) fn print(&self) {
        let (options, account) = (&self.options, &self.account);
        println!(
            "\ncrash run on {}{}{}: {} jobs, {} kills, {} zombies, {} server kills, seed {}, {} workers, {} dispatchers, \
             lease {:?}",
            options.engine.name(),
            if options.everysec { " (appendfsync everysec)" } else { "" },
            if options.effects { " with effects" } else { "" },
            options.jobs,
            options.kills,
            options.zombies,
            options.server_kills,
            options.seed,
            options.workers,
            options.dispatchers,
            options.lease
        );
        println!("\n{:<20}{:<24}{:>8}", "what was done", "where", "times");
        for ((what, place), times) in self.struck.iter().filter(|(_, times)| **times > 0) {
            println!("{what:<20}{place:<24}{times:>8}");
        }
        let [one_by_one, at_once, batch] = self.ways;
        let rows = [
            ("processes", self.processes as u64, format!("{} of them started again", self.restarts)),
            (
                "dispatched",
                options.jobs,
                format!("{one_by_one} one by one, {at_once} at once, {batch} in batches"),
            ),
            ("jobs stored", account.stored, states(&account.by_state)),
            (
                "executions",
                account.executions,
                format!("{} asked for by a retry or a snooze", account.asked_for),
            ),
            (
                "duplicates",
                account.duplicates(),
                format!(
                    "{} after a kill, {} after a freeze, {} after an outage, {} stalled; {} were in flight",
                    account.after_kill,
                    account.after_freeze,
                    account.after_outage,
                    account.after_stall,
                    account.in_flight
                ),
            ),
            ("refused", account.refused, "verdicts that came too late and changed nothing".to_owned()),
            ("met", account.met, "verdicts sent while their job ran again".to_owned()),
            ("poisoned", account.poisoned, "dead after three lost leases".to_owned()),
        ];
        println!("\n{:<20}{:>8}", "what came of it", "");
        for (what, count, more) in rows {
            println!("{what:<20}{count:>8}   {more}");
        }
        if options.engine.has_server() {
            println!("{:<20}{:>7.1}s   in all", "server away", self.away.as_secs_f64());
        }
        if options.effects {
            println!("{:<20}{:>8}   in the transactions that completed their jobs", "rows", account.rows);
        }
        if options.everysec {
            let window = crate::server::WINDOW;
            println!(
                "{:<20}{:>8}   broken by jobs heard of within {window:?} before a kill",
                "forgiven", account.forgiven
            );
        }
        println!("\n{:<20}{:>8}", "what was wrong", "");
        for (rule, meaning) in RULES {
            println!("{rule:<20}{:>8}   {meaning}", self.wrong(rule));
        }
        println!(
            "\n{:.1} s, {:.0} jobs/s, {} events",
            self.took.as_secs_f64(),
            self.per_second(),
            self.events
        );
        if self.missed > 0 {
            println!("{} of the planned kills did not happen: the run was over before", self.missed);
        }
        for (rule, _) in RULES {
            let evidence = account.wrong.iter().filter(|(broken, _)| *broken == rule);
            for (_, what) in evidence.clone().take(SHOWN) {
                println!("{rule}: {what}");
            }
            let more = evidence.count().saturating_sub(SHOWN);
            if more > 0 {
                println!("{rule}: and {more} more");
            }
        }
        println!(
            "crash run: {}",
            if self.is_clean() { "nothing lost, nothing twice, nothing stale" } else { "FAILED" }
        );
    }

    /// One line of JSON.
    pub(crate) fn json(&self) -> String {
        let account = &self.account;
        let wrong: BTreeMap<&str, usize> = RULES.iter().map(|(rule, _)| (*rule, self.wrong(rule))).collect();
        let struck: BTreeMap<String, u64> =
            self.struck.iter().map(|((what, place), times)| (format!("{what}, {place}"), *times)).collect();
        serde_json::json!({
            "engine": self.options.engine.name(),
            "system": "windlass",
            "version": env!("CARGO_PKG_VERSION"),
            "workload": "crash",
            "settings": {
                "jobs": self.options.jobs,
                "kills": self.options.kills,
                "zombies": self.options.zombies,
                "server_kills": self.options.server_kills,
                "everysec": self.options.everysec,
                "effects": self.options.effects,
                "seed": self.options.seed,
                "workers": self.options.workers,
                "dispatchers": self.options.dispatchers,
                "lease_ms": u64::try_from(self.options.lease.as_millis()).unwrap_or(u64::MAX),
            },
            "struck": struck,
            "workers_struck": self.struck("worker"),
            "missed": self.missed,
            "restarts": self.restarts,
            "stored": account.stored,
            "executions": account.executions,
            "asked_for": account.asked_for,
            "duplicates": account.duplicates(),
            "after_outage": account.after_outage,
            "stalled": account.after_stall,
            "in_flight": account.in_flight,
            "refused": account.refused,
            "met": account.met,
            "poisoned": account.poisoned,
            "rows": account.rows,
            "forgiven": account.forgiven,
            "away_seconds": self.away.as_secs_f64(),
            "wrong": wrong,
            "seconds": self.took.as_secs_f64(),
            "jobs_per_second": self.per_second(),
            "clean": self.is_clean(),
        })
        .to_string()
    }
}

fn states(by_state: &BTreeMap<&'static str, u64>) -> String {
    by_state.iter().map(|(state, count)| format!("{count} {state}")).collect::<Vec<_>>().join(", ")
}
