//! The event loop: receives messages, draws frames and performs effects. Draws only after a change,
//! at a limited frame rate.

use std::{io, time::Duration};

use ratatui::crossterm::event::{Event as Input, KeyCode, KeyEventKind, KeyModifiers};
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};

use crate::tui::{
    app::App,
    connection::{self, ControlCall, ProxyConnection},
    effect::Effect,
    format::FrameContext,
    frame::{FrameStyle, draw},
    msg::Msg,
    screen::Screen as Place,
    selection::clamp_selection,
    strings::{Lang, Texts},
    suspend,
    terminal::{InputEvent, InputReader as Terminal, TerminalGuard, run_as_dashboard},
    theme::Theme,
    update::update,
};
use crate::{
    base::{
        clock::{Clock, SystemClock, UnixMillis},
        sanitize::clean,
    },
    events::event::EventKind,
};

/// Minimum time between frames: 15 frames per second.
const MIN_FRAME_INTERVAL: Duration = Duration::from_millis(66);
/// Messages processed before a frame may be drawn.
const MAX_BATCH: usize = 256;
const MESSAGE_CAPACITY: usize = 1_024;
const CALL_CAPACITY: usize = 32;

/// The dashboard's options.
pub struct DashboardOptions {
    /// The config's current theme: `dark`, `light`, `contrast` or `mono`. An unknown name means
    /// `dark`.
    pub theme: Box<dyn Fn() -> String + Send + Sync>,
    pub mouse: bool,
    /// The proxy runs in this process: leaving asks whether to stop it too.
    pub in_process: bool,
    /// Whether the locale supports more than ASCII.
    pub utf8: bool,
    /// False for NO_COLOR and terminals without colour: the mono theme regardless of `theme`.
    pub color: bool,
    /// The first screen; `live` if it is `None` or unknown.
    pub screen: Option<String>,
    pub lang: Lang,
    /// The command that opens a file for editing, if there is one.
    pub editor: Option<String>,
}

/// How the user left the dashboard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoopExit {
    pub stop_proxy: bool,
    /// The copied texts, for terminals without clipboard access.
    pub copied: Vec<String>,
}

/// Why the dashboard cannot run.
#[derive(Debug, thiserror::Error)]
pub enum TuiError {
    #[error(
        "the dashboard needs a terminal, and stdout is not a terminal; \
         `aiproxy status` and `aiproxy log` print"
    )]
    NoTerminal,
    #[error("the terminal does not answer: {0}")]
    Terminal(io::Error),
}

/// Shows the dashboard until the user leaves.
///
/// # Errors
///
/// There is no terminal for the dashboard. An unreachable proxy is not an error: the dashboard
/// waits for it.
pub async fn run(source: ProxyConnection, options: DashboardOptions) -> Result<LoopExit, TuiError> {
    run_as_dashboard(run_in_terminal(source, options)).await
}

async fn run_in_terminal(
    source: ProxyConnection,
    options: DashboardOptions,
) -> Result<LoopExit, TuiError> {
    let style = frame_style(&options);
    let screen =
        TerminalGuard::acquire(options.mouse, !options.in_process).map_err(|e| match e.kind() {
            io::ErrorKind::Unsupported => TuiError::NoTerminal,
            _ => TuiError::Terminal(e),
        })?;
    let terminal = Terminal::open(!options.in_process).map_err(TuiError::Terminal)?;
    let (ask, asks) = mpsc::channel(CALL_CAPACITY);
    let (messages_tx, messages) = mpsc::channel(MESSAGE_CAPACITY);
    let start_screen = options.screen.as_deref().and_then(Place::from_name).unwrap_or(Place::Live);
    let app = App::new(start_screen, options.in_process);
    let ends = LoopIo { screen, terminal, style, options, calls: ask };
    // Both futures belong to this task, so that leaving ends both.
    tokio::select! {
        exit = Box::pin(event_loop(app, ends, messages)) => Ok(exit),
        () = Box::pin(connection::follow(source, asks, messages_tx)) => {
            Ok(LoopExit { stop_proxy: false, copied: Vec::new() })
        }
    }
}

