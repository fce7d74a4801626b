//! Detects when a conversation no longer hits its provider's prompt cache, and finds out what
//! changed.

use std::{collections::HashMap, sync::Arc, time::Duration};

use crate::routing::candidate::AccountId;
use crate::{
    base::clock::Mono,
    config::settings::UpstreamId,
    ir::{
        reason::cache_miss::{MissCause, PrefixRole},
        usage::Usage,
    },
};

/// Maximum number of stored hashes, two per conversation; above it, the longest-idle ones are
/// evicted.
const MAX_HASHES: usize = 2_000;
/// Messages of a conversation that are remembered.
pub const MAX_MESSAGES: usize = 256;
/// The minimum number of cached tokens for which a miss is reported; providers cache from about
/// this size on.
const MIN_CACHED_TOKENS: u64 = 1_024;
/// How long providers retain cached prompts, with the default and with the long lifetime.
const CACHE_TTL: Duration = Duration::from_secs(300);
const LONG_CACHE_TTL: Duration = Duration::from_secs(3_600);

/// The beginning of a request as hashes, without cache markers and without names that change
/// between turns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PromptPrefix {
    /// Hash of the tools in their order.
    pub tools: u64,
    /// Hash of the tools in any order.
    pub tool_set: u64,
    pub system: u64,
    /// Whether the request marks anything for caching.
    pub has_cache_control: bool,
    pub messages: Vec<(PrefixRole, u64)>,
}

/// Where a turn was served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServedBy {
    pub upstream: UpstreamId,
    /// `upstream/label`
    pub key_name: Arc<str>,
    pub account: AccountId,
    pub model: Arc<str>,
    /// The upstream's dialect differs from the client's.
    pub translated: bool,
}

/// The newest turn of a conversation.
#[derive(Debug)]
struct LastTurn {
    conversation: u64,
    prefix: PromptPrefix,
    served_by: ServedBy,
    /// Tokens of the turn in the provider's cache, as far as the provider reported them.
    cached: u64,
    /// The request used the long cache lifetime.
    long_ttl: bool,
    at: Mono,
}

/// A prompt cache that no longer hits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheMiss {
    pub cause: MissCause,
    /// Tokens that should have come from the cache.
    pub expected: u64,
    /// Tokens that did.
    pub cached: u64,
    /// The provider charged for writing the tokens to the cache again, not for plain input.
    pub rewritten: bool,
}

impl CacheMiss {
    #[must_use]
    pub fn missed_tokens(&self) -> u64 {
        self.expected.saturating_sub(self.cached)
    }
}

/// The newest turn of each conversation and what its cache contains.
#[derive(Debug, Default)]
pub struct PromptCacheTracker {
    turns: HashMap<u64, Arc<LastTurn>>,
}

impl PromptCacheTracker {
    /// Records an answered turn; returns the cache miss, if any. `conversation` is a hash of the
    /// project and the requested model.
    pub fn record_turn(
        &mut self,
        conversation: u64,
        prefix: PromptPrefix,
        served_by: ServedBy,
        usage: &Usage,
        now: Mono,
    ) -> Option<CacheMiss> {
        let keys = conversation_hashes(conversation, &prefix);
        let previous = keys
            .iter()
            .rev()
            .find_map(|key| self.turns.get(key))
            .filter(|turn| turn.conversation == conversation && turn.is_continued_by(&prefix));
        let written = usage.cache_write_5m.saturating_add(usage.cache_write_1h);
        let miss = previous.and_then(|before| {
            before.miss(&prefix, &served_by, usage.cache_read, written > 0, now)
        });
        let turn = LastTurn {
            conversation,
            prefix,
            served_by,
            cached: usage.cache_read.saturating_add(written),
            long_ttl: usage.cache_write_1h > 0
                || previous.is_some_and(|before| before.long_ttl && written == 0),
            at: now,
        };
        let turn = Arc::new(turn);
        for key in keys {
            if self.turns.len() >= MAX_HASHES && !self.turns.contains_key(&key) {
                self.evict_idle(now);
            }
            self.turns.insert(key, Arc::clone(&turn));
        }
        miss
    }

    /// Evicts the longest-idle eighth, so that eviction is rare.
    fn evict_idle(&mut self, now: Mono) {
        let mut silent: Vec<(Duration, u64)> =
            self.turns.iter().map(|(key, turn)| (now.since(turn.at), *key)).collect();
        let keep = silent.len() - silent.len() / 8 - 1;
        silent.select_nth_unstable(keep);
        for (_, key) in &silent[keep..] {
            self.turns.remove(key);
        }
    }
}

