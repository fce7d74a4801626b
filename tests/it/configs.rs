//! Config files that must load, and files that must fail, with their error messages.
//!
//! The expected problems of `data/configs/bad/NAME.toml` are in `NAME.txt` in the same folder, one
//! per line, without the path.

use std::{
    fs,
    path::{Path, PathBuf},
};

use aiproxy::{
    base::fs::write_atomic,
    config::{
        Environment, IdInterner, ProblemSeverity,
        edit::{Edit, EditError, apply_edits},
        file,
        keys::{self, TableForm, TableSpec},
        load::load,
        problem::render,
        validate, watch,
    },
};

fn case_dir(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/data/configs").join(name)
}

fn case_files(name: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(case_dir(name)).expect("the folder is there");
    let mut files: Vec<_> = entries
        .map(|e| e.expect("listed").path())
        .filter(|p| p.extension().is_some_and(|e| e == "toml"))
        .collect();
    files.sort();
    assert!(!files.is_empty());
    files
}

#[test]
fn good_files_load_without_an_error() {
    for path in case_files("good") {
        let text = fs::read_to_string(&path).expect("readable");
        let loaded = load(
            &text,
            Path::new("config.toml"),
            &Environment::default(),
            &mut IdInterner::default(),
        );
        let errors: Vec<_> = loaded
            .problems
            .iter()
            .filter(|p| p.level == ProblemSeverity::Error)
            .map(|p| p.one_line())
            .collect();
        assert!(errors.is_empty() && loaded.settings.is_some(), "{}: {errors:#?}", path.display());
    }
}

/// The expected output is in `NAME.shown` next to the file.
#[test]
fn config_show_is_complete_and_without_secrets() {
    for name in ["everything", "shapes"] {
        let path = case_dir("good").join(format!("{name}.toml"));
        let text = fs::read_to_string(&path).expect("readable");
        let loaded = load(
            &text,
            Path::new("config.toml"),
            &Environment::default(),
            &mut IdInterner::default(),
        );
        let shown = keys::to_toml(&loaded.settings.expect("it loads"));
        let beside = path.with_extension("shown");
        if std::env::var_os("WRITE_EXPECTED").is_some() {
            write_atomic(&beside, shown.as_bytes(), 0o644).expect("written");
        }
        assert_eq!(shown, fs::read_to_string(&beside).unwrap_or_default(), "{name}");
    }
}

#[test]
fn every_problem_of_a_bad_file_has_its_location() {
    for path in case_files("bad") {
        let text = fs::read_to_string(&path).expect("readable");
        let loaded = load(
            &text,
            Path::new("config.toml"),
            &Environment::default(),
            &mut IdInterner::default(),
        );
        let level = |level| if level == ProblemSeverity::Error { "" } else { "warning " };
        let reply: String = loaded
            .problems
            .iter()
            .map(|p| {
                format!("{}{}\n", level(p.level), p.one_line().trim_start_matches("config.toml:"))
            })
            .collect();
        let beside = path.with_extension("txt");
        if std::env::var_os("WRITE_EXPECTED").is_some() {
            fs::File::create(&beside)
                .and_then(|mut f| std::io::Write::write_all(&mut f, reply.as_bytes()))
                .expect("written");
        }
        let expected = fs::read_to_string(&beside).unwrap_or_default();
        assert_eq!(reply, expected, "{}", path.display());
        assert!(loaded.settings.is_none(), "{} loads", path.display());
        let shown = render(&loaded.problems, &text, false);
        assert!(!shown.contains("SECRET"), "{}: {shown}", path.display());
    }
}

#[test]
fn truncated_files_are_reported_without_panic() {
    for path in case_files("good") {
        let text = fs::read_to_string(&path).expect("readable");
        for (cut, _) in text.char_indices().step_by(41) {
            let loaded = load(
                &text[..cut],
                Path::new("config.toml"),
                &Environment::default(),
                &mut IdInterner::default(),
            );
            drop(render(&loaded.problems, &text[..cut], true));
            assert_eq!(loaded.settings.is_none(), loaded.has_errors());
        }
    }
}

