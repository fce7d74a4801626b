//! The loop: messages in, frames and effects out. Draws when something changed, and not more often
//! than the eye needs.

use std::{io, time::Duration};

use ratatui::crossterm::event::Event as Input;
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};

use super::{
    app::App,
    draw::{Look, draw},
    effect::Effect,
    format::Now,
    msg::Msg,
    screens::Screen as Place,
    source::{self, Ask, Connect},
    terminal::{Heard, Input as Terminal, Screen, inside},
    text::{Lang, Texts},
    theme::Theme,
    update::update,
};
use crate::{
    base::{
        clean::clean,
        clock::{Clock, SystemClock, UnixMillis},
    },
    events::kind::EventKind,
};

/// Least time between frames: fifteen a second.
const FRAME: Duration = Duration::from_millis(66);
/// Messages taken in before a frame may be drawn.
const BATCH: usize = 256;
const TOLD: usize = 1_024;
const ASKS: usize = 32;

/// How the dashboard is to look and behave.
pub struct Options {
    /// `dark`, `light`, `contrast`, `mono`, as the config says when it is asked; what is unknown is
    /// `dark`.
    pub theme: Box<dyn Fn() -> String + Send + Sync>,
    pub mouse: bool,
    /// The proxy runs in this process: leaving asks whether to stop it too.
    pub in_process: bool,
    /// The locale shows more than ASCII.
    pub utf8: bool,
    /// False for NO_COLOR and terminals without: the mono theme whatever `theme` says.
    pub colour: bool,
    /// The first screen: `live` where `None` or unknown.
    pub screen: Option<String>,
    pub lang: Lang,
    /// The command that opens a file for editing, where there is one.
    pub editor: Option<String>,
}

/// How the reader left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    pub stop_proxy: bool,
    /// What was copied, for terminals that take nothing into their clipboard.
    pub copied: Vec<String>,
}

/// Why there is no dashboard.
#[derive(Debug, thiserror::Error)]
pub enum TuiError {
    #[error(
        "the dashboard needs a terminal, and stdout is none; `aiproxy status` and `aiproxy log` print"
    )]
    NoTerminal,
    #[error("the terminal does not answer: {0}")]
    Terminal(io::Error),
}

/// Shows the dashboard until its reader leaves.
///
/// # Errors
///
/// When there is no terminal to show it on. A proxy that is gone is no error: it is waited for.
pub async fn run(source: Connect, options: Options) -> Result<Exit, TuiError> {
    inside(show(source, options)).await
}

async fn show(source: Connect, options: Options) -> Result<Exit, TuiError> {
    let look = look(&options);
    let screen = Screen::take(options.mouse, !options.in_process).map_err(|e| match e.kind() {
        io::ErrorKind::Unsupported => TuiError::NoTerminal,
        _ => TuiError::Terminal(e),
    })?;
    let terminal = Terminal::open(!options.in_process).map_err(TuiError::Terminal)?;
    let (ask, asks) = mpsc::channel(ASKS);
    let (tell, told) = mpsc::channel(TOLD);
    let place = options.screen.as_deref().and_then(Place::named).unwrap_or(Place::Live);
    let app = App::new(place, options.in_process);
    // Both live in this task, so that leaving ends both.
    tokio::select! {
        exit = Box::pin(attend(app, Ends { screen, terminal, look, options, ask }, told)) => Ok(exit),
        () = Box::pin(source::follow(source, asks, tell)) => Ok(Exit { stop_proxy: false, copied: Vec::new() }),
    }
}

fn look(options: &Options) -> Look {
    let name = if options.colour { (options.theme)() } else { "mono".to_owned() };
    let theme = Theme::named(&name)
        .or_else(|| Theme::named("dark"))
        .expect("a test reads every built-in theme");
    Look { theme, utf8: options.utf8 }
}

/// Where the loop gets its frames, keys and answers from.
struct Ends {
    screen: Screen,
    terminal: Terminal,
    look: Look,
    options: Options,
    ask: mpsc::Sender<Ask>,
}

