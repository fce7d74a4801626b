//! Reads from an upstream's headers how long to wait before the next request, and what is left of
//! its limits.

use std::time::{Duration, UNIX_EPOCH};

use http::{HeaderMap, HeaderValue, StatusCode, header};

use crate::{
    base::clock::UnixMillis,
    ir::rate_limit::{RateLimit, RateLimits},
};

/// The hints that an upstream's headers give to a retrying client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RetryHints {
    pub retry_after: Option<Duration>,
    pub should_retry: Option<bool>,
}

const MINUTE: Duration = Duration::from_secs(60);

/// Longer than any sensible wait, and short enough to be added to any clock.
const MAX_DELAY: Duration = Duration::from_secs(100 * 366 * 86_400);

/// Reads the retry hints of a response head.
///
/// `retry-after-ms` takes precedence over `Retry-After` (seconds, also with a fraction, or an HTTP
/// date). A date is relative to the response's own `Date` if it has one. If neither header is
/// present, a 429's `…ratelimit…reset` headers count, but only those whose `remaining` is zero or
/// missing. A date in the past gives zero; an invalid value gives `None`; a value that is too long
/// gives a hundred years.
#[must_use]
pub fn read_retry_hints(status: StatusCode, headers: &HeaderMap, now: UnixMillis) -> RetryHints {
    let should_retry = match headers.get("x-should-retry").map(HeaderValue::as_bytes) {
        Some(b"true") => Some(true),
        Some(b"false") => Some(false),
        _ => None,
    };
    let retry_after = header_text(headers.get("retry-after-ms"))
        .and_then(|ms| parse_seconds(ms, 1e-3))
        .or_else(|| {
            header_text(headers.get(header::RETRY_AFTER)).and_then(|value| {
                parse_seconds(value, 1.0).or_else(|| delay_until_date(value, headers, now))
            })
        })
        .or_else(|| {
            if status == StatusCode::TOO_MANY_REQUESTS { latest_reset(headers, now) } else { None }
        });
    RetryHints { retry_after, should_retry }
}

fn header_text(value: Option<&HeaderValue>) -> Option<&str> {
    value.and_then(|v| v.to_str().ok()).map(str::trim)
}

/// Parses digits with at most one point, times `unit` seconds. No sign, no exponent, no `inf`.
fn parse_seconds(text: &str, unit: f64) -> Option<Duration> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return None;
    }
    text.parse::<f64>().ok().map(|n| to_duration(n * unit))
}

fn to_duration(n: f64) -> Duration {
    Duration::try_from_secs_f64(n).unwrap_or(MAX_DELAY).min(MAX_DELAY)
}

fn delay_until_date(value: &str, headers: &HeaderMap, now: UnixMillis) -> Option<Duration> {
    let at = parse_http_date(value)?;
    let from = header_text(headers.get(header::DATE)).and_then(parse_http_date).unwrap_or(now.0);
    Some(delay_between(from, at))
}

/// Parses an HTTP date into milliseconds since 1970.
fn parse_http_date(value: &str) -> Option<i64> {
    let at = httpdate::parse_http_date(value).ok()?;
    i64::try_from(at.duration_since(UNIX_EPOCH).ok()?.as_millis()).ok()
}

fn delay_between(from: i64, at: i64) -> Duration {
    Duration::from_millis(u64::try_from(at.saturating_sub(from)).unwrap_or(0)).min(MAX_DELAY)
}

/// Returns the latest reset of the limits that are used up, as all must have reset. Reads
/// `x-ratelimit-reset-requests`, `vendor-ratelimit-requests-reset` and the bare `ratelimit-reset`,
/// each with the `remaining` header of the same form.
fn latest_reset(headers: &HeaderMap, now: UnixMillis) -> Option<Duration> {
    let mut latest = None;
    for (name, value) in headers {
        let name = name.as_str();
        let Some((before, after)) = name.split_once("ratelimit-") else { continue };
        let remaining = if after == "reset" {
            format!("{before}ratelimit-remaining")
        } else if let Some(what) = after.strip_prefix("reset-") {
            format!("{before}ratelimit-remaining-{what}")
        } else if let Some(what) = after.strip_suffix("-reset") {
            format!("{before}ratelimit-{what}-remaining")
        } else {
            continue;
        };
        if headers
            .get(remaining)
            .and_then(|v| header_text(Some(v)))
            .is_some_and(|left| left.parse::<f64>() != Ok(0.0))
        {
            continue;
        }
        latest = latest.max(header_text(Some(value)).and_then(|v| parse_reset(v, headers, now)));
    }
    latest
}

