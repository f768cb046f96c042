//! The drive: settles verdicts and claims jobs, in one call where it can.
//!
//! Natural batching: it settles whatever has gathered the moment the previous call returned. No timer, so nothing waits
//! when the worker is idle, and batches fill by themselves when it is busy. Where the engine is pipelined, the next call is
//! on its way before the last is answered, once all that is in hand has run: engine and worker then never wait for each
//! other.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use windlass_core::limits::{BATCH_MAX, DELAY_MAX};
use windlass_core::{
    Claim, DeadReason, Effect, Error, ErrorKind, Failure, Kinds, Nonce, QueueName, Result, Ruling, SessionId,
    Settled, Timestamp, Verdict,
};

use super::calls::{Answered, Call, Calls};
use super::hand::{Claimed, Hand, Look, Ruled};
use super::order::Order;
use super::report::Report;
use super::simulated::Mutant;
use super::{Settings, beat, runner, upkeep};
use crate::any::{AnyBackend, Engine};
use crate::context::Stop;
use crate::envelope::Envelope;
use crate::executor::{Executor, Ran};
use crate::queue::Queue;
use crate::registry::Jobs;

/// How long a worker may be ahead all the time before it lets its slots run free once.
const SUSPECTS_EVERY: Duration = Duration::from_secs(1);

/// What the tasks of a worker share.
pub(crate) struct Shared<B: Engine> {
    pub(crate) queue: Queue<B>,
    pub(crate) executor: Executor,
    pub(crate) settings: Settings,
    pub(crate) session: SessionId,
    kinds: Kinds,
    hand: Mutex<Hand>,
    /// Rung for the drive: a verdict has come in, a runner retired, there may be work.
    pub(crate) bell: Notify,
    /// Rung for the beat: somebody wants something of this session.
    pub(crate) beat_now: Notify,
    /// Rung for the listener: what to listen for has changed.
    pub(crate) appetite: Notify,
    listening: Mutex<Listening>,
    /// Whether the last beat succeeded.
    trusted: AtomicBool,
    /// Whether it is time to stop: nothing is claimed or started any more.
    stopping: CancellationToken,
    /// Whether a claim is worth it: set by wake-ups and by claims that left something behind.
    hungry: AtomicBool,
}

/// What the listener listens for.
struct Listening {
    names: Vec<QueueName>,
    for_work: bool,
    next_due: Option<NextDue>,
}

/// When the next scheduled job is due: by this process's clock, to sleep by, and by the engine's, to tell it what is known.
#[derive(Clone, Copy, PartialEq, Eq)]
struct NextDue {
    here: Instant,
    there: Timestamp,
}

/// What the listener asks the engine.
pub(crate) struct ListenFor {
    pub(crate) queues: Vec<QueueName>,
    pub(crate) due: Option<Timestamp>,
    pub(crate) max: Duration,
}

impl<B: Engine> Shared<B> {
    pub(crate) fn new(
        queue: Queue<B>,
        erased: Queue<AnyBackend>,
        jobs: Jobs,
        order: &Order,
        settings: Settings,
    ) -> Self {
        let mut session = queue.entropy().session();
        let pipelined = queue.backend().capabilities().pipelined;
        if settings.simulated.is(Mutant::SessionReused) {
            session = SessionId::from_u128(1);
        }
        Self {
            session,
            kinds: jobs.kinds(),
            executor: Executor::new(jobs, erased),
            queue,
            hand: Mutex::new(Hand::new(settings.simulated.flush_at(), pipelined)),
            settings,
            bell: Notify::new(),
            beat_now: Notify::new(),
            appetite: Notify::new(),
            listening: Mutex::new(Listening { names: order.names(), for_work: false, next_due: None }),
            trusted: AtomicBool::new(true),
            stopping: CancellationToken::new(),
            hungry: AtomicBool::new(true),
        }
    }

    pub(crate) fn hand(&self) -> MutexGuard<'_, Hand> {
        self.hand.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn listening(&self) -> MutexGuard<'_, Listening> {
        self.listening.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_trusted(&self, trusted: bool) {
        if self.trusted.swap(trusted, Ordering::AcqRel) != trusted {
            self.bell.notify_one();
        }
    }

