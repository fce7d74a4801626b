//! The filter of `aiproxy model list`, and what the targets of a name have in common.

use clap::Args;
use serde::Serialize;

use crate::{
    base::pattern::Pattern,
    cli::{
        error::CliError,
        model::catalog::{ModelCatalog, split_target},
        model_facts::TargetFacts,
        upstream::lookup,
    },
    control::snapshot::ModelView,
    ir::model_facts::Modality,
};

/// Which models `model list` shows. A fact that is not known matches no option.
#[derive(Clone, Debug, Default, Args)]
pub struct ModelFilter {
    /// Only names that contain this text or match this pattern
    #[arg(value_name = "NAME")]
    text: Option<String>,
    /// Only models of this upstream
    #[arg(long, value_name = "NAME")]
    upstream: Option<String>,
    /// Only models with room for this many tokens, as in 200k or 1m
    #[arg(long, value_name = "TOKENS", value_parser = parse_tokens)]
    context: Option<u64>,
    /// Only models that read images
    #[arg(long)]
    vision: bool,
    /// Only models that call tools
    #[arg(long)]
    tools: bool,
    /// Only models that reason
    #[arg(long)]
    reasoning: bool,
    /// Only models at or below this price for a million input tokens, in dollars
    #[arg(long, value_name = "USD", value_parser = parse_dollars)]
    max_price: Option<f64>,
}

fn parse_tokens(text: &str) -> Result<u64, String> {
    let lower = text.to_ascii_lowercase().replace('_', "");
    let (number, scale) = match (lower.strip_suffix('k'), lower.strip_suffix('m')) {
        (Some(number), _) => (number, 1_000.0),
        (_, Some(number)) => (number, 1_000_000.0),
        _ => (lower.as_str(), 1.0),
    };
    let tokens = number.parse::<f64>().ok().filter(|n| n.is_finite() && *n >= 0.0);
    tokens.map(|n| (n * scale) as u64).ok_or_else(|| "expected a number, 200k or 1m".to_owned())
}

fn parse_dollars(text: &str) -> Result<f64, String> {
    let number = text.strip_prefix('$').unwrap_or(text).parse::<f64>().ok();
    number
        .filter(|n| n.is_finite() && *n >= 0.0)
        .ok_or_else(|| "expected an amount of dollars, as in 1.25".to_owned())
}

/// What all targets of a name can do; `None` if that is not known of one of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct CommonFacts {
    /// Tokens of request and response together: the smallest of the targets.
    pub(super) context: Option<u64>,
    pub(super) max_output: Option<u64>,
    pub(super) vision: Option<bool>,
    pub(super) tools: Option<bool>,
    pub(super) reasoning: Option<bool>,
}

impl CommonFacts {
    /// Joins what is known of some targets; `all` is the number of targets.
    pub(super) fn join(known: &[TargetFacts], all: usize) -> Self {
        // A target without an upstream has no facts.
        if known.is_empty() || known.len() < all {
            return Self::default();
        }
        let facts = || known.iter().map(TargetFacts::facts);
        let every = |can: fn(&crate::ir::model_facts::ModelFacts) -> Option<bool>| {
            facts().map(can).try_fold(true, |every, can| can.map(|can| every && can))
        };
        Self {
            context: facts().map(|facts| facts.context).min().flatten(),
            max_output: facts().map(|facts| facts.max_output).min().flatten(),
            vision: every(|facts| facts.reads(Modality::Image)),
            tools: every(|facts| facts.tools),
            reasoning: every(|facts| facts.thinks()),
        }
    }
}

/// A model that the filter lets through.
pub(super) struct ListedModel<'a> {
    pub(super) view: &'a ModelView,
    pub(super) facts: CommonFacts,
}

impl ModelFilter {
    /// Returns whether every model matches.
    pub(super) fn is_empty(&self) -> bool {
        self.text.is_none() && self.upstream.is_none() && !self.needs_facts()
    }

    fn needs_facts(&self) -> bool {
        self.context.is_some()
            || self.vision
            || self.tools
            || self.reasoning
            || self.max_price.is_some()
    }

    /// Returns the models that match.
    ///
    /// # Errors
    ///
    /// The pattern is broken, or there is no such upstream.
    pub(super) fn apply<'a>(
        &self,
        catalog: &'a ModelCatalog,
    ) -> Result<Vec<ListedModel<'a>>, CliError> {
        let pattern = self
            .text
            .as_deref()
            .map(Pattern::parse)
            .transpose()
            .map_err(|error| CliError::usage(format!("invalid pattern: {error}")))?;
        if let Some(name) = &self.upstream {
            let running = catalog.snapshot.iter().flat_map(|s| &s.upstreams).map(|u| &*u.name);
            let configured = catalog.settings.upstreams.iter().map(|u| &*u.name);
            lookup::ensure_known(name, configured.chain(running))?;
        }
        let matching = catalog.models.iter().filter(|view| {
            pattern.as_ref().is_none_or(|pattern| match pattern {
                Pattern::Exact(text) => view.name.to_lowercase().contains(&text.to_lowercase()),
                pattern => pattern.matches(&view.name),
            })
        });
        Ok(matching.filter_map(|view| self.check(catalog, view)).collect())
    }

    /// With an upstream, only the targets there count.
    fn check<'a>(&self, catalog: &ModelCatalog, view: &'a ModelView) -> Option<ListedModel<'a>> {
        let is_there = |target: &&String| {
            self.upstream.as_deref().is_none_or(|name| {
                split_target(target).is_some_and(|(upstream, _)| upstream == name)
            })
        };
        let targets: Vec<String> = view.targets.iter().filter(is_there).cloned().collect();
        if self.upstream.is_some() && targets.is_empty() {
            return None;
        }
        let facts = CommonFacts::join(&catalog.facts(&targets), targets.len());
        let price_of = |target: &String| catalog.input_dollars(target);
        let is_cheap = self.max_price.is_none_or(|max| {
            !targets.is_empty()
                && targets.iter().all(|target| price_of(target).is_some_and(|price| price <= max))
        });
        let is_match = is_cheap
            && self.context.is_none_or(|min| facts.context.is_some_and(|context| context >= min))
            && (!self.vision || facts.vision == Some(true))
            && (!self.tools || facts.tools == Some(true))
            && (!self.reasoning || facts.reasoning == Some(true));
        is_match.then_some(ListedModel { view, facts })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_with_their_units() {
        assert_eq!(parse_tokens("200k"), Ok(200_000));
        assert_eq!(parse_tokens("1M"), Ok(1_000_000));
        assert_eq!(parse_tokens("1.5m"), Ok(1_500_000));
        assert_eq!(parse_tokens("65_536"), Ok(65_536));
        assert!(parse_tokens("big").is_err() && parse_tokens("-1").is_err());
        assert_eq!(parse_dollars("$1.25"), Ok(1.25));
        assert!(parse_dollars("NaN").is_err() && parse_dollars("-1").is_err());
    }

    #[test]
    fn targets_without_facts_have_unknown_values() {
        assert_eq!(CommonFacts::join(&[], 0), CommonFacts::default());
        assert_eq!(CommonFacts::join(&[], 2), CommonFacts::default());
        assert!(ModelFilter::default().is_empty());
    }
}
