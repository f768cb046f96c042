//! What processes tell the collector: a short line an event, written to the socket before the process goes on. What is in
//! the socket outlives its writer.
//!
//! Instants are of the machine's monotonic clock, which all processes share, so the order of two events of two processes
//! is known whenever one's instant was read after the other's.

use std::io::{self, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use windlass_core::{DeadReason, JobId, Ruling, Settled, StateKind};

/// An instant of the monotonic clock, in nanoseconds.
pub(crate) type Stamp = u64;

/// Now, by the clock that all processes of the machine share.
pub(crate) fn now() -> Stamp {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

/// What a handler is about to answer, and what a worker rules.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Word {
    Complete,
    Retry,
    Snooze,
    Cancel,
    Bury,
    Exhausted,
    Release,
}

impl Word {
    const ALL: [(Self, char); 7] = [
        (Self::Complete, 'c'),
        (Self::Retry, 'r'),
        (Self::Snooze, 'z'),
        (Self::Cancel, 'x'),
        (Self::Bury, 'b'),
        (Self::Exhausted, 'd'),
        (Self::Release, 'l'),
    ];

    pub(crate) fn of(ruling: &Ruling) -> Self {
        match ruling {
            Ruling::Complete { .. } => Self::Complete,
            Ruling::Retry { .. } => Self::Retry,
            Ruling::Snooze { .. } => Self::Snooze,
            Ruling::Cancel { .. } => Self::Cancel,
            Ruling::Bury { reason: DeadReason::AttemptsExhausted, .. } => Self::Exhausted,
            Ruling::Bury { .. } => Self::Bury,
            Ruling::Release => Self::Release,
        }
    }

    /// Whether it ends the job.
    pub(crate) fn is_final(self) -> bool {
        matches!(self, Self::Complete | Self::Cancel | Self::Bury | Self::Exhausted)
    }

    /// Whether it counts an attempt.
    pub(crate) fn counts(self) -> bool {
        !matches!(self, Self::Snooze | Self::Release)
    }

    fn letter(self) -> char {
        Self::ALL.iter().find(|(word, _)| *word == self).map_or('?', |(_, letter)| *letter)
    }
}

/// What an engine said of a verdict.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Answer {
    Applied,
    Already,
    Refused,
}

impl Answer {
    const ALL: [(Self, char); 3] = [(Self::Applied, 'A'), (Self::Already, 'D'), (Self::Refused, 'L')];

    pub(crate) fn of(settled: Settled) -> Self {
        match settled {
            Settled::Applied(_) => Self::Applied,
            Settled::AlreadyApplied => Self::Already,
            Settled::LeaseLost => Self::Refused,
        }
    }
}

/// What an engine said of a dispatch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ack {
    Inserted,
    Same,
    Conflict,
    Superseded,
}

impl Ack {
    const ALL: [(Self, char); 4] =
        [(Self::Inserted, 'I'), (Self::Same, 'S'), (Self::Conflict, 'C'), (Self::Superseded, 'U')];

    /// Whether the job is stored then.
    pub(crate) fn is_stored(self) -> bool {
        self != Self::Conflict
    }
}

fn letter_of<T: PartialEq>(all: &[(T, char)], value: &T) -> char {
    all.iter().find(|(one, _)| one == value).map_or('?', |(_, letter)| *letter)
}

fn of_letter<T: Copy>(all: &[(T, char)], text: &str) -> Option<T> {
    all.iter().find(|(_, letter)| text.chars().eq([*letter])).map(|(value, _)| *value)
}

/// An event. The lists of the engine's calls are one event, since they are one call.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Event {
    /// It has opened the engine and is about to work.
    Hello,
    /// A claim brought these, with their epochs.
    Claimed(Vec<(JobId, u64)>),
    /// A handler has started.
    Started(JobId, u64),
    /// A handler is about to answer so.
    Ending(JobId, u64, Word),
    /// These verdicts are about to be sent.
    Sending(Vec<(JobId, u64, Word)>),
    /// This is what became of them.
    Answered(Vec<(JobId, u64, Answer)>),
    /// These numbers are about to be dispatched.
    Dispatching(Vec<u64>),
    /// They were, and this is what was said.
    Acknowledged(Vec<(u64, Ack)>),
    /// A transaction of the writer's is about to commit.
    Committing(Vec<u64>),
    /// It kills itself at this point.
    Dying(String),
    /// It stands itself still at this point.
    Freezing(String),
    /// It kills the server at this point.
    Crashing(String),
    /// It stands itself still, about to send verdicts on these, which will linger when they run again.
    Haunting(Vec<(JobId, u64)>),
    /// A beat was without an answer from this instant to now.
    Waited(Stamp),
    /// Something that must not happen.
    Wrong(String),
}

