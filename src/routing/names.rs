//! What a client asked for → the targets that serve it, in the documented order; or why there are
//! none.

use std::{fmt, sync::Arc, time::Duration};

use super::{
    candidate::Target,
    catalog::{Catalog, Claim, Entry, Learned, claim, each_served, served},
    newest::Newest,
};
use crate::{
    base::{near, pattern::Pattern},
    config::settings::{
        AdaptiveMix, Affinity, Hedge, LogicalModel, Origin, Project, Strategy, Upstream, UpstreamId,
    },
    ir::op::Dialect,
};

/// Aliases that point to aliases: so many deep.
const DEEPEST: usize = 8;

/// Whether upstreams whose lists were never learned are worth waiting for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// Waiting is over: they count as serving anything.
    Over,
    /// Say which they are ([`NameError::Unlearned`]).
    Wait,
}

/// What a name stands for.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// In config order, or in the order of the logical model.
    pub targets: Vec<Arc<Target>>,
    pub strategy: Strategy,
    pub timeouts: Overrides,
    /// How the name was resolved, in words: "alias fast → groq:llama-3.3-70b".
    pub via: String,
    /// Upstreams that serve the name, but not in the client's dialect, where nothing can be
    /// translated.
    pub no_end: Vec<Arc<str>>,
}

/// A logical model's own settings.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Overrides {
    pub first_byte: Option<Duration>,
    pub idle: Option<Duration>,
    pub total: Option<Duration>,
    pub sticky: Option<Affinity>,
    pub sticky_ttl: Option<Duration>,
    pub hedge: Option<Arc<Hedge>>,
    pub rescue: bool,
}

/// Why a name stands for nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NameError {
    /// Upstreams serve it, but none in this dialect.
    NoEnd { asked: String, dialect: Dialect, upstreams: Vec<Arc<str>> },
    /// The project may not use it.
    NotAllowed { asked: String, project: Arc<str> },
    /// Nobody serves it. `alias_of` where it is an alias or logical model that leads nowhere.
    Unknown { asked: String, alias_of: Option<String>, near: Vec<String> },
    /// These upstreams' lists were never learned; they might serve it.
    Unlearned { asked: String, upstreams: Vec<UpstreamId> },
}

impl NameError {
    /// What is wrong.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::NoEnd { asked, dialect, upstreams } => {
                format!(
                    "`{asked}` is served by {} only, which does not speak {dialect}, and this kind of request is not translated",
                    upstreams.join(", ")
                )
            }
            Self::NotAllowed { asked, project } => {
                format!("project `{project}` may not use `{asked}`")
            }
            Self::Unknown { asked, alias_of: Some(target), .. } => {
                format!("`{asked}` stands for `{target}`, which nobody serves")
            }
            Self::Unknown { asked, alias_of: None, .. } => format!("no upstream serves `{asked}`"),
            Self::Unlearned { asked, .. } => format!("no upstream is known to serve `{asked}` yet"),
        }
    }

    /// What to do next.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::NoEnd { upstreams, .. } => {
                let one = upstreams.first().map_or("the upstream", |name| name);
                format!(
                    "ask for it in a dialect that {one} speaks, or add an upstream that speaks yours"
                )
            }
            Self::NotAllowed { project, .. } => {
                format!("`models` and `upstreams` of project `{project}` in the config decide that")
            }
            Self::Unknown { near, .. } if !near.is_empty() => {
                let quoted: Vec<String> = near.iter().map(|name| format!("`{name}`")).collect();
                format!(
                    "did you mean {}? `aiproxy model list` shows every name",
                    quoted.join(" or ")
                )
            }
            Self::Unknown { asked, .. } => {
                format!(
                    "`aiproxy model list` shows every name; `aiproxy model add {asked} TARGET` makes this one"
                )
            }
            Self::Unlearned { .. } => "try again in a moment".to_owned(),
        }
    }
}

/// Endings of names that choose a strategy.
const ENDINGS: [(&str, Strategy); 3] = [
    (":fast", Strategy::LeastLatency),
    (":cheap", Strategy::LeastCost),
    (":best", Strategy::Adaptive(AdaptiveMix::ReliabilityFirst)),
];

