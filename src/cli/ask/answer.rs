//! The answer to a question as its events arrive, with its times.

use std::time::Duration;

use serde_json::Value;

use crate::{
    base::{framing::sse, sanitize::clean},
    cli::{error::CliError, output},
};

/// What to do with an answer's text as it arrives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum AnswerSink {
    /// Keep it; the caller prints it.
    #[default]
    Buffer,
    /// Print the model's bytes unchanged.
    Raw,
    /// Print it without control characters.
    Terminal,
}

/// Tokens of one answer, as the provider counts them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub(super) struct AnswerUsage {
    pub(super) input: u64,
    pub(super) output: u64,
    /// The part of `output` that is reasoning.
    #[serde(skip)]
    pub(super) reasoning: u64,
}

/// The answer received so far. Times count from the request.
#[derive(Debug, Default)]
pub(super) struct StreamedAnswer {
    pub(super) sink: AnswerSink,
    pub(super) text: String,
    pub(super) model: Option<String>,
    pub(super) upstream: Option<String>,
    pub(super) request_id: Option<String>,
    /// What of the question its upstream cannot take and did not get, as the proxy names it.
    pub(super) losses: Option<String>,
    pub(super) finish_reason: Option<String>,
    pub(super) usage: Option<AnswerUsage>,
    /// The first and the last token of any kind, reasoning included.
    pub(super) first_token: Option<Duration>,
    pub(super) last_token: Duration,
    /// The end of the answer.
    pub(super) total: Duration,
    pub(super) shows_reasoning: bool,
    pub(super) is_complete: bool,
}

/// A shorter time between the first and the last token means that the answer was not streamed but
/// sent at once.
const MIN_STREAMED: Duration = Duration::from_millis(5);

impl StreamedAnswer {
    /// Adds one event that arrived `at` this time after the request.
    ///
    /// # Errors
    ///
    /// The event is an error, or standard output is closed.
    pub(super) fn push_event(&mut self, block: &[u8], at: Duration) -> Result<(), CliError> {
        let data = sse::read_event(block).data;
        if *data == *b"[DONE]" {
            self.is_complete = true;
            return Ok(());
        }
        let Ok(event) = serde_json::from_slice::<Value>(&data) else { return Ok(()) };
        if let Some(error) = event.get("error").filter(|error| !error.is_null()) {
            let text = error["message"].as_str().unwrap_or("the answer ended with an error");
            // End the partial answer's line before the error.
            if self.sink != AnswerSink::Buffer && !self.text.is_empty() {
                output::print("\n")?;
            }
            return Err(CliError::failed(text));
        }
        if let Some(model) = event["model"].as_str() {
            self.model = Some(model.to_owned());
        }
        if let Some(usage) = event.get("usage").filter(|usage| usage.is_object()) {
            self.usage = Some(read_usage(usage));
        }
        let choice = &event["choices"][0];
        if let Some(finish) = choice["finish_reason"].as_str() {
            self.finish_reason = Some(finish.to_owned());
        }
        let delta = &choice["delta"];
        let text_of = |key: &str| delta[key].as_str().filter(|text| !text.is_empty());
        let reasons = text_of("reasoning_content").or_else(|| text_of("reasoning")).is_some();
        // A refusal is the answer that there is.
        let text = text_of("content").or_else(|| text_of("refusal"));
        if reasons || text.is_some() {
            self.shows_reasoning |= reasons;
            self.first_token.get_or_insert(at);
            self.last_token = at;
        }
        text.map_or(Ok(()), |text| self.push_text(text))
    }

    fn push_text(&mut self, text: &str) -> Result<(), CliError> {
        self.text.push_str(text);
        match self.sink {
            AnswerSink::Buffer => Ok(()),
            AnswerSink::Raw => output::print(text),
            AnswerSink::Terminal => output::print(&sanitize_for_terminal(text)),
        }
    }

    /// Tokens per second while the model generated: without the wait for the first token, and
    /// without reasoning that the provider did not send. An answer that arrived at once counts from
    /// the request. `None` if the provider reported no tokens.
    pub(super) fn tokens_per_second(&self) -> Option<f64> {
        let (usage, first) = (self.usage?, self.first_token?);
        let hidden = if self.shows_reasoning { 0 } else { usage.reasoning };
        let tokens = usage.output.saturating_sub(hidden);
        let streamed = self.last_token.saturating_sub(first);
        // The first token is there when the measured time begins.
        let (tokens, span) = if streamed >= MIN_STREAMED {
            (tokens.saturating_sub(1), streamed)
        } else {
            (tokens, self.total)
        };
        let tokens = f64::from(u32::try_from(tokens).unwrap_or(u32::MAX));
        (tokens > 0.0 && !span.is_zero()).then(|| tokens / span.as_secs_f64())
    }
}

