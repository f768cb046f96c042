//! What a worker has in hand: jobs not started yet, running ones, and verdicts not settled yet.
//!
//! One lock, taken once per job by a runner (its verdict in, its next job out) and once per round by the drive. A job is
//! in exactly one of the three places from its claim until its verdict is applied, so a beat can name every lease.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use windlass_core::{Held, JobId, Kept, Lease, Verdict};

use super::pace::Pace;
use super::report::Report;
use crate::context::{Control, Stop};
use crate::envelope::{Envelope, Raw, Running};
use crate::executor::{Finished, Ran};

/// A job in hand.
pub(crate) struct Claimed {
    pub(crate) envelope: Envelope<Raw, Running>,
    /// When this side stops believing in the lease: counted from before the claim was sent, so it is never later than the
    /// engine's end of it.
    pub(crate) fenced_at: Instant,
}

/// A running job, as the beat sees it.
struct Run {
    lease: Lease,
    control: Arc<Control>,
    fenced_at: Instant,
    suspect: bool,
}

/// Verdicts on their way, and what each run came to.
#[derive(Clone, Default)]
pub(crate) struct Ruled {
    pub(crate) verdicts: Vec<Verdict>,
    pub(crate) ran: Vec<Ran>,
}

impl Ruled {
    pub(crate) fn push(&mut self, verdict: Verdict, ran: Ran) {
        self.verdicts.push(verdict);
        self.ran.push(ran);
    }

    /// Their leases. What is handed back without having been started counts no lost lease, should this side die first.
    fn held(&self) -> impl Iterator<Item = Held> {
        let ruled = self.verdicts.iter().zip(&self.ran);
        ruled.map(|(verdict, ran)| Held { lease: verdict.lease.clone(), started: *ran != Ran::HandedBack })
    }

    /// Splits off the first `count` at most.
    fn take(&mut self, count: usize) -> Self {
        if count >= self.verdicts.len() {
            return std::mem::take(self);
        }
        let rest = Self { verdicts: self.verdicts.split_off(count), ran: self.ran.split_off(count) };
        std::mem::replace(self, rest)
    }

    /// Puts others before these.
    fn prepend(&mut self, mut others: Self) {
        others.verdicts.append(&mut self.verdicts);
        others.ran.append(&mut self.ran);
        *self = others;
    }
}

/// Verdicts that are worth a call of their own while the runners have enough to do.
pub(crate) const FLUSH_AT: usize = 128;

/// What the drive sees when it looks.
pub(crate) struct Look {
    /// Whether a call is due: to settle, or another beside the one under way.
    pub(crate) due: bool,
    /// Whether any verdict waits to be settled.
    pub(crate) pending: bool,
}

#[derive(Default)]
pub(crate) struct Hand {
    waiting: VecDeque<Claimed>,
    running: Vec<Option<Run>>,
    free_places: Vec<usize>,
    ruled: Ruled,
    /// Verdicts of each call that is under way, in the order of the calls.
    settling: Vec<Arc<Ruled>>,
    /// See [`FLUSH_AT`].
    flush_at: usize,
    /// Whether a second call may be under way.
    pipelined: bool,
    /// Whether the drive was told to look, and has not done so yet.
    told: bool,
    runners: usize,
    /// At this many waiting jobs the drive wants to be woken, to fetch more.
    low_water: usize,
    /// Suspects waiting or running.
    suspects: usize,
    pub(crate) pace: Pace,
    pub(crate) report: Report,
}

/// A job given to a runner, and where its run is noted.
pub(crate) struct Given {
    pub(crate) envelope: Envelope<Raw, Running>,
    pub(crate) control: Arc<Control>,
    pub(crate) place: usize,
}

impl Hand {
    pub(crate) fn new(flush_at: usize, pipelined: bool) -> Self {
        Self { flush_at, pipelined, ..Self::default() }
    }

    /// Takes claimed jobs in, and says how many runners to start for them.
    pub(crate) fn take_in(&mut self, jobs: impl IntoIterator<Item = Claimed>, concurrency: usize) -> usize {
        for job in jobs {
            self.suspects += usize::from(job.envelope.state().suspect);
            self.waiting.push_back(job);
        }
        let idle = concurrency.saturating_sub(self.runners);
        let start = self.waiting.len().min(idle);
        self.runners += start;
        start
    }

