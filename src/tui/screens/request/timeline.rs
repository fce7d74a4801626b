//! The timeline of a request: routing decisions, attempts over time, and numbers.

use crate::{
    base::sanitize::{clean, display_width},
    events::record::{AttemptRecord, AttemptRole, RequestRecord},
    tui::{
        app::App,
        format::{self, FrameContext, UNKNOWN},
        reason_words::ReasonWords,
        strings::fill,
        theme::ThemeRole,
        widgets::{
            canvas::{StyledSpan, span, spans_width},
            wrap,
        },
    },
};

/// The header in which the relay names the fields lost in translation.
const LOSSES_HEADER: &str = "x-aiproxy-losses";
/// Upper bound for the lines of an attempt's result, and their indentation.
const MAX_REASON_LINES: usize = 6;
const REASON_INDENT: usize = 9;
/// Upper bound for the lines of an error.
const MAX_ERROR_LINES: usize = 8;

pub(super) fn lines(
    app: &App,
    r: &RequestRecord,
    now: FrameContext,
    columns: u16,
) -> Vec<Vec<StyledSpan>> {
    let text = &now.text.request;
    let max_width = usize::from(columns.saturating_sub(4));
    let mut lines = Vec::new();
    if let Some(reason) = &r.reason {
        let message = format!("{}: {}", text.why, reason.words(now.text));
        lines.extend(
            wrap::wrap(&message, max_width, 3)
                .into_iter()
                .map(|line| vec![span(line, ThemeRole::Text)]),
        );
    }
    if r.attempts.is_empty() {
        lines.push(vec![span(text.none.clone(), ThemeRole::Dim)]);
    }
    let total = r.duration_ms.map_or_else(|| now.since(r.at), u64::from).max(1);
    for a in &r.attempts {
        push_attempt(a, total, now, columns, &mut lines);
    }
    if let Some(story) = app.transcript_of(r.id)
        && let Some((_, lost)) =
            story.response_headers.iter().find(|(name, _)| name == LOSSES_HEADER)
    {
        lines.push(vec![
            span(format!("{}: ", text.lost), ThemeRole::Warn),
            span(lost.clone(), ThemeRole::Text),
        ]);
    }
    if let Some(lost) = &r.cache_miss {
        let message = format!("{}: {}", text.cache_lost, lost.words(now.text));
        let role = if lost.is_benign { ThemeRole::Dim } else { ThemeRole::Warn };
        lines.extend(
            wrap::wrap(&message, max_width, 3).into_iter().map(|line| vec![span(line, role)]),
        );
    }
    if let Some(error) = &r.error {
        let message = format!("{}: {error}", text.error);
        lines.extend(
            wrap::wrap(&message, max_width, MAX_ERROR_LINES)
                .into_iter()
                .map(|line| vec![span(line, ThemeRole::Error)]),
        );
    }
    lines.push(Vec::new());
    lines.extend(number_lines(app, r, now, max_width));
    lines
}

/// One bar per attempt on a shared time axis: ▒ waits for the head, ░ streams. The result is next
/// to the bar, or below it if there is no space.
fn push_attempt(
    a: &AttemptRecord,
    total: u64,
    now: FrameContext,
    columns: u16,
    lines: &mut Vec<Vec<StyledSpan>>,
) {
    let text = &now.text.request;
    let narrow = columns < 100;
    let max_width = u64::from(if narrow {
        (columns / 3).clamp(8, 30)
    } else {
        (columns * 2 / 5).clamp(30, 80)
    });
    let column = |ms: u32| u64::from(ms).min(total) * max_width / total;
    let (start, end) = (
        column(a.started_ms),
        a.ended_ms.map_or(max_width, column).max(column(a.started_ms) + 1).min(max_width),
    );
    let start = start.min(end.saturating_sub(1));
    let head = a.head_ms.map_or(end, column).clamp(start, end);
    let part = |glyph: &str, n: u64| glyph.repeat(usize::try_from(n).unwrap_or(0));
    let [before, waits, streams, after] = [
        part(" ", start),
        part("▒", head - start),
        part("░", end - head),
        part(" ", max_width - end),
    ];
    let key = if a.key.is_empty() { String::new() } else { format!("/{}", a.key) };
    let (result, role) = match (&a.outcome, a.won, a.ended_ms) {
        (Some(outcome), ..) => (outcome.words(now.text), ThemeRole::Warn),
        (None, true, _) => {
            (a.status.map_or_else(|| text.answered.clone(), |s| s.to_string()), ThemeRole::Ok)
        }
        (None, false, Some(_)) => {
            (a.status.map_or_else(|| text.ended.clone(), |s| s.to_string()), ThemeRole::Text)
        }
        (None, false, None) => (text.under_way.clone(), ThemeRole::Accent),
    };
    let billed =
        if a.maybe_billed && !a.won { format!(" · {}", text.billed) } else { String::new() };
    let mut line = vec![
        span(format!("{:>6} │{before}", format::duration(u64::from(a.started_ms))), ThemeRole::Dim),
        span(waits, ThemeRole::Accent),
        span(streams, if a.outcome.is_some() { ThemeRole::Warn } else { ThemeRole::Ok }),
        span(format!("{after}│ "), ThemeRole::Dim),
        span(format!("{} {}{key}", a.number, a.upstream), ThemeRole::Text),
    ];
    match a.role {
        AttemptRole::Primary => {}
        AttemptRole::Hedge => line.push(span(format!("  {}", text.hedge), ThemeRole::Accent)),
        AttemptRole::Rescue => line.push(span(format!("  {}", text.rescue), ThemeRole::Accent)),
    }
    let message = format!("{result}{billed}");
    let model = span(format!("  {}  ", a.model), ThemeRole::Dim);
    if narrow {
        lines.push(line);
        line = vec![span(" ".repeat(REASON_INDENT - 2), ThemeRole::Dim), model];
    } else {
        line.push(model);
    }
    let all = usize::from(columns.saturating_sub(4));
    if usize::from(spans_width(&line)) + display_width(&clean(&message)) <= all {
        line.push(span(message, role));
        lines.push(line);
        return;
    }
    lines.push(line);
    let under = wrap::wrap(&message, all.saturating_sub(REASON_INDENT), MAX_REASON_LINES);
    lines.extend(
        under
            .into_iter()
            .map(|piece| vec![span(format!("{}{piece}", " ".repeat(REASON_INDENT)), role)]),
    );
}

