//! Names and ids as this API takes them: letters, digits, `_` and `-`, at most 64 of them;
//! namespaces apart.

use std::{
    borrow::Cow,
    hash::{DefaultHasher, Hash as _, Hasher as _},
};

use crate::{
    dialect::responses::{items_read::OWN, tools_read::INSIDE},
    ir::{block::BlockKind, request::ChatRequest, tool::Tool},
};

const LONGEST: usize = 64;

/// How the names of a request's tools are sent.
pub(super) struct Names<'a> {
    /// Name as we know it, namespace.
    inside: Vec<(&'a str, Cow<'a, str>)>,
    custom: Vec<&'a str>,
    /// As sent, as we know it.
    renamed: Vec<(String, String)>,
}

impl<'a> Names<'a> {
    pub(super) fn of(request: &'a ChatRequest) -> Self {
        let mut names = Self { inside: Vec::new(), custom: Vec::new(), renamed: Vec::new() };
        for tool in &request.tools {
            match tool {
                Tool::Function(it) => names.inside.extend(
                    it.namespace.as_deref().map(|space| (it.name.as_str(), Cow::Borrowed(space))),
                ),
                Tool::Custom(it) => {
                    names.custom.push(&it.name);
                    let space = it
                        .extras
                        .get(OWN, INSIDE)
                        .and_then(|raw| Some(raw.json().str()?.into_owned()));
                    names.inside.extend(space.map(|space| (it.name.as_str(), Cow::Owned(space))));
                }
                Tool::Hosted(_) => {}
            }
        }
        let called =
            request.messages.iter().flat_map(|message| &message.blocks).filter_map(|block| {
                match &block.kind {
                    BlockKind::ToolCall(call) => Some(call.name.as_str()),
                    _ => None,
                }
            });
        let all: Vec<&str> = request.tools.iter().filter_map(Tool::name).chain(called).collect();
        for name in &all {
            if fits(name)
                || names.space(name).is_some()
                || names.renamed.iter().any(|(_, known)| known == name)
            {
                continue;
            }
            let base: String =
                name.chars().map(|c| if allowed(c) { c } else { '_' }).take(LONGEST - 4).collect();
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
    pub(super) fn space(&self, name: &str) -> Option<&str> {
        self.inside.iter().find(|(known, _)| *known == name).map(|(_, space)| &**space)
    }

    /// The name as it is sent, without its namespace.
    pub(super) fn sent<'n>(&'n self, name: &'n str) -> &'n str {
        if let Some(space) = self.space(name) {
            return inner(space, name);
        }
        self.renamed.iter().find(|(_, known)| known == name).map_or(name, |(sent, _)| sent)
    }

    pub(super) fn is_custom(&self, name: &str) -> bool {
        self.custom.contains(&name)
    }

    /// For the reader of the answer, who also has to know which tools stand in namespaces.
    pub(super) fn renamed(self) -> Vec<(String, String)> {
        let inside = self.inside.into_iter().map(|(name, _)| (name.to_owned(), name.to_owned()));
        self.renamed.into_iter().chain(inside).collect()
    }
}

/// A name inside its namespace.
pub(super) fn inner<'a>(space: &str, name: &'a str) -> &'a str {
    name.strip_prefix(space).and_then(|rest| rest.strip_prefix("__")).unwrap_or(name)
}

fn allowed(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '-'
}

fn fits(name: &str) -> bool {
    !name.is_empty() && name.len() <= LONGEST && name.chars().all(allowed)
}

/// A call's id, made short enough; the same for the call and its result.
pub(super) fn call_id(id: &str) -> Cow<'_, str> {
    if id.len() <= LONGEST {
        return Cow::Borrowed(id);
    }
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    let head: String = id.chars().filter(|&c| allowed(c)).take(40).collect();
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
        let names = Names::of(&request);
        assert_eq!(
            [names.sent("a.b"), names.sent("a:b"), names.sent("a_b"), names.sent("ok")],
            ["a_b_2", "a_b_3", "a_b", "ok"]
        );
    }

    #[test]
    fn long_ids_are_cut_the_same_way_everywhere() {
        let long = "x".repeat(100);
        assert_eq!(call_id(&long), call_id(&long));
        assert!(call_id(&long).len() <= LONGEST);
        assert_eq!(call_id("call_1"), "call_1");
    }
}
