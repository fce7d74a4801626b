//! Hostile requests and responses: each must give an error and never a panic.

use serde_json::{Value, json};

use super::scenes::{DIALECTS, chat_request, full_scene, stream_events};
use crate::support::{
    client::Request,
    proxy::{CLIENT_KEY, Setup},
    upstream::{Scene, Upstream},
};

/// A random number generator with a fixed seed.
struct ValueRng(u64);

impl ValueRng {
    fn below(&mut self, sides: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % sides.max(1)
    }

    fn odd_value(&mut self) -> Value {
        let odd = [
            json!(null),
            json!(true),
            json!(-1),
            json!(1e300),
            json!(""),
            json!("\u{0}\u{fffd}🎉"),
            json!([]),
            json!({}),
            json!([[]]),
            json!({"type": 7}),
        ];
        odd[self.below(odd.len())].clone()
    }

    /// Mutates a value at a random position.
    fn mutate(&mut self, value: &mut Value) {
        let inside: Vec<&mut Value> = match value {
            Value::Array(items) => items.iter_mut().collect(),
            Value::Object(members) => members
                .iter_mut()
                .filter(|(key, _)| *key != "model")
                .map(|(_, value)| value)
                .collect(),
            _ => Vec::new(),
        };
        let count = inside.len();
        match inside.into_iter().nth(self.below(count)) {
            Some(within) if self.below(5) > 0 => self.mutate(within),
            Some(within) => *within = self.odd_value(),
            None => *value = self.odd_value(),
        }
    }
}

fn full_request(dialect: &str) -> (String, Value) {
    let part = json!([{"type": "text", "text": "t"}, {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}]);
    let call = json!({"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}});
    let body = match dialect {
        "openai" => {
            json!({"model": "m", "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": part}, {"role": "assistant", "tool_calls": [call]}, {"role": "tool", "tool_call_id": "1", "content": "r"}],
            "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {"a": {"$ref": "#"}}}}}], "response_format": {"type": "json_object"}, "stop": ["x"]})
        }
        "responses" => {
            json!({"model": "m", "instructions": "s", "input": [{"role": "user", "content": [{"type": "input_text", "text": "t"}]}, {"type": "reasoning", "id": "r", "summary": []},
            {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"}, {"type": "function_call_output", "call_id": "1", "output": "r"}],
            "tools": [{"type": "function", "name": "f", "parameters": {}}, {"type": "custom", "name": "c"}], "reasoning": {"effort": "low"}})
        }
        "anthropic" => {
            json!({"model": "m", "max_tokens": 5, "system": [{"type": "text", "text": "s"}], "messages": [{"role": "user", "content": "t"},
            {"role": "assistant", "content": [{"type": "thinking", "thinking": "h", "signature": "s"}, {"type": "tool_use", "id": "1", "name": "f", "input": {}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1", "content": [{"type": "text", "text": "r"}]}]}],
            "tools": [{"name": "f", "input_schema": {"type": "object"}}], "thinking": {"type": "enabled", "budget_tokens": 1024}})
        }
        "gemini" => {
            json!({"contents": [{"role": "user", "parts": [{"text": "t"}, {"inlineData": {"mimeType": "image/png", "data": "iVBORw0KGgo="}}]},
            {"role": "model", "parts": [{"functionCall": {"name": "f", "args": {}}}]}, {"role": "user", "parts": [{"functionResponse": {"name": "f", "response": {"a": 1}}}]}],
            "tools": [{"functionDeclarations": [{"name": "f", "parameters": {"type": "OBJECT"}}]}], "generationConfig": {"temperature": 1, "thinkingConfig": {"thinkingBudget": 5}}})
        }
        _ => {
            json!({"model": "m", "stream": false, "messages": [{"role": "user", "content": "t", "images": ["iVBORw0KGgo="]}, {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": {}}}]},
            {"role": "tool", "content": "r"}], "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}], "options": {"num_predict": 3}, "format": "json"})
        }
    };
    let path = match dialect {
        "openai" => "/v1/chat/completions",
        "responses" => "/v1/responses",
        "anthropic" => "/v1/messages",
        "gemini" => "/v1beta/models/m:generateContent",
        _ => "/api/chat",
    };
    (path.to_owned(), body)
}

#[test]
fn unusual_bodies_never_break_the_proxy() {
    let mut dice = ValueRng(1);
    for upstream_dialect in ["openai", "anthropic", "gemini"] {
        let upstream = Upstream::start(vec![full_scene(upstream_dialect, "ok")]);
        let proxy =
            Setup::new().upstream_with_dialect(upstream_dialect, "one", &upstream, "").start();
        for client in DIALECTS.into_iter().filter(|client| *client != upstream_dialect) {
            let (path, body) = full_request(client);
            assert_eq!(
                proxy.send(&Request::post(&path, &body)).status,
                200,
                "{client}: {:?}",
                proxy.send(&Request::post(&path, &body)).text()
            );
            for _ in 0..60 {
                let mut odd = body.clone();
                (0..=dice.below(3)).for_each(|_| dice.mutate(&mut odd));
                let answer = proxy.send(&Request::post(&path, &odd));
                assert!(
                    matches!(answer.status, 200 | 400 | 404 | 422),
                    "{client}: {} {} for {odd}",
                    answer.status,
                    answer.text()
                );
            }
        }
        assert!(!proxy.output().contains("panicked"), "{}", proxy.output());
    }
}

#[test]
fn unusual_answers_end_in_an_error_or_an_answer() {
    let mut dice = ValueRng(2);
    for upstream_dialect in DIALECTS {
        let good = stream_events(upstream_dialect, &["hel", "lo"]).concat().into_bytes();
        let odd: Vec<Vec<u8>> = (0..40)
            .map(|_| {
                let mut bytes = good.clone();
                for _ in 0..=dice.below(4) {
                    let at = dice.below(bytes.len());
                    match dice.below(3) {
                        0 => bytes[at] = b"\"{}[],:0x\n\xff"[dice.below(11)],
                        1 => bytes.truncate(at + 1),
                        _ => drop(bytes.drain(at..(at + dice.below(30)).min(bytes.len()))),
                    }
                }
                bytes
            })
            .collect();
        let kind =
            if upstream_dialect == "ollama" { "application/x-ndjson" } else { "text/event-stream" };
        let scenes: Vec<Scene> =
            odd.iter().map(|bytes| Scene::stream(kind, [bytes.clone()])).collect();
        let upstream = Upstream::start(scenes);
        let settings = "[retry]\nmax_attempts = 1\nqueue_for = \"0s\"\n[cooldown]\nserver_error = \"1ms\"\nmax = \"1ms\"";
        let proxy = Setup::new()
            .config(settings)
            .upstream_with_dialect(upstream_dialect, "one", &upstream, "")
            .start();
        let client = if upstream_dialect == "openai" { "anthropic" } else { "openai" };
        for bytes in &odd {
            let answer = chat_request(client, true, "hi").bearer(CLIENT_KEY).send(proxy.addr);
            assert!(
                answer.complete && !answer.body.is_empty(),
                "{upstream_dialect}: {}",
                String::from_utf8_lossy(bytes)
            );
        }
        assert!(!proxy.output().contains("panicked"), "{}", proxy.output());
    }
}
