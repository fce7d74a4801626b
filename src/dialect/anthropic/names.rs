//! Maps tool names and call ids to the alphabet that this dialect allows, consistently within a
//! request.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
};

use crate::{
    dialect::renamed_tools::{NameNumbers, RenamedTools},
    ir::{
        request::ChatRequest,
        tool::{Tool, ToolChoice},
    },
};

/// The limit for the name of a tool in the guide to tool use. The provider itself takes 128
/// characters by now, others that offer its models do not.
/// <https://platform.claude.com/docs/en/agents-and-tools/tool-use/define-tools>
const MAX_NAME_LEN: usize = 64;

/// The tools that are sent under a changed name.
#[derive(Debug, Default)]
pub(super) struct AnthropicToolNames {
    renamed: RenamedTools,
}

impl AnthropicToolNames {
    /// Finds a name for every tool that is offered, chosen or was called. The names in `fixed` are
    /// already taken.
    pub(super) fn for_request(request: &ChatRequest, fixed: &[&str]) -> Self {
        let offered = request.tools.iter().filter_map(Tool::name);
        let called = request.called_tools();
        let chosen = match &request.tool_choice {
            Some(ToolChoice::Named(name)) => Some(name.as_str()),
            _ => None,
        };
        let all = || offered.clone().chain(called.clone()).chain(chosen);
        let fixed: HashSet<&str> = fixed.iter().copied().collect();
        if all().all(|name| is_valid_name(name) && !fixed.contains(name)) {
            return Self::default();
        }
        let mut taken: HashSet<String> = all()
            .filter(|name| is_valid_name(name))
            .chain(fixed.iter().copied())
            .map(str::to_owned)
            .collect();
        let (mut renamed, mut numbers) = (RenamedTools::default(), NameNumbers::default());
        for name in all() {
            if (!is_valid_name(name) || fixed.contains(name)) && !renamed.contains(name) {
                let base = sanitize(name, "tool");
                let sent = numbers.unique(&base, MAX_NAME_LEN, |name| taken.contains(name));
                taken.insert(sent.clone());
                renamed.push(sent, name);
            }
        }
        Self { renamed }
    }

    /// Returns the name to send.
    pub(super) fn wire_name<'n>(&'n self, name: &'n str) -> &'n str {
        self.renamed.wire_name(name)
    }

    pub(super) fn into_renamed(self) -> Vec<(String, String)> {
        self.renamed.into_pairs()
    }
}

/// Call ids that are valid and unique in the conversation, and the same for a call and its result.
#[derive(Debug)]
pub(super) struct AnthropicRequestCallIds<'s> {
    seed: &'s str,
    generated: u32,
    latest: HashMap<&'s str, String>,
    used: HashSet<String>,
    numbers: NameNumbers,
}

impl<'s> AnthropicRequestCallIds<'s> {
    pub(super) fn new(seed: &'s str) -> Self {
        Self {
            seed,
            generated: 0,
            latest: HashMap::new(),
            used: HashSet::new(),
            numbers: NameNumbers::default(),
        }
    }

    /// Returns the id to send for a call. Some clients restart their numbering in each turn, so a
    /// repeated id is replaced by a new one.
    pub(super) fn id_for_call(&mut self, id: &'s str) -> String {
        let candidate = if id.is_empty() {
            self.generated += 1;
            Cow::Owned(format!("call_{}_{}", sanitize(self.seed, "0"), self.generated - 1))
        } else {
            sanitize(id, "call")
        };
        let sent = self.numbers.unique(&candidate, usize::MAX, |id| self.used.contains(id));
        self.used.insert(sent.clone());
        self.latest.insert(id, sent.clone());
        sent
    }

    /// Returns the id of the call that a result answers: the latest call with that id.
    pub(super) fn id_for_result(&self, id: &str) -> Option<&str> {
        self.latest.get(id).map(String::as_str)
    }
}

fn is_valid_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= MAX_NAME_LEN && name.bytes().all(is_name_byte)
}

fn is_name_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b == b'_' || b == b'-'
}

/// Replaces every other character with an underscore.
fn sanitize<'n>(name: &'n str, empty: &'static str) -> Cow<'n, str> {
    match name {
        "" => Cow::Borrowed(empty),
        _ if name.bytes().all(is_name_byte) => Cow::Borrowed(name),
        _ => name
            .chars()
            .map(|c| if c.is_ascii() && is_name_byte(c as u8) { c } else { '_' })
            .collect::<String>()
            .into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::tool::FunctionTool;

    #[test]
    fn written_names_are_valid_unique_and_stable() {
        let tool = |name: &str| {
            Tool::Function(FunctionTool { name: name.to_owned(), ..FunctionTool::default() })
        };
        let long = "x".repeat(200);
        let request = ChatRequest {
            tools: vec![tool("a.b"), tool("a_b"), tool("a b"), tool("é"), tool(&long), tool("ok")],
            ..ChatRequest::default()
        };

        let names = AnthropicToolNames::for_request(&request, &["ok"]);

        let sent: Vec<_> = ["a.b", "a_b", "a b", "é", "ok", "other"]
            .into_iter()
            .map(|name| names.wire_name(name))
            .collect();
        assert_eq!(sent, ["a_b_2", "a_b", "a_b_3", "_", "ok_2", "other"]);
        assert_eq!(names.wire_name(&long).len(), MAX_NAME_LEN);
    }

    #[test]
    fn duplicate_call_id_is_renamed_and_results_match_the_latest() {
        let mut ids = AnthropicRequestCallIds::new("s");
        assert_eq!(ids.id_for_call("f.x:0"), "f_x_0");
        assert_eq!(ids.id_for_result("f.x:0"), Some("f_x_0"));
        assert_eq!(ids.id_for_call("f.x:0"), "f_x_0_2");
        assert_eq!(ids.id_for_result("f.x:0"), Some("f_x_0_2"));
        assert_eq!(
            (ids.id_for_call(""), ids.id_for_call("")),
            ("call_s_0".to_owned(), "call_s_1".to_owned())
        );
        assert_eq!(ids.id_for_result("nobody"), None);
    }
}
