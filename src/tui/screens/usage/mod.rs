//! The Usage screen: tokens and cost by group and by day.

mod budgets;
mod days;
mod grouping;
mod totals;

use std::cmp::Reverse;

use ratatui::layout::Rect;

pub(super) use self::grouping::log_filter;
use self::{
    days::{CHART_HEIGHT, draw_days, has_bars},
    grouping::{compares_cost, group_title, total_tokens, weight},
    totals::draw_totals,
};
use crate::{
    control::history::{GroupBy, RateRow, Totals, TotalsRow, UsageReport},
    tui::{
        app::{App, RowId},
        format::{self, FrameContext, UNKNOWN},
        screen::Screen,
        screens::{
            cells,
            list::{self, List, ListColumn},
        },
        strings::{TextFn, fill},
        theme::ThemeRole,
        widgets::{
            canvas::{Canvas, StyledSpan, span},
            gauge,
        },
    },
};

/// Width of the bars of the last half hour: two minutes each.
const RECENT_BARS: u16 = 15;
/// Maximum width of a row's bar.
const MAX_SHARE_WIDTH: usize = 24;

pub(super) struct UsageList;

type Column<'a> = ListColumn<'a, UsageList>;

/// A row and its size relative to the largest row.
pub(super) struct UsageRow<'a> {
    row: &'a TotalsRow,
    /// `None` if there was no traffic in the last half hour.
    rate: Option<&'a RateRow>,
    by: GroupBy,
    /// Thousandths of the largest row.
    share_permille: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum UsageColumn {
    Name,
    Requests,
    Rpm,
    Tpm,
    Recent,
    Failed,
    Input,
    Cached,
    Output,
    Reasoning,
    Cost,
    Share,
}

impl List for UsageList {
    type Column = UsageColumn;
    type Row<'a> = UsageRow<'a>;

    const DEFAULT_ORDER: (TextFn, Option<UsageColumn>) =
        (|t| &t.order.cost, Some(UsageColumn::Cost));

    fn columns<'a>(app: &App) -> Vec<Column<'a>> {
        use UsageColumn as Id;
        vec![
            Column::left(Id::Name, group_title(app.usage.by), 16..=44).cell(name_cell).sortable(
                |t| &t.order.name,
                |rows| {
                    rows.sort_by(|a, b| a.row.name.cmp(&b.row.name));
                },
            ),
            Column::right(Id::Requests, |t| &t.col.requests, 5..=7)
                .cell(|part, _, _| cells::number(part.row.totals.requests))
                .hidden(9)
                .sortable(
                    |t| &t.order.requests,
                    |rows| {
                        rows.sort_by_key(|part| Reverse(part.row.totals.requests));
                    },
                ),
            Column::right(Id::Rpm, |t| &t.col.rate, 7..=7)
                .cell(|part, _, _| cells::number(part.rate.map_or(0, RateRow::requests_per_minute)))
                .hidden(3),
            Column::right(Id::Tpm, |t| &t.col.token_rate, 7..=7)
                .cell(|part, _, _| cells::number(part.rate.map_or(0, RateRow::tokens_per_minute)))
                .hidden(2),
            Column::left(Id::Recent, |t| &t.col.half_hour, RECENT_BARS..=RECENT_BARS)
                .cell(recent_cell)
                .hidden(1),
            Column::right(Id::Failed, |t| &t.col.failed, 6..=7)
                .cell(|part, _, _| failed_cell(&part.row.totals))
                .hidden(4),
            Column::right(Id::Input, |t| &t.col.input, 6..=8)
                .cell(|part, _, _| cells::number(part.row.totals.usage.input_total()))
                .hidden(8)
                .sortable(
                    |t| &t.order.tokens,
                    |rows| {
                        rows.sort_by_key(|part| Reverse(total_tokens(&part.row.totals)));
                    },
                ),
            Column::right(Id::Cached, |t| &t.col.cached, 10..=12)
                .cell(|part, _, _| cached_cell(part))
                .hidden(6),
            Column::right(Id::Output, |t| &t.col.output, 6..=8)
                .cell(|part, _, _| cells::number(part.row.totals.usage.output_total()))
                .hidden(10),
            Column::right(Id::Reasoning, |t| &t.col.reasoning, 6..=8)
                .cell(|part, _, _| cells::number(part.row.totals.usage.reasoning))
                .hidden(5),
            Column::right(Id::Cost, |t| &t.col.cost, 8..=10).cell(|part, _, _| {
                cells::optional(Some(part.row.totals.displayed_cost().to_string()))
            }),
            Column::left(Id::Share, |t| &t.col.share, 10..=24)
                .cell(|part, _, max_width| {
                    let max_width = max_width.min(MAX_SHARE_WIDTH);
                    vec![span(gauge::bar(part.share_permille, 1_000, max_width), ThemeRole::Accent)]
                })
                .hidden(7),
        ]
    }

