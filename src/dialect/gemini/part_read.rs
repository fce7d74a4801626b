//! Reads the parts of a request's contents.

use std::{borrow::Cow, fmt::Write as _};

use crate::{
    base::json::{raw::RawJson, reader::JsonRef, writer},
    dialect::{
        call_index::CallIndex,
        gemini::field_names::{self, GENERATED_ID_PREFIX},
    },
    ir::{
        block::{
            Block, BlockKind, CallKind, Media, MediaSource, Reasoning, TextBlock, ToolCall,
            ToolResult,
        },
        op::Dialect,
    },
};

/// The calls of a conversation that wait for their results. Calls without an id get a generated
/// one.
#[derive(Default)]
pub(super) struct GeminiPendingCalls {
    calls: CallIndex,
    generated: u32,
}

impl GeminiPendingCalls {
    /// Generates an id that is the same on every turn of the conversation, so that prompt caches
    /// stay valid.
    fn generate_id(&mut self, name: &str, arguments: &str) -> String {
        self.generated += 1;
        format!(
            "{GENERATED_ID_PREFIX}{:016x}",
            field_names::stable_hash(&[&self.generated.to_string(), name, arguments])
        )
    }

    fn register_call(&mut self, id: Option<Cow<'_, str>>, name: &str, arguments: &str) -> String {
        let id = id
            .filter(|id| !id.is_empty())
            .map_or_else(|| self.generate_id(name, arguments), Cow::into_owned);
        self.calls.push(&id, name);
        id
    }

    /// The id of the call that a result answers: by id, else the first pending call of that name.
    fn resolve_result(&mut self, id: Option<Cow<'_, str>>, name: &str) -> String {
        let id = id.filter(|id| !id.is_empty());
        let at = match &id {
            Some(id) => self.calls.first_open_with_id(id),
            None => self.calls.first_open_of(name),
        };
        let found = at.map(|number| self.calls.close(number).to_owned());
        id.map(Cow::into_owned).or(found).unwrap_or_else(|| self.generate_id(name, "result"))
    }
}

/// Reads one part; `None` if it is neither an object nor text.
pub(super) fn read_block(part: JsonRef<'_>, calls: &mut GeminiPendingCalls) -> Option<Block> {
    if let Some(text) = part.str() {
        return Some(Block::text(text));
    }
    if !part.is_object() {
        return None;
    }
    let mut block = Block::text("");
    let (mut kind, mut text, mut thought) = (None, None, false);
    for (key, value) in field_names::members(part) {
        match &*key {
            "text" => text = value.str(),
            "thought" => thought = value.bool() == Some(true),
            "thoughtSignature" => block.signature = value.str().map(field_names::new_signature),
            "inlineData" => kind = Some(BlockKind::Media(read_inline_data(value))),
            "fileData" => kind = Some(BlockKind::Media(read_file_data(value))),
            "functionCall" => kind = Some(BlockKind::ToolCall(read_function_call(value, calls))),
            "functionResponse" => {
                kind =
                    Some(BlockKind::ToolResult(read_function_response(value, calls, &mut block)));
            }
            // Code that the provider ran and tools that it called have no equivalent in other
            // dialects.
            "executableCode" | "codeExecutionResult" | "toolCall" | "toolResponse" => {
                return Some(foreign_block(part));
            }
            key => block.extras.push(Dialect::Gemini, key, RawJson::from_json(value)),
        }
    }
    block.kind = match (kind, text.map(Cow::into_owned)) {
        (Some(kind), _) => kind,
        (None, None) if !block.extras.is_empty() => return Some(foreign_block(part)),
        (None, text) if thought => {
            BlockKind::Reasoning(Reasoning { text: text.unwrap_or_default(), summary: true })
        }
        (None, text) => {
            BlockKind::Text(TextBlock { text: text.unwrap_or_default(), citations: Vec::new() })
        }
    };
    Some(block)
}

