//! Maps names and ids to the form that this API accepts: at most 64 letters, digits, `_` and `-`,
//! with namespaces separate.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    hash::{DefaultHasher, Hash as _, Hasher as _},
};

use crate::{
    dialect::{
        renamed_tools::{NameNumbers, RenamedTools},
        responses::items_read::DIALECT,
    },
    ir::{
        request::ChatRequest,
        tool::{INNER_NAME_NOTE, Tool},
    },
};

const MAX_NAME_LEN: usize = 64;

/// The names under which a request's tools are sent.
pub(in crate::dialect::responses) struct ResponsesToolNames<'a> {
    /// The namespaces by aiproxy's tool name.
    namespaces: HashMap<&'a str, Cow<'a, str>>,
    /// The names inside the namespace that do not follow from the tool's name.
    inner_names: HashMap<&'a str, Cow<'a, str>>,
    custom_tools: HashSet<&'a str>,
    renamed: RenamedTools,
}

impl<'a> ResponsesToolNames<'a> {
    pub(in crate::dialect::responses) fn from_request(request: &'a ChatRequest) -> Self {
        let mut names = Self {
            namespaces: HashMap::new(),
            inner_names: HashMap::new(),
            custom_tools: HashSet::new(),
            renamed: RenamedTools::default(),
        };
        for tool in &request.tools {
            match tool {
                Tool::Function(it) => {
                    if let Some(space) = it.namespace.as_deref() {
                        names.namespaces.insert(&it.name, Cow::Borrowed(space));
                        if it.extras.get(DIALECT, INNER_NAME_NOTE).is_some() {
                            names.inner_names.insert(&it.name, it.inner_name());
                        }
                    }
                }
                Tool::Custom(it) => {
                    names.custom_tools.insert(&it.name);
                    if let Some((space, inner)) = it.namespace() {
                        names.namespaces.insert(&it.name, Cow::Owned(space));
                        names.inner_names.insert(&it.name, Cow::Owned(inner));
                    }
                }
                Tool::Hosted(_) => {}
            }
        }
        let called = request.called_tools();
        let all: Vec<&str> = request.tools.iter().filter_map(Tool::name).chain(called).collect();
        if all.iter().all(|name| is_valid_name(name)) {
            return names;
        }
        let mut taken: HashSet<String> = all.iter().map(|name| (*name).to_owned()).collect();
        let mut numbers = NameNumbers::default();
        for name in all {
            if is_valid_name(name)
                || names.namespaces.contains_key(name)
                || names.renamed.contains(name)
            {
                continue;
            }
            let base: String =
                name.chars().map(|c| if is_name_char(c) { c } else { '_' }).collect();
            let base = if base.is_empty() { "tool" } else { &base };
            let sent = numbers.unique(base, MAX_NAME_LEN, |name| taken.contains(name));
            taken.insert(sent.clone());
            names.renamed.push(sent, name);
        }
        names
    }

    /// The namespace of a tool.
    pub(in crate::dialect::responses) fn namespace(&self, name: &str) -> Option<&str> {
        self.namespaces.get(name).map(|space| &**space)
    }

    /// The name to send, without its namespace.
    pub(in crate::dialect::responses) fn wire_name<'n>(&'n self, name: &'n str) -> &'n str {
        if let Some(inner) = self.inner_names.get(name) {
            return inner;
        }
        if let Some(space) = self.namespace(name) {
            return strip_namespace(space, name);
        }
        self.renamed.wire_name(name)
    }

    pub(in crate::dialect::responses) fn is_custom(&self, name: &str) -> bool {
        self.custom_tools.contains(name)
    }

    /// Returns the renamed tools for the reader of the answer, which also needs to know which tools
    /// are in namespaces.
    pub(in crate::dialect::responses) fn into_renamed(self) -> Vec<(String, String)> {
        let inside = self.namespaces.into_keys().map(|name| (name.to_owned(), name.to_owned()));
        self.renamed.into_pairs().into_iter().chain(inside).collect()
    }
}

/// A name inside its namespace.
pub(in crate::dialect::responses) fn strip_namespace<'a>(
    namespace: &str,
    name: &'a str,
) -> &'a str {
    name.strip_prefix(namespace).and_then(|rest| rest.strip_prefix("__")).unwrap_or(name)
}

fn is_name_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '-'
}

fn is_valid_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= MAX_NAME_LEN && name.chars().all(is_name_char)
}

/// Shortens a call id if necessary; the result is the same for the call and its result.
pub(in crate::dialect::responses) fn to_valid_call_id(id: &str) -> Cow<'_, str> {
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
    fn invalid_tool_names_are_replaced_by_unique_ones() {
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
    fn long_ids_are_shortened_consistently() {
        let long = "x".repeat(100);
        assert_eq!(to_valid_call_id(&long), to_valid_call_id(&long));
        assert!(to_valid_call_id(&long).len() <= MAX_NAME_LEN);
        assert_eq!(to_valid_call_id("call_1"), "call_1");
    }
}
