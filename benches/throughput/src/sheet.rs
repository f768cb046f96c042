//! The sheet of a durable engine: which rows there are, and how their figures come about. Each workload has a fresh store of
//! its own and may give several figures; the raw limit's rows stand before ours. What a store is, each engine says in a file
//! of its own.

use std::time::Duration;

use tokio::runtime::Runtime;
use windlass::prelude::*;
use windlass::{Keep, Retention};
use windlass_servers::cpu_time;

use crate::options::Settings;
use crate::report::{self, Conditions, Row};
use crate::store::{About, Raw as _, Store, Writes};
use crate::{Group, durable, whole};

/// Jobs that a worker with more room than the default runs at once.
const ROOM: usize = 500;
/// Jobs of a pickup row.
const PICKUPS: usize = 200;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Work {
    Dispatch {
        in_flight: usize,
    },
    Bulk,
    /// From the start of a worker to its end, as the options say it.
    Drain,
    /// The same, a millisecond away.
    DrainAfar,
    /// The same with room for [`ROOM`] jobs.
    RoomyDrain,
    /// The same when completed jobs are not kept.
    ForgetfulDrain,
    /// The wait of a lone job for an idle worker, dispatched through the worker's own handle or another.
    Pickup {
        two_handles: bool,
    },
    Waiting,
}

impl Work {
    fn jobs(self, about: &About, all: usize) -> usize {
        let some = match self {
            Self::Dispatch { in_flight: 1 } => all / about.parts.0,
            Self::Dispatch { .. } => all / about.parts.1,
            Self::Pickup { .. } => PICKUPS,
            _ => all,
        };
        some.max(10)
    }

    fn has_raw_limit(self) -> bool {
        matches!(self, Self::Dispatch { .. } | Self::Bulk | Self::Drain)
    }

    /// The row's name, its workload and the unit of each figure, in the order of [`ours`] and [`raw`].
    fn figures(self, about: &About, raw: bool) -> Vec<(String, String, &'static str)> {
        let figure = |name: &str, workload: &str, unit| (name.to_owned(), workload.to_owned(), unit);
        let mut figures = match self {
            Self::Dispatch { in_flight } => {
                let workload = format!("dispatch, {in_flight} in flight");
                vec![figure(&format!("dispatch {in_flight}"), &workload, "jobs/s")]
            }
            Self::Bulk => vec![figure("bulk", "bulk dispatch of 1,000", "jobs/s")],
            Self::Drain => {
                let mut all = vec![
                    figure("drain", "drain", "jobs/s"),
                    figure("drain, client", "drain, CPU of the client", "s/100,000"),
                ];
                if about.has_server {
                    all.push(figure("drain, server", "drain, CPU of the server", "s/100,000"));
                }
                if about.tells_writes && !raw {
                    all.extend([
                        figure("wal, bulk", "bulk dispatch, WAL a job", "bytes"),
                        figure("wal, drain", "drain, WAL a job", "bytes"),
                        figure("index entries", "bulk and drain, index entries a job", "entries"),
                    ]);
                }
                all
            }
            Self::DrainAfar if !about.afar => Vec::new(),
            Self::DrainAfar => vec![figure("drain far", "drain, server 1 ms away", "jobs/s")],
            Self::RoomyDrain => {
                vec![figure(&format!("drain {ROOM}"), &format!("drain of {ROOM} at once"), "jobs/s")]
            }
            Self::ForgetfulDrain => {
                vec![figure("drain, no history", "drain, no history", "jobs/s")]
            }
            Self::Pickup { two_handles } => ["p50", "p99"]
                .into_iter()
                .map(|which| {
                    let (name, workload) = if two_handles { (", other", ", other handle") } else { ("", "") };
                    figure(&format!("pickup {which}{name}"), &format!("idle pickup {which}{workload}"), "ms")
                })
                .collect(),
            Self::Waiting => about.held.map(|held| figure(held, held, "bytes")).into_iter().collect(),
        };
        if raw {
            for (name, ..) in &mut figures {
                name.insert_str(0, "raw ");
            }
        }
        figures
    }
}

