//! How things are shown in failures and renderings: short durations, payloads, aligned tables.

use std::time::Duration;

use windlass_core::Body;

use crate::codec::Codec;

/// A duration in at most two units: `1h`, `59m 59s`, `250ms`.
pub(crate) fn short(duration: Duration) -> String {
    let units = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
    let mut left = duration.as_millis();
    let mut parts = Vec::new();
    for (unit, size) in units {
        if left >= size && parts.len() < 2 {
            parts.push(format!("{}{unit}", left / size));
            left %= size;
        }
    }
    if parts.is_empty() { "0ms".to_owned() } else { parts.join(" ") }
}

/// When something is due, seen from its dispatch.
pub(crate) fn due(delay: Duration) -> String {
    if delay.is_zero() { "now".to_owned() } else { format!("in {}", short(delay)) }
}

/// `1 job`, `2 jobs`.
pub(crate) fn count(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

/// The payload for people: as JSON when it can be shown so, else by size.
pub(crate) fn payload(body: &Body) -> String {
    let bytes = &body.payload;
    let shown = match Codec::from_id(body.codec) {
        Ok(Codec::Json) => std::str::from_utf8(bytes).ok().map(str::to_owned),
        Ok(codec) => codec.decode::<serde_json::Value>(bytes).ok().map(|value| value.to_string()),
        Err(_) => None,
    };
    shown.unwrap_or_else(|| format!("({} bytes)", bytes.len()))
}

/// Long text without its middle.
pub(crate) fn elide(text: &str, most: usize) -> String {
    let chars: Vec<char> = text.chars().collect();
    if chars.len() <= most {
        return text.to_owned();
    }
    let tail = most / 6;
    let (head, tail) = (&chars[..most - tail - 3], &chars[chars.len() - tail..]);
    format!("{}...{}", head.iter().collect::<String>(), tail.iter().collect::<String>())
}

/// Rows with aligned columns, each line behind `indent`. The last column is not padded.
pub(crate) fn table<const N: usize>(indent: &str, rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let lines = rows.iter().map(|row| {
        let mut line = indent.to_owned();
        for (at, cell) in row.iter().enumerate() {
            let pad = if at + 1 == N { 0 } else { widths[at] + 2 };
            line.push_str(&format!("{cell:<pad$}"));
        }
        line.trim_end().to_owned()
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_short() {
        let cases = [
            (0, "0ms"),
            (250, "250ms"),
            (1_000, "1s"),
            (3_599_000, "59m 59s"),
            (3_600_000, "1h"),
            (90_061_001, "1d 1h"),
        ];
        for (millis, text) in cases {
            assert_eq!(short(Duration::from_millis(millis)), text);
        }
    }

    #[test]
    fn long_payloads_are_elided_in_the_middle() {
        let text = format!("{{\"text\":\"{}\",\"end\":1}}", "é".repeat(500));
        let shown = elide(&text, 120);
        assert_eq!(shown.chars().count(), 120);
        assert!(shown.starts_with("{\"text\"") && shown.contains("...") && shown.ends_with("\"end\":1}"));
        assert_eq!(elide("short", 120), "short");
    }

    #[test]
    fn columns_are_aligned_and_lines_do_not_trail() {
        let rows = [["a", "bb", ""], ["aaa", "b", "c"]].map(|row| row.map(str::to_owned));
        assert_eq!(table("  ", &rows), "  a    bb\n  aaa  b   c");
    }
}
