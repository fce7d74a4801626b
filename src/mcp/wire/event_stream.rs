//! Reads and writes `text/event-stream`.

use bytes::{Bytes, BytesMut};

/// The longest event that is taken.
pub const MAX_EVENT_BYTES: usize = 64 << 20;

/// One event.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct StreamEvent {
    /// `message` if the stream does not say.
    pub name: String,
    pub data: Vec<u8>,
}

/// Cuts a stream into events.
#[derive(Debug, Default)]
pub struct EventReader {
    buffer: BytesMut,
    scanned: usize,
    name: String,
    data: Vec<u8>,
    has_data: bool,
}

/// An event is longer than the limit.
#[derive(Debug)]
pub struct EventTooLong;

impl EventReader {
    /// Takes the next bytes.
    ///
    /// # Errors
    ///
    /// An event is too long.
    pub fn push(&mut self, chunk: &[u8]) -> Result<(), EventTooLong> {
        if self.buffer.len() + self.data.len() + chunk.len() > MAX_EVENT_BYTES {
            return Err(EventTooLong);
        }
        self.buffer.extend_from_slice(chunk);
        Ok(())
    }

    /// Returns the next complete event.
    pub fn next_event(&mut self) -> Option<StreamEvent> {
        while let Some(at) = memchr::memchr(b'\n', &self.buffer[self.scanned..]) {
            let line = self.buffer.split_to(self.scanned + at + 1);
            self.scanned = 0;
            let line = line.strip_suffix(b"\n").unwrap_or(&line);
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line.is_empty() {
                let name = std::mem::take(&mut self.name);
                let data = std::mem::take(&mut self.data);
                if std::mem::take(&mut self.has_data) {
                    let name = if name.is_empty() { "message".to_owned() } else { name };
                    return Some(StreamEvent { name, data });
                }
            } else if let Some(value) = field(line, b"data:") {
                if self.has_data {
                    self.data.push(b'\n');
                }
                self.data.extend_from_slice(value);
                self.has_data = true;
            } else if let Some(value) = field(line, b"event:") {
                self.name = String::from_utf8_lossy(value).into_owned();
            }
        }
        self.scanned = self.buffer.len();
        None
    }
}

fn field<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let value = line.strip_prefix(name)?;
    Some(value.strip_prefix(b" ").unwrap_or(value))
}

/// Writes an event; `data` is one line.
#[must_use]
pub fn event(name: &str, data: &str) -> Bytes {
    let mut out = String::with_capacity(name.len() + data.len() + 24);
    for part in ["event: ", name, "\ndata: ", data, "\n\n"] {
        out.push_str(part);
    }
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_wherever_they_are_cut() {
        let text =
            b": hello\nevent: endpoint\r\ndata: /x\r\n\r\ndata:{\"a\":\ndata: 1}\nid: 7\n\n\n";
        for size in 1..text.len() {
            let mut reader = EventReader::default();
            let mut events = Vec::new();
            for chunk in text.chunks(size) {
                reader.push(chunk).expect("short");
                while let Some(event) = reader.next_event() {
                    events.push((event.name, String::from_utf8(event.data).expect("text")));
                }
            }
            let want = [("endpoint", "/x"), ("message", "{\"a\":\n1}")];
            assert_eq!(events, want.map(|(a, b)| (a.to_owned(), b.to_owned())), "{size}");
        }
    }
}
