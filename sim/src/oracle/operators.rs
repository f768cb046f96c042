//! What must be true of what operators do.

use windlass_core::{Cancelling, Error, ErrorKind, JobRef, QueueName, StateKind};

use super::Oracle;
use super::shadow::{Stand, ended_at, word};

impl Oracle {
    pub(crate) fn cancelled(&mut self, client: u32, job: &JobRef, answer: Cancelling) {
        let now = self.now();
        self.note(&[10, client.into(), word(job.id), matches!(answer, Cancelling::Cancelled).into()], || {
            format!("an operator cancels {job}: {answer:?}")
        });
        self.touched(job.id);
        if matches!(answer, Cancelling::Cancelled | Cancelling::Requested)
            && let Some(shadow) = self.shadow(job.id)
        {
            shadow.called_off = true;
        }
        let Some(stand) = self.jobs.get(&job.id).map(|shadow| shadow.stand.clone()) else {
            return self
                .expect(answer == Cancelling::Missing, "S18", || format!("{job} is none, and {answer:?}"));
        };
        let ended = self.engine.peek(job).and_then(|record| ended_at(&record.state));
        match answer {
            Cancelling::Cancelled => {
                let right = stand == Stand::Waiting && ended == Some(now);
                self.expect(right, "S18", || format!("{job} counts as cancelled, and was {stand:?}"));
                self.stand(job.id, Stand::Ended(StateKind::Cancelled, now));
            }
            Cancelling::Requested => {
                let runs = matches!(stand, Stand::Running(_));
                self.expect(runs, "S18", || {
                    format!("{job} does not run, and its cancellation was asked for")
                });
                if let Some(shadow) = self.shadow(job.id) {
                    shadow.cancel = true;
                }
            }
            Cancelling::AlreadyEnded(kind) => {
                self.look(job.id);
                let stand = self.jobs.get(&job.id).map(|shadow| shadow.stand.clone());
                let right = matches!(stand, Some(Stand::Ended(is, _)) if is == kind);
                self.expect(right, "S8", || format!("{job} counts as {}, and is {stand:?}", kind.as_str()));
            }
            Cancelling::Missing => self.broken("S1", || format!("{job} was stored and is gone")),
        }
        self.look(job.id);
        self.step_taken();
    }

    pub(crate) fn revived(&mut self, client: u32, job: &JobRef, error: Option<&Error>) {
        let now = self.now();
        self.note(&[11, client.into(), word(job.id), error.is_none().into()], || {
            format!("an operator revives {job}: {}", error.map_or("done".to_owned(), ToString::to_string))
        });
        self.touched(job.id);
        let Some(shadow) = self.shadow(job.id) else { return };
        match error {
            None => {
                let dead = matches!(shadow.stand, Stand::Ended(StateKind::Dead, _));
                shadow.generation += 1;
                (shadow.attempts, shadow.lost, shadow.suspect, shadow.cancel) = (0, 0, false, false);
                shadow.due = now;
                self.stand(job.id, Stand::Waiting);
                self.expect(dead, "S8", || format!("{job} was revived, and was not dead"));
            }
            Some(error) => {
                let dead = matches!(shadow.stand, Stand::Ended(StateKind::Dead, _));
                let right = !dead || error.kind() == ErrorKind::Conflict;
                self.expect(right, "S8", || format!("{job} is dead, and cannot be revived: {error}"));
            }
        }
        self.look(job.id);
        self.step_taken();
    }

    pub(crate) fn runs_now(&mut self, client: u32, job: &JobRef, done: bool) {
        let now = self.now();
        self.note(&[12, client.into(), word(job.id), done.into()], || {
            format!("an operator wants {job} now: {}", if done { "done" } else { "it is not scheduled" })
        });
        self.touched(job.id);
        if done && let Some(shadow) = self.shadow(job.id) {
            shadow.due = now;
        }
        self.look(job.id);
        self.step_taken();
    }

    pub(crate) fn paused(&mut self, client: u32, queue: &QueueName, paused: bool) {
        self.note(&[13, client.into(), paused.into()], || {
            format!("an operator {} {queue}", if paused { "pauses" } else { "resumes" })
        });
        if paused {
            self.paused.insert(queue.clone());
        } else {
            self.paused.remove(queue);
        }
        self.step_taken();
    }
}
