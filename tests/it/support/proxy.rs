//! The real program, running in a separate home.

use std::{
    io::{BufRead, BufReader},
    net::{SocketAddr, TcpStream},
    process::{Child, Output, Stdio},
    sync::{Arc, Mutex},
    time::Instant,
};

use serde_json::{Value, json};

use super::{
    client::{Connection, HttpAnswer, Request},
    home::Home,
    poll_until,
    upstream::Upstream,
};

/// The client key of the test project.
pub(crate) const CLIENT_KEY: &str = "aip-it-0123456789abcdef0123456789abcdef";

/// The settings that a proxy is started with.
pub(crate) struct Setup {
    home: Home,
    rows: String,
    extra_config: String,
    full_config: Option<String>,
}

impl Setup {
    pub(crate) fn new() -> Self {
        Self {
            home: Home::new(),
            rows: String::new(),
            extra_config: String::new(),
            full_config: None,
        }
    }

    /// Adds an upstream of the OpenAI dialect that serves every model, with keys of these labels.
    /// The secret of `work` at `one` is [`secret`]`("one", "work")`. Keys are tried in this order.
    pub(crate) fn upstream(self, name: &str, upstream: &Upstream, labels: &[&str]) -> Self {
        self.upstream_at(name, &upstream.url(), labels, "")
    }

    /// Adds such an upstream at any URL, with more lines of TOML.
    pub(crate) fn upstream_at(self, name: &str, url: &str, labels: &[&str], more: &str) -> Self {
        self.row(name, "openai", url, labels, more)
    }

    /// Adds an upstream of any dialect with one key, `work`.
    pub(crate) fn upstream_with_dialect(
        self,
        dialect: &str,
        name: &str,
        upstream: &Upstream,
        more: &str,
    ) -> Self {
        let below = match dialect {
            "gemini" => "/v1beta",
            "ollama" => "",
            _ => "/v1",
        };
        self.row(name, dialect, &format!("http://{}{below}", upstream.addr()), &["work"], more)
    }

    fn row(mut self, name: &str, dialect: &str, url: &str, labels: &[&str], more: &str) -> Self {
        let mut keys = Vec::new();
        for (index, label) in labels.iter().enumerate() {
            let variable = format!("IT_{}_{}", name.to_uppercase(), label.to_uppercase());
            self.home.set(&variable, &secret(name, label));
            keys.push(format!(
                "{{ ref = \"env:{variable}\", label = \"{label}\", priority = {} }}",
                10 + index
            ));
        }
        self.rows += &format!(
            "\n[[upstream]]\nname = \"{name}\"\nbase_url = \"{url}\"\ndialect = \"{dialect}\"\nmodels = [\"*\"]\nkeys = [{}]\n{more}\n",
            keys.join(", ")
        );
        self
    }

    /// Adds TOML after the test project and before the upstreams.
    pub(crate) fn config(mut self, text: &str) -> Self {
        self.extra_config += text;
        self.extra_config.push('\n');
        self
    }

    /// Sets an environment variable.
    pub(crate) fn variable(mut self, name: &str, value: &str) -> Self {
        self.home.set(name, value);
        self
    }

    /// Uses exactly this config file and nothing else.
    pub(crate) fn full_config(mut self, text: &str) -> Self {
        self.full_config = Some(text.to_owned());
        self
    }

    /// Returns the config file that `start` writes.
    pub(crate) fn config_text(&self) -> String {
        self.full_config.clone().unwrap_or_else(|| {
            format!(
                "{}\n[discover]\nenv = false\nlocal = false\n\n[[project]]\nname = \"it\"\nkey = \"{CLIENT_KEY}\"\nadmin = true\n{}",
                self.extra_config, self.rows
            )
        })
    }

    /// Starts the program and waits until it listens; by then it has loaded the keys of
    /// [`Setup::upstream`].
    pub(crate) fn start(self) -> Proxy {
        self.home.write_config(&self.config_text());
        Proxy::spawn(self.home)
    }

    /// Returns only the home, for commands that need no proxy.
    pub(crate) fn home(self) -> Home {
        self.home.write_config(&self.config_text());
        self.home
    }
}

/// Returns the secret of a key of [`Setup::upstream`].
pub(crate) fn secret(upstream: &str, label: &str) -> String {
    format!("sk-it-{upstream}-{label}-5c1d8e02b7")
}

/// A running program; killed when dropped.
pub(crate) struct Proxy {
    pub(crate) addr: SocketAddr,
    pub(crate) home: Home,
    /// Time from the start of the process until it printed its address.
    pub(crate) started_in: std::time::Duration,
    child: Child,
    stderr: Arc<Mutex<String>>,
}

