//! What was measured: a line to read, and a record in JSON that carries its conditions. The peers' program writes the
//! same.

use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;

/// The conditions of a measurement.
#[derive(Clone, Serialize)]
pub(crate) struct Conditions {
    pub(crate) jobs: usize,
    pub(crate) payload_bytes: usize,
    /// How the payload is written; `none` where values are handed over as they are.
    pub(crate) codec: &'static str,
    /// Jobs that run at once; none where nothing bounds them.
    pub(crate) concurrency: Option<usize>,
    /// How a job runs.
    pub(crate) execution: &'static str,
    /// What an acknowledged write survives, on engines where that is a setting.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) durability: Option<&'static str>,
    /// What the server says of its version, on engines that have one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) server: Option<String>,
    pub(crate) cores: usize,
}

/// One row: its name, what it measured under which conditions, and a sample a repeat.
#[derive(Serialize)]
pub(crate) struct Row {
    #[serde(skip)]
    pub(crate) name: &'static str,
    pub(crate) engine: &'static str,
    pub(crate) system: &'static str,
    pub(crate) version: String,
    pub(crate) workload: &'static str,
    pub(crate) settings: Conditions,
    pub(crate) unit: &'static str,
    #[serde(flatten, serialize_with = "summary")]
    pub(crate) samples: Vec<f64>,
    /// Whether every job ran exactly once. The program ends in a panic where one did not, so this is never false; it is
    /// null where no job was to run.
    pub(crate) exactly_once: Option<bool>,
}

#[derive(Serialize)]
struct Summary {
    n: usize,
    median: f64,
    min: f64,
    max: f64,
}

impl Summary {
    fn of(samples: &[f64]) -> Self {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let n = sorted.len();
        // Of an even number of samples the mean of the middle two.
        let median = f64::midpoint(sorted[(n - 1) / 2], sorted[n / 2]);
        Self { n, median: rounded(median), min: rounded(sorted[0]), max: rounded(sorted[n - 1]) }
    }
}

/// Rates to whole jobs, small figures such as milliseconds to hundredths.
fn rounded(figure: f64) -> f64 {
    if figure < 100.0 { (figure * 100.0).round() / 100.0 } else { figure.round() }
}

fn summary<S: serde::Serializer>(samples: &[f64], to: S) -> Result<S::Ok, S::Error> {
    Summary::of(samples).serialize(to)
}

/// Prints the rows that were measured and, when asked to, writes their records: one JSON object a line.
pub(crate) fn publish(rows: &[Row], json: Option<&Path>) -> io::Result<()> {
    let rows = rows.iter().filter(|row| !row.samples.is_empty());
    for row in rows.clone() {
        let Summary { median, min, max, .. } = Summary::of(&row.samples);
        println!("{:<28} median {median:>10} {}   min {min:>10}   max {max:>10}", row.name, row.unit);
    }
    if let Some(path) = json {
        let mut file = io::BufWriter::new(std::fs::File::create(path)?);
        for row in rows {
            serde_json::to_writer(&mut file, row)?;
            file.write_all(b"\n")?;
        }
        file.flush()?;
    }
    Ok(())
}

/// The version of `package` in a lock file: what was really built.
pub(crate) fn locked(lock: &str, package: &str) -> String {
    let entry = format!("name = \"{package}\"\nversion = \"");
    let rest = lock.split_once(&entry).map(|(_, rest)| rest);
    rest.and_then(|rest| rest.split('"').next()).unwrap_or("unknown").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_carries_its_conditions() {
        let row = Row {
            name: "windlass",
            engine: "memory",
            system: "windlass",
            version: locked("name = \"windlass\"\nversion = \"0.1.0\"\n", "windlass"),
            workload: "drain",
            settings: Conditions {
                jobs: 10,
                payload_bytes: 100,
                codec: "json",
                concurrency: None,
                execution: "runners",
                durability: None,
                server: Some("Redis server v=7".to_owned()),
                cores: 2,
            },
            unit: "jobs/s",
            samples: vec![4.0, 1.0, 3.0, 2.0],
            exactly_once: Some(true),
        };
        assert_eq!(
            serde_json::to_string(&row).expect("plain data"),
            "{\"engine\":\"memory\",\"system\":\"windlass\",\"version\":\"0.1.0\",\"workload\":\"drain\",\
             \"settings\":{\"jobs\":10,\"payload_bytes\":100,\"codec\":\"json\",\"concurrency\":null,\
             \"execution\":\"runners\",\"server\":\"Redis server v=7\",\"cores\":2},\"unit\":\"jobs/s\",\"n\":4,\"median\":2.5,\"min\":1.0,\"max\":4.0,\
             \"exactly_once\":true}"
        );
        assert_eq!(locked("", "windlass"), "unknown");
    }
}
