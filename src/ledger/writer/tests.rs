//! Tests of the whole ledger: each entry is stored exactly once, whatever happens to the file.

use std::{borrow::Cow, fs, io::Write as _, path::Path, sync::mpsc, time::Duration};

use bytes::Bytes;

use super::*;
use crate::{
    base::{
        clock::{FakeClock, UnixMillis},
        id::RequestId,
        money::NanoUsd,
    },
    events::{
        filter::Filter,
        ledger_queue::{AttemptBill, BodyPolicy, LedgerEntry},
        record::{AttemptRecord, RequestRecord, RequestState},
    },
    ir::{
        cost::{AppliedPrice, Bill, Cost, CostSource, Precision, PriceClass, PriceRates},
        op::{Dialect, Op},
        reason::{failure::FailureReason, route::RouteReason},
        usage::Usage,
    },
    ledger::{time_range::TimeRange, totals::GroupBy},
};

struct SecretRedactor;

impl Redactor for SecretRedactor {
    fn redact<'a>(&self, text: &'a str) -> Cow<'a, str> {
        Cow::Owned(text.replace("sk-very-secret", "[redacted]"))
    }
}

struct TestLedger {
    home: tempfile::TempDir,
    clock: Arc<FakeClock>,
}

impl TestLedger {
    fn new() -> Self {
        Self { home: tempfile::tempdir().unwrap(), clock: Arc::default() }
    }

    fn path(&self) -> PathBuf {
        self.home.path().join("ledger.db")
    }

    fn start(&self) -> (LedgerQueue, Ledger, mpsc::Receiver<String>) {
        self.start_with(Settings { tz: "UTC".to_owned(), ..Settings::default() })
    }

    fn start_with(&self, settings: Settings) -> (LedgerQueue, Ledger, mpsc::Receiver<String>) {
        let (sink, notes) = LedgerQueue::new();
        sink.set_policy(BodyPolicy::All, settings.body_limit);
        let (sender, reports) = mpsc::channel();
        let start = WriterConfig {
            path: self.path(),
            settings,
            messages: notes,
            clock: Arc::clone(&self.clock) as _,
            redactor: Arc::new(SecretRedactor),
            report: Box::new(move |_, notice| sender.send(notice.to_string()).unwrap_or_default()),
            on_request: Box::new(|_| ()),
        };
        (sink, Ledger::start(start).unwrap(), reports)
    }

