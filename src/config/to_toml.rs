//! Writes the resolved settings as TOML, without credentials: references stay references, and a
//! literal key becomes its fingerprint.

use toml_edit::{Array, ArrayOfTables, DocumentMut, InlineTable, Item, Table, Value};

use crate::config::facts_row::FactsRow;
use crate::config::settings::{
    Budget, HedgeDelay, KeyLimit, KeylessListener, LogicalModel, ModelPrice, ModelTarget, Patch,
    PriceCondition, Project, ProxySetting, Settings, StatusSet, Timeouts, Upstream, UpstreamKey,
    UpstreamRule,
};
use crate::config::table::ConfigTable;
use crate::{
    base::{money::NANOS_PER_UNIT, pattern::Patterns, units},
    ir::cost::{PriceClass, PriceRates},
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
    insert_rows(&mut doc, "keyless", settings.keyless.iter().map(keyless_table));
    insert_rows(
        &mut doc,
        "upstream",
        settings.upstreams.iter().map(|row| upstream_table(row, &settings.timeouts)),
    );
    insert_rows(&mut doc, "model", settings.models.iter().map(|row| model_table(row)));
    let mut table = TableWriter::default();
    for alias in &settings.aliases {
        table.put(alias.name.text(), &*alias.target);
    }
    if !settings.aliases.is_empty() {
        table.insert_into(&mut doc, "aliases");
    }
    insert_rows(&mut doc, "model_facts", settings.model_facts.iter().map(|row| facts_table(row)));
    insert_rows(&mut doc, "project", settings.projects.iter().map(|row| project_table(row)));

    match settings.budget.as_slice() {
        [] => {}
        [one] => {
            let mut table = TableWriter::default();
            budget_fields(one).into_iter().for_each(|(name, value)| table.put(name, value));
            table.insert_into(&mut doc, "budget");
        }
        several => {
            let each = several.iter().map(|one| {
                TableWriter(
                    budget_fields(one)
                        .into_iter()
                        .map(|(name, value)| (name, Item::Value(value)))
                        .collect(),
                )
            });
            insert_rows(&mut doc, "budget", each);
        }
    }

    insert_table(&mut doc, &settings.ledger);
    insert_table(&mut doc, &settings.alerts);
    insert_table(&mut doc, &settings.otlp);
    let mut prices = Table::new();
    prices.set_implicit(true);
    for row in &settings.prices {
        prices.insert(
            &format!("{}/{}", row.vendor, row.model.text()),
            Item::Table(price_table(&row.price)),
        );
    }
    if !prices.is_empty() {
        doc.insert("prices", Item::Table(prices));
    }
    let mut table = TableWriter::default();
    for (currency, dollars) in &settings.rates {
        table.put(currency, *dollars as f64 / NANOS_PER_UNIT as f64);
    }
    if !settings.rates.is_empty() {
        table.insert_into(&mut doc, "rates");
    }

    insert_table(&mut doc, &settings.tui);
    doc
}

fn insert_table<T: ConfigTable>(doc: &mut DocumentMut, table: &T) {
    let mut writer = TableWriter::default();
    for (name, value) in table.written_keys() {
        writer.put(name, value);
    }
    writer.insert_into(doc, T::PATH);
}

fn price_table(price: &ModelPrice) -> Table {
    let mut table = TableWriter::default();
    write_rates(&price.rates, &mut |name, value| table.put(name, value));
    table.put("currency", &*price.currency);
    for (name, text) in [("page", &price.page), ("date", &price.date)] {
        if !text.is_empty() {
            table.put(name, &**text);
        }
    }
    if !price.conditions.is_empty() {
        table.put(
            "when",
            price
                .conditions
                .iter()
                .map(|when| Value::InlineTable(condition_table(when)))
                .collect::<Array>(),
        );
    }
    table.0.decor_mut().set_prefix("\n");
    table.0
}

