//! Reads an answer's chunks. Each holds whole parts; what follows of the same kind goes on in the
//! same block.

use std::borrow::Cow;

use crate::{
    base::{
        json::{self, JsonErrorKind, JsonRef},
        raw::RawJson,
    },
    dialect::{
        Carry, StreamReader, Summary, fault,
        gemini::{
            cited_read::{self, Heard},
            finish, meter,
            wire::{self, FINISHES},
        },
        shape,
    },
    ir::{
        block::{CallKind, Media, MediaSource, ReasoningSignature},
        blocks::OpenBlocks,
        event::{BlockStart, ChatEvent},
        fault::Fault,
        op::Dialect,
        response::{Finish, FinishKind},
        usage::Usage,
    },
};

pub(super) struct ContentReader {
    carry: Carry,
    blocks: OpenBlocks,
    events: u32,
    begun: bool,
    ended: bool,
    /// Ids of calls that were told.
    calls: Vec<String>,
    /// The text block that is open, and whether a signature has sealed it.
    said: Option<u32>,
    sealed: bool,
    heard: Heard,
    /// The latest grounding; later ones hold the earlier.
    grounding: Option<RawJson>,
    citations: Option<RawJson>,
    finish: Option<(FinishKind, String)>,
    model: Option<String>,
    /// The latest usage, as it was told.
    usage: String,
}

/// A chunk's members.
#[derive(Default)]
struct Chunk<'a> {
    candidates: Option<JsonRef<'a>>,
    created: Option<JsonRef<'a>>,
    error: bool,
    feedback: Option<JsonRef<'a>>,
    id: Option<JsonRef<'a>>,
    model: Option<JsonRef<'a>>,
    usage: Option<JsonRef<'a>>,
}

#[derive(Default)]
struct Candidate<'a> {
    content: Option<JsonRef<'a>>,
    finish: Option<JsonRef<'a>>,
    message: Option<JsonRef<'a>>,
    index: u64,
    grounding: Option<JsonRef<'a>>,
    citations: Option<JsonRef<'a>>,
    logprobs: Option<JsonRef<'a>>,
}

#[derive(Default)]
struct Part<'a> {
    text: Option<Cow<'a, str>>,
    thought: bool,
    signature: Option<Cow<'a, str>>,
    call: Option<JsonRef<'a>>,
    inline: Option<JsonRef<'a>>,
    file: Option<JsonRef<'a>>,
    other: bool,
}

impl ContentReader {
    pub(super) fn new(carry: &Carry) -> Self {
        Self {
            carry: carry.clone(),
            blocks: OpenBlocks::default(),
            events: 0,
            begun: false,
            ended: false,
            calls: Vec::new(),
            said: None,
            sealed: false,
            heard: Heard::default(),
            grounding: None,
            citations: None,
            finish: None,
            model: None,
            usage: String::new(),
        }
    }

    /// One chunk, or an answer that came whole.
    pub(super) fn chunk(
        &mut self,
        json: JsonRef<'_>,
        error: bool,
        out: &mut Vec<ChatEvent>,
    ) -> Result<(), Box<Fault>> {
        let chunk = Chunk::read(json);
        if error || chunk.error {
            return Err(Box::new(fault::told(None, json)));
        }
        if let Some(usage) = chunk.usage {
            self.usage.clear();
            self.usage.push_str(usage.text());
        }
        if self.model.is_none() {
            self.model = shape::name(chunk.model);
        }
        if !self.begun {
            self.begun = true;
            out.push(ChatEvent::Begin {
                id: shape::name(chunk.id).unwrap_or_default(),
                model: self.model.clone().unwrap_or_default(),
                created: chunk
                    .created
                    .and_then(JsonRef::str)
                    .and_then(|at| at.parse().ok())
                    .map(jiff::Timestamp::as_second),
                usage: self.counted(),
            });
        }
        if let Some(reason) =
            chunk.feedback.and_then(|feedback| shape::name(feedback.get("blockReason")))
        {
            self.finish = Some((FinishKind::ContentFilter, reason));
        }
        // Other candidates than the first are nobody's.
        let candidates = chunk.candidates.into_iter().flat_map(JsonRef::items);
        if let Some(candidate) =
            candidates.map(Candidate::read).find(|candidate| candidate.index == 0)
        {
            self.candidate(&candidate, out)?;
        }
        Ok(())
    }

