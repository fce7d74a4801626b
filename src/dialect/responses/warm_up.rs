//! The answer to a request over a WebSocket that generates nothing: its input is only what the next
//! request continues.

use bytes::Bytes;

use crate::{
    base::framing::Framing,
    dialect::{
        ingress::{ChatEndpoint, ResponseSpec, StreamWriter},
        responses::{request_read, stream_write::ResponseWriter},
    },
    ir::{assemble, fault::ProxyError, response::ChatResponse, usage::Usage},
};

/// Returns the events of a response without output, as server-sent events. `created` is in Unix
/// seconds, `model` the name that the client used.
///
/// # Errors
///
/// As for a request that generates.
pub fn empty_response(
    body: &[u8],
    model: &str,
    request_id: &str,
    created: i64,
) -> Result<Bytes, ProxyError> {
    let request = request_read::read_request(body)?;
    let spec = ResponseSpec {
        endpoint: ChatEndpoint::Chat,
        model: model.to_owned(),
        request_id: request_id.to_owned(),
        created,
        framing: Framing::Sse,
        include_usage: true,
        custom_tools: Vec::new(),
        namespaced_tools: Vec::new(),
        client_tools: Vec::new(),
        compaction: false,
        echo: request.echoed_fields,
    };
    let response = ChatResponse { usage: Some(Usage::default()), ..ChatResponse::default() };
    let mut writer = ResponseWriter::new(&spec);
    let mut out = Vec::new();
    for event in assemble::to_events(&response) {
        writer.write_event(event, &mut out);
    }
    Ok(out.into())
}
