//! Resolves the model that a client requested to the targets that serve it, in the documented
//! order, or explains why there are none.

use std::{iter, sync::Arc};

use crate::routing::{
    candidate::Target,
    catalog::{Catalog, ListedModels, for_each_served_name, is_listed},
    listing::allowed_names,
    name_resolver::{ModelOverrides, NameResolver, OnUnknownList, ResolvedRoute},
};
use crate::{
    base::suggest,
    config::settings::{AdaptiveMix, Project, Strategy, Upstream, UpstreamId},
    ir::{op::Dialect, reason::route::NameSource},
};

/// The result of resolving a name.
#[derive(Clone, Debug)]
pub struct ResolvedModel {
    /// In config order, or in the order of the logical model.
    pub targets: Vec<Arc<Target>>,
    pub strategy: Strategy,
    pub overrides: ModelOverrides,
    /// How the name was resolved: "fast → groq:llama-3.3-70b".
    pub via: Arc<NameSource>,
    /// Upstreams that serve the name, but not in the client's dialect, if translation is not
    /// possible.
    pub unsupported: Vec<Arc<str>>,
    /// No upstream is known to have the name; these accept any name, or their lists are unknown.
    pub is_guess: bool,
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
    let lists = |upstream: &Arc<Upstream>| is_listed(upstream, requested, model_lists);
    let is_name = name.is_empty()
        || catalog.exact(requested).is_some()
        || catalog.upstream(name).is_some()
        || catalog.upstreams.iter().any(lists);
    (!is_name).then_some((name, strategy))
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
    let mut resolver = NameResolver::new(catalog, project, model_lists, on_unknown_list);
    let allowed = project.models.matches(requested);
    let mut found = if allowed { resolver.find(requested) } else { None }.unwrap_or_default();
    // A name in other case is used where no upstream is known to have it as it is written.
    if (found.routes.is_empty() || found.is_guess)
        && resolver.unknown_lists.is_empty()
        && let Some(name) = name_in_other_case(catalog, requested, project, model_lists)
    {
        let mut other = NameResolver::new(catalog, project, model_lists, on_unknown_list);
        if let Some(by_case) = other.find(&name).filter(|by_case| !by_case.routes.is_empty()) {
            other.via.insert(0, name.into());
            (found, resolver) = (by_case, other);
        }
    }
    if !allowed && found.routes.is_empty() {
        return Err(not_allowed());
    }
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
        return Err(NameError::Unknown {
            requested: requested.to_owned(),
            alias_of: resolver.via.pop().map(|name| name.to_string()),
            similar: similar_names(catalog, requested, project, model_lists),
        });
    }
    found.routes.retain(|route| {
        project.models.matches(&route.client_name) || project.models.matches(&route.model)
    });
    if found.routes.is_empty() {
        return Err(not_allowed());
    }
    let (targets, unsupported) = choose_endpoints(found.routes, dialect, translates);
    if targets.is_empty() {
        return Err(NameError::UnsupportedDialect {
            requested: requested.to_owned(),
            dialect,
            upstreams: unsupported,
        });
    }
    let via = if resolver.via.is_empty() {
        found.matched_by
    } else {
        let names = iter::once(Arc::from(requested)).chain(resolver.via).collect();
        NameSource::Aliases { names }
    };
    Ok(ResolvedModel {
        targets,
        strategy: found.strategy.unwrap_or(catalog.strategy),
        overrides: found.overrides,
        via: via.into(),
        unsupported,
        is_guess: found.is_guess,
    })
}

/// Chooses the endpoint of each route: the one of the dialect, or with `translates` the preferred
/// one. Also returns the upstreams that have neither.
fn choose_endpoints(
    routes: Vec<ResolvedRoute>,
    dialect: Dialect,
    translates: bool,
) -> (Vec<Arc<Target>>, Vec<Arc<str>>) {
    let (mut targets, mut unsupported) = (Vec::with_capacity(routes.len()), Vec::new());
    for route in routes {
        let other = || route.upstream.endpoints.first().filter(|_| translates);
        let Some(end) = route.upstream.endpoint(dialect).or_else(other) else {
            if !unsupported.contains(&route.upstream.name) {
                unsupported.push(Arc::clone(&route.upstream.name));
            }
            continue;
        };
        let dialect = end.dialect;
        let ResolvedRoute { upstream, model, priority, weight, .. } = route;
        targets.push(Arc::new(Target { upstream, model, dialect, priority, weight }));
    }
    (targets, unsupported)
}

/// Returns the names that a project may use and that look like the requested one.
#[must_use]
pub fn similar_names(
    catalog: &Catalog,
    requested: &str,
    project: &Project,
    model_lists: ListedModels<'_>,
) -> Vec<String> {
    let allowed = allowed_names(catalog, project, model_lists);
    let near = suggest::nearest_few(requested, allowed.iter().map(|name| &**name), 3);
    near.into_iter().map(str::to_owned).collect()
}

