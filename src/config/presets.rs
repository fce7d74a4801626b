//! What is known about providers: the rows of `assets/presets.toml`.

use std::sync::{Arc, LazyLock};

use toml::de::DeTable;

use super::{
    problem::Report,
    read::{self, Table},
    settings::{Auth, End},
};
use crate::{
    base::pattern::Patterns,
    ir::{embed::EmbedForm, op::Dialect, rerank::RerankForm},
};

const EMBEDS: [(&str, EmbedForm); 3] =
    [("input_type", EmbedForm::InputType), ("task", EmbedForm::Task), ("texts", EmbedForm::Texts)];
const RERANKS: [(&str, RerankForm); 5] = [
    ("data", RerankForm::Data),
    ("meta", RerankForm::Meta),
    ("meta_texts", RerankForm::MetaTexts),
    ("results", RerankForm::Results),
    ("scores", RerankForm::Scores),
];

const TEXT: &str = include_str!("../../assets/presets.toml");

/// One provider.
#[derive(Clone, Debug)]
pub struct Preset {
    pub name: Arc<str>,
    pub title: String,
    /// The preferred end first; never empty.
    pub ends: Vec<End>,
    pub auth: Auth,
    /// Variables that usually hold its key; the first is the provider's own name for it.
    pub key_env: Vec<Arc<str>>,
    pub key_prefix: Option<String>,
    pub key_page: Option<Arc<str>>,
    pub ask_usage: bool,
    /// Whether its chat models take their reasoning back.
    pub reasoning_back: bool,
    /// Forms of its embeddings and reranking, where not as its dialect has them.
    pub embed: Option<EmbedForm>,
    pub rerank: Option<RerankForm>,
    /// Where it publishes no list.
    pub models: Option<Patterns>,
    /// Below the base URL; else the dialect's own.
    pub models_path: Option<String>,
    /// The base URL differs from customer to customer.
    pub needs_url: bool,
    /// Local servers: the port they usually listen on.
    pub port: Option<u16>,
    /// Local servers: a path that answers 200.
    pub probe: Option<String>,
    pub takes_compressed: bool,
    /// Where it tells what is left for a key; tried in turn.
    pub balance: Vec<BalanceAt>,
}

/// Where a provider tells a balance, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BalanceAt {
    /// From the root of its server.
    pub path: String,
    /// JSON pointer of a list, where several are told.
    pub each: Option<String>,
    /// JSON pointers of numbers: what is left, or what was paid and used.
    pub left: Option<String>,
    pub total: Option<String>,
    pub used: Option<String>,
    /// A code, or the pointer of one.
    pub currency: String,
}

impl Preset {
    /// Whether a credential is needed at all.
    #[must_use]
    pub fn needs_key(&self) -> bool {
        self.auth != Auth::None
    }

    #[must_use]
    pub fn is_local(&self) -> bool {
        self.port.is_some()
    }

    #[must_use]
    pub fn end(&self, dialect: Dialect) -> Option<&End> {
        self.ends.iter().find(|end| end.dialect == dialect)
    }
}

/// Every preset, in the order of the file.
#[must_use]
pub fn all() -> &'static [Preset] {
    static ALL: LazyLock<Vec<Preset>> = LazyLock::new(|| read_all(TEXT, &mut Report::default()));
    &ALL
}

/// The preset of this name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Preset> {
    all().iter().find(|preset| &*preset.name == name)
}

/// The preset whose keys begin like this one, the longest prefix winning.
#[must_use]
pub fn by_key(key: &str) -> Option<&'static Preset> {
    let fits = |preset: &&Preset| {
        preset.key_prefix.as_deref().is_some_and(|prefix| key.starts_with(prefix))
    };
    all().iter().filter(fits).max_by_key(|preset| preset.key_prefix.as_deref().map_or(0, str::len))
}

/// Rows that cannot be read are left out; a test holds the file to having none.
fn read_all(text: &str, report: &mut Report) -> Vec<Preset> {
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        report.error(&error.span().unwrap_or(0..0), error.message(), None);
    }
    let mut top = Table::new("", 0..0, table.get_ref());
    let rows = top.tables("preset", report);
    let presets = rows.into_iter().filter_map(|row| preset(row, report)).collect();
    top.end(report);
    presets
}