/// All rows of an engine, at each durability.
pub(crate) fn groups<S: Store>(conditions: &Conditions) -> Vec<Group> {
    let about = S::ABOUT;
    let mut groups = Vec::new();
    for &(durability, named) in S::DURABILITIES {
        for work in [
            Work::Dispatch { in_flight: 1 },
            Work::Dispatch { in_flight: about.in_flight },
            Work::Bulk,
            Work::Drain,
            Work::DrainAfar,
            Work::RoomyDrain,
            Work::ForgetfulDrain,
            Work::Pickup { two_handles: false },
            Work::Pickup { two_handles: true },
            Work::Waiting,
        ] {
            let rows = |raw: bool| -> Vec<Row> {
                work.figures(&about, raw)
                    .into_iter()
                    .map(|(name, workload, unit)| Row {
                        name: leaked(format!("{name} {named}")),
                        engine: about.engine,
                        system: if raw { about.raw.0 } else { "windlass" },
                        version: report::locked(crate::LOCK, if raw { about.raw.1 } else { "windlass" }),
                        workload: leaked(workload),
                        settings: Conditions {
                            jobs: work.jobs(&about, conditions.jobs),
                            concurrency: if work == Work::RoomyDrain {
                                Some(ROOM)
                            } else {
                                conditions.concurrency
                            },
                            durability: Some(named),
                            execution: if raw { "one loop" } else { "worker" },
                            ..conditions.clone()
                        },
                        unit,
                        samples: Vec::new(),
                        exactly_once: (unit == "jobs/s" && runs_jobs(work)).then_some(true),
                    })
                    .collect()
            };
            if work.has_raw_limit() {
                groups.push(Group {
                    rows: rows(true),
                    measure: Box::new(move |runtime: &Runtime, settings| {
                        runtime.block_on(raw::<S>(durability, work, settings))
                    }),
                });
            }
            groups.push(Group {
                rows: rows(false),
                measure: Box::new(move |runtime: &Runtime, settings| {
                    runtime.block_on(ours::<S>(durability, work, settings))
                }),
            });
        }
    }
    groups
}

fn runs_jobs(work: Work) -> bool {
    matches!(work, Work::Drain | Work::DrainAfar | Work::RoomyDrain | Work::ForgetfulDrain)
}

/// A text for the whole run of the program.
fn leaked(text: String) -> &'static str {
    Box::leak(text.into())
}

async fn ours<S: Store>(durability: S::Durability, work: Work, settings: Settings) -> Vec<f64> {
    let jobs = work.jobs(&S::ABOUT, settings.jobs);
    let store = S::open(durability).await;
    let kept = if work == Work::ForgetfulDrain {
        Keep::NOTHING
    } else {
        Keep::new(S::ABOUT.kept, Duration::from_secs(24 * 60 * 60))
    };
    let retention = Retention { completed: kept, ..Retention::default() };
    let queue = store.queue(retention).await;
    match work {
        Work::Dispatch { in_flight } => {
            vec![rate(jobs, durable::dispatch(&queue, jobs, in_flight).await)]
        }
        Work::Bulk => vec![rate(jobs, durable::bulk(&queue, jobs).await)],
        Work::Drain => drain(&store, queue, jobs, settings.concurrency).await,
        Work::DrainAfar if !S::ABOUT.afar => Vec::new(),
        Work::DrainAfar => {
            whole::fill(&queue, jobs).await;
            let afar = store.queue_afar(retention).await;
            vec![rate(jobs, durable::drain(afar, jobs, settings.concurrency).await)]
        }
        Work::RoomyDrain | Work::ForgetfulDrain => {
            whole::fill(&queue, jobs).await;
            let concurrency = if work == Work::RoomyDrain { ROOM } else { settings.concurrency };
            vec![rate(jobs, durable::drain(queue, jobs, concurrency).await)]
        }
        Work::Pickup { two_handles } => {
            let from = if two_handles { store.queue(retention).await } else { queue.clone() };
            let mut waits = durable::pickup(from, queue, jobs).await;
            waits.sort_unstable();
            let at = |percentile: usize| waits[(jobs * percentile / 100).min(jobs - 1)];
            [50, 99].map(|percentile| at(percentile).as_secs_f64() * 1_000.0).to_vec()
        }
        Work::Waiting if S::ABOUT.held.is_some() => {
            let before = store.held().await;
            whole::fill(&queue, jobs).await;
            vec![per_job(store.held().await.saturating_sub(before), jobs)]
        }
        Work::Waiting => Vec::new(),
    }
}

/// A drain with all that it costs.
async fn drain<S: Store>(store: &S, queue: Queue<S::Backend>, jobs: usize, concurrency: usize) -> Vec<f64> {
    let empty = writes(store).await;
    whole::fill(&queue, jobs).await;
    let full = writes(store).await;
    let spent = Spent::so_far(store);
    let took = durable::drain(queue, jobs, concurrency).await;
    let mut figures = vec![rate(jobs, took)];
    figures.extend(spent.since(store, jobs));
    if let (Some(empty), Some(full), Some(done)) = (empty, full, writes(store).await) {
        figures.extend([
            per_job(full.wal_bytes - empty.wal_bytes, jobs),
            per_job(done.wal_bytes - full.wal_bytes, jobs),
            per_job(done.index_entries - empty.index_entries, jobs),
        ]);
    }
    figures
}

