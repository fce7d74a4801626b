//! Writes model lists, model cards and the other small answers of each provider.

use crate::{
    base::json::writer::{self, ObjectWriter},
    demo::{
        call::{DemoCall, DemoError, find_model},
        models::{self, DemoModel, DemoModelKind},
        reply::DemoReply,
    },
    ir::op::Dialect,
};

/// Answers with all models.
pub(super) fn list_models(call: &DemoCall<'_>) -> DemoReply {
    let ends = [models::ALL.first(), models::ALL.last()].map(|end| end.map(|model| model.name));
    DemoReply::json(writer::object(|o| {
        let key = match call.dialect {
            Dialect::Anthropic => "data",
            Dialect::Gemini | Dialect::Ollama => "models",
            Dialect::Openai | Dialect::Responses => {
                o.str("object", "list");
                "data"
            }
        };
        o.array(key, |a| {
            for model in models::ALL {
                a.object(|o| write_card(call, model, o));
            }
        });
        if call.dialect == Dialect::Anthropic {
            o.bool("has_more", false).opt_str("first_id", ends[0]).opt_str("last_id", ends[1]);
        }
    }))
}

/// Answers with the card of one model.
pub(super) fn show_model(call: &DemoCall<'_>, name: &str) -> Result<DemoReply, DemoError> {
    let model = models::find_model(name).ok_or_else(|| call.unknown_path())?;
    Ok(DemoReply::json(model_card(call, model)))
}

/// Returns the card of a model as JSON text.
pub(super) fn model_card(call: &DemoCall<'_>, model: &DemoModel) -> String {
    writer::object(|o| write_card(call, model, o))
}

fn write_card(call: &DemoCall<'_>, model: &DemoModel, o: &mut ObjectWriter<'_>) {
    match call.dialect {
        Dialect::Anthropic => {
            o.str("type", "model").str("id", model.name).str("display_name", model.description);
            o.str("created_at", "2026-01-01T00:00:00Z")
                .num("max_input_tokens", models::CONTEXT_TOKENS)
                .num("max_tokens", models::MAX_OUTPUT_TOKENS);
        }
        Dialect::Gemini => {
            o.str("name", &format!("models/{}", model.name)).str("version", "001");
            o.str("displayName", &format!("Demo {}", model.name))
                .str("description", model.description)
                .num("inputTokenLimit", models::CONTEXT_TOKENS)
                .num("outputTokenLimit", models::MAX_OUTPUT_TOKENS);
            o.array("supportedGenerationMethods", |a| {
                match model.kind {
                    DemoModelKind::Chat => a.str("generateContent").str("countTokens"),
                    DemoModelKind::Embed => a.str("embedContent"),
                };
            });
        }
        Dialect::Ollama => {
            let name = format!("{}:latest", model.name);
            o.str("name", &name).str("model", &name).str("modified_at", &call.now.to_string());
            o.num("size", 0).str("digest", &"0".repeat(64)).object("details", write_details);
        }
        Dialect::Openai | Dialect::Responses => {
            o.str("id", model.name)
                .str("object", "model")
                .num("created", call.created_seconds())
                .str("owned_by", "demo");
        }
    }
}

fn write_details(o: &mut ObjectWriter<'_>) {
    o.str("parent_model", "").str("format", "demo").str("family", "demo");
    o.array("families", |a| {
        a.str("demo");
    });
    o.str("parameter_size", "0").str("quantization_level", "none");
}

/// Answers Ollama's `/api/show`.
pub(super) fn show_ollama_model(call: &DemoCall<'_>) -> Result<DemoReply, DemoError> {
    let model = find_model(call.model_name().unwrap_or_default())?;
    Ok(DemoReply::json(writer::object(|o| {
        o.str("license", "MIT").str("modelfile", "").str("parameters", "").str("template", "");
        o.object("details", write_details).object("model_info", |o| {
            o.str("general.architecture", "demo")
                .num("demo.context_length", models::CONTEXT_TOKENS);
        });
        o.array("capabilities", |a| {
            match model.kind {
                DemoModelKind::Chat => a.str("completion").str("tools"),
                DemoModelKind::Embed => a.str("embedding"),
            };
        });
        o.str("modified_at", &call.now.to_string());
    })))
}

/// Answers Ollama's `/api/version`.
pub(super) fn ollama_version() -> DemoReply {
    DemoReply::json(writer::object(|o| {
        o.str("version", "0.12.0");
    }))
}

/// Answers OpenAI's `/moderations`: nothing is flagged. Accepts any model name, because clients
/// send the moderation model of their provider.
pub(super) fn moderate(call: &DemoCall<'_>) -> Result<DemoReply, DemoError> {
    const CATEGORIES: [&str; 11] = [
        "harassment",
        "harassment/threatening",
        "hate",
        "hate/threatening",
        "self-harm",
        "self-harm/instructions",
        "self-harm/intent",
        "sexual",
        "sexual/minors",
        "violence",
        "violence/graphic",
    ];
    let count = match &call.body["input"] {
        serde_json::Value::String(_) => 1,
        serde_json::Value::Array(items) if !items.is_empty() => items.len(),
        _ => {
            let text = "`input` must be a string or a list of strings";
            return Err(DemoError::bad_request(text));
        }
    };
    Ok(DemoReply::json(writer::object(|o| {
        o.str("id", &call.new_id("modr-"))
            .str("model", call.body["model"].as_str().unwrap_or("demo"));
        o.array("results", |a| {
            for _ in 0..count {
                a.object(|o| {
                    o.bool("flagged", false).object("categories", |o| {
                        for name in CATEGORIES {
                            o.bool(name, false);
                        }
                    });
                    o.object("category_scores", |o| {
                        for name in CATEGORIES {
                            o.raw_text(name, "0.0001");
                        }
                    });
                });
            }
        });
    })))
}