fn frame_style(options: &DashboardOptions) -> FrameStyle {
    let name = if options.color { (options.theme)() } else { "mono".to_owned() };
    let theme = Theme::named(&name)
        .or_else(|| Theme::named("dark"))
        .expect("a test reads every built-in theme");
    FrameStyle { theme, utf8: options.utf8 }
}

/// The loop's terminal, input and message channels.
struct LoopIo {
    screen: TerminalGuard,
    terminal: Terminal,
    style: FrameStyle,
    options: DashboardOptions,
    calls: mpsc::Sender<ControlCall>,
}

async fn event_loop(mut app: App, ends: LoopIo, mut messages: mpsc::Receiver<Msg>) -> LoopExit {
    let LoopIo { mut screen, mut terminal, style: mut look, options, calls: ask } = ends;
    let text = options.lang.texts();
    let gone_exit = LoopExit { stop_proxy: app.in_process, copied: Vec::new() };
    let mut second = interval(Duration::from_secs(1));
    second.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut batch = Vec::with_capacity(MAX_BATCH);
    let mut changed = true;
    let mut next_frame = Instant::now();
    app.size = screen.size();
    loop {
        let mut msgs = Vec::new();
        tokio::select! {
            biased;
            heard = terminal.next() => match heard {
                InputEvent::Gone => return gone_exit,
                InputEvent::Suspend => {
                    if suspend_dashboard(&mut screen, false).await.is_err() {
                        return gone_exit;
                    }
                    app.size = screen.size();
                    changed = true;
                    continue;
                }
                InputEvent::Event(event) if is_suspend_key(&event) => {
                    if suspend::has_job_control() {
                        if suspend_dashboard(&mut screen, true).await.is_err() {
                            return gone_exit;
                        }
                        app.size = screen.size();
                        changed = true;
                    }
                    continue;
                }
                InputEvent::Event(event) => msgs.extend(input_message(event)),
                InputEvent::Resized => {
                    let (columns, rows) = screen.size();
                    msgs.push(Msg::Resized { columns, rows });
                }
            },
            () = sleep_until(next_frame), if changed => {
                let now = frame_context(SystemClock.unix(), text);
                clamp_selection(&mut app, now);
                if screen.draw(|buffer| draw(&app, now, &look, buffer)).is_err() {
                    return gone_exit;
                }
                changed = false;
                next_frame = Instant::now() + MIN_FRAME_INTERVAL;
                continue;
            }
            _ = second.tick() => {
                if !terminal.is_alive() {
                    return gone_exit;
                }
                // A tick that changes nothing draws no frame.
                let still = !changed && !app.needs_tick(SystemClock.unix());
                msgs.push(Msg::Tick);
                if still {
                    changed = false;
                    let now = frame_context(SystemClock.unix(), text);
                    for effect in update(&mut app, Msg::Tick, now) {
                        perform_effect(effect, &screen, &ask);
                    }
                    continue;
                }
            }
            count = messages.recv_many(&mut batch, MAX_BATCH) => {
                if count == 0 {
                    return gone_exit;
                }
                msgs.append(&mut batch);
            }
        }
        let now = frame_context(SystemClock.unix(), text);
        let mut effects = Vec::new();
        for msg in msgs {
            changed = true;
            if changes_theme(&msg) {
                look = frame_style(&options);
            }
            effects.extend(update(&mut app, msg, now));
        }
        for effect in effects {
            match effect {
                Effect::Leave { stop_proxy } => return LoopExit { stop_proxy, copied: app.copied },
                Effect::Edit(path) => {
                    let opened =
                        open_editor(&mut screen, &mut terminal, &path, options.editor.as_deref())
                            .await;
                    match opened {
                        Ok(true) => {}
                        Ok(false) => drop(update(&mut app, Msg::EditorMissing, now)),
                        Err(_) => return gone_exit,
                    }
                    app.size = screen.size();
                }
                effect => perform_effect(effect, &screen, &ask),
            }
        }
    }
}

