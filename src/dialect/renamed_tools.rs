//! Tools that an upstream knows by another name than the client.

use std::collections::HashMap;

/// The name sent for each name that the upstream would refuse.
#[derive(Debug, Default)]
pub(super) struct RenamedTools {
    /// Pairs of the name sent and the name that the client uses.
    pairs: Vec<(String, String)>,
    by_name: HashMap<String, usize>,
}

impl RenamedTools {
    pub(super) fn contains(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    pub(super) fn push(&mut self, sent: String, name: &str) {
        self.by_name.insert(name.to_owned(), self.pairs.len());
        self.pairs.push((sent, name.to_owned()));
    }

    /// Returns the name to send.
    pub(super) fn wire_name<'n>(&'n self, name: &'n str) -> &'n str {
        self.by_name.get(name).map_or(name, |number| &self.pairs[*number].0)
    }

    /// Pairs of the name sent and the name that the client uses.
    pub(super) fn into_pairs(self) -> Vec<(String, String)> {
        self.pairs
    }
}

/// Makes names unique by a number behind them. It continues where it left off for a name, so that
/// many equal names cost no more than different ones.
#[derive(Debug, Default)]
pub(super) struct NameNumbers {
    next: HashMap<String, u32>,
}

impl NameNumbers {
    /// Returns the first of `base`, `base_2`, `base_3` … that is not taken, in at most `max` bytes.
    /// `base` is ASCII, or shorter than `max`.
    pub(super) fn unique(
        &mut self,
        base: &str,
        max: usize,
        taken: impl Fn(&str) -> bool,
    ) -> String {
        let short = &base[..base.len().min(max)];
        if !taken(short) {
            return short.to_owned();
        }
        let number = self.next.entry(short.to_owned()).or_insert(2);
        loop {
            let suffix = format!("_{number}");
            *number += 1;
            let name = format!("{}{suffix}", &base[..base.len().min(max - suffix.len())]);
            if !taken(&name) {
                return name;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_names_are_numbered_within_the_length_limit() {
        let mut numbers = NameNumbers::default();
        let mut taken = std::collections::HashSet::new();
        let names: Vec<String> = (0..4)
            .map(|_| {
                let name = numbers.unique("abcdef", 5, |name| taken.contains(name));
                taken.insert(name.clone());
                name
            })
            .collect();
        assert_eq!(names, ["abcde", "abc_2", "abc_3", "abc_4"]);
    }
}
