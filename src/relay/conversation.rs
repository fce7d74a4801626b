//! What a conversation is known by: its client's name for it, and hashes of its beginnings.
//!
//! Read from the body as it came, whatever its dialect: order of keys, marks for the cache and ids
//! that change from turn to turn do not count, and a text is the same text whether it stands alone
//! or as the only block.

use std::hash::{BuildHasher, RandomState};

use super::ask::Ask;
use crate::{
    base::json::{self, JsonRef},
    config::settings::Affinity,
    ir::op::{Dialect, Op},
    routing::{
        affinity::ConversationKeys,
        cache::{MAX_MESSAGES, PrefixRole, PromptPrefix},
    },
};

/// Below so many tokens providers keep nothing in their caches.
const LEAST: u64 = 1_024;
/// Beginnings that are looked for, from the longest on.
const LONGEST: usize = 256;

/// The hash of what a client calls its conversation.
#[must_use]
pub fn session(seed: &RandomState, project: &str, name: &str) -> u64 {
    seed.hash_one(("session", project, name))
}

/// What this request's conversation is known by; `None` where it is to go anywhere.
#[must_use]
pub(super) fn keys(seed: &RandomState, ask: &Ask, sticky: Affinity) -> Option<ConversationKeys> {
    if sticky == Affinity::Off || !matches!(ask.endpoint.op, Op::Chat | Op::Completions) {
        return None;
    }
    let project = &*ask.caller.project.name;
    let mut keys = if sticky == Affinity::Auto && ask.estimate >= LEAST && !ask.form {
        json::parse(&ask.body)
            .map(|body| chain(seed, &(project, &*ask.asked), body, ask.endpoint.dialect))
            .unwrap_or_default()
    } else {
        ConversationKeys::default()
    };
    keys.session = ask.session.as_deref().map(|name| session(seed, project, name));
    (!keys.is_empty()).then_some(keys)
}

/// The hashes of a conversation's beginnings.
fn chain(
    seed: &RandomState,
    whose: &(&str, &str),
    body: JsonRef<'_>,
    dialect: Dialect,
) -> ConversationKeys {
    let mut before = seed.hash_one(whose);
    let mut has_head = false;
    for name in
        ["system", "instructions", "systemInstruction", "system_instruction", "tools", "functions"]
    {
        if let Some(value) = body.get(name) {
            before = seed.hash_one((before, name, digest(seed, value, "content")));
            has_head = true;
        }
    }
    let said = ["messages", "input", "contents"].into_iter().find_map(|name| body.get(name));
    let Some(said) = said else { return ConversationKeys::default() };
    if said.str().is_some() {
        return ConversationKeys {
            session: None,
            chain: vec![seed.hash_one((before, said.text()))],
            preamble: has_head.then_some(before),
        };
    }
    let (mut chain, mut head, mut at, mut asked) = (Vec::new(), None, before, false);
    for message in said.items() {
        let role = message.get("role").and_then(JsonRef::str);
        let role = role.as_deref().unwrap_or(if dialect == Dialect::Gemini { "user" } else { "" });
        let leads = matches!(role, "system" | "developer") && chain.is_empty() && !asked;
        at = seed.hash_one((at, object(seed, message, &["id", "status"])));
        asked |= role == "user";
        if leads {
            has_head = true;
            head = Some(at);
        } else if asked {
            chain.push(at);
        }
    }
    chain.reverse();
    chain.truncate(LONGEST);
    ConversationKeys { session: None, chain, preamble: head.or(has_head.then_some(before)) }
}

/// What stands at the beginning of a request, part by part, and whose it is; `None` where it holds
/// no conversation.
#[must_use]
pub(super) fn prefix(seed: &RandomState, ask: &Ask) -> Option<(u64, PromptPrefix)> {
    let body = json::parse(&ask.body).ok()?;
    let prefix = parts(seed, body, ask.endpoint.dialect)?;
    Some((seed.hash_one((&*ask.caller.project.name, &*ask.asked)), prefix))
}

