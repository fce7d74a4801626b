//! Identifies a conversation by its client's name for it and by hashes of its prefixes.
//!
//! Reads the original body in any dialect. The order of keys, cache marks and ids that change from
//! turn to turn do not affect a hash. A text has the same hash as a plain string and as the only
//! block.

use std::hash::{BuildHasher, RandomState};

use crate::relay::request::proxy_request::ProxyRequest;
use crate::{
    base::json::reader::{self, JsonRef},
    config::settings::Affinity,
    ir::{
        op::{Dialect, Op},
        reason::cache_miss::PrefixRole,
    },
    routing::{
        affinity::ConversationKeys,
        prompt_cache::{MAX_MESSAGES, PromptPrefix},
    },
};

/// Providers do not cache prompts below this many tokens.
const MIN_CACHED_TOKENS: u64 = 1_024;
/// Prefixes to look up, longest first.
const MAX_PREFIXES: usize = 256;

/// Hashes the client's name of its conversation.
#[must_use]
pub fn session_key(hash_key: &RandomState, project: &str, name: &str) -> u64 {
    hash_key.hash_one(("session", project, name))
}

/// Returns the keys of this request's conversation; `None` if any account may serve it.
#[must_use]
pub(in crate::relay) fn conversation_keys(
    hash_key: &RandomState,
    request: &ProxyRequest,
    sticky: Affinity,
) -> Option<ConversationKeys> {
    if sticky == Affinity::Off || !matches!(request.endpoint.op, Op::Chat | Op::Completions) {
        return None;
    }
    let project = &*request.caller.project.name;
    let mut keys = if sticky == Affinity::Auto
        && request.estimate >= MIN_CACHED_TOKENS
        && !request.is_multipart
    {
        reader::parse(&request.body)
            .map(|body| {
                prefix_hashes(
                    hash_key,
                    &(project, &*request.requested_model),
                    body,
                    request.endpoint.dialect,
                )
            })
            .unwrap_or_default()
    } else {
        ConversationKeys::default()
    };
    keys.session = request.session.as_deref().map(|name| session_key(hash_key, project, name));
    (!keys.is_empty()).then_some(keys)
}

/// Hashes a conversation's prefixes.
fn prefix_hashes(
    hash_key: &RandomState,
    owner: &(&str, &str),
    body: JsonRef<'_>,
    dialect: Dialect,
) -> ConversationKeys {
    let mut before = hash_key.hash_one(owner);
    let mut has_head = false;
    for name in
        ["system", "instructions", "systemInstruction", "system_instruction", "tools", "functions"]
    {
        if let Some(value) = body.get(name) {
            before = hash_key.hash_one((before, name, hash_value(hash_key, value, "content")));
            has_head = true;
        }
    }
    let messages = ["messages", "input", "contents"].into_iter().find_map(|name| body.get(name));
    let Some(messages) = messages else { return ConversationKeys::default() };
    if messages.str().is_some() {
        return ConversationKeys {
            session: None,
            chain: vec![hash_key.hash_one((before, messages.text()))],
            preamble: has_head.then_some(before),
        };
    }
    let (mut chain, mut head, mut at, mut user_seen) = (Vec::new(), None, before, false);
    for message in messages.items() {
        let role = message.get("role").and_then(JsonRef::str);
        let role = role.as_deref().unwrap_or(if dialect == Dialect::Gemini { "user" } else { "" });
        let leads = matches!(role, "system" | "developer") && chain.is_empty() && !user_seen;
        at = hash_key.hash_one((at, hash_object(hash_key, message, &["id", "status"])));
        user_seen |= role == "user";
        if leads {
            has_head = true;
            head = Some(at);
        } else if user_seen {
            chain.push(at);
        }
    }
    chain.reverse();
    chain.truncate(MAX_PREFIXES);
    ConversationKeys { session: None, chain, preamble: head.or(has_head.then_some(before)) }
}

/// Returns the parts of a request's prefix, in order, and a hash of its project and model; `None`
/// if the request has no conversation.
#[must_use]
pub(in crate::relay) fn cache_prefix(
    hash_key: &RandomState,
    request: &ProxyRequest,
) -> Option<(u64, PromptPrefix)> {
    let body = reader::parse(&request.body).ok()?;
    let prefix = prefix_parts(hash_key, body, request.endpoint.dialect)?;
    Some((hash_key.hash_one((&*request.caller.project.name, &*request.requested_model)), prefix))
}

