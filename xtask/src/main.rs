//! The tools of the house: `cargo xtask help` lists them. One file a tool; `run.rs` starts programs, `counts.rs` and
//! `record.rs` read what they print.

mod bench;
mod counts;
mod coverage;
mod crash;
mod examples;
mod lint;
mod record;
mod run;
mod servers;
mod sim;
mod test;

use std::process::ExitCode;

const HELP: &str = "\
cargo xtask test [--long]
    Everything a change must pass: unit, integration and conformance tests of the whole workspace, doc tests, every example
    under a time limit, the simulator, and short crash runs. Uses cargo-nextest where it is installed and `cargo test` where
    it is not. Starts private servers for the tests of the engines that need one (Postgres, Redis), unless
    WINDLASS_TEST_POSTGRES_URL and WINDLASS_TEST_REDIS_URL name them; installs their Debian packages where it may.
    WINDLASS_REDIS_SERVER (a program) and WINDLASS_POSTGRES_BIN (a folder) name those of another version.
    The last line is `N passed, N failed`, over all five.
    --long   more cases of the same: 4,096 instead of 256 a proptest property, 1,000 instead of 60 (40) histories an engine,
             two minutes instead of four seconds of processes sharing a file, 200,000 instead of 20,000 simulated histories

cargo xtask servers up|down
    Starts the same private servers for `cargo nextest run` and prints the variables that name them, or ends them.

cargo xtask sim [--histories N] [--seed S] [--twice] [--mutants | --mutant NAME] [--threads T]
    Plays histories of whole workers under seeded faults in virtual time, and checks the promises at every step. A seed
    alone tells its history; --mutants looks for every seeded fault of the protocol; `cargo xtask sim --help` says more.

cargo xtask lint
    rustfmt, clippy (whole workspace with all targets; the library with default features), documentation with broken
    links denied, and cargo-deny where it is installed.

cargo xtask coverage
    Line coverage by tests of src/, backends/core and backends/memory, without the lines of the tests themselves; fails
    below 90 % in any of them. Needs cargo-llvm-cov.

cargo xtask bench [--backend memory|redis|sqlite] [--quick] [--peers] [--json FILE]
    Measures an engine beside its raw limit in release builds, five rounds (three with --quick), and prints medians, ranges
    and ratios: in memory the drain of a million jobs (200,000 with --quick), on SQLite and Redis dispatch, bulk, drain and
    pickup with 200,000 (50,000). --peers adds the peers' program, round about with ours. --json writes a record a line;
    see benches/README.md.

cargo xtask crash [--backend sqlite|redis|postgres] [--jobs N] [--kills K] [--server-kills S] [--zombies Z] [--everysec]
                  [--effects] [--seed S] [--json FILE] [--keep]
    Workers and dispatchers as processes of their own, release builds, killed and frozen K times (12) at random and at
    named points while they run N jobs (3,000), and the engine's private server killed S times; then every job is accounted
    for. Fails when one was lost, ended twice, or a verdict was believed that came too late. --everysec: Redis writes its
    file once a second. --effects: each handler writes a row in the transaction that completes its job (Postgres). --keep
    leaves the data and all that the processes said. See crash/README.md.

cargo xtask help
    This.
";

/// The command line is wrong: nothing was done.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match args.as_slice() {
        [] | ["help" | "--help" | "-h"] => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        ["test"] => test::test(false),
        ["test", "--long"] => test::test(true),
        ["servers", "up"] => servers::up(),
        ["servers", "down"] => servers::down(),
        ["sim", args @ ..] => sim::sim(args),
        ["lint"] => lint::lint(),
        ["coverage"] => coverage::coverage(),
        ["bench", flags @ ..] => match bench::Options::parse(flags) {
            Ok(options) => bench::bench(&options),
            Err(why) => return usage(&format!("{why:#}")),
        },
        ["crash", flags @ ..] => crash::crash(flags),
        [tool @ ("test" | "lint" | "coverage"), rest @ ..] => {
            return usage(&format!("{tool} does not take `{}`", rest.join(" ")));
        }
        [unknown, ..] => return usage(&format!("unknown subcommand `{unknown}`")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn usage(why: &str) -> ExitCode {
    eprintln!("error: {why}; `cargo xtask help` lists what there is");
    ExitCode::from(USAGE)
}
