//! Answers the requests of clients: lists of all servers together, and requests that go to one.

pub(super) mod accounting;
mod combined;
pub(super) mod destination;
pub(super) mod offer;
mod wrap;

use std::{sync::Arc, time::Duration};

use crate::{
    base::json::raw::RawJson,
    mcp::{
        call::{self, CallEnd, ServerRequest},
        caller::McpCaller,
        feeds, log_level,
        message::{self, INVALID_PARAMS, METHOD_NOT_FOUND, RpcError, with_members},
        names,
        outlet::Exchange,
        revision::{self, Revision},
        servers::hub::McpHub,
        servers::instance::Instance,
        servers::lists::ListKind,
    },
};
use accounting::{call_start, log_end, too_many};
use combined::list;
use destination::{Destination, completion, find_resource, missing, named, resource};
use offer::discover;
use wrap::{wrap_contents, wrap_task};

/// How long a client waits until a server has taken a subscription.
const SUBSCRIBE_WAIT: Duration = Duration::from_secs(10);

/// Answers one request; ends when the answer has been sent or the client has left.
pub async fn answer_request(
    hub: Arc<McpHub>,
    caller: McpCaller,
    mut exchange: Exchange,
    method: String,
    params: Option<RawJson>,
) {
    if let Some(session) = &caller.session {
        session.begin(&exchange.id, &exchange.outlet.gone);
    }
    let id = exchange.id.clone();
    let end = dispatch(&hub, &caller, &mut exchange, &method, params).await;
    if let Some(session) = &caller.session {
        session.end(&id);
    }
    if let CallEnd::Done(result) = end {
        let fitted =
            result.map(|result| revision::fit_result(&result, &method, caller.facts.revision));
        exchange.finish(&fitted).await;
    }
}

async fn dispatch(
    hub: &Arc<McpHub>,
    caller: &McpCaller,
    exchange: &mut Exchange,
    method: &str,
    params: Option<RawJson>,
) -> CallEnd {
    let done = CallEnd::Done;
    if let Some(kind) = ListKind::of_method(method) {
        return done(list(hub, caller, kind).await);
    }
    let stateless = caller.is_stateless();
    match method {
        "ping" if !stateless => done(Ok(message::empty_object())),
        "server/discover" if stateless => done(discover(hub, caller).await),
        "tools/call" | "prompts/get" | "resources/read" | "completion/complete" => {
            forward(hub, caller, exchange, method, params).await
        }
        "logging/setLevel" if !stateless => done(set_level(hub, caller, params.as_ref())),
        "resources/subscribe" | "resources/unsubscribe" if !stateless => {
            let on = method == "resources/subscribe";
            done(subscribe(hub, caller, params.as_ref(), on).await)
        }
        "subscriptions/listen" if stateless => {
            feeds::answer_listen(hub, caller, exchange, params.as_ref()).await
        }
        "tasks/get" | "tasks/update" | "tasks/cancel" if stateless => {
            forward_task(hub, caller, exchange, method, params).await
        }
        _ => done(Err(unknown_method(method))),
    }
}

fn unknown_method(method: &str) -> RpcError {
    let method = crate::base::sanitize::clean(method).into_owned();
    RpcError::new(METHOD_NOT_FOUND, format!("there is no method `{method}` here"))
}

