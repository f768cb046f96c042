//! What can happen to a file: it is full, read-only, gone, replaced, damaged, newer. Typed errors, nothing lost, and work
//! goes on without a restart where that is possible.

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use common::Folder;
use windlass_conformance::{complete, draft, mail};
use windlass_core::{
    At, Backend, Claim, ClaimedJob, Effect, ErrorKind, Finished, Inspect, Kind, Migrate, NewJob, Nonce,
    OnConflict, Pushed, RecordState, SessionId, Settled, StateKind, Transactional, Until, Verdict,
};
use windlass_sqlite::{SqliteBackend, SqliteOptions};

const AT: At = At::Server;

fn ask(limit: usize) -> Claim {
    Claim {
        session: SessionId::from_u128(7),
        nonce: Nonce::random(),
        queues: vec![mail()],
        kinds: [(Kind::from_static("greet"), 1)].into_iter().collect(),
        limit,
        ahead: 0,
        suspects: true,
        lease: Duration::from_secs(30),
    }
}

fn batch(jobs: usize) -> Vec<NewJob> {
    (0..jobs).map(|_| draft().with(|body| body.payload = vec![b'x'; 1_000].into()).build()).collect()
}

async fn stored(backend: &SqliteBackend) -> u64 {
    let queues = backend.queues(AT).await.expect("queues");
    queues.iter().map(|queue| StateKind::ALL.iter().map(|state| queue.counts.get(*state)).sum::<u64>()).sum()
}

/// Claims and completes until nothing is left.
async fn drain(backend: &SqliteBackend) -> Vec<ClaimedJob> {
    let mut ran = Vec::new();
    loop {
        let jobs = backend.claim(&ask(100), AT).await.expect("claim").jobs;
        if jobs.is_empty() {
            return ran;
        }
        let verdicts: Vec<_> = jobs.iter().map(|job| Verdict::new(job.lease.clone(), complete())).collect();
        for settled in backend.settle(&verdicts, AT).await.expect("settle") {
            assert_eq!(settled, Settled::Applied(StateKind::Completed));
        }
        ran.extend(jobs);
    }
}

async fn is_sound(path: &Path) -> bool {
    let mut conn = common::connect(path).await;
    let answer: (String,) =
        sqlx::query_as("pragma integrity_check").fetch_one(&mut conn).await.expect("a check");
    answer.0 == "ok"
}

#[tokio::test]
async fn a_full_database_refuses_whole_batches_and_goes_on_when_there_is_room() {
    let folder = Folder::new();
    let small = folder.options("jobs.db").max_bytes(600_000);
    let backend = SqliteBackend::open_with(small).await.expect("open");
    let mut taken = 0;
    let (error, refused) = loop {
        let jobs = batch(50);
        match backend.push(&jobs, AT).await {
            Ok(pushed) => taken += pushed.len() as u64,
            Err(error) => break (error, jobs),
        }
    };
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, Effect::NotApplied), "{error}");
    assert!(error.is_retryable() && error.to_string().contains("full"), "{error}");
    assert_eq!(stored(&backend).await, taken, "the batch that did not fit left nothing");
    drop(backend);
    let backend = folder.open("jobs.db").await;
    assert_eq!(backend.push(&refused, AT).await.expect("there is room now"), [Pushed::Inserted; 50]);
    assert_eq!(drain(&backend).await.len() as u64, taken + 50);
    assert!(is_sound(&folder.path("jobs.db")).await);
}

/// A file system of its own in memory, of fixed size. Needs root; without it there is none.
struct Disk(PathBuf);

impl Disk {
    fn mount(folder: &Folder, options: &str) -> Option<Self> {
        let path = folder.path("disk");
        std::fs::create_dir_all(&path).expect("a folder");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", options, "windlass-test"]).arg(&path);
        let mounted = mount.output().is_ok_and(|output| output.status.success());
        if !mounted {
            println!("skipped: only root can mount a file system of fixed size");
        }
        mounted.then_some(Self(path))
    }

