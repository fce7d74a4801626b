use serde_json::{Value, json};

use crate::{
    dialect::ops::{embed::*, embed_response::*},
    ir::{
        embed::{EmbedResponse, Vector},
        usage::Usage,
    },
};
use crate::{dialect::tests::recorded, ir::embed::EmbedTask};

fn read(dialect: Dialect, path: &str, body: &Value) -> EmbedRequest {
    read_request(dialect, path, body.to_string().as_bytes()).expect("a request")
}

fn parsed(body: &[u8]) -> Value {
    serde_json::from_slice(body).expect("json")
}

/// Returns the path, the body without nulls, and the losses.
fn written(form: EmbedForm, request: &EmbedRequest) -> (&'static str, Value, Vec<String>) {
    let written = write_request(form, request, "m").expect("can be written");
    (
        written.path,
        parsed(&written.body),
        written.losses.into_iter().map(|loss| loss.0.into_owned()).collect(),
    )
}

#[test]
fn every_form_round_trips() {
    for (dialect, path, body) in [
        (
            Dialect::Openai,
            "/embeddings",
            json!({"model": "m", "input": "a", "encoding_format": "base64", "dimensions": 2, "user": "u", "x": 1}),
        ),
        (Dialect::Openai, "/embeddings", json!({"model": "m", "input": ["a", "b"]})),
        (Dialect::Openai, "/embeddings", json!({"model": "m", "input": [1, 2]})),
        (Dialect::Openai, "/embeddings", json!({"model": "m", "input": [[1, 2], [3]]})),
        (
            Dialect::Openai,
            "/embeddings",
            json!({"model": "m", "input": [{"image": "x"}, "b"], "task": "retrieval.query", "embedding_type": "ubinary", "late_chunking": true}),
        ),
        (
            Dialect::Openai,
            "/embeddings",
            json!({"model": "m", "input": ["a"], "input_type": "query", "output_dimension": 2, "truncation": false, "output_dtype": "int8"}),
        ),
        (
            Dialect::Openai,
            "/embed",
            json!({"model": "m", "texts": ["a"], "input_type": "search_query", "embedding_types": ["int8"], "truncate": "NONE"}),
        ),
        (
            Dialect::Gemini,
            "/models/m:embedContent",
            json!({"model": "models/m", "content": {"parts": [{"text": "a"}]}, "taskType": "RETRIEVAL_DOCUMENT", "title": "t", "outputDimensionality": 3}),
        ),
        (
            Dialect::Gemini,
            "/models/m:batchEmbedContents",
            json!({"requests": [{"model": "models/m", "content": {"parts": [{"text": "a"}]}}, {"model": "models/m", "content": {"parts": [{"text": "b"}]}}]}),
        ),
        (
            Dialect::Ollama,
            "/api/embed",
            json!({"model": "m", "input": ["a"], "dimensions": 2, "truncate": true, "keep_alive": "5m", "options": {"temperature": 0}}),
        ),
        (Dialect::Ollama, "/api/embeddings", json!({"model": "m", "prompt": "a"})),
    ] {
        let request = read(dialect, path, &body);
        assert_eq!(written(request.form, &request).1, body);
        assert_eq!(written(request.form, &request).2, Vec::<String>::new(), "{body}");
    }
}

#[test]
fn forms_are_translated_into_each_other() {
    let request = read(
        Dialect::Openai,
        "/embeddings",
        &json!({"model": "x", "input": ["a", "b"], "encoding_format": "base64", "dimensions": 2, "user": "u"}),
    );
    assert_eq!(
        written(EmbedForm::GeminiBatch, &request),
        (
            "/models/{model}:batchEmbedContents",
            json!({"requests": [
                {"model": "models/m", "content": {"parts": [{"text": "a"}]}, "outputDimensionality": 2},
                {"model": "models/m", "content": {"parts": [{"text": "b"}]}, "outputDimensionality": 2}]}),
            vec!["user".to_owned()]
        )
    );
    assert_eq!(
        written(EmbedForm::Ollama, &request),
        (
            "/api/embed",
            json!({"model": "m", "input": ["a", "b"], "dimensions": 2}),
            vec!["user".to_owned()]
        )
    );
    assert_eq!(
        written(EmbedForm::Texts, &request).1,
        json!({"model": "m", "texts": ["a", "b"], "output_dimension": 2, "embedding_types": ["base64"], "input_type": "search_document"})
    );
    let request = read(
        Dialect::Gemini,
        "/models/x:embedContent",
        &json!({"content": {"parts": [{"text": "a"}]}, "taskType": "QUESTION_ANSWERING", "title": "t"}),
    );
    assert_eq!(request.task, Some(EmbedTask::QuestionAnswering));
    assert_eq!(
        written(EmbedForm::InputType, &request),
        (
            "/embeddings",
            json!({"model": "m", "input": "a", "input_type": "query"}),
            vec!["title".to_owned()]
        )
    );
    assert_eq!(written(EmbedForm::Openai, &request).2, ["task", "title"]);
    let tokens = read(Dialect::Openai, "/embeddings", &json!({"input": [1, 2]}));
    assert!(write_request(EmbedForm::GeminiBatch, &tokens, "m").is_none());
}

