//! Acts on one request: ending, copying, sending again.

use super::{ask, refresh::looked_at, toast};
use crate::{
    base::id::RequestId,
    control::{action::Action, story::TranscriptQuery},
    events::{kind::Severity, record::RequestRecord},
    tui::{
        app::{App, Dialog, Over, RowId},
        curl,
        effect::Effect,
        format::Now,
        screens,
        text::fill,
    },
};

/// Texts that are printed when the reader leaves.
const COPIED: usize = 10;

pub(super) fn subject(app: &App) -> Option<&RequestRecord> {
    match (&app.over, app.current()) {
        (Some(Over::Request(look)), _) => app.request(look.id),
        (None, Some(RowId::Request(id))) => app.request(id),
        _ => None,
    }
}

pub(super) fn ask_to_kill(app: &mut App, now: Now) {
    match subject(app) {
        Some(r) if r.is_running() => {
            let question =
                fill(&now.text.ask.kill, &[("project", &r.project), ("model", &r.requested_model)]);
            let id = r.id.to_string();
            ask(app, question, Effect::Act(Action::Kill { id }));
        }
        Some(_) => toast(app, now.text.toast.ended_already.clone(), Severity::Info, now),
        None => toast(app, now.text.toast.none_selected.clone(), Severity::Info, now),
    }
}

/// Asks to which model; the one of the first time stands there.
pub(super) fn ask_to_replay(app: &mut App, now: Now) {
    match subject(app) {
        Some(r) => {
            app.dialog = Some(Dialog::Replay { id: r.id, model: r.requested_model.to_string() })
        }
        None => toast(app, now.text.toast.none_selected.clone(), Severity::Info, now),
    }
}

pub(super) fn copy_menu(app: &mut App, now: Now) -> Vec<Effect> {
    let Some(snapshot) = &app.snapshot else { return Vec::new() };
    if let Some(r) = subject(app) {
        let (id, curl) = (r.id, curl::hello(snapshot, &r.requested_model));
        app.dialog = Some(Dialog::Copy { id, curl });
        // The bytes of the request make a better command, where they are kept.
        let wish = TranscriptQuery { only_answer: false, raw: true };
        return if looked_at(app).is_some() {
            vec![Effect::FetchStory { id, wish }]
        } else {
            Vec::new()
        };
    }
    let curl = curl::hello(snapshot, screens::first_model(snapshot));
    copy(app, curl, &now.text.toast.the_curl, now)
}

pub(super) fn copy(app: &mut App, text: String, what: &str, now: Now) -> Vec<Effect> {
    toast(app, fill(&now.text.toast.copied, &[("what", what)]), Severity::Info, now);
    if app.copied.len() >= COPIED {
        app.copied.remove(0);
    }
    app.copied.push(text.clone());
    vec![Effect::Copy(text)]
}

pub(super) fn copy_answer(app: &mut App, id: RequestId, now: Now) -> Vec<Effect> {
    let parts = app
        .told(id)
        .map(|story| story.answer.iter().map(|part| part.text.as_str()).collect::<Vec<_>>());
    match parts.map(|parts| parts.join("\n")).filter(|text| !text.is_empty()) {
        Some(text) => copy(app, text, &now.text.toast.the_answer, now),
        None => {
            toast(app, now.text.toast.nothing_said.clone(), Severity::Info, now);
            Vec::new()
        }
    }
}
