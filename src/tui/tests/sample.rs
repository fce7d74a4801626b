//! Sample data for tests: three upstreams in different states and some requests.

use std::{sync::Arc, time::Duration};

use crate::tui::{
    app::{App, ConnState},
    format::FrameContext,
    msg::Msg,
    screen::Screen,
    update::update,
};
use crate::{
    base::{clock::UnixMillis, id::RequestId, money::NanoUsd},
    control::{
        history::UsageReport,
        request_transcript::{PartKind, RequestTranscript, Speaker, TranscriptPart},
        snapshot::{
            BalanceView, ConfigView, KeyStatus, KeyView, LimitRemaining, ModelScope, ModelView,
            PriceView, ProbeView, Snapshot, UpstreamState, UpstreamStats, UpstreamView,
        },
    },
    events::{
        event::Severity,
        live::{Live, LiveTotals},
        log_line::LogLine,
        log_message::{LogMessage, RequestEnd, RequestSummary},
        record::{AttemptRecord, AttemptRole, CacheMissRecord, RequestRecord, RequestState},
        status_message::{health::HealthMessage, notice::NoticeMessage},
    },
    ir::reason::{
        cache_miss::MissCause,
        failure::{ConnectionProblem, FailureReason, RaceWinner},
        route::{ChoiceReason, ChosenRoute, NameSource, RouteReason},
        span::Span,
    },
};

/// 2023-11-14 22:13:20 UTC.
pub(in crate::tui) const NOW: UnixMillis = UnixMillis(1_700_000_000_000);

/// Parses a value whose type is inferred.
fn parse<T: serde::de::DeserializeOwned>(json: &str) -> T {
    serde_json::from_str(json).unwrap()
}

pub(in crate::tui) fn frame_context() -> FrameContext {
    FrameContext { at: NOW, ..FrameContext::default() }
}

pub(in crate::tui) fn frame_context_after(ms: i64) -> FrameContext {
    FrameContext { at: UnixMillis(NOW.0 + ms), ..FrameContext::default() }
}

pub(in crate::tui) fn request_id(n: u64) -> RequestId {
    RequestId::parse(&format!("018bcfe56800{n:08x}")).unwrap()
}

pub(in crate::tui) fn attempt(
    number: u32,
    upstream: &str,
    key: &str,
    model: &str,
    started_ms: u32,
) -> AttemptRecord {
    AttemptRecord {
        number,
        role: AttemptRole::Primary,
        has_affinity: false,
        upstream: upstream.into(),
        key: key.into(),
        fingerprint: "sk-…9f2c".into(),
        model: model.into(),
        started_ms,
        head_ms: None,
        ended_ms: None,
        status: None,
        outcome: None,
        won: false,
        maybe_billed: false,
    }
}

/// The route of a request to the only candidate.
fn chosen_route() -> RouteReason {
    RouteReason::Chosen(ChosenRoute {
        attempt: None,
        name: NameSource::LogicalModel.into(),
        choice: ChoiceReason::Only,
        priority: 10,
        translated_to: None,
        skipped: Vec::new(),
        more_skipped: 0,
    })
}

/// A rate limit whose response names no code.
fn rate_limited() -> Arc<FailureReason> {
    let model = Some("chat-limited".into());
    FailureReason::Refused { status: 429, code: None, model }.into()
}

pub(in crate::tui) fn running(
    n: u64,
    requested: &str,
    upstream: &str,
    state: RequestState,
) -> RequestRecord {
    let started = state != RequestState::Queued;
    RequestRecord {
        cache_miss: None,
        id: request_id(100 + n),
        at: UnixMillis(NOW.0 - 9_000 + n as i64 * 1_000),
        project: "ide".into(),
        client: "claude-cli".into(),
        dialect: parse("\"openai\""),
        op: parse("\"chat\""),
        requested_model: requested.into(),
        stream: true,
        session: None,
        user: None,
        ip: None,
        request_bytes: 2_300,
        state,
        attempts: if started {
            vec![attempt(1, upstream, "work", requested, 12)]
        } else {
            Vec::new()
        },
        reason: Some(chosen_route().into()),
        ttft_ms: (state == RequestState::Streaming).then_some(410),
        duration_ms: None,
        status: (state == RequestState::Streaming).then_some(200),
        usage: None,
        cost: None,
        finish: None,
        answer_bytes: 0,
        events: if state == RequestState::Streaming { 512 } else { 0 },
        error: None,
    }
}

