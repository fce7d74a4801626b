//! The filter of lists: words, `field:value` and ranges, all of which must match.

use std::fmt;

use super::record::{RequestRecord, RequestState};
use crate::base::money::NanoUsd;
use crate::events::log_line::LogLine;

/// A parsed filter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    text: String,
    terms: Vec<FilterTerm>,
}

/// One condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FilterTerm {
    /// Costs more than this.
    CostAbove(NanoUsd),
    CostBelow(NanoUsd),
    /// The value is in lower case.
    Field(FilterField, String),
    /// Milliseconds.
    DurationAbove(u64),
    DurationBelow(u64),
    Word(String),
}

/// The field that `field:value` compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilterField {
    /// Text in a stored body; known to the ledger only.
    Body,
    Client,
    /// The code or the words of an upstream's error.
    Code,
    Id,
    Ip,
    Key,
    Level,
    Model,
    Op,
    Project,
    Session,
    State,
    Status,
    Upstream,
    /// The end user.
    User,
}

/// Each field with its name.
pub const FIELD_NAMES: [(&str, FilterField); 15] = [
    ("body", FilterField::Body),
    ("client", FilterField::Client),
    ("code", FilterField::Code),
    ("id", FilterField::Id),
    ("ip", FilterField::Ip),
    ("key", FilterField::Key),
    ("level", FilterField::Level),
    ("model", FilterField::Model),
    ("op", FilterField::Op),
    ("project", FilterField::Project),
    ("session", FilterField::Session),
    ("state", FilterField::State),
    ("status", FilterField::Status),
    ("upstream", FilterField::Upstream),
    ("user", FilterField::User),
];

/// A term that cannot be parsed: an invalid duration or amount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterError(String);

impl FilterError {
    /// Returns the invalid term.
    #[must_use]
    pub fn term(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for FilterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let right = if self.0.starts_with("cost") {
            "a sum is cost>0.01 or cost<1"
        } else {
            "a span is >2s, <500ms or >1m"
        };
        write!(f, "`{}`: {right}", self.0)
    }
}

impl Filter {
    /// Parses the text of a filter. A `word:` that is not a field is a plain word, because model
    /// names contain colons too.
    ///
    /// # Errors
    ///
    /// An invalid duration or amount.
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        let terms = text.split_whitespace().map(parse_term).collect::<Result<_, _>>()?;
        Ok(Self { text: text.trim().to_owned(), terms })
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    /// Returns the terms, all of which must match.
    #[must_use]
    pub fn terms(&self) -> &[FilterTerm] {
        &self.terms
    }

    /// Returns the texts that a stored body must contain.
    pub fn body_texts(&self) -> impl Iterator<Item = &str> {
        self.terms.iter().filter_map(|term| match term {
            FilterTerm::Field(FilterField::Body, text) if !text.is_empty() => Some(text.as_str()),
            _ => None,
        })
    }

