//! The one table of keys: what a key does where, and how the bottom line and the help page say it.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::{
    app::{App, Over},
    screens::Screen,
};

/// What a key press means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    Back,
    Bottom,
    Cool,
    Copy,
    Down,
    Filter,
    Go(Screen),
    Help,
    Kill,
    NextScreen,
    Open,
    PageDown,
    PageUp,
    Pause,
    PreviousScreen,
    Quit,
    Reload,
    Sort,
    Test,
    Toggle,
    Top,
    Up,
    Warm,
}

/// A row of the table.
#[derive(Debug)]
pub struct Binding {
    pub codes: &'static [KeyCode],
    /// As it is written on screen.
    pub label: &'static str,
    /// Where it holds: a set of the places below.
    on: u16,
    pub act: Act,
    pub help: &'static str,
    /// For the bottom line of those places, where it matters.
    pub foot: Option<&'static str>,
}

const LIVE: u16 = 1;
const UPSTREAMS: u16 = 1 << 1;
const KEYS: u16 = 1 << 2;
const MODELS: u16 = 1 << 3;
const LOG: u16 = 1 << 4;
const CONFIG: u16 = 1 << 5;
const REQUEST: u16 = 1 << 6;
const HELP: u16 = 1 << 7;
const LISTS: u16 = LIVE | UPSTREAMS | KEYS | MODELS | LOG;
const ALL: u16 = LISTS | CONFIG | REQUEST | HELP;

const fn bind(codes: &'static [KeyCode], label: &'static str, on: u16, act: Act, help: &'static str) -> Binding {
    Binding { codes, label, on, act, help, foot: None }
}

const fn foot(codes: &'static [KeyCode], label: &'static str, on: u16, act: Act, foot: &'static str, help: &'static str) -> Binding {
    Binding { codes, label, on, act, help, foot: Some(foot) }
}

/// Said in the row before it.
const fn also(codes: &'static [KeyCode], on: u16, act: Act) -> Binding {
    bind(codes, "", on, act, "")
}

/// In the order in which the bottom line and the help page list them. A key may stand in several rows, for different places.
pub static TABLE: &[Binding] = &[
    foot(&[KeyCode::Enter], "Enter", LIVE, Act::Open, "open", "open the request"),
    foot(&[KeyCode::Enter], "Enter", LOG, Act::Open, "open", "open what the line is about"),
    foot(&[KeyCode::Char('c')], "c", KEYS | UPSTREAMS, Act::Cool, "cool", "let the selected one rest for 10 minutes"),
    foot(&[KeyCode::Char('w')], "w", KEYS | UPSTREAMS, Act::Warm, "warm", "use the selected one again at once"),
    bind(&[KeyCode::Char('w')], "w", LIVE | MODELS | LOG | CONFIG, Act::Warm, "use again what the problem line names"),
    foot(&[KeyCode::Char(' ')], "space", KEYS | UPSTREAMS, Act::Toggle, "on/off", "enable or disable the selected one"),
    foot(&[KeyCode::Char('t')], "t", KEYS, Act::Test, "test", "send a small request with the selected one"),
    bind(&[KeyCode::Enter], "Enter", KEYS, Act::Open, "what happened to it, in the log"),
    bind(&[KeyCode::Enter], "Enter", UPSTREAMS, Act::Open, "what went through it, in the list of requests"),
    foot(&[KeyCode::Char('R')], "R", CONFIG, Act::Reload, "reload", "read the config file and all secrets again"),
    bind(&[KeyCode::Char('R')], "R", ALL & !CONFIG, Act::Reload, "read the config file and all secrets again"),
    foot(&[KeyCode::Char('/')], "/", LISTS, Act::Filter, "filter", "filter by words, model:gpt status:5xx key:work >2s"),
    foot(&[KeyCode::Char('x')], "x", LIVE | REQUEST, Act::Kill, "kill", "end a running request"),
    foot(&[KeyCode::Char('y')], "y", REQUEST, Act::Copy, "copy curl, id", "copy as curl, or the id"),
    foot(&[KeyCode::Char('y')], "y", LIVE, Act::Copy, "copy", "copy as curl, or the id"),
    foot(&[KeyCode::Char('p')], "p", LIVE | LOG, Act::Pause, "pause", "freeze the picture; the proxy goes on"),
    foot(&[KeyCode::Char('s')], "s", LISTS, Act::Sort, "sort", "the next order"),
    foot(&[KeyCode::Esc, KeyCode::Backspace], "Esc", REQUEST | HELP, Act::Back, "back", "back"),
    bind(&[KeyCode::Esc], "Esc", LISTS, Act::Back, "clear the filter, follow the top again"),
    bind(&[KeyCode::Up, KeyCode::Char('k')], "j k ↑ ↓", ALL, Act::Up, "move"),
    also(&[KeyCode::Down, KeyCode::Char('j')], ALL, Act::Down),
    bind(&[KeyCode::Home, KeyCode::Char('g')], "g G", ALL, Act::Top, "to the top, which then stays in view; to the end"),
    also(&[KeyCode::End, KeyCode::Char('G')], ALL, Act::Bottom),
    bind(&[KeyCode::PageUp], "PgUp PgDn", ALL, Act::PageUp, "a page"),
    also(&[KeyCode::PageDown], ALL, Act::PageDown),
    bind(&[KeyCode::Char('1')], "1", ALL, Act::Go(Screen::Live), "Live: requests now and recent"),
    bind(&[KeyCode::Char('2')], "2", ALL, Act::Go(Screen::Upstreams), "Upstreams: which of them work, and how fast"),
    bind(&[KeyCode::Char('3')], "3", ALL, Act::Go(Screen::Keys), "Keys: which of them rest, why, and until when"),
    bind(&[KeyCode::Char('4')], "4", ALL, Act::Go(Screen::Models), "Models: the names a client may ask for"),
    bind(&[KeyCode::Char('5')], "5", ALL, Act::Go(Screen::Log), "Log: what happened"),
    bind(&[KeyCode::Char('6')], "6", ALL, Act::Go(Screen::Config), "Config: what is wrong with it"),
    foot(&[KeyCode::Tab], "Tab", ALL & !(REQUEST | HELP), Act::NextScreen, "next screen", "the next screen; with Shift the one before"),
    also(&[KeyCode::BackTab], ALL & !(REQUEST | HELP), Act::PreviousScreen),
    bind(&[KeyCode::Char('q')], "q Ctrl-C", ALL, Act::Quit, "quit"),
    foot(&[KeyCode::Char('?'), KeyCode::F(1)], "?", ALL, Act::Help, "all keys", "this page"),
];

impl Binding {
    /// Whether it holds on this screen.
    #[must_use]
    pub fn on(&self, screen: Screen) -> bool {
        self.on & bit(screen) != 0
    }

    /// Whether it holds where the reader is.
    #[must_use]
    pub fn here(&self, app: &App) -> bool {
        let place = match &app.over {
            Some(Over::Help { .. }) => HELP,
            Some(Over::Request { .. }) => REQUEST,
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
    TABLE.iter().find(|binding| binding.codes.contains(&key.code) && binding.here(app)).map(|binding| binding.act)
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
                assert!(!both, "{} and {}", a.help, b.help);
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