fn preset(mut row: Table<'_>, report: &mut Report) -> Option<Preset> {
    let span = row.span.clone();
    let name = row.take("name", report, read::text)?.value;
    row.rename(format!("preset.{name}"));
    let title = row.or("title", report, name.clone(), read::text);
    let query = row.take("query", report, read::text).map(|at| at.value);
    let ends = row
        .table("urls", report)
        .map(|table| ends(table, query.as_ref(), report))
        .unwrap_or_default();
    let auth = match row.take("auth", report, read::text).map(|at| at.value).as_deref() {
        None | Some("bearer") => Auth::Bearer,
        Some("none") => Auth::None,
        Some(header) => Auth::Header(header.to_owned()),
    };
    let list = |at: Option<read::At<Vec<read::At<String>>>>| {
        at.map(|at| at.value.into_iter().map(|at| at.value).collect::<Vec<_>>())
    };
    let key_env = list(row.list("key_env", report, read::text)).unwrap_or_default();
    let models = list(row.list("models", report, read::text));
    let preset = Preset {
        title,
        auth,
        key_env: key_env.into_iter().map(Arc::from).collect(),
        key_prefix: row.take("key_prefix", report, read::text).map(|at| at.value),
        key_page: row.take("key_page", report, read::text).map(|at| at.value.into()),
        ask_usage: row.or("ask_usage", report, false, read::flag),
        embed: row.take("embed", report, read::word(&EMBEDS)).map(|at| at.value),
        rerank: row.take("rerank", report, read::word(&RERANKS)).map(|at| at.value),
        reasoning_back: row.or("reasoning_back", report, true, read::flag),
        models: models.and_then(|texts| Patterns::parse(texts.iter().map(String::as_str)).ok()),
        models_path: row.take("models_path", report, read::text).map(|at| at.value),
        needs_url: row.or("needs_url", report, false, read::flag),
        port: row
            .take("port", report, read::count(1, 65_535))
            .and_then(|at| u16::try_from(at.value).ok()),
        probe: row.take("probe", report, read::text).map(|at| at.value),
        takes_compressed: row.or("compressed", report, false, read::flag),
        balance: row
            .tables("balance", report)
            .into_iter()
            .filter_map(|row| balance(row, report))
            .collect(),
        ends,
        name: name.into(),
    };
    row.end(report);
    if preset.ends.is_empty() {
        report.error(&span, "a preset without URLs", None);
        return None;
    }
    Some(preset)
}

fn balance(mut row: Table<'_>, report: &mut Report) -> Option<BalanceAt> {
    let mut text = |name| row.take(name, report, read::text).map(|at| at.value);
    let at = BalanceAt {
        path: text("path")?,
        each: text("each"),
        left: text("left"),
        total: text("total"),
        used: text("used"),
        currency: text("currency")?,
    };
    row.end(report);
    Some(at)
}

fn ends(mut table: Table<'_>, query: Option<&String>, report: &mut Report) -> Vec<End> {
    let mut ends = Vec::new();
    for (name, node) in table.rest() {
        let Some(dialect) = Dialect::parse(&name.value) else {
            report.error(&name.span, "not a dialect", None);
            continue;
        };
        if let Some(url) = read::one(&name.value, node, report, &read::text) {
            ends.push(End { dialect, base_url: url.value, query: query.cloned() });
        }
    }
    ends
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_embedded_file_is_without_a_problem() {
        let mut report = Report::default();
        let presets = read_all(TEXT, &mut report);
        assert!(report.findings.is_empty(), "{:?}", report.findings);
        assert!(presets.len() > 30, "{}", presets.len());
        let names: BTreeSet<_> = presets.iter().map(|p| p.name.clone()).collect();
        assert_eq!(names.len(), presets.len(), "two presets of one name");
    }

    #[test]
    fn every_preset_can_be_used_as_it_stands() {
        let mut variables = BTreeSet::new();
        for preset in all() {
            for end in &preset.ends {
                assert!(!end.base_url.ends_with('/'), "{}", end.base_url);
                let secure = end.base_url.starts_with("https://") || preset.is_local();
                assert!(secure, "{}: {}", preset.name, end.base_url);
            }
            assert_eq!(preset.needs_key(), !preset.key_env.is_empty(), "{}", preset.name);
            assert_eq!(preset.needs_key(), preset.key_page.is_some(), "{}", preset.name);
            for at in &preset.balance {
                assert!(
                    at.path.starts_with('/')
                        && (at.left.is_some() || at.total.is_some() && at.used.is_some()),
                    "{at:?}"
                );
            }
            for name in &preset.key_env {
                assert!(variables.insert(name.clone()), "{name} stands in two presets");
            }
        }
    }

    #[test]
    fn keys_are_recognised_by_their_longest_prefix() {
        for (key, want) in [
            ("sk-ant-x", Some("anthropic")),
            ("sk-or-v1-x", Some("openrouter")),
            ("sk-proj-x", Some("openai")),
            ("zzz", None),
        ] {
            assert_eq!(by_key(key).map(|p| &*p.name), want, "{key}");
        }
    }
}
