//! Durations that read as they are said: `hours(1)`, `minutes(10)`.

use std::time::Duration;

/// So many milliseconds.
#[must_use]
pub const fn milliseconds(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// So many seconds.
#[must_use]
pub const fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// So many minutes; saturates.
#[must_use]
pub const fn minutes(n: u64) -> Duration {
    Duration::from_secs(n.saturating_mul(60))
}

/// So many hours; saturates.
#[must_use]
pub const fn hours(n: u64) -> Duration {
    Duration::from_secs(n.saturating_mul(60 * 60))
}

/// So many days of 24 hours; saturates.
#[must_use]
pub const fn days(n: u64) -> Duration {
    Duration::from_secs(n.saturating_mul(24 * 60 * 60))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_as_long_as_they_say() {
        assert_eq!(milliseconds(1_000), seconds(1));
        assert_eq!(minutes(2), seconds(120));
        assert_eq!(hours(1), minutes(60));
        assert_eq!(days(1), hours(24));
        assert_eq!(days(u64::MAX), seconds(u64::MAX));
    }
}
