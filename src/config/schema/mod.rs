//! The tables of the config, each defined once by `config!`, and the readers of what a table form
//! cannot say.

pub(super) mod alert_receiver;
pub(super) mod alerts;
pub(super) mod budget;
pub(super) mod connection;
pub(super) mod endpoint;
pub(super) mod endpoints;
pub(super) mod facts_row;
pub(super) mod general;
pub(super) mod keyless;
pub mod known_address;
pub(super) mod ledger;
pub(super) mod mcp;
pub(super) mod model;
pub(super) mod model_facts;
pub(super) mod names;
pub(super) mod patch;
pub(super) mod path_base;
pub(super) mod price;
pub(super) mod project;
pub(super) mod rules;
pub(super) mod targets;
pub(super) mod upstream;
pub(super) mod upstream_key;

use std::time::Duration;

/// Default priority of upstreams in the file, and of keys.
pub(super) const FILE_PRIORITY: u32 = 10;
/// Priority of discovered upstreams.
pub(super) const DISCOVERED_PRIORITY: u32 = 50;

const MAX_COUNT: u32 = 1_000_000;
const MS: Duration = Duration::from_millis(1);
const HOUR: Duration = seconds(3_600);
const DAY: Duration = seconds(86_400);
const MONTH: Duration = seconds(30 * 86_400);

const fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}