/// A name without the ending that chooses a strategy, and that strategy; `None` where it has none,
/// or where the whole is a name.
#[must_use]
pub fn ending<'n>(
    catalog: &Catalog,
    asked: &'n str,
    learned: Learned<'_>,
) -> Option<(&'n str, Strategy)> {
    let (name, strategy) = ENDINGS
        .iter()
        .find_map(|(ending, strategy)| Some((asked.strip_suffix(ending)?, *strategy)))?;
    let lists = |upstream: &Arc<Upstream>| {
        let configured = upstream
            .models
            .iter()
            .flat_map(|models| &models.include)
            .any(|pattern| pattern.is_exact() && pattern.matches(asked));
        configured
            || upstream.rename.contains_key(asked)
            || learned(upstream.id).is_some_and(|set| set.has(asked))
    };
    let whole = name.is_empty()
        || catalog.exact(asked).is_some()
        || catalog.upstream(name).is_some()
        || catalog.upstreams.iter().any(lists);
    (!whole).then_some((name, strategy))
}

/// A target before the dialect is chosen.
#[derive(Clone, Debug)]
pub struct Route {
    pub upstream: Arc<Upstream>,
    /// As the upstream knows it.
    pub model: Arc<str>,
    /// Before `rename`.
    named: Arc<str>,
    priority: u32,
    weight: f64,
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.upstream.name, self.model)
    }
}

