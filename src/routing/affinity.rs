//! Remembers which account serves a conversation, so that its next turn hits the provider's prompt
//! cache.

use std::{collections::HashMap, sync::Arc, time::Duration};

use super::candidate::{AccountId, Candidate};
use crate::{base::clock::Mono, config::settings::UpstreamId};

/// Maximum number of remembered conversations; above it, the longest-idle ones are evicted.
const MAX_BINDINGS: usize = 10_000;
/// How long a conversation stays bound to a worse tier after a better tier is ready again.
pub const WORSE_TIER_GRACE: Duration = Duration::from_secs(300);
/// The longest that a request waits for the account its conversation is bound to.
pub const MAX_AFFINITY_WAIT: Duration = Duration::from_secs(2);

/// Hashes that identify a conversation; each includes the project.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConversationKeys {
    /// The session id that the client sent.
    pub session: Option<u64>,
    /// Prefixes of the conversation up to each message, longest first. Each contains a user
    /// message.
    pub chain: Vec<u64>,
    /// The part before the first message: system prompt and tools.
    pub preamble: Option<u64>,
}

impl ConversationKeys {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The upstream, account and model that last served a conversation.
#[derive(Clone, Debug, PartialEq)]
pub struct AffinityBinding {
    pub upstream: UpstreamId,
    pub upstream_name: Arc<str>,
    pub account: AccountId,
    pub model: Arc<str>,
    pub bound_at: Mono,
    pub last_used: Mono,
    /// Since when a tier better than the bound one has been ready.
    pub better_tier_since: Option<Mono>,
}

/// A binding as input to a decision.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AffinityHint<'a> {
    pub binding: &'a AffinityBinding,
    /// True if only the system prompt and tools match. A weak binding is a tie-break, used only
    /// while the provider's limits are far from exhausted.
    pub weak: bool,
    /// The request waits for the bound account until this instant at most.
    pub wait_until: Mono,
}

impl AffinityHint<'_> {
    /// Returns whether the candidate matches the binding. The key may differ within the account;
    /// the model may not, because prompt caches are per model.
    #[must_use]
    pub fn matches(&self, candidate: &Candidate) -> bool {
        let AffinityBinding { upstream, account, model, .. } = self.binding;
        candidate.account == *account
            && candidate.upstream() == *upstream
            && candidate.target.model == *model
    }

    /// Returns whether the binding still applies although a better tier is ready.
    #[must_use]
    pub fn sticks_despite_better_tier(&self, now: Mono) -> bool {
        !self.weak
            && self
                .binding
                .better_tier_since
                .is_none_or(|since| now.since(since) < WORSE_TIER_GRACE)
    }
}

/// All remembered bindings.
#[derive(Debug, Default)]
pub struct AffinityBindings {
    by_key: HashMap<u64, AffinityBinding>,
}

impl AffinityBindings {
    /// Finds the binding of a conversation by its session, then by its longest known prefix, then
    /// by its preamble. Returns the matching key, and whether only the preamble matched.
    #[must_use]
    pub fn find(&self, keys: &ConversationKeys, ttl: Duration, now: Mono) -> Option<(u64, bool)> {
        let fresh = |key: &u64| {
            self.by_key.get(key).is_some_and(|binding| now.since(binding.last_used) < ttl)
        };
        let firm = keys.session.iter().chain(&keys.chain).copied().find(fresh);
        firm.map(|key| (key, false)).or_else(|| keys.preamble.filter(fresh).map(|key| (key, true)))
    }

    #[must_use]
    pub fn get(&self, key: u64) -> Option<&AffinityBinding> {
        self.by_key.get(&key)
    }

    /// Records which account served a conversation. `bound_at` is unchanged if the conversation
    /// stays on the same account and model.
    pub fn bind(&mut self, keys: &ConversationKeys, mut binding: AffinityBinding, now: Mono) {
        for key in keys.session.into_iter().chain(keys.chain.first().copied()).chain(keys.preamble)
        {
            if let Some(old) = self.by_key.get(&key)
                && (old.upstream, old.account, &old.model)
                    == (binding.upstream, binding.account, &binding.model)
            {
                binding.bound_at = old.bound_at;
            }
            if self.by_key.len() >= MAX_BINDINGS && !self.by_key.contains_key(&key) {
                self.evict_idle(now);
            }
            self.by_key.insert(key, AffinityBinding { last_used: now, ..binding.clone() });
        }
    }

    /// Records whether a tier better than the bound one is ready.
    pub fn record_better_tier(&mut self, key: u64, ready: bool, now: Mono) {
        if let Some(binding) = self.by_key.get_mut(&key) {
            binding.better_tier_since =
                if ready { binding.better_tier_since.or(Some(now)) } else { None };
        }
    }