    /// The next job for a runner whose lease lasts beyond `until`; `None` retires the runner. One that was so long under
    /// way that its lease is over is handed back: if the engine still knows the lease, that is quicker than to let it end.
    pub(crate) fn next(&mut self, until: Instant) -> Option<Given> {
        let Claimed { envelope, fenced_at } = loop {
            let Some(job) = self.waiting.pop_front() else {
                self.runners -= 1;
                return None;
            };
            if job.fenced_at > until {
                break job;
            }
            self.release(job);
        };
        let control = Arc::new(Control::default());
        let run = Run {
            lease: envelope.state().lease().clone(),
            control: Arc::clone(&control),
            fenced_at,
            suspect: envelope.state().suspect,
        };
        let place = match self.free_places.pop() {
            Some(place) => {
                self.running[place] = Some(run);
                place
            }
            None => {
                self.running.push(Some(run));
                self.running.len() - 1
            }
        };
        self.report.started += 1;
        Some(Given { envelope, control, place })
    }

    /// Notes the end of a run. Returns whether to tell the drive: nothing else to do here, or enough to settle. It is told once,
    /// until it looks.
    pub(crate) fn finished(&mut self, place: usize, finished: Finished, took: Duration) -> bool {
        if self.running[place].take().is_some_and(|run| run.suspect) {
            self.suspects -= 1;
        }
        self.free_places.push(place);
        self.pace.job_took(took);
        self.report.count_run(&finished);
        if let Some(verdict) = finished.verdict {
            self.ruled.push(verdict, finished.ran);
        }
        let enough = self.ruled.verdicts.len() >= self.flush_at;
        let due = if self.settling.is_empty() {
            enough || self.waiting.len() <= self.low_water
        } else {
            self.another_is_due()
        };
        due && !std::mem::replace(&mut self.told, true)
    }

    /// The drive looks whether a call is due. While jobs wait here the runners are busy, and a few more verdicts will come.
    pub(crate) fn look(&mut self) -> Look {
        self.told = false;
        let pending = self.has_verdicts();
        let due = if self.settling.is_empty() {
            pending && (self.waiting.is_empty() || self.ruled.verdicts.len() >= self.flush_at)
        } else {
            self.another_is_due()
        };
        Look { due, pending }
    }

    /// Whether a call beside the one under way is worth it: all has run, and it was enough. A smaller or an earlier one would
    /// only cost more for each job, while the engine has something to do anyway.
    fn another_is_due(&self) -> bool {
        self.pipelined
            && self.settling.len() == 1
            && self.waiting.is_empty()
            && self.ruled.verdicts.len() >= self.flush_at
    }

    pub(crate) fn set_low_water(&mut self, waiting: usize) {
        self.low_water = waiting;
    }

    /// A runner is gone without having finished its job: only when its runtime shuts down.
    pub(crate) fn in_hand(&self) -> usize {
        self.waiting.len() + self.running() + self.ruled.verdicts.len() + self.settling()
    }

    fn settling(&self) -> usize {
        self.settling.iter().map(|ruled| ruled.verdicts.len()).sum()
    }

    pub(crate) fn running(&self) -> usize {
        self.running.len() - self.free_places.len()
    }

    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Whether any verdict waits to be settled.
    pub(crate) fn has_verdicts(&self) -> bool {
        !self.ruled.verdicts.is_empty()
    }

    /// Whether a suspect is in hand: then no claim asks for another.
    pub(crate) fn has_suspect(&self) -> bool {
        self.suspects > 0
    }

    /// Takes up to `most` verdicts for a call. They stay in hand until [`settle_ended`](Self::settle_ended).
    pub(crate) fn take_verdicts(&mut self, most: usize) -> Arc<Ruled> {
        let ruled = Arc::new(self.ruled.take(most));
        self.settling.push(Arc::clone(&ruled));
        ruled
    }

    /// A call came back.
    pub(crate) fn settle_ended(&mut self, ruled: &Arc<Ruled>) {
        self.settling.retain(|settling| !Arc::ptr_eq(settling, ruled));
    }

    /// Takes verdicts back whose call failed, first in line.
    pub(crate) fn rule_again(&mut self, ruled: Ruled) {
        self.ruled.prepend(ruled);
    }

