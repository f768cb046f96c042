//! A connection that is cut at any byte of a dispatch, a claim or a settle of one job, or falls silent.

mod support;

use std::time::Duration;

use windlass_conformance::{complete, draft};
use windlass_core::{
    At, Backend, Claim, Effect, ErrorKind, Inspect, Kind, NewJob, Nonce, Pushed, QueueName, SessionId,
    Settled, StateKind, Verdict,
};
use windlass_redis::{RedisBackend, RedisOptions};
use windlass_servers::{Proxy, Side};

const MAIL: QueueName = QueueName::from_static("mail");
const AT: At = At::Server;

struct Bench {
    proxy: Proxy,
    /// Through the proxy.
    backend: RedisBackend,
    /// Straight to the server.
    truth: RedisBackend,
}

impl Bench {
    async fn new() -> Self {
        let port = support::url().rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
        let proxy = Proxy::before(port).expect("a proxy");
        let name = support::fresh_name();
        let through = RedisOptions::new(format!("redis://127.0.0.1:{}", proxy.port()))
            .namespace(&name)
            .response_timeout(Duration::from_millis(700));
        let backend = support::open(through).await;
        let truth = support::open(RedisOptions::new(support::url()).namespace(&name)).await;
        Self { proxy, backend, truth }
    }

    fn claim() -> Claim {
        Claim {
            session: SessionId::random(),
            nonce: Nonce::random(),
            queues: vec![MAIL],
            kinds: [(Kind::from_static("greet"), 1), (Kind::from_static("effect"), 1)].into_iter().collect(),
            limit: 1,
            ahead: 0,
            suspects: true,
            lease: Duration::from_secs(30),
        }
    }

    /// Goes over every byte of what `verb` sends and hears.
    async fn at_every_byte(&self, verb: impl AsyncFn(&Self, Option<(Side, usize)>)) {
        // Connections and scripts are warm; then the bytes of one exchange are counted.
        for _ in 0..2 {
            verb(self, None).await;
        }
        let before = self.proxy.passed();
        verb(self, None).await;
        let after = self.proxy.passed();
        let mut cuts = 0;
        for (side, bytes) in [(Side::Request, after[0] - before[0]), (Side::Reply, after[1] - before[1])] {
            assert!(bytes > 10, "{side:?} has {bytes} bytes");
            for at in 0..=bytes {
                verb(self, Some((side, at))).await;
                cuts += 1;
            }
        }
        println!("{cuts} cuts");
        // None is left over, whatever was in doubt.
        let claimed = self.truth.claim(&Self::claim(), AT).await.expect("claim");
        assert_eq!(claimed.jobs, []);
    }

    fn arm(&self, cut: Option<(Side, usize)>) {
        if let Some((side, bytes)) = cut {
            self.proxy.cut(side, bytes);
        }
    }

    /// Takes back a cut that did not come to pass, and waits until the server has done what it was sent: a request that came
    /// whole before its connection was cut may stand behind a later one of another connection. It answers once it has gone
    /// through all that had come.
    async fn come_to_rest(&self) {
        self.proxy.spare();
        self.truth.queues(AT).await.expect("a round trip");
    }

    /// Claims and completes the one job that there must be.
    async fn run_one(&self, job: &NewJob) {
        let claimed = self.truth.claim(&Self::claim(), AT).await.expect("claim").jobs;
        let [run] = &claimed[..] else { panic!("one job to run, not {claimed:?}") };
        assert_eq!((run.body.id, run.lost_leases), (job.body.id, 0));
        let settled =
            self.truth.settle(&[Verdict::new(run.lease.clone(), complete())], AT).await.expect("settle");
        assert_eq!(settled, [Settled::Applied(StateKind::Completed)]);
    }
}

