//! Maps names to the upstreams that serve them, from config and learned model lists; built once per
//! config.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use crate::{
    base::pattern::{Pattern, Patterns},
    config::settings::{LogicalModel, Origin, Settings, Strategy, Upstream, UpstreamId},
};

/// The models that an upstream lists, in its order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelSet {
    names: Vec<Arc<str>>,
    index: HashSet<Arc<str>>,
}

impl ModelSet {
    #[must_use]
    pub fn new(names: impl IntoIterator<Item = String>) -> Self {
        let mut out = Self::default();
        for name in names {
            let name: Arc<str> = name.into();
            if out.index.insert(Arc::clone(&name)) {
                out.names.push(name);
            }
        }
        out
    }

    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.index.contains(name)
    }

    #[must_use]
    pub fn names(&self) -> &[Arc<str>] {
        &self.names
    }
}

/// Returns an upstream's model list, or `None` if it was never learned.
pub type ListedModels<'a> = &'a dyn Fn(UpstreamId) -> Option<Arc<ModelSet>>;

/// The names in the config: upstreams, aliases and logical models.
#[derive(Clone, Debug)]
pub struct Catalog {
    /// The upstreams in which names are searched, in config order: all except the demo, or the demo
    /// alone. In the first case the demo serves only its own name.
    pub upstreams: Vec<Arc<Upstream>>,
    pub strategy: Strategy,
    by_name: HashMap<Arc<str>, Arc<Upstream>>,
    exact: HashMap<Arc<str>, CatalogEntry>,
    /// In file order, aliases first; without `*`.
    patterns: Vec<(Pattern, CatalogEntry)>,
    catch_all: Option<CatalogEntry>,
    /// Exact names in file order, for listings.
    exact_names: Vec<Arc<str>>,
}

/// The alias or logical model that a configured name refers to.
#[derive(Clone, Debug)]
pub enum CatalogEntry {
    Alias(Arc<str>),
    Logical(Arc<LogicalModel>),
}

/// How certain it is that an upstream serves a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MatchKind {
    /// The upstream accepts any name, but its list does not contain this one: used only if no other
    /// upstream serves the name.
    FallbackOnly,
    No,
    /// The upstream accepts any name, and no list contradicts.
    AcceptsAny,
    /// The upstream's list was never learned.
    ListUnknown,
    Yes,
}

impl Catalog {
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        let alone = settings.upstreams.iter().all(|upstream| upstream.origin == Origin::Demo);
        let searched =
            settings.upstreams.iter().filter(|upstream| alone || upstream.origin != Origin::Demo);
        let mut out = Self {
            upstreams: searched.cloned().collect(),
            strategy: settings.routing.strategy,
            by_name: settings
                .upstreams
                .iter()
                .map(|upstream| (Arc::clone(&upstream.name), Arc::clone(upstream)))
                .collect(),
            exact: HashMap::new(),
            patterns: Vec::new(),
            catch_all: None,
            exact_names: Vec::new(),
        };
        for alias in &settings.aliases {
            out.add(&alias.name, CatalogEntry::Alias(Arc::clone(&alias.target)));
        }
        for model in &settings.models {
            out.add(&model.name, CatalogEntry::Logical(Arc::clone(model)));
        }
        out
    }

    fn add(&mut self, name: &Pattern, entry: CatalogEntry) {
        match name {
            Pattern::Exact(text) => {
                let name: Arc<str> = text.as_str().into();
                if !self.exact.contains_key(&name) {
                    self.exact_names.push(Arc::clone(&name));
                    self.exact.insert(name, entry);
                }
            }
            any if any.is_any() => _ = self.catch_all.get_or_insert(entry),
            pattern => self.patterns.push((pattern.clone(), entry)),
        }
    }

    #[must_use]
    pub fn upstream(&self, name: &str) -> Option<&Arc<Upstream>> {
        self.by_name.get(name)
    }

    /// Returns the alias or logical model of exactly this name.
    #[must_use]
    pub fn exact(&self, name: &str) -> Option<&CatalogEntry> {
        self.exact.get(name)
    }

    /// Returns aliases and logical models whose pattern, other than `*`, matches.
    pub fn matching_patterns<'a>(
        &'a self,
        name: &'a str,
    ) -> impl Iterator<Item = (&'a str, &'a CatalogEntry)> {
        self.patterns
            .iter()
            .filter(move |(pattern, _)| pattern.matches(name))
            .map(|(pattern, entry)| (pattern.text(), entry))
    }

    /// Returns the entry for `*`, which applies to all other names.
    #[must_use]
    pub fn catch_all(&self) -> Option<&CatalogEntry> {
        self.catch_all.as_ref()
    }

    /// Returns the exact names of aliases and logical models, in file order.
    #[must_use]
    pub fn exact_names(&self) -> &[Arc<str>] {
        &self.exact_names
    }
}

