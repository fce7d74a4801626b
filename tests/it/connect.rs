//! `aiproxy connect` and `disconnect`: the files of tools, edited and restored to the byte.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Output,
};

use serde_json::Value;

use crate::support::{
    client::Request,
    home::Home,
    proxy::{Setup, chat_body},
    upstream::{Scene, Upstream},
};

fn home() -> Home {
    let url = "http://127.0.0.1:9";
    Setup::new().upstream_at("one", url, &["a"], "").home()
}

fn cli(home: &Home, args: &[&str]) -> Output {
    home.command().args(args).output().expect("run aiproxy")
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn succeed(home: &Home, args: &[&str]) -> String {
    let output = cli(home, args);
    assert_eq!(output.status.code(), Some(0), "{args:?}: {}", text(&output));
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// Writes a file of a tool.
fn put(home: &Home, path: &str, bytes: &[u8], mode: u32) -> PathBuf {
    let path = home.path().join(path);
    fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
    fs::write(&path, bytes).expect("a file");
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("a mode");
    path
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("the file").permissions().mode() & 0o777
}

const CODEX: &str = "# mine\r\nmodel_reasoning_effort   = 'low'   # odd\r\n\r\n[mcp_servers.files]\r\ncommand = \"npx\"\r\n";

/// Each tool with one of its files and what a user has in it.
const FILES: [(&str, &str, &str); 6] = [
    (
        "claude-code",
        ".claude/settings.json",
        "{ // mine\n  \"env\": {\n    \"A\":\"b\"\n  },\n\t\"x\" : [1,2 ]\n}\n",
    ),
    ("codex", ".codex/config.toml", CODEX),
    ("gemini-cli", ".gemini/settings.json", "\u{feff}{\n  \"ui\": {\"theme\":\"x\"}\n}"),
    ("aider", ".aider.conf.yml", "# mine\ndark-mode: true\nread:\n    - A.md   # ours"),
    ("llm", ".config/io.datasette.llm/extra-openai-models.yaml", "- model_id: local\n  x:   1\n"),
    (
        "cline",
        ".cline/data/settings/providers.json",
        "{\n  \"version\": 1, \"providers\": {\n    \"a\": {}\n  }\n}\n",
    ),
];

#[test]
fn files_are_edited_and_restored_to_the_byte() {
    let home = home();
    let config = fs::read(home.config()).expect("the config");
    for (tool, path, before) in FILES {
        let file = put(&home, path, before.as_bytes(), 0o640);
        succeed(&home, &["connect", tool, "--yes", "--model", "m-1"]);
        let after = fs::read_to_string(&file).expect("text");
        assert!(after != before, "{tool}: {after}");
        assert!(
            before.lines().all(|line| after.contains(line.trim_end_matches([',', '}']))),
            "{tool}: {after}"
        );
        let key = succeed(&home, &["project", "key", tool]);
        assert!(key.starts_with("aip-") && key.lines().count() == 1, "{key}");
        let holds_key = after.contains(key.trim());
        assert_eq!(
            (holds_key, mode(&file)),
            (tool == "cline", if holds_key { 0o600 } else { 0o640 })
        );

        assert!(succeed(&home, &["connect", tool, "--yes", "--model", "m-1"]).contains("already"));
        assert_eq!(fs::read_to_string(&file).expect("text"), after, "{tool}");
        succeed(&home, &["connect", tool, "--yes", "--model", "m-2"]);

        succeed(&home, &["disconnect", tool, "--yes"]);
        assert_eq!(fs::read_to_string(&file).expect("text"), before, "{tool}");
        assert_eq!(mode(&file), 0o640, "{tool}");
        assert_eq!(fs::read(home.config()).expect("the config"), config, "{tool}");
    }
}

#[test]
fn later_changes_of_the_user_stay() {
    let home = home();
    let before = "{\n  \"model\": \"opus\",\n  \"days\": 20\n}\n";
    let file = put(&home, ".claude/settings.json", before.as_bytes(), 0o600);
    succeed(&home, &["connect", "claude-code", "--yes", "--model", "m-1"]);
    let edited = fs::read_to_string(&file).expect("text").replace("20", "31");
    fs::write(&file, edited).expect("a file");

    succeed(&home, &["disconnect", "claude-code", "--yes"]);
    assert_eq!(fs::read_to_string(&file).expect("text"), before.replace("20", "31"));
}

#[test]
fn created_files_and_folders_are_removed() {
    let home = home();
    succeed(&home, &["connect", "opencode", "--yes", "--model", "m-1"]);
    let folder = home.path().join(".config/opencode");
    assert!(folder.join("opencode.json").exists());
    let key_file = home.data().join("connect/opencode/key");
    assert_eq!(mode(&key_file), 0o600);

    succeed(&home, &["disconnect", "opencode", "--yes"]);
    assert!(!folder.exists() && !key_file.exists());
    assert!(succeed(&home, &["disconnect", "opencode", "--yes"]).is_empty());
}

#[test]
fn nothing_changes_without_consent_or_with_print() {
    let home = home();
    let file = put(&home, ".codex/config.toml", CODEX.as_bytes(), 0o600);
    let asked = cli(&home, &["connect", "codex", "--model", "m-1"]);
    assert_eq!(asked.status.code(), Some(2), "{}", text(&asked));
    assert!(text(&asked).contains("--yes"), "{}", text(&asked));
    let shown = succeed(&home, &["connect", "codex", "--model", "m-1", "--print"]);
    assert!(shown.contains("+model = \"m-1\"") && !shown.contains("aip-0"), "{shown}");
    assert_eq!(fs::read_to_string(&file).expect("text"), CODEX);
    assert!(!text(&cli(&home, &["project", "list"])).contains("codex"));

    let unknown = cli(&home, &["connect", "claude-cod", "--yes"]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(text(&unknown).contains("`claude-code`"), "{}", text(&unknown));
}

#[test]
fn invalid_file_is_refused_with_its_line() {
    let home = home();
    let broken = "# mine\n[mcp_servers.files\ncommand = 'npx'\n";
    let file = put(&home, ".codex/config.toml", broken.as_bytes(), 0o600);
    let refused = cli(&home, &["connect", "codex", "--yes", "--model", "m-1"]);
    assert_eq!(refused.status.code(), Some(3), "{}", text(&refused));
    assert!(text(&refused).contains("config.toml:2"), "{}", text(&refused));
    assert_eq!(fs::read_to_string(&file).expect("text"), broken);
}

#[test]
fn keys_work_until_the_tool_is_disconnected() {
    let upstream = Upstream::with_director(|_, _| Scene::chat("hello"));
    let proxy = Setup::new().upstream("one", &upstream, &["a"]).start();
    succeed(&proxy.home, &["connect", "codex", "--yes", "--model", "m"]);
    succeed(&proxy.home, &["connect", "cursor", "--yes"]);
    let lines = succeed(&proxy.home, &["connect", "env", "--yes"]);
    let key = succeed(&proxy.home, &["project", "key", "codex"]);
    let env_key = succeed(&proxy.home, &["project", "key", "env"]);
    assert!(lines.contains(&format!("OPENAI_API_KEY='{}'", env_key.trim())), "{lines}");
    let status = |key: &str| {
        let request = Request::post("/v1/chat/completions", &chat_body("m", "hi", false));
        request.bearer(key.trim()).send(proxy.addr).status
    };
    assert_eq!((status(&key), status(&env_key)), (200, 200));

    let listed: Value =
        serde_json::from_str(&succeed(&proxy.home, &["connect", "--list", "--json"]))
            .expect("JSON");
    let state = |tool: &str| {
        let mut rows = listed.as_array().into_iter().flatten();
        rows.find(|row| row["tool"] == tool).map(|row| row["state"].clone())
    };
    assert_eq!(state("codex"), Some("connected".into()));
    assert_eq!(state("aider"), Some("not connected".into()));

    succeed(&proxy.home, &["disconnect", "codex", "--yes"]);
    succeed(&proxy.home, &["disconnect", "env", "--yes"]);
    assert_eq!((status(&key), status(&env_key)), (401, 401));
}

#[test]
fn doctor_reports_a_tool_that_points_elsewhere() {
    let home = home();
    succeed(&home, &["connect", "claude-code", "--yes", "--model", "m-1"]);
    let fine = text(&cli(&home, &["doctor"]));
    assert!(fine.contains("its files point to aiproxy"), "{fine}");
    let config = fs::read_to_string(home.config()).expect("the config");
    home.write_config(&format!(
        "[server]\nlisten = \"127.0.0.1:1\"\n{}",
        config.replace("[server]", "[routing]")
    ));
    let found = text(&cli(&home, &["doctor"]));
    assert!(found.contains("`aiproxy connect claude-code`"), "{found}");
}

#[test]
fn editors_reach_an_ollama_listener_without_a_key() {
    let home = home();
    let config = fs::read(home.config()).expect("the config");
    succeed(&home, &["connect", "vscode", "--ollama", "--yes", "--model", "m-1"]);
    let own = fs::read_to_string(home.config()).expect("the config");
    assert!(own.contains("[[keyless]]") && own.contains("\"ollama\", \"openai\""), "{own}");
    let file = home.path().join(".config/Code/User/chatLanguageModels.json");
    let rows: Value = serde_json::from_slice(&fs::read(&file).expect("the file")).expect("JSON");
    let port = rows[0]["url"].as_str().and_then(|url| url.rsplit(':').next()).expect("a port");
    assert!(rows[0]["vendor"] == "ollama" && own.contains(&format!(":{port}\"")), "{rows} {own}");

    succeed(&home, &["disconnect", "vscode", "--yes"]);
    assert!(!file.exists());
    assert_eq!(fs::read(home.config()).expect("the config"), config);
}

#[test]
fn projects_of_the_user_survive_a_change_of_project() {
    let home = home();
    succeed(&home, &["project", "add", "work"]);
    let config = fs::read(home.config()).expect("the config");
    let key = succeed(&home, &["project", "key", "work"]);
    succeed(&home, &["connect", "claude-code", "--yes", "--model", "m-1"]);
    succeed(&home, &["connect", "claude-code", "--yes", "--model", "m-1", "--project", "work"]);
    succeed(&home, &["disconnect", "claude-code", "--yes"]);
    assert_eq!(succeed(&home, &["project", "key", "work"]), key);
    assert_eq!(fs::read(home.config()).expect("the config"), config);
    assert!(!home.data().join("clients/claude-code.key").exists());
}

#[test]
fn files_of_an_earlier_place_are_restored_too() {
    let mut home = home();
    succeed(&home, &["connect", "codex", "--yes", "--model", "m-1"]);
    let first = home.path().join(".codex/config.toml");
    assert!(first.exists());
    let moved = home.path().join("elsewhere");
    home.set("CODEX_HOME", &moved.display().to_string());
    succeed(&home, &["connect", "codex", "--yes", "--model", "m-1"]);
    assert!(moved.join("config.toml").exists());
    succeed(&home, &["disconnect", "codex", "--yes"]);
    assert!(!first.exists() && !moved.exists());
}
