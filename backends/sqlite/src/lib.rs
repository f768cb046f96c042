#![doc = include_str!("../docs.md")]
#![doc(html_no_source)]

// The rooms, in the order in which a call passes through them: `backend` is the handle and has the contract's verbs; each
// becomes a request (`verbs`) to the one writer (`writer`), which runs what has gathered in one transaction over `store`.
// `wait` wakes whoever sleeps; `transaction` joins a caller's own.

mod backend;
mod error;
mod file;
mod options;
mod packed;
mod store;
mod transaction;
mod verbs;
mod wait;
mod writer;

pub use backend::SqliteBackend;
pub use options::{Durability, SqliteOptions};
pub use transaction::SqliteTransaction;
