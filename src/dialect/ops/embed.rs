//! Reads embedding requests of every form into the common form, and writes them from it.
//!
//! A body that already has the upstream's form can be passed through without this module.

#[cfg(test)]
mod tests;

use crate::dialect::ops::{
    EncodedOpRequest, add_extra_losses, add_loss, bad_request,
    embed_fields::{FieldNames, field_names},
    parse_object,
};
use crate::{
    base::json::{
        raw::RawJson,
        reader::JsonRef,
        writer::{self, ObjectWriter},
    },
    ir::{
        embed::{EmbedForm, EmbedInput, EmbedRequest},
        extras::Extras,
        fault::ProxyError,
        op::Dialect,
    },
};

/// Returns the dialect that owns the extra fields of a form.
fn dialect_of(form: EmbedForm) -> Dialect {
    match form {
        EmbedForm::Openai | EmbedForm::Task | EmbedForm::InputType | EmbedForm::Texts => {
            Dialect::Openai
        }
        EmbedForm::Gemini | EmbedForm::GeminiBatch => Dialect::Gemini,
        EmbedForm::Ollama | EmbedForm::OllamaPrompt => Dialect::Ollama,
    }
}

/// Returns the default form of an upstream of this dialect; `None` if the dialect has no
/// embeddings.
#[must_use]
pub fn default_form(dialect: Dialect) -> Option<EmbedForm> {
    match dialect {
        Dialect::Anthropic => None,
        Dialect::Gemini => Some(EmbedForm::GeminiBatch),
        Dialect::Ollama => Some(EmbedForm::Ollama),
        Dialect::Openai | Dialect::Responses => Some(EmbedForm::Openai),
    }
}

/// Reads a client's request. The path decides its form; at `/embeddings` the fields decide.
///
/// # Errors
///
/// If the body is not a JSON object or has no inputs; the error names the field.
pub fn read_request(dialect: Dialect, path: &str, body: &[u8]) -> Result<EmbedRequest, ProxyError> {
    let root = parse_object(body)?;
    let form = match dialect {
        Dialect::Gemini if path.ends_with(":batchEmbedContents") => return read_gemini_batch(root),
        Dialect::Gemini => {
            return read_gemini(root).map(|request| EmbedRequest { is_single: true, ..request });
        }
        Dialect::Ollama if path.ends_with("/embeddings") => EmbedForm::OllamaPrompt,
        Dialect::Ollama => EmbedForm::Ollama,
        Dialect::Anthropic | Dialect::Openai | Dialect::Responses => form_by_fields(root),
    };
    read_fields(root, form)
}

fn form_by_fields(root: JsonRef<'_>) -> EmbedForm {
    let any = |keys: &[&str]| keys.iter().any(|key| root.get(key).is_some());
    if any(&["texts", "embedding_types"]) {
        EmbedForm::Texts
    } else if any(&["input_type", "output_dimension", "output_dtype", "truncation"]) {
        EmbedForm::InputType
    } else if any(&["task", "embedding_type", "normalized", "late_chunking"]) {
        EmbedForm::Task
    } else {
        EmbedForm::Openai
    }
}

fn read_fields(root: JsonRef<'_>, form: EmbedForm) -> Result<EmbedRequest, ProxyError> {
    let names = field_names(form);
    let mut request = EmbedRequest { form, ..EmbedRequest::default() };
    let mut input = None;
    for (key, value) in root.members().filter(|(_, value)| value.kind() != "null") {
        let text = value.string();
        match key {
            "model" => {}
            _ if key == names.input => input = Some(value),
            // Some clients use another form's name for the field.
            "input" | "prompt" | "texts" if input.is_none() => input = Some(value),
            _ if Some(key) == names.dimensions && value.u64().is_some() => {
                request.dimensions = value.u64();
            }
            _ if Some(key) == names.encoding => {
                request.encoding = text.or_else(|| value.items().next()?.string());
            }
            _ if Some(key) == names.task && text.is_some() => {
                request.task = text.as_deref().map(|task| names.read_task(task));
            }
            _ if Some(key) == names.truncate && names.read_truncate(value).is_some() => {
                request.truncate = names.read_truncate(value);
            }
            "user" if text.is_some() && dialect_of(form) == Dialect::Openai => request.user = text,
            _ if value.is_blank() && dialect_of(form) == Dialect::Ollama => {}
            _ => request.extras.push(dialect_of(form), key, RawJson::from_json(value)),
        }
    }
    let input = input.ok_or_else(|| missing_field(names.input))?;
    (request.inputs, request.is_single) = read_inputs(input, names.input)?;
    if request.inputs.is_empty() && dialect_of(form) != Dialect::Ollama {
        return Err(bad_request(format!("`{}` must not be empty", names.input)).param(names.input));
    }
    Ok(request)
}

