//! Parses the filter of a command line and rejects fields and values that cannot match.

use crate::{
    base::{sanitize::clean, suggest},
    cli::error::CliError,
    events::filter::{FIELD_NAMES, Filter},
    ir::op::Op,
};

/// Field names from other tools and the equivalents in this filter.
const FOREIGN_FIELDS: [(&str, &str); 12] = [
    ("account", "key:work"),
    ("agent", "client:aider"),
    ("cost", "cost>0.01"),
    ("duration", ">2s"),
    ("error", "state:failed"),
    ("host", "upstream:openai"),
    ("price", "cost>0.01"),
    ("provider", "upstream:openai"),
    ("result", "state:failed"),
    ("since", "--since 7d"),
    ("took", ">2s"),
    ("tool", "client:aider"),
];

const STATES: [&str; 7] = ["done", "failed", "left", "queued", "running", "streaming", "waiting"];
const LEVELS: [&str; 3] = ["error", "info", "warn"];

/// Parses the filter. Model names also contain colons, so a `word:` that is not close to a field
/// name is searched for as text.
///
/// # Errors
///
/// A misspelt field, a field with another name here, or a value that no request can have.
pub(super) fn parse_filter(words: &[String]) -> Result<Filter, CliError> {
    let text = words.join(" ");
    let filter = Filter::parse(&text).map_err(|e| {
        CliError::usage(format!("invalid filter: {e}"))
            .hint("examples: model:gpt project:ide status:5xx key:work '>2s'")
    })?;
    for word in text.split_whitespace() {
        if let Some((field, value)) = word.split_once(':') {
            check_field(word, &field.to_lowercase(), &value.to_lowercase())?;
        }
    }
    Ok(filter)
}

/// The names of the fields.
pub(in crate::cli) fn field_names() -> impl Iterator<Item = &'static str> {
    FIELD_NAMES.iter().map(|(name, _)| *name)
}

/// The values of a field that has a closed list of them.
pub(in crate::cli) fn closed_values(field: &str) -> Vec<&'static str> {
    match field {
        "level" => LEVELS.to_vec(),
        "op" => Op::ALL.map(Op::name).to_vec(),
        "state" => STATES.to_vec(),
        _ => Vec::new(),
    }
}

fn check_field(word: &str, field: &str, value: &str) -> Result<(), CliError> {
    let error = |expected: String| {
        Err(CliError::usage(format!("invalid filter: `{}`: {expected}", clean(word))))
    };
    let one_of = |known: &[&str]| {
        if known.iter().any(|name| name.contains(value)) {
            Ok(())
        } else {
            error(format!("`{field}:` is one of {}", known.join(", ")))
        }
    };
    match field {
        "level" => one_of(&LEVELS),
        "op" => one_of(&Op::ALL.map(Op::name)),
        "state" => one_of(&STATES),
        "status" if !is_status(value) => {
            error("expected a status such as 429, or 4xx for a whole class".to_owned())
        }
        _ if FIELD_NAMES.iter().any(|(name, _)| *name == field) => Ok(()),
        _ => match suggest_field(field) {
            Some(instead) => error(format!(
                "there is no field `{field}:`; did you mean `{instead}`?"
            ))
            .map_err(|error| {
                error.hint(format!(
                    "the fields are {}; other words are searched for as text",
                    field_list()
                ))
            }),
            None => Ok(()),
        },
    }
}

/// The likely field for an unknown word. Model names and URLs are taken literally.
fn suggest_field(field: &str) -> Option<String> {
    if let Some((_, instead)) = FOREIGN_FIELDS.iter().find(|(word, _)| *word == field) {
        return Some((*instead).to_owned());
    }
    let plain = field.len() > 3 && field.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    suggest::nearest(field, FIELD_NAMES.map(|(name, _)| name))
        .filter(|_| plain)
        .map(|name| format!("{name}:"))
}

/// `4`, `429`, `42x`, `4xx`.
fn is_status(value: &str) -> bool {
    let digits = value.trim_end_matches('x');
    value.len() <= 3
        && digits.bytes().all(|b| b.is_ascii_digit())
        && !digits.starts_with(['0', '6', '7', '8', '9'])
}

fn field_list() -> String {
    FIELD_NAMES.map(|(name, _)| format!("{name}:")).join(" ")
}

/// The message for an empty result, including which words were searched for as text but look like
/// fields.
pub(super) fn no_match_message(filter: &Filter) -> String {
    let texts: Vec<_> =
        filter.text().split_whitespace().filter(|word| is_free_text(word)).map(clean).collect();
    match texts.first() {
        _ if filter.is_empty() => "nothing is recorded".to_owned(),
        None => format!("nothing matches `{}`", clean(filter.text())),
        Some(word) => format!(
            "nothing matches `{}`; `{word}` was searched for as text, the fields are {}",
            clean(filter.text()),
            field_list()
        ),
    }
}

fn is_free_text(word: &str) -> bool {
    word.split_once(':').is_some_and(|(field, _)| {
        FIELD_NAMES.iter().all(|(name, _)| !name.eq_ignore_ascii_case(field))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error_of(words: &str) -> Option<String> {
        parse_filter(&words.split(' ').map(str::to_owned).collect::<Vec<_>>())
            .err()
            .map(|e| e.to_string())
    }

    #[test]
    fn invalid_field_or_value_is_an_error_with_the_valid_ones() {
        for (words, why) in [
            ("status:9xx", "such as 429"),
            ("status:ok", "such as 429"),
            ("status:x5", "such as 429"),
            ("gpt state:broken", "done, failed"),
            ("op:chta", "count_tokens"),
            ("porject:ide", "`project:`"),
            ("statsu:5xx", "`status:`"),
            ("models:gpt", "`model:`"),
            ("provider:groq", "`upstream:openai`"),
            ("cost>abc", "a sum is"),
            (">soon", "a span is"),
        ] {
            assert!(
                error_of(words).is_some_and(|text| text.contains(why)),
                "{words}: {:?}",
                error_of(words)
            );
        }
        assert!(
            error_of("porject:ide").unwrap().contains("client: code: id: ip: key: level: model:")
        );
    }

    #[test]
    fn text_with_a_colon_is_not_a_field() {
        for words in [
            "llama3:8b",
            "qwen:0.5b",
            "openai:gpt-5",
            "model:gpt:latest",
            "http://127.0.0.1:9/v1",
            "demo:echo",
            "opt:6.7b",
            "429:",
            ":x",
        ] {
            assert_eq!(error_of(words), None, "{words}");
        }
        for words in [
            "status:",
            "STATUS:5XX",
            "status:4",
            "status:42x",
            "status:404",
            "state:fail",
            "Level:warn",
            "op:chat >2s cost>0.01",
        ] {
            assert_eq!(error_of(words), None, "{words}");
        }
    }

    #[test]
    fn empty_result_names_the_terms_searched_as_text() {
        let filter = |text| Filter::parse(text).unwrap();
        assert_eq!(no_match_message(&filter("status:5xx >2s")), "nothing matches `status:5xx >2s`");
        assert!(
            no_match_message(&filter("nosuchfield:x"))
                .contains("`nosuchfield:x` was searched for as text, the fields are body:")
        );
        assert_eq!(no_match_message(&filter("")), "nothing is recorded");
    }
}
