//! The table of key bindings: what each key does on which screen, and its label in the bottom line
//! and help.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use crate::tui::{
    app::{App, Overlay},
    screen::Screen,
    strings::{TextFn, Texts},
};

/// The action of a key press.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyAction {
    Back,
    ShowReplay,
    Bottom,
    Cool,
    Copy,
    CycleDays,
    Down,
    Edit,
    Explain,
    Filter,
    GoTo(Screen),
    CycleGroup,
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
    ToggleExpand,
    Up,
    Warm,
}

/// A row of the table.
pub struct KeyBinding {
    pub codes: &'static [KeyCode],
    /// The key as written on screen.
    pub label: &'static str,
    /// Where the binding applies: a set of the contexts below.
    contexts: u16,
    pub action: KeyAction,
    pub help: Option<TextFn>,
    /// Label in the bottom line of those contexts, if it appears there.
    pub foot: Option<TextFn>,
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
    act: KeyAction,
    help: TextFn,
) -> KeyBinding {
    KeyBinding { codes, label, contexts: on, action: act, help: Some(help), foot: None }
}

const fn with_footer(
    codes: &'static [KeyCode],
    label: &'static str,
    on: u16,
    act: KeyAction,
    foot: TextFn,
    help: TextFn,
) -> KeyBinding {
    KeyBinding { codes, label, contexts: on, action: act, help: Some(help), foot: Some(foot) }
}

/// A binding without help of its own: the help text of the row before it covers it.
const fn alias(codes: &'static [KeyCode], on: u16, act: KeyAction) -> KeyBinding {
    KeyBinding { codes, label: "", contexts: on, action: act, help: None, foot: None }
}

const fn char_key(c: char) -> KeyCode {
    KeyCode::Char(c)
}

