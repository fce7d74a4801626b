//! The Live screen: running and recently finished requests.

pub(super) mod cells;
pub(super) mod charts;

use std::cmp::Reverse;

use ratatui::layout::Rect;

use self::charts::{chart_height, draw_charts};
use crate::{
    events::record::RequestRecord,
    tui::{
        app::{App, RowId},
        curl,
        format::{self, FrameContext},
        screen::Screen,
        screens::{
            cells as shared,
            list::{self, List, ListColumn},
            request,
        },
        status_bar::requests_today,
        strings::{TextFn, fill},
        theme::ThemeRole,
        widgets::{
            canvas::{Canvas, span},
            wrap,
        },
    },
};

/// Minimum width of the screen for client program names.
const MIN_CLIENT_NAME_WIDTH: u16 = 120;

pub(super) struct LiveList;

type Column<'a> = ListColumn<'a, LiveList>;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum LiveColumn {
    Time,
    Client,
    Model,
    Upstream,
    Key,
    State,
    Age,
    Attempts,
    Ttft,
    Speed,
    Tokens,
    Cost,
}

impl List for LiveList {
    type Column = LiveColumn;
    type Row<'a> = &'a RequestRecord;

    const DEFAULT_ORDER: (TextFn, Option<LiveColumn>) = (|t| &t.order.newest, None);

    fn columns<'a>(app: &App) -> Vec<Column<'a>> {
        use LiveColumn as Id;
        let client_width = if app.size.0 >= MIN_CLIENT_NAME_WIDTH { 11 } else { 8 };
        vec![
            Column::left(Id::Time, |t| &t.col.time, 8..=8)
                .cell(|r, now, _| vec![span(format::clock(r.at, now), ThemeRole::Dim)])
                .hidden(5),
            Column::left(Id::Client, |t| &t.col.client, client_width..=16)
                .cell(|r, _, max_width| {
                    vec![span(cells::client_text(r, max_width), ThemeRole::Text)]
                })
                .hidden(6),
            Column::left(Id::Model, |t| &t.col.model, 18..=52).cell(|r, _, max_width| {
                vec![span(cells::model_text(r, max_width), ThemeRole::Text)]
            }),
            Column::left(Id::Upstream, |t| &t.col.upstream, 10..=20).cell(|r, _, max_width| {
                shared::name(r.serving_attempt().map_or("", |a| &a.upstream), max_width)
            }),
            Column::left(Id::Key, |t| &t.col.key, 8..=20)
                .cell(|r, _, max_width| {
                    shared::name(r.serving_attempt().map_or("", |a| &a.key), max_width)
                })
                .hidden(4),
            Column::left(Id::State, |t| &t.col.state, 11..=14)
                .cell(|r, now, max_width| cells::state_cell(r, now, max_width)),
            Column::right(Id::Age, |t| &t.col.age, 4..=5)
                .cell(|r, now, _| vec![span(cells::age_text(r, now), ThemeRole::Text)])
                .hidden(7)
                .sortable(|t| &t.order.slowest, |rows| sort_finished(rows, |r| r.duration_ms)),
            Column::right(Id::Attempts, |t| &t.col.try_, 3..=3)
                .cell(|r, _, _| cells::attempts_cell(r))
                .hidden(8),
            Column::right(Id::Ttft, |t| &t.col.ttft, 6..=6)
                .cell(|r, _, _| shared::duration(r.ttft_ms))
                .hidden(9),
            Column::right(Id::Speed, |t| &t.col.speed, 6..=6)
                .cell(|r, now, _| shared::optional(cells::speed_text(r, now)))
                .hidden(3),
            Column::right(Id::Tokens, |t| &t.col.tokens, 11..=12)
                .cell(|r, _, _| vec![span(cells::tokens_text(r), ThemeRole::Text)])
                .hidden(2)
                .sortable(
                    |t| &t.order.most_output,
                    |rows| sort_finished(rows, |r| r.usage.map(|usage| usage.output_total())),
                ),
            Column::right(Id::Cost, |t| &t.col.cost, 7..=8)
                .cell(|r, _, _| shared::optional(cells::cost_text(r)))
                .hidden(1)
                .sortable(
                    |t| &t.order.costliest,
                    |rows| sort_finished(rows, |r| r.cost.and_then(|cost| cost.usd)),
                ),
        ]
    }

