//! Bad input to the dispatch API: refused before it is stored, naming field and limit.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use windlass::prelude::*;
use windlass::{ErrorKind, JobId, JobRef, QueueName};

use super::support::*;

#[derive(Serialize, Deserialize, Job)]
#[job(name = "blob")]
struct Blob(String);

/// The message of a dispatch that must be refused, with nothing stored.
macro_rules! refused {
    ($queue:ident, $dispatch:expr, $kind:ident) => {{
        let error = $dispatch.await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::$kind, "{error}");
        assert_eq!(error.effect(), windlass::Effect::NotApplied);
        $queue.assert_nothing_dispatched();
        error.to_string()
    }};
}

#[tokio::test]
async fn payloads_at_the_limit_pass_and_beyond_it_do_not() {
    let queue = Queue::<MemoryBackend>::fake();
    let text = refused!(queue, queue.dispatch(Blob("x".repeat(1024 * 1024 - 1))), Invalid);
    assert!(text.contains("payload of `blob` has more than 1048576 bytes"), "{text}");
    queue.dispatch(Blob("x".repeat(1024 * 1024 - 2))).await.unwrap();
    queue.dispatch(Blob(String::new())).await.unwrap();
}

#[tokio::test]
async fn names_are_checked_before_anything_is_stored() {
    let queue = Queue::<MemoryBackend>::fake();
    let long = "q".repeat(256);
    for name in [
        "",
        long.as_str(),
        "a b",
        "a:b",
        "{q}",
        "*",
        "a\nb",
        "a\0",
        "../q",
        "'; drop table",
        "\"",
        "🦀",
        "\u{202e}q",
        "q\u{200b}",
        "Mail",
    ] {
        let text = refused!(queue, queue.dispatch(finish("x")).on(name), Invalid);
        assert!(text.contains("queue name") && text.contains("1 to 128 bytes"), "{text}");
    }
    assert!(queue.dispatch_all([finish("x")]).on("no good").await.is_err());
    queue.assert_nothing_dispatched();
}

#[tokio::test]
async fn numbers_and_times_out_of_range_are_refused() {
    let queue = Queue::<MemoryBackend>::fake();
    let dispatch = || queue.dispatch(finish("x"));
    for (text, part) in [
        (
            refused!(queue, dispatch().max_attempts(0), Invalid),
            "max_attempts 0 is out of range: use 1 to 10000",
        ),
        (refused!(queue, dispatch().max_attempts(u16::MAX), Invalid), "max_attempts 65535"),
        (refused!(queue, dispatch().timeout(Duration::ZERO), Invalid), "timeout of 0ns is out of range"),
        (refused!(queue, dispatch().timeout(Duration::MAX), Invalid), "30 days"),
        (refused!(queue, dispatch().delay(Duration::MAX), Invalid), "delay of"),
        (refused!(queue, dispatch().deadline(Duration::MAX), Invalid), "deadline of"),
        (refused!(queue, dispatch().unique_for(Duration::ZERO), Invalid), "unique window of 0 s"),
        (refused!(queue, dispatch().unique_for(Duration::MAX), Invalid), "unique window of"),
        (refused!(queue, dispatch().limit("k", 0), Invalid), "limit of 0"),
    ] {
        assert!(text.contains(part), "{text}");
    }
    // Instants in the far past and future are legal: due at once, and never within a lifetime.
    dispatch().at(windlass::Timestamp::MIN).await.unwrap();
    dispatch().at(windlass::Timestamp::MAX).await.unwrap();
}

#[tokio::test]
async fn texts_are_bounded_and_visible() {
    let queue = Queue::<MemoryBackend>::fake();
    let dispatch = || queue.dispatch(finish("x"));
    for bad in ["", "a\0b", "a\nb", "\u{1b}[31m", "\u{202e}x", "in\u{200b}visible"] {
        assert!(refused!(queue, dispatch().tag(bad), Invalid).contains("tag"));
        assert!(refused!(queue, dispatch().metadata(bad, "v"), Invalid).contains("metadata key"));
        assert!(refused!(queue, dispatch().limit(bad, 1), Invalid).contains("limit key"));
        if !bad.is_empty() {
            assert!(refused!(queue, dispatch().unique(UniqueBy::key(bad)), Invalid).contains("unique key"));
        }
    }
    assert!(refused!(queue, dispatch().tag("t".repeat(1 << 20)), Invalid).contains("1048576 bytes"));
    assert!(refused!(queue, dispatch().tags(vec!["t"; 10_000]), Invalid).contains("10000 tags are too many"));
    assert!(
        refused!(queue, dispatch().metadata("k", "v".repeat(10_000)), Invalid)
            .contains("metadata has 10001 bytes")
    );
    assert!(
        refused!(queue, dispatch().unique(UniqueBy::key("k".repeat(300))), Invalid).contains("unique key")
    );
}

