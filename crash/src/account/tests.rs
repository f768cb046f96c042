//! The accounting is shown crimes, each of which it must see.

use windlass_core::{Body, Kind, QueueName, RecordState, Timestamp};

use super::*;
use crate::engine::Engine;
use crate::journal::Member;
use crate::plan::{Act, Wish, id_of};
use crate::wire::{Ack, Answer, Event, Stamp};

/// A run of one job that is simply done, acknowledged, and run by process 0 at epoch 1.
fn one_job() -> (Options, JobId, Journal) {
    let simple = |seed: &u64| {
        let plan = Plan { seed: *seed, jobs: 1, effects: false };
        plan.act(0) == Act::Done && plan.wish(0) == Wish::Nothing
    };
    let seed = (0..).find(simple).expect("most jobs are");
    let mut journal = Journal { members: vec![Member::default(); 3], ..Journal::default() };
    journal.hear(0, 1, Event::Dispatching(vec![0]));
    journal.hear(0, 2, Event::Acknowledged(vec![(0, Ack::Inserted)]));
    claimed(&mut journal, 0, 10, 1);
    let options = Options::parse(&["--kills", "0"]).expect("options");
    (Options { seed, jobs: 1, ..options }, id_of(0), journal)
}

fn claimed(journal: &mut Journal, member: usize, at: Stamp, epoch: u64) {
    journal.hear(member, at, Event::Claimed(vec![(id_of(0), epoch)]));
    journal.hear(member, at + 1, Event::Started(id_of(0), epoch));
}

fn settled(journal: &mut Journal, member: usize, at: Stamp, epoch: u64) {
    journal.hear(member, at, Event::Ending(id_of(0), epoch, Word::Complete));
    journal.hear(member, at + 1, Event::Sending(vec![(id_of(0), epoch, Word::Complete)]));
    journal.hear(member, at + 2, Event::Answered(vec![(id_of(0), epoch, Answer::Applied)]));
}

fn record(id: JobId, epoch: u64) -> Record {
    let (queue, kind) = (QueueName::from_static("crash-a"), Kind::from_static("crash_work"));
    Record {
        body: std::sync::Arc::new(Body::new(id, queue, kind, [])),
        state: RecordState::Completed { at: Timestamp::from_millis(0), output: None },
        created_at: Timestamp::from_millis(0),
        attempts: 1,
        lost_leases: 0,
        generation: 0,
        epoch,
        last_error: None,
        progress: None,
        log: Vec::new(),
    }
}

/// The rules that were broken, without the counts, of which these tests keep none.
fn broken(options: &Options, journal: &Journal, records: &[Record]) -> Vec<&'static str> {
    let found = Found { records: records.to_vec(), ..Found::default() };
    let wrong = account(options, journal, &found).wrong;
    wrong.into_iter().map(|(rule, _)| rule).filter(|rule| *rule != "counts").collect()
}

#[test]
fn a_job_that_ran_once_and_ended_is_fine_and_one_that_is_gone_is_lost() {
    let (options, id, mut journal) = one_job();
    settled(&mut journal, 0, 20, 1);
    assert!(broken(&options, &journal, &[record(id, 1)]).is_empty());
    assert_eq!(broken(&options, &journal, &[]), ["lost"]);
    assert_eq!(
        broken(&options, &journal, &[record(id, 1), record(JobId::fresh(), 1)]),
        ["outcome", "attempts", "stranger"]
    );
}

#[test]
fn a_second_execution_needs_a_kill() {
    let (options, id, mut journal) = one_job();
    claimed(&mut journal, 1, 30, 2);
    settled(&mut journal, 1, 40, 2);
    assert_eq!(broken(&options, &journal, &[record(id, 2)]), ["duplicates"]);
    journal.members[0].killed = Some(20);
    assert!(broken(&options, &journal, &[record(id, 2)]).is_empty());
}

#[test]
fn a_verdict_that_is_believed_too_late_is_stale() {
    let (options, id, mut journal) = one_job();
    journal.members[0].frozen.push((12, 35));
    claimed(&mut journal, 1, 30, 2);
    settled(&mut journal, 0, 40, 1);
    let rules = broken(&options, &journal, &[record(id, 2)]);
    assert!(rules.contains(&"stale") && rules.contains(&"double") && rules.contains(&"outcome"), "{rules:?}");
}

