//! Translates every recorded exchange through every pair of dialects and checks that its content
//! survives.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::Value;

use crate::base::json::raw::RawJson;
use crate::ir::{
    assemble::{self, Assembler},
    block::{Block, BlockKind, Citation, MediaKind, MediaSource},
    event::{BlockStart, ChatEvent},
    extras::Extras,
    fault::{ProxyError, ProxyErrorKind},
    op::Dialect,
    request::{ChatRequest, Role},
    response::{ChatResponse, Finish, FinishKind},
    tool::{Tool, ToolChoice},
    validate,
};
use crate::{
    base::framing::Framing,
    dialect::{
        egress::{AttemptContext, TargetTraits, Thinking},
        event_decoder::EventDecoder,
        ingress::{ChatEndpoint, ResponseSpec},
        registry,
        tests::recorded::{self, RecordedExchange},
        translate::Translator,
    },
};

const APIS: [(&str, Dialect); 7] = [
    ("openai.chat", Dialect::Openai),
    ("openai.responses", Dialect::Responses),
    ("anthropic.messages", Dialect::Anthropic),
    ("vertex.anthropic", Dialect::Anthropic),
    ("gemini.generateContent", Dialect::Gemini),
    ("gemini.streamGenerateContent", Dialect::Gemini),
    ("ollama.chat", Dialect::Ollama),
];

fn all_exchanges() -> Vec<(Dialect, RecordedExchange)> {
    let found = recorded::load_exchanges(&APIS.map(|(api, _)| api));
    found
        .into_iter()
        .filter_map(|x| {
            APIS.iter().find(|(api, _)| *api == x.api).map(|(_, dialect)| (*dialect, x))
        })
        .collect()
}

/// The content of an answer, independent of its dialect.
#[derive(Debug, Default, PartialEq)]
struct AnswerContent {
    text: String,
    reasoning: String,
    calls: Vec<(String, Value)>,
    finish: FinishKind,
    input: Option<u64>,
    output: Option<u64>,
    cached: Option<u64>,
}

fn parse_arguments(text: &str) -> Value {
    match text.trim() {
        "" => Value::Object(serde_json::Map::new()),
        text => serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned())),
    }
}

/// If the dialect has no refusals of its own, they count as text.
fn answer_content(response: &ChatResponse, refusal_is_text: bool) -> AnswerContent {
    let mut out = AnswerContent { finish: response.finish.kind, ..AnswerContent::default() };
    for block in &response.blocks {
        match &block.kind {
            BlockKind::Text(text) => out.text.push_str(&text.text),
            BlockKind::Reasoning(reasoning) => out.reasoning.push_str(&reasoning.text),
            BlockKind::Refusal(text) if refusal_is_text => out.text.push_str(text),
            BlockKind::ToolCall(call) => {
                out.calls.push((call.name.clone(), parse_arguments(&call.arguments)));
            }
            _ => {}
        }
    }
    if refusal_is_text && out.finish == FinishKind::Refusal {
        out.finish = FinishKind::Stop;
    }
    if let Some(usage) = response.usage {
        (out.input, out.output) = (Some(usage.input_total()), Some(usage.output_total()));
        out.cached = Some(usage.cache_read);
    }
    out
}

fn upstream_framing(x: &RecordedExchange) -> Framing {
    match x.kind.as_str() {
        "ndjson" => Framing::Ndjson,
        "json" => Framing::JsonArray,
        _ => Framing::Sse,
    }
}

/// Reads the recorded answer; `None` if it is an error or truncated.
fn read_recorded(dialect: Dialect, x: &RecordedExchange) -> Option<(ChatResponse, Vec<ChatEvent>)> {
    if x.status >= 400 {
        return None;
    }
    let context = AttemptContext { call_id_seed: "seed".to_owned(), ..AttemptContext::default() };
    if !x.streaming {
        let response = registry::egress(dialect)
            .read_response(&x.content_type, x.response.as_bytes(), &context)
            .ok()?;
        let events = assemble::to_events(&response);
        return Some((response, events));
    }
    let mut decoder = EventDecoder::new(
        upstream_framing(x),
        registry::egress(dialect).stream_reader(&context),
        false,
    );
    let mut events = Vec::new();
    let step = decoder.feed(&Bytes::copy_from_slice(x.response.as_bytes()), &mut events);
    decoder.finish(&mut events);
    if step.error.is_some() {
        return None;
    }
    validate::validate_events(&events).unwrap_or_else(|e| panic!("{}: {e}", x.id));
    let mut assembler = Assembler::default();
    events.iter().for_each(|event| assembler.feed(event));
    Some((assembler.finish()?, events))
}

