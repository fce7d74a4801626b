//! The Usage screen: tokens and cost by group and by day.

use ratatui::layout::Rect;

use super::{SortOrder, budgets, visible_window};
use crate::{
    base::sanitize::{clean, truncate_middle},
    control::history::{GroupBy, Totals, TotalsRow, UsageReport},
    tui::{
        app::{App, ListRow, RowId},
        format::{self, FrameContext, UNKNOWN},
        screen::Screen,
        status_bar::cost_today,
        strings::{Texts, fill},
        theme::ThemeRole,
        widgets::{
            canvas::{Canvas, StyledSpan, span, spans_width},
            gauge,
            table::{self, Column, TableRows},
        },
    },
};

pub(super) const ORDERS: [SortOrder; 4] = [
    SortOrder { label: |t| &t.order.cost, column: Some(7) },
    SortOrder { label: |t| &t.order.requests, column: Some(1) },
    SortOrder { label: |t| &t.order.tokens, column: Some(3) },
    SortOrder { label: |t| &t.order.name, column: Some(0) },
];

/// Height of the daily bars.
const CHART_HEIGHT: u16 = 5;
/// Maximum width of a row's bar.
const MAX_SHARE_WIDTH: usize = 24;

/// A row and its size relative to the largest row.
struct UsageRow<'a> {
    row: &'a TotalsRow,
    by: GroupBy,
    /// Thousandths of the largest row.
    share_permille: u64,
}

fn total_tokens(sums: &Totals) -> u64 {
    sums.usage.input_total().saturating_add(sums.usage.output_total())
}

fn visible(app: &App) -> Vec<&TotalsRow> {
    let Some(view) = app.usage.current_view() else { return Vec::new() };
    let list = app.list_state_of(Screen::Usage);
    let mut rows: Vec<&TotalsRow> =
        view.rows.iter().filter(|row| list.filter.matches_names(&[&row.name])).collect();
    match list.sort {
        1 => rows.sort_by_key(|row| std::cmp::Reverse(row.totals.requests)),
        2 => rows.sort_by_key(|row| std::cmp::Reverse(total_tokens(&row.totals))),
        3 => rows.sort_by(|a, b| a.name.cmp(&b.name)),
        _ if view.by == GroupBy::Day => rows.reverse(),
        _ => {}
    }
    rows
}

pub(super) fn list_rows(app: &App) -> Vec<ListRow> {
    visible(app)
        .into_iter()
        .map(|row| ListRow { id: RowId::Name(row.name.clone()), height: 1 })
        .collect()
}

/// The log filter that selects the requests summed in a row.
pub(super) fn log_filter(app: &App, name: &str) -> Option<String> {
    let by = app.usage.current_view()?.by;
    if name.is_empty() || name.contains(char::is_whitespace) {
        return None;
    }
    Some(match by {
        GroupBy::Client => format!("client:{name}"),
        GroupBy::Day => return None,
        GroupBy::Key => match name.split_once('/') {
            Some((upstream, key)) => format!("upstream:{upstream} key:{key}"),
            None => format!("upstream:{name}"),
        },
        GroupBy::Model => format!("model:{name}"),
        GroupBy::Project => format!("project:{name}"),
        GroupBy::Session => return None,
        GroupBy::Upstream => format!("upstream:{name}"),
    })
}

/// The number of lines above the table: totals, budgets, and daily bars if they fit.
pub(super) fn head_height(app: &App, body: Rect) -> u16 {
    let above = budgets::line_count(app, body.height);
    above
        + match body.height - above {
            ..6 => 1,
            6..20 => 2,
            _ if !has_bars(app) => 2,
            _ => 2 + CHART_HEIGHT + 2,
        }
}

/// Whether any day has a value to show.
fn has_bars(app: &App) -> bool {
    app.usage.current_view().is_some_and(|view| {
        view.days.iter().any(|day| !day.totals.cost.is_zero() || total_tokens(&day.totals) > 0)
    })
}