    /// In the order of the ledger, by cost; days newest first.
    fn rows(app: &App) -> Vec<UsageRow<'_>> {
        let Some(view) = app.usage.current_view() else { return Vec::new() };
        let filter = &app.list_state_of(Screen::Usage).filter;
        let by_cost = compares_cost(view);
        let sizes = view.rows.iter().map(|row| weight(&row.totals, by_cost));
        let max_size = sizes.max().unwrap_or(0).max(1);
        let matching = view.rows.iter().filter(|row| filter.matches_names(&[&row.name]));
        let mut rows: Vec<_> = matching
            .map(|row| {
                let size = u128::from(weight(&row.totals, by_cost)) * 1_000;
                let share_permille = size.div_ceil(u128::from(max_size)) as u64;
                let rate = view.rates.iter().find(|rate| rate.name == row.name);
                UsageRow { row, rate, by: view.by, share_permille }
            })
            .collect();
        if view.by.is_time() {
            rows.reverse();
        }
        rows
    }

    fn id(part: &UsageRow<'_>) -> RowId {
        RowId::Name(part.row.name.clone())
    }

    fn empty_text(app: &App, now: FrameContext) -> String {
        let text = &now.text.usage;
        let demo = app.usage.current_view().map_or(0, |view| view.demo.requests);
        let empty = match demo {
            0 => text.empty.clone(),
            n => format!("{} {}", text.empty, fill(&text.demo, &[("n", &format::count(n))])),
        };
        list::empty_text(app, &empty, &text.no_match)
    }
}

/// The number of lines above the table: totals, budgets, and daily bars if they fit.
pub(super) fn head_height(app: &App, body: Rect) -> u16 {
    let above = budgets::line_count(app, body.height);
    let has_bars = app.usage.current_view().is_some_and(has_bars);
    above
        + match body.height - above {
            ..6 => 1,
            20.. if has_bars => 2 + CHART_HEIGHT,
            _ => 2,
        }
}

pub(super) fn draw(app: &App, now: FrameContext, canvas: &mut Canvas<'_>, area: Rect) {
    let Some(snapshot) = &app.snapshot else { return };
    let text = &now.text.usage;
    let max_width = area.width.saturating_sub(4);
    if snapshot.ledger.is_none() {
        let why = app.usage.error.as_deref().unwrap_or(UNKNOWN);
        let message = fill(&text.no_ledger, &[("why", why)]);
        canvas.put(area.x + 3, area.y + 1, max_width, &message, ThemeRole::Dim);
        return;
    }
    draw_totals(app, now, canvas, area);
    let head = head_height(app, area).min(area.height);
    let budget_lines = budgets::line_count(app, area.height);
    budgets::draw(app, now, canvas, Rect { y: area.y + 1, height: budget_lines, ..area });
    let list = Rect { y: area.y + head, height: area.height - head, ..area };
    if head >= 2 {
        canvas.rule(area, list.y - 1);
    }
    let Some(view) = app.usage.current_view() else {
        let message = app.usage.error.as_deref().unwrap_or(&text.loading);
        canvas.put(area.x + 3, list.y + 1, max_width, message, ThemeRole::Dim);
        return;
    };
    if head > budget_lines + 2 {
        let chart = Rect { y: area.y + 1 + budget_lines, height: CHART_HEIGHT, ..area };
        draw_days(view, app.usage.days, now, canvas, chart);
    }
    draw_demo_note(app, view, now, canvas, list);
    list::draw::<UsageList>(app, now, canvas, list);
}

/// Mentions under the rows that requests to the built-in upstream are not among them.
fn draw_demo_note(
    app: &App,
    view: &UsageReport,
    now: FrameContext,
    canvas: &mut Canvas<'_>,
    list: Rect,
) {
    let rows = UsageList::rows(app).len().saturating_sub(app.list_state().offset);
    let y = list.y.saturating_add(2).saturating_add(u16::try_from(rows).unwrap_or(u16::MAX));
    if view.demo.requests > 0 && rows > 0 && y < list.bottom() {
        let count = format::count(view.demo.requests);
        let message = fill(&now.text.usage.beside, &[("n", &count)]);
        canvas.put(list.x + 3, y, list.width.saturating_sub(4), &message, ThemeRole::Dim);
    }
}

fn name_cell(part: &UsageRow<'_>, now: FrameContext, max_width: usize) -> Vec<StyledSpan> {
    if part.row.name.is_empty() {
        return vec![span(now.text.usage.unnamed.clone(), ThemeRole::Dim)];
    }
    cells::name(&part.row.name, max_width)
}

/// Requests of the last half hour, two minutes per bar.
fn recent_cell(part: &UsageRow<'_>, _: FrameContext, _: usize) -> Vec<StyledSpan> {
    let Some(rate) = part.rate else { return cells::unknown() };
    let bars: Vec<u64> = rate.requests.chunks(2).map(|pair| pair.iter().sum()).collect();
    vec![span(gauge::bars(&bars), ThemeRole::Accent)]
}

fn failed_cell(sums: &Totals) -> Vec<StyledSpan> {
    let role = if sums.failed > 0 { ThemeRole::Warn } else { ThemeRole::Dim };
    vec![span(format::count(sums.failed), role)]
}

/// Tokens read from prompt caches and their share of the input. A session that no longer hits the
/// cache is highlighted: at least 5 requests and a share below 30 %.
fn cached_cell(part: &UsageRow<'_>) -> Vec<StyledSpan> {
    let (read, all) = (part.row.totals.usage.cache_read, part.row.totals.usage.input_total());
    if read == 0 {
        return cells::unknown();
    }
    let percent = (u128::from(read) * 100 / u128::from(all.max(1))) as u64;
    let poor = part.by == GroupBy::Session && part.row.totals.requests >= 5 && percent < 30;
    let role = if poor { ThemeRole::Warn } else { ThemeRole::Text };
    vec![span(format!("{} {percent:>3}%", format::count(read)), role)]
}
