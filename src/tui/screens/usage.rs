//! How many tokens, and what did they cost: whom, and when?

use ratatui::layout::Rect;

use super::{Order, budgets, window};
use crate::{
    base::clean::{clean, truncate_middle},
    control::history::{GroupBy, Totals, TotalsRow, UsageReport},
    tui::{
        app::{App, Entry, RowId},
        format::{self, Now, UNKNOWN},
        text::{Texts, fill},
        theme::Role,
        top::cost_today,
        widgets::{
            canvas::{Canvas, Span, span, spans_width},
            gauge,
            table::{self, Column, Rows},
        },
    },
};

pub(super) const ORDERS: [Order; 4] = [
    Order { word: |t| &t.order.cost, column: Some(7) },
    Order { word: |t| &t.order.requests, column: Some(1) },
    Order { word: |t| &t.order.tokens, column: Some(3) },
    Order { word: |t| &t.order.name, column: Some(0) },
];

/// Lines of the bars of days.
const CHART: u16 = 5;
/// The widest bar of a row.
const SHARE: usize = 24;

/// A row with its part of the most.
struct Part<'a> {
    row: &'a TotalsRow,
    by: GroupBy,
    /// Thousandths of the largest.
    share: u64,
}

fn tokens(sums: &Totals) -> u64 {
    sums.usage.input_total().saturating_add(sums.usage.output_total())
}

fn visible(app: &App) -> Vec<&TotalsRow> {
    let Some(view) = app.sums.shown() else { return Vec::new() };
    let place = app.place_of(super::Screen::Usage);
    let mut rows: Vec<&TotalsRow> =
        view.rows.iter().filter(|row| place.filter.matches_names(&[&row.name])).collect();
    match place.sort {
        1 => rows.sort_by_key(|row| std::cmp::Reverse(row.totals.requests)),
        2 => rows.sort_by_key(|row| std::cmp::Reverse(tokens(&row.totals))),
        3 => rows.sort_by(|a, b| a.name.cmp(&b.name)),
        _ if view.by == GroupBy::Day => rows.reverse(),
        _ => {}
    }
    rows
}

pub(super) fn entries(app: &App) -> Vec<Entry> {
    visible(app)
        .into_iter()
        .map(|row| Entry { id: RowId::Name(row.name.clone()), height: 1 })
        .collect()
}

