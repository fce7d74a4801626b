//! Tests the demo from outside: requests in, bodies out.

use std::time::Duration;

use http_body_util::BodyExt;
use serde_json::json;

use super::*;
use crate::base::clock::FakeClock;

struct TestResponse {
    status: u16,
    body: String,
    broken: bool,
}

impl TestResponse {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }

    /// Returns the data of each event.
    fn events(&self) -> Vec<Value> {
        let lines = self.body.lines().filter_map(|line| line.strip_prefix("data: "));
        lines
            .filter(|data| *data != "[DONE]")
            .map(|data| serde_json::from_str(data).unwrap_or_else(|e| panic!("{e}: {data}")))
            .collect()
    }
}

fn ask(demo: &Demo, dialect: Dialect, path: &str, body: &Value) -> TestResponse {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let request = request(path, body);
    runtime.block_on(async {
        let response = demo.answer(dialect, &request).await;
        let (status, mut body) = (response.status().as_u16(), response.into_body());
        let (mut bytes, mut broken) = (Vec::new(), false);
        while let Some(frame) = body.frame().await {
            match frame {
                Ok(frame) => bytes.extend_from_slice(&frame.into_data().expect("data")),
                Err(_) => broken = true,
            }
        }
        TestResponse { status, body: String::from_utf8(bytes).expect("text"), broken }
    })
}

fn request(path: &str, body: &Value) -> Request<Bytes> {
    let method = if body.is_null() { Method::GET } else { Method::POST };
    let body = if body.is_null() { Bytes::new() } else { body.to_string().into() };
    Request::builder().method(method).uri(path).body(body).expect("a request")
}

fn demo() -> Demo {
    Demo::new(Arc::new(FakeClock::default()))
}

/// Returns path and body of a request that sends `prompt` to `model`, streamed or not.
fn chat(dialect: Dialect, model: &str, prompt: &str, stream: bool) -> (String, Value) {
    let messages = json!([{"role": "user", "content": prompt}]);
    match dialect {
        Dialect::Anthropic => (
            "/messages".to_owned(),
            json!({"model": model, "max_tokens": 4096, "messages": messages, "stream": stream}),
        ),
        Dialect::Gemini => {
            let method = if stream { "streamGenerateContent?alt=sse" } else { "generateContent" };
            (
                format!("/models/{model}:{method}"),
                json!({"contents": [{"role": "user", "parts": [{"text": prompt}]}]}),
            )
        }
        Dialect::Ollama => (
            "/api/chat".to_owned(),
            json!({"model": model, "messages": messages, "stream": stream}),
        ),
        Dialect::Openai => (
            "/chat/completions".to_owned(),
            json!({"model": model, "messages": messages, "stream": stream}),
        ),
        Dialect::Responses => {
            ("/responses".to_owned(), json!({"model": model, "input": prompt, "stream": stream}))
        }
    }
}

/// Returns the JSON pointer to the text of a complete answer in each dialect.
fn text_at(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Anthropic => "/content/0/text",
        Dialect::Gemini => "/candidates/0/content/parts/0/text",
        Dialect::Ollama => "/message/content",
        Dialect::Openai => "/choices/0/message/content",
        Dialect::Responses => "/output/0/content/0/text",
    }
}

#[test]
fn echo_answers_in_every_dialect() {
    for dialect in Dialect::ALL {
        let (path, body) = chat(dialect, "echo", "hello, \"you\"", false);

        let got = ask(&demo(), dialect, &path, &body);

        assert_eq!(got.status, 200, "{dialect}: {}", got.body);
        assert_eq!(
            got.json().pointer(text_at(dialect)),
            Some(&json!("hello, \"you\"")),
            "{dialect}: {}",
            got.body
        );
    }
}

#[test]
fn streams_equal_buffered_answers() {
    for dialect in Dialect::ALL {
        let (path, body) = chat(dialect, "echo", "to be or not\nto be", true);

        let got = ask(&demo(), dialect, &path, &body);

        let lines = || {
            got.body
                .lines()
                .map(|line| serde_json::from_str::<Value>(line).expect("a line of JSON"))
        };
        let events = if dialect == Dialect::Ollama { lines().collect() } else { got.events() };
        let piece = |event: &Value| match dialect {
            Dialect::Anthropic => event["delta"]["text"].as_str().map(str::to_owned),
            Dialect::Gemini => {
                event["candidates"][0]["content"]["parts"][0]["text"].as_str().map(str::to_owned)
            }
            Dialect::Ollama => event["message"]["content"].as_str().map(str::to_owned),
            Dialect::Openai => event["choices"][0]["delta"]["content"].as_str().map(str::to_owned),
            Dialect::Responses => event["delta"].as_str().map(str::to_owned),
        };
        assert_eq!(
            events.iter().filter_map(piece).collect::<String>(),
            "to be or not\nto be",
            "{dialect}: {}",
            got.body
        );
    }
}

