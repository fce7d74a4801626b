//! Writes the response object as the strictest schema requires it: every field is present, with
//! null or its default if it is not set.

use crate::{
    base::json::{raw::RawJson, writer},
    dialect::{ingress::ResponseSpec, responses::items_read::DIALECT},
    ir::{
        block::Citation,
        response::{Finish, FinishKind},
        usage::Usage,
    },
};

/// Fields that only repeat the request, with their defaults for a request that does not set them.
const ECHOED_DEFAULTS: [(&str, &str); 16] = [
    ("background", "false"),
    ("instructions", "null"),
    ("max_output_tokens", "null"),
    ("max_tool_calls", "null"),
    ("metadata", "{}"),
    ("parallel_tool_calls", "true"),
    ("previous_response_id", "null"),
    ("prompt_cache_key", "null"),
    ("safety_identifier", "null"),
    ("store", "true"),
    ("temperature", "1.0"),
    ("tool_choice", "\"auto\""),
    ("top_logprobs", "0"),
    ("top_p", "1.0"),
    ("truncation", "\"disabled\""),
    ("user", "null"),
];

/// The fields of a response that stay the same while it streams.
#[derive(Debug)]
pub(super) struct Envelope {
    pub(super) id: String,
    created_at: i64,
    now: i64,
    model: String,
    service_tier: String,
    /// The members that repeat the request, as text that starts with the value of the first one.
    echoed_members: String,
}

/// The progress of a response.
pub(super) enum ResponseState<'a> {
    Running,
    Ended {
        finish: &'a Finish,
        status: &'a str,
        usage: Option<&'a Usage>,
        service_tier: Option<&'a str>,
    },
    Failed {
        code: &'a str,
        message: &'a str,
    },
}

impl Envelope {
    pub(super) fn new(shape: &ResponseSpec) -> Self {
        let repeated = writer::object(|o| {
            o.raw_text("presence_penalty", "0.0");
            for (key, default_value) in ECHOED_DEFAULTS {
                match shape.echo.get(DIALECT, key) {
                    Some(value) => o.raw(key, value),
                    None => o.raw_text(key, default_value),
                };
            }
            o.raw_text("reasoning", &echo_reasoning(shape.echo.get(DIALECT, "reasoning")));
            o.raw_text("text", &echo_text(shape.echo.get(DIALECT, "text")));
            o.array("tools", |a| {
                for tool in shape.echo.get(DIALECT, "tools").into_iter().flat_map(|list| {
                    list.json().items().map(RawJson::from_json).collect::<Vec<_>>()
                }) {
                    a.raw_text(&echo_tool(&tool));
                }
            });
        });
        let tier = shape.echo.get(DIALECT, "service_tier").and_then(|tier| tier.json().string());
        Self {
            id: format!("resp_{}", shape.request_id),
            created_at: shape.created,
            now: shape.created,
            model: shape.model.clone(),
            service_tier: tier.unwrap_or_else(|| "auto".to_owned()),
            echoed_members: format!(
                "0.0,{}",
                repeated.trim_start_matches('{').strip_suffix('}').unwrap_or_default()
            ),
        }
    }

    /// Sets the upstream's creation time.
    pub(super) fn set_created_at(&mut self, at: Option<i64>) {
        self.created_at = at.filter(|at| *at > 0).unwrap_or(self.created_at);
    }

    /// Writes the object; `output` is the text of the items.
    pub(super) fn write_object(
        &self,
        o: &mut writer::ObjectWriter<'_>,
        state: &ResponseState<'_>,
        output: &str,
    ) {
        let completed = matches!(state, ResponseState::Ended { status: "completed", .. });
        o.str("id", &self.id).str("object", "response").num("created_at", self.created_at);
        let word = match state {
            ResponseState::Running => "in_progress",
            ResponseState::Ended { status: word, .. } => word,
            ResponseState::Failed { .. } => "failed",
        };
        o.str("status", word);
        if completed {
            o.num("completed_at", self.now.max(self.created_at))
        } else {
            o.null("completed_at")
        };
        match state {
            ResponseState::Failed { code, message } => o.object("error", |o| {
                o.str("code", code).str("message", message);
            }),
            _ => o.null("error"),
        };
        match state {
            ResponseState::Ended { finish, status: "incomplete", .. } => {
                o.object("incomplete_details", |o| {
                    o.str(
                        "reason",
                        if finish.kind == FinishKind::Length {
                            "max_output_tokens"
                        } else {
                            "content_filter"
                        },
                    );
                })
            }
            _ => o.null("incomplete_details"),
        };
        o.str("model", &self.model).raw_text("output", &format!("[{output}]"));
        match state {
            ResponseState::Ended { usage: Some(usage), .. } => {
                o.object("usage", |o| write_usage(o, usage))
            }
            _ => o.null("usage"),
        };
        let reported_tier = match state {
            ResponseState::Ended { service_tier: tier, .. } => {
                Some(tier.map_or("default", |tier| {
                    if SERVICE_TIERS.contains(&tier) { tier } else { "default" }
                }))
            }
            _ => None,
        };
        o.str("service_tier", reported_tier.unwrap_or(&self.service_tier));
        // The text of the first member includes all following ones.
        o.raw_text("frequency_penalty", &self.echoed_members);
    }
}

