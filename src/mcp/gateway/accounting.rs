//! Limits and records of calls.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use crate::{
    base::json::{raw::RawJson, reader::JsonRef},
    mcp::{
        call::CallEnd,
        call_log::{CallOutcome, CallStart, LoggedCall},
        caller::McpCaller,
        message::{self, RATE_LIMITED, RpcError},
        servers::instance::Instance,
    },
};

pub(super) fn too_many(instance: &Instance, wait: Duration) -> RpcError {
    let row = &instance.row;
    let seconds = wait.as_secs_f64().ceil();
    let message = format!(
        "MCP server `{}` takes {} calls a minute, its `rpm`; try again in {seconds} s",
        row.name, row.rpm
    );
    let data = RawJson::object(|o| {
        o.num("retryAfterMs", u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
    });
    RpcError { data: Some(data), ..RpcError::new(RATE_LIMITED, message) }
}

pub(super) fn call_start(
    caller: &McpCaller,
    instance: &Instance,
    params: Option<&RawJson>,
) -> CallStart {
    let arguments = params.and_then(|params| params.json().get("arguments"));
    let arguments = arguments.map_or("{}", JsonRef::text);
    CallStart {
        project: Arc::clone(&caller.project.name),
        client: Arc::clone(&caller.program),
        addr: caller.addr,
        server: Arc::clone(&instance.row.name),
        tool: message::text_param(params, "name").unwrap_or_default(),
        arguments: Bytes::copy_from_slice(arguments.as_bytes()),
        price: instance.row.price,
    }
}

pub(super) fn log_end(log: Box<dyn LoggedCall>, end: &CallEnd) {
    match end {
        // Dropped: the client has left.
        CallEnd::Left => {}
        CallEnd::Done(Ok(result)) => log.end(CallOutcome::Answered(result.clone())),
        CallEnd::Done(Err(error)) => log.end(CallOutcome::Failed(error.message.clone())),
    }
}
