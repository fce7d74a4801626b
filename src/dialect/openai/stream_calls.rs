//! Assembles the calls of a streamed answer from the parts in which they arrive.

use std::collections::{BTreeSet, HashMap};

use crate::{
    base::json::reader::JsonRef,
    dialect::{
        answer_call_ids::AnswerCallIds,
        egress::AttemptContext,
        openai::{reasoning::ReasoningDetails, response_read},
    },
    ir::{
        block::{CallKind, ReasoningSignature},
        event::{BlockStart, ChatEvent},
        open_blocks::OpenBlocks,
        partial_json::PartialJson,
    },
};

pub(super) const REASONING: BlockStart = BlockStart::Reasoning { summary: false };

/// Index for `function_call`, which has none on the wire.
pub(super) const FUNCTION_CALL_INDEX: u64 = u64::MAX;

/// The blocks of a streamed answer, and the details of its reasoning.
#[derive(Default)]
pub(super) struct AnswerBlocks {
    pub(super) blocks: OpenBlocks,
    pub(super) reasoning_details: ReasoningDetails,
}

impl AnswerBlocks {
    /// Adds the signature to the finished reasoning before another block begins.
    pub(super) fn flush_signature(&mut self, out: &mut Vec<ChatEvent>) {
        if let Some(proof) = self.reasoning_details.take_signature() {
            self.blocks.push_signature(REASONING, proof, out);
        }
    }
}

/// The calls that have begun.
pub(super) struct ChunkCalls {
    context: AttemptContext,
    call_ids: AnswerCallIds,
    calls: Vec<ChunkCall>,
    /// The latest call with each of the provider's indexes, and with each id.
    by_index: HashMap<u64, usize>,
    by_id: HashMap<String, usize>,
    /// The calls whose names are known but which are not open.
    named: BTreeSet<usize>,
}

/// A part of a call: its name or id, or some of its arguments.
pub(super) struct CallPart<'a> {
    /// The provider's index of the call.
    pub(super) index: Option<u64>,
    pub(super) id: Option<String>,
    pub(super) form: CallKind,
    /// The object that contains the name and the arguments.
    pub(super) inside: JsonRef<'a>,
    pub(super) proof: Option<ReasoningSignature>,
}

/// A call that has begun.
struct ChunkCall {
    id: String,
    /// The parts of the call that arrived before it was opened.
    pending: Option<OpenaiPendingCall>,
}

/// A call before its arguments begin. Its name may arrive in pieces and is complete only then.
#[derive(Default)]
struct OpenaiPendingCall {
    name: String,
    kind: CallKind,
    arguments: String,
    proof: Option<ReasoningSignature>,
}

impl OpenaiPendingCall {
    /// Merges a name: some providers repeat it with every piece, others send it in pieces.
    fn merge_name(&mut self, more: &str) {
        if more.starts_with(&self.name) {
            more.clone_into(&mut self.name);
        } else {
            self.name.push_str(more);
        }
    }

    fn is_complete(&self) -> bool {
        let mut progress = PartialJson::default();
        progress.feed(&self.arguments);
        !self.name.is_empty() && progress.is_complete()
    }
}

