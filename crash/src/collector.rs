//! Listens to the processes and keeps what they say, and gives them orders.

use std::fs::File;
use std::io::{BufRead as _, BufReader, BufWriter, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result};

use crate::journal::Journal;
use crate::points::Order;
use crate::wire::Event;

/// The collector. Its threads end with the processes they listen to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Collector {
    heard: Arc<Mutex<Heard>>,
}

#[derive(Debug, Default)]
struct Heard {
    journal: Journal,
    /// The way to each member that has come in.
    orders: Vec<Option<UnixStream>>,
    /// Everything as it came, for people.
    log: Option<BufWriter<File>>,
}

impl Collector {
    /// Listens at `path`, and writes down what comes in `log`, when one is wanted.
    pub(crate) fn listen(path: &Path, log: Option<&Path>) -> Result<Self> {
        let listener = UnixListener::bind(path).context("cannot listen for the processes")?;
        let collector = Self::default();
        if let Some(log) = log {
            collector.lock().log = Some(BufWriter::new(File::create(log)?));
        }
        let listening = collector.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let collector = listening.clone();
                std::thread::spawn(move || collector.hear(stream));
            }
        });
        Ok(collector)
    }

    fn lock(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was heard so far.
    pub(crate) fn with<T>(&self, look: impl FnOnce(&mut Journal) -> T) -> T {
        look(&mut self.lock().journal)
    }

    /// Expects another member, and gives it its number.
    pub(crate) fn expect(&self) -> usize {
        let mut heard = self.lock();
        heard.journal.members.push(crate::journal::Member::default());
        heard.orders.push(None);
        heard.orders.len() - 1
    }

    /// Orders a member to do something. Whether it could be told.
    pub(crate) fn order(&self, member: usize, order: Order) -> bool {
        let mut heard = self.lock();
        let Some(Some(stream)) = heard.orders.get_mut(member) else { return false };
        stream.write_all(format!("{order}\n").as_bytes()).is_ok()
    }

    /// Hears one process out.
    fn hear(&self, stream: UnixStream) {
        let orders = stream.try_clone().ok();
        let mut reader = BufReader::with_capacity(64 * 1024, stream);
        let mut line = String::new();
        let Some(member) = reader.read_line(&mut line).ok().and_then(|_| line.trim().parse::<usize>().ok())
        else {
            return;
        };
        if let Some(place) = self.lock().orders.get_mut(member) {
            *place = orders;
        } else {
            return;
        }
        let mut events = Vec::new();
        loop {
            line.clear();
            let read = reader.read_line(&mut line).unwrap_or(0);
            // A last line without an end was cut by a kill in the middle of it: it was not said.
            let whole = line.ends_with('\n');
            if whole {
                events.push((line.clone(), Event::read(line.trim_end())));
            }
            // What waits in the buffer comes with the next ones.
            if read == 0 || reader.buffer().is_empty() || events.len() >= 256 {
                self.take_in(member, &mut events);
            }
            if read == 0 {
                break;
            }
        }
        let mut heard = self.lock();
        heard.journal.members[member].closed = true;
        heard.orders[member] = None;
    }

    fn take_in(&self, member: usize, events: &mut Vec<(String, Option<(u64, Event)>)>) {
        let mut heard = self.lock();
        for (line, event) in events.drain(..) {
            if let Some(log) = &mut heard.log {
                // The log is for people; the run does not hang on it.
                let _ = write!(log, "{member} {line}");
            }
            match event {
                Some((at, event)) => heard.journal.hear(member, at, event),
                None => {
                    heard.journal.object("errors", format!("process {member} said `{}`", line.trim_end()));
                }
            }
        }
        if let Some(log) = &mut heard.log {
            let _ = log.flush();
        }
    }
}
