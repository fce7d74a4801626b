//! How usage is grouped and measured: titles of the groups, their requests, their sizes.

use crate::{
    control::history::{GroupBy, Totals, UsageReport},
    tui::{app::App, strings::TextFn},
};

/// The title of the column with the names of the groups.
pub(super) fn group_title(by: GroupBy) -> TextFn {
    match by {
        GroupBy::Client => |t| &t.col.client,
        // The dashboard shows no shorter spans.
        GroupBy::Day | GroupBy::Hour | GroupBy::Minute => |t| &t.col.day,
        GroupBy::Key => |t| &t.col.key,
        GroupBy::Model => |t| &t.col.model,
        GroupBy::Project => |t| &t.col.project,
        GroupBy::Session => |t| &t.col.session,
        GroupBy::Upstream => |t| &t.col.upstream,
    }
}

/// The log filter that selects the requests summed in a row.
pub(in crate::tui::screens) fn log_filter(app: &App, name: &str) -> Option<String> {
    let by = app.usage.current_view()?.by;
    if name.is_empty() || name.contains(char::is_whitespace) {
        return None;
    }
    Some(match by {
        GroupBy::Client => format!("client:{name}"),
        GroupBy::Day | GroupBy::Hour | GroupBy::Minute => return None,
        GroupBy::Key => match name.split_once('/') {
            Some((upstream, key)) => format!("upstream:{upstream} key:{key}"),
            None => format!("upstream:{name}"),
        },
        GroupBy::Model => format!("model:{name}"),
        GroupBy::Project => format!("project:{name}"),
        GroupBy::Session => format!("session:{name}"),
        GroupBy::Upstream => format!("upstream:{name}"),
    })
}

/// The tokens of all kinds.
pub(super) fn total_tokens(sums: &Totals) -> u64 {
    sums.usage.input_total().saturating_add(sums.usage.output_total())
}

/// Whether a report compares costs; without any cost it compares tokens.
pub(super) fn compares_cost(view: &UsageReport) -> bool {
    !view.total.cost.is_zero()
}

/// The size of a group for comparison: its cost in billionths, or its tokens.
pub(super) fn weight(sums: &Totals, by_cost: bool) -> u64 {
    if by_cost { sums.cost.0.unsigned_abs() } else { total_tokens(sums) }
}