fn foreign_block(part: JsonRef<'_>) -> Block {
    Block::new(BlockKind::Foreign { dialect: Dialect::Gemini, body: RawJson::from_json(part) })
}

fn read_inline_data(value: JsonRef<'_>) -> Media {
    let data = field_names::string_member(value, "data").unwrap_or_default();
    let mime = field_names::string_member(value, "mimeType").map(Cow::into_owned);
    Media {
        kind: field_names::media_kind(
            mime.as_deref().or_else(|| field_names::mime_of_data(&data)).unwrap_or_default(),
        ),
        source: MediaSource::Base64(field_names::to_standard_base64(&data)),
        mime,
        name: field_names::string_member(value, "displayName").map(Cow::into_owned),
        detail: None,
    }
}

fn read_file_data(value: JsonRef<'_>) -> Media {
    let uri = field_names::string_member(value, "fileUri").unwrap_or_default().into_owned();
    let mime = field_names::string_member(value, "mimeType").map(Cow::into_owned);
    // Only the provider can fetch files of its own store.
    let stored =
        !uri.starts_with("http") || uri.contains("/v1beta/files/") || uri.contains("/v1/files/");
    Media {
        kind: field_names::media_kind(
            mime.as_deref().or_else(|| field_names::mime_of_name(&uri)).unwrap_or_default(),
        ),
        source: if stored { MediaSource::FileId(uri) } else { MediaSource::Url(uri) },
        mime,
        name: field_names::string_member(value, "displayName").map(Cow::into_owned),
        detail: None,
    }
}

fn read_function_call(value: JsonRef<'_>, calls: &mut GeminiPendingCalls) -> ToolCall {
    let name = field_names::string_member(value, "name").unwrap_or_default().into_owned();
    let arguments =
        field_names::member(value, "args").map_or_else(String::new, |args| args.text().to_owned());
    ToolCall {
        id: calls.register_call(field_names::string_member(value, "id"), &name, &arguments),
        name,
        arguments,
        form: CallKind::Function,
    }
}

/// Reads a function response. One with a single text becomes that text; any other becomes its JSON.
fn read_function_response(
    value: JsonRef<'_>,
    calls: &mut GeminiPendingCalls,
    block: &mut Block,
) -> ToolResult {
    let name = field_names::string_member(value, "name").unwrap_or_default().into_owned();
    let mut result = ToolResult {
        call: calls.resolve_result(field_names::string_member(value, "id"), &name),
        name: Some(name),
        ..ToolResult::default()
    };
    let mut media = Vec::new();
    for (key, value) in field_names::members(value) {
        match &*key {
            "id" | "name" => {}
            "response" => {
                let (mut fields, more) = (value.members(), value.members().nth(1).is_some());
                let (key, only) = fields.next().filter(|_| !more).unzip();
                result.is_error =
                    key == Some("error") && only.is_some_and(|only| only.kind() != "null");
                let text = only
                    .and_then(JsonRef::str)
                    .map_or_else(|| to_readable_text(value), Cow::into_owned);
                if !value.is_blank() {
                    result.content.push(Block::text(text));
                }
            }
            "parts" => {
                media.extend(
                    field_names::elements(value).filter_map(|part| read_result_part(part, calls)),
                );
            }
            key => block.extras.push(
                Dialect::Gemini,
                &format!("functionResponse.{key}"),
                RawJson::from_json(value),
            ),
        }
    }
    result.content.append(&mut media);
    result
}

fn read_result_part(part: JsonRef<'_>, calls: &mut GeminiPendingCalls) -> Option<Block> {
    read_block(part, calls)
        .filter(|block| matches!(block.kind, BlockKind::Media(_) | BlockKind::Text(_)))
}

/// Returns a JSON value's text without unnecessary escapes, which people and models read best.
fn to_readable_text(json: JsonRef<'_>) -> String {
    let mut out = String::with_capacity(json.text().len());
    write_readable(&mut out, json);
    out
}

