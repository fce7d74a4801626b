//! What upstreams were found to refuse, per upstream and model, until it expires.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::{
    base::{clock::UnixMillis, pattern::Patterns, sync::RwLock},
    config::model_facts::{FactOrigin, FactSource, FactsRow},
    ir::{model_facts::ModelFacts, op::Dialect, repair::Repair},
};

/// How long a refusal is remembered; then the upstream is asked as before, for providers add what
/// was missing.
const TTL: Duration = Duration::from_secs(14 * 24 * 3600);
/// Clients choose names of models, so the number of remembered ones is limited; the oldest goes.
const MAX_MODELS: usize = 1_000;
/// Repairs of one model beyond this number are more than a model that can be used needs.
const MAX_REPAIRS: usize = 16;

/// Which model, where.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LearnedPlace {
    pub upstream: Arc<str>,
    pub dialect: Dialect,
    pub model: Arc<str>,
}

/// One repair, and when it was learned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LearnedRepair {
    #[serde(flatten)]
    pub repair: Repair,
    pub at: UnixMillis,
}

/// A row of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LearnedRow {
    #[serde(flatten)]
    pub place: LearnedPlace,
    pub repairs: Vec<LearnedRepair>,
}

/// The repairs of all models.
#[derive(Debug, Default)]
pub struct LearnedRepairs {
    state: RwLock<LearnedState>,
    /// Counts the changes; 0 while nothing was ever learned.
    version: AtomicU64,
}

#[derive(Debug, Default)]
struct LearnedState {
    by_place: HashMap<LearnedPlace, Vec<LearnedRepair>>,
    order: VecDeque<LearnedPlace>,
    /// What did not help; kept until it is forgotten or the process ends.
    useless: HashSet<(LearnedPlace, Repair)>,
}

impl LearnedRepairs {
    /// A number that differs after each change; 0 while nothing was ever learned.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Returns the repairs for a model. Costs one atomic load while nothing was learned.
    #[must_use]
    pub fn find(&self, upstream: &str, dialect: Dialect, model: &str) -> Vec<LearnedRepair> {
        if self.version() == 0 {
            return Vec::new();
        }
        let place = LearnedPlace { upstream: upstream.into(), dialect, model: model.into() };
        self.state.read().by_place.get(&place).cloned().unwrap_or_default()
    }

    /// Remembers a repair; returns false if it was known already.
    pub fn insert(&self, place: LearnedPlace, repair: Repair, now: UnixMillis) -> bool {
        let mut state = self.state.write();
        state.remove_expired(now);
        if !state.by_place.contains_key(&place) {
            if state.order.len() >= MAX_MODELS
                && let Some(oldest) = state.order.pop_front()
            {
                state.by_place.remove(&oldest);
            }
            state.order.push_back(place.clone());
        }
        let repairs = state.by_place.entry(place).or_default();
        if repairs.len() >= MAX_REPAIRS || repairs.iter().any(|known| known.repair == repair) {
            return false;
        }
        // A later answer about the same field counts more than an earlier one.
        repairs.retain(|known| subject(&known.repair) != subject(&repair));
        repairs.push(LearnedRepair { repair, at: now });
        self.version.fetch_add(1, Ordering::AcqRel);
        true
    }

    /// Forgets a repair that did not help, and remembers that.
    pub fn mark_useless(&self, place: LearnedPlace, repair: Repair) {
        self.remove(&place, &repair);
        let mut state = self.state.write();
        if state.useless.len() >= MAX_MODELS {
            state.useless.clear();
        }
        state.useless.insert((place, repair));
    }

    /// Whether a repair did not help before.
    #[must_use]
    pub fn is_useless(&self, place: &LearnedPlace, repair: &Repair) -> bool {
        let state = self.state.read();
        !state.useless.is_empty() && state.useless.contains(&(place.clone(), repair.clone()))
    }

