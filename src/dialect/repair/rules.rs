//! The table of vendors' wordings (`assets/repairs.toml`).

use std::sync::LazyLock;

use regex::{Regex, RegexBuilder};
use serde::Deserialize;

use crate::ir::{
    fault::{Fault, FaultKind},
    op::Dialect,
    repair::Repair,
};

/// The part of an error's body in which wordings are looked for.
const MAX_TEXT_BYTES: usize = 4 * 1024;
/// Names of fields and values beyond this length are no names.
const MAX_NAME_BYTES: usize = 64;
/// Values of one field beyond this number are not a list of what is taken.
const MAX_VALUES: usize = 12;
/// Compiled expressions beyond this size are refused.
const MAX_REGEX_BYTES: usize = 1 << 20;

/// Fields without which a request is another one.
const NEEDED_FIELDS: [&str; 12] = [
    "contents",
    "functions",
    "input",
    "instructions",
    "messages",
    "model",
    "prompt",
    "stream",
    "system",
    "system_instruction",
    "systemInstruction",
    "tools",
];

static TABLE: LazyLock<RepairTable> =
    LazyLock::new(|| parse_rules(include_str!("../../../assets/repairs.toml")).unwrap_or_default());

struct RepairRule {
    message: Option<Regex>,
    param: Option<Regex>,
    codes: Vec<String>,
    kind: RepairWord,
    field: Option<String>,
    dialect: Option<Dialect>,
}

