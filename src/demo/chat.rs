//! Answers chat requests: the dialect reads the request and writes the answer, whole or as a
//! stream.

use std::time::Duration;

use crate::{
    base::framing::Framing,
    demo::{
        answers::{self, DemoAnswer, DemoFinish},
        call::{DemoCall, DemoError},
        models::DemoModel,
        reply::{BodyPiece, DemoReply},
        request::{DemoRequest, THOUGHT_SIGNATURE, count_tokens},
        strict,
    },
    dialect::{ChatEndpoint, ResponseSpec, registry},
    ir::{
        assemble::Assembler,
        block::{CallKind, ReasoningSignature, SignatureKind},
        event::{BlockStart, ChatEvent},
        op::Dialect,
        request::ChatRequest,
        response::{Finish, FinishKind},
        usage::Usage,
    },
};

/// How the path asks for the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StreamChoice {
    /// `stream` in the body decides.
    Body,
    /// The path asks for a stream in this framing.
    Always(Framing),
    Never,
}

/// Answers a chat request to a model.
///
/// # Errors
///
/// The request cannot be read, or the model fails as it was asked to.
pub(super) fn answer_chat(
    call: &DemoCall<'_>,
    model: &DemoModel,
    endpoint: ChatEndpoint,
    stream: StreamChoice,
) -> Result<DemoReply, DemoError> {
    let ingress = registry::ingress(call.dialect);
    let chat = ingress
        .read_request(endpoint, call.body_text)
        .map_err(|error| DemoError::bad_request(error.message))?;
    check_required_fields(call.dialect, endpoint, &chat)?;
    if model.name == "strict" {
        strict::check(call, endpoint)?;
    }
    let request = DemoRequest::from_chat(&chat, call.dialect, count_input(call));
    let answer = answers::compose_answer(model, &request, call)?;
    let framing = match (stream, call.dialect) {
        (StreamChoice::Always(framing), _) => Some(framing),
        (StreamChoice::Never, _) => None,
        (StreamChoice::Body, Dialect::Ollama) => chat.stream.then_some(Framing::Ndjson),
        (StreamChoice::Body, _) => chat.stream.then_some(Framing::Sse),
    };
    let spec = response_spec(call, model, endpoint, &chat, framing);
    let script = script(call, &answer, &spec);
    let Some(framing) = framing else {
        let mut assembler = Assembler::default();
        script.iter().for_each(|(_, event)| assembler.feed(event));
        let response = assembler.finish().unwrap_or_default();
        return Ok(DemoReply::full(&answer, ingress.write_response(&response, &spec)));
    };
    let mut writer = ingress.stream_writer(&spec);
    let (mut pieces, mut pause) = (Vec::new(), Duration::ZERO);
    for (delay, event) in script {
        let begins = matches!(event, ChatEvent::Begin { .. });
        let mut out = Vec::new();
        writer.write_event(event, &mut out);
        // This provider sends a ping at the beginning of each stream.
        if begins && call.dialect == Dialect::Anthropic {
            out.extend_from_slice(ingress.ping(framing).unwrap_or_default());
        }
        pause += delay;
        if !out.is_empty() {
            pieces.push(BodyPiece::delayed(std::mem::take(&mut pause), out.into()));
        }
    }
    Ok(DemoReply::streaming(&answer, framing, pieces))
}

/// Checks fields that the provider requires, although aiproxy can do without them.
fn check_required_fields(
    dialect: Dialect,
    endpoint: ChatEndpoint,
    chat: &ChatRequest,
) -> Result<(), DemoError> {
    if chat.messages.is_empty() && endpoint == ChatEndpoint::Chat && dialect != Dialect::Ollama {
        return Err(DemoError::bad_request("the request must contain at least one message"));
    }
    if dialect == Dialect::Anthropic && chat.settings.max_tokens.is_none() {
        return Err(DemoError::bad_request("max_tokens: Field required"));
    }
    Ok(())
}

/// Counts the input tokens of a request, at least one.
pub(super) fn count_input(call: &DemoCall<'_>) -> u64 {
    const INPUT_FIELDS: [&str; 9] = [
        "contents",
        "input",
        "instructions",
        "messages",
        "prompt",
        "system",
        "systemInstruction",
        "system_instruction",
        "tools",
    ];
    let wrapped = [&call.body["generateContentRequest"], &call.body["generate_content_request"]];
    let body = wrapped.into_iter().find(|inner| inner.is_object()).unwrap_or(call.body);
    let fields = INPUT_FIELDS.iter().filter_map(|field| body.get(field));
    count_tokens(fields).max(1)
}

