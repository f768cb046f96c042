//! Annotate: progress and log lines of running jobs.

use windlass_core::{Backend, Lease, LogLine, Note, Progress};

use crate::{Env, World, complete, draft, retry, secs};

fn note(lease: &Lease, percent: Option<u8>, lines: &[&str]) -> Note {
    let mut note = Note::new(lease.clone());
    note.progress = percent.map(|percent| Progress::new(percent, "sending"));
    for line in lines {
        note.push_line(line);
    }
    note
}

async fn annotate<E: Env>(w: &World<E>, notes: &[Note]) -> Vec<bool> {
    w.backend().annotate(notes, w.at()).await.expect("annotate")
}

pub async fn progress_and_lines_are_recorded_with_their_time<E: Env>(w: &mut World<E>) {
    let job = w.put(draft()).await;
    let run = w.take().await;
    let start = w.now;
    assert_eq!(annotate(w, &[note(&run.lease, Some(10), &["one", "two"])]).await, [true]);
    w.advance(secs(1));
    assert_eq!(annotate(w, &[note(&run.lease, None, &["three"])]).await, [true]);
    let record = w.record(&job).await;
    assert_eq!(record.progress, Some(Progress::new(10, "sending")), "it is left as it is");
    let line = |at, text: &str| LogLine { at, text: text.into() };
    assert_eq!(record.log, [line(start, "one"), line(start, "two"), line(w.now, "three")]);
    annotate(w, &[note(&run.lease, Some(90), &[])]).await;
    w.apply(&run.lease, complete()).await;
    let after = w.record(&job).await;
    assert_eq!((after.progress, after.log), (Some(Progress::new(90, "sending")), record.log));
}

pub async fn the_last_hundred_lines_are_kept<E: Env>(w: &mut World<E>) {
    let job = w.put(draft()).await;
    let run = w.take().await;
    let lines: Vec<String> = (0..250).map(|at| format!("line {at} ❄")).collect();
    for part in lines.chunks(60) {
        let part: Vec<&str> = part.iter().map(String::as_str).collect();
        annotate(w, &[note(&run.lease, None, &part)]).await;
    }
    let log: Vec<_> = w.record(&job).await.log.into_iter().map(|line| line.text.to_string()).collect();
    assert_eq!(log, lines[150..]);
    let many: Vec<&str> = lines.iter().map(String::as_str).collect();
    annotate(w, &[note(&run.lease, None, &many)]).await;
    assert_eq!(w.record(&job).await.log.len(), 100);
}

pub async fn notes_are_answered_in_their_order<E: Env>(w: &mut World<E>) {
    w.put(draft()).await;
    w.put(draft()).await;
    let runs = w.claim(2).await;
    w.apply(&runs[0].lease, complete()).await;
    let notes = [note(&runs[0].lease, Some(1), &["late"]), note(&runs[1].lease, Some(2), &["fine"])];
    assert_eq!(annotate(w, &notes).await, [false, true]);
    let record = w.record(&runs[0].lease.job).await;
    assert_eq!((record.progress, record.log), (None, vec![]));
    assert_eq!(annotate(w, &[]).await, []);
}

pub async fn two_notes_on_one_job_add_up<E: Env>(w: &mut World<E>) {
    let job = w.put(draft()).await;
    let run = w.take().await;
    let notes = [note(&run.lease, Some(1), &["a"]), note(&run.lease, Some(2), &["b"])];
    assert_eq!(annotate(w, &notes).await, [true, true]);
    let record = w.record(&job).await;
    assert_eq!(record.progress.map(|progress| progress.percent), Some(2));
    assert_eq!(record.log.len(), 2);
}

pub async fn a_note_does_not_extend_the_lease<E: Env>(w: &mut World<E>) {
    w.put(draft()).await;
    let run = w.take().await;
    w.advance(crate::LEASE);
    assert_eq!(annotate(w, &[note(&run.lease, Some(1), &[])]).await, [true], "it still stands");
    assert_eq!(w.sweep().await.reclaimed, 1);
    assert_eq!(annotate(w, &[note(&run.lease, Some(2), &[])]).await, [false]);
}

pub async fn the_log_goes_on_over_attempts<E: Env>(w: &mut World<E>) {
    let job = w.put(draft()).await;
    for round in ["first", "second"] {
        let run = w.take().await;
        annotate(w, &[note(&run.lease, None, &[round])]).await;
        w.apply(&run.lease, retry(secs(0))).await;
    }
    let log: Vec<_> = w.record(&job).await.log.into_iter().map(|line| line.text).collect();
    assert_eq!(log, ["first".into(), "second".into()]);
}
