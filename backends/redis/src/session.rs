//! What a session says while it runs jobs: extend, annotate, hand back.

use std::time::Duration;

use windlass_core::limits::BATCH_MAX;
use windlass_core::{At, Claim, Error, ErrorKind, Held, Kept, Nonce, Note, QueueName, Result, SessionId};

use crate::backend::RedisBackend;
use crate::keys::session_bytes;
use crate::link::Arguments;
use crate::push::by_queue;
use crate::record::nonce_bytes;
use crate::script::Script;
use crate::work::fence;
use crate::{envelope, reply};

/// Notes of one call of the script: each may carry a hundred lines.
const NOTES_A_CALL: usize = 100;

impl RedisBackend {
    pub(crate) async fn extend_all(
        &self,
        session: SessionId,
        held: &[Held],
        lease: Duration,
        at: At,
    ) -> Result<Vec<Kept>> {
        Claim::validate_lease(lease)?;
        if held.len() > BATCH_MAX {
            let text = format!("extend of {} jobs in one call: at most {BATCH_MAX}", held.len());
            return Err(Error::invalid(text));
        }
        let time = self.shared.time(at).await?;
        // Before the leases are looked at: what is asked later is said again.
        self.take_control(session).await?;
        let mut answers = vec![Kept::Lost; held.len()];
        for (queue, places) in by_queue(held, |held| &held.lease.job.queue) {
            let mut arguments = Arguments::new(&time, &self.shared.keep);
            arguments.push(session_bytes(session)).number(envelope::millis(lease)).count(places.len());
            for place in &places {
                arguments.push(held[*place].lease.job.id.as_uuid().as_bytes());
            }
            for place in &places {
                let mut fence = fence(&held[*place].lease);
                fence.push(if held[*place].started { b'1' } else { b'0' });
                arguments.push(fence);
            }
            let answer = self.shared.call(Script::Extend, queue, &arguments).await?;
            let letters = reply::bytes(&answer)?;
            for (place, letter) in places.iter().zip(letters) {
                answers[*place] = match letter {
                    b'K' => Kept::Kept,
                    b'C' => Kept::CancelRequested,
                    _ => Kept::Lost,
                };
            }
        }
        Ok(answers)
    }

    /// Whether the session has something to hear; it is said once.
    pub(crate) async fn take_control(&self, session: SessionId) -> Result<bool> {
        let mut command = redis::cmd("ZREM");
        command.arg(&*self.shared.keys.control).arg(&session_bytes(session)[..]);
        Ok(reply::number(&self.shared.route.send(&self.shared.keys.control, &command).await?)? > 0)
    }

    pub(crate) async fn hand_back_all(
        &self,
        session: SessionId,
        nonce: Option<Nonce>,
        at: At,
    ) -> Result<usize> {
        let time = self.shared.time(at).await?;
        let mut handed = 0;
        for queue in self.shared.all_queues().await? {
            let mut cursor = "0".to_owned();
            loop {
                if handed >= BATCH_MAX {
                    return Ok(handed);
                }
                let (given, next) =
                    self.hand_back_page(&queue, session, nonce, &cursor, BATCH_MAX - handed, &time).await?;
                handed += given;
                if next == "0" {
                    break;
                }
                cursor = next;
            }
        }
        Ok(handed)
    }

    async fn hand_back_page(
        &self,
        queue: &QueueName,
        session: SessionId,
        nonce: Option<Nonce>,
        cursor: &str,
        most: usize,
        time: &str,
    ) -> Result<(usize, String)> {
        let mut arguments = Arguments::new(time, &self.shared.keep);
        arguments.push(session_bytes(session));
        match nonce {
            None => arguments.push(""),
            Some(nonce) => arguments.push(nonce_bytes(nonce)),
        };
        arguments.push(cursor).count(most);
        let answer = reply::array(self.shared.call(Script::HandBack, queue, &arguments).await?)?;
        let given = reply::number(reply::at(&answer, 0)?)?;
        let next = String::from_utf8_lossy(reply::bytes(reply::at(&answer, 1)?)?).into_owned();
        Ok((usize::try_from(given).unwrap_or(usize::MAX), next))
    }

    pub(crate) async fn annotate_all(&self, notes: &[Note], at: At) -> Result<Vec<bool>> {
        let time = self.shared.time(at).await?;
        let mut answers = vec![false; notes.len()];
        for (queue, places) in by_queue(notes, |note| &note.lease.job.queue) {
            for places in places.chunks(NOTES_A_CALL) {
                let mut arguments = Arguments::new(&time, &self.shared.keep);
                arguments.count(places.len());
                for place in places {
                    add_note(&mut arguments, &notes[*place]);
                }
                let answer = self.shared.call(Script::Annotate, queue, &arguments).await?;
                let letters = reply::bytes(&answer)?;
                if letters.len() != places.len() {
                    return Err(Error::new(ErrorKind::Unexpected, "an answer for each note").effect_unknown());
                }
                for (place, letter) in places.iter().zip(letters) {
                    answers[*place] = *letter == b'Y';
                }
            }
        }
        Ok(answers)
    }
}

fn add_note(arguments: &mut Arguments, note: &Note) {
    let mut progress = Vec::new();
    if let Some(said) = &note.progress {
        progress.push(said.percent);
        progress.extend_from_slice(said.note.as_bytes());
    }
    let mut lines = Vec::new();
    // Older ones would not be kept.
    let surplus = note.log.len().saturating_sub(windlass_core::limits::LOG_LINES_MAX);
    for line in &note.log[surplus..] {
        let text = windlass_core::limits::clip(line, windlass_core::limits::LOG_LINE_MAX_BYTES);
        lines.extend_from_slice(&u16::try_from(text.len()).unwrap_or(u16::MAX).to_be_bytes());
        lines.extend_from_slice(text.as_bytes());
    }
    arguments
        .push(note.lease.job.id.as_uuid().as_bytes())
        .push(fence(&note.lease))
        .push(progress)
        .push(lines);
}