fn prefix_parts(
    hash_key: &RandomState,
    body: JsonRef<'_>,
    dialect: Dialect,
) -> Option<PromptPrefix> {
    let messages = ["messages", "input", "contents"]
        .into_iter()
        .find_map(|name| body.get(name))
        .filter(|messages| messages.is_array())?;
    let tools = ["tools", "functions"].into_iter().find_map(|name| body.get(name));
    let each =
        || tools.into_iter().flat_map(JsonRef::items).map(|tool| hash_value(hash_key, tool, ""));
    let mut out = PromptPrefix {
        tools: each().fold(0, |before, tool| hash_key.hash_one((before, tool))),
        tool_set: each().fold(0, u64::wrapping_add),
        has_cache_control: memchr::memmem::find(body.text().as_bytes(), b"\"cache_control\"")
            .is_some(),
        ..PromptPrefix::default()
    };
    for name in ["system", "instructions", "systemInstruction", "system_instruction"] {
        if let Some(value) = body.get(name) {
            out.system = hash_key.hash_one((out.system, hash_value(hash_key, value, "content")));
        }
    }
    for message in messages.items() {
        let role = message.get("role").and_then(JsonRef::str);
        let hash = hash_object(hash_key, message, &["id", "status"]);
        let role =
            match role.as_deref().unwrap_or(if dialect == Dialect::Gemini { "user" } else { "" }) {
                "system" | "developer" if out.messages.is_empty() => {
                    out.system = hash_key.hash_one((out.system, hash));
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

/// Hashes a value; `name` is its key.
fn hash_value(hash_key: &RandomState, value: JsonRef<'_>, name: &str) -> u64 {
    if value.is_object() {
        return hash_object(hash_key, value, &[]);
    }
    if value.is_array() {
        return value
            .items()
            .fold(1, |before, item| hash_key.hash_one((before, hash_value(hash_key, item, ""))));
    }
    if name == "content" && value.str().is_some() {
        let block = hash_member(hash_key, "type", hash_key.hash_one("\"text\""))
            .wrapping_add(hash_member(hash_key, "text", hash_key.hash_one(value.text())));
        return hash_key.hash_one((1_u64, block));
    }
    hash_key.hash_one(value.text())
}

/// Hashes an object without the members of these names and without cache marks.
fn hash_object(hash_key: &RandomState, value: JsonRef<'_>, without: &[&str]) -> u64 {
    let counts =
        |name: &str| !matches!(name, "cache_control" | "cachePoint") && !without.contains(&name);
    value.members().filter(|(name, _)| counts(name)).fold(0_u64, |sum, (name, value)| {
        sum.wrapping_add(hash_member(hash_key, name, hash_value(hash_key, value, name)))
    })
}

fn hash_member(hash_key: &RandomState, name: &str, value: u64) -> u64 {
    hash_key.hash_one((name, value))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn of(body: &Value) -> ConversationKeys {
        // One hash key for all, as in one process.
        static SEED: std::sync::LazyLock<RandomState> = std::sync::LazyLock::new(RandomState::new);
        let text = body.to_string();
        prefix_hashes(
            &SEED,
            &("ide", "m"),
            reader::parse(text.as_bytes()).expect("JSON"),
            Dialect::Openai,
        )
    }

    fn turn(role: &str, text: &str) -> Value {
        json!({"role": role, "content": text})
    }

    #[test]
    fn follow_up_shares_the_prefix_of_its_conversation() {
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
    fn keys_ignore_cache_marks_member_order_and_item_ids() {
        let plain = json!({"system": "s", "messages": [turn("user", "hi")]});
        let marked = json!({
            "messages": [{"content": [{"text": "hi", "cache_control": {"type": "ephemeral"}, "type": "text"}], "role": "user"}],
            "system": [{"type": "text", "text": "s", "cache_control": {"type": "ephemeral"}}],
        });
        assert_eq!(of(&plain), of(&marked));
        let item = |id: &str| json!({"input": [{"id": id, "type": "message", "role": "user", "content": "hi"}]});
        assert_eq!(of(&item("msg_1")), of(&item("msg_2")));
        let call = |id: &str| json!({"messages": [turn("user", "hi"), {"role": "assistant", "tool_calls": [{"id": id}]}]});
        assert_ne!(of(&call("a")), of(&call("b")), "the id of a call is part of the conversation");
    }

    #[test]
    fn parts_of_a_prompt_are_distinguished() {
        static SEED: std::sync::LazyLock<RandomState> = std::sync::LazyLock::new(RandomState::new);
        let parts = |body: &Value| {
            prefix_parts(
                &SEED,
                reader::parse(body.to_string().as_bytes()).expect("JSON"),
                Dialect::Openai,
            )
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
    fn turns_of_every_dialect_are_found() {
        for body in [
            json!({"contents": [{"parts": [{"text": "hi"}]}]}),
            json!({"input": "hi"}),
            json!({"input": [{"role": "user", "content": "hi"}]}),
            json!({"messages": [turn("user", "hi")]}),
        ] {
            let text = body.to_string();
            let dialect =
                if body.get("contents").is_some() { Dialect::Gemini } else { Dialect::Openai };
            let keys = prefix_hashes(
                &RandomState::new(),
                &("a", "m"),
                reader::parse(text.as_bytes()).expect("JSON"),
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
        fn each_further_turn_only_adds_prefixes(texts in proptest::collection::vec("[a-c]{0,3}", 1..12)) {
            let all: Vec<Value> = texts.iter().enumerate().map(|(n, text)| turn(if n % 2 == 0 { "user" } else { "assistant" }, text)).collect();
            let longest = of(&json!({ "messages": all }));
            for n in 1..=all.len() {
                let shorter = of(&json!({"messages": all[..n]}));
                prop_assert_eq!(&longest.chain[all.len() - n..], &shorter.chain[..]);
            }
        }
    }
}