#[test]
fn example_config_equals_the_defaults() {
    let text = fs::read_to_string(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/config.example.toml"),
    )
    .expect("readable");
    let load = |text: &str| {
        load(text, Path::new("config.toml"), &Environment::default(), &mut IdInterner::default())
    };
    let (example, empty) = (load(&text), load(""));
    assert!(example.problems.is_empty(), "{:#?}", example.problems);
    assert_eq!(
        keys::to_toml(&example.settings.expect("it loads")),
        keys::to_toml(&empty.settings.expect("it loads"))
    );
    // Every setting that is commented out must load.
    let mut on = String::new();
    for line in text.lines() {
        let bare = line.strip_prefix("# ").unwrap_or(line);
        let setting = bare.starts_with('[')
            || bare.split_once(" = ").is_some_and(|(name, _)| !name.contains(' '));
        on.push_str(if setting { bare } else { line });
        on.push('\n');
    }
    let all_on = load(&on);
    assert!(!all_on.has_errors(), "{:#?}", all_on.problems);
    assert_eq!(all_on.settings.expect("it loads").upstreams.len(), 2);
}

#[test]
fn schema_in_assets_equals_the_printed_one() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/schema.json");
    let printed = format!("{:#}\n", keys::json_schema());
    if std::env::var_os("WRITE_EXPECTED").is_some() {
        fs::File::create(&path)
            .and_then(|mut f| std::io::Write::write_all(&mut f, printed.as_bytes()))
            .expect("written");
    }
    assert_eq!(
        fs::read_to_string(&path).unwrap_or_default(),
        printed,
        "WRITE_EXPECTED=1 writes it"
    );
}

#[test]
fn configuration_docs_list_every_key() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    let text = fs::read_to_string(&path).expect("the docs are there");
    let (begin, end) = ("<!-- keys: written by a test -->\n", "<!-- end of keys -->");
    let (before, rest) = text.split_once(begin).expect("where the keys begin");
    let (_, after) = rest.split_once(end).expect("where the keys end");
    let tables: String = keys::tables().iter().map(markdown_table).collect();
    let wanted = format!("{before}{begin}\n{tables}{end}{after}");
    if std::env::var_os("WRITE_EXPECTED").is_some() {
        write_atomic(&path, wanted.as_bytes(), 0o644).expect("written");
    }
    assert!(
        fs::read_to_string(&path).is_ok_and(|now| now == wanted),
        "docs/configuration.md is old; WRITE_EXPECTED=1 writes it"
    );
}

fn markdown_table(table: &TableSpec) -> String {
    let heading = match table.form {
        TableForm::ByName => format!("`[{}.\"UPSTREAM/MODEL\"]`", table.path),
        TableForm::Nested => format!("`{}`", table.path),
        TableForm::Once => format!("`[{}]`", table.path),
        TableForm::Rows => format!("`[[{}]]`", table.path),
    };
    let cell = |text: &str| text.replace('|', "\\|");
    let mut out = format!(
        "### {heading}\n\n{}\n\n| key | type | default | meaning |\n| --- | --- | --- | --- |\n",
        table.about
    );
    for key in &table.keys {
        let default = match &key.default {
            Some(value) => format!("`{value}`"),
            None if key.required => "required".to_owned(),
            None => String::new(),
        };
        let (name, kind, doc) = (key.name(), cell(&key.kind.type_name), cell(key.doc));
        out.push_str(&format!("| `{name}` | {kind} | {default} | {doc} |\n"));
    }
    out.push('\n');
    out
}

const FULL_OF_COMMENTS: &str = r#"# 1 head of the file

# 2 above server
[server] # 3 behind the header
listen = "8642" # 4 behind listen
# 5 between

# 6 above the first upstream
[[upstream]] # 7
name = "one" # 8
base_url = "https://one.example" # 9
keys = [ # 10
  # 11 above the first key
  "keyring:one/main", # 12
  { ref = "env:ONE", label = "second" }, # 13
  "sk-literal-key" # 14
  # 15 at the end
] # 16
# 17 above timeouts
[upstream.timeouts] # 18
idle = "5m" # 19

[[upstream]]
name = "two" # 20
base_url = "https://two.example"
keys = "env:TWO" # 21

[aliases] # 22
fast = "one:m" # 23
# 24 above gpt
"gpt-4.1" = "two:m" # 25

[[project]] # 26
name = "ide"
key = "env:IDE" # 27
# 28 the end
"#;

fn comment_lines(text: &str) -> std::collections::BTreeSet<String> {
    text.lines()
        .filter_map(|line| Some(line.split_once("# ")?.1.split(' ').next()?.to_owned()))
        .filter(|n| n.parse::<u32>().is_ok())
        .collect()
}

