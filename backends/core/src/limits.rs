//! The limits of the contract, each with its reason. What breaks one is refused before it is stored.

use std::time::Duration;

/// Bytes of a name of a queue or a kind. 128 leaves room for a prefix under the shortest limit of a key anywhere
/// (255 bytes of a file name).
pub const NAME_MAX_BYTES: usize = 128;
/// Bytes of an encoded payload, and of an encoded output: 1 MiB. A queue is a poor file store: what is bigger
/// belongs into one, with its address in the job.
pub const PAYLOAD_MAX_BYTES: usize = 1024 * 1024;
/// Nesting of a JSON payload. Deeper input has no use and has overflowed stacks.
pub const JSON_MAX_DEPTH: usize = 64;
/// Tags of one job.
pub const TAGS_MAX: usize = 32;
/// Bytes of one tag, of one metadata key and of a limit's key.
pub const TAG_MAX_BYTES: usize = 128;
/// Bytes of all metadata of one job, keys and values together: 8 KiB.
pub const METADATA_MAX_BYTES: usize = 8 * 1024;
/// Bytes of a unique key. It is stored as it is, so hash what is longer.
pub const UNIQUE_KEY_MAX_BYTES: usize = 256;
/// Parents of one job.
pub const PARENTS_MAX: usize = 1_000;
/// Jobs in one push, one claim, one settle and one extend, and jobs that ride with one verdict. Lua's `unpack`
/// fails near 8,000 values, and a call must not hold a shared server for long.
pub const BATCH_MAX: usize = 1_000;
/// Attempts of one job.
pub const ATTEMPTS_MAX: u16 = 10_000;
/// The longest delay, back-off, snooze and unique window: a hundred years of 365 days.
pub const DELAY_MAX: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);
/// The shortest lease. Below a second a garbage-collected server or a busy disk already loses it.
pub const LEASE_MIN: Duration = Duration::from_secs(1);
/// The longest lease: a day. A longer one would leave a dead worker's jobs untouched for longer than a day.
pub const LEASE_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// The longest time for one attempt: thirty days.
pub const TIMEOUT_MAX: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// Bytes of a recorded error, reason or progress note; longer text is clipped, since a failure that cannot be
/// recorded would hang its job.
pub const TEXT_MAX_BYTES: usize = 8 * 1024;
/// Bytes of one log line; longer ones are clipped.
pub const LOG_LINE_MAX_BYTES: usize = 1024;
/// Log lines kept for a job; the oldest go first.
pub const LOG_LINES_MAX: usize = 100;
/// Leases a job may lose before it is Dead as poison.
pub const LOST_LEASES_MAX: u16 = 3;
/// Jobs of unknown kinds that one claim moves aside, and due jobs that one claim promotes.
pub const ASIDE_MAX: usize = 1_000;
/// Rows of one page of a listing.
pub const PAGE_MAX: usize = 1_000;

/// `text` without NUL characters (Postgres text cannot hold them) and clipped to `max` bytes at a character
/// boundary, ending in `…` when it was clipped.
#[must_use]
pub fn clip(text: &str, max: usize) -> String {
    let clean: String = if text.contains('\0') { text.replace('\0', "\u{fffd}") } else { text.to_owned() };
    if clean.len() <= max {
        return clean;
    }
    let mut end = max.saturating_sub('…'.len_utf8());
    while !clean.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &clean[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clipped_text_keeps_whole_characters_and_no_nul() {
        assert_eq!(clip("fine", 10), "fine");
        assert_eq!(clip("a\0b", 10), "a\u{fffd}b");
        assert_eq!(clip("éééé", 7), "éé…");
        assert_eq!(clip(&"x".repeat(10_000), TEXT_MAX_BYTES).len(), TEXT_MAX_BYTES);
    }
}
