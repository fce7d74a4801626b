//! Every config key with its kind, default and meaning. The JSON schema, `config set` and the docs
//! use it.

use std::sync::LazyLock;

use serde_json::{Map, Value, json};

pub use super::{kinds::KindDescription, table::KeySpec};
use super::{
    kinds::{Number, ValueKind},
    schema::{
        alert_receiver::AlertReceiver,
        alerts::{AlertSettings, OtlpSettings},
        budget::{Budget, BudgetRows},
        connection::HealthCheck,
        general::{
            Cooldown, DiscoverySettings, LogSettings, RetrySettings, RoutingSettings,
            ServerSettings, Timeouts, TranslationSettings, TuiSettings,
        },
        keyless::KeylessListener,
        ledger::LedgerSettings,
        mcp::{McpAuth, McpServer},
        model::{Hedge, LogicalModel},
        model_facts::facts_keys,
        price::{ModelPrice, PriceCondition, condition_keys, price_keys},
        project::Project,
        rules::UpstreamRule,
        targets::ModelTarget,
        upstream::Upstream,
        upstream_key::{KeyLimit, UpstreamKey},
    },
    table::{ConfigTable, table_schema},
};
pub use crate::config::to_toml::{key_to_toml, to_toml};

/// A table of the config, for the schema and the docs.
#[derive(Clone, Debug)]
pub struct TableSpec {
    /// `timeouts`, `upstream.keys`
    pub path: &'static str,
    pub form: TableForm,
    pub about: &'static str,
    pub keys: Vec<KeySpec>,
}

/// How often a table occurs, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableForm {
    /// By names that the user chooses: `[prices."UPSTREAM/MODEL"]`.
    ByName,
    /// Inside a row or another table.
    Nested,
    /// Once in the file.
    Once,
    /// Any number of rows: `[[upstream]]`.
    Rows,
}

fn table<T: ConfigTable>(form: TableForm) -> TableSpec {
    TableSpec { path: T::PATH, form, about: T::ABOUT.trim(), keys: T::keys() }
}

/// Returns every table, in the order of the docs.
#[must_use]
pub fn tables() -> &'static [TableSpec] {
    use TableForm::{ByName, Nested, Once, Rows};
    static TABLES: LazyLock<Vec<TableSpec>> = LazyLock::new(|| {
        vec![
            table::<ServerSettings>(Once),
            table::<KeylessListener>(Rows),
            table::<DiscoverySettings>(Once),
            table::<Upstream>(Rows),
            table::<UpstreamKey>(Nested),
            table::<KeyLimit>(Nested),
            table::<UpstreamRule>(Nested),
            table::<HealthCheck>(Nested),
            table::<LogicalModel>(Rows),
            table::<ModelTarget>(Nested),
            table::<Hedge>(Nested),
            TableSpec {
                path: "model_facts",
                form: Rows,
                about: "Facts about models that correct or extend the built-in table.",
                keys: facts_keys(),
            },
            table::<McpServer>(Rows),
            table::<McpAuth>(Nested),
            table::<Project>(Rows),
            table::<Budget>(Once),
            table::<RoutingSettings>(Once),
            table::<Timeouts>(Once),
            table::<RetrySettings>(Once),
            table::<Cooldown>(Once),
            table::<TranslationSettings>(Once),
            TableSpec { keys: price_keys(), ..table::<ModelPrice>(ByName) },
            TableSpec { keys: condition_keys(), ..table::<PriceCondition>(Nested) },
            table::<LedgerSettings>(Once),
            table::<AlertSettings>(Once),
            table::<AlertReceiver>(Rows),
            table::<OtlpSettings>(Once),
            table::<LogSettings>(Once),
            table::<TuiSettings>(Once),
        ]
    });
    &TABLES
}

/// Returns the keys of all tables that are not inside others.
pub fn all() -> impl Iterator<Item = &'static KeySpec> {
    tables().iter().filter(|table| table.form != TableForm::Nested).flat_map(|table| &table.keys)
}

/// Returns the key with this path.
#[must_use]
pub fn find(path: &str) -> Option<&'static KeySpec> {
    all().find(|key| key.path == path).or_else(|| {
        // `upstream.timeouts.idle` has the definition of `timeouts.idle`.
        let (_, below) = path.split_once(".timeouts.")?;
        all().find(|key| key.path.strip_prefix("timeouts.") == Some(below))
    })
}

/// Returns the JSON schema (2020-12) of the file, for editors.
#[must_use]
pub fn json_schema() -> Value {
    let mut properties = Map::new();
    let mut timeouts = Value::Null;
    for table in tables() {
        let schema = table_schema(&table.keys);
        let schema = match table.form {
            TableForm::Nested => continue,
            TableForm::Once if table.path == Budget::PATH => BudgetRows.describe().schema,
            TableForm::Once if table.path == Timeouts::PATH => {
                timeouts = schema;
                json!({ "$ref": "#/$defs/timeouts" })
            }
            TableForm::Once => schema,
            TableForm::Rows => json!({ "type": "array", "items": schema }),
            TableForm::ByName => by_name(&schema, "By \"UPSTREAM/MODEL\"; the model may be a glob"),
        };
        properties.insert(table.path.to_owned(), schema);
    }
    let rate = Number(0.0, f64::MAX).describe().schema;
    properties.insert("rates".to_owned(), by_name(&rate, "Dollars for one unit of a currency"));
    let alias = json!({ "type": "string" });
    properties.insert("aliases".to_owned(), by_name(&alias, "Other names for models"));
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "aiproxy config.toml",
        "type": "object",
        "properties": properties,
        "additionalProperties": false,
        "$defs": {
            "timeouts": timeouts,
            "duration": { "type": "string", "pattern": "^([0-9]+(ms|s|m|h|d))+$" },
            "size": { "type": "string", "pattern": "^[0-9]+([KMGT]?i?B)$" },
            "dialect": { "enum": crate::ir::op::Dialect::ALL.map(crate::ir::op::Dialect::name) },
        },
    })
}