    fn entry(&self, n: i64) -> LedgerEntry {
        let at = UnixMillis(1_700_000_000_000 + n * 1_000);
        let used = AppliedPrice {
            name: "openai/gpt-5-mini".into(),
            condition: "".into(),
            rates: {
                let mut rates = PriceRates::default();
                rates.set(PriceClass::Input, Some(250_000_000));
                rates
            },
            currency: "USD".into(),
            nano_usd_per_unit: 1_000_000_000,
            page: "https://example.com".into(),
            date: "2025-12-20".into(),
        };
        let attempt = |number: u32, key: &str, won: bool| AttemptRecord {
            number,
            role: crate::events::record::AttemptRole::Primary,
            has_affinity: false,
            upstream: "openai".into(),
            key: key.into(),
            fingerprint: "sk-…9f2c".into(),
            model: "gpt-5-mini".into(),
            started_ms: number,
            head_ms: Some(number + 5),
            ended_ms: Some(number + 10),
            status: Some(if won { 200 } else { 429 }),
            outcome: (!won).then(|| FailureReason::text("429, cooling 5s").into()),
            won,
            maybe_billed: false,
        };
        let usage =
            Usage { input: 100, cache_read: 20, output: 7, reasoning: 3, ..Usage::default() };
        let bill = Bill {
            cost: Some(NanoUsd(25_000)),
            precision: Precision::Exact,
            source: CostSource::Builtin,
            computed: Some(NanoUsd(25_000)),
            reported: None,
            price: Some(Arc::new(used)),
        };
        LedgerEntry {
            record: Arc::new(RequestRecord {
                cache_miss: None,
                id: RequestId::new(at),
                at,
                project: if n % 2 == 0 { "ide".into() } else { "default".into() },
                client: "aider".into(),
                dialect: Dialect::Openai,
                op: Op::Chat,
                requested_model: "smart_1".into(),
                stream: true,
                session: Some("s1".into()),
                user: Some("u1".into()),
                ip: "10.0.0.7".parse().ok(),
                request_bytes: 10,
                state: RequestState::Done,
                attempts: vec![attempt(1, "work", false), attempt(2, "spare", true)],
                reason: Some(RouteReason::text("the only candidate").into()),
                ttft_ms: Some(40),
                duration_ms: Some(500),
                status: Some(200),
                usage: Some(usage),
                cost: Some(Cost { usd: Some(NanoUsd(25_000)), precision: Precision::Exact }),
                finish: Some("stop".into()),
                answer_bytes: 99,
                events: 7,
                error: None,
            }),
            bills: vec![
                AttemptBill {
                    number: 1,
                    reported_model: None,
                    usage: None,
                    bill: Bill {
                        cost: Some(NanoUsd::ZERO),
                        source: CostSource::Free,
                        ..Bill::default()
                    },
                },
                AttemptBill {
                    number: 2,
                    reported_model: Some("gpt-5-mini-2025".into()),
                    usage: Some(usage),
                    bill,
                },
            ],
            demo: false,
            replay_of: None,
        }
    }
}

fn send(sink: &LedgerQueue, entry: LedgerEntry) {
    drop(sink.reserve_slot().expect("a slot").send(LedgerMessage::Request(Box::new(entry))));
}

fn all() -> Filter {
    Filter::parse("").unwrap()
}

fn spoil(path: &Path, from: usize, bytes: &[u8]) {
    let mut all = fs::read(path).unwrap();
    let end = (from + bytes.len()).min(all.len()).max(from.min(all.len()));
    let from = from.min(end);
    all.splice(from..end, bytes.iter().copied());
    fs::File::create(path).and_then(|mut file| file.write_all(&all)).unwrap();
}

#[tokio::test]
async fn submitted_requests_are_stored_once_and_complete() {
    let world = TestLedger::new();
    let (sink, ledger, _reports) = world.start();
    let entry = world.entry(1);
    send(&sink, entry.clone());
    send(&sink, entry.clone());
    send(&sink, world.entry(2));
    sink.flush().await;

    let reader = ledger.reader().unwrap();
    let history = reader.history(&all(), (None, None), None, 10).unwrap();
    let full = reader.request_detail(&entry.record.id.to_string()).unwrap();

    assert_eq!(history.len(), 2, "a request that is reported twice is there once");
    assert_eq!(
        serde_json::to_value(&full.record).unwrap(),
        serde_json::to_value(&entry.record).unwrap()
    );
    assert_eq!(full.bills, entry.bills);
    assert_eq!(reader.request_detail("last").unwrap().record.requested_model, "smart_1".into());
    assert!(matches!(reader.request_detail("0"), Err(QueryError::Ambiguous(_))));
    assert!(matches!(reader.request_detail("ffff"), Err(QueryError::Unknown(_))));
    assert!(matches!(reader.request_detail("'; DROP TABLE request"), Err(QueryError::Unknown(_))));
    ledger.close(&sink).await;
}

