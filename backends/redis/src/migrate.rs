//! The format of what is stored.
//!
//! Bodies, records and keys are of format 1. A namespace says its format, and each of its queues too; scripts refuse a
//! newer one, so that an old worker never touches what it does not understand.

use redis::Value;
use windlass_core::{Error, ErrorKind, Migrate, Migration, Result};

use crate::backend::{RedisBackend, during};
use crate::reply;

/// Every format so far.
const FORMATS: [Migration; 1] = [Migration { version: 1, name: "lists, sets and packed records" }];

impl RedisBackend {
    async fn formats_to_come(&self) -> Result<Vec<Migration>> {
        let mut command = redis::cmd("HGET");
        command.arg(&*self.shared.keys.clock).arg("format");
        let stored = match self.shared.route.send(&self.shared.keys.clock, &command).await? {
            Value::Nil => 0,
            format => reply::number(&format)?,
        };
        if FORMATS.iter().all(|format| u64::from(format.version) < stored) {
            return Err(Error::new(
                ErrorKind::Config,
                format!("the data is of format {stored}, newer than this version of the library: update it"),
            ));
        }
        Ok(FORMATS.into_iter().filter(|format| u64::from(format.version) > stored).collect())
    }

    async fn migrate_to_newest(&self) -> Result<Vec<Migration>> {
        let mut done = self.formats_to_come().await?;
        if done.is_empty() {
            return Ok(done);
        }
        // A fresh namespace needs nothing but its number. Of two processes at once, one sets it.
        let mut command = redis::cmd("HSETNX");
        command.arg(&*self.shared.keys.clock).arg("format").arg(FORMATS[FORMATS.len() - 1].version);
        if reply::number(&self.shared.route.send(&self.shared.keys.clock, &command).await?)? == 0 {
            done.clear();
        }
        Ok(done)
    }
}

impl Migrate for RedisBackend {
    async fn pending(&self) -> Result<Vec<Migration>> {
        during("pending", self.formats_to_come().await)
    }

    async fn migrate(&self) -> Result<Vec<Migration>> {
        during("migrate", self.migrate_to_newest().await)
    }
}