fn any_edit() -> impl proptest::strategy::Strategy<Value = Edit> {
    use proptest::prelude::*;
    let upstream = || prop_oneof![Just("one".to_owned()), Just("two".to_owned())];
    let word = || "[a-z]{1,6}";
    let path = prop_oneof![
        Just(("timeouts.idle", "5m")),
        Just(("server.listen", "9000")),
        Just(("server.max_requests", "7")),
        Just(("log.level", "debug")),
        Just(("upstream.one.timeouts.idle", "7m")),
        Just(("upstream.two.timeouts.idle", "7m")),
        Just(("upstream.two.weight", "2")),
        Just(("aliases.gpt-4.1", "one:x")),
        Just(("project.ide.rpm", "5")),
    ];
    prop_oneof![
        (upstream(), word()).prop_map(|(upstream, word)| Edit::AddKey {
            upstream,
            reference: format!("env:{word}"),
            label: None
        }),
        (upstream(), word()).prop_map(|(upstream, word)| Edit::AddKey {
            upstream,
            reference: format!("keyring:{word}/main"),
            label: Some(format!("l{word}"))
        }),
        (word(), word())
            .prop_map(|(name, target)| Edit::SetAlias { name, target: format!("one:{target}") }),
        path.prop_map(|(path, value)| Edit::Set { path: path.to_owned(), value: value.to_owned() }),
        (upstream(), any::<bool>())
            .prop_map(|(name, enabled)| Edit::SetUpstreamEnabled { name, enabled }),
        any::<bool>().prop_map(|enabled| Edit::SetKeyEnabled {
            upstream: "one".to_owned(),
            label: "second".to_owned(),
            enabled
        }),
        Just(Edit::ReplaceKeyReference {
            upstream: "one".to_owned(),
            label: "second".to_owned(),
            reference: "keyring:one/second".to_owned()
        }),
        prop_oneof![Just("main"), Just("second"), Just("literal-1")].prop_map(|label| {
            Edit::RemoveKey { upstream: "one".to_owned(), label: label.to_owned() }
        }),
        word().prop_map(|name| Edit::AddModel {
            name: format!("m-{name}"),
            targets: vec!["one:m".to_owned()],
            strategy: None
        }),
        word().prop_map(|name| Edit::AddProject {
            name: format!("p-{name}"),
            key: format!("env:P_{name}")
        }),
        word().prop_map(|name| Edit::AddUpstream {
            name: format!("u-{name}"),
            preset: None,
            base_url: Some("https://u.example".to_owned()),
            dialects: vec!["openai".to_owned()],
        }),
    ]
}

proptest::proptest! {
    #[test]
    fn edits_preserve_comments_and_load(edits in proptest::collection::vec(any_edit(), 1..8)) {
        let mut text = FULL_OF_COMMENTS.to_owned();
        for edit in &edits {
            match apply_edits(&text, std::slice::from_ref(edit)) {
                Ok(next) => text = next,
                // An earlier edit has already removed or added this value.
                Err(EditError::BadPath(_)) => continue,
                Err(other) => panic!("{edit:?}: {other}\n{text}"),
            }
            proptest::prop_assert_eq!(comment_lines(&text), comment_lines(FULL_OF_COMMENTS), "{:?}\n{}", edit, text);
            let loaded = load(&text, Path::new("config.toml"), &Environment::default(), &mut IdInterner::default());
            proptest::prop_assert!(loaded.settings.is_some(), "{:?}\n{}\n{:#?}", edit, text, loaded.problems);
        }
    }
}

#[test]
fn removal_preserves_the_rest_byte_for_byte() {
    let cut = |edit| apply_edits(FULL_OF_COMMENTS, &[edit]).expect("it can be taken out");
    let without = |from: &str, to: &str| {
        let (start, end) =
            (FULL_OF_COMMENTS.find(from).expect("from"), FULL_OF_COMMENTS.find(to).expect("to"));
        format!("{}{}", &FULL_OF_COMMENTS[..start], &FULL_OF_COMMENTS[end..])
    };
    assert_eq!(
        cut(Edit::RemoveUpstream { name: "one".to_owned() }),
        without("# 6 above", "[[upstream]]\nname = \"two\"")
    );
    assert_eq!(
        cut(Edit::RemoveUpstream { name: "two".to_owned() }),
        without("[[upstream]]\nname = \"two\"", "[aliases] # 22")
    );
    assert_eq!(cut(Edit::RemoveAlias { name: "fast".to_owned() }), without("fast = ", "# 24"));
    assert_eq!(cut(Edit::Unset { path: "server.listen".to_owned() }), without("listen = ", "# 5"));
    assert_eq!(
        cut(Edit::Unset { path: "upstream.one.timeouts.idle".to_owned() }),
        without("idle = ", "\n[[upstream]]\nname = \"two\"")
    );
    assert_eq!(
        cut(Edit::Unset { path: "aliases.gpt-4.1".to_owned() }),
        without("\"gpt-4.1\"", "\n[[project]]")
    );
    assert_eq!(cut(Edit::RemoveProject { name: "ide".to_owned() }), without("[[project]]", "# 28"));
    assert!(matches!(
        apply_edits(FULL_OF_COMMENTS, &[Edit::Unset { path: "log.level".to_owned() }]),
        Err(EditError::BadPath(_))
    ));
    let reply = apply_edits(FULL_OF_COMMENTS, &[Edit::RemoveUpstream { name: "oen".to_owned() }])
        .expect_err("no such row")
        .to_string();
    assert!(reply.contains("did you mean `one`?"), "{reply}");
}