fn missing_field(field: &'static str) -> ProxyError {
    bad_request(format!("missing `{field}`")).param(field)
}

fn read_inputs(
    value: JsonRef<'_>,
    field: &'static str,
) -> Result<(Vec<EmbedInput>, bool), ProxyError> {
    let one = |value: JsonRef<'_>| match value.kind() {
        "string" => value.str().map(|text| EmbedInput::Text(text.into_owned())),
        "array" if value.items().all(|token| token.u64().is_some()) => {
            Some(EmbedInput::Tokens(RawJson::from_json(value)))
        }
        "object" => {
            let text = value.non_empty_at("text").filter(|_| value.members().count() == 1);
            Some(
                text.map_or_else(|| EmbedInput::Other(RawJson::from_json(value)), EmbedInput::Text),
            )
        }
        _ => None,
    };
    let tokens = value.is_array()
        && !value.is_blank()
        && value.items().all(|token| token.kind() == "number");
    let wrong = |value: JsonRef<'_>| {
        bad_request(format!("`{field}` must hold texts or lists of tokens, got {}", value.kind()))
            .param(field)
    };
    if tokens || !value.is_array() {
        return one(value).map(|input| (vec![input], true)).ok_or_else(|| wrong(value));
    }
    let all: Result<Vec<_>, _> =
        value.items().map(|item| one(item).ok_or_else(|| wrong(item))).collect();
    all.map(|inputs| (inputs, false))
}

fn read_gemini(root: JsonRef<'_>) -> Result<EmbedRequest, ProxyError> {
    let content = root.get("content").ok_or_else(|| missing_field("content"))?;
    let parts: Vec<JsonRef<'_>> = match content.get("parts") {
        Some(parts) if parts.is_array() => parts.items().collect(),
        Some(part) => vec![part],
        None => content.str().map(|_| content).into_iter().collect(),
    };
    let texts: Vec<_> =
        parts.iter().filter_map(|part| part.str().or_else(|| part.get("text")?.str())).collect();
    let input = if texts.len() == parts.len() {
        EmbedInput::Text(texts.concat())
    } else {
        EmbedInput::Other(RawJson::from_json(content))
    };
    let either = |a: &str, b: &str| root.get(a).or_else(|| root.get(b));
    let names = field_names(EmbedForm::Gemini);
    Ok(EmbedRequest {
        form: EmbedForm::Gemini,
        inputs: vec![input],
        dimensions: either("outputDimensionality", "output_dimensionality").and_then(JsonRef::u64),
        task: either("taskType", "task_type")
            .and_then(JsonRef::str)
            .map(|task| names.read_task(&task)),
        title: root.non_empty_at("title"),
        extras: Extras::from_object(
            Dialect::Gemini,
            root,
            &[
                "model",
                "content",
                "outputDimensionality",
                "output_dimensionality",
                "taskType",
                "task_type",
                "title",
            ],
        ),
        ..EmbedRequest::default()
    })
}

/// Reads a batch. Fields other than the contents are read from the batch's first request.
fn read_gemini_batch(root: JsonRef<'_>) -> Result<EmbedRequest, ProxyError> {
    let list = root
        .get("requests")
        .filter(|list| list.is_array() && !list.is_blank())
        .ok_or_else(|| missing_field("requests"))?;
    let mut all = list.items().map(read_gemini);
    let mut request = all.next().ok_or_else(|| missing_field("requests"))??;
    for more in all {
        request.inputs.extend(more?.inputs);
    }
    request.form = EmbedForm::GeminiBatch;
    Ok(request)
}