/// Returns the only known name that differs from the requested one in nothing but case; with
/// `UPSTREAM/` or `UPSTREAM:` in front, the only one of that upstream.
fn name_in_other_case(
    catalog: &Catalog,
    requested: &str,
    project: &Project,
    model_lists: ListedModels<'_>,
) -> Option<String> {
    let mut found: Option<String> = None;
    let mut ambiguous = false;
    let mut consider = |upstream: &str, separator: &str, model: &str| {
        let known = [upstream, separator, model].concat();
        if known != requested {
            ambiguous |= found.as_deref().is_some_and(|other| other != known);
            found = Some(known);
        }
    };
    let usable = |name: &str| name.eq_ignore_ascii_case(requested) && project.models.matches(name);
    for name in catalog.exact_names().iter().filter(|name| usable(name)) {
        consider("", "", name);
    }
    let (prefix, rest) = requested.split_at(requested.find(['/', ':']).unwrap_or(0));
    for upstream in &catalog.upstreams {
        if !project.upstreams.matches(&upstream.name) {
            continue;
        }
        let named = !prefix.is_empty() && upstream.name.eq_ignore_ascii_case(prefix);
        for_each_served_name(upstream, model_lists, &mut |model, _| {
            if usable(model) {
                consider("", "", model);
            }
            if named && model.eq_ignore_ascii_case(&rest[1..]) {
                consider(&upstream.name, &rest[..1], model);
            }
        });
    }
    found.filter(|_| !ambiguous)
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, time::Duration};

    use proptest::prelude::{any, proptest};

    use super::*;
    use crate::{
        base::pattern::Pattern,
        config::settings::{Alias, DialectEndpoint, LogicalModel, ModelTarget, Origin, Settings},
        routing::{
            catalog::ModelSet,
            listing::{ListedName, NameKind, list_names},
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
    fn suffix_selects_a_strategy_unless_it_is_part_of_a_name() {
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
    fn order_of_learned_lists_does_not_affect_routing() {
        let world = settings(vec![
            upstream(1, "one", Some(&["*"]), 1),
            upstream(2, "two", Some(&["*"]), 2),
        ]);
        for learned in [&[][..], &[1], &[2], &[1, 2]] {
            let lists = |id: UpstreamId| {
                learned.contains(&id.0).then(|| Arc::new(ModelSet::new(iter::once("m".to_owned()))))
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
    fn logical_model_has_its_strategy_timeouts_and_priorities() {
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
    fn logical_model_may_share_the_name_of_its_target() {
        let mut world = world();
        world.models = vec![logical("gpt-4o", &[(None, "gpt-4o", None)])];
        assert_eq!(ask(&world, "gpt-4o").expect("no loop"), ["openai:gpt-4o", "router:gpt-4o"]);
    }

    #[test]
    fn alias_cycle_terminates() {
        let mut world = world();
        world.upstreams.retain(|upstream| &*upstream.name != "local");
        assert!(matches!(ask(&world, "loop-a"), Err(NameError::Unknown { .. })));
        world.aliases.push(alias("*", "*"));
        assert!(matches!(ask(&world, "nobody-else"), Err(NameError::Unknown { .. }) | Ok(_)));
    }

    #[test]
    fn unknown_name_error_suggests_similar_names() {
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
    fn catch_all_alias_serves_unmatched_models() {
        let mut world = world();
        world.upstreams.retain(|upstream| &*upstream.name != "local");
        world.aliases.push(alias("*", "auto"));
        assert_eq!(ask(&world, "unheard-of").expect("by *")[0], "router:deepseek/deepseek-r1");
        assert_eq!(ask(&world, "gpt-4o").expect("served")[0], "openai:gpt-4o");
    }

    #[test]
    fn upstream_with_unknown_models_is_awaited_then_accepts_any() {
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
    fn project_reaches_only_its_allowed_models() {
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
    fn upstream_without_the_client_dialect_needs_translation() {
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
    fn every_name_is_listed_once_with_its_targets() {
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

    #[test]
    fn demo_models_are_listed_with_unambiguous_names() {
        let mut demo = upstream(5, "demo", Some(&["echo"]), 0);
        demo.origin = Origin::Demo;
        let mut world = world();
        world.upstreams = vec![Arc::new(demo)];
        world.models.clear();
        world.aliases.clear();

        let names = list_names(&Catalog::new(&world), &project(&["*"], &["*"]), &lists);

        let listed: Vec<_> =
            names.iter().map(|name| (&*name.name, name.routes[0].to_string())).collect();
        assert_eq!(listed, [("demo/echo", "demo:echo".to_owned())]);
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