#[tokio::test]
async fn values_that_cannot_be_written_are_refused() {
    #[derive(Serialize, Deserialize, Job)]
    #[job(name = "point")]
    struct Point {
        x: f64,
    }
    #[derive(Serialize, Deserialize, Job)]
    #[job(name = "by_pair")]
    struct ByPair(BTreeMap<(u8, u8), u8>);
    #[derive(Serialize, Deserialize, Job)]
    #[job(name = "numbers")]
    struct Numbers(u64, i128);
    let queue = Queue::<MemoryBackend>::fake();
    for x in [f64::NAN, f64::INFINITY] {
        assert!(
            refused!(queue, queue.dispatch(Point { x }), Encode).contains("NaN and infinity have no JSON")
        );
    }
    assert!(
        refused!(queue, queue.dispatch(ByPair([((1, 2), 3)].into())), Encode)
            .contains("key must be a string")
    );
    queue.dispatch(Point { x: -0.0 }).await.unwrap();
    queue.dispatch(Numbers(u64::MAX, i128::MIN)).await.unwrap();
    let numbers = queue.dispatched::<Numbers>().get();
    assert_eq!((numbers[0].0, numbers[0].1), (u64::MAX, i128::MIN), "no precision is lost");
}

#[tokio::test]
async fn a_payload_may_hold_any_text() {
    let world = World::new();
    let nasty = "\0 \u{202e} \u{feff} \"quotes\" 'ticks' \\ </script> {{x}} \r\n";
    let job = world.dispatch(finish(nasty)).await;
    world.queue.drain(&world.jobs).await.assert_clean();
    assert_eq!(world.journal.lines(), [nasty]);
    assert_eq!(world.find(&job).await.job().name, nasty);
}

#[tokio::test]
async fn ids_must_be_ids_and_parents_must_exist() {
    let queue = Queue::<MemoryBackend>::fake();
    assert!("not-a-uuid".parse::<JobId>().is_err());
    assert!("00000000-0000-0000-0000-000000000000".parse::<JobId>().unwrap_err().to_string().contains("nil"));
    let nobody = JobRef::new(QueueName::from_static("default"), JobId::fresh());
    let text = refused!(queue, queue.dispatch(finish("x")).after(&nobody), NotFound);
    assert!(text.contains(&format!("parent {nobody} is not stored")), "{text}");
    // An id that is in use, also by a job of another kind, changes nothing.
    let id = JobId::fresh();
    queue.dispatch(Blob("first".to_owned())).id(id).await.unwrap();
    assert!(!queue.dispatch(finish("second")).id(id).await.unwrap().is_new());
}

#[tokio::test]
async fn a_batch_with_one_bad_item_stores_nothing() {
    let queue = Queue::<MemoryBackend>::fake();
    let mut drafts: Vec<_> =
        (0..2_500).map(|n| queue.dispatch(finish(&n.to_string())).into_draft().unwrap()).collect();
    drafts[2_400].set_max_attempts(0);
    let error = queue.push(drafts).await.unwrap_err();
    assert!(error.to_string().contains("max_attempts 0") && error.sent.is_empty(), "{error}");
    queue.assert_nothing_dispatched();
    let none = queue.push(Vec::new()).await.unwrap();
    assert!(none.is_empty());
    let many = queue.dispatch_all((0..100_001).map(|n| Blob(n.to_string()))).await.unwrap();
    assert_eq!(many.len(), 100_001);
}

#[tokio::test]
async fn jobs_a_handler_wants_then_are_checked_where_they_are_asked_for() {
    #[derive(Serialize, Deserialize, Job)]
    #[job(name = "asker", max_attempts = 1)]
    struct Asker;
    impl Handler for Asker {
        type Deps = ();
        type Error = Fault;
        async fn handle(_: Self, (): (), cx: &mut Context) -> Result<Outcome, Fault> {
            assert!(cx.then_with(finish("x"), |dispatch| dispatch.on("no good")).is_err());
            assert!(cx.then_with(finish("x"), |dispatch| dispatch.max_attempts(0)).is_err());
            assert!(cx.then(Blob("x".repeat(2 << 20))).is_err());
            Ok(Outcome::Done)
        }
    }
    let queue = Queue::<MemoryBackend>::fake();
    queue.dispatch(Asker).await.unwrap();
    queue.drain(&Registry::new(()).register::<Asker>()).await.assert_clean();
    queue.assert_dispatched_times::<Asker>(1);
    queue.assert_not_dispatched::<Act>();
}