/// The table: errors that no change of the request mends, and the others.
#[derive(Default)]
struct RepairTable {
    never: Option<Regex>,
    never_codes: Vec<String>,
    rules: Vec<RepairRule>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum RepairWord {
    Adaptive,
    Drop,
    Endpoint,
    Limit,
    Prefill,
    Rename,
    Role,
    Schema,
    System,
    Text,
    Thinks,
    Thoughts,
    Values,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleFile {
    never: NeverRow,
    rule: Vec<RuleRow>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NeverRow {
    r#match: String,
    code: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleRow {
    r#match: Option<String>,
    param: Option<String>,
    #[serde(default)]
    code: Vec<String>,
    repair: RepairWord,
    field: Option<String>,
    dialect: Option<String>,
}

fn parse_rules(text: &str) -> Result<RepairTable, String> {
    let file: RuleFile = toml::from_str(text).map_err(|e| e.to_string())?;
    let regex = |text: Option<String>| {
        text.map(|text| {
            RegexBuilder::new(&text)
                .case_insensitive(true)
                .dot_matches_new_line(true)
                .size_limit(MAX_REGEX_BYTES)
                .build()
                .map_err(|e| e.to_string())
        })
        .transpose()
    };
    let rules = file
        .rule
        .into_iter()
        .map(|row| {
            let dialect = row.dialect.as_deref().map(|name| {
                Dialect::parse(name).ok_or_else(|| format!("there is no dialect `{name}`"))
            });
            Ok(RepairRule {
                message: regex(row.r#match)?,
                param: regex(row.param)?,
                codes: row.code,
                kind: row.repair,
                field: row.field,
                dialect: dialect.transpose()?,
            })
        })
        .collect::<Result<_, String>>()?;
    let never = regex(Some(file.never.r#match))?;
    Ok(RepairTable { never, never_codes: file.never.code, rules })
}

/// Returns how a request can be repaired that was refused with this error; `None` if the error does
/// not say it, or says something that no change of the request mends.
#[must_use]
pub fn find_repair(fault: &Fault, body: &[u8]) -> Option<Repair> {
    if !matches!(fault.status, 400 | 404 | 422) || !is_about_request(fault.kind) {
        return None;
    }
    let body = String::from_utf8_lossy(&body[..body.len().min(MAX_TEXT_BYTES)]);
    if TABLE.forbids(fault) {
        return None;
    }
    TABLE.rules.iter().find_map(|rule| rule.apply(fault, &body))
}

/// Whether this kind of error can come from one part of the request.
fn is_about_request(kind: FaultKind) -> bool {
    matches!(kind, FaultKind::BadRequest | FaultKind::ModelNotFound)
}

fn has_code(fault: &Fault, wanted: &[String]) -> bool {
    let mut codes = fault.code.iter().chain(&fault.error_type);
    codes.any(|code| wanted.iter().any(|known| known.eq_ignore_ascii_case(code)))
}

impl RepairTable {
    fn forbids(&self, fault: &Fault) -> bool {
        has_code(fault, &self.never_codes)
            || self.never.as_ref().is_some_and(|never| never.is_match(&fault.message))
    }
}

impl RepairRule {
    fn apply(&self, fault: &Fault, body: &str) -> Option<Repair> {
        if !self.codes.is_empty() && !has_code(fault, &self.codes) {
            return None;
        }
        let by_param = match (&self.param, &fault.param) {
            (Some(regex), Some(param)) => Some(regex.captures(param)?),
            (Some(_), None) => return None,
            (None, _) => None,
        };
        let by_message = match &self.message {
            Some(regex) => Some(regex.captures(&fault.message).or_else(|| regex.captures(body))?),
            None => None,
        };
        let found = by_message.or(by_param)?;
        let group = |name: &str| found.name(name).map(|found| found.as_str());
        let field = || {
            self.field.clone().or_else(|| {
                let field = group("field").or_else(|| group("field2"))?;
                is_name(field).then(|| snake_case_of_camel(field))
            })
        };
        Some(match self.kind {
            RepairWord::Adaptive => Repair::Adaptive,
            RepairWord::Drop => drop_of(group("list"), field()?)?,
            RepairWord::Endpoint => Repair::Endpoint { dialect: self.dialect? },
            RepairWord::Limit => {
                let number: u64 = group("max")?.parse().ok()?;
                let above = u64::from(group("above").is_some());
                let max = number.checked_sub(above).filter(|max| *max > 0)?;
                Repair::Limit { field: field()?, max }
            }
            RepairWord::Prefill => Repair::Prefill,
            RepairWord::Rename => {
                let to = group("other").filter(|name| is_name(name))?.to_owned();
                Repair::Rename { field: field()?, to }
            }
            RepairWord::Role => {
                let message = fault.message.to_ascii_lowercase();
                let wants_developer = message.contains("support 'system'");
                let to = if wants_developer { "developer" } else { "system" };
                Repair::Role { to: to.to_owned() }
            }
            RepairWord::Schema => Repair::Schema,
            RepairWord::System => Repair::SystemFirst,
            RepairWord::Text => Repair::TextOnly,
            RepairWord::Thinks => Repair::Thinks,
            RepairWord::Thoughts => Repair::ThoughtsBack,
            RepairWord::Values => {
                let field = droppable(field()?)?;
                match group("allowed").map(read_values).filter(|list| !list.is_empty()) {
                    Some(allowed) => Repair::Values { field, allowed },
                    None => Repair::Drop { field },
                }
            }
        })
    }
}

/// Lists in whose entries a member can be left out.
const LISTS: [&str; 5] = ["contents", "input", "messages", "system", "tools"];
/// Members without which an entry of a list is another one.
const NEEDED_MEMBERS: [&str; 27] = [
    "args",
    "arguments",
    "call_id",
    "content",
    "custom",
    "data",
    "description",
    "function",
    "functionCall",
    "functionDeclarations",
    "functionResponse",
    "function_declarations",
    "id",
    "image_url",
    "input",
    "input_schema",
    "name",
    "output",
    "parameters",
    "parts",
    "properties",
    "role",
    "source",
    "text",
    "tool_call_id",
    "tool_calls",
    "type",
];

/// Leaves out a field of the request, or a member of everything in a list: either `list` names it,
/// or the field is a path, `messages.0.content.1.cache_control`.
fn drop_of(list: Option<&str>, field: String) -> Option<Repair> {
    let steps: Vec<&str> = field.split(['.', '[', ']']).filter(|step| !step.is_empty()).collect();
    let (first, last) = (*steps.first()?, *steps.last()?);
    let list = list.or((steps.len() > 1).then_some(first)).filter(|list| LISTS.contains(list));
    match list {
        Some(list) if is_name(last) && !NEEDED_MEMBERS.contains(&last) => {
            Some(Repair::DropInside { list: list.to_owned(), field: last.to_owned() })
        }
        Some(_) => None,
        None => Some(Repair::Drop { field: droppable(field)? }),
    }
}

/// A field without which the request is still the same one.
fn droppable(field: String) -> Option<String> {
    let first = field.split('.').next().unwrap_or_default();
    let indexed = field.split('.').any(|step| step.bytes().all(|byte| byte.is_ascii_digit()));
    (!NEEDED_FIELDS.contains(&first) && !indexed).then_some(field)
}

/// Words that stand where a name could.
const PLAIN_WORDS: [&str; 10] =
    ["are", "argument", "field", "for", "in", "is", "not", "parameter", "request", "value"];

fn is_name(text: &str) -> bool {
    !PLAIN_WORDS.contains(&text)
        && text.len() <= MAX_NAME_BYTES
        && text.contains(|c: char| c.is_ascii_alphabetic())
}

/// xAI names the fields of its own library, `presencePenalty`; Gemini's own are camel case too and
/// stay so in their objects.
fn snake_case_of_camel(field: &str) -> String {
    const SENT_IN_SNAKE_CASE: [(&str, &str); 5] = [
        ("frequencypenalty", "frequency_penalty"),
        ("presencepenalty", "presence_penalty"),
        ("reasoningeffort", "reasoning_effort"),
        ("logprobs", "logprobs"),
        ("toplogprobs", "top_logprobs"),
    ];
    let folded = field.to_ascii_lowercase();
    SENT_IN_SNAKE_CASE
        .iter()
        .find(|(camel, _)| *camel == folded)
        .map_or_else(|| field.to_owned(), |(_, snake)| (*snake).to_owned())
}

/// The words of a list in an error: `'low', 'medium', and 'high'`.
fn read_values(text: &str) -> Vec<String> {
    let quoted = |c: char| matches!(c, '\'' | '"' | '`');
    let mut words: Vec<String> = text
        .split(quoted)
        .skip(1)
        .step_by(2)
        .filter(|word| !word.is_empty() && is_name(word))
        .map(str::to_owned)
        .collect();
    words.truncate(MAX_VALUES);
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::registry;

    #[test]
    fn embedded_table_is_valid() {
        assert!(
            parse_rules(include_str!("../../../assets/repairs.toml")).unwrap().rules.len() > 20
        );
    }

    fn repair(dialect: Dialect, status: u16, body: &str) -> Option<Repair> {
        let fault =
            registry::egress(dialect).read_error(status, "application/json", body.as_bytes());
        find_repair(&fault, body.as_bytes())
    }

    fn limit(field: &str, max: u64) -> Option<Repair> {
        Some(Repair::Limit { field: field.to_owned(), max })
    }

    fn inside(list: &str, field: &str) -> Option<Repair> {
        Some(Repair::DropInside { list: list.to_owned(), field: field.to_owned() })
    }

    fn drop(field: &str) -> Option<Repair> {
        Some(Repair::Drop { field: field.to_owned() })
    }

    #[test]
    fn vendor_errors_are_matched_to_repairs() {
        let openai = |message: &str, code: &str, param: &str| {
            format!(
                r#"{{"error":{{"message":{message:?},"type":"invalid_request_error","param":{param:?},"code":{code:?}}}}}"#
            )
        };
        for (body, want) in [
            (
                openai(
                    "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
                    "unsupported_parameter",
                    "max_tokens",
                ),
                Some(Repair::Rename {
                    field: "max_tokens".to_owned(),
                    to: "max_completion_tokens".to_owned(),
                }),
            ),
            (
                openai(
                    "Unsupported parameter: 'temperature' is not supported with this model.",
                    "unsupported_parameter",
                    "temperature",
                ),
                drop("temperature"),
            ),
            (
                openai(
                    "Unsupported value: 'temperature' does not support 0.7 with this model. Only the default (1) value is supported.",
                    "unsupported_value",
                    "temperature",
                ),
                drop("temperature"),
            ),
            (
                openai(
                    "Unsupported value: 'reasoning_effort' does not support 'minimal' with this model. Supported values are: 'low', 'medium', and 'high'.",
                    "unsupported_value",
                    "reasoning_effort",
                ),
                Some(Repair::Values {
                    field: "reasoning_effort".to_owned(),
                    allowed: ["low", "medium", "high"].map(str::to_owned).to_vec(),
                }),
            ),
            (
                openai(
                    "Unsupported value: 'messages[0].role' does not support 'system' with this model.",
                    "unsupported_value",
                    "messages[0].role",
                ),
                Some(Repair::Role { to: "developer".to_owned() }),
            ),
            (openai("Unrecognized request argument supplied: foo", "", ""), drop("foo")),
            (
                openai(
                    "max_tokens is too large: 200000. This model supports at most 16384 completion tokens, whereas you provided 200000.",
                    "",
                    "max_tokens",
                ),
                limit("max_tokens", 16_384),
            ),
            (
                openai(
                    "Invalid max_tokens value, the valid range of max_tokens is [1, 8192]",
                    "",
                    "",
                ),
                limit("max_tokens", 8_192),
            ),
            (
                openai(
                    "`max_tokens` must be less than or equal to `32768`, the maximum value for `max_tokens` is less than the `context_window` for this model",
                    "",
                    "",
                ),
                limit("max_tokens", 32_768),
            ),
            (
                openai(
                    "This model's maximum context length is 8192 tokens. However, you requested max_tokens between 1 and 9000",
                    "context_length_exceeded",
                    "",
                ),
                None,
            ),
            (
                openai(
                    "'messages.2' : for 'role:assistant' the following must be satisfied[('messages.2' : property 'reasoning_content' is unsupported)]",
                    "",
                    "",
                ),
                inside("messages", "reasoning_content"),
            ),
            (
                openai(
                    "Unknown parameter: 'input[3].phase'.",
                    "unknown_parameter",
                    "input[3].phase",
                ),
                inside("input", "phase"),
            ),
            (openai("Unknown parameter: 'input[3].role'.", "", ""), None),
            (
                openai(
                    "messages.0.content.1.text.cache_control: Extra inputs are not permitted",
                    "",
                    "",
                ),
                inside("messages", "cache_control"),
            ),
            (
                openai(
                    "Invalid schema for function 'f': In context=('properties', 'a'), 'format' is not permitted.",
                    "invalid_function_parameters",
                    "tools[0].function.parameters",
                ),
                inside("tools", "strict"),
            ),
            (openai("Unknown parameter: 'foo'.", "unknown_parameter", "foo"), drop("foo")),
            (
                openai("property 'metadata' is unsupported, did you mean 'messages'?", "", ""),
                drop("metadata"),
            ),
            (
                openai("Argument not supported on this model: presencePenalty", "", ""),
                drop("presence_penalty"),
            ),
            (
                openai("invalid temperature: only 1 is allowed for this model", "", ""),
                drop("temperature"),
            ),
            (openai("System message must be at the beginning.", "", ""), Some(Repair::SystemFirst)),
            (
                openai(
                    "Failed to deserialize the JSON body into the target type: messages[0]: unknown variant `image_url`, expected `text` at line 1",
                    "",
                    "",
                ),
                Some(Repair::TextOnly),
            ),
            (
                openai(
                    "The `reasoning_content` in the thinking mode must be passed back to the API.",
                    "",
                    "",
                ),
                Some(Repair::ThoughtsBack),
            ),
            (
                openai("This model's response_format type is unavailable now", "", ""),
                Some(Repair::Schema),
            ),
            (
                openai(
                    "Your request was rejected by the safety system",
                    "content_policy_violation",
                    "",
                ),
                None,
            ),
            (
                openai(
                    "This model's maximum context length is 8192 tokens",
                    "context_length_exceeded",
                    "messages",
                ),
                None,
            ),
            (
                openai(
                    "Unsupported parameter: 'tools' is not supported with this model.",
                    "unsupported_parameter",
                    "tools",
                ),
                None,
            ),
        ] {
            assert_eq!(repair(Dialect::Openai, 400, &body), want, "{body}");
        }
        assert_eq!(
            repair(
                Dialect::Openai,
                404,
                &openai(
                    "This model is only supported in v1/responses and not in v1/chat/completions.",
                    "",
                    "model"
                )
            ),
            Some(Repair::Endpoint { dialect: Dialect::Responses })
        );
        assert_eq!(
            repair(
                Dialect::Openai,
                422,
                r#"{"detail":[{"type":"extra_forbidden","loc":["body","stream_options"],"msg":"Extra inputs are not permitted"}]}"#
            ),
            drop("stream_options")
        );
        let anthropic = |message: &str| {
            format!(
                r#"{{"type":"error","error":{{"type":"invalid_request_error","message":{message:?}}}}}"#
            )
        };
        for (message, want) in [
            (
                "`temperature` and `top_p` cannot both be specified for this model. Please use only one.",
                drop("top_p"),
            ),
            ("temperature: Extra inputs are not permitted", drop("temperature")),
            ("`temperature` is deprecated for this model.", drop("temperature")),
            (
                "\"thinking.type.enabled\" is not supported for this model. Use \"thinking.type.adaptive\" and output_config.effort instead.",
                Some(Repair::Adaptive),
            ),
            (
                "This model does not support assistant message prefill. The conversation must end with a user message.",
                Some(Repair::Prefill),
            ),
        ] {
            assert_eq!(repair(Dialect::Anthropic, 400, &anthropic(message)), want, "{message}");
        }
        let gemini = |message: &str| {
            format!(
                r#"{{"error":{{"code":400,"message":{message:?},"status":"INVALID_ARGUMENT"}}}}"#
            )
        };
        for (message, want) in [
            ("Budget 0 is invalid. This model only works in thinking mode.", Some(Repair::Thinks)),
            ("Penalty is not enabled for this model", drop("Penalty")),
        ] {
            assert_eq!(repair(Dialect::Gemini, 400, &gemini(message)), want, "{message}");
        }
        assert_eq!(
            repair(Dialect::Ollama, 400, r#"{"error":"\"llama3.2\" does not support thinking"}"#),
            drop("reasoning")
        );
    }

    #[test]
    fn other_statuses_are_never_repaired() {
        let body = r#"{"error":{"message":"Unknown parameter: 'foo'."}}"#;
        for status in [401, 402, 403, 429, 500, 503] {
            assert_eq!(repair(Dialect::Openai, status, body), None, "{status}");
        }
    }
}
