//! Which connection a key's request goes to: the one there is, or on a cluster that to the node which owns the key's slot.
//!
//! Owners are learnt by asking: a node that does not own a slot says who does, and has done nothing. What is learnt is kept by
//! hash tag, of which a namespace has as many as named queues.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redis::{Cmd, Value};
use windlass_core::{Effect, Error, ErrorKind, Result};

use crate::error::Then;
use crate::link::{Arguments, Link, Server};
use crate::options::RedisOptions;
use crate::reply;
use crate::script::Script;

/// Redirections that one request follows: more mean that the nodes do not agree.
const HOPS: usize = 6;

/// A request.
#[derive(Clone, Copy)]
enum Request<'a> {
    Command(&'a Cmd),
    Script(Script, &'a [Box<str>], &'a Arguments),
}

/// The connections to a server, or to the nodes of a cluster.
#[derive(Debug)]
pub(crate) struct Route {
    options: RedisOptions,
    /// To the address that was given.
    first: Arc<Link>,
    known: Mutex<Known>,
    next: AtomicUsize,
}

/// What is known of a cluster; nothing of a single server.
#[derive(Debug, Default)]
struct Known {
    /// By address, `host:port`.
    nodes: BTreeMap<String, Arc<Link>>,
    /// The addresses of owners, by hash tag.
    owners: HashMap<Box<str>, String>,
}

impl Route {
    pub(crate) fn new(options: &RedisOptions) -> Result<Self> {
        Ok(Self {
            options: options.clone(),
            first: Arc::new(Link::new(options)?),
            known: Mutex::default(),
            next: AtomicUsize::new(0),
        })
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens the first connection, and learns the nodes of a cluster.
    pub(crate) async fn open(&self) -> Result<Server> {
        let server = self.first.open().await?.server.clone();
        if server.cluster {
            self.learn(&self.first).await?;
        }
        Ok(server)
    }

    /// The server that requests for `key` were last sent to.
    pub(crate) async fn server(&self, key: &str) -> Result<Server> {
        Ok(self.link(tag(key)).open().await?.server.clone())
    }

    /// The address of some node, another one each time; `None` without a cluster.
    pub(crate) fn some_node(&self) -> Option<String> {
        let known = self.known();
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        known.nodes.keys().nth(turn % known.nodes.len().max(1)).cloned()
    }

    /// Asks a node for all of them.
    async fn learn(&self, from: &Arc<Link>) -> Result<()> {
        let slots = reply::array(from.send(redis::cmd("CLUSTER").arg("SLOTS")).await?)?;
        let mut addresses = Vec::new();
        for range in slots {
            for node in reply::array(range)?.into_iter().skip(2) {
                let node = reply::array(node)?;
                let host = String::from_utf8_lossy(reply::bytes(reply::at(&node, 0)?)?).into_owned();
                addresses.push(format!("{host}:{}", reply::number(reply::at(&node, 1)?)?));
            }
        }
        for address in addresses {
            self.node(&address)?;
        }
        Ok(())
    }

    /// The connection to the node at `address`; one without a host is at the host that was given.
    fn node(&self, address: &str) -> Result<Arc<Link>> {
        let mut known = self.known();
        if let Some(link) = known.nodes.get(address) {
            return Ok(link.clone());
        }
        let link = Arc::new(Link::to_node(&self.options, address)?);
        known.nodes.insert(address.to_owned(), link.clone());
        Ok(link)
    }

    fn link(&self, tag: &str) -> Arc<Link> {
        let known = self.known();
        let owner = known.owners.get(tag).and_then(|address| known.nodes.get(address));
        owner.unwrap_or(&self.first).clone()
    }

    /// Sends one request about `key` and waits for its answer.
    pub(crate) async fn send(&self, key: &str, command: &Cmd) -> Result<Value> {
        self.run(key, Request::Command(command)).await
    }

    /// Calls a script on keys of one hash tag.
    pub(crate) async fn call(
        &self,
        script: Script,
        keys: &[Box<str>],
        arguments: &Arguments,
    ) -> Result<Value> {
        let key = keys.first().map(|key| &**key).unwrap_or_default();
        self.run(key, Request::Script(script, keys, arguments)).await
    }

    async fn run(&self, key: &str, request: Request<'_>) -> Result<Value> {
        let tag = tag(key);
        let mut link = self.link(tag);
        let mut asking = false;
        for _ in 0..HOPS {
            let failed = match request {
                Request::Command(command) => link.try_send(command, asking).await,
                Request::Script(script, keys, arguments) => {
                    link.try_call(script, keys, arguments, asking).await
                }
            };
            let (error, then) = match failed {
                Ok(answer) => return Ok(answer),
                Err(failed) => failed,
            };
            asking = false;
            match then {
                Then::Moved(address) => {
                    link = self.node(&address)?;
                    self.known().owners.insert(tag.into(), address);
                }
                Then::Ask(address) => {
                    link = self.node(&address)?;
                    asking = true;
                }
                // A node of a cluster may be gone for good: the others know who took its place.
                Then::Drop if error.is_retryable() => {
                    let other = self.some_node();
                    self.known().owners.remove(tag);
                    let Some(other) = other.filter(|_| error.effect() == Effect::NotApplied) else {
                        return Err(error);
                    };
                    link = self.node(&other)?;
                }
                _ => return Err(error),
            }
        }
        Err(Error::new(ErrorKind::Unavailable, "the nodes of the cluster do not agree who owns a slot"))
    }
}

/// What decides a key's slot.
fn tag(key: &str) -> &str {
    key.strip_prefix('{').and_then(|rest| rest.split_once('}')).map_or(key, |(tag, _)| tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_what_stands_in_braces() {
        assert_eq!((tag("{shop:mail}:b"), tag("{shop}:m"), tag("plain")), ("shop:mail", "shop", "plain"));
    }
}
