//! The files in `deploy/`, as far as they can be tried without a container engine: the config, the
//! unit, the reverse proxies with a real stream, and the image's parts. A program that is not
//! installed is skipped.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde_json::json;

use crate::support::{
    TEST_TIMEOUT,
    home::Home,
    poll_until,
    proxy::{CLIENT_KEY, Proxy, Setup},
    upstream::{Gate, Scene, Upstream},
};

/// More than the buffers of the sockets on the way.
const LARGE_BODY: usize = 3_000_000;

fn deploy(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(name)
}

fn read(name: &str) -> String {
    std::fs::read_to_string(deploy(name)).unwrap()
}

/// The path of an installed program; nginx is not in every user's path.
fn installed(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/usr/local/sbin".into()])
        .map(|folder| folder.join(program))
        .find(|file| file.is_file());
    if found.is_none() {
        eprintln!("skipped: {program} is not installed");
    }
    found
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A server that ends with the test.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // nginx ends its workers only if it is asked to.
        let pid = self.0.id().to_string();
        drop(Command::new("kill").args(["-TERM", &pid]).status());
        drop(self.0.wait());
    }
}

fn wait_for_port(port: u16) {
    poll_until("the reverse proxy to listen", || TcpStream::connect(("127.0.0.1", port)).ok());
}

/// A proxy that trusts the host name of the snippets, with an upstream whose stream stops before its
/// second event until the gate opens.
fn streaming_proxy() -> (Proxy, Upstream, Gate) {
    let gate = Gate::closed();
    let stream = Scene::sse(&["first", "second"]).gate(2, &gate);
    let scenes = move |request: &crate::support::upstream::ReceivedRequest, _: usize| {
        if request.json()["stream"] == true { stream.clone() } else { Scene::chat("ok") }
    };
    let upstream = Upstream::with_director(scenes);
    let proxy = Setup::new()
        .upstream("box", &upstream, &["a"])
        .config("[server]\ntrusted_hosts = [\"ai.example.com\"]")
        .start();
    (proxy, upstream, gate)
}

/// Sends a request to a reverse proxy; returns the connection after the request.
fn send(port: u16, path: &str, body: &str) -> TcpStream {
    let mut connection = TcpStream::connect(("127.0.0.1", port)).unwrap();
    connection.set_read_timeout(Some(TEST_TIMEOUT)).unwrap();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: ai.example.com\r\nauthorization: Bearer {CLIENT_KEY}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    connection.write_all(head.as_bytes()).unwrap();
    connection.write_all(body.as_bytes()).unwrap();
    connection
}

/// Reads until the answer contains a text.
fn read_until(connection: &mut TcpStream, wanted: &str) -> String {
    let (mut got, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        let text = String::from_utf8_lossy(&got).into_owned();
        if text.contains(wanted) {
            return text;
        }
        match connection.read(&mut piece) {
            Ok(count @ 1..) => got.extend_from_slice(&piece[..count]),
            end => panic!("{wanted:?} did not come: {end:?} after {text}"),
        }
    }
}

/// The first event of a stream arrives while the upstream waits, a large request passes, and the
/// control API is not reached.
fn check_reverse_proxy(port: u16, gate: &Gate) {
    let chat = |content: &str, stream: bool| {
        json!({ "model": "box:m", "stream": stream, "messages": [{ "role": "user", "content": content }] })
            .to_string()
    };
    let mut stream = send(port, "/v1/chat/completions", &chat("hi", true));
    let first = read_until(&mut stream, "first");
    assert!(first.starts_with("HTTP/1.1 200") && !first.contains("second"), "{first}");
    gate.open();
    read_until(&mut stream, "[DONE]");

    let body = chat(&"y".repeat(LARGE_BODY), false);
    let mut large = send(port, "/v1/chat/completions", &body);
    assert!(read_until(&mut large, "ok").starts_with("HTTP/1.1 200"));

    for path in ["/aiproxy/v1/snapshot", "/metrics"] {
        let mut control = send(port, path, "");
        assert!(read_until(&mut control, "\r\n").starts_with("HTTP/1.1 404"), "{path}");
    }
}

