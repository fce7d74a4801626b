//! Prints the startup panel of `serve`: addresses, client key, upstreams.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::time::timeout;
use unicode_width::UnicodeWidthStr;

use crate::{
    cli::{
        expose::expose_secret,
        output::{self, Styler, TextRole},
        serve::proxy_admin::ProxyAdmin,
    },
    config::settings::Origin,
    control::{
        rundir::dial_address,
        snapshot::{KeyStatus, KeyView, UpstreamState, UpstreamView},
        views,
    },
    events::status_message::notice::NoticeMessage,
    server::state::ServerState,
};

/// How long the panel waits for the client key, so that a slow keyring does not delay it.
const CLIENT_KEY_WAIT: Duration = Duration::from_secs(5);
/// Columns of the panel. Only a command, a path or a key that is longer by itself exceeds them.
const PANEL_WIDTH: usize = 80;
/// Columns before the text of a row: the indent, the name and a gap. A name that needs more than
/// the maximum moves the text of its own row only.
const MIN_NAME_WIDTH: usize = 14;
const MAX_NAME_WIDTH: usize = 20;

/// Prints the panel if stdout has a reader. `flags` are the options that other commands need to
/// find this proxy, and `body_note` says that bodies are stored from now on.
pub(super) async fn print_banner(
    server_state: &Arc<ServerState>,
    admin: &Arc<ProxyAdmin>,
    addrs: &[SocketAddr],
    flags: &str,
    body_note: Option<&NoticeMessage>,
) {
    let changed = server_state.clients.changed.notified();
    if server_state.clients.table().loading {
        tokio::select! {
            _loaded = timeout(CLIENT_KEY_WAIT, changed) => {}
            () = admin.stop.cancelled() => return,
        }
    }
    let client_key = admin
        .loader
        .default_key
        .lock()
        .as_ref()
        .map(|(secret, location)| (Arc::clone(secret), location.to_string()));
    let client_key_problem = admin.loader.client_key_problem("default");
    let generation = server_state.engine.generation();
    let panel = Panel {
        addrs,
        flags,
        client_key: client_key
            .as_ref()
            .map(|(secret, location)| (expose_secret(secret), location.as_str())),
        client_key_problem: client_key_problem.as_deref(),
        upstreams: &views::upstreams(&server_state.engine, &generation),
        keys: &views::keys(&server_state.engine, &generation),
        body_note,
    };
    // A closed pipe (`aiproxy serve | head -1`) does not stop the proxy.
    drop(output::print(&panel.render(Styler::stdout())));
}

/// The contents of the panel.
struct Panel<'a> {
    addrs: &'a [SocketAddr],
    flags: &'a str,
    /// The key of project `default` and its location. `None` if the config names another key.
    client_key: Option<(&'a str, &'a str)>,
    /// Why the key cannot be read now.
    client_key_problem: Option<&'a str>,
    upstreams: &'a [UpstreamView],
    keys: &'a [KeyView],
    body_note: Option<&'a NoticeMessage>,
}

