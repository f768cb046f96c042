//! Processes that share one file: nobody fails for another's lock, and every job runs once.
//!
//! The children are this test program itself, told by a variable what to do.

mod common;

use std::collections::HashMap;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::Folder;
use tokio::time::Instant;
use windlass_conformance::{complete, draft, mail};
use windlass_core::{
    At, Backend, Claim, Held, Inspect, Kind, Nonce, SessionId, Settled, StateKind, Sweep, Verdict,
};
use windlass_sqlite::{SqliteBackend, SqliteOptions};

const AT: At = At::Server;
const ROLE: &str = "WINDLASS_TEST_CHILD";

/// How long the processes work together; `WINDLASS_SOAK_SECONDS` asks for longer.
fn soak() -> Duration {
    let seconds = std::env::var("WINDLASS_SOAK_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    Duration::from_secs(seconds.unwrap_or(4))
}

fn child(test: &str, role: &str) -> Child {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args(["--exact", test, "--nocapture"]).env(ROLE, role);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("a child")
}

/// One process: dispatches, claims, extends, settles and sweeps as fast as it can, and prints each job that it ran.
async fn work(path: &str) {
    let backend = SqliteBackend::open_with(SqliteOptions::new(path)).await.expect("open");
    let session = SessionId::random();
    let deadline = Instant::now() + soak();
    let (mut dispatched, mut longest) = (0, Duration::ZERO);
    while Instant::now() < deadline {
        let jobs: Vec<_> = (0..20).map(|_| draft().build()).collect();
        let asked = Instant::now();
        dispatched += backend.push(&jobs, AT).await.expect("push").len();
        longest = longest.max(asked.elapsed());
        run_some(&backend, session).await;
        backend.sweep(&Sweep::default(), AT).await.expect("sweep");
    }
    while run_some(&backend, session).await > 0 {}
    println!("dispatched {dispatched}");
    println!("longest {}", longest.as_millis());
}

async fn run_some(backend: &SqliteBackend, session: SessionId) -> usize {
    let claim = Claim {
        session,
        nonce: Nonce::random(),
        queues: vec![mail()],
        kinds: [(Kind::from_static("greet"), 1)].into_iter().collect(),
        limit: 30,
        ahead: 0,
        suspects: true,
        lease: Duration::from_secs(30),
    };
    let jobs = backend.claim(&claim, AT).await.expect("claim").jobs;
    let held: Vec<_> = jobs.iter().map(|job| Held { lease: job.lease.clone(), started: true }).collect();
    backend.extend(session, &held, Duration::from_secs(30), AT).await.expect("extend");
    let verdicts: Vec<_> = jobs.iter().map(|job| Verdict::new(job.lease.clone(), complete())).collect();
    let settled = backend.settle(&verdicts, AT).await.expect("settle");
    assert!(settled.iter().all(|settled| *settled == Settled::Applied(StateKind::Completed)), "{settled:?}");
    for job in &jobs {
        println!("ran {}", job.body.id);
    }
    jobs.len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_processes_share_a_file() {
    if let Ok(path) = std::env::var(ROLE) {
        return work(&path).await;
    }
    let folder = Folder::new();
    let path = folder.path("jobs.db");
    // None of them finds the file there: they make it and its schema at once.
    let children: Vec<Child> =
        (0..4).map(|_| child("four_processes_share_a_file", &path.display().to_string())).collect();
    let mut runs: HashMap<String, u32> = HashMap::new();
    let (mut dispatched, mut shares, mut longest) = (0, Vec::new(), Vec::new());
    // All are listened to at once: one whose pipe is full stands still.
    let outputs: Vec<_> =
        children.into_iter().map(|child| tokio::task::spawn_blocking(|| child.wait_with_output())).collect();
    for output in outputs {
        let output = output.await.expect("no panic").expect("output");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "a process failed: {text}");
        let mut ran = 0;
        for line in text.lines() {
            if let Some(id) = line.strip_prefix("ran ") {
                *runs.entry(id.to_owned()).or_default() += 1;
                ran += 1;
            } else if let Some(count) = line.strip_prefix("dispatched ") {
                dispatched += count.parse::<usize>().expect("a number");
            } else if let Some(millis) = line.strip_prefix("longest ") {
                longest.push(millis.to_owned());
            }
        }
        shares.push(ran);
    }
    println!("{dispatched} jobs in {:?}, shares {shares:?}, longest push {longest:?} ms", soak());
    assert!(dispatched > 0 && runs.values().all(|count| *count == 1), "each job ran once");
    assert_eq!(runs.len(), dispatched, "no job was lost");
    // None of them was kept from the lock by the others.
    assert!(shares.iter().all(|share| share * 10 > dispatched), "{shares:?} of {dispatched}");
    let backend = folder.open("jobs.db").await;
    let queues = backend.queues(AT).await.expect("queues");
    assert_eq!(queues[0].counts.live(), 0);
    let mut conn = common::connect(&path).await;
    let sound: String =
        sqlx::query_scalar("pragma integrity_check").fetch_one(&mut conn).await.expect("a check");
    assert_eq!(sound, "ok");
}

/// A process that is killed within its transaction leaves nothing of it.
#[tokio::test]
async fn a_writer_killed_inside_its_transaction_leaves_nothing_of_it() {
    if let Ok(path) = std::env::var(ROLE) {
        let backend = SqliteBackend::open_with(SqliteOptions::new(path)).await.expect("open");
        use windlass_core::Transactional as _;
        let mut tx = backend.begin().await.expect("begin");
        let jobs: Vec<_> = (0..500).map(|_| draft().build()).collect();
        backend.push_in(&mut tx, &jobs, AT).await.expect("push in");
        println!("inside");
        std::future::pending::<()>().await;
    }
    use std::io::{BufRead as _, BufReader};
    let folder = Folder::new();
    let backend = folder.open("jobs.db").await;
    backend.push(&[draft().build()], AT).await.expect("push");
    for _ in 0..5 {
        let path = folder.path("jobs.db").display().to_string();
        let mut victim = child("a_writer_killed_inside_its_transaction_leaves_nothing_of_it", &path);
        let stdout = victim.stdout.take().expect("its output");
        let inside = tokio::task::spawn_blocking(move || {
            BufReader::new(stdout).lines().any(|line| line.is_ok_and(|line| line.contains("inside")))
        });
        assert!(inside.await.expect("no panic"), "it got into its transaction");
        victim.kill().expect("kill");
        victim.wait().expect("it ends");
        // Its lock went with it.
        backend.push(&[draft().build()], AT).await.expect("push");
    }
    assert_eq!(backend.queues(AT).await.expect("queues")[0].counts.get(StateKind::Ready), 6);
}
