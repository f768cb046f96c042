//! The mutable half of a job, as `lua/job.lua` writes it: read here, never written.

use windlass_core::{
    Body, DeadReason, Error, ErrorKind, Failure, Finished, JobId, LogLine, Nonce, Progress, QueueName,
    Record, RecordState, Result, SessionId, StateKind, Timestamp, WhyBlocked, WhyScheduled,
};

use crate::envelope;

const SUSPECT: u8 = 1;
const CANCEL: u8 = 2;
/// Bytes before the tail.
const HEAD: usize = 50;
/// Bytes of the record of a Running job: the tail is session, end of the lease f64, batch u48.
const RUNNING: usize = HEAD + 30;

/// A record, taken apart.
#[derive(Debug)]
pub(crate) struct Raw<'a> {
    state: u8,
    how: u8,
    flags: u8,
    pub(crate) epoch: u64,
    pub(crate) generation: u32,
    pub(crate) attempts: u16,
    pub(crate) lost: u16,
    time: f64,
    tail: &'a [u8],
}

impl<'a> Raw<'a> {
    /// The record of a fresh job that was just claimed, to start or ahead.
    pub(crate) fn claimed(started: bool) -> Self {
        Self {
            state: b'X',
            how: if started { b'1' } else { b'0' },
            flags: 0,
            epoch: 1,
            generation: 0,
            attempts: 0,
            lost: 0,
            time: 0.0,
            tail: &[],
        }
    }

    /// Takes a record apart; an empty one is that of a fresh job that is Ready.
    pub(crate) fn read(record: &'a [u8]) -> Result<Self> {
        if record.is_empty() {
            return Ok(Self {
                state: b'R',
                how: b'm',
                flags: 0,
                epoch: 0,
                generation: 0,
                attempts: 0,
                lost: 0,
                time: 0.0,
                tail: &[],
            });
        }
        let Some((head, tail)) = record.split_at_checked(HEAD) else { return Err(damaged(record.len())) };
        let mut epoch = [0; 8];
        epoch[2..].copy_from_slice(&head[4..10]);
        let mut time = [0; 8];
        time.copy_from_slice(&head[42..50]);
        Ok(Self {
            state: head[0],
            how: head[1],
            flags: head[2],
            epoch: u64::from_be_bytes(epoch),
            generation: u32::from_be_bytes([head[26], head[27], head[28], head[29]]),
            attempts: u16::from_be_bytes([head[30], head[31]]),
            lost: u16::from_be_bytes([head[32], head[33]]),
            time: f64::from_be_bytes(time),
            tail,
        })
    }

    pub(crate) fn suspect(&self) -> bool {
        self.flags & SUSPECT != 0
    }

    /// Whether the handler of a Running job is known to have started.
    pub(crate) fn started(&self) -> bool {
        self.how == b'1'
    }

    fn time(&self) -> Timestamp {
        whole_millis(self.time)
    }

    fn damaged(&self) -> Error {
        Error::new(
            ErrorKind::Decode,
            format!("a stored record is damaged: state {:#04x}/{:#04x}", self.state, self.how),
        )
    }

    fn output(&self) -> Option<Box<[u8]>> {
        match self.tail {
            [b'1', output @ ..] => Some(output.into()),
            _ => None,
        }
    }

    /// The job that took the place of a Cancelled one, and the reason.
    fn cancelled(&self) -> Result<(Option<JobId>, String)> {
        let Some((successor, reason)) = self.tail.split_at_checked(16) else { return Err(self.damaged()) };
        let successor = uuid::Uuid::from_slice(successor).map_err(|_| self.damaged())?;
        Ok((JobId::from_uuid(successor).ok(), String::from_utf8_lossy(reason).into_owned()))
    }

    fn dead(&self) -> Result<DeadReason> {
        match self.how {
            b'a' => Ok(DeadReason::AttemptsExhausted),
            b'b' => Ok(DeadReason::Buried),
            b'p' => Ok(DeadReason::Poison),
            b'u' => Ok(DeadReason::Undecodable),
            _ => Err(self.damaged()),
        }
    }

