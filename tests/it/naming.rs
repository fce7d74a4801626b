//! Rules about names and words of the source: one type per name, and the glossary of the project.

use std::collections::{BTreeMap, BTreeSet};

use crate::architecture::{product_files, strip_comments_and_tests};

/// Type names that may be defined in more than one file; any other second type gets a name that
/// says what it is. Each list of the dashboard has its own `Column`; `List` is a kind of config value
/// and a drawn list.
const REPEATED_TYPE_NAMES: &[&str] = &["Column", "List"];

/// Public type names that are short because every reader knows them.
const SHORT_TYPE_NAMES: &[&str] = &["App", "Bus", "Cli", "Msg", "Op", "Rng"];

/// Words that comments avoid, because they personify code or hide who acts.
const AVOIDED_WORDS: &[&str] = &[
    "bears", "hear", "hears", "heard", "nobody", "somebody", "tells", "telling", "told", "whoever",
];

/// The names of the types that a file defines at its top level, and whether each is public.
fn defined_types(text: &str) -> Vec<(bool, String)> {
    let of_line = |line: &str| {
        let (public, rest) = match line.strip_prefix("pub") {
            Some(rest) if rest.starts_with(' ') => (true, rest.trim_start()),
            Some(rest) if rest.starts_with('(') => (true, rest.split_once(") ")?.1),
            _ => (false, line),
        };
        let (kind, rest) = rest.split_once(' ')?;
        ["struct", "enum", "trait", "type"].contains(&kind).then(|| {
            let name: String =
                rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            (public, name)
        })
    };
    text.lines().filter_map(of_line).collect()
}

#[test]
fn type_collector_reads_visibility_and_name() {
    let text = "struct A<T>;\npub enum B {\n    struct Not;\npub(in crate::x) type C = u8;\n";

    assert_eq!(
        defined_types(text),
        [(false, "A".to_owned()), (true, "B".to_owned()), (true, "C".to_owned())]
    );
}

#[test]
fn no_type_name_is_defined_in_two_files() {
    let mut files: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (file, text) in product_files() {
        for (_, name) in defined_types(&strip_comments_and_tests(&text)) {
            files.entry(name).or_default().insert(file.clone());
        }
    }
    assert!(files.len() > 500, "only {} types found", files.len());

    let repeated: Vec<_> = files
        .iter()
        .filter(|(name, files)| files.len() > 1 && !REPEATED_TYPE_NAMES.contains(&name.as_str()))
        .collect();

    assert!(repeated.is_empty(), "defined in several files: {repeated:#?}");
}

#[test]
fn public_type_names_are_descriptive() {
    let short: Vec<_> = product_files()
        .iter()
        .flat_map(|(file, text)| {
            let types = defined_types(&strip_comments_and_tests(text));
            types.into_iter().map(move |(public, name)| (file.clone(), public, name))
        })
        .filter(|(_, public, name)| {
            *public && name.len() < 4 && !SHORT_TYPE_NAMES.contains(&name.as_str())
        })
        .collect();

    assert!(short.is_empty(), "public type names with fewer than four letters: {short:?}");
}

#[test]
fn comments_use_plain_words() {
    let mut found = Vec::new();
    for (file, text) in product_files() {
        for (number, line) in text.lines().enumerate() {
            let Some(comment) = line.trim_start().strip_prefix("//") else { continue };
            let words = comment.split(|c: char| !c.is_alphanumeric()).map(str::to_lowercase);
            for word in words.filter(|word| AVOIDED_WORDS.contains(&word.as_str())) {
                found.push(format!("src/{file}:{}: `{word}`", number + 1));
            }
        }
    }

    assert!(
        found.is_empty(),
        "name the actor and use the standard verb (publish, send, report, record):\n{}",
        found.join("\n")
    );
}
