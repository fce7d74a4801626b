//! Reads embedding answers of every form into the common form, and writes them from it.

use bytes::Bytes;

use crate::{
    base::json::{
        raw::RawJson,
        reader::JsonRef,
        writer::{self, ObjectWriter},
    },
    dialect::{errors::read_error, json_body, usage_read},
    ir::{
        embed::{EmbedForm, EmbedInput, EmbedRequest, EmbedResponse, Vector},
        fault::Fault,
        usage::Usage,
    },
};

/// Reads an answer of any form.
///
/// # Errors
///
/// The fault, if the body contains no vectors.
pub fn read_response(content_type: &str, body: &[u8]) -> Result<EmbedResponse, Fault> {
    let root = json_body::parse_response(content_type, body)?;
    let vector = |value: JsonRef<'_>| match value.kind() {
        "array" => Some(Vector::Numbers(RawJson::from_json(value))),
        "string" => value.str().map(|text| Vector::Base64(text.into_owned())),
        _ => None,
    };
    let wrapped = |value: JsonRef<'_>| {
        vector(value.get("values").or_else(|| value.get("embedding")).unwrap_or(value))
    };
    let listed = root.get("data").or_else(|| root.get("embeddings"));
    let vectors: Option<Vec<Vector>> = match (listed, root.get("embedding")) {
        (Some(list), _) if list.is_array() => {
            sorted_by_index(list).into_iter().map(wrapped).collect()
        }
        // Grouped by type: the request names one type, so the first one present is used.
        (Some(types), _) => types
            .members()
            .find(|(_, list)| list.is_array() && !list.is_blank())
            .and_then(|(_, list)| list.items().map(vector).collect()),
        (None, Some(one)) => wrapped(one).map(|vector| vec![vector]),
        (None, None) => None,
    };
    Ok(EmbedResponse {
        id: root.non_empty_at("id").unwrap_or_default(),
        model: json_body::clean_name(root.get("model")).unwrap_or_default(),
        vectors: vectors.ok_or_else(|| read_error::unexpected_shape("no embeddings"))?,
        usage: read_usage(root),
    })
}

/// Sorts the items by their indexes, if they have any.
fn sorted_by_index(list: JsonRef<'_>) -> Vec<JsonRef<'_>> {
    let mut all: Vec<(u64, JsonRef<'_>)> = list
        .items()
        .zip(0..)
        .map(|(item, at)| (item.get("index").and_then(JsonRef::u64).unwrap_or(at), item))
        .collect();
    all.sort_by_key(|(at, _)| *at);
    all.into_iter().map(|(_, item)| item).collect()
}

fn read_usage(root: JsonRef<'_>) -> Option<Usage> {
    let input = |path: &[&str]| {
        usage_read::count_at(root, path).map(|input| Usage { input, ..Usage::default() })
    };
    root.get("usage")
        .and_then(usage_read::read_openai)
        .or_else(|| input(&["usageMetadata", "promptTokenCount"]))
        .or_else(|| input(&["prompt_eval_count"]))
        .or_else(|| input(&["meta", "billed_units", "input_tokens"]))
        .or_else(|| input(&["meta", "tokens", "input_tokens"]))
}

/// Writes an answer in the form of the client's request.
#[must_use]
pub fn write_response(
    response: &EmbedResponse,
    request: &EmbedRequest,
    requested_model: &str,
) -> Bytes {
    let tokens = input_tokens(response);
    let first = || vectors(response, false).next().unwrap_or_else(|| RawJson::object(|_| {}));
    let values = |vector: &RawJson| {
        RawJson::object(|o| {
            o.raw("values", vector);
        })
    };
    let metadata = |o: &mut ObjectWriter<'_>| {
        if let Some(tokens) = tokens {
            o.object("usageMetadata", |o| {
                o.num("promptTokenCount", tokens).num("totalTokenCount", tokens);
            });
        }
    };
    let body = writer::object(|o| match request.form {
        EmbedForm::Openai | EmbedForm::Task | EmbedForm::InputType => {
            write_openai(o, response, request, requested_model);
        }
        EmbedForm::Texts => write_texts(o, response, request),
        EmbedForm::Gemini => {
            o.raw("embedding", &values(&first()));
            metadata(o);
        }
        EmbedForm::GeminiBatch => {
            o.array("embeddings", |a| {
                for vector in vectors(response, false) {
                    a.raw(&values(&vector));
                }
            });
            metadata(o);
        }
        EmbedForm::Ollama => {
            o.str("model", requested_model).array("embeddings", |a| {
                for vector in vectors(response, false) {
                    a.raw(&vector);
                }
            });
            // aiproxy does not measure the duration; chat answers use the same value.
            o.num("total_duration", 1)
                .num("load_duration", 1)
                .num("prompt_eval_count", tokens.unwrap_or(0));
        }
        EmbedForm::OllamaPrompt => {
            o.raw("embedding", &first());
        }
    });
    body.into()
}

fn write_openai(
    o: &mut ObjectWriter<'_>,
    response: &EmbedResponse,
    request: &EmbedRequest,
    requested_model: &str,
) {
    o.str("object", "list").array("data", |a| {
        for (vector, at) in vectors(response, request.wants_base64()).zip(0_u64..) {
            a.object(|o| {
                o.str("object", "embedding").num("index", at).raw("embedding", &vector);
            });
        }
    });
    // The schema requires counts, even if the upstream reported none.
    let tokens = input_tokens(response).unwrap_or(0);
    o.str("model", requested_model).object("usage", |o| {
        o.num("prompt_tokens", tokens).num("total_tokens", tokens);
    });
}

fn write_texts(o: &mut ObjectWriter<'_>, response: &EmbedResponse, request: &EmbedRequest) {
    o.str("id", &response.id).str("response_type", "embeddings_by_type");
    o.object("embeddings", |o| {
        o.array(request.encoding.as_deref().unwrap_or("float"), |a| {
            for vector in vectors(response, request.wants_base64()) {
                a.raw(&vector);
            }
        });
    });
    o.array("texts", |a| {
        for input in &request.inputs {
            if let EmbedInput::Text(text) = input {
                a.str(text);
            }
        }
    });
    o.object("meta", |o| {
        o.object("api_version", |o| {
            o.str("version", "2");
        });
        if let Some(tokens) = input_tokens(response) {
            o.object("billed_units", |o| {
                o.num("input_tokens", tokens);
            });
        }
    });
}

fn input_tokens(response: &EmbedResponse) -> Option<u64> {
    response.usage.map(|usage| usage.input_total())
}

fn vectors(response: &EmbedResponse, packed: bool) -> impl Iterator<Item = RawJson> {
    response.vectors.iter().map(move |vector| vector.to_json(packed))
}
