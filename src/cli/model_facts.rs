//! The part of `aiproxy model show` about each target: what is known of its model, and the source
//! of each fact.

use serde_json::{Map, Value, json};

use crate::{
    cli::output::{
        Styler, TextRole,
        table::{TableCell, TextTable},
    },
    config::{
        model_facts::{self, FactSource, KnownFacts, ModelAt},
        presets,
        settings::Settings,
    },
    ir::{model_facts::ModelFacts, op::Dialect},
    routing::learned::{LearnedRepair, LearnedRepairs},
};

/// What is known of one target.
pub(super) struct TargetFacts {
    target: String,
    dialect: Dialect,
    known: KnownFacts,
    /// What the upstream refused.
    learned: Vec<LearnedRepair>,
}

impl TargetFacts {
    /// The facts without their sources.
    pub(super) fn facts(&self) -> &ModelFacts {
        &self.known.facts
    }
}

/// Looks up the targets that name an upstream (`upstream:model`).
pub(super) fn of_targets(
    settings: &Settings,
    learned: &LearnedRepairs,
    targets: &[String],
) -> Vec<TargetFacts> {
    targets.iter().filter_map(|target| of_target(settings, learned, target)).collect()
}

fn of_target(settings: &Settings, learned: &LearnedRepairs, target: &str) -> Option<TargetFacts> {
    // Priority and weight may follow the name.
    let target = target.split(' ').next()?;
    let (name, model) = target.split_once(':')?;
    let configured = settings.upstreams.iter().find(|upstream| *upstream.name == *name);
    let (dialect, provider) = match configured {
        Some(upstream) => (upstream.endpoints.first()?.dialect, upstream.preset.as_deref()),
        // An upstream that was found without a row in the file has the name of its preset.
        None => {
            let preset = presets::find(name)?;
            (preset.endpoints.first()?.dialect, Some(&*preset.name))
        }
    };
    let at = ModelAt { upstream: name, provider, dialect, model };
    let learned_row = learned.facts_row(name, dialect, model);
    let known = model_facts::look_up(settings, learned_row.as_ref(), at);
    let learned = learned.find(name, dialect, model);
    Some(TargetFacts { target: target.to_owned(), dialect, known, learned })
}

/// Returns the facts for scripts.
pub(super) fn to_json(all: &[TargetFacts]) -> Value {
    let one = |target: &TargetFacts| {
        let mut facts = Map::new();
        for (key, value, source) in rows(&target.known) {
            // Each value is written as TOML, which is JSON for the values of facts.
            let value = serde_json::from_str(&value).unwrap_or(Value::String(value));
            let stated = json!({
                "value": value,
                "origin": source.origin.name(),
                "source": source.page,
                "date": source.date,
                "match": source.patterns,
            });
            facts.insert(key.to_owned(), stated);
        }
        json!({
            "target": target.target,
            "dialect": target.dialect.name(),
            "facts": facts,
            "learned": target.learned,
        })
    };
    all.iter().map(one).collect()
}

/// Returns the facts as tables, one for each target.
pub(super) fn to_text(all: &[TargetFacts], styler: Styler) -> String {
    let mut out = String::new();
    for target in all {
        out.push_str(&format!("\n{} in the dialect {}\n", target.target, target.dialect));
        let mut table = TextTable::new(&["FACT", "VALUE", "ORIGIN", "SOURCE", "DATE"]);
        for (key, value, source) in rows(&target.known) {
            table.row(vec![
                key.into(),
                value.into(),
                TableCell::new(TextRole::Dim, source.origin.name()),
                TableCell::new(TextRole::Dim, &source.page),
                TableCell::new(TextRole::Dim, &source.date),
            ]);
        }
        if table.is_empty() {
            out.push_str("nothing is known; add [[model_facts]] to the config (docs/models.md)\n");
        } else {
            out.push_str(&table.render(styler));
        }
        for learned in &target.learned {
            let at = learned.at.to_string();
            out.push_str(&format!("learned {at}: it {}\n", learned.repair));
        }
    }
    out
}

fn rows(known: &KnownFacts) -> impl Iterator<Item = (&'static str, String, &FactSource)> {
    known.facts.to_toml_values().into_iter().filter_map(|(key, value)| {
        let source = known.sources.iter().find(|(name, _)| *name == key)?;
        Some((key, value, &*source.1))
    })
}