pub(in crate::tui) fn finished(
    n: u64,
    requested: &str,
    upstream: &str,
    status: u16,
    took_ms: u32,
) -> RequestRecord {
    let ok = status < 400;
    let mut r = running(
        n,
        requested,
        upstream,
        if ok { RequestState::Streaming } else { RequestState::Failed },
    );
    r.id = request_id(n);
    r.at = UnixMillis(NOW.0 - 120_000 + n as i64 * 10_000);
    r.state = if ok { RequestState::Done } else { RequestState::Failed };
    r.status = Some(status);
    r.duration_ms = Some(took_ms);
    r.ttft_ms = ok.then_some(350);
    r.cost = ok.then(|| parse(r#"{"usd":21400000,"sure":"exact"}"#));
    r.usage = ok.then(|| parse(r#"{"input":901,"cache_read":11000,"cache_write_5m":0,"cache_write_1h":0,"output":340,"reasoning":0}"#));
    r.finish = ok.then(|| "stop".into());
    r.error = (!ok).then(|| "connection refused by 127.0.0.1:9".into());
    if let Some(a) = r.attempts.last_mut() {
        a.ended_ms = Some(took_ms);
        a.status = Some(status);
        a.won = ok;
        let address = "127.0.0.1:9".into();
        let refused = FailureReason::Connection { problem: ConnectionProblem::Refused, address };
        a.outcome = (!ok).then(|| refused.into());
    }
    r
}

pub(in crate::tui) fn live() -> Live {
    let mut retried = finished(7, "auto", "healthy", 200, 6_200);
    let mut first = attempt(1, "limited", "LIMITED_KEY", "chat-limited", 3);
    first.ended_ms = Some(380);
    first.status = Some(429);
    first.outcome = Some(
        FailureReason::RefusedWith {
            cause: rate_limited(),
            message: "slow down".into(),
            cooling: Some(Span(Duration::from_secs(120))),
        }
        .into(),
    );
    let mut second = attempt(2, "healthy", "work", "chat-large", 384);
    second.head_ms = Some(720);
    second.ended_ms = Some(6_200);
    second.status = Some(200);
    second.won = true;
    retried.attempts = vec![first, second];
    let mut hedged = finished(3, "chat-large", "healthy", 200, 900);
    let mut slow = attempt(1, "limited", "LIMITED_KEY", "chat-limited", 2);
    slow.ended_ms = Some(900);
    slow.outcome = Some(FailureReason::LostRace { winner: RaceWinner::Second }.into());
    slow.maybe_billed = true;
    let mut quick = attempt(2, "healthy", "work", "chat-large", 420);
    (quick.role, quick.won, quick.status) = (AttemptRole::Hedge, true, Some(200));
    (quick.head_ms, quick.ended_ms) = (Some(700), Some(900));
    hedged.attempts = vec![slow, quick];
    let mut colder = finished(6, "chat-large", "healthy", 200, 1_000);
    colder.session = Some("talk-1".into());
    colder.attempts[0].has_affinity = true;
    colder.cache_miss = Some(Box::new(CacheMissRecord {
        cause: MissCause::ToolOrder.into(),
        expected: 24_000,
        cached: 11_000,
        cost: Some(NanoUsd(35_100_000)),
        is_benign: false,
    }));
    let mut left = finished(4, "claude-sonnet-4-5", "healthy", 200, 3_000);
    left.state = RequestState::ClientGone;
    left.project = "agent".into();
    let line =
        |ago: i64, level, message, id| LogLine::new(UnixMillis(NOW.0 - ago), level, message, id);
    let ended = |model: &str, status, target: &str, duration_ms, end| LogMessage::Ended {
        summary: RequestSummary {
            project: "ide".into(),
            model: model.into(),
            status: Some(status),
            target: Some(target.into()),
            duration_ms,
            end,
        },
    };
    let cools = HealthMessage::Cools {
        name: "limited/LIMITED_KEY".into(),
        account: false,
        span: Span(Duration::from_secs(120)),
        cause: rate_limited(),
        model: None,
    };
    let running = [
        running(1, "essay", "healthy", RequestState::Streaming),
        running(2, "gpt-5-mini", "healthy", RequestState::Waiting),
    ];
    let mut live = Live { seq: 41, running: running.into_iter().collect(), ..Live::default() };
    live.recent = [
        finished(1, "chat-large", "healthy", 200, 1_200),
        finished(2, "chat-dead", "dead", 502, 12_000),
        hedged,
        left,
        finished(5, "broken", "healthy", 400, 40),
        colder,
        retried,
        finished(8, "deepseek-ai/deepseek-r1-distill-llama-70b", "healthy", 200, 2_000),
    ]
    .map(Arc::new)
    .into();
    live.lines = [
        line(
            90_000,
            Severity::Info,
            LogMessage::Notice { notice: NoticeMessage::NetworkBack.into() },
            None,
        ),
        line(50_000, Severity::Warn, LogMessage::Health { change: cools.into() }, None),
        line(
            49_000,
            Severity::Info,
            ended("auto", 200, "healthy/work", 6_200, RequestEnd::Done),
            Some(request_id(7)),
        ),
        line(
            48_000,
            Severity::Error,
            ended(
                "chat-dead",
                502,
                "dead/work",
                12_000,
                RequestEnd::Failed { error: "connection refused".into() },
            ),
            Some(request_id(2)),
        ),
    ]
    .into();
    live.totals = LiveTotals {
        requests: 214,
        failed: 2,
        input: 1_200_000,
        cached: 852_000,
        affinity_cached: 612_000,
        output: 12_000,
        ..LiveTotals::default()
    };
    live
}

fn upstream(name: &str, state: UpstreamState) -> UpstreamView {
    UpstreamView {
        name: name.to_owned(),
        dialects: vec!["openai".to_owned()],
        base_url: "http://127.0.0.1:9/v1".to_owned(),
        origin: parse("\"file\""),
        priority: 10,
        state,
        cause: None,
        until: None,
        keys_ready: 1,
        keys: 1,
        stats: UpstreamStats {
            attempts: 240,
            errors: 1,
            ttft_p50_ms: Some(380),
            ttft_p95_ms: Some(1_900),
            spark: (0..15).map(|n| (n * 3 % 11, 0)).collect(),
        },
        models: Some(41),
        probe: (name == "limited").then(|| ProbeView {
            path: "/models".to_owned(),
            every_ms: 60_000,
            at: UnixMillis(NOW.0 - 12_000),
            took_ms: 41,
            message: "200".to_owned(),
            ok: true,
        }),
    }
}

fn key(upstream: &str, label: &str) -> KeyView {
    KeyView {
        upstream: upstream.to_owned(),
        label: label.to_owned(),
        account: upstream.to_owned(),
        fingerprint: "sk-…9f2c".to_owned(),
        reference: format!("env:{label}"),
        state: KeyStatus::Ok,
        cause: None,
        until: None,
        since: None,
        from_provider: false,
        scopes: Vec::new(),
        requests: 1_204,
        tokens: 48_200,
        running: 0,
        balance: (label == "work").then(|| BalanceView {
            amount: 12.3,
            currency: "USD".to_owned(),
            text: "$12.30".to_owned(),
            low: false,
            at: UnixMillis(NOW.0 - 90_000),
        }),
        limits: Vec::new(),
    }
}

pub(in crate::tui) fn snapshot() -> Snapshot {
    let mut dead = upstream("dead", UpstreamState::Open);
    dead.cause = Some(
        FailureReason::Connection {
            problem: ConnectionProblem::Refused,
            address: "127.0.0.1:9".into(),
        }
        .into(),
    );
    dead.until = Some(UnixMillis(NOW.0 + 12_000));
    dead.stats = UpstreamStats {
        attempts: 3,
        errors: 3,
        spark: (0..15).map(|n| if n > 10 { (2, 2) } else { (0, 0) }).collect(),
        ..UpstreamStats::default()
    };
    dead.models = None;
    let mut limited = key("limited", "LIMITED_KEY");
    limited.state = KeyStatus::Partly;
    limited.scopes = vec![ModelScope {
        model: "chat-limited".to_owned(),
        state: KeyStatus::Cooling,
        cause: Some(rate_limited()),
        until: Some(UnixMillis(NOW.0 + 88_000)),
        since: Some(UnixMillis(NOW.0 - 32_000)),
        from_provider: true,
    }];
    let mut work = key("healthy", "work");
    let limit = |what: &str, limit: u64, remaining: u64| LimitRemaining {
        model: "chat-large".to_owned(),
        kind: what.to_owned(),
        limit: Some(limit),
        remaining,
        until: UnixMillis(NOW.0 + 30_000),
    };
    work.limits = vec![limit("requests", 60, 3), limit("tokens", 200_000, 182_000)];
    let model = |name: &str, kind: &str, targets: &[&str]| ModelView {
        name: name.to_owned(),
        kind: kind.to_owned(),
        targets: targets.iter().map(|t| (*t).to_owned()).collect(),
        price: (kind == "logical").then(|| PriceView {
            currency: "USD".to_owned(),
            input: "0.25".to_owned(),
            output: Some("2".to_owned()),
        }),
    };
    Snapshot {
        version: "0.1.0".to_owned(),
        pid: 4_711,
        at: NOW,
        started: UnixMillis(NOW.0 - 11_520_000),
        listen: vec!["127.0.0.1:8642".to_owned()],
        config: ConfigView {
            path: Some("/home/ann/.config/aiproxy/config.toml".to_owned()),
            applied: UnixMillis(NOW.0 - 600_000),
            ..ConfigView::default()
        },
        upstreams: vec![
            upstream("healthy", UpstreamState::Healthy),
            upstream("limited", UpstreamState::Healthy),
            dead,
        ],
        keys: vec![work, limited, key("dead", "DEAD_KEY")],
        models: vec![
            model(
                "auto",
                "logical",
                &["limited:chat-limited", "dead:chat-dead", "healthy:chat-large"],
            ),
            model("essay", "logical", &["healthy:fault-infinite--s1"]),
            model("chat-large", "discovered", &["healthy:chat-large"]),
        ],
        projects: vec!["default".to_owned(), "ide".to_owned()],
        live: live(),
        offline: false,
        draining: false,
        ledger: Some(parse(
            r#"{"path":"/home/ann/.local/share/aiproxy/ledger.db","trouble":null,"waiting":0,"lost":0}"#,
        )),
        alerts: Vec::new(),
        budgets: parse(&format!(
            r#"[{{"of":"all","per":"month","usd":20000000000,"spent":21400000000,"reserved":0,"percent":107,"unpriced":0,"from":0,"until":{end}}},
                {{"of":"project ide","per":"day","usd":5000000000,"spent":4100000000,"reserved":0,"percent":82,"unpriced":0,"from":0,"until":{end}}},
                {{"of":"key healthy/work","per":"total","usd":10000000000,"spent":920000000,"reserved":0,"percent":9,"unpriced":3,"from":0,"until":null}}]"#,
            end = NOW.0 + 6_480_000
        )),
    }
}

fn totals_json(requests: u64, input: u64, cached: u64, output: u64, nano: i64) -> String {
    format!(
        r#""requests":{requests},"failed":{},"attempts":{requests},"input":{input},"cache_read":{cached},"cache_write_5m":0,"cache_write_1h":0,"output":{output},"reasoning":120,"cost":{nano},"unpriced":0,"estimated":0,"at_least":0,"won":{}"#,
        requests / 50,
        cached / 2
    )
}

/// Usage totals of one week, as from the ledger.
pub(in crate::tui) fn usage_report(by: &str) -> UsageReport {
    let row = |name: &str, sums: String| format!(r#"{{"name":"{name}",{sums}}}"#);
    let rows = match by {
        "key" => vec![row("healthy/work", totals_json(61, 210_000, 64_000, 19_000, 920_000_000))],
        _ => vec![
            row("claude-sonnet-4-5", totals_json(122, 200_000, 900_000, 48_200, 1_310_000_000)),
            row("gpt-5-mini", totals_json(61, 146_000, 64_000, 19_000, 402_000_000)),
            row("deepseek-r1", totals_json(20, 88_000, 0, 11_400, 128_000_000)),
            row("通义千问-max", totals_json(2, 900, 0, 1_400, 300_000)),
        ],
    };
    let days = [
        row("2023-11-09", totals_json(20, 80_000, 0, 11_400, 900_000_000)),
        row("2023-11-10", totals_json(61, 210_000, 64_000, 19_000, 402_000_000)),
        row("2023-11-14", totals_json(122, 200_000, 900_000, 48_200, 1_840_000_000)),
    ];
    let rate = |name: &str, n: u64| {
        let requests: Vec<u64> = (0..30).map(|minute| (minute * n) % 7).collect();
        let tokens: Vec<u64> = requests.iter().map(|count| count * 900).collect();
        format!(r#"{{"name":"{name}","requests":{requests:?},"tokens":{tokens:?}}}"#)
    };
    let rates = [rate("healthy/work", 3), rate("claude-sonnet-4-5", 4), rate("gpt-5-mini", 2)];
    parse(&format!(
        r#"{{"by":"{by}","rates":[{}],"from":0,"until":{},"tz":"UTC","rows":[{}],"total":{{{}}},"days":[{}],"demo":{{{}}}}}"#,
        rates.join(","),
        NOW.0,
        rows.join(","),
        totals_json(205, 434_900, 964_000, 80_000, 1_840_300_000),
        days.join(","),
        totals_json(0, 0, 0, 0, 0)
    ))
}

fn transcript_part(who: Speaker, kind: PartKind, name: &str, text: &str) -> TranscriptPart {
    TranscriptPart {
        speaker: who,
        kind,
        name: name.to_owned(),
        text: text.to_owned(),
        chars: text.chars().count() as u64,
    }
}

/// The transcript of a request.
pub(in crate::tui) fn transcript(id: RequestId) -> RequestTranscript {
    let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let mut system = transcript_part(
        Speaker::System,
        PartKind::Text,
        "",
        "You are a careful engineer. Read before you write.",
    );
    system.chars = 4_102;
    RequestTranscript {
        id,
        request_headers: vec![
            header("user-agent", "claude-cli/2.1 (external, cli)"),
            header("anthropic-beta", "interleaved-thinking-2025-05-14"),
        ],
        response_headers: vec![
            header("content-type", "text/event-stream"),
            header("x-aiproxy-losses", "logit_bias, user"),
        ],
        conversation: vec![
            system,
            transcript_part(
                Speaker::User,
                PartKind::Text,
                "",
                "fix the flaky test in relay; it fails about once in ten runs",
            ),
            transcript_part(
                Speaker::Assistant,
                PartKind::Thinking,
                "",
                "The clock is read twice there.",
            ),
            transcript_part(
                Speaker::Assistant,
                PartKind::Call,
                "Bash",
                r#"{"command":"cargo test it::relay"}"#,
            ),
            transcript_part(
                Speaker::Tool,
                PartKind::Result,
                "Bash",
                "exit 101\nthread 'main' panicked at src/relay.rs:42",
            ),
        ],
        answer: vec![
            transcript_part(
                Speaker::Assistant,
                PartKind::Thinking,
                "",
                "So the second reading may be later than the first.",
            ),
            transcript_part(
                Speaker::Assistant,
                PartKind::Text,
                "",
                "I'll look at the failing test first.\n\nThe clock in `relay` is read twice; 我先看一下失败的测试。",
            ),
        ],
        bodies_stored: true,
        only_answer: false,
        raw: false,
        record: None,
    }
}

/// A dashboard that has just received its first snapshot.
pub(in crate::tui) fn app() -> App {
    let mut app = App::new(Screen::Live, false);
    update(&mut app, Msg::Snapshot(Box::new(snapshot())), frame_context());
    update(&mut app, Msg::Today(Ok(Box::new(usage_report("key")))), frame_context());
    update(&mut app, Msg::Usage(Ok(Box::new(usage_report("model")))), frame_context());
    assert_eq!(app.connection, ConnState::Connected);
    app
}
