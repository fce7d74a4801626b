//! `[[model_facts]]`, and the rows of the built-in table, which have the same form.

use std::sync::Arc;

use serde_json::{Map, Value, json};
use toml::de::DeValue;

use crate::{
    base::pattern::Patterns,
    config::{
        facts_row::{FactSource, FactsRow},
        problem::Report,
        reader::{self, Located, TableReader, ValueError, truncate},
    },
    ir::model_facts::{
        Acceptance, ChoiceForm, FactWord, InstructionRole, LimitField, Modality, ModelFacts,
        StructuredOutput, SystemPosition, ThinkingControl, ThinkingField, with_model_facts,
    },
    ir::{generation_settings::Effort, op::Dialect},
};

/// More tokens than any model holds.
const MAX_TOKENS: u32 = 100_000_000;

/// Reads one row. A row that cannot match anything or states nothing is reported and skipped.
pub(in crate::config) fn read_row(
    mut row: TableReader<'_>,
    from_config: bool,
    report: &mut Report,
) -> Option<FactsRow> {
    let (span, before) = (row.span.clone(), report.findings.len());
    let names = read_names(&mut row, "match", report);
    let upstreams = read_names(&mut row, "upstreams", report);
    let providers = read_names(&mut row, "providers", report);
    let dialects = row
        .read_list("dialects", report, reader::one_of(Dialect::WORDS))
        .map(values)
        .unwrap_or_default();
    let text = |key, row: &mut TableReader<'_>, report: &mut Report| {
        row.read(key, report, reader::text).map(|at| at.value)
    };
    let source = text("source", &mut row, report);
    let date = row.read("date", report, day).map(|at| at.value);
    let facts = read_facts(&mut row, report);
    row.finish(report);
    if names.is_none() && report.findings.len() == before {
        report.missing(
            &span,
            "a [[model_facts]] without `match`",
            Some("add a line `match = \"my-model*\"`".to_owned()),
        );
    }
    if facts == ModelFacts::default() && report.findings.len() == before {
        report.error(
            &span,
            "a row without facts",
            Some("add one, such as `context = 32_768`; docs/models.md lists all".to_owned()),
        );
    }
    if facts.min_budget > facts.max_budget && facts.max_budget.is_some() {
        report.error(&span, "`min_budget` is larger than `max_budget`", None);
    }
    let (names, patterns) = names?;
    Some(FactsRow {
        names,
        upstreams: upstreams.map(|(names, _)| names),
        providers: providers.map(|(names, _)| names),
        dialects,
        facts,
        source: Arc::new(FactSource {
            patterns,
            page: source.unwrap_or_default(),
            date: date.unwrap_or_default(),
            from_config,
        }),
    })
}

/// Returns the JSON schema of the rows.
#[must_use]
pub(in crate::config) fn json_schema() -> Value {
    let names = |purpose: &str| json!({ "anyOf": [text_schema(), list_schema(text_schema())], "description": purpose });
    let dialects = list_schema(word_schema::<Dialect>());
    let mut properties = Map::new();
    for (key, schema) in [
        ("match", names("Patterns of model names, without case")),
        ("upstreams", names("Only at these upstreams")),
        ("providers", names("Only at upstreams with these presets")),
        ("dialects", described(dialects, "Only if the upstream is asked in one of these")),
        ("source", described(text_schema(), "The page that states the facts, or a note")),
        ("date", described(text_schema(), "The day on which it was read")),
    ] {
        properties.insert(key.to_owned(), schema);
    }
    insert_fact_schemas(&mut properties);
    let row = json!({
        "type": "object",
        "additionalProperties": false,
        "properties": properties,
        "required": ["match"],
    });
    json!({ "type": "array", "items": row })
}

fn described(mut schema: Value, purpose: &str) -> Value {
    schema["description"] = purpose.into();
    schema
}

fn text_schema() -> Value {
    json!({ "type": "string" })
}

fn word_schema<T: FactWord>() -> Value {
    let words: Vec<&str> = T::WORDS.iter().map(|(word, _)| *word).collect();
    json!({ "enum": words })
}

fn list_schema(item: Value) -> Value {
    json!({ "type": "array", "items": item })
}

/// Reads patterns, in lower case because names are compared without case; returns them also as
/// written.
fn read_names(
    row: &mut TableReader<'_>,
    key: &'static str,
    report: &mut Report,
) -> Option<(Patterns, Vec<String>)> {
    let read = |value: &DeValue<'_>| {
        let text = reader::text(value)?;
        if text.trim_start_matches('!').is_empty() {
            return Err(ValueError::with_help(
                "an empty pattern",
                "write a name, a glob such as \"my-model*\", \"re:REGEX\" or \"!EXCLUSION\"",
            ));
        }
        match Patterns::parse([lower_case(&text).as_str()]) {
            Ok(_) => Ok(text),
            Err((_, sentence)) => Err(ValueError::new(format!(
                "`{}` is not a regular expression: {sentence}",
                truncate(&text)
            ))),
        }
    };
    let written = values(row.read_list(key, report, read)?);
    let lower: Vec<String> = written.iter().map(|text| lower_case(text)).collect();
    Some((Patterns::parse(lower.iter().map(String::as_str)).ok()?, written))
}

