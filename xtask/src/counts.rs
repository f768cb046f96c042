//! Reads how many tests passed and failed out of what the test runners print. A count that cannot be read, or does not
//! add up, is an error: never a zero.

use std::ops::AddAssign;

use anyhow::{Context as _, Result, bail, ensure};

/// How many did what.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Counts {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

/// Out of nextest's standard error: `Summary [ 1.2s] 5 tests run: 3 passed (1 slow), 1 failed, 1 timed out, 2 skipped`.
pub(crate) fn of_nextest(stderr: &str) -> Result<Counts> {
    let plain = without_colours(stderr);
    let mut summaries = plain.lines().filter(|line| line.trim_start().starts_with("Summary ["));
    let line = summaries.next_back().context("nextest printed no summary: see its output above")?;
    let read = || -> Option<(u64, Counts)> {
        let (run, parts) = line.split_once(']')?.1.split_once(':')?;
        // `3/5 tests run` where it was interrupted: those not run are missing, not passed.
        let (_, run) = run.trim().split_once('/').unwrap_or(("", run.trim()));
        let run = run.split(' ').next()?.parse().ok()?;
        let mut counts = Counts::default();
        for part in without_brackets(parts).split(',') {
            let (number, what) = part.trim().split_once(' ')?;
            let number: u64 = number.parse().ok()?;
            match what.trim() {
                "passed" => counts.passed += number,
                "failed" | "exec failed" | "timed out" => counts.failed += number,
                "skipped" => counts.skipped += number,
                _ => return None,
            }
        }
        Some((run, counts))
    };
    let (run, counts) = read().with_context(|| format!("nextest's summary cannot be read: `{line}`"))?;
    ensure!(run > 0, "nextest ran no test");
    ensure!(run == counts.passed + counts.failed, "nextest's summary does not add up: `{line}`");
    Ok(counts)
}

/// Out of libtest's standard output, a line a test binary: `test result: ok. 3 passed; 0 failed; 1 ignored; ...`.
pub(crate) fn of_libtest(stdout: &str) -> Result<Counts> {
    let plain = without_colours(stdout);
    let (mut counts, mut begun, mut ended) = (Counts::default(), 0, 0);
    for line in plain.lines() {
        let announced = line.strip_prefix("running ").and_then(|rest| rest.split_once(" test"));
        if let Some((number, "" | "s")) = announced {
            let _: u64 = number.parse().with_context(|| format!("cannot be read: `{line}`"))?;
            begun += 1;
        }
        if let Some(rest) = line.strip_prefix("test result: ") {
            let result = result_line(rest).with_context(|| format!("cannot be read: `{line}`"))?;
            counts += result;
            ended += 1;
        }
    }
    ensure!(ended > 0, "no line `test result:` was printed: see the output above");
    if begun != ended {
        bail!("{begun} groups of tests began and {ended} ended: a test binary died, see the output above");
    }
    Ok(counts)
}

fn result_line(rest: &str) -> Option<Counts> {
    let mut counts = Counts::default();
    let parts = rest.split_once(". ")?.1;
    for part in parts.split(';').take(3) {
        let (number, what) = part.trim().split_once(' ')?;
        let number = number.parse().ok()?;
        match what {
            "passed" => counts.passed = number,
            "failed" => counts.failed = number,
            "ignored" => counts.skipped = number,
            _ => return None,
        }
    }
    Some(counts)
}

/// Without the asides in round brackets: `(1 slow)`, `(2 flaky)`.
fn without_brackets(text: &str) -> String {
    let mut depth = 0_u32;
    text.chars()
        .filter(|letter| {
            match letter {
                '(' => depth += 1,
                ')' => depth = depth.saturating_sub(1),
                _ => return depth == 0,
            }
            false
        })
        .collect()
}

/// Without the escape sequences that colour a terminal.
fn without_colours(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        if letter == '\u{1b}' {
            // `ESC [ ... m`: all up to the letter that ends it.
            letters.by_ref().skip(1).find(char::is_ascii_alphabetic);
        } else {
            plain.push(letter);
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(passed: u64, failed: u64, skipped: u64) -> Counts {
        Counts { passed, failed, skipped }
    }

    #[test]
    fn nextest_summaries_are_read() {
        for (line, expected) in [
            ("     Summary [   0.123s] 10 tests run: 10 passed, 0 skipped", counts(10, 0, 0)),
            ("     Summary [  0.1s] 1 test run: 1 passed, 3 skipped", counts(1, 0, 3)),
            (
                "     Summary [   9.1s] 9 tests run: 6 passed (1 slow, 2 flaky), 1 failed, 1 exec failed, 1 timed out, 4 skipped",
                counts(6, 3, 4),
            ),
            (
                "\u{1b}[32;1m     Summary\u{1b}[0m [   0.1s] \u{1b}[1m2\u{1b}[0m tests run: 2 passed, 0 skipped",
                counts(2, 0, 0),
            ),
        ] {
            assert_eq!(of_nextest(line).unwrap(), expected, "{line}");
        }
    }

    #[test]
    fn a_summary_that_cannot_be_trusted_is_an_error() {
        for line in [
            "",
            "error: could not compile `windlass`",
            "Summary [ 0.1s] 0 tests run: 0 passed, 0 skipped",
            "Summary [ 0.1s] 3 tests run: 2 passed, 0 skipped",
            "Summary [ 0.1s] 2/3 tests run: 2 passed, 0 skipped",
            "Summary [ 0.1s] 3 tests run: 2 passed, 1 vanished, 0 skipped",
        ] {
            assert!(of_nextest(line).is_err(), "{line}");
        }
    }

    #[test]
    fn libtest_results_are_added_up() {
        let output = "running 2 tests\ntest a ... ok\n\ntest result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; \
                      0 filtered out; finished in 0.1s\n\nrunning 1 test\n\ntest result: FAILED. 0 passed; 1 failed; 0 \
                      ignored; 0 measured\n";
        assert_eq!(of_libtest(output).unwrap(), counts(2, 1, 1));
    }

    #[test]
    fn a_test_binary_that_died_is_an_error() {
        let died = "running 2 tests\ntest a ... ok\n";
        let one_of_two = format!("running 1 test\ntest result: ok. 1 passed; 0 failed; 0 ignored\n{died}");
        for output in
            ["", died, &one_of_two, "running 1 test\ntest result: ok. many passed; 0 failed; 0 ignored"]
        {
            assert!(of_libtest(output).is_err(), "{output}");
        }
    }
}