async fn writes<S: Store>(store: &S) -> Option<Writes> {
    if S::ABOUT.tells_writes { Some(store.writes().await) } else { None }
}

async fn raw<S: Store>(durability: S::Durability, work: Work, settings: Settings) -> Vec<f64> {
    let jobs = work.jobs(&S::ABOUT, settings.jobs);
    let store = S::open(durability).await;
    let mut raw = store.raw().await;
    match work {
        Work::Dispatch { in_flight } => vec![rate(jobs, raw.dispatch(jobs, in_flight).await)],
        Work::Drain => {
            raw.bulk(jobs).await;
            let spent = Spent::so_far(&store);
            let mut figures = vec![rate(jobs, raw.drain(jobs).await)];
            figures.extend(spent.since(&store, jobs));
            figures
        }
        _ => vec![rate(jobs, raw.bulk(jobs).await)],
    }
}

/// CPU time that this process and the server have used.
struct Spent {
    client: Duration,
    server: Option<Duration>,
}

impl Spent {
    fn so_far<S: Store>(store: &S) -> Self {
        let client = cpu_time(std::process::id()).expect("this process's CPU time");
        Self { client, server: store.server_cpu() }
    }

    /// What both have used since, in seconds for each 100,000 of so many jobs.
    #[expect(clippy::cast_precision_loss, reason = "a million fits")]
    fn since<S: Store>(&self, store: &S, jobs: usize) -> Vec<f64> {
        let now = Self::so_far(store);
        let figure = |spent: Duration| spent.as_secs_f64() * 100_000.0 / jobs as f64;
        let server = now.server.zip(self.server).map(|(now, before)| figure(now.saturating_sub(before)));
        std::iter::once(figure(now.client.saturating_sub(self.client))).chain(server).collect()
    }
}

#[expect(clippy::cast_precision_loss, reason = "bytes of one run fit")]
fn per_job(count: u64, jobs: usize) -> f64 {
    count as f64 / jobs as f64
}

#[expect(clippy::cast_precision_loss, reason = "a million fits")]
fn rate(jobs: usize, took: Duration) -> f64 {
    jobs as f64 / took.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::{postgres, redis, sqlite};

    fn sheet<S: Store>() -> Vec<Group> {
        groups::<S>(&Conditions {
            jobs: 50,
            payload_bytes: 100,
            codec: "json",
            concurrency: Some(64),
            execution: "worker",
            durability: None,
            server: None,
            cores: 1,
        })
    }

    fn names(groups: &[Group]) -> Vec<&'static str> {
        groups.iter().flat_map(|group| &group.rows).map(|row| row.name).collect()
    }

    #[test]
    fn every_row_has_a_name_of_its_own() {
        for groups in [sheet::<sqlite::File>(), sheet::<redis::Server>(), sheet::<postgres::Server>()] {
            let names = names(&groups);
            assert_eq!(names.iter().collect::<HashSet<_>>().len(), names.len(), "{names:?}");
        }
        let names = names(&sheet::<redis::Server>());
        for row in
            ["raw dispatch 100 none", "drain, server everysec", "pickup p99, other none", "memory none"]
        {
            assert!(names.contains(&row), "{row} is missing of {names:?}");
        }
    }

    /// Runs the workloads with fifty jobs: each must give a figure a row, and check what it ran.
    fn play<S: Store>(wanted: &[&str]) {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
        let mut played = HashSet::new();
        for Group { rows, measure } in sheet::<S>() {
            let Some(first) = rows.first() else { continue };
            let name = first.name.rsplit_once(' ').map_or(first.name, |(name, _)| name);
            if !wanted.contains(&name) {
                continue;
            }
            let figures = measure(&runtime, Settings { jobs: 50, concurrency: 64 });
            assert_eq!(figures.len(), rows.len(), "{name}");
            assert!(figures.iter().all(|figure| figure.is_finite() && *figure >= 0.0), "{name}: {figures:?}");
            assert!(first.unit != "jobs/s" || figures[0] > 0.0, "{name}: {figures:?}");
            played.insert(name);
        }
        assert_eq!(played.len(), wanted.len(), "only {played:?} were found");
    }

    #[test]
    fn sqlite_is_measured() {
        play::<sqlite::File>(&[
            "raw dispatch 1",
            "dispatch 1",
            "raw dispatch 64",
            "dispatch 64",
            "raw bulk",
            "bulk",
            "raw drain",
            "drain",
            "drain 500",
            "drain, no history",
        ]);
    }

    #[test]
    fn redis_is_measured() {
        play::<redis::Server>(&["raw dispatch 100", "dispatch 100", "raw drain", "drain", "memory"]);
    }

    #[test]
    fn postgres_is_measured() {
        play::<postgres::Server>(&["raw dispatch 64", "raw drain", "drain", "disk"]);
    }
}
