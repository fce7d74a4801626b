//! Reads names and values as this wire format writes them: keys in two spellings, enums as words or
//! numbers, media by type.

use std::borrow::Cow;

use crate::{
    base::json::reader::JsonRef,
    ir::{
        block::{MediaKind, ReasoningSignature, SignatureKind},
        op::Dialect,
    },
};

/// The prefix of ids that the reader generates for calls without one. These ids are never written
/// back.
pub(super) const GENERATED_ID_PREFIX: &str = "call_auto_";

pub(super) const SCHEMA_TYPES: &[&str] =
    &["TYPE_UNSPECIFIED", "STRING", "NUMBER", "INTEGER", "BOOLEAN", "ARRAY", "OBJECT", "NULL"];
pub(super) const CALLING_MODES: &[&str] = &["MODE_UNSPECIFIED", "AUTO", "ANY", "NONE", "VALIDATED"];
pub(super) const FINISH_REASONS: &[&str] = &[
    "FINISH_REASON_UNSPECIFIED",
    "STOP",
    "MAX_TOKENS",
    "SAFETY",
    "RECITATION",
    "OTHER",
    "BLOCKLIST",
    "PROHIBITED_CONTENT",
    "SPII",
    "MALFORMED_FUNCTION_CALL",
];

/// Converts a key to camel case; the wire format accepts both spellings.
pub(super) fn to_camel_case(key: &str) -> Cow<'_, str> {
    if !key.contains('_') {
        return Cow::Borrowed(key);
    }
    let (mut out, mut raise) = (String::with_capacity(key.len()), false);
    for c in key.chars() {
        if c == '_' && !out.is_empty() {
            raise = true;
        } else {
            out.push(if raise { c.to_ascii_uppercase() } else { c });
            raise = false;
        }
    }
    Cow::Owned(out)
}

/// The members of an object that are not null, with their keys in camel case.
pub(super) fn members<'a>(
    object: JsonRef<'a>,
) -> impl Iterator<Item = (Cow<'a, str>, JsonRef<'a>)> {
    object
        .members()
        .filter(|(_, value)| value.kind() != "null")
        .map(|(key, value)| (to_camel_case(key), value))
}

/// A member by its camel-case name, in either spelling.
pub(super) fn member<'a>(object: JsonRef<'a>, name: &str) -> Option<JsonRef<'a>> {
    members(object).filter(|(key, _)| key == name).last().map(|(_, value)| value)
}

/// A string member.
pub(super) fn string_member<'a>(object: JsonRef<'a>, name: &str) -> Option<Cow<'a, str>> {
    member(object, name)?.str()
}

/// The elements of a list; a single value counts as a list of one.
pub(super) fn elements<'a>(value: JsonRef<'a>) -> impl Iterator<Item = JsonRef<'a>> {
    value.items().chain((!value.is_array()).then_some(value))
}

