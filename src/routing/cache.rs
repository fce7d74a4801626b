//! Whether a conversation still finds its beginning in its provider's prompt cache, and what
//! changed where it does not.

use std::{collections::HashMap, sync::Arc, time::Duration};

use super::candidate::{AccountId, short};
use crate::{base::clock::Mono, config::settings::UpstreamId, ir::usage::Usage};

/// Conversations are found by two hashes each; so many hashes are kept, beyond those silent longest
/// go.
const MOST: usize = 2_000;
/// Messages of a conversation that are remembered.
pub const MESSAGES: usize = 256;
/// Fewer tokens are no loss worth telling: providers cache from about here on.
const LEAST: u64 = 1_024;
/// How long providers keep what was written to their caches for the usual while, and for the long
/// one.
const KEPT: Duration = Duration::from_secs(300);
const KEPT_LONG: Duration = Duration::from_secs(3_600);

/// What stands at the beginning of a request, as hashes: marks for the cache and names that change
/// from turn to turn left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prefix {
    /// In their order.
    pub tools: u64,
    /// In whatever order.
    pub tool_set: u64,
    pub system: u64,
    /// Whether it asks for anything to be cached.
    pub marks: bool,
    pub messages: Vec<(Role, u64)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Assistant,
    Other,
    Tool,
    User,
}

/// Where a turn went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub upstream: UpstreamId,
    /// `upstream/label`
    pub key_name: Arc<str>,
    pub account: AccountId,
    pub model: Arc<str>,
    /// Its dialect was another than the client's.
    pub translated: bool,
}

/// What is remembered of a conversation's newest turn.
#[derive(Debug)]
struct Turn {
    whose: u64,
    prefix: Prefix,
    place: Place,
    /// Tokens that the cache holds of it, as far as the provider said.
    cached: u64,
    /// The provider was asked to keep them for long.
    long: bool,
    at: Mono,
}

/// The first thing that explains it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    Key {
        from: Arc<str>,
        to: Arc<str>,
    },
    Marks,
    Message {
        number: usize,
        role: Role,
    },
    Model {
        from: Arc<str>,
        to: Arc<str>,
    },
    /// Nothing changed and little time passed: it was the provider's doing.
    Provider,
    /// Nothing changed, but so long nothing was asked.
    Silence(Duration),
    System,
    ToolOrder,
    Tools,
    Translation {
        now: bool,
    },
    Upstream {
        from: Arc<str>,
        to: Arc<str>,
    },
}

/// A prompt cache that stopped hitting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    pub cause: Cause,
    /// Tokens that should have come from the cache.
    pub expected: u64,
    /// Tokens that did.
    pub cached: u64,
    /// The provider charged for writing them again, rather than for reading them afresh.
    pub rewritten: bool,
}

impl Lost {
    #[must_use]
    pub fn tokens(&self) -> u64 {
        self.expected.saturating_sub(self.cached)
    }
}

impl Cause {
    /// In words.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::Key { from, to } => {
                format!("it went to {to}, whose account is not that of {from}")
            }
            Self::Marks => {
                "the client asks for nothing to be cached any more (`cache_control`)".to_owned()
            }
            Self::Message { number, role } => {
                let role = match role {
                    Role::Assistant => " (assistant)",
                    Role::Other => "",
                    Role::Tool => " (tool)",
                    Role::User => " (user)",
                };
                format!("the client changed message {number}{role}")
            }
            Self::Model { from, to } => format!("it went to the model {to}, before to {from}"),
            Self::Provider => "nothing changed here; the provider let it go".to_owned(),
            Self::Silence(span) => {
                format!("nothing was asked for {}, longer than the provider keeps it", short(*span))
            }
            Self::System => "the client changed the system prompt".to_owned(),
            Self::ToolOrder => "the client changed the order of the tools".to_owned(),
            Self::Tools => "the client changed the tools".to_owned(),
            Self::Translation { now: true } => {
                "it was translated, before it went as it was".to_owned()
            }
            Self::Translation { now: false } => {
                "it went as it was, before it was translated".to_owned()
            }
            Self::Upstream { from, to } => format!("it went to {to}, before to {from}"),
        }
    }

    /// Whether it is what one would expect, rather than something to look into.
    #[must_use]
    pub fn is_usual(&self) -> bool {
        matches!(self, Self::Silence(_))
    }
}

/// Conversations and what their caches hold.
#[derive(Debug, Default)]
pub struct Guardian {
    turns: HashMap<u64, Arc<Turn>>,
}

