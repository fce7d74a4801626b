//! Decides what the demo answers, independent of any dialect.

use std::time::Duration;

use http::StatusCode;

use crate::demo::{
    call::{DemoCall, DemoError},
    models::DemoModel,
    request::{DemoRequest, DemoToolChoice, text_tokens},
    sample,
};

/// Maximum number of text pieces in a stream.
const MAX_PIECES: usize = 400;

/// One answer, before a dialect writes it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct DemoAnswer {
    /// The text, in the pieces in which it is streamed.
    pub(super) pieces: Vec<String>,
    /// The reasoning text that precedes the answer.
    pub(super) thought: Option<String>,
    pub(super) tool_call: Option<DemoToolCall>,
    pub(super) finish: DemoFinish,
    pub(super) input_tokens: u64,
    pub(super) output_tokens: u64,
    /// Delay before the first piece.
    first_delay: Duration,
    /// Delay before each further piece.
    piece_delay: Duration,
    /// The answer breaks off halfway.
    pub(super) cut: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct DemoToolCall {
    pub(super) name: String,
    pub(super) arguments: serde_json::Value,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum DemoFinish {
    Length,
    Stop,
    /// Ended before this stop sequence of the request.
    StopSequence(String),
    ToolCall,
}

impl DemoAnswer {
    /// Returns the number of reasoning tokens, which are part of the output.
    pub(super) fn thought_tokens(&self) -> u64 {
        self.thought.as_deref().map_or(0, text_tokens)
    }

    /// Returns the pieces, each with the delay before it.
    pub(super) fn paced_pieces(&self) -> impl Iterator<Item = (Duration, &str)> {
        self.pieces
            .iter()
            .enumerate()
            .map(|(index, text)| (self.delay_before(index), text.as_str()))
    }

    /// Returns the delay before the piece with this index.
    pub(super) fn delay_before(&self, index: usize) -> Duration {
        if index == 0 { self.first_delay } else { self.piece_delay }
    }

    /// Returns the duration of the whole answer.
    pub(super) fn duration(&self) -> Duration {
        self.first_delay
            + self.piece_delay
                * u32::try_from(self.pieces.len().saturating_sub(1)).unwrap_or(u32::MAX)
    }

    /// Returns the JSON text of the tool call's arguments, in the pieces in which it is streamed.
    pub(super) fn argument_pieces(call: &DemoToolCall) -> Vec<String> {
        let text = call.arguments.to_string();
        let (head, tail) = text.split_at(text.floor_char_boundary(text.len() / 2));
        [head, tail].into_iter().filter(|piece| !piece.is_empty()).map(str::to_owned).collect()
    }
}

/// Decides what a model answers.
///
/// # Errors
///
/// The failure that `flaky` chose or that the request asked for.
pub(super) fn compose_answer(
    model: &DemoModel,
    request: &DemoRequest,
    call: &DemoCall<'_>,
) -> Result<DemoAnswer, DemoError> {
    let mode = if model.name == "flaky" {
        FlakyMode::from_prompt(&request.prompt)
    } else {
        FlakyMode::None
    };
    match mode {
        FlakyMode::Fail(status) => return Err(flaky_error(status)),
        FlakyMode::None if model.name == "flaky" && call.next_flaky_turn().is_multiple_of(3) => {
            return Err(flaky_error(StatusCode::SERVICE_UNAVAILABLE));
        }
        _ => {}
    }
    let (first_ms, piece_ms) = match (model.name, &mode) {
        (_, FlakyMode::Slow) => (1_000, 100),
        ("lorem", _) => (20, 20),
        ("echo", _) => (0, 0),
        _ => (5, 5),
    };
    let mut answer = DemoAnswer {
        pieces: Vec::new(),
        thought: (model.name == "think").then(|| thought_text(request)),
        tool_call: None,
        finish: DemoFinish::Stop,
        input_tokens: request.input_tokens.max(1),
        output_tokens: 0,
        first_delay: Duration::from_millis(first_ms),
        piece_delay: Duration::from_millis(piece_ms),
        cut: mode == FlakyMode::Cut,
    };
    if answer.thought.is_some() && request.tool_result.is_some() && !request.has_valid_signature {
        let text = "demo/think wants its own thought back, unchanged and with its proof, before a tool's answer";
        return Err(DemoError::new(StatusCode::BAD_REQUEST, text));
    }
    if let Some(call) = choose_tool_call(model, request) {
        answer.output_tokens = text_tokens(&call.name)
            + text_tokens(&call.arguments.to_string())
            + answer.thought_tokens();
        answer.finish = DemoFinish::ToolCall;
        answer.tool_call = Some(call);
        return Ok(answer);
    }
    let (text, finish) = apply_limits(answer_text(model, request, &mode), request);
    answer.output_tokens = text_tokens(&text).max(1) + answer.thought_tokens();
    answer.finish = finish;
    answer.pieces = split_pieces(&text);
    Ok(answer)
}

fn thought_text(request: &DemoRequest) -> String {
    match &request.tool_result {
        Some(_) => "The tool has answered; I pass that on.".to_owned(),
        None => "I am asked something. Let me think about it before I answer.".to_owned(),
    }
}

/// What the last message asks `flaky` to do.
#[derive(Debug, PartialEq)]
enum FlakyMode {
    Cut,
    Fail(StatusCode),
    None,
    Slow,
}

impl FlakyMode {
    fn from_prompt(prompt: &str) -> Self {
        let words: Vec<_> = prompt
            .split(|c: char| !c.is_ascii_alphanumeric())
            .filter(|word| !word.is_empty())
            .collect();
        let fail = words
            .windows(2)
            .find(|pair| pair[0].eq_ignore_ascii_case("fail"))
            .and_then(|pair| pair[1].parse().ok());
        match fail.and_then(|status: u16| StatusCode::from_u16(status).ok()) {
            Some(status) if (400..=599).contains(&status.as_u16()) => Self::Fail(status),
            _ if words.iter().any(|word| word.eq_ignore_ascii_case("cut")) => Self::Cut,
            _ if words.iter().any(|word| word.eq_ignore_ascii_case("slow")) => Self::Slow,
            _ => Self::None,
        }
    }
}

fn flaky_error(status: StatusCode) -> DemoError {
    let retry_after = (status == StatusCode::TOO_MANY_REQUESTS).then_some(2);
    let reason = status.canonical_reason().unwrap_or("a status that is not a number");
    DemoError {
        status,
        message: format!("demo/flaky fails as it should: {reason}"),
        code: None,
        retry_after,
    }
}

/// Chooses a tool call: `tools` calls the first tool that is offered; any model calls a tool that
/// the request requires.
fn choose_tool_call(model: &DemoModel, request: &DemoRequest) -> Option<DemoToolCall> {
    let tool = match &request.tool_choice {
        _ if request.tool_result.is_some() => return None,
        DemoToolChoice::None => return None,
        DemoToolChoice::Named(name) => request.tools.iter().find(|tool| tool.name == *name)?,
        DemoToolChoice::Auto if matches!(model.name, "tools" | "think") => request.tools.first()?,
        DemoToolChoice::Auto => return None,
    };
    Some(DemoToolCall {
        name: tool.name.clone(),
        arguments: sample::sample_arguments(&tool.schema),
    })
}

fn answer_text(model: &DemoModel, request: &DemoRequest, mode: &FlakyMode) -> String {
    if let Some(schema) = &request.json_schema {
        let value = if schema.is_null() {
            serde_json::json!({ "answer": request.prompt })
        } else {
            sample::sample_value(schema)
        };
        return value.to_string();
    }
    match (model.name, &request.tool_result, mode) {
        ("lorem", ..) => LOREM.to_owned(),
        (_, Some(result), _) => format!("The tool answered: {result}"),
        ("tools", ..) if request.tools.is_empty() => {
            "Offer me a tool and I will call it.".to_owned()
        }
        ("tools", ..) => "The request asked for no tool call.".to_owned(),
        ("flaky", _, FlakyMode::Slow) => {
            "This one took its time, word by word, and arrived in the end.".to_owned()
        }
        ("flaky", _, FlakyMode::Cut) => {
            "This sentence will not be finished, because the connection breaks in the middle of it."
                .to_owned()
        }
        ("flaky", ..) => "This time it worked; every first request of three fails.".to_owned(),
        _ if request.prompt.is_empty() => "You said nothing.".to_owned(),
        _ => request.prompt.clone(),
    }
}

/// Truncates the text at the limits of the request.
fn apply_limits(mut text: String, request: &DemoRequest) -> (String, DemoFinish) {
    let mut finish = DemoFinish::Stop;
    let stops = request
        .stop_sequences
        .iter()
        .filter_map(|stop| text.find(stop.as_str()).map(|at| (at, stop)));
    if let Some((at, stop)) = stops.min_by_key(|(at, _)| *at) {
        text.truncate(at);
        finish = DemoFinish::StopSequence(stop.clone());
    }
    if let Some(limit) = request.max_tokens
        && text_tokens(&text) > limit
    {
        let bytes = usize::try_from(limit.saturating_mul(4)).unwrap_or(usize::MAX);
        text.truncate(text.floor_char_boundary(bytes));
        finish = DemoFinish::Length;
    }
    (text, finish)
}

/// Splits a text before its spaces, into about [`MAX_PIECES`] pieces at most.
fn split_pieces(text: &str) -> Vec<String> {
    let min_len = text.len() / MAX_PIECES;
    let mut out = vec![String::new()];
    for c in text.chars() {
        let full = out.last().is_some_and(|piece| !piece.is_empty() && piece.len() >= min_len);
        if c == ' ' && full {
            out.push(String::new());
        }
        if let Some(piece) = out.last_mut() {
            piece.push(c);
        }
    }
    out.retain(|piece| !piece.is_empty());
    out
}

/// Filler text.
const LOREM: &str = "Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do eiusmod tempor incididunt ut labore et dolore magna aliqua. \
     Ut enim ad minim veniam, quis nostrud exercitation ullamco laboris nisi ut aliquip ex ea commodo consequat. \
     Duis aute irure dolor.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_keywords_select_the_failure() {
        for (prompt, want) in [
            ("please fail 429 now", FlakyMode::Fail(StatusCode::TOO_MANY_REQUESTS)),
            ("Fail: 529", FlakyMode::Fail(StatusCode::from_u16(529).expect("a status"))),
            ("fail 200", FlakyMode::None),
            ("cut it", FlakyMode::Cut),
            ("slow, please", FlakyMode::Slow),
            ("a shortcut", FlakyMode::None),
        ] {
            assert_eq!(FlakyMode::from_prompt(prompt), want, "{prompt}");
        }
    }

    #[test]
    fn pieces_are_bounded_and_join_to_the_text() {
        for text in
            ["", " ", "one", "one two  three\nfour", &"word ".repeat(5_000), &"x".repeat(9_999)]
        {
            let pieces = split_pieces(text);
            assert_eq!(pieces.concat(), text);
            assert!(pieces.len() <= MAX_PIECES + 1, "{} pieces", pieces.len());
        }
        assert_eq!(split_pieces("to be sure"), ["to", " be", " sure"]);
        assert_eq!(split_pieces(LOREM).len(), 40);
    }
}