fn response_spec(framing: Framing) -> ResponseSpec {
    ResponseSpec {
        endpoint: ChatEndpoint::Chat,
        model: "asked".to_owned(),
        request_id: "01".to_owned(),
        created: 1_700_000_000,
        framing,
        include_usage: true,
        custom_tools: Vec::new(),
        namespaced_tools: Vec::new(),
        client_tools: Vec::new(),
        compaction: false,
        echo: Extras::default(),
    }
}

fn client_framing(dialect: Dialect) -> Framing {
    if dialect == Dialect::Ollama { Framing::Ndjson } else { Framing::Sse }
}

fn has_refusals(dialect: Dialect) -> bool {
    matches!(dialect, Dialect::Openai | Dialect::Responses)
}

/// Removes the differences that the client's dialect cannot express.
fn normalize(
    mut content: AnswerContent,
    client: Dialect,
    response: &ChatResponse,
) -> AnswerContent {
    if !has_refusals(client) && content.finish == FinishKind::Refusal {
        content.finish = FinishKind::Stop;
    }
    match (client, content.finish) {
        // These dialects have no word for a paused turn or for a filter.
        (_, FinishKind::Pause) => content.finish = FinishKind::Stop,
        (Dialect::Anthropic | Dialect::Ollama, FinishKind::ContentFilter) => {
            content.finish = FinishKind::Stop;
        }
        _ => {}
    }
    if (content.input, content.output) == (Some(0), Some(0)) {
        // Some schemas require numbers even if the count is unknown.
        (content.input, content.output, content.cached) = (None, None, None);
    }
    // Each dialect joins the parts of a thought with its own white space.
    content.reasoning.retain(|c| !c.is_whitespace());
    if client == Dialect::Ollama && content.input.is_some() {
        content.cached = response.usage.map(|_| 0);
    }
    content
}

#[test]
#[expect(clippy::print_stdout, reason = "the table of pairs, for whoever runs this test alone")]
fn every_recorded_answer_has_the_same_meaning_in_every_dialect() {
    let mut wrong = Vec::new();
    let mut counts: BTreeMap<(&str, &str), (u32, u32)> = BTreeMap::new();
    for (dialect, x) in all_exchanges() {
        let has_audio = x.request["modalities"]
            .as_array()
            .is_some_and(|all| all.iter().any(|one| one == "audio"));
        let Some((response, events)) = read_recorded(dialect, &x).filter(|_| !has_audio) else {
            continue;
        };
        for client in Dialect::ALL {
            let context =
                AttemptContext { call_id_seed: "seed".to_owned(), ..AttemptContext::default() };
            let refusal_is_text = !has_refusals(client);
            let want = normalize(answer_content(&response, refusal_is_text), client, &response);
            let mut check = |how: &str, got: Option<ChatResponse>| {
                let got = got
                    .map(|got| normalize(answer_content(&got, refusal_is_text), client, &response));
                let count = counts.entry((client.name(), dialect.name())).or_default();
                count.1 += 1;
                match got {
                    Some(got) if got == want => count.0 += 1,
                    got => wrong.push(format!(
                        "{} {dialect} → {client} {how}\n  want {want:?}\n  got  {got:?}",
                        x.id
                    )),
                }
            };
            let written = registry::ingress(client)
                .write_response(&response, &response_spec(client_framing(client)));
            check(
                "whole",
                registry::egress(client).read_response("application/json", &written, &context).ok(),
            );

            let decoder = EventDecoder::new(
                Framing::Sse,
                registry::egress(dialect).stream_reader(&context),
                false,
            );
            let writer =
                registry::ingress(client).stream_writer(&response_spec(client_framing(client)));
            let mut translator = Translator::new(decoder, writer, 0);
            let mut out = Vec::new();
            translator.write_complete(
                events.clone(),
                crate::dialect::AnswerSummary::default(),
                &mut out,
            );
            let mut back = EventDecoder::new(
                client_framing(client),
                registry::egress(client).stream_reader(&context),
                false,
            );
            let mut read_back = Vec::new();
            let error = back.feed(&out.concat().into(), &mut read_back).error;
            back.finish(&mut read_back);
            let mut assembler = Assembler::default();
            read_back.iter().for_each(|event| assembler.feed(event));
            check("stream", assembler.finish().filter(|_| error.is_none()));
        }
    }
    for ((client, upstream), (good, of)) in &counts {
        println!("{client:10} ← {upstream:10} {good}/{of}");
    }
    assert!(
        wrong.is_empty(),
        "{} wrong\n{}",
        wrong.len(),
        wrong.iter().take(12).cloned().collect::<Vec<_>>().join("\n")
    );
}

