//! Resolves the model that a client requested to the targets that serve it, in the documented
//! order, or explains why there are none.

use std::{fmt, sync::Arc, time::Duration};

use crate::routing::{
    candidate::Target,
    catalog::{
        Catalog, CatalogEntry, ListedModels, MatchKind, for_each_served_name, match_name,
        served_names,
    },
    version_order::NewestName,
};
use crate::{
    base::{pattern::Pattern, suggest},
    config::settings::{
        AdaptiveMix, Affinity, Hedge, LogicalModel, Origin, Project, Strategy, Upstream, UpstreamId,
    },
    ir::op::Dialect,
};

/// The maximum depth of aliases that point to aliases.
const MAX_ALIAS_DEPTH: usize = 8;

/// Whether to wait for upstreams whose lists were never learned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnUnknownList {
    /// Do not wait: assume that they serve any name.
    Assume,
    /// Report them as [`NameError::ListUnknown`].
    Wait,
}

/// The result of resolving a name.
#[derive(Clone, Debug)]
pub struct ResolvedModel {
    /// In config order, or in the order of the logical model.
    pub targets: Vec<Arc<Target>>,
    pub strategy: Strategy,
    pub overrides: ModelOverrides,
    /// How the name was resolved, in words: "alias fast → groq:llama-3.3-70b".
    pub via: String,
    /// Upstreams that serve the name, but not in the client's dialect, if translation is not
    /// possible.
    pub unsupported: Vec<Arc<str>>,
}

/// The settings that a logical model overrides.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ModelOverrides {
    pub first_byte: Option<Duration>,
    pub idle: Option<Duration>,
    pub total: Option<Duration>,
    pub sticky: Option<Affinity>,
    pub sticky_ttl: Option<Duration>,
    pub hedge: Option<Arc<Hedge>>,
    pub rescue: bool,
}

/// Why a name cannot be resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NameError {
    /// Upstreams serve it, but none of them in this dialect.
    UnsupportedDialect { requested: String, dialect: Dialect, upstreams: Vec<Arc<str>> },
    /// The project may not use it.
    NotAllowed { requested: String, project: Arc<str> },
    /// No upstream serves it. `alias_of` is set if it is an alias or logical model without a usable
    /// target.
    Unknown { requested: String, alias_of: Option<String>, similar: Vec<String> },
    /// These upstreams' lists were never learned; they might serve it.
    ListUnknown { requested: String, upstreams: Vec<UpstreamId> },
}

impl NameError {
    /// Returns the problem in words.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::UnsupportedDialect { requested: asked, dialect, upstreams } => {
                format!(
                    "`{asked}` is served by {} only, which does not speak {dialect}, and this kind of request is not translated",
                    upstreams.join(", ")
                )
            }
            Self::NotAllowed { requested: asked, project } => {
                format!("project `{project}` may not use `{asked}`")
            }
            Self::Unknown { requested: asked, alias_of: Some(target), .. } => {
                format!("`{asked}` is an alias of `{target}`, which no upstream serves")
            }
            Self::Unknown { requested: asked, alias_of: None, .. } => {
                format!("no upstream serves `{asked}`")
            }
            Self::ListUnknown { requested: asked, .. } => {
                format!("no upstream is known to serve `{asked}` yet")
            }
        }
    }

    /// Returns the next step for the user.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::UnsupportedDialect { upstreams, .. } => {
                let one = upstreams.first().map_or("the upstream", |name| name);
                format!(
                    "ask for it in a dialect that {one} speaks, or add an upstream that speaks yours"
                )
            }
            Self::NotAllowed { project, .. } => {
                format!("`models` and `upstreams` of project `{project}` in the config decide that")
            }
            Self::Unknown { similar: near, .. } if !near.is_empty() => {
                let quoted: Vec<String> = near.iter().map(|name| format!("`{name}`")).collect();
                format!(
                    "did you mean {}? `aiproxy model list` shows every name",
                    quoted.join(" or ")
                )
            }
            Self::Unknown { requested: asked, .. } => {
                format!(
                    "`aiproxy model list` shows every name; `aiproxy model add {asked} TARGET` makes this one"
                )
            }
            Self::ListUnknown { .. } => "try again in a moment".to_owned(),
        }
    }
}

/// Name suffixes that choose a strategy.
const STRATEGY_SUFFIXES: [(&str, Strategy); 3] = [
    (":fast", Strategy::LeastLatency),
    (":cheap", Strategy::LeastCost),
    (":best", Strategy::Adaptive(AdaptiveMix::ReliabilityFirst)),
];