    /// Returns the text as typed.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    #[must_use]
    pub fn matches_request(&self, r: &RequestRecord) -> bool {
        self.terms.iter().all(|term| match term {
            FilterTerm::CostAbove(sum) => {
                r.cost.and_then(|cost| cost.usd).is_some_and(|usd| usd > *sum)
            }
            FilterTerm::CostBelow(sum) => {
                r.cost.and_then(|cost| cost.usd).is_some_and(|usd| usd < *sum)
            }
            FilterTerm::DurationAbove(ms) => r.duration_ms.is_some_and(|d| u64::from(d) > *ms),
            FilterTerm::DurationBelow(ms) => r.duration_ms.is_some_and(|d| u64::from(d) < *ms),
            FilterTerm::Field(FilterField::Body, _) => false,
            FilterTerm::Field(FilterField::Client, v) => contains_ignore_case(&r.client, v),
            FilterTerm::Field(FilterField::Code, v) => {
                let contains = |text: &str| contains_ignore_case(text, v);
                r.error.as_deref().is_some_and(contains)
                    || r.attempts.iter().any(|attempt| {
                        attempt.outcome.as_ref().is_some_and(|why| contains(&why.to_string()))
                    })
            }
            FilterTerm::Field(FilterField::Ip, v) => {
                r.ip.is_some_and(|ip| ip.to_canonical().to_string().starts_with(v.as_str()))
            }
            FilterTerm::Field(FilterField::User, v) => {
                r.user.as_deref().is_some_and(|user| contains_ignore_case(user, v))
            }
            FilterTerm::Field(FilterField::Id, v) => r.id.to_string().starts_with(v),
            FilterTerm::Field(FilterField::Key, v) => {
                r.attempts.iter().any(|a| contains_ignore_case(&a.key, v))
            }
            FilterTerm::Field(FilterField::Level, v) => contains_ignore_case(
                if r.state == RequestState::Failed { "error" } else { "info" },
                v,
            ),
            FilterTerm::Field(FilterField::Model, v) => {
                contains_ignore_case(&r.requested_model, v)
                    || r.attempts.iter().any(|a| contains_ignore_case(&a.model, v))
            }
            FilterTerm::Field(FilterField::Op, v) => contains_ignore_case(r.op.name(), v),
            FilterTerm::Field(FilterField::Project, v) => contains_ignore_case(&r.project, v),
            FilterTerm::Field(FilterField::Session, v) => {
                r.session.as_deref().is_some_and(|session| contains_ignore_case(session, v))
            }
            FilterTerm::Field(FilterField::State, v) => {
                contains_ignore_case(state_search_text(r.state), v)
            }
            FilterTerm::Field(FilterField::Status, v) => matches_status(r, v),
            FilterTerm::Field(FilterField::Upstream, v) => {
                r.attempts.iter().any(|a| contains_ignore_case(&a.upstream, v))
            }
            FilterTerm::Word(w) => {
                [&r.project, &r.client, &r.requested_model]
                    .into_iter()
                    .any(|text| contains_ignore_case(text, w))
                    || r.attempts.iter().any(|a| {
                        [&a.upstream, &a.key, &a.model]
                            .into_iter()
                            .any(|text| contains_ignore_case(text, w))
                    })
                    || r.error.as_ref().is_some_and(|e| contains_ignore_case(e, w))
                    || r.id.to_string().starts_with(w)
            }
        })
    }

    /// Matches a line by its text, or by the request that it is about.
    #[must_use]
    pub fn matches_line(&self, line: &LogLine, about: Option<&RequestRecord>) -> bool {
        self.terms.iter().all(|term| match term {
            FilterTerm::Field(FilterField::Level, v) => {
                contains_ignore_case(severity_name(line), v)
            }
            FilterTerm::Word(w) => {
                contains_ignore_case(&line.text, w)
                    || contains_ignore_case(severity_name(line), w)
                    || line.id.is_some_and(|id| id.to_string().starts_with(w))
            }
            _ => {
                about.is_some_and(|r| {
                    Self { text: String::new(), terms: vec![term.clone()] }.matches_request(r)
                }) || matches!(term, FilterTerm::Field(_, v) if contains_ignore_case(&line.text, v))
            }
        })
    }

    /// For rows that only have names: each term must match any of them.
    #[must_use]
    pub fn matches_names(&self, names: &[&str]) -> bool {
        self.terms.iter().all(|term| match term {
            FilterTerm::Field(_, value) | FilterTerm::Word(value) => {
                names.iter().any(|name| contains_ignore_case(name, value))
            }
            FilterTerm::CostBelow(_)
            | FilterTerm::CostAbove(_)
            | FilterTerm::DurationAbove(_)
            | FilterTerm::DurationBelow(_) => true,
        })
    }
}

fn parse_term(word: &str) -> Result<FilterTerm, FilterError> {
    let bad = || FilterError(word.to_owned());
    if let Some(span) = word.strip_prefix('>') {
        return parse_millis(span).map(FilterTerm::DurationAbove).ok_or_else(bad);
    }
    if let Some(span) = word.strip_prefix('<') {
        return parse_millis(span).map(FilterTerm::DurationBelow).ok_or_else(bad);
    }
    let word = word.to_lowercase();
    if let Some(sum) = word.strip_prefix("cost") {
        let read = |sum: &str| {
            sum.trim_start_matches('$').parse().ok().and_then(NanoUsd::from_dollars).ok_or_else(bad)
        };
        if let Some(sum) = sum.strip_prefix('>') {
            return read(sum).map(FilterTerm::CostAbove);
        }
        if let Some(sum) = sum.strip_prefix('<') {
            return read(sum).map(FilterTerm::CostBelow);
        }
    }
    let Some((field, value)) = word.split_once(':') else { return Ok(FilterTerm::Word(word)) };
    Ok(match FIELD_NAMES.iter().find(|(name, _)| *name == field) {
        Some((_, field)) => FilterTerm::Field(*field, value.to_owned()),
        None => FilterTerm::Word(word),
    })
}