    pub fn remove(&mut self, key: u64) -> bool {
        self.by_key.remove(&key).is_some()
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// Evicts the longest-idle eighth, so that eviction is rare.
    fn evict_idle(&mut self, now: Mono) {
        let mut silent: Vec<Duration> =
            self.by_key.values().map(|binding| now.since(binding.last_used)).collect();
        let keep = silent.len() - silent.len() / 8 - 1;
        let (_, limit, _) = silent.select_nth_unstable(keep);
        let limit = *limit;
        let mut excess = self.by_key.len() / 8;
        self.by_key.retain(|_, binding| {
            let evicted = excess > 0 && now.since(binding.last_used) >= limit;
            excess -= usize::from(evicted);
            !evicted
        });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

    use super::*;
    use crate::routing::test_support::{at, cases};

    const ONE_HOUR: Duration = Duration::from_secs(3_600);

    fn binding(account: u32, now: u64) -> AffinityBinding {
        AffinityBinding {
            upstream: UpstreamId(1),
            upstream_name: "one".into(),
            account: AccountId(account),
            model: "m".into(),
            bound_at: at(now),
            last_used: at(now),
            better_tier_since: None,
        }
    }

    fn chain(hashes: &[u64]) -> ConversationKeys {
        ConversationKeys { session: None, chain: hashes.to_vec(), preamble: None }
    }

    #[test]
    fn longest_known_prefix_wins_and_the_preamble_is_the_fallback() {
        let mut all = AffinityBindings::default();
        all.bind(
            &ConversationKeys { preamble: Some(9), ..chain(&[3, 2, 1]) },
            binding(1, 0),
            at(0),
        );
        all.bind(
            &ConversationKeys { preamble: Some(9), ..chain(&[5, 4, 3, 2, 1]) },
            binding(2, 1),
            at(1),
        );

        let account = |keys: &ConversationKeys| {
            all.find(keys, ONE_HOUR, at(2))
                .map(|(key, loose)| (all.get(key).expect("known").account.0, loose))
        };
        assert_eq!(account(&chain(&[7, 6, 5, 4, 3, 2, 1])), Some((2, false)));
        assert_eq!(
            account(&chain(&[8, 3, 2, 1])),
            Some((1, false)),
            "a branch goes on from where it left"
        );
        assert_eq!(account(&chain(&[2, 1])), None, "only whole requests were bound");
        assert_eq!(
            account(&ConversationKeys { preamble: Some(9), ..chain(&[77]) }),
            Some((2, true))
        );
    }

    #[test]
    fn session_name_wins_and_bindings_expire() {
        let mut all = AffinityBindings::default();
        all.bind(&ConversationKeys { session: Some(40), ..chain(&[1]) }, binding(1, 0), at(0));
        all.bind(&chain(&[2, 1]), binding(2, 0), at(0));
        let keys = ConversationKeys { session: Some(40), ..chain(&[2, 1]) };
        assert_eq!(all.find(&keys, ONE_HOUR, at(3_599)), Some((40, false)));
        assert_eq!(all.find(&keys, ONE_HOUR, at(3_600)), None);
        assert!(all.remove(40) && !all.remove(40));
    }

    #[test]
    fn renewed_binding_keeps_its_start_and_a_moved_one_does_not() {
        let mut all = AffinityBindings::default();
        let keys = ConversationKeys { session: Some(40), ..ConversationKeys::default() };
        all.bind(&keys, binding(1, 0), at(0));
        all.record_better_tier(40, true, at(5));
        all.bind(
            &keys,
            AffinityBinding {
                better_tier_since: all.get(40).and_then(|known| known.better_tier_since),
                ..binding(1, 10)
            },
            at(10),
        );
        let stayed = all.get(40).expect("bound").clone();
        assert_eq!(
            (stayed.bound_at, stayed.last_used, stayed.better_tier_since),
            (at(0), at(10), Some(at(5)))
        );
        all.bind(&keys, binding(2, 20), at(20));
        let moved = all.get(40).expect("bound");
        assert_eq!(
            (moved.bound_at, moved.better_tier_since, moved.account),
            (at(20), None, AccountId(2))
        );
    }

    proptest! {
        #![proptest_config(cases())]

        #[test]
        fn bindings_are_bounded_and_include_the_newest(seeds in proptest::collection::vec(any::<u64>(), 1..40)) {
            let mut all = AffinityBindings::default();
            for (now, seed) in (0..).zip(seeds) {
                for n in 0..600 {
                    all.bind(&chain(&[seed.wrapping_add(n)]), binding(1, now), at(now));
                    prop_assert!(all.len() <= MAX_BINDINGS);
                }
                prop_assert_eq!(all.find(&chain(&[seed]), ONE_HOUR, at(now)), Some((seed, false)));
            }
        }
    }
}
