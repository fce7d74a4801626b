//! Rules about the source: which modules import each other, where secrets are exposed, and that
//! vendor facts are data.

use std::{
    collections::{BTreeMap, BTreeSet},
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
    ("mcp", &["upstream", "config", "secrets", "events", "ir", "base"]),
    ("relay", &["routing", "dialect", "upstream", "pricing", "events", "config", "ir", "base"]),
    (
        "control",
        &[
            "relay",
            "mcp",
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
            "relay", "mcp", "control", "routing", "dialect", "upstream", "config", "secrets",
            "events", "ir", "base",
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
            "mcp",
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

/// Each entry of `src/relay` and the entries that it may import. `handler` and `mod` may import all.
const RELAY_LAYERS: &[(&str, &[&str])] = &[
    ("state", &[]),
    ("heavy_work", &[]),
    ("observe", &["state"]),
    ("request", &["engine", "observe", "state"]),
    ("record", &["request", "engine", "observe", "state"]),
    ("context", &["record", "request", "engine", "observe", "state"]),
    ("attempt", &["context", "record", "request", "engine", "observe", "heavy_work", "state"]),
    (
        "dispatch",
        &["attempt", "context", "record", "request", "engine", "observe", "heavy_work", "state"],
    ),
    (
        "response",
        &["dispatch", "attempt", "context", "record", "request", "engine", "observe", "state"],
    ),
    ("background", &["attempt", "context", "record", "request", "engine", "observe", "state"]),
    ("engine", &["observe", "state"]),
];

/// Modules of the relay that the engine owns although they are no stores; they may not import it.
const ENGINE_PARTS: &[&str] = &["relay::record::cache_monitor", "relay::dispatch::queue"];

/// Files that may import each other in a ring.
const MAX_RING_FILES: usize = 3;

/// Files that may expose a secret: to store it, to set a header, to compare a client key, or to
/// show it at a user's request.
const SECRET_EXPOSING_FILES: &[&str] = &[
    "alerts/formats.rs",
    "alerts/mail.rs",
    "secrets/",
    "server/guard/",
    "upstream/auth.rs",
    "upstream/keys.rs",
    "control/client.rs",
    "mcp/oauth/token_set.rs",
    "mcp/openapi/credential.rs",
    "mcp/wire/stdio.rs",
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
fn import_collector_reads_groups_and_paths() {
    let text = "use crate::{\n    base::{clock::Clock, id},\n    ir,\n};\nfn f(a: crate::events::Bus) { use crate::config::X; }";

    let found: Vec<_> = imported_modules(text).into_iter().collect();

    assert_eq!(found, ["base", "config", "events", "ir"]);
}

#[test]
fn test_modules_are_recognised_by_their_declaration() {
    let text = "mod a;\n#[cfg(test)]\nmod fixture;\n#[cfg(test)]\npub(crate) mod world;\n#[cfg(test)]\nmod tests {\n}";

    assert_eq!(test_modules("routing/mod.rs", text), ["routing/fixture", "routing/world"]);
    assert_eq!(test_modules("tui/app.rs", "#[cfg(test)]\nmod tests;"), ["tui/app/tests"]);
}

#[test]
fn modules_import_only_lower_layers() {
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

/// Returns the module of a file below `src`: `a::b` for `a/b.rs` and `a/b/mod.rs`.
fn module_of(file: &str) -> String {
    let path = file.trim_end_matches(".rs");
    let path = path.strip_suffix("/mod").unwrap_or(path);
    if matches!(path, "lib" | "main") { String::new() } else { path.replace('/', "::") }
}

/// Returns the paths that the `use` lines of a module name, from the crate's root on.
fn used_paths(file: &str, text: &str) -> Vec<String> {
    let module = module_of(file);
    let mut paths = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let line = line.trim_start();
        let line = match line.strip_prefix("pub") {
            Some(rest) if rest.starts_with('(') => rest.split_once(") ").map_or("", |(_, it)| it),
            Some(rest) => rest.trim_start(),
            None => line,
        };
        let Some(first) = line.strip_prefix("use ") else { continue };
        let mut tree = first.to_owned();
        while !tree.contains(';') {
            let Some(next) = lines.next() else { break };
            tree.push_str(next);
        }
        let tree: String = tree.chars().take_while(|c| *c != ';').collect();
        if ["crate::", "self::", "super::"].iter().any(|start| tree.trim_start().starts_with(start))
        {
            expand_tree("", &tree, &mut |path| paths.push(absolute_path(&module, path)));
        }
    }
    paths
}

/// Calls `add` with every path of a `use` tree.
fn expand_tree(prefix: &str, tree: &str, add: &mut dyn FnMut(&str)) {
    let Some((head, group)) = tree.split_once('{') else {
        let path = tree.split(" as ").next().unwrap_or_default().trim();
        add(&format!("{prefix}{path}"));
        return;
    };
    let group = group.trim_end();
    let group = group.strip_suffix('}').unwrap_or(group);
    let prefix = format!("{prefix}{}", head.trim());
    let (mut depth, mut from) = (0_usize, 0);
    for (at, c) in group.char_indices().chain([(group.len(), ',')]) {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                if !group[from..at].trim().is_empty() {
                    expand_tree(&prefix, &group[from..at], add);
                }
                from = at + 1;
            }
            _ => {}
        }
    }
}

/// Returns a path from the crate's root on; `module` is where it is written.
fn absolute_path(module: &str, path: &str) -> String {
    let mut base: Vec<&str> = module.split("::").filter(|part| !part.is_empty()).collect();
    let mut parts = path.split("::").peekable();
    match parts.peek() {
        Some(&"crate") => {
            base.clear();
            parts.next();
        }
        Some(&"self") => {
            parts.next();
        }
        _ => {}
    }
    while parts.next_if(|part| *part == "super").is_some() {
        base.pop();
    }
    base.into_iter().chain(parts).collect::<Vec<_>>().join("::")
}

/// Returns which modules each module imports with `use`.
fn import_graph(files: &[(String, String)]) -> BTreeMap<String, BTreeSet<String>> {
    let modules: BTreeSet<String> = files.iter().map(|(file, _)| module_of(file)).collect();
    let target = |path: &str| {
        let mut path = path;
        loop {
            if modules.contains(path) {
                return Some(path.to_owned());
            }
            path = path.rsplit_once("::")?.0;
        }
    };
    let mut graph = BTreeMap::new();
    for (file, text) in files {
        let module = module_of(file);
        let used = used_paths(file, &strip_comments_and_tests(text));
        let imports = used.iter().filter_map(|path| target(path)).filter(|other| *other != module);
        graph.insert(module.clone(), imports.collect());
    }
    graph
}

/// Returns the groups of modules that reach each other, except single modules.
fn rings(graph: &BTreeMap<String, BTreeSet<String>>) -> Vec<Vec<&str>> {
    let reach = |from: &str| {
        let (mut open, mut seen) = (vec![from.to_owned()], BTreeSet::new());
        while let Some(module) = open.pop() {
            for next in graph.get(&module).into_iter().flatten() {
                if seen.insert(next.clone()) {
                    open.push(next.clone());
                }
            }
        }
        seen
    };
    let reached: BTreeMap<&str, BTreeSet<String>> =
        graph.keys().map(|module| (&**module, reach(module))).collect();
    let (mut found, mut done) = (Vec::new(), BTreeSet::new());
    for (module, others) in &reached {
        if others.contains(*module) && !done.contains(module) {
            let ring: Vec<&str> = reached
                .iter()
                .filter(|(other, back)| others.contains(**other) && back.contains(*module))
                .map(|(other, _)| *other)
                .collect();
            done.extend(ring.iter().copied());
            found.push(ring);
        }
    }
    found
}

#[test]
fn import_cycles_are_found() {
    let file = |name: &str, text: &str| (name.to_owned(), text.to_owned());
    let files = [
        file("a/mod.rs", "mod b;\nuse crate::a::b::{self, X as Y, Z as W};"),
        file("a/b.rs", "pub(crate) use crate::{\n    c::{D, E},\n    d,\n};\nuse super::F;"),
        file("c.rs", "fn f() {\n    use crate::a::b;\n}"),
        file("d.rs", "// use crate::c;\nuse std::fmt;"),
    ];

    assert_eq!(rings(&import_graph(&files)), [["a", "a::b", "c"]]);
}

#[test]
fn import_cycles_are_short() {
    let graph = import_graph(&product_files());

    let wrong: Vec<_> =
        rings(&graph).into_iter().filter(|ring| ring.len() > MAX_RING_FILES).collect();

    assert!(wrong.is_empty(), "these modules import each other in a ring: {wrong:?}");
}

#[test]
fn relay_modules_import_only_lower_layers() {
    let graph = import_graph(&product_files());
    let entry = |module: &str| {
        let rest = module.strip_prefix("relay::")?;
        Some(rest.split("::").next().unwrap_or_default().to_owned())
    };
    let mut wrong = Vec::new();
    for (module, imports) in &graph {
        let Some(from) = entry(module).filter(|from| from != "handler") else { continue };
        let Some((_, allowed)) = RELAY_LAYERS.iter().find(|(name, _)| *name == from) else {
            wrong.push(format!("`{from}` is not in the table of tests/it/architecture.rs"));
            continue;
        };
        for import in imports {
            let Some(to) = entry(import).filter(|to| *to != from) else { continue };
            let part = ENGINE_PARTS.contains(&&**import) && from == "engine";
            let owned = ENGINE_PARTS.contains(&&**module) && to == "engine";
            if !part && (owned || !allowed.contains(&&*to)) {
                wrong.push(format!("{module} may not import {import}"));
            }
        }
    }

    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn engine_methods_are_in_one_file() {
    let elsewhere: Vec<_> = product_files()
        .into_iter()
        .filter(|(file, text)| {
            file != "relay/engine.rs" && strip_comments_and_tests(text).contains("impl Engine {")
        })
        .map(|(file, _)| file)
        .collect();

    assert!(elsewhere.is_empty(), "move these methods to relay/engine.rs: {elsewhere:?}");
}

#[test]
fn secrets_are_exposed_only_in_listed_files() {
    let shown = product_files()
        .into_iter()
        .filter(|(_, text)| strip_comments_and_tests(text).contains(".expose("));

    let wrong: Vec<_> = shown
        .map(|(file, _)| file)
        .filter(|file| !SECRET_EXPOSING_FILES.iter().any(|place| file.starts_with(place)))
        .collect();

    assert!(
        wrong.is_empty(),
        "`.expose(` is used in {wrong:?}; pass the Secret on, or add the file to SECRET_EXPOSING_FILES"
    );
}

#[test]
fn vendor_names_are_data_and_not_code() {
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
                wrong.push(format!("src/{file} has \"{literal}\", which names `{vendor}`"));
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
fn every_test_file_is_declared() {
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
