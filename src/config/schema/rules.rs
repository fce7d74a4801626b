//! `[[upstream.rule]]`: the meaning of an upstream's errors, if it differs from the default.

use std::time::Duration;

use serde_json::json;
use toml::de::DeValue;
use toml_edit::{Array, Value};

use super::{
    MONTH, MS,
    general::{StatusSet, Statuses},
};
use crate::config::{
    choices::{RuleAction, RuleScope},
    kinds::{KindDescription, Maybe, Text, TimeSpan, ValueKind, Words},
    problem::Report,
    reader::{Node, TableReader, ValueError, text, truncate},
    table::{ConfigTable, config, inline_table, table_schema},
};

config! {
    /// What is done after errors of some kind.
    #[derive(Clone, Debug)]
    pub struct UpstreamRule in "upstream.rule" {
        /// Statuses that the rule is for; if omitted, all
        statuses as "status": Option<StatusSet> = None, Maybe(Statuses);
        /// Text in the response, case ignored, or re:REGEX; if omitted, any
        text as "match": Option<TextMatch> = None, Maybe(TEXT_MATCH);
        /// Try the request elsewhere, return the error to the client, or cool and try elsewhere
        action: RuleAction = RuleAction::Cool, Words(RuleAction::ALL);
        /// What is cooled
        scope: RuleScope = RuleScope::KeyModel, Words(RuleScope::ALL);
        /// Duration of the cooldown; if omitted, as after a 429 without a hint
        cool_for as "for": Option<Duration> = None, Maybe(TimeSpan(MS, MONTH));
    }
}

/// Text to find in a response: plain and case-insensitive, or `re:` and a regular expression.
#[derive(Clone, Debug)]
pub enum TextMatch {
    Plain(String),
    Regex(regex::Regex),
}

impl TextMatch {
    /// Parses a text match.
    ///
    /// # Errors
    ///
    /// The message of the regex engine, if a `re:` pattern does not compile.
    pub fn parse(text: &str) -> Result<Self, String> {
        let Some(source) = text.strip_prefix("re:") else {
            return Ok(Self::Plain(text.to_lowercase()));
        };
        let regex =
            regex::RegexBuilder::new(source).case_insensitive(true).size_limit(1 << 20).build();
        regex
            .map(Self::Regex)
            .map_err(|e| e.to_string().lines().last().unwrap_or("bad regex").trim().to_owned())
    }

    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        match self {
            Self::Plain(needle) => text.to_lowercase().contains(needle),
            Self::Regex(regex) => regex.is_match(text),
        }
    }

    /// Returns the text as written, except for case.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::Plain(text) => text.clone(),
            Self::Regex(regex) => format!("re:{}", regex.as_str()),
        }
    }
}

const TEXT_MATCH: Text<TextMatch> =
    Text { type_name: "text", read: read_text_match, write: |needle| Some(needle.text()) };

fn read_text_match(value: &DeValue<'_>) -> Result<TextMatch, ValueError> {
    let written = text(value)?;
    if written.is_empty() {
        return Err(ValueError::with_help(
            "an empty text stands everywhere",
            "leave `match` out where any text will do",
        ));
    }
    TextMatch::parse(&written).map_err(|sentence| {
        ValueError::new(format!("`{}` is no regular expression: {sentence}", truncate(&written)))
    })
}

/// The rows of `[[upstream.rule]]`.
pub(super) struct Rules;

impl ValueKind for Rules {
    type Value = Vec<UpstreamRule>;

    fn read(&self, _path: &str, node: &Node<'_>, report: &mut Report) -> Option<Self::Value> {
        let rows = TableReader::rows("rule", node, report);
        Some(rows.into_iter().map(|row| read_rule(row, report)).collect())
    }

    fn write(&self, rules: &Self::Value) -> Option<Value> {
        let each: Array = rules.iter().map(inline_table).collect();
        (!rules.is_empty()).then(|| Value::Array(each))
    }

    fn describe(&self) -> KindDescription {
        let schema = json!({ "type": "array", "items": table_schema(&UpstreamRule::keys()) });
        KindDescription::new("list of tables", schema)
    }
}

fn read_rule(mut row: TableReader<'_>, report: &mut Report) -> UpstreamRule {
    let rule = UpstreamRule::read_keys(&mut row, UpstreamRule::default(), report);
    let spans = row.finish(report);
    if rule.statuses.is_none() && rule.text.is_none() {
        report.missing(
            &spans.table,
            "a [[upstream.rule]] for every refusal there is".to_owned(),
            Some("add a line `status = \"400\"` or `match = \"…\"`".to_owned()),
        );
    }
    rule
}
