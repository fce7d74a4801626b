//! The filter of lists: words, `field:value` and spans, all of which must hold.

use std::fmt;

use super::{
    line::Line,
    record::{RequestRecord, State},
};
use crate::base::money::NanoUsd;

/// What a reader wants to see.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    text: String,
    terms: Vec<Term>,
}

/// One condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Term {
    /// More than so much.
    Costlier(NanoUsd),
    Cheaper(NanoUsd),
    /// The value is in lower case.
    Field(Field, String),
    /// Milliseconds.
    Longer(u64),
    Shorter(u64),
    Word(String),
}

/// What `field:value` asks about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    Client,
    Id,
    Key,
    Level,
    Model,
    Op,
    Project,
    State,
    Status,
    Upstream,
}

/// Each with its word.
pub const FIELDS: [(&str, Field); 10] = [
    ("client", Field::Client),
    ("id", Field::Id),
    ("key", Field::Key),
    ("level", Field::Level),
    ("model", Field::Model),
    ("op", Field::Op),
    ("project", Field::Project),
    ("state", Field::State),
    ("status", Field::Status),
    ("upstream", Field::Upstream),
];

/// A term that cannot be read: a span or a sum that is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterError(String);

impl FilterError {
    /// What could not be read.
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
    /// Reads what was typed. A `word:` that is no field is a word: names of models have colons too.
    ///
    /// # Errors
    ///
    /// A span that is none.
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        let terms = text.split_whitespace().map(term).collect::<Result<_, _>>()?;
        Ok(Self { text: text.trim().to_owned(), terms })
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    /// All of these must hold.
    #[must_use]
    pub fn terms(&self) -> &[Term] {
        &self.terms
    }

    /// As it was typed.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    #[must_use]
    pub fn keeps_request(&self, r: &RequestRecord) -> bool {
        self.terms.iter().all(|term| match term {
            Term::Costlier(sum) => r.cost.and_then(|cost| cost.usd).is_some_and(|usd| usd > *sum),
            Term::Cheaper(sum) => r.cost.and_then(|cost| cost.usd).is_some_and(|usd| usd < *sum),
            Term::Longer(ms) => r.duration_ms.is_some_and(|d| u64::from(d) > *ms),
            Term::Shorter(ms) => r.duration_ms.is_some_and(|d| u64::from(d) < *ms),
            Term::Field(Field::Client, v) => has(&r.client, v),
            Term::Field(Field::Id, v) => r.id.to_string().starts_with(v),
            Term::Field(Field::Key, v) => r.attempts.iter().any(|a| has(&a.key, v)),
            Term::Field(Field::Level, v) => {
                has(if r.state == State::Failed { "error" } else { "info" }, v)
            }
            Term::Field(Field::Model, v) => {
                has(&r.asked, v) || r.attempts.iter().any(|a| has(&a.model, v))
            }
            Term::Field(Field::Op, v) => has(r.op.name(), v),
            Term::Field(Field::Project, v) => has(&r.project, v),
            Term::Field(Field::State, v) => has(state(r.state), v),
            Term::Field(Field::Status, v) => status(r, v),
            Term::Field(Field::Upstream, v) => r.attempts.iter().any(|a| has(&a.upstream, v)),
            Term::Word(w) => {
                [&r.project, &r.client, &r.asked].into_iter().any(|text| has(text, w))
                    || r.attempts.iter().any(|a| {
                        [&a.upstream, &a.key, &a.model].into_iter().any(|text| has(text, w))
                    })
                    || r.error.as_ref().is_some_and(|e| has(e, w))
                    || r.id.to_string().starts_with(w)
            }
        })
    }

    /// A line is kept for what it says, or for the request it is about.
    #[must_use]
    pub fn keeps_line(&self, line: &Line, about: Option<&RequestRecord>) -> bool {
        self.terms.iter().all(|term| match term {
            Term::Field(Field::Level, v) => has(level(line), v),
            Term::Word(w) => {
                has(&line.text, w)
                    || has(level(line), w)
                    || line.id.is_some_and(|id| id.to_string().starts_with(w))
            }
            _ => {
                about.is_some_and(|r| {
                    Self { text: String::new(), terms: vec![term.clone()] }.keeps_request(r)
                }) || matches!(term, Term::Field(_, v) if has(&line.text, v))
            }
        })
    }