    /// Forgets one repair.
    pub fn remove(&self, place: &LearnedPlace, repair: &Repair) {
        let mut state = self.state.write();
        if let Some(repairs) = state.by_place.get_mut(place) {
            repairs.retain(|known| known.repair != *repair);
            if repairs.is_empty() {
                state.by_place.remove(place);
                state.order.retain(|known| known != place);
            }
            self.version.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Forgets what was learned of these models, or of all models if there are none; returns the
    /// number of models. A name is `MODEL`, at every upstream, or `UPSTREAM:MODEL`.
    pub fn forget(&self, names: &[String]) -> usize {
        let mut state = self.state.write();
        let before = state.order.len();
        let LearnedState { by_place, order, useless } = &mut *state;
        useless.retain(|(place, _)| {
            !(names.is_empty() || names.iter().any(|name| place.is_named(name)))
        });
        order.retain(|place| {
            let named = names.is_empty() || names.iter().any(|name| place.is_named(name));
            if named {
                by_place.remove(place);
            }
            !named
        });
        let forgotten = before - order.len();
        if forgotten > 0 {
            self.version.fetch_add(1, Ordering::AcqRel);
        }
        forgotten
    }

    /// Returns all rows, the oldest first.
    #[must_use]
    pub fn rows(&self, now: UnixMillis) -> Vec<LearnedRow> {
        let mut state = self.state.write();
        state.remove_expired(now);
        let row = |place: &LearnedPlace| {
            let repairs = state.by_place.get(place)?.clone();
            Some(LearnedRow { place: place.clone(), repairs })
        };
        state.order.iter().filter_map(row).collect()
    }

    /// Restores the rows of an earlier run.
    pub fn restore(&self, rows: Vec<LearnedRow>, now: UnixMillis) {
        for row in rows.into_iter().take(MAX_MODELS) {
            for learned in row.repairs.into_iter().take(MAX_REPAIRS) {
                if !is_expired(&learned, now) && learned.at <= now {
                    self.insert(row.place.clone(), learned.repair, learned.at);
                }
            }
        }
    }

    /// Returns the facts that were learned of a model, as a row to look them up in.
    #[must_use]
    pub fn facts_row(
        &self,
        upstream: &str,
        dialect: Dialect,
        model: &str,
    ) -> Option<Arc<FactsRow>> {
        let repairs = self.find(upstream, dialect, model);
        let last = repairs.last()?;
        let mut facts = ModelFacts::default();
        for learned in repairs.iter().rev() {
            facts.fill_from(&learned.repair.facts(), |_| {});
        }
        Some(Arc::new(FactsRow {
            names: Patterns::any(),
            upstreams: None,
            providers: None,
            dialects: Vec::new(),
            facts,
            source: Arc::new(FactSource {
                patterns: vec![model.to_owned()],
                page: "learned from a refusal".to_owned(),
                date: last.at.to_string().chars().take("2026-01-01".len()).collect(),
                origin: FactOrigin::Learned,
            }),
        }))
    }
}

impl LearnedPlace {
    /// Whether a user means this model: `model`, `upstream:model` or `upstream/model`.
    fn is_named(&self, name: &str) -> bool {
        *self.model == *name
            || name.strip_prefix(&*self.upstream).and_then(|rest| rest.strip_prefix([':', '/']))
                == Some(&*self.model)
    }
}

impl LearnedState {
    fn remove_expired(&mut self, now: UnixMillis) {
        let Self { by_place, order, .. } = self;
        order.retain(|place| {
            let Some(repairs) = by_place.get_mut(place) else { return false };
            repairs.retain(|learned| !is_expired(learned, now));
            if repairs.is_empty() {
                by_place.remove(place);
                return false;
            }
            true
        });
    }
}

fn is_expired(learned: &LearnedRepair, now: UnixMillis) -> bool {
    now.0.saturating_sub(learned.at.0) > i64::try_from(TTL.as_millis()).unwrap_or(i64::MAX)
}

/// What a repair is about; a newer one replaces an older one about the same.
fn subject(repair: &Repair) -> (std::mem::Discriminant<Repair>, Option<&str>) {
    let field = match repair {
        Repair::Drop { field }
        | Repair::DropInside { field, .. }
        | Repair::Limit { field, .. }
        | Repair::Rename { field, .. }
        | Repair::Values { field, .. } => Some(field.as_str()),
        _ => None,
    };
    (std::mem::discriminant(repair), field)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(model: &str) -> LearnedPlace {
        LearnedPlace { upstream: "up".into(), dialect: Dialect::Openai, model: model.into() }
    }

    fn drop_of(field: &str) -> Repair {
        Repair::Drop { field: field.to_owned() }
    }

    #[test]
    fn repairs_are_found_forgotten_and_expire() {
        let learned = LearnedRepairs::default();
        let day = UnixMillis(20_000 * 86_400_000);
        assert_eq!(learned.version(), 0);
        assert!(learned.insert(place("m"), drop_of("temperature"), day));
        assert!(!learned.insert(place("m"), drop_of("temperature"), day));
        assert_eq!(learned.find("up", Dialect::Openai, "m").len(), 1);
        assert!(learned.find("up", Dialect::Openai, "n").is_empty());
        let row = learned.facts_row("up", Dialect::Openai, "m").unwrap();
        assert_eq!(row.facts.temperature, Some(crate::ir::model_facts::Acceptance::No));

        let rows = learned.rows(day);
        let text = serde_json::to_string(&rows).unwrap();
        let again = LearnedRepairs::default();
        again.restore(serde_json::from_str(&text).unwrap(), day);
        assert_eq!(again.rows(day), rows, "{text}");
        let later = UnixMillis(day.0 + 15 * 86_400_000);
        assert!(again.rows(later).is_empty());

        assert_eq!(learned.forget(&["other".to_owned()]), 0);
        assert_eq!(learned.forget(&["up:m".to_owned()]), 1);
        assert!(learned.find("up", Dialect::Openai, "m").is_empty());
    }

    #[test]
    fn number_of_learned_repairs_is_limited() {
        let learned = LearnedRepairs::default();
        for n in 0..MAX_MODELS + 3 {
            learned.insert(place(&n.to_string()), drop_of("n"), UnixMillis(0));
        }
        for n in 0..MAX_REPAIRS + 3 {
            learned.insert(place("1002"), drop_of(&n.to_string()), UnixMillis(0));
        }
        let rows = learned.rows(UnixMillis(0));
        assert_eq!(rows.len(), MAX_MODELS);
        assert!(rows.iter().all(|row| row.repairs.len() <= MAX_REPAIRS));
    }
}
