//! Words every variant of every reason and message in both languages.

use std::{collections::BTreeSet, fmt::Display, sync::Arc, time::Duration};

use serde::{Serialize, de::DeserializeOwned};

use crate::{
    base::{id::RequestId, money::NanoUsd},
    control::action_message::{ActionMessage, AlertTestResult},
    events::{
        log_message::{LogMessage, RequestEnd, RequestSummary},
        record::CacheMissRecord,
        status_message::{
            health::HealthMessage,
            notice::NoticeMessage,
            reload::{ReloadCause, ReloadMessage},
        },
    },
    ir::{
        cost::Period,
        op::{Dialect, Op},
        rate_limit::LimitKind,
        reason::{
            budget::{BudgetBlock, Holder},
            cache_miss::{MissCause, PrefixRole},
            failure::{BodyProblem, ConnectionProblem, CooldownClass, FailureReason, RaceWinner},
            missing_secret::MissingSecret,
            route::{ChoiceReason, ChosenRoute, NameSource, RouteReason, SkippedCandidate},
            skip::{ConfiguredLimit, MissingCapability, ScopeKind, SkipReason},
            span::Span,
            unused_variable::UnusedVariable,
        },
        repair::Repair,
    },
    tui::{format::short_id, reason_words::ReasonWords, strings::Lang},
};

fn name(text: &str) -> Arc<str> {
    text.into()
}

fn span(seconds: u64) -> Span {
    Span(Duration::from_secs(seconds))
}

fn id() -> RequestId {
    RequestId::parse("018bcfe56800000000a7").unwrap()
}

fn usd(cents: i64) -> NanoUsd {
    NanoUsd(cents * 10_000_000)
}

fn cause() -> Arc<FailureReason> {
    Arc::new(FailureReason::Connection {
        problem: ConnectionProblem::Refused,
        address: name("127.0.0.1:9"),
    })
}

