//! The models of the demo.

/// The behaviour of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DemoModelKind {
    Chat,
    Embed,
}

/// One model, as shown in lists and model cards.
#[derive(Debug)]
pub struct DemoModel {
    pub name: &'static str,
    pub kind: DemoModelKind,
    pub description: &'static str,
}

/// Context window in the model cards.
pub const CONTEXT_TOKENS: u64 = 128_000;

/// Maximum output in the model cards.
pub const MAX_OUTPUT_TOKENS: u64 = 16_384;

/// All models of the demo.
pub const ALL: &[DemoModel] = &[
    DemoModel {
        name: "echo",
        kind: DemoModelKind::Chat,
        description: "Says the last user message again, at once",
    },
    DemoModel {
        name: "lorem",
        kind: DemoModelKind::Chat,
        description: "Says forty words, one every 20 ms",
    },
    DemoModel {
        name: "tools",
        kind: DemoModelKind::Chat,
        description: "Calls the first tool it is offered, then tells what came back",
    },
    DemoModel {
        name: "think",
        kind: DemoModelKind::Chat,
        description: "Thinks first, as reasoning models do, and wants its thought back with a tool's answer",
    },
    DemoModel {
        name: "flaky",
        kind: DemoModelKind::Chat,
        description: "Refuses every first request of three with 503; `fail 429`, `cut` and `slow` in the message choose what happens",
    },
    DemoModel {
        name: "strict",
        kind: DemoModelKind::Chat,
        description: "Refuses fields that it does not know, `temperature`, `max_tokens` and the wrong endpoint, as picky models do; else like echo",
    },
    DemoModel {
        name: "embed",
        kind: DemoModelKind::Embed,
        description: "Turns text into vectors; texts that share words lie close",
    },
];

/// Returns the model with this name; `demo/echo`, `models/echo` and `echo:latest` all mean `echo`.
#[must_use]
pub fn find_model(name: &str) -> Option<&'static DemoModel> {
    let name = name.strip_prefix("models/").unwrap_or(name);
    let name = name.strip_prefix("demo/").unwrap_or(name);
    let name = name.strip_suffix(":latest").unwrap_or(name);
    ALL.iter().find(|model| model.name == name)
}

/// Returns all names, for messages.
pub(super) fn model_names() -> String {
    ALL.iter().map(|model| model.name).collect::<Vec<_>>().join(", ")
}