#[test]
fn invalid_request_is_refused_with_the_field() {
    for (dialect, path, body, param) in [
        (Dialect::Openai, "/embeddings", "{}", Some("input")),
        (Dialect::Openai, "/embeddings", r#"{"input":[]}"#, Some("input")),
        (Dialect::Openai, "/embeddings", r#"{"input":[null]}"#, Some("input")),
        (Dialect::Openai, "/embeddings", r#"{"input":[-1]}"#, Some("input")),
        (Dialect::Gemini, ":batchEmbedContents", r#"{"requests":[]}"#, Some("requests")),
        (Dialect::Gemini, ":embedContent", "{}", Some("content")),
        (Dialect::Ollama, "/api/embed", "[]", None),
    ] {
        let error = read_request(dialect, path, body.as_bytes()).expect_err("refused");
        assert_eq!(error.param.as_deref(), param, "{body}");
    }
}

#[test]
fn answers_have_the_form_of_the_request() {
    let usage = |input| Some(Usage { input, ..Usage::default() });
    for (body, count, tokens) in [
        (
            r#"{"object":"list","data":[{"index":1,"embedding":[0.50]},{"index":0,"embedding":"AAAAPw=="}],"usage":{"prompt_tokens":3,"total_tokens":3}}"#,
            2,
            usage(3),
        ),
        (r#"{"embedding":{"values":[0.5]},"usageMetadata":{"promptTokenCount":2}}"#, 1, usage(2)),
        (r#"{"embeddings":[{"values":[0.5]},{"values":[0.5]}]}"#, 2, None),
        (r#"{"model":"m","embeddings":[[0.5]],"prompt_eval_count":4}"#, 1, usage(4)),
        (r#"{"embedding":[0.5]}"#, 1, None),
        (
            r#"{"id":"i","embeddings":{"float":[[0.5]]},"meta":{"billed_units":{"input_tokens":5}}}"#,
            1,
            usage(5),
        ),
    ] {
        let response = read_response("", body.as_bytes()).expect("an answer");
        assert_eq!((response.vectors.len(), response.usage), (count, tokens), "{body}");
        assert!(
            response.vectors.iter().all(|vector| vector.to_json(true).text() == r#""AAAAPw==""#),
            "{body}"
        );
        for (dialect, path, asked) in [
            (Dialect::Openai, "/embeddings", json!({"input": "a", "encoding_format": "base64"})),
            (Dialect::Openai, "/embed", json!({"texts": ["a"]})),
            (Dialect::Gemini, ":embedContent", json!({"content": {"parts": [{"text": "a"}]}})),
            (
                Dialect::Gemini,
                ":batchEmbedContents",
                json!({"requests": [{"content": {"parts": [{"text": "a"}]}}]}),
            ),
            (Dialect::Ollama, "/api/embed", json!({"input": "a"})),
            (Dialect::Ollama, "/api/embeddings", json!({"prompt": "a"})),
        ] {
            let request = read(dialect, path, &asked);
            let written = write_response(&response, &request, "asked");
            let again = read_response("", &written).expect("an answer");
            let alone = matches!(request.form, EmbedForm::Gemini | EmbedForm::OllamaPrompt);
            assert_eq!(again.vectors.len(), if alone { 1 } else { count });
            assert!(matches!(&again.vectors[0], Vector::Base64(_)) == request.wants_base64());
            assert_eq!(again.vectors[0].to_json(true).text(), r#""AAAAPw==""#);
        }
    }
    assert!(read_response("", br#"{"error":{"message":"no"}}"#).is_err());
    assert!(read_response("", b"{}").is_err());
}

#[test]
fn answers_to_openai_clients_match_the_schema() {
    let response = EmbedResponse {
        vectors: vec![Vector::Numbers(RawJson::parse("[0.10]").expect("json"))],
        ..EmbedResponse::default()
    };
    let request = read(Dialect::Openai, "/embeddings", &json!({"input": "a"}));
    assert_eq!(
        write_response(&response, &request, "asked"),
        r#"{"object":"list","data":[{"object":"embedding","index":0,"embedding":[0.10]}],"model":"asked","usage":{"prompt_tokens":0,"total_tokens":0}}"#
    );
}

#[test]
fn recorded_exchanges_survive_a_round_trip() {
    for exchange in recorded::load_exchanges(&[
        "openai.embeddings",
        "ollama.embed",
        "gemini.embedContent",
        "gemini.batchEmbedContents",
    ]) {
        let (dialect, path) = match &*exchange.api {
            "ollama.embed" => (Dialect::Ollama, "/api/embed"),
            "gemini.embedContent" => (Dialect::Gemini, ":embedContent"),
            "gemini.batchEmbedContents" => (Dialect::Gemini, ":batchEmbedContents"),
            _ => (Dialect::Openai, "/embeddings"),
        };
        let request = read_request(dialect, path, exchange.request.to_string().as_bytes())
            .expect("a request");
        if exchange.status == 200 {
            let response =
                read_response("application/json", exchange.response.as_bytes()).expect("an answer");
            let again =
                read_response("", &write_response(&response, &request, "m")).expect("an answer");
            let packed = |response: &EmbedResponse| {
                response.vectors.iter().map(|vector| vector.to_json(true)).collect::<Vec<_>>()
            };
            assert_eq!(packed(&again), packed(&response), "{}", exchange.id);
            assert!(!response.vectors.is_empty(), "{}", exchange.id);
        } else {
            assert!(
                read_response("application/json", exchange.response.as_bytes()).is_err(),
                "{}",
                exchange.id
            );
        }
    }
}
