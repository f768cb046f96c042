//! Claim and settle: one script a named queue does both.

use std::fmt::Write as _;

use redis::Value;
use windlass_core::{
    At, Claim, Claimed, ClaimedJob, DeadReason, Effect, Error, ErrorKind, Failure, JobId, JobRef, Lease,
    Nonce, QueueName, Result, Ruling, Settled, Timestamp, Verdict,
};

use crate::backend::{RedisBackend, settled};
use crate::link::Arguments;
use crate::push::{by_queue, check_parents, due};
use crate::record::{self, Raw, nonce_bytes};
use crate::script::Script;
use crate::{envelope, keys, reply};

/// How often one claim looks again when all it saw were jobs to move aside: 1,000 of them, 200 a call.
const LOOKS: usize = 5;

/// What is left of a claim.
#[derive(Clone, Copy)]
struct Wanted {
    limit: usize,
    ahead: usize,
    suspects: bool,
}

/// What one call brought.
struct Work {
    now: Timestamp,
    settled: Vec<Settled>,
    jobs: Vec<ClaimedJob>,
    suspect: bool,
    bounded: bool,
    due: Option<Timestamp>,
    outbox: bool,
}

impl RedisBackend {
    pub(crate) async fn claim_all(&self, claim: &Claim, at: At) -> Result<Claimed> {
        self.settle_and_claim_all(&[], claim, at).await.map(|(_, claimed)| claimed)
    }

    pub(crate) async fn settle_all(&self, verdicts: &[Verdict], at: At) -> Result<Vec<Settled>> {
        Verdict::validate_all(verdicts)?;
        verdicts.iter().flat_map(|verdict| &verdict.then).try_for_each(check_parents)?;
        let time = self.shared.time(at).await?;
        let mut answers = vec![Settled::LeaseLost; verdicts.len()];
        let groups = by_queue(verdicts, |verdict| &verdict.lease.job.queue);
        for (done, (queue, places)) in groups.iter().enumerate() {
            let work = self.work(queue, verdicts, places, None, &time).await;
            let work = if done > 0 { work.map_err(Error::effect_unknown)? } else { work? };
            for (at, answer) in places.iter().zip(work.settled) {
                answers[*at] = answer;
            }
        }
        Ok(answers)
    }

