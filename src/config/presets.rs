//! Facts about providers: the rows of `assets/presets.toml`.

use std::sync::{Arc, LazyLock};

use toml::de::DeTable;

use super::{
    problem::Report,
    schema::endpoint::{Auth, DialectEndpoint},
};
use crate::config::reader::{self, TableReader};
use crate::{
    base::pattern::Patterns,
    ir::{embed::EmbedForm, op::Dialect, rerank::RerankForm},
};

const EMBED_FORMS: [(&str, EmbedForm); 3] =
    [("input_type", EmbedForm::InputType), ("task", EmbedForm::Task), ("texts", EmbedForm::Texts)];
const RERANK_FORMS: [(&str, RerankForm); 5] = [
    ("data", RerankForm::Data),
    ("meta", RerankForm::Meta),
    ("meta_texts", RerankForm::MetaTexts),
    ("results", RerankForm::Results),
    ("scores", RerankForm::Scores),
];

const PRESETS_TOML: &str = include_str!("../../assets/presets.toml");

/// One provider.
#[derive(Clone, Debug)]
pub struct Preset {
    pub name: Arc<str>,
    pub title: String,
    /// The preferred endpoint first; never empty.
    pub endpoints: Vec<DialectEndpoint>,
    /// Dialects that it speaks too, but less well than those of its endpoints.
    pub also: Vec<Dialect>,
    /// Whether it speaks no other dialect.
    pub only: bool,
    pub auth: Auth,
    /// Variables that usually contain its key; the provider's own name for it comes first.
    pub key_env: Vec<Arc<str>>,
    pub key_prefix: Option<String>,
    pub key_page: Option<Arc<str>>,
    pub ask_usage: bool,
    /// Whether its chat models accept their own reasoning back.
    pub accepts_reasoning: bool,
    /// Forms of its embeddings and reranking, if they differ from its dialect.
    pub embed: Option<EmbedForm>,
    pub rerank: Option<RerankForm>,
    /// Its models, if it publishes no list.
    pub models: Option<Patterns>,
    /// Relative to the base URL; the dialect's path if absent.
    pub models_path: Option<String>,
    /// Each customer has a different base URL.
    pub needs_url: bool,
    /// Local servers: the port they usually listen on.
    pub port: Option<u16>,
    /// Local servers: a path that answers 200.
    pub probe_path: Option<String>,
    pub accepts_compressed: bool,
    /// Requests that return the remaining balance of a key; tried in turn.
    pub balance: Vec<BalanceProbe>,
}

/// A request for a balance, and the form of its response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BalanceProbe {
    /// Absolute path on the provider's server.
    pub path: String,
    /// JSON pointer of a list, if the response has several balances.
    pub list_pointer: Option<String>,
    /// JSON pointers of numbers: the remaining amount, or the amounts paid and used.
    pub remaining: Option<String>,
    pub total: Option<String>,
    pub used: Option<String>,
    /// A currency code, or the JSON pointer of one.
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

    /// Returns whether it cannot be asked in this dialect.
    #[must_use]
    pub fn lacks(&self, dialect: Dialect) -> bool {
        self.only && self.endpoint(dialect).is_none() && !self.also.contains(&dialect)
    }

    #[must_use]
    pub fn endpoint(&self, dialect: Dialect) -> Option<&DialectEndpoint> {
        self.endpoints.iter().find(|end| end.dialect == dialect)
    }
}

/// Returns every preset, in the order of the file.
#[must_use]
pub fn all() -> &'static [Preset] {
    static ALL: LazyLock<Vec<Preset>> =
        LazyLock::new(|| read_all(PRESETS_TOML, &mut Report::default()));
    &ALL
}

/// Returns the preset with this name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Preset> {
    all().iter().find(|preset| &*preset.name == name)
}

/// Returns the preset whose key prefix matches this key; the longest prefix wins.
#[must_use]
pub fn by_key_prefix(key: &str) -> Option<&'static Preset> {
    let fits = |preset: &&Preset| {
        preset.key_prefix.as_deref().is_some_and(|prefix| key.starts_with(prefix))
    };
    all().iter().filter(fits).max_by_key(|preset| preset.key_prefix.as_deref().map_or(0, str::len))
}

/// Skips rows that cannot be read; a test proves that the file has none.
fn read_all(text: &str, report: &mut Report) -> Vec<Preset> {
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        report.error(&error.span().unwrap_or(0..0), error.message(), None);
    }
    let mut top = TableReader::new("", 0..0, table.get_ref());
    let rows = top.children("preset", report);
    let presets = rows.into_iter().filter_map(|row| read_preset(row, report)).collect();
    top.finish(report);
    presets
}

