//! The simulator about itself: histories repeat, are told when they fail, and notice what is broken on purpose.
//!
//! The numbers are small, since these run without optimisation. `cargo xtask test` plays 20,000 histories, a thousand seeds
//! twice, and every seeded fault.

use windlass_sim::{Mutant, quiet_panics, run, run_briefly, tell};

fn fault(name: &str) -> Mutant {
    Mutant::named(name).expect("there is such a fault")
}

#[test]
fn histories_keep_every_promise() {
    quiet_panics();
    for seed in 1_000_000..1_000_060 {
        let passed = run(seed, None).unwrap_or_else(|violation| panic!("{violation}"));
        assert!(passed.calls > 0 && passed.runs > 0 && passed.jobs > 0, "{passed:?}");
    }
}

#[test]
fn the_same_seed_gives_the_same_history() {
    quiet_panics();
    for seed in 0..25 {
        let (story, passed) = tell(seed, None);
        let again = tell(seed, None);
        assert_eq!((&story, &passed), (&again.0, &again.1), "seed {seed}");
        let unwatched = run_briefly(seed, None);
        assert_eq!(passed, unwatched, "taking notes changes nothing");
        assert!(story.len() > 50, "seed {seed} is told in {} lines", story.len());
    }
}

#[test]
fn different_seeds_give_different_histories() {
    quiet_panics();
    let mut hashes: Vec<u64> = (0..40).map(|seed| run_briefly(seed, None).expect("clean").hash).collect();
    hashes.sort_unstable();
    hashes.dedup();
    assert_eq!(hashes.len(), 40);
}

#[test]
fn a_history_that_fails_is_told_and_fails_again() {
    quiet_panics();
    let broken =
        (0..50).find_map(|seed| run(seed, Some(fault("NoEpochCheck"))).err()).expect("it is noticed");
    assert_eq!(broken.check, "S7");
    assert!(broken.story.iter().any(|line| line.contains("starts")), "it tells what happened before");
    let (story, again) = tell(broken.seed, Some(fault("NoEpochCheck")));
    let again = again.expect_err("it fails again");
    assert_eq!((broken.check, &broken.text, &broken.story), (again.check, &again.text, &story));
    let text = broken.to_string();
    assert!(text.contains(&format!("seed {} breaks S7", broken.seed)), "{text}");
}

#[test]
fn faults_of_engine_and_worker_are_noticed() {
    quiet_panics();
    for (name, check) in [
        ("NoNonceCheck", "S7"),
        ("SweepDrops", "S1"),
        ("SessionReused", "sessions"),
        ("VerdictsForgotten", "verdicts"),
        ("NeverFences", "S12"),
    ] {
        let caught = (0..100).find_map(|seed| run_briefly(seed, Some(fault(name))).err());
        assert_eq!(caught.expect("it is noticed within a hundred histories").check, check, "{name}");
    }
}

#[test]
fn faults_have_names_of_their_own_and_there_are_enough_of_them() {
    let mut names: Vec<_> = Mutant::all().map(|mutant| mutant.to_string()).collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
    assert!(count >= 40, "{count} seeded faults");
    assert_eq!(Mutant::named("NoSuchFault"), None);
}
