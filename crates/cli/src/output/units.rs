//! Numbers as people read and write them: sizes in powers of 1024, rates, times. Integer arithmetic throughout.

use seedbank_agreement::Amount;
use std::time::Duration;

const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

/// Bytes with at most one decimal: `999 B`, `1.5 KiB`, `3.0 GiB`.
pub(crate) fn bytes(bytes: u64) -> String {
    // Each unit from the exact number, until it would not show 1024 or more: stepwise division would round twice.
    let tenths = |unit: usize| {
        let scale = 1u128 << (10 * unit);
        (u128::from(bytes) * 10 + scale / 2) / scale
    };
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let unit = (1..UNITS.len() - 1).find(|unit| tenths(*unit) < 10_240).unwrap_or(UNITS.len() - 1);
    format!("{}.{} {}", tenths(unit) / 10, tenths(unit) % 10, UNITS[unit])
}

/// An amount in tokens, short enough for a column: four digits from its first one behind the point on. Cut off, not rounded, so
/// that nothing looks like more than it is.
pub(crate) fn tokens(amount: Amount, decimals: u8) -> String {
    let text = amount.in_tokens(decimals);
    let Some((whole, fraction)) = text.split_once('.') else { return text };
    let zeros = if whole == "0" { fraction.len() - fraction.trim_start_matches('0').len() } else { 0 };
    let shown = fraction.get(..zeros + 4).unwrap_or(fraction).trim_end_matches('0');
    if shown.is_empty() { whole.to_owned() } else { format!("{whole}.{shown}") }
}

/// Bytes a second over a time, or `-` when no time passed.
pub(crate) fn rate(moved: u64, time: Duration) -> String {
    let a_second = (u128::from(moved) * 1_000_000_000).checked_div(time.as_nanos());
    a_second.map_or_else(
        || "-".to_owned(),
        |rate| format!("{}/s", bytes(u64::try_from(rate).unwrap_or(u64::MAX))),
    )
}

/// A time as precise as a person wants it: `340 ms`, `12.3 s`, `2 min 05 s`, `3 h 07 min`.
pub(crate) fn duration(time: Duration) -> String {
    let (millis, seconds) = (time.as_millis(), time.as_secs());
    match seconds {
        0 => format!("{millis} ms"),
        1..60 => format!("{}.{} s", seconds, time.subsec_millis() / 100),
        60..3600 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        _ => format!("{} h {:02} min", seconds / 3600, seconds / 60 % 60),
    }
}

/// A count with its thousands apart: `1,234,567`.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The text is not a number of bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a number of bytes; write it as 4096, 500GB (powers of 1000) or 2TiB (powers of 1024)")]
pub(crate) struct ParseBytesError(String);

/// Reads a number of bytes: whole, with an optional unit of powers of 1000 or 1024, in any case.
///
/// # Errors
/// [`ParseBytesError`], also when the number is above 64 bits.
pub(crate) fn parse_bytes(text: &str) -> Result<u64, ParseBytesError> {
    let refused = || ParseBytesError(text.to_owned());
    let trimmed = text.trim();
    let digits = trimmed.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = trimmed.split_at(digits);
    let scale: u64 = match unit.trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1000,
        "mb" => 1000_u64.pow(2),
        "gb" => 1000_u64.pow(3),
        "tb" => 1000_u64.pow(4),
        "pb" => 1000_u64.pow(5),
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "tib" => 1 << 40,
        "pib" => 1 << 50,
        _ => return Err(refused()),
    };
    number.parse::<u64>().ok().and_then(|number| number.checked_mul(scale)).ok_or_else(refused)
}

#[cfg(test)]
mod tests {
    use super::{bytes, count, duration, parse_bytes, rate, tokens};
    use seedbank_agreement::Amount;
    use std::time::Duration;

    #[test]
    fn sizes_keep_one_decimal_and_never_show_1024_of_a_unit() {
        let shown =
            [0, 999, 1023, 1024, 1536, 1_048_575, 1_048_576, 12_345_678, 3 << 30, u64::MAX].map(bytes);
        assert_eq!(
            shown,
            [
                "0 B", "999 B", "1023 B", "1.0 KiB", "1.5 KiB", "1.0 MiB", "1.0 MiB", "11.8 MiB", "3.0 GiB",
                "16.0 EiB"
            ]
        );
    }

    #[test]
    fn rates_are_per_second() {
        assert_eq!(rate(3 << 20, Duration::from_millis(1500)), "2.0 MiB/s");
        assert_eq!(rate(5, Duration::ZERO), "-");
        assert_eq!(rate(u64::MAX, Duration::from_nanos(1)), "16.0 EiB/s");
    }

    #[test]
    fn times_get_coarser_as_they_get_longer() {
        let shown =
            [0, 340, 12_399, 125_000, 11_220_000].map(|millis| duration(Duration::from_millis(millis)));
        assert_eq!(shown, ["0 ms", "340 ms", "12.3 s", "2 min 05 s", "3 h 07 min"]);
    }

    #[test]
    fn thousands_stand_apart() {
        assert_eq!([0, 999, 1000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn amounts_are_cut_to_what_a_person_compares() {
        let shown = [0, 7, 900_361_273_024, 1_000_000_000_000_202_948, 53_912_409_120_000_000_000]
            .map(|units| tokens(Amount(units), 18));
        assert_eq!(shown, ["0", "0.000000000000000007", "0.0000009003", "1", "53.9124"]);
        assert_eq!([tokens(Amount(12_345), 0), tokens(Amount(1_999_999), 6)], ["12345", "1.9999"]);
    }

    #[test]
    fn numbers_of_bytes_are_read_in_both_kinds_of_units() {
        let read = ["0", "4096", "500GB", "2 TiB", " 1kib ", "7b"].map(|text| parse_bytes(text).unwrap());
        assert_eq!(read, [0, 4096, 500_000_000_000, 2 << 40, 1024, 7]);
        for wrong in ["", "GB", "-1", "1.5GB", "5 parsecs", "20000PiB", "99999999999999999999"] {
            assert!(parse_bytes(wrong).is_err(), "{wrong:?}");
        }
    }
}
