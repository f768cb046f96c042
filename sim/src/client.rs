//! The contract's verbs as a client of a history calls them: each goes through the network, meets the engine in one step, and
//! is watched by the oracle from both sides. What a client says about time is not passed on.

use std::time::Duration;

use windlass_core::{
    At, Backend, Cancelling, Capabilities, Claim, Claimed, Cursor, Error, ErrorKind, Filter, Finished, Held,
    Inspect, JobRef, Kept, Manage, Migrate, Migration, NewJob, Nonce, Note, Page, Pushed, QueueInfo,
    QueueName, Record, Result, SessionId, Settled, Sweep, Swept, Timestamp, Verdict, Wake,
};

use crate::network::{Client, now};
use crate::oracle::Call;

impl Backend for Client {
    const NAME: &'static str = "simulated";

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            durable: false,
            shared: true,
            atomic_across_queues: true,
            pipelined: true,
            ahead_max: 900,
        }
    }

    async fn push(&self, jobs: &[NewJob], _: At) -> Result<Vec<Pushed>> {
        let jobs = jobs.to_vec();
        self.call(Call::Push, move |stage, id| {
            let mut oracle = stage.lock();
            let answer = now(oracle.engine.push(&jobs, oracle.at()))?;
            oracle.pushed(id, &jobs, &answer);
            Ok(answer)
        })
        .await
    }

    async fn claim(&self, claim: &Claim, _: At) -> Result<Claimed> {
        let claim = claim.clone();
        let call = Call::round(&[], Some(&claim));
        let claimed = self
            .call(call, move |stage, id| {
                let mut oracle = stage.lock();
                let claimed = now(oracle.engine.claim(&claim, oracle.at()))?;
                oracle.claimed(id, &claim, &claimed);
                Ok(claimed)
            })
            .await?;
        self.0.stage.lock().takes_in(self.0.id, &claimed);
        Ok(claimed)
    }

    async fn settle(&self, verdicts: &[Verdict], _: At) -> Result<Vec<Settled>> {
        let verdicts = verdicts.to_vec();
        self.call(Call::round(&verdicts, None), move |stage, id| {
            let mut oracle = stage.lock();
            let before = oracle.before_settle(&verdicts);
            let settled = now(oracle.engine.settle(&verdicts, oracle.at()))?;
            oracle.settled(id, &verdicts, &settled, before, None);
            Ok(settled)
        })
        .await
    }

    async fn settle_and_claim(
        &self,
        verdicts: &[Verdict],
        claim: &Claim,
        _: At,
    ) -> Result<(Vec<Settled>, Claimed)> {
        let (verdicts, claim) = (verdicts.to_vec(), claim.clone());
        let call = Call::round(&verdicts, Some(&claim));
        let (settled, claimed) = self
            .call(call, move |stage, id| {
                let mut oracle = stage.lock();
                let before = oracle.before_settle(&verdicts);
                let (settled, claimed) = now(oracle.engine.settle_and_claim(&verdicts, &claim, oracle.at()))?;
                oracle.settled(id, &verdicts, &settled, before, Some(&claimed));
                oracle.claimed(id, &claim, &claimed);
                Ok((settled, claimed))
            })
            .await?;
        self.0.stage.lock().takes_in(self.0.id, &claimed);
        Ok((settled, claimed))
    }

    async fn extend(&self, session: SessionId, held: &[Held], lease: Duration, _: At) -> Result<Vec<Kept>> {
        let held = held.to_vec();
        let call = Call::extend(&held);
        let named = held.clone();
        let kept = self
            .call(call, move |stage, id| {
                let mut oracle = stage.lock();
                let kept = now(oracle.engine.extend(session, &held, lease, oracle.at()))?;
                oracle.extended(id, session, &held, lease, &kept);
                Ok(kept)
            })
            .await?;
        self.0.stage.lock().hears_beat(self.0.id, &named, &kept);
        Ok(kept)
    }

    async fn hand_back(&self, session: SessionId, nonce: Option<Nonce>, _: At) -> Result<usize> {
        self.call(Call::HandBack(nonce), move |stage, id| {
            let mut oracle = stage.lock();
            let handed = now(oracle.engine.hand_back(session, nonce, oracle.at()))?;
            oracle.handed_back(id, session, nonce, handed);
            Ok(handed)
        })
        .await
    }

    async fn annotate(&self, notes: &[Note], _: At) -> Result<Vec<bool>> {
        let notes = notes.to_vec();
        self.call(Call::Annotate, move |stage, id| {
            let mut oracle = stage.lock();
            let before = oracle.before_annotate(&notes);
            let taken = now(oracle.engine.annotate(&notes, oracle.at()))?;
            oracle.annotated(id, &notes, &taken, before);
            Ok(taken)
        })
        .await
    }

    async fn sweep(&self, sweep: &Sweep, _: At) -> Result<Swept> {
        let sweep = *sweep;
        self.call(Call::Sweep, move |stage, id| {
            let mut oracle = stage.lock();
            let swept = now(oracle.engine.sweep(&sweep, oracle.at()))?;
            oracle.swept(id, swept);
            Ok(swept)
        })
        .await
    }

    async fn outcomes(&self, jobs: &[JobRef], max: Duration, _: At) -> Result<Vec<Option<Finished>>> {
        let engine = self.0.stage.lock().engine.clone();
        let at = self.0.stage.lock().at();
        let outcomes = engine.outcomes(jobs, max, at).await?;
        self.0.stage.lock().outcomes(self.0.id, jobs, &outcomes);
        Ok(outcomes)
    }

    async fn wait(
        &self,
        session: SessionId,
        queues: &[QueueName],
        due: Option<Timestamp>,
        max: Duration,
    ) -> Result<Wake> {
        self.listen(session, queues, due, max).await
    }

    async fn now(&self, _: At) -> Result<Timestamp> {
        Ok(self.0.stage.lock().now())
    }
}

