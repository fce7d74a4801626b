//! Finds the server that a request goes to.

use std::sync::Arc;

use super::combined::combined_names;
use crate::{
    base::json::{raw::RawJson, reader::JsonRef},
    mcp::{
        caller::McpCaller,
        message::{self, INVALID_PARAMS, RpcError, with_members},
        names,
        servers::hub::{Listed, McpHub},
        servers::instance::Instance,
        servers::lists::{ListItems, ListKind},
        session::EndpointScope,
    },
};

/// The server that a request goes to, and its params with the server's own names.
pub(super) struct Destination {
    pub(super) instance: Arc<Instance>,
    pub(super) params: Option<RawJson>,
    /// The answer names addresses as this combined server does.
    pub(super) wrap: Option<Arc<str>>,
}

pub(super) fn missing(what: &str) -> RpcError {
    RpcError::new(INVALID_PARAMS, format!("`{what}` is missing"))
}

/// Finds the server of a tool or prompt.
pub(super) async fn named(
    hub: &Arc<McpHub>,
    caller: &McpCaller,
    kind: ListKind,
    params: Option<&RawJson>,
) -> Result<Destination, RpcError> {
    let name = message::text_param(params, "name").ok_or_else(|| missing("name"))?;
    let (instance, own) = find_named(hub, caller, kind, &name).await?;
    let params = if own == name {
        params.cloned()
    } else {
        Some(with_members(params, &[("name", Some(&RawJson::string(&own)))]))
    };
    Ok(Destination { instance, params, wrap: None })
}

pub(super) async fn find_named(
    hub: &Arc<McpHub>,
    caller: &McpCaller,
    kind: ListKind,
    name: &str,
) -> Result<(Arc<Instance>, String), RpcError> {
    let unknown = || {
        let what = if kind == ListKind::Tools { "tool" } else { "prompt" };
        let name = crate::base::sanitize::clean(name).into_owned();
        RpcError::new(INVALID_PARAMS, format!("unknown {what}: {name}"))
    };
    if let EndpointScope::One(server) = &caller.scope {
        let entry = hub.visible(&caller.project, &caller.scope).into_iter().next();
        let instance = hub.instance(&entry.ok_or_else(unknown)?, &caller.project.name);
        if instance.lists.known(kind).is_some_and(|items| contains(&items, name)) {
            return Ok((instance, name.to_owned()));
        }
        if kind == ListKind::Tools && !instance.row.tools.matches(name) {
            return Err(unknown());
        }
        return match tokio::time::timeout(crate::mcp::servers::hub::LIST_WAIT, instance.list(kind))
            .await
        {
            Ok(Ok(items)) if contains(&items, name) => Ok((instance, name.to_owned())),
            Ok(Ok(_)) => Err(unknown()),
            Ok(Err(fault)) => Err(fault.to_rpc(server)),
            // The server itself knows best.
            Err(_) => Ok((instance, name.to_owned())),
        };
    }
    if let Some(found) = find_combined(hub, caller, kind, name) {
        return Ok(found);
    }
    let listed = hub.gather(&caller.project, &caller.scope, kind).await;
    if let Some(found) = find_combined(hub, caller, kind, name) {
        return Ok(found);
    }
    // The name may be one of a server that does not answer now.
    let silent = listed.iter().filter(|one| one.items.is_err()).find(|one| {
        let prefix = one.entry.row.name_prefix();
        !prefix.is_empty() && name.starts_with(&prefix)
    });
    match silent {
        Some(Listed { entry, items: Err(fault), .. }) => Err(fault.to_rpc(&entry.row.name)),
        _ => Err(unknown()),
    }
}

pub(super) fn contains(items: &ListItems, name: &str) -> bool {
    items.iter().any(|item| item.json().get("name").and_then(JsonRef::str).as_deref() == Some(name))
}

pub(super) fn find_combined(
    hub: &McpHub,
    caller: &McpCaller,
    kind: ListKind,
    name: &str,
) -> Option<(Arc<Instance>, String)> {
    let rows = combined_names(hub, caller, kind);
    let exact = rows.iter().find(|(.., shown)| shown == name);
    // A name with a hash stays valid when the collision that it avoided is gone.
    let hashed = || {
        rows.iter().find(|(entry, _, own, _)| {
            names::hashed(&entry.row.name_prefix(), own, &entry.row.name) == name
        })
    };
    let (_, instance, own, _) = exact.or_else(hashed)?;
    Some((Arc::clone(instance), own.clone()))
}

