//! Histories on all cores: each is played on one thread, and the seeds are handed out in order.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use windlass_sim::Passed;

use crate::options::Options;

/// Failures, in the order in which they were found.
pub(crate) type Failures<F> = Vec<F>;

/// What came of them all.
pub(crate) struct Played<F> {
    pub(crate) histories: u64,
    /// Everything added up; the hashes joined so that the order does not matter.
    pub(crate) sum: Passed,
    pub(crate) failures: Failures<F>,
}

/// Plays `options.histories` of them, or until one fails and `look_on` more.
pub(crate) fn spread<F: Send>(
    options: &Options,
    look_on: u64,
    play: impl Fn(u64) -> Result<Passed, F> + Sync,
) -> Played<F> {
    let (next, end) = (AtomicU64::new(0), AtomicU64::new(options.histories));
    let played = Mutex::new(Played { histories: 0, sum: Passed::default(), failures: Vec::new() });
    std::thread::scope(|scope| {
        for _ in 0..options.threads {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    if at >= end.load(Ordering::Relaxed) {
                        return;
                    }
                    let one = play(options.seed.wrapping_add(at));
                    let mut played = played.lock().unwrap_or_else(PoisonError::into_inner);
                    played.histories += 1;
                    match one {
                        Ok(passed) => played.sum.add(passed),
                        Err(failure) => {
                            end.fetch_min(at + look_on, Ordering::Relaxed);
                            played.failures.push(failure);
                        }
                    }
                }
            });
        }
    });
    played.into_inner().unwrap_or_else(PoisonError::into_inner)
}
