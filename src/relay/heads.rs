//! The headers of the newest requests, for whoever looks into one: few, short, and only a handful a
//! second.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use http::HeaderMap;

use crate::base::{clock::Mono, id::RequestId};

/// Requests whose headers are kept.
const KEPT: usize = 200;
/// Bytes of one request's headers, either way.
const BYTES: usize = 4 << 10;
/// A second that brings more requests than this is no second in which somebody reads headers.
const A_SECOND: u32 = 20;

/// Headers as text, in their order.
pub type Lines = Vec<(String, String)>;

/// The kept headers.
#[derive(Default)]
pub struct Heads(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    entries: VecDeque<Entry>,
    second: Duration,
    count: u32,
}

struct Entry {
    id: RequestId,
    asked: Lines,
    answered: Lines,
}

impl Heads {
    /// Keeps what a client sent, if there is room for it; nothing in it may be secret.
    pub(super) fn asked(&self, id: RequestId, headers: &HeaderMap, now: Mono) -> bool {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if now.0.saturating_sub(kept.second) >= Duration::from_secs(1) {
            (kept.second, kept.count) = (now.0, 0);
        }
        kept.count += 1;
        if kept.count > A_SECOND {
            return false;
        }
        if kept.entries.len() >= KEPT {
            kept.entries.pop_front();
        }
        kept.entries.push_back(Entry { id, asked: lines(headers), answered: Vec::new() });
        true
    }

    /// Keeps what the client got; its request was kept.
    pub(super) fn answered(&self, id: RequestId, headers: &HeaderMap) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = kept.entries.iter_mut().rev().find(|entry| entry.id == id) {
            entry.answered = lines(headers);
        }
    }

    /// What was asked with and what was answered with.
    #[must_use]
    pub fn find(&self, id: RequestId) -> Option<(Lines, Lines)> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.entries
            .iter()
            .rev()
            .find(|entry| entry.id == id)
            .map(|entry| (entry.asked.clone(), entry.answered.clone()))
    }
}

fn lines(headers: &HeaderMap) -> Lines {
    let mut left = BYTES;
    let all = headers
        .iter()
        .map(|(name, value)| (name.as_str(), String::from_utf8_lossy(value.as_bytes())));
    all.take_while(|(name, value)| {
        let size = name.len() + value.len();
        let fits = size <= left;
        left = left.saturating_sub(size);
        fits
    })
    .map(|(name, value)| (name.to_owned(), value.into_owned()))
    .collect()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::base::clock::UnixMillis;

    fn id(n: i64) -> RequestId {
        RequestId::new(UnixMillis(1_700_000_000_000 + n))
    }

    #[test]
    fn headers_of_the_newest_requests_are_kept_and_of_a_flood_only_the_first() {
        let heads = Heads::default();
        let mut headers = HeaderMap::new();
        headers.insert("user-agent", HeaderValue::from_static("ide/2.1"));
        let ids: Vec<_> = (0..30).map(id).collect();
        for id in &ids {
            heads.asked(*id, &headers, Mono(Duration::from_secs(5)));
            heads.answered(*id, &headers);
        }

        let (asked, answered) = heads.find(ids[0]).expect("kept");
        assert_eq!(asked, [("user-agent".to_owned(), "ide/2.1".to_owned())]);
        assert_eq!(asked, answered);
        assert!(heads.find(ids[29]).is_none());

        for n in 0..300 {
            heads.asked(id(100 + n), &headers, Mono(Duration::from_secs(10 + n.unsigned_abs())));
        }
        assert!(heads.find(ids[0]).is_none(), "the oldest went");
    }

    #[test]
    fn long_headers_are_cut_off() {
        let mut headers = HeaderMap::new();
        headers.insert("a", HeaderValue::from_static("1"));
        headers.insert("b", HeaderValue::from_str(&"x".repeat(10_000)).expect("a value"));
        assert_eq!(lines(&headers), [("a".to_owned(), "1".to_owned())]);
    }
}
