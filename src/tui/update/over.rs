//! What lies over a screen: a request and its panes, the page of keys, the list of problems.

use super::refresh::refresh;
use crate::{
    events::filter::Filter,
    tui::{
        app::{App, Look, Over, Pane},
        effect::Effect,
        format::Now,
    },
};

pub(super) fn back(app: &mut App) {
    match app.over.take() {
        Some(Over::Help { under: Some(look), .. } | Over::Problems { under: Some(look), .. }) => {
            app.over = Some(Over::Request(*look))
        }
        // What was said is not held longer than it is looked at.
        Some(_) => (app.story, app.account) = (None, None),
        None => {
            let place = app.place_mut();
            place.filter = Filter::default();
            place.selected = None;
        }
    }
}

pub(super) fn turn(app: &mut App, steps: usize, now: Now) -> Vec<Effect> {
    if let Some(Over::Request(look)) = &mut app.over {
        look.pane = look.pane.after(steps);
    }
    refresh(app, now)
}

/// Goes to a pane; from there, back to the first.
pub(super) fn show_pane(app: &mut App, pane: Pane) {
    if let Some(Over::Request(look)) = &mut app.over {
        look.pane = if look.pane == pane { Pane::Way } else { pane };
    }
}

/// The request that something lies over.
fn beneath(over: Option<Over>) -> Option<Box<Look>> {
    match over? {
        Over::Help { under, .. } | Over::Problems { under, .. } => under,
        Over::Request(look) => Some(Box::new(look)),
    }
}

/// Opens the list of all problems, or closes it.
pub(super) fn show_problems(app: &mut App) {
    app.over = match app.over.take() {
        Some(Over::Problems { under, .. }) => under.map(|look| Over::Request(*look)),
        over => Some(Over::Problems { scroll: 0, under: beneath(over) }),
    };
}

/// Opens the page of all keys, or closes it.
pub(super) fn show_help(app: &mut App) {
    app.over = match app.over.take() {
        Some(Over::Help { under, .. }) => under.map(|look| Over::Request(*look)),
        over => Some(Over::Help { scroll: 0, under: beneath(over) }),
    };
}

/// Shows long system messages as a whole, or as a line again.
pub(super) fn unfold(app: &mut App) {
    if let Some(Over::Request(look)) = &mut app.over {
        look.unfolded = !look.unfolded;
        look.pane = Pane::Conversation;
        look.scroll[Pane::Conversation as usize] = 0;
    }
}

/// Shows bytes as they were, or what they say again.
pub(super) fn show_raw(app: &mut App) {
    if let Some(Over::Request(look)) = &mut app.over {
        look.raw = !look.raw;
        look.scroll = Look::at(look.id).scroll;
        if !matches!(look.pane, Pane::Answer | Pane::Conversation) {
            look.pane = Pane::Answer;
        }
    }
}
