//! The endpoints that are relayed to upstreams. One table maps a path to its dialect and operation,
//! and maps a stored request back to its endpoint.

use crate::{
    dialect::Framing,
    ir::op::{Dialect, Op},
    relay::request::proxy_request::{Endpoint, ModelLocation, StreamMode},
};

/// An endpoint at a fixed path.
struct FixedEndpoint {
    /// Without a version prefix.
    path: &'static str,
    dialect: Dialect,
    op: Op,
    stream: StreamMode,
    /// Whether a stored request can be sent again.
    replayable: bool,
}

const UNLESS_ASKED: StreamMode = StreamMode::Body { default: false };
const UNLESS_REFUSED: StreamMode = StreamMode::Body { default: true };

const fn endpoint(
    path: &'static str,
    dialect: Dialect,
    op: Op,
    stream: StreamMode,
    replayable: bool,
) -> FixedEndpoint {
    FixedEndpoint { path, dialect, op, stream, replayable }
}

/// Every fixed path, with and without `/v1` in front. Multipart uploads are not stored in a form
/// that can be sent again.
const ENDPOINTS: &[FixedEndpoint] = &[
    endpoint("/chat/completions", Dialect::Openai, Op::Chat, UNLESS_ASKED, true),
    endpoint("/completions", Dialect::Openai, Op::Completions, UNLESS_ASKED, true),
    endpoint("/embeddings", Dialect::Openai, Op::Embed, StreamMode::Never, true),
    endpoint("/moderations", Dialect::Openai, Op::Moderate, StreamMode::Never, true),
    endpoint("/rerank", Dialect::Openai, Op::Rerank, StreamMode::Never, true),
    endpoint("/images/generations", Dialect::Openai, Op::Image, UNLESS_ASKED, false),
    endpoint("/images/edits", Dialect::Openai, Op::Image, UNLESS_ASKED, false),
    endpoint("/images/variations", Dialect::Openai, Op::Image, UNLESS_ASKED, false),
    endpoint("/audio/speech", Dialect::Openai, Op::Audio, UNLESS_ASKED, false),
    endpoint("/audio/transcriptions", Dialect::Openai, Op::Audio, UNLESS_ASKED, false),
    endpoint("/audio/translations", Dialect::Openai, Op::Audio, UNLESS_ASKED, false),
    endpoint("/responses", Dialect::Responses, Op::Chat, UNLESS_ASKED, true),
    endpoint("/responses/compact", Dialect::Responses, Op::Stored, StreamMode::Never, false),
    endpoint("/responses/input_tokens", Dialect::Responses, Op::Stored, StreamMode::Never, false),
    endpoint("/messages", Dialect::Anthropic, Op::Chat, UNLESS_ASKED, true),
    endpoint(
        "/messages/count_tokens",
        Dialect::Anthropic,
        Op::CountTokens,
        StreamMode::Never,
        false,
    ),
    endpoint(OLLAMA_CHAT, Dialect::Ollama, Op::Chat, UNLESS_REFUSED, true),
    endpoint(OLLAMA_GENERATE, Dialect::Ollama, Op::Chat, UNLESS_REFUSED, true),
    endpoint("/api/embed", Dialect::Ollama, Op::Embed, StreamMode::Never, false),
    endpoint("/api/embeddings", Dialect::Ollama, Op::Embed, StreamMode::Never, false),
    endpoint("/api/show", Dialect::Ollama, Op::ModelCard, StreamMode::Never, false),
];

const OLLAMA_CHAT: &str = "/api/chat";
const OLLAMA_GENERATE: &str = "/api/generate";

const GEMINI_GENERATE: &str = "generateContent";
const GEMINI_STREAM: &str = "streamGenerateContent";

/// Gemini's actions, which follow the model's name in the path.
const GEMINI_ACTIONS: &[(&str, Op)] = &[
    (GEMINI_GENERATE, Op::Chat),
    (GEMINI_STREAM, Op::Chat),
    ("countTokens", Op::CountTokens),
    ("embedContent", Op::Embed),
    ("batchEmbedContents", Op::Embed),
];

impl FixedEndpoint {
    fn to_endpoint(&self) -> Endpoint {
        Endpoint {
            dialect: self.dialect,
            op: self.op,
            path: self.path.into(),
            model: ModelLocation::Body,
            stream: self.stream,
        }
    }
}

/// Returns the endpoint at a path without version prefix.
pub(super) fn at_path(path: &str) -> Option<Endpoint> {
    ENDPOINTS.iter().find(|endpoint| endpoint.path == path).map(FixedEndpoint::to_endpoint)
}

/// Paths of what upstreams keep and models do not determine, by the API that has them. They pass
/// unchanged to an upstream of that API.
const UPSTREAM_PATHS: &[(Dialect, &[&str])] = &[
    (
        Dialect::Openai,
        &[
            "/assistants",
            "/batches",
            "/containers",
            "/conversations",
            "/evals",
            "/files",
            "/fine_tuning",
            "/realtime/client_secrets",
            "/realtime/sessions",
            "/realtime/transcription_sessions",
            "/skills",
            "/threads",
            "/uploads",
            "/vector_stores",
            "/videos",
        ],
    ),
    (Dialect::Anthropic, &["/messages/batches"]),
    (
        Dialect::Gemini,
        &[
            "/batches",
            "/cachedContents",
            "/fileSearchStores",
            "/files",
            "/operations",
            "/tunedModels",
        ],
    ),
];

