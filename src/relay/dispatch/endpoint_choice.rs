//! Chooses the dialect in which an upstream with several is asked, if its model cannot carry the
//! request in the first choice.

use std::{cell::OnceCell, sync::Arc};

use memchr::memmem;

use crate::{
    base::json::reader::{self, JsonRef},
    ir::{
        model_facts::ModelFacts,
        op::{Dialect, Op},
    },
    relay::{context::RequestContext, request::proxy_request::ProxyRequest},
    routing::candidate::Target,
};

/// Replaces targets whose model does not serve the request in the chosen dialect by the same target
/// in another dialect of its upstream: the client's own if possible, else the first.
pub(super) fn choose_endpoints(context: &RequestContext, targets: &mut [Arc<Target>]) {
    if context.request.endpoint.op != Op::Chat {
        return;
    }
    let needs = RequestNeeds::new(&context.request);
    for target in targets.iter_mut().filter(|target| target.upstream.endpoints.len() > 1) {
        let known =
            context.generation.facts.look_up(&target.upstream, target.dialect, &target.model);
        if let Some(dialect) = better_dialect(target, &known.facts, &needs) {
            *target = Arc::new(Target { dialect, ..Target::clone(target) });
        }
    }
}

/// Returns the dialect in which the target should be asked instead of its own.
fn better_dialect(
    target: &Target,
    facts: &ModelFacts,
    needs: &RequestNeeds<'_>,
) -> Option<Dialect> {
    let client = needs.request.endpoint.dialect;
    let serves = |dialect: Dialect| {
        let listed = |list: &Option<Vec<Dialect>>| {
            list.as_ref().is_none_or(|dialects| dialects.contains(&dialect))
        };
        listed(&facts.endpoints)
            && (listed(&facts.tool_endpoints) || !needs.tools())
            && (listed(&facts.thinking_tool_endpoints)
                || !needs.tools()
                || dialect == client && !needs.sets_thinking())
    };
    if serves(target.dialect) {
        return None;
    }
    let others = target.upstream.endpoints.iter().map(|end| end.dialect);
    let others: Vec<Dialect> = others.filter(|dialect| serves(*dialect)).collect();
    others.iter().find(|dialect| **dialect == client).or_else(|| others.first()).copied()
}

/// What a request contains, read from its body only if a model's facts depend on it.
struct RequestNeeds<'r> {
    request: &'r ProxyRequest,
    tools: OnceCell<bool>,
    sets_thinking: OnceCell<bool>,
}

impl<'r> RequestNeeds<'r> {
    fn new(request: &'r ProxyRequest) -> Self {
        Self { request, tools: OnceCell::new(), sets_thinking: OnceCell::new() }
    }

    fn tools(&self) -> bool {
        *self.tools.get_or_init(|| {
            let body = &self.request.body;
            // A member's name in text has escaped quotes, so most bodies need not be parsed.
            memmem::find(body, b"\"tools\"").is_some() && reader::parse(body).is_ok_and(has_tools)
        })
    }

    fn sets_thinking(&self) -> bool {
        *self.sets_thinking.get_or_init(|| {
            reader::parse(&self.request.body).is_ok_and(|body| {
                let effort = body
                    .get("reasoning_effort")
                    .or_else(|| body.get("reasoning").and_then(|it| it.get("effort")));
                effort.is_some_and(|effort| !matches!(effort.text(), "null" | "\"none\""))
            })
        })
    }
}

fn has_tools(body: JsonRef<'_>) -> bool {
    let listed = |object: JsonRef<'_>| {
        object.get("tools").is_some_and(|tools| tools.items().next().is_some())
    };
    // Clients of the Responses dialect also list tools inside the conversation.
    listed(body) || body.get("input").is_some_and(|input| input.items().any(listed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tools_are_detected_in_every_request_format() {
        for (body, want) in [
            (r#"{"tools":[{}]}"#, true),
            (r#"{"tools":[]}"#, false),
            (r#"{"tools":null,"messages":[{"content":"\"tools\""}]}"#, false),
            (r#"{"input":[{"type":"additional_tools","tools":[{}]}]}"#, true),
            (r#"{"input":"tools"}"#, false),
        ] {
            assert_eq!(reader::parse(body.as_bytes()).is_ok_and(has_tools), want, "{body}");
        }
    }
}
