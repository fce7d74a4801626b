//! Rules about the source: which modules import each other, where secrets are exposed, and that
//! vendor facts are data.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Each top-level module and the modules that it may import. `main` may import only `cli`.
const LAYERS: &[(&str, &[&str])] = &[
    ("base", &[]),
    ("ir", &["base"]),
    ("events", &["ir", "base"]),
    ("secrets", &["base"]),
    ("config", &["secrets", "ir", "base"]),
    ("dialect", &["ir", "base"]),
    ("routing", &["config", "ir", "events", "base"]),
    ("upstream", &["config", "secrets", "ir", "base"]),
    ("pricing", &["config", "ir", "base"]),
    ("alerts", &["upstream", "config", "secrets", "events", "ir", "base"]),
    ("telemetry", &["upstream", "config", "secrets", "events", "ir", "base"]),
    ("ledger", &["events", "config", "ir", "base"]),
    ("demo", &["dialect", "ir", "base"]),
    ("relay", &["routing", "dialect", "upstream", "pricing", "events", "config", "ir", "base"]),
    (
        "control",
        &[
            "relay",
            "telemetry",
            "routing",
            "dialect",
            "ledger",
            "secrets",
            "events",
            "config",
            "ir",
            "base",
        ],
    ),
    (
        "server",
        &[
            "relay", "control", "routing", "dialect", "upstream", "config", "secrets", "events",
            "ir", "base",
        ],
    ),
    ("tui", &["control", "events", "ir", "base"]),
    (
        "cli",
        &[
            "server",
            "tui",
            "control",
            "relay",
            "alerts",
            "telemetry",
            "routing",
            "dialect",
            "upstream",
            "pricing",
            "ledger",
            "demo",
            "config",
            "secrets",
            "events",
            "ir",
            "base",
        ],
    ),
];

/// Files that may expose a secret: to store it, to set a header, to compare a client key, or to
/// show it at a user's request.
const SECRET_EXPOSING_FILES: &[&str] = &[
    "secrets/",
    "server/guard/",
    "upstream/auth.rs",
    "upstream/keys.rs",
    "control/client.rs",
    "cli/expose.rs",
];

/// Names in the preset file that are also dialects or ordinary words.
const ORDINARY_WORDS: &[&str] = &[
    "anthropic",
    "custom",
    "demo",
    "gemini",
    "ollama",
    "openai",
    "perplexity",
    "together",
    "voyage",
];

fn source_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// Returns every Rust file of the program with its path below `src`, except files that are compiled
/// only for tests.
pub fn product_files() -> Vec<(String, String)> {
    let root = source_dir();
    let (mut open, mut found) = (vec![root.clone()], Vec::new());
    while let Some(folder) = open.pop() {
        for entry in
            fs::read_dir(&folder).expect("a folder").map(|entry| entry.expect("an entry").path())
        {
            if entry.is_dir() {
                open.push(entry);
            } else if entry.extension().is_some_and(|extension| extension == "rs") {
                let name = entry
                    .strip_prefix(&root)
                    .expect("below the root")
                    .display()
                    .to_string()
                    .replace('\\', "/");
                found.push((name, fs::read_to_string(&entry).expect("text")));
            }
        }
    }
    assert!(!found.is_empty(), "no source below {}", root.display());
    let only_tests: Vec<_> =
        found.iter().flat_map(|(file, text)| test_modules(file, text)).collect();
    found.retain(|(file, _)| {
        !only_tests.iter().any(|module| {
            file == &format!("{module}.rs") || file.starts_with(&format!("{module}/"))
        })
    });
    found.sort();
    found
}

/// Returns the modules that a file declares with `#[cfg(test)] mod name;`, as paths without
/// extension.
fn test_modules(file: &str, text: &str) -> Vec<String> {
    let folder = file
        .strip_suffix("mod.rs")
        .map_or_else(|| format!("{}/", file.trim_end_matches(".rs")), str::to_owned);
    let declared = text.split("#[cfg(test)]").skip(1).filter_map(|rest| {
        let line = rest.trim_start().lines().next()?;
        line.strip_suffix(';')?.rsplit_once("mod ").map(|(_, name)| name.to_owned())
    });
    declared.map(|name| format!("{folder}{name}")).collect()
}

/// Strips comments and the inline test module at the end.
pub fn strip_comments_and_tests(text: &str) -> String {
    let tests = text.match_indices("\n#[cfg(test)]\n").find(|(at, marker)| {
        let line = text[at + marker.len()..].lines().next().unwrap_or_default();
        line.contains("mod ") && line.ends_with('{')
    });
    let body = tests.map_or(text, |(at, _)| &text[..at]);
    body.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// Returns the top-level modules that a file names after `crate::`, including groups
/// (`crate::{a::b, c}`).
fn imported_modules(text: &str) -> BTreeSet<String> {
    let mut rooms = BTreeSet::new();
    let mut add = |path: &str| {
        let room: String = path
            .trim_start()
            .chars()
            .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
            .collect();
        rooms.insert(room);
    };
    for (at, marker) in text.match_indices("crate::") {
        let path = &text[at + marker.len()..];
        let Some(group) = path.strip_prefix('{') else {
            add(path);
            continue;
        };
        let (mut depth, mut from) = (0_usize, 0);
        for (place, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => {
                    add(&group[from..place]);
                    break;
                }
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    add(&group[from..place]);
                    from = place + 1;
                }
                _ => {}
            }
        }
    }
    rooms.remove("");
    rooms
}

