//! What was dispatched: assertions whose failure says what was there instead.

use std::fmt::Write as _;
use std::time::Duration;

use windlass_core::Timestamp;
use windlass_memory::{Dispatched, MemoryBackend};

use crate::codec::Codec;
use crate::job::Job;
use crate::queue::Queue;
use crate::upgrade;

/// Assertions on everything ever dispatched to a [fake](Queue::fake), whatever became of it since.
impl Queue<MemoryBackend> {
    /// At least one `J` was dispatched.
    ///
    /// # Panics
    /// When none was; the message lists what was.
    #[track_caller]
    pub fn assert_dispatched<J: Job>(&self) {
        let all = self.backend().recorded();
        assert!(
            all.iter().any(is::<J>),
            "expected `{}` to be dispatched, but it was not\n{}",
            J::NAME,
            instead(&all)
        );
    }

    /// At least one `J` that `wanted` accepts was dispatched.
    ///
    /// # Panics
    /// When none was; the message lists what was.
    #[track_caller]
    pub fn assert_dispatched_with<J: Job>(&self, wanted: impl Fn(&J) -> bool) {
        let all = self.backend().recorded();
        let jobs: Vec<J> = all.iter().filter(|one| is::<J>(one)).map(read).collect();
        assert!(
            jobs.iter().any(wanted),
            "expected `{}` to be dispatched with a payload that the predicate accepts, but {}\n{}",
            J::NAME,
            match jobs.len() {
                0 => "it was not dispatched".to_owned(),
                n => format!("it accepts none of the {n} that were"),
            },
            instead(&all)
        );
    }

    /// Exactly `times` `J`s were dispatched.
    ///
    /// # Panics
    /// When it was more or fewer; the message lists what was dispatched.
    #[track_caller]
    pub fn assert_dispatched_times<J: Job>(&self, times: usize) {
        let all = self.backend().recorded();
        let found = all.iter().filter(|one| is::<J>(one)).count();
        assert!(found == times, "expected `{}` {times} times, found {found}\n{}", J::NAME, instead(&all));
    }

    /// No `J` was dispatched.
    ///
    /// # Panics
    /// When one was; the message lists what was dispatched.
    #[track_caller]
    pub fn assert_not_dispatched<J: Job>(&self) {
        let all = self.backend().recorded();
        let found = all.iter().filter(|one| is::<J>(one)).count();
        assert!(found == 0, "expected no `{}` to be dispatched, found {found}\n{}", J::NAME, instead(&all));
    }

    /// Nothing at all was dispatched.
    ///
    /// # Panics
    /// When something was; the message lists it.
    #[track_caller]
    pub fn assert_nothing_dispatched(&self) {
        let all = self.backend().recorded();
        assert!(
            all.is_empty(),
            "expected nothing to be dispatched, found {} jobs\n{}",
            all.len(),
            instead(&all)
        );
    }

    /// Every `J` that was dispatched, oldest first.
    ///
    /// # Panics
    /// When one cannot be read back from its bytes: a worker could not read it either.
    #[must_use]
    #[track_caller]
    pub fn dispatched<J: Job>(&self) -> Vec<J> {
        self.backend().recorded().iter().filter(|one| is::<J>(one)).map(read).collect()
    }
}

fn is<J: Job>(one: &Dispatched) -> bool {
    let kind = one.body.kind.as_str();
    kind == J::NAME || J::ALIASES.contains(&kind)
}

#[track_caller]
fn read<J: Job>(one: &Dispatched) -> J {
    let body = &one.body;
    let job =
        Codec::from_id(body.codec).and_then(|codec| upgrade::decode(codec, body.version, &body.payload));
    match job {
        Ok(job) => job,
        Err(error) => panic!("`{}` was dispatched, but its payload cannot be read back: {error}", J::NAME),
    }
}

/// The table of what was dispatched instead.
fn instead(all: &[Dispatched]) -> String {
    if all.is_empty() {
        return "\n  nothing was dispatched".to_owned();
    }
    let jobs = if all.len() == 1 { "job" } else { "jobs" };
    let mut text = format!("\n  dispatched ({} {jobs}, oldest first):", all.len());
    for (at, one) in all.iter().enumerate().take(50) {
        let queue = format!("on \"{}\"", one.body.queue);
        let due = due(one.at, one.due);
        let payload = payload(one);
        let _ = write!(
            text,
            "\n    #{:<3} {:<24} {queue:<16} {due:<8} {payload}",
            at + 1,
            one.body.kind.as_str()
        );
    }
    if all.len() > 50 {
        let _ = write!(text, "\n    ... and {} more", all.len() - 50);
    }
    text
}

fn due(at: Timestamp, due: Timestamp) -> String {
    let wait = due.since(at);
    if wait.is_zero() { "now".to_owned() } else { format!("in {}", short(wait)) }
}

/// A duration in at most two units: `1h`, `59m 59s`, `250ms`.
fn short(duration: Duration) -> String {
    let millis = duration.as_millis();
    let units = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
    let mut left = millis;
    let mut parts = Vec::new();
    for (unit, size) in units {
        if left >= size && parts.len() < 2 {
            parts.push(format!("{}{unit}", left / size));
            left %= size;
        }
    }
    if parts.is_empty() { "0ms".to_owned() } else { parts.join(" ") }
}

/// The payload for people: JSON as it is, other codecs by size; long ones elided in the middle.
fn payload(one: &Dispatched) -> String {
    let bytes = &one.body.payload;
    match std::str::from_utf8(bytes) {
        Ok(text) if one.body.codec == Codec::Json.id() => elide(text),
        _ => format!("({} bytes)", bytes.len()),
    }
}

fn elide(text: &str) -> String {
    const MOST: usize = 120;
    let chars: Vec<char> = text.chars().collect();
    if chars.len() <= MOST {
        return text.to_owned();
    }
    let (head, tail) = (&chars[..MOST - 20], &chars[chars.len() - 17..]);
    format!("{}...{}", head.iter().collect::<String>(), tail.iter().collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_short() {
        let cases = [
            (0, "0ms"),
            (250, "250ms"),
            (1_000, "1s"),
            (3_599_000, "59m 59s"),
            (3_600_000, "1h"),
            (90_061_001, "1d 1h"),
        ];
        for (millis, text) in cases {
            assert_eq!(short(Duration::from_millis(millis)), text);
        }
    }

    #[test]
    fn long_payloads_are_elided_in_the_middle() {
        let text = format!("{{\"text\":\"{}\",\"end\":1}}", "é".repeat(500));
        let shown = elide(&text);
        assert_eq!(shown.chars().count(), 120);
        assert!(shown.starts_with("{\"text\"") && shown.contains("...") && shown.ends_with("\"end\":1}"));
        assert_eq!(elide("short"), "short");
    }
}