impl Guardian {
    /// A turn was answered: what was lost of its cache, if anything was. `whose`: project and model
    /// asked for.
    pub fn heard(
        &mut self,
        whose: u64,
        prefix: Prefix,
        place: Place,
        usage: &Usage,
        now: Mono,
    ) -> Option<Lost> {
        let keys = keys(whose, &prefix);
        let before = keys
            .iter()
            .rev()
            .find_map(|key| self.turns.get(key))
            .filter(|turn| turn.whose == whose && turn.leads_to(&prefix));
        let written = usage.cache_write_5m.saturating_add(usage.cache_write_1h);
        let lost = before
            .and_then(|before| before.lost(&prefix, &place, usage.cache_read, written > 0, now));
        let turn = Turn {
            whose,
            prefix,
            place,
            cached: usage.cache_read.saturating_add(written),
            long: usage.cache_write_1h > 0
                || before.is_some_and(|before| before.long && written == 0),
            at: now,
        };
        let turn = Arc::new(turn);
        for key in keys {
            if self.turns.len() >= MOST && !self.turns.contains_key(&key) {
                self.make_room(now);
            }
            self.turns.insert(key, Arc::clone(&turn));
        }
        lost
    }

    /// Drops the eighth that was silent longest, so that this is rare.
    fn make_room(&mut self, now: Mono) {
        let mut silent: Vec<(Duration, u64)> =
            self.turns.iter().map(|(key, turn)| (now.since(turn.at), *key)).collect();
        let keep = silent.len() - silent.len() / 8 - 1;
        silent.select_nth_unstable(keep);
        for (_, key) in &silent[keep..] {
            self.turns.remove(key);
        }
    }
}

/// What a conversation is found by: its first message, and its first two. Both, as either may be
/// changed.
fn keys(whose: u64, prefix: &Prefix) -> Vec<u64> {
    let mixed = |n: u64, hash: u64| {
        (whose ^ hash.rotate_left(17)).wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(n)
    };
    prefix.messages.iter().take(2).zip(1..).map(|((_, hash), n)| mixed(n, *hash)).collect()
}

impl Turn {
    /// Whether a request goes on with this conversation: most of what was said in it is said again.
    fn leads_to(&self, prefix: &Prefix) -> bool {
        let known =
            self.prefix.messages.iter().filter(|message| prefix.messages.contains(message)).count();
        known * 2 >= self.prefix.messages.len()
    }

    fn lost(
        &self,
        prefix: &Prefix,
        place: &Place,
        cached: u64,
        rewritten: bool,
        now: Mono,
    ) -> Option<Lost> {
        if self.cached < LEAST || cached.saturating_mul(2) >= self.cached {
            return None;
        }
        Some(Lost {
            cause: self.cause(prefix, place, now),
            expected: self.cached,
            cached,
            rewritten,
        })
    }