impl Event {
    fn write(&self, at: Stamp) -> String {
        use std::fmt::Write as _;
        let mut line = String::with_capacity(64);
        // Writing to a string cannot fail.
        let mut put = |arguments: std::fmt::Arguments<'_>| {
            let _ = line.write_fmt(arguments);
        };
        match self {
            Self::Hello => put(format_args!("h {at}")),
            Self::Claimed(jobs) => {
                put(format_args!("c {at}"));
                jobs.iter().for_each(|(id, epoch)| put(format_args!(" {}:{epoch}", id.as_uuid().simple())));
            }
            Self::Started(id, epoch) => put(format_args!("s {at} {}:{epoch}", id.as_uuid().simple())),
            Self::Ending(id, epoch, word) => {
                put(format_args!("e {at} {}:{epoch}:{}", id.as_uuid().simple(), word.letter()));
            }
            Self::Sending(verdicts) => {
                put(format_args!("v {at}"));
                for (id, epoch, word) in verdicts {
                    put(format_args!(" {}:{epoch}:{}", id.as_uuid().simple(), word.letter()));
                }
            }
            Self::Answered(answers) => {
                put(format_args!("a {at}"));
                for (id, epoch, answer) in answers {
                    let letter = letter_of(&Answer::ALL, answer);
                    put(format_args!(" {}:{epoch}:{letter}", id.as_uuid().simple()));
                }
            }
            Self::Dispatching(numbers) => {
                put(format_args!("p {at}"));
                numbers.iter().for_each(|number| put(format_args!(" {number}")));
            }
            Self::Acknowledged(acks) => {
                put(format_args!("q {at}"));
                for (number, ack) in acks {
                    put(format_args!(" {number}:{}", letter_of(&Ack::ALL, ack)));
                }
            }
            Self::Committing(numbers) => {
                put(format_args!("w {at}"));
                numbers.iter().for_each(|number| put(format_args!(" {number}")));
            }
            Self::Dying(point) => put(format_args!("k {at} {point}")),
            Self::Freezing(point) => put(format_args!("z {at} {point}")),
            Self::Crashing(point) => put(format_args!("x {at} {point}")),
            Self::Haunting(jobs) => {
                put(format_args!("g {at}"));
                jobs.iter().for_each(|(id, epoch)| put(format_args!(" {}:{epoch}", id.as_uuid().simple())));
            }
            Self::Waited(since) => put(format_args!("b {at} {since}")),
            Self::Wrong(what) => put(format_args!("! {at} {}", what.replace('\n', " "))),
        }
        line.push('\n');
        line
    }

    /// The event of a line, and its instant; `None` for a line that is none.
    pub(crate) fn read(line: &str) -> Option<(Stamp, Self)> {
        let (letter, rest) = line.split_once(' ')?;
        let (at, rest) = rest.split_once(' ').unwrap_or((rest, ""));
        let at = at.parse().ok()?;
        let mut words = rest.split_ascii_whitespace();
        let event = match letter {
            "h" => Self::Hello,
            "c" => Self::Claimed(words.map(|word| Some(lease(word)?.0)).collect::<Option<_>>()?),
            "s" => {
                let ((id, epoch), _) = lease(words.next()?)?;
                Self::Started(id, epoch)
            }
            "e" => {
                let ((id, epoch), word) = lease(words.next()?)?;
                Self::Ending(id, epoch, of_letter(&Word::ALL, word)?)
            }
            "v" => Self::Sending(words.map(|word| fenced(word, &Word::ALL)).collect::<Option<_>>()?),
            "a" => Self::Answered(words.map(|word| fenced(word, &Answer::ALL)).collect::<Option<_>>()?),
            "p" => Self::Dispatching(words.map(|word| word.parse().ok()).collect::<Option<_>>()?),
            "q" => Self::Acknowledged(
                words
                    .map(|word| {
                        let (number, letter) = word.split_once(':')?;
                        Some((number.parse().ok()?, of_letter(&Ack::ALL, letter)?))
                    })
                    .collect::<Option<_>>()?,
            ),
            "w" => Self::Committing(words.map(|word| word.parse().ok()).collect::<Option<_>>()?),
            "k" => Self::Dying(rest.to_owned()),
            "z" => Self::Freezing(rest.to_owned()),
            "x" => Self::Crashing(rest.to_owned()),
            "g" => Self::Haunting(words.map(|word| Some(lease(word)?.0)).collect::<Option<_>>()?),
            "b" => Self::Waited(words.next()?.parse().ok()?),
            "!" => Self::Wrong(rest.to_owned()),
            _ => return None,
        };
        Some((at, event))
    }
}

