//! Waiting until what was written has reached the disk or the replicas.
//!
//! A write of its own, after the writes that it is to cover, on a connection of its own: `WAIT` and `WAITAOF` hold a
//! connection up. Callers that come while one waits share the next one.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use redis::Value;
use windlass_core::{Error, ErrorKind, Result};

use crate::link::{Link, Server};
use crate::options::{Durability, RedisOptions};
use crate::reply;

/// The fence behind a durable write.
#[derive(Debug)]
pub(crate) struct Fence {
    link: Link,
    level: Durability,
    timeout: Duration,
    arrived: AtomicU64,
    /// The last arrival that is covered.
    covered: tokio::sync::Mutex<u64>,
}

impl Fence {
    pub(crate) fn new(options: &RedisOptions, level: Durability) -> Result<Self> {
        Ok(Self {
            link: Link::patient(options)?,
            level,
            timeout: options.response_timeout,
            arrived: AtomicU64::new(0),
            covered: tokio::sync::Mutex::new(0),
        })
    }

    /// Waits until everything that the server `written_on` has acknowledged so far has reached the level.
    pub(crate) async fn wait(&self, written_on: &Server, key: &str) -> Result<()> {
        if self.level == Durability::Fast || (self.level == Durability::Local && written_on.version < (7, 2))
        {
            // An older server writes through to its disk before it answers: connect has seen to that.
            return Ok(());
        }
        let arrival = self.arrived.fetch_add(1, Ordering::AcqRel) + 1;
        let mut covered = self.covered.lock().await;
        if *covered >= arrival {
            return Ok(());
        }
        let upto = self.arrived.load(Ordering::Acquire);
        self.fence(written_on, key).await.map_err(Error::effect_unknown)?;
        *covered = upto;
        Ok(())
    }

    async fn fence(&self, written_on: &Server, key: &str) -> Result<()> {
        let open = self.link.open().await?;
        if open.server.run != written_on.run {
            // Whichever of the two is the old one: the next fence is written on a new connection.
            self.link.forget(&open);
            // It was stored on a server that has ended since, or is no longer the one that writes.
            return Err(Error::new(ErrorKind::Unavailable, "the server was replaced while this was written"));
        }
        let said = |result: std::result::Result<Value, (Error, crate::error::Then)>| {
            result.map_err(|(error, _)| error)
        };
        said(self.link.send_on(&open, redis::cmd("INCR").arg(key), false).await)?;
        let millis = u64::try_from(self.timeout.as_millis()).unwrap_or(u64::MAX);
        let wait = async {
            match self.level {
                Durability::Replicated(replicas) => {
                    let reached =
                        self.link.send_on(&open, redis::cmd("WAIT").arg(replicas).arg(millis), false).await;
                    Ok((reply::number(&said(reached)?)?, u64::from(replicas)))
                }
                _ => {
                    let reached = self
                        .link
                        .send_on(&open, redis::cmd("WAITAOF").arg(1).arg(0).arg(millis), false)
                        .await;
                    Ok((reply::number(reply::at(&reply::array(said(reached)?)?, 0)?)?, 1))
                }
            }
        };
        // The server ends the wait by itself; one that is gone does not.
        let grace = Duration::from_secs(2);
        let Ok(waited) = tokio::time::timeout(self.timeout + grace, wait).await else {
            self.link.forget(&open);
            return Err(Error::new(ErrorKind::Timeout, "the server did not say in time that it is durable"));
        };
        let (reached, wanted): (u64, u64) = waited?;
        if reached < wanted {
            return Err(Error::new(
                ErrorKind::Unavailable,
                format!("it has reached {reached} of {wanted} places within {:?}", self.timeout),
            ));
        }
        Ok(())
    }
}
