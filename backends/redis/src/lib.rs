#![doc = include_str!("../docs.md")]
//!
//! # The rooms
//!
//! A job's state is the set that its id stands in; its body is written once. Each verb is one script of `lua/`, which is
//! one step by the server's nature. The rooms: `keys` (names), `envelope` and `record` (what is stored), `script` and
//! `link`, `route` and `sentinel` (how it gets there), `push`, `work` (claim and settle), `session` (extend, hand back, annotate), `sweep`,
//! `manage`, `inspect`, `outcomes` and `wait`, over `notify`, which hears the server's messages.
#![doc(html_no_source)]

mod backend;
mod durable;
mod envelope;
mod error;
mod gather;
mod inspect;
mod keys;
mod link;
mod manage;
mod migrate;
mod notify;
mod options;
mod outcomes;
mod push;
mod record;
mod reply;
mod route;
mod script;
mod sentinel;
mod session;
mod sweep;
mod wait;
mod work;

pub use backend::RedisBackend;
pub use options::{Durability, RedisOptions};
