//! "Did you mean": finds the known word closest to an unknown one.

/// Returns the closest of `known`, if it is close enough to be a typing mistake.
#[must_use]
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wanted = normalize(word);
    // One mistake per three letters, and one more letter for a word that only lacks its end
    // (`max_conn`).
    let limit = (wanted.len() / 3).clamp(1, 4);
    known
        .into_iter()
        .map(|name| (edit_distance(&wanted, &normalize(name)), name))
        .filter(|&(far, name)| {
            far <= limit || (wanted.len() >= 3 && normalize(name).starts_with(&wanted))
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
    let limit = (wanted.len() / 3).clamp(1, 6);
    let mut found: Vec<_> = known
        .into_iter()
        .map(|name| {
            let folded = normalize(name);
            let inside = wanted.len() >= 3 && contains(&folded, &wanted);
            (if inside { 0 } else { edit_distance(&wanted, &folded) }, name)
        })
        .filter(|&(far, _)| far <= limit)
        .collect();
    found.sort_by_key(|&(far, name)| (far, name.len()));
    found.dedup_by_key(|(_, name)| *name);
    found.truncate(max_results);
    found.into_iter().map(|(_, name)| name).collect()
}

/// Ignores case and the choice between `-`, `_` and space. Cuts long words, because the table below
/// is quadratic.
fn normalize(word: &str) -> Vec<char> {
    word.chars()
        .take(96)
        .map(|c| if matches!(c, '-' | ' ') { '_' } else { c.to_ascii_lowercase() })
        .collect()
}

fn contains(text: &[char], part: &[char]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

/// Counts insertions, deletions, replacements and swaps of neighbours.
fn edit_distance(a: &[char], b: &[char]) -> usize {
    let mut before = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let same = usize::from(a[i - 1] != b[j - 1]);
            row[j] = (last[j - 1] + same).min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typing_mistakes_find_their_word() {
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
