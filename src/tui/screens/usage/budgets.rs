//! The budget lines of the Usage screen: how much of each budget is spent.

use ratatui::layout::Rect;

use crate::{
    base::sanitize::{clean, display_width, truncate_middle},
    control::snapshot::{BudgetView, Period},
    tui::{
        app::App,
        format::{self, FrameContext},
        strings::fill,
        theme::ThemeRole,
        widgets::canvas::{Canvas, span},
    },
};

/// Upper bound for lines.
const MAX_LINES: u16 = 4;
/// Width of a full bar, in columns.
const BAR_WIDTH: u64 = 20;

/// The number of lines on a screen of this height.
pub(super) fn line_count(app: &App, height: u16) -> u16 {
    let budgets = app.snapshot.as_ref().map_or(0, |snapshot| snapshot.budgets.len());
    u16::try_from(budgets).unwrap_or(MAX_LINES).min(MAX_LINES).min(height.saturating_sub(6) / 3)
}

/// The fullest budgets, as many as fit.
fn fullest_budgets(app: &App, lines: u16) -> Vec<&BudgetView> {
    let Some(snapshot) = &app.snapshot else { return Vec::new() };
    let mut fullest: Vec<usize> = (0..snapshot.budgets.len()).collect();
    fullest.sort_by_key(|at| std::cmp::Reverse(snapshot.budgets[*at].percent));
    fullest.truncate(usize::from(lines));
    fullest.sort_unstable();
    fullest.into_iter().map(|at| &snapshot.budgets[at]).collect()
}

pub(super) fn draw(app: &App, now: FrameContext, canvas: &mut Canvas<'_>, area: Rect) {
    let text = &now.text.usage;
    let rows = fullest_budgets(app, area.height);
    let names: Vec<String> = rows.iter().map(|budget| holder_name(budget, now)).collect();
    let sums: Vec<String> = rows.iter().map(|budget| spent_text(budget, now)).collect();
    let wide = |texts: &[String]| texts.iter().map(|text| display_width(text)).max().unwrap_or(0);
    let (left, middle) = (wide(&names).min(usize::from(area.width) / 3), wide(&sums));
    for ((budget, (name, sum)), y) in rows.iter().zip(names.iter().zip(&sums)).zip(area.y..) {
        let role = match budget.percent {
            100.. => ThemeRole::Error,
            80.. => ThemeRole::Warn,
            _ => ThemeRole::Accent,
        };
        let name = truncate_middle(name, left).into_owned();
        let pad = |text: &str, to: usize| " ".repeat((to + 2).saturating_sub(display_width(text)));
        let mut spans = vec![
            span(format!("{name}{}", pad(&name, left)), ThemeRole::Text),
            span(format!("{sum}{}", pad(sum, middle)), ThemeRole::Text),
            span(format!("{:>4} %  ", budget.percent.min(9_999)), role),
        ];
        let max_width = usize::from(area.width).saturating_sub(left + middle);
        if max_width > 34 {
            spans.extend(
                bar(budget.percent)
                    .map(|(piece, full)| span(piece, if full { role } else { ThemeRole::Dim })),
            );
        }
        if max_width > 50 {
            let until = budget
                .until
                .map(|until| fill(&text.begins, &[("span", &format::remaining(now.until(until)))]));
            spans.push(span(format!("  {}", until.unwrap_or_default()), ThemeRole::Dim));
        }
        if budget.unpriced > 0 {
            let unpriced = fill(&text.unpriced, &[("n", &format::count(budget.unpriced))]);
            spans.push(span(format!("  {unpriced}"), ThemeRole::Warn));
        }
        canvas.spans(area.x + 1, y, area.width.saturating_sub(2), &spans);
    }
}

fn holder_name(budget: &BudgetView, now: FrameContext) -> String {
    let text = &now.text.usage;
    match budget.holder.split_once(' ') {
        Some(("project", name)) => fill(&text.of_project, &[("name", &clean(name))]),
        Some((_, name)) => clean(name).into_owned(),
        None => text.of_all.clone(),
    }
}

fn spent_text(budget: &BudgetView, now: FrameContext) -> String {
    let text = &now.text.usage;
    let per = match budget.per {
        Period::Day => &text.a_day,
        Period::Week => &text.a_week,
        Period::Month => &text.a_month,
        Period::Total => &text.in_total,
    };
    fill(
        &text.spent,
        &[
            ("spent", &budget.spent.format_short()),
            ("usd", &budget.usd.format_short()),
            ("per", per),
        ],
    )
}

/// The filled and empty parts of the bar, with marks at 80 % and 100 %.
fn bar(percent: u64) -> [(String, bool); 2] {
    let full = (percent.min(100) * BAR_WIDTH).div_ceil(100);
    let rest = (full..BAR_WIDTH)
        .map(|at| if at == BAR_WIDTH * 4 / 5 { '│' } else { '░' })
        .chain(['│'])
        .collect();
    [("█".repeat(usize::try_from(full).unwrap_or(0)), true), (rest, false)]
}
