//! Reads rerank requests and answers of every form into the common form, and writes them from it.
//!
//! A body that already has the upstream's form can be passed through without this module.

use bytes::Bytes;

use crate::dialect::ops::{
    EncodedOpRequest, add_extra_losses, add_loss, bad_request, parse_object,
};
use crate::{
    base::json::{
        raw::RawJson,
        reader::JsonRef,
        writer::{self, ObjectWriter},
    },
    dialect::{errors::read_error, json_body, usage_read},
    ir::{
        fault::{Fault, ProxyError},
        op::Dialect,
        rerank::{RankedDocument, RerankForm, RerankRequest, RerankResponse},
        usage::Usage,
    },
};

/// Reads a client's request; its path and fields decide the form.
///
/// # Errors
///
/// If the body is not a JSON object, or has no query or documents; the error names the field.
pub fn read_request(path: &str, body: &[u8]) -> Result<RerankRequest, ProxyError> {
    let root = parse_object(body)?;
    let mut request =
        RerankRequest { form: form_by_fields(path, root), ..RerankRequest::default() };
    let (mut query, mut documents) = (None, None);
    for (key, value) in root.members().filter(|(_, value)| value.kind() != "null") {
        match key {
            "model" => {}
            "query" => query = value.str().or_else(|| value.get("text")?.str()),
            "documents" | "texts" => documents = Some(value),
            "top_n" | "top_k" if value.u64().is_some() => request.top_n = value.u64(),
            "return_documents" | "return_text" if value.bool().is_some() => {
                request.return_documents = value.bool();
            }
            "truncate" | "truncation" if value.bool().is_some() => request.truncate = value.bool(),
            _ => request.extras.push(Dialect::Openai, key, RawJson::from_json(value)),
        }
    }
    request.query =
        query.ok_or_else(|| bad_request("missing `query`").param("query"))?.into_owned();
    let list = documents
        .filter(|list| list.is_array())
        .ok_or_else(|| bad_request("missing `documents`").param("documents"))?;
    if let Some(wrong) = list.items().find(|item| !matches!(item.kind(), "string" | "object")) {
        return Err(bad_request(format!(
            "`documents` must hold texts or objects, got {}",
            wrong.kind()
        ))
        .param("documents"));
    }
    request.documents = list.items().map(RawJson::from_json).collect();
    if request.documents.is_empty() {
        return Err(bad_request("`documents` must not be empty").param("documents"));
    }
    Ok(request)
}

fn form_by_fields(path: &str, root: JsonRef<'_>) -> RerankForm {
    let any = |keys: &[&str]| keys.iter().any(|key| root.get(key).is_some());
    if any(&["texts", "return_text", "raw_scores"]) {
        RerankForm::Scores
    } else if any(&["top_k", "truncation"]) {
        RerankForm::Data
    } else if path.contains("/v2/") || any(&["max_tokens_per_doc", "priority"]) {
        RerankForm::MetaTexts
    } else if any(&["rank_fields", "max_chunks_per_doc"]) {
        RerankForm::Meta
    } else {
        RerankForm::Results
    }
}

