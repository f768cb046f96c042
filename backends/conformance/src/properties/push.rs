//! Push: what is taken in is stored as it is, once, or not at all.

use windlass_core::{
    Backend, ConcurrencyLimit, Due, ErrorKind, NewJob, OnConflict, Priority, Pushed, RecordState, StateKind,
    Unique, Until,
};

use crate::{Env, World, complete, draft, ids, secs};

pub async fn a_job_is_stored_as_it_was_pushed<E: Env>(w: &mut World<E>) {
    let job = draft()
        .with(|body| {
            body.payload = (0..=255).collect();
            body.timeout = secs(90).into();
            (body.version, body.min_reader, body.codec) = (7, 1, 3);
            (body.max_attempts, body.priority) = (25, Priority::HIGH);
            let extras = body.extras_mut();
            extras.tags = vec!["vip".to_owned(), "été ❄".to_owned()];
            extras.metadata.insert("trace".to_owned(), "00-ab-01; \"quoted\" 'n' \\".to_owned());
            extras.limit = Some(ConcurrencyLimit { key: "tenant 7 {x}:*".to_owned(), at_most: 4 });
            extras.unique = Some(Unique {
                key: "ada@example.com'; --".to_owned(),
                on_conflict: OnConflict::Skip,
                until: Until::Window(secs(60)),
            });
            extras.deadline = Some(Due::After(secs(5)));
        })
        .build();
    w.put(job.clone()).await;
    let record = w.record(&job.body.job()).await;
    assert_eq!(*record.body, *job.body);
    assert_eq!(record.state, RecordState::Ready { parked: false });
    assert_eq!(record.created_at, w.now);
    assert_eq!((record.attempts, record.lost_leases, record.generation, record.epoch), (0, 0, 0, 0));
    assert_eq!((record.last_error, record.progress, record.log), (None, None, vec![]));
    let claimed = w.take().await;
    assert_eq!(*claimed.body, *job.body, "the worker sees the same body");
}

pub async fn answers_come_in_the_order_of_the_jobs<E: Env>(w: &mut World<E>) {
    let known = w.put(draft().unique("k", OnConflict::Skip, Until::End)).await;
    let batch = [
        draft().build(),
        draft().id(known.id).build(),
        draft().unique("k", OnConflict::Skip, Until::End).build(),
        draft().build(),
    ];
    let answers = [Pushed::Inserted, Pushed::SameId, Pushed::Conflict(known.id), Pushed::Inserted];
    assert_eq!(w.push_all(&batch).await, answers);
    assert_eq!(w.everything().await.len(), 3);
}

pub async fn the_same_id_again_changes_nothing<E: Env>(w: &mut World<E>) {
    let first = draft();
    let job = w.put(first.clone()).await;
    let before = w.record(&job).await;
    w.advance(secs(1));
    let again = first.kind("other").priority(9).after(secs(60)).limit("k", 1).tag("late").build();
    assert_eq!(w.push(again).await, Pushed::SameId);
    assert_eq!(w.record(&job).await, before);
    assert_eq!(ids(&w.claim(10).await), [job.id]);
    w.nothing_to_claim().await;
}

pub async fn the_same_id_is_absorbed_in_every_state<E: Env>(w: &mut World<E>) {
    let blocker = w.put(draft().queue("other").limit("one", 1)).await;
    let jobs = [
        (draft().queue("other").limit("one", 1), StateKind::Blocked),
        (draft().after(secs(600)), StateKind::Scheduled),
        (draft().kind("unknown"), StateKind::Ready),
        (draft().priority(9), StateKind::Running),
        (draft().priority(8), StateKind::Completed),
        (draft().priority(7), StateKind::Cancelled),
        (draft().priority(6), StateKind::Dead),
    ];
    let all: Vec<NewJob> = jobs.iter().map(|(job, _)| job.clone().build()).collect();
    assert_eq!(w.push_all(&all).await, [Pushed::Inserted; 7]);
    let claimed = w.claim(4).await;
    for (claimed, ruling) in claimed[1..].iter().zip([complete(), crate::call_off(), crate::bury()]) {
        w.apply(&claimed.lease, ruling).await;
    }
    for (job, state) in &jobs {
        w.expect(&job.job(), *state).await;
    }
    let before = w.everything().await;
    assert_eq!(w.push_all(&all).await, [Pushed::SameId; 7]);
    assert_eq!(w.everything().await, before);
    w.expect(&blocker, StateKind::Ready).await;
}

