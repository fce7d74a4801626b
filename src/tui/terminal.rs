//! The terminal: taken over for the dashboard, given back whatever happens, and watched for going
//! away.

use std::{
    io::{self, IsTerminal, Write, stdout},
    sync::{
        Once,
        atomic::{AtomicBool, Ordering},
    },
};

use base64::{Engine, prelude::BASE64_STANDARD};
use ratatui::{
    Terminal,
    backend::CrosstermBackend,
    buffer::Buffer,
    crossterm::{
        cursor, event, execute,
        style::ResetColor,
        terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode},
    },
};

/// Clipboards of terminals take no more than about this.
const CLIPBOARD_BYTES: usize = 70_000;

/// Whether the terminal is ours now: it is given back once, by whoever comes first.
static TERMINAL_ACQUIRED: AtomicBool = AtomicBool::new(false);
/// Whether a panic of any thread ends the dashboard, or only one of the dashboard's own.
static DASHBOARD_ONLY: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// This thread is running the dashboard right now, rather than the proxy beside it.
    static INSIDE: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// The terminal while it is ours; dropping gives it back.
pub struct TerminalGuard {
    terminal: Terminal<CrosstermBackend<io::Stdout>>,
    mouse: bool,
}

impl TerminalGuard {
    /// Takes the terminal over. `alone`: nothing but the dashboard runs in this process.
    ///
    /// # Errors
    ///
    /// When stdout is no terminal, or does not do as a terminal should.
    pub fn acquire(mouse: bool, alone: bool) -> io::Result<Self> {
        if !stdout().is_terminal() {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "stdout is not a terminal"));
        }
        DASHBOARD_ONLY.store(alone, Ordering::SeqCst);
        install_panic_hook();
        // From here on an early return gives it back.
        let back = TerminalRestore;
        enter_dashboard_mode(mouse)?;
        let mut terminal = Terminal::new(CrosstermBackend::new(stdout()))?;
        terminal.clear()?;
        std::mem::forget(back);
        Ok(Self { terminal, mouse })
    }

    /// Gives the terminal to another program for a while.
    ///
    /// # Errors
    ///
    /// When the terminal is gone.
    pub fn suspend(&self) -> io::Result<()> {
        restore_terminal();
        stdout().flush()
    }

    /// Takes it over again, and draws everything anew.
    ///
    /// # Errors
    ///
    /// When the terminal is gone.
    pub fn resume(&mut self) -> io::Result<()> {
        enter_dashboard_mode(self.mouse)?;
        self.terminal.clear()
    }

    /// Draws a frame; only what changed is written.
    ///
    /// # Errors
    ///
    /// When the terminal is gone, or was given back because something panicked.
    pub fn draw(&mut self, draw: impl FnOnce(&mut Buffer)) -> io::Result<()> {
        if !TERMINAL_ACQUIRED.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::NotConnected.into());
        }
        self.terminal.draw(|frame| draw(frame.buffer_mut())).map(drop)
    }

    /// Columns and rows.
    #[must_use]
    pub fn size(&self) -> (u16, u16) {
        self.terminal.size().map_or((80, 24), |size| (size.width, size.height))
    }

    /// Asks the terminal to take a text into the clipboard (OSC 52); many do, some ask, some do
    /// not.
    ///
    /// # Errors
    ///
    /// When the terminal is gone.
    pub fn copy(&self, text: &str) -> io::Result<()> {
        let end = text.floor_char_boundary(CLIPBOARD_BYTES);
        let mut out = stdout();
        write!(out, "\x1b]52;c;{}\x07", BASE64_STANDARD.encode(&text[..end]))?;
        out.flush()
    }
}

impl Drop for TerminalGuard {
    fn drop(&mut self) {
        restore_terminal();
    }
}

struct TerminalRestore;

impl Drop for TerminalRestore {
    fn drop(&mut self) {
        restore_terminal();
    }
}

