//! Responses that were made before: told from what we keep, or asked for where they live.

use http::{HeaderMap, Method, Response, StatusCode};
use hyper::body::Incoming;

use super::{gate::Gate, paths::Stored};
use crate::{
    base::{clean, id::RequestId},
    dialect::stored,
    ir::{
        fault::{ProxyError, ProxyErrorKind},
        op::{Dialect, Op},
        request::ChatRequest,
    },
    relay::{
        ask::{Caller, Endpoint, ModelPlace, StreamPlace},
        intake::Head,
        reply::{self, ReplyBody},
        serve,
        stored::Home,
    },
};

/// Answers for one response id.
pub(super) async fn answer(
    gate: &Gate,
    id: RequestId,
    caller: Caller,
    (response, what): (String, Stored),
    (method, query, headers): (Method, Option<String>, HeaderMap),
    body: Incoming,
) -> Response<ReplyBody> {
    let refuse = |error: &ProxyError| reply::error(Dialect::Responses, id, error);
    let project = caller.project.name.clone();
    let (upstream, key) = match gate.engine.stored.find(&project, &response) {
        None => return refuse(&unknown(&response)),
        Some(Home::Here { conversation, asked, body }) => {
            let text = match what {
                Stored::Get => body,
                Stored::InputItems => {
                    let asked = ChatRequest {
                        messages: conversation.messages.iter().take(asked).cloned().collect(),
                        ..ChatRequest::default()
                    };
                    stored::write_input_items(
                        &asked,
                        &response,
                        &stored::InputItemsQuery::parse(query.as_deref().unwrap_or_default()),
                    )
                }
                Stored::Delete => {
                    gate.engine.stored.forget(&project, &response);
                    stored::write_deleted(&response)
                }
                Stored::Cancel => {
                    let message =
                        "this response is complete; only background responses can be cancelled";
                    return refuse(&ProxyError::new(ProxyErrorKind::BadRequest, message));
                }
            };
            return reply::whole(StatusCode::OK, "application/json", id, text);
        }
        Some(Home::There { upstream, key }) => (upstream, key),
    };
    let generation = gate.engine.generation();
    let Some(name) = generation
        .settings
        .upstreams
        .iter()
        .find(|each| each.id == upstream)
        .map(|each| each.name.to_string())
    else {
        return refuse(&unknown(&response));
    };
    let path = match what {
        Stored::Get | Stored::Delete => format!("/responses/{response}"),
        Stored::Cancel => format!("/responses/{response}/cancel"),
        Stored::InputItems => format!("/responses/{response}/input_items"),
    };
    if what == Stored::Delete {
        gate.engine.stored.forget(&project, &response);
    }
    let endpoint = Endpoint {
        dialect: Dialect::Responses,
        op: Op::Stored,
        path,
        model: ModelPlace::Upstream(name),
        stream: StreamPlace::No,
    };
    let head = Head { id, endpoint, caller, method, query, headers, home: Some((upstream, key)) };
    serve::serve(&gate.engine, head, body).await
}

fn unknown(response: &str) -> ProxyError {
    let text = clean::clean(response);
    let message = format!(
        "Response with id '{}' not found. aiproxy keeps its own responses in memory for a day, for the project that asked for them",
        clean::truncate_end(&text, 80)
    );
    ProxyError::new(ProxyErrorKind::UnknownPath, message).code("not_found")
}