#[test]
fn nginx_forwards_streams_without_buffering() {
    let Some(nginx) = installed("nginx") else { return };
    let (proxy, _upstream, gate) = streaming_proxy();
    let port = free_port();
    let dir = proxy.home.path().join("nginx");
    std::fs::create_dir_all(&dir).unwrap();
    // TLS needs a certificate of the name, and the ports are those of the test.
    let site: String = read("nginx.conf")
        .lines()
        .filter(|line| !line.trim_start().starts_with("ssl_certificate"))
        .map(|line| format!("{line}\n"))
        .collect::<String>()
        .replace("listen 443 ssl;", &format!("listen 127.0.0.1:{port};"))
        .replace("127.0.0.1:8642", &proxy.addr.to_string());
    let folder = dir.display();
    let user = if rustix::process::getuid().is_root() { "user root;\n" } else { "" };
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {folder}/{kind};\n"))
        .concat();
    let config = format!(
        "{user}daemon off;\npid {folder}/pid;\nerror_log {folder}/error.log;\nevents {{}}\n\
         http {{\naccess_log off;\n{temporary}{site}\n}}\n"
    );
    let file = dir.join("nginx.conf");
    std::fs::write(&file, config).unwrap();
    let command = || {
        let mut command = Command::new(&nginx);
        command.arg("-p").arg(&dir).arg("-c").arg(&file).stdin(Stdio::null());
        command
    };
    let tried = command().arg("-t").output().unwrap();
    assert!(tried.status.success(), "{}", String::from_utf8_lossy(&tried.stderr));
    let server = Server(command().stderr(Stdio::null()).spawn().unwrap());
    wait_for_port(port);

    check_reverse_proxy(port, &gate);
    drop(server);
}

#[test]
fn caddy_forwards_streams_without_buffering() {
    let Some(caddy) = installed("caddy") else { return };
    let (proxy, _upstream, gate) = streaming_proxy();
    let port = free_port();
    let command = |verb: &str, file: &Path| {
        let mut command = Command::new(&caddy);
        command.args([verb, "--adapter", "caddyfile", "--config"]).arg(file);
        command.env_clear().envs(proxy.home.env()).stdin(Stdio::null());
        command
    };
    let tried = command("validate", &deploy("Caddyfile")).output().unwrap();
    assert!(tried.status.success(), "{}", String::from_utf8_lossy(&tried.stderr));
    // Plain HTTP at the port of the test, without Caddy's own admin endpoint.
    let site = read("Caddyfile")
        .replace("ai.example.com {", &format!("http://ai.example.com:{port} {{"))
        .replace("127.0.0.1:8642", &proxy.addr.to_string());
    let file = proxy.home.path().join("Caddyfile");
    std::fs::write(&file, format!("{{\n\tadmin off\n\tauto_https off\n}}\n{site}")).unwrap();
    let run = command("run", &file).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let server = Server(run.unwrap());
    wait_for_port(port);

    check_reverse_proxy(port, &gate);
    drop(server);
}

#[test]
fn systemd_unit_is_valid_and_hardened() {
    let unit = read("aiproxy.service");
    let keeps_drain = unit.lines().any(|line| line == "TimeoutStopSec=40s");
    assert!(unit.contains("\nType=notify\n") && keeps_drain, "{unit}");
    let Some(analyze) = installed("systemd-analyze") else { return };
    let home = Home::new();
    let file = home.path().join("aiproxy.service");
    let program = env!("CARGO_BIN_EXE_aiproxy");
    std::fs::write(&file, unit.replace("/usr/local/bin/aiproxy", program)).unwrap();
    let run = |args: &[&str]| {
        let output = Command::new(&analyze).args(args).arg(&file).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&text).into_owned())
    };

    let (valid, text) = run(&["verify", "--man=no"]);
    assert!(valid && !text.contains("aiproxy.service"), "{text}");
    let (_, text) = run(&["security", "--offline=true", "--no-pager"]);
    let exposure = text.rsplit("exposure level for aiproxy.service: ").next().unwrap();
    let exposure: f64 = exposure.split_whitespace().next().unwrap().parse().unwrap();
    assert!(exposure <= 3.0, "exposure {exposure}");
}

/// The proxy reports to a socket as systemd gives it.
#[test]
fn start_and_stop_are_reported_to_the_service_manager() {
    let mut setup = Setup::new();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let socket = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(TEST_TIMEOUT)).unwrap();
    setup = setup.variable("NOTIFY_SOCKET", &path.display().to_string());
    let receive = || {
        let mut text = [0; 64];
        let length = socket.recv(&mut text).unwrap();
        String::from_utf8_lossy(&text[..length]).into_owned()
    };

    let mut proxy = setup.start();
    assert_eq!(receive(), "READY=1");
    proxy.signal(rustix::process::Signal::TERM);
    assert_eq!(receive(), "STOPPING=1");
    proxy.exit_code();
}