/// Splits a name into the part before the strategy suffix and that strategy. Returns `None` if it
/// has no suffix, or if the complete string is a name.
#[must_use]
pub fn strategy_suffix<'n>(
    catalog: &Catalog,
    requested: &'n str,
    model_lists: ListedModels<'_>,
) -> Option<(&'n str, Strategy)> {
    let (name, strategy) = STRATEGY_SUFFIXES
        .iter()
        .find_map(|(ending, strategy)| Some((requested.strip_suffix(ending)?, *strategy)))?;
    let lists = |upstream: &Arc<Upstream>| {
        let configured = upstream
            .models
            .iter()
            .flat_map(|models| &models.include)
            .any(|pattern| pattern.is_exact() && pattern.matches(requested));
        configured
            || upstream.rename.contains_key(requested)
            || model_lists(upstream.id).is_some_and(|set| set.has(requested))
    };
    let is_name = name.is_empty()
        || catalog.exact(requested).is_some()
        || catalog.upstream(name).is_some()
        || catalog.upstreams.iter().any(lists);
    (!is_name).then_some((name, strategy))
}

/// A target before the dialect is chosen.
#[derive(Clone, Debug)]
pub struct ResolvedRoute {
    pub upstream: Arc<Upstream>,
    /// The name that the upstream uses.
    pub model: Arc<str>,
    /// The name before `rename`.
    client_name: Arc<str>,
    priority: u32,
    weight: f64,
}

impl fmt::Display for ResolvedRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.upstream.name, self.model)
    }
}

/// Resolves a name for a project and dialect. With `translates`, an upstream without an endpoint
/// for the dialect is used in its preferred one.
///
/// # Errors
///
/// Why there is no target.
pub fn resolve(
    catalog: &Catalog,
    requested: &str,
    dialect: Dialect,
    translates: bool,
    project: &Project,
    model_lists: ListedModels<'_>,
    on_unknown_list: OnUnknownList,
) -> Result<ResolvedModel, NameError> {
    let not_allowed = || NameError::NotAllowed {
        requested: requested.to_owned(),
        project: Arc::clone(&project.name),
    };
    if !project.models.matches(requested) {
        return Err(not_allowed());
    }
    let mut resolver = NameResolver::new(catalog, project, model_lists, on_unknown_list);
    let mut found = resolver.find(requested).unwrap_or_default();
    if found.routes.is_empty() {
        if !resolver.unknown_lists.is_empty() {
            return Err(NameError::ListUnknown {
                requested: requested.to_owned(),
                upstreams: resolver.unknown_lists,
            });
        }
        if resolver.disallowed {
            return Err(not_allowed());
        }
        let allowed = allowed_names(catalog, project, model_lists);
        let similar = suggest::nearest_few(requested, allowed.iter().map(|name| &**name), 3)
            .into_iter()
            .map(str::to_owned)
            .collect();
        return Err(NameError::Unknown {
            requested: requested.to_owned(),
            alias_of: resolver.via.pop(),
            similar,
        });
    }
    found.routes.retain(|route| {
        project.models.matches(&route.client_name) || project.models.matches(&route.model)
    });
    if found.routes.is_empty() {
        return Err(not_allowed());
    }
    let (mut targets, mut no_end) = (Vec::with_capacity(found.routes.len()), Vec::new());
    for route in found.routes {
        let other = || route.upstream.endpoints.first().filter(|_| translates);
        let Some(end) = route.upstream.endpoint(dialect).or_else(other) else {
            if !no_end.contains(&route.upstream.name) {
                no_end.push(Arc::clone(&route.upstream.name));
            }
            continue;
        };
        let dialect = end.dialect;
        let ResolvedRoute { upstream, model, priority, weight, .. } = route;
        targets.push(Arc::new(Target { upstream, model, dialect, priority, weight }));
    }
    if targets.is_empty() {
        return Err(NameError::UnsupportedDialect {
            requested: requested.to_owned(),
            dialect,
            upstreams: no_end,
        });
    }
    let via = if resolver.via.is_empty() {
        found.matched_by.to_owned()
    } else {
        format!("{requested} → {}", resolver.via.join(" → "))
    };
    Ok(ResolvedModel {
        targets,
        strategy: found.strategy.unwrap_or(catalog.strategy),
        overrides: found.overrides,
        via,
        unsupported: no_end,
    })
}

