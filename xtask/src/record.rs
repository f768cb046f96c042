//! The records of the benchmark programs: a JSON object a line. Only as much JSON is read here as is needed to put the
//! rounds of one sitting together; everything else in a record is passed on as it came.

use anyhow::{Context as _, Result};

/// A record of one round, or of a sitting when several were put together.
pub(crate) struct Record {
    /// From the brace to the unit, what tells it from other records.
    conditions: String,
    samples: Vec<f64>,
    exactly_once: String,
}

impl Record {
    /// Reads a record of one round.
    pub(crate) fn parse(line: &str) -> Result<Self> {
        let read = || -> Option<Self> {
            let (conditions, _) = line.trim().split_once(",\"n\":")?;
            let median = field(line, "median")?.parse().ok()?;
            let exactly_once = field(line, "exactly_once")?.to_owned();
            Some(Self { conditions: conditions.to_owned(), samples: vec![median], exactly_once })
        };
        read().with_context(|| format!("no record: `{line}`"))
    }

    /// Takes in a later round of the same, or gives it back.
    pub(crate) fn join(&mut self, other: Self) -> Option<Self> {
        if self.conditions != other.conditions || self.exactly_once != other.exactly_once {
            return Some(other);
        }
        self.samples.extend(other.samples);
        self.samples.sort_by(f64::total_cmp);
        None
    }

    /// A text field of the record.
    pub(crate) fn text(&self, name: &str) -> &str {
        field(&self.conditions, name).unwrap_or_default().trim_matches('"')
    }

    pub(crate) fn n(&self) -> usize {
        self.samples.len()
    }

    /// Of an even number of samples the mean of the middle two.
    pub(crate) fn median(&self) -> f64 {
        let n = self.samples.len();
        f64::midpoint(self.samples[(n - 1) / 2], self.samples[n / 2])
    }

    pub(crate) fn min(&self) -> f64 {
        self.samples[0]
    }

    pub(crate) fn max(&self) -> f64 {
        self.samples[self.samples.len() - 1]
    }

    /// The record as a line of JSON.
    pub(crate) fn to_json(&self) -> String {
        format!(
            "{},\"n\":{},\"median\":{:.1},\"min\":{:.1},\"max\":{:.1},\"exactly_once\":{}}}",
            self.conditions,
            self.n(),
            self.median(),
            self.min(),
            self.max(),
            self.exactly_once
        )
    }
}

/// The value of the first field of this name, which must be a number, a word, or a text without escapes.
fn field<'a>(json: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = json.split_once(&format!("\"{name}\":"))?;
    let end = match rest.strip_prefix('"') {
        Some(text) => text.find('"')? + 2,
        None => rest.find([',', '}']).unwrap_or(rest.len()),
    };
    Some(&rest[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUND: &str = "{\"engine\":\"memory\",\"system\":\"windlass\",\"settings\":{\"jobs\":10,\"execution\":\"a, b\"},\
                         \"unit\":\"jobs/s\",\"n\":1,\"median\":8.0,\"min\":8.0,\"max\":8.0,\"exactly_once\":true}";

    #[test]
    fn rounds_of_one_sitting_become_one_record() {
        let mut record = Record::parse(ROUND).unwrap();
        assert!(record.join(Record::parse(&ROUND.replace("8.0", "2.0")).unwrap()).is_none());
        assert!(record.join(Record::parse(&ROUND.replace("8.0", "4.0")).unwrap()).is_none());
        assert_eq!(
            record.to_json(),
            ROUND.replace("\"n\":1,\"median\":8.0,\"min\":8.0", "\"n\":3,\"median\":4.0,\"min\":2.0")
        );
        assert_eq!((record.text("system"), record.text("execution")), ("windlass", "a, b"));
    }

    #[test]
    fn other_conditions_are_another_record() {
        let mut record = Record::parse(ROUND).unwrap();
        assert!(record.join(Record::parse(&ROUND.replace("\"jobs\":10", "\"jobs\":11")).unwrap()).is_some());
        assert_eq!(record.n(), 1);
        assert!(Record::parse("{}").is_err());
    }
}
