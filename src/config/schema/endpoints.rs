//! The endpoints of an upstream: from `base_url` and `dialect` of its row, and from its preset.

use serde_json::json;
use toml::de::DeValue;

use super::endpoint::DialectEndpoint;
use super::known_address;
use super::names::{DialectName, parse_dialect};
use crate::{
    base::suggest,
    config::{
        base_url,
        kinds::{KindDescription, List, TEXT, ValueKind},
        presets::{self, Preset},
        problem::Report,
        reader::{self, Located, SourceSpan, TableReader, ValueError, truncate},
    },
    ir::op::Dialect,
};

/// The keys of a row that lead to its endpoints, as written.
pub(super) struct WrittenEndpoints {
    name: Located<String>,
    /// `upstream.NAME`, for messages.
    path: String,
    preset: Option<Located<String>>,
    base_url: Option<WrittenBaseUrl>,
    dialects: Option<Located<Vec<Dialect>>>,
}

enum WrittenBaseUrl {
    Single(Located<String>),
    /// By dialect, in the order of the file.
    PerDialect(Vec<(Dialect, Located<String>)>, SourceSpan),
}

pub(super) fn describe_base_url() -> KindDescription {
    let text = json!({ "type": "string" });
    let by_dialect = json!({
        "type": "object",
        "propertyNames": { "$ref": "#/$defs/dialect" },
        "additionalProperties": text,
    });
    KindDescription::text(
        "URL, or table of URLs by dialect",
        json!({ "anyOf": [text, by_dialect] }),
    )
}

/// Returns the URL of an endpoint as written in the file.
pub(super) fn written_url(endpoint: &DialectEndpoint) -> String {
    let query = endpoint.query.as_ref().map(|query| format!("?{query}")).unwrap_or_default();
    format!("{}{query}", endpoint.base_url)
}

impl WrittenEndpoints {
    pub(super) fn read(
        row: &mut TableReader<'_>,
        name: Located<String>,
        report: &mut Report,
    ) -> Self {
        let dialects = row.take_node("dialect").and_then(|node| {
            let list = List(DialectName).read(&row.key_path("dialect"), node, report)?;
            Some(Located::new(list, node.span()))
        });
        Self {
            path: format!("upstream.{}", name.value),
            name,
            preset: row.read("preset", report, reader::text),
            base_url: read_base_url(row, report),
            dialects,
        }
    }

    pub(super) fn has_base_url(&self) -> bool {
        self.base_url.is_some()
    }