/// A name that a client may request.
#[derive(Clone, Debug)]
pub struct ListedName {
    pub name: Arc<str>,
    pub kind: NameKind,
    /// The routes of the name in the order they are tried; empty if it has none.
    pub routes: Vec<ResolvedRoute>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameKind {
    Alias,
    Configured,
    Discovered,
    Logical,
}

impl NameKind {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Alias => "alias",
            Self::Configured => "configured",
            Self::Discovered => "discovered",
            Self::Logical => "logical",
        }
    }
}

/// Returns every exact name that the project may request: logical models and aliases in file order,
/// then the names that upstreams serve.
#[must_use]
pub fn list_names(
    catalog: &Catalog,
    project: &Project,
    model_lists: ListedModels<'_>,
) -> Vec<ListedName> {
    let mut out: Vec<ListedName> = Vec::new();
    for name in catalog.exact_names().iter().filter(|name| project.models.matches(name)) {
        let kind = match catalog.exact(name) {
            Some(CatalogEntry::Logical(_)) => NameKind::Logical,
            _ => NameKind::Alias,
        };
        let routes = NameResolver::new(catalog, project, model_lists, OnUnknownList::Wait)
            .find(name)
            .unwrap_or_default()
            .routes;
        out.push(ListedName { name: Arc::clone(name), kind, routes });
    }
    let mut positions: std::collections::HashMap<Arc<str>, usize> =
        std::collections::HashMap::new();
    for upstream in
        catalog.upstreams.iter().filter(|upstream| project.upstreams.matches(&upstream.name))
    {
        for (name, configured) in served_names(upstream, model_lists) {
            if catalog.exact(&name).is_some() || !project.models.matches(&name) {
                continue;
            }
            let route = route_to(upstream, &name);
            if let Some(&position) = positions.get(&name) {
                out[position].routes.push(route);
            } else {
                positions.insert(Arc::clone(&name), out.len());
                let kind = if configured { NameKind::Configured } else { NameKind::Discovered };
                out.push(ListedName { name, kind, routes: vec![route] });
            }
        }
    }
    out
}

fn route_to(upstream: &Arc<Upstream>, named: &str) -> ResolvedRoute {
    let named: Arc<str> = named.into();
    let model = upstream
        .rename
        .get(&*named)
        .map_or_else(|| Arc::clone(&named), |model| model.as_str().into());
    ResolvedRoute {
        upstream: Arc::clone(upstream),
        model,
        client_name: named,
        priority: upstream.priority,
        weight: upstream.weight,
    }
}

#[derive(Default)]
struct NameMatch {
    routes: Vec<ResolvedRoute>,
    strategy: Option<Strategy>,
    overrides: ModelOverrides,
    matched_by: &'static str,
}

impl NameMatch {
    fn single(route: ResolvedRoute, matched_by: &'static str) -> Self {
        Self { routes: vec![route], matched_by, ..Self::default() }
    }
}

struct NameResolver<'a> {
    catalog: &'a Catalog,
    project: &'a Project,
    model_lists: ListedModels<'a>,
    on_unknown_list: OnUnknownList,
    /// Aliases and logical models entered so far, so that none is entered twice.
    entered: Vec<String>,
    /// The steps of the resolution.
    via: Vec<String>,
    unknown_lists: Vec<UpstreamId>,
    /// An upstream serves it that the project may not use.
    disallowed: bool,
}

impl<'a> NameResolver<'a> {
    fn new(
        catalog: &'a Catalog,
        project: &'a Project,
        model_lists: ListedModels<'a>,
        on_unknown_list: OnUnknownList,
    ) -> Self {
        Self {
            catalog,
            project,
            model_lists,
            on_unknown_list,
            entered: Vec::new(),
            via: Vec::new(),
            unknown_lists: Vec::new(),
            disallowed: false,
        }
    }

    /// Searches in the documented order.
    fn find(&mut self, name: &str) -> Option<NameMatch> {
        let catalog = self.catalog;
        if let Some(entry) = catalog.exact(name)
            && !self.was_entered(name)
        {
            return self.enter(name, entry);
        }
        if let Some((pattern, entry)) =
            catalog.matching_patterns(name).find(|(pattern, _)| !self.was_entered(pattern))
        {
            return self.enter(pattern, entry);
        }
        if let Some((upstream, model)) = self.named_upstream(name, ':') {
            return self
                .upstream_route(upstream, model)
                .map(|route| NameMatch::single(route, "upstream:model"));
        }
        if let Some((upstream, model)) = self.named_upstream(name, '/')
            && (upstream.origin == Origin::Demo
                || !upstream.enabled
                || match_name(upstream, model, self.model_lists) != MatchKind::No)
        {
            return self
                .upstream_route(upstream, model)
                .map(|route| NameMatch::single(route, "upstream/model"));
        }
        if let Some(found) = self.find_serving(name) {
            return Some(found);
        }
        // The catch-all is not used while an upstream with an unknown list might serve the name.
        match catalog.catch_all() {
            Some(entry) if self.unknown_lists.is_empty() && !self.was_entered("*") => {
                self.enter("*", entry)
            }
            _ => None,
        }
    }

