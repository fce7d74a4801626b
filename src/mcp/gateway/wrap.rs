//! Gives results the names of the combined endpoint.

use crate::{
    base::json::raw::RawJson,
    mcp::{caller::McpCaller, message::with_members, names, servers::instance::Instance},
};

/// Gives the contents of a resource the addresses of the combined endpoint.
pub(super) fn wrap_contents(result: &RawJson, server: &str) -> RawJson {
    let Some(contents) = result.json().get("contents") else { return result.clone() };
    let items: Vec<RawJson> = contents
        .items()
        .map(|item| {
            let uri = item.string_at("uri").unwrap_or_default();
            let uri = RawJson::string(&names::wrap_uri(server, &uri));
            with_members(Some(&RawJson::from_json(item)), &[("uri", Some(&uri))])
        })
        .collect();
    RawJson::object(|o| {
        for (key, value) in result.json().members() {
            if key == "contents" {
                o.array(key, |a| {
                    for item in &items {
                        a.raw(item);
                    }
                });
            } else {
                o.json(key, value);
            }
        }
    })
}

/// Gives a task the name of its server, so that later requests find it.
pub(super) fn wrap_task(
    salt: &str,
    caller: &McpCaller,
    instance: &Instance,
    result: RawJson,
) -> RawJson {
    let json = result.json();
    let Some(task) = json.string_at("taskId").filter(|_| caller.knows_tasks()) else {
        return result;
    };
    let own = names::wrap_task(salt, &caller.project.name, &instance.row.name, &task);
    with_members(Some(&result), &[("taskId", Some(&RawJson::string(&own)))])
}
