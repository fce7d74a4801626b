//! The Request screen: the attempts of one request, the reasons, and its messages.

mod timeline;
mod transcript;

use ratatui::layout::Rect;

use crate::{
    events::record::RequestRecord,
    tui::{
        app::{App, Pane, RequestView},
        format::{self, FrameContext},
        layout::Layout,
        screens::live::cells::{state_cell, tokens_text},
        theme::ThemeRole,
        widgets::canvas::{Canvas, StyledSpan, span, spans_width},
    },
};

/// Minimum size for panes side by side.
const MIN_SPLIT_SIZE: (u16, u16) = (100, 18);

/// The areas of the panes. A hidden pane has no height.
struct PaneAreas {
    /// The titles, above all areas shown for `timeline` or for the single pane.
    rule: Rect,
    timeline: Rect,
    second_rule: Rect,
    conversation: Rect,
    answer: Rect,
    headers: Rect,
    explain: Rect,
}

impl PaneAreas {
    fn compute(area: Rect, view: &RequestView, way_lines: usize) -> Self {
        let none = Rect { height: 0, ..area };
        let rule = Rect { y: area.y + 1, height: 1.min(area.height.saturating_sub(1)), ..area };
        let rest = Rect { y: area.y + 2, height: area.height.saturating_sub(2), ..area };
        let mut areas = Self {
            rule,
            timeline: none,
            second_rule: none,
            conversation: none,
            answer: none,
            headers: none,
            explain: none,
        };
        // The explanation is long and includes the content of the timeline.
        if area.width < MIN_SPLIT_SIZE.0
            || area.height < MIN_SPLIT_SIZE.1
            || view.pane == Pane::Explain
        {
            match view.pane {
                Pane::Explain => areas.explain = rest,
                Pane::Answer => areas.answer = rest,
                Pane::Conversation => areas.conversation = rest,
                Pane::Headers => areas.headers = rest,
                Pane::Timeline => areas.timeline = rest,
            }
            return areas;
        }
        // The timeline takes the height it needs, up to half of the area.
        let upper = u16::try_from(way_lines).unwrap_or(u16::MAX).min(rest.height / 2);
        areas.timeline = Rect { height: upper, ..rest };
        areas.second_rule = Rect { y: rest.y + upper, height: 1, ..rest };
        let lower =
            Rect { y: rest.y + upper + 1, height: rest.height.saturating_sub(upper + 1), ..rest };
        if view.pane == Pane::Headers {
            areas.headers = lower;
            return areas;
        }
        let left = lower.width * 2 / 5;
        areas.conversation = Rect { width: left, ..lower };
        areas.answer = Rect { x: lower.x + left, width: lower.width - left, ..lower };
        areas
    }

    fn is_split(&self) -> bool {
        self.second_rule.height > 0
    }

    fn area_of(&self, pane: Pane) -> Rect {
        match pane {
            Pane::Explain => self.explain,
            Pane::Answer => self.answer,
            Pane::Conversation => self.conversation,
            Pane::Headers => self.headers,
            Pane::Timeline => self.timeline,
        }
    }
}

/// How far the focused pane can be scrolled.
pub(super) fn max_scroll(app: &App, now: FrameContext, view: &RequestView) -> u16 {
    let Some(r) = app.request(view.id) else { return 0 };
    let (columns, rows) = app.size;
    let now = app.live_now(now);
    let areas = PaneAreas::compute(
        Layout::compute(app, columns, rows, now).body,
        view,
        timeline::lines(app, r, now, columns).len(),
    );
    let rect = areas.area_of(view.pane);
    overflow_lines(pane_lines(app, r, now, view, view.pane, rect.width).len(), rect.height)
}

fn overflow_lines(lines: usize, height: u16) -> u16 {
    u16::try_from(lines.saturating_sub(usize::from(height))).unwrap_or(u16::MAX)
}

fn pane_lines(
    app: &App,
    r: &RequestRecord,
    now: FrameContext,
    view: &RequestView,
    pane: Pane,
    columns: u16,
) -> Vec<Vec<StyledSpan>> {
    let max_width = usize::from(columns.saturating_sub(4));
    match pane {
        Pane::Explain => transcript::explain(app, r, now, max_width),
        Pane::Answer => transcript::answer(app, r, now, max_width),
        Pane::Conversation => transcript::conversation(app, r, now, view.expanded, max_width),
        Pane::Headers => transcript::headers(app, view.id, now, max_width),
        Pane::Timeline => timeline::lines(app, r, now, columns),
    }
}

pub(super) fn draw(
    app: &App,
    now: FrameContext,
    canvas: &mut Canvas<'_>,
    area: Rect,
    view: &RequestView,
) {
    let Some(r) = app.request(view.id) else {
        let message = if app.transcript_of(view.id).is_some() {
            &now.text.request.gone
        } else {
            &now.text.usage.loading
        };
        canvas.put(area.x + 1, area.y, area.width.saturating_sub(2), message, ThemeRole::Dim);
        return;
    };
    draw_head(r, now, canvas, area);
    let areas = PaneAreas::compute(area, view, timeline::lines(app, r, now, area.width).len());
    draw_titles(view, now, canvas, area, &areas);
    for each in Pane::ALL {
        let rect = areas.area_of(each);
        if rect.height == 0 {
            continue;
        }
        let lines = pane_lines(app, r, now, view, each, rect.width);
        let max_scroll_lines = overflow_lines(lines.len(), rect.height);
        let follows = each == Pane::Answer && view.follow;
        let from = if follows {
            max_scroll_lines
        } else {
            view.scroll[each as usize].min(max_scroll_lines)
        };
        for (line, y) in lines.iter().skip(usize::from(from)).zip(rect.y..rect.bottom()) {
            canvas.spans(rect.x + 3, y, rect.width.saturating_sub(4), line);
        }
        if areas.is_split() && each == Pane::Answer {
            for y in rect.y..rect.bottom() {
                canvas.put(rect.x, y, 1, "│", ThemeRole::Dim);
            }
        }
    }
}