async fn attend(mut app: App, ends: Ends, mut told: mpsc::Receiver<Msg>) -> Exit {
    let Ends { mut screen, mut terminal, mut look, options, ask } = ends;
    let text = options.lang.texts();
    let gone = Exit { stop_proxy: app.in_process, copied: Vec::new() };
    let mut second = interval(Duration::from_secs(1));
    second.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut batch = Vec::with_capacity(BATCH);
    let mut changed = true;
    let mut next_frame = Instant::now();
    app.size = screen.size();
    loop {
        let mut msgs = Vec::new();
        tokio::select! {
            biased;
            heard = terminal.next() => match heard {
                Heard::Gone => return gone,
                Heard::Event(event) => msgs.extend(msg(event)),
                Heard::Resized => {
                    let (columns, rows) = screen.size();
                    msgs.push(Msg::Resized { columns, rows });
                }
            },
            () = sleep_until(next_frame), if changed => {
                let now = local(SystemClock.unix(), text);
                app.settle(now);
                if screen.draw(|buffer| draw(&app, now, &look, buffer)).is_err() {
                    return gone;
                }
                changed = false;
                next_frame = Instant::now() + FRAME;
                continue;
            }
            _ = second.tick() => {
                if !terminal.alive() {
                    return gone;
                }
                // A second that changes nothing costs no frame.
                let still = !changed && !app.counting(SystemClock.unix());
                msgs.push(Msg::Tick);
                if still {
                    changed = false;
                    for effect in update(&mut app, Msg::Tick, local(SystemClock.unix(), text)) {
                        carry_out(effect, &screen, &ask);
                    }
                    continue;
                }
            }
            count = told.recv_many(&mut batch, BATCH) => {
                if count == 0 {
                    return gone;
                }
                msgs.append(&mut batch);
            }
        }
        let now = local(SystemClock.unix(), text);
        let mut effects = Vec::new();
        for msg in msgs {
            changed = true;
            if restyles(&msg) {
                look = self::look(&options);
            }
            effects.extend(update(&mut app, msg, now));
        }
        for effect in effects {
            match effect {
                Effect::Leave { stop_proxy } => return Exit { stop_proxy, copied: app.copied },
                Effect::Edit(path) => {
                    let opened = edit(&mut screen, &path, options.editor.as_deref()).await;
                    match opened {
                        Ok(true) => {}
                        Ok(false) => drop(update(&mut app, Msg::EditorMissing, now)),
                        Err(_) => return gone,
                    }
                    app.size = screen.size();
                }
                effect => carry_out(effect, &screen, &ask),
            }
        }
    }
}

/// Gives the terminal to the reader's editor until it ends; false where there is none, or no such
/// file.
async fn edit(screen: &mut Screen, path: &str, editor: Option<&str>) -> io::Result<bool> {
    let mut words = editor.unwrap_or_default().split_whitespace();
    let (Some(program), true) = (words.next(), tokio::fs::try_exists(path).await.unwrap_or(false))
    else {
        return Ok(false);
    };
    screen.lend()?;
    let ended = tokio::process::Command::new(program).args(words).arg(path).status().await;
    screen.take_back()?;
    Ok(ended.is_ok())
}

/// Whether the config may say another theme from now on.
fn restyles(msg: &Msg) -> bool {
    matches!(msg, Msg::Event(event) if matches!(event.kind, EventKind::Config { ok: true, .. }))
}

fn msg(event: Input) -> Option<Msg> {
    match event {
        Input::Key(key) => Some(Msg::Key(key)),
        Input::Mouse(mouse) => Some(Msg::Mouse(mouse)),
        Input::Paste(text) => Some(Msg::Paste(text)),
        Input::Resize(columns, rows) => Some(Msg::Resized { columns, rows }),
        Input::FocusGained | Input::FocusLost => None,
    }
}

fn carry_out(effect: Effect, screen: &Screen, ask: &mpsc::Sender<Ask>) {
    let asked = match effect {
        Effect::Act(action) => Ask::Act(action),
        // A terminal that is gone shows at the next frame.
        Effect::Copy(text) => return drop(screen.copy(&lines(&text))),
        Effect::FetchAccount { id } => Ask::Account { id },
        Effect::FetchHistory { filter, before } => Ask::History { filter, before },
        Effect::FetchSnapshot => Ask::Snapshot,
        Effect::FetchStory { id, wish } => Ask::Story { id, wish },
        Effect::FetchToday => Ask::Today,
        Effect::FetchUsage { by, days } => Ask::Usage { by, days },
        Effect::Edit(_) | Effect::Leave { .. } => return,
    };
    // A full queue means that the proxy has not answered the last thirty: one more would not
    // either.
    drop(ask.try_send(asked));
}

/// The text with its lines, and without anything else that a terminal would obey when it is pasted.
#[must_use]
pub fn lines(text: &str) -> String {
    text.split('\n').map(|line| clean(line.trim_end_matches('\r'))).collect::<Vec<_>>().join("\n")
}

fn local(at: UnixMillis, text: &'static Texts) -> Now {
    let offset = jiff::Timestamp::from_millisecond(at.0)
        .map_or(0, |stamp| jiff::tz::TimeZone::system().to_offset(stamp).seconds());
    Now { at, offset, text }
}