impl Inspect for Client {
    async fn get(&self, job: &JobRef, _: At) -> Result<Option<Record>> {
        Ok(self.0.stage.lock().engine.peek(job))
    }

    async fn list(&self, filter: &Filter, after: Option<&Cursor>, limit: usize, _: At) -> Result<Page> {
        let oracle = self.0.stage.lock();
        now(oracle.engine.list(filter, after, limit, oracle.at()))
    }

    async fn queues(&self, _: At) -> Result<Vec<QueueInfo>> {
        let oracle = self.0.stage.lock();
        now(oracle.engine.queues(oracle.at()))
    }
}

impl Manage for Client {
    async fn cancel(&self, job: &JobRef, reason: &str, _: At) -> Result<Cancelling> {
        let (job, reason) = (job.clone(), reason.to_owned());
        self.call(Call::Manage, move |stage, id| {
            let mut oracle = stage.lock();
            let answer = now(oracle.engine.cancel(&job, &reason, oracle.at()))?;
            oracle.cancelled(id, &job, answer);
            Ok(answer)
        })
        .await
    }

    async fn revive(&self, job: &JobRef, _: At) -> Result<()> {
        let job = job.clone();
        self.call(Call::Manage, move |stage, id| {
            let mut oracle = stage.lock();
            let answer = now(oracle.engine.revive(&job, oracle.at()));
            oracle.revived(id, &job, answer.as_ref().err());
            answer
        })
        .await
    }

    async fn run_now(&self, job: &JobRef, _: At) -> Result<()> {
        let job = job.clone();
        self.call(Call::Manage, move |stage, id| {
            let mut oracle = stage.lock();
            let answer = now(oracle.engine.run_now(&job, oracle.at()));
            oracle.runs_now(id, &job, answer.is_ok());
            answer
        })
        .await
    }

    async fn delete(&self, _: &JobRef, _: At) -> Result<()> {
        Err(Error::new(
            ErrorKind::Config,
            "simulated: everything is kept, so that nothing can be lost unseen",
        ))
    }

    async fn pause(&self, queue: &QueueName, _: At) -> Result<()> {
        let queue = queue.clone();
        self.call(Call::Manage, move |stage, id| {
            let mut oracle = stage.lock();
            now(oracle.engine.pause(&queue, oracle.at()))?;
            oracle.paused(id, &queue, true);
            Ok(())
        })
        .await
    }

    async fn resume(&self, queue: &QueueName, _: At) -> Result<()> {
        let queue = queue.clone();
        self.call(Call::Manage, move |stage, id| {
            let mut oracle = stage.lock();
            now(oracle.engine.resume(&queue, oracle.at()))?;
            oracle.paused(id, &queue, false);
            Ok(())
        })
        .await
    }
}

impl Migrate for Client {
    async fn pending(&self) -> Result<Vec<Migration>> {
        Ok(Vec::new())
    }

    async fn migrate(&self) -> Result<Vec<Migration>> {
        Ok(Vec::new())
    }
}
