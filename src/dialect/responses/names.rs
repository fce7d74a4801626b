//! Maps names and ids to the form that this API accepts: at most 64 letters, digits, `_` and `-`,
//! with namespaces separate.

use std::{
    borrow::Cow,
    hash::{DefaultHasher, Hash as _, Hasher as _},
};

use crate::{
    dialect::responses::{items_read::DIALECT, tools_read::PARENT_NAMESPACE_NOTE},
    ir::{request::ChatRequest, tool::Tool},
};

const MAX_NAME_LEN: usize = 64;

/// The names under which a request's tools are sent.
pub(super) struct ResponsesToolNames<'a> {
    /// Pairs of aiproxy's tool name and namespace.
    namespaces: Vec<(&'a str, Cow<'a, str>)>,
    custom_tools: Vec<&'a str>,
    /// Pairs of the name sent and aiproxy's name.
    renamed: Vec<(String, String)>,
}

impl<'a> ResponsesToolNames<'a> {
    pub(super) fn from_request(request: &'a ChatRequest) -> Self {
        let mut names =
            Self { namespaces: Vec::new(), custom_tools: Vec::new(), renamed: Vec::new() };
        for tool in &request.tools {
            match tool {
                Tool::Function(it) => names.namespaces.extend(
                    it.namespace.as_deref().map(|space| (it.name.as_str(), Cow::Borrowed(space))),
                ),
                Tool::Custom(it) => {
                    names.custom_tools.push(&it.name);
                    let space = it
                        .extras
                        .get(DIALECT, PARENT_NAMESPACE_NOTE)
                        .and_then(|raw| raw.json().string());
                    names
                        .namespaces
                        .extend(space.map(|space| (it.name.as_str(), Cow::Owned(space))));
                }
                Tool::Hosted(_) => {}
            }
        }
        let called = request.called_tools();
        let all: Vec<&str> = request.tools.iter().filter_map(Tool::name).chain(called).collect();
        for name in &all {
            if is_valid_name(name)
                || names.namespace(name).is_some()
                || names.renamed.iter().any(|(_, known)| known == name)
            {
                continue;
            }
            let base: String = name
                .chars()
                .map(|c| if is_name_char(c) { c } else { '_' })
                .take(MAX_NAME_LEN - 4)
                .collect();
            let taken = |sent: &str| {
                all.contains(&sent) || names.renamed.iter().any(|(other, _)| other == sent)
            };
            let sent = std::iter::once(base.clone())
                .chain((2..).map(|n| format!("{base}_{n}")))
                .find(|sent| !sent.is_empty() && !taken(sent));
            names.renamed.extend(sent.map(|sent| (sent, (*name).to_owned())));
        }
        names
    }

    /// The namespace of a tool.
    pub(super) fn namespace(&self, name: &str) -> Option<&str> {
        self.namespaces.iter().find(|(known, _)| *known == name).map(|(_, space)| &**space)
    }

    /// The name to send, without its namespace.
    pub(super) fn wire_name<'n>(&'n self, name: &'n str) -> &'n str {
        if let Some(space) = self.namespace(name) {
            return strip_namespace(space, name);
        }
        self.renamed.iter().find(|(_, known)| known == name).map_or(name, |(sent, _)| sent)
    }

    pub(super) fn is_custom(&self, name: &str) -> bool {
        self.custom_tools.contains(&name)
    }

    /// Returns the renamed tools for the reader of the answer, which also needs to know which tools
    /// are in namespaces.
    pub(super) fn into_renamed(self) -> Vec<(String, String)> {
        let inside =
            self.namespaces.into_iter().map(|(name, _)| (name.to_owned(), name.to_owned()));
        self.renamed.into_iter().chain(inside).collect()
    }
}

/// A name inside its namespace.
pub(super) fn strip_namespace<'a>(namespace: &str, name: &'a str) -> &'a str {
    name.strip_prefix(namespace).and_then(|rest| rest.strip_prefix("__")).unwrap_or(name)
}

fn is_name_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '-'
}

fn is_valid_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= MAX_NAME_LEN && name.chars().all(is_name_char)
}

/// Shortens a call id if necessary; the result is the same for the call and its result.
pub(super) fn to_valid_call_id(id: &str) -> Cow<'_, str> {
    if id.len() <= MAX_NAME_LEN {
        return Cow::Borrowed(id);
    }
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    let head: String = id.chars().filter(|&c| is_name_char(c)).take(40).collect();
    Cow::Owned(format!("{head}_{:016x}", hasher.finish()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::tool::FunctionTool;

    #[test]
    fn names_that_the_api_refuses_are_sent_as_others_and_stay_apart() {
        let tool = |name: &str| {
            Tool::Function(FunctionTool { name: name.to_owned(), ..FunctionTool::default() })
        };
        let request = ChatRequest {
            tools: vec![tool("a.b"), tool("a:b"), tool("a_b"), tool("ok")],
            ..ChatRequest::default()
        };
        let names = ResponsesToolNames::from_request(&request);
        assert_eq!(
            [
                names.wire_name("a.b"),
                names.wire_name("a:b"),
                names.wire_name("a_b"),
                names.wire_name("ok")
            ],
            ["a_b_2", "a_b_3", "a_b", "ok"]
        );
    }

    #[test]
    fn long_ids_are_cut_the_same_way_everywhere() {
        let long = "x".repeat(100);
        assert_eq!(to_valid_call_id(&long), to_valid_call_id(&long));
        assert!(to_valid_call_id(&long).len() <= MAX_NAME_LEN);
        assert_eq!(to_valid_call_id("call_1"), "call_1");
    }
}