    fn candidate(
        &mut self,
        candidate: &Candidate<'_>,
        out: &mut Vec<ChatEvent>,
    ) -> Result<(), Box<Fault>> {
        let over = self.finish.is_some() && candidate.finish.is_none();
        let parts =
            candidate.content.filter(|_| !over).and_then(|content| wire::member(content, "parts"));
        for part in parts.into_iter().flat_map(wire::list) {
            self.part(part, out);
        }
        if let Some(logprobs) = candidate.logprobs.and_then(cited_read::logprobs) {
            out.push(ChatEvent::Logprobs(logprobs));
        }
        let told = |json: Option<JsonRef<'_>>| {
            json.filter(|json| !json.is_blank()).map(RawJson::from_json)
        };
        self.grounding = told(candidate.grounding).or(self.grounding.take());
        self.citations = told(candidate.citations).or(self.citations.take());
        let Some(reason) = candidate.finish.and_then(|finish| wire::word(finish, FINISHES)) else {
            return Ok(());
        };
        match finish::kind_of(&reason) {
            _ if reason.is_empty() || reason == FINISHES[0] => {}
            Some(kind) => self.finish = Some((kind, reason.into_owned())),
            None => {
                return Err(Box::new(finish::failure(
                    &reason,
                    candidate.message.and_then(JsonRef::str).as_deref(),
                )));
            }
        }
        Ok(())
    }

    fn part(&mut self, json: JsonRef<'_>, out: &mut Vec<ChatEvent>) {
        let part = Part::read(json);
        let proof = part.signature.map(wire::signature);
        if let Some(call) = part.call {
            self.call(call, proof, out);
        } else if let Some(media) = part.inline.map(inline).or_else(|| part.file.map(file)) {
            self.leave(out);
            self.blocks.push_complete(BlockStart::Media(media), proof, out);
        } else if part.other && part.text.is_none() {
            self.leave(out);
            self.blocks.push_complete(
                BlockStart::Foreign { dialect: Dialect::Gemini, body: RawJson::from_json(json) },
                None,
                out,
            );
        } else {
            self.prose(&part.text.unwrap_or_default(), part.thought, proof, out);
        }
    }

    fn prose(
        &mut self,
        text: &str,
        thought: bool,
        proof: Option<ReasoningSignature>,
        out: &mut Vec<ChatEvent>,
    ) {
        if text.is_empty() && proof.is_none() {
            return;
        }
        // A signature stands for all that came before it, and for nothing after.
        if thought || self.sealed {
            self.leave(out);
        }
        if std::mem::take(&mut self.sealed) {
            self.blocks.close_all(out);
        }
        let head = if thought { BlockStart::Reasoning { summary: true } } else { BlockStart::Text };
        self.blocks.push_prose(head.clone(), text, out);
        if let Some(proof) = proof {
            self.blocks.push_signature(head, proof, out);
            self.sealed = true;
        }
        if !thought {
            if self.said.is_none() {
                self.heard = Heard::default();
            }
            self.said = self.blocks.current_prose();
            self.heard.push(text);
        }
    }

    fn call(
        &mut self,
        call: JsonRef<'_>,
        proof: Option<ReasoningSignature>,
        out: &mut Vec<ChatEvent>,
    ) {
        self.leave(out);
        let key = self.calls.len() as u64;
        let given = wire::string(call, "id")
            .map(Cow::into_owned)
            .filter(|id| !id.is_empty() && !self.calls.contains(id));
        let id = given.unwrap_or_else(|| format!("call_{}_{key}", self.carry.seed));
        self.calls.push(id.clone());
        let name = wire::string(call, "name").unwrap_or_default();
        let block = self.blocks.start_call(
            key,
            id,
            self.carry.name(&name).to_owned(),
            CallKind::Function,
            out,
        );
        let arguments = wire::member(call, "args").map_or("{}", JsonRef::text);
        self.blocks.push_arguments(key, arguments, out);
        if let Some(proof) = proof {
            out.push(ChatEvent::Signature { block, signature: proof });
        }
        self.blocks.close_all(out);
        self.sealed = false;
    }

    /// Something else than text begins: what supports the text that was said is told while it can
    /// be.
    fn leave(&mut self, out: &mut Vec<ChatEvent>) {
        let Some(block) = self.said.take() else { return };
        let mut told = Vec::new();
        if let Some(grounding) = self.grounding.take() {
            cited_read::grounding(grounding.json(), &self.heard, &mut told);
        }
        if let Some(citations) = self.citations.take() {
            cited_read::sources(citations.json(), &self.heard, &mut told);
        }
        out.extend(told.into_iter().map(|citation| ChatEvent::Citation { block, citation }));
    }

    /// The answer is whole, whether or not it says why it ended.
    pub(super) fn whole(&mut self, out: &mut Vec<ChatEvent>) {
        let kind = FinishKind::Stop;
        self.finish.get_or_insert_with(|| (kind, String::new()));
        self.end(out);
    }

    fn counted(&self) -> Option<Usage> {
        json::parse(self.usage.as_bytes()).ok().and_then(meter::usage)
    }
}