/// Resolves a name for a project and dialect. `translates`: an upstream that does not speak the
/// dialect itself is asked in its preferred one.
///
/// # Errors
///
/// Why there is no target.
pub fn resolve(
    catalog: &Catalog,
    asked: &str,
    dialect: Dialect,
    translates: bool,
    project: &Project,
    learned: Learned<'_>,
    patience: Patience,
) -> Result<Resolved, NameError> {
    let not_allowed =
        || NameError::NotAllowed { asked: asked.to_owned(), project: Arc::clone(&project.name) };
    if !project.models.matches(asked) {
        return Err(not_allowed());
    }
    let mut search = Search::new(catalog, project, learned, patience);
    let mut found = search.find(asked).unwrap_or_default();
    if found.routes.is_empty() {
        if !search.unlearned.is_empty() {
            return Err(NameError::Unlearned {
                asked: asked.to_owned(),
                upstreams: search.unlearned,
            });
        }
        if search.hidden {
            return Err(not_allowed());
        }
        let known = known(catalog, project, learned);
        let near = near::nearest_few(asked, known.iter().map(|name| &**name), 3)
            .into_iter()
            .map(str::to_owned)
            .collect();
        return Err(NameError::Unknown {
            asked: asked.to_owned(),
            alias_of: search.via.pop(),
            near,
        });
    }
    found.routes.retain(|route| {
        project.models.matches(&route.named) || project.models.matches(&route.model)
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
        let Route { upstream, model, priority, weight, .. } = route;
        targets.push(Arc::new(Target { upstream, model, dialect, priority, weight }));
    }
    if targets.is_empty() {
        return Err(NameError::NoEnd { asked: asked.to_owned(), dialect, upstreams: no_end });
    }
    let via = if search.via.is_empty() {
        found.how.to_owned()
    } else {
        format!("{asked} → {}", search.via.join(" → "))
    };
    Ok(Resolved {
        targets,
        strategy: found.strategy.unwrap_or(catalog.strategy),
        timeouts: found.timeouts,
        via,
        no_end,
    })
}

/// A name that a client may ask for.
#[derive(Clone, Debug)]
pub struct Name {
    pub name: Arc<str>,
    pub kind: Kind,
    /// What it stands for, in order of trial; empty where it stands for nothing.
    pub routes: Vec<Route>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Alias,
    Configured,
    Discovered,
    Logical,
}

impl Kind {
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

/// Every exact name that the project may ask for: logical models and aliases in file order, then
/// what upstreams serve.
#[must_use]
pub fn all(catalog: &Catalog, project: &Project, learned: Learned<'_>) -> Vec<Name> {
    let mut out: Vec<Name> = Vec::new();
    for name in catalog.named().iter().filter(|name| project.models.matches(name)) {
        let kind = match catalog.exact(name) {
            Some(Entry::Logical(_)) => Kind::Logical,
            _ => Kind::Alias,
        };
        let routes = Search::new(catalog, project, learned, Patience::Wait)
            .find(name)
            .unwrap_or_default()
            .routes;
        out.push(Name { name: Arc::clone(name), kind, routes });
    }
    let mut places: std::collections::HashMap<Arc<str>, usize> = std::collections::HashMap::new();
    for upstream in
        catalog.upstreams.iter().filter(|upstream| project.upstreams.matches(&upstream.name))
    {
        for (name, configured) in served(upstream, learned) {
            if catalog.exact(&name).is_some() || !project.models.matches(&name) {
                continue;
            }
            let route = route(upstream, &name);
            if let Some(&place) = places.get(&name) {
                out[place].routes.push(route);
            } else {
                places.insert(Arc::clone(&name), out.len());
                let kind = if configured { Kind::Configured } else { Kind::Discovered };
                out.push(Name { name, kind, routes: vec![route] });
            }
        }
    }
    out
}

fn route(upstream: &Arc<Upstream>, named: &str) -> Route {
    let named: Arc<str> = named.into();
    let model = upstream
        .rename
        .get(&*named)
        .map_or_else(|| Arc::clone(&named), |model| model.as_str().into());
    Route {
        upstream: Arc::clone(upstream),
        model,
        named,
        priority: upstream.priority,
        weight: upstream.weight,
    }
}

#[derive(Default)]
struct Found {
    routes: Vec<Route>,
    strategy: Option<Strategy>,
    timeouts: Overrides,
    how: &'static str,
}

impl Found {
    fn one(route: Route, how: &'static str) -> Self {
        Self { routes: vec![route], how, ..Self::default() }
    }
}

struct Search<'a> {
    catalog: &'a Catalog,
    project: &'a Project,
    learned: Learned<'a>,
    patience: Patience,
    /// Aliases and logical models on the way here, so that none is entered twice.
    entered: Vec<String>,
    /// What the name turned into on its way.
    via: Vec<String>,
    unlearned: Vec<UpstreamId>,
    /// Somebody serves it whom the project may not use.
    hidden: bool,
}

impl<'a> Search<'a> {
    fn new(
        catalog: &'a Catalog,
        project: &'a Project,
        learned: Learned<'a>,
        patience: Patience,
    ) -> Self {
        Self {
            catalog,
            project,
            learned,
            patience,
            entered: Vec::new(),
            via: Vec::new(),
            unlearned: Vec::new(),
            hidden: false,
        }
    }

    /// The documented order.
    fn find(&mut self, name: &str) -> Option<Found> {
        let catalog = self.catalog;
        if let Some(entry) = catalog.exact(name)
            && !self.was_entered(name)
        {
            return self.enter(name, entry);
        }
        if let Some((pattern, entry)) =
            catalog.patterns(name).find(|(pattern, _)| !self.was_entered(pattern))
        {
            return self.enter(pattern, entry);
        }
        if let Some((upstream, model)) = self.named_upstream(name, ':') {
            return self.at(upstream, model).map(|route| Found::one(route, "upstream:model"));
        }
        if let Some((upstream, model)) = self.named_upstream(name, '/')
            && (upstream.origin == Origin::Demo
                || !upstream.enabled
                || claim(upstream, model, self.learned) != Claim::No)
        {
            return self.at(upstream, model).map(|route| Found::one(route, "upstream/model"));
        }
        if let Some(found) = self.served(name) {
            return Some(found);
        }
        // While somebody might still turn out to serve it, the last resort is not taken.
        match catalog.any() {
            Some(entry) if self.unlearned.is_empty() && !self.was_entered("*") => {
                self.enter("*", entry)
            }
            _ => None,
        }
    }

    fn was_entered(&self, name: &str) -> bool {
        self.entered.len() >= DEEPEST || self.entered.iter().any(|entered| entered == name)
    }

    fn named_upstream<'n>(
        &self,
        name: &'n str,
        mark: char,
    ) -> Option<(&'a Arc<Upstream>, &'n str)> {
        let (upstream, model) = name.split_once(mark)?;
        let upstream = self.catalog.upstream(upstream)?;
        (!model.is_empty()).then_some((upstream, model))
    }

    /// The upstream itself, named outright; a disabled one is a target too, so that the answer can
    /// say so.
    fn at(&mut self, upstream: &Arc<Upstream>, model: &str) -> Option<Route> {
        if !self.project.upstreams.matches(&upstream.name) {
            self.hidden = true;
            return None;
        }
        Some(route(upstream, model))
    }

    fn enter(&mut self, name: &str, entry: &Entry) -> Option<Found> {
        self.entered.push(name.to_owned());
        let found = match entry {
            Entry::Alias(target) => {
                self.via.push(target.to_string());
                self.target(target)
            }
            Entry::Logical(model) => Some(self.logical(model)),
        };
        self.entered.pop();
        found
    }

    /// A name, `upstream:model`, or a pattern whose newest match is meant.
    fn target(&mut self, target: &str) -> Option<Found> {
        let Ok(pattern) = Pattern::parse(target) else { return None };
        if pattern.is_exact() {
            return self.find(target);
        }
        if let Some((upstream, model)) = self.named_upstream(target, ':')
            && let Ok(pattern) = Pattern::parse(model)
        {
            let route = self.newest_at(upstream, &pattern)?;
            self.via.push(route.to_string());
            return Some(Found::one(route, "the newest match"));
        }
        let mut best = Newest::default();
        for name in self
            .catalog
            .named()
            .iter()
            .filter(|name| pattern.matches(name) && !self.was_entered(name))
        {
            best.offer(name);
        }
        for upstream in self
            .catalog
            .upstreams
            .iter()
            .filter(|upstream| self.project.upstreams.matches(&upstream.name))
        {
            each_served(upstream, self.learned, &mut |name, _| {
                if pattern.matches(name) && self.project.models.matches(name) {
                    best.offer(name);
                }
            });
        }
        let Some(name) = best.0 else {
            self.wait_for_lists(None);
            return None;
        };
        self.via.push(name.clone());
        self.find(&name)
    }

    fn newest_at(&mut self, upstream: &Arc<Upstream>, pattern: &Pattern) -> Option<Route> {
        let mut best = Newest::default();
        each_served(upstream, self.learned, &mut |name, _| {
            if pattern.matches(name) {
                best.offer(name);
            }
        });
        match best.0 {
            Some(name) => self.at(upstream, &name),
            None => {
                self.wait_for_lists(Some(upstream.id));
                None
            }
        }
    }

    fn wait_for_lists(&mut self, of: Option<UpstreamId>) {
        if self.patience == Patience::Over {
            return;
        }
        for upstream in &self.catalog.upstreams {
            let asked = upstream.enabled
                && of.is_none_or(|id| id == upstream.id)
                && self.project.upstreams.matches(&upstream.name);
            if asked && upstream.models.is_none() && (self.learned)(upstream.id).is_none() {
                self.unlearned.push(upstream.id);
            }
        }
    }

    fn logical(&mut self, model: &LogicalModel) -> Found {
        let &LogicalModel {
            first_byte, idle, total, sticky, sticky_ttl, rescue, ref hedge, ..
        } = model;
        let timeouts =
            Overrides { first_byte, idle, total, sticky, sticky_ttl, hedge: hedge.clone(), rescue };
        let mut out = Found {
            strategy: Some(model.strategy),
            timeouts,
            how: "logical model",
            ..Found::default()
        };
        for target in &model.targets {
            let routes = match target.upstream.as_deref().map(|name| self.catalog.upstream(name)) {
                None => self.target(&target.model).map(|found| found.routes).unwrap_or_default(),
                Some(None) => Vec::new(),
                Some(Some(upstream)) => match Pattern::parse(&target.model) {
                    Ok(pattern) if !pattern.is_exact() => {
                        self.newest_at(upstream, &pattern).into_iter().collect()
                    }
                    _ => self.at(upstream, &target.model).into_iter().collect(),
                },
            };
            for mut route in routes {
                route.priority = target.priority.unwrap_or(route.priority);
                route.weight = target.weight.unwrap_or(route.weight);
                let known = |other: &Route| {
                    other.upstream.id == route.upstream.id && other.model == route.model
                };
                if !out.routes.iter().any(known) {
                    out.routes.push(route);
                }
            }
        }
        out
    }

    /// Upstreams whose `models` match; those that serve anything, and list other names, only where
    /// no other does.
    fn served(&mut self, name: &str) -> Option<Found> {
        let (mut sure, mut any, mut unlearned, mut known) =
            (Vec::new(), Vec::new(), Vec::new(), false);
        for upstream in &self.catalog.upstreams {
            let claim = claim(upstream, name, self.learned);
            if claim != Claim::No && !self.project.upstreams.matches(&upstream.name) {
                self.hidden |= claim != Claim::Unlearned;
                continue;
            }
            match claim {
                // One without a list is as good as one that lists it: whose list is learned first
                // must not decide.
                Claim::Yes | Claim::Open => {
                    sure.push(route(upstream, name));
                    known |= claim == Claim::Yes;
                }
                Claim::Unlearned if self.patience == Patience::Wait => unlearned.push(upstream.id),
                Claim::Any | Claim::Unlearned => any.push(route(upstream, name)),
                Claim::No => {}
            }
        }
        if known {
            return Some(Found { routes: sure, how: "served by that name", ..Found::default() });
        }
        if !unlearned.is_empty() {
            self.unlearned.append(&mut unlearned);
            return None;
        }
        sure.append(&mut any);
        (!sure.is_empty()).then(|| Found {
            routes: sure,
            how: "served by whoever takes any name",
            ..Found::default()
        })
    }
}