    /// Until when a lease must last for its job to be started now.
    pub(crate) fn must_last_until(&self, now: Instant) -> Instant {
        if self.settings.simulated.is(Mutant::StartsOldLeases) {
            return now.checked_sub(self.settings.lease * 2).unwrap_or(now);
        }
        now + self.settings.fence_margin()
    }

    /// There may be work. The listener has done its part until the drive asks for it again: listening on would only hear
    /// the same once more.
    pub(crate) fn look_again(&self) {
        self.listening().for_work = false;
        self.hungry.store(true, Ordering::Release);
        self.bell.notify_one();
    }

    /// What to wait for now, and how long.
    pub(crate) fn listen_for(&self) -> ListenFor {
        let listening = self.listening();
        let poll = self.settings.poll;
        if !listening.for_work {
            return ListenFor { queues: Vec::new(), due: None, max: poll.max(Duration::from_secs(1)) };
        }
        let left = listening.next_due.map(|due| due.here.saturating_duration_since(Instant::now()));
        ListenFor {
            queues: listening.names.clone(),
            due: listening.next_due.map(|due| due.there),
            max: left.map_or(poll, |left| left.min(poll)),
        }
    }

    /// Tells the listener whether to listen for work, and until when at most.
    fn set_appetite(&self, for_work: bool, next_due: Option<NextDue>) {
        let mut listening = self.listening();
        if listening.for_work == for_work && listening.next_due == next_due {
            return;
        }
        listening.for_work = for_work;
        listening.next_due = next_due;
        drop(listening);
        self.appetite.notify_one();
    }
}

/// Runs a worker from start to stop.
pub(crate) async fn run<B: Engine>(
    shared: Arc<Shared<B>>,
    order: Order,
    shutdown: impl Future<Output = ()>,
) -> Result<Report> {
    // Dropping the set ends its tasks, so nothing outlives this future.
    let mut tasks = JoinSet::new();
    let simulated = &shared.settings.simulated;
    tasks.spawn(simulated.hold(beat::run(Arc::clone(&shared))));
    tasks.spawn(simulated.hold(upkeep::sweep(Arc::clone(&shared))));
    tasks.spawn(simulated.hold(upkeep::listen(Arc::clone(&shared))));
    let capabilities = shared.queue.backend().capabilities();
    let mut drive = Drive {
        shared: &shared,
        order,
        runners: JoinSet::new(),
        calls: Calls::new(capabilities.pipelined),
        ahead_max: capabilities.ahead_max,
        next_due: None,
        empty: false,
        failures: 0,
        begun: Instant::now(),
        claimed_free: Instant::now(),
        unknown_claims: Vec::new(),
    };
    {
        let mut work = std::pin::pin!(drive.work());
        tokio::select! {
            biased;
            () = shutdown => {
                shared.stopping.cancel();
                shared.bell.notify_one();
                // A call that is under way is waited for: only its answer tells what it took and what it settled.
                let patient = shared.settings.simulated.is(Mutant::StopsLate);
                let deadline = if patient { DELAY_MAX } else { shared.settings.shutdown_deadline };
                let _ = tokio::time::timeout(deadline, work).await;
            }
            () = &mut work => {}
        }
    }
    drive.stop().await;
    tasks.abort_all();
    Ok(shared.hand().report)
}

struct Drive<'a, B: Engine> {
    shared: &'a Arc<Shared<B>>,
    order: Order,
    runners: JoinSet<()>,
    calls: Calls,
    /// See [`Capabilities`](windlass_core::Capabilities).
    ahead_max: usize,
    /// When the next scheduled job is due.
    next_due: Option<NextDue>,
    /// Whether the last claim found nothing.
    empty: bool,
    /// Calls in a row that failed.
    failures: u32,
    begun: Instant,
    /// When a claim with free slots was last made: only such a claim may bring a suspect.
    claimed_free: Instant,
    /// Claims whose answers were lost: what they took is handed back before anything else is claimed.
    unknown_claims: Vec<UnknownClaim>,
}

