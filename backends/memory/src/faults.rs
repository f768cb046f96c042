//! The fault plan: what a test wants to go wrong next.
//!
//! *Failed* and *reply lost* are different things, and the difference finds bugs: after the first nothing happened,
//! after the second it did and the caller cannot know. The plan knows nothing of an engine; the memory engine asks it
//! before every verb, and so can a wrapper around any other.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use windlass_core::{At, Claim, Claimed, ClaimedJob, Error, ErrorKind, Result, Timestamp};

/// A verb of the contract, for the fault plan.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Verb {
    /// [`Backend::push`](windlass_core::Backend::push).
    Push,
    /// [`Backend::claim`](windlass_core::Backend::claim).
    Claim,
    /// [`Backend::settle`](windlass_core::Backend::settle), also as the first half of `settle_and_claim`.
    Settle,
    /// [`Backend::extend`](windlass_core::Backend::extend).
    Extend,
    /// [`Backend::annotate`](windlass_core::Backend::annotate).
    Annotate,
    /// [`Backend::sweep`](windlass_core::Backend::sweep).
    Sweep,
    /// [`Backend::wait`](windlass_core::Backend::wait).
    Wait,
    /// Everything that inspects or manages.
    Other,
}

impl Verb {
    /// Its name in errors.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Push => "push",
            Self::Claim => "claim",
            Self::Settle => "settle",
            Self::Extend => "extend",
            Self::Annotate => "annotate",
            Self::Sweep => "sweep",
            Self::Wait => "wait",
            Self::Other => "call",
        }
    }
}

/// How a payload is damaged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Corrupt {
    /// Its second half is missing.
    Truncate,
    /// Its first byte is another one.
    Flip,
    /// Nothing is left of it.
    Empty,
}

/// What is to become of one call.
#[derive(Debug)]
pub enum Fate {
    /// It happens, and is answered.
    Pass,
    /// It does not happen, and fails with this.
    Fail(Error),
    /// It happens, and its answer is replaced by this.
    LoseReply(Error),
}

#[derive(Clone, Copy)]
enum Fault {
    Fail,
    LoseReply,
    Delay(Duration),
}

#[derive(Default)]
struct Plan {
    next: HashMap<Verb, VecDeque<Fault>>,
    rates: HashMap<Verb, (f64, f64)>,
    seed: u64,
    dice: u64,
    /// How long the engine cannot be reached, from its next call on.
    disconnect: Option<Duration>,
    disconnected_until: Option<Timestamp>,
    corrupt: VecDeque<Corrupt>,
    duplicate: usize,
    duplicates: Vec<ClaimedJob>,
}

/// A plan of faults, shared by all handles of one engine.
#[derive(Clone, Default)]
pub struct Faults {
    plan: Arc<Mutex<Plan>>,
    /// Whether anything was ever planned: asking costs nothing until then.
    armed: Arc<AtomicBool>,
}

impl Faults {
    /// The next `times` calls of `verb` fail and change nothing.
    pub fn fail_next(&self, verb: Verb, times: usize) {
        self.plan(verb, Fault::Fail, times);
    }

    /// The next `times` calls of `verb` happen, and their answers are lost.
    pub fn lose_next_reply(&self, verb: Verb, times: usize) {
        self.plan(verb, Fault::LoseReply, times);
    }

    /// The next `times` calls of `verb` wait so long first, in tokio's time. A fault planned after it befalls the same call.
    pub fn delay_next(&self, verb: Verb, times: usize, delay: Duration) {
        self.plan(verb, Fault::Delay(delay), times);
    }

    /// From the next call on the engine cannot be reached for so long, by the time its callers give. Nothing happens then.
    pub fn disconnect_for(&self, time: Duration) {
        self.change().disconnect = Some(time);
    }

    /// The next `jobs` jobs that are claimed arrive with a damaged payload. What is stored stays whole.
    pub fn corrupt_next(&self, jobs: usize, how: Corrupt) {
        self.change().corrupt.extend(std::iter::repeat_n(how, jobs));
    }

    /// The next `jobs` jobs that are claimed are delivered once more, by a later claim, under the same lease.
    pub fn duplicate_next_delivery(&self, jobs: usize) {
        self.change().duplicate += jobs;
    }

    /// Each call of `verb` fails with this probability, 0 to 1, and changes nothing.
    pub fn every(&self, verb: Verb, rate: f64) {
        self.change().rates.entry(verb).or_default().0 = rate;
    }

    /// The answer of each call of `verb` is lost with this probability, 0 to 1.
    pub fn lose_every_reply(&self, verb: Verb, rate: f64) {
        self.change().rates.entry(verb).or_default().1 = rate;
    }

    /// Seeds what happens by rate; 0 until then. Errors name the seed.
    pub fn seed(&self, seed: u64) {
        let mut plan = self.lock();
        (plan.seed, plan.dice) = (seed, seed);
    }

    /// Nothing goes wrong any more.
    pub fn clear(&self) {
        let mut plan = self.change();
        let seed = plan.seed;
        *plan = Plan { seed, dice: seed, ..Plan::default() };
    }

    fn plan(&self, verb: Verb, fault: Fault, times: usize) {
        self.change().next.entry(verb).or_default().extend(std::iter::repeat_n(fault, times));
    }

    fn change(&self) -> MutexGuard<'_, Plan> {
        self.armed.store(true, Ordering::Release);
        self.lock()
    }

    fn lock(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_armed(&self) -> bool {
        self.armed.load(Ordering::Acquire)
    }
}