/// Returns the endpoint of a path that belongs to an upstream; `beta` marks Gemini's versions.
pub(super) fn of_upstream(path: &str, beta: bool) -> Option<Endpoint> {
    let is_below = |known: &str| {
        path.strip_prefix(known).is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', ':']))
    };
    let (dialect, _) = UPSTREAM_PATHS
        .iter()
        .filter(|(dialect, _)| (*dialect == Dialect::Gemini) == beta)
        .find(|(_, paths)| paths.iter().any(|known| is_below(known)))?;
    Some(Endpoint {
        dialect: *dialect,
        op: Op::Raw,
        path: path.to_owned().into(),
        model: ModelLocation::AnyUpstream,
        stream: StreamMode::Never,
    })
}

/// Returns the endpoint of a Gemini action; `framing` is the form of its stream, if it streams.
pub(super) fn gemini_action(model: String, action: &str, framing: Framing) -> Option<Endpoint> {
    let (action, op) = GEMINI_ACTIONS.iter().find(|(name, _)| *name == action)?;
    Some(Endpoint {
        dialect: Dialect::Gemini,
        op: *op,
        path: format!("/models/{{model}}:{action}").into(),
        model: ModelLocation::Path(model),
        stream: if *action == GEMINI_STREAM {
            StreamMode::Always(framing)
        } else {
            StreamMode::Never
        },
    })
}

/// Splits off a Gemini action; model names may contain colons themselves.
pub(super) fn split_action(rest: &str) -> Option<(&str, &str)> {
    let (model, action) = rest.rsplit_once(':')?;
    GEMINI_ACTIONS.iter().any(|(name, _)| *name == action).then_some((model, action))
}

/// A request in the ledger, as far as it determines the endpoint.
#[derive(Clone, Copy, Debug)]
pub struct StoredRequest<'a> {
    pub dialect: Dialect,
    pub op: Op,
    pub model: &'a str,
    pub stream: bool,
    pub body: &'a str,
}

/// Returns the endpoint that a stored request came in on, and its query, to send it again; `None`
/// if requests of this kind cannot be sent again.
#[must_use]
pub fn for_replay(stored: StoredRequest<'_>) -> Option<(Endpoint, Option<&'static str>)> {
    if stored.dialect == Dialect::Gemini {
        if stored.op != Op::Chat {
            return None;
        }
        let (action, query) =
            if stored.stream { (GEMINI_STREAM, Some("alt=sse")) } else { (GEMINI_GENERATE, None) };
        return Some((gemini_action(stored.model.to_owned(), action, Framing::Sse)?, query));
    }
    let unused = if stored.body.contains("\"messages\"") { OLLAMA_GENERATE } else { OLLAMA_CHAT };
    let endpoint = ENDPOINTS.iter().find(|endpoint| {
        endpoint.replayable
            && (endpoint.dialect, endpoint.op) == (stored.dialect, stored.op)
            && endpoint.path != unused
    })?;
    Some((endpoint.to_endpoint(), None))
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;
    use crate::server::paths::{self, Route};

    #[test]
    fn stored_request_is_replayed_at_its_endpoint() {
        let paths = [
            "/v1/chat/completions",
            "/v1/completions",
            "/v1/embeddings",
            "/v1/rerank",
            "/v1/moderations",
            "/v1/responses",
            "/v1/messages",
            "/api/chat",
            "/api/generate",
            "/v1beta/models/a%2Fb:generateContent",
            "/v1beta/models/a%2Fb:streamGenerateContent",
        ];
        for path in paths {
            let query = path.contains(":stream").then_some("alt=sse");
            let routed = paths::route(&Method::POST, path, query).expect("a route");
            let Route::Relay(endpoint) = routed.route else { panic!("{path}") };
            let stored = StoredRequest {
                dialect: endpoint.dialect,
                op: endpoint.op,
                model: "a/b",
                stream: matches!(endpoint.stream, StreamMode::Always(_)),
                body: if path == "/api/generate" { "{}" } else { r#"{"messages":[]}"# },
            };

            let replayed = for_replay(stored).map(|(again, query)| (format!("{again:?}"), query));

            assert_eq!(replayed, Some((format!("{endpoint:?}"), query)), "{path}");
        }
        let audio = StoredRequest {
            dialect: Dialect::Openai,
            op: Op::Audio,
            model: "m",
            stream: false,
            body: "",
        };
        assert!(for_replay(audio).is_none(), "an upload is not sent again");
    }

    #[test]
    fn errors_have_the_dialect_of_the_endpoint() {
        for endpoint in ENDPOINTS {
            let routed = paths::route(&Method::POST, endpoint.path, None).expect("a route");
            assert_eq!(routed.dialect, endpoint.dialect, "{}", endpoint.path);
        }
    }
}
