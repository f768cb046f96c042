//! The properties, one file a theme. `list.rs` beside this folder names each of them once.

pub mod annotate;
pub mod at_once;
pub mod bounds;
pub mod cancel;
pub mod claim;
pub mod dropped;
pub mod fence;
pub mod inspect;
pub mod lease;
pub mod limit;
pub mod order;
pub mod outcomes;
pub mod parents;
pub mod parked;
pub mod pause;
pub mod poison;
pub mod push;
pub mod retention;
pub mod revive;
pub mod schedule;
pub mod settle;
pub mod then_jobs;
pub mod time;
pub mod unique;
pub mod unique_table;
pub mod wait;
