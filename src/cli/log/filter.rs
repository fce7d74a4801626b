//! The filter of the log: words and `field:value` terms that must all hold.

use crate::{
    cli::exit::CliError,
    events::{
        live::Line,
        record::{RequestRecord, State},
    },
};

/// Terms that must all hold; without any, everything passes.
#[derive(Debug, Default)]
pub(super) struct Filter(Vec<Term>);

#[derive(Debug)]
enum Term {
    /// Lower case; anywhere in what a row shows.
    Word(String),
    Field(Field, String),
    /// `5xx` or a number.
    Status(u16, u16),
    LongerThan(u64),
    ShorterThan(u64),
}

#[derive(Clone, Copy, Debug)]
enum Field {
    Client,
    Dialect,
    Key,
    Model,
    Op,
    Project,
    State,
    Upstream,
}

const FIELDS: [(&str, Field); 8] = [
    ("client", Field::Client),
    ("dialect", Field::Dialect),
    ("key", Field::Key),
    ("model", Field::Model),
    ("op", Field::Op),
    ("project", Field::Project),
    ("state", Field::State),
    ("upstream", Field::Upstream),
];

impl Filter {
    /// Reads the words of the command line; one word may hold several terms.
    pub(super) fn parse(words: &[String]) -> Result<Self, CliError> {
        words.iter().flat_map(|word| word.split_whitespace()).map(term).collect::<Result<_, _>>().map(Self)
    }

    pub(super) fn request(&self, r: &RequestRecord) -> bool {
        self.0.iter().all(|term| match term {
            Term::Word(word) => texts(r).any(|text| has(text, word)),
            Term::Field(field, value) => field.holds(r, value),
            Term::Status(low, high) => r.status.is_some_and(|s| (*low..=*high).contains(&s)),
            Term::LongerThan(ms) => r.duration_ms.is_some_and(|took| u64::from(took) > *ms),
            Term::ShorterThan(ms) => r.duration_ms.is_some_and(|took| u64::from(took) < *ms),
        })
    }

    /// An event has no fields; only words can mean it.
    pub(super) fn line(&self, line: &Line) -> bool {
        self.0.iter().all(|term| matches!(term, Term::Word(word) if has(&line.text, word)))
    }
}

impl Field {
    fn holds(self, r: &RequestRecord, value: &str) -> bool {
        match self {
            Self::Client => has(&r.client, value),
            Self::Dialect => has(r.dialect.name(), value),
            Self::Key => r.attempts.iter().any(|a| has(&format!("{}/{}", a.upstream, a.key), value)),
            Self::Model => has(&r.asked, value) || r.attempts.iter().any(|a| has(&a.model, value)),
            Self::Op => has(r.op.name(), value),
            Self::Project => has(&r.project, value),
            Self::State => has(state(r.state), value),
            Self::Upstream => r.attempts.iter().any(|a| has(&a.upstream, value)),
        }
    }
}

fn texts(r: &RequestRecord) -> impl Iterator<Item = &str> {
    let attempts = r.attempts.iter().flat_map(|a| [&*a.upstream, &*a.key, &*a.model, a.outcome.as_deref().unwrap_or("")]);
    [&*r.project, &*r.client, &*r.asked, r.error.as_deref().unwrap_or("")].into_iter().chain(attempts)
}

fn has(text: &str, part: &str) -> bool {
    text.to_lowercase().contains(part)
}

fn state(state: State) -> &'static str {
    match state {
        State::Done => "done",
        State::Failed => "failed",
        State::Left => "left",
        State::Queued => "queued",
        State::Streaming => "streaming",
        State::Waiting => "waiting",
    }
}

fn term(word: &str) -> Result<Term, CliError> {
    let lower = word.to_lowercase();
    if let Some(span) = lower.strip_prefix('>') {
        return Ok(Term::LongerThan(span_ms(word, span)?));
    }
    if let Some(span) = lower.strip_prefix('<') {
        return Ok(Term::ShorterThan(span_ms(word, span)?));
    }
    let Some((name, value)) = lower.split_once(':') else { return Ok(Term::Word(lower)) };
    if name == "status" {
        return status(word, value);
    }
    match FIELDS.iter().find(|(known, _)| *known == name) {
        Some((_, field)) => Ok(Term::Field(*field, value.to_owned())),
        // Model names hold colons: what no field begins is a word.
        None => Ok(Term::Word(lower)),
    }
}

fn span_ms(word: &str, span: &str) -> Result<u64, CliError> {
    let span = crate::base::units::parse_duration(span).map_err(|e| wrong(word, &e))?;
    Ok(u64::try_from(span.as_millis()).unwrap_or(u64::MAX))
}

fn status(word: &str, value: &str) -> Result<Term, CliError> {
    let class = value.strip_suffix("xx").and_then(|class| class.parse::<u16>().ok()).filter(|class| (1..=5).contains(class));
    if let Some(class) = class {
        return Ok(Term::Status(class * 100, class * 100 + 99));
    }
    match value.parse() {
        Ok(status @ 100..=599) => Ok(Term::Status(status, status)),
        _ => Err(wrong(word, "a status is 429 or 5xx")),
    }
}

fn wrong(word: &str, why: &str) -> CliError {
    CliError::usage(format!("the filter `{word}`: {why}")).hint("examples: model:gpt project:ide status:5xx key:work >2s <500ms")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::exit::Exit;

    #[test]
    fn all_terms_must_hold() {
        let record = super::super::tests::record();
        for (filter, want) in [
            ("", true),
            ("SMART", true),
            ("deepseek", true),
            ("cooling", true),
            ("model:smart status:2xx", true),
            ("model:smart status:5xx", false),
            ("status:200 key:nvidia/spare", true),
            ("key:work", false),
            (">2s <3s", true),
            (">3s", false),
            ("state:done upstream:nvidia op:chat dialect:openai client:aider project:ide", true),
            ("llama3:8b", false),
        ] {
            let filter_ = Filter::parse(&[filter.to_owned()]).unwrap();
            assert_eq!(filter_.request(&record), want, "{filter}");
        }
    }

    #[test]
    fn a_term_that_cannot_be_read_is_a_usage_error_with_examples() {
        for word in ["status:9xx", "status:abc", ">soon", "<-1s"] {
            let error = Filter::parse(&[word.to_owned()]).unwrap_err();
            assert_eq!(error.exit, Exit::Usage, "{word}");
            assert!(error.text.contains(word) && error.hint.unwrap().contains("status:5xx"));
        }
    }
}
