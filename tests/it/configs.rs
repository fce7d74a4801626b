//! Config files that must load, and files that must not, with what is said about them.
//!
//! `data/configs/bad/NAME.toml` has its expected problems beside it in `NAME.txt`, one a line, without the path.

use std::{
    fs,
    path::{Path, PathBuf},
};

use aiproxy::config::{Environment, Ids, Level, load::load, problem::render};

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/data/configs").join(name)
}

fn files(name: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder(name)).expect("the folder is there");
    let mut files: Vec<_> = entries.map(|e| e.expect("listed").path()).filter(|p| p.extension().is_some_and(|e| e == "toml")).collect();
    files.sort();
    assert!(!files.is_empty());
    files
}

#[test]
fn good_files_load_without_an_error() {
    for path in files("good") {
        let text = fs::read_to_string(&path).expect("readable");
        let loaded = load(&text, Path::new("config.toml"), &Environment::default(), &mut Ids::default());
        let errors: Vec<_> = loaded.problems.iter().filter(|p| p.level == Level::Error).map(|p| p.short()).collect();
        assert!(errors.is_empty() && loaded.settings.is_some(), "{}: {errors:#?}", path.display());
    }
}

#[test]
fn bad_files_are_told_every_problem_with_its_place() {
    for path in files("bad") {
        let text = fs::read_to_string(&path).expect("readable");
        let loaded = load(&text, Path::new("config.toml"), &Environment::default(), &mut Ids::default());
        let level = |level| if level == Level::Error { "" } else { "warning " };
        let said: String =
            loaded.problems.iter().map(|p| format!("{}{}\n", level(p.level), p.short().trim_start_matches("config.toml:"))).collect();
        let beside = path.with_extension("txt");
        if std::env::var_os("WRITE_EXPECTED").is_some() {
            fs::File::create(&beside).and_then(|mut f| std::io::Write::write_all(&mut f, said.as_bytes())).expect("written");
        }
        let expected = fs::read_to_string(&beside).unwrap_or_default();
        assert_eq!(said, expected, "{}", path.display());
        assert!(loaded.settings.is_none(), "{} loads", path.display());
        let shown = render(&loaded.problems, &text, false);
        assert!(!shown.contains("SECRET"), "{}: {shown}", path.display());
    }
}

#[test]
fn broken_endings_never_hide_the_line_and_never_panic() {
    for path in files("good") {
        let text = fs::read_to_string(&path).expect("readable");
        for (cut, _) in text.char_indices().step_by(41) {
            let loaded = load(&text[..cut], Path::new("config.toml"), &Environment::default(), &mut Ids::default());
            drop(render(&loaded.problems, &text[..cut], true));
            assert_eq!(loaded.settings.is_none(), loaded.has_errors());
        }
    }
}
