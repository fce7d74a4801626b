//! Writes JSON straight into text, in the order of the calls; nothing is built in between.
//!
//! Keys are literals of ours or keys that were read from proven JSON, given raw (as they stood
//! between their quotes).

use std::fmt::{Display, Write as _};

use super::{json::Json, raw::Raw};

/// An object being written.
pub struct Object<'o> {
    out: &'o mut String,
    empty: bool,
}

/// An array being written.
pub struct Array<'o> {
    out: &'o mut String,
    empty: bool,
}

/// The text of an object.
#[must_use]
pub fn object(build: impl FnOnce(&mut Object<'_>)) -> String {
    let mut out = String::with_capacity(256);
    object_into(&mut out, build);
    out
}

/// Appends an object.
pub fn object_into(out: &mut String, build: impl FnOnce(&mut Object<'_>)) {
    out.push('{');
    build(&mut Object { out, empty: true });
    out.push('}');
}

/// The text of an array.
#[must_use]
pub fn array(build: impl FnOnce(&mut Array<'_>)) -> String {
    let mut out = String::with_capacity(256);
    out.push('[');
    build(&mut Array { out: &mut out, empty: true });
    out.push(']');
    out
}

/// Appends JSON on one line, as events and lines need it. What stands as others wrote it may be
/// laid out over several; line ends can only stand between its tokens, as those inside texts are
/// escaped.
pub fn one_line(out: &mut Vec<u8>, json: &str) {
    let from = out.len();
    out.extend_from_slice(json.as_bytes());
    if memchr::memchr2(b'\n', b'\r', &out[from..]).is_some() {
        out[from..].iter_mut().filter(|b| matches!(b, b'\n' | b'\r')).for_each(|b| *b = b' ');
    }
}

/// Appends a JSON string; everything that JSON wants escaped is.
pub fn string(out: &mut String, text: &str) {
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
                // Writing to a String cannot fail.
                write!(out, "\\u{b:04x}").unwrap_or_default();
            }
        }
        rest = &rest[at + 1..];
    }
    out.push_str(rest);
    out.push('"');
}

impl Object<'_> {
    fn key(&mut self, key: &str) {
        if !std::mem::take(&mut self.empty) {
            self.out.push(',');
        }
        self.out.push('"');
        self.out.push_str(key);
        self.out.push_str("\":");
    }

    pub fn str(&mut self, key: &str, text: &str) -> &mut Self {
        self.key(key);
        string(self.out, text);
        self
    }

    /// Left out where there is none.
    pub fn opt_str(&mut self, key: &str, text: Option<&str>) -> &mut Self {
        if let Some(text) = text {
            self.str(key, text);
        }
        self
    }

    /// A whole number.
    pub fn num(&mut self, key: &str, number: impl Into<i128>) -> &mut Self {
        self.plain(key, number.into())
    }

    pub fn bool(&mut self, key: &str, yes: bool) -> &mut Self {
        self.plain(key, yes)
    }

    pub fn null(&mut self, key: &str) -> &mut Self {
        self.plain(key, "null")
    }

    /// A value that is JSON already.
    pub fn raw(&mut self, key: &str, value: &Raw) -> &mut Self {
        self.plain(key, value.text())
    }

    /// Left out where there is none.
    pub fn opt_raw(&mut self, key: &str, value: Option<&Raw>) -> &mut Self {
        if let Some(value) = value {
            self.raw(key, value);
        }
        self
    }

    /// A value that stands in a proven text.
    pub fn json(&mut self, key: &str, value: Json<'_>) -> &mut Self {
        self.plain(key, value.text())
    }

    /// A text that is JSON already, made by this module.
    pub fn text(&mut self, key: &str, json: &str) -> &mut Self {
        self.plain(key, json)
    }

    pub fn object(&mut self, key: &str, build: impl FnOnce(&mut Object<'_>)) -> &mut Self {
        self.key(key);
        object_into(self.out, build);
        self
    }

    pub fn array(&mut self, key: &str, build: impl FnOnce(&mut Array<'_>)) -> &mut Self {
        self.key(key);
        self.out.push('[');
        build(&mut Array { out: self.out, empty: true });
        self.out.push(']');
        self
    }

    fn plain(&mut self, key: &str, value: impl Display) -> &mut Self {
        self.key(key);
        // Writing to a String cannot fail.
        write!(self.out, "{value}").unwrap_or_default();
        self
    }
}

impl Array<'_> {
    fn comma(&mut self) {
        if !std::mem::take(&mut self.empty) {
            self.out.push(',');
        }
    }

    pub fn str(&mut self, text: &str) -> &mut Self {
        self.comma();
        string(self.out, text);
        self
    }

    pub fn num(&mut self, number: impl Into<i128>) -> &mut Self {
        self.text(&number.into().to_string())
    }

    pub fn raw(&mut self, value: &Raw) -> &mut Self {
        self.text(value.text())
    }

    /// A text that is JSON already, made by this module.
    pub fn text(&mut self, json: &str) -> &mut Self {
        self.comma();
        self.out.push_str(json);
        self
    }

    pub fn object(&mut self, build: impl FnOnce(&mut Object<'_>)) -> &mut Self {
        self.comma();
        object_into(self.out, build);
        self
    }

    pub fn array(&mut self, build: impl FnOnce(&mut Array<'_>)) -> &mut Self {
        self.comma();
        self.out.push('[');
        build(&mut Array { out: self.out, empty: true });
        self.out.push(']');
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_what_was_meant() {
        let text = object(|o| {
            o.str("a", "x\"\\\n\u{1}é").num("n", 3).null("z").bool("b", true);
            o.array("l", |a| {
                a.num(1).object(|o| {
                    o.raw("r", &Raw::parse("1.10").expect("json"));
                });
                a.array(|_| {});
            });
            o.opt_str("none", None);
        });
        assert_eq!(
            text,
            "{\"a\":\"x\\\"\\\\\\n\\u0001é\",\"n\":3,\"z\":null,\"b\":true,\"l\":[1,{\"r\":1.10},[]]}"
        );
        assert!(Raw::parse(&text).is_some());
    }

    proptest::proptest! {
        #[test]
        fn any_text_survives(text in ".*") {
            let raw = Raw::string(&text);
            proptest::prop_assert_eq!(raw.json().str().expect("a string").into_owned(), text);
        }
    }
}
