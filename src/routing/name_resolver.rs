//! Finds what a requested name means in the config and the upstreams' model lists, in the documented
//! order.

use std::{fmt, sync::Arc, time::Duration};

use crate::routing::{
    catalog::{
        Catalog, CatalogEntry, ListedModels, MatchKind, for_each_served_name, is_listed, match_name,
    },
    version_order::NewestName,
};
use crate::{
    base::pattern::Pattern,
    config::settings::{
        Affinity, Hedge, LogicalModel, Origin, Project, Strategy, Upstream, UpstreamId,
    },
    ir::reason::route::NameSource,
};

/// The maximum depth of aliases that point to aliases.
const MAX_ALIAS_DEPTH: usize = 8;

/// Whether to wait for upstreams whose lists were never learned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnUnknownList {
    /// Do not wait: assume that they serve any name.
    Assume,
    /// Report them as [`NameError::ListUnknown`](super::resolve::NameError::ListUnknown).
    Wait,
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

/// A target before the dialect is chosen.
#[derive(Clone, Debug)]
pub struct ResolvedRoute {
    pub upstream: Arc<Upstream>,
    /// The name that the upstream uses.
    pub model: Arc<str>,
    /// The name before `rename`.
    pub(super) client_name: Arc<str>,
    pub(super) priority: u32,
    pub(super) weight: f64,
}

impl fmt::Display for ResolvedRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.upstream.name, self.model)
    }
}

/// Returns the route of a name at one upstream, with the upstream's own name of the model.
pub(super) fn route_to(upstream: &Arc<Upstream>, named: &str) -> ResolvedRoute {
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

/// What a name stands for, before the dialect is chosen.
#[derive(Default)]
pub(super) struct NameMatch {
    pub(super) routes: Vec<ResolvedRoute>,
    pub(super) strategy: Option<Strategy>,
    pub(super) overrides: ModelOverrides,
    /// The rule that matched.
    pub(super) matched_by: NameSource,
    /// No upstream is known to have the name; these accept any name, or their lists are unknown.
    pub(super) is_guess: bool,
}

impl NameMatch {
    fn single(route: ResolvedRoute, matched_by: NameSource) -> Self {
        Self { routes: vec![route], matched_by, ..Self::default() }
    }
}

/// Resolves one name; collects its steps and the reasons why targets are missing.
pub(super) struct NameResolver<'a> {
    catalog: &'a Catalog,
    project: &'a Project,
    model_lists: ListedModels<'a>,
    on_unknown_list: OnUnknownList,
    /// Aliases and logical models entered so far, so that none is entered twice.
    entered: Vec<String>,
    /// The steps of the resolution.
    pub(super) via: Vec<Arc<str>>,
    /// Upstreams that might serve it, but whose lists were never learned.
    pub(super) unknown_lists: Vec<UpstreamId>,
    /// An upstream serves it that the project may not use.
    pub(super) disallowed: bool,
}

impl<'a> NameResolver<'a> {
    pub(super) fn new(
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
    pub(super) fn find(&mut self, name: &str) -> Option<NameMatch> {
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
                .map(|route| NameMatch::single(route, NameSource::ColonName));
        }
        let named = self.named_upstream(name, '/');
        if let Some((upstream, model)) = named
            && (upstream.origin == Origin::Demo
                || !upstream.enabled
                || match_name(upstream, model, self.model_lists) != MatchKind::No)
        {
            return self
                .upstream_route(upstream, model)
                .map(|route| NameMatch::single(route, NameSource::SlashName));
        }
        // The named upstream does not serve the model. The whole may be the name of a vendor's model
        // at a router, which must list it: a pattern that happens to match is no proof.
        if let Some(found) = self.find_serving(name, named.is_some()) {
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
                self.via.push(Arc::from(&**target));
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
            self.via.push(route.to_string().into());
            return Some(NameMatch::single(route, NameSource::NewestMatch));
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
        self.via.push(name.as_str().into());
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
            matched_by: NameSource::LogicalModel,
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

    /// Finds upstreams whose `models` match; with `listed_only`, those that have exactly this name.
    /// Upstreams that accept any name but list other names are used only if no other upstream serves
    /// this one.
    fn find_serving(&mut self, name: &str, listed_only: bool) -> Option<NameMatch> {
        let (mut sure, mut any, mut unknown_lists, mut known) =
            (Vec::new(), Vec::new(), Vec::new(), false);
        for upstream in &self.catalog.upstreams {
            if listed_only && !is_listed(upstream, name, self.model_lists) {
                continue;
            }
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
                matched_by: NameSource::ServedName,
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
            matched_by: NameSource::AnyName,
            is_guess: true,
            ..NameMatch::default()
        })
    }
}
