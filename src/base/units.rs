//! Durations and sizes as people write them: `"30s"`, `"1h30m"`, `"64MiB"`.

use std::time::Duration;

const DURATION_UNITS: [(&str, u64); 5] =
    [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
const SIZE_UNITS: [(&str, u64); 9] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];
/// Ten years; a longer duration is a mistake.
const MAX_DURATION_MS: u64 = 3_650 * 86_400_000;

/// Parses `"250ms"`, `"30s"`, `"5m"`, `"1h30m"`, `"90d"`.
///
/// # Errors
///
/// A message with the problem and the allowed forms.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    const FORMS: &str = "write it like \"250ms\", \"30s\", \"5m\", \"1h30m\" or \"90d\"";
    let mut rest = check_quantity(text, "duration", FORMS)?;
    let mut total = 0_u64;
    let mut smallest = u64::MAX;
    while !rest.is_empty() {
        let (number, unit, after) = split_quantity(rest, "duration", FORMS)?;
        let Some(&(_, size)) = DURATION_UNITS.iter().find(|(name, _)| *name == unit) else {
            return Err(if unit.is_empty() {
                format!("`{}` has no unit: seconds would be \"{number}s\"; {FORMS}", clip(text))
            } else {
                format!("`{}` is not a unit of time (ms, s, m, h, d); {FORMS}", clip(unit))
            });
        };
        if size >= smallest {
            return Err(format!("the units of `{}` are not in falling order; {FORMS}", clip(text)));
        }
        smallest = size;
        total = number
            .parse::<u64>()
            .ok()
            .and_then(|n| n.checked_mul(size))
            .and_then(|ms| ms.checked_add(total))
            .filter(|ms| *ms <= MAX_DURATION_MS)
            .ok_or_else(|| format!("`{}` is longer than the ten years allowed", clip(text)))?;
        rest = after;
    }
    Ok(Duration::from_millis(total))
}

/// Parses `"64MiB"`, `"512KiB"`, `"64MB"` (millions), `"100B"`.
///
/// # Errors
///
/// A message with the problem and the allowed forms.
pub fn parse_size(text: &str) -> Result<u64, String> {
    const FORMS: &str =
        "write it like \"64MiB\", \"512KiB\", \"1GiB\" or, in powers of ten, \"64MB\"";
    let body = check_quantity(text, "size", FORMS)?;
    let (number, unit, after) = split_quantity(body, "size", FORMS)?;
    if !after.is_empty() {
        return Err(format!("`{}` is more than a number and a unit; {FORMS}", clip(text)));
    }
    let Some(&(_, size)) = SIZE_UNITS.iter().find(|(name, _)| *name == unit) else {
        return Err(if unit.is_empty() {
            format!("`{}` has no unit; {FORMS}", clip(text))
        } else {
            format!(
                "`{}` is not a unit of size (B, KiB, MiB, GiB, KB, MB, GB); {FORMS}",
                clip(unit)
            )
        });
    };
    let bytes = number.parse::<u64>().ok().and_then(|n| n.checked_mul(size));
    bytes
        .filter(|b| *b <= 1 << 50)
        .ok_or_else(|| format!("`{}` is more than the 1024TiB allowed", clip(text)))
}

/// Returns the duration in the form that [`parse_duration`] reads, to the millisecond.
#[must_use]
pub fn print_duration(span: Duration) -> String {
    let mut ms = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    if ms == 0 {
        return "0s".to_owned();
    }
    let mut out = String::new();
    for (unit, size) in DURATION_UNITS.iter().rev() {
        if ms >= *size {
            out.push_str(&format!("{}{unit}", ms / size));
            ms %= size;
        }
    }
    out
}

/// Prints a span, short enough for a table: `41s`, `2m`, `1h5m`.
#[must_use]
pub fn print_span(span: Duration) -> String {
    let s = span.as_secs_f64().ceil() as u64;
    match s {
        0..=99 => format!("{s}s"),
        100..=5_999 => format!("{}m{:02}s", s / 60, s % 60),
        _ => format!("{}h{:02}m", s / 3_600, s % 3_600 / 60),
    }
}

