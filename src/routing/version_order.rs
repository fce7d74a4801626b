//! Orders model names by version: versions are compared as numbers, dates as dates.

use std::cmp::{Ordering, Reverse};

/// The newest of the names offered so far.
#[derive(Debug, Default)]
pub(super) struct NewestName(pub(super) Option<String>);

impl NewestName {
    pub(super) fn consider(&mut self, name: &str) {
        if self.0.as_deref().is_none_or(|best| compare_versions(name, best) == Ordering::Greater) {
            self.0 = Some(name.to_owned());
        }
    }
}

/// Higher versions are newer, then later dates; a name without a date means the latest of its
/// version. Among equals the shorter name is newer, as the rest is `-preview` and the like.
fn compare_versions(a: &str, b: &str) -> Ordering {
    let key = |name: &str| {
        let (version, date) = parse_version(name);
        (version, date.is_none(), date, Reverse(name.len()))
    };
    key(a).cmp(&key(b)).then_with(|| b.cmp(a))
}

/// Returns the numbers of a name, and its date.
fn parse_version(name: &str) -> (Vec<u64>, Option<u64>) {
    let runs: Vec<&str> = name.split(|c: char| !c.is_ascii_digit()).collect();
    let (mut version, mut date, mut at) = (Vec::new(), None, 0);
    while let Some(run) = runs.get(at) {
        at += 1;
        if run.is_empty() {
            continue;
        }
        let next = |ahead: usize| runs.get(at + ahead).copied().unwrap_or_default();
        let number = run.parse().unwrap_or(u64::MAX);
        match run.len() {
            8 if (19_000_000..21_000_000).contains(&number) => date = Some(number),
            4 if (2000..2100).contains(&number) && next(0).len() == 2 && next(1).len() == 2 => {
                let day = |text: &str| text.parse::<u64>().unwrap_or(0);
                date = Some(number * 10_000 + day(next(0)) * 100 + day(next(1)));
                at += 2;
            }
            // Month and day, as in `-0613`.
            4 if (101..1232).contains(&number) && (1..=31).contains(&(number % 100)) => {
                date = Some(number);
            }
            _ => version.push(number),
        }
    }
    (version, date)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_sort_by_version_then_by_date() {
        for (names, want) in [
            (
                &[
                    "claude-sonnet-4-20250514",
                    "claude-sonnet-4-5-20250929",
                    "claude-3-7-sonnet-20250219",
                ][..],
                "claude-sonnet-4-5-20250929",
            ),
            (&["claude-sonnet-4-5-20250929", "claude-sonnet-4-5"], "claude-sonnet-4-5"),
            (&["gpt-4o-2024-05-13", "gpt-4o-2024-11-20", "gpt-4o-2024-08-06"], "gpt-4o-2024-11-20"),
            (&["gpt-4-0613", "gpt-4-1106-preview", "gpt-4-0125-preview"], "gpt-4-1106-preview"),
            (&["llama-3.1-405b", "llama-3.3-70b"], "llama-3.3-70b"),
            (&["gemini-2.5-pro-preview", "gemini-2.5-pro", "gemini-2.0-pro"], "gemini-2.5-pro"),
            (&["m-9", "m-10"], "m-10"),
        ] {
            let (mut there, mut back) = (NewestName::default(), NewestName::default());
            names.iter().for_each(|name| there.consider(name));
            names.iter().rev().for_each(|name| back.consider(name));
            assert_eq!((there.0.as_deref(), back.0.as_deref()), (Some(want), Some(want)));
        }
    }
}