pub(super) fn draw(app: &App, now: FrameContext, canvas: &mut Canvas<'_>, area: Rect) {
    let Some(snapshot) = &app.snapshot else { return };
    let text = &now.text.usage;
    let max_width = area.width.saturating_sub(4);
    if snapshot.ledger.is_none() {
        let why = app.usage.error.clone().unwrap_or_else(|| UNKNOWN.to_owned());
        canvas.put(
            area.x + 3,
            area.y + 1,
            max_width,
            &fill(&text.no_ledger, &[("why", &why)]),
            ThemeRole::Dim,
        );
        return;
    }
    draw_totals(app, now, canvas, area);
    let head = head_height(app, area).min(area.height);
    let above = budgets::line_count(app, area.height);
    budgets::draw(app, now, canvas, Rect { y: area.y + 1, height: above, ..area });
    let list = Rect { y: area.y + head, height: area.height - head, ..area };
    if head >= 2 {
        canvas.rule(area, list.y - 1);
    }
    let Some(view) = app.usage.current_view() else {
        let message = app.usage.error.as_deref().unwrap_or(&text.loading);
        canvas.put(area.x + 3, list.y + 1, max_width, message, ThemeRole::Dim);
        return;
    };
    if head > above + 2 {
        draw_days(
            view,
            app.usage.days,
            now,
            canvas,
            Rect { y: area.y + 1 + above, height: CHART_HEIGHT + 2, ..area },
        );
    }
    let rows = visible(app);
    if rows.is_empty() {
        let message = match view.demo.requests {
            _ if !app.list_state().filter.is_empty() => text.no_match.clone(),
            0 => text.empty.clone(),
            n => format!("{} {}", text.empty, fill(&text.demo, &[("n", &format::count(n))])),
        };
        canvas.put(area.x + 3, list.y + 1, max_width, &message, ThemeRole::Dim);
        return;
    }
    let (visible_rows, selected, following) =
        visible_window(app, &rows, |row, id| RowId::Name(row.name.clone()) == *id);
    let by_cost = view.rows.iter().any(|row| !row.totals.cost.is_zero());
    let weight =
        |sums: &Totals| if by_cost { sums.cost.0.unsigned_abs() } else { total_tokens(sums) };
    let max_weight = view.rows.iter().map(|row| weight(&row.totals)).max().unwrap_or(0).max(1);
    let part = |row: &&TotalsRow| {
        (u128::from(weight(&row.totals)) * 1_000).div_ceil(u128::from(max_weight)) as u64
    };
    let visible_rows: Vec<UsageRow<'_>> = visible_rows
        .iter()
        .map(|row| UsageRow { row, by: view.by, share_permille: part(row) })
        .collect();
    let visible_rows: Vec<&UsageRow<'_>> = visible_rows.iter().collect();
    let sorted = ORDERS.get(app.list_state().sort).and_then(|order| order.column);
    let after_rows = list
        .y
        .saturating_add(2)
        .saturating_add(u16::try_from(visible_rows.len()).unwrap_or(u16::MAX));
    if view.demo.requests > 0 && after_rows < list.bottom() {
        let message = fill(&text.beside, &[("n", &format::count(view.demo.requests))]);
        canvas.put(area.x + 3, after_rows, max_width, &message, ThemeRole::Dim);
    }
    table::draw(
        canvas,
        list,
        &columns(view.by),
        &TableRows { rows: &visible_rows, selected, following, details: table::no_details, sorted },
        now,
    );
}

/// Today's totals, the time span and the grouping.
fn draw_totals(app: &App, now: FrameContext, canvas: &mut Canvas<'_>, area: Rect) {
    let text = &now.text.usage;
    let mut left = vec![span(format!("{} ", text.today), ThemeRole::Dim)];
    left.push(span(cost_today(app).unwrap_or_else(|| UNKNOWN.to_owned()), ThemeRole::Accent));
    let span_name = match app.usage.days {
        1 => text.one_day.clone(),
        n => fill(&text.days, &[("n", &n.to_string())]),
    };
    if let Some(view) = app.usage.current_view() {
        left.push(span(format!("   {span_name} "), ThemeRole::Dim));
        left.push(span(view.total.displayed_cost().to_string(), ThemeRole::Accent));
        let usage = &view.total.usage;
        left.push(span(
            format!(
                "  {} · {}→{}",
                fill(&text.requests, &[("n", &format::count(view.total.requests))]),
                format::count(usage.input_total()),
                format::count(usage.output_total())
            ),
            ThemeRole::Text,
        ));
        if usage.input_total() > 0 {
            let share = |tokens| format::share(tokens, usage.input_total().max(20));
            let message = if view.total.affinity_cache_read > 0 && area.width >= 110 {
                &now.text.top.cache_won
            } else {
                &now.text.top.cache
            };
            let message = fill(
                message,
                &[
                    ("share", &share(usage.cache_read)),
                    ("won", &share(view.total.affinity_cache_read)),
                ],
            );
            left.push(span(format!(" · {message}"), ThemeRole::Text));
        }
    } else {
        left.push(span(format!("   {span_name}"), ThemeRole::Dim));
    }
    let mut right = Vec::new();
    if area.width >= 110 {
        right.push(span(format!("{} ", text.by), ThemeRole::Dim));
        for by in GroupBy::ALL {
            let word = group_title(by)(now.text).to_lowercase();
            match by == app.usage.by {
                true => right.push(span(format!("[{word}] "), ThemeRole::Accent)),
                false => right.push(span(format!("{word} "), ThemeRole::Dim)),
            }
        }
    } else {
        right.push(span(format!("{} ", text.by), ThemeRole::Dim));
        right.push(span(
            format!("[{}] ", group_title(app.usage.by)(now.text).to_lowercase()),
            ThemeRole::Accent,
        ));
    }
    let end =
        canvas.spans(area.x + 1, area.y, area.width.saturating_sub(spans_width(&right) + 2), &left);
    canvas.spans_right(end + 1, area.right(), area.y, &right);
}

