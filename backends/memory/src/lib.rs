//! The in-memory engine of Windlass: its reference model, its test harness, and a queue for one process.
//!
//! Everything is behind one lock, so each verb is one step by construction. The rooms, in the order in which a
//! job passes through them: `push` (in), `claim`, `settle` (out), with `admit` deciding where a job that may
//! run waits and `ending` what its end sets free; `sweep`, `manage` and `inspect` beside them. `store` holds the
//! data and the one pair of functions, leave and enter, that moves a job between states.
#![doc(html_no_source)]

mod admit;
mod backend;
mod claim;
mod ending;
mod faults;
mod inspect;
mod manage;
mod mutant;
mod push;
mod recorder;
mod settle;
mod store;
mod sweep;
mod transaction;

pub use backend::{MemoryBackend, MemoryOptions};
pub use faults::{Corrupt, Fate, Faults, Verb};
#[cfg(feature = "mutants")]
#[doc(hidden)]
pub use mutant::Mutant;
pub use recorder::Dispatched;
pub use transaction::MemoryTransaction;
