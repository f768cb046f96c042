//! A connection that is cut at any byte of a dispatch, a claim or a settle, or falls silent.

use std::time::Duration;

use windlass_conformance::{Env, complete, draft};
use windlass_core::{
    At, Backend, Effect, ErrorKind, Inspect, NewJob, Pushed, Result, Settled, StateKind, Verdict,
};
use windlass_postgres::{PostgresBackend, PostgresOptions};
use windlass_servers::{Proxy, Side};

use crate::common::{Namespace, options, url, with};
use crate::opening::ask;

const AT: At = At::Server;

struct Bench {
    proxy: Proxy,
    /// Through the proxy.
    backend: PostgresBackend,
    namespace: Namespace,
}

impl Bench {
    async fn new(connections: u32) -> Self {
        let namespace = with(options().virtual_time(false)).await;
        let (before, after) =
            url().split_once('@').map(|(a, b)| (a.to_owned(), b.to_owned())).expect("a user");
        let (place, database) = after.split_once('/').expect("a database");
        let port = place.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
        let proxy = Proxy::before(port).expect("a proxy");
        let through = format!("{before}@127.0.0.1:{}/{database}", proxy.port());
        let options = PostgresOptions::new()
            .schema(namespace.backend().schema())
            .max_connections(connections)
            .listen(false)
            .timeout(Duration::from_secs(5));
        let backend = PostgresBackend::connect_with(&through, options).await.expect("connect");
        Self { proxy, backend, namespace }
    }

    /// Straight to the server.
    fn truth(&self) -> &PostgresBackend {
        self.namespace.backend()
    }

    /// Goes over what `verb` sends and hears, `step` bytes at a time.
    async fn at_every(&self, step: usize, verb: impl AsyncFn(&Self, Option<(Side, usize)>)) {
        // The connection and its statement are warm; then the bytes of one exchange are counted.
        for _ in 0..2 {
            verb(self, None).await;
        }
        let before = self.proxy.passed();
        verb(self, None).await;
        let after = self.proxy.passed();
        let mut cuts = 0;
        for (side, bytes) in [(Side::Request, after[0] - before[0]), (Side::Reply, after[1] - before[1])] {
            assert!(bytes > 10, "{side:?} has {bytes} bytes");
            for at in (0..=bytes).step_by(step) {
                // A connection that was cut behind the last byte is found out by the next verb.
                insist(async || self.backend.queues(AT).await).await;
                verb(self, Some((side, at))).await;
                cuts += 1;
            }
        }
        println!("{cuts} cuts");
        // None is left over, whatever was in doubt.
        assert_eq!(self.truth().claim(&ask(10), AT).await.expect("claim").jobs, []);
    }

    fn arm(&self, cut: Option<(Side, usize)>) {
        if let Some((side, bytes)) = cut {
            self.proxy.cut(side, bytes);
        }
    }

    /// Claims and completes the jobs that there must be, and no others.
    async fn run_all(&self, jobs: &[NewJob]) {
        let claimed = self.truth().claim(&ask(1_000), AT).await.expect("claim").jobs;
        let ids = |ids: Vec<_>| ids.into_iter().collect::<std::collections::BTreeSet<_>>();
        let there = ids(claimed.iter().map(|job| job.body.id).collect());
        assert_eq!(there, ids(jobs.iter().map(|job| job.body.id).collect()));
        assert!(claimed.iter().all(|job| job.lost_leases == 0), "{claimed:?}");
        let verdicts: Vec<_> = claimed.into_iter().map(|job| Verdict::new(job.lease, complete())).collect();
        let settled = self.truth().settle(&verdicts, AT).await.expect("settle");
        assert_eq!(settled, vec![Settled::Applied(StateKind::Completed); jobs.len()]);
    }

    /// Whether jobs are stored, all or none, and in which state.
    async fn stored(&self, jobs: &[NewJob]) -> Option<StateKind> {
        let mut states = Vec::new();
        for job in jobs {
            let record = self.truth().get(&job.body.job(), AT).await.expect("get");
            states.push(record.map(|record| record.state.kind()));
        }
        assert!(states.iter().all(|state| *state == states[0]), "whole or not at all: {states:?}");
        states[0]
    }
}

/// Repeats a verb on a connection that may have been cut behind the one before.
async fn insist<T>(verb: impl AsyncFn() -> Result<T>) -> T {
    let mut last = None;
    for _ in 0..5 {
        match verb().await {
            Ok(answer) => return answer,
            Err(error) => {
                assert!(error.is_retryable(), "{error}");
                last = Some(error);
            }
        }
    }
    panic!("it does not heal: {last:?}");
}

/// What a verb that failed may say: that it can be tried again, and that nothing is known if it happened.
fn typed<T: std::fmt::Debug>(cut: Option<(Side, usize)>, answer: &Result<T>, happened: bool) {
    match answer {
        Ok(_) => assert!(happened, "{cut:?}: it was answered, and has not happened"),
        Err(error) => {
            assert!(cut.is_some() && error.is_retryable(), "{cut:?}: {error}");
            assert!(
                matches!(error.kind(), ErrorKind::Connection | ErrorKind::Timeout),
                "{cut:?}: {:?} {error}",
                error.kind()
            );
            assert!(!happened || error.effect() == Effect::Unknown, "{cut:?}: it has happened: {error}");
        }
    }
}