    pub(crate) async fn settle_and_claim_all(
        &self,
        verdicts: &[Verdict],
        claim: &Claim,
        at: At,
    ) -> Result<(Vec<Settled>, Claimed)> {
        Verdict::validate_all(verdicts)?;
        verdicts.iter().flat_map(|verdict| &verdict.then).try_for_each(check_parents)?;
        claim.validate()?;
        let time = self.shared.time(at).await?;
        let mut answers = vec![Settled::LeaseLost; verdicts.len()];
        let mut groups = by_queue(verdicts, |verdict| &verdict.lease.job.queue);
        // Verdicts of queues that are not claimed from go first; the others ride with the claims.
        let (with_claim, alone): (Vec<_>, Vec<_>) =
            groups.drain(..).partition(|(queue, _)| claim.queues.contains(queue));
        let mut sent = false;
        let unsure = |sent: bool| move |error: Error| if sent { error.effect_unknown() } else { error };
        for (queue, places) in &alone {
            let work = self.work(queue, verdicts, places, None, &time).await.map_err(unsure(sent))?;
            sent = true;
            for (at, answer) in places.iter().zip(work.settled) {
                answers[*at] = answer;
            }
        }
        let mut wanted = Wanted { limit: claim.limit, ahead: claim.ahead, suspects: claim.suspects };
        let mut claimed = Claimed { jobs: Vec::new(), more: false, wake_at: None, now: Timestamp::MIN };
        let mut met: Vec<&QueueName> = Vec::new();
        'queues: for queue in &claim.queues {
            if met.contains(&queue) {
                continue;
            }
            met.push(queue);
            let empty = Vec::new();
            let mut places =
                with_claim.iter().find(|(other, _)| *other == queue).map_or(&empty, |(_, places)| places);
            for look in 1..=LOOKS {
                let work = match self.work(queue, verdicts, places, Some((claim, wanted)), &time).await {
                    Ok(work) => work,
                    // What other queues gave is not to be lost because this one gave nothing and said so.
                    Err(error)
                        if error.effect() == Effect::NotApplied
                            && places.is_empty()
                            && !claimed.jobs.is_empty() =>
                    {
                        claimed.more = true;
                        continue 'queues;
                    }
                    Err(error) => return Err(unsure(sent)(error)),
                };
                sent = true;
                for (at, answer) in places.iter().zip(work.settled) {
                    answers[*at] = answer;
                }
                places = &empty;
                let found = work.jobs.len();
                claimed.now = claimed.now.max(work.now);
                wanted.suspects &= !work.suspect;
                wanted.ahead -= found.saturating_sub(wanted.limit).min(wanted.ahead);
                wanted.limit -= found.min(wanted.limit);
                claimed.jobs.extend(work.jobs);
                let filled = wanted.limit + wanted.ahead == 0;
                if !work.bounded || filled || found > 0 || look == LOOKS {
                    claimed.more |= work.bounded || (filled && claim.limit + claim.ahead > 0);
                    if let Some(due) = work.due {
                        claimed.wake_at = Some(claimed.wake_at.map_or(due, |earlier| earlier.min(due)));
                    }
                    break;
                }
            }
        }
        if claimed.now == Timestamp::MIN {
            claimed.now = self.shared.tick(at).await.map_err(unsure(sent))?;
        }
        Ok((answers, claimed))
    }

    /// Settles the verdicts at `places`, all of `queue`, and claims from it.
    async fn work(
        &self,
        queue: &QueueName,
        verdicts: &[Verdict],
        places: &[usize],
        claim: Option<(&Claim, Wanted)>,
        time: &str,
    ) -> Result<Work> {
        let mut arguments = Arguments::new(time, &self.shared.keep);
        arguments.count(places.len());
        match claim {
            None => {
                arguments.push("").push("").push("-1").push("0").push("0").push("0").push("");
            }
            Some((claim, wanted)) => {
                arguments
                    .push(keys::session_bytes(claim.session))
                    .push(nonce_bytes(claim.nonce))
                    .count(wanted.limit)
                    .count(wanted.ahead)
                    .push(if wanted.suspects { "1" } else { "0" })
                    .number(envelope::millis(claim.lease))
                    .push(kinds(claim));
            }
        }
        let of_queue: Vec<&Verdict> = places.iter().map(|place| &verdicts[*place]).collect();
        add_rulings(&mut arguments, &of_queue)?;
        for (at, place) in places.iter().enumerate() {
            for rider in &verdicts[*place].then {
                arguments.count(at + 1);
                let same = rider.body.queue == *queue;
                arguments.push(if same { "" } else { rider.body.queue.as_str() });
                if !same {
                    self.shared.register(&rider.body.queue).await?;
                }
                arguments
                    .push(rider.body.id.as_uuid().as_bytes())
                    .push(envelope::write(&rider.body))
                    .push(due(rider.due));
            }
        }
        let answer = reply::array(self.shared.call(Script::Work, queue, &arguments).await?)?;
        if !places.is_empty() {
            self.durable(queue).await?;
        }
        let (nonce, starts) =
            claim.map_or((Nonce::from_u128(0), 0), |(claim, wanted)| (claim.nonce, wanted.limit));
        let (work, damaged) = read_work(&answer, queue, places.len(), nonce, starts)?;
        if !damaged.is_empty() {
            self.bury(queue, damaged, time).await?;
        }
        if work.outbox {
            // What is left, sweeps relay.
            drop(self.relay(queue, time).await);
        }
        Ok(work)
    }

    /// Makes jobs Dead whose bodies cannot be read: they were claimed, so we hold their leases. Their bytes are kept.
    async fn bury(&self, queue: &QueueName, damaged: Vec<(Lease, String)>, time: &str) -> Result<()> {
        let bury = |(lease, why): (Lease, String)| {
            let error = Failure::new(&why);
            Verdict::new(lease, Ruling::Bury { error, reason: DeadReason::Undecodable })
        };
        let verdicts: Vec<Verdict> = damaged.into_iter().map(bury).collect();
        let mut arguments = Arguments::new(time, &self.shared.keep);
        arguments.count(verdicts.len());
        arguments.push("").push("").push("-1").push("0").push("0").push("0").push("");
        add_rulings(&mut arguments, &verdicts.iter().collect::<Vec<_>>())?;
        self.shared.call(Script::Work, queue, &arguments).await.map(drop)
    }
}

