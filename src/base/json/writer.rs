//! Writes JSON straight into text, in the order of the calls, without a tree in between.
//!
//! Keys are literals of this program or raw keys (as between their quotes) read from validated
//! JSON.

use std::fmt::{Display, Write as _};

use crate::base::json::{raw::RawJson, reader::JsonRef};

/// An object being written.
pub struct ObjectWriter<'o> {
    out: &'o mut String,
    empty: bool,
}

/// An array being written.
pub struct ArrayWriter<'o> {
    out: &'o mut String,
    empty: bool,
}

/// Returns the text of an object.
#[must_use]
pub fn object(build: impl FnOnce(&mut ObjectWriter<'_>)) -> String {
    let mut out = String::with_capacity(256);
    push_object(&mut out, build);
    out
}

/// Appends an object.
pub fn push_object(out: &mut String, build: impl FnOnce(&mut ObjectWriter<'_>)) {
    out.push('{');
    build(&mut ObjectWriter { out, empty: true });
    out.push('}');
}

/// Returns the text of an array.
#[must_use]
pub fn array(build: impl FnOnce(&mut ArrayWriter<'_>)) -> String {
    let mut out = String::with_capacity(256);
    out.push('[');
    build(&mut ArrayWriter { out: &mut out, empty: true });
    out.push(']');
    out
}

/// Appends JSON on one line, as events and NDJSON lines need it. JSON from other programs may span
/// several lines. Line ends can only occur between its tokens, because those inside strings are
/// escaped.
pub fn push_single_line(out: &mut Vec<u8>, json: &str) {
    let from = out.len();
    out.extend_from_slice(json.as_bytes());
    if memchr::memchr2(b'\n', b'\r', &out[from..]).is_some() {
        out[from..].iter_mut().filter(|b| matches!(b, b'\n' | b'\r')).for_each(|b| *b = b' ');
    }
}

/// Appends a JSON string with all necessary escapes.
pub fn push_string(out: &mut String, text: &str) {
    out.push('"');
    let mut rest = text;
    while let Some(at) = rest.bytes().position(|b| b < b' ' || b == b'"' || b == b'\\') {
        out.push_str(&rest[..at]);
        match rest.as_bytes()[at] {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            b => {
                // Writing to a `String` cannot fail.
                write!(out, "\\u{b:04x}").unwrap_or_default();
            }
        }
        rest = &rest[at + 1..];
    }
    out.push_str(rest);
    out.push('"');
}

impl ObjectWriter<'_> {
    fn write_key(&mut self, key: &str) {
        if !std::mem::take(&mut self.empty) {
            self.out.push(',');
        }
        self.out.push('"');
        self.out.push_str(key);
        self.out.push_str("\":");
    }

    pub fn str(&mut self, key: &str, text: &str) -> &mut Self {
        self.write_key(key);
        push_string(self.out, text);
        self
    }

    /// Writes nothing if the value is absent.
    pub fn opt_str(&mut self, key: &str, text: Option<&str>) -> &mut Self {
        if let Some(text) = text {
            self.str(key, text);
        }
        self
    }

    /// Writes a whole number.
    pub fn num(&mut self, key: &str, number: impl Into<i128>) -> &mut Self {
        self.display(key, number.into())
    }

    pub fn bool(&mut self, key: &str, yes: bool) -> &mut Self {
        self.display(key, yes)
    }

    pub fn null(&mut self, key: &str) -> &mut Self {
        self.display(key, "null")
    }

    /// Writes a value that is already JSON.
    pub fn raw(&mut self, key: &str, value: &RawJson) -> &mut Self {
        self.display(key, value.text())
    }

    /// Writes nothing if the value is absent.
    pub fn opt_raw(&mut self, key: &str, value: Option<&RawJson>) -> &mut Self {
        if let Some(value) = value {
            self.raw(key, value);
        }
        self
    }

    /// Writes a value from a validated text.
    pub fn json(&mut self, key: &str, value: JsonRef<'_>) -> &mut Self {
        self.display(key, value.text())
    }

    /// Writes a text that this module has built as JSON.
    pub fn raw_text(&mut self, key: &str, json: &str) -> &mut Self {
        self.display(key, json)
    }

    pub fn object(&mut self, key: &str, build: impl FnOnce(&mut ObjectWriter<'_>)) -> &mut Self {
        self.write_key(key);
        push_object(self.out, build);
        self
    }

    pub fn array(&mut self, key: &str, build: impl FnOnce(&mut ArrayWriter<'_>)) -> &mut Self {
        self.write_key(key);
        self.out.push('[');
        build(&mut ArrayWriter { out: self.out, empty: true });
        self.out.push(']');
        self
    }

    fn display(&mut self, key: &str, value: impl Display) -> &mut Self {
        self.write_key(key);
        // Writing to a `String` cannot fail.
        write!(self.out, "{value}").unwrap_or_default();
        self
    }
}

impl ArrayWriter<'_> {
    fn write_comma(&mut self) {
        if !std::mem::take(&mut self.empty) {
            self.out.push(',');
        }
    }

    pub fn str(&mut self, text: &str) -> &mut Self {
        self.write_comma();
        push_string(self.out, text);
        self
    }

    pub fn num(&mut self, number: impl Into<i128>) -> &mut Self {
        self.raw_text(&number.into().to_string())
    }

    pub fn raw(&mut self, value: &RawJson) -> &mut Self {
        self.raw_text(value.text())
    }

    /// Writes a text that this module has built as JSON.
    pub fn raw_text(&mut self, json: &str) -> &mut Self {
        self.write_comma();
        self.out.push_str(json);
        self
    }

    pub fn object(&mut self, build: impl FnOnce(&mut ObjectWriter<'_>)) -> &mut Self {
        self.write_comma();
        push_object(self.out, build);
        self
    }

    pub fn array(&mut self, build: impl FnOnce(&mut ArrayWriter<'_>)) -> &mut Self {
        self.write_comma();
        self.out.push('[');
        build(&mut ArrayWriter { out: self.out, empty: true });
        self.out.push(']');
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_objects_and_arrays_are_exact() {
        let text = object(|o| {
            o.str("a", "x\"\\\n\u{1}é").num("n", 3).null("z").bool("b", true);
            o.array("l", |a| {
                a.num(1).object(|o| {
                    o.raw("r", &RawJson::parse("1.10").expect("json"));
                });
                a.array(|_| {});
            });
            o.opt_str("none", None);
        });
        assert_eq!(
            text,
            "{\"a\":\"x\\\"\\\\\\n\\u0001é\",\"n\":3,\"z\":null,\"b\":true,\"l\":[1,{\"r\":1.10},[]]}"
        );
        assert!(RawJson::parse(&text).is_some());
    }

    proptest::proptest! {
        #[test]
        fn any_text_round_trips(text in ".*") {
            let raw = RawJson::string(&text);
            proptest::prop_assert_eq!(raw.json().str().expect("a string").into_owned(), text);
        }
    }
}
