//! Writes the resolved settings as TOML, without credentials: references stay references, and a
//! literal key becomes its fingerprint.

use toml_edit::{ArrayOfTables, DocumentMut, Item, Table, Value};

use crate::{
    base::money::NANOS_PER_UNIT,
    config::{
        schema::{
            mcp::write_mcp, model::write_model, model_facts::write_facts, price::write_price,
            project::write_project, upstream::write_upstream,
        },
        settings::Settings,
        table::ConfigTable,
    },
};

/// Returns all settings.
#[must_use]
pub fn to_toml(settings: &Settings) -> String {
    to_document(settings).to_string()
}

/// Returns one key, table or row by its path: `timeouts.idle`, `upstream.nvidia.priority`,
/// `upstream`.
#[must_use]
pub fn key_to_toml(settings: &Settings, path: &str) -> Option<String> {
    let doc = to_document(settings);
    let mut item = doc.as_item();
    let mut rest = path.trim();
    while !rest.is_empty() {
        // Names of rows and aliases may contain dots: the longest name that matches is used.
        let mut ends: Vec<usize> =
            rest.match_indices('.').map(|(at, _)| at).chain([rest.len()]).collect();
        ends.reverse();
        let (found, end) = ends
            .into_iter()
            .find_map(|end| Some((child_item(item, rest[..end].trim_matches('"'))?, end)))?;
        item = found;
        rest = rest.get(end + 1..).unwrap_or_default();
    }
    Some(match item {
        Item::Value(Value::String(text)) => text.value().clone(),
        Item::Value(value) => value.clone().decorated("", "").to_string(),
        Item::Table(table) => table.to_string().trim().to_owned(),
        Item::ArrayOfTables(_) => {
            let mut doc = DocumentMut::new();
            doc.insert(path.rsplit('.').next().unwrap_or(path), item.clone());
            doc.to_string().trim().to_owned()
        }
        Item::None => return None,
    })
}

fn child_item<'a>(item: &'a Item, name: &str) -> Option<&'a Item> {
    match item {
        Item::ArrayOfTables(rows) => {
            let at =
                rows.iter().position(|row| row.get("name").and_then(Item::as_str) == Some(name))?;
            item.get(at)
        }
        _ => item.get(name),
    }
}

fn to_document(settings: &Settings) -> DocumentMut {
    let mut doc = DocumentMut::new();
    insert_table(&mut doc, &settings.server);
    insert_table(&mut doc, &settings.discover);
    insert_table(&mut doc, &settings.log);
    insert_table(&mut doc, &settings.timeouts);
    insert_table(&mut doc, &settings.retry);
    insert_table(&mut doc, &settings.cooldown);
    insert_table(&mut doc, &settings.routing);
    insert_table(&mut doc, &settings.translation);
    insert_rows(&mut doc, "keyless", settings.keyless.iter().map(ConfigTable::written_keys));
    let upstreams = settings.upstreams.iter();
    let upstreams = upstreams.map(|row| write_upstream(row, &settings.timeouts));
    insert_rows(&mut doc, "upstream", upstreams);
    insert_rows(&mut doc, "model", settings.models.iter().map(|row| write_model(row)));
    let aliases = settings.aliases.iter();
    let aliases = aliases.map(|alias| (alias.name.text(), Value::from(&*alias.target)));
    insert_map(&mut doc, "aliases", aliases);
    insert_rows(&mut doc, "model_facts", settings.model_facts.iter().map(|row| write_facts(row)));
    insert_rows(&mut doc, "mcp", settings.mcp.iter().map(|row| write_mcp(row)));
    insert_rows(&mut doc, "project", settings.projects.iter().map(|row| write_project(row)));
    insert_budget(&mut doc, settings);
    insert_table(&mut doc, &settings.ledger);
    insert_table(&mut doc, &settings.alerts);
    let receivers = settings.alert_receivers.iter().map(|row| row.written_keys());
    insert_rows(&mut doc, "alert_receiver", receivers);
    insert_table(&mut doc, &settings.otlp);
    insert_prices(&mut doc, settings);
    let rates = settings.rates.iter();
    let rates = rates.map(|(currency, nanos)| (currency.as_str(), dollars(*nanos).into()));
    insert_map(&mut doc, "rates", rates);
    insert_table(&mut doc, &settings.tui);
    doc
}