impl Panel<'_> {
    fn render(&self, styler: Styler) -> String {
        let flags = self.flags;
        let mut rows = Rows {
            name_width: self
                .upstreams
                .iter()
                .map(|view| view.name.width() + 4)
                .filter(|width| *width <= MAX_NAME_WIDTH)
                .fold(MIN_NAME_WIDTH, usize::max),
            styler,
            text: self.heading(styler),
        };
        let base = self.base_address();
        rows.push("OpenAI", &format!("http://{base}/v1"), TextRole::Plain);
        for name in ["Anthropic", "Gemini", "Ollama"] {
            rows.push(name, &format!("http://{base}"), TextRole::Plain);
        }
        match self.client_key {
            Some((key, location)) => {
                rows.push("client key", key, TextRole::Plain);
                rows.push("", &format!("stored in {location}"), TextRole::Dim);
                rows.push(
                    "",
                    &format!(
                        "`eval \"$(aiproxy env{flags})\"` sets URL and key for the tools of a shell"
                    ),
                    TextRole::Dim,
                );
            }
            None if self.client_key_problem.is_some() => {
                let problem = self.client_key_problem.unwrap_or_default();
                rows.push("client key", problem, TextRole::Dim);
            }
            None => rows.push(
                "client key",
                &format!("set in the config: `aiproxy project list{flags}`"),
                TextRole::Dim,
            ),
        }
        for view in self.upstreams {
            rows.push(&view.name, &self.upstream_text(view), TextRole::Plain);
        }
        if let Some(note) = self.body_note {
            rows.push("bodies", &note.to_string(), TextRole::Dim);
        }
        if self.upstreams.iter().all(|view| view.origin == Origin::Demo) {
            rows.push(
                "next",
                &format!("`aiproxy key add openai{flags}` adds a provider"),
                TextRole::Dim,
            );
        }
        rows.push(
            "dashboard",
            &format!("`aiproxy tui{flags}` opens it; Ctrl-C stops the proxy"),
            TextRole::Dim,
        );
        rows.text
    }

    fn base_address(&self) -> String {
        self.addrs.first().map_or_else(String::new, |addr| dial_address(&addr.to_string()))
    }

    fn heading(&self, styler: Styler) -> String {
        let others = match self.addrs.get(1..).unwrap_or_default() {
            [] => String::new(),
            others => {
                let others: Vec<_> = others.iter().map(ToString::to_string).collect();
                format!(" and {}", others.join(", "))
            }
        };
        let name = concat!("aiproxy ", env!("CARGO_PKG_VERSION"));
        let text = format!("{name} listens on {}{others}", self.base_address());
        let lines = wrap(&text, PANEL_WIDTH).join("\n  ");
        format!("{}\n", lines.replacen(name, &styler.bold(name), 1))
    }

    /// What serves an upstream: its keys and where they come from.
    fn upstream_text(&self, view: &UpstreamView) -> String {
        let keys: Vec<_> = self.keys.iter().filter(|key| key.upstream == view.name).collect();
        let usable = keys.iter().filter(|key| key.state == KeyStatus::Ok).count();
        let reading = keys.iter().any(|key| key.state == KeyStatus::Waiting);
        let source = match view.origin {
            Origin::Demo => "built in, needs no key; try the model `demo/echo`".to_owned(),
            Origin::Local => "found on this machine".to_owned(),
            Origin::Env => format!("key from {}", variables(&keys)),
            Origin::File if keys.is_empty() => "no key needed".to_owned(),
            Origin::File if keys.len() == 1 => "1 key".to_owned(),
            Origin::File => format!("{} keys", keys.len()),
        };
        let problem = match usable {
            _ if view.state == UpstreamState::Disabled => "; disabled".to_owned(),
            _ if usable == keys.len() => String::new(),
            _ if reading => "; still reading from the key store".to_owned(),
            _ => format!("; {usable} usable, `aiproxy key list{}` shows why", self.flags),
        };
        format!("{source}{problem}")
    }
}

/// The environment variables that contain the keys.
fn variables(keys: &[&KeyView]) -> String {
    let names: Vec<_> = keys
        .iter()
        .map(|key| key.reference.strip_prefix("env:").unwrap_or(&key.reference))
        .collect();
    names.join(", ")
}

/// Rows of a name and a text, wrapped to the width of the panel.
struct Rows {
    /// Columns before the text of a row.
    name_width: usize,
    styler: Styler,
    text: String,
}

impl Rows {
    fn push(&mut self, name: &str, text: &str, role: TextRole) {
        let mut start = format!("  {name}  ");
        let width = self.name_width.max(start.width());
        for line in wrap(text, PANEL_WIDTH.saturating_sub(width)) {
            let gap = " ".repeat(width - start.width());
            self.text.push_str(&format!("{start}{gap}{}\n", self.styler.style(role, &line)));
            start.clear();
        }
    }
}