    /// Takes verdicts back whose calls were given up before their answers came.
    pub(crate) fn settle_again(&mut self) {
        for again in std::mem::take(&mut self.settling).into_iter().rev() {
            self.ruled.prepend(Arc::unwrap_or_clone(again));
        }
    }

    /// Hands back what was not started.
    pub(crate) fn release_waiting(&mut self) {
        for job in std::mem::take(&mut self.waiting) {
            self.release(job);
        }
    }

    /// Tells every run to stop.
    pub(crate) fn stop_all(&self, reason: Stop, grace: Duration) {
        for run in self.running.iter().flatten() {
            run.control.stop(reason, grace);
        }
    }

    /// Every lease in hand, for a beat.
    pub(crate) fn held(&self) -> Vec<Held> {
        let waiting = self
            .waiting
            .iter()
            .map(|job| Held { lease: job.envelope.state().lease().clone(), started: false });
        let running =
            self.running.iter().flatten().map(|run| Held { lease: run.lease.clone(), started: true });
        let ruled = self.ruled.held().chain(self.settling.iter().flat_map(|ruled| ruled.held()));
        waiting.chain(running).chain(ruled).collect()
    }

    /// [`held`](Self::held) with a fault in it, for the simulator: what is on its way to the engine is left out.
    pub(crate) fn held_without_verdicts(&self) -> Vec<Held> {
        let mut held = self.held();
        held.truncate(self.waiting() + self.running());
        held
    }

    /// Takes in the answers to a beat: leases that were kept until `fenced_at`, lost, or wanted back. What waits here and
    /// is wanted back never starts.
    pub(crate) fn heard(&mut self, answers: &[(Held, Kept)], fenced_at: Instant, cancel_grace: Duration) {
        let answers: HashMap<&Lease, Kept> =
            answers.iter().map(|(held, kept)| (&held.lease, *kept)).collect();
        for mut job in std::mem::take(&mut self.waiting) {
            match answers.get(job.envelope.state().lease()) {
                None => self.waiting.push_back(job),
                Some(Kept::Kept) => {
                    job.fenced_at = fenced_at;
                    self.waiting.push_back(job);
                }
                Some(Kept::CancelRequested) => self.release(job),
                Some(Kept::Lost) => self.forget(&job),
            }
        }
        for run in self.running.iter_mut().flatten() {
            match answers.get(&run.lease) {
                None => {}
                Some(Kept::Kept) => run.fenced_at = fenced_at,
                Some(Kept::CancelRequested) => {
                    run.fenced_at = fenced_at;
                    if run.control.order().is_none() {
                        run.control.stop(Stop::Cancelled, cancel_grace);
                    }
                }
                Some(Kept::Lost) => run.control.stop(Stop::LeaseLost, Duration::ZERO),
            }
        }
    }

    /// Stops what this side no longer believes in: `margin` before the end of its lease a run is told, at the end its
    /// future is dropped; what waits is forgotten. Returns when the next lease is in danger.
    pub(crate) fn fence(&mut self, now: Instant, margin: Duration) -> Option<Instant> {
        for job in std::mem::take(&mut self.waiting) {
            if job.fenced_at > now + margin {
                self.waiting.push_back(job);
            } else {
                self.forget(&job);
            }
        }
        let mut next: Option<Instant> = None;
        for run in self.running.iter().flatten() {
            let told_at = run.fenced_at.checked_sub(margin).unwrap_or(now);
            if told_at <= now {
                run.control.stop(Stop::LeaseLost, run.fenced_at.saturating_duration_since(now));
            } else {
                next = Some(next.map_or(told_at, |next| next.min(told_at)));
            }
        }
        next
    }

    /// Drops a job that waited here and whose lease is gone.
    fn forget(&mut self, job: &Claimed) {
        self.suspects -= usize::from(job.envelope.state().suspect);
        self.report.lost += 1;
    }

    /// Hands back a job that waited here.
    fn release(&mut self, job: Claimed) {
        self.suspects -= usize::from(job.envelope.state().suspect);
        self.ruled.push(job.envelope.release(), Ran::HandedBack);
    }

    /// The ids in hand, for a message.
    pub(crate) fn ids(&self) -> Vec<JobId> {
        self.running.iter().flatten().map(|run| run.lease.job.id).collect()
    }
}