#[test]
fn a_second_execution_after_an_outage_of_the_server_was_in_flight_then() {
    let (options, id, mut journal) = one_job();
    claimed(&mut journal, 1, 30, 2);
    settled(&mut journal, 1, 40, 2);
    journal.outages.push((40, 50, true));
    assert_eq!(broken(&options, &journal, &[record(id, 2)]), ["duplicates"], "it came after");
    journal.outages[0] = (20, 25, true);
    assert!(broken(&options, &journal, &[record(id, 2)]).is_empty());
}

#[test]
fn a_stall_needs_beats_without_an_answer_while_another_stood_still_with_the_only_lock() {
    let (mut options, id, mut journal) = one_job();
    claimed(&mut journal, 1, 2_500_000_000, 2);
    settled(&mut journal, 1, 2_500_000_010, 2);
    let records = [record(id, 2)];
    journal.members[2].frozen.push((100_000_000, 2_400_000_000));
    assert_eq!(broken(&options, &journal, &records), ["duplicates"], "its own beats were answered");
    journal.members[0].waits.push((700_000_000, 1_300_000_000));
    assert_eq!(broken(&options, &journal, &records), ["duplicates"], "0.6 s are less than half a lease");
    journal.members[0].waits.push((1_400_000_000, 2_000_000_000));
    assert!(broken(&options, &journal, &records).is_empty());
    journal.members[2].frozen[0] = (1_900_000_000, 2_400_000_000);
    assert_eq!(broken(&options, &journal, &records), ["duplicates"], "nobody stood still for most of it");
    journal.members[2].frozen[0] = (100_000_000, 2_400_000_000);
    options.engine = Engine::Redis;
    assert_eq!(broken(&options, &journal, &records), ["duplicates"], "no client of a server has its lock");
}

#[test]
fn only_what_was_heard_in_the_window_before_a_kill_may_be_lost_and_only_where_settings_say_so() {
    let (mut options, _, mut journal) = one_job();
    settled(&mut journal, 0, 20, 1);
    journal.outages.push((1_000_000_000, 1_100_000_000, true));
    assert_eq!(broken(&options, &journal, &[]), ["lost"]);
    options.everysec = true;
    let found = Found::default();
    let account = account(&options, &journal, &found);
    assert_eq!((account.wrong.len(), account.forgiven), (0, 1));
    journal.outages[0] = (3_000_000_000, 3_100_000_000, true);
    assert_eq!(broken(&options, &journal, &[]), ["lost"], "that was longer before");
    journal.outages[0] = (1_000_000_000, 1_100_000_000, false);
    assert_eq!(broken(&options, &journal, &[]), ["lost"], "a server that stood still loses nothing");
}

#[test]
fn zombies_that_met_nobody_prove_nothing() {
    let (mut options, id, mut journal) = one_job();
    options.zombies = 1;
    journal.members[0].frozen.push((12, 35));
    claimed(&mut journal, 1, 30, 2);
    settled(&mut journal, 1, 50, 2);
    assert_eq!(broken(&options, &journal, &[record(id, 2)]), ["zombies"]);
    journal.hear(0, 40, Event::Sending(vec![(id, 1, Word::Complete)]));
    journal.hear(0, 41, Event::Answered(vec![(id, 1, Answer::Refused)]));
    assert!(broken(&options, &journal, &[record(id, 2)]).is_empty());
}

#[test]
fn a_completed_job_has_one_row_by_its_last_claim_and_no_other_job_has_any() {
    let (mut options, id, mut journal) = one_job();
    options.effects = true;
    settled(&mut journal, 0, 20, 1);
    let row = |number, epoch| Row { number, epoch };
    for (rows, rules) in [
        (vec![row(0, 1)], 0),
        (vec![], 1),
        (vec![row(0, 1), row(0, 1)], 1),
        (vec![row(0, 2)], 1),
        (vec![row(0, 1), row(7, 1)], 1),
    ] {
        let found = Found { records: vec![record(id, 1)], rows: rows.clone(), ..Found::default() };
        let wrong = account(&options, &journal, &found).wrong;
        assert_eq!(wrong.iter().filter(|(rule, _)| *rule == "effects").count(), rules, "{rows:?}");
    }
}
