//! Shortens names and ids to the forms that this dialect's providers accept: tool names in a
//! restricted alphabet, call ids of limited length.

use std::{borrow::Cow, collections::HashSet};

use crate::{
    dialect::renamed_tools::RenamedTools,
    ir::{
        request::ChatRequest,
        tool::{Tool, ToolChoice},
    },
};

/// Maximum length of a tool's name, in characters.
const MAX_TOOL_NAME_CHARS: usize = 64;
/// Maximum length of a call's id, in characters.
const MAX_CALL_ID_CHARS: usize = 40;

/// Tools sent under another name: the name sent, then the client's name.
#[derive(Debug, Default)]
pub(super) struct OpenaiToolNames(RenamedTools);

impl OpenaiToolNames {
    pub(super) fn for_request(request: &ChatRequest) -> Self {
        let choice = match &request.tool_choice {
            Some(ToolChoice::Named(name)) => std::slice::from_ref(name),
            Some(ToolChoice::Allowed { names, .. }) => names.as_slice(),
            _ => &[],
        };
        let calls = request.called_tools();
        let all = || {
            request
                .tools
                .iter()
                .filter_map(Tool::name)
                .chain(choice.iter().map(String::as_str))
                .chain(calls.clone())
        };
        if all().all(is_valid_name) {
            return Self::default();
        }
        let mut names = Self::default();
        let mut taken: HashSet<String> = all().map(str::to_owned).collect();
        for name in all().filter(|name| !is_valid_name(name)) {
            if !names.0.contains(name) {
                // A name maps to the same name in every request, so that prompt caches stay valid.
                let mut salt = 0;
                let sent = loop {
                    let sent = shorten(name, MAX_TOOL_NAME_CHARS, salt);
                    if taken.insert(sent.clone()) {
                        break sent;
                    }
                    salt += 1;
                };
                names.0.push(sent, name);
            }
        }
        names
    }

    pub(super) fn sent_name<'a>(&'a self, name: &'a str) -> &'a str {
        self.0.wire_name(name)
    }

    pub(super) fn into_vec(self) -> Vec<(String, String)> {
        self.0.into_pairs()
    }
}

/// Returns a name in the restricted alphabet; a valid name is unchanged.
pub(super) fn to_valid_name(name: &str) -> Cow<'_, str> {
    if is_valid_name(name) {
        Cow::Borrowed(name)
    } else {
        Cow::Owned(shorten(name, MAX_TOOL_NAME_CHARS, 0))
    }
}

/// Returns a call's id. Shortens a long id the same way in calls and results.
pub(super) fn to_valid_id(id: &str) -> Cow<'_, str> {
    if id.chars().count() <= MAX_CALL_ID_CHARS {
        Cow::Borrowed(id)
    } else {
        Cow::Owned(shorten(id, MAX_CALL_ID_CHARS, 0))
    }
}

fn is_valid_name(name: &str) -> bool {
    (1..=MAX_TOOL_NAME_CHARS).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
}

/// Returns the beginning of a text and a digest of the whole.
fn shorten(text: &str, max_chars: usize, salt: u32) -> String {
    let narrow = text
        .chars()
        .take(max_chars - 9)
        .map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' });
    let mut digest = 0x811c_9dc5_u32 ^ salt;
    for b in text.bytes() {
        digest = (digest ^ u32::from(b)).wrapping_mul(0x0100_0193);
    }
    format!("{}_{digest:08x}", narrow.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::tool::FunctionTool;

    #[test]
    fn invalid_names_are_replaced_by_stable_unique_ones() {
        let tool = |name: &str| {
            Tool::Function(FunctionTool { name: name.to_owned(), ..FunctionTool::default() })
        };
        let long = "x".repeat(65);
        let request = ChatRequest {
            tools: vec![tool("a.b"), tool("a b"), tool("ok-1_"), tool(&long)],
            ..ChatRequest::default()
        };
        let names = OpenaiToolNames::for_request(&request);
        assert_eq!(names.sent_name("ok-1_"), "ok-1_");
        let sent: Vec<_> =
            ["a.b", "a b", &long].map(|name| names.sent_name(name).to_owned()).into();
        assert!(sent.iter().all(|name| is_valid_name(name)), "{sent:?}");
        assert!(
            sent[0].starts_with("a_b_") && sent[1].starts_with("a_b_") && sent[0] != sent[1],
            "{sent:?}"
        );
        assert_eq!(OpenaiToolNames::for_request(&request).into_vec(), names.into_vec());
        assert_eq!(to_valid_id("call_1"), "call_1");
        assert_eq!(to_valid_id(&"y".repeat(60)).len(), 40);
    }
}