fn write_rates(rates: &PriceRates, put: &mut dyn FnMut(&'static str, Value)) {
    for class in PriceClass::ALL {
        if let Some(price) = rates.explicit(class) {
            put(class.name(), (price as f64 / NANOS_PER_UNIT as f64).into());
        }
    }
}

fn condition_table(when: &PriceCondition) -> InlineTable {
    let mut table = InlineTable::new();
    let tokens = |n: Option<u64>| n.map(|n| Value::from(i64::try_from(n).unwrap_or(i64::MAX)));
    let text = |text: &Option<String>| text.as_deref().map(Value::from);
    let time = |(from, to): (u16, u16)| {
        format!("{:02}:{:02}-{:02}:{:02}", from / 60, from % 60, to / 60, to % 60)
    };
    let all = [
        ("input_above", tokens(when.input_above)),
        ("input_upto", tokens(when.input_upto)),
        ("output_above", tokens(when.output_above)),
        ("output_upto", tokens(when.output_upto)),
        ("tier", text(&when.tier)),
        ("resolution", text(&when.resolution)),
        ("quality", text(&when.quality)),
        ("thinking", when.thinking.map(Value::from)),
        ("from", when.from.map(|at| at.to_string().into())),
        ("until", when.until.map(|at| at.to_string().into())),
        ("hours", when.hours.map(|hours| time(hours).into())),
    ];
    table.extend(all.into_iter().filter_map(|(name, value)| Some((name, value?))));
    write_rates(&when.rates, &mut |name, value| drop(table.insert(name, value)));
    table
}

/// A table being written.
#[derive(Default)]
struct TableWriter(Table);

impl TableWriter {
    fn put(&mut self, name: &str, value: impl Into<Value>) {
        self.0.insert(name, Item::Value(value.into()));
    }

    fn insert_into(mut self, doc: &mut DocumentMut, name: &str) {
        let prefix = if doc.as_table().is_empty() { "" } else { "\n" };
        self.0.decor_mut().set_prefix(prefix);
        doc.insert(name, Item::Table(self.0));
    }
}

fn insert_rows(doc: &mut DocumentMut, kind: &str, each: impl Iterator<Item = TableWriter>) {
    let mut list = ArrayOfTables::new();
    for mut row in each {
        row.0.decor_mut().set_prefix("\n");
        list.push(row.0);
    }
    if !list.is_empty() {
        doc.insert(kind, Item::ArrayOfTables(list));
    }
}

fn text_array<S: AsRef<str>>(texts: impl IntoIterator<Item = S>) -> Array {
    texts.into_iter().map(|text| text.as_ref().to_owned()).collect()
}

fn patterns_array(patterns: &Patterns) -> Array {
    let no = patterns.exclude.iter().map(|pattern| format!("!{}", pattern.text()));
    text_array(patterns.include.iter().map(|pattern| pattern.text().to_owned()).chain(no))
}

fn statuses_array(set: &StatusSet) -> Array {
    text_array(
        set.0.iter().map(
            |&(low, high)| if low == high { low.to_string() } else { format!("{low}-{high}") },
        ),
    )
}

fn keyless_table(row: &KeylessListener) -> TableWriter {
    let mut table = TableWriter::default();
    table.put("listen", row.listen.addresses.first().map(ToString::to_string).unwrap_or_default());
    table.put("project", &*row.project);
    table.put("dialects", row.dialects.iter().map(|dialect| dialect.name()).collect::<Array>());
    table
}

fn facts_table(row: &FactsRow) -> TableWriter {
    let mut table = TableWriter::default();
    table.put("match", text_array(&row.source.patterns));
    for (name, patterns) in [("upstreams", &row.upstreams), ("providers", &row.providers)] {
        if let Some(patterns) = patterns {
            table.put(name, patterns_array(patterns));
        }
    }
    if !row.dialects.is_empty() {
        let names = row.dialects.iter().map(|dialect| dialect.name());
        table.put("dialects", names.collect::<Array>());
    }
    for (name, text) in [("source", &row.source.page), ("date", &row.source.date)] {
        if !text.is_empty() {
            table.put(name, text.as_str());
        }
    }
    for (name, text) in row.facts.to_toml_values() {
        if let Ok(value) = text.parse::<Value>() {
            table.put(name, value);
        }
    }
    table
}

/// Returns the timeouts that differ from the defaults.
fn changed_timeouts(timeouts: &Timeouts, defaults: &Timeouts) -> InlineTable {
    let each = timeouts.written_keys().into_iter().zip(defaults.written_keys());
    let changed = each.filter(|((_, own), (_, usual))| own.to_string() != usual.to_string());
    changed.map(|(own, _)| own).collect()
}

fn upstream_table(upstream: &Upstream, defaults: &Timeouts) -> TableWriter {
    let mut table = TableWriter::default();
    table.put("name", &*upstream.name);
    if let Some(preset) = &upstream.preset {
        table.put("preset", &**preset);
    }
    let mut urls = InlineTable::new();
    for end in &upstream.endpoints {
        let query = end.query.as_ref().map(|query| format!("?{query}")).unwrap_or_default();
        urls.insert(end.dialect.name(), format!("{}{query}", end.base_url).into());
    }
    table.put("base_url", urls);
    if let Some(models) = &upstream.models {
        table.put("models", patterns_array(models));
    }
    if !upstream.rename.is_empty() {
        table.put(
            "rename",
            upstream
                .rename
                .iter()
                .map(|(name, real)| (name.as_str(), real.as_str()))
                .collect::<InlineTable>(),
        );
    }
    table.put("priority", i64::from(upstream.priority));
    table.put("weight", upstream.weight);
    table.put("max_concurrency", i64::from(upstream.max_concurrency));
    table.put("max_rps", upstream.max_rps);
    if !upstream.region.is_empty() {
        table.put("region", upstream.region.as_str());
    }
    match &upstream.proxy {
        ProxySetting::Environment => {}
        ProxySetting::Direct => table.put("proxy", "none"),
        ProxySetting::Url(url) => table.put("proxy", strip_credentials(url)),
    }
    if !upstream.headers.is_empty() {
        // Some values are credentials, and there is no way to recognise them.
        table.put(
            "headers",
            upstream.headers.iter().map(|(name, _)| (name.as_str(), "…")).collect::<InlineTable>(),
        );
    }
    if let Some(file) = &upstream.ca_file {
        table.put("ca_file", file.display().to_string());
    }
    table.put("insecure_tls", upstream.insecure_tls);
    table.put("ask_usage", upstream.ask_usage);
    table.put("think_split", upstream.think_split);
    table.put("stream_keepalive", upstream.stream_keepalive);
    if upstream.prices_win {
        table.put("prices_win", true);
    }
    if let Some(set) = &upstream.retry_statuses {
        table.put("retry_statuses", statuses_array(set));
    }
    if !upstream.rules.is_empty() {
        table.put(
            "rule",
            upstream
                .rules
                .iter()
                .map(|each| Value::InlineTable(rule_table(each)))
                .collect::<Array>(),
        );
    }
    if let Some(value) = budgets_value(&upstream.budget) {
        table.put("budget", value);
    }
    if let Some(health) = &upstream.health {
        let mut value = InlineTable::new();
        value.insert("path", health.path.as_str().into());
        value.insert("every", units::print_duration(health.interval).into());
        table.put("health", value);
    }
    table.put(
        "keys",
        upstream.keys.iter().map(|each| Value::InlineTable(key_table(each))).collect::<Array>(),
    );
    table.put("enabled", upstream.enabled);
    let timeouts = changed_timeouts(&upstream.timeouts, defaults);
    if !timeouts.is_empty() {
        table.put("timeouts", timeouts);
    }
    if !upstream.patch.is_empty() {
        table.put("patch", patch_table(&upstream.patch));
    }
    table
}

fn rule_table(rule: &UpstreamRule) -> InlineTable {
    let mut table = InlineTable::new();
    if let Some(set) = &rule.statuses {
        table.insert("status", statuses_array(set).into());
    }
    if let Some(needle) = &rule.text {
        table.insert("match", needle.text().into());
    }
    table.insert("action", rule.action.name().into());
    table.insert("scope", rule.scope.name().into());
    if let Some(span) = rule.cool_for {
        table.insert("for", units::print_duration(span).into());
    }
    table
}

fn strip_credentials(url: &str) -> String {
    match url.split_once("://") {
        Some((scheme, rest)) if rest.contains('@') => {
            format!("{scheme}://…@{}", rest.rsplit('@').next().unwrap_or_default())
        }
        _ => url.to_owned(),
    }
}

fn key_table(key: &UpstreamKey) -> InlineTable {
    let mut table = InlineTable::new();
    table.insert("ref", key.reference.to_string().into());
    table.insert("label", (&*key.label).into());
    if key.account != key.name {
        table.insert("account", (&*key.account).into());
    }
    table.insert("priority", i64::from(key.priority).into());
    table.insert("weight", key.weight.into());
    write_limit(&mut table, key.limit);
    if key.max_concurrency > 0 {
        table.insert("max_concurrency", i64::from(key.max_concurrency).into());
    }
    if !key.limits.is_empty() {
        let mut rows = InlineTable::new();
        for (pattern, narrow) in &key.limits {
            let mut row = InlineTable::new();
            write_limit(&mut row, *narrow);
            rows.insert(pattern.text(), row.into());
        }
        table.insert("limits", rows.into());
    }
    if let Some(value) = budgets_value(&key.budget) {
        table.insert("budget", value);
    }
    if let Some(span) = key.refresh {
        table.insert("refresh", units::print_duration(span).into());
    }
    if !key.enabled {
        table.insert("enabled", false.into());
    }
    table
}

fn budget_fields(budget: &Budget) -> [(&'static str, Value); 3] {
    [
        ("usd", budget.usd.dollars().into()),
        ("per", budget.period.name().into()),
        ("unpriced", budget.unpriced.name().into()),
    ]
}

/// Returns one table, or a list of tables.
fn budgets_value(all: &[Budget]) -> Option<Value> {
    let mut each =
        all.iter().map(|one| Value::InlineTable(budget_fields(one).into_iter().collect()));
    match all {
        [] => None,
        [_] => each.next(),
        _ => Some(Value::Array(each.collect())),
    }
}

fn write_limit(table: &mut InlineTable, limit: KeyLimit) {
    for (name, number) in [("rpm", limit.rpm), ("tpm", limit.tpm)] {
        if number > 0 {
            table.insert(name, i64::from(number).into());
        }
    }
}

fn patch_table(patch: &Patch) -> InlineTable {
    let mut table = InlineTable::new();
    for (name, edits) in [("set", &patch.set), ("default", &patch.default)] {
        if !edits.is_empty() {
            table.insert(
                name,
                Value::InlineTable(
                    edits
                        .iter()
                        .map(|(pointer, value)| (pointer.as_str(), json_to_toml(value)))
                        .collect(),
                ),
            );
        }
    }
    if !patch.remove.is_empty() {
        table.insert("remove", Value::Array(text_array(&patch.remove)));
    }
    table
}

/// Converts JSON to TOML. TOML has no null, so null becomes an empty string.
fn json_to_toml(value: &serde_json::Value) -> Value {
    use serde_json::Value as Json;
    match value {
        Json::Null => "".into(),
        Json::Bool(flag) => (*flag).into(),
        Json::Number(number) => {
            number.as_i64().map_or_else(|| number.as_f64().unwrap_or_default().into(), Value::from)
        }
        Json::String(text) => text.as_str().into(),
        Json::Array(items) => Value::Array(items.iter().map(json_to_toml).collect()),
        Json::Object(fields) => Value::InlineTable(
            fields.iter().map(|(name, value)| (name.as_str(), json_to_toml(value))).collect(),
        ),
    }
}

fn model_table(model: &LogicalModel) -> TableWriter {
    let mut table = TableWriter::default();
    table.put("name", model.name.text());
    table.put("targets", model.targets.iter().map(target_value).collect::<Array>());
    table.put("strategy", model.strategy.name());
    if let Some(sticky) = model.sticky {
        table.put("sticky", sticky.name());
    }
    if let Some(span) = model.sticky_ttl {
        table.put("sticky_ttl", units::print_duration(span));
    }
    if let Some(hedge) = &model.hedge {
        let mut value = InlineTable::new();
        value.insert(
            "after",
            match hedge.after {
                HedgeDelay::P95 => "p95".into(),
                HedgeDelay::Fixed(span) => units::print_duration(span).into(),
            },
        );
        value.insert("max_share", hedge.max_share.into());
        value.insert("max_tokens", i64::try_from(hedge.max_tokens).unwrap_or(i64::MAX).into());
        table.put("hedge", value);
    }
    if model.rescue {
        table.put("rescue", true);
    }
    let mut timeouts = InlineTable::new();
    for (name, span) in
        [("first_byte", model.first_byte), ("idle", model.idle), ("total", model.total)]
    {
        if let Some(span) = span {
            timeouts.insert(name, units::print_duration(span).into());
        }
    }
    if !timeouts.is_empty() {
        table.put("timeouts", timeouts);
    }
    table
}

fn target_value(target: &ModelTarget) -> Value {
    let mut table = InlineTable::new();
    if let Some(upstream) = &target.upstream {
        table.insert("upstream", (&**upstream).into());
    }
    table.insert("model", (&*target.model).into());
    if let Some(priority) = target.priority {
        table.insert("priority", i64::from(priority).into());
    }
    if let Some(weight) = target.weight {
        table.insert("weight", weight.into());
    }
    Value::InlineTable(table)
}

fn project_table(project: &Project) -> TableWriter {
    let mut table = TableWriter::default();
    table.put("name", &*project.name);
    if let Some(key) = &project.key {
        table.put("key", key.to_string());
    }
    table.put("models", patterns_array(&project.models));
    table.put("upstreams", patterns_array(&project.upstreams));
    table.put("rpm", i64::from(project.rpm));
    table.put("tpm", i64::from(project.tpm));
    table.put("max_concurrency", i64::from(project.max_concurrency));
    if let Some(value) = budgets_value(&project.budget) {
        table.put("budget", value);
    }
    table.put(
        "subnets",
        text_array(project.subnets.iter().map(|net| format!("{}/{}", net.addr, net.bits))),
    );
    table.put("admin", project.admin);
    table.put("enabled", project.enabled);
    table
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{Environment, IdInterner, load::load};

    #[test]
    fn what_is_shown_has_no_credential_and_can_be_asked_for_by_path() {
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