/// Returns the hashes that identify a conversation: its first message, and its first two. Both are
/// needed, as either may change.
fn conversation_hashes(conversation: u64, prefix: &PromptPrefix) -> Vec<u64> {
    let mixed = |n: u64, hash: u64| {
        (conversation ^ hash.rotate_left(17)).wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(n)
    };
    prefix.messages.iter().take(2).zip(1..).map(|((_, hash), n)| mixed(n, *hash)).collect()
}

impl LastTurn {
    /// Returns whether a request continues this conversation: it contains at least half of the
    /// known messages.
    fn is_continued_by(&self, prefix: &PromptPrefix) -> bool {
        let known =
            self.prefix.messages.iter().filter(|message| prefix.messages.contains(message)).count();
        known * 2 >= self.prefix.messages.len()
    }

    fn miss(
        &self,
        prefix: &PromptPrefix,
        served_by: &ServedBy,
        cached: u64,
        rewritten: bool,
        now: Mono,
    ) -> Option<CacheMiss> {
        if self.cached < MIN_CACHED_TOKENS || cached.saturating_mul(2) >= self.cached {
            return None;
        }
        Some(CacheMiss {
            cause: self.miss_cause(prefix, served_by, now),
            expected: self.cached,
            cached,
            rewritten,
        })
    }

