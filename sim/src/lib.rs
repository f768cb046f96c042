//! The simulator: whole workers, dispatchers and operators over the memory engine, in virtual time, under seeded faults.
//!
//! One seed decides everything: who is there, what is dispatched, what goes wrong and when. A history runs on one thread
//! with tokio's paused clock; the engine's time is that clock. Clients tell the engine no time at all, so a client's wrong
//! clock has nothing to act upon, by construction. The same seed gives the same history, call by call.
//!
//! The rooms: `history` makes the plot of a seed and plays it, `plot` act by act, with what `dispatching` sends; `seat` holds
//! a worker that is started, frozen, killed and started again; `network` is what lies between a `client` and the engine;
//! `jobs` is what the workers run; `oracle` watches every call and every handler, and knows what must be true.

mod client;
mod dispatching;
mod history;
mod jobs;
mod network;
mod oracle;
mod plot;
mod rng;
mod seat;

use std::fmt;

pub use windlass::testing::simulation::Mutant as WorkerMutant;
pub use windlass_memory::Mutant as EngineMutant;

/// A fault on purpose, in the engine or in the workers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mutant {
    /// In the engine.
    Engine(EngineMutant),
    /// In every worker.
    Worker(WorkerMutant),
}

impl Mutant {
    /// Every fault there is.
    pub fn all() -> impl Iterator<Item = Self> {
        let engine = EngineMutant::ALL.iter().copied().map(Self::Engine);
        engine.chain(WorkerMutant::ALL.iter().copied().map(Self::Worker))
    }

    /// The fault of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::all().find(|mutant| mutant.to_string() == name)
    }
}

impl fmt::Display for Mutant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Engine(mutant) => write!(f, "{mutant:?}"),
            Self::Worker(mutant) => write!(f, "{mutant:?}"),
        }
    }
}

/// What was played, call by call.
pub type Story = Vec<String>;

/// A history without a violation.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Passed {
    /// Of every call, its answer and its moment: equal for equal histories.
    pub hash: u64,
    /// Calls that reached the engine.
    pub calls: u64,
    /// Handlers that were started.
    pub runs: u64,
    /// Jobs that were stored.
    pub jobs: u64,
    /// Faults that were injected.
    pub faults: u64,
    /// Virtual time from beginning to end, in milliseconds.
    pub millis: u64,
}

impl Passed {
    /// Adds another history. The hashes are joined so that the order does not matter.
    pub fn add(&mut self, other: Self) {
        let Self { hash, calls, runs, jobs, faults, millis } = other;
        self.hash = self.hash.wrapping_add(hash);
        self.calls += calls;
        self.runs += runs;
        self.jobs += jobs;
        self.faults += faults;
        self.millis += millis;
    }
}

/// A promise that was broken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// What repeats it.
    pub seed: u64,
    /// Which promise.
    pub check: &'static str,
    /// How.
    pub text: String,
    /// What happened before.
    pub story: Story,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.story {
            writeln!(f, "  {line}")?;
        }
        writeln!(f, "seed {} breaks {}: {}", self.seed, self.check, self.text)
    }
}

/// Plays the history of a seed.
///
/// # Errors
/// The first violation, with its story.
pub fn run(seed: u64, mutant: Option<Mutant>) -> Result<Passed, Box<Violation>> {
    history::play(seed, mutant, false).map(|(passed, _)| passed).map_err(|_| {
        // Once more, taking notes. A history that only fails unwatched would be a flaw of the simulator itself.
        match history::play(seed, mutant, true) {
            Err(violation) => violation,
            Ok(_) => Box::new(Violation {
                seed,
                check: "determinism",
                text: "it broke a promise, but not when it was played again".to_owned(),
                story: Vec::new(),
            }),
        }
    })
}

/// Plays the history of a seed and tells it, whether a promise is broken or not.
pub fn tell(seed: u64, mutant: Option<Mutant>) -> (Story, Result<Passed, Box<Violation>>) {
    match history::play(seed, mutant, true) {
        Ok((passed, story)) => (story, Ok(passed)),
        Err(mut violation) => (std::mem::take(&mut violation.story), Err(violation)),
    }
}

/// Plays the history of a seed without keeping its story: for those that are expected to fail.
///
/// # Errors
/// The first violation, without a story.
pub fn run_briefly(seed: u64, mutant: Option<Mutant>) -> Result<Passed, Box<Violation>> {
    history::play(seed, mutant, false).map(|(passed, _)| passed)
}

/// Keeps the panics that handlers are told to have from the terminal. For the whole process.
pub fn quiet_panics() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let told = panic.payload().downcast_ref::<&str>().is_some_and(|text| text.starts_with("told to"));
        if !told {
            before(panic);
        }
    }));
}
