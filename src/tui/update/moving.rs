//! Moving about: scrolling, and opening what a row stands for.

use super::{refresh::refresh, show, toast};
use crate::{
    base::id::RequestId,
    events::{kind::Severity, record::RequestRecord},
    tui::{
        app::{App, Look, Over, Pane, RowId},
        effect::Effect,
        format::Now,
        screens::{self, Screen},
    },
};

pub(super) fn scroll(app: &mut App, by: isize, now: Now) {
    let most = screens::over_lines(app, now);
    let moved = |from: u16| {
        u16::try_from(usize::from(from).saturating_add_signed(by)).unwrap_or(u16::MAX).min(most)
    };
    match &mut app.over {
        Some(Over::Help { scroll, .. } | Over::Problems { scroll, .. }) => *scroll = moved(*scroll),
        Some(Over::Request(look)) => {
            let follows = look.follow && look.pane == Pane::Answer;
            let scroll = &mut look.scroll[look.pane as usize];
            *scroll = moved(if follows { most } else { *scroll });
            if look.pane == Pane::Answer {
                look.follow = *scroll >= most;
            }
        }
        None => app.step(by),
    }
}

pub(super) fn top(app: &mut App) {
    match &mut app.over {
        Some(Over::Help { scroll, .. } | Over::Problems { scroll, .. }) => *scroll = 0,
        Some(Over::Request(look)) => {
            look.scroll[look.pane as usize] = 0;
            look.follow &= look.pane != Pane::Answer;
        }
        None => app.place_mut().selected = None,
    }
}

pub(super) fn look_at(app: &mut App, id: RequestId, now: Now) -> Vec<Effect> {
    let mut look = Look::at(id);
    // What has ended is read from its beginning.
    look.follow = app.request(id).is_some_and(RequestRecord::is_running);
    app.over = Some(Over::Request(look));
    (app.story, app.account) = (None, None);
    app.reading.stale = true;
    refresh(app, now)
}

pub(super) fn open(app: &mut App, now: Now) -> Vec<Effect> {
    let Some(current) = app.current() else { return Vec::new() };
    match (app.screen, current) {
        (_, RowId::Request(id)) => {
            app.select(RowId::Request(id));
            return look_at(app, id, now);
        }
        (Screen::Log, line) => match screens::request_of(app, &line) {
            Some(id) => {
                app.select(line);
                return look_at(app, id, now);
            }
            None => toast(app, now.text.toast.no_single.clone(), Severity::Info, now),
        },
        (Screen::Keys, RowId::Name(name)) => return show(app, Screen::Log, &name, now),
        (Screen::Upstreams, RowId::Name(name)) => {
            return show(app, Screen::Live, &format!("upstream:{name}"), now);
        }
        (Screen::Usage, RowId::Name(name)) => {
            if let Some(filter) = screens::usage_filter(app, &name) {
                return show(app, Screen::Log, &filter, now);
            }
        }
        _ => {}
    }
    Vec::new()
}
