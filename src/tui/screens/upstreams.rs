//! The Upstreams screen: which upstreams work, and how fast.

use ratatui::layout::Rect;

use super::{SortOrder, visible_window};
use crate::{
    base::sanitize::{clean, truncate_middle},
    control::snapshot::{ProbeView, UpstreamState, UpstreamView},
    tui::{
        app::{App, ListRow, RowId},
        format::{self, FrameContext, UNKNOWN},
        screen::Screen,
        strings::{Texts, fill},
        theme::ThemeRole,
        translate_message::translate_message,
        widgets::{
            canvas::{Canvas, StyledSpan, span},
            gauge,
            table::{self, Column, RowDetail, TableRows},
        },
    },
};

pub(super) const ORDERS: [SortOrder; 3] = [
    SortOrder { label: |t| &t.order.config, column: None },
    SortOrder { label: |t| &t.order.tier, column: Some(3) },
    SortOrder { label: |t| &t.order.errors, column: Some(7) },
];

fn visible(app: &App) -> Vec<&UpstreamView> {
    let Some(snapshot) = &app.snapshot else { return Vec::new() };
    let list = app.list_state_of(Screen::Upstreams);
    let mut rows: Vec<_> = snapshot
        .upstreams
        .iter()
        .filter(|u| list.filter.matches_names(&[&u.name, &u.base_url, state_name(u.state)]))
        .collect();
    match list.sort {
        1 => rows.sort_by_key(|u| u.priority),
        2 => rows.sort_by_key(|u| {
            std::cmp::Reverse(
                u64::from(u.stats.errors) * 1_000 / u64::from(u.stats.attempts.max(1)),
            )
        }),
        _ => {}
    }
    rows
}

pub(super) fn list_rows(app: &App) -> Vec<ListRow> {
    visible(app)
        .into_iter()
        .map(|u| ListRow {
            id: RowId::Name(u.name.clone()),
            height: 1 + u16::from(u.cause.is_some()) + u16::from(u.probe.is_some()),
        })
        .collect()
}

pub(super) fn draw(app: &App, now: FrameContext, canvas: &mut Canvas<'_>, area: Rect) {
    let rows = visible(app);
    if rows.is_empty() && app.snapshot.is_some() {
        let text = &now.text.upstreams;
        let text = if app.list_state().filter.is_empty() { &text.empty } else { &text.no_match };
        canvas.put(area.x + 3, area.y + 1, area.width.saturating_sub(4), text, ThemeRole::Dim);
        return;
    }
    let (visible_rows, selected, following) =
        visible_window(app, &rows, |u, id| RowId::Name(u.name.clone()) == *id);
    let sorted = ORDERS.get(app.list_state().sort).and_then(|order| order.column);
    table::draw(
        canvas,
        area,
        &COLUMNS,
        &TableRows { rows: visible_rows, selected, following, details: detail_lines, sorted },
        now,
    );
}

fn detail_lines(
    u: &UpstreamView,
    now: FrameContext,
    _: &RowDetail<'_, UpstreamView>,
) -> Vec<Vec<StyledSpan>> {
    let cause =
        u.cause.iter().map(|cause| vec![span(translate_message(cause, now), ThemeRole::Dim)]);
    cause.chain(u.probe.iter().map(|probe| vec![probe_span(probe, now)])).collect()
}

/// The result of aiproxy's most recent probe.
fn probe_span(probe: &ProbeView, now: FrameContext) -> StyledSpan {
    let (duration, age) =
        (format::duration(u64::from(probe.took_ms)), format::age(now.since(probe.at)));
    let values = [
        ("path", clean(&probe.path)),
        ("said", clean(&probe.message)),
        ("took", duration.into()),
        ("age", age.into()),
    ];
    let values: Vec<(&str, &str)> = values.iter().map(|(name, value)| (*name, &**value)).collect();
    span(
        fill(&now.text.upstreams.probe, &values),
        if probe.ok { ThemeRole::Dim } else { ThemeRole::Warn },
    )
}

