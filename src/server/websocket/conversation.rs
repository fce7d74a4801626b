//! The last responses of a connection. A client continues one by its id also if it asked the
//! provider not to store it, so that only this connection knows it.

use std::collections::VecDeque;

use crate::base::json::reader::JsonRef;

/// Conversations together: those that came first are forgotten, and the client has to send them
/// whole.
const MAX_BYTES: usize = 32 << 20;
const MAX_COUNT: usize = 64;

/// Conversations by the ids of their last responses.
#[derive(Debug, Default)]
pub(super) struct Conversations {
    /// Each with the items of its input and output, as JSON separated by commas.
    known: VecDeque<(String, String)>,
    bytes: usize,
}

impl Conversations {
    /// Remembers a response that no provider stores, with its input.
    pub(super) fn record(&mut self, id: String, input: &str, output: Option<JsonRef<'_>>) {
        let mut items = input.to_owned();
        for item in output.into_iter().flat_map(JsonRef::items).filter(|item| is_complete(*item)) {
            if !items.is_empty() {
                items.push(',');
            }
            items.push_str(item.text());
        }
        self.bytes += id.len() + items.len();
        self.known.push_back((id, items));
        while self.bytes > MAX_BYTES || self.known.len() > MAX_COUNT {
            let Some((id, items)) = self.known.pop_front() else { break };
            self.bytes -= id.len() + items.len();
        }
    }

    /// Returns the items of the conversation up to a response and with it; `None` if it is stored
    /// elsewhere or forgotten.
    pub(super) fn items_up_to(&self, id: &str) -> Option<&str> {
        self.known.iter().rev().find(|(known, _)| known == id).map(|(_, items)| &**items)
    }
}

/// Whether an item can be sent back: a thought without its encrypted content only names something
/// that the provider did not store.
fn is_complete(item: JsonRef<'_>) -> bool {
    item.string_at("type").as_deref() != Some("reasoning")
        || item.non_empty_at("encrypted_content").is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::json::reader;

    #[test]
    fn unreadable_reasoning_is_not_sent_back() {
        let output = br#"[{"type":"reasoning","id":"rs_1","encrypted_content":null},{"type":"reasoning","encrypted_content":"x"},{"type":"message"}]"#;
        let mut last = Conversations::default();
        last.record("resp_1".to_owned(), "", reader::parse(output).ok());
        assert_eq!(
            last.items_up_to("resp_1"),
            Some(r#"{"type":"reasoning","encrypted_content":"x"},{"type":"message"}"#)
        );
        assert_eq!(last.items_up_to("resp_0"), None);
    }

    #[test]
    fn oldest_conversations_are_evicted() {
        let mut last = Conversations::default();
        for number in 0..=MAX_COUNT {
            last.record(number.to_string(), "{}", None);
        }
        assert_eq!((last.items_up_to("0"), last.items_up_to("1")), (None, Some("{}")));
        last.record("large".to_owned(), &"x".repeat(MAX_BYTES - 8), None);
        assert_eq!(last.items_up_to("1"), None);
        assert!(last.items_up_to("large").is_some());
        last.record("too large".to_owned(), &"x".repeat(MAX_BYTES), None);
        assert_eq!((last.known.len(), last.bytes), (0, 0));
    }
}