fn kinds(claim: &Claim) -> String {
    claim.kinds.iter().fold(String::new(), |mut text, (kind, version)| {
        // Writing into a string cannot fail.
        let _ = write!(text, "{kind}={version};");
        text
    })
}

/// What a script compares with the record.
pub(crate) fn fence(lease: &Lease) -> Vec<u8> {
    let mut fence = Vec::with_capacity(32);
    if lease.epoch >> 48 != 0 {
        // Nobody was given such an epoch, nor an epoch of 0.
        fence.resize(22, 0);
        return fence;
    }
    fence.extend_from_slice(&lease.epoch.to_be_bytes()[2..]);
    fence.extend_from_slice(&nonce_bytes(lease.nonce));
    fence
}

#[expect(clippy::cast_precision_loss, reason = "a hundred years of milliseconds are exact in a double")]
fn ruling(verdict: &Verdict) -> Result<Vec<u8>> {
    let mut out = fence(&verdict.lease);
    let failure = |out: &mut Vec<u8>, error: &Failure| {
        out.push(if error.is_panic() { b'1' } else { b'0' });
        out.extend_from_slice(error.message().as_bytes());
    };
    match &verdict.ruling {
        Ruling::Complete { output } => {
            out.extend_from_slice(if output.is_some() { b"c1" } else { b"c0" });
            out.extend_from_slice(output.as_deref().unwrap_or_default());
        }
        Ruling::Retry { after, error } => {
            out.push(b'r');
            out.extend_from_slice(&(envelope::millis(*after) as f64).to_be_bytes());
            failure(&mut out, error);
        }
        Ruling::Snooze { after } => {
            out.push(b'z');
            out.extend_from_slice(&(envelope::millis(*after) as f64).to_be_bytes());
        }
        Ruling::Cancel { reason } => {
            out.push(b'k');
            let reason = windlass_core::limits::clip(reason, windlass_core::limits::TEXT_MAX_BYTES);
            out.extend_from_slice(reason.as_bytes());
        }
        Ruling::Bury { error, reason } => {
            out.push(b'd');
            out.push(record::dead_letter(*reason)?);
            failure(&mut out, error);
        }
        Ruling::Release => out.push(b'l'),
    }
    Ok(out)
}

/// What `lua/settle.lua` reads from its eleventh argument on, but for riders: ids in one piece, and one ruling for all that
/// follow each other and are alike, as plain completions of one claim are.
fn add_rulings(arguments: &mut Arguments, verdicts: &[&Verdict]) -> Result<()> {
    if verdicts.is_empty() {
        return Ok(());
    }
    let ids: Vec<[u8; 16]> =
        verdicts.iter().map(|verdict| verdict.lease.job.id.as_uuid().into_bytes()).collect();
    let mut sorted = ids.clone();
    sorted.sort_unstable();
    let distinct = sorted.windows(2).all(|pair| pair[0] != pair[1]);
    let mut runs: Vec<(usize, Vec<u8>)> = Vec::new();
    let mut before: Option<&Verdict> = None;
    for verdict in verdicts {
        match runs.last_mut() {
            Some((count, _)) if before.is_some_and(|before| alike(before, verdict)) => *count += 1,
            _ => runs.push((1, ruling(verdict)?)),
        }
        before = Some(*verdict);
    }
    arguments.push(if distinct { "1" } else { "0" }).push(ids.concat()).count(runs.len());
    for (count, ruling) in runs {
        arguments.count(count).push(ruling);
    }
    Ok(())
}