#[test]
fn lorem_streams_slowly_word_by_word() {
    let (path, body) = chat(Dialect::Openai, "lorem", "go", true);

    let got = ask(&demo(), Dialect::Openai, &path, &body);

    assert_eq!(got.events().len(), 42, "role, forty words, finish");
    assert_eq!(
        demo().build_reply(Dialect::Openai, &request(&path, &body)).duration(),
        Duration::from_millis(800)
    );
    assert!(got.body.ends_with("data: [DONE]\n\n"));
}

#[test]
fn usage_is_sent_only_if_requested() {
    let (path, mut body) = chat(Dialect::Openai, "echo", "hi", true);
    let without = ask(&demo(), Dialect::Openai, &path, &body);
    body["stream_options"] = json!({"include_usage": true});

    let with = ask(&demo(), Dialect::Openai, &path, &body);

    assert!(!without.body.contains("usage"));
    let last = with.events().pop().expect("events");
    assert_eq!(last["choices"], json!([]));
    assert_eq!(last["usage"]["completion_tokens"], 1);
}

#[test]
fn tools_are_called_and_their_results_echoed() {
    let schema = json!({"type": "object", "properties": {"city": {"type": "string"}}});
    let nested =
        json!([{"type": "function", "function": {"name": "weather", "parameters": schema}}]);
    for (dialect, tools, call, arguments) in [
        (
            Dialect::Openai,
            nested.clone(),
            "/choices/0/message/tool_calls/0/function/name",
            "/choices/0/message/tool_calls/0/function/arguments",
        ),
        (
            Dialect::Ollama,
            nested,
            "/message/tool_calls/0/function/name",
            "/message/tool_calls/0/function/arguments",
        ),
        (
            Dialect::Responses,
            json!([{"type": "function", "name": "weather", "parameters": schema}]),
            "/output/0/name",
            "/output/0/arguments",
        ),
        (
            Dialect::Anthropic,
            json!([{"name": "weather", "input_schema": schema}]),
            "/content/0/name",
            "/content/0/input",
        ),
        (
            Dialect::Gemini,
            json!([{"functionDeclarations": [{"name": "weather", "parameters": schema}]}]),
            "/candidates/0/content/parts/0/functionCall/name",
            "/candidates/0/content/parts/0/functionCall/args",
        ),
    ] {
        let (path, mut body) = chat(dialect, "tools", "weather?", false);
        body["tools"] = tools;

        let got = ask(&demo(), dialect, &path, &body).json();

        assert_eq!(got.pointer(call), Some(&json!("weather")), "{dialect}: {got}");
        let reply = got.pointer(arguments).expect("arguments");
        let reply = reply
            .as_str()
            .map_or_else(|| reply.clone(), |text| serde_json::from_str(text).expect("JSON text"));
        assert_eq!(reply, json!({"city": "Paris"}), "{dialect}");
    }
}

#[test]
fn tool_result_is_answered_with_text() {
    let messages = json!([{"role": "user", "content": "weather?"}, {"role": "assistant", "content": null}, {"role": "tool", "content": "sunny"}]);
    let body = json!({"model": "tools", "messages": messages, "tools": [{"type": "function", "function": {"name": "w"}}]});

    let got = ask(&demo(), Dialect::Openai, "/v1/chat/completions", &body).json();

    assert_eq!(got["choices"][0]["message"]["content"], "The tool answered: sunny");
    assert_eq!(got["choices"][0]["finish_reason"], "stop");
}

/// Returns the turns that a client sends after the first message: the demo's call in its own form,
/// and the result of the tool.
fn turns_after_call(dialect: Dialect, answer: &Value) -> Vec<Value> {
    match dialect {
        Dialect::Anthropic => {
            let result = json!({"type": "tool_result", "tool_use_id": answer["content"][1]["id"], "content": "sunny"});
            vec![
                json!({"role": "assistant", "content": answer["content"]}),
                json!({"role": "user", "content": [result]}),
            ]
        }
        Dialect::Gemini => {
            let response = json!({"name": "weather", "response": {"output": "sunny"}});
            vec![
                answer["candidates"][0]["content"].clone(),
                json!({"role": "user", "parts": [{"functionResponse": response}]}),
            ]
        }
        Dialect::Ollama => {
            vec![answer["message"].clone(), json!({"role": "tool", "content": "sunny"})]
        }
        Dialect::Openai => {
            let message = answer["choices"][0]["message"].clone();
            let id = &message["tool_calls"][0]["id"];
            vec![message.clone(), json!({"role": "tool", "tool_call_id": id, "content": "sunny"})]
        }
        Dialect::Responses => {
            let mut items = answer["output"].as_array().expect("items").clone();
            let id = items[1]["call_id"].clone();
            items.push(json!({"type": "function_call_output", "call_id": id, "output": "sunny"}));
            items
        }
    }
}