#[tokio::test]
async fn history_and_dashboard_filters_agree() {
    let world = TestLedger::new();
    let (sink, ledger, _reports) = world.start();
    let entries: Vec<LedgerEntry> = (0..6)
        .map(|n| {
            let mut entry = world.entry(n);
            let r = Arc::make_mut(&mut entry.record);
            match n {
                3 => {
                    (r.state, r.status, r.error) =
                        (RequestState::Failed, Some(502), Some("connection refused 100%".into()));
                }
                4 => (r.duration_ms, r.client) = (Some(9_000), "claude-cli".into()),
                5 => {
                    (r.state, r.status, r.cost) = (
                        RequestState::ClientGone,
                        None,
                        Some(Cost {
                            usd: Some(NanoUsd(2_000_000_000)),
                            precision: Precision::Exact,
                        }),
                    );
                }
                _ => {}
            }
            entry
        })
        .collect();
    for entry in &entries {
        send(&sink, entry.clone());
    }
    sink.flush().await;
    let reader = ledger.reader().unwrap();
    for text in [
        "",
        "ide",
        "project:ide",
        "project:default state:done",
        "status:5xx",
        "status:200",
        "status:502",
        "key:work",
        "key:spare",
        "key:none",
        "upstream:open",
        "model:smart_",
        "model:smartx",
        "model:gpt",
        ">2s",
        "<2s",
        "cost>1",
        "cost<1",
        "session:",
        "session:none",
        "100%",
        "refused",
        "claude",
        "level:error",
        "state:left",
        "op:chat",
        "client:aider >100ms",
        "%",
        "_",
        "gpt 5-mini",
    ] {
        let filter = Filter::parse(text).unwrap();
        let mut want: Vec<String> = entries
            .iter()
            .filter(|e| filter.matches_request(&e.record))
            .map(|e| e.record.id.to_string())
            .collect();
        want.reverse();
        let got: Vec<String> = reader
            .history(&filter, (None, None), None, 10)
            .unwrap()
            .iter()
            .map(|r| r.id.to_string())
            .collect();
        assert_eq!(got, want, "`{text}`");
    }
    let page = reader.history(&all(), (None, None), Some(entries[3].record.id), 2).unwrap();
    assert_eq!(
        page.iter().map(|r| r.id).collect::<Vec<_>>(),
        [entries[2].record.id, entries[1].record.id]
    );
    ledger.close(&sink).await;
}

#[tokio::test]
async fn daily_sums_equal_the_sums_of_the_requests() {
    let world = TestLedger::new();
    let (sink, ledger, _reports) = world.start();
    for n in 0..50 {
        let mut entry = world.entry(n * 3_600);
        let record = Arc::make_mut(&mut entry.record);
        match n % 10 {
            0 => entry.demo = true,
            1 => record.op = Op::CountTokens,
            2 => (record.cost, entry.bills[1].bill) = (Some(Cost::default()), Bill::default()),
            3 => {
                // The first attempt also had a cost, at another upstream.
                record.attempts[0].upstream = "groq".into();
                entry.bills[0] = AttemptBill {
                    number: 1,
                    reported_model: None,
                    usage: Some(Usage { input: 5, ..Usage::default() }),
                    bill: Bill {
                        cost: Some(NanoUsd(7)),
                        source: CostSource::Config,
                        ..Bill::default()
                    },
                };
                record.cost =
                    Some(Cost { usd: Some(NanoUsd(25_007)), precision: Precision::AtLeast });
                record.usage = Some(Usage {
                    input: 105,
                    cache_read: 20,
                    output: 7,
                    reasoning: 3,
                    ..Usage::default()
                });
            }
            4 => {
                (record.state, record.attempts, entry.bills, record.cost, record.usage) = (
                    RequestState::Failed,
                    Vec::new(),
                    Vec::new(),
                    Some(Cost { usd: Some(NanoUsd::ZERO), precision: Precision::Exact }),
                    None,
                );
            }
            _ => {}
        }
        send(&sink, entry);
    }
    sink.flush().await;
    let reader = ledger.reader().unwrap();
    let now = UnixMillis(1_700_000_000_000 + 51 * 3_600_000);
    let first = UnixMillis(1_699_920_000_000);
    for by in [GroupBy::Project, GroupBy::Upstream, GroupBy::Key, GroupBy::Client, GroupBy::Day] {
        let days = reader.usage(by, TimeRange::Days(30), None, now).unwrap();
        let requests = reader.usage(by, TimeRange::Moment(first), None, now).unwrap();
        assert_eq!(days.rows, requests.rows, "{by:?}");
        assert_eq!(
            (days.total, days.demo, &days.days),
            (requests.total, requests.demo, &requests.days)
        );
    }
    let view = reader.usage(GroupBy::Upstream, TimeRange::Days(30), None, now).unwrap();
    assert_eq!(
        (view.total.requests, view.demo.requests, view.total.unpriced, view.total.at_least),
        (40, 5, 5, 5)
    );
    assert_eq!(view.total.cost, NanoUsd(25_000 * 30 + 7 * 5));
    assert_eq!(
        view.rows.iter().map(|row| row.name.as_str()).collect::<Vec<_>>(),
        ["openai", "groq", ""]
    );
    assert_eq!(view.days.len(), 2, "on the first day nothing was asked that counts");
    assert_eq!(
        reader.usage(GroupBy::Session, TimeRange::Ago(10 * 3_600_000), None, now).unwrap().rows[0]
            .name,
        "s1"
    );
    ledger.close(&sink).await;
}