/// The content of a request, independent of its dialect.
#[derive(Debug, Default, PartialEq)]
struct RequestContent {
    system: String,
    users: String,
    calls: Vec<(String, Value)>,
    results: Vec<String>,
    images: Vec<String>,
    tools: Vec<String>,
    choice: Option<ToolChoice>,
    limit: Option<u64>,
}

fn collapse_space(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn join_texts(blocks: &[Block]) -> String {
    let texts = blocks.iter().filter_map(|block| match &block.kind {
        BlockKind::Text(text) => Some(text.text.as_str()),
        _ => None,
    });
    texts.collect::<Vec<_>>().join(" ")
}

fn request_content(request: &ChatRequest) -> RequestContent {
    let mut out = RequestContent {
        system: collapse_space(&join_texts(&request.system)),
        limit: request.settings.max_tokens,
        ..RequestContent::default()
    };
    fn collect_images(blocks: &[Block], images: &mut Vec<String>) {
        for block in blocks {
            if let BlockKind::Media(media) = &block.kind
                && let (MediaKind::Image, MediaSource::Base64(data)) = (media.kind, &media.source)
            {
                images.push(data.trim_end_matches('=').to_owned());
            }
        }
    }
    for message in &request.messages {
        collect_images(&message.blocks, &mut out.images);
        if message.role == Role::User {
            out.users.push_str(&collapse_space(&join_texts(&message.blocks)));
            out.users.push('\n');
        }
        for block in &message.blocks {
            match &block.kind {
                BlockKind::ToolCall(call) => {
                    out.calls.push((call.name.clone(), parse_arguments(&call.arguments)));
                }
                BlockKind::ToolResult(result) => {
                    out.results.push(collapse_space(&join_texts(&result.content)));
                    collect_images(&result.content, &mut out.images);
                }
                _ => {}
            }
        }
    }
    out.images.sort();
    out.tools = request.tools.iter().filter_map(Tool::name).map(str::to_owned).collect();
    out.tools.sort();
    out.choice = request
        .tool_choice
        .clone()
        .filter(|choice| !out.tools.is_empty() && *choice != ToolChoice::Auto);
    out
}

fn target_traits() -> TargetTraits {
    TargetTraits {
        model: "m".to_owned(),
        stream: false,
        max_output: Some(64_000),
        thinking: Thinking::Effort,
        max_tokens_field: "max_tokens",
        developer_role: false,
        accepts_reasoning: true,
        ask_usage: true,
        facts: Default::default(),
        call_id_seed: "seed".to_owned(),
    }
}

#[test]
fn every_recorded_request_has_the_same_meaning_in_every_dialect() {
    let mut wrong = Vec::new();
    for (dialect, x) in all_exchanges() {
        let Ok(request) = registry::ingress(dialect)
            .read_request(ChatEndpoint::Chat, x.request.to_string().as_bytes())
        else {
            // aiproxy may reject a request that the provider rejected.
            if x.status < 400 {
                wrong.push(format!("{}: not read", x.id));
            }
            continue;
        };
        let want = request_content(&request);
        for upstream in Dialect::ALL {
            let encoded = registry::egress(upstream).write_request(&request, &target_traits());
            if upstream == dialect && !encoded.losses.is_empty() {
                wrong.push(format!("{} {dialect} loses {:?} to itself", x.id, encoded.losses));
            }
            let back =
                match registry::ingress(upstream).read_request(ChatEndpoint::Chat, &encoded.body) {
                    Ok(back) => request_content(&back),
                    Err(e) => {
                        wrong.push(format!(
                            "{} {dialect} → {upstream} cannot be read back: {}",
                            x.id, e.message
                        ));
                        continue;
                    }
                };
            let same = back.system.contains(&want.system)
                && want
                    .users
                    .lines()
                    .filter(|line| !line.is_empty())
                    .all(|line| back.users.contains(line))
                && back.calls == want.calls
                && want
                    .results
                    .iter()
                    .all(|result| back.results.iter().any(|other| other.contains(result)))
                && (back.images == want.images || upstream == Dialect::Ollama)
                && (back.tools == want.tools || want.choice == Some(ToolChoice::None))
                && (back.choice == want.choice
                    || upstream == Dialect::Ollama
                    || want.choice == Some(ToolChoice::None))
                && (want.limit.is_none() || back.limit == want.limit);
            if !same && want.calls.iter().all(|(_, arguments)| arguments.is_object()) {
                wrong.push(format!(
                    "{} {dialect} → {upstream}\n  want {want:?}\n  got  {back:?}",
                    x.id
                ));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} wrong\n{}",
        wrong.len(),
        wrong.iter().take(12).cloned().collect::<Vec<_>>().join("\n")
    );
}

/// Raw JSON from upstreams may contain line breaks: foreign blocks, citations, log probabilities,
/// and fields that an answer repeats.
#[test]
fn raw_values_with_line_breaks_stay_inside_their_event() {
    const BROKEN: &str = "{\n\t\"type\":\r\n \"web_search_call\",\r\"id\": \"w\",\n\"a\": [\n1]}";
    let raw = || RawJson::parse(BROKEN).expect("json");
    for client in Dialect::ALL {
        for framing in [
            client_framing(client),
            if client == Dialect::Gemini { Framing::JsonArray } else { client_framing(client) },
        ] {
            let mut spec = response_spec(framing);
            spec.echo.push(Dialect::Responses, "metadata", raw());
            spec.echo.push(
                Dialect::Responses,
                "tools",
                RawJson::parse(&format!("[\n{BROKEN}\n]")).expect("json"),
            );
            let mut writer = registry::ingress(client).stream_writer(&spec);
            let mut out = Vec::new();
            let citation = Citation {
                url: Some("u".to_owned()),
                raw: Some((client, raw())),
                ..Citation::default()
            };
            for event in [
                ChatEvent::Begin { id: String::new(), model: "m".to_owned(), created: None, usage: None },
                ChatEvent::Open { block: 0, head: BlockStart::Foreign { dialect: client, body: raw() } },
                ChatEvent::Close { block: 0 },
                ChatEvent::Open { block: 1, head: BlockStart::Text },
                ChatEvent::Delta { block: 1, text: "said\nso".to_owned() },
                ChatEvent::Logprobs(
                    RawJson::parse("[\n{\"token\": \"said\",\n\"logprob\": -1, \"bytes\": null, \"top_logprobs\": []}\n]").expect("json"),
                ),
                ChatEvent::Citation { block: 1, citation },
                ChatEvent::Close { block: 1 },
                ChatEvent::End { finish: Finish::default(), usage: None, service_tier: None },
            ] {
                writer.write_event(event, &mut out);
            }
            let text = String::from_utf8(out.clone()).expect("text");
            let known = |line: &str| {
                ["", "]"].contains(&line)
                    || ["data: ", "event: ", "{", "[", ","]
                        .iter()
                        .any(|begin| line.starts_with(begin))
            };
            assert!(text.split(['\n', '\r']).all(known), "{client}: {text}");
            let mut decoder = EventDecoder::new(
                framing,
                registry::egress(client).stream_reader(&AttemptContext::default()),
                false,
            );
            let mut events = Vec::new();
            assert_eq!(decoder.feed(&out.into(), &mut events).error, None, "{client}: {text}");
            decoder.finish(&mut events);
            assert!(
                events.iter().any(
                    |event| matches!(event, ChatEvent::Delta { text, .. } if text == "said\nso")
                ),
                "{client}: {text}"
            );
            assert!(
                events.iter().any(|event| matches!(event, ChatEvent::End { .. })),
                "{client}: {text}"
            );
        }
    }
}

#[test]
fn error_ends_a_stream_in_every_dialect_without_success() {
    for client in Dialect::ALL {
        let mut writer =
            registry::ingress(client).stream_writer(&response_spec(client_framing(client)));
        let mut out = Vec::new();
        for event in [
            ChatEvent::Begin {
                id: String::new(),
                model: "m".to_owned(),
                created: None,
                usage: None,
            },
            ChatEvent::Open { block: 0, head: BlockStart::Text },
            ChatEvent::Delta { block: 0, text: "half".to_owned() },
        ] {
            writer.write_event(event, &mut out);
        }
        writer.write_error(&ProxyError::new(ProxyErrorKind::Upstream, "broke"), "01", &mut out);
        let mut decoder = EventDecoder::new(
            client_framing(client),
            registry::egress(client).stream_reader(&AttemptContext::default()),
            false,
        );
        let mut events = Vec::new();
        let step = decoder.feed(&out.into(), &mut events);
        assert!(step.error.is_some_and(|fault| fault.message.contains("broke")), "{client}");
        assert!(!events.iter().any(|event| matches!(event, ChatEvent::End { .. })), "{client}");
    }
}
