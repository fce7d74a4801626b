//! Facts about models: the rows of `assets/models.toml`, and those of the config before them.

use std::sync::{Arc, LazyLock};

use toml::de::DeTable;

pub use crate::config::schema::facts_row::{FactOrigin, FactSource, FactsRow};
use crate::{
    config::{
        problem::Report,
        reader::TableReader,
        schema::model_facts::read_facts_row,
        settings::{Settings, Upstream},
    },
    ir::{model_facts::ModelFacts, op::Dialect},
};

const MODELS_TOML: &str = include_str!("../../assets/models.toml");

static BUILT_IN_ROWS: LazyLock<Vec<Arc<FactsRow>>> =
    LazyLock::new(|| read_rows(MODELS_TOML, &mut Report::default()));

/// A model at an upstream.
#[derive(Clone, Copy, Debug)]
pub struct ModelAt<'a> {
    pub upstream: &'a str,
    /// The upstream's preset.
    pub provider: Option<&'a str>,
    pub dialect: Dialect,
    /// The upstream's name for the model.
    pub model: &'a str,
}

impl<'a> ModelAt<'a> {
    #[must_use]
    pub fn new(upstream: &'a Upstream, dialect: Dialect, model: &'a str) -> Self {
        let provider = upstream.preset.as_deref();
        Self { upstream: &upstream.name, provider, dialect, model }
    }
}

/// What is known of a model, with the source of each fact.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KnownFacts {
    pub facts: Arc<ModelFacts>,
    pub sources: Vec<(&'static str, Arc<FactSource>)>,
}

/// Looks up a model. The first row that matches gives each fact: the config's rows come first, then
/// what was learned, then the built-in rows.
#[must_use]
pub fn look_up(
    settings: &Settings,
    learned: Option<&Arc<FactsRow>>,
    at: ModelAt<'_>,
) -> KnownFacts {
    look_up_in(settings.model_facts.iter().chain(learned).chain(BUILT_IN_ROWS.iter()), at)
}

fn look_up_in<'r>(
    rows: impl IntoIterator<Item = &'r Arc<FactsRow>>,
    at: ModelAt<'_>,
) -> KnownFacts {
    let whole = at.model.to_ascii_lowercase();
    let short = short_name(&whole);
    let (mut facts, mut sources) = (ModelFacts::default(), Vec::new());
    for row in rows {
        let matches = (row.names.matches(short) || row.names.matches(&whole))
            && row.upstreams.as_ref().is_none_or(|names| names.matches(at.upstream))
            && row
                .providers
                .as_ref()
                .is_none_or(|names| at.provider.is_some_and(|p| names.matches(p)))
            && (row.dialects.is_empty() || row.dialects.contains(&at.dialect));
        if matches {
            facts.fill_from(&row.facts, |key| sources.push((key, Arc::clone(&row.source))));
        }
    }
    KnownFacts { facts: Arc::new(facts), sources }
}

/// Returns the part of a name that identifies the model: without the vendor before it, and without
/// what clouds add (`us.anthropic.claude-…`).
fn short_name(name: &str) -> &str {
    let name = name.rsplit('/').next().unwrap_or(name);
    name.rsplit_once("anthropic.").map_or(name, |(_, rest)| rest)
}

/// Returns every built-in row.
#[must_use]
pub fn built_in_rows() -> &'static [Arc<FactsRow>] {
    &BUILT_IN_ROWS
}

