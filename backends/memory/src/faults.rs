//! The fault plan: what a test wants to go wrong next.
//!
//! *Failed* and *reply lost* are different things, and the difference finds bugs: after the first nothing happened,
//! after the second it did and the caller cannot know.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use windlass_core::{Error, ErrorKind, Result};

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
    pub(crate) const fn as_str(self) -> &'static str {
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

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    Fail,
    LoseReply,
}

/// A plan of faults, shared by all handles of one [`MemoryBackend`](crate::MemoryBackend).
#[derive(Clone, Default)]
pub struct Faults {
    planned: Arc<Mutex<HashMap<Verb, VecDeque<Fault>>>>,
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

    fn plan(&self, verb: Verb, fault: Fault, times: usize) {
        let mut planned = self.planned.lock().unwrap_or_else(PoisonError::into_inner);
        planned.entry(verb).or_default().extend(std::iter::repeat_n(fault, times));
    }

    fn next(&self, verb: Verb) -> Option<Fault> {
        self.planned.lock().unwrap_or_else(PoisonError::into_inner).get_mut(&verb)?.pop_front()
    }

    /// Runs `verb` under the plan.
    pub(crate) fn around<T>(&self, verb: Verb, run: impl FnOnce() -> Result<T>) -> Result<T> {
        match self.next(verb) {
            None => run(),
            Some(Fault::Fail) => Err(Error::new(ErrorKind::Unavailable, "planned fault: it failed")),
            Some(Fault::LoseReply) => {
                run()?;
                Err(Error::new(ErrorKind::Connection, "planned fault: the reply was lost").effect_unknown())
            }
        }
        .map_err(|error| error.during("memory", verb.as_str()))
    }
}

impl std::fmt::Debug for Faults {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Faults").finish_non_exhaustive()
    }
}
