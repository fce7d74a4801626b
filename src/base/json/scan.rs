//! Finds the few request fields that a proxy needs, and replaces their text in place.

use std::{borrow::Cow, fmt, ops::Range};

use bytes::{BufMut, Bytes, BytesMut};
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::base::json::{
    grammar,
    reader::{self, JsonRef},
    scan_error::{ScanError, ScanErrorKind, error_at, syntax_error},
};

/// The top-level fields of a request body, with byte ranges into it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestScan<'a> {
    pub model: Option<SpannedString<'a>>,
    pub stream: Option<bool>,
    pub stream_span: Option<Range<usize>>,
    /// The value of `stream_options`, of any type.
    pub stream_options: Option<Range<usize>>,
    pub include_usage: Option<bool>,
    /// Offset of the root object's closing brace.
    pub closing_brace: usize,
    /// The root object has no members.
    pub is_empty: bool,
    /// The maximum number of output tokens that the client requests, in any dialect.
    pub max_tokens: Option<u64>,
    /// Members that identify a body of another dialect: Gemini's `contents`, the `messages` of most
    /// dialects, Anthropic's `system`.
    pub has_contents: bool,
    /// The `input` of Responses.
    pub has_input: bool,
    /// `anthropic_version` or `max_tokens_to_sample`, which only Claude's API has.
    pub has_claude_field: bool,
    pub has_messages: bool,
    pub has_system: bool,
    /// `provider` or `models`: routing preferences.
    pub has_routing_preferences: bool,
    /// The body has `tools`.
    pub has_tools: bool,
    /// `service_tier` or `serviceTier`.
    pub service_tier: Option<Cow<'a, str>>,
    /// `previous_response_id`.
    pub previous_response_id: Option<Cow<'a, str>>,
    /// Identifies the conversation: `prompt_cache_key`, else `user`, `metadata.user_id` or
    /// `previous_response_id`.
    pub session: Option<Cow<'a, str>>,
    /// The end user: `user`, else `safety_identifier` or `metadata.user_id`.
    pub user: Option<Cow<'a, str>>,
}

/// A string value: its range (quotes included) and its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpannedString<'a> {
    pub span: Range<usize>,
    pub text: Cow<'a, str>,
}

/// Reads the body once and shallowly. Members that a proxy does not need are skipped without being
/// parsed, at any depth.
///
/// # Errors
///
/// The body is not UTF-8 or not one JSON object, or `model` or `stream` is duplicate or of the
/// wrong type.
pub fn scan(body: &[u8]) -> Result<RequestScan<'_>, ScanError> {
    if let Some(raw) = RawMembers::parse_fast(body) {
        return raw.to_scan(body);
    }
    // Something is unusual or wrong: the slow path can say what it is.
    let text = std::str::from_utf8(body)
        .map_err(|e| error_at(ScanErrorKind::NotUtf8, body, e.valid_up_to()))?;
    let first = text.bytes().position(|b| !b.is_ascii_whitespace()).ok_or(ScanError {
        kind: ScanErrorKind::Empty,
        line: 0,
        column: 0,
    })?;
    if body[first] != b'{' {
        serde_json::from_str::<IgnoredAny>(text).map_err(|e| syntax_error(&e))?;
        let what = reader::parse(body).map_or("array", JsonRef::kind);
        return Err(error_at(ScanErrorKind::NotAnObject(what), body, first));
    }
    let mut raw = RawMembers::default();
    let mut parser = serde_json::Deserializer::from_str(text);
    raw.deserialize(&mut parser).and_then(|()| parser.end()).map_err(|e| syntax_error(&e))?;
    raw.to_scan(body)
}