const COLUMNS: [Column<UpstreamView>; 10] = [
    Column {
        title: |t| &t.col.upstream,
        min: 12,
        max: 24,
        align_right: false,
        hide_order: 0,
        cell: |u, _, max_width| {
            vec![span(truncate_middle(&clean(&u.name), max_width), ThemeRole::Text)]
        },
    },
    Column {
        title: |t| &t.col.dialect,
        min: 9,
        max: 25,
        align_right: false,
        hide_order: 2,
        cell: |u, _, _| vec![span(u.dialects.join(" "), ThemeRole::Dim)],
    },
    Column {
        title: |t| &t.col.state,
        min: 20,
        max: 24,
        align_right: false,
        hide_order: 0,
        cell: |u, now, _| state_cell(u, now),
    },
    Column {
        title: |t| &t.col.tier,
        min: 4,
        max: 5,
        align_right: true,
        hide_order: 3,
        cell: |u, _, _| vec![span(u.priority.to_string(), ThemeRole::Text)],
    },
    Column {
        title: |t| &t.col.keys,
        min: 5,
        max: 6,
        align_right: true,
        hide_order: 7,
        cell: |u, _, _| vec![keys_cell(u)],
    },
    Column {
        title: |t| &t.col.p50,
        min: 6,
        max: 6,
        align_right: true,
        hide_order: 5,
        cell: |u, _, _| vec![time_cell(u.stats.ttft_p50_ms)],
    },
    Column {
        title: |t| &t.col.p95,
        min: 6,
        max: 6,
        align_right: true,
        hide_order: 4,
        cell: |u, _, _| vec![time_cell(u.stats.ttft_p95_ms)],
    },
    Column {
        title: |t| &t.col.errors,
        min: 6,
        max: 7,
        align_right: true,
        hide_order: 8,
        cell: |u, _, _| vec![errors_cell(u)],
    },
    Column {
        title: |t| &t.col.minutes,
        min: 15,
        max: 15,
        align_right: false,
        hide_order: 6,
        cell: |u, _, _| spark_cell(u),
    },
    Column {
        title: |t| &t.col.models,
        min: 6,
        max: 6,
        align_right: true,
        hide_order: 1,
        cell: |u, _, _| vec![models_cell(u)],
    },
];

fn state_name(state: UpstreamState) -> &'static str {
    match state {
        UpstreamState::Cooling => "cooling",
        UpstreamState::Disabled => "disabled",
        UpstreamState::Healthy => "healthy",
        UpstreamState::Open => "open",
        UpstreamState::Probing => "probing",
    }
}

fn state_text(state: UpstreamState, text: &Texts) -> &str {
    let text = &text.state;
    match state {
        UpstreamState::Cooling => &text.cooling,
        UpstreamState::Disabled => &text.disabled,
        UpstreamState::Healthy => &text.healthy,
        UpstreamState::Open => &text.open,
        UpstreamState::Probing => &text.probing,
    }
}

fn state_cell(u: &UpstreamView, now: FrameContext) -> Vec<StyledSpan> {
    let (glyph, role) = match u.state {
        UpstreamState::Cooling => ("▲", ThemeRole::Warn),
        UpstreamState::Disabled => ("○", ThemeRole::Dim),
        UpstreamState::Healthy => ("●", ThemeRole::Ok),
        UpstreamState::Open => ("✕", ThemeRole::Error),
        UpstreamState::Probing => ("◐", ThemeRole::Accent),
    };
    let calm = if u.state == UpstreamState::Healthy { ThemeRole::Text } else { role };
    let mut spans =
        vec![span(format!("{glyph} "), role), span(state_text(u.state, now.text), calm)];
    if let Some(until) = u.until.filter(|until| until.0 > now.at.0) {
        let left = format::remaining(now.until(until));
        let message = if u.state == UpstreamState::Open {
            fill(&now.text.state.probe_in, &[("span", &left)])
        } else {
            left
        };
        spans.push(span(format!(" {message}"), calm));
    }
    spans
}

fn keys_cell(u: &UpstreamView) -> StyledSpan {
    match u.keys {
        0 => span(UNKNOWN, ThemeRole::Dim),
        all => span(
            format!("{}/{all}", u.keys_ready),
            if u.keys_ready == 0 { ThemeRole::Warn } else { ThemeRole::Text },
        ),
    }
}

fn time_cell(ms: Option<u32>) -> StyledSpan {
    ms.map_or_else(
        || span(UNKNOWN, ThemeRole::Dim),
        |ms| span(format::duration(u64::from(ms)), ThemeRole::Text),
    )
}

fn errors_cell(u: &UpstreamView) -> StyledSpan {
    let text = format::share(u64::from(u.stats.errors), u64::from(u.stats.attempts));
    let role = match (u.stats.errors, u.stats.attempts) {
        (_, 0) => ThemeRole::Dim,
        (0, _) => ThemeRole::Text,
        (errors, attempts) if errors * 2 >= attempts => ThemeRole::Error,
        _ => ThemeRole::Warn,
    };
    span(text, role)
}

/// Attempts per 20 s; a cross if all of them failed.
fn spark_cell(u: &UpstreamView) -> Vec<StyledSpan> {
    let spark = &u.stats.spark[u.stats.spark.len().saturating_sub(15)..];
    let bars =
        gauge::bars(&spark.iter().map(|(attempts, _)| u64::from(*attempts)).collect::<Vec<_>>());
    let mut spans: Vec<StyledSpan> = Vec::new();
    for ((attempts, failed), bar) in spark.iter().zip(bars.chars()) {
        let (glyph, role) = if *attempts > 0 && failed >= attempts {
            ('✕', ThemeRole::Error)
        } else {
            (bar, ThemeRole::Accent)
        };
        match spans.last_mut().filter(|(_, before)| *before == role) {
            Some((text, _)) => text.push(glyph),
            None => spans.push(span(glyph, role)),
        }
    }
    spans
}

fn models_cell(u: &UpstreamView) -> StyledSpan {
    u.models.map_or_else(
        || span(UNKNOWN, ThemeRole::Dim),
        |n| span(format::count(u64::from(n)), ThemeRole::Text),
    )
}
