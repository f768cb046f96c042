//! What the processes of a run do: workers, dispatchers, and writers that hold a transaction of the engine's open.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use windlass::envelope::{Draft, Envelope, Raw};
use windlass::prelude::*;
use windlass_core::{ErrorKind, JobRef, Pushed, QueueName};

use crate::effects::{Books, Effect};
use crate::engine::Opened;
use crate::jobs::{Around, Child, Container, Scene, Sum, Work};
use crate::plan::{Act, Plan, QUEUES, Way, Wish, id_of};
use crate::points::{Point, Trap, Trapped};
use crate::told::Told;
use crate::wire::{Ack, Event, Teller};

/// Jobs of one writer's transaction.
pub(crate) const WRITTEN: u64 = 20;

/// What every part is told.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub(crate) url: String,
    pub(crate) collector: PathBuf,
    pub(crate) member: usize,
    pub(crate) plan: Plan,
    pub(crate) task: Task,
}

/// What it is to do.
#[derive(Clone, Debug)]
pub(crate) enum Task {
    Work {
        concurrency: usize,
        look_ahead: bool,
        lease: Duration,
    },
    /// Dispatches the blocks of a share, beginning with block `from`.
    Dispatch {
        share: u64,
        shares: u64,
        from: u64,
    },
    /// Writes [`WRITTEN`] jobs from number `from` on within a transaction, and dies in it.
    Write {
        from: u64,
        trap: Trap,
    },
}

impl Part {
    /// As words of a command line.
    pub(crate) fn words(&self) -> Vec<String> {
        let mut words = vec!["part".to_owned(), self.url.clone(), self.collector.display().to_string()];
        let Plan { seed, jobs, effects } = self.plan;
        words.extend([self.member.to_string(), format!("{seed},{jobs},{effects}")]);
        words.extend(match &self.task {
            Task::Work { concurrency, look_ahead, lease } => {
                vec!["work".to_owned(), format!("{concurrency},{look_ahead},{}", lease.as_millis())]
            }
            Task::Dispatch { share, shares, from } => {
                vec!["dispatch".to_owned(), format!("{share},{shares},{from}")]
            }
            Task::Write { from, trap } => vec!["write".to_owned(), format!("{from},{trap}")],
        });
        words
    }

    /// Reads [`words`](Self::words) after the first.
    pub(crate) fn read(words: &[&str]) -> Result<Self> {
        let [url, collector, member, plan, task, settings] = words else {
            bail!("a part is started by the runner and by nobody else");
        };
        let plan: Vec<&str> = plan.split(',').collect();
        let [seed, jobs, effects] = plan[..] else { bail!("no such plan: {plan:?}") };
        let settings: Vec<&str> = settings.split(',').collect();
        let task = match (*task, &settings[..]) {
            ("work", [concurrency, look_ahead, lease]) => Task::Work {
                concurrency: concurrency.parse()?,
                look_ahead: look_ahead.parse()?,
                lease: Duration::from_millis(lease.parse()?),
            },
            ("dispatch", [share, shares, from]) => {
                Task::Dispatch { share: share.parse()?, shares: shares.parse()?, from: from.parse()? }
            }
            ("write", [from, trap]) => Task::Write { from: from.parse()?, trap: trap.parse()? },
            _ => bail!("no such task: {task}"),
        };
        let plan = Plan { seed: seed.parse()?, jobs: jobs.parse()?, effects: effects.parse()? };
        let (url, collector) = ((*url).to_owned(), PathBuf::from(collector));
        Ok(Self { url, collector, member: member.parse()?, plan, task })
    }

    /// Does it. What goes wrong is told to the collector as well.
    pub(crate) async fn run(self) -> Result<()> {
        let (teller, orders) =
            Teller::connect(&self.collector, self.member).context("cannot reach the collector")?;
        let trapped = Trapped::new(teller, orders);
        let done = match self.task {
            Task::Work { concurrency, look_ahead, lease } => {
                work(&self.url, self.plan, &trapped, concurrency, look_ahead, lease).await
            }
            Task::Dispatch { share, shares, from } => {
                dispatch(&self.url, self.plan, &trapped, share, shares, from).await
            }
            Task::Write { from, trap } => write(&self.url, self.plan, &trapped, from, trap).await,
        };
        if let Err(error) = &done {
            trapped.tell(&Event::Wrong(format!("{error:#}")));
        }
        done
    }
}

