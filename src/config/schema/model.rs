//! `[[model]]` and `[aliases]`: names for clients.

use std::{sync::Arc, time::Duration};

use serde_json::json;
use toml_edit::{Array, InlineTable, Value};

use super::{
    MONTH,
    general::{Timeouts, describe_timeouts},
    names::read_row_name,
    seconds,
    targets::{ModelTarget, TARGET, UpstreamNames, describe_targets, read_targets},
};
use crate::{
    base::{pattern::Pattern, units},
    config::{
        choices::{Affinity, Strategy},
        kinds::{
            Flag, KindDescription, Maybe, Number, Shared, TEXT, TimeSpan, ValueKind, Words, count,
        },
        problem::Report,
        reader::{self, Located, Node, TableReader, ValueError, text, truncate},
        table::{ConfigTable, Nested, Written, config, inline_table},
    },
};

config! {
    /// A name for clients, served by targets that the proxy chooses between.
    #[derive(Clone, Debug)]
    pub struct LogicalModel in "model" {
        /// Instead of routing.strategy
        strategy: Strategy = Strategy::Priority, Words(Strategy::ALL), inherited;
        /// Instead of routing.sticky
        sticky: Option<Affinity> = None, Maybe(Words(Affinity::ALL));
        /// Instead of routing.sticky_ttl
        sticky_ttl: Option<Duration> = None, Maybe(TimeSpan(seconds(1), MONTH));
        /// Send the request to a second target if the first one is slow to answer
        hedge: Option<Arc<Hedge>> = None, Maybe(Shared(Nested::new()));
        /// Continue a stream that breaks off at another target, from the content sent so far
        rescue: bool = false, Flag, omitted;
    }
    described {
        /// Name that clients ask for; may be a pattern
        "name": TEXT.describe(), required;
        /// Targets of the name: "UPSTREAM:MODEL", "MODEL", or tables
        "targets": describe_targets(), required;
        /// Instead of [timeouts]; first_byte, idle and total have an effect
        "timeouts": describe_timeouts();
    }
    derived {
        name: Pattern = Pattern::Exact(String::new());
        targets: Vec<ModelTarget> = Vec::new();
        first_byte: Option<Duration> = None;
        idle: Option<Duration> = None;
        total: Option<Duration> = None;
    }
}

config! {
    /// When a second target is tried in parallel to one that has not sent content yet.
    #[derive(Clone, Debug, PartialEq)]
    pub struct Hedge in "model.hedge" {
        /// How long the first target has: a duration, or "p95" of its recent latencies
        after: HedgeDelay = HedgeDelay::P95, HedgeDelayKind;
        /// Maximum share of the model's requests that are hedged, 0 to 1
        max_share: f64 = 0.05, Number(0.0, 1.0);
        /// Requests with a larger estimate are not hedged
        max_tokens: u64 = 20_000, count(1, u32::MAX);
    }
    derived {
        /// The logical model that it belongs to; the share is counted per model.
        model: Arc<str> = Arc::default();
    }
}

/// How long the first target has before the second is tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HedgeDelay {
    /// The 95th percentile of the target's recent latencies.
    #[default]
    P95,
    Fixed(Duration),
}

struct HedgeDelayKind;

const HEDGE_DELAY: TimeSpan = TimeSpan(Duration::from_millis(10), seconds(3_600));

impl ValueKind for HedgeDelayKind {
    type Value = HedgeDelay;

    fn read(&self, path: &str, node: &Node<'_>, report: &mut Report) -> Option<HedgeDelay> {
        if node.get_ref().as_str() == Some("p95") {
            return Some(HedgeDelay::P95);
        }
        let found = reader::read_value(path, node, report, &|value| {
            reader::duration(HEDGE_DELAY.0, HEDGE_DELAY.1)(value).map_err(|fault| {
                ValueError::with_help(fault.title, "\"p95\", or a duration such as \"2s\"")
            })
        });
        found.map(|at| HedgeDelay::Fixed(at.value))
    }

