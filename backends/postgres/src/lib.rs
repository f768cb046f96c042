//! The Postgres engine of Windlass: durable, shared by any number of processes, and able to join a caller's transaction.
//!
//! A namespace is a schema. Its tables and functions are made by [`Migrate::migrate`](windlass_core::Migrate::migrate);
//! each verb of the contract is one call of one function, and so one round trip and one atomic step. The rooms: `options`
//! and `migrate` open a namespace; `backend` is the contract, with `jobs` and `verdicts` laying out what goes in and
//! `rows` reading what comes back; `inspect`, `manage` and `transaction` are the other capabilities; `call` runs a
//! statement and `error` says what its failure means; `wake` is how sleepers hear of work. The SQL is in `sql/`, and
//! `docs.md` beside this crate describes the tables and how to look at them.
#![doc(html_no_source)]

mod backend;
mod call;
mod error;
mod extras;
mod gather;
mod inspect;
mod jobs;
mod manage;
mod migrate;
mod options;
mod push;
mod rows;
mod statements;
mod transaction;
mod verdicts;
mod wake;

pub use backend::PostgresBackend;
pub use options::PostgresOptions;
pub use sqlx;