async fn forward(
    hub: &Arc<McpHub>,
    caller: &McpCaller,
    exchange: &mut Exchange,
    method: &str,
    params: Option<RawJson>,
) -> CallEnd {
    let state = message::text_param(params.as_ref(), "requestState");
    let destination = match method {
        "tools/call" => named(hub, caller, ListKind::Tools, params.as_ref()).await,
        "prompts/get" => named(hub, caller, ListKind::Prompts, params.as_ref()).await,
        "resources/read" => resource(hub, caller, params.as_ref()).await,
        _ => completion(hub, caller, params.as_ref()).await,
    };
    let Destination { instance, params, wrap } = match destination {
        Ok(destination) => destination,
        Err(error) => return CallEnd::Done(Err(error)),
    };
    let owner = call::owner(caller, &instance.row.name, method, params.as_ref());
    if let Some(state) = state.filter(|_| is_old_server(&instance)) {
        let answers = params.as_ref().and_then(|params| params.json().get("inputResponses"));
        let answers = answers.map_or_else(message::empty_object, RawJson::from_json);
        let gone = Exchange::placeholder();
        let current = std::mem::replace(exchange, gone);
        return match hub.parked.resume(&state, &owner, current, answers) {
            Ok(()) => CallEnd::Left,
            Err(back) => {
                *exchange = back;
                let message = "this `requestState` is not one of this request, or it has expired";
                CallEnd::Done(Err(RpcError::new(INVALID_PARAMS, message)))
            }
        };
    }
    let log = if method == "tools/call" {
        if let Err(wait) = instance.admit_call() {
            return CallEnd::Done(Err(too_many(&instance, wait)));
        }
        Some(hub.parts.call_log.begin(call_start(caller, &instance, params.as_ref())))
    } else {
        None
    };
    let request =
        ServerRequest { caller, instance: &instance, parked: &hub.parked, method, params, owner };
    let end = request.run(exchange).await;
    if let Some(log) = log {
        log_end(log, &end);
    }
    match end {
        CallEnd::Done(Ok(result)) => {
            let result = match &wrap {
                Some(server) => wrap_contents(&result, server),
                None => result,
            };
            CallEnd::Done(Ok(wrap_task(&hub.parts.salt, caller, &instance, result)))
        }
        other => other,
    }
}

fn is_old_server(instance: &Instance) -> bool {
    let running = instance.running();
    running.is_none_or(|peer| matches!(peer.agreement.revision, Revision::Handshake(_)))
}

async fn forward_task(
    hub: &Arc<McpHub>,
    caller: &McpCaller,
    exchange: &mut Exchange,
    method: &str,
    params: Option<RawJson>,
) -> CallEnd {
    let unknown = || CallEnd::Done(Err(RpcError::new(INVALID_PARAMS, "unknown task")));
    let Some(id) = message::text_param(params.as_ref(), "taskId") else { return unknown() };
    let Some((server, own)) = names::unwrap_task(&hub.parts.salt, &caller.project.name, &id) else {
        return unknown();
    };
    let visible = hub.visible(&caller.project, &caller.scope);
    let Some(entry) = visible.iter().find(|entry| *entry.row.name == *server) else {
        return unknown();
    };
    let instance = hub.instance(entry, &caller.project.name);
    let params = with_members(params.as_ref(), &[("taskId", Some(&RawJson::string(own)))]);
    let owner = String::new();
    let params = Some(params);
    let request =
        ServerRequest { caller, instance: &instance, parked: &hub.parked, method, params, owner };
    match request.run(exchange).await {
        CallEnd::Done(Ok(result)) => {
            CallEnd::Done(Ok(wrap_task(&hub.parts.salt, caller, &instance, result)))
        }
        other => other,
    }
}

fn set_level(
    hub: &Arc<McpHub>,
    caller: &McpCaller,
    params: Option<&RawJson>,
) -> Result<RawJson, RpcError> {
    let level = message::text_param(params, "level").and_then(|name| log_level::parse(&name));
    let level = level.ok_or_else(|| RpcError::new(INVALID_PARAMS, "unknown `level`"))?;
    if let Some(session) = &caller.session {
        session.set_level(level);
    }
    let least = hub.sessions.least_level(&caller.project.name).unwrap_or(level);
    for entry in hub.visible(&caller.project, &caller.scope) {
        hub.instance(&entry, &caller.project.name).set_level(least);
    }
    Ok(message::empty_object())
}

async fn subscribe(
    hub: &Arc<McpHub>,
    caller: &McpCaller,
    params: Option<&RawJson>,
    on: bool,
) -> Result<RawJson, RpcError> {
    let uri = message::text_param(params, "uri").ok_or_else(|| missing("uri"))?;
    let (instance, own, _) = find_resource(hub, caller, &uri).await?;
    if let Some(session) = &caller.session {
        session.subscribe(&uri, on);
    }
    let watching = tokio::time::timeout(SUBSCRIBE_WAIT, instance.watch_resource(&own, on)).await;
    match watching {
        Ok(Err(crate::mcp::wire::calls::CallFault::Rpc(error))) => Err(error),
        Ok(Err(fault)) => {
            let fault =
                crate::mcp::servers::start_fault::StartFault::from_call(&instance.row.name, &fault);
            Err(fault.to_rpc(&instance.row.name))
        }
        Ok(Ok(())) | Err(_) => Ok(message::empty_object()),
    }
}