const SERVICE_TIERS: [&str; 5] = ["auto", "default", "flex", "priority", "scale"];

/// The status of a response that has ended.
pub(super) fn response_status(finish: &Finish, refused: bool) -> &str {
    match finish.kind {
        FinishKind::Length | FinishKind::ContentFilter => "incomplete",
        FinishKind::Refusal if !refused => "incomplete",
        // A background response has the status that the upstream reports.
        FinishKind::Pause => finish
            .raw_reason
            .as_deref()
            .filter(|reason| matches!(*reason, "queued" | "in_progress"))
            .unwrap_or("completed"),
        FinishKind::Stop | FinishKind::ToolCalls | FinishKind::Refusal => "completed",
    }
}

pub(super) fn write_usage(o: &mut writer::ObjectWriter<'_>, usage: &Usage) {
    let (input, output) = (usage.input_total(), usage.output_total());
    o.num("input_tokens", input);
    o.object("input_tokens_details", |o| {
        o.num("cached_tokens", usage.cache_read)
            .num("cache_write_tokens", usage.cache_write_5m.saturating_add(usage.cache_write_1h));
    });
    o.num("output_tokens", output);
    o.object("output_tokens_details", |o| {
        o.num("reasoning_tokens", usage.reasoning);
    });
    o.num("total_tokens", input.saturating_add(output));
}

/// Writes a citation as an annotation; `None` if this API has no such kind. `end` is the end of the
/// text.
pub(super) fn write_annotation(citation: &Citation, end: u64) -> Option<String> {
    if let Some((DIALECT, raw)) = &citation.raw {
        return Some(raw.text().to_owned());
    }
    let url = citation.url.as_deref().filter(|url| !url.is_empty())?;
    let (from, to) = citation.span.unwrap_or((0, end));
    Some(writer::object(|o| {
        o.str("type", "url_citation")
            .str("url", url)
            .str("title", citation.title.as_deref().unwrap_or(url));
        o.num("start_index", from).num("end_index", to);
    }))
}

fn echo_reasoning(echoed: Option<&RawJson>) -> String {
    fill_defaults(echoed, &[("effort", "null"), ("summary", "null")])
}

fn echo_text(echoed: Option<&RawJson>) -> String {
    let Some(echoed) = echoed else { return r#"{"format":{"type":"text"}}"#.to_owned() };
    let json = echoed.json();
    let Some(format) = json.get("format").filter(|format| format.is_object()) else {
        return fill_defaults(Some(echoed), &[("format", r#"{"type":"text"}"#)]);
    };
    let schema = format.get("type").and_then(|kind| kind.str()).as_deref() == Some("json_schema");
    let format = if schema {
        fill_defaults(
            Some(&RawJson::from_json(format)),
            &[("description", "null"), ("strict", "false")],
        )
    } else {
        format.text().to_owned()
    };
    writer::object(|o| {
        o.raw_text("format", &format);
        for (key, value) in json.members().filter(|(key, _)| *key != "format") {
            o.json(key, value);
        }
    })
}

fn echo_tool(echoed: &RawJson) -> String {
    let json = echoed.json();
    match json.get("type").and_then(|kind| kind.str()).as_deref() {
        Some("function") => fill_defaults(
            Some(echoed),
            &[("description", "null"), ("parameters", "null"), ("strict", "null")],
        ),
        Some("namespace") => writer::object(|o| {
            for (key, value) in json.members().filter(|(key, _)| *key != "tools") {
                o.json(key, value);
            }
            o.array("tools", |a| {
                for inner in json
                    .get("tools")
                    .into_iter()
                    .flat_map(crate::base::json::reader::JsonRef::items)
                {
                    a.raw_text(&echo_tool(&RawJson::from_json(inner)));
                }
            });
        }),
        _ => echoed.text().to_owned(),
    }
}

/// Adds the missing members to an object.
fn fill_defaults(echoed: Option<&RawJson>, defaults: &[(&str, &str)]) -> String {
    writer::object(|o| {
        for (key, value) in echoed.into_iter().flat_map(|object| object.json().members()) {
            o.json(key, value);
        }
        for (key, default_value) in defaults {
            if echoed.is_none_or(|object| object.json().members().all(|(known, _)| known != *key)) {
                o.raw_text(key, default_value);
            }
        }
    })
}
