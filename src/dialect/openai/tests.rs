//! Tests both halves with recorded traffic and tables: a request that was read can be written
//! again, and pieces become a whole answer.

mod answers;
mod requests;

use crate::{
    base::framing::Framing,
    dialect::{
        egress::{AttemptContext, TargetTraits, Thinking},
        ingress::{ChatEndpoint, ResponseSpec},
    },
};

fn traits() -> TargetTraits {
    TargetTraits {
        model: "m".to_owned(),
        stream: false,
        max_output: None,
        thinking: Thinking::Effort,
        max_tokens_field: "max_completion_tokens",
        developer_role: false,
        accepts_reasoning: true,
        ask_usage: true,
        facts: Default::default(),
        call_id_seed: "s".to_owned(),
    }
}

fn carry() -> AttemptContext {
    AttemptContext { renamed_tools: Vec::new(), call_id_seed: "s".to_owned() }
}

fn shape() -> ResponseSpec {
    ResponseSpec {
        endpoint: ChatEndpoint::Chat,
        model: "asked".to_owned(),
        request_id: "r1".to_owned(),
        created: 7,
        framing: Framing::Sse,
        include_usage: true,
        custom_tools: Vec::new(),
        namespaced_tools: Vec::new(),
        client_tools: Vec::new(),
        compaction: false,
        echo: crate::ir::extras::Extras::default(),
    }
}
