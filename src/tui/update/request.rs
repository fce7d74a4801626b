//! Actions on one request: cancel, copy, replay.

use crate::{
    base::id::RequestId,
    control::{action::Action, request_transcript::TranscriptQuery},
    events::{event::Severity, record::RequestRecord},
    tui::{
        app::{App, Dialog, Overlay, RowId},
        curl,
        effect::Effect,
        format::FrameContext,
        selection::current_row,
        strings::fill,
    },
};

/// Upper bound for the texts that are printed on exit.
const MAX_COPIED: usize = 10;

pub(super) fn current_request(app: &App) -> Option<&RequestRecord> {
    match (&app.overlay, current_row(app)) {
        (Some(Overlay::Request(view)), _) => app.request(view.id),
        (None, Some(RowId::Request(id))) => app.request(id),
        _ => None,
    }
}

pub(super) fn ask_to_kill(app: &mut App, now: FrameContext) {
    match current_request(app) {
        Some(r) if r.is_running() => {
            let question =
                fill(&now.text.ask.kill, &[("project", &r.project), ("model", &r.requested_model)]);
            let id = r.id.to_string();
            app.ask_confirmation(question, Effect::Action(Action::Kill { id }));
        }
        Some(_) => app.show_toast(now.text.toast.ended_already.clone(), Severity::Info, now),
        None => app.show_toast(now.text.toast.none_selected.clone(), Severity::Info, now),
    }
}

/// Asks for the model; the default is the original one.
pub(super) fn ask_to_replay(app: &mut App, now: FrameContext) {
    match current_request(app) {
        Some(r) => {
            app.dialog = Some(Dialog::Replay { id: r.id, model: r.requested_model.to_string() });
        }
        None => app.show_toast(now.text.toast.none_selected.clone(), Severity::Info, now),
    }
}

pub(super) fn copy_menu(app: &mut App, now: FrameContext) -> Vec<Effect> {
    let Some(snapshot) = &app.snapshot else { return Vec::new() };
    if let Some(r) = current_request(app) {
        let (id, curl) = (r.id, curl::hello_command(snapshot, &r.requested_model));
        app.dialog = Some(Dialog::Copy { id, curl });
        // The stored bytes make a more exact command, if there are any.
        let query = TranscriptQuery { only_answer: false, raw: true };
        return if app.request_view().is_some() {
            vec![Effect::FetchTranscript { id, query }]
        } else {
            Vec::new()
        };
    }
    let curl = curl::hello_command(snapshot, curl::first_model(snapshot));
    copy_text(app, curl, &now.text.toast.the_curl, now)
}

pub(super) fn copy_text(app: &mut App, text: String, what: &str, now: FrameContext) -> Vec<Effect> {
    app.show_toast(fill(&now.text.toast.copied, &[("what", what)]), Severity::Info, now);
    if app.copied.len() >= MAX_COPIED {
        app.copied.remove(0);
    }
    app.copied.push(text.clone());
    vec![Effect::Copy(text)]
}

pub(super) fn copy_answer(app: &mut App, id: RequestId, now: FrameContext) -> Vec<Effect> {
    let parts = app
        .transcript_of(id)
        .map(|story| story.answer.iter().map(|part| part.text.as_str()).collect::<Vec<_>>());
    match parts.map(|parts| parts.join("\n")).filter(|text| !text.is_empty()) {
        Some(text) => copy_text(app, text, &now.text.toast.the_answer, now),
        None => {
            app.show_toast(now.text.toast.nothing_said.clone(), Severity::Info, now);
            Vec::new()
        }
    }
}