/// Returns the schema of a table with names that the user chooses.
fn by_name(value: &Value, description: &str) -> Value {
    json!({ "type": "object", "additionalProperties": value, "description": description })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{Environment, IdInterner, LoadResult, load::load};

    fn read(text: &str) -> LoadResult {
        load(text, Path::new("c.toml"), &Environment::default(), &mut IdInterner::default())
    }

    /// Returns the text of a file that sets only this key to its default.
    fn with_default(key: &KeySpec) -> Option<String> {
        let value = key.default.as_ref()?;
        let (table, name) = key.path.split_once('.').expect("a table and a key");
        Some(match table {
            "upstream" => format!(
                "[[upstream]]\nname = \"a\"\nbase_url = \"https://a.example\"\n{name} = {value}\n"
            ),
            "model" => format!("[[model]]\nname = \"m\"\ntargets = [\"x\"]\n{name} = {value}\n"),
            "mcp" => {
                format!("[[mcp]]\nname = \"m\"\nurl = \"https://a.example\"\n{name} = {value}\n")
            }
            "keyless" => format!("[[keyless]]\nlisten = \"127.0.0.1:11435\"\n{name} = {value}\n"),
            "alert_receiver" => {
                let row = "name = \"a\"\nurl = \"https://a.example/b\"";
                format!("[[alert_receiver]]\n{row}\n{name} = {value}\n")
            }
            "project" => {
                format!("[[project]]\nname = \"p\"\nkey = \"env:P\"\n{name} = {value}\n")
            }
            "prices" => format!("[prices.\"a/b\"]\ninput = 1\n{name} = {value}\n"),
            "budget" => format!("[budget]\nusd = 20\nper = \"month\"\n{name} = {value}\n"),
            _ => format!("[{table}]\n{name} = {value}\n"),
        })
    }

    #[test]
    fn documented_defaults_equal_the_real_defaults() {
        let mut count = 0;
        for (key, text) in all().filter_map(|key| Some((key, with_default(key)?))) {
            let without = text.trim_end().rsplit_once('\n').map_or("", |(before, _)| before);
            let (with, without) = (read(&text), read(without));
            let with = with.settings.unwrap_or_else(|| panic!("{text}: {:#?}", with.problems));
            let without = without.settings.expect("the rest loads");
            assert_eq!(to_toml(&with), to_toml(&without), "{}", key.path);
            count += 1;
        }
        assert!(count > 70, "{count} keys have a default");
    }

    #[test]
    fn every_known_config_key_is_documented() {
        // An unknown key in each table makes the reader report the keys that it knows there.
        let text = "unheard_of = 1\nbudget = { usd = 1, per = \"day\", unheard_of = 1 }\n[server]\nunheard_of = 1\n[discover]\nunheard_of = 1\n[log]\nunheard_of = 1\n[timeouts]\nunheard_of = 1\n\
            [retry]\nunheard_of = 1\n[cooldown]\nunheard_of = 1\n[routing]\nunheard_of = 1\n[tui]\nunheard_of = 1\n[alerts]\nunheard_of = 1\n[otlp]\nunheard_of = 1\n[ledger]\nunheard_of = 1\n[translation]\nunheard_of = 1\n\
            [[upstream]]\nname = \"a\"\nbase_url = \"https://a.example\"\nunheard_of = 1\n[[model]]\nname = \"a\"\ntargets = [\"x\"]\nunheard_of = 1\n\
            [[project]]\nname = \"a\"\nkey = \"env:A\"\nunheard_of = 1\n[[keyless]]\nlisten = \"127.0.0.1:11435\"\nunheard_of = 1\n[prices.\"a/b\"]\ninput = 1\nunheard_of = 1\n\
            [[alert_receiver]]\nname = \"a\"\nurl = \"https://a.example/b\"\nunheard_of = 1\n\
            [[mcp]]\nname = \"a\"\nurl = \"https://a.example\"\nunheard_of = 1\n";
        let loaded = read(text);
        assert_eq!(loaded.problems.len(), 21, "{:#?}", loaded.problems);
        for problem in loaded.problems {
            let table = problem.title.split("in `").nth(1);
            let table = table.and_then(|rest| rest.split(['.', '[', '`']).next());
            let help = problem.help.expect("the known ones");
            let known = help.trim_start_matches("known here: ").split(", ");
            let mut known: Vec<_> = known.map(str::to_owned).collect();
            let mut described: Vec<_> = match table {
                Some(table) => all()
                    .filter(|key| key.path.starts_with(&format!("{table}.")))
                    .map(|key| key.name().to_owned())
                    .collect(),
                None => json_schema()["properties"]
                    .as_object()
                    .expect("a table")
                    .keys()
                    .cloned()
                    .collect(),
            };
            known.sort_unstable();
            described.sort_unstable();
            assert_eq!(known, described, "{table:?}");
        }
    }
}
