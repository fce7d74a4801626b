//! Settings as the program uses them: complete, checked, with ids for names.

use std::{collections::BTreeMap, sync::Arc};

pub use super::{
    choices::{
        AdaptiveMix, Affinity, AlertEvent, AlertFormat, BodyStorage, LossPolicy, Origin, Period,
        RuleAction, RuleScope, Strategy, UnpricedPolicy,
    },
    ids::{KeyId, UpstreamId},
    schema::{
        alert_receiver::AlertReceiver,
        alerts::{AlertSettings, OtlpSettings, OutboundUrl},
        budget::Budget,
        connection::{HealthCheck, ProxySetting},
        endpoint::{Auth, DialectEndpoint},
        facts_row::FactsRow,
        general::{
            Cooldown, DiscoverySettings, ListenAddresses, LogSettings, RetrySettings,
            RoutingSettings, ServerSettings, StatusSet, Timeouts, TranslationSettings, TuiSettings,
        },
        keyless::KeylessListener,
        ledger::LedgerSettings,
        mcp::{McpAuth, McpKind, McpServer},
        model::{Alias, Hedge, HedgeDelay, LogicalModel},
        patch::Patch,
        price::{ModelPrice, PriceCondition, PriceRow},
        project::{Project, Subnet},
        rules::{TextMatch, UpstreamRule},
        targets::ModelTarget,
        upstream::Upstream,
        upstream_key::{KeyLimit, UpstreamKey},
    },
};

/// The complete config, with defaults filled in.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    pub server: ServerSettings,
    /// Listeners for clients that cannot send a credential.
    pub keyless: Vec<KeylessListener>,
    pub discover: DiscoverySettings,
    pub log: LogSettings,
    pub timeouts: Timeouts,
    pub retry: RetrySettings,
    pub cooldown: Cooldown,
    pub routing: RoutingSettings,
    pub translation: TranslationSettings,
    pub upstreams: Vec<Arc<Upstream>>,
    pub models: Vec<Arc<LogicalModel>>,
    /// In file order. Patterns are tried in this order; exact names take precedence.
    pub aliases: Vec<Alias>,
    /// `[[mcp]]`, in file order.
    pub mcp: Vec<Arc<McpServer>>,
    /// `[[model_facts]]`, in file order.
    pub model_facts: Vec<Arc<FactsRow>>,
    /// Always includes project `default`, unless the file replaces it.
    pub projects: Vec<Arc<Project>>,
    /// Projects of the file.
    pub configured_projects: usize,
    /// `[budget]`: of all projects together.
    pub budget: Vec<Budget>,
    pub tui: TuiSettings,
    pub ledger: LedgerSettings,
    pub alerts: AlertSettings,
    /// `[[alert_receiver]]`, in file order.
    pub alert_receivers: Vec<Arc<AlertReceiver>>,
    pub otlp: OtlpSettings,
    /// `[prices]`, in file order.
    pub prices: Vec<PriceRow>,
    /// `[rates]`: billionths of a dollar for one unit of a currency.
    pub rates: BTreeMap<String, i64>,
}
