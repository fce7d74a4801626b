//! Mixed traffic, faults and reloads in short time: afterwards memory, file descriptors and
//! threads are about what they were before. `SOAK_SECONDS` sets how long the traffic lasts,
//! `SOAK_SEED` the order of what happens.

use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use serde_json::json;

use crate::support::{
    TEST_TIMEOUT,
    client::Request,
    proxy::{CLIENT_KEY, Proxy, Setup, chat_body},
    upstream::{Scene, Upstream},
};

const CLIENTS: u64 = 6;
const SOAK_TIME: Duration = Duration::from_secs(6);
/// Memory after load is within this many KiB of what it was before any: the lists of recent
/// requests, events and log lines are full then, and the database has its cache.
const MAX_GROWTH_KIB: u64 = 16 << 10;
/// A second load leaves at most this many KiB more than the first: what the first has not filled.
const MAX_SECOND_GROWTH_KIB: u64 = 6 << 10;
/// Connections that may be kept open for reuse: of each client two to each of the two upstreams,
/// since a failover opens one while another is being closed.
const MAX_POOLED: usize = 4 * CLIENTS as usize;

/// A random number generator; `0` is not a seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

fn number(name: &str, default: u64) -> u64 {
    #[expect(clippy::disallowed_methods, reason = "the long run is asked for by a variable")]
    let text = std::env::var(name).ok();
    text.and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// An upstream that often answers and sometimes fails, in every way that a network has.
fn faulty_upstream() -> Upstream {
    Upstream::with_director(|request, number| match number % 23 {
        3 => Scene::status(500),
        7 => Scene::status(429).header("retry-after", "0"),
        11 => Scene::raw(""),
        13 => Scene::sse(&["a", "b", "c"]).cut_after(2),
        17 => Scene::raw("HTTP/1.1 200 OK\r\ncontent-length: 90\r\n\r\n{\"cut"),
        19 => Scene::chat("late").delay(Duration::from_millis(40)),
        _ if request.json()["stream"] == true => {
            Scene::sse(&["word "; 40]).pace(Duration::from_micros(300))
        }
        _ => Scene::chat(&"word ".repeat(400)),
    })
}

/// What one client does until the end; every answer is read as far as it goes.
fn be_client(proxy: &Proxy, seed: u64, end: Instant) -> u64 {
    let (mut dice, mut sent) = (Dice(seed), 0);
    while Instant::now() < end {
        let chat = |prompt: &str, stream| {
            Request::post("/v1/chat/completions", &chat_body("m", prompt, stream))
                .bearer(CLIENT_KEY)
        };
        let message = json!({"model": "m", "max_tokens": 9, "stream": sent % 2 == 0,
            "messages": [{"role": "user", "content": "hi"}]});
        match dice.below(10) {
            0..=2 => drop(chat("hi", false).open(proxy.addr).try_read_answer()),
            3 | 4 => drop(chat("hi", true).open(proxy.addr).try_read_answer()),
            5 => drop(chat(&"x".repeat(150_000), false).open(proxy.addr).try_read_answer()),
            6 => {
                let request =
                    Request::post("/v1/messages", &message).header("x-api-key", CLIENT_KEY);
                drop(request.open(proxy.addr).try_read_answer());
            }
            // Leaves in the middle.
            7 => drop(chat("hi", true).open(proxy.addr)),
            8 => {
                let broken = Request::post_bytes("/v1/responses", b"{\"model\":".to_vec());
                drop(broken.bearer(CLIENT_KEY).open(proxy.addr).try_read_answer());
            }
            _ => {
                let reload = Request::post("/v1/reload", &json!({})).bearer(CLIENT_KEY);
                drop(reload.open(proxy.addr).try_read_answer());
            }
        }
        sent += 1;
    }
    sent
}

fn run_traffic(proxy: &Proxy, seed: u64, span: Duration) -> u64 {
    let end = Instant::now() + span;
    std::thread::scope(|scope| {
        let clients: Vec<_> = (1..=CLIENTS)
            .map(|n| scope.spawn(move || be_client(proxy, seed.wrapping_mul(n) | 1, end)))
            .collect();
        clients.into_iter().map(|client| client.join().expect("a client")).sum()
    })
}

/// What the process uses.
#[derive(Clone, Copy, Debug)]
struct Usage {
    /// Without the pages of the program file, which are many in a build for tests.
    memory_kib: u64,
    files: usize,
    threads: usize,
}

fn usage(proxy: &Proxy) -> Usage {
    let folder = PathBuf::from(format!("/proc/{}", proxy.pid()));
    let count = |name| fs::read_dir(folder.join(name)).expect("of the process").count();
    let status = fs::read_to_string(folder.join("status")).expect("of the process");
    let memory = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("memory");
    let memory = memory.trim().trim_end_matches(" kB").parse().expect("a number");
    Usage { memory_kib: memory, files: count("fd"), threads: count("task") }
}

#[test]
fn memory_files_and_threads_do_not_leak() {
    let (one, two) = (faulty_upstream(), faulty_upstream());
    let proxy = Setup::new()
        .config("[ledger]\nbodies = \"off\"\n[cooldown]\nrate_limited = \"100ms\"\nserver_error = \"100ms\"\nmax = \"200ms\"")
        .upstream("one", &one, &["work"])
        .upstream("two", &two, &["work", "other"])
        .start();
    let seed = number("SOAK_SEED", 0x9e37_79b9);
    let span = Duration::from_secs(number("SOAK_SECONDS", SOAK_TIME.as_secs()));

    std::thread::sleep(Duration::from_millis(500));
    let idle = usage(&proxy);
    // Pools of connections fill, and a first load shows how large they become.
    run_traffic(&proxy, seed, span / 2);
    std::thread::sleep(Duration::from_millis(500));
    let before = usage(&proxy);
    let sent = run_traffic(&proxy, seed.rotate_left(7), span);
    assert!(sent > 100, "only {sent} requests in {span:?}");

    let excess = |now: Usage| {
        let memory =
            (idle.memory_kib + MAX_GROWTH_KIB).min(before.memory_kib + MAX_SECOND_GROWTH_KIB);
        now.files > idle.files + MAX_POOLED
            || now.threads > idle.threads + 8
            || now.memory_kib > memory
    };
    let end = Instant::now() + TEST_TIMEOUT;
    while excess(usage(&proxy)) {
        let now = usage(&proxy);
        assert!(
            Instant::now() < end,
            "idle {idle:?}, after the first load {before:?}, now {now:?}"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(proxy.chat("still there?").status / 100, 2, "{}", proxy.output());
}
