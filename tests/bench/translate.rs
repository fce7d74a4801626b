//! Measures translation: reads and writes one stream event and one small request.

use std::hint::black_box;

use aiproxy::{
    dialect::{
        AttemptContext, ChatEndpoint, Framing, ResponseSpec, TargetTraits, Thinking,
        event_decoder::EventDecoder, registry, translate::Translator,
    },
    ir::{extras::Extras, op::Dialect},
};
use bytes::Bytes;

use super::best_time;

const EVENTS: usize = 4000;

pub(super) fn run() {
    for (upstream, client) in [
        (Dialect::Openai, Dialect::Anthropic),
        (Dialect::Openai, Dialect::Responses),
        (Dialect::Openai, Dialect::Gemini),
        (Dialect::Openai, Dialect::Ollama),
        (Dialect::Anthropic, Dialect::Openai),
        (Dialect::Anthropic, Dialect::Responses),
        (Dialect::Responses, Dialect::Openai),
        (Dialect::Responses, Dialect::Anthropic),
        (Dialect::Gemini, Dialect::Openai),
        (Dialect::Gemini, Dialect::Anthropic),
        (Dialect::Ollama, Dialect::Openai),
    ] {
        stream(upstream, client);
    }
    for client in Dialect::ALL {
        for upstream in Dialect::ALL.into_iter().filter(|upstream| *upstream != client) {
            request(client, upstream);
        }
    }
}

/// Returns the start of a stream, and a function that writes one text event.
fn stream_events(dialect: Dialect) -> (String, Box<dyn Fn(usize) -> String>) {
    match dialect {
        Dialect::Openai => (
            String::new(),
            Box::new(|i| {
                format!(
                    "data: {{\"id\":\"chatcmpl-abcdefgh\",\"object\":\"chat.completion.chunk\",\"created\":1750000000,\"model\":\"some-model\",\"system_fingerprint\":\"fp_0123\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\" word{i}\"}},\"logprobs\":null,\"finish_reason\":null}}],\"usage\":null}}\n\n"
                )
            }),
        ),
        Dialect::Responses => (
            "data: {\"type\":\"response.created\",\"response\":{\"id\":\"resp_1\",\"model\":\"m\",\"output\":[]}}\n\ndata: {\"type\":\"response.output_item.added\",\"output_index\":0,\"item\":{\"type\":\"message\",\"id\":\"msg_1\",\"role\":\"assistant\",\"content\":[]}}\n\ndata: {\"type\":\"response.content_part.added\",\"item_id\":\"msg_1\",\"output_index\":0,\"content_index\":0,\"part\":{\"type\":\"output_text\",\"text\":\"\",\"annotations\":[]}}\n\n"
                .to_owned(),
            Box::new(|i| {
                format!(
                    "event: response.output_text.delta\ndata: {{\"type\":\"response.output_text.delta\",\"sequence_number\":{i},\"item_id\":\"msg_1\",\"output_index\":0,\"content_index\":0,\"delta\":\" word{i}\",\"logprobs\":[]}}\n\n"
                )
            }),
        ),
        Dialect::Anthropic => (
            "data: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_1\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"m\",\"content\":[],\"usage\":{\"input_tokens\":3,\"output_tokens\":1}}}\n\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n"
                .to_owned(),
            Box::new(|i| {
                format!(
                    "event: content_block_delta\ndata: {{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{{\"type\":\"text_delta\",\"text\":\" word{i}\"}}}}\n\n"
                )
            }),
        ),
        Dialect::Gemini => (
            String::new(),
            Box::new(|i| {
                format!(
                    "data: {{\"candidates\": [{{\"content\": {{\"parts\": [{{\"text\": \" word{i}\"}}],\"role\": \"model\"}},\"index\": 0}}],\"usageMetadata\": {{\"promptTokenCount\": 7,\"totalTokenCount\": 9}},\"modelVersion\": \"some-model\",\"responseId\": \"abc\"}}\r\n\r\n"
                )
            }),
        ),
        Dialect::Ollama => (
            String::new(),
            Box::new(|i| {
                format!(
                    "{{\"model\":\"some-model\",\"created_at\":\"2026-01-01T00:00:00.000000Z\",\"message\":{{\"role\":\"assistant\",\"content\":\" word{i}\"}},\"done\":false}}\n"
                )
            }),
        ),
    }
}

fn framing(dialect: Dialect) -> Framing {
    if dialect == Dialect::Ollama { Framing::Ndjson } else { Framing::Sse }
}

