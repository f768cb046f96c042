//! Upkeep: one bounded round over all named queues, and the outboxes.

use windlass_core::{At, Filter, QueueName, Result, Sweep, Swept};

use crate::backend::RedisBackend;
use crate::link::Arguments;
use crate::script::Script;
use crate::{envelope, reply};

/// Jobs of each sort that one call of the script touches: more would hold other clients up for longer than a millisecond
/// or two.
const PAGE: u64 = 200;
/// Calls for one named queue within a round.
const CALLS: usize = 8;
/// Jobs that are taken from an outbox at a time.
const RELAYED: usize = 100;

/// What a round may still do.
struct Left {
    promote: u64,
    reclaim: u64,
    prune: u64,
}

/// What one call of the script did.
struct Page {
    promoted: u64,
    ended: u64,
    pruned: u64,
    more: bool,
    outbox: bool,
    now: u64,
}

impl RedisBackend {
    pub(crate) async fn sweep_all(&self, sweep: Sweep, at: At) -> Result<Swept> {
        Filter::validate_page(sweep.limit)?;
        let time = self.shared.time(at).await?;
        let limit = u64::try_from(sweep.limit).unwrap_or(PAGE);
        let mut left = Left { promote: limit, reclaim: limit, prune: limit };
        let mut swept = Swept::default();
        let mut now = 0;
        for queue in self.shared.all_queues().await? {
            for call in 1..=CALLS {
                let asked = Left {
                    promote: left.promote.min(PAGE),
                    reclaim: left.reclaim.min(PAGE),
                    prune: left.prune.min(PAGE),
                };
                let page = self.sweep_page(&queue, &asked, &time, &mut swept).await?;
                now = now.max(page.now);
                left.promote -= page.promoted.min(left.promote);
                left.reclaim -= page.ended.min(left.reclaim);
                left.prune -= page.pruned.min(left.prune);
                if page.outbox {
                    swept.relayed += self.relay(&queue, &time).await?;
                }
                // A full page of something of which more is allowed: there may be more.
                let full = |did: u64, asked: u64| asked > 0 && did >= asked;
                let again = page.more
                    || full(page.promoted, asked.promote)
                    || full(page.ended, asked.reclaim)
                    || full(page.pruned, asked.prune);
                if !again {
                    break;
                }
                swept.more |= call == CALLS;
                if left.promote == 0 && left.reclaim == 0 && left.prune == 0 {
                    break;
                }
            }
        }
        swept.more |= left.promote == 0 || left.reclaim == 0 || left.prune == 0;
        self.forget_old_controls(now).await?;
        Ok(swept)
    }

    async fn sweep_page(
        &self,
        queue: &QueueName,
        asked: &Left,
        time: &str,
        swept: &mut Swept,
    ) -> Result<Page> {
        let retention = self.shared.options.retention;
        let mut arguments = Arguments::new(time, &self.shared.keep);
        arguments.number(asked.promote).number(asked.reclaim).number(asked.prune);
        for keep in [retention.completed, retention.cancelled, retention.dead] {
            arguments.number(envelope::millis(keep.age));
        }
        let answer = reply::array(self.shared.call(Script::Sweep, queue, &arguments).await?)?;
        let field = |at: usize| reply::at(&answer, at).and_then(reply::number);
        let (promoted, reclaimed, cancelled, buried, pruned) =
            (field(0)?, field(1)?, field(2)?, field(3)?, field(4)?);
        swept.promoted += promoted;
        swept.reclaimed += reclaimed;
        swept.cancelled += cancelled;
        swept.buried += buried;
        swept.pruned += pruned;
        Ok(Page {
            promoted,
            ended: reclaimed + cancelled + buried,
            pruned,
            more: field(5)? > 0,
            outbox: field(6)? > 0,
            now: field(7)?,
        })
    }

    /// Forgets what sessions that are long gone never heard.
    async fn forget_old_controls(&self, now: u64) -> Result<()> {
        const TWO_DAYS: u64 = 2 * 24 * 60 * 60 * 1_000;
        let Some(old) = now.checked_sub(TWO_DAYS) else { return Ok(()) };
        let mut command = redis::cmd("ZREMRANGEBYSCORE");
        command.arg(&*self.shared.keys.control).arg("-inf").arg(old);
        self.shared.route.send(&self.shared.keys.control, &command).await.map(drop)
    }

    /// Pushes what stands in a queue's outbox into the queues it is for, at least once: ids absorb a repeat. Returns how
    /// many.
    pub(crate) async fn relay(&self, queue: &QueueName, time: &str) -> Result<u64> {
        let mut relayed = 0;
        loop {
            let mut arguments = Arguments::new(time, &self.shared.keep);
            arguments.push("read").count(RELAYED);
            let answer = reply::array(self.shared.call(Script::Outbox, queue, &arguments).await?)?;
            let mut entries = Vec::with_capacity(answer.len());
            for entry in &answer {
                entries.push(Entry::read(reply::bytes(entry)?)?);
            }
            let (Some(first), Some(last)) = (entries.first(), entries.last()) else { return Ok(relayed) };
            let mut rest = &entries[..];
            while let Some(entry) = rest.first() {
                let run = rest.iter().take_while(|other| other.queue == entry.queue).count();
                let (now, later) = rest.split_at(run);
                let riders: Vec<_> =
                    now.iter().map(|entry| (entry.id, entry.body, entry.due.clone())).collect();
                self.push_riders(&entry.queue, &riders, time).await?;
                rest = later;
            }
            let mut arguments = Arguments::new(time, &self.shared.keep);
            arguments.push("done").number(first.number).number(last.number);
            self.shared.call(Script::Outbox, queue, &arguments).await?;
            relayed += u64::try_from(entries.len()).unwrap_or(0);
            if entries.len() < RELAYED {
                return Ok(relayed);
            }
        }
    }
}

/// A job in an outbox: number u48, named queue with its length u8 before it, id, due f64, body.
struct Entry<'a> {
    number: u64,
    queue: QueueName,
    id: &'a [u8],
    body: &'a [u8],
    due: String,
}

impl<'a> Entry<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self> {
        Self::parts(bytes).ok_or_else(|| {
            windlass_core::Error::new(windlass_core::ErrorKind::Decode, "a job in an outbox cannot be read")
        })
    }

    fn parts(bytes: &'a [u8]) -> Option<Self> {
        let (number, rest) = bytes.split_at_checked(6)?;
        let mut wide = [0; 8];
        wide[2..].copy_from_slice(number);
        let (length, rest) = rest.split_first()?;
        let (queue, rest) = rest.split_at_checked(usize::from(*length))?;
        let (id, rest) = rest.split_at_checked(16)?;
        let (due, body) = rest.split_first_chunk::<8>()?;
        Some(Self {
            number: u64::from_be_bytes(wide),
            queue: QueueName::new(std::str::from_utf8(queue).ok()?).ok()?,
            id,
            body,
            due: format!("t{:.0}", f64::from_be_bytes(*due)),
        })
    }
}