    fn state(&self) -> Result<RecordState> {
        Ok(match self.state {
            b'B' => {
                let why = match (self.how, self.tail) {
                    (b'p', [a, b, c, d, ..]) => WhyBlocked::Parents(u32::from_be_bytes([*a, *b, *c, *d])),
                    (b'l', _) => WhyBlocked::Limit,
                    (b'u', _) => WhyBlocked::Unique,
                    _ => return Err(self.damaged()),
                };
                RecordState::Blocked { why }
            }
            b'S' => {
                let why = match self.how {
                    b'd' => WhyScheduled::Delay,
                    b'r' => WhyScheduled::Retry,
                    b'z' => WhyScheduled::Snooze,
                    _ => return Err(self.damaged()),
                };
                RecordState::Scheduled { due: self.time(), why }
            }
            b'R' => RecordState::Ready { parked: self.how == b'p' },
            b'X' => {
                let (Some((session, rest)), RUNNING) =
                    (self.tail.split_first_chunk::<16>(), HEAD + self.tail.len())
                else {
                    return Err(self.damaged());
                };
                let until = rest.first_chunk::<8>().ok_or_else(|| self.damaged())?;
                RecordState::Running {
                    session: SessionId::from_u128(u128::from_be_bytes(*session)),
                    since: self.time(),
                    lease_until: whole_millis(f64::from_be_bytes(*until)),
                    started: self.started(),
                    cancel_requested: self.flags & CANCEL != 0,
                }
            }
            b'C' => RecordState::Completed { at: self.time(), output: self.output() },
            b'K' => {
                let (superseded_by, reason) = self.cancelled()?;
                RecordState::Cancelled { at: self.time(), reason, superseded_by }
            }
            b'D' => RecordState::Dead { at: self.time(), reason: self.dead()? },
            _ => return Err(self.damaged()),
        })
    }

    /// How the job ended, if it has.
    pub(crate) fn finished(&self, codec: u8, error: Option<&[u8]>) -> Result<Option<Finished>> {
        Ok(match self.state {
            b'C' => Some(Finished::Completed { output: self.output(), codec }),
            b'K' => Some(Finished::Cancelled { reason: self.cancelled()?.1 }),
            b'D' => Some(Finished::Dead { reason: self.dead()?, error: error.map(failure) }),
            _ => None,
        })
    }
}

/// What a job has said beside its record.
#[derive(Default)]
pub(crate) struct Said<'a> {
    pub(crate) error: Option<&'a [u8]>,
    pub(crate) progress: Option<&'a [u8]>,
    pub(crate) log: Option<&'a [u8]>,
}

/// The whole record of a job.
pub(crate) fn whole(
    id: JobId,
    queue: &QueueName,
    body: &[u8],
    record: &[u8],
    said: &Said<'_>,
) -> Result<Record> {
    let (created_at, body): (Timestamp, Body) = envelope::read(body, id, queue)?;
    let raw = Raw::read(record)?;
    Ok(Record {
        state: raw.state()?,
        body: body.into(),
        created_at,
        attempts: raw.attempts,
        lost_leases: raw.lost,
        generation: raw.generation,
        epoch: raw.epoch,
        last_error: said.error.map(failure),
        progress: said.progress.and_then(progress),
        log: log(said.log.unwrap_or_default()),
    })
}

/// The letter of a reason.
///
/// # Errors
/// [`ErrorKind::Unsupported`] for one that this engine does not know.
pub(crate) fn dead_letter(reason: DeadReason) -> Result<u8> {
    match reason {
        DeadReason::AttemptsExhausted => Ok(b'a'),
        DeadReason::Buried => Ok(b'b'),
        DeadReason::Poison => Ok(b'p'),
        DeadReason::Undecodable => Ok(b'u'),
        other => {
            Err(Error::new(ErrorKind::Unsupported, format!("the reason {other:?} is newer than this engine")))
        }
    }
}

/// The state of a letter in an answer.
pub(crate) fn state_of(letter: u8) -> Result<StateKind> {
    Ok(match letter {
        b'B' => StateKind::Blocked,
        b'S' => StateKind::Scheduled,
        b'R' => StateKind::Ready,
        b'X' => StateKind::Running,
        b'C' => StateKind::Completed,
        b'K' => StateKind::Cancelled,
        b'D' => StateKind::Dead,
        _ => {
            return Err(Error::new(ErrorKind::Decode, format!("{letter:#04x} stands for no state of a job")));
        }
    })
}

