//! What must be true of a push: ids, and the holders of unique keys.

use windlass_core::{Due, JobId, NewJob, OnConflict, Priority, Pushed, RecordState, Until};

use super::Oracle;
use super::shadow::{Stand, word};

impl Oracle {
    pub(crate) fn pushed(&mut self, client: u32, jobs: &[NewJob], answer: &[Pushed]) {
        let now = self.now();
        for (job, pushed) in jobs.iter().zip(answer) {
            let (id, body) = (job.body.id, &job.body);
            let code = match pushed {
                Pushed::Inserted => 1,
                Pushed::SameId => 2,
                Pushed::Conflict(other) => word(*other) ^ 3,
                Pushed::Superseded(other) => word(*other) ^ 4,
            };
            let known = self.jobs.contains_key(&id);
            let taken_in = matches!(pushed, Pushed::Inserted | Pushed::Superseded(_));
            if taken_in && !known {
                self.insert(body, job.due.resolve(now));
            }
            self.note(&[1, client.into(), word(id), code], || {
                format!("client {client} pushes {}: {pushed:?}", described(job))
            });
            match pushed {
                Pushed::SameId => self.expect(known, "S4", || format!("{id} counts as stored, and is not")),
                Pushed::Conflict(holder) => self.conflict(job, *holder),
                Pushed::Inserted | Pushed::Superseded(_) => {
                    self.expect(!known, "S4", || format!("{id} was taken in twice"));
                    self.key_was_free(job, pushed);
                }
            }
            if let Pushed::Superseded(old) = pushed {
                let record = self.peek(*old);
                let gone = matches!(
                    record.map(|record| record.state),
                    Some(RecordState::Cancelled { superseded_by: Some(by), .. }) if by == id
                );
                self.expect(gone, "S13", || {
                    format!("{old} was superseded by {id}, and is not cancelled for it")
                });
                self.look(*old);
            }
            self.look(id);
        }
        self.step_taken();
    }

    /// L5: who is named as the holder of a key holds it.
    pub(super) fn conflict(&mut self, job: &NewJob, holder: JobId) {
        let now = self.now();
        self.look(holder);
        let Some(unique) = job.body.unique() else {
            return self.broken("S13", || format!("{} has no key, and conflicts", job.body.job()));
        };
        let holds = self.jobs.get(&holder).is_some_and(|shadow| {
            let live = !matches!(shadow.stand, Stand::Ended(..));
            let same = shadow.body.unique().is_some_and(|other| other.key == unique.key);
            let window = match unique.until {
                Until::Window(window) => shadow.created.saturating_add(window) > now,
                _ => false,
            };
            same && (live || window)
        });
        self.expect(holds, "L5", || {
            format!(
                "{} is refused for {holder}, which does not hold the key {:?}",
                job.body.job(),
                unique.key
            )
        });
    }

    /// S13: a job that is taken in as the holder of a key finds it free.
    pub(super) fn key_was_free(&mut self, job: &NewJob, pushed: &Pushed) {
        let now = self.now();
        let Some(unique) = job.body.unique() else { return };
        let key = (job.body.queue.clone(), unique.key.clone());
        let rivals = self.by_key.get(&key).cloned().unwrap_or_default();
        for rival in rivals.into_iter().filter(|rival| *rival != job.body.id) {
            self.look(rival);
            let Some(shadow) = self.jobs.get(&rival) else { continue };
            let live = !matches!(shadow.stand, Stand::Ended(..));
            let runs = matches!(shadow.stand, Stand::Running(_));
            let holds = match unique.until {
                Until::End => live && !(unique.on_conflict == OnConflict::QueueOne && runs),
                Until::Start => live && shadow.epoch == 0,
                Until::Window(window) => {
                    shadow.created.saturating_add(window) > now && *pushed == Pushed::Inserted
                }
            };
            // Holders that waited behind another are looked at with all the rest.
            let behind = unique.on_conflict == OnConflict::QueueOne;
            if holds && !behind {
                return self.broken("S13", || format!("{} was taken in beside {rival}", job.body.job()));
            }
        }
    }
}

/// A job, for people.
fn described(job: &NewJob) -> String {
    let body = &job.body;
    let mut text = format!("{} {} {}", body.job(), body.kind, String::from_utf8_lossy(&body.payload));
    let mut add = |what: String| {
        text.push_str(", ");
        text.push_str(&what);
    };
    if body.min_reader > 1 {
        add(format!("from version {} on", body.min_reader));
    }
    if body.priority != Priority::NORMAL {
        add(format!("priority {}", body.priority.get()));
    }
    if job.due != Due::Now {
        add(format!("due {:?}", job.due));
    }
    if let Some(limit) = body.timeout.get() {
        add(format!("timeout {limit:?}"));
    }
    if let Some(deadline) = body.extras.as_ref().and_then(|extras| extras.deadline) {
        add(format!("deadline {deadline:?}"));
    }
    if let Some(unique) = body.unique() {
        add(format!("key {:?} ({:?}, {:?})", unique.key, unique.on_conflict, unique.until));
    }
    if let Some(limit) = body.limit() {
        add(format!("{:?} at most {}", limit.key, limit.at_most));
    }
    for parent in body.parents() {
        add(format!("after {parent}"));
    }
    text
}
