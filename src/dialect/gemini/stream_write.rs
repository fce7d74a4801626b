//! Writes an answer as chunks, each of the same form as a whole answer.

use std::collections::VecDeque;

use crate::{
    base::write::{self, ArrayWriter, ObjectWriter},
    dialect::{
        Framing, Shape, StreamWriter,
        gemini::{
            answer_write::{self, Placed},
            error, finish, part_write, wire,
        },
    },
    ir::{
        block::{Media, ReasoningSignature, ToolCall},
        event::{BlockStart, ChatEvent},
        fault::ProxyError,
        op::Dialect,
    },
};

/// The most citations that are kept for the last chunk.
const MOST_CITED: usize = 1000;

pub(super) struct ContentWriter {
    framing: Framing,
    model: String,
    /// What every chunk ends with: model and id.
    tail: String,
    scratch: String,
    /// Chunks that have gone out.
    chunks: u32,
    ended: bool,
    open: Vec<(u32, Open)>,
    calls: VecDeque<Call>,
    cited: Vec<Placed>,
    /// Bytes of all text that was told.
    told: u64,
}

/// A block that is being told.
enum Open {
    /// Where it began among all text, and whether all of it is ASCII.
    Text {
        begun: u64,
        plain: bool,
    },
    Refusal,
    Thought,
    Call,
    Media(Box<Media>, Option<ReasoningSignature>),
    Silent,
}

/// Calls are told whole, in the order in which they began.
struct Call {
    block: u32,
    call: ToolCall,
    proof: Option<ReasoningSignature>,
    done: bool,
}

impl ContentWriter {
    pub(super) fn new(shape: &Shape) -> Self {
        Self {
            framing: shape.framing,
            model: shape.model.clone(),
            tail: tail(&shape.model, &shape.id),
            scratch: String::new(),
            chunks: 0,
            ended: false,
            open: Vec::new(),
            calls: VecDeque::new(),
            cited: Vec::new(),
            told: 0,
        }
    }

