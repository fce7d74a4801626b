//! Words why candidates are skipped.

use crate::{
    ir::{
        cost::Period,
        rate_limit::LimitKind,
        reason::{
            budget::{BudgetBlock, Holder},
            skip::{ConfiguredLimit, MissingCapability, ScopeKind, SkipReason},
        },
    },
    tui::{
        reason_words::ReasonWords,
        strings::{Texts, fill},
    },
};

impl ReasonWords for SkipReason {
    fn words(&self, texts: &Texts) -> String {
        let text = &texts.skip;
        match self {
            Self::AlreadyFailed => text.already_failed.clone(),
            Self::Cooling { rest, cause, scope, .. } => fill(
                &text.cooling,
                &[
                    ("scope", scope_name(*scope, texts)),
                    ("span", &rest.to_string()),
                    ("cause", &cause.words(texts)),
                ],
            ),
            Self::Disabled => text.disabled.clone(),
            Self::KeyMissing { secret } => secret.words(texts),
            Self::LowerTier => text.lower_tier.clone(),
            Self::MissingCapability { missing } => missing.words(texts),
            Self::NearLimit { limit, remaining, rest } => fill(
                &text.near_limit,
                &[
                    ("n", &remaining.to_string()),
                    ("unit", limit_unit(*limit, texts)),
                    ("span", &rest.to_string()),
                ],
            ),
            Self::NotPicked => text.not_picked.clone(),
            Self::OtherDialect { dialect } => {
                fill(&text.other_dialect, &[("dialect", &dialect.to_string())])
            }
            Self::OtherRegion => text.other_region.clone(),
            Self::OverBudget { block } => block.words(texts),
            Self::OverLimit { limit } => {
                fill(&text.over_limit, &[("limit", limit_name(*limit, texts))])
            }
            Self::Probing => text.probing.clone(),
            Self::Rejected { cause } => fill(&text.rejected, &[("cause", &cause.words(texts))]),
            Self::WaitingForKey => text.waiting_for_key.clone(),
        }
    }
}

impl ReasonWords for BudgetBlock {
    fn words(&self, texts: &Texts) -> String {
        let text = &texts.budget;
        let holder = self.holder().words(texts);
        let mut words = match self {
            Self::Reserved { limit, per, .. } => fill(
                &text.reserved,
                &[
                    ("limit", &limit.format_short()),
                    ("period", per_period(*per, texts)),
                    ("holder", &holder),
                ],
            ),
            Self::Spent { spent, limit, per, .. } => fill(
                &text.spent,
                &[
                    ("holder", &holder),
                    ("spent", &spent.format_short()),
                    ("limit", &limit.format_short()),
                    ("period", per_period(*per, texts)),
                ],
            ),
            Self::Unpriced { model, .. } => {
                fill(&text.unpriced, &[("model", model), ("holder", &holder)])
            }
        };
        if let Some(span) = self.again_in() {
            words += &fill(&text.again, &[("span", &span.to_string())]);
        }
        words
    }
}

impl ReasonWords for Holder {
    fn words(&self, texts: &Texts) -> String {
        let text = &texts.budget;
        match self {
            Self::All => text.all.clone(),
            Self::Key(name) => fill(&text.key, &[("name", name)]),
            Self::Project(name) => fill(&text.project, &[("name", name)]),
            Self::Upstream(name) => fill(&text.upstream, &[("name", name)]),
        }
    }
}

impl ReasonWords for MissingCapability {
    fn words(&self, texts: &Texts) -> String {
        let text = &texts.capability;
        match self {
            Self::Context { required, limit } => {
                fill(&text.context, &[("n", &required.to_string()), ("limit", &limit.to_string())])
            }
            Self::Schema => text.schema.clone(),
            Self::Tools => text.tools.clone(),
            Self::Vision => text.vision.clone(),
        }
    }
}

/// The period after a sum: `a day`.
fn per_period(period: Period, texts: &Texts) -> &str {
    let text = &texts.usage;
    match period {
        Period::Day => &text.a_day,
        Period::Week => &text.a_week,
        Period::Month => &text.a_month,
        Period::Total => &text.in_total,
    }
}

fn scope_name(scope: ScopeKind, texts: &Texts) -> &str {
    let text = &texts.scope;
    match scope {
        ScopeKind::Account => &text.account,
        ScopeKind::Key => &text.key,
        ScopeKind::KeyModel => &text.key_model,
        ScopeKind::Upstream => &text.upstream,
    }
}

fn limit_unit(limit: LimitKind, texts: &Texts) -> &str {
    let text = &texts.limit;
    match limit {
        LimitKind::Requests => &text.requests,
        LimitKind::Tokens => &text.tokens,
        LimitKind::Input => &text.input,
        LimitKind::Output => &text.output,
    }
}

fn limit_name(limit: ConfiguredLimit, texts: &Texts) -> &str {
    let text = &texts.limit;
    match limit {
        ConfiguredLimit::ConcurrentRequests => &text.concurrent,
        ConfiguredLimit::ModelRequestsPerMinute => &text.model_requests,
        ConfiguredLimit::ModelTokensPerMinute => &text.model_tokens,
        ConfiguredLimit::RequestsPerMinute => &text.requests_per_minute,
        ConfiguredLimit::TokensPerMinute => &text.tokens_per_minute,
        ConfiguredLimit::UpstreamConcurrentRequests => &text.upstream_concurrent,
        ConfiguredLimit::UpstreamRequestsPerSecond => &text.upstream_per_second,
    }
}
