//! Every promise of `docs/security.md` names tests that exist.

use std::{fs, path::Path};

/// Returns the `FILE::TEST` names in a text.
fn test_names(text: &str) -> Vec<(&str, &str)> {
    let quoted = text.split('`').skip(1).step_by(2);
    quoted.filter_map(|name| name.split_once("::")).filter(|(f, _)| f.ends_with(".rs")).collect()
}

/// Returns whether a source file has a test of this name.
fn has_test(source: &str, name: &str) -> bool {
    let lines: Vec<&str> = source.lines().map(str::trim).collect();
    let head = format!("fn {name}(");
    lines.iter().enumerate().any(|(at, line)| {
        let is_function = line.trim_start_matches("async ").starts_with(&head);
        let mut attributes = lines[..at].iter().rev().take_while(|line| line.starts_with("#["));
        is_function && attributes.any(|line| line.contains("test"))
    })
}

#[test]
fn every_security_promise_names_existing_tests() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("docs/security.md")).expect("the page");
    let mut wrong = Vec::new();
    for row in page.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").collect();
        let [promise, proof] = cells[..] else { continue };
        let names = test_names(proof);
        if names.is_empty() && page.contains(&format!("proved by |\n| --- | --- |\n{row}")) {
            wrong.push(format!("no test: {promise}"));
        }
        for (file, test) in names {
            let found = ["tests/it", "src"]
                .iter()
                .find_map(|folder| fs::read_to_string(root.join(folder).join(file)).ok());
            if !found.is_some_and(|source| has_test(&source, test)) {
                wrong.push(format!("`{file}::{test}` does not exist: {promise}"));
            }
        }
    }
    assert!(test_names(&page).len() > 30, "the page names its tests");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
