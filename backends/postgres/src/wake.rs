//! How sleepers hear of work: within this process at once, from others by LISTEN on one connection a process, and by looking
//! every now and then whatever else is lost.
//!
//! A NOTIFY is sent after the commit, on a connection of the pool, and not more often than every few milliseconds: one within
//! each caller's transaction would take a lock of the whole server at its commit. Its text is the sender and lines of
//! `w queue`, `c session` or `*`.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::PgPool;
use sqlx::postgres::{PgListener, PgPoolOptions};
use tokio::sync::broadcast;
use tokio::task::AbortHandle;
use tokio::time::Instant;
use uuid::Uuid;

/// Between two notifications of one process.
const TELL_EVERY: Duration = Duration::from_millis(5);
/// Between two looks of one that hears nothing: at first, and at most.
const POLL_FIRST: Duration = Duration::from_millis(20);
const POLL_MOST: Duration = Duration::from_millis(500);
/// Between two looks of one that listens: the net under a lost notification.
const POLL_LISTENING: Duration = Duration::from_secs(1);
/// Until the next try to listen after one failed.
const LISTEN_AGAIN: Duration = Duration::from_secs(1);
/// Lines of one notification. The server takes 8,000 bytes, and a name has up to 128.
const LINES_MOST: usize = 50;

/// What a sleeper may hear.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// Work has come into this queue.
    Work(Arc<str>),
    /// A job of this queue has ended, which rarely sets another free.
    Freed(Arc<str>),
    /// This session has a cancellation to hear of.
    Control(u128),
    /// A job has ended.
    Ended,
    /// Something, somewhere: look.
    Anything,
}

pub(crate) struct Wakes {
    inner: Arc<Inner>,
    listens: bool,
    listener: Mutex<Option<AbortHandle>>,
}

struct Inner {
    pool: PgPool,
    channel: String,
    /// Who this is, to know its own notifications.
    sender: String,
    bell: broadcast::Sender<Event>,
    hears: AtomicBool,
    telling: Mutex<Telling>,
}

#[derive(Default)]
struct Telling {
    lines: BTreeSet<String>,
    under_way: bool,
}

impl Wakes {
    pub(crate) fn new(pool: PgPool, schema: &str, listens: bool) -> Self {
        let inner = Inner {
            pool,
            channel: channel(schema),
            sender: Uuid::new_v4().simple().to_string(),
            bell: broadcast::Sender::new(256),
            hears: AtomicBool::new(false),
            telling: Mutex::default(),
        };
        Self { inner: Arc::new(inner), listens, listener: Mutex::new(None) }
    }

    pub(crate) fn subscribe(&self) -> Bell {
        Bell(self.inner.bell.subscribe())
    }

    /// Rings in this process.
    pub(crate) fn here(&self, event: Event) {
        // Nobody may be listening.
        let _ = self.inner.bell.send(event);
    }

    /// Work has come into a queue.
    pub(crate) fn work(&self, queue: &str) {
        self.here(Event::Work(queue.into()));
        self.tell(format!("w {queue}"));
    }

    /// A session has a cancellation to hear of.
    pub(crate) fn control(&self, session: Uuid) {
        self.here(Event::Control(session.as_u128()));
        self.tell(format!("c {session}"));
    }

    /// Something has changed that is too much to name.
    pub(crate) fn anything(&self) {
        self.here(Event::Anything);
        self.tell("*".to_owned());
    }

    /// Whether notifications of other processes arrive.
    pub(crate) fn hears(&self) -> bool {
        self.inner.hears.load(Ordering::Acquire)
    }

    /// Begins to listen, once, if that is wanted.
    pub(crate) fn listen(&self) {
        if !self.listens {
            return;
        }
        let mut listener = self.listener.lock().unwrap_or_else(PoisonError::into_inner);
        if listener.as_ref().is_none_or(AbortHandle::is_finished) {
            *listener = Some(tokio::spawn(Arc::clone(&self.inner).listen()).abort_handle());
        }
    }

    /// Tells the other processes, together with whatever else there is to tell in the next few milliseconds.
    fn tell(&self, line: String) {
        if !self.listens {
            return;
        }
        let mut telling = self.inner.telling();
        telling.lines.insert(line);
        if !telling.under_way {
            telling.under_way = true;
            tokio::spawn(Arc::clone(&self.inner).tell_all());
        }
    }
}

impl Drop for Wakes {
    fn drop(&mut self) {
        let listener = self.listener.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(listener) = listener.take() {
            listener.abort();
        }
    }
}