    fn was_entered(&self, name: &str) -> bool {
        self.entered.len() >= MAX_ALIAS_DEPTH || self.entered.iter().any(|entered| entered == name)
    }

    fn named_upstream<'n>(
        &self,
        name: &'n str,
        separator: char,
    ) -> Option<(&'a Arc<Upstream>, &'n str)> {
        let (upstream, model) = name.split_once(separator)?;
        let upstream = self.catalog.upstream(upstream)?;
        (!model.is_empty()).then_some((upstream, model))
    }

    /// Returns the explicitly named upstream. A disabled one is returned too, so that the error can
    /// mention it.
    fn upstream_route(&mut self, upstream: &Arc<Upstream>, model: &str) -> Option<ResolvedRoute> {
        if !self.project.upstreams.matches(&upstream.name) {
            self.disallowed = true;
            return None;
        }
        Some(route_to(upstream, model))
    }

    fn enter(&mut self, name: &str, entry: &CatalogEntry) -> Option<NameMatch> {
        self.entered.push(name.to_owned());
        let found = match entry {
            CatalogEntry::Alias(target) => {
                self.via.push(target.to_string());
                self.resolve_target(target)
            }
            CatalogEntry::Logical(model) => Some(self.resolve_logical(model)),
        };
        self.entered.pop();
        found
    }

    /// Resolves a target: a name, `upstream:model`, or a pattern that means its newest match.
    fn resolve_target(&mut self, target: &str) -> Option<NameMatch> {
        let Ok(pattern) = Pattern::parse(target) else { return None };
        if pattern.is_exact() {
            return self.find(target);
        }
        if let Some((upstream, model)) = self.named_upstream(target, ':')
            && let Ok(pattern) = Pattern::parse(model)
        {
            let route = self.newest_match(upstream, &pattern)?;
            self.via.push(route.to_string());
            return Some(NameMatch::single(route, "the newest match"));
        }
        let mut best = NewestName::default();
        for name in self
            .catalog
            .exact_names()
            .iter()
            .filter(|name| pattern.matches(name) && !self.was_entered(name))
        {
            best.consider(name);
        }
        for upstream in self
            .catalog
            .upstreams
            .iter()
            .filter(|upstream| self.project.upstreams.matches(&upstream.name))
        {
            for_each_served_name(upstream, self.model_lists, &mut |name, _| {
                if pattern.matches(name) && self.project.models.matches(name) {
                    best.consider(name);
                }
            });
        }
        let Some(name) = best.0 else {
            self.record_unknown_lists(None);
            return None;
        };
        self.via.push(name.clone());
        self.find(&name)
    }

    fn newest_match(
        &mut self,
        upstream: &Arc<Upstream>,
        pattern: &Pattern,
    ) -> Option<ResolvedRoute> {
        let mut best = NewestName::default();
        for_each_served_name(upstream, self.model_lists, &mut |name, _| {
            if pattern.matches(name) {
                best.consider(name);
            }
        });
        match best.0 {
            Some(name) => self.upstream_route(upstream, &name),
            None => {
                self.record_unknown_lists(Some(upstream.id));
                None
            }
        }
    }

    fn record_unknown_lists(&mut self, only: Option<UpstreamId>) {
        if self.on_unknown_list == OnUnknownList::Assume {
            return;
        }
        for upstream in &self.catalog.upstreams {
            let may_serve = upstream.enabled
                && only.is_none_or(|id| id == upstream.id)
                && self.project.upstreams.matches(&upstream.name);
            if may_serve && upstream.models.is_none() && (self.model_lists)(upstream.id).is_none() {
                self.unknown_lists.push(upstream.id);
            }
        }
    }

    fn resolve_logical(&mut self, model: &LogicalModel) -> NameMatch {
        let &LogicalModel {
            first_byte, idle, total, sticky, sticky_ttl, rescue, ref hedge, ..
        } = model;
        let overrides = ModelOverrides {
            first_byte,
            idle,
            total,
            sticky,
            sticky_ttl,
            hedge: hedge.clone(),
            rescue,
        };
        let mut out = NameMatch {
            strategy: Some(model.strategy),
            overrides,
            matched_by: "logical model",
            ..NameMatch::default()
        };
        for target in &model.targets {
            let routes = match target.upstream.as_deref().map(|name| self.catalog.upstream(name)) {
                None => {
                    self.resolve_target(&target.model).map(|found| found.routes).unwrap_or_default()
                }
                Some(None) => Vec::new(),
                Some(Some(upstream)) => match Pattern::parse(&target.model) {
                    Ok(pattern) if !pattern.is_exact() => {
                        self.newest_match(upstream, &pattern).into_iter().collect()
                    }
                    _ => self.upstream_route(upstream, &target.model).into_iter().collect(),
                },
            };
            for mut route in routes {
                route.priority = target.priority.unwrap_or(route.priority);
                route.weight = target.weight.unwrap_or(route.weight);
                let known = |other: &ResolvedRoute| {
                    other.upstream.id == route.upstream.id && other.model == route.model
                };
                if !out.routes.iter().any(known) {
                    out.routes.push(route);
                }
            }
        }
        out
    }

    /// Finds upstreams whose `models` match. Upstreams that accept any name but list other names
    /// are used only if no other upstream serves this one.
    fn find_serving(&mut self, name: &str) -> Option<NameMatch> {
        let (mut sure, mut any, mut unknown_lists, mut known) =
            (Vec::new(), Vec::new(), Vec::new(), false);
        for upstream in &self.catalog.upstreams {
            let claim = match_name(upstream, name, self.model_lists);
            if claim != MatchKind::No && !self.project.upstreams.matches(&upstream.name) {
                self.disallowed |= claim != MatchKind::ListUnknown;
                continue;
            }
            match claim {
                // An upstream without a list counts like one that lists the name; the order in
                // which lists are learned must not matter.
                MatchKind::Yes | MatchKind::AcceptsAny => {
                    sure.push(route_to(upstream, name));
                    known |= claim == MatchKind::Yes;
                }
                MatchKind::ListUnknown if self.on_unknown_list == OnUnknownList::Wait => {
                    unknown_lists.push(upstream.id);
                }
                MatchKind::FallbackOnly | MatchKind::ListUnknown => {
                    any.push(route_to(upstream, name));
                }
                MatchKind::No => {}
            }
        }
        if known {
            return Some(NameMatch {
                routes: sure,
                matched_by: "served by that name",
                ..NameMatch::default()
            });
        }
        if !unknown_lists.is_empty() {
            self.unknown_lists.append(&mut unknown_lists);
            return None;
        }
        sure.append(&mut any);
        (!sure.is_empty()).then(|| NameMatch {
            routes: sure,
            matched_by: "served by an upstream that takes any name",
            ..NameMatch::default()
        })
    }
}

