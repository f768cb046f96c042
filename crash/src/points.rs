//! Named points at which a process kills or freezes itself, or kills the server of the engine.

use std::fmt;
use std::io::{BufRead as _, BufReader};
use std::os::unix::net::UnixStream;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Signal, getpid, kill_process};
use tokio::sync::watch;
use windlass_core::JobId;

use crate::wire::{Event, Teller};

/// A point on the way of a job, as one of the processes sees it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum Point {
    /// A claim is under way to the engine, or back.
    Claiming,
    /// A claim has been answered, and the worker has not heard of it.
    Claimed,
    /// A job is about to be handled.
    BeforeHandler,
    /// Its handler runs.
    InHandler,
    /// Its handler has answered, and nothing was settled.
    AfterHandler,
    /// A verdict on a job that lingers when it runs again is about to be sent. Who freezes here is woken as it does: a
    /// zombie whose verdict meets a lease that stands.
    Haunting,
    /// A settle is under way to the engine, or back.
    Settling,
    /// A settle has been answered, and the worker has not heard of it.
    Settled,
    /// A beat is under way.
    Extending,
    /// A dispatch is under way to the engine, or back.
    Pushing,
    /// A dispatch has been answered, and nobody has heard of it.
    Pushed,
    /// A transaction has written, and is not committed.
    InTransaction,
    /// A commit is under way.
    Committing,
}

impl Point {
    pub(crate) const OF_WORKERS: [Self; 8] = [
        Self::Claiming,
        Self::Claimed,
        Self::BeforeHandler,
        Self::InHandler,
        Self::AfterHandler,
        Self::Settling,
        Self::Settled,
        Self::Extending,
    ];
    /// Where a worker works in a transaction of its own.
    pub(crate) const OF_EFFECTS: [Self; 2] = [Self::InTransaction, Self::Committing];
    /// Where a worker that stands still holds what it should not settle afterwards.
    pub(crate) const TO_FREEZE: [Self; 4] =
        [Self::Claimed, Self::InHandler, Self::AfterHandler, Self::Settling];
    /// Where the server can be killed while a worker waits for it.
    pub(crate) const OF_SERVERS: [Self; 3] = [Self::Settling, Self::Claiming, Self::Extending];
    pub(crate) const OF_DISPATCHERS: [Self; 2] = [Self::Pushing, Self::Pushed];
    pub(crate) const OF_WRITERS: [Self; 2] = [Self::InTransaction, Self::Committing];

    const ALL: [(Self, &'static str); 13] = [
        (Self::Claiming, "claiming"),
        (Self::Claimed, "claimed"),
        (Self::BeforeHandler, "before-handler"),
        (Self::InHandler, "in-handler"),
        (Self::AfterHandler, "after-handler"),
        (Self::Haunting, "haunting"),
        (Self::Settling, "settling"),
        (Self::Settled, "settled"),
        (Self::Extending, "extending"),
        (Self::Pushing, "pushing"),
        (Self::Pushed, "pushed"),
        (Self::InTransaction, "in-transaction"),
        (Self::Committing, "committing"),
    ];
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::ALL.iter().find(|(point, _)| point == self).map_or("", |(_, name)| *name);
        f.pad(name)
    }
}

impl FromStr for Point {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let found = Self::ALL.iter().find(|(_, name)| *name == text);
        found.map(|(point, _)| *point).ok_or_else(|| anyhow::anyhow!("no point `{text}`"))
    }
}

/// What a process does when it comes to its trap.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Blow {
    /// It kills itself.
    Die,
    /// It stands itself still.
    Freeze,
    /// It kills the server of the engine, which has this process id.
    Crash(u32),
}

/// What a process is to do, at which point, and when it comes past there for the which time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Trap {
    pub(crate) blow: Blow,
    pub(crate) point: Point,
    pub(crate) passage: u32,
    /// For a point that is a while under way: so many microseconds after its beginning.
    pub(crate) micros: u32,
}

impl fmt::Display for Trap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (blow, server) = match self.blow {
            Blow::Die => ("die", 0),
            Blow::Freeze => ("freeze", 0),
            Blow::Crash(server) => ("crash", server),
        };
        write!(f, "{blow}:{}:{}:{}:{server}", self.point, self.passage, self.micros)
    }
}

impl FromStr for Trap {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let parts: Vec<&str> = text.split(':').collect();
        let [blow, point, passage, micros, server] = parts[..] else { anyhow::bail!("no trap `{text}`") };
        let blow = match blow {
            "die" => Blow::Die,
            "freeze" => Blow::Freeze,
            "crash" => Blow::Crash(server.parse()?),
            other => anyhow::bail!("no blow `{other}`"),
        };
        Ok(Self { blow, point: point.parse()?, passage: passage.parse()?, micros: micros.parse()? })
    }
}

/// The trap of a process, and its way to the collector. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Trapped {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    teller: Teller,
    /// Looked at before the lock: most passages of a point are of no interest.
    armed: AtomicBool,
    trap: Mutex<Option<Trap>>,
    /// Up to which block may be dispatched.
    allowed: watch::Sender<u64>,
}

/// What the runner tells a process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Order {
    /// Set this trap.
    Set(Trap),
    /// Dispatch up to this block, and no further for now.
    Dispatch(u64),
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Set(trap) => write!(f, "set {trap}"),
            Self::Dispatch(block) => write!(f, "dispatch {block}"),
        }
    }
}