/// Breaks a text into lines of at most `width` columns. A command in backticks stays on one line.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let (mut words, mut in_command) = (vec![String::new()], false);
    for c in text.chars() {
        in_command ^= c == '`';
        match words.last_mut() {
            Some(word) if c != ' ' || in_command => word.push(c),
            _ => words.push(String::new()),
        }
    }
    let mut lines: Vec<String> = Vec::new();
    for word in words {
        match lines.last_mut() {
            Some(line) if line.width() + 1 + word.width() <= width => {
                line.push(' ');
                line.push_str(&word);
            }
            _ => lines.push(word),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;
    use crate::control::snapshot::UpstreamStats;

    fn upstream(name: &str, origin: Origin) -> UpstreamView {
        UpstreamView {
            name: name.to_owned(),
            dialects: vec!["openai".to_owned()],
            base_url: "https://api.example.com/v1".to_owned(),
            origin,
            priority: 10,
            state: UpstreamState::Healthy,
            cause: None,
            until: None,
            keys_ready: 1,
            keys: 1,
            stats: UpstreamStats::default(),
            models: None,
            probe: None,
        }
    }

    fn key(upstream: &str, reference: &str, state: KeyStatus) -> KeyView {
        KeyView::for_test(upstream, "main", reference, state)
    }

    /// Renders without colour and checks the width.
    fn render(panel: &Panel<'_>) -> String {
        let text = panel.render(Styler::plain());
        for line in text.lines() {
            assert!(line.width() <= PANEL_WIDTH, "{} columns: {line}", line.width());
        }
        text.replacen(env!("CARGO_PKG_VERSION"), "VERSION", 1)
    }

    const CLIENT_KEY: &str = "aip-0123456789abcdef0123456789abcdef0123456789ab";

    #[test]
    fn first_panel_fits_80_columns_and_shows_the_next_steps() {
        let panel = Panel {
            addrs: &["127.0.0.1:8642".parse().unwrap()],
            flags: "",
            client_key: Some((CLIENT_KEY, "the OS keyring (entry aiproxy, client/default)")),
            client_key_problem: None,
            upstreams: &[upstream("demo", Origin::Demo)],
            keys: &[],
            body_note: Some(&NoticeMessage::BodiesStored {
                only_failed: false,
                keep: "3d".into(),
                limit: "256MiB".into(),
            }),
        };

        assert_snapshot!(render(&panel), @r#"
        aiproxy VERSION listens on 127.0.0.1:8642
          OpenAI      http://127.0.0.1:8642/v1
          Anthropic   http://127.0.0.1:8642
          Gemini      http://127.0.0.1:8642
          Ollama      http://127.0.0.1:8642
          client key  aip-0123456789abcdef0123456789abcdef0123456789ab
                      stored in the OS keyring (entry aiproxy, client/default)
                      `eval "$(aiproxy env)"` sets URL and key for the tools of a shell
          demo        built in, needs no key; try the model `demo/echo`
          bodies      requests and answers are stored for 3d, at most 256MiB;
                      `aiproxy config set ledger.bodies off` stores none
          next        `aiproxy key add openai` adds a provider
          dashboard   `aiproxy tui` opens it; Ctrl-C stops the proxy
        "#);
    }

    #[test]
    fn found_keys_are_shown_with_their_variables() {
        let panel = Panel {
            addrs: &["127.0.0.1:8642".parse().unwrap(), "[::1]:8642".parse().unwrap()],
            flags: " --config office.toml",
            client_key: None,
            client_key_problem: None,
            upstreams: &[
                upstream("office", Origin::File),
                upstream("a-name-of-more-than-twenty-columns", Origin::File),
                upstream("anthropic", Origin::Env),
                upstream("openai", Origin::Env),
                upstream("ollama", Origin::Local),
            ],
            keys: &[
                key("office", "keyring:office/a", KeyStatus::Ok),
                key("office", "keyring:office/b", KeyStatus::Missing),
                key("anthropic", "env:ANTHROPIC_API_KEY", KeyStatus::Ok),
                key("openai", "env:OPENAI_API_KEY", KeyStatus::Ok),
                key("openai", "env:OPENAI_API_KEY_2", KeyStatus::Ok),
            ],
            body_note: None,
        };

        assert_snapshot!(render(&panel), @r"
        aiproxy VERSION listens on 127.0.0.1:8642 and [::1]:8642
          OpenAI      http://127.0.0.1:8642/v1
          Anthropic   http://127.0.0.1:8642
          Gemini      http://127.0.0.1:8642
          Ollama      http://127.0.0.1:8642
          client key  set in the config: `aiproxy project list --config office.toml`
          office      2 keys; 1 usable, `aiproxy key list --config office.toml` shows
                      why
          a-name-of-more-than-twenty-columns  no key needed
          anthropic   key from ANTHROPIC_API_KEY
          openai      key from OPENAI_API_KEY, OPENAI_API_KEY_2
          ollama      found on this machine
          dashboard   `aiproxy tui --config office.toml` opens it; Ctrl-C stops the
                      proxy
        ");
    }

    #[test]
    fn lines_wrap_between_words_but_not_inside_commands() {
        assert_eq!(
            wrap("one two `a long command` three", 12),
            ["one two", "`a long command`", "three"]
        );
        assert_eq!(wrap("", 12), [""]);
    }
}