/// For engines and wrappers that follow the plan.
impl Faults {
    /// Waits out the delays that are planned for the next call of `verb`.
    pub async fn lag(&self, verb: Verb) {
        while self.is_armed() {
            let delay = {
                let mut plan = self.lock();
                let next = plan.next.entry(verb).or_default();
                match next.front() {
                    Some(Fault::Delay(delay)) => {
                        let delay = *delay;
                        next.pop_front();
                        delay
                    }
                    _ => return,
                }
            };
            tokio::time::sleep(delay).await;
        }
    }

    /// What is to become of the next call of `verb` on the engine of this name; `at` is the time that its caller gave, for
    /// verbs that have one.
    #[must_use]
    pub fn fate(&self, engine: &'static str, verb: Verb, at: Option<At>) -> Fate {
        if !self.is_armed() {
            return Fate::Pass;
        }
        let failed = |kind, text: String| Error::new(kind, text).during(engine, verb.as_str());
        let lost = |how: &str| {
            failed(ErrorKind::Connection, format!("planned fault: the reply was lost{how}")).effect_unknown()
        };
        let fail = |how: &str| failed(ErrorKind::Unavailable, format!("planned fault: it failed{how}"));
        let mut plan = self.lock();
        if let Some(until) = plan.is_disconnected(at) {
            let text = format!("planned fault: the engine cannot be reached until {until}");
            return Fate::Fail(failed(ErrorKind::Connection, text));
        }
        match plan.next.get_mut(&verb).and_then(VecDeque::pop_front) {
            Some(Fault::Fail) => return Fate::Fail(fail("")),
            Some(Fault::LoseReply) => return Fate::LoseReply(lost("")),
            Some(Fault::Delay(_)) | None => {}
        }
        let Some((fails, loses)) = plan.rates.get(&verb).copied() else { return Fate::Pass };
        let (dice, seed) = (plan.roll(), plan.seed);
        if dice < fails {
            Fate::Fail(fail(&format!(" (by a rate of {fails}, seed {seed})")))
        } else if dice < fails + loses {
            Fate::LoseReply(lost(&format!(" (by a rate of {loses}, seed {seed})")))
        } else {
            Fate::Pass
        }
    }

    /// Damages and repeats claimed jobs as planned.
    pub fn tamper(&self, claim: &Claim, claimed: &mut Claimed) {
        if !self.is_armed() {
            return;
        }
        let mut plan = self.lock();
        let Plan { duplicates, duplicate, corrupt, .. } = &mut *plan;
        let room = claim.limit.saturating_sub(claimed.jobs.len());
        let fits = |job: &ClaimedJob| {
            claim.queues.contains(&job.body.queue) && claim.kinds.can_run(&job.body.kind, job.body.min_reader)
        };
        let (mut again, kept): (Vec<_>, Vec<_>) = duplicates.drain(..).partition(fits);
        duplicates.extend(again.split_off(room.min(again.len())).into_iter().chain(kept));
        for job in &claimed.jobs {
            if *duplicate > 0 {
                *duplicate -= 1;
                duplicates.push(job.clone());
                // Somebody has to come back for it.
                claimed.more = true;
            }
        }
        claimed.jobs.extend(again);
        for job in &mut claimed.jobs {
            let Some(how) = corrupt.pop_front() else { return };
            let body = Arc::make_mut(&mut job.body);
            let mut payload = std::mem::take(&mut body.payload).into_vec();
            match how {
                Corrupt::Truncate => payload.truncate(payload.len() / 2),
                Corrupt::Flip => payload.iter_mut().take(1).for_each(|byte| *byte ^= 0x80),
                Corrupt::Empty => payload.clear(),
            }
            body.payload = payload.into();
        }
    }

    /// Runs a verb that is one step under the plan.
    pub(crate) fn around<T>(&self, verb: Verb, at: Option<At>, run: impl FnOnce() -> Result<T>) -> Result<T> {
        match self.fate("memory", verb, at) {
            Fate::Pass => run().map_err(|error| error.during("memory", verb.as_str())),
            Fate::Fail(error) => Err(error),
            Fate::LoseReply(lost) => match run() {
                Ok(_) => Err(lost),
                Err(error) => Err(error.during("memory", verb.as_str())),
            },
        }
    }
}

impl Plan {
    /// Until when the engine cannot be reached. A call without a time goes by the last one that had one.
    fn is_disconnected(&mut self, at: Option<At>) -> Option<Timestamp> {
        let now = at.map(|at| match at {
            At::Server => Timestamp::system_now(),
            At::Instant(instant) => instant,
        });
        if let (Some(now), Some(time)) = (now, self.disconnect) {
            self.disconnect = None;
            self.disconnected_until = Some(now.saturating_add(time));
        }
        let until = self.disconnected_until?;
        if now.is_some_and(|now| now >= until) {
            self.disconnected_until = None;
        }
        self.disconnected_until
    }

    /// Evenly distributed in 0 to 1. `SplitMix64` (Steele, Lea, Flood, OOPSLA 2014): two lines, and good enough for dice.
    fn roll(&mut self) -> f64 {
        self.dice = self.dice.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.dice;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
        let share = (z >> 11) as f64 / (1_u64 << 53) as f64;
        share
    }
}

impl std::fmt::Debug for Faults {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Faults").finish_non_exhaustive()
    }
}