/// Returns whether the upstream serves a name that a client requests. Disabled upstreams serve no
/// name.
#[must_use]
pub fn match_name(upstream: &Upstream, name: &str, model_lists: ListedModels<'_>) -> MatchKind {
    if !upstream.enabled {
        return MatchKind::No;
    }
    if upstream.rename.contains_key(name) {
        return MatchKind::Yes;
    }
    let listed = || model_lists(upstream.id).map(|list| list.has(name));
    let Some(patterns) = &upstream.models else {
        return match listed() {
            Some(true) => MatchKind::Yes,
            Some(false) => MatchKind::No,
            None => MatchKind::ListUnknown,
        };
    };
    if !patterns.matches(name) {
        MatchKind::No
    } else if names_explicitly(patterns, name) {
        MatchKind::Yes
    } else {
        match listed() {
            Some(true) => MatchKind::Yes,
            Some(false) => MatchKind::FallbackOnly,
            None => MatchKind::AcceptsAny,
        }
    }
}

/// Returns whether the upstream is known to have exactly this name: by its config or its list.
#[must_use]
pub fn is_listed(upstream: &Upstream, name: &str, model_lists: ListedModels<'_>) -> bool {
    let configured = upstream
        .models
        .iter()
        .flat_map(|models| &models.include)
        .any(|pattern| pattern.is_exact() && pattern.matches(name));
    configured
        || upstream.rename.contains_key(name)
        || model_lists(upstream.id).is_some_and(|list| list.has(name))
}

/// Returns whether a pattern other than `*` matches the name.
fn names_explicitly(patterns: &Patterns, name: &str) -> bool {
    patterns.include.iter().any(|pattern| !pattern.is_any() && pattern.matches(name))
}

/// Returns the names that the upstream is known to serve, as clients request them: configured names
/// (true), then listed ones.
#[must_use]
pub fn served_names(upstream: &Upstream, model_lists: ListedModels<'_>) -> Vec<(Arc<str>, bool)> {
    let (mut out, mut seen) = (Vec::new(), HashSet::new());
    for_each_served_name(upstream, model_lists, &mut |name, configured| {
        let name: Arc<str> = name.into();
        if seen.insert(Arc::clone(&name)) {
            out.push((name, configured));
        }
    });
    out
}

/// Calls `visit` for each name of [`served_names`]; a name may occur twice.
pub fn for_each_served_name(
    upstream: &Upstream,
    model_lists: ListedModels<'_>,
    visit: &mut dyn FnMut(&str, bool),
) {
    if !upstream.enabled {
        return;
    }
    upstream.rename.keys().for_each(|name| visit(name, true));
    let patterns = upstream.models.as_ref();
    for pattern in patterns.iter().flat_map(|patterns| &patterns.include) {
        if pattern.is_exact() && patterns.is_some_and(|patterns| patterns.matches(pattern.text())) {
            visit(pattern.text(), true);
        }
    }
    for name in model_lists(upstream.id).iter().flat_map(|list| list.names()) {
        if patterns.is_none_or(|patterns| patterns.matches(name)) {
            visit(name, false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::test_support::upstream;

    fn list(names: &[&str]) -> Option<Arc<ModelSet>> {
        Some(Arc::new(ModelSet::new(names.iter().map(|&name| name.to_owned()))))
    }

    #[test]
    fn match_kind_depends_on_config_and_learned_list() {
        let any: Option<&[&str]> = Some(&["*", "!x-*"]);
        for (models, learned, name, want) in [
            (None, None, "gpt", MatchKind::ListUnknown),
            (None, list(&["gpt"]), "gpt", MatchKind::Yes),
            (None, list(&["gpt"]), "other", MatchKind::No),
            (Some(&["g*"][..]), None, "gpt", MatchKind::Yes),
            (Some(&["g*"]), list(&["gpt"]), "other", MatchKind::No),
            (any, None, "gpt", MatchKind::AcceptsAny),
            (any, list(&["other"]), "gpt", MatchKind::FallbackOnly),
            (any, list(&["gpt"]), "gpt", MatchKind::Yes),
            (any, list(&["x-1"]), "x-1", MatchKind::No),
        ] {
            let mut one = upstream(1, "one", models, 1);
            assert_eq!(
                match_name(&one, name, &|_| learned.clone()),
                want,
                "{models:?} {learned:?} {name}"
            );
            one.enabled = false;
            assert_eq!(match_name(&one, name, &|_| learned.clone()), MatchKind::No);
        }
    }

    #[test]
    fn served_names_are_configured_names_and_listed_names_that_match() {
        let mut one = upstream(1, "one", Some(&["a", "b-*", "!b-2"]), 1);
        one.rename.insert("short".to_owned(), "b-1".to_owned());
        let got = served_names(&one, &|_| list(&["b-1", "b-2", "c", "a"]));
        let names: Vec<(&str, bool)> =
            got.iter().map(|(name, configured)| (&**name, *configured)).collect();
        assert_eq!(names, [("short", true), ("a", true), ("b-1", false)]);
    }
}