fn write_readable(out: &mut String, json: JsonRef<'_>) {
    let text = json.text();
    if !text.contains("\\u") {
        out.push_str(text);
    } else if let Some(text) = json.str() {
        writer::push_string(out, &text);
    } else if json.is_object() {
        for (at, (key, value)) in json.members().enumerate() {
            // Writing to a String cannot fail.
            write!(out, "{}\"{key}\":", if at == 0 { '{' } else { ',' }).unwrap_or_default();
            write_readable(out, value);
        }
        out.push('}');
    } else {
        for (at, value) in json.items().enumerate() {
            out.push(if at == 0 { '[' } else { ',' });
            write_readable(out, value);
        }
        out.push(']');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::json::reader;

    fn read(part: &str) -> Block {
        read_block(
            reader::parse(part.as_bytes()).expect("json"),
            &mut GeminiPendingCalls::default(),
        )
        .expect("a part")
    }

    #[test]
    fn parts_are_read_as_blocks() {
        let media = |block: Block| match block.kind {
            BlockKind::Media(media) => media,
            other => panic!("{other:?}"),
        };
        let image = media(read(r#"{"inline_data":{"mime_type":"image/png","data":"-_8"}}"#));
        assert_eq!(
            (image.source, image.mime.as_deref()),
            (MediaSource::Base64("+/8=".to_owned()), Some("image/png"))
        );
        assert_eq!(
            media(read(r#"{"fileData":{"fileUri":"https://x/a.jpg"}}"#)).source,
            MediaSource::Url("https://x/a.jpg".to_owned())
        );
        assert_eq!(
            media(read(r#"{"fileData":{"fileUri":"gs://b/a.pdf","mimeType":"application/pdf"}}"#))
                .source,
            MediaSource::FileId("gs://b/a.pdf".to_owned())
        );
        let thought = read(r#"{"text":"hm","thought":true,"thoughtSignature":"A_-="}"#);
        assert_eq!(thought.signature, Some(field_names::new_signature("A_-=")));
        assert_eq!(
            thought.kind,
            BlockKind::Reasoning(Reasoning { text: "hm".to_owned(), summary: true })
        );
        let code = r#"{"executableCode":{"code":"1"},"thoughtSignature":"s"}"#;
        assert!(matches!(read(code).kind, BlockKind::Foreign { body, .. } if body.text() == code));
        assert_eq!(
            read(r#"{"text":"a","video_metadata":{"fps":1}}"#)
                .extras
                .iter()
                .next()
                .map(|(key, _)| key),
            Some("videoMetadata")
        );
    }

    #[test]
    fn function_responses_are_read_as_text() {
        for (response, text, is_error) in [
            (r#"{"output":"a\nb"}"#, Some("a\nb"), false),
            (r#"{"any":"x"}"#, Some("x"), false),
            (r#"{"error":"no"}"#, Some("no"), true),
            (r#"{"error":{"code":1}}"#, Some(r#"{"error":{"code":1}}"#), true),
            (r#"{"a":1.0,"b":"\u00e9"}"#, Some(r#"{"a":1.0,"b":"é"}"#), false),
            ("{}", None, false),
        ] {
            let BlockKind::ToolResult(result) = read(&format!(
                r#"{{"functionResponse":{{"name":"f","id":"i","response":{response}}}}}"#
            ))
            .kind
            else {
                panic!("no result")
            };
            let want: Vec<Block> = text.map(Block::text).into_iter().collect();
            assert_eq!(
                (result.call.as_str(), result.name.as_deref(), result.content, result.is_error),
                ("i", Some("f"), want, is_error)
            );
        }
    }

    #[test]
    fn json_text_is_written_unescaped() {
        let raw = RawJson::parse(r#"{"a":"\u00e9 <","b":[1.50,"\n"]}"#).expect("json");
        assert_eq!(to_readable_text(raw.json()), "{\"a\":\"é <\",\"b\":[1.50,\"\\n\"]}");
    }
}
