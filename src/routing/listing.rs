//! Lists the names that a project may request.

use std::{collections::HashMap, sync::Arc};

use crate::config::settings::{Origin, Project};
use crate::routing::{
    catalog::{Catalog, CatalogEntry, ListedModels, served_names},
    name_resolver::{NameResolver, OnUnknownList, ResolvedRoute, route_to},
};

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
    let mut positions: HashMap<Arc<str>, usize> = HashMap::new();
    for upstream in
        catalog.upstreams.iter().filter(|upstream| project.upstreams.matches(&upstream.name))
    {
        for (served, configured) in served_names(upstream, model_lists) {
            // The bare names of the demo work only while it is the only upstream.
            let name = if upstream.origin == Origin::Demo {
                format!("{}/{served}", upstream.name).into()
            } else {
                Arc::clone(&served)
            };
            if catalog.exact(&name).is_some() || !project.models.matches(&name) {
                continue;
            }
            let route = route_to(upstream, &served);
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

/// Returns every exact name that the project may use.
pub(super) fn allowed_names(
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
