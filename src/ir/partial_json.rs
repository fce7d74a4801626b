//! Tracks whether a JSON value that arrives in parts is complete, without buffering it.

/// The open brackets and strings after the parts so far.
#[derive(Debug, Default)]
pub struct PartialJson {
    depth: u32,
    in_string: bool,
    escaped: bool,
    started: bool,
}

impl PartialJson {
    /// Reads a part of the value.
    pub fn feed(&mut self, text: &str) {
        text.bytes().for_each(|b| self.feed_byte(b));
    }

    /// Reads a part as it is in the surrounding JSON text, from the opening quote of its string on.
    /// Any other value that begins there is complete at once.
    pub fn feed_quoted(&mut self, value: &[u8]) {
        let Some(inside) = value.strip_prefix(b"\"") else {
            self.started |= matches!(value.first(), Some(b'{' | b'['));
            return;
        };
        let mut escaped = false;
        for &b in inside {
            match b {
                // An escape, or a character that opens and closes nothing.
                _ if std::mem::take(&mut escaped) => {
                    if let b'"' | b'\\' = b {
                        self.feed_byte(b);
                    } else {
                        self.feed_byte(b' ');
                    }
                }
                b'\\' => escaped = true,
                b'"' => return,
                _ => self.feed_byte(b),
            }
        }
    }

    fn feed_byte(&mut self, b: u8) {
        if self.in_string {
            match b {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.in_string = false,
                _ => {}
            }
            return;
        }
        match b {
            b'"' => self.in_string = true,
            b'{' | b'[' => {
                self.depth += 1;
                self.started = true;
            }
            b'}' | b']' => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
    }

    /// Whether an object or array has begun and everything that was opened is closed.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.started && self.depth == 0 && !self.in_string
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn value_is_complete_when_all_brackets_are_closed() {
        for (pieces, want) in [
            (&["{}"][..], true),
            (&["{\"a\":", "[1,{}", "]}"], true),
            (&["{\"city\": \"Z"], false),
            (&["{\"a\":\"}", "\"}"], true),
            (&["{\"a\":\"\\", "\"}"], false),
            (&[""], false),
            (&["1"], false),
        ] {
            let (mut plain, mut quoted) = (PartialJson::default(), PartialJson::default());
            for piece in pieces {
                plain.feed(piece);
                quoted.feed_quoted(
                    format!("{}}}]", serde_json::to_string(piece).expect("a string")).as_bytes(),
                );
            }
            assert_eq!((plain.is_complete(), quoted.is_complete()), (want, want), "{pieces:?}");
        }
        let mut object = PartialJson::default();
        object.feed_quoted(b"{\"a\":1}}");
        assert!(object.is_complete());
    }
}