/// The names of an enum's variants on the wire, from the error that its reader gives.
fn variants<T: DeserializeOwned>(tag: Option<&str>) -> BTreeSet<String> {
    let json = match tag {
        Some(tag) => format!(r#"{{"{tag}":"?"}}"#),
        None => r#""?""#.to_owned(),
    };
    let Err(error) = serde_json::from_str::<T>(&json) else { panic!("`?` is a variant") };
    let error = error.to_string();
    let names = error.split_once("expected").expect("a list of variants").1;
    names.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The variants of these values.
fn kinds<T: Serialize>(values: &[T]) -> BTreeSet<String> {
    let kind = |value: &T| match serde_json::to_value(value).unwrap() {
        serde_json::Value::String(name) => name,
        value => value["kind"].as_str().unwrap().to_owned(),
    };
    values.iter().map(kind).collect()
}

/// Words the values in both languages. The English words are those of the log, apart from the
/// short ids; the Chinese ones have Chinese characters unless the value is a text from outside.
fn assert_worded<T: ReasonWords + Display>(values: &[T]) {
    for value in values {
        let english = value.to_string();
        let shown = english.replace(&id().to_string(), &short_id(id()));
        assert_eq!(value.words(Lang::English.texts()), shown);
        let chinese = value.words(Lang::Chinese.texts());
        let is_chinese = chinese.chars().any(|c| ('\u{4e00}'..='\u{9fff}').contains(&c));
        let is_foreign = english.starts_with("foreign");
        assert_ne!(is_chinese, is_foreign, "{english}: {chinese}");
        assert!(!chinese.contains(['{', '}']), "{chinese}");
    }
}

fn assert_all_worded<T: ReasonWords + Display + Serialize + DeserializeOwned>(values: &[T]) {
    assert_eq!(kinds(values), variants::<T>(Some("kind")));
    assert_worded(values);
}

fn connection_problems() -> Vec<ConnectionProblem> {
    use ConnectionProblem as P;
    vec![
        P::ClosedBeforeResponse,
        P::ClosedByUpstream,
        P::ClosedInHead,
        P::ClosedInHandshake,
        P::ClosedWhenMade,
        P::Dead,
        P::HeadTooLarge,
        P::NetworkLost,
        P::NetworkUnreachable,
        P::NoAnswer,
        P::NoConnection,
        P::NoRoute,
        P::NotHttp2,
        P::OutOfFiles,
        P::Refused,
        P::ResetBeforeResponse,
        P::ResetWhileConnecting,
        P::Stale,
        P::TimedOut,
    ]
}

#[test]
fn failures_are_worded_in_both_languages() {
    let refused = FailureReason::Refused { status: 429, code: None, model: Some(name("m")) };
    let with = |cooling| FailureReason::RefusedWith {
        cause: cause(),
        message: name("slow down"),
        cooling,
    };
    let body = |problem| FailureReason::Body { upstream: name("openai"), problem };
    let spent = |per| FailureReason::BudgetSpent { spent: usd(501), limit: usd(500), per };
    let mut all = vec![
        FailureReason::AtProxy { cause: cause() },
        FailureReason::BrokeOff { characters: 41, cause: cause() },
        FailureReason::ConnectTimeout { waited: span(10), address: name("a:443") },
        FailureReason::CooledByHand,
        FailureReason::Idle { waited: span(60) },
        FailureReason::Incomplete { half: false },
        FailureReason::Incomplete { half: true },
        FailureReason::Killed,
        FailureReason::LostRace { winner: RaceWinner::First },
        FailureReason::LostRace { winner: RaceWinner::Second },
        FailureReason::MissingSecret { secret: MissingSecret::Unsendable.into() },
        FailureReason::NoAnswer { half: false },
        FailureReason::NoAnswer { half: true },
        FailureReason::NoContent { waited: span(30) },
        FailureReason::Probe { path: name("/models"), cause: cause() },
        with(None),
        with(Some(span(41))),
        FailureReason::ShuttingDown,
        FailureReason::text("foreign text"),
        FailureReason::TooLarge { limit: 100 },
        FailureReason::Truncated,
        FailureReason::Unfinished,
        FailureReason::Unresolved { host: name("nowhere.example") },
    ];
    all.extend(
        [
            BodyProblem::BrokeOff,
            BodyProblem::ConnectionDead,
            BodyProblem::CutOff,
            BodyProblem::MalformedChunk,
        ]
        .map(body),
    );
    all.extend([Period::Day, Period::Week, Period::Month, Period::Total].map(spent));
    all.extend(
        connection_problems()
            .into_iter()
            .map(|problem| FailureReason::Connection { problem, address: name("a:443") }),
    );
    assert_eq!(kinds(&connection_problems()), variants::<ConnectionProblem>(None));
    assert_worded(&all);

    let mut named = all;
    named.push(refused.clone());
    assert_eq!(kinds(&named), variants::<FailureReason>(Some("kind")));
    assert_eq!(refused.words(Lang::English.texts()), refused.to_string());
    assert_eq!(refused.words(Lang::Chinese.texts()), "429（m）");
    for plain in [
        FailureReason::Refused { status: 429, code: Some(name("rate")), model: None },
        FailureReason::Refused { status: 429, code: None, model: None },
    ] {
        assert_eq!(plain.words(Lang::Chinese.texts()), plain.to_string());
    }
}

#[test]
fn missing_secrets_are_worded_in_both_languages() {
    let (upstream, hint) = (name("openai"), name("a hint"));
    assert_all_worded(&[
        MissingSecret::EmptyVariable { upstream: Arc::clone(&upstream), name: name("K") },
        MissingSecret::NoKey { upstream: Arc::clone(&upstream) },
        MissingSecret::NotInKeyring { label: name("openai/work"), hint: Arc::clone(&hint) },
        MissingSecret::NoFile { path: name("/k"), hint },
        MissingSecret::Unsendable,
        MissingSecret::UnsetVariable { upstream, name: name("K") },
        MissingSecret::Other { text: name("密 locked"), hint: name("unlock it") },
    ]);
}

fn blocks() -> Vec<BudgetBlock> {
    let holders = [
        Holder::All,
        Holder::Project(name("ide")),
        Holder::Upstream(name("openai")),
        Holder::Key(name("openai/work")),
    ];
    let reserved = |holder| BudgetBlock::Reserved { holder, limit: usd(500), per: Period::Day };
    let spent = |again_in| BudgetBlock::Spent {
        holder: Holder::All,
        spent: usd(501),
        limit: usd(500),
        per: Period::Total,
        again_in,
    };
    let mut all: Vec<_> = holders.into_iter().map(reserved).collect();
    all.extend([spent(None), spent(Some(span(90)))]);
    all.push(BudgetBlock::Unpriced { holder: Holder::All, model: name("openai/m") });
    all
}

#[test]
fn skips_are_worded_in_both_languages() {
    use ConfiguredLimit as L;
    let cooling = |scope| SkipReason::Cooling {
        rest: span(7),
        cause: cause(),
        scope,
        class: CooldownClass::RateLimited,
    };
    let near = |limit| SkipReason::NearLimit { limit, remaining: 3, rest: span(7) };
    let limits = [
        L::RequestsPerMinute,
        L::ModelRequestsPerMinute,
        L::TokensPerMinute,
        L::ModelTokensPerMinute,
        L::ConcurrentRequests,
        L::UpstreamConcurrentRequests,
        L::UpstreamRequestsPerSecond,
    ];
    assert_eq!(kinds(&limits), variants::<ConfiguredLimit>(None));
    let scopes = [ScopeKind::Account, ScopeKind::Key, ScopeKind::KeyModel, ScopeKind::Upstream];
    assert_eq!(kinds(&scopes), variants::<ScopeKind>(None));
    let capabilities = [
        MissingCapability::Context { required: 9_000, limit: 8_192 },
        MissingCapability::Schema,
        MissingCapability::Tools,
        MissingCapability::Vision,
    ];
    assert_all_worded(&capabilities);
    assert_all_worded(&blocks());

    let mut all = vec![
        SkipReason::AlreadyFailed,
        SkipReason::Disabled,
        SkipReason::KeyMissing { secret: MissingSecret::Unsendable.into() },
        SkipReason::LowerTier,
        SkipReason::NotPicked,
        SkipReason::OtherDialect { dialect: Dialect::Gemini },
        SkipReason::OtherRegion,
        SkipReason::Probing,
        SkipReason::Rejected { cause: cause() },
        SkipReason::WaitingForKey,
    ];
    all.extend(scopes.map(cooling));
    all.extend(LimitKind::ALL.map(near));
    all.extend(limits.map(|limit| SkipReason::OverLimit { limit }));
    all.extend(capabilities.map(|missing| SkipReason::MissingCapability { missing }));
    all.extend(blocks().into_iter().map(|block| SkipReason::OverBudget { block: block.into() }));
    assert_all_worded(&all);
}

fn chosen(name: NameSource, choice: ChoiceReason) -> ChosenRoute {
    ChosenRoute {
        attempt: None,
        name: name.into(),
        choice,
        priority: 10,
        translated_to: None,
        skipped: Vec::new(),
        more_skipped: 0,
    }
}

#[test]
fn routes_are_worded_in_both_languages() {
    let names = [
        NameSource::Aliases { names: vec![name("smart"), name("gpt-5")] },
        NameSource::AnyName,
        NameSource::ColonName,
        NameSource::LogicalModel,
        NameSource::NewestMatch,
        NameSource::Path,
        NameSource::ServedName,
        NameSource::SlashName,
    ];
    assert_eq!(kinds(&names), variants::<NameSource>(Some("kind")));
    let choices = [
        ChoiceReason::Affinity { better_tier_ready: false },
        ChoiceReason::Affinity { better_tier_ready: true },
        ChoiceReason::Best { tier: (0, 0), ready_count: 3 },
        ChoiceReason::LeastSuspect,
        ChoiceReason::Only,
        ChoiceReason::Probe,
    ];
    assert_eq!(kinds(&choices), variants::<ChoiceReason>(Some("kind")));

    let full = ChosenRoute {
        attempt: Some(2),
        translated_to: Some(Dialect::Anthropic),
        skipped: ["a/b", "c"]
            .map(|of| SkippedCandidate { key_name: name(of), reason: SkipReason::Disabled })
            .into(),
        more_skipped: 3,
        ..chosen(NameSource::LogicalModel, ChoiceReason::Only)
    };
    assert_eq!(
        full.words(Lang::Chinese.texts()),
        "第 2 次：逻辑模型；优先级 10，唯一可用的候选；转换为 anthropic 协议；\
         跳过：a/b（已停用），c（已停用），另外 3 个"
    );
    let mut all = vec![
        RouteReason::Chosen(full),
        RouteReason::Hedge { waited: span(2), is_p95: false },
        RouteReason::Hedge { waited: span(20), is_p95: true },
        RouteReason::Repaired { learned: Repair::Prefill.into() },
        RouteReason::Rescue { upstream: name("openai"), characters: 41, cause: cause() },
        RouteReason::RetrySame { pause: span(1) },
        RouteReason::text("foreign text"),
        RouteReason::WaitsForKey { wait: span(7), ahead: 2 },
        RouteReason::WaitsForSlot { slots: 4, ahead: 2 },
        RouteReason::WaitsForVerdict,
    ];
    all.extend(names.into_iter().map(|name| RouteReason::Chosen(chosen(name, ChoiceReason::Only))));
    all.extend(
        choices
            .into_iter()
            .map(|choice| RouteReason::Chosen(chosen(NameSource::LogicalModel, choice))),
    );
    assert_all_worded(&all);
}

fn cache_miss(cost: Option<NanoUsd>) -> CacheMissRecord {
    CacheMissRecord {
        cause: MissCause::Tools.into(),
        expected: 9,
        cached: 3,
        cost,
        is_benign: false,
    }
}

#[test]
fn cache_misses_are_worded_in_both_languages() {
    let (from, to) = (name("a/b"), name("c/d"));
    let moved = |make: fn(Arc<str>, Arc<str>) -> MissCause| make(from.clone(), to.clone());
    assert_all_worded(&[
        MissCause::CacheControl,
        MissCause::Expired { idle: span(400) },
        moved(|from, to| MissCause::Key { from, to }),
        MissCause::Message { number: 3, role: PrefixRole::User },
        MissCause::Message { number: 3, role: PrefixRole::Other },
        moved(|from, to| MissCause::Model { from, to }),
        MissCause::Provider,
        MissCause::System,
        MissCause::Text { text: name("foreign text") },
        MissCause::ToolOrder,
        MissCause::Tools,
        MissCause::Translation { translated: false },
        MissCause::Translation { translated: true },
        moved(|from, to| MissCause::Upstream { from, to }),
    ]);
    assert_worded(&[cache_miss(None), cache_miss(Some(usd(4)))]);
}

fn health_messages() -> Vec<HealthMessage> {
    let key = || name("openai/work");
    let model = || Some(name("gpt-5"));
    let cools = |account, cause, model| HealthMessage::Cools {
        name: key(),
        account,
        span: span(41),
        cause,
        model,
    };
    let refused = FailureReason::Refused { status: 429, code: None, model: model() };
    vec![
        HealthMessage::AnswersProbe { name: key() },
        HealthMessage::CooledByUser { name: key(), span: span(600) },
        cools(false, cause(), None),
        cools(false, cause(), model()),
        cools(false, refused.into(), model()),
        cools(true, cause(), None),
        HealthMessage::Rejected { name: key(), cause: cause(), model: None },
        HealthMessage::Rejected { name: key(), cause: cause(), model: model() },
        HealthMessage::Text { text: name("foreign text") },
        HealthMessage::Warmed { name: None },
        HealthMessage::Warmed { name: Some(key()) },
        HealthMessage::Works { name: key(), account: false, model: model() },
        HealthMessage::Works { name: key(), account: true, model: None },
    ]
}

#[test]
fn changes_of_health_are_worded_in_both_languages() {
    assert_all_worded(&health_messages());
}

fn reload_messages() -> Vec<ReloadMessage> {
    let causes = [
        ReloadCause::FileChanged,
        ReloadCause::LocalServers,
        ReloadCause::Requested,
        ReloadCause::Signal,
        ReloadCause::Switched { name: name("openai"), enabled: false },
        ReloadCause::Switched { name: name("openai"), enabled: true },
    ];
    assert_eq!(kinds(&causes), variants::<ReloadCause>(Some("kind")));
    let applied = |cause| ReloadMessage::Applied {
        needs_restart: cause == ReloadCause::Signal,
        cause,
        upstreams: 3,
        projects: 2,
    };
    let mut all: Vec<_> = causes.into_iter().map(applied).collect();
    all.extend([
        ReloadMessage::Rejected { problem: None },
        ReloadMessage::Rejected { problem: Some(name("config.toml:3:1: no such key")) },
        ReloadMessage::Text { text: name("foreign text") },
    ]);
    all
}

#[test]
fn reloads_are_worded_in_both_languages() {
    assert_all_worded(&reload_messages());
}

#[test]
fn repairs_are_worded_in_both_languages() {
    let field = || "foreign_field".to_owned();
    assert_all_worded(&[
        Repair::Adaptive,
        Repair::Drop { field: field() },
        Repair::DropInside { list: "messages".to_owned(), field: field() },
        Repair::Endpoint { dialect: Dialect::Responses },
        Repair::Limit { field: field(), max: 8_192 },
        Repair::Prefill,
        Repair::Rename { field: field(), to: "other".to_owned() },
        Repair::Role { to: "system".to_owned() },
        Repair::Schema,
        Repair::SystemFirst,
        Repair::TextOnly,
        Repair::Thinks,
        Repair::ThoughtsBack,
        Repair::Values { field: field(), allowed: vec!["low".to_owned()] },
    ]);
}

#[test]
fn notices_are_worded_in_both_languages() {
    let (path, problem, variable, provider) =
        (name("/l.db"), name("disk full"), name("OPENAI_API_KEY"), name("OpenAI"));
    let variables = [
        UnusedVariable::ClientKey { variable: variable.clone(), provider: provider.clone() },
        UnusedVariable::NeedsUrl { variable: variable.clone(), provider, upstream: name("azure") },
        UnusedVariable::Spaces { variable },
    ];
    assert_all_worded(&variables);
    let stored = |only_failed| NoticeMessage::BodiesStored {
        only_failed,
        keep: name("3d"),
        limit: name("256MiB"),
    };
    assert_all_worded(&[
        NoticeMessage::BodiesSkipped { requests: 4 },
        stored(false),
        stored(true),
        NoticeMessage::KeyKept {
            name: name("openai/work"),
            secret: MissingSecret::Unsendable.into(),
        },
        NoticeMessage::KeyNotUsable {
            name: name("openai/work"),
            secret: MissingSecret::Unsendable.into(),
        },
        NoticeMessage::Learned {
            model: name("m"),
            upstream: name("openai"),
            repair: Repair::Prefill.into(),
        },
        NoticeMessage::LedgerDamaged {
            path: path.clone(),
            problem: problem.clone(),
            aside: name("/l.db.bad"),
        },
        NoticeMessage::LedgerNotStarted { problem: problem.clone() },
        NoticeMessage::LedgerNotWritable { path: path.clone(), problem },
        NoticeMessage::DataDirNotWritable { path: path.clone(), problem: name("full") },
        NoticeMessage::LedgerReplaced { path: path.clone() },
        NoticeMessage::LedgerWritable { path },
        NoticeMessage::NetworkBack,
        NoticeMessage::NetworkDown,
        NoticeMessage::Stopping,
        NoticeMessage::Text { text: name("foreign text") },
        NoticeMessage::Unpriced { model: name("openai/m") },
        NoticeMessage::UnusedVariable { variable: variables[2].clone().into() },
    ]);
}

#[test]
fn results_of_actions_are_worded_in_both_languages() {
    let key = || name("openai/work");
    let tests = [
        AlertTestResult::Accepted { channel: name("webhook"), origin: name("https://a.example") },
        AlertTestResult::Failed { channel: name("foreign webhook"), problem: name("404") },
        AlertTestResult::Shown { program: name("notify-send") },
    ];
    assert_eq!(kinds(&tests), variants::<AlertTestResult>(Some("kind")));
    assert_worded(&tests);
    assert_all_worded(&[
        ActionMessage::Aborted { id: id() },
        ActionMessage::AlertsTested { channels: tests.into() },
        ActionMessage::BodyNotStored,
        ActionMessage::BuiltIn,
        ActionMessage::CannotReplay { op: Op::Chat },
        ActionMessage::Forgotten { models: 0 },
        ActionMessage::Forgotten { models: 3 },
        ActionMessage::Health { change: HealthMessage::Warmed { name: None }.into() },
        ActionMessage::KeyFailed { name: name("foreign/key"), problem: name("401") },
        ActionMessage::KeyMissing { name: key(), secret: MissingSecret::Unsendable.into() },
        ActionMessage::KeyWorks { name: key() },
        ActionMessage::NoAlertChannel,
        ActionMessage::NoLedger,
        ActionMessage::NotInFile { name: key() },
        ActionMessage::NotRunning { id: id() },
        ActionMessage::ProjectGone { project: name("ide") },
        ActionMessage::Reload { result: ReloadMessage::Rejected { problem: None }.into() },
        ActionMessage::SentAgain { original: id(), id: id() },
        ActionMessage::SeveralKeys { name: name("openai"), keys: vec![key(), name("openai/b")] },
        ActionMessage::Stopping,
        ActionMessage::Switched { name: key(), enabled: false },
        ActionMessage::Switched { name: key(), enabled: true },
        ActionMessage::text("foreign text"),
        ActionMessage::UnknownKey { name: key() },
        ActionMessage::UnknownRequest,
        ActionMessage::UnknownUpstream { name: name("openai") },
    ]);
}

#[test]
fn lines_of_the_log_are_worded_in_both_languages() {
    let ended = |target: Option<&str>, end| LogMessage::Ended {
        summary: RequestSummary {
            project: name("ide"),
            model: name("gpt-5"),
            status: Some(200),
            target: target.map(name),
            duration_ms: 812,
            end,
        },
    };
    assert_all_worded(&[
        LogMessage::AttemptEnded {
            number: 1,
            model: name("gpt-5"),
            target: name("openai/work"),
            outcome: cause(),
        },
        LogMessage::CacheMissed {
            project: name("ide"),
            model: name("m"),
            miss: cache_miss(None).into(),
        },
        ended(Some("openai/work"), RequestEnd::Done),
        ended(Some("openai"), RequestEnd::ClientGone),
        ended(None, RequestEnd::Failed { error: name("no upstream serves it") }),
        LogMessage::Health { change: HealthMessage::Warmed { name: None }.into() },
        LogMessage::Notice { notice: NoticeMessage::NetworkBack.into() },
        LogMessage::Reload { result: ReloadMessage::Rejected { problem: None }.into() },
        LogMessage::Text { text: name("foreign text") },
    ]);
}