impl Inner {
    fn telling(&self) -> std::sync::MutexGuard<'_, Telling> {
        self.telling.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends what there is to tell until there is nothing more.
    async fn tell_all(self: Arc<Self>) {
        loop {
            let lines: Vec<String> = {
                let mut telling = self.telling();
                if telling.lines.is_empty() {
                    telling.under_way = false;
                    return;
                }
                std::mem::take(&mut telling.lines).into_iter().collect()
            };
            let text = if lines.len() > LINES_MOST {
                format!("{}\n*", self.sender)
            } else {
                format!("{}\n{}", self.sender, lines.join("\n"))
            };
            let sent = sqlx::query("select pg_notify($1, $2)")
                .bind(&self.channel)
                .bind(text)
                .execute(&self.pool)
                .await;
            if let Err(error) = sent {
                // A full queue of notifications, a lost connection: the others find the work by looking.
                tracing::debug!(%error, "could not notify");
            }
            tokio::time::sleep(TELL_EVERY).await;
        }
    }

    async fn listen(self: Arc<Self>) {
        loop {
            if let Err(error) = self.hear().await {
                tracing::debug!(%error, "cannot listen for wake-ups; polling");
            }
            self.hears.store(false, Ordering::Release);
            let _ = self.bell.send(Event::Anything);
            tokio::time::sleep(LISTEN_AGAIN).await;
        }
    }

    /// Listens until the connection breaks.
    async fn hear(&self) -> Result<(), sqlx::Error> {
        // A connection beside the pool: it is never given back.
        let options = self.pool.connect_options().as_ref().clone();
        let own = PgPoolOptions::new()
            .max_connections(1)
            .max_lifetime(None)
            .idle_timeout(None)
            .connect_with(options);
        let mut listener = PgListener::connect_with(&own.await?).await?;
        listener.listen(&self.channel).await?;
        self.hears.store(true, Ordering::Release);
        // What was told before is not heard.
        let _ = self.bell.send(Event::Anything);
        while let Some(heard) = listener.try_recv().await? {
            for event in events(heard.payload(), &self.sender) {
                let _ = self.bell.send(event);
            }
        }
        Ok(())
    }
}

/// What a notification says, unless it is one of our own.
fn events(text: &str, own: &str) -> Vec<Event> {
    let mut lines = text.lines();
    if lines.next() == Some(own) {
        return Vec::new();
    }
    let event = |line: &str| match line.split_once(' ') {
        Some(("w", queue)) => Event::Work(queue.into()),
        Some(("c", session)) => {
            Uuid::try_parse(session).map_or(Event::Anything, |session| Event::Control(session.as_u128()))
        }
        _ => Event::Anything,
    };
    lines.map(event).collect()
}

/// The channel of a schema: a name of any length and letters becomes one that is legal. FNV-1a, 64 bits; two schemas on one
/// channel would only wake each other for nothing.
fn channel(schema: &str) -> String {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in schema.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    format!("windlass_{hash:016x}")
}

/// How long until the next look.
pub(crate) struct Pace(Duration);

impl Pace {
    pub(crate) fn new() -> Self {
        Self(POLL_FIRST)
    }

    pub(crate) fn next(&mut self, hears: bool) -> Duration {
        if hears {
            return POLL_LISTENING;
        }
        let now = self.0;
        self.0 = (now * 3 / 2).min(POLL_MOST);
        now
    }
}

/// What is heard from the moment of subscribing on.
pub(crate) struct Bell(broadcast::Receiver<Event>);

impl Bell {
    /// Sleeps until an event that is `wanted`, or until `deadline`. `None` then, or when events were missed, any of which may
    /// have been wanted.
    pub(crate) async fn until(
        &mut self,
        deadline: Instant,
        wanted: impl Fn(&Event) -> bool,
    ) -> Option<Event> {
        let heard = async {
            loop {
                match self.0.recv().await {
                    Ok(event) if !wanted(&event) => {}
                    heard => return heard.ok(),
                }
            }
        };
        tokio::time::timeout_at(deadline, heard).await.ok().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notification_says_what_happened_and_by_whom() {
        let session = Uuid::new_v4();
        let text = format!("me\nw mail\nc {session}\n*\nc nonsense");
        assert!(events(&text, "me").is_empty());
        let heard = events(&text, "you");
        assert!(matches!(&heard[0], Event::Work(queue) if &**queue == "mail"));
        assert!(matches!(heard[1], Event::Control(told) if told == session.as_u128()));
        assert!(heard[2..].iter().all(|event| matches!(event, Event::Anything)) && heard.len() == 4);
    }

    #[test]
    fn a_channel_is_a_legal_name_of_its_own() {
        let (one, other) = (channel("windlass"), channel(&"My \"odd\" schema ".repeat(3)));
        assert!(one != other && one.len() == 25 && other.len() == 25);
    }

    #[test]
    fn looking_slows_down() {
        let mut pace = Pace(POLL_FIRST);
        assert_eq!(pace.next(false), POLL_FIRST);
        for _ in 0..20 {
            pace.next(false);
        }
        assert_eq!((pace.next(false), pace.next(true)), (POLL_MOST, POLL_LISTENING));
    }
}