/// Finds the server of a resource.
pub(super) async fn find_resource(
    hub: &Arc<McpHub>,
    caller: &McpCaller,
    uri: &str,
) -> Result<(Arc<Instance>, String, Option<Arc<str>>), RpcError> {
    let visible = hub.visible(&caller.project, &caller.scope);
    if matches!(caller.scope, EndpointScope::One(_)) {
        let entry = visible.first().ok_or_else(|| unknown_resource(caller, uri))?;
        return Ok((hub.instance(entry, &caller.project.name), uri.to_owned(), None));
    }
    if let Some((server, own)) = names::unwrap_uri(uri)
        && let Some(entry) = visible.iter().find(|entry| *entry.row.name == *server)
    {
        let instance = hub.instance(entry, &caller.project.name);
        return Ok((instance, own.to_owned(), Some(Arc::clone(&entry.row.name))));
    }
    // Links in results of tools name resources as their server does.
    for (kind, key) in [(ListKind::Resources, "uri"), (ListKind::Templates, "uriTemplate")] {
        for listed in hub.gather(&caller.project, &caller.scope, kind).await {
            let fits = |item: &RawJson| {
                let known = item.json().string_at(key).unwrap_or_default();
                if kind == ListKind::Resources {
                    known == uri
                } else {
                    names::fits_template(&known, uri)
                }
            };
            if listed.items.is_ok_and(|items| items.iter().any(fits)) {
                return Ok((listed.instance, uri.to_owned(), None));
            }
        }
    }
    Err(unknown_resource(caller, uri))
}

/// Returns the server of a resource and its own address; `None` if no server has it.
pub(crate) async fn watchable(
    hub: &Arc<McpHub>,
    caller: &McpCaller,
    uri: &str,
) -> Option<(Arc<Instance>, String)> {
    let (instance, own, _) = find_resource(hub, caller, uri).await.ok()?;
    Some((instance, own))
}

pub(super) fn unknown_resource(caller: &McpCaller, uri: &str) -> RpcError {
    let code = if caller.is_stateless() { INVALID_PARAMS } else { -32_002 };
    let uri = crate::base::sanitize::clean(uri).into_owned();
    RpcError::new(code, format!("unknown resource: {uri}"))
}

pub(super) async fn resource(
    hub: &Arc<McpHub>,
    caller: &McpCaller,
    params: Option<&RawJson>,
) -> Result<Destination, RpcError> {
    let uri = message::text_param(params, "uri").ok_or_else(|| missing("uri"))?;
    let (instance, own, wrap) = find_resource(hub, caller, &uri).await?;
    let params = with_members(params, &[("uri", Some(&RawJson::string(&own)))]);
    Ok(Destination { instance, params: Some(params), wrap })
}

pub(super) async fn completion(
    hub: &Arc<McpHub>,
    caller: &McpCaller,
    params: Option<&RawJson>,
) -> Result<Destination, RpcError> {
    let reference = params.and_then(|params| params.json().get("ref"));
    let reference = reference.ok_or_else(|| missing("ref"))?;
    let (key, instance, own) = match reference.string_at("type").as_deref() {
        Some("ref/prompt") => {
            let name = reference.string_at("name").ok_or_else(|| missing("ref.name"))?;
            let (instance, own) = find_named(hub, caller, ListKind::Prompts, &name).await?;
            ("name", instance, own)
        }
        _ => {
            let uri = reference.string_at("uri").ok_or_else(|| missing("ref.uri"))?;
            let (instance, own, _) = find_resource(hub, caller, &uri).await?;
            ("uri", instance, own)
        }
    };
    let reference = RawJson::from_json(reference);
    let reference = with_members(Some(&reference), &[(key, Some(&RawJson::string(&own)))]);
    let params = with_members(params, &[("ref", Some(&reference))]);
    Ok(Destination { instance, params: Some(params), wrap: None })
}