/// Skips rows that cannot be read; a test proves that the built-in table has none.
fn read_rows(text: &str, report: &mut Report) -> Vec<Arc<FactsRow>> {
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        report.error(&error.span().unwrap_or(0..0), error.message(), None);
    }
    let mut top = TableReader::new("", 0..0, table.get_ref());
    let rows = top.children("model", report);
    let rows = rows
        .into_iter()
        .filter_map(|row| read_facts_row(row, FactOrigin::BuiltIn, report))
        .map(Arc::new);
    let rows = rows.collect();
    top.finish(report);
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::{Environment, IdInterner, LoadResult, load},
        ir::{
            generation_settings::Effort,
            model_facts::{Acceptance, LimitField, Modality, StructuredOutput, ThinkingControl},
        },
    };

    fn facts(dialect: Dialect, provider: Option<&str>, model: &str) -> ModelFacts {
        let at = ModelAt { upstream: "u", provider, dialect, model };
        ModelFacts::clone(&look_up_in(built_in_rows(), at).facts)
    }

    fn load(text: &str) -> LoadResult {
        let path = std::path::Path::new("c.toml");
        load::load(text, path, &Environment::default(), &mut IdInterner::default())
    }

    #[test]
    fn built_in_table_is_valid() {
        let mut report = Report::default();
        let rows = read_rows(MODELS_TOML, &mut report);
        assert!(report.findings.is_empty(), "{:?}", report.findings);
        assert!(rows.len() > 100, "{}", rows.len());
        for row in &rows {
            assert!(!row.source.page.is_empty(), "{:?} has no source", row.source.patterns);
            assert!(!row.source.date.is_empty(), "{:?} has no date", row.source.patterns);
        }
    }

    #[test]
    fn model_names_match_with_vendor_and_cloud_prefixes() {
        let claude = |model| facts(Dialect::Anthropic, None, model);
        assert_eq!(claude("anthropic/claude-3-5-haiku-20241022").max_output, Some(8_192));
        assert_eq!(
            claude("us.anthropic.claude-sonnet-4-5-20250929-v1:0").thinking,
            Some(ThinkingControl::Budget)
        );
        assert_eq!(claude("Claude-Opus-4-8").temperature, Some(Acceptance::No));
        assert_eq!(claude("claude-opus-4-6").max_output, Some(128_000));
    }

    #[test]
    fn facts_depend_on_the_dialect_and_the_provider() {
        let deepseek = |provider| facts(Dialect::Openai, provider, "deepseek-v4-pro");
        assert_eq!(deepseek(None).thinking, Some(ThinkingControl::Fixed));
        assert_eq!(deepseek(None).efforts, None);
        assert_eq!(deepseek(Some("deepseek")).efforts, Some(vec![Effort::High, Effort::Max]));
        let claude = facts(Dialect::Openai, None, "claude-sonnet-4-5");
        assert_eq!((claude.thinking, claude.context), (None, Some(200_000)));
    }

    #[test]
    fn openai_families_are_distinguished() {
        let chat = |model| facts(Dialect::Openai, None, model);
        assert_eq!(chat("gpt-4o").limit_field, Some(LimitField::MaxTokens));
        assert_eq!(chat("gpt-4o").temperature, Some(Acceptance::Yes));
        assert_eq!(chat("gpt-7").limit_field, Some(LimitField::MaxCompletionTokens));
        assert_eq!(chat("gpt-7").thinking, None);
        assert_eq!(chat("gpt-5.4-pro").endpoints, Some(vec![Dialect::Responses]));
        assert_eq!(chat("gpt-5.4-pro").default_effort, Some(Effort::Medium));
        assert_eq!(chat("gpt-5.1-codex").efforts.map(|words| words.len()), Some(3));
        assert_eq!(chat("gpt-5-mini").temperature, Some(Acceptance::No));
        assert_eq!(chat("gpt-5.2").temperature, Some(Acceptance::WithoutThinking));
        assert_eq!(chat("gpt-oss-20b").limit_field, Some(LimitField::MaxTokens));
        assert_eq!(
            ["gpt-4-turbo-2024-04-09", "gpt-4", "gpt-4o", "gpt-4.1", "gpt-5"]
                .map(|model| chat(model).structured_output),
            [
                Some(StructuredOutput::Json),
                Some(StructuredOutput::None),
                Some(StructuredOutput::Schema),
                Some(StructuredOutput::Schema),
                Some(StructuredOutput::Schema)
            ]
        );
    }

    #[test]
    fn unknown_model_has_no_facts() {
        for dialect in Dialect::ALL {
            let facts = facts(dialect, None, "my-model");
            assert_eq!(
                (facts.thinking, facts.context, facts.max_output, facts.input, facts.tools),
                (None, None, None, None, None),
                "{dialect}"
            );
        }
    }

    #[test]
    fn config_rows_override_built_in_rows() {
        let config = r#"
[[model_facts]]
match = "My-Model*"
upstreams = "here"
efforts = ["low", "high"]
context = 32_768
input = "text"

[[model_facts]]
match = "gpt-4o"
temperature = "without_thinking"
"#;
        let loaded = load(config);
        assert!(!loaded.has_errors(), "{:?}", loaded.problems);
        let settings = loaded.settings.expect("settings");
        let at = |upstream, model| {
            look_up(
                &settings,
                None,
                ModelAt { upstream, provider: None, dialect: Dialect::Openai, model },
            )
        };
        let known = at("here", "my-model-2");
        assert_eq!(known.facts.context, Some(32_768));
        assert_eq!(known.facts.input, Some(vec![Modality::Text]));
        let source = known.sources.iter().find(|(key, _)| *key == "context").map(|(_, s)| s);
        assert!(source.is_some_and(|source| source.origin == FactOrigin::Config));
        assert_eq!(at("there", "my-model-2").facts.context, None);
        assert_eq!(at("there", "gpt-4o").facts.temperature, Some(Acceptance::WithoutThinking));
        assert_eq!(at("there", "gpt-4o").facts.context, Some(128_000));
    }

    #[test]
    fn invalid_row_is_reported_with_its_location_and_a_fix() {
        for (row, title, help) in [
            ("context = 1", "without `match`", "add a line"),
            ("match = \"m\"", "without facts", "docs/models.md"),
            ("match = \"m\"\neffort = []", "unknown key `effort`", "did you mean `efforts`"),
            ("match = \"m\"\nefforts = [\"hgih\"]", "is not one of", "did you mean \"high\""),
            ("match = \"m\"\ntemperature = 1", "without_thinking", ""),
            ("match = \"m\"\nmin_budget = 9\nmax_budget = 1", "larger than", ""),
            ("match = \"m\"\ndeprecated = \"soon\"", "not a day", "2026-12-01"),
        ] {
            let text = format!("[[model_facts]]\n{row}\n");
            let loaded = load(&text);
            let shown = format!("{:?}", loaded.problems);
            assert!(loaded.has_errors() && shown.contains(title), "{row}: {shown}");
            assert!(shown.replace('\\', "").contains(help), "{row}: {shown}");
        }
    }
}