fn read_preset(mut row: TableReader<'_>, report: &mut Report) -> Option<Preset> {
    let span = row.span.clone();
    let name = row.read("name", report, reader::text)?.value;
    row.set_path(format!("preset.{name}"));
    let title = row.read_or("title", report, name.clone(), reader::text);
    let query = row.read("query", report, reader::text).map(|at| at.value);
    let ends = row
        .child("urls", report)
        .map(|table| read_endpoints(table, query.as_ref(), report))
        .unwrap_or_default();
    let auth = match row.read("auth", report, reader::text).map(|at| at.value).as_deref() {
        None | Some("bearer") => Auth::Bearer,
        Some("none") => Auth::None,
        Some(header) => Auth::Header(header.to_owned()),
    };
    let list = |at: Option<reader::Located<Vec<reader::Located<String>>>>| {
        at.map(|at| at.value.into_iter().map(|at| at.value).collect::<Vec<_>>())
    };
    let key_env = list(row.read_list("key_env", report, reader::text)).unwrap_or_default();
    let models = list(row.read_list("models", report, reader::text));
    let also = list(row.read_list("also", report, reader::text)).unwrap_or_default();
    let preset = Preset {
        title,
        auth,
        also: also.iter().filter_map(|name| Dialect::parse(name)).collect(),
        only: row.read_or("only", report, false, reader::flag),
        key_env: key_env.into_iter().map(Arc::from).collect(),
        key_prefix: row.read("key_prefix", report, reader::text).map(|at| at.value),
        key_page: row.read("key_page", report, reader::text).map(|at| at.value.into()),
        ask_usage: row.read_or("ask_usage", report, false, reader::flag),
        embed: row.read("embed", report, reader::one_of(&EMBED_FORMS)).map(|at| at.value),
        rerank: row.read("rerank", report, reader::one_of(&RERANK_FORMS)).map(|at| at.value),
        accepts_reasoning: row.read_or("reasoning_back", report, true, reader::flag),
        models: models.and_then(|texts| Patterns::parse(texts.iter().map(String::as_str)).ok()),
        models_path: row.read("models_path", report, reader::text).map(|at| at.value),
        needs_url: row.read_or("needs_url", report, false, reader::flag),
        port: row
            .read("port", report, reader::count(1, 65_535))
            .and_then(|at| u16::try_from(at.value).ok()),
        probe_path: row.read("probe", report, reader::text).map(|at| at.value),
        accepts_compressed: row.read_or("compressed", report, false, reader::flag),
        balance: row
            .children("balance", report)
            .into_iter()
            .filter_map(|row| read_balance(row, report))
            .collect(),
        endpoints: ends,
        name: name.into(),
    };
    row.finish(report);
    if preset.endpoints.is_empty() {
        report.error(&span, "a preset without URLs", None);
        return None;
    }
    Some(preset)
}

fn read_balance(mut row: TableReader<'_>, report: &mut Report) -> Option<BalanceProbe> {
    let mut text = |name| row.read(name, report, reader::text).map(|at| at.value);
    let at = BalanceProbe {
        path: text("path")?,
        list_pointer: text("each"),
        remaining: text("left"),
        total: text("total"),
        used: text("used"),
        currency: text("currency")?,
    };
    row.finish(report);
    Some(at)
}

fn read_endpoints(
    mut table: TableReader<'_>,
    query: Option<&String>,
    report: &mut Report,
) -> Vec<DialectEndpoint> {
    let mut ends = Vec::new();
    for (name, node) in table.remaining() {
        let Some(dialect) = Dialect::parse(&name.value) else {
            report.error(&name.span, "not a dialect", None);
            continue;
        };
        if let Some(url) = reader::read_value(&name.value, node, report, &reader::text) {
            ends.push(DialectEndpoint { dialect, base_url: url.value, query: query.cloned() });
        }
    }
    ends
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn embedded_file_is_valid() {
        let mut report = Report::default();
        let presets = read_all(PRESETS_TOML, &mut report);
        assert!(report.findings.is_empty(), "{:?}", report.findings);
        assert!(presets.len() > 30, "{}", presets.len());
        let names: BTreeSet<_> = presets.iter().map(|p| p.name.clone()).collect();
        assert_eq!(names.len(), presets.len(), "two presets of one name");
    }

    #[test]
    fn every_preset_is_usable_unmodified() {
        let mut variables = BTreeSet::new();
        for preset in all() {
            for end in &preset.endpoints {
                assert!(!end.base_url.ends_with('/'), "{}", end.base_url);
                let secure = end.base_url.starts_with("https://") || preset.is_local();
                assert!(secure, "{}: {}", preset.name, end.base_url);
            }
            assert_eq!(preset.needs_key(), !preset.key_env.is_empty(), "{}", preset.name);
            assert_eq!(preset.needs_key(), preset.key_page.is_some(), "{}", preset.name);
            for at in &preset.balance {
                assert!(
                    at.path.starts_with('/')
                        && (at.remaining.is_some() || at.total.is_some() && at.used.is_some()),
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
            assert_eq!(by_key_prefix(key).map(|p| &*p.name), want, "{key}");
        }
    }
}
