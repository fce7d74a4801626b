//! The Upstreams screen: which upstreams work, and how fast.

use std::cmp::Reverse;

use crate::{
    base::sanitize::clean,
    control::snapshot::{ProbeView, UpstreamState, UpstreamView},
    tui::{
        app::{App, RowId},
        format::{self, FrameContext},
        reason_words::ReasonWords,
        screen::Screen,
        screens::{
            cells,
            list::{self, List, ListColumn},
        },
        strings::{TextFn, Texts, fill},
        theme::ThemeRole,
        widgets::{
            canvas::{StyledSpan, span},
            gauge,
            table::RowDetail,
        },
    },
};

pub(super) struct UpstreamList;

type Column<'a> = ListColumn<'a, UpstreamList>;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum UpstreamColumn {
    Upstream,
    Dialect,
    State,
    Tier,
    Keys,
    P50,
    P95,
    Errors,
    Minutes,
    Models,
}

impl List for UpstreamList {
    type Column = UpstreamColumn;
    type Row<'a> = &'a UpstreamView;

    const DEFAULT_ORDER: (TextFn, Option<UpstreamColumn>) = (|t| &t.order.config, None);

    fn columns<'a>(_: &App) -> Vec<Column<'a>> {
        use UpstreamColumn as Id;
        vec![
            Column::left(Id::Upstream, |t| &t.col.upstream, 12..=24)
                .cell(|u, _, max_width| cells::name(&u.name, max_width)),
            Column::left(Id::Dialect, |t| &t.col.dialect, 9..=25)
                .cell(|u, _, _| vec![span(u.dialects.join(" "), ThemeRole::Dim)])
                .hidden(2),
            Column::left(Id::State, |t| &t.col.state, 20..=24).cell(|u, now, _| state_cell(u, now)),
            Column::right(Id::Tier, |t| &t.col.tier, 4..=5)
                .cell(|u, _, _| vec![span(u.priority.to_string(), ThemeRole::Text)])
                .hidden(3)
                .sortable(|t| &t.order.tier, |rows| rows.sort_by_key(|u| u.priority)),
            Column::right(Id::Keys, |t| &t.col.keys, 5..=6).cell(|u, _, _| keys_cell(u)).hidden(7),
            Column::right(Id::P50, |t| &t.col.p50, 6..=6)
                .cell(|u, _, _| cells::duration(u.stats.ttft_p50_ms))
                .hidden(5),
            Column::right(Id::P95, |t| &t.col.p95, 6..=6)
                .cell(|u, _, _| cells::duration(u.stats.ttft_p95_ms))
                .hidden(4),
            Column::right(Id::Errors, |t| &t.col.errors, 6..=7)
                .cell(|u, _, _| errors_cell(u))
                .hidden(8)
                .sortable(
                    |t| &t.order.errors,
                    |rows| {
                        rows.sort_by_key(|u| Reverse(error_permille(u)));
                    },
                ),
            Column::left(Id::Minutes, |t| &t.col.minutes, 15..=15)
                .cell(|u, _, _| spark_cell(u))
                .hidden(6),
            Column::right(Id::Models, |t| &t.col.models, 6..=6)
                .cell(|u, _, _| cells::optional(u.models.map(|n| format::count(u64::from(n)))))
                .hidden(1),
        ]
    }

    fn rows(app: &App) -> Vec<&UpstreamView> {
        let Some(snapshot) = &app.snapshot else { return Vec::new() };
        let filter = &app.list_state_of(Screen::Upstreams).filter;
        let matches =
            |u: &&UpstreamView| filter.matches_names(&[&u.name, &u.base_url, state_name(u.state)]);
        snapshot.upstreams.iter().filter(matches).collect()
    }

    fn id(u: &&UpstreamView) -> RowId {
        RowId::Name(u.name.clone())
    }

    fn detail_count(u: &&UpstreamView) -> usize {
        usize::from(u.cause.is_some()) + usize::from(u.probe.is_some())
    }

    fn details(
        u: &&UpstreamView,
        now: FrameContext,
        _: &RowDetail<UpstreamColumn>,
    ) -> Vec<Vec<StyledSpan>> {
        let cause = u.cause.iter().map(|cause| vec![span(cause.words(now.text), ThemeRole::Dim)]);
        cause.chain(u.probe.iter().map(|probe| vec![probe_span(probe, now)])).collect()
    }

    fn empty_text(app: &App, now: FrameContext) -> String {
        list::empty_text(app, &now.text.upstreams.empty, &now.text.upstreams.no_match)
    }
}

fn error_permille(u: &UpstreamView) -> u64 {
    u64::from(u.stats.errors) * 1_000 / u64::from(u.stats.attempts.max(1))
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

fn state_name(state: UpstreamState) -> &'static str {
    match state {
        UpstreamState::Cooling => "cooling",
        UpstreamState::Disabled => "disabled",
        UpstreamState::Healthy => "healthy",
        UpstreamState::NoKey => "no_key",
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
        UpstreamState::NoKey => &text.no_key,
        UpstreamState::Open => &text.open,
        UpstreamState::Probing => &text.probing,
    }
}

fn state_cell(u: &UpstreamView, now: FrameContext) -> Vec<StyledSpan> {
    let (glyph, role) = match u.state {
        UpstreamState::Cooling => ("▲", ThemeRole::Warn),
        UpstreamState::Disabled => ("○", ThemeRole::Dim),
        UpstreamState::Healthy => ("●", ThemeRole::Ok),
        UpstreamState::NoKey | UpstreamState::Open => ("✕", ThemeRole::Error),
        UpstreamState::Probing => ("◐", ThemeRole::Accent),
    };
    let calm = if u.state == UpstreamState::Healthy { ThemeRole::Text } else { role };
    let mut spans =
        vec![span(format!("{glyph} "), role), span(state_text(u.state, now.text), calm)];
    if let Some(until) = u.until.filter(|until| until.0 > now.at.0) {
        let left = format::remaining(now.until(until));
        let message = match u.state {
            UpstreamState::Open => fill(&now.text.state.probe_in, &[("span", &left)]),
            _ => format!(" {left}"),
        };
        spans.push(span(message, calm));
    }
    spans
}

fn keys_cell(u: &UpstreamView) -> Vec<StyledSpan> {
    if u.keys == 0 {
        return cells::unknown();
    }
    let role = if u.keys_ready == 0 { ThemeRole::Warn } else { ThemeRole::Text };
    vec![span(format!("{}/{}", u.keys_ready, u.keys), role)]
}

fn errors_cell(u: &UpstreamView) -> Vec<StyledSpan> {
    let text = format::share(u64::from(u.stats.errors), u64::from(u.stats.attempts));
    let role = match (u.stats.errors, u.stats.attempts) {
        (_, 0) => ThemeRole::Dim,
        (0, _) => ThemeRole::Text,
        (errors, attempts) if errors * 2 >= attempts => ThemeRole::Error,
        _ => ThemeRole::Warn,
    };
    vec![span(text, role)]
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