fn parts(seed: &RandomState, body: JsonRef<'_>, dialect: Dialect) -> Option<PromptPrefix> {
    let said = ["messages", "input", "contents"]
        .into_iter()
        .find_map(|name| body.get(name))
        .filter(|said| said.is_array())?;
    let tools = ["tools", "functions"].into_iter().find_map(|name| body.get(name));
    let each = || tools.into_iter().flat_map(JsonRef::items).map(|tool| digest(seed, tool, ""));
    let mut out = PromptPrefix {
        tools: each().fold(0, |before, tool| seed.hash_one((before, tool))),
        tool_set: each().fold(0, u64::wrapping_add),
        has_cache_control: memchr::memmem::find(body.text().as_bytes(), b"\"cache_control\"")
            .is_some(),
        ..PromptPrefix::default()
    };
    for name in ["system", "instructions", "systemInstruction", "system_instruction"] {
        if let Some(value) = body.get(name) {
            out.system = seed.hash_one((out.system, digest(seed, value, "content")));
        }
    }
    for message in said.items() {
        let role = message.get("role").and_then(JsonRef::str);
        let hash = object(seed, message, &["id", "status"]);
        let role =
            match role.as_deref().unwrap_or(if dialect == Dialect::Gemini { "user" } else { "" }) {
                "system" | "developer" if out.messages.is_empty() => {
                    out.system = seed.hash_one((out.system, hash));
                    continue;
                }
                "assistant" | "model" => PrefixRole::Assistant,
                "tool" | "function" => PrefixRole::Tool,
                "user" => PrefixRole::User,
                _ => PrefixRole::Other,
            };
        if out.messages.len() >= MAX_MESSAGES {
            break;
        }
        out.messages.push((role, hash));
    }
    (!out.messages.is_empty()).then_some(out)
}

/// A value's hash; `name` is the key it stands under.
fn digest(seed: &RandomState, value: JsonRef<'_>, name: &str) -> u64 {
    if value.is_object() {
        return object(seed, value, &[]);
    }
    if value.is_array() {
        return value
            .items()
            .fold(1, |before, item| seed.hash_one((before, digest(seed, item, ""))));
    }
    if name == "content" && value.str().is_some() {
        let block = member(seed, "type", seed.hash_one("\"text\"")).wrapping_add(member(
            seed,
            "text",
            seed.hash_one(value.text()),
        ));
        return seed.hash_one((1_u64, block));
    }
    seed.hash_one(value.text())
}

/// An object's hash, without the members of these names and without marks for the cache.
fn object(seed: &RandomState, value: JsonRef<'_>, without: &[&str]) -> u64 {
    let counts =
        |name: &str| !matches!(name, "cache_control" | "cachePoint") && !without.contains(&name);
    value.members().filter(|(name, _)| counts(name)).fold(0_u64, |sum, (name, value)| {
        sum.wrapping_add(member(seed, name, digest(seed, value, name)))
    })
}