#[test]
fn think_requires_its_reasoning_with_a_tool_result() {
    let schema = json!({"type": "object", "properties": {"city": {"type": "string"}}});
    for dialect in Dialect::ALL {
        let (path, mut body) = chat(dialect, "think", "weather?", false);
        body["tools"] = match dialect {
            Dialect::Anthropic => json!([{"name": "weather", "input_schema": schema}]),
            Dialect::Gemini => {
                json!([{"functionDeclarations": [{"name": "weather", "parameters": schema}]}])
            }
            Dialect::Ollama | Dialect::Openai => {
                json!([{"type": "function", "function": {"name": "weather", "parameters": schema}}])
            }
            Dialect::Responses => {
                json!([{"type": "function", "name": "weather", "parameters": schema}])
            }
        };
        let answer = ask(&demo(), dialect, &path, &body).json();
        let turns = turns_after_call(dialect, &answer);
        let key = match dialect {
            Dialect::Gemini => "contents",
            Dialect::Responses => "input",
            Dialect::Anthropic | Dialect::Ollama | Dialect::Openai => "messages",
        };
        let first = match &body[key] {
            Value::Array(first) => first.clone(),
            text => vec![json!({"role": "user", "content": text})],
        };
        body[key] = first.iter().chain(&turns).cloned().collect();

        let whole = ask(&demo(), dialect, &path, &body);
        let proofs = ["signature\":", "thoughtSignature", "thinking\":", "reasoning_content"];
        let forgotten = proofs
            .into_iter()
            .chain(["encrypted_content"])
            .fold(body.to_string(), |text, field| text.replace(field, &format!("x_{field}")));
        let forgotten: Value = serde_json::from_str(&forgotten).expect("JSON");
        let without = ask(&demo(), dialect, &path, &forgotten);

        assert!(whole.body.contains("The tool answered: sunny"), "{dialect}: {}", whole.body);
        assert_eq!(without.status, 400, "{dialect}: {}", without.body);
    }
}

#[test]
fn flaky_fails_the_first_of_every_three_requests() {
    let demo = demo();
    let (path, body) = chat(Dialect::Openai, "flaky", "hi", false);

    let statuses: Vec<_> =
        (0..6).map(|_| ask(&demo, Dialect::Openai, &path, &body).status).collect();

    assert_eq!(statuses, [503, 200, 200, 503, 200, 200]);
}

#[test]
fn flaky_fails_as_requested_in_the_client_dialect() {
    for (dialect, at, want) in [
        (Dialect::Anthropic, "/error/type", "rate_limit_error"),
        (Dialect::Gemini, "/error/status", "RESOURCE_EXHAUSTED"),
        (Dialect::Ollama, "/error", "demo/flaky fails as it should: Too Many Requests"),
        (Dialect::Openai, "/error/code", "rate_limit_exceeded"),
        (Dialect::Responses, "/error/type", "rate_limit_error"),
    ] {
        let (path, body) = chat(dialect, "flaky", "please fail 429", true);

        let got = ask(&demo(), dialect, &path, &body);

        assert_eq!((got.status, got.json().pointer(at)), (429, Some(&json!(want))), "{dialect}");
    }
}

#[test]
fn cut_stream_ends_in_a_fault_without_its_terminator() {
    for dialect in Dialect::ALL {
        for stream in [true, false] {
            let (path, body) = chat(dialect, "flaky", "cut", stream);

            let got = ask(&demo(), dialect, &path, &body);

            assert!(got.broken && !got.body.is_empty(), "{dialect}");
            for end in
                ["[DONE]", "message_stop", "response.completed", "finishReason", "\"done\":true"]
            {
                assert!(!stream || !got.body.contains(end), "{dialect}: {}", got.body);
            }
        }
    }
}