impl StreamReader for ContentReader {
    fn event(
        &mut self,
        name: &[u8],
        data: &[u8],
        out: &mut Vec<ChatEvent>,
    ) -> Result<(), Box<Fault>> {
        if self.ended || data.len() < 20 && data.trim_ascii() == b"[DONE]" {
            return Ok(());
        }
        self.events = self.events.saturating_add(1);
        let bad = |bad| Box::new(fault::bad_event(self.events, bad, data));
        match json::parse(data) {
            Ok(json) if json.is_object() => self.chunk(json, name == b"error", out),
            Ok(json) if fault::is_error(json) => Err(Box::new(fault::told(None, json))),
            Ok(_) => Err(bad(json::JsonError { kind: JsonErrorKind::NotAnObject, offset: 0 })),
            Err(_) if name == b"error" && !data.starts_with(b"{") => {
                Err(Box::new(fault::said(data)))
            }
            Err(flaw) => Err(bad(flaw)),
        }
    }

    /// A finish reason may be followed by usage, so only the body's end is the end.
    fn end(&mut self, out: &mut Vec<ChatEvent>) -> bool {
        if self.ended {
            return true;
        }
        let Some((kind, said)) = self.finish.clone() else { return false };
        self.leave(out);
        self.blocks.close_all(out);
        let kind = if kind == FinishKind::Stop && self.blocks.has_calls() {
            FinishKind::ToolCalls
        } else {
            kind
        };
        let tier = json::parse(self.usage.as_bytes())
            .ok()
            .and_then(|usage| shape::name(usage.get("serviceTier")));
        out.push(ChatEvent::End {
            finish: Finish {
                kind,
                raw_reason: Some(said).filter(|said| !said.is_empty()),
                stop_sequence: None,
            },
            usage: self.counted(),
            service_tier: tier,
        });
        self.ended = true;
        true
    }

    fn summary(&self) -> Summary {
        Summary {
            usage: self.counted(),
            finish: self
                .finish
                .as_ref()
                .map(|(_, said)| said.clone())
                .filter(|said| !said.is_empty()),
            model: self.model.clone(),
        }
    }
}

impl<'a> Chunk<'a> {
    fn read(json: JsonRef<'a>) -> Self {
        let mut chunk = Self::default();
        for (key, value) in json.members() {
            let value = || Some(value).filter(|value| value.kind() != "null");
            match key {
                "candidates" => chunk.candidates = value(),
                "createTime" | "create_time" => chunk.created = value(),
                "error" => {
                    chunk.error = value().is_some_and(|value| {
                        matches!(value.kind(), "object" | "string") && !value.is_blank()
                    })
                }
                "promptFeedback" | "prompt_feedback" => chunk.feedback = value(),
                "responseId" | "response_id" => chunk.id = value(),
                "modelVersion" | "model_version" => chunk.model = value(),
                "usageMetadata" | "usage_metadata" => {
                    chunk.usage = value().filter(|usage| usage.text().contains("TokenCount"))
                }
                _ => {}
            }
        }
        chunk
    }
}