#[test]
fn the_collector_of_imports_sees_groups_and_paths() {
    let text = "use crate::{\n    base::{clock::Clock, id},\n    ir,\n};\nfn f(a: crate::events::Bus) { use crate::config::X; }";

    let found: Vec<_> = imported_modules(text).into_iter().collect();

    assert_eq!(found, ["base", "config", "events", "ir"]);
}

#[test]
fn modules_for_tests_are_known_by_their_declaration() {
    let text = "mod a;\n#[cfg(test)]\nmod fixture;\n#[cfg(test)]\npub(crate) mod world;\n#[cfg(test)]\nmod tests {\n}";

    assert_eq!(test_modules("routing/mod.rs", text), ["routing/fixture", "routing/world"]);
    assert_eq!(test_modules("tui/app.rs", "#[cfg(test)]\nmod tests;"), ["tui/app/tests"]);
}

#[test]
fn rooms_import_only_what_lies_below_them() {
    let names: Vec<_> = LAYERS.iter().map(|(name, _)| *name).collect();
    let mut wrong = Vec::new();
    for (file, text) in product_files() {
        let Some((room, _)) = file.split_once('/') else { continue };
        let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| *name == room) else {
            wrong.push(format!(
                "src/{file}: the room `{room}` is not in the table of tests/it/architecture.rs"
            ));
            continue;
        };
        for import in imported_modules(&strip_comments_and_tests(&text)) {
            // Other names are items of the crate root, which are all macros.
            if names.contains(&import.as_str())
                && import != room
                && !allowed.contains(&import.as_str())
            {
                wrong.push(format!("src/{file}: `{room}` may not import `{import}`"));
            }
        }
    }

    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn secrets_are_shown_in_few_places() {
    let shown = product_files()
        .into_iter()
        .filter(|(_, text)| strip_comments_and_tests(text).contains(".expose("));

    let wrong: Vec<_> = shown
        .map(|(file, _)| file)
        .filter(|file| !SECRET_EXPOSING_FILES.iter().any(|place| file.starts_with(place)))
        .collect();

    assert!(
        wrong.is_empty(),
        "`.expose(` stands in {wrong:?}; pass the Secret on, or name the place in EXPOSING and say why"
    );
}

#[test]
fn vendors_are_data() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/presets.toml");
    let Ok(presets) = fs::read_to_string(&path) else {
        eprintln!("skipped: there is no {}", path.display());
        return;
    };
    let presets: toml_edit::DocumentMut = presets.parse().expect("assets/presets.toml");
    let mut vendors: Vec<String> = presets
        .iter()
        .filter(|(_, item)| item.is_table())
        .map(|(name, _)| name.to_owned())
        .collect();
    for rows in presets.iter().filter_map(|(_, item)| item.as_array_of_tables()) {
        vendors.extend(rows.iter().filter_map(|row| row.get("name")?.as_str()).map(str::to_owned));
    }
    vendors.retain(|vendor| vendor.len() > 2 && !ORDINARY_WORDS.contains(&vendor.as_str()));
    assert!(vendors.len() > 3, "the preset file has names: {vendors:?}");
    let mut wrong = Vec::new();
    for (file, text) in product_files() {
        for literal in one_word_literals(&strip_comments_and_tests(&text)) {
            for vendor in vendors.iter().filter(|vendor| has_word(&literal.to_lowercase(), vendor))
            {
                wrong.push(format!("src/{file} says \"{literal}\", which names `{vendor}`"));
            }
        }
    }

    assert!(wrong.is_empty(), "facts about vendors belong in assets/:\n{}", wrong.join("\n"));
}

/// Returns the string literals that are one word, which code may compare with. Sentences, such as
/// examples in help texts, are left out.
fn one_word_literals(text: &str) -> Vec<&str> {
    let pieces = text.lines().flat_map(|line| line.split('"').skip(1).step_by(2));
    // The prefixes of keys ("abc-", alone or in a pattern of alternatives) distinguish keys from
    // other text and are not vendor rules.
    pieces
        .filter(|literal| {
            !literal.contains(|c: char| c.is_whitespace() || matches!(c, '|' | '\\'))
                && !literal.ends_with('-')
        })
        .collect()
}

/// Returns whether a text contains a word as a whole word.
fn has_word(text: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word).any(|(at, _)| {
        !text[..at].chars().next_back().is_some_and(part)
            && !text[at + word.len()..].chars().next().is_some_and(part)
    })
}

#[test]
fn no_test_file_is_forgotten() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it");
    let main = fs::read_to_string(root.join("main.rs")).expect("main.rs");
    let entries =
        fs::read_dir(&root).expect("tests/it").map(|entry| entry.expect("an entry").path());
    let files = entries.filter(|path| path.extension().is_some_and(|extension| extension == "rs"));
    let names = files
        .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
        .filter(|name| name != "main");

    let forgotten: Vec<_> = names
        .filter(|name| !main.lines().any(|line| line.trim() == format!("mod {name};")))
        .collect();

    assert!(forgotten.is_empty(), "tests/it/main.rs does not name {forgotten:?}");
}