#[test]
fn token_limit_shortens_the_answer_with_its_finish_reason() {
    let (path, mut body) =
        chat(Dialect::Responses, "echo", "a long answer that will be cut", false);
    body["max_output_tokens"] = json!(2);

    let got = ask(&demo(), Dialect::Responses, &path, &body).json();

    assert_eq!(got["status"], "incomplete");
    assert_eq!(got["incomplete_details"]["reason"], "max_output_tokens");
    assert_eq!(got["output"][0]["content"][0]["text"], "a long a");
}

#[test]
fn gemini_streams_an_array_without_alt_sse() {
    let (path, body) = chat(Dialect::Gemini, "echo", "one two", true);

    let got = ask(&demo(), Dialect::Gemini, path.trim_end_matches("?alt=sse"), &body);

    let chunks = got.json();
    assert_eq!(chunks.as_array().map(Vec::len), Some(3), "two words, finish");
    assert_eq!(chunks[2]["candidates"][0]["finishReason"], "STOP");
}

#[test]
fn lists_and_small_endpoints_answer() {
    for (dialect, path, body, at) in [
        (Dialect::Openai, "/models", json!(null), "/data/0/id"),
        (Dialect::Openai, "/models/echo", json!(null), "/id"),
        (
            Dialect::Openai,
            "/embeddings",
            json!({"model": "embed", "input": ["a", "b"], "encoding_format": "base64"}),
            "/data/1/embedding",
        ),
        (Dialect::Openai, "/moderations", json!({"input": "x"}), "/results/0/flagged"),
        (
            Dialect::Openai,
            "/completions",
            json!({"model": "echo", "prompt": "x"}),
            "/choices/0/text",
        ),
        (
            Dialect::Responses,
            "/responses/input_tokens",
            json!({"model": "echo", "input": "x"}),
            "/input_tokens",
        ),
        (Dialect::Anthropic, "/v1/models", json!(null), "/data/0/display_name"),
        (
            Dialect::Anthropic,
            "/v1/messages/count_tokens",
            json!({"model": "echo", "messages": []}),
            "/input_tokens",
        ),
        (Dialect::Gemini, "/v1beta/models", json!(null), "/models/0/name"),
        (Dialect::Gemini, "/models/echo:countTokens", json!({"contents": []}), "/totalTokens"),
        (
            Dialect::Gemini,
            "/models/embed:embedContent",
            json!({"content": {"parts": [{"text": "a"}]}}),
            "/embedding/values/0",
        ),
        (
            Dialect::Gemini,
            "/models/embed:batchEmbedContents",
            json!({"requests": [{"content": {}}]}),
            "/embeddings/0/values/0",
        ),
        (Dialect::Ollama, "/api/tags", json!(null), "/models/0/name"),
        (Dialect::Ollama, "/api/show", json!({"model": "echo"}), "/model_info/demo.context_length"),
        (
            Dialect::Ollama,
            "/api/generate",
            json!({"model": "echo", "prompt": "x", "stream": false}),
            "/response",
        ),
        (Dialect::Ollama, "/api/embed", json!({"model": "embed", "input": "x"}), "/embeddings/0/0"),
    ] {
        let got = ask(&demo(), dialect, path, &body);

        assert_eq!(got.status, 200, "{dialect} {path}: {}", got.body);
        assert!(
            got.json().pointer(at).is_some_and(|value| !value.is_null()),
            "{dialect} {path} has no {at}: {}",
            got.body
        );
    }
}

#[test]
fn invalid_requests_are_refused_without_panic() {
    for dialect in Dialect::ALL {
        let (path, _) = chat(dialect, "echo", "x", false);
        for body in [
            json!([]),
            json!("text"),
            json!({}),
            json!({"model": 7, "messages": {}, "contents": 3}),
            json!({"model": "no\u{1b}such", "input": {}}),
        ] {
            let got = ask(&demo(), dialect, &path, &body);

            let lenient = dialect == Dialect::Gemini && body["contents"].is_number();
            assert!(
                lenient || (400..500).contains(&got.status),
                "{dialect} {body}: {} {}",
                got.status,
                got.body
            );
        }
        assert_eq!(ask(&demo(), dialect, "/nowhere/at/all", &json!({})).status, 404);
        assert_eq!(ask(&demo(), dialect, "/%ff/../é", &json!(null)).status, 404);
    }
}

#[test]
fn schema_is_answered_with_matching_json() {
    let (path, mut body) = chat(Dialect::Openai, "echo", "who?", false);
    let schema =
        json!({"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]});
    body["response_format"] =
        json!({"type": "json_schema", "json_schema": {"name": "p", "schema": schema}});

    let got = ask(&demo(), Dialect::Openai, &path, &body).json();

    assert_eq!(got["choices"][0]["message"]["content"], "{\"age\":1}");
}