impl<'a> Candidate<'a> {
    fn read(json: JsonRef<'a>) -> Self {
        let mut candidate = Self::default();
        for (key, value) in json.members() {
            let value = Some(value).filter(|value| value.kind() != "null");
            match key {
                "content" => candidate.content = value,
                "finishReason" | "finish_reason" => candidate.finish = value,
                "finishMessage" | "finish_message" => candidate.message = value,
                "index" => candidate.index = value.and_then(JsonRef::u64).unwrap_or(0),
                "groundingMetadata" | "grounding_metadata" => candidate.grounding = value,
                "citationMetadata" | "citation_metadata" => candidate.citations = value,
                "logprobsResult" | "logprobs_result" => candidate.logprobs = value,
                _ => {}
            }
        }
        candidate
    }
}

impl<'a> Part<'a> {
    fn read(json: JsonRef<'a>) -> Self {
        let mut part = Self::default();
        if let Some(text) = json.str() {
            part.text = Some(text);
        }
        for (key, value) in json.members().filter(|(_, value)| value.kind() != "null") {
            match key {
                "text" => part.text = value.str(),
                "thought" => part.thought = value.bool() == Some(true),
                "thoughtSignature" | "thought_signature" => {
                    part.signature = value.str().filter(|text| !text.is_empty())
                }
                "functionCall" | "function_call" => part.call = Some(value),
                "inlineData" | "inline_data" => part.inline = Some(value),
                "fileData" | "file_data" => part.file = Some(value),
                _ => part.other = true,
            }
        }
        part
    }
}

fn inline(value: JsonRef<'_>) -> Media {
    let mime = wire::string(value, "mimeType").map(Cow::into_owned);
    Media {
        kind: wire::kind_of(mime.as_deref().unwrap_or_default()),
        source: MediaSource::Base64(wire::string(value, "data").unwrap_or_default().into_owned()),
        mime,
        name: None,
        detail: None,
    }
}