fn lease(word: &str) -> Option<((JobId, u64), &str)> {
    let (id, rest) = word.split_once(':')?;
    let (epoch, rest) = rest.split_once(':').unwrap_or((rest, ""));
    Some(((id.parse().ok()?, epoch.parse().ok()?), rest))
}

fn fenced<T: Copy>(word: &str, all: &[(T, char)]) -> Option<(JobId, u64, T)> {
    let ((id, epoch), letter) = lease(word)?;
    Some((id, epoch, of_letter(all, letter)?))
}

/// The way to the collector.
#[derive(Debug)]
pub(crate) struct Teller {
    stream: Mutex<UnixStream>,
}

impl Teller {
    /// Connects, as this member of the fleet. What comes back over the second stream are orders to it.
    pub(crate) fn connect(path: &Path, member: usize) -> io::Result<(Self, UnixStream)> {
        let mut stream = UnixStream::connect(path)?;
        stream.write_all(format!("{member}\n").as_bytes())?;
        let orders = stream.try_clone()?;
        Ok((Self { stream: Mutex::new(stream) }, orders))
    }

    /// Says what happens, before it does. When the collector is gone there is nobody left to work for.
    pub(crate) fn tell(&self, event: &Event) {
        let line = event.write(now());
        let mut stream = self.stream.lock().unwrap_or_else(PoisonError::into_inner);
        if stream.write_all(line.as_bytes()).is_err() {
            std::process::exit(3);
        }
    }
}

/// Whether a stored state is what a word leads to, in the end.
pub(crate) fn leads_to(word: Word, state: StateKind) -> bool {
    matches!(
        (word, state),
        (Word::Complete, StateKind::Completed)
            | (Word::Cancel, StateKind::Cancelled)
            | (Word::Bury | Word::Exhausted, StateKind::Dead)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::id_of;

    #[test]
    fn every_event_is_read_as_it_was_written() {
        let id = JobId::fresh();
        let events = [
            Event::Hello,
            Event::Claimed(vec![(id, 1), (id_of(5), 12)]),
            Event::Started(id, 3),
            Event::Ending(id, 3, Word::Exhausted),
            Event::Sending(vec![(id, 3, Word::Release), (id_of(0), 1, Word::Complete)]),
            Event::Answered(vec![(id, 3, Answer::Refused)]),
            Event::Dispatching(vec![1, 2, 3]),
            Event::Acknowledged(vec![(7, Ack::Same), (8, Ack::Conflict)]),
            Event::Committing(vec![9]),
            Event::Dying("after claim".to_owned()),
            Event::Freezing("in handler".to_owned()),
            Event::Crashing("settling".to_owned()),
            Event::Haunting(vec![(id, 1)]),
            Event::Waited(17),
            Event::Wrong("it broke".to_owned()),
        ];
        for event in events {
            let line = event.write(42);
            assert_eq!(Event::read(line.trim_end()), Some((42, event)));
        }
        for line in ["", "c", "c x", "q 4 7:Z", "v 4 abc:1:c", "? 4"] {
            assert_eq!(Event::read(line), None, "{line}");
        }
    }

    #[test]
    fn the_clock_goes_forward() {
        let before = now();
        assert!(now() >= before && before > 0);
    }
}