#[tokio::test]
async fn damaged_file_is_moved_aside_and_reported() {
    for (what, from, bytes) in [
        ("another kind of file", 0, &b"\x89PNG\r\n\x1a\n and so on"[..]),
        ("noise in the middle", 4_096, &[0xA7; 4_096][..]),
        ("noise at the beginning", 0, &[0x5C; 200][..]),
    ] {
        let world = TestLedger::new();
        let (sink, ledger, _reports) = world.start();
        send(&sink, world.entry(1));
        sink.flush().await;
        ledger.close(&sink).await;
        // Without a WAL file, as after a clean shutdown.
        rusqlite::Connection::open(world.path())
            .unwrap()
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
            .unwrap();
        spoil(&world.path(), from, bytes);

        let (sink, ledger, reports) = world.start();
        send(&sink, world.entry(2));
        sink.flush().await;

        let reply = reports.try_recv().unwrap_or_else(|_| panic!("{what}: nothing was reported"));
        assert!(
            reply.contains("damaged") && reply.contains("ledger.db.corrupt-"),
            "{what}: {reply}"
        );
        assert_eq!(
            ledger.reader().unwrap().history(&all(), (None, None), None, 10).unwrap().len(),
            1,
            "{what}"
        );
        let aside = fs::read_dir(world.home.path())
            .unwrap()
            .filter(|e| e.as_ref().unwrap().file_name().to_string_lossy().contains(".corrupt-"))
            .count();
        assert!(aside >= 1, "{what}: the old file is kept");
        assert_eq!(ledger.status(&sink).problem, None);
        ledger.close(&sink).await;
    }
}

#[cfg(unix)]
#[tokio::test]
async fn removed_or_replaced_file_is_reported_and_left_alone() {
    for replaced in [false, true] {
        let world = TestLedger::new();
        let (sink, ledger, reports) = world.start();
        send(&sink, world.entry(1));
        sink.flush().await;
        for file in fs::read_dir(world.home.path()).unwrap() {
            fs::remove_file(file.unwrap().path()).unwrap();
        }
        if replaced {
            drop(fs::File::create(world.path()).unwrap());
        }
        sink.tick();
        send(&sink, world.entry(2));
        sink.flush().await;

        let reply = reports.try_recv().unwrap();
        assert!(reply.contains("removed or replaced"), "{reply}");
        assert!(ledger.status(&sink).replaced_at.is_some());
        assert_eq!(ledger.status(&sink).problem, None);
        send(&sink, world.entry(3));
        sink.flush().await;
        assert_eq!(
            ledger.reader().unwrap().history(&all(), (None, None), None, 10).unwrap().len(),
            2
        );
        assert!(reports.try_recv().is_err(), "it is reported once");
        ledger.close(&sink).await;
    }
}