    /// One chunk: its parts, what else the candidate says, and what stands beside it.
    fn chunk(
        &mut self,
        out: &mut Vec<u8>,
        parts: impl FnOnce(&mut ArrayWriter<'_>),
        more: impl FnOnce(&mut ObjectWriter<'_>),
        usage: impl FnOnce(&mut ObjectWriter<'_>),
    ) {
        let mut text = std::mem::take(&mut self.scratch);
        text.clear();
        write::push_object(&mut text, |o| {
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
        out.extend_from_slice(match (self.framing, self.chunks) {
            (Framing::Sse, _) => b"data: ",
            (Framing::JsonArray, 0) => b"[",
            (Framing::JsonArray, _) => b",\n",
            (Framing::Ndjson, _) => b"",
        });
        write::push_single_line(out, &text);
        out.extend_from_slice(match self.framing {
            Framing::Sse => b"\n\n",
            Framing::JsonArray => b"",
            Framing::Ndjson => b"\n",
        });
        self.scratch = text;
        self.chunks = self.chunks.saturating_add(1);
    }

    fn part(&mut self, out: &mut Vec<u8>, part: impl FnOnce(&mut ObjectWriter<'_>)) {
        self.chunk(
            out,
            |a| {
                a.object(part);
            },
            |_| {},
            |_| {},
        );
    }

    fn open(&mut self, block: u32, head: BlockStart, out: &mut Vec<u8>) {
        let open = match head {
            BlockStart::Text => Open::Text { begun: self.told, plain: true },
            BlockStart::Refusal => Open::Refusal,
            BlockStart::Reasoning { .. } => Open::Thought,
            BlockStart::Media(media) => Open::Media(Box::new(media), None),
            BlockStart::ToolCall { id, name, form } => {
                self.calls.push_back(Call {
                    block,
                    call: ToolCall { id, name, arguments: String::new(), form },
                    proof: None,
                    done: false,
                });
                Open::Call
            }
            BlockStart::Foreign { dialect: Dialect::Gemini, body } => {
                self.chunk(
                    out,
                    |a| {
                        a.raw(&body);
                    },
                    |_| {},
                    |_| {},
                );
                Open::Silent
            }
            BlockStart::Foreign { .. } => Open::Silent,
        };
        self.open.push((block, open));
    }

    fn delta(&mut self, block: u32, text: &str, out: &mut Vec<u8>) {
        let Some((_, open)) = self.open.iter_mut().find(|(number, _)| *number == block) else {
            return;
        };
        let thought = match open {
            Open::Text { plain, .. } => {
                *plain &= text.is_ascii();
                self.told += text.len() as u64;
                false
            }
            Open::Refusal => {
                self.told += text.len() as u64;
                false
            }
            Open::Thought => true,
            Open::Call => {
                if let Some(call) = self.calls.iter_mut().find(|call| call.block == block) {
                    call.call.arguments.push_str(text);
                }
                return;
            }
            Open::Media(..) | Open::Silent => return,
        };
        if !text.is_empty() {
            self.part(out, |o| part_write::text(o, text, thought, None));
        }
    }

    fn proof(&mut self, block: u32, proof: ReasoningSignature, out: &mut Vec<u8>) {
        if wire::own(Some(&proof)).is_none() {
            return;
        }
        let Some((_, open)) = self.open.iter_mut().find(|(number, _)| *number == block) else {
            return;
        };
        match open {
            Open::Text { .. } | Open::Refusal => {
                self.part(out, |o| part_write::text(o, "", false, Some(&proof.value)))
            }
            Open::Thought => self.part(out, |o| part_write::text(o, "", true, Some(&proof.value))),
            Open::Media(_, place) => *place = Some(proof),
            Open::Call => {
                if let Some(call) = self.calls.iter_mut().find(|call| call.block == block) {
                    call.proof = Some(proof);
                }
            }
            Open::Silent => {}
        }
    }

    fn close(&mut self, block: u32, out: &mut Vec<u8>) {
        let Some(at) = self.open.iter().position(|(number, _)| *number == block) else { return };
        match self.open.remove(at).1 {
            Open::Media(media, proof) => {
                if let Ok(carried) = part_write::media(&media) {
                    self.part(out, |o| {
                        carried.write(o);
                        o.opt_str("thoughtSignature", wire::own(proof.as_ref()));
                    });
                }
            }
            Open::Call => {
                if let Some(call) = self.calls.iter_mut().find(|call| call.block == block) {
                    call.done = true;
                }
                while let Some(call) = self.calls.pop_front_if(|call| call.done) {
                    self.part(out, |o| {
                        part_write::call(
                            o,
                            &call.call,
                            &call.call.name,
                            wire::own(call.proof.as_ref()),
                        )
                    });
                }
            }
            Open::Text { .. } | Open::Refusal | Open::Thought | Open::Silent => {}
        }
    }
}

/// The last members of every chunk.
fn tail(model: &str, id: &str) -> String {
    let tail = write::object(|o| {
        o.str("modelVersion", model).str("responseId", id);
    });
    tail[1..].to_owned()
}

impl StreamWriter for ContentWriter {
    fn bears(&mut self, id: &str) {
        self.tail = tail(&self.model, id);
    }

    fn event(&mut self, event: ChatEvent, out: &mut Vec<u8>) {
        match event {
            _ if self.ended => {}
            // Every chunk says who speaks; nothing is to be told yet.
            ChatEvent::Begin { .. } => {}
            ChatEvent::Open { block, head } => self.open(block, head, out),
            ChatEvent::Delta { block, text } => self.delta(block, &text, out),
            ChatEvent::Signature { block, signature: proof } => self.proof(block, proof, out),
            ChatEvent::Citation { block, citation } => {
                let place =
                    self.open.iter().find(|(number, _)| *number == block).and_then(|(_, open)| {
                        match open {
                            // In plain text a character is a byte.
                            Open::Text { begun, plain: true } => {
                                citation.span.map(|(start, end)| (start + begun, end + begun))
                            }
                            _ => None,
                        }
                    });
                if self.cited.len() < MOST_CITED {
                    self.cited.push(Placed { citation, place });
                }
            }
            ChatEvent::Logprobs(raw) => {
                self.chunk(
                    out,
                    |a| {
                        a.object(|o| part_write::text(o, "", false, None));
                    },
                    |o| answer_write::logprobs(o, &raw),
                    |_| {},
                );
            }
            ChatEvent::Close { block } => self.close(block, out),
            ChatEvent::End { finish, usage, service_tier } => {
                let (cited, words) = (std::mem::take(&mut self.cited), self.told > 0);
                self.chunk(
                    out,
                    |a| {
                        a.object(|o| part_write::text(o, "", false, None));
                    },
                    |o| {
                        o.str("finishReason", finish::word(&finish, words));
                        answer_write::grounding(o, &cited);
                    },
                    |o| answer_write::usage(o, usage, service_tier.as_deref()),
                );
                if self.framing == Framing::JsonArray {
                    out.push(b']');
                }
                self.ended = true;
            }
        }
    }

    fn error(&mut self, error: &ProxyError, request_id: &str, out: &mut Vec<u8>) {
        if !std::mem::replace(&mut self.ended, true) {
            out.extend_from_slice(&error::event(error, request_id, self.framing, self.chunks));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        base::raw::RawJson,
        dialect::Place,
        ir::{
            block::{CallKind, Citation, SignatureKind},
            extras::Extras,
            fault::ProxyErrorKind,
            response::{Finish, FinishKind},
            usage::Usage,
        },
    };

    fn writer(framing: Framing) -> ContentWriter {
        ContentWriter::new(&Shape {
            place: Place::Main,
            model: "m".to_owned(),
            id: "i".to_owned(),
            now: 0,
            framing,
            usage: false,
            custom: Vec::new(),
            namespaced: Vec::new(),
            echo: Extras::default(),
        })
    }

    fn chunks(events: Vec<ChatEvent>) -> Vec<Value> {
        let (mut writer, mut out) = (writer(Framing::Sse), Vec::new());
        events.into_iter().for_each(|event| writer.event(event, &mut out));
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

    /// Pain 5: interleaved calls are told whole, in their order.
    #[test]
    fn calls_are_told_whole() {
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
    fn thoughts_citations_and_usage_are_told() {
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

    /// Pain 6: a stream that broke says so, and never that it ended well.
    #[test]
    fn errors_end_the_stream_in_its_framing() {
        let error = ProxyError::new(ProxyErrorKind::Internal, "m");
        for (framing, before) in [
            (Framing::Sse, true),
            (Framing::Sse, false),
            (Framing::JsonArray, true),
            (Framing::JsonArray, false),
        ] {
            let (mut writer, mut out) = (writer(framing), Vec::new());
            if before {
                writer.event(open(0, BlockStart::Text), &mut out);
                writer.event(delta(0, "a"), &mut out);
            }
            writer.error(&error, "r", &mut out);
            writer.event(end(FinishKind::Stop), &mut out);
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
    fn an_answer_without_content_is_well_formed() {
        for (framing, want) in
            [(Framing::Sse, "data: {\"candidates\""), (Framing::JsonArray, "[{\"candidates\"")]
        {
            let (mut writer, mut out) = (writer(framing), Vec::new());
            writer.event(end(FinishKind::ContentFilter), &mut out);
            let text = String::from_utf8(out).expect("text");
            assert!(
                text.starts_with(want) && text.contains("\"finishReason\":\"SAFETY\""),
                "{text}"
            );
        }
    }
}