fn insert_table<T: ConfigTable>(doc: &mut DocumentMut, table: &T) {
    insert_map(doc, T::PATH, table.written_keys().into_iter());
}

/// Inserts a table; one without keys is left out.
fn insert_map<'a>(doc: &mut DocumentMut, name: &str, keys: impl Iterator<Item = (&'a str, Value)>) {
    let prefix = if doc.as_table().is_empty() { "" } else { "\n" };
    let table = table_of(keys, prefix);
    if !table.is_empty() {
        doc.insert(name, Item::Table(table));
    }
}

fn table_of<'a>(keys: impl Iterator<Item = (&'a str, Value)>, prefix: &str) -> Table {
    let mut table = Table::new();
    for (name, value) in keys {
        table.insert(name, Item::Value(value));
    }
    table.decor_mut().set_prefix(prefix);
    table
}

fn insert_rows(
    doc: &mut DocumentMut,
    kind: &str,
    rows: impl Iterator<Item = Vec<(&'static str, Value)>>,
) {
    let rows: ArrayOfTables = rows.map(|keys| table_of(keys.into_iter(), "\n")).collect();
    if !rows.is_empty() {
        doc.insert(kind, Item::ArrayOfTables(rows));
    }
}

/// Inserts `[budget]`, or rows of `[[budget]]` if there are several.
fn insert_budget(doc: &mut DocumentMut, settings: &Settings) {
    if let [one] = settings.budget.as_slice() {
        insert_table(doc, one);
    } else {
        insert_rows(doc, "budget", settings.budget.iter().map(ConfigTable::written_keys));
    }
}

fn insert_prices(doc: &mut DocumentMut, settings: &Settings) {
    let mut prices = Table::new();
    prices.set_implicit(true);
    for row in &settings.prices {
        let table = table_of(write_price(&row.price).into_iter(), "\n");
        prices.insert(&format!("{}/{}", row.vendor, row.model.text()), Item::Table(table));
    }
    if !prices.is_empty() {
        doc.insert("prices", Item::Table(prices));
    }
}

fn dollars(nanos: i64) -> f64 {
    nanos as f64 / NANOS_PER_UNIT as f64
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{Environment, IdInterner, load::load};

    #[test]
    fn output_has_no_credential_and_is_addressable_by_path() {
        let text = concat!(
            "[[upstream]]\nname = \"a.b\"\nbase_url = \"https://a.example\"\nkeys = [\"sk-abcdefghijkl\", \"env:X\"]\n",
            "proxy = \"http://user:passw0rd@h:1\"\nheaders = { \"x-token\" = \"zzzyyy\" }\n[aliases]\n\"gpt-4.1\" = \"a.b:m\"\n",
        );
        let settings =
            load(text, Path::new("c.toml"), &Environment::default(), &mut IdInterner::default())
                .settings
                .expect("it loads");

        let shown = to_toml(&settings);

        for gone in ["abcdefgh", "passw0rd", "zzzyyy"] {
            assert!(!shown.contains(gone), "{shown}");
        }
        assert!(shown.contains("env:X") && shown.contains("literal (sk-…"), "{shown}");
        for (path, want) in [
            ("timeouts.idle", "3m"),
            ("upstream.a.b.priority", "10"),
            ("aliases.gpt-4.1", "a.b:m"),
            ("server.auth", "true"),
            ("tui", "theme = \"dark\"\nmouse = true\nlang = \"auto\""),
        ] {
            assert_eq!(key_to_toml(&settings, path).as_deref(), Some(want), "{path}");
        }
        assert!(
            key_to_toml(&settings, "upstream").is_some_and(|all| all.starts_with("[[upstream]]"))
        );
        assert_eq!(key_to_toml(&settings, "timeouts.nothing"), None);
    }
}