#[test]
fn container_config_is_valid_and_serves_other_containers() {
    let home = Home::new();
    home.write_config(&read("config/config.toml"));
    let checked = home.command().args(["config", "check"]).output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    let proxy = Proxy::spawn(home);
    let answer = crate::support::client::Request::get("/health").header("host", "aiproxy:8642");
    assert_eq!(proxy.send(&answer).status, 200);
    let stranger = crate::support::client::Request::get("/health").header("host", "evil.example");
    assert_eq!(proxy.send(&stranger).status, 403);
}

/// The instructions of a Dockerfile, continuations joined.
fn instructions(text: &str) -> Vec<(String, String)> {
    let lines: Vec<&str> =
        text.lines().filter(|line| !line.trim_start().starts_with('#')).collect();
    let joined = lines.join("\n").replace("\\\n", " ");
    joined
        .lines()
        .filter_map(|line| line.trim().split_once(' '))
        .map(|(name, rest)| (name.to_owned(), rest.trim().to_owned()))
        .collect()
}

#[test]
fn image_is_minimal_and_its_sources_exist() {
    let all = instructions(&read("Dockerfile"));
    let last = all.iter().rposition(|(name, _)| name == "FROM").unwrap();
    let value = |wanted: &str| {
        let found = all[last..].iter().find(|(name, _)| name == wanted);
        found.map(|(_, value)| value.as_str()).unwrap_or_default()
    };
    assert!(value("FROM").contains("distroless") && value("FROM").ends_with(":nonroot"));
    assert_eq!(value("USER"), "65532:65532");
    for exec in ["ENTRYPOINT", "CMD"] {
        assert!(value(exec).starts_with('['), "without a shell, {exec} is a list");
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (_, copy) in all.iter().filter(|(name, rest)| name == "COPY" && !rest.contains("--from")) {
        let source = copy.split(' ').find(|word| !word.starts_with("--")).unwrap();
        assert!(root.join(source).exists(), "{copy}");
    }
    let minimum = all.iter().find(|(name, _)| name == "FROM").unwrap().1.clone();
    let manifest = std::fs::read_to_string(root.join("Cargo.toml")).unwrap();
    let version = manifest.split("rust-version = \"").nth(1).unwrap().split('"').next().unwrap();
    assert!(minimum.starts_with(&format!("rust:{version}-")), "{minimum}");
}

#[test]
fn health_command_of_the_image_detects_a_stopped_proxy() {
    let all = instructions(&read("Dockerfile"));
    let (_, health) = all.iter().find(|(name, _)| name == "HEALTHCHECK").unwrap();
    let words: Vec<String> =
        serde_json::from_str(health.split_once("CMD").unwrap().1.trim()).unwrap();
    let mut proxy = Setup::new().start();
    let run = |home: &Home| {
        home.command().args(&words[1..]).output().expect("the health command").status.success()
    };
    assert!(run(&proxy.home));
    proxy.signal(rustix::process::Signal::TERM);
    proxy.exit_code();
    assert!(!run(&proxy.home));
}

#[test]
fn compose_publishes_on_loopback_only_and_contains_no_key() {
    let text = read("compose.yaml");
    let lines = || text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    let ports: Vec<&str> = lines().filter(|line| line.ends_with(":8642\"")).collect();
    assert_eq!(ports, ["- \"127.0.0.1:8642:8642\""]);
    assert!(!lines().any(|line| line.contains("_KEY") || line.contains("sk-")), "{text}");
    let version = env!("CARGO_PKG_VERSION");
    assert!(text.contains(&format!("image: aiproxy:{version}\n")), "{text}");
    assert!(deploy("../deploy/Dockerfile").exists() && deploy("config").is_dir());
    let Some(docker) = installed("docker") else { return };
    let has_compose = Command::new(&docker).args(["compose", "version"]).output();
    if !has_compose.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: docker compose is not installed");
        return;
    }
    let file = deploy("compose.yaml");
    let args =
        ["compose".as_ref(), "-f".as_ref(), file.as_os_str(), "config".as_ref(), "-q".as_ref()];
    let checked = Command::new(docker).args(args).output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}

/// A buffered stream would only be noticed by its time.
#[test]
fn streams_ask_reverse_proxies_not_to_buffer() {
    let upstream = Upstream::start(vec![
        Scene::sse(&["a"]),
        Scene::sse(&["b"]).delay(Duration::from_millis(10)),
        Scene::chat("whole"),
    ]);
    let proxy = Setup::new().upstream("box", &upstream, &["a"]).start();
    assert_eq!(proxy.chat_stream("x").header("x-accel-buffering"), Some("no"));
    assert_eq!(proxy.chat_stream("x").header("x-accel-buffering"), Some("no"));
    assert_eq!(proxy.chat("x").header("x-accel-buffering"), None);
}
