//! Converts a finished request to spans in OTLP JSON: one for the request, and one child for each
//! attempt.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::metrics::operation_name;
use crate::{
    base::clock::UnixMillis,
    events::{
        ledger_queue::LedgerEntry,
        record::{AttemptRecord, RequestRecord, RequestState},
    },
    ir::usage::Usage,
};

/// The caller's span, from `traceparent` (W3C Trace Context).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceParent {
    trace_id: String,
    span_id: String,
}

impl TraceParent {
    /// Parses `00-TRACE-SPAN-FLAGS`; `None` for anything else.
    #[must_use]
    pub fn parse(header: &str) -> Option<Self> {
        let mut parts = header.trim().split('-');
        let (version, trace, span, flags) =
            (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let hex = |text: &str, digits: usize| {
            text.len() == digits
                && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
                && text.bytes().any(|b| b != b'0')
        };
        let is_valid = version.len() == 2
            && version != "ff"
            && flags.len() == 2
            && hex(trace, 32)
            && hex(span, 16);
        is_valid.then(|| Self { trace_id: trace.to_owned(), span_id: span.to_owned() })
    }
}

/// One attribute.
fn attribute(key: &str, value: &Value) -> Value {
    json!({ "key": key, "value": value })
}

fn text_attribute(key: &str, value: &str) -> Value {
    attribute(key, &json!({ "stringValue": value }))
}

/// Integers are written as strings, because JSON numbers cannot represent all of them exactly.
fn number_attribute(key: &str, value: u64) -> Value {
    attribute(key, &json!({ "intValue": value.to_string() }))
}

/// Builds the body of a request to a collector.
#[must_use]
pub fn export_body(spans: &[Value], host: &str) -> Value {
    let version = env!("CARGO_PKG_VERSION");
    json!({
        "resourceSpans": [{
            "resource": { "attributes": [text_attribute("service.name", "aiproxy"), text_attribute("service.version", version), text_attribute("host.name", host)] },
            "scopeSpans": [{ "scope": { "name": "aiproxy", "version": version }, "spans": spans }],
        }],
    })
}

/// Appends the spans of a request.
pub fn push_spans(entry: &LedgerEntry, parent: Option<&TraceParent>, out: &mut Vec<Value>) {
    let r = &entry.record;
    let id = r.id.to_string();
    let trace = parent.map_or_else(
        || format!("{id}{}", derive_id(&id, "trace", 6)),
        |parent| parent.trace_id.clone(),
    );
    let span_id = derive_id(&id, "request", 8);
    out.push(request_span(entry, parent, &trace, &span_id));
    for attempt in &r.attempts {
        out.push(attempt_span(r, attempt, &trace, &span_id));
    }
}

/// Derives a hex id from the request; the same request always gives the same id.
fn derive_id(id: &str, what: &str, bytes: usize) -> String {
    let digest = Sha256::new().chain_update(id).chain_update(what).finalize();
    digest.iter().take(bytes).map(|byte| format!("{byte:02x}")).collect()
}

fn unix_nanos(at: UnixMillis, ms: u32) -> String {
    at.0.saturating_add(i64::from(ms)).max(0).saturating_mul(1_000_000).to_string()
}

fn request_span(
    entry: &LedgerEntry,
    parent: Option<&TraceParent>,
    trace: &str,
    span_id: &str,
) -> Value {
    let r = &entry.record;
    let mut attributes = vec![
        text_attribute("gen_ai.operation.name", operation_name(r.op)),
        text_attribute("gen_ai.request.model", &r.requested_model),
        text_attribute("aiproxy.request.id", &r.id.to_string()),
        text_attribute("aiproxy.project", &r.project),
        text_attribute("aiproxy.client", &r.client),
        text_attribute("aiproxy.dialect", r.dialect.name()),
        number_attribute("aiproxy.attempts", r.attempts.len() as u64),
    ];
    if let Some(last) = r.serving_attempt() {
        attributes.push(text_attribute("gen_ai.provider.name", &last.upstream));
    }
    if let Some(model) = entry.bills.last().and_then(|part| part.reported_model.as_deref()) {
        attributes.push(text_attribute("gen_ai.response.model", model));
    }
    if let Some(session) = &r.session {
        attributes.push(text_attribute("gen_ai.conversation.id", session));
    }
    if let Some(finish) = &r.finish {
        attributes.push(attribute(
            "gen_ai.response.finish_reasons",
            &json!({ "arrayValue": { "values": [{ "stringValue": &**finish }] } }),
        ));
    }
    attributes.extend(r.usage.iter().flat_map(usage_attributes));
    if let Some(ms) = r.ttft_ms {
        attributes.push(number_attribute("aiproxy.time_to_first_token_ms", ms.into()));
    }
    if let Some(usd) = r.cost.and_then(|cost| cost.usd) {
        attributes.push(attribute("aiproxy.cost_usd", &json!({ "doubleValue": usd.dollars() })));
    }
    if let Some(status) = r.status {
        attributes.push(number_attribute("http.response.status_code", status.into()));
    }
    let status = match r.state {
        RequestState::Done => json!({ "code": 1 }),
        // Neither an error nor a finished request.
        RequestState::ClientGone => {
            attributes.push(text_attribute("error.type", "client_gone"));
            json!({})
        }
        RequestState::Failed
        | RequestState::Queued
        | RequestState::Streaming
        | RequestState::Waiting => {
            attributes.push(text_attribute(
                "error.type",
                &r.status.map_or_else(|| "_OTHER".to_owned(), |status| status.to_string()),
            ));
            json!({ "code": 2, "message": r.error.as_deref().unwrap_or_default() })
        }
    };
    let mut span = json!({
        "traceId": trace,
        "spanId": span_id,
        "name": format!("{} {}", operation_name(r.op), r.requested_model),
        "kind": 2,
        "startTimeUnixNano": unix_nanos(r.at, 0),
        "endTimeUnixNano": unix_nanos(r.at, r.duration_ms.unwrap_or_default()),
        "attributes": attributes,
        "status": status,
    });
    if let (Some(parent), Some(fields)) = (parent, span.as_object_mut()) {
        fields.insert("parentSpanId".to_owned(), parent.span_id.as_str().into());
    }
    span
}

fn usage_attributes(usage: &Usage) -> [Value; 4] {
    [
        number_attribute("gen_ai.usage.input_tokens", usage.input_total()),
        number_attribute("gen_ai.usage.output_tokens", usage.output_total()),
        number_attribute("gen_ai.usage.cache_read.input_tokens", usage.cache_read),
        number_attribute(
            "gen_ai.usage.cache_creation.input_tokens",
            usage.cache_write_5m.saturating_add(usage.cache_write_1h),
        ),
    ]
}

fn attempt_span(r: &RequestRecord, a: &AttemptRecord, trace: &str, parent: &str) -> Value {
    let mut attributes = vec![
        text_attribute("gen_ai.operation.name", operation_name(r.op)),
        text_attribute("gen_ai.provider.name", &a.upstream),
        text_attribute("gen_ai.request.model", &a.model),
        text_attribute("aiproxy.key", &a.key),
        number_attribute("aiproxy.attempt", a.number.into()),
    ];
    if let Some(status) = a.status {
        attributes.push(number_attribute("http.response.status_code", status.into()));
    }
    let status = match &a.outcome {
        Some(outcome) => {
            attributes.push(text_attribute(
                "error.type",
                &a.status.map_or_else(|| "_OTHER".to_owned(), |status| status.to_string()),
            ));
            json!({ "code": 2, "message": outcome.to_string() })
        }
        None if a.won => json!({ "code": 1 }),
        None => json!({}),
    };
    let ended = a.ended_ms.or(r.duration_ms).unwrap_or(a.started_ms).max(a.started_ms);
    json!({
        "traceId": trace,
        "spanId": derive_id(&r.id.to_string(), &a.number.to_string(), 8),
        "parentSpanId": parent,
        "name": format!("{} {}", operation_name(r.op), a.model),
        "kind": 3,
        "startTimeUnixNano": unix_nanos(r.at, a.started_ms),
        "endTimeUnixNano": unix_nanos(r.at, ended),
        "attributes": attributes,
        "status": status,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metrics::tests::entry;

    #[test]
    fn request_is_a_span_with_one_child_per_attempt() {
        let mut spans_of = Vec::new();
        push_spans(&entry("m"), None, &mut spans_of);

        let [request, first, second] = spans_of.as_slice() else { panic!("{spans_of:?}") };
        assert_eq!((request["kind"].as_u64(), first["kind"].as_u64()), (Some(2), Some(3)));
        assert_eq!(request["traceId"].as_str().map(str::len), Some(32));
        assert_eq!(
            (&first["traceId"], &first["parentSpanId"]),
            (&request["traceId"], &request["spanId"])
        );
        assert_ne!(first["spanId"], second["spanId"]);
        assert_eq!(
            (first["status"]["code"].as_u64(), second["status"]["code"].as_u64()),
            (Some(2), Some(1))
        );
        assert_eq!(
            (&request["startTimeUnixNano"], &request["endTimeUnixNano"]),
            (&json!("1700000000000000000"), &json!("1700000001150000000"))
        );
        let has = |span: &Value, key: &str| {
            let found = span["attributes"]
                .as_array()
                .and_then(|all| all.iter().find(|each| each["key"] == key));
            found.map(|found| found["value"].clone()).unwrap_or_default()
        };
        assert_eq!(has(request, "gen_ai.usage.input_tokens"), json!({ "intValue": "128" }));
        assert_eq!(has(request, "gen_ai.provider.name"), json!({ "stringValue": "one" }));
        assert_eq!(has(first, "error.type"), json!({ "stringValue": "429" }));
        assert_eq!(
            has(request, "gen_ai.response.finish_reasons")["arrayValue"]["values"][0]["stringValue"],
            "stop"
        );
    }

    #[test]
    fn client_trace_context_is_the_parent_span() {
        let parent =
            TraceParent::parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01").unwrap();
        let mut out = Vec::new();
        push_spans(&entry("m"), Some(&parent), &mut out);
        assert_eq!(
            (&out[0]["traceId"], &out[0]["parentSpanId"]),
            (&json!("4bf92f3577b34da6a3ce929d0e0e4736"), &json!("00f067aa0ba902b7"))
        );
        assert_eq!(out[1]["parentSpanId"], out[0]["spanId"]);

        for bad in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473é-00f067aa0ba902b7-01",
        ] {
            assert_eq!(TraceParent::parse(bad), None, "{bad}");
        }
    }
}