async fn dispatches(bench: &Bench, cut: Option<(Side, usize)>, count: usize) {
    let jobs: Vec<NewJob> = (0..count).map(|_| draft().build()).collect();
    bench.arm(cut);
    let pushed = bench.backend.push(&jobs, AT).await;
    bench.proxy.spare();
    let stored = bench.stored(&jobs).await.is_some();
    typed(cut, &pushed, stored);
    let again = insist(async || bench.backend.push(&jobs, AT).await).await;
    let wanted = if stored { Pushed::SameId } else { Pushed::Inserted };
    // The repeat itself may have been cut behind its last byte, and been stored by that.
    assert!(again.iter().all(|one| *one == wanted || *one == Pushed::SameId), "{cut:?}: {again:?}");
    bench.run_all(&jobs).await;
}

async fn claims(bench: &Bench, cut: Option<(Side, usize)>, count: usize) {
    let jobs: Vec<NewJob> = (0..count).map(|_| draft().build()).collect();
    bench.truth().push(&jobs, AT).await.expect("push");
    let claim = ask(count);
    bench.arm(cut);
    let claimed = bench.backend.claim(&claim, AT).await;
    bench.proxy.spare();
    let taken = bench.stored(&jobs).await == Some(StateKind::Running);
    typed(cut, &claimed, taken);
    assert!(claimed.is_err() || claimed.is_ok_and(|claimed| claimed.jobs.len() == count), "{cut:?}");
    let back = insist(async || bench.backend.hand_back(claim.session, Some(claim.nonce), AT).await).await;
    assert!(back == 0 || (taken && back == count), "{cut:?}: {back} were handed back");
    bench.run_all(&jobs).await;
}

async fn settles(bench: &Bench, cut: Option<(Side, usize)>, count: usize) {
    let jobs: Vec<NewJob> = (0..count).map(|_| draft().build()).collect();
    bench.truth().push(&jobs, AT).await.expect("push");
    let runs = bench.truth().claim(&ask(count), AT).await.expect("claim").jobs;
    let riders: Vec<NewJob> = (0..count).map(|_| draft().build()).collect();
    let verdicts: Vec<Verdict> = runs
        .into_iter()
        .zip(&riders)
        .map(|(run, rider)| Verdict { lease: run.lease, ruling: complete(), then: vec![rider.clone()] })
        .collect();
    bench.arm(cut);
    let settled = bench.backend.settle(&verdicts, AT).await;
    bench.proxy.spare();
    // What was cut behind its last byte may be applied while this looks: then a second look finds it so.
    let before = bench.stored(&jobs).await == Some(StateKind::Completed);
    let rode = bench.stored(&riders).await.is_some();
    let applied =
        if rode == before { before } else { bench.stored(&jobs).await == Some(StateKind::Completed) };
    typed(cut, &settled, applied);
    assert_eq!(rode, applied, "{cut:?}: riders go with their verdicts");
    let again = insist(async || bench.backend.settle(&verdicts, AT).await).await;
    let wanted = if applied { Settled::AlreadyApplied } else { Settled::Applied(StateKind::Completed) };
    assert!(again.iter().all(|one| *one == wanted || *one == Settled::AlreadyApplied), "{cut:?}: {again:?}");
    bench.run_all(&riders).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dispatch_that_is_cut_anywhere_is_one_job_once_it_is_repeated() {
    let bench = Bench::new(1).await;
    bench.at_every(1, async |bench, cut| dispatches(bench, cut, 1).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_that_is_cut_anywhere_strands_nothing_once_it_is_handed_back() {
    let bench = Bench::new(1).await;
    bench.at_every(1, async |bench, cut| claims(bench, cut, 1).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_settle_that_is_cut_anywhere_is_applied_once() {
    let bench = Bench::new(1).await;
    bench.at_every(1, async |bench, cut| settles(bench, cut, 1).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_that_are_cut_are_done_as_a_whole_or_not_at_all() {
    let bench = Bench::new(1).await;
    // Primes, so that no field of a row is always cut at the same place.
    bench.at_every(307, async |bench, cut| dispatches(bench, cut, 20).await).await;
    bench.at_every(101, async |bench, cut| claims(bench, cut, 20).await).await;
    bench.at_every(211, async |bench, cut| settles(bench, cut, 20).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_falls_silent_is_given_up_and_replaced() {
    // The pool asks a connection whether it lives as it comes back, without a time limit: that one may stay silent for good.
    let bench = Bench::new(4).await;
    let job = draft().build();
    bench.backend.push(std::slice::from_ref(&job), AT).await.expect("push");
    bench.proxy.swallow(true);
    let error = bench.backend.push(&[draft().build()], AT).await.expect_err("nobody answers");
    // Unavailable is what it is when a new connection was to be opened for it.
    let said = (error.kind(), error.effect());
    assert!(
        [(ErrorKind::Timeout, Effect::Unknown), (ErrorKind::Unavailable, Effect::NotApplied)].contains(&said),
        "{said:?} {error}"
    );
    // The old connection stays silent; a new one is not.
    bench.proxy.swallow(false);
    let again = bench.backend.push(&[job], AT).await.expect("a new connection");
    assert_eq!(again, [Pushed::SameId]);
}