fn enter_dashboard_mode(mouse: bool) -> io::Result<()> {
    enable_raw_mode()?;
    TERMINAL_ACQUIRED.store(true, Ordering::SeqCst);
    execute!(stdout(), EnterAlternateScreen, event::EnableBracketedPaste, cursor::Hide)?;
    if mouse {
        execute!(stdout(), event::EnableMouseCapture)?;
    }
    Ok(())
}

fn restore_terminal() {
    if !TERMINAL_ACQUIRED.swap(false, Ordering::SeqCst) {
        return;
    }
    // Where the terminal is gone there is nothing to give back and nobody to tell.
    drop(execute!(
        stdout(),
        event::DisableMouseCapture,
        event::DisableBracketedPaste,
        ResetColor,
        LeaveAlternateScreen,
        cursor::Show
    ));
    drop(disable_raw_mode());
}

/// Gives the terminal back before the message of a panic is printed. A panic of the proxy beside
/// the dashboard ends one request, not the dashboard: it goes to the log instead of across the
/// screen.
fn install_panic_hook() {
    static HOOKED: Once = Once::new();
    HOOKED.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let ends_dashboard = DASHBOARD_ONLY.load(Ordering::SeqCst) || INSIDE.get();
            if TERMINAL_ACQUIRED.load(Ordering::SeqCst) && !ends_dashboard {
                let at = panic.location().map_or_else(String::new, ToString::to_string);
                tracing::error!(
                    at,
                    text = panic.payload_as_str().unwrap_or_default(),
                    "a task panicked"
                );
                return;
            }
            restore_terminal();
            before(panic);
        }));
    });
}

/// Runs a future so that a panic inside it is known as the dashboard's own.
///
/// # Errors
///
/// None of its own.
pub async fn run_as_dashboard<F: Future>(future: F) -> F::Output {
    let mut future = std::pin::pin!(future);
    std::future::poll_fn(|cx| {
        let before = INSIDE.replace(true);
        let _after = HookGuard(before);
        future.as_mut().poll(cx)
    })
    .await
}

/// Puts the mark back, but not while a panic unwinds: the hook has run by then, and the thread is
/// lost anyway.
struct HookGuard(bool);

impl Drop for HookGuard {
    fn drop(&mut self) {
        INSIDE.set(self.0);
    }
}

pub use input::InputReader;

/// Keys, mouse and signals. A thread of its own asks crossterm, and only when something is there:
/// after a hang-up its reader turns round for ever, so it must be neither on a thread of the
/// runtime nor waiting when that happens.
#[cfg(unix)]
mod input {
    use std::{
        io::{self, IsTerminal, stdin},
        os::fd::OwnedFd,
        sync::mpsc as std_mpsc,
        time::Duration,
    };

    use ratatui::crossterm::event::{self, Event};
    use tokio::{
        io::{Interest, unix::AsyncFd},
        signal::unix::{Signal, SignalKind, signal},
        sync::mpsc,
    };

    /// Events between the reading thread and the loop; beyond that typing waits in the terminal.
    const MAX_QUEUED_EVENTS: usize = 256;

    /// What comes from the reader's side.
    #[derive(Debug)]
    pub enum InputEvent {
        Event(Event),
        /// The terminal is gone, or somebody asks the process to end.
        Gone,
        Resized,
    }

    pub struct InputReader {
        tty: AsyncFd<OwnedFd>,
        read_request: std_mpsc::SyncSender<()>,
        events: mpsc::Receiver<Event>,
        window: Signal,
        hang_up: Signal,
        terminate: Signal,
        interrupt: Signal,
        /// A hang-up with the terminal still there is somebody's wish to reload the proxy in this
        /// process.
        dashboard_only: bool,
    }