fn member(seed: &RandomState, name: &str, value: u64) -> u64 {
    seed.hash_one((name, value))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn of(body: &Value) -> ConversationKeys {
        // One seed for all, as in one process.
        static SEED: std::sync::LazyLock<RandomState> = std::sync::LazyLock::new(RandomState::new);
        let text = body.to_string();
        chain(&SEED, &("ide", "m"), json::parse(text.as_bytes()).expect("JSON"), Dialect::Openai)
    }

    fn turn(role: &str, text: &str) -> Value {
        json!({"role": role, "content": text})
    }

    #[test]
    fn a_follow_up_begins_with_what_was_asked_before() {
        let mut messages = vec![turn("system", "be brief"), turn("user", "hi")];
        let first = of(&json!({ "messages": messages }));
        messages.extend([turn("assistant", "hello"), turn("user", "more")]);
        let second = of(&json!({ "messages": messages }));

        assert_eq!(first.chain.len(), 1);
        assert_eq!(second.chain.len(), 3);
        assert_eq!(second.chain.last(), first.chain.first());
        assert_eq!(first.preamble, second.preamble);
        assert_ne!(
            of(&json!({"messages": [turn("system", "be long"), turn("user", "hi")]})).chain,
            first.chain
        );
    }

    #[test]
    fn cache_marks_key_order_and_ids_of_items_make_no_difference() {
        let plain = json!({"system": "s", "messages": [turn("user", "hi")]});
        let marked = json!({
            "messages": [{"content": [{"text": "hi", "cache_control": {"type": "ephemeral"}, "type": "text"}], "role": "user"}],
            "system": [{"type": "text", "text": "s", "cache_control": {"type": "ephemeral"}}],
        });
        assert_eq!(of(&plain), of(&marked));
        let item = |id: &str| json!({"input": [{"id": id, "type": "message", "role": "user", "content": "hi"}]});
        assert_eq!(of(&item("msg_1")), of(&item("msg_2")));
        let call = |id: &str| json!({"messages": [turn("user", "hi"), {"role": "assistant", "tool_calls": [{"id": id}]}]});
        assert_ne!(of(&call("a")), of(&call("b")), "the id of a call is part of what was said");
    }

    #[test]
    fn the_parts_of_a_prompt_are_told_apart() {
        static SEED: std::sync::LazyLock<RandomState> = std::sync::LazyLock::new(RandomState::new);
        let parts = |body: &Value| {
            parts(&SEED, json::parse(body.to_string().as_bytes()).expect("JSON"), Dialect::Openai)
                .expect("parts")
        };
        let tool = |name: &str| json!({"type": "function", "function": {"name": name}});
        let messages =
            json!([turn("system", "be brief"), turn("user", "hi"), turn("assistant", "hello")]);
        let first = parts(&json!({"tools": [tool("a"), tool("b")], "messages": messages}));
        let turned = parts(&json!({"tools": [tool("b"), tool("a")], "messages": messages}));

        assert_eq!(
            (first.messages.len(), first.messages[1].0, first.has_cache_control),
            (2, PrefixRole::Assistant, false)
        );
        assert!(first.tools != turned.tools && first.tool_set == turned.tool_set);
        assert_eq!((first.system, &first.messages), (turned.system, &turned.messages));
        let marked = json!([{"role": "system", "content": [{"type": "text", "text": "be brief", "cache_control": {"type": "ephemeral"}}]}, turn("user", "hi")]);
        let marked = parts(&json!({"messages": marked}));
        assert_eq!(
            (marked.system, marked.has_cache_control),
            (first.system, true),
            "a mark is no change of the prompt"
        );
    }

    #[test]
    fn every_dialects_turns_are_found() {
        for body in [
            json!({"contents": [{"parts": [{"text": "hi"}]}]}),
            json!({"input": "hi"}),
            json!({"input": [{"role": "user", "content": "hi"}]}),
            json!({"messages": [turn("user", "hi")]}),
        ] {
            let text = body.to_string();
            let dialect =
                if body.get("contents").is_some() { Dialect::Gemini } else { Dialect::Openai };
            let keys = chain(
                &RandomState::new(),
                &("a", "m"),
                json::parse(text.as_bytes()).expect("JSON"),
                dialect,
            );
            assert_eq!(keys.chain.len(), 1, "{body}");
        }
        assert!(
            of(&json!({"messages": [turn("system", "alone")]})).chain.is_empty(),
            "system alone is no conversation"
        );
        assert!(of(&json!({"prompt": "hi"})).is_empty());
    }

    proptest! {
        #[test]
        fn each_turn_more_only_adds_beginnings(texts in proptest::collection::vec("[a-c]{0,3}", 1..12)) {
            let all: Vec<Value> = texts.iter().enumerate().map(|(n, text)| turn(if n % 2 == 0 { "user" } else { "assistant" }, text)).collect();
            let longest = of(&json!({ "messages": all }));
            for n in 1..=all.len() {
                let shorter = of(&json!({"messages": all[..n]}));
                prop_assert_eq!(&longest.chain[all.len() - n..], &shorter.chain[..]);
            }
        }
    }
}