fn read_usage(usage: &Value) -> AnswerUsage {
    let count = |value: &Value| value.as_u64().unwrap_or(0);
    AnswerUsage {
        input: count(&usage["prompt_tokens"]),
        output: count(&usage["completion_tokens"]),
        reasoning: count(&usage["completion_tokens_details"]["reasoning_tokens"]),
    }
}

/// Sanitizes model output for a terminal: keeps line breaks and tabs, removes other control
/// characters.
fn sanitize_for_terminal(text: &str) -> String {
    text.split_inclusive(['\n', '\t'])
        .map(|part| match part.as_bytes().last() {
            Some(&end @ (b'\n' | b'\t')) => {
                format!("{}{}", clean(&part[..part.len() - 1]), char::from(end))
            }
            _ => clean(part).into_owned(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// The answer after these events, one every 100 ms, the first after 500 ms.
    fn answer_of(events: &[Value]) -> StreamedAnswer {
        let mut answer = StreamedAnswer::default();
        let mut at = ms(500);
        for event in events {
            answer.push_event(format!("data: {event}\n\n").as_bytes(), at).unwrap();
            at += ms(100);
        }
        answer.push_event(b"data: [DONE]\n\n", at).unwrap();
        answer.total = at;
        answer
    }

    fn delta(delta: &Value) -> Value {
        serde_json::json!({ "model": "m", "choices": [{ "delta": delta }] })
    }

    fn usage(output: u64, reasoning: u64) -> Value {
        serde_json::json!({ "choices": [], "usage": {
            "prompt_tokens": 11, "completion_tokens": output,
            "completion_tokens_details": { "reasoning_tokens": reasoning },
        } })
    }

    fn text(text: &str) -> Value {
        delta(&serde_json::json!({ "content": text }))
    }

    #[test]
    fn deltas_are_joined_and_the_end_is_detected() {
        let end = serde_json::json!({ "choices": [{ "delta": {}, "finish_reason": "stop" }] });
        let answer = answer_of(&[
            delta(&serde_json::json!({ "role": "assistant", "content": "" })),
            text("hel"),
            text("lo"),
            end,
            usage(7, 0),
        ]);

        assert!(answer.is_complete && answer.text == "hello");
        assert_eq!(
            (answer.finish_reason.as_deref(), answer.model.as_deref()),
            (Some("stop"), Some("m"))
        );
        assert_eq!((answer.first_token, answer.last_token), (Some(ms(600)), ms(700)));
        assert_eq!(answer.usage, Some(AnswerUsage { input: 11, output: 7, reasoning: 0 }));

        let mut answer = StreamedAnswer::default();
        let error = answer
            .push_event(b"data: {\"error\":{\"message\":\"upstream broke\"}}\n\n", ms(1))
            .unwrap_err();
        assert_eq!((error.text.as_str(), answer.is_complete), ("upstream broke", false));
    }

    #[test]
    fn speed_counts_the_generation_only() {
        let speed = |answer: StreamedAnswer| answer.tokens_per_second().map(f64::round);
        // Five tokens, one every 100 ms.
        let five = ["a", "b", "c", "d", "e"].map(text);
        assert_eq!(speed(answer_of(&[&five[..], &[usage(5, 0)]].concat())), Some(10.0));
        // 100 tokens of reasoning that did not arrive.
        assert_eq!(speed(answer_of(&[&five[..], &[usage(105, 100)]].concat())), Some(10.0));
        // Reasoning that did arrive.
        let thought = delta(&serde_json::json!({ "reasoning_content": "hm" }));
        let visible = answer_of(&[&[thought], &five[..], &[usage(6, 1)]].concat());
        assert_eq!((visible.first_token, speed(visible)), (Some(ms(500)), Some(10.0)));
        // The whole answer in one event, at 500 of 700 ms.
        assert_eq!(speed(answer_of(&[text("abcde"), usage(7, 0)])), Some(10.0));
        assert_eq!(speed(answer_of(&five)), None);
    }

    #[test]
    fn model_output_cannot_control_the_terminal() {
        let shown = sanitize_for_terminal("a\n\tb\u{1b}[2Jc");
        assert!(shown.starts_with("a\n\tb") && !shown.contains('\u{1b}'), "{shown:?}");
    }
}
