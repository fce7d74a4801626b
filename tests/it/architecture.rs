//! Rules about the source itself: who imports whom, where a secret is shown, that vendors are data.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Each room and what it may import. `main` may import `cli` and nothing else.
const ROOMS: &[(&str, &[&str])] = &[
    ("base", &[]),
    ("ir", &["base"]),
    ("events", &["ir", "base"]),
    ("secrets", &["base"]),
    ("config", &["secrets", "ir", "base"]),
    ("dialect", &["ir", "base"]),
    ("routing", &["config", "ir", "events", "base"]),
    ("upstream", &["config", "secrets", "ir", "base"]),
    ("demo", &["dialect", "ir", "base"]),
    ("relay", &["routing", "dialect", "upstream", "events", "config", "ir", "base"]),
    ("control", &["relay", "routing", "secrets", "events", "config", "ir", "base"]),
    ("server", &["relay", "control", "dialect", "config", "secrets", "events", "ir", "base"]),
    ("tui", &["control", "events", "base"]),
    ("cli", &["server", "tui", "control", "relay", "routing", "dialect", "upstream", "demo", "config", "secrets", "events", "ir", "base"]),
];

/// Where a secret may leave its wrapper: where it is kept, where it becomes a header, where a client's key is compared,
/// and where a person asked to see it.
const EXPOSING: &[&str] = &["secrets/", "server/guard/", "upstream/auth.rs", "upstream/keys.rs", "control/client.rs", "cli/reveal.rs"];

/// Names in the preset file that are also dialects or plain words.
const ORDINARY: &[&str] = &["anthropic", "custom", "demo", "gemini", "ollama", "openai", "perplexity", "together", "voyage"];

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// Every Rust file below a folder, with its path from there.
fn files(root: &Path) -> Vec<(String, String)> {
    let (mut open, mut found) = (vec![root.to_owned()], Vec::new());
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
            if entry.is_dir() {
                open.push(entry);
            } else if entry.extension().is_some_and(|extension| extension == "rs") {
                let name = entry.strip_prefix(root).expect("below the root").display().to_string().replace('\\', "/");
                found.push((name, fs::read_to_string(&entry).expect("text")));
            }
        }
    }
    found.sort();
    assert!(!found.is_empty(), "no source below {}", root.display());
    found
}

/// The text without comments, and without what stands in a test module of its own at the end.
fn code(text: &str) -> String {
    let body = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or(text);
    body.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// The rooms that a file names after `crate::`, groups (`crate::{a::b, c}`) included.
fn imports(text: &str) -> BTreeSet<String> {
    let mut rooms = BTreeSet::new();
    let mut add = |path: &str| {
        let room: String = path.trim_start().chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
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

    let found: Vec<_> = imports(text).into_iter().collect();

    assert_eq!(found, ["base", "config", "events", "ir"]);
}

#[test]
fn rooms_import_only_what_lies_below_them() {
    let names: Vec<_> = ROOMS.iter().map(|(name, _)| *name).collect();
    let mut wrong = Vec::new();
    for (file, text) in files(&source()) {
        let Some((room, _)) = file.split_once('/') else { continue };
        let Some((_, allowed)) = ROOMS.iter().find(|(name, _)| *name == room) else {
            wrong.push(format!("src/{file}: the room `{room}` is not in the table of tests/it/architecture.rs"));
            continue;
        };
        for import in imports(&code(&text)) {
            // What is no room is an item of the crate root, of which there is none but macros.
            if names.contains(&import.as_str()) && import != room && !allowed.contains(&import.as_str()) {
                wrong.push(format!("src/{file}: `{room}` may not import `{import}`"));
            }
        }
    }

    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn secrets_are_shown_in_few_places() {
    let shown = files(&source()).into_iter().filter(|(_, text)| code(text).contains(".expose("));

    let wrong: Vec<_> = shown.map(|(file, _)| file).filter(|file| !EXPOSING.iter().any(|place| file.starts_with(place))).collect();

    assert!(wrong.is_empty(), "`.expose(` stands in {wrong:?}; pass the Secret on, or name the place in EXPOSING and say why");
}

#[test]
fn vendors_are_data() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/presets.toml");
    let Ok(presets) = fs::read_to_string(&path) else {
        eprintln!("skipped: there is no {}", path.display());
        return;
    };
    let presets: toml_edit::DocumentMut = presets.parse().expect("assets/presets.toml");
    let mut vendors: Vec<String> = presets.iter().filter(|(_, item)| item.is_table()).map(|(name, _)| name.to_owned()).collect();
    for rows in presets.iter().filter_map(|(_, item)| item.as_array_of_tables()) {
        vendors.extend(rows.iter().filter_map(|row| row.get("name")?.as_str()).map(str::to_owned));
    }
    vendors.retain(|vendor| vendor.len() > 2 && !ORDINARY.contains(&vendor.as_str()));
    assert!(vendors.len() > 3, "the preset file has names: {vendors:?}");
    let mut wrong = Vec::new();
    for (file, text) in files(&source()) {
        let text = code(&text).to_lowercase();
        for vendor in vendors.iter().filter(|vendor| has_word(&text, vendor)) {
            wrong.push(format!("src/{file} names `{vendor}`"));
        }
    }

    assert!(wrong.is_empty(), "facts about vendors belong in assets/:\n{}", wrong.join("\n"));
}

/// Whether a text has a word, not only a part of one.
fn has_word(text: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word)
        .any(|(at, _)| !text[..at].chars().next_back().is_some_and(part) && !text[at + word.len()..].chars().next().is_some_and(part))
}

#[test]
fn no_test_file_is_forgotten() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it");
    let main = fs::read_to_string(root.join("main.rs")).expect("main.rs");
    let entries = fs::read_dir(&root).expect("tests/it").map(|entry| entry.expect("an entry").path());
    let files = entries.filter(|path| path.extension().is_some_and(|extension| extension == "rs"));
    let names = files.filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned())).filter(|name| name != "main");

    let forgotten: Vec<_> = names.filter(|name| !main.lines().any(|line| line.trim() == format!("mod {name};"))).collect();

    assert!(forgotten.is_empty(), "tests/it/main.rs does not name {forgotten:?}");
}
