//! Retention: how long finished jobs are kept, and that nothing else is ever forgotten.

use windlass_core::{
    Backend, Finished, Keep, Pushed, Retention, Ruling, Settled, StateKind, Sweep, Timestamp,
};

use crate::{Env, World, bury, call_off, complete, draft, secs};

fn ends() -> [(Ruling, StateKind); 3] {
    [(complete(), StateKind::Completed), (call_off(), StateKind::Cancelled), (bury(), StateKind::Dead)]
}

pub async fn each_end_is_kept_for_its_age<E: Env>(w: &mut World<E>) {
    let keep = |age| Keep::new(100, secs(age));
    w.use_retention(Retention { completed: keep(10), cancelled: keep(20), dead: keep(30) }).await;
    let mut jobs = Vec::new();
    for (ruling, _) in ends() {
        jobs.push(w.put(draft()).await);
        w.apply(&w.take().await.lease, ruling).await;
    }
    let start = w.now;
    for (at, job) in jobs.iter().enumerate() {
        let age = [10, 20, 30][at];
        w.now = Timestamp::from_millis(start.saturating_add(secs(age)).as_millis() - 1);
        assert_eq!(w.sweep().await.pruned, 0, "not before its age");
        assert!(w.find(job).await.is_some());
        w.now = start.saturating_add(secs(age)).saturating_add(std::time::Duration::from_millis(1));
        assert_eq!(w.sweep().await.pruned, 1);
        assert!(w.find(job).await.is_none());
    }
}

pub async fn no_more_than_the_count_is_kept_and_the_newest_stay<E: Env>(w: &mut World<E>) {
    for (ruling, state) in ends() {
        let few = Keep::new(3, secs(100_000));
        w.use_retention(Retention { completed: few, cancelled: few, dead: few }).await;
        let mut jobs = Vec::new();
        for _ in 0..6 {
            jobs.push(w.put(draft()).await);
            w.apply(&w.take().await.lease, ruling.clone()).await;
            w.advance(secs(1));
        }
        while w.sweep().await.more {}
        let kept: Vec<_> = w.everything().await.iter().map(|record| record.body.job()).collect();
        assert_eq!(kept, jobs[3..], "{state:?}");
    }
}

pub async fn the_count_holds_for_each_queue<E: Env>(w: &mut World<E>) {
    let one = Keep::new(1, secs(100_000));
    w.use_retention(Retention { completed: one, cancelled: one, dead: one }).await;
    let mut both = w.ask(10);
    both.queues.push(windlass_core::QueueName::from_static("other"));
    w.put(draft()).await;
    w.put(draft().queue("other")).await;
    for run in w.claim_as(&both).await.jobs {
        w.apply(&run.lease, complete()).await;
    }
    w.sweep().await;
    assert_eq!(w.everything().await.len(), 2);
}

pub async fn keep_nothing_forgets_at_once_and_frees_the_id<E: Env>(w: &mut World<E>) {
    let nothing = Keep::NOTHING;
    w.use_retention(Retention { completed: nothing, cancelled: nothing, dead: nothing }).await;
    for (ruling, state) in ends() {
        let job = w.put(draft()).await;
        let run = w.take().await;
        assert_eq!(w.apply(&run.lease, ruling.clone()).await, state);
        assert!(w.find(&job).await.is_none(), "{state:?}");
        assert_eq!(w.settle(&run.lease, ruling).await, Settled::LeaseLost);
        let outcomes = w.backend().outcomes(std::slice::from_ref(&job), secs(0), w.at()).await;
        assert_eq!(outcomes.expect("outcomes"), [Some(Finished::Missing)]);
        assert_eq!(w.push(draft().id(job.id)).await, Pushed::Inserted, "its id runs again");
        w.apply(&w.take().await.lease, complete()).await;
    }
    assert_eq!(w.everything().await, []);
}

pub async fn a_kept_job_absorbs_its_id_until_it_is_forgotten<E: Env>(w: &mut World<E>) {
    let mut retention = Retention::default();
    retention.completed.age = secs(60);
    w.use_retention(retention).await;
    let job = draft();
    w.put(job.clone()).await;
    w.apply(&w.take().await.lease, complete()).await;
    w.advance(secs(59));
    w.sweep().await;
    assert_eq!(w.push(job.clone()).await, Pushed::SameId);
    w.advance(secs(2));
    w.sweep().await;
    assert_eq!(w.push(job).await, Pushed::Inserted);
}

pub async fn live_jobs_are_never_forgotten<E: Env>(w: &mut World<E>) {
    let nothing = Keep::NOTHING;
    w.use_retention(Retention { completed: nothing, cancelled: nothing, dead: nothing }).await;
    let running = w.put(draft()).await;
    let mut ask = w.ask(1);
    ask.lease = windlass_core::limits::LEASE_MAX;
    w.claim_as(&ask).await;
    let year = secs(365 * 24 * 60 * 60);
    let jobs = [
        running,
        w.put(draft().kind("unknown")).await,
        w.put(draft().after(year * 2)).await,
        w.put(draft().kind("unknown").limit("one", 1)).await,
        w.put(draft().limit("one", 1)).await,
    ];
    w.advance(year);
    let swept = w.sweep().await;
    assert_eq!((swept.pruned, swept.reclaimed), (0, 1));
    for job in jobs {
        assert!(w.find(&job).await.is_some(), "{job}");
    }
}

pub async fn the_age_counts_from_the_end<E: Env>(w: &mut World<E>) {
    let mut retention = Retention::default();
    retention.completed.age = secs(60);
    w.use_retention(retention).await;
    let job = w.put(draft()).await;
    w.advance(secs(1_000));
    w.apply(&w.take().await.lease, complete()).await;
    w.advance(secs(59));
    assert_eq!(w.sweep().await.pruned, 0);
    assert!(w.find(&job).await.is_some());
}

pub async fn a_sweep_forgets_a_bounded_number<E: Env>(w: &mut World<E>) {
    let mut retention = Retention::default();
    retention.completed.age = secs(60);
    w.use_retention(retention).await;
    for _ in 0..5 {
        w.put(draft()).await;
        w.apply(&w.take().await.lease, complete()).await;
    }
    w.advance(secs(61));
    for wanted in [2, 2, 1] {
        let swept = w.backend().sweep(&Sweep { limit: 2 }, w.at()).await.expect("sweep");
        assert_eq!(swept.pruned, wanted);
        assert!(wanted < 2 || swept.more, "it stopped at its limit");
    }
    assert_eq!(w.everything().await, []);
}
