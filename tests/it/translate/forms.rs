//! Embeddings, reranking, completions and model cards: clients of one dialect over upstreams of
//! another.

use serde_json::{Value, json};

use super::scenes::{full_scene, proxy_before, proxy_before_with};
use crate::support::{client::Request, upstream::Scene};

fn openai_vectors() -> Value {
    json!({"object": "list", "model": "m", "data": [{"object": "embedding", "index": 0, "embedding": [0.5, -1.0]}, {"object": "embedding", "index": 1, "embedding": [0.25, 2.0]}],
        "usage": {"prompt_tokens": 4, "total_tokens": 4}})
}

#[test]
fn embeddings_are_translated_between_all_forms() {
    let answers = [
        ("openai", openai_vectors()),
        ("gemini", json!({"embeddings": [{"values": [0.5, -1.0]}, {"values": [0.25, 2.0]}]})),
        (
            "ollama",
            json!({"model": "m", "embeddings": [[0.5, -1.0], [0.25, 2.0]], "prompt_eval_count": 4}),
        ),
    ];
    for (upstream, answer) in answers {
        let (seen, proxy) = proxy_before(upstream, vec![Scene::json(200, &answer)]);
        let openai = proxy
            .send(&Request::post(
                "/v1/embeddings",
                &json!({"model": "m", "input": ["a", "b"], "dimensions": 2}),
            ))
            .json();
        assert_eq!(
            (&openai["data"][1]["embedding"], &openai["data"][1]["index"]),
            (&json!([0.25, 2.0]), &json!(1)),
            "{upstream}: {openai:#}"
        );
        let content =
            |text: &str| json!({"model": "models/m", "content": {"parts": [{"text": text}]}});
        let body = json!({"requests": [content("a"), content("b")]});
        let gemini =
            proxy.send(&Request::post("/v1beta/models/m:batchEmbedContents", &body)).json();
        assert_eq!(gemini["embeddings"][1]["values"], json!([0.25, 2.0]), "{upstream}: {gemini:#}");
        let ollama = proxy
            .send(&Request::post("/api/embed", &json!({"model": "m", "input": ["a", "b"]})))
            .json();
        assert_eq!(ollama["embeddings"][1], json!([0.25, 2.0]), "{upstream}: {ollama:#}");
        let packed = proxy
            .send(&Request::post(
                "/v1/embeddings",
                &json!({"model": "m", "input": ["a", "b"], "encoding_format": "base64"}),
            ))
            .json();
        let packed = packed["data"][0]["embedding"].clone();
        assert!(upstream == "openai" || packed == "AAAAPwAAgL8=", "{upstream}: {packed}");
        for request in seen.requests() {
            let sent = request.json().to_string();
            assert!(
                sent.contains("\"a\"") && sent.contains("\"b\""),
                "{upstream}: {} {sent}",
                request.path
            );
        }
    }
}

#[test]
fn rerank_is_translated_between_forms() {
    let answer = json!({"object": "list", "model": "m", "data": [{"index": 1, "relevance_score": 0.9}, {"index": 0, "relevance_score": 0.1}], "usage": {"total_tokens": 9}});
    let (upstream, proxy) =
        proxy_before_with("openai", vec![Scene::json(200, &answer)], "preset = \"voyage\"");
    let body = json!({"model": "m", "query": "q", "documents": ["a", "b"], "top_n": 2, "return_documents": true});

    let answer = proxy.send(&Request::post("/v1/rerank", &body));

    let results = answer.json()["results"].clone();
    assert_eq!(
        (&results[0]["index"], &results[0]["relevance_score"]),
        (&json!(1), &json!(0.9)),
        "{} {}",
        answer.status,
        answer.text()
    );
    assert_eq!(upstream.nth_request(0).json()["top_k"], 2, "{:#}", upstream.nth_request(0).json());
}

#[test]
fn legacy_completions_are_answered_by_chat_upstreams() {
    for dialect in ["anthropic", "gemini"] {
        let (_upstream, proxy) = proxy_before(dialect, vec![full_scene(dialect, "b()")]);
        let body =
            json!({"model": "m", "prompt": "def a():", "suffix": "return 1", "max_tokens": 20});
        let answer = proxy.send(&Request::post("/v1/completions", &body));
        assert_eq!(
            (&answer.json()["object"], &answer.json()["choices"][0]["text"]),
            (&json!("text_completion"), &json!("b()")),
            "{}",
            answer.text()
        );
    }
}

#[test]
fn ollama_clients_get_cards_and_lists_of_other_models() {
    let (upstream, proxy) = proxy_before("anthropic", vec![full_scene("anthropic", "hi")]);

    let card = proxy.send(&Request::post("/api/show", &json!({"model": "m"})));
    let generated = proxy.send(&Request::post(
        "/api/generate",
        &json!({"model": "m", "prompt": "a", "system": "be", "stream": false}),
    ));
    let loaded = proxy.send(&Request::post("/api/generate", &json!({"model": "m"})));

    let shown = card.json();
    assert_eq!(shown["capabilities"], json!(["completion", "tools"]), "{shown:#}");
    assert!(shown["model_info"].get("aiproxy.context_length").is_none(), "{shown:#}");
    let known = proxy.send(&Request::post("/api/show", &json!({"model": "claude-sonnet-4-5"})));
    let shown = known.json();
    assert_eq!(
        shown["capabilities"],
        json!(["completion", "tools", "vision", "thinking"]),
        "{shown:#}"
    );
    assert_eq!(shown["model_info"]["aiproxy.context_length"], 200_000, "{shown:#}");
    assert_eq!(
        (&generated.json()["response"], &generated.json()["done"]),
        (&json!("hi"), &json!(true)),
        "{}",
        generated.text()
    );
    assert_eq!((loaded.status, upstream.requests().len()), (200, 1), "{}", loaded.text());
}