/// A session's name and the cached share of its recent requests, as far as they are in memory.
fn session_text(app: &App, name: &str, now: FrameContext) -> String {
    let all = app
        .live()
        .into_iter()
        .flat_map(|live| &live.recent)
        .filter(|r| r.session.as_deref() == Some(name));
    let (mut requests, mut input, mut cached, mut won) = (0_u64, 0_u64, 0_u64, 0_u64);
    for r in all {
        let Some(usage) = r.usage else { continue };
        requests += 1;
        input = input.saturating_add(usage.input_total());
        cached = cached.saturating_add(usage.cache_read);
        won = won.saturating_add(r.affinity_cached_tokens());
    }
    // A single request already shows the same numbers itself.
    if cached == 0 || requests < 2 {
        return name.to_owned();
    }
    let (n, share, won) = (
        format::count(requests),
        format::share(cached, input.max(20)),
        format::share(won, input.max(20)),
    );
    format!(
        "{name} ({})",
        fill(&now.text.request.session_cache, &[("n", &n), ("share", &share), ("won", &won)])
    )
}

/// Labelled numbers, as many per line as fit.
fn number_lines(
    app: &App,
    r: &RequestRecord,
    now: FrameContext,
    max_width: usize,
) -> Vec<Vec<StyledSpan>> {
    let text = &now.text.request;
    let unknown = || UNKNOWN.to_owned();
    let time = |ms: Option<u32>| ms.map_or_else(unknown, |ms| format::duration(u64::from(ms)));
    let count = format::count;
    let how = if r.stream { &text.streamed } else { &text.whole };
    let speed = r.tokens_per_second(now.at).map_or_else(unknown, |rate| format!("{rate:.1} tok/s"));
    let input = r.usage.map_or_else(unknown, |u| {
        let written = u.cache_write_5m.saturating_add(u.cache_write_1h);
        let mut message = count(u.input_total());
        if u.cache_read > 0 || written > 0 {
            let (fresh, cached, written) = (count(u.input), count(u.cache_read), count(written));
            message = fill(
                &text.split,
                &[("all", &message), ("fresh", &fresh), ("cached", &cached), ("written", &written)],
            );
        }
        if r.affinity_cached_tokens() > 0 {
            message = format!("{message} {}", text.won);
        }
        message
    });
    let output = r.usage.map_or_else(unknown, |u| match u.reasoning {
        0 => count(u.output_total()),
        reasoning => {
            format!("{} ({} {})", count(u.output_total()), count(reasoning), text.thinking)
        }
    });
    let all = [
        (&text.began, format!("{} · {} {} · {how}", format::date_time(r.at, now), r.dialect, r.op)),
        (&text.client, if r.client.is_empty() { unknown() } else { r.client.to_string() }),
        (
            &text.session,
            r.session.as_deref().map_or_else(unknown, |name| session_text(app, name, now)),
        ),
        (&text.first, time(r.ttft_ms)),
        (&text.took, time(r.duration_ms)),
        (&text.speed, speed),
        (&text.input, input),
        (&text.output, output),
        (&text.cost, r.cost.map_or_else(unknown, |cost| cost.to_string())),
        (&text.bytes, format!("{}→{}", count(r.request_bytes), count(r.answer_bytes))),
        (&text.finish, r.finish.as_deref().map_or_else(unknown, str::to_owned)),
    ];
    // Most requests have no session, so the line is omitted.
    let shown_numbers =
        all.iter().filter(|(name, value)| *name != &text.session || value != UNKNOWN);
    wrap::flow(
        shown_numbers.map(|(name, value)| {
            vec![span(format!("{name} "), ThemeRole::Dim), span(value.clone(), ThemeRole::Text)]
        }),
        max_width,
    )
}