impl FromStr for Order {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        match text.split_once(' ') {
            Some(("set", trap)) => Ok(Self::Set(trap.parse()?)),
            Some(("dispatch", block)) => Ok(Self::Dispatch(block.parse()?)),
            _ => anyhow::bail!("no order `{text}`"),
        }
    }
}

impl Trapped {
    /// Does what is ordered, on a thread of its own, for as long as the process lives.
    pub(crate) fn new(teller: Teller, orders: UnixStream) -> Self {
        let (armed, allowed) = (AtomicBool::new(false), watch::Sender::new(0));
        let shared = Shared { teller, armed, trap: Mutex::default(), allowed };
        let trapped = Self { shared: Arc::new(shared) };
        let listener = trapped.clone();
        std::thread::spawn(move || {
            for order in BufReader::new(orders).lines().map_while(Result::ok) {
                match order.parse() {
                    Ok(Order::Set(trap)) => listener.set(trap),
                    Ok(Order::Dispatch(block)) => drop(listener.shared.allowed.send_replace(block)),
                    Err(error) => listener.tell(&Event::Wrong(format!("{error}"))),
                }
            }
        });
        trapped
    }

    /// Sets a trap.
    pub(crate) fn set(&self, trap: Trap) {
        *self.shared.trap.lock().unwrap_or_else(PoisonError::into_inner) = Some(trap);
        self.shared.armed.store(true, Ordering::Release);
    }

    /// Waits until this block may be dispatched.
    pub(crate) async fn until_allowed(&self, block: u64) {
        // The sender lives as long as this does.
        let _ = self.shared.allowed.subscribe().wait_for(|allowed| *allowed >= block).await;
    }

    /// Says what happens.
    pub(crate) fn tell(&self, event: &Event) {
        self.shared.teller.tell(event);
    }

    /// Stands still as a zombie, if that is ordered, before verdicts on these are sent, which will linger when they run
    /// again.
    pub(crate) fn haunt(&self, jobs: Vec<(JobId, u64)>) {
        if self.is_set(Point::Haunting) && !jobs.is_empty() {
            self.tell(&Event::Haunting(jobs));
            self.pass(Point::Haunting);
        }
    }

    /// Whether a trap is set at a point.
    pub(crate) fn is_set(&self, point: Point) -> bool {
        self.shared.armed.load(Ordering::Acquire) && {
            let set = self.shared.trap.lock().unwrap_or_else(PoisonError::into_inner);
            set.is_some_and(|trap| trap.point == point)
        }
    }

    /// Comes past a point.
    pub(crate) fn pass(&self, point: Point) {
        if let Some(trap) = self.sprung(point) {
            self.strike(trap);
        }
    }

    /// Makes a call that passes a point while it is under way.
    pub(crate) async fn within<T>(&self, point: Point, call: impl Future<Output = T>) -> T {
        let Some(trap) = self.sprung(point) else { return call.await };
        let mut call = std::pin::pin!(call);
        // The engine's answer may come first: then the point is right behind the call.
        let answered =
            tokio::time::timeout(Duration::from_micros(u64::from(trap.micros)), call.as_mut()).await;
        self.strike(trap);
        match answered {
            Ok(answer) => answer,
            Err(_) => call.await,
        }
    }

    fn sprung(&self, point: Point) -> Option<Trap> {
        if !self.shared.armed.load(Ordering::Acquire) {
            return None;
        }
        let mut set = self.shared.trap.lock().unwrap_or_else(PoisonError::into_inner);
        let trap = set.as_mut().filter(|trap| trap.point == point)?;
        trap.passage = trap.passage.saturating_sub(1);
        if trap.passage > 0 {
            return None;
        }
        self.shared.armed.store(false, Ordering::Release);
        set.take()
    }

    fn strike(&self, trap: Trap) {
        let point = trap.point.to_string();
        match trap.blow {
            Blow::Die => {
                self.tell(&Event::Dying(point));
                self.signal(Signal::KILL);
            }
            Blow::Freeze => {
                self.tell(&Event::Freezing(point));
                self.signal(Signal::STOP);
                // The whole process stops within this moment, this thread perhaps a little later than the others.
                std::thread::sleep(Duration::from_millis(1));
            }
            Blow::Crash(server) => {
                self.tell(&Event::Crashing(point));
                if let Err(error) = windlass_servers::kill_family(server) {
                    self.tell(&Event::Wrong(format!("cannot kill the server: {error:#}")));
                }
            }
        }
    }

    fn signal(&self, signal: Signal) {
        if let Err(error) = kill_process(getpid(), signal) {
            self.tell(&Event::Wrong(format!("cannot signal itself: {error}")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traps_are_read_as_they_are_written() {
        for (point, _) in Point::ALL {
            for blow in [Blow::Die, Blow::Freeze, Blow::Crash(77)] {
                let trap = Trap { blow, point, passage: 3, micros: 150 };
                assert_eq!(trap.to_string().parse::<Trap>().unwrap(), trap);
                for order in [Order::Set(trap), Order::Dispatch(17)] {
                    assert_eq!(order.to_string().parse::<Order>().unwrap(), order);
                }
            }
        }
        for text in ["die:nowhere:1:0:0", "shout:claimed:1:0:0", "crash:claimed:1:0:x", "die"] {
            assert!(text.parse::<Trap>().is_err() && text.parse::<Order>().is_err(), "{text}");
        }
    }
}
