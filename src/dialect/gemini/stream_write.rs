//! Writes an answer as chunks, each in the format of a complete response.

use std::collections::VecDeque;

use crate::{
    base::{
        framing::Framing,
        json::writer::{self, ArrayWriter, ObjectWriter},
    },
    dialect::{
        gemini::{
            error, field_names, finish, part_write,
            response_parts::{self, PlacedCitation},
        },
        ingress::{ResponseSpec, StreamWriter},
    },
    ir::{
        block::{Media, ReasoningSignature, ToolCall},
        event::{BlockStart, ChatEvent},
        fault::ProxyError,
        op::Dialect,
    },
};

/// The maximum number of citations buffered for the last chunk.
const MAX_CITATIONS: usize = 1000;

pub(super) struct ContentStreamWriter {
    framing: Framing,
    model: String,
    /// The last members of every chunk: model and id.
    tail: String,
    scratch: String,
    /// The number of chunks written.
    chunk_count: u32,
    ended: bool,
    open_blocks: Vec<(u32, GeminiOpenBlock)>,
    pending_calls: VecDeque<GeminiBufferedCall>,
    citations: Vec<PlacedCitation>,
    /// The bytes of all text written so far.
    emitted_bytes: u64,
}

/// A block that is being written.
enum GeminiOpenBlock {
    /// Its start in the whole text, in bytes, and whether all of its text is ASCII.
    Text {
        start: u64,
        is_ascii: bool,
    },
    Refusal,
    Thought,
    Call,
    Media(Box<Media>, Option<ReasoningSignature>),
    Skipped,
}

/// A buffered call. Calls are written whole, in the order in which they began.
struct GeminiBufferedCall {
    block: u32,
    call: ToolCall,
    signature: Option<ReasoningSignature>,
    done: bool,
}

impl ContentStreamWriter {
    pub(super) fn new(spec: &ResponseSpec) -> Self {
        Self {
            framing: spec.framing,
            model: spec.model.clone(),
            tail: chunk_tail(&spec.model, &spec.request_id),
            scratch: String::new(),
            chunk_count: 0,
            ended: false,
            open_blocks: Vec::new(),
            pending_calls: VecDeque::new(),
            citations: Vec::new(),
            emitted_bytes: 0,
        }
    }