fn stream(upstream: Dialect, client: Dialect) {
    let (head, event) = stream_events(upstream);
    let head = Bytes::from(head);
    let all: Vec<Bytes> = (0..EVENTS).map(|i| Bytes::from(event(i))).collect();
    let shape = ResponseSpec {
        endpoint: ChatEndpoint::Chat,
        model: "some-model".to_owned(),
        request_id: "0123456789".to_owned(),
        created: 1_750_000_000,
        framing: framing(client),
        include_usage: true,
        custom_tools: Vec::new(),
        namespaced_tools: Vec::new(),
        client_tools: Vec::new(),
        compaction: false,
        echo: Extras::default(),
    };
    let mut out = Vec::with_capacity(EVENTS * 2);
    let time = best_time(|| {
        out.clear();
        let reading = EventDecoder::new(
            framing(upstream),
            registry::egress(upstream).stream_reader(&AttemptContext::default()),
            false,
        );
        let mut translator =
            Translator::new(reading, registry::ingress(client).stream_writer(&shape), 1 << 20);
        black_box(translator.feed(&head, &mut out));
        for chunk in &all {
            black_box(translator.feed(chunk, &mut out));
        }
    });
    assert!(out.len() >= EVENTS, "{upstream} to {client}: {} events", out.len());
    println!(
        "stream {upstream:>9} → {client:<9} {:6.0} ns per event, one event a chunk",
        time / EVENTS as f64
    );
}

fn small_request(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Openai => {
            r#"{"model":"m","temperature":0.5,"max_tokens":500,"stream":true,"messages":[{"role":"system","content":"You are terse and exact."},{"role":"user","content":"What is the weather in Łódź?"},{"role":"assistant","content":null,"tool_calls":[{"id":"call_1","type":"function","function":{"name":"weather","arguments":"{\"city\":\"Łódź\"}"}}]},{"role":"tool","tool_call_id":"call_1","content":"sunny"}],"tools":[{"type":"function","function":{"name":"weather","description":"Tells the weather","parameters":{"type":"object","properties":{"city":{"type":"string"},"days":{"type":"integer"}},"required":["city"]}}}]}"#
        }
        Dialect::Responses => {
            r#"{"model":"m","temperature":0.5,"max_output_tokens":500,"stream":true,"instructions":"You are terse and exact.","input":[{"type":"message","role":"user","content":[{"type":"input_text","text":"What is the weather in Łódź?"}]},{"type":"function_call","call_id":"call_1","name":"weather","arguments":"{\"city\":\"Łódź\"}"},{"type":"function_call_output","call_id":"call_1","output":"sunny"}],"tools":[{"type":"function","name":"weather","description":"Tells the weather","parameters":{"type":"object","properties":{"city":{"type":"string"},"days":{"type":"integer"}},"required":["city"]}}]}"#
        }
        Dialect::Anthropic => {
            r#"{"model":"m","temperature":0.5,"max_tokens":500,"stream":true,"system":"You are terse and exact.","messages":[{"role":"user","content":"What is the weather in Łódź?"},{"role":"assistant","content":[{"type":"tool_use","id":"toolu_1","name":"weather","input":{"city":"Łódź"}}]},{"role":"user","content":[{"type":"tool_result","tool_use_id":"toolu_1","content":"sunny"}]}],"tools":[{"name":"weather","description":"Tells the weather","input_schema":{"type":"object","properties":{"city":{"type":"string"},"days":{"type":"integer"}},"required":["city"]}}]}"#
        }
        Dialect::Gemini => {
            r#"{"generationConfig":{"temperature":0.5,"maxOutputTokens":500},"systemInstruction":{"parts":[{"text":"You are terse and exact."}]},"contents":[{"role":"user","parts":[{"text":"What is the weather in Łódź?"}]},{"role":"model","parts":[{"functionCall":{"id":"1","name":"weather","args":{"city":"Łódź"}}}]},{"role":"user","parts":[{"functionResponse":{"id":"1","name":"weather","response":{"output":"sunny"}}}]}],"tools":[{"functionDeclarations":[{"name":"weather","description":"Tells the weather","parameters":{"type":"OBJECT","properties":{"city":{"type":"STRING"},"days":{"type":"INTEGER"}},"required":["city"]}}]}]}"#
        }
        Dialect::Ollama => {
            r#"{"model":"m","options":{"temperature":0.5,"num_predict":500},"messages":[{"role":"system","content":"You are terse and exact."},{"role":"user","content":"What is the weather in Łódź?"},{"role":"assistant","content":"","tool_calls":[{"function":{"name":"weather","arguments":{"city":"Łódź"}}}]},{"role":"tool","tool_name":"weather","content":"sunny"}],"tools":[{"type":"function","function":{"name":"weather","description":"Tells the weather","parameters":{"type":"object","properties":{"city":{"type":"string"},"days":{"type":"integer"}},"required":["city"]}}}]}"#
        }
    }
}

fn request(client: Dialect, upstream: Dialect) {
    const TIMES: usize = 200;
    let traits = TargetTraits {
        model: "m".to_owned(),
        stream: true,
        max_output: Some(64_000),
        thinking: Thinking::Effort,
        max_tokens_field: "max_tokens",
        developer_role: false,
        accepts_reasoning: true,
        ask_usage: true,
        facts: Default::default(),
        call_id_seed: "0123456789".to_owned(),
    };
    let body = small_request(client).as_bytes();
    let time = best_time(|| {
        for _ in 0..TIMES {
            let request = registry::ingress(client)
                .read_request(ChatEndpoint::Chat, black_box(body))
                .expect("a request");
            black_box(registry::egress(upstream).write_request(&request, &traits));
        }
    });
    println!(
        "request {client:>9} → {upstream:<9} {:5.1} µs for {} bytes",
        time / TIMES as f64 / 1e3,
        body.len()
    );
}
