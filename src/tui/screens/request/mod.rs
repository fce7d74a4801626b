//! What happened to this request, why, and what was said?

mod said;
mod way;

use ratatui::layout::Rect;

use super::live;
use crate::{
    events::record::RequestRecord,
    tui::{
        app::{App, Look, Pane},
        format::{self, Now},
        layout::Layout,
        theme::Role,
        widgets::canvas::{Canvas, Span, span, spans_width},
    },
};

/// From this size on, the panes stand beside each other.
const WIDE: (u16, u16) = (100, 18);

/// Where the panes are. A pane that is not shown has no height.
struct Places {
    /// Above everything shown of `way`, or of the only pane, its titles.
    rule: Rect,
    way: Rect,
    second: Rect,
    conversation: Rect,
    answer: Rect,
    headers: Rect,
    account: Rect,
}

impl Places {
    fn of(area: Rect, look: &Look, way_lines: usize) -> Self {
        let none = Rect { height: 0, ..area };
        let rule = Rect { y: area.y + 1, height: 1.min(area.height.saturating_sub(1)), ..area };
        let rest = Rect { y: area.y + 2, height: area.height.saturating_sub(2), ..area };
        let mut places = Self {
            rule,
            way: none,
            second: none,
            conversation: none,
            answer: none,
            headers: none,
            account: none,
        };
        // The account is long, and says itself what the way does.
        if area.width < WIDE.0 || area.height < WIDE.1 || look.pane == Pane::Account {
            match look.pane {
                Pane::Account => places.account = rest,
                Pane::Answer => places.answer = rest,
                Pane::Conversation => places.conversation = rest,
                Pane::Headers => places.headers = rest,
                Pane::Way => places.way = rest,
            }
            return places;
        }
        // The way takes what it needs, up to half of the room.
        let upper = u16::try_from(way_lines).unwrap_or(u16::MAX).min(rest.height / 2);
        places.way = Rect { height: upper, ..rest };
        places.second = Rect { y: rest.y + upper, height: 1, ..rest };
        let lower =
            Rect { y: rest.y + upper + 1, height: rest.height.saturating_sub(upper + 1), ..rest };
        if look.pane == Pane::Headers {
            places.headers = lower;
            return places;
        }
        let left = lower.width * 2 / 5;
        places.conversation = Rect { width: left, ..lower };
        places.answer = Rect { x: lower.x + left, width: lower.width - left, ..lower };
        places
    }

    fn wide(&self) -> bool {
        self.second.height > 0
    }

    fn pane(&self, pane: Pane) -> Rect {
        match pane {
            Pane::Account => self.account,
            Pane::Answer => self.answer,
            Pane::Conversation => self.conversation,
            Pane::Headers => self.headers,
            Pane::Way => self.way,
        }
    }
}

/// How far the pane that has the keys can be scrolled.
pub(super) fn most(app: &App, now: Now, look: &Look) -> u16 {
    let Some(r) = app.request(look.id) else { return 0 };
    let (columns, rows) = app.size;
    let now = app.live_now(now);
    let places = Places::of(
        Layout::of(app, columns, rows, now).body,
        look,
        way::lines(app, r, now, columns).len(),
    );
    let place = places.pane(look.pane);
    beyond(pane(app, r, now, look, look.pane, place.width).len(), place.height)
}

fn beyond(lines: usize, height: u16) -> u16 {
    u16::try_from(lines.saturating_sub(usize::from(height))).unwrap_or(u16::MAX)
}

fn pane(
    app: &App,
    r: &RequestRecord,
    now: Now,
    look: &Look,
    pane: Pane,
    columns: u16,
) -> Vec<Vec<Span>> {
    let room = usize::from(columns.saturating_sub(4));
    match pane {
        Pane::Account => said::account(app, r, now, room),
        Pane::Answer => said::answer(app, r, now, room),
        Pane::Conversation => said::conversation(app, r, now, look.unfolded, room),
        Pane::Headers => said::headers(app, look.id, now, room),
        Pane::Way => way::lines(app, r, now, columns),
    }
}