/// A regular expression keeps its case, which has a meaning in it, and ignores that of names.
fn lower_case(pattern: &str) -> String {
    match pattern.split_once("re:") {
        Some((prefix @ ("" | "!"), source)) => format!("{prefix}re:(?i:{source})"),
        _ => pattern.to_ascii_lowercase(),
    }
}

fn values<T>(list: Located<Vec<Located<T>>>) -> Vec<T> {
    list.value.into_iter().map(|at| at.value).collect()
}

/// Reads `2026-12-01`, quoted or not.
fn day(value: &DeValue<'_>) -> Result<String, ValueError> {
    let text = match value {
        DeValue::Datetime(date) => date.to_string(),
        _ => reader::text(value)?,
    };
    match text.parse::<jiff::civil::Date>() {
        Ok(date) => Ok(date.to_string()),
        Err(_) => Err(ValueError::with_help(
            format!("`{}` is not a day", truncate(&text)),
            "write it as \"2026-12-01\"",
        )),
    }
}

macro_rules! read_all {
    ($($name:ident: $kind:ty, $doc:literal;)*) => {
        fn read_facts(row: &mut TableReader<'_>, report: &mut Report) -> ModelFacts {
            ModelFacts {
                $($name: <$kind as ReadFact>::read_fact(stringify!($name), row, report),)*
            }
        }
    };
}
with_model_facts!(read_all);

macro_rules! all_schemas {
    ($($name:ident: $kind:ty, $doc:literal;)*) => {
        fn insert_fact_schemas(properties: &mut Map<String, Value>) {
            $(
                let schema = described(<$kind as ReadFact>::schema(), $doc);
                properties.insert(stringify!($name).to_owned(), schema);
            )*
        }
    };
}
with_model_facts!(all_schemas);

/// A fact that a row can contain.
trait ReadFact: Sized {
    fn read_fact(key: &'static str, row: &mut TableReader<'_>, report: &mut Report)
    -> Option<Self>;

    fn schema() -> Value;
}

impl ReadFact for bool {
    fn read_fact(
        key: &'static str,
        row: &mut TableReader<'_>,
        report: &mut Report,
    ) -> Option<Self> {
        row.read(key, report, reader::flag).map(|at| at.value)
    }

    fn schema() -> Value {
        json!({ "type": "boolean" })
    }
}

impl ReadFact for u64 {
    fn read_fact(
        key: &'static str,
        row: &mut TableReader<'_>,
        report: &mut Report,
    ) -> Option<Self> {
        row.read(key, report, reader::count(0, MAX_TOKENS)).map(|at| at.value.into())
    }

    fn schema() -> Value {
        json!({ "type": "integer", "minimum": 0, "maximum": MAX_TOKENS })
    }
}

/// The only fact that is plain text is a day.
impl ReadFact for String {
    fn read_fact(
        key: &'static str,
        row: &mut TableReader<'_>,
        report: &mut Report,
    ) -> Option<Self> {
        row.read(key, report, day).map(|at| at.value)
    }

    fn schema() -> Value {
        text_schema()
    }
}

impl ReadFact for Vec<String> {
    fn read_fact(
        key: &'static str,
        row: &mut TableReader<'_>,
        report: &mut Report,
    ) -> Option<Self> {
        row.read_list(key, report, reader::text).map(values)
    }

    fn schema() -> Value {
        list_schema(text_schema())
    }
}

impl ReadFact for Acceptance {
    fn read_fact(
        key: &'static str,
        row: &mut TableReader<'_>,
        report: &mut Report,
    ) -> Option<Self> {
        let read = |value: &DeValue<'_>| match value.as_bool() {
            Some(true) => Ok(Self::Yes),
            Some(false) => Ok(Self::No),
            None if value.as_str() == Some(Self::WITHOUT_THINKING) => Ok(Self::WithoutThinking),
            None => Err(ValueError::new(format!(
                "expected true, false or \"{}\"",
                Self::WITHOUT_THINKING
            ))),
        };
        row.read(key, report, read).map(|at| at.value)
    }

    fn schema() -> Value {
        json!({ "enum": [true, false, Self::WITHOUT_THINKING] })
    }
}

macro_rules! read_words {
    ($($kind:ty),*) => {
        $(impl ReadFact for $kind {
            fn read_fact(
                key: &'static str,
                row: &mut TableReader<'_>,
                report: &mut Report,
            ) -> Option<Self> {
                row.read(key, report, reader::one_of(<$kind>::WORDS)).map(|at| at.value)
            }

            fn schema() -> Value {
                word_schema::<$kind>()
            }
        })*
    };
}
read_words!(
    Effort,
    InstructionRole,
    LimitField,
    StructuredOutput,
    SystemPosition,
    ThinkingControl,
    ThinkingField
);

macro_rules! read_word_lists {
    ($($kind:ty),*) => {
        $(impl ReadFact for Vec<$kind> {
            fn read_fact(
                key: &'static str,
                row: &mut TableReader<'_>,
                report: &mut Report,
            ) -> Option<Self> {
                row.read_list(key, report, reader::one_of(<$kind>::WORDS)).map(values)
            }

            fn schema() -> Value {
                list_schema(word_schema::<$kind>())
            }
        })*
    };
}
read_word_lists!(ChoiceForm, Dialect, Effort, Modality);