#[derive(Clone, Copy)]
struct UnknownClaim {
    nonce: Nonce,
    /// When what it took has lapsed by itself.
    lapses: Instant,
}

impl<B: Engine> Drive<'_, B> {
    /// Works until it is told to stop or reaches a bound of its own, hands back what was not started, and finishes what
    /// runs. However long that takes: a burst that stopped its long jobs would start them again and again.
    async fn work(&mut self) {
        self.until_bound().await;
        self.shared.stopping.cancel();
        self.shared.set_appetite(false, None);
        self.shared.hand().release_waiting();
        self.settle_until(Instant::now() + DELAY_MAX).await;
    }

    /// Works until it is told to stop, or a bound such as `until_empty` is reached.
    async fn until_bound(&mut self) {
        loop {
            while self.runners.try_join_next().is_some() {}
            if self.bound_reached() {
                if self.calls.is_empty() {
                    return;
                }
                // Only its answer tells what a call took and what it settled.
                self.answer().await;
                continue;
            }
            let slots = self.slots();
            let Look { due, pending } = self.shared.hand().look();
            let room = self.has_room(slots);
            if !self.calls.is_empty() {
                if due && room && self.shared.hungry.load(Ordering::Acquire) {
                    self.call(Some(slots)).await;
                } else {
                    self.answer_or_bell().await;
                }
            } else if due || (room && self.shared.hungry.load(Ordering::Acquire)) {
                self.shared.set_appetite(false, None);
                // A settle with room to spare claims too: the verdicts may have freed or made work, and set due times.
                self.call(room.then_some(slots)).await;
            } else if pending {
                // Busy: more verdicts are about to come. A millisecond at most, should the jobs turn out to be long.
                const BUSY: Duration = Duration::from_millis(1);
                if tokio::time::timeout(BUSY, self.shared.bell.notified()).await.is_err() {
                    self.call(room.then_some(slots)).await;
                }
            } else {
                // Full, or nothing to do: listen for work only when there is room for it.
                self.shared.set_appetite(room, self.next_due);
                self.sleep().await;
            }
        }
    }

    /// Waits for an answer, or until it may be time for another call beside the one under way.
    async fn answer_or_bell(&mut self) {
        if !self.calls.has_room() {
            return self.answer().await;
        }
        let answered = tokio::select! {
            biased;
            answered = self.calls.next() => answered,
            () = self.shared.bell.notified() => None,
        };
        if let Some(answered) = answered {
            self.heard(answered).await;
        }
    }

    /// Sleeps until something rings, a scheduled job is due, or the time is up.
    async fn sleep(&mut self) {
        let end = self.shared.settings.at_most_time.map(|time| self.begun + time);
        let due = self.next_due.map(|due| due.here).filter(|due| *due > Instant::now());
        let wake = [end, due].into_iter().flatten().min();
        match wake {
            None => self.shared.bell.notified().await,
            Some(wake) => {
                if tokio::time::timeout_at(wake, self.shared.bell.notified()).await.is_err() {
                    self.shared.hungry.store(true, Ordering::Release);
                }
            }
        }
    }

    fn slots(&self) -> Slots {
        let settings = &self.shared.settings;
        let mut hand = self.shared.hand();
        let coming = self.calls.may_bring();
        let taken = hand.running() + hand.waiting() + coming;
        let target =
            if settings.look_ahead { hand.pace.ahead(settings.concurrency, self.ahead_max) } else { 0 };
        let mut free = settings.concurrency.saturating_sub(taken).min(BATCH_MAX);
        let mut ahead =
            target.saturating_sub(taken.saturating_sub(settings.concurrency)).min(BATCH_MAX - free);
        if let Some(most) = settings.at_most_jobs {
            let left = most.saturating_sub(hand.report.started + (hand.waiting() + coming) as u64);
            free = free.min(usize::try_from(left).unwrap_or(usize::MAX));
            ahead = 0;
        }
        // A claim ahead is worth its round trip when half of what was ahead is used up: half of what this call may claim, where
        // two calls share it.
        let share = target / self.calls.at_once();
        hand.set_low_water(target / 2);
        if free == 0 && ahead <= share / 2 {
            ahead = 0;
        }
        ahead = ahead.min(share);
        // A suspect is never taken ahead. Now and then let the slots run free, or one would wait until all else is done.
        if free == 0 && self.claimed_free.elapsed() > SUSPECTS_EVERY {
            ahead = 0;
        }
        let one_comes = self.calls.may_bring_suspect() && !settings.simulated.is(Mutant::SuspectsAtOnce);
        let suspects = !(hand.has_suspect() || one_comes) || settings.simulated.is(Mutant::SuspectsAlways);
        Slots { free, ahead, suspects }
    }

    /// Whether a claim is allowed: there are free slots, the session can be extended, and the time is not up.
    fn has_room(&self, slots: Slots) -> bool {
        let reckless = self.shared.settings.simulated.is(Mutant::ClaimsUntrusted);
        let trusted = self.shared.trusted.load(Ordering::Acquire) || reckless;
        slots.free + slots.ahead > 0 && trusted && !self.time_is_up()
    }

    fn time_is_up(&self) -> bool {
        self.shared.settings.at_most_time.is_some_and(|time| self.begun.elapsed() >= time)
    }

    fn bound_reached(&self) -> bool {
        let settings = &self.shared.settings;
        if self.shared.stopping.is_cancelled() {
            return true;
        }
        let hand = self.shared.hand();
        if settings.at_most_jobs.is_some_and(|most| hand.report.started >= most) {
            return true;
        }
        let hungry = self.shared.hungry.load(Ordering::Acquire);
        self.time_is_up() || (settings.until_empty && self.empty && !hungry && hand.in_hand() == 0)
    }

    /// One call to the engine, and its answer.
    async fn round(&mut self, slots: Option<Slots>) {
        self.call(slots).await;
        self.answer().await;
    }

    /// Makes one call to the engine: verdicts, a claim, or both.
    async fn call(&mut self, slots: Option<Slots>) {
        // Claims that are uncertain come first: in a long outage they would pile up, each with jobs that nobody runs.
        let slots = if !self.unknown_claims.is_empty() && slots.is_some() {
            self.hand_back_unknown().await;
            None
        } else {
            slots
        };
        if slots.is_none() && !self.shared.hand().has_verdicts() {
            return;
        }
        let ruled = self.shared.hand().take_verdicts(BATCH_MAX);
        let claim = slots.map(|slots| self.claim(slots));
        self.calls.make(self.shared, Call { ruled, claim, asked: Instant::now() }).await;
    }

    /// Waits for the next answer, if a call is under way.
    async fn answer(&mut self) {
        if let Some(answered) = self.calls.next().await {
            self.heard(answered).await;
        }
    }

    /// Takes an answer in, and after a failure backs off.
    async fn heard(&mut self, answered: Answered) {
        let Err(mut error) = self.take_answer(answered) else { return };
        // What else is under way has happened or will fail as well: both before anything new is asked.
        while let Some(answered) = self.calls.next().await {
            if let Err(another) = self.take_answer(answered) {
                error = another;
            }
        }
        self.back_off(&error).await;
    }

    fn take_answer(&mut self, Answered { call, answer, crowded }: Answered) -> Result<()> {
        let Call { ruled, claim, asked } = call;
        match answer {
            Ok((settled, claimed)) => {
                self.failures = 0;
                self.settled(&ruled, &settled, asked.elapsed());
                let claims = claim.is_some();
                if let (Some(claimed), Some(claim)) = (claimed, claim) {
                    self.claimed(claimed, &claim, asked);
                }
                let settles = !ruled.verdicts.is_empty();
                if crowded || (settles && (!claims || self.shared.settings.until_empty)) {
                    // What they freed or made was not claimed, or need not have been seen by the claim.
                    self.empty = false;
                    self.shared.hungry.store(true, Ordering::Release);
                }
                Ok(())
            }
            Err(error) => {
                if error.effect() == Effect::Unknown
                    && let Some(claim) = claim
                    && !self.shared.settings.simulated.is(Mutant::KeepsUnknownClaims)
                {
                    if self.shared.settings.simulated.is(Mutant::OneUnknownClaim) {
                        self.unknown_claims.clear();
                    }
                    let lapses = Instant::now() + claim.lease;
                    self.unknown_claims.push(UnknownClaim { nonce: claim.nonce, lapses });
                }
                self.put_back(ruled, &error);
                Err(error)
            }
        }
    }

    fn claim(&mut self, slots: Slots) -> Claim {
        if slots.free > 0 {
            self.claimed_free = Instant::now();
        }
        Claim {
            session: self.shared.session,
            nonce: self.shared.queue.entropy().nonce(),
            queues: if self.shared.settings.simulated.is(Mutant::WeightsIgnored) {
                self.order.names()
            } else {
                self.order.next()
            },
            kinds: self.shared.kinds.clone(),
            limit: slots.free,
            ahead: slots.ahead,
            suspects: slots.suspects,
            lease: self.shared.settings.lease,
        }
    }

    /// Takes in what a claim brought and starts runners for it.
    fn claimed(&mut self, claimed: windlass_core::Claimed, claim: &Claim, asked: Instant) {
        self.empty = claimed.jobs.is_empty() && !claimed.more;
        self.next_due =
            claimed.wake_at.map(|due| NextDue { here: asked + due.since(claimed.now), there: due });
        let hungry = claimed.more || claimed.jobs.len() == claim.limit + claim.ahead;
        self.shared.hungry.store(hungry, Ordering::Release);
        let simulated = &self.shared.settings.simulated;
        let from = if simulated.is(Mutant::LeaseFromReply) { Instant::now() } else { asked };
        let fenced_at = from + self.shared.settings.lease;
        let asked = if simulated.is(Mutant::DeadlineFromReply) { Instant::now() } else { asked };
        let now = claimed.now;
        let jobs = claimed
            .jobs
            .into_iter()
            .map(|job| Claimed { envelope: Envelope::claimed(job, now, asked), fenced_at });
        // What comes when it is time to stop is not started, and handed back.
        let stopping = self.shared.stopping.is_cancelled();
        let one_more = usize::from(simulated.is(Mutant::RunsTooMany));
        let runners = if stopping { 0 } else { self.shared.settings.concurrency + one_more };
        let start = self.shared.hand().take_in(jobs, runners);
        for _ in 0..start {
            self.runners.spawn(self.shared.settings.simulated.hold(runner::run(Arc::clone(self.shared))));
        }
    }

    /// Counts what became of the verdicts.
    fn settled(&self, ruled: &Arc<Ruled>, settled: &[Settled], took: Duration) {
        let mut hand = self.shared.hand();
        hand.settle_ended(ruled);
        hand.pace.round_trip_took(took);
        for ((verdict, ran), settled) in ruled.verdicts.iter().zip(&ruled.ran).zip(settled) {
            hand.report.count_settled(*ran, *settled);
            if *settled == Settled::LeaseLost && *ran != Ran::Settled {
                tracing::warn!(job = %verdict.lease.job, ?ran, "a verdict came too late: the lease was lost");
            }
        }
    }

    /// Backs off after a failed call.
    async fn back_off(&mut self, error: &Error) {
        self.failures += 1;
        self.shared.hand().report.storage_errors += 1;
        // 50 ms, doubling, at most 5 s, with full jitter above half.
        let most =
            Duration::from_millis(50).saturating_mul(1 << self.failures.min(7)).min(Duration::from_secs(5));
        let pause = most / 2 + self.shared.queue.entropy().up_to(most / 2);
        tracing::warn!(%error, failures = self.failures, ?pause, "the engine failed; trying again");
        if self.shared.stopping.is_cancelled() {
            return tokio::time::sleep(pause).await;
        }
        let _ = tokio::time::timeout(pause, self.shared.stopping.cancelled()).await;
    }

    fn put_back(&self, ruled: Arc<Ruled>, error: &Error) {
        let mut hand = self.shared.hand();
        // The hand keeps a reference while it is in flight; let go of that one first, so that nothing is copied.
        hand.settle_ended(&ruled);
        if self.shared.settings.simulated.is(Mutant::VerdictsForgotten) {
            return;
        }
        let ruled = Arc::unwrap_or_clone(ruled);
        if error.kind() != ErrorKind::Invalid {
            return hand.rule_again(ruled);
        }
        // The engine will never take one of them: find it, and do not let it hold up the rest.
        let mut again = Ruled::default();
        for (verdict, ran) in ruled.verdicts.into_iter().zip(ruled.ran) {
            if verdict.validate().is_ok() {
                again.push(verdict, ran);
            } else {
                tracing::error!(job = %verdict.lease.job, %error, "a verdict breaks a limit; its job is buried");
                again.push(bury_instead(verdict, error), Ran::Buried);
            }
        }
        hand.rule_again(again);
    }

    /// Hands back what claims took whose answers were lost; otherwise it would wait for the end of its lease.
    async fn hand_back_unknown(&mut self) {
        while let Some(UnknownClaim { nonce, lapses }) = self.unknown_claims.last().copied() {
            if Instant::now() >= lapses {
                self.unknown_claims.pop();
                continue;
            }
            let queue = &self.shared.queue;
            match queue.backend().hand_back(self.shared.session, Some(nonce), queue.at()).await {
                Ok(handed) if handed == BATCH_MAX => {}
                Ok(_) => drop(self.unknown_claims.pop()),
                Err(error) => {
                    return self.back_off(&error).await;
                }
            }
        }
    }

    /// Stops what still runs, settles that, and hands back the rest.
    async fn stop(&mut self) {
        self.calls.give_up();
        self.shared.hand().release_waiting();
        let left = self.shared.hand().running();
        if left > 0 {
            let ids = self.shared.hand().ids();
            tracing::warn!(jobs = left, ?ids, "still running at the shutdown deadline: stopped and released");
        }
        const GRACE: Duration = Duration::from_millis(300);
        self.shared.hand().stop_all(Stop::Shutdown, GRACE);
        self.settle_until(Instant::now() + GRACE + Duration::from_millis(500)).await;
        // A safety net: whatever this session still holds in the engine is handed back now, not at the end of its lease.
        // What still runs (a handler that blocks its thread) is cut off from its lease, and fenced.
        let queue = &self.shared.queue;
        let hand_back = async {
            while queue.backend().hand_back(self.shared.session, None, queue.at()).await? == BATCH_MAX {}
            Ok::<_, Error>(())
        };
        if !matches!(tokio::time::timeout(Duration::from_millis(200), hand_back).await, Ok(Ok(()))) {
            tracing::warn!("could not hand back the leases at the end; they will lapse");
        }
    }

    /// Settles verdicts as they come until nothing is in hand, or the deadline.
    async fn settle_until(&mut self, deadline: Instant) {
        // The answer to an earlier call was not waited for to the end: the engine knows a repeat when it sees one.
        self.shared.hand().settle_again();
        while self.shared.hand().in_hand() > 0 {
            if self.shared.hand().look().pending {
                if tokio::time::timeout_at(deadline, self.round(None)).await.is_err() {
                    return;
                }
            } else if tokio::time::timeout_at(deadline, self.shared.bell.notified()).await.is_err() {
                return;
            }
            tokio::task::yield_now().await;
        }
    }
}

/// A verdict that an engine takes for one that it never will.
fn bury_instead(verdict: Verdict, error: &Error) -> Verdict {
    let failure = Failure::new(&format!("its verdict was refused: {}", error.message()));
    Verdict::new(verdict.lease, Ruling::Bury { error: failure, reason: DeadReason::Buried })
}

/// Room for a claim.
#[derive(Clone, Copy)]
struct Slots {
    free: usize,
    ahead: usize,
    suspects: bool,
}