fn parse_millis(span: &str) -> Option<u64> {
    let (number, scale) = match span {
        s if s.ends_with("ms") => (s.strip_suffix("ms")?, 1.0),
        s if s.ends_with('m') => (s.strip_suffix('m')?, 60_000.0),
        s => (s.strip_suffix('s').unwrap_or(s), 1_000.0),
    };
    let number = number.parse::<f64>().ok().filter(|n| n.is_finite() && *n >= 0.0)?;
    Some((number * scale) as u64)
}

/// `value` must be lower case already.
fn contains_ignore_case(text: &str, value: &str) -> bool {
    value.is_empty() || text.to_lowercase().contains(value)
}

/// `429`, or a class: `5xx`.
fn matches_status(r: &RequestRecord, value: &str) -> bool {
    let Some(status) = r.status.or_else(|| r.serving_attempt().and_then(|a| a.status)) else {
        return value.is_empty();
    };
    status.to_string().starts_with(value.trim_end_matches('x'))
}

fn severity_name(line: &LogLine) -> &'static str {
    use crate::events::event::Severity;
    match line.level {
        Severity::Error => "error",
        Severity::Info => "info",
        Severity::Warn => "warn",
    }
}

fn state_search_text(state: RequestState) -> &'static str {
    match state {
        RequestState::Done => "done",
        RequestState::Failed => "failed",
        RequestState::ClientGone => "left",
        RequestState::Queued => "queued running",
        RequestState::Streaming => "streaming running",
        RequestState::Waiting => "waiting running",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::reason::failure::FailureReason;
    use crate::{
        base::{clock::UnixMillis, id::RequestId},
        events::record::AttemptRecord,
        ir::{
            cost::Cost,
            op::{Dialect, Op},
        },
    };

    fn failed() -> RequestRecord {
        let at = UnixMillis(1_700_000_000_000);
        let attempt = AttemptRecord {
            number: 1,
            role: crate::events::record::AttemptRole::Primary,
            has_affinity: false,
            upstream: "openai".into(),
            key: "work".into(),
            fingerprint: "sk-…9f2c".into(),
            model: "gpt-5-mini".into(),
            started_ms: 0,
            head_ms: None,
            ended_ms: Some(2_500),
            status: Some(502),
            outcome: Some(FailureReason::text("502").into()),
            won: false,
            maybe_billed: false,
        };
        RequestRecord {
            cache_miss: None,
            id: RequestId::new(at),
            at,
            project: "ide".into(),
            client: "aider".into(),
            dialect: Dialect::Openai,
            op: Op::Chat,
            requested_model: "gpt-5-mini".into(),
            stream: true,
            session: Some("sess-77".into()),
            user: Some("end-7".into()),
            ip: "10.0.0.7".parse().ok(),
            request_bytes: 1,
            state: RequestState::Failed,
            attempts: vec![attempt],
            reason: None,
            ttft_ms: None,
            duration_ms: Some(2_500),
            status: Some(502),
            usage: None,
            cost: Some(Cost { usd: Some(NanoUsd(11_000_000)), ..Cost::default() }),
            finish: None,
            answer_bytes: 0,
            events: 0,
            error: None,
        }
    }

    #[test]
    fn all_terms_of_a_filter_must_match() {
        let r = failed();
        for (text, keeps) in [
            ("", true),
            ("GPT", true),
            ("model:gpt project:ide status:5xx >2s", true),
            ("status:502", true),
            ("status:2xx", false),
            (">3s", false),
            ("<3000ms", true),
            ("model:claude", false),
            ("upstream:open key:work", true),
            ("state:failed", true),
            ("session:Sess-77", true),
            ("session:sess-88", false),
            ("user:End-7", true),
            ("user:other", false),
            ("ip:10.0.", true),
            ("ip:0.0.", false),
            ("code:502", true),
            ("code:quota", false),
            ("mini gemini", false),
            ("llama3:8b", false),
            ("cost>0.01", true),
            ("cost>$0.02 gpt", false),
            ("cost<0.5", true),
            ("costly", false),
        ] {
            assert_eq!(Filter::parse(text).unwrap().matches_request(&r), keeps, "{text}");
        }
    }

    #[test]
    fn invalid_duration_is_reported() {
        assert_eq!(
            Filter::parse("gpt >soon").unwrap_err().to_string(),
            "`>soon`: a span is >2s, <500ms or >1m"
        );
        assert!(Filter::parse(">-1s").is_err());
        assert_eq!(
            Filter::parse("cost>much").unwrap_err().to_string(),
            "`cost>much`: a sum is cost>0.01 or cost<1"
        );
    }
}
