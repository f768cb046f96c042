//! Time as the contract sees it: instants in whole milliseconds, and who says what time it is.
//!
//! The one place of the project that reads the machine's wall clock is [`Timestamp::system_now`].

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// An instant, in whole milliseconds since 1970-01-01T00:00:00Z.
///
/// Milliseconds because every engine can hold and compare them exactly (a Redis sorted-set score is a double).
/// Arithmetic saturates at [`Timestamp::MIN`] and [`Timestamp::MAX`], the years 1 and 9999.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    /// 0001-01-01T00:00:00Z.
    pub const MIN: Self = Self(-62_135_596_800_000);
    /// 9999-12-30T22:00:00.000Z, the last instant every zone of the calendar library can show.
    pub const MAX: Self = Self(253_402_207_200_000);
    /// 2030-01-01T00:00:00Z: where virtual clocks start unless told otherwise.
    pub const VIRTUAL_START: Self = Self(1_893_456_000_000);

    /// The instant `millis` milliseconds after the epoch, clamped to [`Timestamp::MIN`]..=[`Timestamp::MAX`].
    #[must_use]
    pub const fn from_millis(millis: i64) -> Self {
        if millis < Self::MIN.0 {
            Self::MIN
        } else if millis > Self::MAX.0 {
            Self::MAX
        } else {
            Self(millis)
        }
    }

    /// Milliseconds since the epoch; negative before 1970.
    #[must_use]
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// The machine's wall clock. Only an engine that is its own server (memory, SQLite) may ask.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
    pub fn system_now() -> Self {
        let since_epoch =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Self::from_millis(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
    }

    /// This instant plus `by`, saturating at [`Timestamp::MAX`]. A part of a millisecond counts as a whole one,
    /// so that nothing happens early.
    #[must_use]
    pub fn saturating_add(self, by: Duration) -> Self {
        let millis = by.as_nanos().div_ceil(1_000_000);
        Self::from_millis(self.0.saturating_add(i64::try_from(millis).unwrap_or(i64::MAX)))
    }

    /// How long after `earlier` this instant is; zero when it is not after it.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(instant) => instant.fmt(f),
            Err(_) => write!(f, "{} ms", self.0),
        }
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<jiff::Timestamp> for Timestamp {
    fn from(instant: jiff::Timestamp) -> Self {
        Self::from_millis(instant.as_millisecond())
    }
}

impl From<Timestamp> for jiff::Timestamp {
    fn from(instant: Timestamp) -> Self {
        // `Timestamp` is clamped to a range that jiff covers.
        Self::from_millisecond(instant.0).unwrap_or(Self::UNIX_EPOCH)
    }
}

impl std::str::FromStr for Timestamp {
    type Err = jiff::Error;

    /// Reads RFC 3339, such as `2030-01-01T00:00:00Z`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse::<jiff::Timestamp>().map(Self::from)
    }
}

/// Whose clock a verb goes by.
///
/// A namespace is timed by its server or virtually, for life: the first verb decides, and a verb of the other
/// sort is refused with [`ErrorKind::Config`](crate::ErrorKind::Config). Within a namespace time never runs
/// backwards: an engine uses the later of the instant given and the latest it has seen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum At {
    /// The engine's own clock: Redis `TIME`, Postgres `clock_timestamp()`, the SQLite writer's clock.
    Server,
    /// This instant. Tests run a thirty-day schedule in milliseconds with it.
    Instant(Timestamp),
}

/// A clock that stands still until it is told to move: the time of tests and of the simulator.
///
/// Clones share the same hands. It never runs backwards.
#[derive(Clone, Debug)]
pub struct VirtualClock {
    millis: Arc<AtomicI64>,
}

impl VirtualClock {
    /// A clock that shows `start`.
    #[must_use]
    pub fn starting_at(start: Timestamp) -> Self {
        Self { millis: Arc::new(AtomicI64::new(start.as_millis())) }
    }

    /// What the clock shows.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.millis.load(Ordering::Acquire))
    }

    /// Moves the clock forward by `by` and returns what it shows then.
    pub fn advance(&self, by: Duration) -> Timestamp {
        self.advance_to(self.now().saturating_add(by))
    }

    /// Moves the clock forward to `to`; a time that has passed leaves it where it is. Returns what it shows then.
    pub fn advance_to(&self, to: Timestamp) -> Timestamp {
        let before = self.millis.fetch_max(to.as_millis(), Ordering::AcqRel);
        Timestamp::from_millis(before.max(to.as_millis()))
    }
}

impl Default for VirtualClock {
    fn default() -> Self {
        Self::starting_at(Timestamp::VIRTUAL_START)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates_instead_of_wrapping() {
        assert_eq!(Timestamp::MAX.saturating_add(Duration::MAX), Timestamp::MAX);
        assert_eq!(Timestamp::from_millis(i64::MIN), Timestamp::MIN);
        assert_eq!(Timestamp::MIN.since(Timestamp::MAX), Duration::ZERO);
        assert_eq!(Timestamp::from_millis(1_500).since(Timestamp::from_millis(500)), Duration::from_secs(1));
    }

    #[test]
    fn a_part_of_a_millisecond_rounds_up() {
        let start = Timestamp::from_millis(10);
        assert_eq!(start.saturating_add(Duration::from_nanos(1)).as_millis(), 11);
        assert_eq!(start.saturating_add(Duration::ZERO).as_millis(), 10);
    }

    #[test]
    fn it_reads_and_shows_rfc_3339() {
        let start: Timestamp = "2030-01-01T00:00:00Z".parse().unwrap();
        assert_eq!(start, Timestamp::VIRTUAL_START);
        assert_eq!(start.to_string(), "2030-01-01T00:00:00Z");
        assert_eq!(
            format!("{:?} {}", Timestamp::MIN, Timestamp::MAX),
            "0001-01-01T00:00:00Z 9999-12-30T22:00:00Z"
        );
        assert!("tomorrow".parse::<Timestamp>().is_err());
        let there: jiff::Timestamp = start.into();
        assert_eq!(Timestamp::from(there), start);
    }

    #[test]
    fn the_system_clock_is_past_the_day_this_was_written() {
        assert!(Timestamp::system_now() > "2026-01-01T00:00:00Z".parse().unwrap());
    }

    #[test]
    fn a_virtual_clock_moves_only_forward_and_for_all_its_clones() {
        let clock = VirtualClock::default();
        let twin = clock.clone();
        assert_eq!(
            clock.advance(Duration::from_secs(1)),
            Timestamp::VIRTUAL_START.saturating_add(Duration::from_secs(1))
        );
        assert_eq!(twin.advance_to(Timestamp::VIRTUAL_START), clock.now());
        assert_eq!(twin.now(), clock.now());
    }
}