    fn remount(&self, options: &str) {
        let mut mount = Command::new("mount");
        mount.args(["-o", &format!("remount,{options}")]).arg(&self.0);
        assert!(mount.output().expect("mount runs").status.success(), "remount with {options}");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

#[tokio::test]
async fn a_full_disk_loses_nothing_and_work_goes_on_when_there_is_space() {
    let folder = Folder::new();
    let Some(disk) = Disk::mount(&folder, "size=3m") else { return };
    let path = disk.0.join("jobs.db");
    let backend = SqliteBackend::open(&path).await.expect("open");
    let mut taken: Vec<NewJob> = Vec::new();
    let error = loop {
        let jobs = batch(50);
        match backend.push(&jobs, AT).await {
            Ok(_) => taken.extend(jobs),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert_eq!(stored(&backend).await, taken.len() as u64);
    disk.remount("size=64m");
    assert_eq!(backend.push(&batch(50), AT).await.expect("there is space now").len(), 50);
    assert_eq!(drain(&backend).await.len(), taken.len() + 50);
    drop(backend);
    assert!(is_sound(&path).await);
}

#[tokio::test]
async fn a_disk_that_becomes_read_only_is_told_and_work_goes_on_when_it_is_writable_again() {
    let folder = Folder::new();
    let Some(disk) = Disk::mount(&folder, "size=32m") else { return };
    let path = disk.0.join("jobs.db");
    let backend = SqliteBackend::open(&path).await.expect("open");
    backend.push(&batch(10), AT).await.expect("push");
    drop(backend);
    // An open file keeps a disk from being remounted: the last handle's tasks end a moment after it.
    tokio::time::sleep(Duration::from_millis(200)).await;
    disk.remount("ro");
    let error = SqliteBackend::open(&path).await.expect_err("it cannot be written");
    assert!(matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Connection), "{error}");
    disk.remount("rw");
    let backend = SqliteBackend::open(&path).await.expect("open");
    assert_eq!(drain(&backend).await.len(), 10);
}

#[tokio::test]
async fn a_file_that_is_gone_is_told_and_work_goes_on_when_it_is_back() {
    let folder = Folder::new();
    let backend = folder.open("jobs.db").await;
    backend.push(&batch(10), AT).await.expect("push");
    for name in ["jobs.db", "jobs.db-wal", "jobs.db-shm"] {
        std::fs::rename(folder.path(name), folder.path(&format!("away-{name}"))).expect("rename");
    }
    for error in [
        backend.push(&batch(1), AT).await.map(drop).expect_err("push"),
        backend.claim(&ask(1), AT).await.map(drop).expect_err("claim"),
        backend.queues(AT).await.map(drop).expect_err("queues"),
    ] {
        assert_eq!((error.kind(), error.effect()), (ErrorKind::Connection, Effect::NotApplied), "{error}");
        assert!(error.to_string().contains("gone from its path"), "{error}");
    }
    assert!(!folder.path("jobs.db").exists(), "no new file is made in its place: that would lose the jobs");
    for name in ["jobs.db", "jobs.db-wal", "jobs.db-shm"] {
        if folder.path(&format!("away-{name}")).exists() {
            std::fs::rename(folder.path(&format!("away-{name}")), folder.path(name)).expect("rename");
        }
    }
    assert_eq!(drain(&backend).await.len(), 10);
    assert!(is_sound(&folder.path("jobs.db")).await);
}

#[tokio::test]
async fn a_file_that_was_replaced_is_the_one_that_counts() {
    let folder = Folder::new();
    let other = folder.open("other.db").await;
    other.push(&batch(3), AT).await.expect("push");
    drop(other);
    let backend = folder.open("jobs.db").await;
    backend.push(&batch(10), AT).await.expect("push");
    let held = backend.claim(&ask(1), AT).await.expect("claim").jobs.remove(0);
    tokio::time::sleep(Duration::from_millis(100)).await;
    for suffix in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(folder.path(&format!("jobs.db{suffix}")));
    }
    std::fs::rename(folder.path("other.db"), folder.path("jobs.db")).expect("rename");
    // A lease of the old file is nothing to the new one.
    let settled = backend.settle(&[Verdict::new(held.lease, complete())], AT).await.expect("settle");
    assert_eq!(settled, [Settled::LeaseLost]);
    assert_eq!(stored(&backend).await, 3);
    assert_eq!(drain(&backend).await.len(), 3);
}

#[tokio::test]
async fn a_file_that_is_no_database_or_has_no_schema_is_refused() {
    let folder = Folder::new();
    std::fs::write(folder.path("notes.txt"), "buy milk\n".repeat(1_000)).expect("a file");
    let error = SqliteBackend::open(folder.path("notes.txt")).await.expect_err("text");
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    assert!(error.to_string().contains("not a SQLite database"), "{error}");
    let error = SqliteBackend::open(folder.path("no/such/folder/jobs.db")).await.expect_err("no folder");
    assert_eq!(error.kind(), ErrorKind::Connection, "{error}");

    let unasked = SqliteOptions::new(folder.path("empty.db")).migrate_when_opened(false);
    assert_eq!(
        SqliteBackend::open_with(unasked.clone()).await.expect_err("no file").kind(),
        ErrorKind::Connection
    );
    std::fs::write(folder.path("empty.db"), "").expect("a file");
    let error = SqliteBackend::open_with(unasked.clone()).await.expect_err("no schema");
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    assert!(error.to_string().contains("call `migrate`"), "{error}");
    drop(SqliteBackend::open(folder.path("empty.db")).await.expect("migrated"));
    let backend = SqliteBackend::open_with(unasked).await.expect("it has its schema now");
    assert_eq!(backend.pending().await.expect("pending"), []);
    assert_eq!(backend.migrate().await.expect("migrate"), [], "twice changes nothing");
}

#[tokio::test]
async fn a_schema_of_a_newer_release_is_refused() {
    let folder = Folder::new();
    drop(folder.open("jobs.db").await);
    let mut conn = common::connect(&folder.path("jobs.db")).await;
    sqlx::query("update windlass_meta set version = 99").execute(&mut conn).await.expect("update");
    let error = SqliteBackend::open(folder.path("jobs.db")).await.expect_err("newer");
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("version 99, made by a newer release"), "{error}");
}

#[tokio::test]
async fn a_job_that_cannot_be_read_is_dead_and_holds_nobody_up() {
    let folder = Folder::new();
    let backend = folder.open("jobs.db").await;
    let keyed = draft().unique("k", OnConflict::Skip, Until::End);
    let jobs = [draft().build(), keyed.build(), draft().build()];
    backend.push(&jobs, AT).await.expect("push");
    let mut conn = common::connect(&folder.path("jobs.db")).await;
    sqlx::query(
        "update windlass_body set packed = x'01ff00' where n = (select n from windlass_job where id = ?1)",
    )
    .bind(&jobs[1].body.id.as_uuid().as_bytes()[..])
    .execute(&mut conn)
    .await
    .expect("update");
    let ran: Vec<_> = drain(&backend).await.iter().map(|job| job.body.id).collect();
    assert_eq!(ran, [jobs[0].body.id, jobs[2].body.id]);
    let record = backend.get(&jobs[1].body.job(), AT).await.expect("get").expect("it is kept");
    assert!(matches!(record.state, RecordState::Dead { reason: windlass_core::DeadReason::Undecodable, .. }));
    assert_eq!(&*record.body.payload, b"\x01\xff\x00", "its bytes are kept");
    let ended = backend.outcomes(&[jobs[1].body.job()], Duration::ZERO, AT).await.expect("outcomes");
    assert!(matches!(&ended[..], [Some(Finished::Dead { error: Some(_), .. })]), "{ended:?}");
    let again = draft().unique("k", OnConflict::Skip, Until::End).build();
    assert_eq!(backend.push(&[again], AT).await.expect("push"), [Pushed::Inserted], "its key is free");
}

#[tokio::test]
async fn what_one_request_breaks_does_not_spoil_those_that_came_with_it() {
    let folder = Folder::new();
    let backend = folder.open("jobs.db").await;
    let keyed = draft().unique("k", OnConflict::Skip, Until::End).build();
    backend.push(std::slice::from_ref(&keyed), AT).await.expect("push");
    let held = backend.claim(&ask(1), AT).await.expect("claim").jobs.remove(0);
    let mut conn = common::connect(&folder.path("jobs.db")).await;
    sqlx::query("update windlass_body set packed = x'01'").execute(&mut conn).await.expect("update");
    // The settle needs the bytes, for the key that the job frees; the pushes do not. They reach the writer together.
    let verdicts = [Verdict::new(held.lease.clone(), complete())];
    let (one, other) = (batch(1), batch(1));
    let (settled, first, second) =
        tokio::join!(backend.settle(&verdicts, AT), backend.push(&one, AT), backend.push(&other, AT));
    let error = settled.expect_err("its bytes cannot be read");
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Decode, Effect::NotApplied), "{error}");
    assert_eq!(first.expect("push"), [Pushed::Inserted]);
    assert_eq!(second.expect("push"), [Pushed::Inserted]);
    assert_eq!(stored(&backend).await, 3);
}

