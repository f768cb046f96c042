//! `cargo xtask sim`: plays histories, hunts seeded faults, and plays seeds twice.

mod options;
mod spread;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use windlass_sim::{Mutant, Violation, quiet_panics, run, run_briefly, tell};

use crate::options::{Options, USAGE, What};
use crate::spread::{Failures, spread};

fn main() -> Result<ExitCode> {
    quiet_panics();
    let Some(options) = Options::parse(std::env::args().skip(1))? else {
        println!("{USAGE}");
        return Ok(ExitCode::SUCCESS);
    };
    let fine = match options.what {
        What::Tell => tell_one(&options),
        What::Play => play(&options),
        What::Twice => twice(&options),
        What::Hunt => hunt(&options),
    };
    Ok(if fine { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Tells one history from beginning to end.
fn tell_one(options: &Options) -> bool {
    let (story, played) = tell(options.seed, options.mutant);
    story.iter().for_each(|line| println!("  {line}"));
    match &played {
        Ok(passed) => println!("seed {}: no violation; {passed:?}", options.seed),
        Err(violation) => println!("{violation}"),
    }
    played.is_ok()
}

/// Plays many histories. The shortest of those that fail is told.
fn play(options: &Options) -> bool {
    let begun = started();
    // A few more after one that failed: another may tell the same in fewer words.
    let played = spread(options, 300, |seed| run(seed, options.mutant));
    let took = begun.elapsed();
    if let Some(violation) = shortest(played.failures) {
        println!("{violation}");
        println!(
            "{} histories were played. This one again: {}",
            played.histories,
            again(options, &violation)
        );
        return false;
    }
    let (sum, rate) = (played.sum, played.histories as f64 / took.as_secs_f64());
    println!(
        "{} histories from seed {}: no violation. {} calls, {} runs, {} jobs, {} faults, {} s of virtual time; hash \
         {:016x}",
        played.histories,
        options.seed,
        sum.calls,
        sum.runs,
        sum.jobs,
        sum.faults,
        sum.millis / 1_000,
        sum.hash
    );
    let cores = options.threads;
    println!("{took:.1?} on {cores} threads: {rate:.0} histories/s, {:.0} a core", rate / cores as f64);
    true
}

fn again(options: &Options, violation: &Violation) -> String {
    let mutant = options.mutant.map(|mutant| format!(" --mutant {mutant}")).unwrap_or_default();
    format!("cargo xtask sim --seed {}{mutant}", violation.seed)
}

/// The failure with the shortest story among those that break the same promise as the first.
fn shortest(failures: Failures<Box<Violation>>) -> Option<Box<Violation>> {
    let first = failures.first()?.check;
    failures.into_iter().filter(|failure| failure.check == first).min_by_key(|failure| failure.story.len())
}

/// Plays each seed twice and compares the hashes of all that happened.
fn twice(options: &Options) -> bool {
    let played = spread(options, 0, |seed| {
        match (run_briefly(seed, options.mutant), run_briefly(seed, options.mutant)) {
            (Ok(one), Ok(two)) if one == two => Ok(one),
            (one, two) => Err(format!("seed {seed} gave {one:?}, and then {two:?}")),
        }
    });
    match played.failures.first() {
        None => println!("{} seeds from {} twice: equal hashes", played.histories, options.seed),
        Some(failure) => println!("{failure}"),
    }
    played.failures.is_empty()
}

/// Looks for each seeded fault until a history catches it.
fn hunt(options: &Options) -> bool {
    println!("{:<20} {:>9}  {:<13} what was noticed", "fault", "histories", "caught by");
    let mut escaped = 0;
    for mutant in Mutant::all() {
        let played = spread(options, 0, |seed| run_briefly(seed, Some(mutant)));
        // Of several that were played side by side the one with the lowest seed counts.
        let caught = played.failures.into_iter().min_by_key(|violation| violation.seed);
        let name = mutant.to_string();
        match caught {
            Some(violation) => {
                let (at, mut text) = (violation.seed - options.seed + 1, violation.text);
                text.truncate(text.floor_char_boundary(100));
                println!("{name:<20} {at:>9}  {:<13} {text}", violation.check);
            }
            None => {
                escaped += 1;
                println!("{name:<20} {:>9}  ESCAPED", options.histories);
            }
        }
    }
    println!(
        "{} faults, {escaped} escaped within {} histories each",
        Mutant::all().count(),
        options.histories
    );
    escaped == 0
}

#[expect(clippy::disallowed_methods, reason = "a throughput is of the real clock")]
fn started() -> Started {
    Started(std::time::Instant::now())
}

struct Started(std::time::Instant);

impl Started {
    fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}
