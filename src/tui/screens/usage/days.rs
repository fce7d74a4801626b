//! The daily bars of the Usage screen.

use ratatui::layout::Rect;

use crate::{
    control::history::{Totals, UsageReport},
    tui::{
        format::{self, FrameContext},
        screens::usage::grouping::{compares_cost, total_tokens, weight},
        theme::ThemeRole,
        widgets::{canvas::Canvas, gauge},
    },
};

/// Height of the bars.
const BAR_HEIGHT: u16 = 5;
/// Height of the chart: the title and the values, the bars, and the dates.
pub(super) const CHART_HEIGHT: u16 = BAR_HEIGHT + 2;
/// Width of the legend before the bars, and of a mark in it.
const LEGEND_WIDTH: u16 = 17;
const MARK_WIDTH: u16 = 15;
const MAX_DAY_WIDTH: u16 = 9;
const MAX_BAR_WIDTH: u16 = 5;

/// One day of the chart.
struct Day {
    month: i64,
    day: i64,
    size: u64,
    label: String,
}

/// Whether any day has a value to show.
pub(super) fn has_bars(view: &UsageReport) -> bool {
    let has_value = |sums: &Totals| !sums.cost.is_zero() || total_tokens(sums) > 0;
    view.days.iter().any(|day| has_value(&day.totals))
}

/// Draws one bar per day up to today.
pub(super) fn draw_days(
    view: &UsageReport,
    days: u32,
    now: FrameContext,
    canvas: &mut Canvas<'_>,
    area: Rect,
) {
    let text = &now.text.usage;
    let by_cost = compares_cost(view);
    let title = if by_cost { &text.by_cost } else { &text.by_tokens };
    canvas.put(area.x + 1, area.y, area.width, title, ThemeRole::Dim);
    for (mark, y) in text.estimated.split("  ").zip(area.y + 3..area.bottom()) {
        canvas.put(area.x + 1, y, MARK_WIDTH, mark, ThemeRole::Dim);
    }
    let days = list_days(view, days, by_cost, now);
    let max_size = days.iter().map(|day| day.size).max().unwrap_or(0).max(1);
    let left = area.x + LEGEND_WIDTH;
    let max_width = area.right().saturating_sub(left + 1);
    let each =
        (max_width / u16::try_from(days.len()).unwrap_or(u16::MAX).max(1)).clamp(1, MAX_DAY_WIDTH);
    let skip = days.len().saturating_sub(usize::from(max_width / each));
    for ((at, day), x) in days.iter().enumerate().skip(skip).zip((left..).step_by(each.into())) {
        let is_today = at + 1 == days.len();
        let bar = gauge::column(day.size, max_size, usize::from(BAR_HEIGHT));
        draw_day(day, &bar, is_today, canvas, Rect { x, width: each, ..area });
    }
}

/// The days of the period, at least seven, oldest first.
fn list_days(view: &UsageReport, days: u32, by_cost: bool, now: FrameContext) -> Vec<Day> {
    let today = now.day(now.at);
    (0..i64::from(days.max(7)))
        .rev()
        .map(|back| {
            let (year, month, day) = format::date(today - back);
            let name = format!("{year:04}-{month:02}-{day:02}");
            let sums = view.days.iter().find(|row| row.name == name).map(|row| &row.totals);
            let label = sums.map_or_else(String::new, |sums| match by_cost {
                true => sums.displayed_cost().to_string(),
                false => format::count(total_tokens(sums)),
            });
            Day { month, day, size: sums.map_or(0, |sums| weight(sums, by_cost)), label }
        })
        .collect()
}

/// Draws the bar with its date under it, and with its value above it if there is space.
fn draw_day(day: &Day, bar: &[char], is_today: bool, canvas: &mut Canvas<'_>, area: Rect) {
    let wide = area.width.saturating_sub(1).clamp(1, MAX_BAR_WIDTH);
    let base = area.y + BAR_HEIGHT;
    for (piece, y) in bar.iter().zip((area.y..=base).rev()) {
        canvas.put(area.x, y, wide, &piece.to_string().repeat(wide.into()), ThemeRole::Accent);
    }
    if area.width >= 7 && day.size > 0 {
        let top = base.saturating_sub(u16::try_from(bar.len()).unwrap_or(0));
        canvas.put(area.x, top, area.width, &day.label, ThemeRole::Text);
    }
    let date = match area.width {
        6.. => format!("{:02}-{:02}", day.month, day.day),
        3.. => format!("{:02}", day.day),
        _ => String::new(),
    };
    let role = if is_today { ThemeRole::Text } else { ThemeRole::Dim };
    canvas.put(area.x, base + 1, wide, &date, role);
}