    /// Running requests in order of start, followed by finished ones.
    fn rows(app: &App) -> Vec<&RequestRecord> {
        let Some(live) = app.live() else { return Vec::new() };
        let filter = &app.list_state_of(Screen::Live).filter;
        let matches = |r: &&RequestRecord| filter.is_empty() || filter.matches_request(r);
        let mut rows: Vec<_> = live.running.iter().filter(matches).collect();
        let running = rows.len();
        rows.extend(live.finished().rev().filter(matches));
        // By the time shown in their rows: the start.
        rows[running..].sort_by_key(|r| Reverse(r.at));
        rows
    }

    fn id(r: &&RequestRecord) -> RowId {
        RowId::Request(r.id)
    }

    fn empty_text(app: &App, now: FrameContext) -> String {
        list::empty_text(app, &now.text.live.empty, &now.text.live.no_match)
    }
}

/// Sorts the finished requests, highest value first. Running ones stay above them.
fn sort_finished<K: Ord>(rows: &mut [&RequestRecord], value: impl Fn(&RequestRecord) -> K) {
    let running = rows.partition_point(|r| r.is_running());
    rows[running..].sort_by_key(|r| Reverse(value(r)));
}

/// Minimum height of the body for a view of the selected request under the list.
const MIN_PREVIEW_BODY: u16 = 32;

/// The lower half of a tall screen, which shows the selected request; without one it has no height.
pub(super) fn preview_area(app: &App, body: Rect) -> Rect {
    let has_rows = || {
        app.live().is_some_and(|live| !live.running.is_empty() || live.finished().next().is_some())
    };
    let is_shown = body.height >= MIN_PREVIEW_BODY && has_rows();
    let height = if is_shown { body.height / 2 } else { 0 };
    Rect { y: body.bottom() - height, height, ..body }
}

/// The request that a tall screen shows under the list: the selected one, else the first.
pub(super) fn previewed_request(app: &App) -> Option<&RequestRecord> {
    let (live, list) = (app.live()?, app.list_state_of(Screen::Live));
    if let Some(RowId::Request(id)) = &list.selected {
        return app.request(*id);
    }
    if list.sort > 0 {
        return list::sorted_rows::<LiveList>(app).into_iter().next();
    }
    let matches = |r: &&RequestRecord| list.filter.is_empty() || list.filter.matches_request(r);
    let running = live.running.iter().find(matches);
    running.or_else(|| live.finished().rev().filter(matches).max_by_key(|r| r.at))
}

pub(super) fn draw(app: &App, now: FrameContext, canvas: &mut Canvas<'_>, area: Rect) {
    let now = app.live_now(now);
    let charts = chart_height(area);
    if charts > 0 {
        draw_charts(app, now, canvas, area);
        canvas.rule(area, area.y + 1);
    }
    let preview = preview_area(app, area);
    if preview.height > 0
        && let Some(r) = previewed_request(app)
    {
        request::draw_preview(app, now, canvas, preview, r);
    }
    let height = area.height.saturating_sub(charts + preview.height);
    let area = Rect { y: area.y + charts, height, ..area };
    if LiveList::rows(app).is_empty() && app.list_state().filter.is_empty() {
        draw_empty(app, now, canvas, area);
    } else {
        list::draw::<LiveList>(app, now, canvas, area);
    }
}

/// A hint instead of an empty list: what happened today, or how to send a first request.
fn draw_empty(app: &App, now: FrameContext, canvas: &mut Canvas<'_>, area: Rect) {
    let Some(snapshot) = &app.snapshot else { return };
    let max_width = area.width.saturating_sub(4);
    let y = area.y + u16::from(area.height > 2);
    if let Some(today) = requests_today(app).filter(|n| *n > 0) {
        let up = format::span(now.since(snapshot.started));
        let message = fill(&now.text.live.begun, &[("span", &up), ("n", &format::count(today))]);
        for (line, y) in
            wrap::wrap(&message, usize::from(max_width), 3).iter().zip(y..area.bottom())
        {
            canvas.put(area.x + 3, y, max_width, line, ThemeRole::Dim);
        }
        return;
    }
    canvas.put(area.x + 3, y, max_width, &now.text.live.empty, ThemeRole::Dim);
    let curl = curl::hello_command(snapshot, curl::first_model(snapshot));
    let mut rest = curl.as_str();
    let mut y = y + 2;
    while !rest.is_empty() && y < area.bottom() {
        let line: String = rest
            .chars()
            .scan(0, |used, c| (*used < usize::from(max_width)).then(|| *used += 1).map(|()| c))
            .collect();
        canvas.put(area.x + 3, y, max_width, &line, ThemeRole::Text);
        rest = &rest[line.len()..];
        y += 1;
    }
}