pub async fn an_id_twice_in_one_batch_is_one_job<E: Env>(w: &mut World<E>) {
    let job = draft().build();
    assert_eq!(w.push_all(&[job.clone(), job.clone()]).await, [Pushed::Inserted, Pushed::SameId]);
    assert_eq!(ids(&w.claim(10).await), [job.body.id]);
}

pub async fn one_id_in_two_queues_is_two_jobs<E: Env>(w: &mut World<E>) {
    let here = w.put(draft()).await;
    let there = w.put(draft().id(here.id).queue("other").tag("there")).await;
    let claimed = w.take().await;
    assert_eq!(claimed.lease.job, here);
    w.apply(&claimed.lease, complete()).await;
    w.expect(&here, StateKind::Completed).await;
    w.expect(&there, StateKind::Ready).await;
    assert_eq!(w.record(&there).await.body.tags(), ["there"]);
}

pub async fn a_thousand_jobs_go_in_at_once_and_in_order<E: Env>(w: &mut World<E>) {
    let batch: Vec<NewJob> = (0..1_000).map(|_| draft().build()).collect();
    assert_eq!(w.push_all(&batch).await, vec![Pushed::Inserted; 1_000]);
    let wanted: Vec<_> = batch.iter().map(|job| job.body.id).collect();
    assert_eq!(ids(&w.claim(1_000).await), wanted);
    w.nothing_to_claim().await;
}

pub async fn an_empty_push_does_nothing<E: Env>(w: &mut World<E>) {
    assert_eq!(w.push_all(&[]).await, []);
    assert_eq!(w.everything().await, []);
}

pub async fn the_largest_payload_comes_back_whole<E: Env>(w: &mut World<E>) {
    let payload: Box<[u8]> =
        (0..windlass_core::limits::PAYLOAD_MAX_BYTES).map(|at| u8::try_from(at % 251).unwrap_or(0)).collect();
    let job = w.put(draft().with(|body| body.payload = payload.clone())).await;
    assert!(w.take().await.body.payload == payload, "the payload changed under way");
    assert!(w.record(&job).await.body.payload == payload);
    let empty = w.put(draft().with(|body| body.payload = Box::default())).await;
    assert!(w.record(&empty).await.body.payload.is_empty());
}

pub async fn an_empty_payload_and_the_widest_numbers_survive<E: Env>(w: &mut World<E>) {
    let job = draft()
        .min_reader(u16::MAX)
        .with(|body| {
            body.payload = Box::default();
            (body.max_attempts, body.codec) = (windlass_core::limits::ATTEMPTS_MAX, u8::MAX);
            body.timeout = windlass_core::limits::TIMEOUT_MAX.into();
        })
        .limit("k", u32::MAX)
        .build();
    w.put(job.clone()).await;
    assert_eq!(*w.record(&job.body.job()).await.body, *job.body);
}

pub async fn a_missing_parent_refuses_the_whole_batch<E: Env>(w: &mut World<E>) {
    let nobody = draft().job();
    let batch = [draft().build(), draft().parents(&[nobody]).build()];
    let error = w.backend().push(&batch, w.at()).await.expect_err("the parent is not stored");
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    assert_eq!(error.effect(), windlass_core::Effect::NotApplied);
    assert_eq!(w.everything().await, []);
}

pub async fn a_repeat_is_absorbed_after_its_parent_is_gone<E: Env>(w: &mut World<E>) {
    let parent = w.put(draft()).await;
    let child = draft().parents(std::slice::from_ref(&parent)).build();
    w.put(child.clone()).await;
    w.apply(&w.take().await.lease, complete()).await;
    windlass_core::Manage::delete(w.backend(), &parent, w.at()).await.expect("delete");
    assert_eq!(w.push(child).await, Pushed::SameId);
}