#[tokio::test]
async fn empty_file_is_a_new_ledger() {
    let world = TestLedger::new();
    drop(fs::File::create(world.path()).unwrap());
    let (sink, ledger, reports) = world.start();
    send(&sink, world.entry(1));
    sink.flush().await;
    assert_eq!(ledger.reader().unwrap().history(&all(), (None, None), None, 10).unwrap().len(), 1);
    assert!(reports.try_recv().is_err());
    ledger.close(&sink).await;
}

#[tokio::test]
async fn unwritable_entries_are_queued_and_written_later() {
    let world = TestLedger::new();
    // A folder at the path of the file acts like a disk that rejects all writes.
    fs::create_dir(world.path()).unwrap();
    let (sink, ledger, reports) = world.start();
    for n in 0..100 {
        send(&sink, world.entry(n));
    }
    sink.flush().await;
    assert!(reports.try_recv().unwrap().contains("held in memory"));
    assert_eq!(
        (ledger.status(&sink).waiting_requests, ledger.status(&sink).lost_requests),
        (100, 0)
    );
    assert!(ledger.status(&sink).problem.is_some());

    fs::remove_dir(world.path()).unwrap();
    sink.flush().await;

    assert_eq!(
        ledger.reader().unwrap().history(&all(), (None, None), None, 1_000).unwrap().len(),
        100
    );
    assert_eq!(
        ledger.status(&sink),
        LedgerStatus { path: world.path().display().to_string(), ..LedgerStatus::default() }
    );
    assert!(reports.try_iter().any(|text| text.contains("written again")));
    ledger.close(&sink).await;
}

#[tokio::test]
async fn full_disk_degrades_and_recovers() {
    let world = TestLedger::new();
    let (sink, ledger, _reports) = world.start();
    send(&sink, world.entry(0));
    sink.flush().await;
    ledger.close(&sink).await;
    // SQLite reports a page limit in the same way as a full disk.
    let mut file = LedgerFile::open(&world.path(), TimeZone::UTC).unwrap();
    let pages: i64 =
        file.connection.pragma_query_value(None, "page_count", |row| row.get(0)).unwrap();
    file.connection.pragma_update(None, "max_page_count", pages).unwrap();
    let notes: Vec<LedgerMessage> =
        (1..500).map(|n| LedgerMessage::Request(Box::new(world.entry(n)))).collect();

    let full = file.write_batch(notes.iter(), &SecretRedactor, UnixMillis(0));
    assert!(
        matches!(&full, Err(StoreError::Transient(text)) if text.contains("disk is full")),
        "{full:?}"
    );

    file.connection.pragma_update(None, "max_page_count", 1_000_000).unwrap();
    file.write_batch(notes.iter(), &SecretRedactor, UnixMillis(0)).unwrap();
    drop(file);
    assert_eq!(
        LedgerReader::open(&world.path(), TimeZone::UTC)
            .unwrap()
            .history(&all(), (None, None), None, 1_000)
            .unwrap()
            .len(),
        500
    );
}

#[tokio::test]
async fn memory_is_bounded_while_nothing_can_be_written() {
    let world = TestLedger::new();
    fs::create_dir(world.path()).unwrap();
    let (sink, ledger, _reports) = world.start();
    let many = u64::try_from(MAX_WAITING_BYTES / REQUEST_BYTES).unwrap() + 1_000;
    for round in 0..many.div_ceil(10_000) {
        for n in 0..10_000.min(many - round * 10_000) {
            send(&sink, world.entry(i64::try_from(n).unwrap()));
        }
        sink.flush().await;
    }
    let status = ledger.status(&sink);
    assert_eq!((status.waiting_requests, status.lost_requests), (many - 1_000, 1_000));
    ledger.close(&sink).await;
}