/// In the order of the bottom line and the help page. A key may appear in several rows, for
/// different contexts.
pub static KEY_BINDINGS: &[KeyBinding] = &[
    with_footer(
        &[KeyCode::Enter, char_key('i')],
        "Enter",
        LIVE,
        KeyAction::Open,
        |t| &t.foot.open,
        |t| &t.help.open_request,
    ),
    with_footer(
        &[KeyCode::Enter, char_key('i')],
        "Enter",
        LOG,
        KeyAction::Open,
        |t| &t.foot.open,
        |t| &t.help.open_line,
    ),
    with_footer(
        &[KeyCode::Enter],
        "Enter",
        USAGE,
        KeyAction::Open,
        |t| &t.foot.requests,
        |t| &t.help.open_usage,
    ),
    with_footer(
        &[KeyCode::Tab],
        "Tab",
        REQUEST,
        KeyAction::NextPane,
        |t| &t.foot.pane,
        |t| &t.help.pane,
    ),
    alias(&[KeyCode::BackTab], REQUEST, KeyAction::PreviousPane),
    with_footer(
        &[char_key('i')],
        "i",
        REQUEST,
        KeyAction::Explain,
        |t| &t.foot.explain,
        |t| &t.help.explain,
    ),
    bind(&[KeyCode::Enter], "Enter", REQUEST, KeyAction::ToggleExpand, |t| &t.help.unfold),
    with_footer(
        &[char_key('o')],
        "o",
        USAGE,
        KeyAction::CycleGroup,
        |t| &t.foot.group,
        |t| &t.help.group,
    ),
    with_footer(
        &[char_key('d')],
        "d",
        USAGE,
        KeyAction::CycleDays,
        |t| &t.foot.days,
        |t| &t.help.days,
    ),
    with_footer(
        &[char_key('c')],
        "c",
        KEYS | UPSTREAMS,
        KeyAction::Cool,
        |t| &t.foot.cool,
        |t| &t.help.cool,
    ),
    with_footer(
        &[char_key('w')],
        "w",
        KEYS | UPSTREAMS,
        KeyAction::Warm,
        |t| &t.foot.warm,
        |t| &t.help.warm,
    ),
    bind(&[char_key('w')], "w", LIVE | MODELS | USAGE | LOG | CONFIG, KeyAction::Warm, |t| {
        &t.help.warm_problem
    }),
    with_footer(
        &[char_key(' ')],
        "space",
        KEYS | UPSTREAMS,
        KeyAction::Toggle,
        |t| &t.foot.toggle,
        |t| &t.help.toggle,
    ),
    with_footer(&[char_key('t')], "t", KEYS, KeyAction::Test, |t| &t.foot.test, |t| &t.help.test),
    bind(&[KeyCode::Enter], "Enter", KEYS, KeyAction::Open, |t| &t.help.key_log),
    bind(&[KeyCode::Enter], "Enter", UPSTREAMS, KeyAction::Open, |t| &t.help.upstream_live),
    with_footer(&[char_key('e')], "e", CONFIG, KeyAction::Edit, |t| &t.foot.edit, |t| &t.help.edit),
    with_footer(
        &[char_key('R')],
        "R",
        CONFIG,
        KeyAction::Reload,
        |t| &t.foot.reload,
        |t| &t.help.reload,
    ),
    bind(&[char_key('R')], "R", ALL & !CONFIG, KeyAction::Reload, |t| &t.help.reload),
    with_footer(
        &[char_key('/')],
        "/",
        LISTS,
        KeyAction::Filter,
        |t| &t.foot.filter,
        |t| &t.help.filter,
    ),
    with_footer(&[char_key('x')], "x", LIVE, KeyAction::Kill, |t| &t.foot.kill, |t| &t.help.kill),
    bind(&[char_key('h')], "h", REQUEST, KeyAction::Headers, |t| &t.help.headers),
    with_footer(
        &[char_key('r')],
        "r",
        LIVE | REQUEST,
        KeyAction::Replay,
        |t| &t.foot.replay,
        |t| &t.help.replay,
    ),
    bind(&[char_key('n')], "n", LIVE | LOG | REQUEST, KeyAction::ShowReplay, |t| &t.help.began),
    with_footer(
        &[char_key('y')],
        "y",
        LIVE | REQUEST,
        KeyAction::Copy,
        |t| &t.foot.copy,
        |t| &t.help.copy,
    ),
    with_footer(
        &[char_key('p')],
        "p",
        LIVE | LOG,
        KeyAction::Pause,
        |t| &t.foot.pause,
        |t| &t.help.pause,
    ),
    with_footer(&[char_key('s')], "s", LISTS, KeyAction::Sort, |t| &t.foot.sort, |t| &t.help.sort),
    with_footer(
        &[KeyCode::Esc, KeyCode::Backspace],
        "Esc",
        REQUEST | HELP,
        KeyAction::Back,
        |t| &t.foot.back,
        |t| &t.help.back,
    ),
    bind(&[char_key('x')], "x", REQUEST, KeyAction::Kill, |t| &t.help.kill),
    bind(&[char_key('b')], "b", REQUEST, KeyAction::Raw, |t| &t.help.raw),
    bind(&[KeyCode::Esc], "Esc", LISTS, KeyAction::Back, |t| &t.help.clear),
    bind(&[KeyCode::Up, char_key('k')], "j k ↑ ↓", ALL, KeyAction::Up, |t| &t.help.move_),
    alias(&[KeyCode::Down, char_key('j')], ALL, KeyAction::Down),
    bind(&[KeyCode::Home, char_key('g')], "g G", ALL, KeyAction::Top, |t| &t.help.ends),
    alias(&[KeyCode::End, char_key('G')], ALL, KeyAction::Bottom),
    bind(&[KeyCode::PageUp], "PgUp PgDn", ALL, KeyAction::PageUp, |t| &t.help.page),
    alias(&[KeyCode::PageDown], ALL, KeyAction::PageDown),
    bind(&[char_key('1')], "1", ALL, KeyAction::GoTo(Screen::Live), |t| &t.help.live),
    bind(&[char_key('2')], "2", ALL, KeyAction::GoTo(Screen::Upstreams), |t| &t.help.upstreams),
    bind(&[char_key('3')], "3", ALL, KeyAction::GoTo(Screen::Keys), |t| &t.help.keys),
    bind(&[char_key('4')], "4", ALL, KeyAction::GoTo(Screen::Models), |t| &t.help.models),
    bind(&[char_key('5')], "5", ALL, KeyAction::GoTo(Screen::Usage), |t| &t.help.usage),
    bind(&[char_key('6')], "6", ALL, KeyAction::GoTo(Screen::Log), |t| &t.help.log),
    bind(&[char_key('7')], "7", ALL, KeyAction::GoTo(Screen::Config), |t| &t.help.config),
    with_footer(
        &[KeyCode::Tab],
        "Tab",
        ALL & !(REQUEST | HELP),
        KeyAction::NextScreen,
        |t| &t.foot.next,
        |t| &t.help.next,
    ),
    alias(&[KeyCode::BackTab], ALL & !(REQUEST | HELP), KeyAction::PreviousScreen),
    bind(&[char_key('q')], "q Ctrl-C", ALL, KeyAction::Quit, |t| &t.help.quit),
    bind(&[char_key('!')], "!", ALL, KeyAction::Problems, |t| &t.help.problems),
    with_footer(
        &[char_key('?'), KeyCode::F(1)],
        "?",
        ALL & !HELP,
        KeyAction::Help,
        |t| &t.foot.all,
        |t| &t.help.help,
    ),
    alias(&[char_key('?'), KeyCode::F(1)], HELP, KeyAction::Help),
];

