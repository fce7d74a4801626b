//! Reads tools, legacy functions, and the choice among them.

use crate::{
    base::json::{raw::RawJson, reader::JsonRef},
    dialect::openai::error::invalid_param,
    ir::{
        block::CacheBreakpoint,
        extras::Extras,
        fault::ProxyError,
        op::Dialect,
        request::ChatRequest,
        tool::{CustomTool, FunctionTool, HostedKind, HostedTool, Tool, ToolChoice},
    },
};

const DIALECT: Dialect = Dialect::Openai;

pub(super) fn read_tools(json: JsonRef<'_>, request: &mut ChatRequest) -> Result<(), ProxyError> {
    if let Some(tools) = json.get("tools") {
        if !tools.is_array() {
            return Err(invalid_param(
                "tools",
                format!("Invalid type for 'tools': expected an array, but got {}.", tools.kind()),
            ));
        }
        for (at, one) in tools.items().enumerate() {
            request.tools.push(read_tool(one).ok_or_else(|| {
                invalid_param(
                    format!("tools[{at}].function.name"),
                    format!("Missing required parameter: 'tools[{at}].function.name'."),
                )
            })?);
        }
    }
    for one in json.get("functions").into_iter().flat_map(JsonRef::items) {
        let named = read_function(one, one).ok_or_else(|| {
            invalid_param("functions", "Missing required parameter: 'functions[].name'.")
        })?;
        request.tools.push(Tool::Function(named));
        if request.echoed_fields.is_empty() {
            // A client that sends functions does not know tool calls.
            request.echoed_fields.push(DIALECT, "functions", RawJson::from(true));
        }
    }
    if json.get("web_search_options").is_some() {
        let body = RawJson::object(|o| {
            o.json("web_search_options", json.get("web_search_options").unwrap_or(json));
        });
        request.tools.push(Tool::Hosted(HostedTool {
            kind: HostedKind::WebSearch,
            dialect: DIALECT,
            body,
        }));
    }
    request.tool_choice = match json.get("tool_choice").or_else(|| json.get("function_call")) {
        None => None,
        Some(value) => match read_choice(value) {
            Some(choice) => Some(choice),
            None => {
                request.extras.push(DIALECT, "tool_choice", RawJson::from_json(value));
                None
            }
        },
    };
    Ok(())
}

/// Returns `None` for a function without a name.
fn read_tool(one: JsonRef<'_>) -> Option<Tool> {
    let kind = one.get("type").and_then(JsonRef::str).unwrap_or("function".into());
    if let Some(custom) = one.get("custom").filter(|custom| kind == "custom" && custom.is_object())
    {
        return Some(Tool::Custom(read_custom(one, custom)?));
    }
    let inside = one.get("function").filter(|function| function.is_object());
    // Some clients send the tools of other dialects, whose fields are in the tool itself.
    let flat = || {
        Some(one).filter(|one| {
            one.get("parameters").or_else(|| one.get("input_schema")).is_some()
                && one.get("name").is_some()
        })
    };
    match inside.or_else(flat) {
        Some(inside) if kind == "function" || kind == "custom" => {
            read_function(one, inside).map(Tool::Function)
        }
        None if kind == "function" && one.get("name").is_none() => None,
        None if kind == "function" => read_function(one, one).map(Tool::Function),
        _ => {
            let kind = if kind.contains("web_search") {
                HostedKind::WebSearch
            } else if kind.contains("code_interpreter") || kind.contains("code_execution") {
                HostedKind::CodeExecution
            } else {
                HostedKind::Other
            };
            Some(Tool::Hosted(HostedTool { kind, dialect: DIALECT, body: RawJson::from_json(one) }))
        }
    }
}

fn read_function(one: JsonRef<'_>, inside: JsonRef<'_>) -> Option<FunctionTool> {
    const FUNCTION_FIELDS: [&str; 5] =
        ["name", "description", "parameters", "input_schema", "strict"];
    let nested = one != inside;
    let known: &[&str] =
        if nested { &["type", "function", "cache_control"] } else { &["type", "cache_control"] };
    let mut extras = Extras::from_object(
        DIALECT,
        one,
        &[known, if nested { &[] } else { &FUNCTION_FIELDS }].concat(),
    );
    if nested {
        for (key, value) in inside
            .members()
            .filter(|(key, value)| !FUNCTION_FIELDS.contains(key) && value.kind() != "null")
        {
            extras.push(DIALECT, &format!("function.{key}"), RawJson::from_json(value));
        }
    }
    let cache = one
        .get("cache_control")
        .filter(|mark| mark.is_object())
        .map(|mark| CacheBreakpoint { raw: RawJson::from_json(mark) });
    if let Some(mark) = &cache {
        extras.push_equivalent(DIALECT, "cache_control", mark.raw.clone());
    }
    Some(FunctionTool {
        name: inside.non_empty_at("name")?,
        description: inside.string_at("description"),
        schema: inside
            .get("parameters")
            .or_else(|| inside.get("input_schema"))
            .filter(|schema| schema.is_object())
            .map(RawJson::from_json),
        strict: inside.get("strict").and_then(JsonRef::bool),
        namespace: None,
        cache,
        extras,
    })
}

