//! Reads an answer's chunks. Each contains whole parts; adjacent parts of the same kind extend one
//! block.

use crate::{
    base::json::{
        raw::RawJson,
        reader::{self, JsonRef},
    },
    dialect::{
        answer_call_ids::AnswerCallIds,
        egress::{AttemptContext, StreamReader},
        errors::read_error,
        event_json,
        gemini::{
            chunk_read::{GeminiCandidate, GeminiChunk, GeminiPart},
            field_names::{self, FINISH_REASONS},
            finish,
            grounding_read::{self, TextOffsets},
            meter,
        },
        json_body,
        meter::AnswerSummary,
    },
    ir::{
        block::{CallKind, ReasoningSignature},
        event::{BlockStart, ChatEvent},
        fault::Fault,
        op::Dialect,
        open_blocks::OpenBlocks,
        response::{Finish, FinishKind},
        usage::Usage,
    },
};

pub(super) struct ContentStreamReader {
    context: AttemptContext,
    blocks: OpenBlocks,
    event_count: u32,
    started: bool,
    ended: bool,
    call_ids: AnswerCallIds,
    /// The open text block; `sealed` is set when a signature has ended it.
    text_block: Option<u32>,
    sealed: bool,
    text_offsets: TextOffsets,
    /// The latest grounding metadata; each one includes the earlier ones.
    grounding: Option<RawJson>,
    /// The searches as an item of Responses, the common form of them.
    search: Option<RawJson>,
    citations: Option<RawJson>,
    finish: Option<(FinishKind, String)>,
    model: Option<String>,
    /// The latest usage, verbatim.
    usage_json: String,
}

impl ContentStreamReader {
    pub(super) fn new(context: &AttemptContext) -> Self {
        Self {
            context: context.clone(),
            blocks: OpenBlocks::default(),
            event_count: 0,
            started: false,
            ended: false,
            call_ids: AnswerCallIds::new(&context.call_id_seed),
            text_block: None,
            sealed: false,
            text_offsets: TextOffsets::default(),
            grounding: None,
            search: None,
            citations: None,
            finish: None,
            model: None,
            usage_json: String::new(),
        }
    }

    /// Reads one chunk or a complete response.
    pub(super) fn read_chunk(
        &mut self,
        json: JsonRef<'_>,
        error: bool,
        out: &mut Vec<ChatEvent>,
    ) -> Result<(), Box<Fault>> {
        let chunk = GeminiChunk::read(json);
        if error || chunk.has_error {
            return Err(Box::new(read_error::from_json(None, json)));
        }
        if let Some(usage) = chunk.usage {
            self.usage_json.clear();
            self.usage_json.push_str(usage.text());
        }
        if self.model.is_none() {
            self.model = json_body::clean_name(chunk.model);
        }
        if !self.started {
            self.started = true;
            out.push(ChatEvent::Begin {
                id: json_body::clean_name(chunk.id).unwrap_or_default(),
                model: self.model.clone().unwrap_or_default(),
                created: chunk
                    .created
                    .and_then(JsonRef::str)
                    .and_then(|at| at.parse().ok())
                    .map(jiff::Timestamp::as_second),
                usage: self.parse_usage(),
            });
        }
        if let Some(reason) = chunk
            .prompt_feedback
            .and_then(|feedback| json_body::clean_name(feedback.get("blockReason")))
        {
            self.finish = Some((FinishKind::ContentFilter, reason));
        }
        // Only the first candidate is read.
        let candidates = chunk.candidates.into_iter().flat_map(JsonRef::items);
        if let Some(candidate) =
            candidates.map(GeminiCandidate::read).find(|candidate| candidate.index == 0)
        {
            self.read_candidate(&candidate, out)?;
        }
        Ok(())
    }

