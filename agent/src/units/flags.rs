//! Times, shares and sizes as the flags of rules have them: each with its unit, and each refusal with its flag.

use agent_common::pod::MAX_DELAY_NS;

use super::{UNITS, scale};
use crate::failure::{Failure, USAGE};

/// Units of a span, with their length in ns.
const SPANS: [(&str, u64); 7] = [
    ("ns", 1),
    ("us", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("min", 60_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// The longest span (ns): a year.
pub const MAX_SPAN_NS: u64 = 365 * 24 * 3_600_000_000_000;

/// Reads the delay of a rule, or what else of it is a wait: a number with `ns`, `us`, `ms` or `s`. Returns ns.
///
/// # Errors
/// Nonsense, no unit, below 0 or above one second. `flag` is named.
pub fn parse_wait(flag: &str, text: &str) -> Result<u64, Failure> {
    let ns = with_unit(flag, text, &UNITS, "500ns, 100us, 5ms, 1s")?;
    if ns > u128::from(MAX_DELAY_NS) {
        return Err(Failure::new(
            USAGE,
            format!("{flag} {text} is above 1 s, the longest that iolag waits"),
        )
        .hint(format!("{flag} 1s is the largest")));
    }
    // At most MAX_DELAY_NS, so it fits.
    Ok(ns as u64)
}

/// Reads for how long something lasts: as [`parse_wait`], or in minutes or hours. Returns ns.
///
/// # Errors
/// Nonsense, no unit, below 0 or above a year. `flag` is named.
pub fn parse_span(flag: &str, text: &str) -> Result<u64, Failure> {
    let ns = with_unit(flag, text, &SPANS, "500ms, 30s, 10m, 1h")?;
    if ns > u128::from(MAX_SPAN_NS) {
        return Err(
            Failure::new(USAGE, format!("{flag} {text} is above 8760h, a year"))
                .hint(format!("leave {flag} away for no end")),
        );
    }
    // At most MAX_SPAN_NS, so it fits.
    Ok(ns as u64)
}

/// A number with one of these units, in ns.
fn with_unit(flag: &str, text: &str, units: &[(&str, u64)], like: &str) -> Result<u128, Failure> {
    let refused = |what: String, hint: String| Err(Failure::new(USAGE, what).hint(hint));
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    if unit.is_empty() && scale(number, 1_000_000_000).is_some() {
        return refused(
            format!("{flag} {text} has no unit"),
            match units.len() > UNITS.len() {
                true => format!("write {text}s or {text}m"),
                false => format!(
                    "write {text}us or {text}ms; only set and set-blk take bare microseconds"
                ),
            },
        );
    }
    let unit = units.iter().find(|(name, _)| *name == unit);
    match unit.and_then(|(_, unit_ns)| scale(number, *unit_ns)) {
        Some(ns) => Ok(ns),
        None if is_negative(text) => refused(
            format!("{flag} {text} is below 0"),
            format!("write a number with a unit: {like}"),
        ),
        None => refused(
            format!("{flag} {text:?} is not a time"),
            format!("write a number with a unit: {like}"),
        ),
    }
}

fn is_negative(text: &str) -> bool {
    text.strip_prefix('-')
        .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

/// Reads `10%` or `0.5%` as a share of `whole`, at most all of it.
///
/// # Errors
/// Nonsense, no `%`, 0 or so little that nothing is left of it, above 100. `flag` is named.
pub fn parse_percent(flag: &str, text: &str, whole: u64) -> Result<u64, Failure> {
    match parse_share(flag, text, whole)? {
        0 => Err(nothing(flag, text)),
        share => Ok(share),
    }
}

fn nothing(flag: &str, text: &str) -> Failure {
    Failure::new(USAGE, format!("{flag} {text} is nothing at all"))
        .hint("write more than that, or no rule")
}

/// As [`parse_percent`], of what may be nothing at all: `0%`.
///
/// # Errors
/// Nonsense, no `%`, so little that nothing is left of it, above 100. `flag` is named.
pub fn parse_share(flag: &str, text: &str, whole: u64) -> Result<u64, Failure> {
    let refused = |what: String, hint: &str| Err(Failure::new(USAGE, what).hint(hint));
    let Some(number) = text.strip_suffix('%') else {
        if scale(text, 1_000_000_000).is_some() {
            let hint = format!("write {text}%");
            return refused(format!("{flag} {text} has no unit"), &hint);
        }
        return refused(
            format!("{flag} {text:?} is not a percentage"),
            "write 10% or 0.5%",
        );
    };
    // In billionths of a percent, so that no share is rounded before it is taken.
    const UNIT: u64 = 1_000_000_000;
    match scale(number, UNIT) {
        Some(share) if share > 100 * u128::from(UNIT) => {
            refused(format!("{flag} {text} is above 100%"), "100% is all")
        }
        Some(share) => match (share * u128::from(whole) / (100 * u128::from(UNIT))) as u64 {
            0 if share > 0 => Err(nothing(flag, text)),
            share => Ok(share),
        },
        None if is_negative(number) => {
            refused(format!("{flag} {text} is below 0"), "write 10% or 0.5%")
        }
        None => refused(
            format!("{flag} {text:?} is not a percentage"),
            "write 10% or 0.5%",
        ),
    }
}

/// Reads sizes in bytes, both ends included: `4k..64k`, `..64k`, `4k..`, or one: `4096`.
///
/// # Errors
/// Nonsense, or an end before the start. `flag` is named.
pub fn parse_sizes(flag: &str, text: &str) -> Result<(u64, u64), Failure> {
    let nonsense = || {
        Failure::new(USAGE, format!("{flag} {text:?} is not a size"))
            .hint("write bytes or k, m, g: 4096, 4k..64k, ..64k, 1m..")
    };
    let Some((least, most)) = text.split_once("..") else {
        let size = bytes(text).ok_or_else(nonsense)?;
        return Ok((size, size));
    };
    let end = |text: &str, open: u64| match text {
        "" => Some(open),
        text => bytes(text),
    };
    if least.is_empty() && most.is_empty() {
        return Err(nonsense());
    }
    let least = end(least, 0).ok_or_else(nonsense)?;
    let most = end(most, u64::MAX).ok_or_else(nonsense)?;
    if least > most {
        return Err(Failure::new(
            USAGE,
            format!("{flag} {text} ends before it starts, so no size matches"),
        )
        .hint("the smaller one comes first: 4k..64k"));
    }
    Ok((least, most))
}

/// `4096`, `4k`, `4K`, `4KiB`, `1m`, `1g`: units are powers of 1024.
fn bytes(text: &str) -> Option<u64> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = unit.to_ascii_lowercase();
    let power = match unit.strip_suffix("ib").unwrap_or(&unit) {
        "" if unit.is_empty() => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(1 << power)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::format_share;

    #[test]
    fn times_of_rules_have_units() {
        assert_eq!(parse_wait("--delay", "1.5ms").unwrap(), 1_500_000);
        assert_eq!(parse_wait("--delay", "0s").unwrap(), 0);
        assert_eq!(parse_span("--for", "30s").unwrap(), 30_000_000_000);
        assert_eq!(parse_span("--for", "10m").unwrap(), 600_000_000_000);
        assert_eq!(parse_span("--for", "10min").unwrap(), 600_000_000_000);
        assert_eq!(parse_span("--for", "1.5h").unwrap(), 5_400_000_000_000);
        let wait = |text| parse_wait("--delay", text).unwrap_err().to_string();
        assert!(wait("5").contains("--delay 5 has no unit (hint: write 5us or 5ms"));
        assert!(wait("1.5").contains("no unit"));
        assert!(wait("5m").contains("is not a time"));
        assert!(wait("-5ms").contains("below 0"));
        assert!(wait("2s").contains("above 1 s"));
        for text in ["", "ms", "5 ms", "1e3ms", ".5ms", "5.ms", "\u{665}ms"] {
            assert!(wait(text).contains("is not a time"), "{text}");
        }
        let span = |text| parse_span("--for", text).unwrap_err().to_string();
        assert!(span("30").contains("--for 30 has no unit (hint: write 30s or 30m)"));
        assert!(span("9999h").contains("a year"));
        assert!(span("1d").contains("is not a time"));
    }

    #[test]
    fn percentages_are_shares() {
        let share = |text| parse_percent("--chance", text, 1 << 32);
        assert_eq!(share("100%").unwrap(), 1 << 32);
        assert_eq!(share("50%").unwrap(), 1 << 31);
        assert_eq!(share("0.5%").unwrap(), 21_474_836);
        for (text, told) in [
            ("10", "--chance 10 has no unit (hint: write 10%)"),
            ("101%", "above 100%"),
            ("100.1%", "above 100%"),
            ("-1%", "below 0"),
            ("0%", "nothing at all"),
            ("0.000000001%", "nothing at all"),
            ("%", "is not a percentage"),
            ("ten%", "is not a percentage"),
            ("", "is not a percentage"),
        ] {
            let failure = share(text).unwrap_err().to_string();
            assert!(failure.contains(told), "{text}: {failure}");
        }
        let zero = |text| parse_share("--chance", text, 1 << 32);
        assert_eq!((zero("0%").unwrap(), zero("0.0%").unwrap()), (0, 0));
        assert_eq!(zero("100%").unwrap(), 1 << 32);
        assert!(
            zero("0.000000001%")
                .unwrap_err()
                .to_string()
                .contains("nothing at all")
        );
        for (share, text) in [
            (0.1, "10%"),
            (0.005, "0.5%"),
            (1.0, "100%"),
            (-0.0123, "-1.23%"),
            (-0.000_000_1, "0%"),
        ] {
            assert_eq!(format_share(share), text);
        }
    }

    #[test]
    fn sizes_are_ranges_of_bytes() {
        let sizes = |text| parse_sizes("--size", text);
        assert_eq!(sizes("4096").unwrap(), (4096, 4096));
        assert_eq!(sizes("4k..64K").unwrap(), (4096, 65536));
        assert_eq!(sizes("..1MiB").unwrap(), (0, 1 << 20));
        assert_eq!(sizes("1g..").unwrap(), (1 << 30, u64::MAX));
        for text in [
            "",
            "..",
            "4q",
            "4k...8k",
            "-1..4",
            "ib",
            "4kb",
            "99999999999g",
        ] {
            let failure = sizes(text).unwrap_err().to_string();
            assert!(failure.contains("is not a size"), "{text}: {failure}");
        }
        let failure = sizes("64k..4k").unwrap_err().to_string();
        assert!(failure.contains("ends before it starts"), "{failure}");
    }
}
