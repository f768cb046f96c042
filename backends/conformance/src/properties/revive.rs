//! Revive, run now, delete: what an operator does by hand, and what is refused.

use windlass_core::{
    Backend, ErrorKind, JobRef, Manage, OnConflict, Pushed, Record, RecordState, Result, StateKind, Until,
};

use crate::{Env, World, bury, call_off, complete, draft, ids, retry, secs};

async fn dead<E: Env>(w: &World<E>, job: crate::Draft) -> JobRef {
    let job = w.put(job.priority(9)).await;
    let run = w.take().await;
    assert_eq!(w.apply(&run.lease, bury()).await, StateKind::Dead);
    job
}

fn refused(result: Result<()>, kind: ErrorKind) {
    let error = result.expect_err("should be refused");
    assert_eq!(error.kind(), kind, "{error}");
    assert_eq!(error.effect(), windlass_core::Effect::NotApplied);
}

/// One job in each state, by name.
async fn one_of_each<E: Env>(w: &World<E>) -> Vec<Record> {
    dead(w, draft()).await;
    w.put(draft().priority(9)).await;
    w.apply(&w.take().await.lease, complete()).await;
    w.put(draft().priority(9)).await;
    w.apply(&w.take().await.lease, call_off()).await;
    w.put(draft().limit("one", 1)).await;
    w.take().await;
    w.put(draft().limit("one", 1)).await;
    w.put(draft().after(secs(600))).await;
    w.put(draft()).await;
    let records = w.everything().await;
    let mut states: Vec<_> = records.iter().map(|record| record.state.kind()).collect();
    states.sort_unstable();
    assert_eq!(states, StateKind::ALL);
    records
}

pub async fn a_dead_job_is_revived_as_a_new_generation<E: Env>(w: &mut World<E>) {
    let job = w.put(draft()).await;
    w.take().await;
    w.lose_leases().await;
    w.apply(&w.take().await.lease, retry(secs(1))).await;
    w.advance(secs(1));
    w.apply(&w.take().await.lease, bury()).await;
    let record = w.record(&job).await;
    assert_eq!((record.attempts, record.lost_leases, record.generation, record.epoch), (2, 1, 0, 3));
    w.backend().revive(&job, w.at()).await.expect("revive");
    let record = w.record(&job).await;
    assert_eq!(record.state, RecordState::Ready { parked: false });
    assert_eq!((record.attempts, record.lost_leases, record.generation, record.epoch), (0, 0, 1, 3));
    let run = w.take().await;
    assert_eq!((run.generation, run.lease.epoch, run.attempts, run.suspect), (1, 4, 0, false));
    w.apply(&run.lease, bury()).await;
    w.backend().revive(&job, w.at()).await.expect("revive");
    assert_eq!(w.take().await.generation, 2);
}

pub async fn a_revived_job_enters_at_the_end_of_the_line<E: Env>(w: &mut World<E>) {
    let job = w.put(draft()).await;
    w.apply(&w.take().await.lease, bury()).await;
    let other = w.put(draft()).await;
    w.backend().revive(&job, w.at()).await.expect("revive");
    assert_eq!(ids(&w.claim(10).await), [other.id, job.id]);
}

pub async fn only_a_dead_job_is_revived<E: Env>(w: &mut World<E>) {
    for record in one_of_each(w).await {
        if record.state.kind() != StateKind::Dead {
            let job = record.body.job();
            refused(w.backend().revive(&job, w.at()).await, ErrorKind::WrongState);
            assert_eq!(w.record(&job).await, record);
        }
    }
    refused(w.backend().revive(&draft().job(), w.at()).await, ErrorKind::NotFound);
}

pub async fn only_a_scheduled_job_is_made_due<E: Env>(w: &mut World<E>) {
    for record in one_of_each(w).await {
        if record.state.kind() != StateKind::Scheduled {
            let job = record.body.job();
            refused(w.backend().run_now(&job, w.at()).await, ErrorKind::WrongState);
            assert_eq!(w.record(&job).await, record);
        }
    }
    refused(w.backend().run_now(&draft().job(), w.at()).await, ErrorKind::NotFound);
}