    fn read_candidate(
        &mut self,
        candidate: &GeminiCandidate<'_>,
        out: &mut Vec<ChatEvent>,
    ) -> Result<(), Box<Fault>> {
        // Code execution streams a finish reason with each result and continues, so that only the end
        // of the body ends the answer.
        let parts = candidate.content.and_then(|content| field_names::member(content, "parts"));
        for part in parts.into_iter().flat_map(field_names::elements) {
            self.read_part(part, out);
        }
        if let Some(logprobs) = candidate.logprobs.and_then(grounding_read::read_logprobs) {
            out.push(ChatEvent::Logprobs(logprobs));
        }
        let non_blank = |json: Option<JsonRef<'_>>| {
            json.filter(|json| !json.is_blank()).map(RawJson::from_json)
        };
        self.grounding = non_blank(candidate.grounding).or(self.grounding.take());
        self.citations = non_blank(candidate.citations).or(self.citations.take());
        let Some(reason) = candidate
            .finish_reason
            .and_then(|finish| field_names::enum_word(finish, FINISH_REASONS))
        else {
            return Ok(());
        };
        match finish::finish_kind(&reason) {
            _ if reason.is_empty() || reason == FINISH_REASONS[0] => {}
            Some(kind) => self.finish = Some((kind, reason.into_owned())),
            None => {
                return Err(Box::new(finish::finish_fault(
                    &reason,
                    candidate.finish_message.and_then(JsonRef::str).as_deref(),
                )));
            }
        }
        Ok(())
    }

    fn read_part(&mut self, json: JsonRef<'_>, out: &mut Vec<ChatEvent>) {
        let part = GeminiPart::read(json);
        let media = part.media();
        let proof = part.signature.map(field_names::new_signature);
        if let Some(call) = part.call {
            self.read_call(call, proof, out);
        } else if let Some(media) = media {
            self.flush_citations(out);
            self.blocks.push_complete(BlockStart::Media(media), proof, out);
        } else if part.has_other && part.text.is_none() {
            self.flush_citations(out);
            self.blocks.push_complete(
                BlockStart::Foreign { dialect: Dialect::Gemini, body: RawJson::from_json(json) },
                None,
                out,
            );
        } else {
            self.read_text(&part.text.unwrap_or_default(), part.thought, proof, out);
        }
    }

    fn read_text(
        &mut self,
        text: &str,
        thought: bool,
        proof: Option<ReasoningSignature>,
        out: &mut Vec<ChatEvent>,
    ) {
        if text.is_empty() && proof.is_none() {
            return;
        }
        // A signature covers the text before it, and none of the text after it.
        if thought || self.sealed {
            self.flush_citations(out);
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
            if self.text_block.is_none() {
                self.text_offsets = TextOffsets::default();
            }
            self.text_block = self.blocks.current_prose();
            self.text_offsets.push(text);
        }
    }

    fn read_call(
        &mut self,
        call: JsonRef<'_>,
        proof: Option<ReasoningSignature>,
        out: &mut Vec<ChatEvent>,
    ) {
        self.flush_citations(out);
        let key = self.call_ids.count() as u64;
        let id = self.call_ids.assign(field_names::string_member(call, "id").as_deref());
        let name = field_names::string_member(call, "name").unwrap_or_default();
        let block = self.blocks.start_call(
            key,
            id,
            self.context.client_tool_name(&name).to_owned(),
            CallKind::Function,
            out,
        );
        let arguments = field_names::member(call, "args").map_or("{}", JsonRef::text);
        self.blocks.push_arguments(key, arguments, out);
        if let Some(proof) = proof {
            out.push(ChatEvent::Signature { block, signature: proof });
        }
        self.blocks.close_all(out);
        self.sealed = false;
    }

    /// Emits the citations of the open text block before content of another kind begins.
    /// Keeps the searches that the grounding names, which is used up by the text before it.
    fn note_search(&mut self) {
        let seed = &self.context.call_id_seed;
        let grounding = self.grounding.as_ref();
        let search = grounding.and_then(|raw| grounding_read::read_search(raw.json(), seed));
        self.search = search.or(self.search.take());
    }

    fn flush_citations(&mut self, out: &mut Vec<ChatEvent>) {
        self.note_search();
        let Some(block) = self.text_block.take() else { return };
        let mut resolved = Vec::new();
        if let Some(grounding) = self.grounding.take() {
            grounding_read::read_grounding(grounding.json(), &self.text_offsets, &mut resolved);
        }
        if let Some(citations) = self.citations.take() {
            grounding_read::read_citation_sources(
                citations.json(),
                &self.text_offsets,
                &mut resolved,
            );
        }
        out.extend(resolved.into_iter().map(|citation| ChatEvent::Citation { block, citation }));
    }

    /// Ends an answer that is complete, with or without a finish reason.
    pub(super) fn end_complete(&mut self, out: &mut Vec<ChatEvent>) {
        let kind = FinishKind::Stop;
        self.finish.get_or_insert_with(|| (kind, String::new()));
        self.read_eof(out);
    }

    fn parse_usage(&self) -> Option<Usage> {
        reader::parse(self.usage_json.as_bytes()).ok().and_then(meter::read_usage)
    }
}

impl StreamReader for ContentStreamReader {
    fn read_event(
        &mut self,
        name: &[u8],
        data: &[u8],
        out: &mut Vec<ChatEvent>,
    ) -> Result<(), Box<Fault>> {
        if self.ended || event_json::is_done(data) {
            return Ok(());
        }
        self.event_count = self.event_count.saturating_add(1);
        let chunk = event_json::read(name, data, self.event_count)?;
        self.read_chunk(chunk, name == b"error", out)
    }

