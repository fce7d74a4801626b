//! Measures the ledger: `cargo bench --bench ledger [-- ROWS]` writes a million requests and
//! queries totals. Fails if totals by day take longer than the bound.
#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a program that measures and prints"
)]

use std::{
    borrow::Cow,
    sync::Arc,
    time::{Duration, Instant},
};

use aiproxy::{
    base::{
        clock::{SystemClock, UnixMillis},
        id::RequestId,
        money::NanoUsd,
        redact::Redactor,
    },
    config::settings::LedgerSettings as Settings,
    events::{
        filter::Filter,
        ledger_queue::{AttemptBill, BodyPolicy, LedgerEntry, LedgerMessage, LedgerQueue},
        record::{AttemptRecord, AttemptRole, RequestRecord, RequestState},
    },
    ir::{
        cost::{Bill, Cost, CostSource, Precision},
        op::{Dialect, Op},
        reason::route::RouteReason,
        usage::Usage,
    },
    ledger::{Ledger, WriterConfig, time_range::TimeRange, totals::GroupBy},
};

/// Upper bound for `usage` over all rows.
const BOUND: Duration = Duration::from_millis(200);
/// Seven seconds between two requests: a million requests take eighty days.
const REQUEST_GAP_MS: i64 = 7_000;
const START: i64 = 1_700_000_000_000;

struct Plain;

impl Redactor for Plain {
    fn redact<'a>(&self, text: &'a str) -> Cow<'a, str> {
        Cow::Borrowed(text)
    }
}

fn entry(n: i64) -> Box<LedgerEntry> {
    let at = UnixMillis(START + n * REQUEST_GAP_MS);
    let bill = Bill {
        cost: Some(NanoUsd(25_000)),
        precision: Precision::Exact,
        source: CostSource::Builtin,
        computed: Some(NanoUsd(25_000)),
        reported: None,
        price: None,
    };
    let model: Arc<str> = format!("model-{}", n % 10).into();
    let record = RequestRecord {
        id: RequestId::new(at),
        at,
        project: if n % 2 == 0 { "ide".into() } else { "default".into() },
        client: format!("client-{}", n % 5).into(),
        dialect: Dialect::Openai,
        op: Op::Chat,
        requested_model: Arc::clone(&model),
        stream: true,
        session: Some(format!("s{}", n / 50).into()),
        user: None,
        ip: None,
        request_bytes: 1_000,
        state: RequestState::Done,
        attempts: vec![AttemptRecord {
            number: 1,
            upstream: "openai".into(),
            key: format!("key-{}", n % 3).into(),
            fingerprint: "sk-…9f2c".into(),
            model,
            started_ms: 1,
            head_ms: Some(5),
            ended_ms: Some(500),
            status: Some(200),
            outcome: None,
            won: true,
            maybe_billed: false,
            has_affinity: false,
            role: AttemptRole::Primary,
        }],
        reason: Some(RouteReason::text("the only candidate").into()),
        ttft_ms: Some(40),
        duration_ms: Some(500),
        status: Some(200),
        usage: Some(Usage {
            input: 100,
            cache_read: 20,
            output: 7,
            reasoning: 3,
            ..Usage::default()
        }),
        cost: Some(Cost { usd: Some(NanoUsd(25_000)), precision: Precision::Exact }),
        finish: Some("stop".into()),
        answer_bytes: 999,
        events: 7,
        error: None,
        cache_miss: None,
    };
    let parts = vec![AttemptBill { number: 1, reported_model: None, usage: record.usage, bill }];
    Box::new(LedgerEntry { record: Arc::new(record), bills: parts, demo: false, replay_of: None })
}

/// Returns the CPU time of the whole process or of this thread.
fn processor(clock: rustix::time::ClockId) -> Duration {
    let at = rustix::time::clock_gettime(clock);
    Duration::new(u64::try_from(at.tv_sec).unwrap_or(0), u32::try_from(at.tv_nsec).unwrap_or(0))
}

fn other_threads_cpu_time() -> Duration {
    use rustix::time::ClockId::{ProcessCPUTime, ThreadCPUTime};
    processor(ProcessCPUTime).saturating_sub(processor(ThreadCPUTime))
}

fn main() {
    let rows: i64 = std::env::args().skip(1).find_map(|arg| arg.parse().ok()).unwrap_or(1_000_000);
    let home = tempfile::tempdir().expect("a folder");
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (sink, notes) = LedgerQueue::new();
    sink.set_policy(BodyPolicy::None, 0);
    let settings = Settings {
        tz: "UTC".to_owned(),
        retention: Duration::from_secs(3_650 * 86_400),
        ..Settings::default()
    };
    let start = WriterConfig {
        path: home.path().join("ledger.db"),
        settings,
        messages: notes,
        clock: Arc::new(SystemClock),
        redactor: Arc::new(Plain),
        report: Box::new(|_, text| println!("{text}")),
        on_request: Box::new(|_| ()),
    };
    let ledger = Ledger::start(start).expect("a thread");

    let (begun, busy) = (Instant::now(), other_threads_cpu_time());
    for n in 0..rows {
        let slot = loop {
            match sink.reserve_slot() {
                Some(slot) => break slot,
                // The queue is full: wait until the writer thread catches up.
                None => runtime.block_on(sink.flush()),
            }
        };
        slot.send(LedgerMessage::Request(entry(n)));
        if n % 4_096 == 0 {
            runtime.block_on(sink.flush());
        }
    }
    runtime.block_on(sink.flush());
    let each = (other_threads_cpu_time() - busy).as_secs_f64() * 1e6 / rows as f64;
    println!(
        "{rows} rows in {:?}, {each:.1} µs of the processor each, off the way of requests",
        begun.elapsed()
    );

    let now = UnixMillis(START + rows * REQUEST_GAP_MS);
    let mut late = Vec::new();
    for (by, since, bound) in [
        (GroupBy::Model, TimeRange::Days(1), Some(BOUND)),
        (GroupBy::Model, TimeRange::Days(90), Some(BOUND)),
        (GroupBy::Project, TimeRange::Days(365), Some(BOUND)),
        (GroupBy::Day, TimeRange::Days(365), Some(BOUND)),
        (GroupBy::Key, TimeRange::Days(365), Some(BOUND)),
        // These queries read the rows of the last day and week.
        (GroupBy::Model, TimeRange::Ago(86_400_000), Some(BOUND)),
        (GroupBy::Session, TimeRange::Days(7), None),
    ] {
        let begun = Instant::now();
        let view =
            ledger.reader().and_then(|reader| reader.usage(by, since, None, now)).expect("sums");
        let took = begun.elapsed();
        println!("usage by {:<8} {since:?}: {took:?}, {} requests", by.name(), view.total.requests);
        if bound.is_some_and(|bound| took > bound) {
            late.push(by.name());
        }
    }
    for filter in ["", "model:model-3 project:ide", "status:5xx", "nothing-like-it"] {
        let begun = Instant::now();
        let filter = Filter::parse(filter).expect("a filter");
        let found = ledger
            .reader()
            .and_then(|reader| reader.history(&filter, (None, None), None, 50))
            .expect("rows")
            .len();
        println!("history `{}`: {:?}, {found} rows", filter.text(), begun.elapsed());
    }
    runtime.block_on(ledger.close(&sink));
    assert!(late.is_empty(), "sums took longer than {BOUND:?}: {late:?}");
}
