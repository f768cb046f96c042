//! The one source of random numbers: jitter, weighted choice, sessions and nonces. A test seeds it.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use windlass_core::{Nonce, SessionId};

/// Random numbers, either from the operating system's entropy or from a seed.
pub(crate) struct Entropy {
    rng: Mutex<fastrand::Rng>,
    /// `None` when it is the operating system's.
    seed: Option<u64>,
}

impl Entropy {
    /// Different in every process.
    pub(crate) fn from_os() -> Self {
        // A random UUID carries 122 bits from the operating system.
        let bits = SessionId::random().as_u128();
        #[expect(clippy::cast_possible_truncation, reason = "folding 128 bits into a seed of 64")]
        let seed = (bits ^ (bits >> 64)) as u64;
        Self { rng: Mutex::new(fastrand::Rng::with_seed(seed)), seed: None }
    }

    /// The same for the same seed.
    pub(crate) fn seeded(seed: u64) -> Self {
        Self { rng: Mutex::new(fastrand::Rng::with_seed(seed)), seed: Some(seed) }
    }

    /// The seed, for a failure to name.
    pub(crate) fn seed(&self) -> Option<u64> {
        self.seed
    }

    fn draw<T>(&self, draw: impl FnOnce(&mut fastrand::Rng) -> T) -> T {
        draw(&mut self.rng.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Evenly distributed between zero and `most`, both included, in whole milliseconds.
    pub(crate) fn up_to(&self, most: Duration) -> Duration {
        let millis = u64::try_from(most.as_millis()).unwrap_or(u64::MAX);
        Duration::from_millis(self.draw(|rng| rng.u64(0..=millis)))
    }

    pub(crate) fn session(&self) -> SessionId {
        if self.seed.is_some() {
            SessionId::from_u128(self.draw(|rng| rng.u128(1..)))
        } else {
            SessionId::random()
        }
    }

    pub(crate) fn nonce(&self) -> Nonce {
        if self.seed.is_some() { Nonce::from_u128(self.draw(|rng| rng.u128(1..))) } else { Nonce::random() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_itself_and_the_system_does_not() {
        let (a, b) = (Entropy::seeded(7), Entropy::seeded(7));
        assert_eq!((a.session(), a.nonce()), (b.session(), b.nonce()));
        assert_ne!(Entropy::seeded(8).session(), b.session());
        assert_ne!(Entropy::from_os().nonce(), Entropy::from_os().nonce());
        assert_ne!(Entropy::from_os().up_to(Duration::MAX), Entropy::from_os().up_to(Duration::MAX));
    }

    #[test]
    fn jitter_stays_within_its_bound() {
        let entropy = Entropy::seeded(1);
        assert_eq!(entropy.up_to(Duration::ZERO), Duration::ZERO);
        let drawn: Vec<_> = (0..1_000).map(|_| entropy.up_to(Duration::from_millis(9))).collect();
        assert!(drawn.iter().all(|d| *d <= Duration::from_millis(9)));
        assert!((0..=9).all(|ms| drawn.contains(&Duration::from_millis(ms))), "every value comes up");
    }
}