    fn cause(&self, prefix: &Prefix, place: &Place, now: Mono) -> Cause {
        let (from, to) = (|name: &Arc<str>| Arc::clone(name), |name: &Arc<str>| Arc::clone(name));
        let upstream =
            |place: &Place| Arc::from(place.key_name.split('/').next().unwrap_or_default());
        let (was, own) = (&self.place, &self.prefix);
        if was.upstream != place.upstream {
            return Cause::Upstream { from: upstream(was), to: upstream(place) };
        }
        if was.model != place.model {
            return Cause::Model { from: from(&was.model), to: to(&place.model) };
        }
        if was.account != place.account {
            return Cause::Key { from: from(&was.key_name), to: to(&place.key_name) };
        }
        if was.translated != place.translated {
            return Cause::Translation { now: place.translated };
        }
        // In the order in which providers lay a prompt out.
        if own.tools != prefix.tools {
            return if own.tool_set == prefix.tool_set { Cause::ToolOrder } else { Cause::Tools };
        }
        if own.system != prefix.system {
            return Cause::System;
        }
        if own.marks && !prefix.marks {
            return Cause::Marks;
        }
        for (at, (role, hash)) in own.messages.iter().enumerate() {
            if prefix.messages.get(at).is_none_or(|(_, new)| new != hash) {
                return Cause::Message { number: at + 1, role: *role };
            }
        }
        let silent = now.since(self.at);
        if silent >= if self.long { KEPT_LONG } else { KEPT } {
            Cause::Silence(silent)
        } else {
            Cause::Provider
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert, proptest};

    use super::*;
    use crate::routing::fixture::{at, cases};

    fn prefix(messages: &[u64]) -> Prefix {
        let role = |n: usize| if n.is_multiple_of(2) { Role::User } else { Role::Assistant };
        let messages = messages.iter().enumerate().map(|(n, hash)| (role(n), *hash)).collect();
        Prefix { tools: 1, tool_set: 2, system: 3, marks: true, messages }
    }

    fn place() -> Place {
        Place {
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

    /// A conversation of two turns, then a third of this kind.
    fn third(new: Prefix, place_now: Place, read: u64, second: u64) -> Option<Lost> {
        let mut guardian = Guardian::default();
        assert_eq!(guardian.heard(9, prefix(&[10]), place(), &usage(0, 4_000), at(0)), None);
        assert_eq!(
            guardian.heard(9, prefix(&[10, 11, 12]), place(), &usage(4_000, 500), at(30)),
            None
        );
        guardian.heard(9, new, place_now, &usage(read, 4_600), at(second))
    }

    #[test]
    fn pain_15_the_first_part_that_changed_is_named() {
        let next = || prefix(&[10, 11, 12, 13, 14]);
        let key = Place { account: AccountId(8), key_name: "one/spare".into(), ..place() };
        let model = Place { model: "n".into(), ..place() };
        let upstream = Place { upstream: UpstreamId(2), key_name: "two/work".into(), ..place() };
        let silence = Cause::Silence(Duration::from_secs(400));
        for (what, new, place, second, want) in [
            ("order", Prefix { tools: 5, ..next() }, place(), 60, Cause::ToolOrder),
            (
                "tools",
                Prefix { tools: 5, tool_set: 6, system: 9, ..next() },
                place(),
                60,
                Cause::Tools,
            ),
            ("system", Prefix { system: 9, ..next() }, place(), 60, Cause::System),
            ("marks", Prefix { marks: false, ..next() }, place(), 60, Cause::Marks),
            (
                "first",
                prefix(&[99, 11, 12, 13, 14]),
                place(),
                60,
                Cause::Message { number: 1, role: Role::User },
            ),
            (
                "second",
                prefix(&[10, 99, 12, 13, 14]),
                place(),
                60,
                Cause::Message { number: 2, role: Role::Assistant },
            ),
            (
                "shorter",
                prefix(&[10, 11]),
                place(),
                60,
                Cause::Message { number: 3, role: Role::User },
            ),
            (
                "translation",
                next(),
                Place { translated: true, ..place() },
                60,
                Cause::Translation { now: true },
            ),
            (
                "key",
                next(),
                key,
                60,
                Cause::Key { from: "one/work".into(), to: "one/spare".into() },
            ),
            ("model", next(), model, 60, Cause::Model { from: "m".into(), to: "n".into() }),
            (
                "upstream",
                next(),
                upstream,
                60,
                Cause::Upstream { from: "one".into(), to: "two".into() },
            ),
            ("silence", next(), place(), 430, silence),
            ("provider", next(), place(), 60, Cause::Provider),
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
    fn nothing_is_told_while_the_cache_hits_and_of_other_conversations() {
        let next = prefix(&[10, 11, 12, 13, 14]);
        assert_eq!(third(next.clone(), place(), 4_500, 60), None);
        assert_eq!(third(next, place(), 2_300, 60), None, "half of it is no collapse");
        assert_eq!(
            third(prefix(&[10, 50, 51, 52, 53, 54]), place(), 0, 60),
            None,
            "it began alike and went elsewhere"
        );
        assert_eq!(third(prefix(&[70, 71]), place(), 0, 60), None);
        let mut guardian = Guardian::default();
        guardian.heard(9, prefix(&[10]), place(), &usage(0, 4_000), at(0));
        assert_eq!(
            guardian.heard(8, prefix(&[10, 11, 12]), place(), &usage(0, 0), at(1)),
            None,
            "somebody else's"
        );
        guardian.heard(9, prefix(&[20]), place(), &usage(0, 900), at(0));
        assert_eq!(
            guardian.heard(9, prefix(&[20, 21, 22]), place(), &usage(0, 0), at(1)),
            None,
            "too little to matter"
        );
    }

    #[test]
    fn what_was_told_once_is_not_told_again() {
        let mut guardian = Guardian::default();
        guardian.heard(9, prefix(&[10]), place(), &usage(0, 4_000), at(0));
        let changed = |messages| Prefix { system: 8, ..prefix(messages) };
        assert!(
            guardian.heard(9, changed(&[10, 11, 12]), place(), &usage(0, 4_200), at(1)).is_some()
        );
        assert_eq!(
            guardian.heard(9, changed(&[10, 11, 12, 13, 14]), place(), &usage(4_200, 100), at(2)),
            None
        );
    }

    proptest! {
        #![proptest_config(cases())]

        #[test]
        fn there_are_never_more_than_fit(seeds in proptest::collection::vec(any::<u64>(), 1..6)) {
            let mut guardian = Guardian::default();
            for (now, seed) in (0..).zip(seeds) {
                for n in 0..700 {
                    let first = seed.wrapping_add(n * 2);
                    guardian.heard(1, prefix(&[first, first + 1]), place(), &usage(0, 4_000), at(now));
                    prop_assert!(guardian.turns.len() <= MOST);
                }
            }
        }
    }
}
