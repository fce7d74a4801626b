//! Reads an earlier request again from its stored body, optionally with another model.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, header};

use crate::relay::{
    engine::{Engine, Generation},
    request::{
        proxy_request::{Caller, Endpoint, ModelLocation},
        read::{self, ReceivedRequest, RequestHead},
    },
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

/// Reads the stored body as the request that it was.
///
/// # Errors
///
/// A body that cannot be read, or in which the model cannot be replaced.
pub(in crate::relay) fn read_replay(
    engine: &Engine,
    generation: &Generation,
    replay: Replay,
) -> Result<ReceivedRequest, String> {
    let Replay { original_id: of, mut endpoint, query, project, program, body, model } = replay;
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
    read::from_bytes(engine, generation, head, body, Some(of)).map_err(|error| error.message)
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
    fn replay_replaces_the_model() {
        let body =
            replace_model(br#"{"model":"a","n":12345678901234567890}"#, "b".to_owned()).unwrap();
        assert_eq!(body, r#"{"model":"b","n":12345678901234567890}"#);
        assert!(replace_model(b"[]", "b".to_owned()).is_err());
    }
}
