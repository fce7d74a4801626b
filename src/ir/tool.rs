//! The tools that a model may call.

use std::borrow::Cow;

use crate::{
    base::json::{raw::RawJson, reader::JsonRef},
    ir::{block::CacheBreakpoint, extras::Extras, op::Dialect},
};

#[derive(Clone, Debug, PartialEq)]
pub enum Tool {
    Function(FunctionTool),
    /// Takes free text (Responses `custom`, with its grammar).
    Custom(CustomTool),
    /// Run by the provider: web search, code execution, MCP.
    Hosted(HostedTool),
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct FunctionTool {
    pub name: String,
    pub description: Option<String>,
    /// JSON Schema of the arguments; absent means no arguments.
    pub schema: Option<RawJson>,
    pub strict: Option<bool>,
    /// The namespace of the tool (Responses); `name` is then unique as `namespace__name`.
    pub namespace: Option<String>,
    pub cache: Option<CacheBreakpoint>,
    pub extras: Extras,
}

/// The note on a function that its own dialect defines by a type: the tool as the client wrote it.
pub const ORIGINAL_TOOL_NOTE: &str = "original";
/// The note on a free-text tool: the namespace that contains it.
pub const PARENT_NAMESPACE_NOTE: &str = "inside";
/// The note on a tool whose qualified name is not its namespace and name, because another tool has
/// that name already: the name inside the namespace.
pub const INNER_NAME_NOTE: &str = "inner_name";
/// The note on a tool that an item of the input brought, not the request's list of tools: it stays
/// known when the conversation goes on.
pub const INPUT_TOOL_NOTE: &str = "from_input";

impl FunctionTool {
    /// Returns the name inside the namespace.
    #[must_use]
    pub fn inner_name(&self) -> Cow<'_, str> {
        let prefix_len = self.namespace.as_ref().map_or(0, |space| space.len() + "__".len());
        match self
            .extras
            .get(Dialect::Responses, INNER_NAME_NOTE)
            .and_then(|raw| raw.json().string())
        {
            Some(name) => name.into(),
            None => self.name.get(prefix_len..).unwrap_or(&self.name).into(),
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct CustomTool {
    pub name: String,
    pub description: Option<String>,
    /// `{"type":"grammar",…}` or `{"type":"text"}`.
    pub format: Option<RawJson>,
    pub extras: Extras,
}

#[derive(Clone, Debug, PartialEq)]
pub struct HostedTool {
    pub kind: HostedKind,
    pub dialect: Dialect,
    /// The complete tool as its dialect wrote it.
    pub body: RawJson,
}

/// Kinds of hosted tools that several dialects share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostedKind {
    WebSearch,
    CodeExecution,
    UrlContext,
    Other,
}

#[derive(Clone, Debug, PartialEq)]
pub enum ToolChoice {
    Auto,
    None,
    /// Some tool must be called.
    Required,
    /// This tool must be called.
    Named(String),
    /// Only these may be called (OpenAI `allowed_tools`, Gemini `allowedFunctionNames`).
    Allowed {
        names: Vec<String>,
        required: bool,
    },
}

impl Tool {
    /// Returns the name that calls use; hosted tools have none.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Function(tool) => Some(&tool.name),
            Self::Custom(tool) => Some(&tool.name),
            Self::Hosted(_) => None,
        }
    }

    /// Returns the extras; those of hosted tools are in their body.
    #[must_use]
    pub fn extras(&self) -> Option<&Extras> {
        match self {
            Self::Function(tool) => Some(&tool.extras),
            Self::Custom(tool) => Some(&tool.extras),
            Self::Hosted(_) => None,
        }
    }

    /// Returns the extras; those of hosted tools are in their body.
    pub fn extras_mut(&mut self) -> Option<&mut Extras> {
        match self {
            Self::Function(tool) => Some(&mut tool.extras),
            Self::Custom(tool) => Some(&mut tool.extras),
            Self::Hosted(_) => None,
        }
    }

    /// Whether an item of the input brought the tool.
    #[must_use]
    pub fn is_from_input(&self) -> bool {
        self.extras().is_some_and(|it| it.get(Dialect::Responses, INPUT_TOOL_NOTE).is_some())
    }
}

impl CustomTool {
    /// Returns the namespace that contains the tool, and the tool's name inside it.
    #[must_use]
    pub fn namespace(&self) -> Option<(String, String)> {
        let note = |key| self.extras.get(Dialect::Responses, key)?.json().string();
        let space = note(PARENT_NAMESPACE_NOTE)?;
        let inner = match note(INNER_NAME_NOTE) {
            Some(inner) => inner,
            None => self.name.strip_prefix(&space)?.strip_prefix("__")?.to_owned(),
        };
        Some((space, inner))
    }

