//! What a snapshot that stays open (a long report, a forgotten transaction, a replication slot) does to claims: Windlass
//! beside the plain design, one table with a state and SKIP LOCKED. Each has a private Postgres and gets the same steady
//! stream of jobs at the same time; the snapshot is taken before the first of them.
//!
//! `cargo run --release -p pinned -- [--seconds 600] [--rate 2000] [--json FILE] [--chart FILE] [--peer FILE]`
//!
//! `--peer` adds, to what is printed and drawn, the records of a peer under the same load, which `pinned-graphile` in
//! `benches/peers` writes.

mod chart;
mod course;
mod plain;
mod stream;
mod windlass_engine;

use std::path::PathBuf;
use std::time::Duration;

use sqlx::postgres::PgConnection;
use sqlx::{Connection as _, Row as _};
use windlass_servers::{Postgres, PostgresSettings};

use self::course::Course;
use self::stream::{System, run};

struct Options {
    time: Duration,
    rate: usize,
    json: Option<PathBuf>,
    chart: Option<PathBuf>,
    peer: Option<PathBuf>,
}

fn options() -> Options {
    let mut options =
        Options { time: Duration::from_secs(600), rate: 2_000, json: None, chart: None, peer: None };
    let mut words = std::env::args().skip(1);
    while let Some(flag) = words.next() {
        let value = words.next().unwrap_or_else(|| panic!("{flag} takes a value"));
        match flag.as_str() {
            "--seconds" => options.time = Duration::from_secs(value.parse().expect("seconds")),
            "--rate" => options.rate = value.parse().expect("jobs a second"),
            "--json" => options.json = Some(value.into()),
            "--peer" => options.peer = Some(value.into()),
            "--chart" => options.chart = Some(value.into()),
            _ => panic!("there is no {flag}"),
        }
    }
    options
}

/// A snapshot that is kept for as long as this lives.
async fn pin(url: &str) -> PgConnection {
    let mut connection = PgConnection::connect(url).await.expect("a connection");
    let begin = "begin isolation level repeatable read; select pg_current_snapshot()::text";
    let rows = sqlx::raw_sql(begin).fetch_all(&mut connection).await.expect("a snapshot");
    assert_eq!(rows.len(), 1, "{:?}", rows.first().map(sqlx::postgres::PgRow::len));
    connection
}

async fn course_of<S: System>(time: Duration, rate: usize) -> Course {
    let settings = PostgresSettings { durable: true, others: Vec::new() };
    let server = Postgres::start_with(&settings).expect("a private Postgres");
    let system = S::open(&server.url()).await;
    let pinned = pin(&server.url()).await;
    let course = run::<S>(system, &server, time, rate).await;
    drop(pinned);
    course
}

#[tokio::main]
async fn main() {
    let Options { time, rate, json, chart, peer } = options();
    // Before minutes are spent: whether the peer's records can be read.
    let peer = peer.map(|path| {
        let text = std::fs::read(path).expect("the peer's records can be read");
        serde_json::from_slice::<Course>(&text).expect("they are one course")
    });
    let (ours, plain) = tokio::join!(
        course_of::<windlass_engine::Windlass>(time, rate),
        course_of::<plain::Plain>(time, rate)
    );
    println!("{}, {rate} jobs a second for {time:?}", Postgres::version().expect("its version"));
    let courses: Vec<&Course> = [&ours, &plain].into_iter().chain(&peer).collect();
    for course in &courses {
        course.print();
    }
    if let Some(path) = json {
        let text = serde_json::to_string_pretty(&courses).expect("JSON");
        std::fs::write(path, text).expect("the file of records can be written");
    }
    if let Some(path) = chart {
        chart::draw(&path, rate, &courses).expect("the chart can be drawn");
    }
}
