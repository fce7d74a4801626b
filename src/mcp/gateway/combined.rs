//! The lists of all servers together.

use std::{collections::HashMap, sync::Arc};

use crate::{
    base::json::raw::RawJson,
    mcp::{
        caller::McpCaller,
        message::{RpcError, with_members},
        names,
        servers::hub::{Listed, McpHub, ServerEntry},
        servers::instance::Instance,
        servers::lists::ListKind,
        session::EndpointScope,
    },
};

/// Returns the names that the items of these lists have at the combined endpoint, by server and own
/// name. Servers that are down keep theirs, so that no name changes its meaning meanwhile.
pub(super) fn combined_names(
    hub: &McpHub,
    caller: &McpCaller,
    kind: ListKind,
) -> Vec<(Arc<ServerEntry>, Arc<Instance>, String, String)> {
    let mut rows = Vec::new();
    for entry in hub.visible(&caller.project, &caller.scope) {
        let instance = hub.instance(&entry, &caller.project.name);
        for item in instance.lists.known(kind).iter().flat_map(|items| items.iter()) {
            if let Some(name) = item.json().string_at("name") {
                rows.push((Arc::clone(&entry), Arc::clone(&instance), name));
            }
        }
    }
    let prefixes: Vec<_> = rows.iter().map(|(entry, ..)| entry.row.name_prefix()).collect();
    let items: Vec<_> = rows
        .iter()
        .zip(&prefixes)
        .map(|((entry, _, name), prefix)| (prefix.as_str(), &*entry.row.name, name.as_str()))
        .collect();
    let unique = names::unique(&items);
    rows.into_iter()
        .zip(unique)
        .map(|((entry, instance, name), shown)| (entry, instance, name, shown))
        .collect()
}

/// `tools/list` and its kin.
pub(super) async fn list(
    hub: &Arc<McpHub>,
    caller: &McpCaller,
    kind: ListKind,
) -> Result<RawJson, RpcError> {
    let listed = hub.gather(&caller.project, &caller.scope, kind).await;
    if let (EndpointScope::One(name), [Listed { items: Err(fault), .. }]) =
        (&caller.scope, listed.as_slice())
    {
        return Err(fault.to_rpc(name));
    }
    let is_combined = caller.scope == EndpointScope::All;
    let is_named = matches!(kind, ListKind::Tools | ListKind::Prompts);
    let shown: HashMap<(Arc<str>, String), String> = if is_combined && is_named {
        let names = combined_names(hub, caller, kind).into_iter();
        names.map(|(entry, _, name, shown)| ((Arc::clone(&entry.row.name), name), shown)).collect()
    } else {
        HashMap::new()
    };
    Ok(RawJson::object(|o| {
        o.array(kind.key(), |a| {
            for Listed { entry, items, .. } in &listed {
                for item in items.iter().flat_map(|items| items.iter()) {
                    if !is_combined {
                        a.raw(item);
                        continue;
                    }
                    a.raw(&combined_item(entry, kind, item, &shown));
                }
            }
        });
    }))
}

pub(super) fn combined_item(
    entry: &ServerEntry,
    kind: ListKind,
    item: &RawJson,
    shown: &HashMap<(Arc<str>, String), String>,
) -> RawJson {
    let server = &entry.row.name;
    match kind {
        ListKind::Tools | ListKind::Prompts => {
            let name = item.json().string_at("name").unwrap_or_default();
            let found = shown.get(&(Arc::clone(server), name.clone())).cloned();
            let prefix = entry.row.name_prefix();
            let shown = found.unwrap_or_else(|| names::combined(&prefix, &name, server));
            with_members(Some(item), &[("name", Some(&RawJson::string(&shown)))])
        }
        ListKind::Resources | ListKind::Templates => {
            let key = if kind == ListKind::Resources { "uri" } else { "uriTemplate" };
            let uri = item.json().string_at(key).unwrap_or_default();
            let uri = RawJson::string(&names::wrap_uri(server, &uri));
            with_members(Some(item), &[(key, Some(&uri))])
        }
    }
}