/// One bar per day up to today, at most five lines high.
fn draw_days(
    view: &UsageReport,
    days: u32,
    now: FrameContext,
    canvas: &mut Canvas<'_>,
    area: Rect,
) {
    let by_cost = !view.total.cost.is_zero();
    let count = i64::from(days.max(7));
    let weight =
        |sums: &Totals| if by_cost { sums.cost.0.unsigned_abs() } else { total_tokens(sums) };
    let today = now.day(now.at);
    let values: Vec<(i64, i64, u64, String)> = (0..count)
        .map(|back| {
            let (year, month, day) = format::date(today - (count - 1 - back));
            let name = format!("{year:04}-{month:02}-{day:02}");
            let found = view.days.iter().find(|row| row.name == name).map(|row| &row.totals);
            let message = found.map_or_else(String::new, |sums| {
                if by_cost {
                    sums.displayed_cost().to_string()
                } else {
                    format::count(total_tokens(sums))
                }
            });
            (month, day, found.map_or(0, weight), message)
        })
        .collect();
    let max_value = values.iter().map(|(_, _, value, _)| *value).max().unwrap_or(0).max(1);
    let title = if by_cost { &now.text.usage.by_cost } else { &now.text.usage.by_tokens };
    canvas.put(area.x + 1, area.y, area.width, title, ThemeRole::Dim);
    for (line, mark) in now.text.usage.estimated.split("  ").enumerate() {
        canvas.put(
            area.x + 1,
            area.y + 3 + u16::try_from(line).unwrap_or(0),
            15,
            mark,
            ThemeRole::Dim,
        );
    }
    let left = area.x + 17;
    let max_width = area.right().saturating_sub(left + 1);
    let each = (max_width / u16::try_from(count).unwrap_or(1)).clamp(1, 9);
    let skip = values.len().saturating_sub(usize::from(max_width / each));
    for (at, (month, day, value, message)) in values.iter().skip(skip).enumerate() {
        let x = left + u16::try_from(at).unwrap_or(0) * each;
        let wide = each.saturating_sub(1).clamp(1, 5);
        for (line, piece) in
            gauge::column(*value, max_value, usize::from(CHART_HEIGHT)).into_iter().enumerate()
        {
            let y = area.y + CHART_HEIGHT - u16::try_from(line).unwrap_or(0);
            canvas.put(x, y, wide, &piece.to_string().repeat(usize::from(wide)), ThemeRole::Accent);
        }
        let last = at + skip + 1 == values.len();
        let name = match each {
            6.. => format!("{month:02}-{day:02}"),
            3.. => format!("{day:02}"),
            _ => String::new(),
        };
        canvas.put(
            x,
            area.y + CHART_HEIGHT + 1,
            wide,
            &name,
            if last { ThemeRole::Text } else { ThemeRole::Dim },
        );
        // The total is above its bar if there is space.
        let top = CHART_HEIGHT.saturating_sub(
            u16::try_from(gauge::column(*value, max_value, usize::from(CHART_HEIGHT)).len())
                .unwrap_or(0),
        );
        if each >= 7 && *value > 0 {
            canvas.put(x, area.y + top, each, message, ThemeRole::Text);
        }
    }
}