/// Returns the body with these ranges replaced. Ranges are in order and do not overlap; empty ones
/// insert.
#[must_use]
pub fn splice(body: &Bytes, edits: &[(Range<usize>, Bytes)]) -> Bytes {
    if edits.is_empty() {
        return body.clone();
    }
    let (gone, new) = edits
        .iter()
        .fold((0, 0), |(gone, new), (span, text)| (gone + span.len(), new + text.len()));
    let mut out = BytesMut::with_capacity((body.len() + new).saturating_sub(gone));
    let mut at = 0;
    for (span, text) in edits {
        debug_assert!(
            span.start >= at && span.end >= span.start && span.end <= body.len(),
            "edits in order, inside the body"
        );
        out.put_slice(body.get(at..span.start).unwrap_or_default());
        out.put_slice(text);
        at = span.end;
    }
    out.put_slice(body.get(at..).unwrap_or_default());
    out.freeze()
}

/// Returns the text as a JSON string, quotes included.
#[must_use]
pub fn json_string(text: &str) -> Bytes {
    let mut out = Vec::with_capacity(text.len() + 2);
    out.push(b'"');
    for c in text.chars() {
        match c {
            '"' => out.extend_from_slice(b"\\\""),
            '\\' => out.extend_from_slice(b"\\\\"),
            c if c < ' ' => out.extend_from_slice(format!("\\u{:04x}", u32::from(c)).as_bytes()),
            c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    out.push(b'"');
    out.into()
}

/// The members of the root object that the scan uses, not yet parsed.
#[derive(Default)]
struct RawMembers<'a> {
    model: Option<&'a str>,
    stream: Option<&'a str>,
    stream_options: Option<&'a str>,
    max_tokens: Option<&'a str>,
    /// Objects that may contain the token limit: Gemini's and Ollama's.
    nested_limits: Option<&'a str>,
    session: [Option<&'a str>; 4],
    metadata: Option<&'a str>,
    service_tier: Option<&'a str>,
    duplicate: Option<(&'static str, &'a str)>,
    has_contents: bool,
    has_input: bool,
    has_claude_field: bool,
    has_messages: bool,
    has_system: bool,
    has_tools: bool,
    has_routing_preferences: bool,
    has_members: bool,
}

impl<'a> RawMembers<'a> {
    fn to_scan(&self, body: &'a [u8]) -> Result<RequestScan<'a>, ScanError> {
        let span = |raw: &str| {
            let start = raw.as_ptr() as usize - body.as_ptr() as usize;
            start..start + raw.len()
        };
        if let Some((field, raw)) = self.duplicate {
            return Err(error_at(ScanErrorKind::Duplicate(field), body, span(raw).start));
        }
        let wrong = |field, expected, raw: &'a str| {
            error_at(
                ScanErrorKind::WrongType {
                    field,
                    expected,
                    got: parse_member(raw).map_or("something else", JsonRef::kind),
                },
                body,
                span(raw).start,
            )
        };
        let model = self
            .model
            .map(|raw| {
                let name = parse_member(raw)
                    .and_then(JsonRef::str)
                    .ok_or_else(|| wrong("model", "string", raw))?;
                Ok(SpannedString { span: span(raw), text: name })
            })
            .transpose()?;
        let stream = match self.stream {
            None => None,
            Some(raw) => match raw {
                "true" => Some(true),
                "false" => Some(false),
                "null" => None,
                _ => return Err(wrong("stream", "boolean", raw)),
            },
        };
        let read = |raw: Option<&'a str>| raw.and_then(parse_member);
        let texts = |raw| read(raw).and_then(JsonRef::str).filter(|text| !text.is_empty());
        let [cache_key, user, previous, safety_id] = self.session;
        let metadata_user = || {
            let user = read(self.metadata)?.get("user_id")?.str()?;
            Some(user).filter(|text| !text.is_empty())
        };
        Ok(RequestScan {
            model,
            stream,
            stream_span: self.stream.map(span),
            stream_options: self.stream_options.map(span),
            include_usage: read(self.stream_options)
                .and_then(|o| o.get("include_usage"))
                .and_then(JsonRef::bool),
            closing_brace: body.iter().rposition(|&b| b == b'}').unwrap_or(0),
            is_empty: !self.has_members,
            max_tokens: read(self.max_tokens).and_then(JsonRef::u64).or_else(|| {
                let settings = read(self.nested_limits)?;
                settings
                    .get("maxOutputTokens")
                    .or_else(|| settings.get("max_output_tokens"))
                    .or_else(|| settings.get("num_predict"))?
                    .u64()
            }),
            has_contents: self.has_contents,
            has_input: self.has_input,
            has_claude_field: self.has_claude_field,
            has_messages: self.has_messages,
            has_system: self.has_system,
            has_routing_preferences: self.has_routing_preferences,
            has_tools: self.has_tools,
            service_tier: texts(self.service_tier),
            previous_response_id: texts(previous),
            session: texts(cache_key)
                .or_else(|| texts(user))
                .or_else(metadata_user)
                .or_else(|| texts(previous)),
            user: texts(user).or_else(|| texts(safety_id)).or_else(metadata_user),
        })
    }
}

/// Returns the value for reading; `None` if it is nested deeper than the scan reads.
fn parse_member(raw: &str) -> Option<JsonRef<'_>> {
    reader::parse(raw.as_bytes()).ok()
}

#[derive(Clone, Copy)]
enum RequestMember {
    ClaudeField,
    Contents,
    Input,
    MaxTokens,
    Messages,
    Metadata,
    Model,
    Other,
    Session(usize),
    NestedLimits,
    Stream,
    StreamOptions,
    System,
    ServiceTier,
    Tools,
    RoutingPreference,
}

impl RequestMember {
    /// Whether the scan uses the member's value.
    fn needs_value(self) -> bool {
        !matches!(
            self,
            Self::ClaudeField
                | Self::Contents
                | Self::Input
                | Self::Messages
                | Self::Other
                | Self::System
                | Self::Tools
                | Self::RoutingPreference
        )
    }

    fn from_name(name: &[u8]) -> Self {
        match name {
            b"anthropic_version" | b"max_tokens_to_sample" => Self::ClaudeField,
            b"contents" => Self::Contents,
            b"input" => Self::Input,
            b"messages" => Self::Messages,
            b"model" => Self::Model,
            b"stream" => Self::Stream,
            b"stream_options" => Self::StreamOptions,
            b"system" => Self::System,
            b"max_tokens" | b"max_completion_tokens" | b"max_output_tokens" => Self::MaxTokens,
            b"generationConfig" | b"generation_config" | b"options" => Self::NestedLimits,
            b"prompt_cache_key" => Self::Session(0),
            b"user" => Self::Session(1),
            b"previous_response_id" => Self::Session(2),
            b"safety_identifier" => Self::Session(3),
            b"metadata" => Self::Metadata,
            b"service_tier" | b"serviceTier" => Self::ServiceTier,
            b"tools" => Self::Tools,
            b"models" | b"provider" => Self::RoutingPreference,
            _ => Self::Other,
        }
    }
}

struct MemberNameSeed;

impl<'de> DeserializeSeed<'de> for MemberNameSeed {
    type Value = RequestMember;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<RequestMember, D::Error> {
        from.deserialize_str(self)
    }
}

impl Visitor<'_> for MemberNameSeed {
    type Value = RequestMember;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, name: &str) -> Result<RequestMember, E> {
        Ok(RequestMember::from_name(name.as_bytes()))
    }
}