/// Writes a request in an upstream's form.
#[must_use]
pub fn write_request(form: RerankForm, request: &RerankRequest, model: &str) -> EncodedOpRequest {
    let mut losses = Vec::new();
    let same = form == request.form;
    let objects = matches!(form, RerankForm::Meta | RerankForm::Results);
    let body = writer::object(|o| {
        if form != RerankForm::Scores {
            o.str("model", model);
        }
        o.str("query", &request.query);
        o.array(if form == RerankForm::Scores { "texts" } else { "documents" }, |a| {
            for document in &request.documents {
                if objects {
                    a.raw(document)
                } else {
                    a.str(&document_text(document))
                };
            }
        });
        if let (Some(field), Some(top)) = (top_field(form), request.top_n) {
            o.num(field, top);
        }
        if let (RerankForm::Data | RerankForm::Scores, Some(yes)) = (form, request.truncate) {
            o.bool(if form == RerankForm::Data { "truncation" } else { "truncate" }, yes);
        }
        // A client that requests documents gets them from its own request, so the upstream need not
        // send them.
        if let (RerankForm::Meta | RerankForm::Results | RerankForm::Data, Some(_)) =
            (form, request.return_documents)
        {
            o.bool("return_documents", false);
        }
        if same {
            request.extras.write(Dialect::Openai, o, |_| {});
        }
    });
    add_loss(
        &mut losses,
        request.truncate.is_some() && !matches!(form, RerankForm::Data | RerankForm::Scores),
        "truncate",
    );
    if !same {
        // Forms do not share their extra fields, even though both have the same dialect.
        add_extra_losses(&mut losses, &request.extras, Dialect::Gemini);
    }
    let path = match form {
        RerankForm::Meta => "/v1/rerank",
        RerankForm::MetaTexts => "/v2/rerank",
        RerankForm::Data | RerankForm::Results | RerankForm::Scores => "/rerank",
    };
    EncodedOpRequest { path, body: body.into(), losses }
}

fn top_field(form: RerankForm) -> Option<&'static str> {
    match form {
        RerankForm::Data => Some("top_k"),
        RerankForm::Meta | RerankForm::MetaTexts | RerankForm::Results => Some("top_n"),
        // This form always scores all documents; the answer is cut to the requested number.
        RerankForm::Scores => None,
    }
}

/// Returns the text of a document: the string itself, its `text`, else its JSON.
fn document_text(document: &RawJson) -> String {
    let json = document.json();
    json.str()
        .or_else(|| json.get("text")?.str())
        .map_or_else(|| document.text().to_owned(), std::borrow::Cow::into_owned)
}

/// Reads an answer of any form.
///
/// # Errors
///
/// The fault, if the body contains no scores.
pub fn read_response(content_type: &str, body: &[u8]) -> Result<RerankResponse, Fault> {
    let root = json_body::parse(content_type, body)?;
    if read_error::is_error(root) {
        return Err(read_error::from_json(None, root));
    }
    let keys = ["results", "data", "rankings"];
    let list = if root.is_array() {
        Some(root)
    } else {
        keys.iter().find_map(|key| root.get(key)).or_else(|| root.member_at(&["output", "results"]))
    };
    let list = list
        .filter(|list| list.is_array())
        .ok_or_else(|| read_error::unexpected_shape("no `results`"))?;
    let ranked = |(item, at): (JsonRef<'_>, u64)| {
        let score = ["relevance_score", "score", "logit"]
            .iter()
            .find_map(|key| item.get(key))
            .filter(|score| score.kind() == "number")?;
        Some(RankedDocument {
            index: item.get("index").and_then(JsonRef::u64).unwrap_or(at),
            score: RawJson::from_json(score),
        })
    };
    let results: Option<Vec<_>> = list.items().zip(0..).map(ranked).collect();
    let input = |path: &[&str]| {
        usage_read::count_at(root, path).map(|input| Usage { input, ..Usage::default() })
    };
    Ok(RerankResponse {
        id: root.non_empty_at("id").unwrap_or_default(),
        model: json_body::clean_name(root.get("model")).unwrap_or_default(),
        results: results.ok_or_else(|| read_error::unexpected_shape("a result without score"))?,
        usage: root
            .get("usage")
            .and_then(usage_read::read_openai)
            .or_else(|| input(&["meta", "tokens", "input_tokens"])),
        search_units: usage_read::count_at(root, &["meta", "billed_units", "search_units"]),
    })
}