/// Returns the size in the largest binary unit that gives a whole number.
#[must_use]
pub fn print_size(bytes: u64) -> String {
    let (unit, size) = SIZE_UNITS[..5]
        .iter()
        .rev()
        .find(|(_, size)| bytes >= *size && bytes.is_multiple_of(*size))
        .unwrap_or(&SIZE_UNITS[0]);
    format!("{}{unit}", bytes / size)
}

/// Rejects text that is not a valid quantity of any kind.
fn check_quantity<'a>(text: &'a str, what: &str, forms: &str) -> Result<&'a str, String> {
    if text.trim().is_empty() {
        return Err(format!("an empty {what}; {forms}"));
    }
    if text.starts_with('-') {
        return Err(format!("`{}` is negative; {forms}", clip(text)));
    }
    if text.contains(char::is_whitespace) {
        return Err(format!("`{}` has a space in it; {forms}", clip(text)));
    }
    Ok(text)
}

/// Splits off a number and its unit; also returns the rest.
fn split_quantity<'a>(
    text: &'a str,
    what: &str,
    forms: &str,
) -> Result<(&'a str, &'a str, &'a str), String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, rest) = text.split_at(digits);
    if number.is_empty() {
        return Err(format!("`{}` is not a {what}; {forms}", clip(text)));
    }
    if rest.starts_with(['.', ',']) {
        return Err(format!("`{}` has a fraction: use a smaller unit; {forms}", clip(text)));
    }
    let letters = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
    let (unit, after) = rest.split_at(letters);
    Ok((number, unit, after))
}

/// Cuts long invalid text before it is quoted.
fn clip(text: &str) -> String {
    if text.chars().count() <= 40 {
        text.to_owned()
    } else {
        text.chars().take(40).chain(['…']).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_printed() {
        for (text, ms) in [
            ("250ms", 250),
            ("30s", 30_000),
            ("5m", 300_000),
            ("1h30m", 5_400_000),
            ("90d", 7_776_000_000),
            ("0s", 0),
        ] {
            let span = parse_duration(text).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!((span.as_millis(), print_duration(span).as_str()), (ms, text));
        }
        assert_eq!(print_duration(Duration::from_secs(90)), "1m30s");
    }

    #[test]
    fn every_invalid_duration_has_its_own_error() {
        for (text, part) in [
            ("10", "no unit"),
            ("-5s", "negative"),
            ("1y", "`y` is not a unit"),
            ("10 s", "space"),
            ("999999999999h", "longer than"),
            ("99999999999999999999999s", "longer than"),
            ("", "empty"),
            ("1.5s", "fraction"),
            ("s", "not a duration"),
            ("30s5m", "falling order"),
            ("1m1m", "falling order"),
            ("π", "not a duration"),
        ] {
            let message = parse_duration(text).expect_err(text);
            assert!(message.contains(part), "{text}: {message}");
        }
    }

    #[test]
    fn sizes_are_read_and_printed() {
        for (text, bytes, shown) in [
            ("64MiB", 64 << 20, "64MiB"),
            ("512KiB", 512 << 10, "512KiB"),
            ("1024MiB", 1 << 30, "1GiB"),
            ("64MB", 64_000_000, "62500KiB"),
            ("100B", 100, "100B"),
            ("0B", 0, "0B"),
        ] {
            let size = parse_size(text).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!((size, print_size(size).as_str()), (bytes, shown));
        }
        for (text, part) in [
            ("64 MB", "space"),
            ("-1MiB", "negative"),
            ("1180591620717411303424B", "more than"),
            ("64", "no unit"),
            ("64mb", "not a unit"),
            ("1MiB2", "more than a number"),
        ] {
            let message = parse_size(text).expect_err(text);
            assert!(message.contains(part), "{text}: {message}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_parses_or_fails_without_panic(text in ".{0,40}") {
            drop((parse_duration(&text), parse_size(&text)));
        }

        #[test]
        fn printed_duration_round_trips(ms in 0..MAX_DURATION_MS) {
            let span = Duration::from_millis(ms);
            proptest::prop_assert_eq!(parse_duration(&print_duration(span)), Ok(span));
        }
    }
}