fn group_title(by: GroupBy) -> fn(&Texts) -> &str {
    match by {
        GroupBy::Client => |t| &t.col.client,
        GroupBy::Day => |t| &t.col.day,
        GroupBy::Key => |t| &t.col.key,
        GroupBy::Model => |t| &t.col.model,
        GroupBy::Project => |t| &t.col.project,
        GroupBy::Session => |t| &t.col.session,
        GroupBy::Upstream => |t| &t.col.upstream,
    }
}

fn columns<'a>(by: GroupBy) -> [Column<UsageRow<'a>>; 9] {
    [
        Column {
            title: group_title(by),
            min: 16,
            max: 44,
            align_right: false,
            hide_order: 0,
            cell: |part, now, max_width| vec![name_cell(part, now, max_width)],
        },
        Column {
            title: |t| &t.col.requests,
            min: 5,
            max: 7,
            align_right: true,
            hide_order: 7,
            cell: |part, _, _| vec![count_cell(part.row.totals.requests)],
        },
        Column {
            title: |t| &t.col.failed,
            min: 6,
            max: 7,
            align_right: true,
            hide_order: 1,
            cell: |part, _, _| vec![failed_cell(&part.row.totals)],
        },
        Column {
            title: |t| &t.col.input,
            min: 6,
            max: 8,
            align_right: true,
            hide_order: 6,
            cell: |part, _, _| vec![count_cell(part.row.totals.usage.input_total())],
        },
        Column {
            title: |t| &t.col.cached,
            min: 10,
            max: 12,
            align_right: true,
            hide_order: 4,
            cell: |part, _, _| vec![cached_cell(part)],
        },
        Column {
            title: |t| &t.col.output,
            min: 6,
            max: 8,
            align_right: true,
            hide_order: 8,
            cell: |part, _, _| vec![count_cell(part.row.totals.usage.output_total())],
        },
        Column {
            title: |t| &t.col.reasoning,
            min: 6,
            max: 8,
            align_right: true,
            hide_order: 2,
            cell: |part, _, _| vec![count_cell(part.row.totals.usage.reasoning)],
        },
        Column {
            title: |t| &t.col.cost,
            min: 8,
            max: 10,
            align_right: true,
            hide_order: 0,
            cell: |part, _, _| {
                vec![span(part.row.totals.displayed_cost().to_string(), ThemeRole::Text)]
            },
        },
        Column {
            title: |t| &t.col.share,
            min: 10,
            max: 24,
            align_right: false,
            hide_order: 5,
            cell: |part, _, max_width| vec![share_cell(part, max_width)],
        },
    ]
}

fn count_cell(n: u64) -> StyledSpan {
    span(format::count(n), if n == 0 { ThemeRole::Dim } else { ThemeRole::Text })
}

fn name_cell(part: &UsageRow<'_>, now: FrameContext, max_width: usize) -> StyledSpan {
    if part.row.name.is_empty() {
        return span(now.text.usage.unnamed.clone(), ThemeRole::Dim);
    }
    span(truncate_middle(&clean(&part.row.name), max_width), ThemeRole::Text)
}

fn failed_cell(sums: &Totals) -> StyledSpan {
    span(format::count(sums.failed), if sums.failed > 0 { ThemeRole::Warn } else { ThemeRole::Dim })
}

/// Tokens read from prompt caches and their share of the input. A session that no longer hits the
/// cache is highlighted: at least 5 requests and a share below 30 %.
fn cached_cell(part: &UsageRow<'_>) -> StyledSpan {
    let (read, all) = (part.row.totals.usage.cache_read, part.row.totals.usage.input_total());
    if read == 0 {
        return span(UNKNOWN, ThemeRole::Dim);
    }
    let percent = (u128::from(read) * 100 / u128::from(all.max(1))) as u64;
    let poor = part.by == GroupBy::Session && part.row.totals.requests >= 5 && percent < 30;
    span(
        format!("{} {percent:>3}%", format::count(read)),
        if poor { ThemeRole::Warn } else { ThemeRole::Text },
    )
}

fn share_cell(part: &UsageRow<'_>, max_width: usize) -> StyledSpan {
    span(gauge::bar(part.share_permille, 1_000, max_width.min(MAX_SHARE_WIDTH)), ThemeRole::Accent)
}
