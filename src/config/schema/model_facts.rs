//! `[[model_facts]]`, and the rows of the built-in table, which have the same form.

use std::sync::Arc;

use serde_json::json;
use toml::de::DeValue;
use toml_edit::{Array, Value};

use super::{
    facts_row::{FactOrigin, FactSource, FactsRow},
    names::PatternList,
};
use crate::{
    base::pattern::Patterns,
    config::{
        kinds::{Count, Flag, KindDescription, List, TEXT, Text, ValueKind, Words, count},
        problem::Report,
        reader::{self, Node, TableReader, ValueError, truncate},
        table::{KeyDefault, KeySpec, KeyText, describe_by_hand, read_key},
    },
    ir::model_facts::{
        Acceptance, ChoiceForm, FactWord, InstructionRole, LimitField, Modality, ModelFacts,
        StructuredOutput, SystemPosition, ThinkingControl, ThinkingField, with_model_facts,
    },
    ir::{generation_settings::Effort, op::Dialect},
};

/// More tokens than any model holds.
const MAX_TOKENS: u32 = 100_000_000;

const DIALECTS: List<Words<Dialect>> = List(Words(Dialect::WORDS));

/// Reads one row. A row that cannot match anything or states nothing is reported and skipped.
pub(in crate::config) fn read_facts_row(
    mut row: TableReader<'_>,
    origin: FactOrigin,
    report: &mut Report,
) -> Option<FactsRow> {
    let (span, before) = (row.span.clone(), report.findings.len());
    let patterns = read_key(&mut row, "match", &NAMES, report);
    let upstreams = read_key(&mut row, "upstreams", &NAMES, report);
    let providers = read_key(&mut row, "providers", &NAMES, report);
    let dialects = read_key(&mut row, "dialects", &DIALECTS, report).unwrap_or_default();
    let page = read_key(&mut row, "source", &TEXT, report).unwrap_or_default();
    let date = read_key(&mut row, "date", &DAY, report).unwrap_or_default();
    let facts = read_facts(&mut row, report);
    row.finish(report);
    if patterns.is_none() && report.findings.len() == before {
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
    let patterns = patterns?;
    Some(FactsRow {
        names: parse_names(&patterns)?,
        upstreams: upstreams.and_then(|names| parse_names(&names)),
        providers: providers.and_then(|names| parse_names(&names)),
        dialects,
        facts,
        source: Arc::new(FactSource { patterns, page, date, origin }),
    })
}

/// Writes a row for `config show`.
pub(in crate::config) fn write_facts(row: &FactsRow) -> Vec<(&'static str, Value)> {
    let source = &*row.source;
    let patterns = source.patterns.iter().collect::<Array>();
    let text = |text: &str| Some(text).filter(|text| !text.is_empty()).map(Value::from);
    let own = [
        ("match", Some(Value::Array(patterns))),
        ("upstreams", row.upstreams.as_ref().and_then(|names| PatternList.write(names))),
        ("providers", row.providers.as_ref().and_then(|names| PatternList.write(names))),
        ("dialects", DIALECTS.write(&row.dialects).filter(|_| !row.dialects.is_empty())),
        ("source", text(&source.page)),
        ("date", text(&source.date)),
    ];
    let own = own.into_iter().filter_map(|(name, value)| Some((name, value?)));
    own.chain(written_facts(&row.facts)).collect()
}

/// Describes every key of a row.
pub(in crate::config) fn facts_keys() -> Vec<KeySpec> {
    let own = [
        ("match", "Patterns of model names, without case", NAMES.describe()),
        ("upstreams", "Only at these upstreams", NAMES.describe()),
        ("providers", "Only at upstreams with these presets", NAMES.describe()),
        ("dialects", "Only if the upstream is asked in one of these", DIALECTS.describe()),
        ("source", "The page that states the facts, or a note", TEXT.describe()),
        ("date", "The day on which it was read", DAY.describe()),
    ];
    let describe = |(name, doc, kind)| {
        let presence = if name == "match" { KeyDefault::Required } else { KeyDefault::Inherited };
        describe_by_hand(KeyText("model_facts", name, doc), kind, presence)
    };
    own.into_iter().chain(described_facts()).map(describe).collect()
}

/// Patterns of names, as written.
const NAMES: List<Text<String>> =
    List(Text { type_name: "pattern", read: read_name_pattern, write: |text| Some(text.clone()) });

fn read_name_pattern(value: &DeValue<'_>) -> Result<String, ValueError> {
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
}

/// Parses patterns in lower case, because names are compared without case.
fn parse_names(written: &[String]) -> Option<Patterns> {
    let lower: Vec<String> = written.iter().map(|text| lower_case(text)).collect();
    Patterns::parse(lower.iter().map(String::as_str)).ok()
}

/// A regular expression keeps its case, which has a meaning in it, and ignores that of names.
fn lower_case(pattern: &str) -> String {
    match pattern.split_once("re:") {
        Some((prefix @ ("" | "!"), source)) => format!("{prefix}re:(?i:{source})"),
        _ => pattern.to_ascii_lowercase(),
    }
}

/// A day: `2026-12-01`, quoted or not.
const DAY: Text<String> =
    Text { type_name: "date", read: read_day, write: |day| Some(day.clone()) };

fn read_day(value: &DeValue<'_>) -> Result<String, ValueError> {
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

macro_rules! fact_functions {
    ($($name:ident: $kind:ty, $doc:literal;)*) => {
        fn read_facts(row: &mut TableReader<'_>, report: &mut Report) -> ModelFacts {
            ModelFacts {
                $($name: read_key(row, stringify!($name), &<$kind as Fact>::KIND, report),)*
            }
        }

        fn written_facts(facts: &ModelFacts) -> Vec<(&'static str, Value)> {
            let mut out = Vec::new();
            $(if let Some(value) = &facts.$name {
                out.extend(<$kind as Fact>::KIND.write(value).map(|v| (stringify!($name), v)));
            })*
            out
        }

        fn described_facts() -> Vec<(&'static str, &'static str, KindDescription)> {
            vec![$((stringify!($name), $doc, <$kind as Fact>::KIND.describe())),*]
        }
    };
}
with_model_facts!(fact_functions);

/// A fact that a row can contain.
trait Fact: Sized {
    type Kind: ValueKind<Value = Self>;
    const KIND: Self::Kind;
}

impl Fact for bool {
    type Kind = Flag;
    const KIND: Flag = Flag;
}

impl Fact for u64 {
    type Kind = Count<u64>;
    const KIND: Count<u64> = count(0, MAX_TOKENS);
}

/// The only fact that is plain text is a day.
impl Fact for String {
    type Kind = Text<String>;
    const KIND: Text<String> = DAY;
}

impl Fact for Vec<String> {
    type Kind = List<Text<String>>;
    const KIND: List<Text<String>> = List(TEXT);
}

impl Fact for Acceptance {
    type Kind = AcceptanceKind;
    const KIND: AcceptanceKind = AcceptanceKind;
}

/// `true`, `false` or `"without_thinking"`.
struct AcceptanceKind;

impl ValueKind for AcceptanceKind {
    type Value = Acceptance;

    fn read(&self, path: &str, node: &Node<'_>, report: &mut Report) -> Option<Acceptance> {
        let read = |value: &DeValue<'_>| match value.as_bool() {
            Some(true) => Ok(Acceptance::Yes),
            Some(false) => Ok(Acceptance::No),
            None if value.as_str() == Some(Acceptance::WITHOUT_THINKING) => {
                Ok(Acceptance::WithoutThinking)
            }
            None => Err(ValueError::new(format!(
                "expected true, false or \"{}\"",
                Acceptance::WITHOUT_THINKING
            ))),
        };
        reader::read_value(path, node, report, &read).map(|at| at.value)
    }

    fn write(&self, value: &Acceptance) -> Option<Value> {
        Some(match value {
            Acceptance::No => false.into(),
            Acceptance::WithoutThinking => Acceptance::WITHOUT_THINKING.into(),
            Acceptance::Yes => true.into(),
        })
    }

    fn describe(&self) -> KindDescription {
        let word = Acceptance::WITHOUT_THINKING;
        KindDescription::new(
            format!("boolean or `\"{word}\"`"),
            json!({ "enum": [true, false, word] }),
        )
    }
}

macro_rules! word_facts {
    ($($kind:ty),*) => {
        $(impl Fact for $kind {
            type Kind = Words<$kind>;
            const KIND: Words<$kind> = Words(<$kind>::WORDS);
        })*
    };
}
word_facts!(
    Effort,
    InstructionRole,
    LimitField,
    StructuredOutput,
    SystemPosition,
    ThinkingControl,
    ThinkingField
);

macro_rules! word_list_facts {
    ($($kind:ty),*) => {
        $(impl Fact for Vec<$kind> {
            type Kind = List<Words<$kind>>;
            const KIND: List<Words<$kind>> = List(Words(<$kind>::WORDS));
        })*
    };
}
word_list_facts!(ChoiceForm, Dialect, Effort, Modality);