async fn work(
    url: &str,
    plan: Plan,
    trapped: &Trapped,
    concurrency: usize,
    look_ahead: bool,
    lease: Duration,
) -> Result<()> {
    let opened = Opened::at(url).await?;
    let queue = Queue::new(Told::new(opened.any(), plan, trapped.clone()));
    trapped.tell(&Event::Hello);
    let books = Books(match opened {
        Opened::Postgres(backend) if plan.effects => Some(Queue::new(backend)),
        _ => None,
    });
    let container = Container { scene: Scene { plan, trapped: trapped.clone() }, books };
    let jobs = Registry::new(container)
        .register::<Work>()
        .register::<Sum>()
        .register::<Child>()
        .register::<Effect>()
        .layer(Around(trapped.clone()));
    Worker::new(queue, jobs)
        .weights([(QUEUES[0], 2), (QUEUES[1], 1)])
        .concurrency(concurrency)
        .look_ahead(look_ahead)
        .lease(lease)
        // The dead are many here: look for what they left more often than a service would.
        .sweep_every(milliseconds(250))
        .run_until(shutdown_signal())
        .await?;
    Ok(())
}

type Blank = Envelope<Raw, Draft>;

/// Everything that is asked for when a job of the plan is dispatched.
fn draft(queue: &Queue<Told>, plan: Plan, number: u64) -> Result<Blank> {
    let (act, wish) = (plan.act(number), plan.wish(number));
    let mut draft = match act {
        Act::Output => queue.dispatch(Sum { number }).into_draft()?,
        Act::Effect(_) => queue.dispatch(Effect { number }).into_draft()?,
        _ => queue.dispatch(Work { number }).into_draft()?,
    };
    draft.set_id(id_of(number));
    draft.set_queue(QueueName::from_static(plan.queue(number)));
    draft.set_max_attempts(act.max_attempts());
    if let Some(by) = wish.unique() {
        draft.set_unique(by);
    }
    match wish {
        Wish::Delay(millis) => draft.set_due(windlass_core::Due::After(Duration::from_millis(millis))),
        Wish::Parent => {
            draft.add_parent(JobRef::new(QueueName::from_static(plan.queue(number - 1)), id_of(number - 1)));
        }
        Wish::Limit(_) => {
            if let Some((key, at_most)) = wish.exclusion() {
                draft.set_limit(windlass_core::ConcurrencyLimit { key, at_most });
            }
        }
        _ => {}
    }
    Ok(draft)
}

async fn dispatch(
    url: &str,
    plan: Plan,
    trapped: &Trapped,
    share: u64,
    shares: u64,
    from: u64,
) -> Result<()> {
    let queue = Queue::new(Told::new(Opened::at(url).await?.any(), plan, trapped.clone()));
    trapped.tell(&Event::Hello);
    for block in (from..plan.blocks()).filter(|block| block % shares == share) {
        trapped.until_allowed(block).await;
        let numbers: Vec<u64> = plan.block(block).collect();
        match plan.way(block) {
            Way::Batch => send(&queue, plan, trapped, &numbers).await?,
            Way::OneByOne => {
                for number in &numbers {
                    send(&queue, plan, trapped, &[*number]).await?;
                }
            }
            Way::AtOnce => {
                let mut sends = tokio::task::JoinSet::new();
                for number in numbers {
                    let (queue, trapped) = (queue.clone(), trapped.clone());
                    sends.spawn(async move { send(&queue, plan, &trapped, &[number]).await });
                }
                while let Some(sent) = sends.join_next().await {
                    sent??;
                }
            }
        }
    }
    Ok(())
}