/// Draws a request under a list: its head, its attempts and the end of its answer.
pub(super) fn draw_preview(
    app: &App,
    now: FrameContext,
    canvas: &mut Canvas<'_>,
    area: Rect,
    r: &RequestRecord,
) {
    canvas.rule(area, area.y);
    let rest = Rect { y: area.y + 1, height: area.height.saturating_sub(1), ..area };
    draw_head(r, now, canvas, rest);
    let body = Rect { y: rest.y + 1, height: rest.height.saturating_sub(1), ..rest };
    let attempts = timeline::lines(app, r, now, area.width);
    let half = usize::from(body.height / 2);
    let used = u16::try_from(attempts.len().min(half)).unwrap_or(0);
    for (line, y) in attempts.iter().take(half).zip(body.y..) {
        canvas.spans(body.x + 3, y, body.width.saturating_sub(4), line);
    }
    let rule = body.y + used;
    canvas.rule(area, rule);
    let title = [span(format!(" {} ", now.text.request.answer), ThemeRole::Dim)];
    canvas.spans(area.x + 1, rule, area.width.saturating_sub(2), &title);
    let height = body.height.saturating_sub(used + 1);
    let answer = transcript::answer(app, r, now, usize::from(area.width.saturating_sub(4)));
    let hidden = if r.is_running() { overflow_lines(answer.len(), height) } else { 0 };
    for (line, y) in answer.iter().skip(usize::from(hidden)).zip(rule + 1..body.bottom()) {
        canvas.spans(body.x + 3, y, body.width.saturating_sub(4), line);
    }
}

/// The pane titles in the rules; the focused pane is highlighted.
fn draw_titles(
    view: &RequestView,
    now: FrameContext,
    canvas: &mut Canvas<'_>,
    area: Rect,
    areas: &PaneAreas,
) {
    let text = &now.text.request;
    let name = |pane: Pane| match pane {
        Pane::Explain => &text.account,
        Pane::Answer => &text.answer,
        Pane::Conversation => &text.conversation,
        Pane::Headers => &text.headers,
        Pane::Timeline => &text.way,
    };
    let title = |canvas: &mut Canvas<'_>, x: u16, y: u16, pane: Pane| {
        let is_current = pane == view.pane;
        let message = [span(
            format!(" {} ", name(pane)),
            if is_current { ThemeRole::Accent } else { ThemeRole::Dim },
        )];
        let end = canvas.spans(x, y, area.right().saturating_sub(x), &message);
        if is_current {
            canvas.highlight(Rect { x, y, width: end.saturating_sub(x), height: 1 });
        }
        end
    };
    canvas.rule(area, areas.rule.y);
    if !areas.is_split() {
        let mut x = area.x + 1;
        for pane in Pane::ALL {
            x = title(canvas, x, areas.rule.y, pane) + 1;
        }
        return;
    }
    title(canvas, area.x + 1, areas.rule.y, Pane::Timeline);
    canvas.rule(area, areas.second_rule.y);
    if view.pane == Pane::Headers {
        title(canvas, area.x + 1, areas.second_rule.y, Pane::Headers);
        return;
    }
    title(canvas, areas.conversation.x + 1, areas.second_rule.y, Pane::Conversation);
    title(canvas, areas.answer.x + 1, areas.second_rule.y, Pane::Answer);
}

fn draw_head(r: &RequestRecord, now: FrameContext, canvas: &mut Canvas<'_>, area: Rect) {
    let mut right = state_cell(r, now, 20);
    let mut add = |text: String| right.push(span(format!(" · {text}"), ThemeRole::Text));
    add(format::duration(r.duration_ms.map_or_else(|| now.since(r.at), u64::from)));
    if area.width >= 80 {
        add(tokens_text(r));
        if let Some(usage) = r.usage.filter(|usage| usage.cache_read > 0 && area.width >= 100) {
            let share = format::share(usage.cache_read, usage.input_total().max(20));
            add(crate::tui::strings::fill(&now.text.top.cache, &[("share", &share)]));
        }
        if let Some(cost) = r.cost.filter(|cost| cost.usd.is_some()) {
            add(cost.to_string());
        }
    }
    right.push(span(" ", ThemeRole::Text));
    let from = area.right().saturating_sub(spans_width(&right)).max(area.x + 8);
    canvas.spans(from, area.y, area.right().saturating_sub(from), &right);
    let id = if area.width < 140 { format::short_id(r.id) } else { r.id.to_string() };
    let left = [
        span(format!("{} {id}  ", now.text.screen.request.to_lowercase()), ThemeRole::Dim),
        span(&*r.project, ThemeRole::Text),
        span(" · ", ThemeRole::Dim),
        span(&*r.requested_model, ThemeRole::Accent),
    ];
    canvas.spans(area.x + 1, area.y, from.saturating_sub(area.x + 2), &left);
}
