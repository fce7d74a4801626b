//! The one table of keys: what a key does where, and how the bottom line and the help page say it.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::{
    app::{App, Over},
    screens::Screen,
    text::{Texts, Word},
};

/// What a key press means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    Back,
    Began,
    Bottom,
    Cool,
    Copy,
    Days,
    Down,
    Edit,
    Explain,
    Filter,
    Go(Screen),
    Group,
    Headers,
    Help,
    Kill,
    NextPane,
    NextScreen,
    Open,
    PageDown,
    PageUp,
    Pause,
    PreviousPane,
    PreviousScreen,
    Problems,
    Quit,
    Raw,
    Reload,
    Replay,
    Sort,
    Test,
    Toggle,
    Top,
    Unfold,
    Up,
    Warm,
}

/// A row of the table.
pub struct Binding {
    pub codes: &'static [KeyCode],
    /// As it is written on screen.
    pub label: &'static str,
    /// Where it holds: a set of the places below.
    on: u16,
    pub act: Act,
    pub help: Option<Word>,
    /// For the bottom line of those places, where it matters.
    pub foot: Option<Word>,
}

const LIVE: u16 = 1;
const UPSTREAMS: u16 = 1 << 1;
const KEYS: u16 = 1 << 2;
const MODELS: u16 = 1 << 3;
const LOG: u16 = 1 << 4;
const CONFIG: u16 = 1 << 5;
const REQUEST: u16 = 1 << 6;
const HELP: u16 = 1 << 7;
const USAGE: u16 = 1 << 8;
const LISTS: u16 = LIVE | UPSTREAMS | KEYS | MODELS | USAGE | LOG;
const ALL: u16 = LISTS | CONFIG | REQUEST | HELP;

const fn bind(
    codes: &'static [KeyCode],
    label: &'static str,
    on: u16,
    act: Act,
    help: Word,
) -> Binding {
    Binding { codes, label, on, act, help: Some(help), foot: None }
}

const fn foot(
    codes: &'static [KeyCode],
    label: &'static str,
    on: u16,
    act: Act,
    foot: Word,
    help: Word,
) -> Binding {
    Binding { codes, label, on, act, help: Some(help), foot: Some(foot) }
}

/// Said in the row before it.
const fn also(codes: &'static [KeyCode], on: u16, act: Act) -> Binding {
    Binding { codes, label: "", on, act, help: None, foot: None }
}

const fn key(c: char) -> KeyCode {
    KeyCode::Char(c)
}

/// In the order in which the bottom line and the help page list them. A key may stand in several
/// rows, for different places.
pub static TABLE: &[Binding] = &[
    foot(
        &[KeyCode::Enter, key('i')],
        "Enter",
        LIVE,
        Act::Open,
        |t| &t.foot.open,
        |t| &t.help.open_request,
    ),
    foot(
        &[KeyCode::Enter, key('i')],
        "Enter",
        LOG,
        Act::Open,
        |t| &t.foot.open,
        |t| &t.help.open_line,
    ),
    foot(
        &[KeyCode::Enter],
        "Enter",
        USAGE,
        Act::Open,
        |t| &t.foot.requests,
        |t| &t.help.open_usage,
    ),
    foot(&[KeyCode::Tab], "Tab", REQUEST, Act::NextPane, |t| &t.foot.pane, |t| &t.help.pane),
    also(&[KeyCode::BackTab], REQUEST, Act::PreviousPane),
    foot(&[key('i')], "i", REQUEST, Act::Explain, |t| &t.foot.explain, |t| &t.help.explain),
    bind(&[KeyCode::Enter], "Enter", REQUEST, Act::Unfold, |t| &t.help.unfold),
    foot(&[key('o')], "o", USAGE, Act::Group, |t| &t.foot.group, |t| &t.help.group),
    foot(&[key('d')], "d", USAGE, Act::Days, |t| &t.foot.days, |t| &t.help.days),
    foot(&[key('c')], "c", KEYS | UPSTREAMS, Act::Cool, |t| &t.foot.cool, |t| &t.help.cool),
    foot(&[key('w')], "w", KEYS | UPSTREAMS, Act::Warm, |t| &t.foot.warm, |t| &t.help.warm),
    bind(&[key('w')], "w", LIVE | MODELS | USAGE | LOG | CONFIG, Act::Warm, |t| {
        &t.help.warm_problem
    }),
    foot(
        &[key(' ')],
        "space",
        KEYS | UPSTREAMS,
        Act::Toggle,
        |t| &t.foot.toggle,
        |t| &t.help.toggle,
    ),
    foot(&[key('t')], "t", KEYS, Act::Test, |t| &t.foot.test, |t| &t.help.test),
    bind(&[KeyCode::Enter], "Enter", KEYS, Act::Open, |t| &t.help.key_log),
    bind(&[KeyCode::Enter], "Enter", UPSTREAMS, Act::Open, |t| &t.help.upstream_live),
    foot(&[key('e')], "e", CONFIG, Act::Edit, |t| &t.foot.edit, |t| &t.help.edit),
    foot(&[key('R')], "R", CONFIG, Act::Reload, |t| &t.foot.reload, |t| &t.help.reload),
    bind(&[key('R')], "R", ALL & !CONFIG, Act::Reload, |t| &t.help.reload),
    foot(&[key('/')], "/", LISTS, Act::Filter, |t| &t.foot.filter, |t| &t.help.filter),
    foot(&[key('x')], "x", LIVE, Act::Kill, |t| &t.foot.kill, |t| &t.help.kill),
    bind(&[key('h')], "h", REQUEST, Act::Headers, |t| &t.help.headers),
    foot(&[key('r')], "r", LIVE | REQUEST, Act::Replay, |t| &t.foot.replay, |t| &t.help.replay),
    bind(&[key('n')], "n", LIVE | LOG | REQUEST, Act::Began, |t| &t.help.began),
    foot(&[key('y')], "y", LIVE | REQUEST, Act::Copy, |t| &t.foot.copy, |t| &t.help.copy),
    foot(&[key('p')], "p", LIVE | LOG, Act::Pause, |t| &t.foot.pause, |t| &t.help.pause),
    foot(&[key('s')], "s", LISTS, Act::Sort, |t| &t.foot.sort, |t| &t.help.sort),
    foot(
        &[KeyCode::Esc, KeyCode::Backspace],
        "Esc",
        REQUEST | HELP,
        Act::Back,
        |t| &t.foot.back,
        |t| &t.help.back,
    ),
    bind(&[key('x')], "x", REQUEST, Act::Kill, |t| &t.help.kill),
    bind(&[key('b')], "b", REQUEST, Act::Raw, |t| &t.help.raw),
    bind(&[KeyCode::Esc], "Esc", LISTS, Act::Back, |t| &t.help.clear),
    bind(&[KeyCode::Up, key('k')], "j k ↑ ↓", ALL, Act::Up, |t| &t.help.move_),
    also(&[KeyCode::Down, key('j')], ALL, Act::Down),
    bind(&[KeyCode::Home, key('g')], "g G", ALL, Act::Top, |t| &t.help.ends),
    also(&[KeyCode::End, key('G')], ALL, Act::Bottom),
    bind(&[KeyCode::PageUp], "PgUp PgDn", ALL, Act::PageUp, |t| &t.help.page),
    also(&[KeyCode::PageDown], ALL, Act::PageDown),
    bind(&[key('1')], "1", ALL, Act::Go(Screen::Live), |t| &t.help.live),
    bind(&[key('2')], "2", ALL, Act::Go(Screen::Upstreams), |t| &t.help.upstreams),
    bind(&[key('3')], "3", ALL, Act::Go(Screen::Keys), |t| &t.help.keys),
    bind(&[key('4')], "4", ALL, Act::Go(Screen::Models), |t| &t.help.models),
    bind(&[key('5')], "5", ALL, Act::Go(Screen::Usage), |t| &t.help.usage),
    bind(&[key('6')], "6", ALL, Act::Go(Screen::Log), |t| &t.help.log),
    bind(&[key('7')], "7", ALL, Act::Go(Screen::Config), |t| &t.help.config),
    foot(
        &[KeyCode::Tab],
        "Tab",
        ALL & !(REQUEST | HELP),
        Act::NextScreen,
        |t| &t.foot.next,
        |t| &t.help.next,
    ),
    also(&[KeyCode::BackTab], ALL & !(REQUEST | HELP), Act::PreviousScreen),
    bind(&[key('q')], "q Ctrl-C", ALL, Act::Quit, |t| &t.help.quit),
    bind(&[key('!')], "!", ALL, Act::Problems, |t| &t.help.problems),
    foot(
        &[key('?'), KeyCode::F(1)],
        "?",
        ALL & !HELP,
        Act::Help,
        |t| &t.foot.all,
        |t| &t.help.help,
    ),
    also(&[key('?'), KeyCode::F(1)], HELP, Act::Help),
];