impl KeyBinding {
    /// The label in the user's language.
    #[must_use]
    pub fn label_text(&self, text: &'static Texts) -> &'static str {
        if self.label == "space" { &text.key.space } else { self.label }
    }

    /// Whether it applies where the user opened the help page: on the screen or on a request.
    #[must_use]
    pub fn applies_under_help(&self, app: &App) -> bool {
        let context = match &app.overlay {
            Some(Overlay::Help { request_view: Some(_), .. }) => REQUEST,
            _ => context_bit(app.screen),
        };
        self.contexts & context != 0
    }

    /// Whether it applies in the current context.
    #[must_use]
    pub fn applies(&self, app: &App) -> bool {
        let context = match &app.overlay {
            Some(Overlay::Help { .. } | Overlay::Problems { .. }) => HELP,
            Some(Overlay::Request(_)) => REQUEST,
            None => context_bit(app.screen),
        };
        self.contexts & context != 0
    }
}

fn context_bit(screen: Screen) -> u16 {
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

/// The action of a key press in the current context.
#[must_use]
pub fn action_for(app: &App, key: KeyEvent) -> Option<KeyAction> {
    if is_interrupt(key) {
        return Some(KeyAction::Quit);
    }
    if key.modifiers.intersects(KeyModifiers::CONTROL | KeyModifiers::ALT) {
        return None;
    }
    KEY_BINDINGS
        .iter()
        .find(|binding| binding.codes.contains(&key.code) && binding.applies(app))
        .map(|binding| binding.action)
}

/// Ctrl-C, which raw mode delivers as a key.
#[must_use]
pub fn is_interrupt(key: KeyEvent) -> bool {
    key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_has_two_actions_in_one_context() {
        for (at, a) in KEY_BINDINGS.iter().enumerate() {
            for b in &KEY_BINDINGS[at + 1..] {
                let both = a.codes.iter().any(|code| b.codes.contains(code))
                    && a.contexts & b.contexts != 0;
                assert!(!both, "{:?} and {:?}", a.action, b.action);
            }
        }
    }

    #[test]
    fn every_screen_has_its_digit_key() {
        for screen in Screen::ALL {
            let digit =
                KEY_BINDINGS.iter().find(|b| b.action == KeyAction::GoTo(screen)).map(|b| b.label);
            assert_eq!(digit, Some(screen.digit().to_string().as_str()));
        }
    }
}