    /// For rows that have only names: any of them must hold each term.
    #[must_use]
    pub fn keeps_names(&self, names: &[&str]) -> bool {
        self.terms.iter().all(|term| match term {
            Term::Field(_, value) | Term::Word(value) => names.iter().any(|name| has(name, value)),
            Term::Cheaper(_) | Term::Costlier(_) | Term::Longer(_) | Term::Shorter(_) => true,
        })
    }
}

fn term(word: &str) -> Result<Term, FilterError> {
    let bad = || FilterError(word.to_owned());
    if let Some(span) = word.strip_prefix('>') {
        return millis(span).map(Term::Longer).ok_or_else(bad);
    }
    if let Some(span) = word.strip_prefix('<') {
        return millis(span).map(Term::Shorter).ok_or_else(bad);
    }
    let word = word.to_lowercase();
    if let Some(sum) = word.strip_prefix("cost") {
        let read = |sum: &str| {
            sum.trim_start_matches('$').parse().ok().and_then(NanoUsd::from_dollars).ok_or_else(bad)
        };
        if let Some(sum) = sum.strip_prefix('>') {
            return read(sum).map(Term::Costlier);
        }
        if let Some(sum) = sum.strip_prefix('<') {
            return read(sum).map(Term::Cheaper);
        }
    }
    let Some((field, value)) = word.split_once(':') else { return Ok(Term::Word(word)) };
    Ok(match FIELDS.iter().find(|(name, _)| *name == field) {
        Some((_, field)) => Term::Field(*field, value.to_owned()),
        None => Term::Word(word),
    })
}

fn millis(span: &str) -> Option<u64> {
    let (number, scale) = match span {
        s if s.ends_with("ms") => (s.strip_suffix("ms")?, 1.0),
        s if s.ends_with('m') => (s.strip_suffix('m')?, 60_000.0),
        s => (s.strip_suffix('s').unwrap_or(s), 1_000.0),
    };
    let number = number.parse::<f64>().ok().filter(|n| n.is_finite() && *n >= 0.0)?;
    Some((number * scale) as u64)
}

/// `value` is lower case already.
fn has(text: &str, value: &str) -> bool {
    value.is_empty() || text.to_lowercase().contains(value)
}

/// `429`, or a class: `5xx`.
fn status(r: &RequestRecord, value: &str) -> bool {
    let Some(status) = r.status.or_else(|| r.last().and_then(|a| a.status)) else {
        return value.is_empty();
    };
    status.to_string().starts_with(value.trim_end_matches('x'))
}

fn level(line: &Line) -> &'static str {
    use crate::events::kind::Level;
    match line.level {
        Level::Error => "error",
        Level::Info => "info",
        Level::Warn => "warn",
    }
}

fn state(state: State) -> &'static str {
    match state {
        State::Done => "done",
        State::Failed => "failed",
        State::Left => "left",
        State::Queued => "queued running",
        State::Streaming => "streaming running",
        State::Waiting => "waiting running",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
            task: crate::events::record::Task::Answer,
            bound: false,
            upstream: "openai".into(),
            key: "work".into(),
            fingerprint: "sk-…9f2c".into(),
            model: "gpt-5-mini".into(),
            started_ms: 0,
            head_ms: None,
            ended_ms: Some(2_500),
            status: Some(502),
            outcome: Some("502".into()),
            won: false,
            maybe_billed: false,
        };
        RequestRecord {
            cache_lost: None,
            id: RequestId::new(at),
            at,
            project: "ide".into(),
            client: "aider".into(),
            dialect: Dialect::Openai,
            op: Op::Chat,
            asked: "gpt-5-mini".into(),
            stream: true,
            session: None,
            request_bytes: 1,
            state: State::Failed,
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
    fn all_terms_of_a_filter_must_hold() {
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
            ("mini gemini", false),
            ("llama3:8b", false),
            ("cost>0.01", true),
            ("cost>$0.02 gpt", false),
            ("cost<0.5", true),
            ("costly", false),
        ] {
            assert_eq!(Filter::parse(text).unwrap().keeps_request(&r), keeps, "{text}");
        }
    }

    #[test]
    fn a_span_that_is_none_is_said() {
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
