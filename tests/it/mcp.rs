//! The gateway for MCP servers, with real programs behind it.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{
    client::{HttpAnswer, Request, events},
    proxy::{CLIENT_KEY, Proxy, Setup},
};

const GUEST: &str = "aip-it-guest-0123456789abcdef01234567";
const META: &str = "io.modelcontextprotocol";

/// Programs that the tests start, and what they wrote down.
struct Servers {
    folder: TempDir,
}

impl Servers {
    /// Returns `None` where no Python is, and says so.
    fn find() -> Option<Self> {
        let python = std::process::Command::new("python3").arg("--version").output();
        if !python.is_ok_and(|output| output.status.success()) {
            println!("skipped: there is no python3");
            return None;
        }
        Some(Self { folder: tempfile::tempdir().unwrap() })
    }

    fn journal(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.jsonl"))
    }

    fn row(&self, name: &str, slow_list: &str, more: &str) -> String {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/data/mcp_server.py");
        let (script, journal) = (script.display(), self.journal(name).display().to_string());
        format!(
            "[[mcp]]\nname = \"{name}\"\ncommand = \"python3\"\n\
             args = [\"{script}\", \"{journal}\", \"{slow_list}\"]\n{more}\n"
        )
    }

    fn events(&self, name: &str, event: &str) -> Vec<Value> {
        let text = std::fs::read_to_string(self.journal(name)).unwrap_or_default();
        let all = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        all.filter(|row| row["event"] == event).collect()
    }

    fn wait_for(&self, name: &str, event: &str) -> Vec<Value> {
        let begin = Instant::now();
        loop {
            let found = self.events(name, event);
            if !found.is_empty() || begin.elapsed() > Duration::from_secs(10) {
                return found;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// A client with a session.
struct Session<'a> {
    proxy: &'a Proxy,
    path: &'a str,
    id: String,
}

fn post(proxy: &Proxy, path: &str, key: &str, body: &Value) -> Request {
    let _ = proxy;
    Request::post(path, body).bearer(key).header("accept", "application/json, text/event-stream")
}

fn initialize(proxy: &Proxy, path: &str, key: &str) -> HttpAnswer {
    let params = json!({"protocolVersion": "2025-11-25", "capabilities": {"elicitation": {}},
        "clientInfo": {"name": "it", "version": "1"}});
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params});
    post(proxy, path, key, &body).send(proxy.addr)
}

impl<'a> Session<'a> {
    fn open(proxy: &'a Proxy, path: &'a str) -> Self {
        let answer = initialize(proxy, path, CLIENT_KEY);
        assert_eq!(answer.status, 200, "{}", answer.text());
        let id = answer.header("mcp-session-id").expect("a session").to_owned();
        Self { proxy, path, id }
    }

    fn request(&self, method: &str, params: &Value) -> Request {
        let body = json!({"jsonrpc": "2.0", "id": 7, "method": method, "params": params});
        post(self.proxy, self.path, CLIENT_KEY, &body).header("mcp-session-id", &self.id)
    }

    fn ask(&self, method: &str, params: &Value) -> Value {
        message(&self.request(method, params).send(self.proxy.addr))
    }

    fn call(&self, tool: &str, arguments: &Value) -> Value {
        self.ask("tools/call", &json!({"name": tool, "arguments": arguments}))
    }

