//! Replays an earlier request with its stored body, optionally with another model.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, header};
use http_body_util::BodyExt;

use crate::relay::{
    engine::Engine,
    handler,
    request::{
        proxy_request::{Caller, Endpoint, ModelLocation},
        read::{self, RequestHead},
    },
    state::permits::InFlightPermit,
};
use crate::{base::id::RequestId, config::settings::Project};

/// A request to replay.
pub struct Replay {
    pub original_id: RequestId,
    pub endpoint: Endpoint,
    pub query: Option<String>,
    pub project: Arc<Project>,
    pub program: Arc<str>,
    pub body: Bytes,
    /// Replaces the original model.
    pub model: Option<String>,
}

/// A replay that is ready; polling `run` sends it and runs it to its end.
pub struct PendingReplay {
    pub id: RequestId,
    pub run: std::pin::Pin<Box<dyn Future<Output = ()> + Send>>,
}

/// Reads the request again. Only the ledger and viewers receive its response.
///
/// # Errors
///
/// Too many requests in flight, or a body that cannot be read.
pub fn prepare_replay(engine: &Arc<Engine>, replay: Replay) -> Result<PendingReplay, String> {
    let Replay { original_id: of, mut endpoint, query, project, program, body, model } = replay;
    let generation = engine.generation();
    let body = match (model, &mut endpoint.model) {
        (None, _) => body,
        (Some(model), ModelLocation::Path(name)) => {
            *name = model;
            body
        }
        (Some(model), _) => replace_model(&body, model)?,
    };
    let id = RequestId::new(engine.clock.unix());
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let caller = Caller { project, program, addr: std::net::Ipv4Addr::LOCALHOST.into() };
    let head =
        RequestHead { id, endpoint, caller, method: Method::POST, query, headers, owner: None };
    let request =
        read::from_replay(engine, &generation, head, body, of).map_err(|error| error.message)?;
    let max_requests = generation.settings.server.max_requests;
    let permit = InFlightPermit::try_acquire(&engine.in_flight, max_requests)
        .ok_or("too many requests are in flight")?;
    let engine = Arc::clone(engine);
    let run = Box::pin(async move {
        let mut answer = handler::start(&engine, generation, request, permit).await.into_body();
        while let Some(Ok(_)) = answer.frame().await {}
    });
    Ok(PendingReplay { id, run })
}

fn replace_model(body: &[u8], model: String) -> Result<Bytes, String> {
    let mut read: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(body).map_err(|e| format!("its body is no JSON object: {e}"))?;
    read.insert("model".to_owned(), model.into());
    serde_json::to_vec(&read)
        .map(Bytes::from)
        .map_err(|e| format!("its body cannot be written: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_model_takes_the_place_of_the_first() {
        let body =
            replace_model(br#"{"model":"a","n":12345678901234567890}"#, "b".to_owned()).unwrap();
        assert_eq!(body, r#"{"model":"b","n":12345678901234567890}"#);
        assert!(replace_model(b"[]", "b".to_owned()).is_err());
    }
}