/// Reads the provider's remaining limits from a response head, in both spellings. A limit without a
/// reset is taken as a limit per minute.
#[must_use]
pub fn read_rate_limits(headers: &HeaderMap, now: UnixMillis) -> RateLimits {
    const INFIX: &[u8] = b"ratelimit-";
    /// The shortest possible name, without its prefix.
    const MIN_NAME_LEN: usize = "ratelimit-limit-tokens".len();
    /// The headers of one limit: its size, what is left, and when it resets.
    #[derive(Clone, Copy, Default)]
    struct WindowHeaders<'a> {
        limit: Option<&'a HeaderValue>,
        remaining: Option<&'a HeaderValue>,
        reset: Option<&'a HeaderValue>,
    }
    let mut windows: Option<[WindowHeaders<'_>; 4]> = None;
    for (name, value) in headers {
        let name = name.as_str();
        if name.len() < MIN_NAME_LEN {
            continue;
        }
        let Some(at) = name.as_bytes().windows(INFIX.len()).position(|part| part == INFIX) else {
            continue;
        };
        let after = &name[at + INFIX.len()..];
        let prefixed = after
            .split_once('-')
            .filter(|(part, _)| matches!(*part, "limit" | "remaining" | "reset"));
        let Some((property, what)) =
            prefixed.or_else(|| after.rsplit_once('-').map(|(what, part)| (part, what)))
        else {
            continue;
        };
        let which = match what {
            "requests" => 0,
            "tokens" => 1,
            "input-tokens" => 2,
            "output-tokens" => 3,
            _ => continue,
        };
        let slot = &mut windows.get_or_insert_default()[which];
        match property {
            "limit" => slot.limit = Some(value),
            "remaining" => slot.remaining = Some(value),
            "reset" => slot.reset = Some(value),
            _ => {}
        }
    }
    let Some(windows) = windows else { return RateLimits::default() };
    let [requests, tokens, input, output] = windows.map(|window| {
        let remaining = header_text(window.remaining).and_then(parse_count)?;
        let reset = header_text(window.reset)
            .and_then(|value| parse_reset(value, headers, now))
            .unwrap_or(MINUTE);
        Some(RateLimit {
            limit: header_text(window.limit).and_then(parse_count),
            remaining,
            resets_in: reset,
        })
    });
    RateLimits { requests, tokens, input, output }
}

/// Parses a count; a negative value means zero.
fn parse_count(text: &str) -> Option<u64> {
    text.parse()
        .ok()
        .or_else(|| text.parse::<f64>().ok().filter(|n| n.is_finite()).map(|n| n.max(0.0) as u64))
}

fn parse_reset(value: &str, headers: &HeaderMap, now: UnixMillis) -> Option<Duration> {
    // A bare number is seconds, unless it can only be a moment since 1970, in seconds or
    // milliseconds.
    match value.parse::<i64>() {
        Ok(at @ 1_000_000_000..100_000_000_000) => return Some(delay_between(now.0, at * 1_000)),
        Ok(at @ 100_000_000_000..) => return Some(delay_between(now.0, at)),
        _ => {}
    }
    if let Some(span) = parse_seconds(value, 1.0) {
        return Some(span);
    }
    parse_units(value).or_else(|| {
        let at: jiff::Timestamp = value.parse().ok()?;
        let from =
            header_text(headers.get(header::DATE)).and_then(parse_http_date).unwrap_or(now.0);
        Some(delay_between(from, at.as_millisecond()))
    })
}

/// Parses spans such as `2s`, `120ms`, `1m3s`, `6m0s`, `1h2m0.5s`.
fn parse_units(value: &str) -> Option<Duration> {
    let mut rest = value;
    let mut total = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(digits);
        let letters =
            tail.find(|c: char| !c.is_ascii_alphabetic() && c != 'µ').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        let unit = match unit {
            "d" => 86_400.0,
            "h" => 3_600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        total += number.parse::<f64>().ok()? * unit;
        rest = tail;
    }
    (!value.is_empty()).then(|| to_duration(total))
}

#[cfg(test)]
mod tests {
    use http::HeaderName;
    use proptest::prelude::*;

    use super::*;

    const TEST_NOW: UnixMillis = UnixMillis(1_700_000_000_000); // Tue, 14 Nov 2023 22:13:20 GMT

    fn hint(status: u16, rows: &[(&str, &str)]) -> Option<f64> {
        let mut headers = HeaderMap::new();
        for (name, value) in rows {
            headers.append(
                HeaderName::from_bytes(name.as_bytes()).expect("a name"),
                HeaderValue::from_str(value).expect("a value"),
            );
        }
        read_retry_hints(StatusCode::from_u16(status).expect("a status"), &headers, TEST_NOW)
            .retry_after
            .map(|d| d.as_secs_f64())
    }

    #[test]
    fn retry_after_is_read_in_all_its_forms() {
        for (rows, expected) in [
            (&[("retry-after", "2")][..], Some(2.0)),
            (&[("retry-after", " 1.5 ")], Some(1.5)),
            (&[("retry-after", "0")], Some(0.0)),
            (&[("retry-after-ms", "300")], Some(0.3)),
            (&[("retry-after", "9"), ("retry-after-ms", "300")], Some(0.3)),
            (&[("retry-after", "9"), ("retry-after-ms", "soon")], Some(9.0)),
            (&[("retry-after", "Tue, 14 Nov 2023 22:13:25 GMT")], Some(5.0)),
            (
                &[
                    ("retry-after", "Tue, 14 Nov 2023 22:13:25 GMT"),
                    ("date", "Tue, 14 Nov 2023 22:13:23 GMT"),
                ],
                Some(2.0),
            ),
            (&[("retry-after", "Tue, 14 Nov 2000 22:13:25 GMT")], Some(0.0)),
            (&[("retry-after", "-5")], None),
            (&[("retry-after", "NaN")], None),
            (&[("retry-after", "inf")], None),
            (&[("retry-after", "1e9")], None),
            (&[("retry-after", ".")], None),
            (&[("retry-after", "")], None),
            (&[("retry-after", "tomorrow")], None),
            (&[("retry-after", "99999999999999999999999999")], Some(MAX_DELAY.as_secs_f64())),
        ] {
            assert_eq!(hint(503, rows), expected, "{rows:?}");
        }
    }

