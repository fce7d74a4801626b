//! The ledger: requests, costs and stored bodies, across restarts, kills and damaged files.

use std::{
    collections::HashMap,
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::support::{
    client::{Connection, Request},
    poll_until,
    proxy::{CLIENT_KEY, Proxy, Setup, chat_body, secret},
    upstream::{Gate, Scene, Upstream},
};

/// A price for the scripted model: a dollar per million input tokens, ten dollars per million
/// output tokens.
const PRICED: &str = "[ledger]\ntz = \"UTC\"\n[prices.\"one/m\"]\ninput = 1\noutput = 10";

fn cli_json(proxy: &Proxy, args: &[&str]) -> Value {
    let output = proxy.cli(args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{args:?}: {e}"))
}

fn cli_output(proxy: &Proxy, args: &[&str]) -> String {
    let output = proxy.cli(args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[test]
fn request_is_recorded_with_its_cost_and_explained() {
    let upstream = Upstream::with_director(|seen, _| {
        if seen.key() == secret("one", "work") {
            Scene::status(429).header("retry-after", "30")
        } else {
            Scene::chat("hello")
        }
    });
    let proxy = Setup::new().config(PRICED).upstream("one", &upstream, &["work", "spare"]).start();
    proxy.chat("how are you?");

    // Three input tokens, two output tokens.
    let usage = cli_json(&proxy, &["usage", "--json"]);
    assert_eq!(
        (&usage["rows"][0]["name"], &usage["rows"][0]["cost"], &usage["total"]["requests"]),
        (&json!("m"), &json!(23_000), &json!(1))
    );
    let shown = cli_json(&proxy, &["log", "show", "last", "--json"]);
    assert_eq!(shown["attempts"].as_array().map(Vec::len), Some(2));
    assert_eq!(
        (&shown["cost"]["usd"], &shown["parts"][0]["bill"]["source"]),
        (&json!(23_000), &json!("free"))
    );
    let explained = cli_output(&proxy, &["explain", "last"]);
    for part in [
        "attempt 1 at one",
        "attempt 2 at one",
        "0.000003 USD",
        "0.00002 USD",
        "$0.000023",
        "price one/m, from [prices]",
        "▒",
    ] {
        assert!(explained.contains(part), "{part} is missing in\n{explained}");
    }
    assert!(
        cli_output(&proxy, &["log", "show", "last", "--body", "request"]).contains("how are you?")
    );
    assert!(cli_output(&proxy, &["log", "show", "last", "--body", "answer"]).contains("hello"));
    assert_eq!(proxy.snapshot()["live"]["totals"]["cost"], 23_000);
    for by in ["project", "upstream", "key", "client", "session", "day"] {
        assert_eq!(
            cli_json(&proxy, &["usage", "--by", by, "--json"])["total"]["cost"],
            23_000,
            "{by}"
        );
    }
    let page = cli_output(&proxy, &["usage"]);
    assert!(page.contains("today") && page.contains("<$0.001"), "{page}");
}

#[test]
fn history_is_readable_without_a_running_proxy() {
    let upstream = Upstream::with_director(|seen, _| match seen.json()["model"].as_str() {
        Some("=cmd|x") => Scene::status(400),
        _ => Scene::chat("hello"),
    });
    let mut proxy = Setup::new().config(PRICED).upstream("one", &upstream, &["work"]).start();
    proxy.chat("hi");
    proxy.ask(&chat_body("=cmd|x", "hi", false));
    proxy.signal(rustix::process::Signal::TERM);
    assert_eq!(proxy.exit_code(), Some(0));

    let log = cli_output(&proxy, &["log", "status:2xx"]);
    let exported = cli_output(&proxy, &["log", "export"]);
    let csv = cli_output(&proxy, &["log", "export", "--format", "csv"]);

    assert_eq!(log.lines().count(), 1, "{log}");
    let lines: Vec<Value> =
        exported.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(
        (lines.len(), &lines[0]["asked"], &lines[1]["asked"]),
        (2, &json!("=cmd|x"), &json!("m")),
        "the newest first"
    );
    assert!(csv.starts_with("id,at,project,") && csv.contains("\"'=cmd|x\""), "{csv}");
    assert!(
        csv.lines().all(|line| line.split(',').all(|cell| !cell.starts_with(['=', '+', '-', '@']))),
        "{csv}"
    );
    assert_eq!(cli_json(&proxy, &["usage", "--json"])["total"]["requests"], 2);
    assert_eq!(proxy.cli(&["log", "--since", "soon"]).status.code(), Some(2));
    assert_eq!(proxy.cli(&["usage", "--by", "mood"]).status.code(), Some(2));
    assert_eq!(proxy.cli(&["log", "show", "ffffff"]).status.code(), Some(1));
}

#[test]
fn missing_usage_is_estimated_and_marked() {
    let gate = Gate::closed();
    let held = Scene::sse(&["one ", "two ", "three ", "four "]).gate(4, &gate);
    let upstream = Upstream::start(vec![held, Scene::sse(&["one ", "two "])]);
    let proxy = Setup::new().config(PRICED).upstream("one", &upstream, &["work"]).start();
    let mut left = proxy.open_chat("tell me something long", true);
    left.read_until("three");
    drop(left);
    let cost = poll_until("the request to be recorded", || {
        let shown = proxy.cli(&["log", "show", "last", "--json"]);
        let shown: Value = serde_json::from_slice(&shown.stdout).ok()?;
        (shown["state"] == "left").then(|| shown["cost"].clone())
    });
    gate.open();

    assert_eq!(cost["sure"], "estimate", "{cost}");
    assert!(
        cost["usd"].as_i64().is_some_and(|nano| nano >= 30_000),
        "three tokens out and the question: {cost}"
    );
    // A complete stream without usage is also estimated.
    proxy.chat_stream("hi");
    let shown = cli_json(&proxy, &["log", "show", "last", "--json"]);
    assert_eq!(
        (&shown["state"], &shown["cost"]["sure"]),
        (&json!("done"), &json!("estimate")),
        "{shown}"
    );
    assert!(cli_output(&proxy, &["log"]).contains('~'));
}

#[test]
fn cost_reported_by_the_provider_counts() {
    let mut answer = json!({
        "id": "1", "object": "chat.completion", "created": 1, "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "x"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5, "cost": 0.0001, "is_byok": true,
                  "cost_details": {"upstream_inference_cost": 0.002}},
    });
    let listed = Scene::json(200, &answer);
    answer["usage"]["is_byok"] = json!(false);
    let upstream = Upstream::start(vec![listed, Scene::json(200, &answer)]);
    let proxy = Setup::new().config(PRICED).upstream("one", &upstream, &["work"]).start();
    let bill = || {
        proxy.chat("hi");
        let shown = cli_json(&proxy, &["log", "show", "last", "--json"]);
        (
            shown["cost"]["usd"].clone(),
            shown["parts"][0]["bill"]["computed"].clone(),
            shown["parts"][0]["bill"]["source"].clone(),
        )
    };

    assert_eq!(bill(), (json!(2_100_000), json!(23_000), json!("reported")));
    assert_eq!(bill(), (json!(100_000), json!(23_000), json!("reported")));
}

#[test]
fn unknown_price_is_never_shown_as_zero() {
    let upstream = Upstream::with_director(|_, _| Scene::chat("hello"));
    let proxy = Setup::new()
        .upstream_at("one", "http://127.0.0.1:1", &[], "enabled = false")
        .upstream("far", &upstream, &["work"])
        .start();
    proxy.chat("hi");
    let shown = cli_json(&proxy, &["log", "show", "last", "--json"]);
    // Local upstreams are free; the price of any other is unknown.
    assert_eq!(
        (&shown["cost"]["usd"], &shown["parts"][0]["bill"]["source"]),
        (&json!(0), &json!("local"))
    );
}

#[test]
fn files_contain_no_key_and_bodies_are_bounded() {
    let key = secret("one", "work");
    let echo = key.clone();
    let upstream = Upstream::with_director(move |_, nth| match nth % 3 {
        0 => Scene::chat(&format!("your key is {echo}")),
        1 => Scene::json(500, &json!({"error": {"message": format!("bad key {echo}")}})),
        _ => Scene::sse(&["your key ", &echo, " is leaked"]),
    });
    let config =
        "[retry]\nmax_attempts = 1\n[ledger]\nbodies_total = \"256KiB\"\nbody_limit = \"16KiB\"";
    let mut proxy = Setup::new().config(config).upstream("one", &upstream, &["work"]).start();
    for n in 0..60_u64 {
        let noise: String = (0..1_500_u64)
            .map(|k| {
                format!("{:x}", (k + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(n as u32))
            })
            .collect();
        proxy.ask(&chat_body("m", &format!("my key is {key}, {noise}"), n % 2 == 0));
    }
    let shown = cli_json(&proxy, &["log", "show", "last", "--json"]);
    let sent = shown["bodies"]
        .as_array()
        .and_then(|bodies| bodies.iter().find(|body| body["side"] == "request"))
        .expect("a body")
        .clone();
    assert!(
        sent["head"].as_str().is_some_and(|head| head.contains("my key is [redacted]")),
        "{sent}"
    );
    assert!(
        sent["total"].as_u64() > Some(16 << 10)
            && !sent["tail"].as_str().unwrap_or_default().is_empty(),
        "beginning and end are kept"
    );
    proxy.signal(rustix::process::Signal::TERM);
    proxy.exit_code();

    let mut bytes = 0;
    for entry in fs::read_dir(proxy.home.data())
        .expect("the data dir")
        .flatten()
        .filter(|entry| entry.path().is_file())
    {
        let file = fs::read(entry.path()).expect("a file");
        assert!(
            memchr::memmem::find(&file, key.as_bytes()).is_none(),
            "{:?} holds the key",
            entry.path()
        );
        bytes += file.len();
    }
    assert!(bytes < 1 << 20, "{bytes} bytes");
}

#[test]
fn damaged_or_locked_ledger_never_fails_a_request() {
    let upstream = Upstream::with_director(|_, _| Scene::chat("hello"));
    let setup = Setup::new().config(PRICED).upstream("one", &upstream, &["work"]);
    let home = setup.home();
    fs::create_dir_all(home.data()).expect("the data dir");
    fs::write(home.data().join("ledger.db"), b"\x89PNG\r\n\x1a\n this is a picture, is it not")
        .expect("written");
    let mut proxy = Proxy::spawn(home);
    assert_eq!(proxy.chat("hi").status, 200);
    assert_eq!(cli_json(&proxy, &["usage", "--json"])["total"]["requests"], 1);
    assert!(proxy.output().contains("is damaged"), "{}", proxy.output());
    let names: Vec<String> = fs::read_dir(proxy.home.data())
        .expect("it")
        .flatten()
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .collect();
    assert!(names.iter().any(|name| name.starts_with("ledger.db.corrupt-")), "{names:?}");

    // Another process has locked the file: requests are still served, and are in the ledger
    // afterwards.
    let other = rusqlite::Connection::open(proxy.home.data().join("ledger.db")).expect("opened");
    other.execute_batch("BEGIN IMMEDIATE").expect("locked");
    let begun = Instant::now();
    assert_eq!(proxy.chat("hi").status, 200);
    assert!(begun.elapsed() < Duration::from_secs(2), "the request waits for nothing");
    poll_until("the trouble to be known", || {
        proxy.snapshot()["ledger"]["trouble"].as_str().map(str::to_owned)
    });
    other.execute_batch("COMMIT").expect("unlocked");
    drop(other);
    poll_until("it to be written", || {
        (cli_json(&proxy, &["usage", "--json"])["total"]["requests"] == 2).then_some(())
    });
    proxy.signal(rustix::process::Signal::TERM);
    assert_eq!(proxy.exit_code(), Some(0));
}

/// Returns how many requests are answered before each kill: several small counts, or a single count
/// from `CRASH_REQUESTS`.
fn crash_request_counts() -> Vec<usize> {
    let many = std::env::var("CRASH_REQUESTS")
        .ok()
        .map(|n| n.parse().expect("CRASH_REQUESTS is a number"));
    many.map_or_else(|| vec![150, 400, 700], |many| vec![many])
}

/// Returns a random number below this, so that a kill hits the ledger at any point.
fn random_below(upto: u64) -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0) % upto.max(1)
}

/// Sends requests until the kill; records every answered request and its time.
fn ask_until_killed(proxy: &Proxy, stop: &AtomicBool, listed: &Mutex<Vec<(String, Instant)>>) {
    // Uses the built-in upstream, because the scripted one stores every request.
    let request = Request::post("/v1/chat/completions", &chat_body("demo/echo", "hi", false))
        .bearer(CLIENT_KEY);
    let bytes = request.bytes(proxy.addr);
    while !stop.load(Ordering::Relaxed) {
        // At the moment of the kill a connection may fail, and a response may be cut anywhere.
        let asked = AssertUnwindSafe(|| {
            let mut connection = Connection::connect(proxy.addr);
            while !stop.load(Ordering::Relaxed) {
                connection.write(&bytes);
                let Some(answer) = connection.try_read_answer() else { return };
                if answer.status == 200 && answer.complete {
                    let id = answer.header("x-request-id").unwrap_or_default().to_owned();
                    listed.lock().expect("ids").push((id, Instant::now()));
                }
            }
        });
        drop(catch_unwind(asked));
    }
}

#[test]
fn kill_loses_nothing_recorded_over_a_second_ago() {
    const SECOND: Duration = Duration::from_secs(1);
    let mut proxy = Setup::new().config("[ledger]\ntz = \"UTC\"").start();
    let mut before = 0;
    for size in crash_request_counts() {
        let (listed, stop) = (Mutex::new(Vec::<(String, Instant)>::new()), AtomicBool::new(false));
        let wanted = size + usize::try_from(random_below(size as u64 / 10)).expect("few");
        let killed = std::thread::scope(|scope| {
            for _ in 0..4 {
                let (listed, stop, proxy) = (&listed, &stop, &proxy);
                scope.spawn(move || ask_until_killed(proxy, stop, listed));
            }
            // Waits until this many requests were answered more than a second ago, while others are
            // running.
            let begun = Instant::now();
            while listed
                .lock()
                .expect("ids")
                .get(wanted)
                .is_none_or(|(_, at)| at.elapsed() <= SECOND)
            {
                assert!(
                    begun.elapsed() < Duration::from_secs(60).max(SECOND * (size as u32 / 50)),
                    "too slow to be of use"
                );
                std::thread::park_timeout(Duration::from_micros(random_below(2_000)));
            }
            proxy.signal(rustix::process::Signal::KILL);
            let killed = Instant::now();
            stop.store(true, Ordering::Relaxed);
            killed
        });
        assert_eq!(proxy.exit_code(), None, "killed");

        let listed = listed.into_inner().expect("ids");
        let times = recorded_counts(&proxy);
        let due: Vec<&String> = listed
            .iter()
            .filter(|(_, at)| killed.duration_since(*at) > SECOND)
            .map(|(id, _)| id)
            .collect();
        assert!(due.len() >= size, "{} requests", due.len());
        let missing = due.iter().filter(|id| times.get(**id) != Some(&1)).count();
        assert_eq!(missing, 0, "of {} requests that were answered in time", due.len());
        assert!(times.values().all(|n| *n == 1), "nothing is there twice");
        println!(
            "{} requests were answered, {} of them a second before the kill; {} are recorded",
            listed.len(),
            due.len(),
            times.len() - before
        );
        before = times.len();
        let connection =
            rusqlite::Connection::open(proxy.home.data().join("ledger.db")).expect("opened");
        let printed: String =
            connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("checked");
        assert_eq!(printed, "ok");
        drop(connection);
        let home = proxy.take_home();
        proxy = Proxy::spawn(home);
        let all =
            cli_json(&proxy, &["usage", "--json"])["demo"]["requests"].as_u64().expect("a number");
        assert_eq!(all, times.len() as u64, "sums agree with rows");
    }
}

/// Returns how often each request is in the ledger.
fn recorded_counts(proxy: &Proxy) -> HashMap<String, u32> {
    let mut times: HashMap<String, u32> = HashMap::new();
    for line in cli_output(proxy, &["log", "export"]).lines() {
        let record: Value = serde_json::from_str(line).expect("JSON");
        *times.entry(record["id"].as_str().expect("an id").to_owned()).or_default() += 1;
    }
    times
}

#[test]
fn requests_are_found_by_end_user_and_client_address() {
    let upstream = Upstream::start(vec![Scene::chat("a")]);
    let found = |proxy: &Proxy, filter: &str| {
        let output = proxy.cli(&["log", "--json", filter]);
        String::from_utf8_lossy(&output.stdout).lines().count()
    };
    let body = |user: &str| {
        let mut body = chat_body("m", "hi", false);
        body["user"] = json!(user);
        body
    };
    let recording = Setup::new().upstream("up", &upstream, &["work"]).start();
    recording.ask(&body("end-7"));
    recording.ask(&body("end-8"));
    poll_until("both rows", || (found(&recording, "user:end") == 2).then_some(()));
    assert_eq!(found(&recording, "user:end-7"), 1);
    assert_eq!((found(&recording, "ip:127.0.0.1"), found(&recording, "ip:10.")), (2, 0));

    let silent = Setup::new()
        .config("[ledger]\ncallers = false")
        .upstream("up", &upstream, &["work"])
        .start();
    silent.ask(&body("end-7"));
    poll_until("the row", || (found(&silent, "project:it") == 1).then_some(()));
    assert_eq!((found(&silent, "user:end"), found(&silent, "ip:127")), (0, 0));
}

#[test]
fn requests_are_found_by_text_in_their_stored_bodies() {
    let upstream = Upstream::with_director(|seen, _| {
        let text = if String::from_utf8_lossy(&seen.body).contains("weather") {
            "It will RAIN"
        } else {
            "hello"
        };
        Scene::chat(text)
    });
    let proxy = Setup::new().config(PRICED).upstream("one", &upstream, &["work"]).start();
    // The text is in the middle of a long conversation, beyond the first part that is stored.
    let long =
        |text: &str| format!("{} {text} {}", "lorem ".repeat(20_000), "ipsum ".repeat(9_000));
    for text in ["what is the weather?", "wie ist das Wetter in Köln?", &long("a needle")] {
        assert_eq!(proxy.chat(text).status, 200);
    }

    let count = |filter: &[&str]| {
        let arguments = [&["log", "--json"], filter].concat();
        cli_output(&proxy, &arguments).lines().filter(|line| line.contains("\"request\"")).count()
    };
    poll_until("three requests in the ledger", || (count(&["op:chat"]) == 3).then_some(()));
    for (filter, want) in [
        (&["body:rain"][..], 1),
        (&["body:Weather"], 1),
        (&["body:köln"], 1),
        (&["body:needle"], 1),
        (&["body:needle", "body:ipsum"], 1),
        (&["body:needle", "body:weather"], 0),
        (&["body:hello"], 2),
        (&["body:hello", "model:other"], 0),
    ] {
        assert_eq!(count(filter), want, "{filter:?}");
    }
    let followed = proxy.cli(&["log", "--follow", "body:rain"]);
    assert_eq!(followed.status.code(), Some(2), "{followed:?}");
}

#[test]
fn usage_has_the_rates_of_the_last_half_hour() {
    let upstream = Upstream::start(vec![Scene::chat("hello")]);
    let proxy = Setup::new().config(PRICED).upstream("one", &upstream, &["work"]).start();
    for _ in 0..3 {
        assert_eq!(proxy.chat("hi").status, 200);
    }
    let token = fs::read_to_string(proxy.home.data().join("run/token")).expect("the token");
    let rates = |by: &str| {
        let path = format!("/aiproxy/v1/usage?by={by}&since=1d");
        Request::get(&path).bearer(token.trim()).send(proxy.addr).json()["rates"].clone()
    };
    for (by, name) in [("model", "m"), ("upstream", "one"), ("project", "it"), ("key", "one/work")]
    {
        let rates = rates(by);
        let row = &rates[0];
        let sum = |key: &str| -> u64 {
            row[key].as_array().into_iter().flatten().filter_map(Value::as_u64).sum()
        };
        assert_eq!(
            (&row["name"], sum("requests"), sum("tokens")),
            (&json!(name), 3, 15),
            "{rates}"
        );
        assert_eq!(row["requests"].as_array().map(Vec::len), Some(30));
    }
    assert_eq!(rates("day"), json!([]));
}
