//! Names that this config can have.

/// Longest name that is made; the key store takes a label of 256 bytes.
const MAX_CHARS: usize = 40;

/// Returns the name with `-` for what names cannot have; `other` if nothing is left.
pub(super) fn usable_name(wanted: &str, other: &str) -> String {
    let mut out = String::new();
    for c in wanted.trim().chars() {
        let is_allowed = c.is_alphanumeric() || matches!(c, '-' | '_' | '.');
        if is_allowed {
            out.push(c);
        } else if !out.ends_with('-') {
            out.push('-');
        }
    }
    let name: String = out.trim_matches(['-', '.']).chars().take(MAX_CHARS).collect();
    if name.is_empty() { other.to_owned() } else { name }
}

/// Returns the name, or one with a number if it is taken.
pub(super) fn free_name(wanted: &str, taken: impl Fn(&str) -> bool) -> String {
    if !taken(wanted) {
        return wanted.to_owned();
    }
    let mut number = 2_u64;
    loop {
        let name = format!("{wanted}-{number}");
        if !taken(&name) {
            return name;
        }
        number += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn imported_names_are_valid_and_unused() {
        for (wanted, name) in [
            ("OpenAI main", "OpenAI-main"),
            ("测试项目", "测试项目"),
            (" a//b: ", "a-b"),
            ("../..", "client"),
            ("", "client"),
        ] {
            assert_eq!(usable_name(wanted, "client"), name, "{wanted}");
        }
        assert!(usable_name(&"x".repeat(999), "y").len() == MAX_CHARS);
        let taken = ["a", "a-2"];
        assert_eq!(free_name("a", |name| taken.contains(&name)), "a-3");
        assert_eq!(free_name("b", |name| taken.contains(&name)), "b");
    }
}