    #[test]
    fn reset_headers_count_only_on_a_429_with_nothing_remaining() {
        for (rows, expected) in [
            (&[("x-ratelimit-reset-requests", "2s")][..], Some(2.0)),
            (
                &[("x-ratelimit-reset-tokens", "120ms"), ("x-ratelimit-remaining-tokens", "0")],
                Some(0.12),
            ),
            (&[("x-ratelimit-reset-tokens", "6m0s"), ("x-ratelimit-remaining-tokens", "17")], None),
            (
                &[
                    ("x-ratelimit-reset-requests", "1m3s"),
                    ("x-ratelimit-remaining-requests", "0"),
                    ("x-ratelimit-reset-tokens", "6m0s"),
                    ("x-ratelimit-remaining-tokens", "900"),
                ],
                Some(63.0),
            ),
            (
                &[
                    ("vendor-ratelimit-requests-reset", "2023-11-14T22:13:22Z"),
                    ("vendor-ratelimit-requests-remaining", "0"),
                ],
                Some(2.0),
            ),
            (
                &[
                    ("vendor-ratelimit-tokens-reset", "2023-11-14T22:13:22Z"),
                    ("vendor-ratelimit-tokens-remaining", "5"),
                ],
                None,
            ),
            (&[("x-ratelimit-reset-requests", "12.5")], Some(12.5)),
            (&[("x-ratelimit-reset-requests", "1700000004")], Some(4.0)),
            (&[("x-ratelimit-reset-requests", "1700000004000")], Some(4.0)),
            (&[("x-ratelimit-reset-requests", "5 parsecs")], None),
            (&[("x-ratelimit-reset", "1700000004000"), ("x-ratelimit-remaining", "0")], Some(4.0)),
            (&[("ratelimit-reset", "7")], Some(7.0)),
            (&[("ratelimit-reset", "7"), ("ratelimit-remaining", "3")], None),
            (&[("x-ratelimit-reset-requests", "2s"), ("retry-after", "1")], Some(1.0)),
        ] {
            assert_eq!(hint(429, rows), expected, "{rows:?}");
        }
        assert_eq!(hint(200, &[("x-ratelimit-reset-requests", "2s")]), None);
    }

    #[test]
    fn remaining_limits_are_read_in_both_spellings() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("x-ratelimit-limit-requests", "60"),
            ("x-ratelimit-remaining-requests", "59"),
            ("x-ratelimit-reset-requests", "1s"),
            ("x-ratelimit-remaining-tokens", "149984"),
            ("x-ratelimit-reset-tokens", "6m0s"),
            ("vendor-ratelimit-input-tokens-limit", "50000"),
            ("vendor-ratelimit-input-tokens-remaining", "49000"),
            ("vendor-ratelimit-input-tokens-reset", "2023-11-14T22:14:20Z"),
            ("x-ratelimit-remaining-tokens_usage_based", "1"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }

        let reply = read_rate_limits(&headers, TEST_NOW);

        let one = |limit, remaining, seconds| {
            Some(RateLimit { limit, remaining, resets_in: Duration::from_secs(seconds) })
        };
        assert_eq!(reply.requests, one(Some(60), 59, 1));
        assert_eq!(reply.tokens, one(None, 149_984, 360));
        assert_eq!(reply.input, one(Some(50_000), 49_000, 60));
        assert_eq!(reply.output, None);
        assert!(read_rate_limits(&HeaderMap::new(), TEST_NOW).is_empty());
    }

    proptest! {
        #[test]
        fn any_remaining_value_is_read_without_panic(value in "[ -~]{0,40}", reset in "[ -~]{0,40}") {
            let mut headers = HeaderMap::new();
            for (name, value) in [("x-ratelimit-remaining-tokens", &value), ("x-ratelimit-reset-tokens", &reset)] {
                headers.insert(name, HeaderValue::from_str(value).expect("a value"));
            }
            if let Some(reply) = read_rate_limits(&headers, TEST_NOW).tokens {
                prop_assert!(reply.resets_in <= MAX_DELAY);
            }
        }

        #[test]
        fn any_retry_header_is_read_without_panic_and_bounded(value in "[ -~]{0,40}", name in 0..3_usize) {
            let name = ["retry-after", "x-ratelimit-reset-requests", "vendor-ratelimit-tokens-reset"][name];
            let seconds = hint(429, &[(name, &value)]);
            prop_assert!(seconds.is_none_or(|s| (0.0..=MAX_DELAY.as_secs_f64()).contains(&s)));
        }
    }
}
