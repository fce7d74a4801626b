//! What is said: the part of the demo that is no protocol.

use std::time::Duration;

use http::StatusCode;

use super::{
    Call, Refusal,
    asked::{Asked, Choice, tokens},
    models::Model,
    sample,
};

/// A stream has at most this many pieces of text.
const PIECES: usize = 400;

/// One answer, before a dialect writes it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Said {
    /// The text in the pieces in which it streams.
    pub(super) pieces: Vec<String>,
    /// What was thought before.
    pub(super) thought: Option<String>,
    pub(super) call: Option<ToolCall>,
    pub(super) finish: Finish,
    pub(super) input: u64,
    pub(super) output: u64,
    /// Before the first piece.
    first: Duration,
    /// Before each other piece.
    each: Duration,
    /// The answer breaks off half way.
    pub(super) cut: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct ToolCall {
    pub(super) name: String,
    pub(super) arguments: serde_json::Value,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Finish {
    Length,
    Stop,
    /// Ended before this stop sequence of the request.
    Stopped(String),
    Tool,
}

impl Said {
    pub(super) fn text(&self) -> String {
        self.pieces.concat()
    }

    /// Tokens of the thought; they are part of the output.
    pub(super) fn thinking(&self) -> u64 {
        self.thought.as_deref().map_or(0, tokens)
    }

    /// The pieces, each with the pause before it.
    pub(super) fn paced(&self) -> impl Iterator<Item = (Duration, &str)> {
        self.pieces.iter().enumerate().map(|(index, text)| (self.pause(index), text.as_str()))
    }

    /// The pause before the piece of this index.
    pub(super) fn pause(&self, index: usize) -> Duration {
        if index == 0 { self.first } else { self.each }
    }

    /// How long the whole answer takes.
    pub(super) fn duration(&self) -> Duration {
        self.first
            + self.each * u32::try_from(self.pieces.len().saturating_sub(1)).unwrap_or(u32::MAX)
    }

    /// The text of the tool call's arguments, in the pieces in which it streams.
    pub(super) fn argument_pieces(call: &ToolCall) -> Vec<String> {
        let text = call.arguments.to_string();
        let (head, tail) = text.split_at(text.floor_char_boundary(text.len() / 2));
        [head, tail].into_iter().filter(|piece| !piece.is_empty()).map(str::to_owned).collect()
    }
}

/// Decides what a model answers.
///
/// # Errors
///
/// The failure that `flaky` chose, or was asked for.
pub(super) fn say(model: &Model, asked: &Asked, call: &Call<'_>) -> Result<Said, Refusal> {
    let wish = if model.name == "flaky" { Wish::read(&asked.prompt) } else { Wish::None };
    match wish {
        Wish::Fail(status) => return Err(failure(status)),
        Wish::None if model.name == "flaky" && call.turn().is_multiple_of(3) => {
            return Err(failure(StatusCode::SERVICE_UNAVAILABLE));
        }
        _ => {}
    }
    let (first, each) = match (model.name, &wish) {
        (_, Wish::Slow) => (1_000, 100),
        ("lorem", _) => (20, 20),
        ("echo", _) => (0, 0),
        _ => (5, 5),
    };
    let mut said = Said {
        pieces: Vec::new(),
        thought: (model.name == "think").then(|| thought(asked)),
        call: None,
        finish: Finish::Stop,
        input: asked.input.max(1),
        output: 0,
        first: Duration::from_millis(first),
        each: Duration::from_millis(each),
        cut: wish == Wish::Cut,
    };
    if said.thought.is_some() && asked.tool_result.is_some() && !asked.proven {
        let text = "demo/think wants its own thought back, unchanged and with its proof, before a tool's answer";
        return Err(Refusal::new(StatusCode::BAD_REQUEST, text));
    }
    if let Some(call) = tool_call(model, asked) {
        said.output = tokens(&call.name) + tokens(&call.arguments.to_string()) + said.thinking();
        said.finish = Finish::Tool;
        said.call = Some(call);
        return Ok(said);
    }
    let (text, finish) = shorten(words(model, asked, &wish), asked);
    said.output = tokens(&text).max(1) + said.thinking();
    said.finish = finish;
    said.pieces = pieces(&text);
    Ok(said)
}

/// What proves a thought to be the demo's; opaque to everybody else.
pub(super) const PROOF: &str = "ZGVtby10aG91Z2h0LXByb29mLTEyMzQ1Njc4OTA=";

fn thought(asked: &Asked) -> String {
    match &asked.tool_result {
        Some(_) => "The tool has answered; I pass that on.".to_owned(),
        None => "I am asked something. Let me think about it before I answer.".to_owned(),
    }
}

/// What the last message asks `flaky` to do.
#[derive(Debug, PartialEq)]
enum Wish {
    Cut,
    Fail(StatusCode),
    None,
    Slow,
}

impl Wish {
    fn read(prompt: &str) -> Self {
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

fn failure(status: StatusCode) -> Refusal {
    let retry_after = (status == StatusCode::TOO_MANY_REQUESTS).then_some(2);
    let reason = status.canonical_reason().unwrap_or("a status nobody named");
    Refusal {
        status,
        message: format!("demo/flaky fails as it should: {reason}"),
        code: None,
        retry_after,
    }
}

/// `tools` calls the first tool it is offered; any model calls one that the request insists on.
fn tool_call(model: &Model, asked: &Asked) -> Option<ToolCall> {
    let tool = match &asked.choice {
        _ if asked.tool_result.is_some() => return None,
        Choice::Never => return None,
        Choice::Named(name) => asked.tools.iter().find(|tool| tool.name == *name)?,
        Choice::Free if matches!(model.name, "tools" | "think") => asked.tools.first()?,
        Choice::Free => return None,
    };
    Some(ToolCall { name: tool.name.clone(), arguments: sample::arguments(&tool.schema) })
}

fn words(model: &Model, asked: &Asked, wish: &Wish) -> String {
    if let Some(schema) = &asked.format {
        let value = if schema.is_null() {
            serde_json::json!({ "answer": asked.prompt })
        } else {
            sample::of(schema)
        };
        return value.to_string();
    }
    match (model.name, &asked.tool_result, wish) {
        ("lorem", ..) => LOREM.to_owned(),
        (_, Some(result), _) => format!("The tool answered: {result}"),
        ("tools", ..) if asked.tools.is_empty() => "Offer me a tool and I will call it.".to_owned(),
        ("tools", ..) => "I was told to call no tool.".to_owned(),
        ("flaky", _, Wish::Slow) => {
            "This one took its time, word by word, and arrived in the end.".to_owned()
        }
        ("flaky", _, Wish::Cut) => {
            "This sentence will not be finished, because the connection breaks in the middle of it."
                .to_owned()
        }
        ("flaky", ..) => "This time it worked; every first request of three fails.".to_owned(),
        _ if asked.prompt.is_empty() => "You said nothing.".to_owned(),
        _ => asked.prompt.clone(),
    }
}

/// Ends the text where the request wants it to end.
fn shorten(mut text: String, asked: &Asked) -> (String, Finish) {
    let mut finish = Finish::Stop;
    let stops = asked.stop.iter().filter_map(|stop| text.find(stop.as_str()).map(|at| (at, stop)));
    if let Some((at, stop)) = stops.min_by_key(|(at, _)| *at) {
        text.truncate(at);
        finish = Finish::Stopped(stop.clone());
    }
    if let Some(limit) = asked.limit
        && tokens(&text) > limit
    {
        let bytes = usize::try_from(limit.saturating_mul(4)).unwrap_or(usize::MAX);
        text.truncate(text.floor_char_boundary(bytes));
        finish = Finish::Length;
    }
    (text, finish)
}

/// Cuts a text before its spaces, into no more than [`PIECES`].
fn pieces(text: &str) -> Vec<String> {
    let least = text.len() / PIECES;
    let mut out = vec![String::new()];
    for c in text.chars() {
        let full = out.last().is_some_and(|piece| !piece.is_empty() && piece.len() >= least);
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

/// Forty words.
const LOREM: &str = "Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do eiusmod tempor incididunt ut labore et dolore magna aliqua. \
     Ut enim ad minim veniam, quis nostrud exercitation ullamco laboris nisi ut aliquip ex ea commodo consequat. \
     Duis aute irure dolor.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_in_the_message_choose_the_failure() {
        for (prompt, want) in [
            ("please fail 429 now", Wish::Fail(StatusCode::TOO_MANY_REQUESTS)),
            ("Fail: 529", Wish::Fail(StatusCode::from_u16(529).expect("a status"))),
            ("fail 200", Wish::None),
            ("cut it", Wish::Cut),
            ("slow, please", Wish::Slow),
            ("a shortcut", Wish::None),
        ] {
            assert_eq!(Wish::read(prompt), want, "{prompt}");
        }
    }

    #[test]
    fn pieces_are_few_and_lose_nothing() {
        for text in
            ["", " ", "one", "one two  three\nfour", &"word ".repeat(5_000), &"x".repeat(9_999)]
        {
            let pieces = pieces(text);
            assert_eq!(pieces.concat(), text);
            assert!(pieces.len() <= PIECES + 1, "{} pieces", pieces.len());
        }
        assert_eq!(pieces("to be sure"), ["to", " be", " sure"]);
        assert_eq!(pieces(LOREM).len(), 40);
    }
}