/// An instant that a script wrote as text.
pub(crate) fn instant(text: &[u8]) -> Result<Timestamp> {
    let millis = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
    millis.map(Timestamp::from_millis).ok_or_else(|| {
        Error::new(ErrorKind::Decode, format!("no instant: {:?}", String::from_utf8_lossy(text)))
    })
}

pub(crate) fn nonce_bytes(nonce: Nonce) -> [u8; 16] {
    nonce.as_u128().to_be_bytes()
}

#[expect(clippy::cast_possible_truncation, reason = "whole milliseconds, written from whole milliseconds")]
fn whole_millis(written: f64) -> Timestamp {
    Timestamp::from_millis(written as i64)
}

fn damaged(length: usize) -> Error {
    Error::new(ErrorKind::Decode, format!("a stored record is damaged: it has {length} bytes"))
}

fn failure(stored: &[u8]) -> Failure {
    let (panicked, text) = stored.split_first().unwrap_or((&b'0', &[]));
    let text = String::from_utf8_lossy(text);
    if *panicked == b'1' { Failure::panic(&text) } else { Failure::new(&text) }
}

fn progress(stored: &[u8]) -> Option<Progress> {
    let (percent, note) = stored.split_first()?;
    Some(Progress::new(*percent, &String::from_utf8_lossy(note)))
}

/// Lines, each with its time and its length before it. What is damaged at the end is left out: it is for people.
fn log(mut stored: &[u8]) -> Vec<LogLine> {
    let mut lines = Vec::new();
    while let Some((head, rest)) = stored.split_first_chunk::<10>() {
        let mut time = [0; 8];
        time.copy_from_slice(&head[..8]);
        let length = usize::from(u16::from_be_bytes([head[8], head[9]]));
        let Some((text, rest)) = rest.split_at_checked(length) else { break };
        stored = rest;
        let at = whole_millis(f64::from_be_bytes(time));
        lines.push(LogLine { at, text: String::from_utf8_lossy(text).into() });
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A record of the first release: Running, started, no flags, priority 5, claimed once.
    fn running() -> Vec<u8> {
        let mut record = b"X1\x00\x50\x00\x00\x00\x00\x00\x01".to_vec();
        record.extend([7; 16]);
        record.extend(b"\x00\x00\x00\x02\x00\x03\x00\x01");
        record.extend(4.0_f64.to_be_bytes());
        record.extend(1_893_456_000_000.0_f64.to_be_bytes());
        record.extend([9; 16]);
        record.extend(1_893_456_030_000.0_f64.to_be_bytes());
        record.extend([0, 0, 0, 0, 0, 1]);
        record
    }

    #[test]
    fn a_stored_record_of_the_first_release_is_read() {
        let record = running();
        let raw = Raw::read(&record).expect("a record");
        assert_eq!((raw.epoch, raw.generation, raw.attempts, raw.lost), (1, 2, 3, 1));
        let RecordState::Running { session, since, lease_until, started, cancel_requested } =
            raw.state().expect("a state")
        else {
            panic!("not running");
        };
        assert_eq!(session.as_u128().to_be_bytes(), [9; 16]);
        assert_eq!((since, started, cancel_requested), (Timestamp::VIRTUAL_START, true, false));
        assert_eq!(lease_until.as_millis(), 1_893_456_030_000);
    }

    #[test]
    fn damage_is_an_error_and_no_panic() {
        let record = running();
        for cut in 1..record.len() {
            let read = Raw::read(&record[..cut]).and_then(|raw| raw.state());
            assert_eq!(read.expect_err("it is cut short").kind(), ErrorKind::Decode, "{cut}");
        }
        for at in 0..record.len() {
            let mut bad = record.clone();
            bad[at] ^= 0xff;
            drop(Raw::read(&bad).and_then(|raw| raw.state()));
        }
        assert!(instant(b"soon").is_err() && state_of(b'?').is_err());
        assert!(log(b"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x09short").is_empty());
    }
}