pub(super) fn draw(app: &App, now: Now, canvas: &mut Canvas<'_>, area: Rect, look: &Look) {
    let Some(r) = app.request(look.id) else {
        let said = if app.told(look.id).is_some() {
            &now.text.request.gone
        } else {
            &now.text.usage.loading
        };
        canvas.put(area.x + 1, area.y, area.width.saturating_sub(2), said, Role::Dim);
        return;
    };
    head(r, now, canvas, area);
    let places = Places::of(area, look, way::lines(app, r, now, area.width).len());
    titles(look, now, canvas, area, &places);
    for each in Pane::ALL {
        let place = places.pane(each);
        if place.height == 0 {
            continue;
        }
        let lines = pane(app, r, now, look, each, place.width);
        let most = beyond(lines.len(), place.height);
        let follows = each == Pane::Answer && look.follow;
        let from = if follows { most } else { look.scroll[each as usize].min(most) };
        for (line, y) in lines.iter().skip(usize::from(from)).zip(place.y..place.bottom()) {
            canvas.spans(place.x + 3, y, place.width.saturating_sub(4), line);
        }
        if places.wide() && each == Pane::Answer {
            for y in place.y..place.bottom() {
                canvas.put(place.x, y, 1, "│", Role::Dim);
            }
        }
    }
}

/// The names of the panes in their rules; the one that has the keys stands out.
fn titles(look: &Look, now: Now, canvas: &mut Canvas<'_>, area: Rect, places: &Places) {
    let text = &now.text.request;
    let name = |pane: Pane| match pane {
        Pane::Account => &text.account,
        Pane::Answer => &text.answer,
        Pane::Conversation => &text.conversation,
        Pane::Headers => &text.headers,
        Pane::Way => &text.way,
    };
    let title = |canvas: &mut Canvas<'_>, x: u16, y: u16, pane: Pane| {
        let here = pane == look.pane;
        let said = [span(format!(" {} ", name(pane)), if here { Role::Accent } else { Role::Dim })];
        let end = canvas.spans(x, y, area.right().saturating_sub(x), &said);
        if here {
            canvas.select(Rect { x, y, width: end.saturating_sub(x), height: 1 });
        }
        end
    };
    canvas.rule(area, places.rule.y);
    if !places.wide() {
        let mut x = area.x + 1;
        for pane in Pane::ALL {
            x = title(canvas, x, places.rule.y, pane) + 1;
        }
        return;
    }
    title(canvas, area.x + 1, places.rule.y, Pane::Way);
    canvas.rule(area, places.second.y);
    if look.pane == Pane::Headers {
        title(canvas, area.x + 1, places.second.y, Pane::Headers);
        return;
    }
    title(canvas, places.conversation.x + 1, places.second.y, Pane::Conversation);
    title(canvas, places.answer.x + 1, places.second.y, Pane::Answer);
}

fn head(r: &RequestRecord, now: Now, canvas: &mut Canvas<'_>, area: Rect) {
    let mut right = live::state(r, now, 20);
    let mut add = |text: String| right.push(span(format!(" · {text}"), Role::Text));
    add(format::took(r.duration_ms.map_or_else(|| now.since(r.at), u64::from)));
    if area.width >= 80 {
        add(live::tokens(r));
        if let Some(usage) = r.usage.filter(|usage| usage.cache_read > 0 && area.width >= 100) {
            let share = format::share(usage.cache_read, usage.input_total().max(20));
            add(crate::tui::text::fill(&now.text.top.cache, &[("share", &share)]));
        }
        if let Some(cost) = r.cost.filter(|cost| cost.usd.is_some()) {
            add(cost.to_string());
        }
    }
    right.push(span(" ", Role::Text));
    let from = area.right().saturating_sub(spans_width(&right)).max(area.x + 8);
    canvas.spans(from, area.y, area.right().saturating_sub(from), &right);
    let id = r.id.to_string();
    let id = if area.width < 140 { format!("…{}", &id[id.len() - 4..]) } else { id };
    let left = [
        span(format!("{} {id}  ", now.text.screen.request.to_lowercase()), Role::Dim),
        span(&*r.project, Role::Text),
        span(" · ", Role::Dim),
        span(&*r.requested_model, Role::Accent),
    ];
    canvas.spans(area.x + 1, area.y, from.saturating_sub(area.x + 2), &left);
}
