//! Durations in attributes: `"30s"`, `"5m"`, `"1h"`.

use syn::{LitStr, Result};

/// The milliseconds that `text` means.
pub(crate) fn millis(text: &LitStr) -> Result<u64> {
    let value = text.value();
    let bad = || {
        syn::Error::new(
            text.span(),
            format!(
                "`{value}` is not a duration: write a whole number and ms, s, m, h or d, such as \"30s\""
            ),
        )
    };
    let digits = value.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
    let (number, unit) = value.split_at(digits);
    let number: u64 = number.parse().map_err(|_| bad())?;
    let unit = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(bad()),
    };
    let millis = number.checked_mul(unit).ok_or_else(bad)?;
    const MOST: u64 = 30 * 86_400_000;
    if millis == 0 || millis > MOST {
        return Err(syn::Error::new(
            text.span(),
            format!("`{value}` is out of range: more than 0 and at most 30d"),
        ));
    }
    Ok(millis)
}

#[cfg(test)]
mod tests {
    use proc_macro2::Span;

    use super::*;

    fn read(text: &str) -> Result<u64> {
        millis(&LitStr::new(text, Span::call_site()))
    }

    #[test]
    fn units_are_understood() {
        assert_eq!(
            [read("5ms"), read("30s"), read("2m"), read("1h"), read("30d")].map(Result::unwrap),
            [5, 30_000, 120_000, 3_600_000, 2_592_000_000]
        );
    }

    #[test]
    fn nonsense_is_refused_with_the_way_to_write_it() {
        for bad in
            ["", "30", "s", "-1s", "1.5s", "30 s", "30S", "99999999999999999999s", "18446744073709551615d"]
        {
            assert!(read(bad).unwrap_err().to_string().contains("such as \"30s\""), "{bad}");
        }
        for bad in ["0s", "31d"] {
            assert!(read(bad).unwrap_err().to_string().contains("at most 30d"), "{bad}");
        }
    }
}