/// Every exact name the project may use.
fn known(catalog: &Catalog, project: &Project, learned: Learned<'_>) -> Vec<Arc<str>> {
    let upstreams =
        catalog.upstreams.iter().filter(|upstream| project.upstreams.matches(&upstream.name));
    let served = upstreams.flat_map(|upstream| served(upstream, learned)).map(|(name, _)| name);
    let mut out: Vec<Arc<str>> = catalog
        .named()
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
            fixture::{cases, project, settings, upstream},
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

    /// openai and router list models, local takes anything, fresh was never learned (disabled
    /// here), off is disabled.
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
            Patience::Wait,
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
        let ending = |asked| ending(&catalog, asked, &|_| None);
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
                Patience::Wait,
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
            Patience::Wait,
        )
        .expect("auto");
        assert_eq!(found.strategy, Strategy::Weighted);
        assert_eq!(found.timeouts.first_byte, Some(Duration::from_secs(7)));
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
        let NameError::Unknown { near, .. } = &error else { panic!("{error:?}") };
        assert_eq!(near[0], "gpt-4o");
        assert_eq!(error.text(), "no upstream serves `gpt-4p`");
        assert!(error.hint().starts_with("did you mean `gpt-4o`"), "{}", error.hint());

        let Err(error) = ask(&world, "broken") else { panic!("it leads nowhere") };
        assert_eq!(error.text(), "`broken` stands for `openai:o-*`, which nobody serves");
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
            ask("new", Patience::Wait).err(),
            Some(NameError::Unlearned { asked: "new".to_owned(), upstreams })
        );
        assert_eq!(
            &*ask("new", Patience::Over).expect("counts as any").targets[0].upstream.name,
            "fresh"
        );
        assert_eq!(
            &*ask("known", Patience::Wait).expect("no need to wait").targets[0].upstream.name,
            "old"
        );
        assert_eq!(
            &*ask("fresh/new", Patience::Wait).expect("named outright").targets[0].upstream.name,
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
                Patience::Wait,
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
            Err(NameError::NotAllowed { asked: name.to_owned(), project: "ide".into() })
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
            resolve(&catalog, "shared", Dialect::Openai, false, &all, &lists, Patience::Wait)
                .expect("openai speaks it");
        assert_eq!(shared.no_end, ["claude".into()]);
        let error =
            resolve(&catalog, "claude-opus", Dialect::Openai, false, &all, &lists, Patience::Wait)
                .expect_err("anthropic only");
        assert_eq!(
            error.text(),
            "`claude-opus` is served by claude only, which does not speak openai, and this kind of request is not translated"
        );
    }

    #[test]
    fn every_name_is_listed_once_with_what_it_stands_for() {
        let world = world();
        let names = all(&Catalog::new(&world), &project(&["*"], &["*"]), &lists);
        let by_name: HashMap<&str, &Name> = names.iter().map(|name| (&*name.name, name)).collect();
        assert_eq!(by_name.len(), names.len());
        let targets =
            |name: &str| by_name[name].routes.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(
            (by_name["fast"].kind, targets("fast")),
            (Kind::Alias, vec!["router:llama-3.3-70b".to_owned()])
        );
        assert_eq!(by_name["auto"].kind, Kind::Logical);
        assert_eq!(targets("gpt-4o"), ["openai:gpt-4o", "router:gpt-4o"]);
        assert_eq!(by_name["r1"].kind, Kind::Configured);
        assert_eq!(by_name["openai/gpt-4o"].kind, Kind::Discovered);
        assert!(!by_name.contains_key("off-only"));
    }

    proptest! {
        #![proptest_config(cases())]

        #[test]
        fn no_name_panics_or_reaches_a_disallowed_upstream(asked in "[a-z/:*?!0-9-]{0,24}", patience in any::<bool>()) {
            let world = world();
            let patience = if patience { Patience::Wait } else { Patience::Over };
            let only = project(&["*"], &["router", "demo"]);
            if let Ok(found) = resolve(&Catalog::new(&world), &asked, Dialect::Openai, false, &only, &lists, patience) {
                assert!(found.targets.iter().all(|target| only.upstreams.matches(&target.upstream.name)));
            }
        }
    }
}
