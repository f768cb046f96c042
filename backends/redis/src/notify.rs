//! What the server tells of its own accord: that there may be work, that jobs ended, that a session has something to hear.
//!
//! One connection for the process, opened by the first that waits, hears the messages and hands them to all who wait.
//! Messages can be lost with the connection, so its end is itself a message: look again.

use std::collections::HashSet;
use std::sync::{Arc, Weak};
use std::time::Duration;

use redis::{PushInfo, PushKind, Value};
use tokio::sync::{Mutex, broadcast};
use windlass_core::Result;

use crate::link::{Link, Open};
use crate::options::RedisOptions;
use crate::route::Route;

/// How often a silent connection is asked whether it still lives.
const PING_EVERY: Duration = Duration::from_secs(5);
/// Messages that whoever waits may fall behind; beyond that it looks again.
const BACKLOG: usize = 1_024;

/// Something was told.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// A message on a channel.
    Message { channel: Arc<str>, payload: Arc<[u8]> },
    /// Messages may have been lost.
    Lost,
}

/// The listening connection.
#[derive(Debug)]
pub(crate) struct Notify {
    options: RedisOptions,
    link: Arc<Link>,
    events: broadcast::Sender<Event>,
    /// What the connection listens to.
    listening: Mutex<Listening>,
}

#[derive(Default)]
struct Listening {
    on: Option<Weak<Open>>,
    channels: HashSet<Box<str>>,
}

impl std::fmt::Debug for Listening {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Listening").field("channels", &self.channels).finish_non_exhaustive()
    }
}

impl Notify {
    pub(crate) fn new(options: &RedisOptions) -> Result<Self> {
        let events = broadcast::Sender::new(BACKLOG);
        let told = events.clone();
        let listener = move |push: Option<PushInfo>| {
            // Nobody may be waiting.
            drop(match push {
                None => told.send(Event::Lost),
                Some(push) => match message(push) {
                    Some(event) => told.send(event),
                    None => return,
                },
            });
        };
        let link = Arc::new(Link::listening(options, Arc::new(listener))?);
        Ok(Self { options: options.clone(), link, events, listening: Mutex::default() })
    }

    /// Listens to these channels and says what is told from now on.
    pub(crate) async fn listen(
        &self,
        route: &Route,
        channels: &[&str],
    ) -> Result<broadcast::Receiver<Event>> {
        let events = self.events.subscribe();
        let mut listening = self.listening.lock().await;
        let open = match (self.link.open().await, route.some_node()) {
            (Ok(open), _) => open,
            (Err(error), None) => return Err(error),
            (Err(_), Some(other)) => {
                // Every node of a cluster hears every message.
                self.link.aim(&self.options, &other)?;
                self.link.open().await?
            }
        };
        if !listening.on.as_ref().and_then(Weak::upgrade).is_some_and(|on| Arc::ptr_eq(&on, &open)) {
            listening.on = Some(Arc::downgrade(&open));
            listening.channels.clear();
            tokio::spawn(keep_alive(Arc::downgrade(&self.link), Arc::downgrade(&open)));
        }
        let new: Vec<&str> =
            channels.iter().copied().filter(|channel| !listening.channels.contains(*channel)).collect();
        if !new.is_empty() {
            if let Err(failed) = open.connection.clone().subscribe(&new[..]).await {
                self.link.forget(&open);
                return Err(crate::error::read(&failed, false).0);
            }
            listening.channels.extend(new.into_iter().map(Box::from));
        }
        Ok(events)
    }
}

/// Asks a connection from time to time whether it lives: one whose other end vanished without a word is silent for ever.
async fn keep_alive(link: Weak<Link>, open: Weak<Open>) {
    loop {
        tokio::time::sleep(PING_EVERY).await;
        let (Some(link), Some(open)) = (link.upgrade(), open.upgrade()) else { return };
        if link.send_on(&open, &redis::cmd("PING"), false).await.is_err() {
            link.forget(&open);
            link.say_lost();
            return;
        }
    }
}

fn message(push: PushInfo) -> Option<Event> {
    if push.kind != PushKind::Message {
        return None;
    }
    let [channel, payload]: [Value; 2] = push.data.try_into().ok()?;
    let (Value::BulkString(channel), Value::BulkString(payload)) = (channel, payload) else { return None };
    Some(Event::Message { channel: String::from_utf8(channel).ok()?.into(), payload: payload.into() })
}