    /// Returns the preset that the row names or is named after; `None` if the row cannot be used.
    pub(super) fn preset(&self, report: &mut Report) -> Option<Option<&'static Preset>> {
        let names = || presets::all().iter().map(|preset| &*preset.name);
        let requested = self.preset.as_ref().unwrap_or(&self.name);
        if let (None, Some(base_url)) = (&self.preset, &self.base_url) {
            return Some(self.preset_at_address(base_url, report));
        }
        let found = presets::find(&requested.value);
        if found.is_some() {
            return Some(found);
        }
        let near = suggest::nearest(&requested.value, names());
        if self.preset.is_some() {
            let help = match near {
                Some(name) => format!("did you mean \"{name}\"?"),
                None => "`aiproxy upstream presets` lists them; without a preset write `base_url` \
                         and `dialect`"
                    .to_owned(),
            };
            let name = truncate(&requested.value);
            let title = format!("`{}.preset`: there is no preset \"{name}\"", self.path);
            report.error(&requested.span, title, Some(help));
        } else {
            let help = match near {
                Some(name) => format!("add base_url = \"https://…\", or preset = \"{name}\""),
                None => {
                    "add base_url = \"https://…\"; `aiproxy upstream presets` lists what is known"
                        .to_owned()
                }
            };
            let title = format!("`{}` has neither `base_url` nor `preset`", self.path);
            report.missing(&requested.span, title, Some(help));
        }
        None
    }

    /// Returns the preset whose own address the row names, with a note.
    fn preset_at_address(
        &self,
        base_url: &WrittenBaseUrl,
        report: &mut Report,
    ) -> Option<&'static Preset> {
        let url = match base_url {
            WrittenBaseUrl::Single(url) => url,
            WrittenBaseUrl::PerDialect(urls, _) => &urls.first()?.1,
        };
        let found = known_address::find(&url.value)?;
        let (name, title) = (&found.name, &found.title);
        report.warn(
            &url.span,
            format!(
                "`{}.base_url` is the address of {title}, so the preset \"{name}\" fills in the rest",
                self.path
            ),
            Some(format!("add preset = \"{name}\"")),
        );
        Some(found)
    }

    /// Returns the endpoints by dialect; `None` if a problem was reported.
    pub(super) fn resolve(
        &self,
        preset: Option<&Preset>,
        report: &mut Report,
    ) -> Option<Vec<DialectEndpoint>> {
        if let Some(requested) = self.dialects.as_ref().filter(|list| list.value.is_empty()) {
            report.error(
                &requested.span,
                format!("`{}.dialect` names no dialect", self.path),
                Some("write dialect = \"openai\"".to_owned()),
            );
            return None;
        }
        match (&self.base_url, preset) {
            (Some(WrittenBaseUrl::PerDialect(urls, span)), _) => {
                self.endpoints_per_dialect(urls, span, preset, report)
            }
            (Some(WrittenBaseUrl::Single(url)), Some(preset))
                if known_address::is_at(preset, &url.value) =>
            {
                self.known_endpoints(url, preset, report)
            }
            (Some(WrittenBaseUrl::Single(url)), Some(preset)) => {
                self.rebased_endpoints(url, preset, report)
            }
            (Some(WrittenBaseUrl::Single(url)), None) => {
                let dialects = self.requested_dialects().unwrap_or_else(|| {
                    vec![base_url::dialect_of(&url.value).unwrap_or(Dialect::Openai)]
                });
                let each = dialects.into_iter();
                each.map(|dialect| self.endpoint(url, dialect, None, report)).collect()
            }
            (None, Some(preset)) => self.preset_endpoints(preset, report),
            // The missing preset has been reported.
            (None, None) => None,
        }
    }

    fn requested_dialects(&self) -> Option<Vec<Dialect>> {
        self.dialects.as_ref().map(|list| list.value.clone())
    }

    fn endpoints_per_dialect(
        &self,
        urls: &[(Dialect, Located<String>)],
        span: &SourceSpan,
        preset: Option<&Preset>,
        report: &mut Report,
    ) -> Option<Vec<DialectEndpoint>> {
        let mut endpoints = urls
            .iter()
            .map(|(dialect, url)| {
                if let Some(preset) = preset.filter(|it| known_address::is_at(it, &url.value)) {
                    let path = known_address::path_of(url.value.trim());
                    self.check_known_dialect(*dialect, path, url, preset, report)?;
                }
                self.endpoint(url, *dialect, preset, report)
            })
            .collect::<Option<Vec<_>>>()?;
        let order = self.requested_dialects().unwrap_or_default();
        let has_url = |dialect: &Dialect| endpoints.iter().any(|end| end.dialect == *dialect);
        if let Some(missing) = order.iter().find(|dialect| !has_url(dialect)) {
            report.error(
                span,
                format!("`{}.base_url` has no URL for the dialect \"{missing}\"", self.path),
                Some(format!("add {missing} = \"https://…\"")),
            );
            return None;
        }
        if endpoints.is_empty() {
            report.error(
                span,
                format!("`{}.base_url` is an empty table", self.path),
                Some("write { openai = \"https://…\" }".to_owned()),
            );
            return None;
        }
        endpoints.sort_by_key(|end| {
            order.iter().position(|dialect| *dialect == end.dialect).unwrap_or(usize::MAX)
        });
        Some(endpoints)
    }

    /// Returns the endpoints that a URL of the preset's own servers means.
    fn known_endpoints(
        &self,
        url: &Located<String>,
        preset: &Preset,
        report: &mut Report,
    ) -> Option<Vec<DialectEndpoint>> {
        let of_path = base_url::dialect_of(&url.value);
        let dialect = of_path.unwrap_or(preset.endpoints[0].dialect);
        let written = self.endpoint(url, dialect, Some(preset), report)?;
        // An empty path was filled in with the dialect's default.
        let path = match known_address::path_of(url.value.trim()) {
            "" => "",
            _ => known_address::path_of(&written.base_url),
        };
        let requested = self.requested_dialects().or(of_path.map(|dialect| vec![dialect]));
        let dialects = requested.unwrap_or_else(|| known_address::dialects_at(preset, path));
        let origin = base_url::origin_of(&written.base_url);
        let each = dialects.into_iter().map(|dialect| {
            self.check_known_dialect(dialect, path, url, preset, report)?;
            let base_url = match known_address::endpoint_at(preset, dialect, path) {
                Some(known) => format!("{origin}{}", known_address::path_of(&known.base_url)),
                None => self.endpoint(url, dialect, Some(preset), report)?.base_url,
            };
            Some(DialectEndpoint { dialect, base_url, query: written.query.clone() })
        });
        each.collect()
    }

    /// Reports a dialect that the provider does not speak, or speaks at another path.
    fn check_known_dialect(
        &self,
        dialect: Dialect,
        path: &str,
        url: &Located<String>,
        preset: &Preset,
        report: &mut Report,
    ) -> Option<()> {
        let span = self.dialects.as_ref().map_or(&url.span, |dialects| &dialects.span);
        let title = &preset.title;
        if preset.lacks(dialect) {
            let known: Vec<_> = preset.endpoints.iter().map(|end| end.dialect.name()).collect();
            let known = known.join(", ");
            report.error(
                span,
                format!("`{}.dialect`: {title} does not speak {dialect}", self.path),
                Some(format!("leave `dialect` out; {title} speaks {known}")),
            );
            return None;
        }
        let of_others = known_address::is_path_of_any(preset, path);
        match preset.endpoint(dialect) {
            Some(own)
                if of_others && known_address::endpoint_at(preset, dialect, path).is_none() =>
            {
                report.error(
                    &url.span,
                    format!("`{}.base_url`: {title} does not speak {dialect} there", self.path),
                    Some(format!("write base_url = \"{}\"", own.base_url)),
                );
                None
            }
            _ => Some(()),
        }
    }

    /// Reports an address that belongs to another provider than the preset.
    fn check_other_provider(
        &self,
        url: &Located<String>,
        preset: &Preset,
        report: &mut Report,
    ) -> Option<()> {
        let Some(other) = known_address::find(&url.value) else { return Some(()) };
        let (name, title) = (&other.name, &other.title);
        let text = format!(
            "`{}.base_url` is the address of {title}, and the preset that of {}",
            self.path, preset.title
        );
        let help = Some(format!("write preset = \"{name}\""));
        let dialects = self.requested_dialects().unwrap_or(vec![preset.endpoints[0].dialect]);
        if dialects.into_iter().any(|dialect| other.lacks(dialect)) {
            report.error(&url.span, text, help);
            return None;
        }
        report.warn(&url.span, text, help);
        Some(())
    }

    /// Moves the endpoints of a preset to another address, with all endpoints at or below the base
    /// URL of its first one.
    fn rebased_endpoints(
        &self,
        url: &Located<String>,
        preset: &Preset,
        report: &mut Report,
    ) -> Option<Vec<DialectEndpoint>> {
        let first = &preset.endpoints[0];
        self.check_other_provider(url, preset, report)?;
        let first_moved = self.endpoint(url, first.dialect, Some(preset), report)?;
        let dialects = self.requested_dialects().unwrap_or_else(|| {
            preset
                .endpoints
                .iter()
                .filter(|end| end.base_url.starts_with(&first.base_url))
                .map(|end| end.dialect)
                .collect()
        });
        let endpoint_of = |dialect: Dialect, report: &mut Report| match preset
            .endpoint(dialect)
            .and_then(|end| end.base_url.strip_prefix(&first.base_url))
        {
            Some(below) if dialect == first.dialect || !below.is_empty() => Some(DialectEndpoint {
                dialect,
                base_url: format!("{}{below}", first_moved.base_url),
                query: first_moved.query.clone(),
            }),
            _ => self.endpoint(url, dialect, Some(preset), report),
        };
        dialects.into_iter().map(|dialect| endpoint_of(dialect, report)).collect()
    }

    /// Returns the endpoints of a preset at its own address.
    fn preset_endpoints(
        &self,
        preset: &Preset,
        report: &mut Report,
    ) -> Option<Vec<DialectEndpoint>> {
        if preset.needs_url {
            let title = &preset.title;
            report.missing(
                &self.name.span,
                format!("`{}` needs a `base_url`: {title} has one for each customer", self.path),
                Some(format!(
                    "add base_url = \"{}\" with the name of yours",
                    preset.endpoints[0].base_url
                )),
            );
            return None;
        }
        let Some(requested) = &self.dialects else { return Some(preset.endpoints.clone()) };
        let each = requested.value.iter().map(|dialect| preset.endpoint(*dialect).cloned());
        let endpoints: Option<Vec<_>> = each.collect();
        if endpoints.is_none() {
            let known: Vec<_> = preset.endpoints.iter().map(|end| end.dialect.name()).collect();
            report.error(
                &requested.span,
                format!("`{}.dialect`: {} speaks {}", self.path, preset.title, known.join(", ")),
                Some("leave the others out, or name their `base_url`".to_owned()),
            );
        }
        endpoints
    }

    fn endpoint(
        &self,
        url: &Located<String>,
        dialect: Dialect,
        preset: Option<&Preset>,
        report: &mut Report,
    ) -> Option<DialectEndpoint> {
        let known = preset.and_then(|preset| preset.endpoint(dialect));
        // The preset's own URL needs no rules: some presets have no path although the dialect has a
        // default.
        let own_url = url.value.trim().trim_end_matches('/');
        if let Some(known) = known.filter(|known| known.base_url == own_url) {
            return Some(known.clone());
        }
        let default_query = known.and_then(|known| known.query.clone());
        let parsed = if default_query.is_some() || preset.is_some_and(|preset| preset.needs_url) {
            base_url::parse(&url.value, dialect)
        } else {
            base_url::normalize(&url.value, dialect)
                .map(|base| base_url::BaseUrlParts { base, query: None })
        };
        match parsed {
            Ok(parts) => Some(DialectEndpoint {
                dialect,
                base_url: parts.base,
                query: parts.query.or(default_query),
            }),
            Err(sentence) => {
                let error = ValueError::from_sentence(sentence);
                let title = format!("`{}.base_url`: {}", self.path, error.title);
                // One invalid URL for three dialects is reported once.
                if !report.findings.iter().any(|f| f.span == url.span && f.title == title) {
                    report.error(&url.span, title, error.help);
                }
                None
            }
        }
    }
}

fn read_base_url(row: &mut TableReader<'_>, report: &mut Report) -> Option<WrittenBaseUrl> {
    let node = row.take_node("base_url")?;
    let path = row.key_path("base_url");
    let DeValue::Table(_) = node.get_ref() else {
        let found = reader::read_value(&path, node, report, &|value| match value {
            DeValue::String(url) => Ok(url.clone().into_owned()),
            other => Err(ValueError::new(format!(
                "expected a URL, or a table of URLs by dialect, found {}",
                reader::type_name(other)
            ))),
        });
        return found.map(WrittenBaseUrl::Single);
    };
    let mut table = TableReader::from_node(path.clone(), node, report)?;
    let mut each = Vec::new();
    for (name, node) in table.remaining() {
        match parse_dialect(&name.value) {
            Ok(dialect) => {
                let url = TEXT.read(&path, node, report);
                each.extend(url.map(|url| (dialect, Located::new(url, node.span()))));
            }
            Err(error) => {
                report.error(&name.span, format!("`{path}`: {}", error.title), error.help);
            }
        }
    }
    Some(WrittenBaseUrl::PerDialect(each, node.span()))
}