    fn miss_cause(&self, prefix: &PromptPrefix, served_by: &ServedBy, now: Mono) -> MissCause {
        let (from, to) = (|name: &Arc<str>| Arc::clone(name), |name: &Arc<str>| Arc::clone(name));
        let upstream =
            |place: &ServedBy| Arc::from(place.key_name.split('/').next().unwrap_or_default());
        let (was, previous) = (&self.served_by, &self.prefix);
        if was.upstream != served_by.upstream {
            return MissCause::Upstream { from: upstream(was), to: upstream(served_by) };
        }
        if was.model != served_by.model {
            return MissCause::Model { from: from(&was.model), to: to(&served_by.model) };
        }
        if was.account != served_by.account {
            return MissCause::Key { from: from(&was.key_name), to: to(&served_by.key_name) };
        }
        if was.translated != served_by.translated {
            return MissCause::Translation { translated: served_by.translated };
        }
        // In the order in which providers lay out a prompt.
        if previous.tools != prefix.tools {
            return if previous.tool_set == prefix.tool_set {
                MissCause::ToolOrder
            } else {
                MissCause::Tools
            };
        }
        if previous.system != prefix.system {
            return MissCause::System;
        }
        if previous.has_cache_control && !prefix.has_cache_control {
            return MissCause::CacheControl;
        }
        for (at, (role, hash)) in previous.messages.iter().enumerate() {
            if prefix.messages.get(at).is_none_or(|(_, new)| new != hash) {
                return MissCause::Message { number: at + 1, role: *role };
            }
        }
        let silent = now.since(self.at);
        if silent >= if self.long_ttl { LONG_CACHE_TTL } else { CACHE_TTL } {
            MissCause::Expired { idle: silent.into() }
        } else {
            MissCause::Provider
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert, proptest};

    use super::*;
    use crate::routing::test_support::{at, cases};

    fn prefix(messages: &[u64]) -> PromptPrefix {
        let role =
            |n: usize| if n.is_multiple_of(2) { PrefixRole::User } else { PrefixRole::Assistant };
        let messages = messages.iter().enumerate().map(|(n, hash)| (role(n), *hash)).collect();
        PromptPrefix { tools: 1, tool_set: 2, system: 3, has_cache_control: true, messages }
    }

    fn place() -> ServedBy {
        ServedBy {
            upstream: UpstreamId(1),
            key_name: "one/work".into(),
            account: AccountId(7),
            model: "m".into(),
            translated: false,
        }
    }

    fn usage(read: u64, written: u64) -> Usage {
        Usage { input: 20, cache_read: read, cache_write_5m: written, ..Usage::default() }
    }

    /// Runs a conversation of two turns, then a third turn of this kind.
    fn third(new: PromptPrefix, place_now: ServedBy, read: u64, second: u64) -> Option<CacheMiss> {
        let mut guardian = PromptCacheTracker::default();
        assert_eq!(guardian.record_turn(9, prefix(&[10]), place(), &usage(0, 4_000), at(0)), None);
        assert_eq!(
            guardian.record_turn(9, prefix(&[10, 11, 12]), place(), &usage(4_000, 500), at(30)),
            None
        );
        guardian.record_turn(9, new, place_now, &usage(read, 4_600), at(second))
    }

    #[test]
    fn first_changed_part_is_named() {
        let next = || prefix(&[10, 11, 12, 13, 14]);
        let key = ServedBy { account: AccountId(8), key_name: "one/spare".into(), ..place() };
        let model = ServedBy { model: "n".into(), ..place() };
        let upstream = ServedBy { upstream: UpstreamId(2), key_name: "two/work".into(), ..place() };
        let silence = MissCause::Expired { idle: Duration::from_secs(400).into() };
        for (what, new, place, second, want) in [
            ("order", PromptPrefix { tools: 5, ..next() }, place(), 60, MissCause::ToolOrder),
            (
                "tools",
                PromptPrefix { tools: 5, tool_set: 6, system: 9, ..next() },
                place(),
                60,
                MissCause::Tools,
            ),
            ("system", PromptPrefix { system: 9, ..next() }, place(), 60, MissCause::System),
            (
                "marks",
                PromptPrefix { has_cache_control: false, ..next() },
                place(),
                60,
                MissCause::CacheControl,
            ),
            (
                "first",
                prefix(&[99, 11, 12, 13, 14]),
                place(),
                60,
                MissCause::Message { number: 1, role: PrefixRole::User },
            ),
            (
                "second",
                prefix(&[10, 99, 12, 13, 14]),
                place(),
                60,
                MissCause::Message { number: 2, role: PrefixRole::Assistant },
            ),
            (
                "shorter",
                prefix(&[10, 11]),
                place(),
                60,
                MissCause::Message { number: 3, role: PrefixRole::User },
            ),
            (
                "translation",
                next(),
                ServedBy { translated: true, ..place() },
                60,
                MissCause::Translation { translated: true },
            ),
            (
                "key",
                next(),
                key,
                60,
                MissCause::Key { from: "one/work".into(), to: "one/spare".into() },
            ),
            ("model", next(), model, 60, MissCause::Model { from: "m".into(), to: "n".into() }),
            (
                "upstream",
                next(),
                upstream,
                60,
                MissCause::Upstream { from: "one".into(), to: "two".into() },
            ),
            ("silence", next(), place(), 430, silence),
            ("provider", next(), place(), 60, MissCause::Provider),
        ] {
            let lost =
                third(new, place, 0, second).unwrap_or_else(|| panic!("{what} was not seen"));
            assert_eq!(
                (lost.cause, lost.expected, lost.cached, lost.rewritten),
                (want, 4_500, 0, true),
                "{what}"
            );
        }
    }

    #[test]
    fn cache_hits_and_other_conversations_report_nothing() {
        let next = prefix(&[10, 11, 12, 13, 14]);
        assert_eq!(third(next.clone(), place(), 4_500, 60), None);
        assert_eq!(third(next, place(), 2_300, 60), None, "half of it is no collapse");
        assert_eq!(
            third(prefix(&[10, 50, 51, 52, 53, 54]), place(), 0, 60),
            None,
            "it began alike and went elsewhere"
        );
        assert_eq!(third(prefix(&[70, 71]), place(), 0, 60), None);
        let mut guardian = PromptCacheTracker::default();
        guardian.record_turn(9, prefix(&[10]), place(), &usage(0, 4_000), at(0));
        assert_eq!(
            guardian.record_turn(8, prefix(&[10, 11, 12]), place(), &usage(0, 0), at(1)),
            None,
            "somebody else's"
        );
        guardian.record_turn(9, prefix(&[20]), place(), &usage(0, 900), at(0));
        assert_eq!(
            guardian.record_turn(9, prefix(&[20, 21, 22]), place(), &usage(0, 0), at(1)),
            None,
            "too little to matter"
        );
    }

    #[test]
    fn same_cache_miss_is_reported_once() {
        let mut guardian = PromptCacheTracker::default();
        guardian.record_turn(9, prefix(&[10]), place(), &usage(0, 4_000), at(0));
        let changed = |messages| PromptPrefix { system: 8, ..prefix(messages) };
        assert!(
            guardian
                .record_turn(9, changed(&[10, 11, 12]), place(), &usage(0, 4_200), at(1))
                .is_some()
        );
        assert_eq!(
            guardian.record_turn(
                9,
                changed(&[10, 11, 12, 13, 14]),
                place(),
                &usage(4_200, 100),
                at(2)
            ),
            None
        );
    }

    proptest! {
        #![proptest_config(cases())]

        #[test]
        fn number_of_tracked_conversations_is_limited(seeds in proptest::collection::vec(any::<u64>(), 1..6)) {
            let mut guardian = PromptCacheTracker::default();
            for (now, seed) in (0..).zip(seeds) {
                for n in 0..700 {
                    let first = seed.wrapping_add(n * 2);
                    guardian.record_turn(1, prefix(&[first, first + 1]), place(), &usage(0, 4_000), at(now));
                    prop_assert!(guardian.turns.len() <= MAX_HASHES);
                }
            }
        }
    }
}