    /// Usage may follow a finish reason, so only the end of the body ends the answer.
    fn read_eof(&mut self, out: &mut Vec<ChatEvent>) -> bool {
        if self.ended {
            return true;
        }
        let Some((kind, reason)) = self.finish.clone() else { return false };
        self.flush_citations(out);
        if let Some(body) = self.search.take() {
            let head = BlockStart::Foreign { dialect: Dialect::Responses, body };
            self.blocks.push_complete(head, None, out);
        }
        self.blocks.close_all(out);
        let kind = if kind == FinishKind::Stop && self.blocks.has_calls() {
            FinishKind::ToolCalls
        } else {
            kind
        };
        let tier = reader::parse(self.usage_json.as_bytes())
            .ok()
            .and_then(|usage| json_body::clean_name(usage.get("serviceTier")));
        out.push(ChatEvent::End {
            finish: Finish {
                kind,
                raw_reason: Some(reason).filter(|reason| !reason.is_empty()),
                stop_sequence: None,
            },
            usage: self.parse_usage(),
            service_tier: tier,
        });
        self.ended = true;
        true
    }

    fn summary(&self) -> AnswerSummary {
        AnswerSummary {
            usage: self.parse_usage(),
            finish_reason: self
                .finish
                .as_ref()
                .map(|(_, reason)| reason.clone())
                .filter(|reason| !reason.is_empty()),
            model: self.model.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_chunks(chunks: &[&str]) -> (Vec<ChatEvent>, Option<Box<Fault>>, bool) {
        let carry = AttemptContext {
            renamed_tools: vec![("_f".to_owned(), "f".to_owned())],
            call_id_seed: "s".to_owned(),
        };
        let (mut reader, mut out, mut fault) = (ContentStreamReader::new(&carry), Vec::new(), None);
        for chunk in chunks {
            fault = reader.read_event(b"", chunk.as_bytes(), &mut out).err().or(fault);
        }
        let done = fault.is_none() && reader.read_eof(&mut out);
        crate::ir::validate::validate_events(&out).expect("well formed");
        (out, fault, done)
    }

    fn finished(events: &[ChatEvent]) -> (FinishKind, Option<&str>) {
        match events.last() {
            Some(ChatEvent::End { finish, .. }) => (finish.kind, finish.raw_reason.as_deref()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn finish_reasons_are_mapped() {
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
            let (events, _, done) = read_chunks(&[&chunk]);
            assert_eq!((finished(&events), done), (want, true), "{reason}");
        }
        let (events, _, done) = read_chunks(&[r#"{"promptFeedback":{"blockReason":"SAFETY"}}"#]);
        assert_eq!((finished(&events), done), ((FinishKind::ContentFilter, Some("SAFETY")), true));
        let (_, fault, _) = read_chunks(&[
            r#"{"candidates":[{"finishReason":"MALFORMED_FUNCTION_CALL","finishMessage":"bad call"}]}"#,
        ]);
        assert_eq!(fault.expect("a fault").message, "bad call (MALFORMED_FUNCTION_CALL)");
    }

    /// Pains 5 and 6: the calls of one chunk stay separate, and an answer without a finish reason
    /// is incomplete.
    #[test]
    fn calls_have_ids_and_the_names_of_the_client() {
        let chunk = r#"{"candidates":[{"content":{"parts":[{"functionCall":{"name":"_f","args":{"a": 1}},"thoughtSignature":"x_-"},
            {"functionCall":{"id":"own","name":"g"}},{"functionCall":{"id":"own","name":"h","args":null}}]}}]}"#;
        let (events, _, done) = read_chunks(&[chunk]);
        assert!(!done);
        let (events_with_end, _, _) =
            read_chunks(&[chunk, r#"{"candidates":[{"finishReason":"STOP"}]}"#, "[DONE]"]);
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
    fn signature_belongs_to_the_preceding_block() {
        let text = |text: &str, more: &str| {
            format!(r#"{{"candidates":[{{"content":{{"parts":[{{"text":"{text}"{more}}}]}}}}]}}"#)
        };
        let (events, _, done) = read_chunks(&[
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
    fn errors_and_invalid_chunks_are_faults() {
        for bad in [
            "[]",
            "nope",
            r#"{"error":{"code":429,"message":"m"}}"#,
            r#"[{"error":{"code":500,"message":"m"}}]"#,
        ] {
            assert!(read_chunks(&[bad]).1.is_some(), "{bad}");
        }
        assert!(read_chunks(&[r#"{"candidates":null,"new":1}"#]).1.is_none());
    }
}
