//! The keys of a named queue and of the namespace. `docs.md` says what each holds.
//!
//! All keys of a named queue share one hash tag, so that one script may touch them all on a cluster. Every script is
//! given all of them, in the order of [`NAMES`], which `lua/keys.lua` unpacks.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use windlass_core::{QueueName, SessionId};

/// The last parts of a queue's keys, in the order of `lua/keys.lua`.
const NAMES: [&str; 24] = [
    "b", "s", "m", "w", "z", "p", "k", "kl", "d", "l", "bs", "u", "uw", "lt", "lb", "ch", "pe", "x", "c",
    "cn", "dd", "o", "ru", "rc",
];
/// The places in [`NAMES`] of the keys whose names are channels as well.
const WAKE: usize = 2;
const ENDS: usize = 18;

/// The keys of one named queue.
#[derive(Debug)]
pub(crate) struct QueueKeys {
    pub(crate) all: Vec<Box<str>>,
    /// What plain jobs are written to: bodies, settings, list.
    pub(crate) plain: [Box<str>; 3],
}

impl QueueKeys {
    fn new(namespace: &str, queue: &QueueName) -> Self {
        let key = |name: &str| format!("{{{namespace}:{queue}}}:{name}").into();
        Self { all: NAMES.iter().map(|name| key(name)).collect(), plain: ["b", "m", "w"].map(key) }
    }

    /// The channel on which it is told that there may be work.
    pub(crate) fn wake(&self) -> &str {
        &self.all[WAKE]
    }

    /// The channel on which the ids of jobs that ended are told, while somebody waits for one.
    pub(crate) fn ends(&self) -> &str {
        &self.all[ENDS]
    }

    /// What a fence of a durable write is written to.
    pub(crate) fn fence(&self) -> String {
        let prefix = self.all[0].strip_suffix(NAMES[0]).unwrap_or_default();
        format!("{prefix}f")
    }
}

/// The keys of a namespace, and those of its queues as far as this process has met them.
#[derive(Debug)]
pub(crate) struct Keys {
    namespace: Box<str>,
    queues: RwLock<HashMap<QueueName, Arc<QueueKeys>>>,
    /// Whose time the namespace goes by, and its format.
    pub(crate) clock: Box<str>,
    /// The names of its queues.
    pub(crate) registry: Box<str>,
    /// The sessions that have something to hear: a set scored by when it was said. Its name is a channel as well.
    pub(crate) control: Box<str>,
}

impl Keys {
    pub(crate) fn new(namespace: &str) -> Self {
        Self {
            namespace: namespace.into(),
            queues: RwLock::default(),
            clock: format!("{{{namespace}}}:m").into(),
            registry: format!("{{{namespace}}}:queues").into(),
            control: format!("{{{namespace}}}:control").into(),
        }
    }

    pub(crate) fn namespace(&self) -> &str {
        &self.namespace
    }

    pub(crate) fn of(&self, queue: &QueueName) -> Arc<QueueKeys> {
        let met = self.queues.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(keys) = met.get(queue) {
            return keys.clone();
        }
        drop(met);
        let keys = Arc::new(QueueKeys::new(&self.namespace, queue));
        self.queues
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(queue.clone())
            .or_insert(keys)
            .clone()
    }
}

/// A session as it is written into keys and messages.
pub(crate) fn session_bytes(session: SessionId) -> [u8; 16] {
    session.as_u128().to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_of_a_queue_share_one_hash_tag_and_no_two_are_alike() {
        let keys = Keys::new("shop").of(&QueueName::from_static("mail"));
        let mut all = keys.all.clone();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), NAMES.len());
        assert!(all.iter().all(|key| key.starts_with("{shop:mail}:")));
        assert_eq!(
            (keys.wake(), keys.ends(), &*keys.fence()),
            ("{shop:mail}:m", "{shop:mail}:c", "{shop:mail}:f")
        );
    }

    #[test]
    fn the_script_unpacks_them_in_this_order() {
        let script = include_str!("../lua/keys.lua");
        let line = script.lines().find(|line| line.starts_with("local B,")).unwrap_or_default();
        let names: Vec<_> = line
            .trim_start_matches("local ")
            .split('=')
            .next()
            .unwrap_or_default()
            .split(',')
            .map(|name| name.trim().to_lowercase())
            .collect();
        assert_eq!(names, NAMES);
    }
}
