//! Stores the headers of the newest requests for viewers, bounded in number, size and rate.

use std::{collections::VecDeque, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::base::{clock::Mono, id::RequestId, sync::Mutex};

/// Requests whose headers are stored.
const MAX_REQUESTS: usize = 200;
/// Maximum bytes of headers per request and direction.
const MAX_HEADER_BYTES: usize = 4 << 10;
/// At a higher rate headers are not stored, because no viewer reads them that fast.
const MAX_PER_SECOND: u32 = 20;

/// Headers as text, in their order.
pub type HeaderLines = Vec<(String, String)>;

/// The stored headers.
#[derive(Default)]
pub struct RecentHeaders(Mutex<RecentHeadersState>);

#[derive(Default)]
struct RecentHeadersState {
    entries: VecDeque<HeaderEntry>,
    window_start: Duration,
    count: u32,
}

/// Both sides as one text each: `name: value` lines.
struct HeaderEntry {
    id: RequestId,
    request_headers: Box<str>,
    response_headers: Box<str>,
}

impl RecentHeaders {
    /// Stores a client's request headers, which must not contain secrets; returns false above the
    /// rate limit.
    pub(in crate::relay) fn record_request(
        &self,
        id: RequestId,
        headers: &HeaderMap,
        now: Mono,
    ) -> bool {
        let mut state = self.0.lock();
        if now.0.saturating_sub(state.window_start) >= Duration::from_secs(1) {
            (state.window_start, state.count) = (now.0, 0);
        }
        state.count += 1;
        if state.count > MAX_PER_SECOND {
            return false;
        }
        if state.entries.len() >= MAX_REQUESTS {
            state.entries.pop_front();
        }
        state.entries.push_back(HeaderEntry {
            id,
            request_headers: write_lines(headers),
            response_headers: Box::default(),
        });
        true
    }

    /// Stores the response headers of a request whose own headers are stored.
    pub(in crate::relay) fn record_response(&self, id: RequestId, headers: &HeaderMap) {
        let mut state = self.0.lock();
        if let Some(entry) = state.entries.iter_mut().rev().find(|entry| entry.id == id) {
            entry.response_headers = write_lines(headers);
        }
    }

    /// Returns the request headers and the response headers.
    #[must_use]
    pub fn find(&self, id: RequestId) -> Option<(HeaderLines, HeaderLines)> {
        let state = self.0.lock();
        state
            .entries
            .iter()
            .rev()
            .find(|entry| entry.id == id)
            .map(|entry| (read_lines(&entry.request_headers), read_lines(&entry.response_headers)))
    }
}

/// Writes the headers up to the maximum size. A value cannot contain a line break.
fn write_lines(headers: &HeaderMap) -> Box<str> {
    let size = |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len();
    let mut remaining = MAX_HEADER_BYTES;
    let fitting = headers.iter().take_while(|header| {
        let fits = size(*header) <= remaining;
        remaining = remaining.saturating_sub(size(*header));
        fits
    });
    let mut text = String::with_capacity(
        headers.iter().map(|header| size(header) + 3).sum::<usize>().min(2 * MAX_HEADER_BYTES),
    );
    for (name, value) in fitting {
        text.push_str(name.as_str());
        text.push_str(": ");
        text.push_str(&String::from_utf8_lossy(value.as_bytes()));
        text.push('\n');
    }
    text.into()
}

fn read_lines(text: &str) -> HeaderLines {
    let lines = text.lines().filter_map(|line| line.split_once(": "));
    lines.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::UnixMillis;

    fn id(n: i64) -> RequestId {
        RequestId::new(UnixMillis(1_700_000_000_000 + n))
    }

    #[test]
    fn headers_of_new_requests_are_cached_up_to_a_rate() {
        let heads = RecentHeaders::default();
        let mut headers = HeaderMap::new();
        headers.insert("user-agent", HeaderValue::from_static("ide/2.1"));
        let ids: Vec<_> = (0..30).map(id).collect();
        for id in &ids {
            heads.record_request(*id, &headers, Mono(Duration::from_secs(5)));
            heads.record_response(*id, &headers);
        }

        let (asked, answered) = heads.find(ids[0]).expect("kept");
        assert_eq!(asked, [("user-agent".to_owned(), "ide/2.1".to_owned())]);
        assert_eq!(asked, answered);
        assert!(heads.find(ids[29]).is_none());

        for n in 0..300 {
            heads.record_request(
                id(100 + n),
                &headers,
                Mono(Duration::from_secs(10 + n.unsigned_abs())),
            );
        }
        assert!(heads.find(ids[0]).is_none(), "the oldest went");
    }

    #[test]
    fn long_headers_are_truncated() {
        let mut headers = HeaderMap::new();
        headers.insert("a", HeaderValue::from_static("1"));
        headers.insert("b", HeaderValue::from_str(&"x".repeat(10_000)).expect("a value"));
        headers.insert("c", HeaderValue::from_static(""));
        let shown = read_lines(&write_lines(&headers));
        assert_eq!(shown, [("a".to_owned(), "1".to_owned())]);
    }
}