/// The filter of the log that shows what a row adds up.
pub(super) fn filter(app: &App, name: &str) -> Option<String> {
    let by = app.sums.shown()?.by;
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

/// Lines above the table: the sums, budgets, and the bars of days where there is room.
pub(super) fn head_height(app: &App, body: Rect) -> u16 {
    let above = budgets::lines(app, body.height);
    above
        + match body.height - above {
            ..6 => 1,
            6..20 => 2,
            _ if !has_bars(app) => 2,
            _ => 2 + CHART + 2,
        }
}

/// Whether any day has something to show.
fn has_bars(app: &App) -> bool {
    app.sums.shown().is_some_and(|view| {
        view.days.iter().any(|day| !day.totals.cost.is_zero() || tokens(&day.totals) > 0)
    })
}

pub(super) fn draw(app: &App, now: Now, canvas: &mut Canvas<'_>, area: Rect) {
    let Some(snapshot) = &app.snapshot else { return };
    let text = &now.text.usage;
    let room = area.width.saturating_sub(4);
    if snapshot.ledger.is_none() {
        let why = app.sums.error.clone().unwrap_or_else(|| UNKNOWN.to_owned());
        canvas.put(
            area.x + 3,
            area.y + 1,
            room,
            &fill(&text.no_ledger, &[("why", &why)]),
            Role::Dim,
        );
        return;
    }
    sums(app, now, canvas, area);
    let head = head_height(app, area).min(area.height);
    let above = budgets::lines(app, area.height);
    budgets::draw(app, now, canvas, Rect { y: area.y + 1, height: above, ..area });
    let list = Rect { y: area.y + head, height: area.height - head, ..area };
    if head >= 2 {
        canvas.rule(area, list.y - 1);
    }
    let Some(view) = app.sums.shown() else {
        let said = app.sums.error.as_deref().unwrap_or(&text.loading);
        canvas.put(area.x + 3, list.y + 1, room, said, Role::Dim);
        return;
    };
    if head > above + 2 {
        days(
            view,
            app.sums.days,
            now,
            canvas,
            Rect { y: area.y + 1 + above, height: CHART + 2, ..area },
        );
    }
    let rows = visible(app);
    if rows.is_empty() {
        let said = match view.demo.requests {
            _ if !app.place().filter.is_empty() => text.no_match.clone(),
            0 => text.empty.clone(),
            n => format!("{} {}", text.empty, fill(&text.demo, &[("n", &format::count(n))])),
        };
        canvas.put(area.x + 3, list.y + 1, room, &said, Role::Dim);
        return;
    }
    let (shown, selected, following) =
        window(app, &rows, |row, id| RowId::Name(row.name.clone()) == *id);
    let by_cost = view.rows.iter().any(|row| !row.totals.cost.is_zero());
    let weight = |sums: &Totals| if by_cost { sums.cost.0.unsigned_abs() } else { tokens(sums) };
    let most = view.rows.iter().map(|row| weight(&row.totals)).max().unwrap_or(0).max(1);
    let part = |row: &&TotalsRow| {
        (u128::from(weight(&row.totals)) * 1_000).div_ceil(u128::from(most)) as u64
    };
    let shown: Vec<Part<'_>> =
        shown.iter().map(|row| Part { row, by: view.by, share: part(row) }).collect();
    let shown: Vec<&Part<'_>> = shown.iter().collect();
    let sorted = ORDERS.get(app.place().sort).and_then(|order| order.column);
    let below =
        list.y.saturating_add(2).saturating_add(u16::try_from(shown.len()).unwrap_or(u16::MAX));
    if view.demo.requests > 0 && below < list.bottom() {
        let said = fill(&text.beside, &[("n", &format::count(view.demo.requests))]);
        canvas.put(area.x + 3, below, room, &said, Role::Dim);
    }
    table::draw(
        canvas,
        list,
        &columns(view.by),
        &Rows { rows: &shown, selected, following, below: table::nothing_below, sorted },
        now,
    );
}

/// Today, the span, and what is told apart.
fn sums(app: &App, now: Now, canvas: &mut Canvas<'_>, area: Rect) {
    let text = &now.text.usage;
    let mut left = vec![span(format!("{} ", text.today), Role::Dim)];
    left.push(span(cost_today(app).unwrap_or_else(|| UNKNOWN.to_owned()), Role::Accent));
    let span_name = match app.sums.days {
        1 => text.one_day.clone(),
        n => fill(&text.days, &[("n", &n.to_string())]),
    };
    if let Some(view) = app.sums.shown() {
        left.push(span(format!("   {span_name} "), Role::Dim));
        left.push(span(view.total.displayed_cost().to_string(), Role::Accent));
        let usage = &view.total.usage;
        left.push(span(
            format!(
                "  {} · {}→{}",
                fill(&text.requests, &[("n", &format::count(view.total.requests))]),
                format::count(usage.input_total()),
                format::count(usage.output_total())
            ),
            Role::Text,
        ));
        if usage.input_total() > 0 {
            let share = |tokens| format::share(tokens, usage.input_total().max(20));
            let said = if view.total.affinity_cache_read > 0 && area.width >= 110 {
                &now.text.top.cache_won
            } else {
                &now.text.top.cache
            };
            let said = fill(
                said,
                &[
                    ("share", &share(usage.cache_read)),
                    ("won", &share(view.total.affinity_cache_read)),
                ],
            );
            left.push(span(format!(" · {said}"), Role::Text));
        }
    } else {
        left.push(span(format!("   {span_name}"), Role::Dim));
    }
    let mut right = Vec::new();
    if area.width >= 110 {
        right.push(span(format!("{} ", text.by), Role::Dim));
        for by in GroupBy::ALL {
            let word = title(by)(now.text).to_lowercase();
            match by == app.sums.by {
                true => right.push(span(format!("[{word}] "), Role::Accent)),
                false => right.push(span(format!("{word} "), Role::Dim)),
            }
        }
    } else {
        right.push(span(format!("{} ", text.by), Role::Dim));
        right.push(span(
            format!("[{}] ", title(app.sums.by)(now.text).to_lowercase()),
            Role::Accent,
        ));
    }
    let end =
        canvas.spans(area.x + 1, area.y, area.width.saturating_sub(spans_width(&right) + 2), &left);
    canvas.spans_before(end + 1, area.right(), area.y, &right);
}

/// A bar for each day up to today, the highest five lines high.
fn days(view: &UsageReport, days: u32, now: Now, canvas: &mut Canvas<'_>, area: Rect) {
    let by_cost = !view.total.cost.is_zero();
    let count = i64::from(days.max(7));
    let weight = |sums: &Totals| if by_cost { sums.cost.0.unsigned_abs() } else { tokens(sums) };
    let today = now.day(now.at);
    let values: Vec<(i64, i64, u64, String)> = (0..count)
        .map(|back| {
            let (year, month, day) = format::date(today - (count - 1 - back));
            let name = format!("{year:04}-{month:02}-{day:02}");
            let found = view.days.iter().find(|row| row.name == name).map(|row| &row.totals);
            let said = found.map_or_else(String::new, |sums| {
                if by_cost {
                    sums.displayed_cost().to_string()
                } else {
                    format::count(tokens(sums))
                }
            });
            (month, day, found.map_or(0, weight), said)
        })
        .collect();
    let most = values.iter().map(|(_, _, value, _)| *value).max().unwrap_or(0).max(1);
    let title = if by_cost { &now.text.usage.by_cost } else { &now.text.usage.by_tokens };
    canvas.put(area.x + 1, area.y, area.width, title, Role::Dim);
    for (line, mark) in now.text.usage.estimated.split("  ").enumerate() {
        canvas.put(area.x + 1, area.y + 3 + u16::try_from(line).unwrap_or(0), 15, mark, Role::Dim);
    }
    let left = area.x + 17;
    let room = area.right().saturating_sub(left + 1);
    let each = (room / u16::try_from(count).unwrap_or(1)).clamp(1, 9);
    let skip = values.len().saturating_sub(usize::from(room / each));
    for (at, (month, day, value, said)) in values.iter().skip(skip).enumerate() {
        let x = left + u16::try_from(at).unwrap_or(0) * each;
        let wide = each.saturating_sub(1).clamp(1, 5);
        for (line, piece) in gauge::column(*value, most, usize::from(CHART)).into_iter().enumerate()
        {
            let y = area.y + CHART - u16::try_from(line).unwrap_or(0);
            canvas.put(x, y, wide, &piece.to_string().repeat(usize::from(wide)), Role::Accent);
        }
        let last = at + skip + 1 == values.len();
        let name = match each {
            6.. => format!("{month:02}-{day:02}"),
            3.. => format!("{day:02}"),
            _ => String::new(),
        };
        canvas.put(x, area.y + CHART + 1, wide, &name, if last { Role::Text } else { Role::Dim });
        // The sum stands on its bar where there is room.
        let top = CHART.saturating_sub(
            u16::try_from(gauge::column(*value, most, usize::from(CHART)).len()).unwrap_or(0),
        );
        if each >= 7 && *value > 0 {
            canvas.put(x, area.y + top, each, said, Role::Text);
        }
    }
}

fn title(by: GroupBy) -> fn(&Texts) -> &str {
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

fn columns<'a>(by: GroupBy) -> [Column<Part<'a>>; 9] {
    [
        Column {
            title: title(by),
            min: 16,
            max: 44,
            right: false,
            leaves: 0,
            cell: |part, now, room| vec![name(part, now, room)],
        },
        Column {
            title: |t| &t.col.requests,
            min: 5,
            max: 7,
            right: true,
            leaves: 7,
            cell: |part, _, _| vec![amount(part.row.totals.requests)],
        },
        Column {
            title: |t| &t.col.failed,
            min: 6,
            max: 7,
            right: true,
            leaves: 1,
            cell: |part, _, _| vec![failed(&part.row.totals)],
        },
        Column {
            title: |t| &t.col.input,
            min: 6,
            max: 8,
            right: true,
            leaves: 6,
            cell: |part, _, _| vec![amount(part.row.totals.usage.input_total())],
        },
        Column {
            title: |t| &t.col.cached,
            min: 10,
            max: 12,
            right: true,
            leaves: 4,
            cell: |part, _, _| vec![cached(part)],
        },
        Column {
            title: |t| &t.col.output,
            min: 6,
            max: 8,
            right: true,
            leaves: 8,
            cell: |part, _, _| vec![amount(part.row.totals.usage.output_total())],
        },
        Column {
            title: |t| &t.col.reasoning,
            min: 6,
            max: 8,
            right: true,
            leaves: 2,
            cell: |part, _, _| vec![amount(part.row.totals.usage.reasoning)],
        },
        Column {
            title: |t| &t.col.cost,
            min: 8,
            max: 10,
            right: true,
            leaves: 0,
            cell: |part, _, _| vec![span(part.row.totals.displayed_cost().to_string(), Role::Text)],
        },
        Column {
            title: |t| &t.col.share,
            min: 10,
            max: 24,
            right: false,
            leaves: 5,
            cell: |part, _, room| vec![share(part, room)],
        },
    ]
}

fn amount(n: u64) -> Span {
    span(format::count(n), if n == 0 { Role::Dim } else { Role::Text })
}

fn name(part: &Part<'_>, now: Now, room: usize) -> Span {
    if part.row.name.is_empty() {
        return span(now.text.usage.unnamed.clone(), Role::Dim);
    }
    span(truncate_middle(&clean(&part.row.name), room), Role::Text)
}

fn failed(sums: &Totals) -> Span {
    span(format::count(sums.failed), if sums.failed > 0 { Role::Warn } else { Role::Dim })
}

/// What came from prompt caches, with its share of the input. A session that was at home in the
/// cache and is no more stands out.
fn cached(part: &Part<'_>) -> Span {
    let (read, all) = (part.row.totals.usage.cache_read, part.row.totals.usage.input_total());
    if read == 0 {
        return span(UNKNOWN, Role::Dim);
    }
    let percent = (u128::from(read) * 100 / u128::from(all.max(1))) as u64;
    let poor = part.by == GroupBy::Session && part.row.totals.requests >= 5 && percent < 30;
    span(
        format!("{} {percent:>3}%", format::count(read)),
        if poor { Role::Warn } else { Role::Text },
    )
}

fn share(part: &Part<'_>, room: usize) -> Span {
    span(gauge::bar(part.share, 1_000, room.min(SHARE)), Role::Accent)
}