    fn tools(&self) -> Vec<String> {
        let listed = self.ask("tools/list", &json!({}));
        let tools = listed["result"]["tools"].as_array().expect("tools").clone();
        tools.iter().map(|tool| tool["name"].as_str().unwrap().to_owned()).collect()
    }
}

/// The answer of a body that is JSON or a stream of events.
fn message(answer: &HttpAnswer) -> Value {
    if answer.header("content-type").is_some_and(|kind| kind.starts_with("text/event-stream")) {
        let last = events(&answer.body).pop().expect("an event");
        return serde_json::from_str(&last).expect("JSON");
    }
    answer.json()
}

fn stateless(proxy: &Proxy, path: &str, method: &str, mut params: Value) -> Value {
    let name = params["name"].as_str().unwrap_or_default().to_owned();
    params["_meta"] = json!({format!("{META}/protocolVersion"): "2026-07-28",
        format!("{META}/clientCapabilities"): {"elicitation": {"form": {}}}});
    let body = json!({"jsonrpc": "2.0", "id": 3, "method": method, "params": params});
    let mut request = post(proxy, path, CLIENT_KEY, &body)
        .header("mcp-protocol-version", "2026-07-28")
        .header("mcp-method", method);
    if !name.is_empty() {
        request = request.header("mcp-name", &name);
    }
    message(&request.send(proxy.addr))
}

#[test]
fn tools_of_all_servers_have_names_of_their_own_and_pass_unchanged() {
    let Some(servers) = Servers::find() else { return };
    let rows = servers.row("one", "0", "") + &servers.row("two", "0", "tools = [\"echo\"]");
    let proxy = Setup::new().config(&rows).start();

    let all = Session::open(&proxy, "/mcp");
    let tools = all.tools();
    assert_eq!(tools.len(), 6, "{tools:?}");
    assert!(tools.contains(&"one_ask".to_owned()) && tools.contains(&"two_echo".to_owned()));
    assert_eq!(all.call("two_echo", &json!({"text": "é"}))["result"]["content"][0]["text"], "é");
    let refused = all.call("two_env", &json!({}));
    assert_eq!(refused["error"]["code"], -32602, "{refused}");

    let one = Session::open(&proxy, "/mcp/one");
    let listed = one.request("tools/list", &json!({})).send(proxy.addr).text();
    assert!(listed.find("zeta").unwrap() < listed.find("\"text\"").unwrap(), "order of keys");
    assert!(listed.contains("com.example/x"), "fields that are not known here: {listed}");
    let exact = one.request("tools/call", &json!({"name": "exact"})).send(proxy.addr).text();
    assert!(exact.contains("9007199254740993") && exact.contains("com.example/unknown"), "{exact}");
    assert_eq!(servers.events("one", "start").len(), 1, "one process for both endpoints");
}

#[test]
fn a_question_of_an_old_server_reaches_clients_of_both_revisions() {
    let Some(servers) = Servers::find() else { return };
    let proxy = Setup::new().config(&servers.row("one", "0", "")).start();

    let arguments = json!({"name": "ask", "arguments": {"n": 1}});
    let first = stateless(&proxy, "/mcp/one", "tools/call", arguments.clone());
    let result = &first["result"];
    assert_eq!(result["resultType"], "input_required", "{first}");
    let (key, question) = result["inputRequests"].as_object().unwrap().iter().next().unwrap();
    assert_eq!(question["method"], "elicitation/create");
    let answers = json!({key: {"action": "accept", "content": {"name": "Ann"}}});
    let mut again = arguments;
    again["inputResponses"] = answers;
    again["requestState"] = result["requestState"].clone();

    let mut other = again.clone();
    other["arguments"] = json!({"n": 2});
    let refused = stateless(&proxy, "/mcp/one", "tools/call", other);
    assert_eq!(refused["error"]["code"], -32602, "bound to its arguments: {refused}");
    let done = stateless(&proxy, "/mcp/one", "tools/call", again);
    assert!(done["result"]["content"][0]["text"].as_str().unwrap().contains("Ann"), "{done}");
    assert_eq!(servers.events("one", "call").len(), 1, "called once");

    let session = Session::open(&proxy, "/mcp/one");
    let mut stream =
        session.request("tools/call", &json!({"name": "ask", "arguments": {}})).open(proxy.addr);
    let asked = stream.read_until("elicitation/create");
    let id = asked.split("\"id\":\"").nth(1).unwrap().split('"').next().unwrap();
    let reply = json!({"jsonrpc": "2.0", "id": id,
        "result": {"action": "accept", "content": {"name": "Bob"}}});
    let reply = post(&proxy, "/mcp/one", CLIENT_KEY, &reply);
    assert_eq!(reply.header("mcp-session-id", &session.id).send(proxy.addr).status, 202);
    assert!(stream.read_until("Bob").contains("Bob"));
}

#[test]
fn a_slow_server_and_a_missing_one_do_not_keep_the_others() {
    let Some(servers) = Servers::find() else { return };
    let gone = "[[mcp]]\nname = \"gone\"\ncommand = \"/nonexistent/server\"\n";
    let rows = servers.row("one", "0", "") + &servers.row("slow", "30", "") + gone;
    let proxy = Setup::new().config(&rows).start();

    let session = Session::open(&proxy, "/mcp");
    let begin = Instant::now();
    let tools = session.tools();
    assert!(begin.elapsed() < Duration::from_secs(7), "{:?}", begin.elapsed());
    assert!(tools.iter().all(|tool| tool.starts_with("one_")) && !tools.is_empty(), "{tools:?}");
    let begin = Instant::now();
    session.call("one_echo", &json!({"text": "x"}));
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
    let listed = String::from_utf8(proxy.cli(&["mcp", "list"]).stdout).unwrap();
    assert!(listed.contains("/nonexistent/server") && listed.contains("slow"), "{listed}");
    let dead = initialize(&proxy, "/mcp/gone", CLIENT_KEY).text();
    assert!(dead.contains("gone"), "{dead}");
}

#[test]
fn a_project_sees_its_servers_only_and_a_session_is_its_own() {
    let Some(servers) = Servers::find() else { return };
    let rows = servers.row("one", "0", "")
        + &servers.row("two", "0", "")
        + &format!("[[project]]\nname = \"guest\"\nkey = \"{GUEST}\"\nmcp = [\"two\"]\n");
    let proxy = Setup::new().config(&rows).start();

    assert_eq!(initialize(&proxy, "/mcp/one", GUEST).status, 404);
    assert_eq!(initialize(&proxy, "/mcp/one", "aip-wrong").status, 401);
    let session = Session::open(&proxy, "/mcp");
    let body = json!({"jsonrpc": "2.0", "id": 2, "method": "tools/list"});
    let stolen = post(&proxy, "/mcp", GUEST, &body).header("mcp-session-id", &session.id);
    assert_eq!(stolen.send(proxy.addr).status, 404);
    let opened = initialize(&proxy, "/mcp", GUEST);
    let own = opened.header("mcp-session-id").unwrap();
    let listed = post(&proxy, "/mcp", GUEST, &body).header("mcp-session-id", own);
    let listed = listed.send(proxy.addr).text();
    assert!(listed.contains("two_echo") && !listed.contains("one_echo"), "{listed}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_program_has_no_key_in_its_environment_and_ends_with_the_proxy() {
    let Some(servers) = Servers::find() else { return };
    let row = servers.row("one", "0", "env = { OWN = \"yes\", TOKEN = \"env:MCP_TOKEN\" }");
    let mut proxy = Setup::new()
        .config(&row)
        .variable("MCP_TOKEN", "tok-5522")
        .variable("OPENAI_API_KEY", "sk-canary-provider-1234567890")
        .start();

    let session = Session::open(&proxy, "/mcp/one");
    let env = session.call("env", &json!({}))["result"]["content"][0]["text"].to_string();
    assert!(env.contains("OWN") && env.contains("tok-5522") && env.contains("PATH"), "{env}");
    assert!(!env.contains("sk-canary") && !env.contains("AIPROXY") && !env.contains(CLIENT_KEY));
    let pid = servers.events("one", "start")[0]["pid"].as_u64().unwrap();
    let alive = || Path::new(&format!("/proc/{pid}")).exists();
    assert!(alive());
    proxy.signal(rustix::process::Signal::KILL);
    proxy.exit_code();
    let begin = Instant::now();
    while alive() && begin.elapsed() < Duration::from_secs(5) {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(!alive(), "the program outlives the proxy");
}

#[test]
fn cancelling_and_leaving_stop_the_tool() {
    let Some(servers) = Servers::find() else { return };
    let proxy = Setup::new().config(&servers.row("one", "0", "")).start();

    let session = Session::open(&proxy, "/mcp/one");
    let running = session.request("tools/call", &json!({"name": "slow"})).open(proxy.addr);
    servers.wait_for("one", "call");
    let cancel = json!({"jsonrpc": "2.0", "method": "notifications/cancelled",
        "params": {"requestId": 7}});
    let cancel = post(&proxy, "/mcp/one", CLIENT_KEY, &cancel);
    assert_eq!(cancel.header("mcp-session-id", &session.id).send(proxy.addr).status, 202);
    assert_eq!(servers.wait_for("one", "stopped").len(), 1);
    drop(running);

    let running = session.request("tools/call", &json!({"name": "slow"})).open(proxy.addr);
    std::thread::sleep(Duration::from_millis(300));
    drop(running);
    let begin = Instant::now();
    while servers.events("one", "stopped").len() < 2 && begin.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(servers.events("one", "stopped").len(), 2);
}

#[test]
fn calls_are_recorded_limited_and_priced() {
    let Some(servers) = Servers::find() else { return };
    let row = servers.row("one", "0", "rpm = 2\nprice = 0.5");
    let proxy = Setup::new().config(&format!("{row}[ledger]\nbodies = \"all\"\n")).start();

    let session = Session::open(&proxy, "/mcp/one");
    session.call("echo", &json!({"text": "canary-771"}));
    session.call("echo", &json!({"text": "x"}));
    let refused = session.call("echo", &json!({"text": "x"}));
    assert!(refused["error"]["message"].as_str().unwrap().contains("rpm"), "{refused}");
    assert_eq!(servers.events("one", "call").len(), 2);
    let begin = Instant::now();
    let rows = loop {
        let out = proxy.cli(&["log", "--json", "--limit", "10"]);
        let text = String::from_utf8(out.stdout).unwrap();
        if text.matches("\"mcp\"").count() >= 2 || begin.elapsed() > Duration::from_secs(10) {
            break text;
        }
        std::thread::sleep(Duration::from_millis(100));
    };
    assert!(rows.contains("one/echo"), "{rows}");
    let usage = String::from_utf8(proxy.cli(&["usage"]).stdout).unwrap();
    assert!(usage.contains("$1"), "{usage}");
}

#[test]
fn servers_inside_the_program_answer() {
    let proxy =
        Setup::new().config("[[mcp]]\nname = \"tools\"\nbuiltin = [\"time\", \"fetch\"]\n").start();

    let session = Session::open(&proxy, "/mcp/tools");
    let now = session.call("time_now", &json!({"timezone": "Europe/Zurich"}));
    assert_eq!(now["result"]["structuredContent"]["timezone"], "Europe/Zurich", "{now}");
    for url in [
        format!("http://{}/health", proxy.addr),
        format!("http://localhost:{}/health", proxy.addr.port()),
        format!("http://[::ffff:127.0.0.1]:{}/", proxy.addr.port()),
        format!("http://2130706433:{}/", proxy.addr.port()),
        "file:///etc/passwd".to_owned(),
        "http://169.254.169.254/latest".to_owned(),
    ] {
        let refused = session.call("fetch", &json!({"url": url}));
        assert_eq!(refused["result"]["isError"], true, "{url}: {refused}");
    }
}

#[test]
fn the_operations_of_an_api_are_tools() {
    let folder = tempfile::tempdir().unwrap();
    let document = json!({"openapi": "3.0.0", "info": {"title": "t", "version": "1"},
        "paths": {"/health": {"get": {"operationId": "get health", "parameters": [
            {"name": "a[]", "in": "query", "schema": {"type": "array"}}]}}},
        "components": {"schemas": {}}});
    let path = folder.path().join("api.json");
    std::fs::write(&path, document.to_string()).unwrap();
    let proxy = Setup::new().start();
    let row = format!(
        "[[mcp]]\nname = \"api\"\nopenapi = \"{}\"\nserver = \"http://{}\"\n",
        path.display(),
        proxy.addr
    );
    let gateway = Setup::new().config(&row).start();

    let session = Session::open(&gateway, "/mcp/api");
    let listed = session.ask("tools/list", &json!({}));
    let tool = &listed["result"]["tools"][0];
    assert_eq!(tool["name"], "get_health", "{listed}");
    assert!(tool["inputSchema"]["properties"]["query"]["properties"]["a__"]["items"].is_object());
    let health = session.call("get_health", &json!({}));
    assert_eq!(health["result"]["isError"], false, "{health}");
    assert!(health["result"]["structuredContent"].is_object(), "{health}");
}
