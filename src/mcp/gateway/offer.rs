//! What an endpoint offers.

use crate::{
    base::json::raw::RawJson,
    mcp::{
        caller::McpCaller,
        message::{INVALID_PARAMS, RpcError, with_members},
        revision::{self, TASKS_EXTENSION},
        servers::hub::McpHub,
        session::EndpointScope,
        wire::peer::own_info,
    },
};

/// What an endpoint offers: capabilities, server and instructions, as members of a result.
///
/// # Errors
///
/// The only server of the endpoint cannot be used.
pub(crate) async fn offer(
    hub: &McpHub,
    caller: &McpCaller,
) -> Result<Vec<(&'static str, RawJson)>, RpcError> {
    let EndpointScope::One(name) = &caller.scope else {
        let text = "The tools of several MCP servers; their names begin with the server's.";
        return Ok(vec![
            ("capabilities", all_capabilities(caller)),
            ("serverInfo", own_info()),
            ("instructions", RawJson::string(text)),
        ]);
    };
    let entry = hub.visible(&caller.project, &caller.scope).into_iter().next();
    let gone = || RpcError::new(INVALID_PARAMS, format!("there is no MCP server `{name}`"));
    let instance = hub.instance(&entry.ok_or_else(gone)?, &caller.project.name);
    let peer = instance.peer().await.map_err(|fault| fault.to_rpc(name))?;
    let agreement = &peer.agreement;
    let mut members = vec![
        ("capabilities", one_capabilities(caller, &agreement.capabilities)),
        ("serverInfo", agreement.info.clone().unwrap_or_else(own_info)),
    ];
    members.extend(agreement.instructions.clone().map(|text| ("instructions", text)));
    Ok(members)
}

pub(super) fn all_capabilities(caller: &McpCaller) -> RawJson {
    RawJson::object(|o| {
        for name in ["tools", "prompts", "resources"] {
            o.object(name, |o| {
                o.bool("listChanged", true);
                if name == "resources" {
                    o.bool("subscribe", true);
                }
            });
        }
        o.object("logging", |_| {}).object("completions", |_| {});
        if caller.knows_tasks() {
            o.object("extensions", |o| {
                o.object(TASKS_EXTENSION, |_| {});
            });
        }
    })
}

/// Returns what one server can do, without what is not passed on.
pub(super) fn one_capabilities(caller: &McpCaller, capabilities: &RawJson) -> RawJson {
    RawJson::object(|o| {
        for (key, value) in capabilities.json().members() {
            match key {
                // Lists can change with the config too.
                "tools" | "prompts" | "resources" => {
                    let value = RawJson::from_json(value);
                    let yes = RawJson::from(true);
                    o.raw(key, &with_members(Some(&value), &[("listChanged", Some(&yes))]));
                }
                "logging" | "completions" => {
                    o.json(key, value);
                }
                "extensions" if caller.is_stateless() => {
                    o.json(key, value);
                }
                _ => {}
            }
        }
    })
}

pub(super) async fn discover(hub: &McpHub, caller: &McpCaller) -> Result<RawJson, RpcError> {
    let members = offer(hub, caller).await?;
    let info = members.iter().find(|(key, _)| *key == "serverInfo").map(|(_, info)| info.clone());
    Ok(RawJson::object(|o| {
        o.array("supportedVersions", |a| {
            a.str(revision::STATELESS);
            for version in revision::HANDSHAKE.iter().rev() {
                a.str(version);
            }
        });
        for (key, value) in &members {
            if *key != "serverInfo" {
                o.raw(key, value);
            }
        }
        o.object("_meta", |o| {
            o.opt_raw(revision::META_SERVER, info.as_ref());
        });
    }))
}