/// Returns every exact name that the project may use.
fn allowed_names(
    catalog: &Catalog,
    project: &Project,
    model_lists: ListedModels<'_>,
) -> Vec<Arc<str>> {
    let upstreams =
        catalog.upstreams.iter().filter(|upstream| project.upstreams.matches(&upstream.name));
    let served =
        upstreams.flat_map(|upstream| served_names(upstream, model_lists)).map(|(name, _)| name);
    let mut out: Vec<Arc<str>> = catalog
        .exact_names()
        .iter()
        .cloned()
        .chain(served)
        .filter(|name| project.models.matches(name))
        .collect();
    out.sort_unstable();
    out.dedup();
    out
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::{any, proptest};

    use super::*;
    use crate::{
        config::settings::{Alias, DialectEndpoint, ModelTarget, Settings},
        routing::{
            catalog::ModelSet,
            test_support::{cases, project, settings, upstream},
        },
    };

    fn alias(name: &str, target: &str) -> Alias {
        Alias { name: Pattern::parse(name).expect("a pattern"), target: target.into() }
    }

    fn logical(name: &str, targets: &[(Option<&str>, &str, Option<u32>)]) -> Arc<LogicalModel> {
        let targets = targets.iter().map(|(upstream, model, priority)| ModelTarget {
            upstream: upstream.map(Into::into),
            model: (*model).into(),
            priority: *priority,
            weight: None,
        });
        Arc::new(LogicalModel {
            sticky: None,
            sticky_ttl: None,
            hedge: None,
            rescue: false,
            name: Pattern::parse(name).expect("a pattern"),
            targets: targets.collect(),
            strategy: Strategy::Weighted,
            first_byte: Some(Duration::from_secs(7)),
            idle: None,
            total: None,
        })
    }

    /// `openai` and `router` list models, `local` accepts any name, `fresh` was never learned
    /// (disabled here), `off` is disabled.
    fn world() -> Settings {
        let mut off = upstream(4, "off", Some(&["gpt-4o", "off-only"]), 1);
        off.enabled = false;
        let mut demo = upstream(5, "demo", Some(&["demo-model"]), 0);
        demo.origin = Origin::Demo;
        let mut router = upstream(2, "router", None, 1);
        router.rename.insert("r1".to_owned(), "deepseek/deepseek-r1".to_owned());
        let mut claude = upstream(6, "claude", Some(&["claude-*", "shared"]), 1);
        claude.endpoints = vec![DialectEndpoint {
            dialect: Dialect::Anthropic,
            base_url: "https://c.example".to_owned(),
            query: None,
        }];
        let mut out = settings(vec![
            upstream(1, "openai", None, 2),
            router,
            upstream(3, "local", Some(&["*"]), 0),
            off,
            demo,
            claude,
        ]);
        out.aliases = vec![
            alias("fast", "router:llama-3.3-70b"),
            alias("smart", "gpt-4o-*"),
            alias("loop-a", "loop-b"),
            alias("loop-b", "loop-a"),
            alias("broken", "openai:o-*"),
            alias("claude-*-haiku-*", "fast"),
            alias("gpt-*-turbo", "gpt-3.5-turbo"),
        ];
        out.models = vec![logical(
            "auto",
            &[
                (Some("router"), "deepseek/deepseek-r1", None),
                (None, "gpt-4o", Some(20)),
                (Some("gone"), "x", None),
            ],
        )];
        out
    }

    fn lists(id: UpstreamId) -> Option<Arc<ModelSet>> {
        let names: &[&str] = match id.0 {
            1 => &["gpt-4o", "gpt-4o-2024-08-06", "gpt-4o-2024-11-20", "gpt-3.5-turbo", "shared"],
            2 => &[
                "openai/gpt-oss-120b",
                "openai/gpt-4o",
                "deepseek/deepseek-r1",
                "llama-3.3-70b",
                "gpt-4o",
                "vendor:tagged",
            ],
            3 => &["listed"],
            _ => return None,
        };
        Some(Arc::new(ModelSet::new(names.iter().map(|&name| name.to_owned()))))
    }

    fn ask(world: &Settings, asked: &str) -> Result<Vec<String>, NameError> {
        let found = resolve(
            &Catalog::new(world),
            asked,
            Dialect::Openai,
            false,
            &project(&["*"], &["*"]),
            &lists,
            OnUnknownList::Wait,
        )?;
        Ok(found
            .targets
            .iter()
            .map(|target| format!("{}:{}", target.upstream.name, target.model))
            .collect())
    }

    #[test]
    fn an_ending_chooses_a_strategy_unless_the_whole_is_a_name() {
        let mut one = upstream(1, "ollama", Some(&["qwen:fast", "llama*"]), 0);
        one.origin = Origin::File;
        let catalog = Catalog::new(&settings(vec![one]));
        let ending = |asked| strategy_suffix(&catalog, asked, &|_| None);
        assert_eq!(ending("llama3:cheap"), Some(("llama3", Strategy::LeastCost)));
        assert_eq!(ending("llama3:fast"), Some(("llama3", Strategy::LeastLatency)));
        for whole in ["qwen:fast", "ollama:fast", "llama3", "llama3:8b", ":best"] {
            assert_eq!(ending(whole), None, "{whole}");
        }
    }

    #[test]
    fn whose_list_is_learned_first_does_not_decide_who_is_asked() {
        let world = settings(vec![
            upstream(1, "one", Some(&["*"]), 1),
            upstream(2, "two", Some(&["*"]), 2),
        ]);
        for learned in [&[][..], &[1], &[2], &[1, 2]] {
            let lists = |id: UpstreamId| {
                learned
                    .contains(&id.0)
                    .then(|| Arc::new(ModelSet::new(std::iter::once("m".to_owned()))))
            };
            let everybody = project(&["*"], &["*"]);
            let found = resolve(
                &Catalog::new(&world),
                "m",
                Dialect::Openai,
                false,
                &everybody,
                &lists,
                OnUnknownList::Wait,
            );
            let names: Vec<_> = found
                .expect("two")
                .targets
                .iter()
                .map(|target| target.upstream.name.to_string())
                .collect();
            assert_eq!(names, ["one", "two"], "{learned:?}");
        }
    }

    #[test]
    fn names_are_resolved_in_the_documented_order() {
        let world = world();
        for (asked, want) in [
            ("fast", &["router:llama-3.3-70b"][..]),
            ("smart", &["openai:gpt-4o-2024-11-20"]),
            ("auto", &["router:deepseek/deepseek-r1", "openai:gpt-4o", "router:gpt-4o"]),
            ("claude-3-haiku-1", &["router:llama-3.3-70b"]),
            ("gpt-4-turbo", &["openai:gpt-3.5-turbo"]),
            ("openai:anything", &["openai:anything"]),
            ("vendor:tagged", &["router:vendor:tagged"]),
            ("openai/gpt-4o", &["openai:gpt-4o"]),
            ("openai/gpt-oss-120b", &["router:openai/gpt-oss-120b"]),
            ("router/openai/gpt-4o", &["router:openai/gpt-4o"]),
            ("gpt-4o", &["openai:gpt-4o", "router:gpt-4o"]),
            ("r1", &["router:deepseek/deepseek-r1"]),
            ("router/r1", &["router:deepseek/deepseek-r1"]),
            ("nobody-else", &["local:nobody-else"]),
            ("demo/whatever", &["demo:whatever"]),
            ("off/off-only", &["off:off-only"]),
            ("off-only", &["local:off-only"]),
            ("shared", &["openai:shared"]),
        ] {
            let got = ask(&world, asked).unwrap_or_else(|e| panic!("{asked}: {e:?}"));
            assert_eq!(got, want, "{asked}");
        }
    }

    #[test]
    fn a_logical_model_brings_its_strategy_timeouts_and_priorities() {
        let found = resolve(
            &Catalog::new(&world()),
            "auto",
            Dialect::Openai,
            false,
            &project(&["*"], &["*"]),
            &lists,
            OnUnknownList::Wait,
        )
        .expect("auto");
        assert_eq!(found.strategy, Strategy::Weighted);
        assert_eq!(found.overrides.first_byte, Some(Duration::from_secs(7)));
        assert_eq!(
            found.targets.iter().map(|target| target.priority).collect::<Vec<_>>(),
            [10, 20, 20]
        );
    }

    #[test]
    fn a_logical_model_may_carry_the_name_of_the_model_behind_it() {
        let mut world = world();
        world.models = vec![logical("gpt-4o", &[(None, "gpt-4o", None)])];
        assert_eq!(ask(&world, "gpt-4o").expect("no loop"), ["openai:gpt-4o", "router:gpt-4o"]);
    }

    #[test]
    fn aliases_in_a_circle_end() {
        let mut world = world();
        world.upstreams.retain(|upstream| &*upstream.name != "local");
        assert!(matches!(ask(&world, "loop-a"), Err(NameError::Unknown { .. })));
        world.aliases.push(alias("*", "*"));
        assert!(matches!(ask(&world, "nobody-else"), Err(NameError::Unknown { .. }) | Ok(_)));
    }

    #[test]
    fn an_unknown_name_is_told_with_names_near_it() {
        let mut world = world();
        world.upstreams.retain(|upstream| &*upstream.name != "local");
        let Err(error) = ask(&world, "gpt-4p") else { panic!("nobody serves it") };
        let NameError::Unknown { similar: near, .. } = &error else { panic!("{error:?}") };
        assert_eq!(near[0], "gpt-4o");
        assert_eq!(error.text(), "no upstream serves `gpt-4p`");
        assert!(error.hint().starts_with("did you mean `gpt-4o`"), "{}", error.hint());

        let Err(error) = ask(&world, "broken") else { panic!("it leads nowhere") };
        assert_eq!(error.text(), "`broken` is an alias of `openai:o-*`, which no upstream serves");
        let Err(error) = ask(&world, "zzz") else { panic!("nobody serves it") };
        assert!(error.hint().contains("aiproxy model add zzz"), "{}", error.hint());
    }

    #[test]
    fn the_last_resort_serves_what_nobody_else_does() {
        let mut world = world();
        world.upstreams.retain(|upstream| &*upstream.name != "local");
        world.aliases.push(alias("*", "auto"));
        assert_eq!(ask(&world, "unheard-of").expect("by *")[0], "router:deepseek/deepseek-r1");
        assert_eq!(ask(&world, "gpt-4o").expect("served")[0], "openai:gpt-4o");
    }

    #[test]
    fn an_unlearned_upstream_is_waited_for_and_then_takes_anything() {
        let world =
            settings(vec![upstream(1, "fresh", None, 1), upstream(2, "old", Some(&["known"]), 1)]);
        let (catalog, all) = (Catalog::new(&world), project(&["*"], &["*"]));
        let ask = |name, patience| {
            resolve(&catalog, name, Dialect::Openai, false, &all, &|_| None, patience)
        };

        let upstreams = vec![UpstreamId(1)];
        assert_eq!(
            ask("new", OnUnknownList::Wait).err(),
            Some(NameError::ListUnknown { requested: "new".to_owned(), upstreams })
        );
        assert_eq!(
            &*ask("new", OnUnknownList::Assume).expect("counts as any").targets[0].upstream.name,
            "fresh"
        );
        assert_eq!(
            &*ask("known", OnUnknownList::Wait).expect("no need to wait").targets[0].upstream.name,
            "old"
        );
        assert_eq!(
            &*ask("fresh/new", OnUnknownList::Wait).expect("named outright").targets[0]
                .upstream
                .name,
            "fresh"
        );
    }

    #[test]
    fn a_project_reaches_only_what_it_may_use() {
        let world = world();
        let catalog = Catalog::new(&world);
        let ask = |models: &[&str], upstreams: &[&str], name: &str| {
            let found = resolve(
                &catalog,
                name,
                Dialect::Openai,
                false,
                &project(models, upstreams),
                &lists,
                OnUnknownList::Wait,
            );
            found.map(|found| {
                found
                    .targets
                    .iter()
                    .map(|target| target.upstream.name.to_string())
                    .collect::<Vec<_>>()
            })
        };
        let not_allowed = |name: &str| {
            Err(NameError::NotAllowed { requested: name.to_owned(), project: "ide".into() })
        };

        assert_eq!(
            ask(&["gpt-*"], &["*"], "gpt-4o"),
            Ok(vec!["openai".to_owned(), "router".to_owned()])
        );
        assert_eq!(ask(&["gpt-*"], &["router"], "gpt-4o"), Ok(vec!["router".to_owned()]));
        assert_eq!(ask(&["gpt-*"], &["*"], "r1"), not_allowed("r1"), "asked for");
        assert_eq!(ask(&["fast"], &["*"], "fast"), not_allowed("fast"), "resolved");
        assert_eq!(ask(&["*"], &["claude"], "gpt-4o"), not_allowed("gpt-4o"), "upstream");
        assert_eq!(
            ask(&["*"], &["router"], "openai/gpt-3.5-turbo"),
            not_allowed("openai/gpt-3.5-turbo")
        );
    }

    #[test]
    fn an_upstream_without_the_clients_dialect_needs_translation() {
        let world = world();
        let (catalog, all) = (Catalog::new(&world), project(&["*"], &["*"]));
        let shared =
            resolve(&catalog, "shared", Dialect::Openai, false, &all, &lists, OnUnknownList::Wait)
                .expect("openai speaks it");
        assert_eq!(shared.unsupported, ["claude".into()]);
        let error = resolve(
            &catalog,
            "claude-opus",
            Dialect::Openai,
            false,
            &all,
            &lists,
            OnUnknownList::Wait,
        )
        .expect_err("anthropic only");
        assert_eq!(
            error.text(),
            "`claude-opus` is served by claude only, which does not speak openai, and this kind of request is not translated"
        );
    }

    #[test]
    fn every_name_is_listed_once_with_what_it_stands_for() {
        let world = world();
        let names = list_names(&Catalog::new(&world), &project(&["*"], &["*"]), &lists);
        let by_name: HashMap<&str, &ListedName> =
            names.iter().map(|name| (&*name.name, name)).collect();
        assert_eq!(by_name.len(), names.len());
        let targets =
            |name: &str| by_name[name].routes.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(
            (by_name["fast"].kind, targets("fast")),
            (NameKind::Alias, vec!["router:llama-3.3-70b".to_owned()])
        );
        assert_eq!(by_name["auto"].kind, NameKind::Logical);
        assert_eq!(targets("gpt-4o"), ["openai:gpt-4o", "router:gpt-4o"]);
        assert_eq!(by_name["r1"].kind, NameKind::Configured);
        assert_eq!(by_name["openai/gpt-4o"].kind, NameKind::Discovered);
        assert!(!by_name.contains_key("off-only"));
    }

    proptest! {
        #![proptest_config(cases())]

        #[test]
        fn no_name_panics_or_reaches_a_disallowed_upstream(asked in "[a-z/:*?!0-9-]{0,24}", patience in any::<bool>()) {
            let world = world();
            let patience = if patience { OnUnknownList::Wait } else { OnUnknownList::Assume };
            let only = project(&["*"], &["router", "demo"]);
            if let Ok(found) = resolve(&Catalog::new(&world), &asked, Dialect::Openai, false, &only, &lists, patience) {
                assert!(found.targets.iter().all(|target| only.upstreams.matches(&target.upstream.name)));
            }
        }
    }
}