/// Writes an answer in the form of the client's request.
#[must_use]
pub fn write_response(
    response: &RerankResponse,
    request: &RerankRequest,
    requested_model: &str,
) -> Bytes {
    let limit = request.top_n.and_then(|top| usize::try_from(top).ok()).unwrap_or(usize::MAX);
    let results = || response.results.iter().take(limit);
    let document = |o: &mut ObjectWriter<'_>, result: &RankedDocument| {
        let source = request.documents.get(usize::try_from(result.index).unwrap_or(usize::MAX));
        let Some(source) = source.filter(|_| request.return_documents == Some(true)) else {
            return;
        };
        match (request.form, source.json().is_object()) {
            (RerankForm::Scores, _) => o.str("text", &document_text(source)),
            (RerankForm::Data, _) => o.str("document", &document_text(source)),
            (_, true) => o.raw("document", source),
            (_, false) => o.object("document", |o| {
                o.raw("text", source);
            }),
        };
    };
    let list = |a: &mut writer::ArrayWriter<'_>, score: &str| {
        for result in results() {
            a.object(|o| {
                o.num("index", result.index);
                document(o, result);
                o.raw(score, &result.score);
            });
        }
    };
    let usage = |o: &mut ObjectWriter<'_>| {
        let tokens = response.usage.map_or(0, |usage| usage.input_total());
        o.object("usage", |o| {
            if request.form == RerankForm::Results {
                o.num("prompt_tokens", tokens);
            }
            o.num("total_tokens", tokens);
        });
    };
    let meta = |o: &mut ObjectWriter<'_>, version: &str| {
        o.object("meta", |o| {
            o.object("api_version", |o| {
                o.str("version", version);
            });
            o.object("billed_units", |o| {
                o.num("search_units", response.search_units.unwrap_or(1));
            });
            if let Some(usage) = response.usage {
                o.object("tokens", |o| {
                    o.num("input_tokens", usage.input_total());
                });
            }
        });
    };
    let body = match request.form {
        RerankForm::Scores => writer::array(|a| list(a, "score")),
        RerankForm::Data => writer::object(|o| {
            o.str("object", "list").array("data", |a| list(a, "relevance_score"));
            o.str("model", requested_model);
            usage(o);
        }),
        RerankForm::Meta | RerankForm::MetaTexts => writer::object(|o| {
            o.str("id", &response.id).array("results", |a| list(a, "relevance_score"));
            meta(o, if request.form == RerankForm::Meta { "1" } else { "2" });
        }),
        // Clients of two vendors send this form, so the answer has the fields that either kind
        // expects.
        RerankForm::Results => writer::object(|o| {
            o.str("id", &response.id)
                .str("model", requested_model)
                .array("results", |a| list(a, "relevance_score"));
            usage(o);
            meta(o, "1");
        }),
    };
    body.into()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::dialect::tests::recorded;

    fn read(body: &Value) -> RerankRequest {
        read_request("/rerank", body.to_string().as_bytes()).expect("a request")
    }

    #[test]
    fn every_form_survives_a_round_trip_and_is_written_in_the_others() {
        let body = |form| match form {
            RerankForm::Data => {
                json!({"model": "m", "query": "q", "documents": ["a", "b"], "top_k": 1, "truncation": true})
            }
            RerankForm::Meta => {
                json!({"model": "m", "query": "q", "documents": [{"text": "a"}, "b"], "top_n": 1, "rank_fields": ["text"]})
            }
            RerankForm::MetaTexts => {
                json!({"model": "m", "query": "q", "documents": ["a", "b"], "top_n": 1, "max_tokens_per_doc": 5})
            }
            RerankForm::Results => {
                json!({"model": "m", "query": "q", "documents": [{"text": "a"}, "b"], "top_n": 1})
            }
            RerankForm::Scores => json!({"query": "q", "texts": ["a", "b"], "raw_scores": true}),
        };
        let forms = [
            RerankForm::Data,
            RerankForm::Meta,
            RerankForm::MetaTexts,
            RerankForm::Results,
            RerankForm::Scores,
        ];
        for request_body in forms {
            let request = read(&body(request_body));
            assert_eq!(request.form, request_body);
            let written = write_request(request_body, &request, "m");
            assert_eq!(
                (serde_json::from_slice::<Value>(&written.body).expect("json"), written.losses),
                (body(request_body), vec![]),
                "{request_body:?}"
            );
            for upstream in forms {
                let again = read_request(
                    write_request(upstream, &request, "m").path,
                    &write_request(upstream, &request, "m").body,
                )
                .expect("a request");
                let texts = |request: &RerankRequest| {
                    request.documents.iter().map(document_text).collect::<Vec<_>>()
                };
                assert_eq!(
                    (texts(&again), &again.query),
                    (vec!["a".to_owned(), "b".to_owned()], &request.query)
                );
            }
        }
        let losses = write_request(RerankForm::Results, &read(&body(RerankForm::Meta)), "m").losses;
        assert_eq!(losses.iter().map(|loss| &*loss.0).collect::<Vec<_>>(), ["rank_fields"]);
    }

    #[test]
    fn answers_have_the_form_of_the_request() {
        for body in [
            r#"{"id":"i","results":[{"index":1,"relevance_score":0.90},{"index":0,"relevance_score":0.1}],"meta":{"billed_units":{"search_units":1}}}"#,
            r#"{"object":"list","data":[{"index":1,"document":"b","relevance_score":0.90},{"index":0,"relevance_score":0.1}],"usage":{"total_tokens":7}}"#,
            r#"[{"index":1,"score":0.90},{"index":0,"score":0.1}]"#,
            r#"{"rankings":[{"index":1,"logit":0.90},{"index":0,"logit":-4}]}"#,
        ] {
            let response = read_response("", body.as_bytes()).expect("an answer");
            let written = |request_body: Value| {
                serde_json::from_slice::<Value>(&write_response(
                    &response,
                    &read(&request_body),
                    "asked",
                ))
                .expect("json")
            };
            let results = written(
                json!({"query": "q", "documents": ["a", {"text": "b"}], "top_n": 1, "return_documents": true}),
            );
            assert_eq!(
                results["results"],
                json!([{"index": 1, "document": {"text": "b"}, "relevance_score": 0.9}])
            );
            assert!(
                results["usage"]["total_tokens"].is_u64()
                    && results["meta"].is_object()
                    && results["model"] == "asked"
            );
            let data = written(
                json!({"query": "q", "documents": ["a", "b"], "top_k": 2, "return_documents": true}),
            );
            assert_eq!(
                data["data"][0],
                json!({"index": 1, "document": "b", "relevance_score": 0.9})
            );
            assert_eq!(
                written(json!({"query": "q", "texts": ["a", "b"]}))[0],
                json!({"index": 1, "score": 0.9})
            );
        }
        assert!(read_response("", b"{}").is_err());
        assert!(read_response("", br#"{"results":[{"index":0}]}"#).is_err());
        assert!(read_response("", br#"{"error":"no"}"#).is_err());
    }

    #[test]
    fn invalid_request_is_refused_with_the_field() {
        for (body, param) in [
            (r#"{"documents":["a"]}"#, Some("query")),
            (r#"{"query":"q"}"#, Some("documents")),
            (r#"{"query":"q","documents":[]}"#, Some("documents")),
            (r#"{"query":"q","documents":[1]}"#, Some("documents")),
            ("7", None),
        ] {
            assert_eq!(
                read_request("/rerank", body.as_bytes()).expect_err("refused").param.as_deref(),
                param,
                "{body}"
            );
        }
    }

    #[test]
    fn recorded_exchanges_are_read() {
        for exchange in recorded::load_exchanges(&["rerank"]) {
            let request = read(&exchange.request);
            let response =
                read_response("application/json", exchange.response.as_bytes()).expect("an answer");
            assert_eq!(
                (response.results.len(), response.search_units),
                (3, Some(1)),
                "{}",
                exchange.id
            );
            let again =
                read_response("", &write_response(&response, &request, "m")).expect("an answer");
            assert_eq!(again.results, response.results, "{}", exchange.id);
        }
    }
}