impl Binding {
    /// Its label in the reader's language.
    #[must_use]
    pub fn said(&self, text: &'static Texts) -> &'static str {
        if self.label == "space" { &text.key.space } else { self.label }
    }

    /// Whether it holds where the reader was when the help page was opened: on the screen, or on a
    /// request.
    #[must_use]
    pub fn under_help(&self, app: &App) -> bool {
        let place = match &app.over {
            Some(Over::Help { under: Some(_), .. }) => REQUEST,
            _ => bit(app.screen),
        };
        self.on & place != 0
    }

    /// Whether it holds where the reader is.
    #[must_use]
    pub fn here(&self, app: &App) -> bool {
        let place = match &app.over {
            Some(Over::Help { .. } | Over::Problems { .. }) => HELP,
            Some(Over::Request(_)) => REQUEST,
            None => bit(app.screen),
        };
        self.on & place != 0
    }
}

fn bit(screen: Screen) -> u16 {
    match screen {
        Screen::Config => CONFIG,
        Screen::Keys => KEYS,
        Screen::Live => LIVE,
        Screen::Log => LOG,
        Screen::Models => MODELS,
        Screen::Upstreams => UPSTREAMS,
        Screen::Usage => USAGE,
    }
}

/// What a key press means where the reader is.
#[must_use]
pub fn act(app: &App, key: KeyEvent) -> Option<Act> {
    if is_interrupt(key) {
        return Some(Act::Quit);
    }
    if key.modifiers.intersects(KeyModifiers::CONTROL | KeyModifiers::ALT) {
        return None;
    }
    TABLE
        .iter()
        .find(|binding| binding.codes.contains(&key.code) && binding.here(app))
        .map(|binding| binding.act)
}

/// Ctrl-C, which raw mode hands over as a key.
#[must_use]
pub fn is_interrupt(key: KeyEvent) -> bool {
    key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_means_two_things_in_one_place() {
        for (at, a) in TABLE.iter().enumerate() {
            for b in &TABLE[at + 1..] {
                let both = a.codes.iter().any(|code| b.codes.contains(code)) && a.on & b.on != 0;
                assert!(!both, "{:?} and {:?}", a.act, b.act);
            }
        }
    }

    #[test]
    fn every_screen_has_its_digit() {
        for screen in Screen::ALL {
            let digit = TABLE.iter().find(|b| b.act == Act::Go(screen)).map(|b| b.label);
            assert_eq!(digit, Some(screen.digit().to_string().as_str()));
        }
    }
}