fn response_spec(
    call: &DemoCall<'_>,
    model: &DemoModel,
    endpoint: ChatEndpoint,
    chat: &ChatRequest,
    framing: Option<Framing>,
) -> ResponseSpec {
    // Ollama repeats the name that was asked for, with its tag.
    let name = call.model_name().filter(|_| call.dialect == Dialect::Ollama);
    ResponseSpec {
        endpoint,
        model: name.unwrap_or(model.name).to_owned(),
        request_id: call.new_id(""),
        created: call.created_seconds(),
        framing: framing.unwrap_or(Framing::Sse),
        include_usage: call.body["stream_options"]["include_usage"].as_bool() == Some(true),
        custom_tools: Vec::new(),
        namespaced_tools: chat.namespaced_tools(),
        client_tools: chat.client_tools(),
        compaction: chat.is_compaction(),
        echo: chat.echoed_fields.clone(),
    }
}

/// Returns the answer as events, each with the delay before it.
fn script(
    call: &DemoCall<'_>,
    answer: &DemoAnswer,
    spec: &ResponseSpec,
) -> Vec<(Duration, ChatEvent)> {
    let usage = Usage {
        input: answer.input_tokens,
        output: answer.output_tokens.saturating_sub(answer.thought_tokens()),
        reasoning: answer.thought_tokens(),
        ..Usage::default()
    };
    let mut out = vec![(
        Duration::ZERO,
        ChatEvent::Begin {
            id: String::new(),
            model: spec.model.clone(),
            created: Some(spec.created),
            usage: Some(Usage { output: 1, reasoning: 0, ..usage }),
        },
    )];
    let mut block = 0;
    if let Some(thought) = &answer.thought {
        let head = BlockStart::Reasoning { summary: call.dialect == Dialect::Responses };
        let signature = reasoning_signature(call);
        push_block(&mut out, block, head, [(Duration::ZERO, thought.clone())], signature);
        block += 1;
    }
    match &answer.tool_call {
        Some(tool) => {
            let prefix = if call.dialect == Dialect::Anthropic { "toolu_" } else { "call_" };
            let head = BlockStart::ToolCall {
                id: call.new_id(prefix),
                name: tool.name.clone(),
                form: CallKind::Function,
            };
            let pieces = DemoAnswer::argument_pieces(tool);
            let pieces = pieces.into_iter().enumerate();
            let pieces = pieces.map(|(index, text)| (answer.delay_before(index), text));
            let signature = call_signature(call, answer);
            push_block(&mut out, block, head, pieces, signature);
        }
        None => {
            let pieces = answer.paced_pieces().map(|(delay, text)| (delay, text.to_owned()));
            push_block(&mut out, block, BlockStart::Text, pieces, None);
        }
    }
    let (kind, stop_sequence) = match &answer.finish {
        DemoFinish::Length => (FinishKind::Length, None),
        DemoFinish::Stop => (FinishKind::Stop, None),
        DemoFinish::StopSequence(sequence) => (FinishKind::Stop, Some(sequence.clone())),
        DemoFinish::ToolCall => (FinishKind::ToolCalls, None),
    };
    out.push((
        Duration::ZERO,
        ChatEvent::End {
            finish: Finish { kind, raw_reason: None, stop_sequence },
            usage: Some(usage),
            service_tier: Some("default".to_owned()),
        },
    ));
    out
}

fn push_block(
    out: &mut Vec<(Duration, ChatEvent)>,
    block: u32,
    head: BlockStart,
    deltas: impl IntoIterator<Item = (Duration, String)>,
    signature: Option<ReasoningSignature>,
) {
    out.push((Duration::ZERO, ChatEvent::Open { block, head }));
    out.extend(deltas.into_iter().map(|(delay, text)| (delay, ChatEvent::Delta { block, text })));
    let signature = signature.map(|signature| ChatEvent::Signature { block, signature });
    out.extend(signature.map(|event| (Duration::ZERO, event)));
    out.push((Duration::ZERO, ChatEvent::Close { block }));
}

/// Returns the signature of the reasoning, in dialects that sign it.
fn reasoning_signature(call: &DemoCall<'_>) -> Option<ReasoningSignature> {
    let (kind, id) = match call.dialect {
        Dialect::Anthropic => (SignatureKind::Signature, None),
        Dialect::Responses => (SignatureKind::Encrypted, Some(call.new_id("rs_"))),
        Dialect::Gemini | Dialect::Ollama | Dialect::Openai => return None,
    };
    Some(ReasoningSignature {
        dialect: call.dialect,
        kind,
        value: THOUGHT_SIGNATURE.to_owned(),
        id,
    })
}

/// Returns the signature of a tool call: Gemini signs the call instead of the reasoning.
fn call_signature(call: &DemoCall<'_>, answer: &DemoAnswer) -> Option<ReasoningSignature> {
    (call.dialect == Dialect::Gemini && answer.thought.is_some()).then(|| ReasoningSignature {
        dialect: Dialect::Gemini,
        kind: SignatureKind::Signature,
        value: THOUGHT_SIGNATURE.to_owned(),
        id: None,
    })
}