#[tokio::test]
async fn newer_file_is_not_modified() {
    let world = TestLedger::new();
    let (sink, ledger, _reports) = world.start();
    sink.flush().await;
    ledger.close(&sink).await;
    rusqlite::Connection::open(world.path())
        .unwrap()
        .pragma_update(None, "user_version", 99)
        .unwrap();

    let (sink, ledger, reports) = world.start();
    send(&sink, world.entry(1));
    sink.flush().await;

    assert!(reports.try_recv().unwrap().contains("newer aiproxy"));
    assert!(matches!(ledger.reader(), Err(QueryError::Newer)));
    assert_eq!(ledger.status(&sink).waiting_requests, 1);
    ledger.close(&sink).await;
}

#[tokio::test]
async fn old_entries_are_deleted_and_no_secret_is_left() {
    let world = TestLedger::new();
    let settings = Settings {
        tz: "UTC".to_owned(),
        bodies_total: 200 << 10,
        retention: Duration::from_secs(3_600),
        ..Settings::default()
    };
    let (sink, ledger, _reports) = world.start_with(settings);
    world.clock.advance(Duration::from_secs(7_000));
    let ids: Vec<RequestId> = (0..60)
        .map(|n| {
            let mut entry = world.entry(n * 120);
            Arc::make_mut(&mut entry.record).error = None;
            let id = entry.record.id;
            let noise: String = (0..2_000_u64)
                .map(|k| {
                    format!(
                        "{:x}",
                        (k + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(n as u32)
                    )
                })
                .collect();
            let body = Bytes::from(format!("sk-very-secret {noise}"));
            let capture = sink.capture(id, "application/json", &body, Mono::default()).unwrap();
            sink.submit_bodies(*capture, "application/json", false, Mono::default());
            send(&sink, entry);
            id
        })
        .collect();
    sink.flush().await;
    for _ in 0..10 {
        sink.tick();
        sink.flush().await;
    }

    let reader = ledger.reader().unwrap();
    let left = reader.history(&all(), (None, None), None, 1_000).unwrap();
    assert!(left.len() < 35 && left.len() > 20, "{} requests are younger than an hour", left.len());
    let bodies = |id: RequestId| {
        reader.request_detail(&id.to_string()).map(|full| full.bodies.len()).unwrap_or(0)
    };
    assert_eq!((bodies(ids[59]), bodies(ids[40])), (1, 0), "the youngest bodies stay");
    assert!(
        reader.request_detail(&ids[59].to_string()).unwrap().bodies[0]
            .head
            .starts_with("[redacted] ")
    );
    let days = reader.usage(GroupBy::Day, TimeRange::Days(3), None, world.clock.unix()).unwrap();
    assert_eq!(days.total.requests, 60, "sums outlive the requests");
    ledger.close(&sink).await;
    for entry in fs::read_dir(world.home.path()).unwrap() {
        let bytes = fs::read(entry.unwrap().path()).unwrap();
        assert!(memchr::memmem::find(&bytes, b"sk-very-secret").is_none());
    }
}

#[tokio::test]
async fn slow_query_can_be_cancelled() {
    let world = TestLedger::new();
    let (sink, ledger, _reports) = world.start();
    sink.flush().await;
    let reader = ledger.reader().unwrap();
    let interrupter = reader.interrupt_handle();
    let endless =
        "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n";
    let asking = std::thread::spawn(move || {
        reader.connection.query_row(endless, [], |row| row.get::<_, i64>(0))
    });
    // An interrupt before the query has begun has no effect.
    while !asking.is_finished() {
        interrupter.interrupt();
        std::thread::yield_now();
    }

    let error = asking.join().unwrap().unwrap_err();
    assert_eq!(
        error.sqlite_error_code(),
        Some(rusqlite::ErrorCode::OperationInterrupted),
        "{error}"
    );
    ledger.close(&sink).await;
}
