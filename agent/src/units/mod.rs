//! Times as people write and read them.

use agent_common::pod::MAX_DELAY_NS;

use crate::failure::{Failure, USAGE};

mod flags;

pub use flags::{MAX_SPAN_NS, parse_percent, parse_share, parse_sizes, parse_span, parse_wait};

/// Units of a delay, with their length in ns.
const UNITS: [(&str, u64); 4] = [
    ("ns", 1),
    ("us", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
];

/// Reads a delay for `set` and `set-blk`: a bare number is microseconds, as io-delayer had it;
/// `ns`, `us`, `ms` and `s` may follow, and a fraction may stand before a unit. Returns ns.
///
/// # Errors
/// Nonsense, a delay below 0 or above one second, a fraction of a nanosecond.
pub fn parse_delay(text: &str) -> Result<u64, Failure> {
    let nonsense = || {
        Failure::new(USAGE, format!("{text:?} is not a delay"))
            .hint("write a whole number of microseconds (100), or a number with a unit: 100us, 5ms, 1s, 500ns")
    };
    let trimmed = text.trim();
    if trimmed.starts_with('-') && parse_delay(&trimmed[1..]).is_ok() {
        return Err(Failure::new(USAGE, format!("delay {trimmed} is below 0"))
            .hint("0 switches the delay off"));
    }
    let digits = trimmed
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(digits);
    let unit_ns = match unit {
        "" if number.contains('.') => return Err(nonsense()),
        "" => 1_000,
        unit => {
            UNITS
                .iter()
                .find(|(name, _)| *name == unit)
                .ok_or_else(nonsense)?
                .1
        }
    };
    let ns = scale(number, unit_ns).ok_or_else(nonsense)?;
    if ns > u128::from(MAX_DELAY_NS) {
        return Err(Failure::new(
            USAGE,
            format!("delay {trimmed} is above 1 s, the longest that iolag waits"),
        )
        .hint("a bare number is microseconds; the largest is 1000000, or 1s"));
    }
    // At most MAX_DELAY_NS, so it fits.
    Ok(ns as u64)
}

/// `number * unit_ns`, exactly, or nothing: a decimal such as `1.5` or `20`.
fn scale(number: &str, unit_ns: u64) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || whole.len() > 20 || fraction.len() > 9 || number.ends_with('.') {
        return None;
    }
    let whole: u128 = whole.parse().ok()?;
    let scaled_fraction = if fraction.is_empty() {
        0
    } else {
        let digits = u128::from(fraction.parse::<u64>().ok()?) * u128::from(unit_ns);
        let divisor = 10u128.pow(u32::try_from(fraction.len()).ok()?);
        if !digits.is_multiple_of(divisor) {
            return None;
        }
        digits / divisor
    };
    Some(whole * u128::from(unit_ns) + scaled_fraction)
}

/// A time for people: the largest unit that leaves at least 1, three significant digits.
#[must_use]
pub fn format_ns(ns: u64) -> String {
    let (unit, unit_ns) = UNITS
        .iter()
        .rev()
        .find(|(_, unit_ns)| ns >= *unit_ns)
        .unwrap_or(&UNITS[0]);
    let value = ns as f64 / *unit_ns as f64;
    let decimals = match value {
        _ if ns.is_multiple_of(*unit_ns) => 0,
        value if value < 10.0 => 2,
        value if value < 100.0 => 1,
        _ => 0,
    };
    format!("{value:.decimals$}{unit}")
}

/// A share for people: `10%`, `0.5%`; four significant digits.
#[must_use]
pub fn format_share(share: f64) -> String {
    let percent = share * 100.0;
    let decimals = match percent.abs() {
        least if least >= 100.0 => 1,
        least if least >= 1.0 => 2,
        _ => 4,
    };
    let text = format!("{percent:.decimals$}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    format!("{}%", if text == "-0" { "0" } else { text })
}

/// A size for people: the largest unit of 1024 that leaves at least 1, three significant digits.
#[must_use]
pub fn format_bytes(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let place = (0..UNITS.len())
        .rev()
        .find(|place| bytes >= 1 << (10 * place))
        .unwrap_or(0);
    let value = bytes as f64 / (1u64 << (10 * place)) as f64;
    let decimals = match value {
        value if value.fract() == 0.0 || value >= 100.0 => 0,
        value if value < 10.0 => 2,
        _ => 1,
    };
    format!("{value:.decimals$}{}", UNITS[place])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_number_is_microseconds() {
        assert_eq!(parse_delay("100").unwrap(), 100_000);
        assert_eq!(parse_delay("0").unwrap(), 0);
        assert_eq!(parse_delay("1000000").unwrap(), MAX_DELAY_NS);
    }

    #[test]
    fn units_and_fractions() {
        assert_eq!(parse_delay("100us").unwrap(), 100_000);
        assert_eq!(parse_delay("5ms").unwrap(), 5_000_000);
        assert_eq!(parse_delay("1s").unwrap(), 1_000_000_000);
        assert_eq!(parse_delay("750ns").unwrap(), 750);
        assert_eq!(parse_delay("1.5ms").unwrap(), 1_500_000);
        assert_eq!(parse_delay("0.001us").unwrap(), 1);
    }

    #[test]
    fn what_is_out_of_range_says_so() {
        for text in ["1000001", "1.1s", "2s", "99999999999999999999", "1001ms"] {
            let failure = parse_delay(text).unwrap_err();
            assert_eq!(failure.code, USAGE);
            assert!(failure.message.contains("above 1 s"), "{text}: {failure}");
        }
        for text in ["-1", "-5ms", "-0.5us"] {
            let failure = parse_delay(text).unwrap_err();
            assert!(failure.message.contains("below 0"), "{text}: {failure}");
        }
    }

    #[test]
    fn nonsense_is_refused_and_quoted() {
        for text in [
            "",
            " ",
            "-",
            "abc",
            "5 ms",
            "5m",
            "5minutes",
            "1.5",
            "1.",
            ".5ms",
            "1.2.3ms",
            "5MS",
            "1e3",
            "0x10",
            "+5",
            "5us ms",
            "0.0001us",
            "--5",
            "\u{665}ms",
            "NaN",
            "100000000000000000000000s",
        ] {
            let failure = parse_delay(text).unwrap_err();
            assert_eq!(failure.code, USAGE, "{text}");
            assert!(
                failure.message.contains(&format!("{text:?}")),
                "{text}: {failure}"
            );
        }
    }

    #[test]
    fn times_read_well() {
        for (ns, text) in [
            (0, "0ns"),
            (64, "64ns"),
            (999, "999ns"),
            (1_000, "1us"),
            (1_234, "1.23us"),
            (100_000, "100us"),
            (12_345_678, "12.3ms"),
            (2_500_000_000, "2.50s"),
            (123_456_000_000, "123s"),
        ] {
            assert_eq!(format_ns(ns), text);
        }
    }
}