/// Dispatches these numbers in one call, again and again until it is acknowledged.
async fn send(queue: &Queue<Told>, plan: Plan, trapped: &Trapped, numbers: &[u64]) -> Result<()> {
    const TRIES: u32 = 600;
    for _ in 0..TRIES {
        let drafts = numbers.iter().map(|number| draft(queue, plan, *number)).collect::<Result<_>>()?;
        trapped.tell(&Event::Dispatching(numbers.to_vec()));
        match queue.push(drafts).await {
            Ok(sent) => {
                let acks = numbers.iter().zip(&sent).map(|(number, sent)| (*number, ack(sent.pushed())));
                let acks: Vec<_> = acks.collect();
                ensure!(acks.len() == numbers.len(), "{} dispatched, {} answered", numbers.len(), acks.len());
                trapped.tell(&Event::Acknowledged(acks));
                return Ok(());
            }
            Err(failed) => {
                let kind = failed.error().kind();
                ensure!(
                    failed.error().is_retryable() && kind != ErrorKind::Invalid,
                    "a dispatch was refused: {}",
                    failed.error()
                );
                tokio::time::sleep(milliseconds(100)).await;
            }
        }
    }
    bail!("a dispatch failed {TRIES} times");
}

fn ack(pushed: Pushed) -> Ack {
    match pushed {
        Pushed::Inserted => Ack::Inserted,
        Pushed::SameId => Ack::Same,
        Pushed::Conflict(_) => Ack::Conflict,
        Pushed::Superseded(_) => Ack::Superseded,
    }
}

/// Writes and dies, or tries again when it was the server that died.
async fn write(url: &str, plan: Plan, trapped: &Trapped, from: u64, trap: Trap) -> Result<()> {
    let opened = Opened::at(url).await?;
    trapped.tell(&Event::Hello);
    const TRIES: u32 = 600;
    for _ in 0..TRIES {
        trapped.set(trap);
        let written = match &opened {
            Opened::Postgres(backend) => {
                let queue = Queue::new(backend.clone());
                let write = async {
                    let mut tx = backend.pool().begin().await?;
                    write_in(&queue, &mut tx, plan, from).await?;
                    trapped.pass(Point::InTransaction);
                    trapped.tell(&Event::Committing((from..from + WRITTEN).collect()));
                    Ok(trapped.within(Point::Committing, tx.commit()).await?)
                };
                write.await
            }
            Opened::Sqlite(backend) => {
                let queue = Queue::new(backend.clone());
                let write = async {
                    let mut tx = backend.begin().await?;
                    write_in(&queue, &mut tx, plan, from).await?;
                    trapped.pass(Point::InTransaction);
                    trapped.tell(&Event::Committing((from..from + WRITTEN).collect()));
                    Ok(trapped.within(Point::Committing, tx.commit()).await?)
                };
                write.await
            }
            Opened::Redis(_) => bail!("Redis has no transactions that a writer could hold open"),
        };
        let error: anyhow::Error = match written {
            Ok(()) => bail!("the writer was to die at {}", trap.point),
            Err(error) => error,
        };
        let of_engine = error.downcast_ref::<windlass::Error>().is_some_and(windlass::Error::is_retryable);
        ensure!(of_engine || error.is::<sqlx::Error>() || error.is::<windlass::DispatchError>(), error);
        tokio::time::sleep(milliseconds(100)).await;
    }
    bail!("a writer failed {TRIES} times");
}

/// Dispatches within a transaction.
async fn write_in<B>(queue: &Queue<B>, conn: &mut B::Conn, plan: Plan, from: u64) -> Result<()>
where
    B: windlass::Transactional + windlass::Inspect + windlass::Manage + windlass::Migrate,
{
    for number in from..from + WRITTEN {
        queue.dispatch(Work { number }).id(id_of(number)).on(plan.queue(number)).within(conn).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::points::Blow;

    #[test]
    fn a_part_is_read_as_it_is_written() {
        let trap = Trap { blow: Blow::Die, point: Point::Committing, passage: 1, micros: 9 };
        let tasks = [
            Task::Work { concurrency: 4, look_ahead: false, lease: Duration::from_secs(2) },
            Task::Dispatch { share: 1, shares: 2, from: 7 },
            Task::Write { from: 30, trap },
        ];
        for task in tasks {
            let plan = Plan { seed: 3, jobs: 9, effects: true };
            let (url, collector) = ("sqlite:a.db".to_owned(), PathBuf::from("/x"));
            let part = Part { url, collector, member: 5, plan, task };
            let words = part.words();
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            assert_eq!(format!("{:?}", Part::read(&words[1..]).unwrap()), format!("{part:?}"));
        }
        assert!(Part::read(&["x"]).is_err());
    }
}
