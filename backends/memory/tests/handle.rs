//! What only the memory engine has: connecting to nothing, the record of dispatches, a look between steps.

use windlass_conformance::{Draft, draft, secs};
use windlass_core::{
    At, Backend, Capabilities, Connect, ErrorKind, Inspect, Migrate, OnConflict, Pushed, Timestamp, Until,
};
use windlass_memory::{MemoryBackend, MemoryOptions};

const NOW: At = At::Instant(Timestamp::VIRTUAL_START);

#[tokio::test]
async fn a_url_opens_an_empty_store_of_its_own() {
    assert_eq!(MemoryBackend::SCHEMES, ["memory"]);
    for url in ["memory:", "memory://"] {
        let first = MemoryBackend::connect(url).await.unwrap();
        first.push(&[draft().build()], NOW).await.unwrap();
        let second = MemoryBackend::connect(url).await.unwrap();
        assert_eq!(second.queues(NOW).await.unwrap(), []);
    }
}

#[tokio::test]
async fn a_url_with_an_address_is_refused_without_telling_it() {
    for url in ["memory://ada:hunter2@host/db", "redis://host", "", "memory"] {
        let error = MemoryBackend::connect(url).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        let text = error.to_string();
        assert!(text.contains("`memory:`") && !text.contains("hunter2"), "{text}");
    }
}

#[tokio::test]
async fn it_says_what_it_is() {
    let backend = MemoryBackend::default();
    let wanted = Capabilities {
        durable: false,
        shared: false,
        atomic_across_queues: true,
        pipelined: false,
        ahead_max: 900,
    };
    assert_eq!((MemoryBackend::NAME, backend.capabilities()), ("memory", wanted));
    assert_eq!(backend.pending().await.unwrap(), []);
    assert_eq!(backend.migrate().await.unwrap(), []);
}

#[tokio::test]
async fn debug_output_shows_no_payload() {
    let backend = MemoryBackend::new();
    let secret = draft().with(|body| body.payload = Box::from(*b"hunter2")).build();
    backend.push(&[secret], NOW).await.unwrap();
    assert_eq!(format!("{backend:?}"), "MemoryBackend { jobs: 1 }");
    assert_eq!(format!("{:?}", backend.faults()), "Faults { .. }");
}

#[tokio::test]
async fn dispatches_are_remembered_when_asked_for() {
    let quiet = MemoryBackend::new();
    quiet.push(&[draft().build()], NOW).await.unwrap();
    assert!(quiet.recorded().is_empty());

    let backend =
        MemoryBackend::with_options(MemoryOptions { record_dispatches: true, ..MemoryOptions::default() });
    let keyed = || -> Draft { draft().unique("k", OnConflict::Skip, Until::End) };
    let (first, refused, later) = (keyed().build(), keyed().build(), draft().after(secs(5)).build());
    let batch = [first.clone(), refused, first.clone(), later.clone()];
    let pushed = backend.push(&batch, NOW).await.unwrap();
    let answers = [Pushed::Inserted, Pushed::Conflict(first.body.id), Pushed::SameId, Pushed::Inserted];
    assert_eq!(pushed, answers);
    let start = Timestamp::VIRTUAL_START;
    let recorded: Vec<_> =
        backend.recorded().into_iter().map(|seen| (seen.body.id, seen.at, seen.due)).collect();
    let wanted = [(first.body.id, start, start), (later.body.id, start, start.saturating_add(secs(5)))];
    assert_eq!(recorded, wanted, "what was taken in, and nothing else");
}

#[tokio::test]
async fn a_look_between_steps_needs_no_time() {
    let backend = MemoryBackend::new();
    let job = draft().build();
    assert!(backend.peek(&job.body.job()).is_none());
    backend.push(std::slice::from_ref(&job), NOW).await.unwrap();
    assert_eq!(backend.peek(&job.body.job()), backend.get(&job.body.job(), NOW).await.unwrap());
}