    /// Converts to a function with one text argument `input`, for dialects that only have
    /// functions. The call returns as `{"input": "…"}`, see [`custom_input`].
    #[must_use]
    pub fn as_function(&self) -> FunctionTool {
        let mut description = self.description.clone().unwrap_or_default();
        if let Some(definition) =
            self.format.as_ref().and_then(|format| format.json().string_at("definition"))
        {
            if !description.is_empty() {
                description.push_str("\n\n");
            }
            description.push_str("`input` is free text, not JSON. It must follow this grammar:\n");
            description.push_str(&definition);
        }
        FunctionTool {
            name: self.name.clone(),
            description: (!description.is_empty()).then_some(description),
            schema: RawJson::parse(
                r#"{"type":"object","properties":{"input":{"type":"string","description":"The tool's whole input, as free text."}},"required":["input"],"additionalProperties":false}"#,
            ),
            strict: None,
            namespace: None,
            cache: None,
            extras: Extras::default(),
        }
    }
}

/// Returns the free text inside the arguments of a bridged custom tool. Some models answer with
/// another key or with a bare JSON string: an object that holds a single string is that string. The
/// arguments themselves are returned if they have another form.
#[must_use]
pub fn custom_input(arguments: &str) -> String {
    let inside = RawJson::parse(arguments).and_then(|raw| {
        let json = raw.json();
        json.string().or_else(|| json.string_at("input")).or_else(|| {
            let mut texts = json.members().filter_map(|(_, value)| value.string());
            texts.next().filter(|_| texts.next().is_none())
        })
    });
    let text = inside.unwrap_or_else(|| arguments.to_owned());
    patch_inside(&text).unwrap_or(text)
}

/// The first line of a patch, the free text that most clients want.
const PATCH_START: &str = "*** Begin Patch";

/// Returns the patch that a text contains in another wrapping: more JSON around it, or the fence of
/// a code block.
fn patch_inside(text: &str) -> Option<String> {
    if text.trim_start().starts_with(PATCH_START) || !text.contains(PATCH_START) {
        return None;
    }
    if let Some(raw) = RawJson::parse(text) {
        let mut found = Vec::new();
        collect_patches(raw.json(), MAX_PATCH_DEPTH, &mut found);
        return found.pop().filter(|_| found.is_empty());
    }
    let (_, fenced) = text.trim().strip_prefix("```")?.split_once('\n')?;
    let fenced = fenced.strip_suffix("```")?.trim_end_matches('\n');
    fenced.starts_with(PATCH_START).then(|| fenced.to_owned())
}

/// How deep a patch is looked for.
const MAX_PATCH_DEPTH: usize = 4;

fn collect_patches(json: JsonRef<'_>, depth: usize, found: &mut Vec<String>) {
    match json.string() {
        Some(text) if text.trim_start().starts_with(PATCH_START) => found.push(text),
        Some(text) if depth > 0 => found.extend(patch_inside(&text)),
        Some(_) => {}
        None if depth == 0 => {}
        None => {
            let members = json.members().map(|(_, value)| value);
            members.chain(json.items()).for_each(|it| collect_patches(it, depth - 1, found));
        }
    }
}

/// Returns the arguments of a bridged custom tool that contain this free text.
#[must_use]
pub fn custom_arguments(input: &str) -> String {
    crate::base::json::writer::object(|o| {
        o.str("input", input);
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_text_is_found_under_any_key() {
        for arguments in
            [r#"{"input":"a\n+b"}"#, r#"{"patch":"a\n+b"}"#, r#""a\n+b""#, r#"{"x":1,"y":"a\n+b"}"#]
        {
            assert_eq!(custom_input(arguments), "a\n+b", "{arguments}");
        }
        assert_eq!(custom_input(r#"{"input":"a","note":"b"}"#), "a");
        let patch = "*** Begin Patch\n+a";
        for arguments in [
            r#"{"why":"x","patch":"*** Begin Patch\n+a"}"#,
            r#"{"input":{"patch":"*** Begin Patch\n+a"}}"#,
            r#"{"input":"{\"patch\":\"*** Begin Patch\\n+a\"}"}"#,
            r#"{"command":["apply_patch","*** Begin Patch\n+a"]}"#,
            r#"["*** Begin Patch\n+a"]"#,
            "```patch\n*** Begin Patch\n+a\n```",
            r#"{"input":"```\n*** Begin Patch\n+a\n```"}"#,
        ] {
            assert_eq!(custom_input(arguments), patch, "{arguments}");
        }
        for other in ["*** Begin Patch", r#"{"x":"a","y":"b"}"#, r#"["a"]"#, "3", "{}", ""] {
            assert_eq!(custom_input(other), other);
        }
    }
}
