//! "Did you mean": finds the known word closest to an unknown one.

use strsim::osa_distance;

/// Returns the closest of `known`, if it is close enough to be a typing mistake.
#[must_use]
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wanted = normalize(word);
    let length = wanted.chars().count();
    // One mistake per three letters, and one more letter for a word that only lacks its end
    // (`max_conn`).
    let limit = (length / 3).clamp(1, 4);
    known
        .into_iter()
        .map(|name| (osa_distance(&wanted, &normalize(name)), name))
        .filter(|&(far, name)| {
            far <= limit || (length >= 3 && normalize(name).starts_with(&wanted))
        })
        .min_by_key(|&(far, _)| far)
        .map(|(_, name)| name)
}

/// Returns the closest few, best first, for lists of models.
#[must_use]
pub fn nearest_few<'a>(
    word: &str,
    known: impl IntoIterator<Item = &'a str>,
    max_results: usize,
) -> Vec<&'a str> {
    let wanted = normalize(word);
    let length = wanted.chars().count();
    let limit = (length / 3).clamp(1, 6);
    let mut found: Vec<_> = known
        .into_iter()
        .map(|name| {
            let folded = normalize(name);
            let inside = length >= 3 && folded.contains(&wanted);
            (if inside { 0 } else { osa_distance(&wanted, &folded) }, name)
        })
        .filter(|&(far, _)| far <= limit)
        .collect();
    found.sort_by_key(|&(far, name)| (far, name.len()));
    found.dedup_by_key(|(_, name)| *name);
    found.truncate(max_results);
    found.into_iter().map(|(_, name)| name).collect()
}

/// Ignores case and the choice between `-`, `_` and space. Cuts long words, because the distance
/// takes quadratic time.
fn normalize(word: &str) -> String {
    word.chars()
        .take(96)
        .map(|c| if matches!(c, '-' | ' ') { '_' } else { c.to_ascii_lowercase() })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggestions_match_typing_mistakes() {
        let known = ["base_url", "dialect", "models", "max_connections", "max_requests", "name"];
        for (word, want) in [
            ("base_ulr", Some("base_url")),
            ("max_conections", Some("max_connections")),
            ("max-connections", Some("max_connections")),
            ("Model", Some("models")),
            ("dial", Some("dialect")),
            ("zebra", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, known), want, "{word}");
        }
        assert_eq!(
            nearest_few("sonnet", ["claude-sonnet-4", "gpt-4o", "sonet"], 3),
            ["claude-sonnet-4", "sonet"]
        );
    }
}