#[test]
fn commands_create_a_missing_file() {
    let edits = [
        Edit::AddUpstream {
            name: "openai".to_owned(),
            preset: Some("openai".to_owned()),
            base_url: None,
            dialects: Vec::new(),
        },
        Edit::AddKey {
            upstream: "openai".to_owned(),
            reference: "keyring:openai/main".to_owned(),
            label: Some("main".to_owned()),
        },
        Edit::AddKey {
            upstream: "openai".to_owned(),
            reference: "env:SECOND".to_owned(),
            label: None,
        },
        Edit::SetKeyEnabled {
            upstream: "openai".to_owned(),
            label: "SECOND".to_owned(),
            enabled: false,
        },
        Edit::SetAlias { name: "fast".to_owned(), target: "openai:gpt-4o-mini".to_owned() },
        Edit::Set { path: "timeouts.idle".to_owned(), value: "5m".to_owned() },
        Edit::Set { path: "upstream.openai.models".to_owned(), value: "[\"gpt-*\"]".to_owned() },
        Edit::Set { path: "upstream.openai.region".to_owned(), value: "1".to_owned() },
    ];
    let text = apply_edits("", &edits).expect("applied");
    assert_eq!(
        text,
        concat!(
            "[[upstream]]\nname = \"openai\"\npreset = \"openai\"\n",
            "keys = [\"keyring:openai/main\", { ref = \"env:SECOND\", enabled = false }]\nmodels = [\"gpt-*\"]\nregion = \"1\"\n",
            "\n[aliases]\nfast = \"openai:gpt-4o-mini\"\n\n[timeouts]\nidle = \"5m\"\n"
        )
    );
}

#[cfg(unix)]
#[test]
fn new_file_is_private_and_existing_mode_and_links_are_preserved() {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = |path: &Path| fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    let home = tempfile::tempdir().expect("a folder");
    let (path, link) = (home.path().join("new/config.toml"), home.path().join("link.toml"));
    let env = Environment::default();
    let set = |path: &Path, n: u32| {
        file::edit_config(
            path,
            &env,
            &[Edit::Set { path: "server.max_requests".to_owned(), value: n.to_string() }],
        )
    };

    set(&path, 1).expect("made");
    assert_eq!((mode(&path), mode(&home.path().join("new"))), (0o600, 0o700));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("changed");
    std::os::unix::fs::symlink(&path, &link).expect("linked");
    set(&link, 2).expect("through the link");

    assert!(fs::symlink_metadata(&link).expect("there").is_symlink());
    assert_eq!(
        (mode(&path), fs::read_to_string(&path).expect("read").as_str()),
        (0o640, "[server]\nmax_requests = 2\n")
    );
    let refused = set(&path, 0).expect_err("out of range");
    assert!(
        refused.to_string().contains("config.toml:2:")
            || refused.to_string().contains("max_requests"),
        "{refused}"
    );
    assert_eq!(
        fs::read_to_string(&path).expect("read"),
        "[server]\nmax_requests = 2\n",
        "a refused change changes nothing"
    );
}

#[test]
fn concurrent_edits_lose_nothing() {
    let home = tempfile::tempdir().expect("a folder");
    let path = home.path().join("config.toml");
    std::thread::scope(|scope| {
        for hand in 0..4 {
            let path = &path;
            scope.spawn(move || {
                for turn in 0..10 {
                    let edit = Edit::SetAlias {
                        name: format!("a{hand}-{turn}"),
                        target: "openai:m".to_owned(),
                    };
                    file::edit_config(path, &Environment::default(), &[edit]).expect("edited");
                }
            });
        }
    });
    let text = file::read_config(&path).expect("readable").expect("there");
    assert_eq!(text.lines().filter(|line| line.contains("openai:m")).count(), 40, "{text}");
}