    fn write(&self, delay: &HedgeDelay) -> Option<Value> {
        Some(match delay {
            HedgeDelay::P95 => "p95".into(),
            HedgeDelay::Fixed(span) => units::print_duration(*span).into(),
        })
    }

    fn describe(&self) -> KindDescription {
        let schema = json!({ "anyOf": [{ "const": "p95" }, HEDGE_DELAY.describe().schema] });
        KindDescription::text("`\"p95\"` or duration", schema)
    }
}

/// Reads a row; `None` if it has no usable name.
pub(in crate::config) fn read_model(
    mut row: TableReader<'_>,
    strategy: Strategy,
    upstreams: &UpstreamNames,
    report: &mut Report,
) -> Option<Written<LogicalModel>> {
    let name = read_row_name(&mut row, "model", report, |value| {
        let written = text(value)?;
        parse_pattern(&written).map(|_| written)
    });
    let targets = read_targets(&mut row, upstreams, report);
    let timeouts = row.child("timeouts", report);
    let base = LogicalModel { strategy, targets, ..LogicalModel::default() };
    let mut model = LogicalModel::read_keys(&mut row, base, report);
    if let Some(mut table) = timeouts {
        let written = Timeouts::read_keys(&mut table, Timeouts::default(), report);
        let spans = table.finish(report);
        let own = |key: &str, value: Duration| spans.get(key).map(|_| value);
        model.first_byte = own("first_byte", written.first_byte);
        model.idle = own("idle", written.idle);
        model.total = own("total", written.total);
    }
    let spans = row.finish(report);
    let name = name?.value;
    if let Some(hedge) = &mut model.hedge {
        Arc::make_mut(hedge).model = name.as_str().into();
    }
    model.name = parse_pattern(&name).ok()?;
    Some(Written { value: model, spans })
}

/// Writes a row for `config show`.
pub(in crate::config) fn write_model(model: &LogicalModel) -> Vec<(&'static str, Value)> {
    let targets: Array = model.targets.iter().map(inline_table).collect();
    let mut keys = vec![("name", model.name.text().into()), ("targets", targets.into())];
    keys.extend(model.written_keys());
    let each = [("first_byte", model.first_byte), ("idle", model.idle), ("total", model.total)];
    let each = each.into_iter().filter_map(|(name, span)| Some((name, span?)));
    let timeouts: InlineTable =
        each.map(|(name, span)| (name, units::print_duration(span))).collect();
    if !timeouts.is_empty() {
        keys.push(("timeouts", timeouts.into()));
    }
    keys
}

fn parse_pattern(written: &str) -> Result<Pattern, ValueError> {
    if written.is_empty() || written.starts_with('!') {
        return Err(ValueError::with_help(
            "a model's name is a name or a pattern",
            "exclusions (`!`) belong into `models` of an upstream",
        ));
    }
    Pattern::parse(written).map_err(|sentence| {
        ValueError::new(format!("`{}` is no regular expression: {sentence}", truncate(written)))
    })
}

/// Another name for a model.
#[derive(Clone, Debug)]
pub struct Alias {
    pub name: Pattern,
    /// A name, `upstream:model`, or a glob that means its newest match.
    pub target: Arc<str>,
}

/// Reads `[aliases]`. Returns each alias with the position of its name.
pub(in crate::config) fn read_aliases(
    mut table: TableReader<'_>,
    upstreams: &UpstreamNames,
    report: &mut Report,
) -> Vec<Located<Alias>> {
    let mut out = Vec::new();
    for (name, node) in table.remaining() {
        let path = table.key_path(&name.value);
        let target = TARGET.read(&path, node, report);
        match (parse_pattern(&name.value), target) {
            (Ok(pattern), Some(target)) => {
                let path = format!("aliases.{}", name.value);
                upstreams.check_target(&target, &node.span(), &path, report);
                out.push(Located::new(Alias { name: pattern, target }, name.span));
            }
            (Err(fault), _) => {
                report.error(&name.span, format!("`{path}`: {}", fault.title), fault.help);
            }
            (Ok(_), None) => {}
        }
    }
    out
}