impl<'de> RawMembers<'de> {
    /// Returns the members of an ordinary body; `None` if the body is not an object, has escapes in
    /// its keys or is invalid.
    fn parse_fast(body: &'de [u8]) -> Option<Self> {
        if *body.trim_ascii_start().first()? != b'{' {
            return None;
        }
        let (mut out, mut odd) = (Self::default(), false);
        grammar::validate(body, |depth, key, value| {
            if depth == 1 {
                odd |= key.contains(&b'\\');
                out.has_members = true;
                match RequestMember::from_name(key) {
                    member if member.needs_value() => out.store(member, reader::first_value(value)),
                    member => out.mark_present(member),
                }
            }
        })
        .ok()?;
        (!odd).then_some(out)
    }

    /// Records a member of which only the presence matters.
    fn mark_present(&mut self, member: RequestMember) {
        self.has_contents |= matches!(member, RequestMember::Contents);
        self.has_input |= matches!(member, RequestMember::Input);
        self.has_claude_field |= matches!(member, RequestMember::ClaudeField);
        self.has_messages |= matches!(member, RequestMember::Messages);
        self.has_system |= matches!(member, RequestMember::System);
        self.has_tools |= matches!(member, RequestMember::Tools);
        self.has_routing_preferences |= matches!(member, RequestMember::RoutingPreference);
    }