#[test]
fn unreadable_files_have_distinct_errors() {
    let home = tempfile::tempdir().expect("a folder");
    let at = |name: &str| home.path().join(name);
    let write = |name: &str, bytes: &[u8]| {
        fs::File::create(at(name))
            .and_then(|mut f| std::io::Write::write_all(&mut f, bytes))
            .expect("written");
    };
    write("large", &vec![b'#'; (1 << 20) + 1]);
    write("latin1", b"# caf\xe9\n");
    assert_eq!(file::read_config(&at("missing")).expect("no problem"), None);
    for (name, part) in
        [("", "a folder"), ("large", "larger than"), ("latin1", "latin1:1:6: not UTF-8")]
    {
        let reply = file::read_config(&at(name)).expect_err(name).one_line();
        assert!(reply.contains(part), "{name}: {reply}");
    }
}

#[test]
fn broken_references_are_named_without_values() {
    let home = tempfile::tempdir().expect("a folder");
    let open = home.path().join("open.key");
    fs::File::create(&open)
        .and_then(|mut f| std::io::Write::write_all(&mut f, b"sk-SECRET"))
        .expect("written");
    #[cfg(unix)]
    fs::set_permissions(&open, std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .expect("opened");
    let text = format!(
        "[[upstream]]\nname = \"a\"\nbase_url = \"https://a.example\"\nkeys = [\"env:NOT_SET_ANYWHERE\", \"env:BLANK\", \"env:OURS\", \"env:GOOD\", \"file:{}\", \"file:missing.key\"]\n",
        open.display()
    );
    let env: Environment =
        [("BLANK", " "), ("OURS", "aip-SECRET"), ("GOOD", "sk-SECRET")].into_iter().collect();
    let loaded = load(&text, &home.path().join("config.toml"), &env, &mut IdInterner::default());

    let reply =
        validate::check_references(&loaded.settings.expect("references are no load errors"), &env);

    let all = reply.join("\n");
    let missing = home.path().join("missing.key").display().to_string();
    for part in [
        "env:NOT_SET_ANYWHERE is not set",
        "env:BLANK is set but empty",
        "env:OURS holds a client key",
        missing.as_str(),
    ] {
        assert!(all.contains(part), "{all}");
    }
    #[cfg(unix)]
    assert!(all.contains("others can read it (mode 644)"), "{all}");
    assert!(!all.contains("SECRET") && !all.contains("GOOD"), "{all}");
}

#[test]
fn paths_come_from_flags_then_variables_then_the_platform() {
    let env: Environment =
        [("AIPROXY_CONFIG", "/e/c.toml"), ("AIPROXY_DATA_DIR", "/e/data")].into_iter().collect();
    let place = file::locate(Some(Path::new("/f/c.toml")), None, &env).expect("both are named");
    assert_eq!(
        (place.config.as_path(), place.data.as_path(), place.explicit),
        (Path::new("/f/c.toml"), Path::new("/e/data"), true)
    );
}

#[tokio::test]
async fn saved_file_is_detected_for_every_way_of_saving() {
    let home = tempfile::tempdir().expect("a folder");
    let path = home.path().join("config.toml");
    let (sender, mut reported) = tokio::sync::mpsc::channel(1);
    let watch = watch::watch_config(&path, watch::file_stamp(&path), sender).expect("watched");
    for text in ["[tui]\n", "[tui]\nmouse = true\n"] {
        write_atomic(&path, text.as_bytes(), 0o600).expect("saved");
        reported.recv().await.expect("notified of a rename");
    }
    fs::File::options()
        .append(true)
        .open(&path)
        .and_then(|mut f| std::io::Write::write_all(&mut f, b"# more\n"))
        .expect("appended");
    reported.recv().await.expect("notified of a write");
    drop(watch);
    assert!(reported.recv().await.is_none(), "the watch ends with its value");
}

#[tokio::test]
async fn change_between_reading_and_watching_is_reported() {
    let home = tempfile::tempdir().expect("a folder");
    let path = home.path().join("config.toml");
    let read = watch::file_stamp(&path);
    fs::write(&path, "[tui]\n").expect("saved meanwhile");
    let (sender, mut reported) = tokio::sync::mpsc::channel(1);

    let _watch = watch::watch_config(&path, read, sender).expect("watched");

    reported.recv().await.expect("notified of the missed change");
}