/// Writes a request in an upstream's form; `None` if the form cannot express the inputs (tokens,
/// images).
#[must_use]
pub fn write_request(
    form: EmbedForm,
    request: &EmbedRequest,
    model: &str,
) -> Option<EncodedOpRequest> {
    let same = dialect_of(form) == dialect_of(request.form);
    let fits = request.inputs.iter().all(|input| match input {
        EmbedInput::Text(_) => true,
        EmbedInput::Tokens(_) => matches!(form, EmbedForm::Openai),
        EmbedInput::Other(_) => same && form != EmbedForm::Openai,
    });
    if !fits || form == EmbedForm::OllamaPrompt && request.inputs.len() != 1 {
        return None;
    }
    let names = field_names(form);
    let mut losses = Vec::new();
    add_extra_losses(&mut losses, &request.extras, dialect_of(form));
    let body = match form {
        EmbedForm::Gemini | EmbedForm::GeminiBatch => write_gemini_body(request, model, &names),
        _ => writer::object(|o| write_fields(o, request, model, &names)),
    };
    let gemini = dialect_of(form) == Dialect::Gemini;
    add_loss(&mut losses, request.dimensions.is_some() && names.dimensions.is_none(), "dimensions");
    add_loss(
        &mut losses,
        request.task.as_ref().is_some_and(|task| names.write_task(task, same).is_none()),
        "task",
    );
    add_loss(&mut losses, request.title.is_some() && !gemini, "title");
    add_loss(&mut losses, request.user.is_some() && form != EmbedForm::Openai, "user");
    add_loss(&mut losses, request.truncate.is_some() && names.truncate.is_none(), "truncate");
    let quantised =
        request.encoding.as_deref().is_some_and(|kind| !matches!(kind, "base64" | "float"));
    add_loss(&mut losses, quantised && names.encoding.is_none(), "encoding_format");
    let path = match form {
        EmbedForm::Openai | EmbedForm::Task | EmbedForm::InputType => "/embeddings",
        EmbedForm::Texts => "/v2/embed",
        EmbedForm::Gemini => "/models/{model}:embedContent",
        EmbedForm::GeminiBatch if request.inputs.len() == 1 => "/models/{model}:embedContent",
        EmbedForm::GeminiBatch => "/models/{model}:batchEmbedContents",
        EmbedForm::Ollama => "/api/embed",
        EmbedForm::OllamaPrompt => "/api/embeddings",
    };
    Some(EncodedOpRequest { path, body: body.into(), losses })
}

fn write_fields(o: &mut ObjectWriter<'_>, request: &EmbedRequest, model: &str, names: &FieldNames) {
    let form = names.form;
    o.str("model", model);
    let alone = match form {
        EmbedForm::OllamaPrompt => true,
        EmbedForm::Texts => false,
        _ => request.is_single && request.inputs.len() == 1,
    };
    let value = |input: &EmbedInput| match input {
        EmbedInput::Text(text) => RawJson::string(text),
        EmbedInput::Tokens(raw) | EmbedInput::Other(raw) => raw.clone(),
    };
    match request.inputs.first() {
        Some(input) if alone => o.raw(names.input, &value(input)),
        _ => o.array(names.input, |a| {
            for input in &request.inputs {
                a.raw(&value(input));
            }
        }),
    };
    if let (Some(field), Some(dimensions)) = (names.dimensions, request.dimensions) {
        o.num(field, dimensions);
    }
    match (names.encoding, &request.encoding) {
        // This form requires an encoding; the others have a default.
        (Some(field), encoding) if form == EmbedForm::Texts => {
            let kind = encoding.as_deref().unwrap_or("float");
            o.array(field, |a| {
                a.str(kind);
            });
        }
        // Floats are the default, and one upstream rejects the name.
        (Some(field), Some(kind)) if kind != "float" || form == EmbedForm::Openai => {
            o.str(field, kind);
        }
        _ => {}
    }
    let same = dialect_of(form) == dialect_of(request.form);
    let task = request.task.as_ref().and_then(|task| names.write_task(task, same));
    if let (Some(field), Some(task)) =
        (names.task, task.or((form == EmbedForm::Texts).then_some("search_document")))
    {
        o.str(field, task);
    }
    if let (Some(field), Some(truncate)) = (names.truncate, request.truncate) {
        match form {
            EmbedForm::Texts => o.str(field, if truncate { "END" } else { "NONE" }),
            _ => o.bool(field, truncate),
        };
    }
    if let (EmbedForm::Openai, Some(user)) = (form, &request.user) {
        o.str("user", user);
    }
    request.extras.write(dialect_of(form), o, |_| {});
}

fn write_gemini_body(request: &EmbedRequest, model: &str, names: &FieldNames) -> String {
    let model_path = format!("models/{}", model.strip_prefix("models/").unwrap_or(model));
    let one = |o: &mut ObjectWriter<'_>, input: &EmbedInput| {
        o.str("model", &model_path);
        match input {
            EmbedInput::Other(raw) | EmbedInput::Tokens(raw) => o.raw("content", raw),
            EmbedInput::Text(text) => o.object("content", |o| {
                o.array("parts", |a| {
                    a.object(|o| {
                        o.str("text", text);
                    });
                });
            }),
        };
        let same = dialect_of(request.form) == Dialect::Gemini;
        o.opt_str("taskType", request.task.as_ref().and_then(|task| names.write_task(task, same)));
        o.opt_str("title", request.title.as_deref());
        if let Some(dimensions) = request.dimensions {
            o.num("outputDimensionality", dimensions);
        }
        request.extras.write(Dialect::Gemini, o, |_| {});
    };
    match request.inputs.as_slice() {
        [input] => writer::object(|o| one(o, input)),
        inputs => writer::object(|o| {
            o.array("requests", |a| {
                for input in inputs {
                    a.object(|o| one(o, input));
                }
            });
        }),
    }
}