    fn store(&mut self, member: RequestMember, value: &'de str) {
        let slot = match member {
            RequestMember::ClaudeField
            | RequestMember::Contents
            | RequestMember::Input
            | RequestMember::Messages
            | RequestMember::Other
            | RequestMember::System
            | RequestMember::Tools
            | RequestMember::RoutingPreference => return,
            RequestMember::MaxTokens => &mut self.max_tokens,
            RequestMember::Metadata => &mut self.metadata,
            RequestMember::Model => &mut self.model,
            RequestMember::Session(n) => &mut self.session[n],
            RequestMember::NestedLimits => &mut self.nested_limits,
            RequestMember::Stream => &mut self.stream,
            RequestMember::StreamOptions => &mut self.stream_options,
            RequestMember::ServiceTier => &mut self.service_tier,
        };
        let before = slot.replace(value);
        match member {
            RequestMember::Model if before.is_some() => self.duplicate = Some(("model", value)),
            RequestMember::Stream if before.is_some() => self.duplicate = Some(("stream", value)),
            _ => {}
        }
    }

    fn deserialize<D: Deserializer<'de>>(&mut self, from: D) -> Result<(), D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for &mut RawMembers<'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(member) = map.next_key_seed(MemberNameSeed)? {
            self.has_members = true;
            match member {
                member if member.needs_value() => {
                    self.store(member, map.next_value::<&'de RawValue>()?.get());
                }
                member => {
                    self.mark_present(member);
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn fields_of_a_request_are_found() {
        let body = br#" {"messages":[{"model":"no"}],"model":"a\u002fb", "stream" : true,"stream_options":{"include_usage":true},"max_tokens":7,"user":"u","metadata":{"user_id":"m"}} "#;

        let scan = scan(body).expect("good");

        let model = scan.model.expect("a model");
        assert_eq!((&body[model.span], model.text.as_ref()), (&b"\"a\\u002fb\""[..], "a/b"));
        assert_eq!(
            (scan.stream, scan.include_usage, scan.max_tokens, scan.session.as_deref()),
            (Some(true), Some(true), Some(7), Some("u"))
        );
        assert_eq!(body[scan.stream_span.expect("span")], *b"true");
        assert_eq!(body[scan.stream_options.expect("span")], *b"{\"include_usage\":true}");
        assert_eq!(scan.closing_brace, body.len() - 2);
        assert!(!scan.is_empty);
    }

    #[test]
    fn limits_and_sessions_are_found_in_every_dialect() {
        for (body, tokens, session) in [
            (
                r#"{"max_completion_tokens":5,"prompt_cache_key":"k","user":"u"}"#,
                Some(5),
                Some("k"),
            ),
            (
                r#"{"generationConfig":{"maxOutputTokens":6},"metadata":{"user_id":"m"}}"#,
                Some(6),
                Some("m"),
            ),
            (
                r#"{"options":{"num_predict":8},"previous_response_id":"p","user":""}"#,
                Some(8),
                Some("p"),
            ),
            (r#"{"max_tokens":-1,"user":5}"#, None, None),
            ("{}", None, None),
        ] {
            let got = scan(body.as_bytes()).expect("good");
            assert_eq!((got.max_tokens, got.session.as_deref()), (tokens, session), "{body}");
        }
        assert!(scan(b"{ }").expect("good").is_empty);
        for (body, user) in [
            (r#"{"prompt_cache_key":"k","user":"u","safety_identifier":"s"}"#, Some("u")),
            (r#"{"safety_identifier":"s","metadata":{"user_id":"m"}}"#, Some("s")),
            (r#"{"metadata":{"user_id":"m"}}"#, Some("m")),
            (r#"{"metadata":{"user_id":""},"previous_response_id":"p"}"#, None),
        ] {
            assert_eq!(scan(body.as_bytes()).expect("good").user.as_deref(), user, "{body}");
        }
    }

    #[test]
    fn invalid_bodies_have_an_exact_error() {
        for (body, want) in [
            ("", "the request body is empty; expected a JSON object"),
            (" \n", "the request body is empty; expected a JSON object"),
            ("[1]", "expected a JSON object, got array"),
            ("\"x\"", "expected a JSON object, got string"),
            ("{\"stream\":\"true\"}", "`stream`: expected boolean, got string"),
            ("{\"model\":7}", "`model`: expected string, got number"),
            ("{\"model\":null}", "`model`: expected string, got null"),
            (
                "{\"model\":\"a\",\n \"model\":\"b\"}",
                "`model` stands twice in the body (line 2 column 10)",
            ),
            ("{\"a\":1,\n\"b\": x}", "invalid JSON at line 2 column 6: expected value"),
            ("{\"a\":1} x", "invalid JSON at line 1 column 9: trailing characters"),
            ("{\"a\":[1,2}", "invalid JSON at line 1 column 10: expected `,` or `]`"),
            ("hello", "invalid JSON at line 1 column 1: expected value"),
        ] {
            assert_eq!(scan(body.as_bytes()).expect_err(body).message(), want, "{body}");
        }
        assert_eq!(scan(b"{\"a\":\"\xff\"}").expect_err("bytes").kind, ScanErrorKind::NotUtf8);
    }

    #[test]
    fn unused_members_may_have_any_value() {
        let body = format!(
            "{{\"x\":{}{},\"y\":1E400,\"z\":\"\\ud800\",\"z\":1,\"model\":\"m\"}}",
            "[".repeat(5000),
            "]".repeat(5000)
        );
        assert_eq!(scan(body.as_bytes()).expect("good").model.expect("model").text, "m");
    }

    #[test]
    fn edits_replace_and_insert_text() {
        let body = Bytes::from_static(b"{\"model\":\"a\"}");
        let out = splice(
            &body,
            &[(9..12, json_string("b\"\n")), (12..12, Bytes::from_static(b",\"x\":1"))],
        );
        assert_eq!(out, "{\"model\":\"b\\\"\\u000a\",\"x\":1}");
        assert_eq!(splice(&body, &[]).as_ptr(), body.as_ptr());
    }

    proptest! {
        #[test]
        fn replacing_the_model_changes_nothing_else(name in ".{0,20}", new in ".{0,20}", text in ".{0,40}") {
            let value = serde_json::json!({ "a": text, "model": name, "z": [text, {"model": 1}] });
            let body = Bytes::from(value.to_string());
            let found = scan(&body).expect("good").model.expect("a model");
            prop_assert_eq!(found.text.as_ref(), &name);

            let out = splice(&body, &[(found.span, json_string(&new))]);

            let mut want = value;
            want["model"] = new.into();
            prop_assert_eq!(serde_json::from_slice::<serde_json::Value>(&out).expect("still JSON"), want);
        }

        #[test]
        fn any_bytes_are_scanned_without_panic(body in proptest::collection::vec(any::<u8>(), 0..60)) {
            if let Err(e) = scan(&body) {
                prop_assert!(!e.message().is_empty());
            }
        }
    }
}