fn read_custom(one: JsonRef<'_>, inside: JsonRef<'_>) -> Option<CustomTool> {
    let mut extras = Extras::from_object(DIALECT, one, &["type", "custom"]);
    // Only a tool that came in this form is sent in this form.
    extras.push_equivalent(DIALECT, "type", RawJson::string("custom"));
    let format = inside.get("format").map(|format| match format.get("grammar") {
        // In the common form the grammar's fields are next to the type.
        Some(grammar) => RawJson::object(|o| {
            o.str("type", "grammar");
            grammar.members().for_each(|(key, value)| {
                o.json(key, value);
            });
        }),
        None => RawJson::from_json(format),
    });
    Some(CustomTool {
        name: inside.non_empty_at("name")?,
        description: inside.string_at("description"),
        format,
        extras,
    })
}

fn read_choice(value: JsonRef<'_>) -> Option<ToolChoice> {
    let word = |word: &str| match word {
        "auto" => Some(ToolChoice::Auto),
        "none" => Some(ToolChoice::None),
        "required" | "any" => Some(ToolChoice::Required),
        _ => None,
    };
    if let Some(text) = value.str() {
        return word(&text);
    }
    let kind = value.get("type").and_then(JsonRef::str).unwrap_or_default();
    if kind == "allowed_tools" {
        let allowed = value.get("allowed_tools").unwrap_or(value);
        let names = allowed
            .get("tools")
            .into_iter()
            .flat_map(JsonRef::items)
            .filter_map(tool_name)
            .collect();
        let required = allowed.get("mode").and_then(JsonRef::str).as_deref() == Some("required");
        return Some(ToolChoice::Allowed { names, required });
    }
    tool_name(value).map(ToolChoice::Named).or_else(|| word(&kind))
}

fn tool_name(tool: JsonRef<'_>) -> Option<String> {
    let inside = tool.get("function").or_else(|| tool.get("custom")).unwrap_or(tool);
    inside.string_at("name")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(text: &str) -> ChatRequest {
        let mut request = ChatRequest::default();
        read_tools(RawJson::parse(text).expect("json").json(), &mut request).expect("good");
        request
    }

    #[test]
    fn tool_choices_are_read_in_all_forms() {
        let named = |name: &str| Some(ToolChoice::Named(name.to_owned()));
        for (text, want) in [
            (r#""auto""#, Some(ToolChoice::Auto)),
            (r#""any""#, Some(ToolChoice::Required)),
            (r#"{"type":"function","function":{"name":"f"}}"#, named("f")),
            (r#"{"type":"custom","custom":{"name":"f"}}"#, named("f")),
            (r#"{"type":"function","name":"f"}"#, named("f")),
            (r#"{"name":"f"}"#, named("f")),
            (r#"{"type":"none"}"#, Some(ToolChoice::None)),
            (
                r#"{"type":"allowed_tools","allowed_tools":{"mode":"required","tools":[{"type":"function","function":{"name":"f"}}]}}"#,
                Some(ToolChoice::Allowed { names: vec!["f".to_owned()], required: true }),
            ),
            ("7", None),
        ] {
            assert_eq!(
                read_all(&format!("{{\"tool_choice\":{text}}}")).tool_choice,
                want,
                "{text}"
            );
        }
    }

    #[test]
    fn tools_are_read_leniently() {
        let request = read_all(
            r#"{"tools":[{"function":{"name":"a","x":1}},{"type":"function","name":"b","parameters":{}},{"name":"c","input_schema":{"type":"object"}},
                {"type":"custom","custom":{"name":"d","format":{"type":"grammar","grammar":{"syntax":"lark","definition":"x"}}}},{"type":"v:web_search"}]}"#,
        );
        let names: Vec<_> = request.tools.iter().map(|tool| tool.name().unwrap_or("-")).collect();
        assert_eq!(names, ["a", "b", "c", "d", "-"]);
        let Tool::Custom(custom) = &request.tools[3] else { panic!("custom") };
        assert_eq!(
            custom.format.as_ref().map(RawJson::text),
            Some(r#"{"type":"grammar","syntax":"lark","definition":"x"}"#)
        );
        assert!(matches!(
            &request.tools[4],
            Tool::Hosted(HostedTool { kind: HostedKind::WebSearch, .. })
        ));
        let mut request = ChatRequest::default();
        assert!(
            read_tools(
                RawJson::parse(r#"{"tools":[{"type":"function"}]}"#).expect("json").json(),
                &mut request
            )
            .is_err()
        );
    }
}