/// The word of an enum value that is given as a word or as a number.
pub(super) fn enum_word<'a>(value: JsonRef<'a>, words: &[&'static str]) -> Option<Cow<'a, str>> {
    value
        .str()
        .or_else(|| words.get(usize::try_from(value.u64()?).ok()?).map(|word| Cow::Borrowed(*word)))
}

/// Wraps a signature without changing a byte.
pub(super) fn new_signature(value: impl Into<String>) -> ReasoningSignature {
    ReasoningSignature {
        dialect: Dialect::Gemini,
        kind: SignatureKind::Signature,
        value: value.into(),
        id: None,
    }
}

/// The signature if it belongs to this dialect.
pub(super) fn own_signature(proof: Option<&ReasoningSignature>) -> Option<&str> {
    proof
        .filter(|proof| proof.dialect == Dialect::Gemini && proof.kind == SignatureKind::Signature)
        .map(|proof| proof.value.as_str())
}

/// A hash of the texts (FNV-1a) that is the same in every run.
pub(super) fn stable_hash(texts: &[&str]) -> u64 {
    texts
        .iter()
        .flat_map(|text| text.bytes().chain([0]))
        .fold(0xcbf2_9ce4_8422_2325, |hash, b| (hash ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}

pub(super) fn media_kind(mime: &str) -> MediaKind {
    match mime.split('/').next().unwrap_or_default() {
        "image" => MediaKind::Image,
        "audio" => MediaKind::Audio,
        "video" => MediaKind::Video,
        "text" => MediaKind::Document,
        _ if mime == "application/pdf" => MediaKind::Document,
        _ => MediaKind::File,
    }
}

/// The media type that the extension of a name or URL implies.
pub(super) fn mime_of_name(name: &str) -> Option<&'static str> {
    let path = name.split(['?', '#']).next().unwrap_or(name);
    let file = path.rsplit('/').next().unwrap_or(path);
    let (_, extension) = file.rsplit_once('.')?;
    Some(match extension.to_ascii_lowercase().as_str() {
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "heic" => "image/heic",
        "heif" => "image/heif",
        "pdf" => "application/pdf",
        "txt" | "log" => "text/plain",
        "md" => "text/markdown",
        "html" | "htm" => "text/html",
        "csv" => "text/csv",
        "json" => "application/json",
        "mp3" => "audio/mp3",
        "wav" => "audio/wav",
        "ogg" => "audio/ogg",
        "flac" => "audio/flac",
        "aac" => "audio/aac",
        "m4a" => "audio/m4a",
        "mp4" => "video/mp4",
        "mov" => "video/mov",
        "webm" => "video/webm",
        "mpeg" | "mpg" => "video/mpeg",
        _ => return None,
    })
}

/// The media type that the first bytes of base64 data imply.
pub(super) fn mime_of_data(data: &str) -> Option<&'static str> {
    const MAGIC: [(&str, &str); 6] = [
        ("iVBOR", "image/png"),
        ("/9j/", "image/jpeg"),
        ("R0lGOD", "image/gif"),
        ("UklGR", "image/webp"),
        ("JVBER", "application/pdf"),
        ("SUQz", "audio/mp3"),
    ];
    MAGIC.into_iter().find(|(magic, _)| data.starts_with(magic)).map(|(_, mime)| mime)
}

/// Converts to padded base64 in the standard alphabet. Clients of this dialect send the URL-safe
/// one, which other providers refuse.
pub(super) fn to_standard_base64(data: &str) -> String {
    let mut out: String = data
        .chars()
        .map(|c| if c == '-' { '+' } else { c })
        .map(|c| if c == '_' { '/' } else { c })
        .collect();
    while !out.is_empty() && out.len() % 4 > 1 {
        out.push('=');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_two_spellings_and_enums_have_numbers() {
        for (key, want) in
            [("a_bc_d", "aBcD"), ("aBc", "aBc"), ("_private_key", "_privateKey"), ("a_", "a")]
        {
            assert_eq!(to_camel_case(key), want);
        }
        let json = crate::base::json::reader::parse(br#"{"some_key":1,"type":6,"none":null}"#)
            .expect("json");
        assert_eq!(member(json, "someKey").and_then(JsonRef::u64), Some(1));
        assert_eq!(member(json, "none"), None);
        assert_eq!(
            member(json, "type").and_then(|t| enum_word(t, SCHEMA_TYPES)).as_deref(),
            Some("OBJECT")
        );
    }

    #[test]
    fn client_fields_are_normalised() {
        for (given, want) in
            [("-_8", "+/8="), ("QUJD", "QUJD"), ("QQ==", "QQ=="), ("QQ", "QQ=="), ("", "")]
        {
            assert_eq!(to_standard_base64(given), want);
        }
        assert_eq!(mime_of_name("https://x/y.PNG?z=1.pdf"), Some("image/png"));
        assert_eq!(mime_of_name("https://x.y/z"), None);
    }
}
