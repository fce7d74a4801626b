//! Looks up the facts of each model at each upstream once, and caches them.

use std::{collections::HashMap, sync::Arc};

use crate::{
    base::sync::RwLock,
    config::{
        model_facts::{self, KnownFacts, ModelAt},
        settings::{Settings, Upstream, UpstreamId},
    },
    ir::op::Dialect,
    routing::learned::LearnedRepairs,
};

/// Clients choose the names, so the number of cached models is limited; others are looked up again.
const MAX_CACHED_MODELS: usize = 4_096;

/// The facts under one config.
#[derive(Debug)]
pub struct FactsBook {
    settings: Arc<Settings>,
    learned: Arc<LearnedRepairs>,
    cached: RwLock<CachedFacts>,
}

#[derive(Debug, Default)]
struct CachedFacts {
    by_place: HashMap<(UpstreamId, Dialect), HashMap<Arc<str>, Arc<KnownFacts>>>,
    count: usize,
    /// The version of what was learned when the facts were looked up.
    learned_version: u64,
}

impl FactsBook {
    #[must_use]
    pub fn new(settings: Arc<Settings>, learned: Arc<LearnedRepairs>) -> Self {
        Self { settings, learned, cached: RwLock::default() }
    }

    /// Returns what is known of a model, by the upstream's name for it.
    #[must_use]
    pub fn look_up(&self, upstream: &Upstream, dialect: Dialect, model: &str) -> Arc<KnownFacts> {
        let place = (upstream.id, dialect);
        let version = self.learned.version();
        {
            let cached = self.cached.read();
            if cached.learned_version == version
                && let Some(known) =
                    cached.by_place.get(&place).and_then(|models| models.get(model))
            {
                return Arc::clone(known);
            }
        }
        let at = ModelAt::new(upstream, dialect, model);
        let learned = self.learned.facts_row(&upstream.name, dialect, model);
        let known = Arc::new(model_facts::look_up(&self.settings, learned.as_ref(), at));
        let mut cached = self.cached.write();
        if cached.learned_version != version {
            *cached = CachedFacts { learned_version: version, ..CachedFacts::default() };
        }
        if cached.count < MAX_CACHED_MODELS {
            let models = cached.by_place.entry(place).or_default();
            if models.insert(model.into(), Arc::clone(&known)).is_none() {
                cached.count += 1;
            }
        }
        known
    }
}

/// What is known of a model to announce it to clients: its facts at one upstream, and whether it
/// thinks.
#[derive(Clone, Debug)]
pub struct AnnouncedFacts {
    pub known: Arc<KnownFacts>,
    pub thinks: bool,
}

impl FactsBook {
    /// Returns what is announced of a model. Whether it thinks does not depend on the dialect,
    /// unlike how its thinking is set, so the facts of every dialect count.
    #[must_use]
    pub fn announce(&self, upstream: &Upstream, dialect: Dialect, model: &str) -> AnnouncedFacts {
        let known = self.look_up(upstream, dialect, model);
        let thinks = known.facts.thinks().unwrap_or_else(|| {
            Dialect::ALL
                .into_iter()
                .any(|other| self.look_up(upstream, other, model).facts.thinks() == Some(true))
        });
        AnnouncedFacts { known, thinks }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::test_support;

    #[test]
    fn model_facts_are_looked_up_once() {
        let upstream = test_support::upstream(1, "one", None, 1);
        let book = FactsBook::new(Arc::new(test_support::settings(Vec::new())), Arc::default());
        let first = book.look_up(&upstream, Dialect::Anthropic, "claude-opus-4-8");
        let again = book.look_up(&upstream, Dialect::Anthropic, "claude-opus-4-8");
        assert!(Arc::ptr_eq(&first, &again));
        let chat = book.look_up(&upstream, Dialect::Openai, "claude-opus-4-8");
        assert_ne!(first.facts.thinking, chat.facts.thinking);
    }

    #[test]
    fn number_of_cached_models_is_limited() {
        let upstream = test_support::upstream(1, "one", None, 1);
        let book = FactsBook::new(Arc::new(test_support::settings(Vec::new())), Arc::default());
        for n in 0..MAX_CACHED_MODELS + 5 {
            assert!(
                book.look_up(&upstream, Dialect::Openai, &format!("m{n}")).facts.stop.is_some()
            );
        }
        assert_eq!(book.cached.read().count, MAX_CACHED_MODELS);
    }
}
