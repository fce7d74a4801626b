//! Counts what one request and one streamed event cost: allocations, allocated bytes and thread
//! wake-ups. Counts do not depend on the machine, so this runs with the tests and fails if they
//! grow; times are measured elsewhere.
//!
//! The proxy runs in this process beside a client and an upstream that do not allocate.

#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a program that counts and prints"
)]

mod peers;

use std::{fs, net::TcpListener, path::Path, process::ExitCode, thread, time::Duration};

use aiproxy::cli::{self, Cli};
use clap::Parser;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

use crate::peers::{Client, start_upstream};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<std::alloc::System> = &INSTRUMENTED_SYSTEM;

const CLIENT_KEY: &str = "aip-bench-00000000000000000000000000000000";
const REQUESTS: u64 = 1_000;
const EVENTS: u64 = 2_000;

/// Allocations of a request that passes through, with its rows in the ledger.
const MAX_REQUEST: f64 = 53.0;
/// Allocations of an event that passes through: the HTTP client reads it into a new buffer.
const MAX_EVENT: f64 = 2.5;

/// What the proxy did while something ran.
#[derive(Clone, Copy, Debug)]
struct Counts {
    allocations: u64,
    bytes: u64,
    wakeups: u64,
}

impl Counts {
    fn now() -> Self {
        let stats = ALLOCATOR.stats();
        Self {
            allocations: (stats.allocations + stats.reallocations) as u64,
            bytes: stats.bytes_allocated as u64,
            wakeups: read_wakeups(),
        }
    }

    fn since(self, earlier: Self) -> Self {
        Self {
            allocations: self.allocations - earlier.allocations,
            bytes: self.bytes - earlier.bytes,
            wakeups: self.wakeups.saturating_sub(earlier.wakeups),
        }
    }
}

/// Returns how often the threads of this process, except those of the client and the upstream, have
/// waited and been woken. Zero if the system does not count it.
fn read_wakeups() -> u64 {
    let tasks = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let status = |path: &Path| fs::read_to_string(path.join("status")).unwrap_or_default();
    let of_task = |text: String| {
        let value = |key: &str| {
            text.lines().find_map(|line| line.strip_prefix(key)).map(str::trim).map(str::to_owned)
        };
        if value("Name:").is_some_and(|name| name.starts_with("peer-")) {
            return 0;
        }
        value("voluntary_ctxt_switches:").and_then(|count| count.parse().ok()).unwrap_or(0)
    };
    tasks.map(|task| of_task(status(&task.path()))).sum()
}

/// One measured case: its name, how much of it ran, and the allocations that it may take.
struct Case {
    name: &'static str,
    per: &'static str,
    count: u64,
    max_allocations: f64,
}

fn main() -> ExitCode {
    // `cargo test` passes arguments for its own harness; a name that filters tests skips this one.
    let filters: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    if filters.iter().any(|filter| !"request counts".contains(filter.as_str())) {
        return ExitCode::SUCCESS;
    }
    if std::env::args().any(|argument| argument == "--list") {
        return ExitCode::SUCCESS;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let upstream = start_upstream();
    let port = free_port();
    write_config(folder.path(), port, upstream);
    let arguments = serve_arguments(folder.path());
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        let _status = runtime.block_on(cli::run(Cli::parse_from(arguments)));
    });
    let mut client = Client::connect(port);
    let failed = run_cases(&mut client);
    ExitCode::from(u8::from(failed))
}

fn run_cases(client: &mut Client) -> bool {
    let whole = client.request("whole", CLIENT_KEY);
    let streamed = client.request("stream", CLIENT_KEY);
    for _ in 0..300 {
        client.ask(&whole);
        client.ask_until(&streamed, 3);
    }
    let mut failed = false;
    let mut check = |case: &Case, run: &mut dyn FnMut()| {
        // The threads in the background finish what was begun before.
        thread::sleep(Duration::from_millis(1_500));
        let before = Counts::now();
        run();
        thread::sleep(Duration::from_millis(1_500));
        let counts = Counts::now().since(before);
        let each = |value: u64| value as f64 / case.count as f64;
        println!(
            "{:<28} per {}: {:>7.2} allocations, {:>8.0} bytes, {:>5.2} wake-ups",
            case.name,
            case.per,
            each(counts.allocations),
            each(counts.bytes),
            each(counts.wakeups)
        );
        if each(counts.allocations) > case.max_allocations {
            println!("  more than {} allocations", case.max_allocations);
            failed = true;
        }
    };
    let case = Case {
        name: "1 KiB, passed through",
        per: "request",
        count: REQUESTS,
        max_allocations: MAX_REQUEST,
    };
    check(&case, &mut || (0..REQUESTS).for_each(|_| client.ask(&whole)));
    let case = Case {
        name: "stream, passed through",
        per: "event",
        count: EVENTS,
        max_allocations: MAX_EVENT,
    };
    check(&case, &mut || client.ask_until(&streamed, EVENTS));
    failed
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

fn write_config(folder: &Path, port: u16, upstream: u16) {
    let key = folder.join("key");
    fs::write(&key, "sk-bench-5c1d8e02b7").expect("a key");
    #[cfg(unix)]
    fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600))
        .expect("permissions");
    let key = key.display();
    let config = format!(
        "[server]\nlisten = \"127.0.0.1:{port}\"\n\n[log]\nlevel = \"warn\"\n\n[ledger]\nbodies = \"off\"\n\n[discover]\nenv = false\nlocal = false\n\n\
         [[upstream]]\nname = \"mock\"\nbase_url = \"http://127.0.0.1:{upstream}/v1\"\ndialect = \"openai\"\nmodels = [\"m\"]\n\
         keys = [\"file:{key}\"]\n\n[[project]]\nname = \"bench\"\nkey = \"{CLIENT_KEY}\"\n"
    );
    fs::write(folder.join("config.toml"), config).expect("a config");
}

fn serve_arguments(folder: &Path) -> Vec<String> {
    let path = |name: &str| folder.join(name).display().to_string();
    let words = ["aiproxy", "--config", &path("config.toml"), "--data-dir", &path("data"), "serve"];
    words.map(str::to_owned).to_vec()
}