    /// Writes one chunk: its parts, the candidate's other members, and the members next to the
    /// candidates.
    fn write_chunk(
        &mut self,
        out: &mut Vec<u8>,
        parts: impl FnOnce(&mut ArrayWriter<'_>),
        more: impl FnOnce(&mut ObjectWriter<'_>),
        usage: impl FnOnce(&mut ObjectWriter<'_>),
    ) {
        let mut text = std::mem::take(&mut self.scratch);
        text.clear();
        writer::push_object(&mut text, |o| {
            o.array("candidates", |a| {
                a.object(|o| {
                    o.object("content", |o| {
                        o.array("parts", parts).str("role", "model");
                    });
                    more(o);
                    o.num("index", 0);
                });
            });
            usage(o);
        });
        text.pop();
        text.push(',');
        text.push_str(&self.tail);
        out.extend_from_slice(match (self.framing, self.chunk_count) {
            (Framing::Sse, _) => b"data: ",
            (Framing::JsonArray, 0) => b"[",
            (Framing::JsonArray, _) => b",\n",
            (Framing::Ndjson, _) => b"",
        });
        writer::push_single_line(out, &text);
        out.extend_from_slice(match self.framing {
            Framing::Sse => b"\n\n",
            Framing::JsonArray => b"",
            Framing::Ndjson => b"\n",
        });
        self.scratch = text;
        self.chunk_count = self.chunk_count.saturating_add(1);
    }

    fn write_part(&mut self, out: &mut Vec<u8>, part: impl FnOnce(&mut ObjectWriter<'_>)) {
        self.write_chunk(
            out,
            |a| {
                a.object(part);
            },
            |_| {},
            |_| {},
        );
    }

    fn open_block(&mut self, block: u32, head: BlockStart, out: &mut Vec<u8>) {
        let open = match head {
            BlockStart::Text => GeminiOpenBlock::Text { start: self.emitted_bytes, is_ascii: true },
            BlockStart::Refusal => GeminiOpenBlock::Refusal,
            BlockStart::Reasoning { .. } => GeminiOpenBlock::Thought,
            BlockStart::Media(media) => GeminiOpenBlock::Media(Box::new(media), None),
            BlockStart::ToolCall { id, name, form } => {
                self.pending_calls.push_back(GeminiBufferedCall {
                    block,
                    call: ToolCall { id, name, arguments: String::new(), form },
                    signature: None,
                    done: false,
                });
                GeminiOpenBlock::Call
            }
            BlockStart::Foreign { dialect: Dialect::Gemini, body } => {
                self.write_chunk(
                    out,
                    |a| {
                        a.raw(&body);
                    },
                    |_| {},
                    |_| {},
                );
                GeminiOpenBlock::Skipped
            }
            BlockStart::Foreign { .. } => GeminiOpenBlock::Skipped,
        };
        self.open_blocks.push((block, open));
    }

    fn write_delta(&mut self, block: u32, text: &str, out: &mut Vec<u8>) {
        let Ok(at) = position(&self.open_blocks, block) else { return };
        let open = &mut self.open_blocks[at].1;
        let thought = match open {
            GeminiOpenBlock::Text { is_ascii: plain, .. } => {
                *plain &= text.is_ascii();
                self.emitted_bytes += text.len() as u64;
                false
            }
            GeminiOpenBlock::Refusal => {
                self.emitted_bytes += text.len() as u64;
                false
            }
            GeminiOpenBlock::Thought => true,
            GeminiOpenBlock::Call => {
                if let Some(call) = pending_call(&mut self.pending_calls, block) {
                    call.call.arguments.push_str(text);
                }
                return;
            }
            GeminiOpenBlock::Media(..) | GeminiOpenBlock::Skipped => return,
        };
        if !text.is_empty() {
            self.write_part(out, |o| part_write::write_text(o, text, thought, None));
        }
    }

    fn write_signature(&mut self, block: u32, proof: ReasoningSignature, out: &mut Vec<u8>) {
        if field_names::own_signature(Some(&proof)).is_none() {
            return;
        }
        let Ok(at) = position(&self.open_blocks, block) else { return };
        let open = &mut self.open_blocks[at].1;
        match open {
            GeminiOpenBlock::Text { .. } | GeminiOpenBlock::Refusal => {
                self.write_part(out, |o| part_write::write_text(o, "", false, Some(&proof.value)));
            }
            GeminiOpenBlock::Thought => {
                self.write_part(out, |o| part_write::write_text(o, "", true, Some(&proof.value)));
            }
            GeminiOpenBlock::Media(_, slot) => *slot = Some(proof),
            GeminiOpenBlock::Call => {
                if let Some(call) = pending_call(&mut self.pending_calls, block) {
                    call.signature = Some(proof);
                }
            }
            GeminiOpenBlock::Skipped => {}
        }
    }

    fn close_block(&mut self, block: u32, out: &mut Vec<u8>) {
        let Ok(at) = position(&self.open_blocks, block) else { return };
        match self.open_blocks.remove(at).1 {
            GeminiOpenBlock::Media(media, proof) => {
                if let Ok(carried) = part_write::to_media_part(&media) {
                    self.write_part(out, |o| {
                        carried.write(o);
                        o.opt_str("thoughtSignature", field_names::own_signature(proof.as_ref()));
                    });
                }
            }
            GeminiOpenBlock::Call => {
                if let Some(call) = pending_call(&mut self.pending_calls, block) {
                    call.done = true;
                }
                while let Some(call) = self.pending_calls.pop_front_if(|call| call.done) {
                    self.write_part(out, |o| {
                        part_write::write_function_call(
                            o,
                            &call.call,
                            &call.call.name,
                            field_names::own_signature(call.signature.as_ref()),
                        );
                    });
                }
            }
            GeminiOpenBlock::Text { .. }
            | GeminiOpenBlock::Refusal
            | GeminiOpenBlock::Thought
            | GeminiOpenBlock::Skipped => {}
        }
    }
}

/// Finds a block; blocks are opened in the order of their numbers.
fn position(blocks: &[(u32, GeminiOpenBlock)], block: u32) -> Result<usize, usize> {
    blocks.binary_search_by_key(&block, |(number, _)| *number)
}

/// Finds a call; calls begin in the order of their blocks.
fn pending_call(
    calls: &mut VecDeque<GeminiBufferedCall>,
    block: u32,
) -> Option<&mut GeminiBufferedCall> {
    let at = calls.binary_search_by_key(&block, |call| call.block).ok()?;
    calls.get_mut(at)
}

/// The last members of every chunk.
fn chunk_tail(model: &str, id: &str) -> String {
    let tail = writer::object(|o| {
        o.str("modelVersion", model).str("responseId", id);
    });
    tail[1..].to_owned()
}

impl StreamWriter for ContentStreamWriter {
    fn set_id(&mut self, id: &str) {
        self.tail = chunk_tail(&self.model, id);
    }

    fn write_event(&mut self, event: ChatEvent, out: &mut Vec<u8>) {
        match event {
            _ if self.ended => {}
            // Every chunk names the role, so there is nothing to write yet.
            ChatEvent::Begin { .. } | ChatEvent::Phase { .. } => {}
            ChatEvent::Open { block, head } => self.open_block(block, head, out),
            ChatEvent::Delta { block, text } => self.write_delta(block, &text, out),
            ChatEvent::Signature { block, signature: proof } => {
                self.write_signature(block, proof, out);
            }
            ChatEvent::Citation { block, citation } => {
                let open = position(&self.open_blocks, block).map(|at| &self.open_blocks[at].1);
                let place = match open {
                    // In ASCII text a character is a byte.
                    Ok(GeminiOpenBlock::Text { start: begun, is_ascii: true }) => {
                        citation.span.map(|(start, end)| (start + begun, end + begun))
                    }
                    _ => None,
                };
                if self.citations.len() < MAX_CITATIONS {
                    self.citations.push(PlacedCitation { citation, position: place });
                }
            }
            ChatEvent::Logprobs(raw) => {
                self.write_chunk(
                    out,
                    |a| {
                        a.object(|o| part_write::write_text(o, "", false, None));
                    },
                    |o| response_parts::write_logprobs(o, &raw),
                    |_| {},
                );
            }
            ChatEvent::Close { block } => self.close_block(block, out),
            ChatEvent::End { finish, usage, service_tier: _ } => {
                let (cited, has_text) =
                    (std::mem::take(&mut self.citations), self.emitted_bytes > 0);
                self.write_chunk(
                    out,
                    |a| {
                        a.object(|o| part_write::write_text(o, "", false, None));
                    },
                    |o| {
                        o.str("finishReason", finish::finish_reason(&finish, has_text));
                        response_parts::write_grounding(o, &cited);
                    },
                    |o| response_parts::write_usage(o, usage),
                );
                if self.framing == Framing::JsonArray {
                    out.push(b']');
                }
                self.ended = true;
            }
        }
    }

    fn write_error(&mut self, error: &ProxyError, request_id: &str, out: &mut Vec<u8>) {
        if !std::mem::replace(&mut self.ended, true) {
            out.extend_from_slice(&error::error_event(
                error,
                request_id,
                self.framing,
                self.chunk_count,
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        base::json::raw::RawJson,
        dialect::ingress::ChatEndpoint,
        ir::{
            block::{CallKind, Citation, SignatureKind},
            extras::Extras,
            fault::ProxyErrorKind,
            response::{Finish, FinishKind},
            usage::Usage,
        },
    };

    fn writer(framing: Framing) -> ContentStreamWriter {
        ContentStreamWriter::new(&ResponseSpec {
            endpoint: ChatEndpoint::Chat,
            model: "m".to_owned(),
            request_id: "i".to_owned(),
            created: 0,
            framing,
            include_usage: false,
            custom_tools: Vec::new(),
            namespaced_tools: Vec::new(),
            client_tools: Vec::new(),
            compaction: false,
            echo: Extras::default(),
        })
    }

    fn chunks(events: Vec<ChatEvent>) -> Vec<Value> {
        let (mut writer, mut out) = (writer(Framing::Sse), Vec::new());
        events.into_iter().for_each(|event| writer.write_event(event, &mut out));
        let text = String::from_utf8(out).expect("text");
        text.split_terminator("\n\n")
            .map(|block| {
                serde_json::from_str(block.strip_prefix("data: ").expect("data")).expect("json")
            })
            .collect()
    }

    fn open(block: u32, head: BlockStart) -> ChatEvent {
        ChatEvent::Open { block, head }
    }

    fn delta(block: u32, text: &str) -> ChatEvent {
        ChatEvent::Delta { block, text: text.to_owned() }
    }

    fn call(block: u32, name: &str) -> ChatEvent {
        open(
            block,
            BlockStart::ToolCall {
                id: name.to_owned(),
                name: name.to_owned(),
                form: CallKind::Function,
            },
        )
    }

    fn end(kind: FinishKind) -> ChatEvent {
        ChatEvent::End {
            finish: Finish { kind, ..Finish::default() },
            usage: None,
            service_tier: None,
        }
    }

    fn proof(block: u32, dialect: Dialect) -> ChatEvent {
        ChatEvent::Signature {
            block,
            signature: ReasoningSignature {
                dialect,
                kind: SignatureKind::Signature,
                value: "sig".to_owned(),
                id: None,
            },
        }
    }

    /// Interleaved calls are written whole, in their order.
    #[test]
    fn calls_are_written_in_one_piece() {
        let got = chunks(vec![
            call(0, "a"),
            delta(0, "{\n\"x\":"),
            call(1, "b"),
            delta(1, "{}"),
            proof(1, Dialect::Gemini),
            ChatEvent::Close { block: 1 },
            delta(0, "1}"),
            proof(0, Dialect::Anthropic),
            ChatEvent::Close { block: 0 },
            end(FinishKind::ToolCalls),
        ]);
        let parts: Vec<&Value> =
            got.iter().map(|chunk| &chunk["candidates"][0]["content"]["parts"][0]).collect();
        assert_eq!(
            parts,
            [
                &json!({"functionCall": {"id": "a", "name": "a", "args": {"x": 1}}}),
                &json!({"functionCall": {"id": "b", "name": "b", "args": {}}, "thoughtSignature": "sig"}),
                &json!({"text": ""}),
            ]
        );
        assert_eq!(got[2]["candidates"][0]["finishReason"], "STOP");
    }

    #[test]
    fn thoughts_citations_and_usage_are_written() {
        let usage = Usage { input: 3, cache_read: 2, output: 5, reasoning: 7, ..Usage::default() };
        let citation =
            Citation { url: Some("u".to_owned()), span: Some((0, 2)), ..Citation::default() };
        let got = chunks(vec![
            open(0, BlockStart::Reasoning { summary: false }),
            delta(0, "hm"),
            ChatEvent::Close { block: 0 },
            open(1, BlockStart::Text),
            delta(1, "yes"),
            proof(1, Dialect::Gemini),
            ChatEvent::Citation { block: 1, citation },
            ChatEvent::Logprobs(
                RawJson::parse(r#"[{"token":"yes","logprob":-1,"top_logprobs":[]}]"#)
                    .expect("json"),
            ),
            ChatEvent::Close { block: 1 },
            ChatEvent::End {
                finish: Finish { kind: FinishKind::Length, ..Finish::default() },
                usage: Some(usage),
                service_tier: None,
            },
        ]);
        assert_eq!(
            got[0],
            json!({"candidates": [{"content": {"parts": [{"text": "hm", "thought": true}], "role": "model"}, "index": 0}], "modelVersion": "m", "responseId": "i"})
        );
        assert_eq!(
            got[2]["candidates"][0]["content"]["parts"],
            json!([{"text": "", "thoughtSignature": "sig"}])
        );
        assert_eq!(
            got[3]["candidates"][0]["logprobsResult"]["chosenCandidates"],
            json!([{"token": "yes", "logProbability": -1}])
        );
        assert_eq!(
            got[4]["candidates"][0],
            json!({"content": {"parts": [{"text": ""}], "role": "model"}, "finishReason": "MAX_TOKENS", "index": 0, "groundingMetadata": {
                "groundingChunks": [{"web": {"uri": "u"}}],
                "groundingSupports": [{"segment": {"startIndex": 0, "endIndex": 2}, "groundingChunkIndices": [0]}]}})
        );
        assert_eq!(
            got[4]["usageMetadata"],
            json!({"promptTokenCount": 5, "candidatesTokenCount": 5, "cachedContentTokenCount": 2, "thoughtsTokenCount": 7, "totalTokenCount": 17})
        );
    }

    /// A broken stream ends with an error, and never with a success marker.
    #[test]
    fn errors_are_written_in_the_framing_of_the_stream() {
        let error = ProxyError::new(ProxyErrorKind::Internal, "m");
        for (framing, before) in [
            (Framing::Sse, true),
            (Framing::Sse, false),
            (Framing::JsonArray, true),
            (Framing::JsonArray, false),
        ] {
            let (mut writer, mut out) = (writer(framing), Vec::new());
            if before {
                writer.write_event(open(0, BlockStart::Text), &mut out);
                writer.write_event(delta(0, "a"), &mut out);
            }
            writer.write_error(&error, "r", &mut out);
            writer.write_event(end(FinishKind::Stop), &mut out);
            let text = String::from_utf8(out).expect("text");
            if framing == Framing::JsonArray {
                let list: Vec<Value> = serde_json::from_str(&text).expect("an array");
                assert_eq!(
                    (list.len(), &list[list.len() - 1]["error"]["code"]),
                    (1 + usize::from(before), &json!(500))
                );
            } else {
                assert!(
                    text.trim_end()
                        .rsplit("\n\n")
                        .next()
                        .is_some_and(|last| last.starts_with("data: {\"error\":")),
                    "{text}"
                );
            }
            assert!(!text.contains("finishReason"));
        }
    }

    #[test]
    fn empty_answer_is_well_formed() {
        for (framing, want) in
            [(Framing::Sse, "data: {\"candidates\""), (Framing::JsonArray, "[{\"candidates\"")]
        {
            let (mut writer, mut out) = (writer(framing), Vec::new());
            writer.write_event(end(FinishKind::ContentFilter), &mut out);
            let text = String::from_utf8(out).expect("text");
            assert!(
                text.starts_with(want) && text.contains("\"finishReason\":\"SAFETY\""),
                "{text}"
            );
        }
    }
}