fn file(value: JsonRef<'_>) -> Media {
    let mime = wire::string(value, "mimeType").map(Cow::into_owned);
    Media {
        kind: wire::kind_of(mime.as_deref().unwrap_or_default()),
        source: MediaSource::Url(wire::string(value, "fileUri").unwrap_or_default().into_owned()),
        mime,
        name: None,
        detail: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(chunks: &[&str]) -> (Vec<ChatEvent>, Option<Box<Fault>>, bool) {
        let carry =
            Carry { renamed: vec![("_f".to_owned(), "f".to_owned())], seed: "s".to_owned() };
        let (mut reader, mut out, mut fault) = (ContentReader::new(&carry), Vec::new(), None);
        for chunk in chunks {
            fault = reader.event(b"", chunk.as_bytes(), &mut out).err().or(fault);
        }
        let done = fault.is_none() && reader.end(&mut out);
        crate::ir::grammar::validate_events(&out).expect("well formed");
        (out, fault, done)
    }

    fn finished(events: &[ChatEvent]) -> (FinishKind, Option<&str>) {
        match events.last() {
            Some(ChatEvent::End { finish, .. }) => (finish.kind, finish.raw_reason.as_deref()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn finish_reasons_are_understood() {
        for (reason, want) in [
            ("1", (FinishKind::Stop, Some("STOP"))),
            ("\"OTHER\"", (FinishKind::Stop, Some("OTHER"))),
            ("2", (FinishKind::Length, Some("MAX_TOKENS"))),
            ("\"SPII\"", (FinishKind::ContentFilter, Some("SPII"))),
            ("\"NEWS\"", (FinishKind::Stop, Some("NEWS"))),
        ] {
            let chunk = format!(
                r#"{{"candidates":[{{"finishReason":{reason}}}],"usageMetadata":{{"promptTokenCount":1}}}}"#
            );
            let (events, _, done) = said(&[&chunk]);
            assert_eq!((finished(&events), done), (want, true), "{reason}");
        }
        let (events, _, done) = said(&[r#"{"promptFeedback":{"blockReason":"SAFETY"}}"#]);
        assert_eq!((finished(&events), done), ((FinishKind::ContentFilter, Some("SAFETY")), true));
        let (_, fault, _) = said(&[
            r#"{"candidates":[{"finishReason":"MALFORMED_FUNCTION_CALL","finishMessage":"bad call"}]}"#,
        ]);
        assert_eq!(fault.expect("a fault").message, "bad call (MALFORMED_FUNCTION_CALL)");
    }

    /// Pains 5 and 6: calls of one chunk stay apart; without a finish reason nothing is complete.
    #[test]
    fn calls_have_ids_and_their_clients_names() {
        let chunk = r#"{"candidates":[{"content":{"parts":[{"functionCall":{"name":"_f","args":{"a": 1}},"thoughtSignature":"x_-"},
            {"functionCall":{"id":"own","name":"g"}},{"functionCall":{"id":"own","name":"h","args":null}}]}}]}"#;
        let (events, _, done) = said(&[chunk]);
        assert!(!done);
        let (events_with_end, _, _) =
            said(&[chunk, r#"{"candidates":[{"finishReason":"STOP"}]}"#, "[DONE]"]);
        assert_eq!(finished(&events_with_end).0, FinishKind::ToolCalls);
        let calls: Vec<_> = events
            .iter()
            .filter_map(|event| match event {
                ChatEvent::Open { head: BlockStart::ToolCall { id, name, .. }, .. } => {
                    Some(format!("{id} {name}"))
                }
                ChatEvent::Delta { text, .. } => Some(text.clone()),
                ChatEvent::Signature { signature: proof, .. } => Some(proof.value.clone()),
                _ => None,
            })
            .collect();
        assert_eq!(calls, ["call_s_0 f", "{\"a\": 1}", "x_-", "own g", "{}", "call_s_2 h", "{}"]);
    }

    #[test]
    fn a_signature_seals_what_came_before_it() {
        let text = |text: &str, more: &str| {
            format!(r#"{{"candidates":[{{"content":{{"parts":[{{"text":"{text}"{more}}}]}}}}]}}"#)
        };
        let (events, _, done) = said(&[
            &text("a", r#","thought":true"#),
            &text("b", ""),
            &text("c", r#","thoughtSignature":"1""#),
            &text("d", ""),
            &text("", r#","thoughtSignature":"2""#),
            r#"{"candidates":[{"content":{"parts":[{"toolCall":{}},{"inlineData":{"mimeType":"image/png","data":"aa"}}]},"finishReason":"STOP"}]}"#,
        ]);
        let shape: Vec<String> = events
            .iter()
            .map(|event| match event {
                ChatEvent::Open { block, head } => {
                    format!(
                        "open {block} {}",
                        format!("{head:?}").split([' ', '(']).next().unwrap_or_default()
                    )
                }
                ChatEvent::Delta { block, text } => format!("{block} {text}"),
                ChatEvent::Signature { block, signature: proof } => {
                    format!("{block} signed {}", proof.value)
                }
                ChatEvent::Close { block } => format!("close {block}"),
                _ => String::new(),
            })
            .filter(|line| !line.is_empty())
            .collect();
        assert_eq!(
            shape.join(", "),
            "open 0 Reasoning, 0 a, close 0, open 1 Text, 1 b, 1 c, 1 signed 1, close 1, open 2 Text, 2 d, 2 signed 2, close 2, open 3 Foreign, close 3, open 4 Media, close 4"
        );
        assert!(done);
    }

    #[test]
    fn errors_and_noise_are_faults() {
        for bad in [
            "[]",
            "nope",
            r#"{"error":{"code":429,"message":"m"}}"#,
            r#"[{"error":{"code":500,"message":"m"}}]"#,
        ] {
            assert!(said(&[bad]).1.is_some(), "{bad}");
        }
        assert!(said(&[r#"{"candidates":null,"new":1}"#]).1.is_none());
    }
}
