//! Both halves against recorded traffic and by tables: what is read can be written again, what
//! comes in pieces is whole.

mod answers;
mod requests;

use crate::dialect::{Carry, Framing, Place, Shape, Thinking, Traits};

fn traits() -> Traits {
    Traits {
        model: "m".to_owned(),
        stream: false,
        max_output: None,
        thinking: Thinking::Effort,
        limit_field: "max_completion_tokens",
        developer_role: false,
        takes_reasoning: true,
        seed: "s".to_owned(),
    }
}

fn carry() -> Carry {
    Carry { renamed: Vec::new(), seed: "s".to_owned() }
}

fn shape() -> Shape {
    Shape {
        place: Place::Main,
        model: "asked".to_owned(),
        id: "r1".to_owned(),
        now: 7,
        framing: Framing::Sse,
        usage: true,
        custom: Vec::new(),
        namespaced: Vec::new(),
        echo: crate::ir::extras::Extras::default(),
    }
}
