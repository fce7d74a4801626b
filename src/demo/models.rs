//! The models of the demo.

/// What a model does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Chat,
    Embed,
}

/// One model, as lists and cards tell it.
#[derive(Debug)]
pub struct Model {
    pub name: &'static str,
    pub kind: Kind,
    pub about: &'static str,
}

/// Context window that the cards tell.
pub const CONTEXT: u64 = 128_000;

/// Longest answer that the cards tell.
pub const OUTPUT: u64 = 16_384;

/// Every model.
pub const ALL: &[Model] = &[
    Model { name: "echo", kind: Kind::Chat, about: "Says the last user message again, at once" },
    Model { name: "lorem", kind: Kind::Chat, about: "Says forty words, one every 20 ms" },
    Model {
        name: "tools",
        kind: Kind::Chat,
        about: "Calls the first tool it is offered, then tells what came back",
    },
    Model {
        name: "think",
        kind: Kind::Chat,
        about: "Thinks first, as reasoning models do, and wants its thought back with a tool's answer",
    },
    Model {
        name: "flaky",
        kind: Kind::Chat,
        about: "Refuses every first request of three with 503; `fail 429`, `cut` and `slow` in the message choose what happens",
    },
    Model {
        name: "embed",
        kind: Kind::Embed,
        about: "Turns text into vectors; texts that share words lie close",
    },
];

/// The model of this name; `demo/echo`, `models/echo` and `echo:latest` are `echo`.
#[must_use]
pub fn find(name: &str) -> Option<&'static Model> {
    let name = name.strip_prefix("models/").unwrap_or(name);
    let name = name.strip_prefix("demo/").unwrap_or(name);
    let name = name.strip_suffix(":latest").unwrap_or(name);
    ALL.iter().find(|model| model.name == name)
}

/// All names, for messages.
pub(super) fn names() -> String {
    ALL.iter().map(|model| model.name).collect::<Vec<_>>().join(", ")
}
