//! When a failed job is tried again.

use std::time::Duration;

use windlass_core::limits::DELAY_MAX;

use crate::entropy::Entropy;

/// How long a failed job backs off before its next attempt. Its number of attempts is a matter of `max_attempts`.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Retry {
    /// Never: the first failure is the last.
    None,
    /// Always as long.
    Fixed(Duration),
    /// The first failure waits for the first of these, and so on; the last one repeats. An empty list means at once.
    List(&'static [Duration]),
    /// Exponential back-off with full jitter: evenly distributed between nothing and `base * factor ^ (failures - 1)`,
    /// at most `cap`.
    ///
    /// Full jitter keeps a crowd of failed jobs from coming back as a crowd (M. Brooker, "Exponential Backoff And
    /// Jitter", AWS Architecture Blog, 2015).
    Exponential {
        /// The bound after the first failure.
        base: Duration,
        /// What each further failure multiplies it by; 0 and 1 leave it as it is.
        factor: u32,
        /// The bound it never exceeds.
        cap: Duration,
    },
    /// Whatever the function says for the number of failures so far, 1 or more.
    Custom(fn(failures: u16) -> Duration),
}

impl Retry {
    /// Exponential with full jitter: 2 s, doubling, at most an hour. With 20 attempts a job is tried for about five
    /// hours on average.
    pub const DEFAULT: Self = Self::exponential(Duration::from_secs(2), Duration::from_secs(60 * 60));

    /// Exponential with full jitter, doubling.
    #[must_use]
    pub const fn exponential(base: Duration, cap: Duration) -> Self {
        Self::Exponential { base, factor: 2, cap }
    }

    /// The back-off after `failures` failures; `None` when the job is not to be tried again. At most a hundred years.
    pub(crate) fn after(self, failures: u16, entropy: &Entropy) -> Option<Duration> {
        let delay = match self {
            Self::None => return None,
            Self::Fixed(delay) => delay,
            Self::List(delays) => {
                let at = usize::from(failures.max(1) - 1).min(delays.len().saturating_sub(1));
                delays.get(at).copied().unwrap_or(Duration::ZERO)
            }
            Self::Exponential { base, factor, cap } => {
                // Multiplied step by step, so that it saturates; it is at the cap after a few dozen.
                let mut bound = base.min(cap);
                for _ in 1..failures {
                    if bound >= cap || factor <= 1 {
                        break;
                    }
                    bound = bound.saturating_mul(factor).min(cap);
                }
                entropy.up_to(bound.min(DELAY_MAX))
            }
            Self::Custom(delay) => delay(failures),
        };
        Some(delay.min(DELAY_MAX))
    }
}

impl Default for Retry {
    fn default() -> Self {
        Self::DEFAULT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn fixed_list_custom_and_none_do_as_they_say() {
        let entropy = Entropy::seeded(1);
        let after = |retry: Retry, failures| retry.after(failures, &entropy);
        assert_eq!(after(Retry::None, 1), None);
        assert_eq!(after(Retry::Fixed(secs(3)), 7), Some(secs(3)));
        const LIST: Retry = Retry::List(&[secs(1), secs(5)]);
        assert_eq!([0, 1, 2, 3, u16::MAX].map(|n| after(LIST, n)), [1, 1, 5, 5, 5].map(|s| Some(secs(s))));
        assert_eq!(after(Retry::List(&[]), 1), Some(Duration::ZERO));
        assert_eq!(after(Retry::Custom(|n| secs(u64::from(n) * 10)), 3), Some(secs(30)));
        assert_eq!(after(Retry::Custom(|_| Duration::MAX), 3), Some(DELAY_MAX));
    }

    #[test]
    fn exponential_is_jittered_in_full_and_never_above_its_bound() {
        let entropy = Entropy::seeded(1);
        let retry = Retry::exponential(secs(1), secs(60));
        for (failures, bound) in [(1, 1), (2, 2), (3, 4), (6, 32), (7, 60), (1_000, 60), (u16::MAX, 60)] {
            let drawn: Vec<_> = (0..400).filter_map(|_| retry.after(failures, &entropy)).collect();
            assert_eq!(drawn.len(), 400);
            let most = drawn.iter().max().expect("400 of them");
            assert!(*most <= secs(bound) && *most > secs(bound).mul_f64(0.9), "{failures}: {most:?}");
            assert!(drawn.iter().min().expect("400 of them") < &secs(bound).mul_f64(0.1));
        }
    }

    #[test]
    fn silly_factors_and_bounds_do_no_harm() {
        let entropy = Entropy::seeded(1);
        for factor in [0, 1] {
            let retry = Retry::Exponential { base: secs(1), factor, cap: secs(60) };
            assert!(retry.after(u16::MAX, &entropy).is_some_and(|delay| delay <= secs(1)));
        }
        let huge = Retry::Exponential { base: Duration::MAX, factor: u32::MAX, cap: Duration::MAX };
        assert!(huge.after(u16::MAX, &entropy).is_some_and(|delay| delay <= DELAY_MAX));
        let low_cap = Retry::exponential(secs(10), secs(1));
        assert!(low_cap.after(1, &entropy).is_some_and(|delay| delay <= secs(1)));
        assert!(matches!(Retry::default(), Retry::Exponential { factor: 2, .. }));
    }
}