/// Whether a request that reached the server as a whole may be carried out after the next one of another connection.
fn may_come_late<T>(answer: &windlass_core::Result<T>) -> bool {
    answer.as_ref().is_err_and(|error| error.effect() == Effect::Unknown)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dispatch_that_is_cut_anywhere_is_one_job_once_it_is_repeated() {
    let bench = Bench::new().await;
    let verb = async |bench: &Bench, cut: Option<(Side, usize)>| {
        let job = draft().build();
        bench.arm(cut);
        let pushed = bench.backend.push(std::slice::from_ref(&job), AT).await;
        bench.come_to_rest().await;
        let stored = bench.truth.get(&job.body.job(), AT).await.expect("get").is_some();
        let late = may_come_late(&pushed);
        match pushed {
            Ok(answers) => assert_eq!((answers, stored), (vec![Pushed::Inserted], true), "{cut:?}"),
            Err(error) => {
                assert!(error.is_retryable(), "{cut:?}: {error}");
                assert!(!stored || error.effect() == Effect::Unknown, "{cut:?}: it is stored: {error}");
            }
        }
        let again = bench.backend.push(std::slice::from_ref(&job), AT).await.expect("it heals");
        let wanted = if stored { Pushed::SameId } else { Pushed::Inserted };
        assert!(again == [wanted] || (late && again == [Pushed::SameId]), "{cut:?}: {again:?}");
        bench.run_one(&job).await;
    };
    bench.at_every_byte(verb).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_that_is_cut_anywhere_strands_nothing_once_it_is_handed_back() {
    let bench = Bench::new().await;
    let verb = async |bench: &Bench, cut: Option<(Side, usize)>| {
        let job = draft().build();
        bench.truth.push(std::slice::from_ref(&job), AT).await.expect("push");
        let claim = Bench::claim();
        bench.arm(cut);
        let claimed = bench.backend.claim(&claim, AT).await;
        bench.come_to_rest().await;
        let record = bench.truth.get(&job.body.job(), AT).await.expect("get").expect("it is stored");
        match &claimed {
            Ok(claimed) => assert_eq!((claimed.jobs.len(), record.state.kind()), (1, StateKind::Running)),
            Err(error) => {
                let taken = record.state.kind() == StateKind::Running;
                assert!(
                    error.is_retryable() && (!taken || error.effect() == Effect::Unknown),
                    "{cut:?}: {error}"
                );
            }
        }
        bench.backend.hand_back(claim.session, Some(claim.nonce), AT).await.expect("it heals");
        bench.run_one(&job).await;
    };
    bench.at_every_byte(verb).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_settle_that_is_cut_anywhere_is_applied_once() {
    let bench = Bench::new().await;
    let verb = async |bench: &Bench, cut: Option<(Side, usize)>| {
        let job = draft().build();
        bench.truth.push(std::slice::from_ref(&job), AT).await.expect("push");
        let run = bench.truth.claim(&Bench::claim(), AT).await.expect("claim").jobs.remove(0);
        let effect = draft().kind("effect").build();
        let verdict = [Verdict { lease: run.lease, ruling: complete(), then: vec![effect.clone()] }];
        bench.arm(cut);
        let settled = bench.backend.settle(&verdict, AT).await;
        bench.come_to_rest().await;
        let record = bench.truth.get(&job.body.job(), AT).await.expect("get").expect("it is stored");
        let applied = record.state.kind() == StateKind::Completed;
        let late = may_come_late(&settled);
        match settled {
            Ok(answers) => {
                assert_eq!((answers, applied), (vec![Settled::Applied(StateKind::Completed)], true));
            }
            Err(error) => {
                assert!(
                    error.is_retryable() && (!applied || error.effect() == Effect::Unknown),
                    "{cut:?}: {error}"
                );
            }
        }
        let again = bench.backend.settle(&verdict, AT).await.expect("it heals");
        let wanted = if applied { Settled::AlreadyApplied } else { Settled::Applied(StateKind::Completed) };
        assert!(again == [wanted] || (late && again == [Settled::AlreadyApplied]), "{cut:?}: {again:?}");
        bench.run_one(&effect).await;
    };
    bench.at_every_byte(verb).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_falls_silent_is_given_up_and_replaced() {
    let bench = Bench::new().await;
    let job = draft().build();
    bench.backend.push(std::slice::from_ref(&job), AT).await.expect("push");
    bench.proxy.swallow(true);
    let error = bench.backend.push(&[draft().build()], AT).await.expect_err("nobody answers");
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Timeout, Effect::Unknown), "{error}");
    // The old connection stays silent; a new one is not.
    bench.proxy.swallow(false);
    let again = bench.backend.push(&[job], AT).await.expect("a new connection");
    assert_eq!(again, [Pushed::SameId]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_future_leaves_its_answer_to_nobody() {
    let bench = Bench::new().await;
    let jobs: Vec<NewJob> = (0..50).map(|_| draft().build()).collect();
    bench.backend.push(&jobs, AT).await.expect("push");
    let asked = (0..20).flat_map(|round| jobs.iter().map(move |job| (round, job.body.job())));
    let all = asked.map(|(round, job)| {
        let backend = bench.backend.clone();
        tokio::spawn(async move {
            let get = backend.get(&job, AT);
            // Some are dropped before they are sent, some while the answer is on its way.
            let moment = Duration::from_micros(u64::from(job.id.as_uuid().as_bytes()[15]) * 20);
            if round % 2 == 0 {
                drop(tokio::time::timeout(moment, get).await);
                return;
            }
            let record = get.await.expect("get").expect("it is stored");
            assert_eq!(record.body.id, job.id, "another's answer");
        })
    });
    for one in all.collect::<Vec<_>>() {
        one.await.expect("its own answer");
    }
}