#[tokio::test]
async fn what_fails_half_way_in_a_callers_transaction_leaves_nothing_of_itself() {
    let folder = Folder::new();
    let backend = folder.open("jobs.db").await;
    let keyed = draft().unique("k", OnConflict::Skip, Until::End).build();
    backend.push(&[draft().build(), keyed], AT).await.expect("push");
    let held = backend.claim(&ask(2), AT).await.expect("claim").jobs;
    let mut conn = common::connect(&folder.path("jobs.db")).await;
    sqlx::query("update windlass_body set packed = x'01' where n = 2")
        .execute(&mut conn)
        .await
        .expect("update");
    let verdicts: Vec<_> = held.iter().map(|job| Verdict::new(job.lease.clone(), complete())).collect();
    let mut tx = backend.begin().await.expect("begin");
    let error = backend.settle_in(&mut tx, &verdicts, AT).await.expect_err("the bytes of one cannot be read");
    assert_eq!(error.kind(), ErrorKind::Decode, "{error}");
    tx.commit().await.expect("the caller's own writes go on");
    let first = backend.settle(&verdicts[..1], AT).await.expect("settle");
    assert_eq!(first, [Settled::Applied(StateKind::Completed)], "its verdict was not applied half-way");
}

#[tokio::test]
async fn a_transaction_that_fails_as_it_begins_is_not_in_the_way_of_the_next() {
    let folder = Folder::new();
    let backend = folder.open("jobs.db").await;
    let mut conn = common::connect(&folder.path("jobs.db")).await;
    sqlx::query("alter table windlass_meta rename to away").execute(&mut conn).await.expect("rename");
    let error = backend.push(&batch(1), AT).await.expect_err("its first look finds no table");
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Unexpected, Effect::NotApplied), "{error}");
    sqlx::query("alter table away rename to windlass_meta").execute(&mut conn).await.expect("rename");
    assert_eq!(backend.push(&batch(1), AT).await.expect("push"), [Pushed::Inserted]);
}