/// Whether two verdicts have the same ruling and fence, at a glance: completions without an output.
fn alike(one: &Verdict, other: &Verdict) -> bool {
    let bare = |verdict: &Verdict| matches!(verdict.ruling, Ruling::Complete { output: None });
    one.lease.epoch == other.lease.epoch && one.lease.nonce == other.lease.nonce && bare(one) && bare(other)
}

/// A job of an answer: its body, and its record unless it is fresh.
type Packed<'a> = (JobId, &'a [u8], Option<&'a [u8]>);

/// The jobs of an answer, see `lua/work.lua`.
fn jobs(answer: &[Value]) -> Result<impl Iterator<Item = Result<Packed<'_>>>> {
    let (jobs, []) = reply::items(reply::at(answer, 6)?)?.as_chunks::<2>() else { return Err(cut_short()) };
    let (records, []) = reply::items(reply::at(answer, 7)?)?.as_chunks::<2>() else {
        return Err(cut_short());
    };
    let mut records = records.iter().peekable();
    Ok(jobs.iter().zip(1..).map(move |([id, body], place)| {
        let id = reply::bytes(id)?.try_into().map_err(|_| cut_short())?;
        let record = match records.peek() {
            Some([at, record]) if reply::number(at)? == place => {
                records.next();
                Some(reply::bytes(record)?)
            }
            _ => None,
        };
        Ok((JobId::from_uuid(uuid::Uuid::from_bytes(id))?, reply::bytes(body)?, record))
    }))
}

fn cut_short() -> Error {
    Error::new(ErrorKind::Unexpected, "the server's answer to a claim is cut short").effect_unknown()
}

/// Reads an answer to a claim that starts so many jobs, and apart from it the jobs whose bodies cannot be read.
fn read_work(
    answer: &[Value],
    queue: &QueueName,
    verdicts: usize,
    nonce: Nonce,
    starts: usize,
) -> Result<(Work, Vec<(Lease, String)>)> {
    let letters = reply::bytes(reply::at(answer, 1)?)?;
    if letters.len() != verdicts {
        let text = format!("{} answers to {verdicts} verdicts", letters.len());
        return Err(Error::new(ErrorKind::Unexpected, text).effect_unknown());
    }
    let due = reply::bytes(reply::at(answer, 4)?)?;
    let mut work = Work {
        now: record::instant(reply::bytes(reply::at(answer, 0)?)?)?,
        settled: letters.iter().map(|letter| settled(*letter)).collect::<Result<_>>()?,
        jobs: Vec::new(),
        suspect: reply::number(reply::at(answer, 2)?)? > 0,
        bounded: reply::number(reply::at(answer, 3)?)? > 0,
        due: if due.is_empty() { None } else { Some(record::instant(due)?) },
        outbox: reply::number(reply::at(answer, 5)?)? > 0,
    };
    let mut damaged = Vec::new();
    for (place, job) in jobs(answer)?.enumerate() {
        let (id, body, record) = job?;
        let raw = record.map_or_else(|| Ok(Raw::claimed(place < starts)), Raw::read)?;
        let lease = Lease { job: JobRef::new(queue.clone(), id), epoch: raw.epoch, nonce, handle: 0 };
        let (created_at, body) = match envelope::read(body, id, queue) {
            Ok(read) => read,
            Err(error) => {
                damaged.push((lease, error.message().to_owned()));
                continue;
            }
        };
        work.jobs.push(ClaimedJob {
            lease,
            attempts: raw.attempts,
            lost_leases: raw.lost,
            generation: raw.generation,
            created_at,
            deadline: body
                .extras
                .as_ref()
                .and_then(|extras| extras.deadline)
                .map(|due| due.resolve(created_at)),
            ahead: !raw.started(),
            suspect: raw.suspect(),
            body: body.into(),
        });
    }
    Ok((work, damaged))
}
