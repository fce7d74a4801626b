//! What is known about models by their names: the rows of `assets/models.toml`.

use std::sync::LazyLock;

use toml_edit::{DocumentMut, Item, Table};

use crate::base::pattern::Patterns;

const TEXT: &str = include_str!("../../assets/models.toml");

/// What is known about one model; what is unknown is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Tokens of request and answer together.
    pub context: Option<u64>,
    /// Tokens of an answer.
    pub output: Option<u64>,
    pub thinking: Option<Thinks>,
    /// The field of chat requests that limits the answer.
    pub limit: Option<String>,
    pub developer: Option<bool>,
    pub prefill: Option<bool>,
    pub vision: Option<bool>,
    pub tools: Option<bool>,
    /// Whether its answers can be bound to a JSON schema.
    pub schema: Option<bool>,
}

/// How a model is told how much to think.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Thinks {
    Budget,
    Effort,
    Never,
}

struct Row {
    names: Patterns,
    facts: Facts,
}

/// The facts of a model, as its upstream names it.
#[must_use]
pub fn of(model: &str) -> Facts {
    static ROWS: LazyLock<Vec<Row>> = LazyLock::new(|| read(TEXT).unwrap_or_default());
    let name = model.rsplit('/').next().unwrap_or(model).to_ascii_lowercase();
    // Cloud names: `us.anthropic.claude-…-v1:0`, `claude-…@20250101`.
    let name = name.rsplit_once("anthropic.").map_or(name.as_str(), |(_, rest)| rest);
    let mut facts = Facts::default();
    for row in ROWS.iter().filter(|row| row.names.matches(name)) {
        let Facts { context, output, thinking, limit, developer, prefill, vision, tools, schema } =
            &row.facts;
        facts.context = facts.context.or(*context);
        facts.output = facts.output.or(*output);
        facts.thinking = facts.thinking.or(*thinking);
        facts.limit = facts.limit.or_else(|| limit.clone());
        facts.developer = facts.developer.or(*developer);
        facts.prefill = facts.prefill.or(*prefill);
        facts.vision = facts.vision.or(*vision);
        facts.tools = facts.tools.or(*tools);
        facts.schema = facts.schema.or(*schema);
    }
    facts
}

/// `None` where the table is not what its head says; a test holds the built-in one to it.
fn read(text: &str) -> Option<Vec<Row>> {
    let file: DocumentMut = text.parse().ok()?;
    file.get("model").and_then(Item::as_array_of_tables)?.iter().map(row).collect()
}

fn row(table: &Table) -> Option<Row> {
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
        Some(Some("effort")) => Some(Thinks::Effort),
        Some(Some("budget")) => Some(Thinks::Budget),
        Some(Some("never")) => Some(Thinks::Never),
        Some(_) => return None,
    };
    let facts = Facts {
        context: number("context")?,
        output: number("output")?,
        thinking,
        limit: table.get("limit").and_then(Item::as_str).map(str::to_owned),
        developer: flag("developer")?,
        prefill: flag("prefill")?,
        vision: flag("vision")?,
        tools: flag("tools")?,
        schema: flag("schema")?,
    };
    Some(Row { names: Patterns::parse(names.iter().map(String::as_str)).ok()?, facts })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_row_that_fits_gives_each_fact() {
        assert!(read(TEXT).is_some_and(|rows| rows.len() > 10));
        assert_eq!(of("anthropic/claude-3-5-haiku-20241022").output, Some(8_192));
        assert_eq!(
            of("us.anthropic.claude-sonnet-4-5-20250929-v1:0").thinking,
            Some(Thinks::Budget)
        );
        assert_eq!(of("claude-opus-4-7").thinking, Some(Thinks::Effort));
        assert_eq!(of("gpt-5-mini").limit.as_deref(), Some("max_completion_tokens"));
        assert_eq!(of("gpt-4o").limit, None);
        assert_eq!(of("anything").context, None);
        assert_eq!(
            ["gpt-4-turbo-2024-04-09", "gpt-4", "gpt-4o", "gpt-4.1", "gpt-5"]
                .map(|name| of(name).schema),
            [Some(false), Some(false), Some(true), Some(true), None]
        );
    }
}
