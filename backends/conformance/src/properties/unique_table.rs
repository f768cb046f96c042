//! The whole table of conflicts: what the pushed job asks for, against where the holder stands and until when it
//! holds the key.

use windlass_core::{JobId, Manage, OnConflict, Pushed, StateKind, Until};

use crate::{Env, World, bury, call_off, complete, draft, secs};

/// Where the holder stands when the second job comes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Holder {
    Blocked,
    Scheduled,
    Ready,
    Running,
    Completed,
    Cancelled,
    Dead,
}

const STATES: [(Holder, StateKind); 7] = [
    (Holder::Blocked, StateKind::Blocked),
    (Holder::Scheduled, StateKind::Scheduled),
    (Holder::Ready, StateKind::Ready),
    (Holder::Running, StateKind::Running),
    (Holder::Completed, StateKind::Completed),
    (Holder::Cancelled, StateKind::Cancelled),
    (Holder::Dead, StateKind::Dead),
];

/// What the table says of a second job.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Wanted {
    Inserted,
    Conflict,
    Superseded,
    Behind,
}

fn wanted(holder: StateKind, until: Until, on_conflict: OnConflict) -> Wanted {
    let held = match until {
        Until::End => !holder.is_final(),
        Until::Start => holder.is_waiting(),
        Until::Window(_) => true,
    };
    match on_conflict {
        _ if !held => Wanted::Inserted,
        OnConflict::Supersede if holder.is_waiting() => Wanted::Superseded,
        OnConflict::QueueOne if holder == StateKind::Running => Wanted::Behind,
        _ => Wanted::Conflict,
    }
}

async fn cell<E: Env>(w: &World<E>, at: Holder, state: StateKind, until: Until, on_conflict: OnConflict) {
    let key = format!("{at:?} {until:?} {on_conflict:?}");
    let mut holder = draft().priority(9).unique(&key, OnConflict::Skip, until);
    match at {
        Holder::Blocked => {
            w.put(draft().kind("unknown").limit(&key, 1)).await;
            holder = holder.limit(&key, 1);
        }
        Holder::Scheduled => holder = holder.after(secs(600)),
        _ => {}
    }
    let job = w.put(holder).await;
    match at {
        Holder::Blocked | Holder::Scheduled | Holder::Ready => {}
        Holder::Running => drop(w.take().await),
        Holder::Completed => {
            w.apply(&w.take().await.lease, complete()).await;
        }
        Holder::Cancelled if until == Until::Start => {
            w.backend().cancel(&job, "no longer", w.at()).await.expect("cancel");
        }
        Holder::Cancelled => {
            w.apply(&w.take().await.lease, call_off()).await;
        }
        Holder::Dead => {
            w.apply(&w.take().await.lease, bury()).await;
        }
    }
    w.expect(&job, state).await;
    let second = draft().unique(&key, on_conflict, Until::End);
    let pushed = w.push(second.clone()).await;
    let stored: Option<(JobId, StateKind)> =
        w.find(&second.job()).await.map(|record| (record.body.id, record.state.kind()));
    let id = second.job().id;
    let (answer, found) = match wanted(state, until, on_conflict) {
        Wanted::Inserted => (Pushed::Inserted, Some((id, StateKind::Ready))),
        Wanted::Behind => (Pushed::Inserted, Some((id, StateKind::Blocked))),
        Wanted::Superseded => (Pushed::Superseded(job.id), Some((id, StateKind::Ready))),
        Wanted::Conflict => (Pushed::Conflict(job.id), None),
    };
    assert_eq!((pushed, stored), (answer, found), "{key}");
    let left = if matches!(pushed, Pushed::Superseded(_)) { StateKind::Cancelled } else { state };
    assert_eq!(w.state(&job).await, left, "the holder of {key}");
    // Out of the way of the next cell.
    for job in [job, second.job()] {
        w.backend().cancel(&job, "done with", w.at()).await.expect("cancel");
    }
}

async fn row<E: Env>(w: &World<E>, on_conflict: OnConflict) {
    for until in [Until::End, Until::Start, Until::Window(secs(3_600))] {
        for (at, state) in STATES {
            cell(w, at, state, until, on_conflict).await;
        }
    }
}

pub async fn skip_conflicts_with_whoever_holds_the_key<E: Env>(w: &mut World<E>) {
    row(w, OnConflict::Skip).await;
}

pub async fn supersede_replaces_a_waiting_holder_only<E: Env>(w: &mut World<E>) {
    row(w, OnConflict::Supersede).await;
}

pub async fn queue_one_waits_behind_a_running_holder_only<E: Env>(w: &mut World<E>) {
    row(w, OnConflict::QueueOne).await;
}
