//! Pushes that stand still for seconds before they commit, at every moment and beside whatever becomes of the span that they
//! fall into: each of their jobs is claimed once, and soon.

use std::time::Duration;

use futures::future::join_all;
use windlass_conformance::{TransactionalEnv, complete, draft};
use windlass_core::{Backend, Transactional, Verdict};
use windlass_postgres::sqlx;
use windlass_postgres::{PostgresBackend, PostgresOptions};
use windlass_servers::Postgres;

use crate::common::url;
use crate::opening::ask;
use crate::standing::{
    Moment, STAND_STILL, Stuck, Way, Worked, give_up_elsewhere, is_flagged, ready, run, seconds, sweep,
};
use crate::stretches::{NOW, PROMPT, push};

/// Its span runs, lapses, would be dropped, and was looked at for more than an hour before the push goes on.
async fn comes_back_from(moment: Moment, way: Way) {
    let (_namespace, backend) = ready().await;
    let stuck = Stuck::at(&backend, moment, way).await;
    let mut jobs = push(&backend, 2).await;
    let mut worked = Worked::default();
    worked.work_until(&backend, NOW, 2).await;
    assert!(is_flagged(&backend).await);
    // A newer span of the same rank: the one before has served.
    jobs.extend(push(&backend, 1).await);
    worked.work_until(&backend, NOW, 1).await;
    for at in [10, 31, 40, 62, 3_700, 3_710, 7_400] {
        sweep(&backend, seconds(at)).await;
        assert_eq!(worked.work(&backend, seconds(at)).await, 0);
    }
    jobs.extend(stuck.let_go().await);
    for at in [7_400, 7_406, 7_412] {
        sweep(&backend, seconds(at)).await;
        worked.work(&backend, seconds(at)).await;
    }
    worked.is_all(&backend, &jobs, seconds(7_412)).await;
    // What is over is cleared away, but for the cursor.
    sweep(&backend, seconds(7_420)).await;
    sweep(&backend, seconds(15_000)).await;
    assert_eq!(crate::stretches::count(&backend, "span").await, 1, "{moment:?} {way:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_that_stands_still_at_any_moment_is_found_when_it_goes_on() {
    let mut all = Vec::new();
    for way in [Way::Alike, Way::Many] {
        for moment in
            [Moment::BeforeItsNumbers, Moment::BeforeJob(0), Moment::BeforeJob(1), Moment::AfterItsJobs]
        {
            all.push(tokio::spawn(comes_back_from(moment, way)));
        }
    }
    // A lone one has drawn its number before it comes to the table.
    for moment in [Moment::BeforeItsNumbers, Moment::AfterItsJobs] {
        all.push(tokio::spawn(comes_back_from(moment, Way::One)));
    }
    for done in join_all(all).await {
        done.expect("a course");
    }
}

#[tokio::test]
async fn what_was_given_up_before_a_claim_came_that_far_is_found_at_once() {
    let (_namespace, backend) = ready().await;
    let stuck = Stuck::at(&backend, Moment::BeforeJob(1), Way::Alike).await;
    give_up_elsewhere(&backend).await;
    let late = stuck.let_go().await;
    let claimed = backend.claim(&ask(10), NOW).await.expect("claim").jobs;
    assert_eq!(claimed.iter().map(|job| job.lease.job.clone()).collect::<Vec<_>>(), late);
}

#[tokio::test]
async fn what_falls_into_a_span_that_runs_is_found_when_that_has_lapsed() {
    let (_namespace, backend) = ready().await;
    let stuck = Stuck::at(&backend, Moment::BeforeJob(2), Way::Alike).await;
    let mut jobs = push(&backend, 2).await;
    let mut held = Vec::new();
    while held.is_empty() {
        held = backend.claim(&ask(10), NOW).await.expect("claim").jobs;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    jobs.extend(stuck.let_go().await);
    // The worker still holds the span, and has its own two of it.
    let verdicts: Vec<_> = held.into_iter().map(|job| Verdict::new(job.lease, complete())).collect();
    backend.settle(&verdicts, NOW).await.expect("settle");
    let mut worked = Worked { jobs: jobs[..2].to_vec() };
    sweep(&backend, seconds(29)).await;
    assert_eq!(worked.work(&backend, seconds(29)).await, 0);
    sweep(&backend, seconds(31)).await;
    assert_eq!(worked.work(&backend, seconds(31)).await, 3);
    worked.is_all(&backend, &jobs, seconds(31)).await;
}

#[tokio::test]
async fn a_worker_that_keeps_its_span_for_long_hides_nothing_that_fell_into_it() {
    let (_namespace, backend) = ready().await;
    let stuck = Stuck::at(&backend, Moment::BeforeJob(0), Way::Many).await;
    let mut jobs = push(&backend, 2).await;
    let ask = ask(10);
    let mut held = Vec::new();
    while held.is_empty() {
        held = backend.claim(&ask, NOW).await.expect("claim").jobs;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    jobs.extend(stuck.let_go().await);
    let beats: Vec<_> =
        held.iter().map(|job| windlass_core::Held { lease: job.lease.clone(), started: true }).collect();
    for at in [10, 20, 30, 40] {
        backend.extend(ask.session, &beats, ask.lease, seconds(at)).await.expect("extend");
    }
    sweep(&backend, seconds(41)).await;
    let mut worked = Worked { jobs: jobs[..2].to_vec() };
    assert_eq!(worked.work(&backend, seconds(41)).await, 3);
    let verdicts: Vec<_> = held.into_iter().map(|job| Verdict::new(job.lease, complete())).collect();
    backend.settle(&verdicts, seconds(41)).await.expect("settle");
    worked.is_all(&backend, &jobs, seconds(41)).await;
}

#[tokio::test]
async fn the_newest_span_is_looked_at_soon_while_a_push_stands_still() {
    let (_namespace, backend) = ready().await;
    // A cursor that has lapsed is looked at after an hour: nothing can fall into it any more.
    let mut jobs = push(&backend, 1).await;
    let mut worked = Worked::default();
    worked.work_until(&backend, NOW, 1).await;
    sweep(&backend, seconds(31)).await;
    let stuck = Stuck::at(&backend, Moment::BeforeJob(1), Way::Alike).await;
    jobs.extend(push(&backend, 2).await);
    worked.work_until(&backend, seconds(31), 2).await;
    // The newest of its rank from here on.
    for at in [62, 70, 80] {
        sweep(&backend, seconds(at)).await;
    }
    jobs.extend(stuck.let_go().await);
    sweep(&backend, seconds(86)).await;
    assert_eq!(worked.work(&backend, seconds(86)).await, 3);
    worked.is_all(&backend, &jobs, seconds(86)).await;
}

#[tokio::test]
async fn of_another_rank_it_waits_where_its_number_puts_it() {
    let (_namespace, backend) = ready().await;
    let mut jobs = push(&backend, 1).await;
    let mut worked = Worked::default();
    worked.work_until(&backend, NOW, 1).await;
    // One of the rank that has a span already, one of a rank without.
    let same = Stuck::on(&url(), &backend, Moment::BeforeJob(2), Way::Alike, 5).await;
    let none = Stuck::on(&url(), &backend, Moment::BeforeJob(2), Way::Alike, 7).await;
    let quick: Vec<_> = (0..2).map(|_| draft().priority(9)).collect();
    jobs.extend(quick.iter().map(windlass_conformance::Draft::job));
    backend
        .push(&quick.into_iter().map(windlass_conformance::Draft::build).collect::<Vec<_>>(), NOW)
        .await
        .expect("push");
    worked.work_until(&backend, NOW, 2).await;
    for at in [31, 62, 3_700] {
        sweep(&backend, seconds(at)).await;
    }
    for stuck in [none, same] {
        let late = stuck.let_go().await;
        assert_eq!(worked.work(&backend, seconds(3_700)).await, 3, "without a sweep");
        jobs.extend(late);
    }
    worked.is_all(&backend, &jobs, seconds(3_700)).await;
}

/// Two in two generations; the flag is there until both are over, in whichever order.
async fn two_at_once(first_first: bool) {
    let (_namespace, backend) = ready().await;
    let (mut jobs, mut worked) = (Vec::new(), Worked::default());
    let first = Stuck::at(&backend, Moment::BeforeJob(1), Way::Alike).await;
    jobs.extend(push(&backend, 1).await);
    worked.work_until(&backend, NOW, 1).await;
    let second = Stuck::at(&backend, Moment::BeforeJob(1), Way::Many).await;
    jobs.extend(push(&backend, 1).await);
    worked.work_until(&backend, NOW, 1).await;
    let order = if first_first { [first, second] } else { [second, first] };
    let mut at = 31;
    for (nth, stuck) in order.into_iter().enumerate() {
        for _ in 0..4 {
            sweep(&backend, seconds(at)).await;
            assert!(is_flagged(&backend).await, "{nth}");
            jobs.extend(push(&backend, 1).await);
            worked.work_until(&backend, seconds(at), 1).await;
            at += 31;
        }
        jobs.extend(stuck.let_go().await);
        sweep(&backend, seconds(at)).await;
        assert_eq!(worked.work(&backend, seconds(at)).await, 3, "{nth}");
    }
    worked.is_all(&backend, &jobs, seconds(at)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_that_stand_still_in_two_generations_each_is_found() {
    tokio::join!(two_at_once(true), two_at_once(false));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_whose_process_is_frozen_is_found_when_it_thaws() {
    // A process of the server is stopped: of a server of its own.
    let server = Postgres::start().expect("a server");
    let options = PostgresOptions::new().max_connections(4).virtual_time(true);
    let backend = PostgresBackend::connect_with(&server.url(), options).await.expect("connect");
    windlass_core::Migrate::migrate(&backend).await.expect("migrate");
    run(&backend, STAND_STILL).await;
    let mut stuck = Stuck::on(&server.url(), &backend, Moment::BeforeJob(1), Way::Alike, 5).await;
    stuck.signal("-STOP");
    sqlx::query("select pg_advisory_unlock($1)")
        .bind(stuck.lock)
        .execute(&mut stuck.holder)
        .await
        .expect("unlock");
    let mut jobs = push(&backend, 2).await;
    let mut worked = Worked::default();
    worked.work_until(&backend, NOW, 2).await;
    jobs.extend(push(&backend, 1).await);
    worked.work_until(&backend, NOW, 1).await;
    for at in [31, 62, 93] {
        sweep(&backend, seconds(at)).await;
        assert_eq!(worked.work(&backend, seconds(at)).await, 0);
    }
    stuck.signal("-CONT");
    stuck.done.await.expect("it commits");
    jobs.extend(stuck.jobs);
    sweep(&backend, seconds(99)).await;
    assert_eq!(worked.work(&backend, seconds(99)).await, 3);
    worked.is_all(&backend, &jobs, seconds(99)).await;
}

#[tokio::test]
async fn a_push_in_an_open_transaction_is_in_nobodys_way_and_found_at_once() {
    let (namespace, backend) = ready().await;
    let mut conn = namespace.begin().await.expect("begin");
    let drafts = [draft(), draft()];
    let mut jobs: Vec<_> = drafts.iter().map(windlass_conformance::Draft::job).collect();
    let new: Vec<_> = drafts.into_iter().map(windlass_conformance::Draft::build).collect();
    backend.push_in(&mut conn, &new, NOW).await.expect("push in");
    jobs.extend(push(&backend, 2).await);
    let mut worked = Worked::default();
    let claim = tokio::time::timeout(PROMPT, worked.work(&backend, NOW)).await.expect("no wait");
    assert_eq!(claim, 2, "nor is anything left to a later claim");
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    for at in [31, 62, 93] {
        sweep(&backend, seconds(at)).await;
        jobs.extend(push(&backend, 1).await);
        assert_eq!(worked.work(&backend, seconds(at)).await, 1);
    }
    assert!(!is_flagged(&backend).await);
    namespace.commit(conn).await.expect("commit");
    assert_eq!(worked.work(&backend, seconds(93)).await, 2, "without a sweep");
    worked.is_all(&backend, &jobs, seconds(93)).await;
}