pub async fn only_a_finished_job_is_deleted<E: Env>(w: &mut World<E>) {
    for record in one_of_each(w).await {
        let job = record.body.job();
        if record.state.kind().is_final() {
            w.backend().delete(&job, w.at()).await.expect("delete");
            assert!(w.find(&job).await.is_none());
            refused(w.backend().delete(&job, w.at()).await, ErrorKind::NotFound);
        } else {
            refused(w.backend().delete(&job, w.at()).await, ErrorKind::WrongState);
            assert_eq!(w.record(&job).await, record);
        }
    }
    assert_eq!(w.everything().await.len(), 4);
}

pub async fn a_revived_job_takes_its_key_again<E: Env>(w: &mut World<E>) {
    let keyed = || draft().unique("k", OnConflict::Skip, Until::End);
    let job = dead(w, keyed()).await;
    w.backend().revive(&job, w.at()).await.expect("revive");
    assert_eq!(w.push(keyed()).await, Pushed::Conflict(job.id));
    w.apply(&w.take().await.lease, complete()).await;
    w.put(keyed()).await;
}

pub async fn a_revival_whose_key_is_held_is_refused<E: Env>(w: &mut World<E>) {
    let keyed = || draft().unique("k", OnConflict::Skip, Until::End);
    let job = dead(w, keyed()).await;
    let holder = w.put(keyed()).await;
    let before = w.record(&job).await;
    refused(w.backend().revive(&job, w.at()).await, ErrorKind::Conflict);
    assert_eq!(w.record(&job).await, before);
    w.backend().cancel(&holder, "no longer", w.at()).await.expect("cancel");
    w.backend().revive(&job, w.at()).await.expect("revive");
}

pub async fn a_revival_does_not_lengthen_its_window<E: Env>(w: &mut World<E>) {
    let keyed = || draft().unique("k", OnConflict::Skip, Until::Window(secs(10)));
    let job = dead(w, keyed()).await;
    w.advance(secs(5));
    w.backend().revive(&job, w.at()).await.expect("revive");
    assert_eq!(w.push(keyed()).await, Pushed::Conflict(job.id));
    w.advance(secs(5));
    w.put(keyed()).await;
}

pub async fn run_now_makes_a_scheduled_job_due<E: Env>(w: &mut World<E>) {
    let delayed = w.put(draft().after(secs(600))).await;
    let other = w.put(draft()).await;
    w.backend().run_now(&delayed, w.at()).await.expect("run now");
    w.expect(&delayed, StateKind::Ready).await;
    assert_eq!(ids(&w.claim(10).await), [other.id, delayed.id]);
}

pub async fn run_now_cuts_a_back_off_short<E: Env>(w: &mut World<E>) {
    let job = w.put(draft()).await;
    w.apply(&w.take().await.lease, retry(secs(600))).await;
    w.backend().run_now(&job, w.at()).await.expect("run now");
    let run = w.take().await;
    assert_eq!((run.body.id, run.attempts), (job.id, 1));
    w.apply(&run.lease, complete()).await;
    w.advance(secs(600));
    assert_eq!(w.sweep().await.promoted, 0, "the old due time is gone");
}

pub async fn a_deleted_id_can_be_pushed_again<E: Env>(w: &mut World<E>) {
    let job = w.put(draft().unique("k", OnConflict::Skip, Until::End)).await;
    w.apply(&w.take().await.lease, complete()).await;
    w.backend().delete(&job, w.at()).await.expect("delete");
    w.put(draft().id(job.id)).await;
    let run = w.take().await;
    assert_eq!((run.body.id, run.attempts, run.generation), (job.id, 0, 0));
    let outcomes = w.backend().outcomes(&[job], secs(0), w.at()).await.expect("outcomes");
    assert_eq!(outcomes, [None]);
}
