//! Which upstreams work, and how fast?

use ratatui::layout::Rect;

use super::{Order, window};
use crate::{
    base::clean::{clean, truncate_middle},
    control::snapshot::{ProbeView, UpstreamState, UpstreamView},
    tui::{
        app::{App, Entry, RowId},
        format::{self, Now, UNKNOWN},
        said::said,
        text::{Texts, fill},
        theme::Role,
        widgets::{
            canvas::{Canvas, Span, span},
            gauge,
            table::{self, Column, Rows, Under},
        },
    },
};

pub(super) const ORDERS: [Order; 3] = [
    Order { word: |t| &t.order.config, column: None },
    Order { word: |t| &t.order.tier, column: Some(3) },
    Order { word: |t| &t.order.errors, column: Some(7) },
];

fn visible(app: &App) -> Vec<&UpstreamView> {
    let Some(snapshot) = &app.snapshot else { return Vec::new() };
    let place = app.place_of(super::Screen::Upstreams);
    let mut rows: Vec<_> = snapshot
        .upstreams
        .iter()
        .filter(|u| place.filter.matches_names(&[&u.name, &u.base_url, word(u.state)]))
        .collect();
    match place.sort {
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

pub(super) fn entries(app: &App) -> Vec<Entry> {
    visible(app)
        .into_iter()
        .map(|u| Entry {
            id: RowId::Name(u.name.clone()),
            height: 1 + u16::from(u.cause.is_some()) + u16::from(u.probe.is_some()),
        })
        .collect()
}

pub(super) fn draw(app: &App, now: Now, canvas: &mut Canvas<'_>, area: Rect) {
    let rows = visible(app);
    if rows.is_empty() && app.snapshot.is_some() {
        let text = &now.text.upstreams;
        let text = if app.place().filter.is_empty() { &text.empty } else { &text.no_match };
        canvas.put(area.x + 3, area.y + 1, area.width.saturating_sub(4), text, Role::Dim);
        return;
    }
    let (shown, selected, following) =
        window(app, &rows, |u, id| RowId::Name(u.name.clone()) == *id);
    let sorted = ORDERS.get(app.place().sort).and_then(|order| order.column);
    table::draw(
        canvas,
        area,
        &COLUMNS,
        &Rows { rows: shown, selected, following, below, sorted },
        now,
    );
}

fn below(u: &UpstreamView, now: Now, _: &Under<'_, UpstreamView>) -> Vec<Vec<Span>> {
    let cause = u.cause.iter().map(|cause| vec![span(said(cause, now), Role::Dim)]);
    cause.chain(u.probe.iter().map(|probe| vec![probed(probe, now)])).collect()
}

/// What the newest probe of our own found.
fn probed(probe: &ProbeView, now: Now) -> Span {
    let (took, age) = (format::took(u64::from(probe.took_ms)), format::age(now.since(probe.at)));
    let values = [
        ("path", clean(&probe.path)),
        ("said", clean(&probe.message)),
        ("took", took.into()),
        ("age", age.into()),
    ];
    let values: Vec<(&str, &str)> = values.iter().map(|(name, value)| (*name, &**value)).collect();
    span(fill(&now.text.upstreams.probe, &values), if probe.ok { Role::Dim } else { Role::Warn })
}

const COLUMNS: [Column<UpstreamView>; 10] = [
    Column {
        title: |t| &t.col.upstream,
        min: 12,
        max: 24,
        right: false,
        leaves: 0,
        cell: |u, _, room| vec![span(truncate_middle(&clean(&u.name), room), Role::Text)],
    },
    Column {
        title: |t| &t.col.dialect,
        min: 9,
        max: 25,
        right: false,
        leaves: 2,
        cell: |u, _, _| vec![span(u.dialects.join(" "), Role::Dim)],
    },
    Column {
        title: |t| &t.col.state,
        min: 20,
        max: 24,
        right: false,
        leaves: 0,
        cell: |u, now, _| state(u, now),
    },
    Column {
        title: |t| &t.col.tier,
        min: 4,
        max: 5,
        right: true,
        leaves: 3,
        cell: |u, _, _| vec![span(u.priority.to_string(), Role::Text)],
    },
    Column {
        title: |t| &t.col.keys,
        min: 5,
        max: 6,
        right: true,
        leaves: 7,
        cell: |u, _, _| vec![keys(u)],
    },
    Column {
        title: |t| &t.col.p50,
        min: 6,
        max: 6,
        right: true,
        leaves: 5,
        cell: |u, _, _| vec![time(u.stats.ttft_p50_ms)],
    },
    Column {
        title: |t| &t.col.p95,
        min: 6,
        max: 6,
        right: true,
        leaves: 4,
        cell: |u, _, _| vec![time(u.stats.ttft_p95_ms)],
    },
    Column {
        title: |t| &t.col.errors,
        min: 6,
        max: 7,
        right: true,
        leaves: 8,
        cell: |u, _, _| vec![errors(u)],
    },
    Column {
        title: |t| &t.col.minutes,
        min: 15,
        max: 15,
        right: false,
        leaves: 6,
        cell: |u, _, _| spark(u),
    },
    Column {
        title: |t| &t.col.models,
        min: 6,
        max: 6,
        right: true,
        leaves: 1,
        cell: |u, _, _| vec![models(u)],
    },
];

fn word(state: UpstreamState) -> &'static str {
    match state {
        UpstreamState::Cooling => "cooling",
        UpstreamState::Disabled => "disabled",
        UpstreamState::Healthy => "healthy",
        UpstreamState::Open => "open",
        UpstreamState::Probing => "probing",
    }
}

fn say(state: UpstreamState, text: &Texts) -> &str {
    let text = &text.state;
    match state {
        UpstreamState::Cooling => &text.cooling,
        UpstreamState::Disabled => &text.disabled,
        UpstreamState::Healthy => &text.healthy,
        UpstreamState::Open => &text.open,
        UpstreamState::Probing => &text.probing,
    }
}

fn state(u: &UpstreamView, now: Now) -> Vec<Span> {
    let (glyph, role) = match u.state {
        UpstreamState::Cooling => ("▲", Role::Warn),
        UpstreamState::Disabled => ("○", Role::Dim),
        UpstreamState::Healthy => ("●", Role::Ok),
        UpstreamState::Open => ("✕", Role::Bad),
        UpstreamState::Probing => ("◐", Role::Accent),
    };
    let calm = if u.state == UpstreamState::Healthy { Role::Text } else { role };
    let mut spans = vec![span(format!("{glyph} "), role), span(say(u.state, now.text), calm)];
    if let Some(until) = u.until.filter(|until| until.0 > now.at.0) {
        let left = format::left(now.until(until));
        let said = if u.state == UpstreamState::Open {
            fill(&now.text.state.probe_in, &[("span", &left)])
        } else {
            left
        };
        spans.push(span(format!(" {said}"), calm));
    }
    spans
}

fn keys(u: &UpstreamView) -> Span {
    match u.keys {
        0 => span(UNKNOWN, Role::Dim),
        all => span(
            format!("{}/{all}", u.keys_ready),
            if u.keys_ready == 0 { Role::Warn } else { Role::Text },
        ),
    }
}

fn time(ms: Option<u32>) -> Span {
    ms.map_or_else(|| span(UNKNOWN, Role::Dim), |ms| span(format::took(u64::from(ms)), Role::Text))
}

fn errors(u: &UpstreamView) -> Span {
    let text = format::share(u64::from(u.stats.errors), u64::from(u.stats.attempts));
    let role = match (u.stats.errors, u.stats.attempts) {
        (_, 0) => Role::Dim,
        (0, _) => Role::Text,
        (errors, attempts) if errors * 2 >= attempts => Role::Bad,
        _ => Role::Warn,
    };
    span(text, role)
}

/// Attempts per 20 s; where all of them failed, a cross.
fn spark(u: &UpstreamView) -> Vec<Span> {
    let spark = &u.stats.spark[u.stats.spark.len().saturating_sub(15)..];
    let bars =
        gauge::bars(&spark.iter().map(|(attempts, _)| u64::from(*attempts)).collect::<Vec<_>>());
    let mut spans: Vec<Span> = Vec::new();
    for ((attempts, failed), bar) in spark.iter().zip(bars.chars()) {
        let (glyph, role) = if *attempts > 0 && failed >= attempts {
            ('✕', Role::Bad)
        } else {
            (bar, Role::Accent)
        };
        match spans.last_mut().filter(|(_, before)| *before == role) {
            Some((text, _)) => text.push(glyph),
            None => spans.push(span(glyph, role)),
        }
    }
    spans
}

fn models(u: &UpstreamView) -> Span {
    u.models
        .map_or_else(|| span(UNKNOWN, Role::Dim), |n| span(format::count(u64::from(n)), Role::Text))
}