impl ChunkCalls {
    pub(super) fn new(context: &AttemptContext) -> Self {
        Self {
            context: context.clone(),
            call_ids: AnswerCallIds::new(&context.call_id_seed),
            calls: Vec::new(),
            by_index: HashMap::new(),
            by_id: HashMap::new(),
            named: BTreeSet::new(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    /// Whether the arguments of a call that is not yet open are incomplete.
    pub(super) fn has_incomplete(&self) -> bool {
        self.calls
            .iter()
            .any(|call| call.pending.as_ref().is_some_and(|pending| !pending.is_complete()))
    }

    /// Reads a part of a call.
    pub(super) fn read(
        &mut self,
        part: CallPart<'_>,
        answer: &mut AnswerBlocks,
        out: &mut Vec<ChatEvent>,
    ) {
        let CallPart { index, id, form, inside, proof } = part;
        let name = inside.get("name").and_then(JsonRef::str).filter(|name| !name.is_empty());
        let arguments = response_read::call_arguments(form, inside).unwrap_or_default();
        // Some providers reuse or omit the index; then a name with a new id is another call.
        let known = match (index, &id) {
            (Some(index), _) => self.by_index.get(&index).copied(),
            (None, Some(id)) => self.by_id.get(id).copied(),
            (None, None) if name.is_none() => self.calls.len().checked_sub(1),
            (None, None) => None,
        };
        let unnamed =
            |call: &ChunkCall| call.pending.as_ref().is_some_and(|pending| pending.name.is_empty());
        let same = |call: &ChunkCall| {
            name.is_none() || unnamed(call) || id.as_ref().is_none_or(|id| call.id == *id)
        };
        let at = known.filter(|at| same(&self.calls[*at])).unwrap_or_else(|| {
            let (at, id) = (self.calls.len(), self.call_ids.assign(id.as_deref()));
            self.by_id.insert(id.clone(), at);
            if let Some(index) = index {
                self.by_index.insert(index, at);
            }
            self.calls.push(ChunkCall { id, pending: Some(OpenaiPendingCall::default()) });
            at
        });
        if let Some(pending) = &mut self.calls[at].pending {
            if let Some(name) = &name {
                pending.merge_name(name);
                pending.kind = form;
            }
            pending.arguments.push_str(&arguments);
            pending.proof = proof.or(pending.proof.take());
            let (is_named, has_arguments) =
                (!pending.name.is_empty(), !pending.arguments.is_empty());
            if is_named {
                self.named.insert(at);
            }
            if is_named && has_arguments {
                self.open_call(at, answer, out);
            }
            return;
        }
        out.extend(
            proof
                .zip(answer.blocks.call_block(at as u64))
                .map(|(proof, block)| ChatEvent::Signature { block, signature: proof }),
        );
        answer.blocks.push_arguments(at as u64, &arguments, out);
    }

    /// Opens all calls whose names are known.
    pub(super) fn open_named(&mut self, answer: &mut AnswerBlocks, out: &mut Vec<ChatEvent>) {
        self.open_named_before(self.calls.len(), answer, out);
    }

    /// Opens all calls, even if their name or arguments never arrived: the parts that did arrive
    /// are not lost.
    pub(super) fn open_all(&mut self, answer: &mut AnswerBlocks, out: &mut Vec<ChatEvent>) {
        for at in 0..self.calls.len() {
            self.open_pending(at, answer, out);
        }
    }

    /// Opens a call, after those that began before it.
    fn open_call(&mut self, at: usize, answer: &mut AnswerBlocks, out: &mut Vec<ChatEvent>) {
        self.open_named_before(at, answer, out);
        self.open_pending(at, answer, out);
    }

    /// Opens the first `count` calls, if their names are known.
    fn open_named_before(
        &mut self,
        count: usize,
        answer: &mut AnswerBlocks,
        out: &mut Vec<ChatEvent>,
    ) {
        while let Some(at) = self.named.range(..count).next().copied() {
            self.open_pending(at, answer, out);
        }
    }

    fn open_pending(&mut self, at: usize, answer: &mut AnswerBlocks, out: &mut Vec<ChatEvent>) {
        answer.flush_signature(out);
        self.named.remove(&at);
        let Some(pending) = self.calls[at].pending.take() else { return };
        let (id, name) =
            (self.calls[at].id.clone(), self.context.client_tool_name(&pending.name).to_owned());
        let block = answer.blocks.start_call(at as u64, id, name, pending.kind, out);
        out.extend(pending.proof.map(|proof| ChatEvent::Signature { block, signature: proof }));
        answer.blocks.push_arguments(at as u64, &pending.arguments, out);
    }
}