impl Proxy {
    pub(crate) fn spawn(home: Home) -> Self {
        let begun = Instant::now();
        let mut child = home
            .command()
            .args(["serve", "--listen", "127.0.0.1:0"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("start aiproxy");
        let stderr = Arc::new(Mutex::new(String::new()));
        collect_output(child.stderr.take().expect("stderr"), Arc::clone(&stderr));
        collect_output(child.stdout.take().expect("stdout"), Arc::clone(&stderr));
        let run = home.data().join("run/proxy.json");
        let reply = Arc::clone(&stderr);
        let addr = poll_until("the proxy to listen", || {
            let gone = child.try_wait().expect("the child");
            assert!(
                gone.is_none(),
                "aiproxy ended with {gone:?}: {}",
                reply.lock().expect("stderr")
            );
            let run: Value = serde_json::from_slice(&std::fs::read(&run).ok()?).ok()?;
            let addr: SocketAddr = (run["pid"] == child.id())
                .then(|| run["listen"][0].as_str()?.parse().ok())
                .flatten()?;
            // The program prints the address a moment before it listens.
            TcpStream::connect(addr).is_ok().then_some(addr)
        });
        Self { addr, home, started_in: begun.elapsed(), child, stderr }
    }

    /// Stops the program gracefully and starts it again in the same home.
    #[cfg(unix)]
    pub(crate) fn restart(mut self) -> Self {
        self.signal(rustix::process::Signal::TERM);
        self.exit_code();
        let home = std::mem::replace(&mut self.home, Home::new());
        drop(self);
        Self::spawn(home)
    }

    /// Sends one chat request for model `m`, not streamed.
    pub(crate) fn chat(&self, prompt: &str) -> HttpAnswer {
        self.ask(&chat_body("m", prompt, false))
    }

    /// Sends one streaming chat request for model `m` and reads it to the end.
    pub(crate) fn chat_stream(&self, prompt: &str) -> HttpAnswer {
        self.ask(&chat_body("m", prompt, true))
    }

    pub(crate) fn ask(&self, body: &Value) -> HttpAnswer {
        self.send(&Request::post("/v1/chat/completions", body))
    }

    /// Sends a request with the client key.
    pub(crate) fn send(&self, request: &Request) -> HttpAnswer {
        request.clone().bearer(CLIENT_KEY).send(self.addr)
    }

    /// Sends a chat request for model `m`; the caller reads the response.
    pub(crate) fn open_chat(&self, prompt: &str, stream: bool) -> Connection {
        Request::post("/v1/chat/completions", &chat_body("m", prompt, stream))
            .bearer(CLIENT_KEY)
            .open(self.addr)
    }

    /// Runs another command of the program in the same home.
    pub(crate) fn cli(&self, args: &[&str]) -> Output {
        self.home.command().args(args).stdin(Stdio::null()).output().expect("run aiproxy")
    }

    /// Returns `status --json`.
    pub(crate) fn status_json(&self) -> Value {
        let output = self.cli(&["status", "--json"]);
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&output.stderr)))
    }

    /// Returns the row of a key (`one/work`) in `status --json`.
    pub(crate) fn key(&self, name: &str) -> Value {
        let status = self.status_json();
        let rows = status["keys"].as_array().cloned().unwrap_or_default();
        let found = rows.into_iter().find(|row| {
            format!("{}/{}", row["upstream"].as_str().unwrap(), row["label"].as_str().unwrap())
                == name
        });
        found.unwrap_or_else(|| panic!("no key {name} in {status}"))
    }

    /// Returns the snapshot that the dashboard receives.
    pub(crate) fn snapshot(&self) -> Value {
        let token =
            std::fs::read_to_string(self.home.data().join("run/token")).expect("the control token");
        let answer = Request::get("/aiproxy/v1/snapshot").bearer(token.trim()).send(self.addr);
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    #[cfg(unix)]
    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("send a signal");
    }

    /// Waits until the program ends; returns its exit code, or `None` if a signal ended it.
    pub(crate) fn exit_code(&mut self) -> Option<i32> {
        poll_until("the proxy to end", || self.child.try_wait().expect("the child")).code()
    }

    /// Returns the home for the next program, after this one has ended.
    pub(crate) fn take_home(&mut self) -> Home {
        std::mem::replace(&mut self.home, Home::new())
    }

    /// Returns the output so far.
    pub(crate) fn output(&self) -> String {
        self.stderr.lock().expect("stderr").clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        if std::thread::panicking() {
            eprintln!("--- output of aiproxy:\n{}", self.output());
        }
    }
}

/// Builds the body of a chat request.
pub(crate) fn chat_body(model: &str, prompt: &str, stream: bool) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": prompt}], "stream": stream})
}

fn collect_output(from: impl std::io::Read + Send + 'static, into: Arc<Mutex<String>>) {
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            let mut text = into.lock().expect("the text");
            text.push_str(&line);
            text.push('\n');
        }
    });
}