    #[expect(
        deprecated,
        reason = "its successor is an unsafe function; an OwnedFd keeps the promise that one asks for"
    )]
    fn watch_readable(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
        AsyncFd::with_interest(fd, Interest::READABLE)
    }

    impl InputReader {
        /// Begins to listen.
        ///
        /// # Errors
        ///
        /// When there is no terminal to listen to.
        pub fn open(alone: bool) -> io::Result<Self> {
            let fd: OwnedFd = if stdin().is_terminal() {
                rustix::io::fcntl_dupfd_cloexec(stdin(), 3)?
            } else {
                std::fs::File::open("/dev/tty")?.into()
            };
            let (read, read_requests) = std_mpsc::sync_channel::<()>(1);
            let (found, events) = mpsc::channel(MAX_QUEUED_EVENTS);
            std::thread::Builder::new().name("keys".to_owned()).spawn(move || {
                while read_requests.recv().is_ok() {
                    while let Ok(true) = event::poll(Duration::ZERO) {
                        let Ok(event) = event::read() else { break };
                        if found.blocking_send(event).is_err() {
                            return;
                        }
                    }
                }
            })?;
            Ok(Self {
                tty: watch_readable(fd)?,
                read_request: read,
                events,
                window: signal(SignalKind::window_change())?,
                hang_up: signal(SignalKind::hangup())?,
                terminate: signal(SignalKind::terminate())?,
                interrupt: signal(SignalKind::interrupt())?,
                dashboard_only: alone,
            })
        }

        /// What comes next. May be dropped and called again: nothing is lost.
        pub async fn next(&mut self) -> InputEvent {
            loop {
                tokio::select! {
                    event = self.events.recv() => return event.map_or(InputEvent::Gone, InputEvent::Event),
                    ready = self.tty.readable() => {
                        let Ok(mut ready) = ready else { return InputEvent::Gone };
                        let state = ready.ready();
                        ready.clear_ready();
                        drop(ready);
                        if state.is_read_closed() || state.is_error() || !self.is_alive() {
                            return InputEvent::Gone;
                        }
                        // A full slot means that the thread has been asked already and not looked
                        // yet.
                        self.read_request.try_send(()).unwrap_or_default();
                    }
                    _ = self.window.recv() => return InputEvent::Resized,
                    _ = self.hang_up.recv() => {
                        if self.dashboard_only || !self.is_alive() {
                            return InputEvent::Gone;
                        }
                    }
                    _ = self.terminate.recv() => return InputEvent::Gone,
                    _ = self.interrupt.recv() => return InputEvent::Gone,
                }
            }
        }

        /// Whether the terminal is still there.
        #[must_use]
        pub fn is_alive(&self) -> bool {
            rustix::termios::tcgetattr(self.tty.get_ref()).is_ok()
        }
    }
}

/// Keys, mouse and the console's signals.
#[cfg(not(unix))]
mod input {
    use std::io;

    use ratatui::crossterm::event::{self, Event};
    use tokio::{signal::ctrl_c, sync::mpsc};

    /// Events between the reading thread and the loop; beyond that typing waits in the console.
    const QUEUE: usize = 256;

    /// What comes from the reader's side.
    #[derive(Debug)]
    pub enum Heard {
        Event(Event),
        /// The console is gone, or somebody asks the process to end.
        Gone,
        Resized,
    }

    pub struct Input {
        events: mpsc::Receiver<Event>,
    }

    impl InputReader {
        /// Begins to listen.
        ///
        /// # Errors
        ///
        /// When there is no console to listen to.
        pub fn open(_alone: bool) -> io::Result<Self> {
            let (found, events) = mpsc::channel(QUEUE);
            std::thread::Builder::new().name("keys".to_owned()).spawn(move || {
                while let Ok(event) = event::read() {
                    if found.blocking_send(event).is_err() {
                        return;
                    }
                }
            })?;
            Ok(Self { events })
        }

        /// What comes next. May be dropped and called again: nothing is lost.
        pub async fn next(&mut self) -> InputEvent {
            tokio::select! {
                event = self.events.recv() => match event {
                    Some(Event::Resize(..)) => Heard::Resized,
                    Some(event) => Heard::Event(event),
                    None => Heard::Gone,
                },
                _ = ctrl_c() => Heard::Gone,
            }
        }

        /// Whether the console is still there.
        #[must_use]
        pub fn alive(&self) -> bool {
            true
        }
    }
}

pub use input::InputEvent;