/// Gives the terminal back, stops the process, or its whole job, and takes the terminal again when
/// the user continues it.
async fn suspend_dashboard(screen: &mut TerminalGuard, whole_job: bool) -> io::Result<()> {
    screen.suspend()?;
    suspend::stop_until_foreground(whole_job).await;
    screen.resume()
}

/// In raw mode the terminal hands Ctrl-Z on instead of sending a signal.
fn is_suspend_key(event: &Input) -> bool {
    matches!(event, Input::Key(key) if key.code == KeyCode::Char('z')
        && key.modifiers == KeyModifiers::CONTROL
        && key.kind != KeyEventKind::Release)
}

/// Suspends the dashboard until the user's editor exits. Returns false if there is no editor or no
/// such file.
async fn open_editor(
    screen: &mut TerminalGuard,
    terminal: &mut Terminal,
    path: &str,
    editor: Option<&str>,
) -> io::Result<bool> {
    let mut words = editor.unwrap_or_default().split_whitespace();
    let (Some(program), true) = (words.next(), tokio::fs::try_exists(path).await.unwrap_or(false))
    else {
        return Ok(false);
    };
    screen.suspend()?;
    let mut editor = tokio::process::Command::new(program);
    let ended = editor.args(words).arg(path).status();
    let mut ended = std::pin::pin!(ended);
    let ended = loop {
        tokio::select! {
            ended = &mut ended => break ended,
            // The editor has the terminal and stops itself; the shell waits for both.
            () = terminal.suspend_request() => suspend::stop(false),
        }
    };
    screen.resume()?;
    Ok(ended.is_ok())
}

/// Whether the message may change the configured theme.
fn changes_theme(msg: &Msg) -> bool {
    matches!(msg, Msg::Event(event) if matches!(event.kind, EventKind::Config { ok: true, .. }))
}

fn input_message(event: Input) -> Option<Msg> {
    match event {
        Input::Key(key) => Some(Msg::Key(key)),
        Input::Mouse(mouse) => Some(Msg::Mouse(mouse)),
        Input::Paste(text) => Some(Msg::Paste(text)),
        Input::Resize(columns, rows) => Some(Msg::Resized { columns, rows }),
        Input::FocusGained | Input::FocusLost => None,
    }
}

fn perform_effect(effect: Effect, screen: &TerminalGuard, ask: &mpsc::Sender<ControlCall>) {
    let call = match effect {
        Effect::Action(action) => ControlCall::Action(action),
        // The next frame detects a lost terminal.
        Effect::Copy(text) => return drop(screen.copy(&sanitize_lines(&text))),
        Effect::FetchExplain { id } => ControlCall::Explain { id },
        Effect::FetchHistory { filter, before } => ControlCall::History { filter, before },
        Effect::FetchSnapshot => ControlCall::Snapshot,
        Effect::FetchTranscript { id, query: wish } => ControlCall::Transcript { id, query: wish },
        Effect::FetchToday => ControlCall::Today,
        Effect::FetchUsage { by, days } => ControlCall::Usage { by, days },
        Effect::Edit(_) | Effect::Leave { .. } => return,
    };
    // If the queue is full, the proxy has not answered the earlier calls, and another would not
    // help.
    drop(ask.try_send(call));
}

/// The text with its line breaks, but without other control characters that could take effect when
/// pasted.
#[must_use]
pub fn sanitize_lines(text: &str) -> String {
    text.split('\n').map(|line| clean(line.trim_end_matches('\r'))).collect::<Vec<_>>().join("\n")
}

fn frame_context(at: UnixMillis, text: &'static Texts) -> FrameContext {
    let offset = jiff::Timestamp::from_millisecond(at.0)
        .map_or(0, |stamp| jiff::tz::TimeZone::system().to_offset(stamp).seconds());
    FrameContext { at, offset, text }
}
