//! Facts about models by their names: the rows of `assets/models.toml`.

use std::sync::LazyLock;

use toml_edit::{DocumentMut, Item, Table};

use crate::base::pattern::Patterns;

const MODELS_TOML: &str = include_str!("../../assets/models.toml");

/// Known facts about one model; an unknown fact is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelFacts {
    /// Tokens of request and response together.
    pub context: Option<u64>,
    /// Tokens of a response.
    pub max_output: Option<u64>,
    pub thinking: Option<ReasoningStyle>,
    /// The field of chat requests that limits the response.
    pub limit_field: Option<String>,
    pub developer: Option<bool>,
    pub prefill: Option<bool>,
    pub vision: Option<bool>,
    pub tools: Option<bool>,
    /// Whether its responses can be constrained by a JSON schema.
    pub schema: Option<bool>,
}

/// How a request sets the amount of reasoning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReasoningStyle {
    Budget,
    Effort,
    Never,
}

struct ModelFactsRow {
    names: Patterns,
    facts: ModelFacts,
}

/// Returns the facts of a model, by the upstream's name for it.
#[must_use]
pub fn facts_of(model: &str) -> ModelFacts {
    static ROWS: LazyLock<Vec<ModelFactsRow>> =
        LazyLock::new(|| read_rows(MODELS_TOML).unwrap_or_default());
    let name = model.rsplit('/').next().unwrap_or(model).to_ascii_lowercase();
    // Cloud names: `us.anthropic.claude-…-v1:0`, `claude-…@20250101`.
    let name = name.rsplit_once("anthropic.").map_or(name.as_str(), |(_, rest)| rest);
    let mut facts = ModelFacts::default();
    for row in ROWS.iter().filter(|row| row.names.matches(name)) {
        let ModelFacts {
            context,
            max_output: output,
            thinking,
            limit_field: limit,
            developer,
            prefill,
            vision,
            tools,
            schema,
        } = &row.facts;
        facts.context = facts.context.or(*context);
        facts.max_output = facts.max_output.or(*output);
        facts.thinking = facts.thinking.or(*thinking);
        facts.limit_field = facts.limit_field.or_else(|| limit.clone());
        facts.developer = facts.developer.or(*developer);
        facts.prefill = facts.prefill.or(*prefill);
        facts.vision = facts.vision.or(*vision);
        facts.tools = facts.tools.or(*tools);
        facts.schema = facts.schema.or(*schema);
    }
    facts
}

/// Returns `None` if the table does not have the form that its header describes; a test proves that
/// the built-in one has.
fn read_rows(text: &str) -> Option<Vec<ModelFactsRow>> {
    let file: DocumentMut = text.parse().ok()?;
    file.get("model").and_then(Item::as_array_of_tables)?.iter().map(read_row).collect()
}

fn read_row(table: &Table) -> Option<ModelFactsRow> {
    let number = |key: &str| match table.get(key) {
        None => Some(None),
        Some(item) => item.as_integer().and_then(|n| u64::try_from(n).ok()).map(Some),
    };
    let flag = |key: &str| match table.get(key) {
        None => Some(None),
        Some(item) => item.as_bool().map(Some),
    };
    let names: Vec<String> = table
        .get("match")?
        .as_array()?
        .iter()
        .map(|name| name.as_str().map(str::to_owned))
        .collect::<Option<_>>()?;
    let thinking = match table.get("thinking").map(Item::as_str) {
        None => None,
        Some(Some("effort")) => Some(ReasoningStyle::Effort),
        Some(Some("budget")) => Some(ReasoningStyle::Budget),
        Some(Some("never")) => Some(ReasoningStyle::Never),
        Some(_) => return None,
    };
    let facts = ModelFacts {
        context: number("context")?,
        max_output: number("output")?,
        thinking,
        limit_field: table.get("limit").and_then(Item::as_str).map(str::to_owned),
        developer: flag("developer")?,
        prefill: flag("prefill")?,
        vision: flag("vision")?,
        tools: flag("tools")?,
        schema: flag("schema")?,
    };
    Some(ModelFactsRow { names: Patterns::parse(names.iter().map(String::as_str)).ok()?, facts })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_row_that_fits_gives_each_fact() {
        assert!(read_rows(MODELS_TOML).is_some_and(|rows| rows.len() > 10));
        assert_eq!(facts_of("anthropic/claude-3-5-haiku-20241022").max_output, Some(8_192));
        assert_eq!(
            facts_of("us.anthropic.claude-sonnet-4-5-20250929-v1:0").thinking,
            Some(ReasoningStyle::Budget)
        );
        assert_eq!(facts_of("claude-opus-4-7").thinking, Some(ReasoningStyle::Effort));
        assert_eq!(facts_of("gpt-5-mini").limit_field.as_deref(), Some("max_completion_tokens"));
        assert_eq!(facts_of("gpt-4o").limit_field, None);
        assert_eq!(facts_of("anything").context, None);
        assert_eq!(
            ["gpt-4-turbo-2024-04-09", "gpt-4", "gpt-4o", "gpt-4.1", "gpt-5"]
                .map(|name| facts_of(name).schema),
            [Some(false), Some(false), Some(true), Some(true), None]
        );
    }
}
