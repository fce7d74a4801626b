//! Acquires the terminal for the dashboard, always restores it, and detects when it is gone.

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

/// Approximate clipboard limit of terminals.
const CLIPBOARD_BYTES: usize = 70_000;

/// Whether the dashboard has the terminal. The first caller to restore it clears the flag.
static TERMINAL_ACQUIRED: AtomicBool = AtomicBool::new(false);
/// Whether a panic in any thread ends the dashboard, or only a panic in the dashboard itself.
static DASHBOARD_ONLY: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// This thread is currently running the dashboard rather than the proxy in the same process.
    static INSIDE: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// The acquired terminal; dropping the guard restores it.
pub struct TerminalGuard {
    terminal: Terminal<CrosstermBackend<io::Stdout>>,
    mouse: bool,
}

impl TerminalGuard {
    /// Acquires the terminal. `alone`: only the dashboard runs in this process.
    ///
    /// # Errors
    ///
    /// Stdout is not a terminal, or the terminal does not support a required feature.
    pub fn acquire(mouse: bool, alone: bool) -> io::Result<Self> {
        if !stdout().is_terminal() {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "stdout is not a terminal"));
        }
        DASHBOARD_ONLY.store(alone, Ordering::SeqCst);
        install_panic_hook();
        // From here on an early return restores the terminal.
        let back = TerminalRestore;
        enter_dashboard_mode(mouse)?;
        let mut terminal = Terminal::new(CrosstermBackend::new(stdout()))?;
        terminal.clear()?;
        std::mem::forget(back);
        Ok(Self { terminal, mouse })
    }

    /// Lends the terminal to another program.
    ///
    /// # Errors
    ///
    /// The terminal is gone.
    pub fn suspend(&self) -> io::Result<()> {
        restore_terminal();
        stdout().flush()
    }

    /// Acquires the terminal again and redraws everything.
    ///
    /// # Errors
    ///
    /// The terminal is gone.
    pub fn resume(&mut self) -> io::Result<()> {
        enter_dashboard_mode(self.mouse)?;
        self.terminal.clear()
    }

    /// Draws a frame; only changed cells are written.
    ///
    /// # Errors
    ///
    /// The terminal is gone, or was restored because of a panic.
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

    /// Asks the terminal to copy a text to the clipboard (OSC 52). Terminals may accept, ask the
    /// user or ignore it.
    ///
    /// # Errors
    ///
    /// The terminal is gone.
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
    // If the terminal is gone, there is nothing to restore and no place for an error.
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

/// Restores the terminal before a panic message is printed. A panic of the proxy in the same
/// process ends one request, not the dashboard: its message goes to the log instead of the screen.
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

/// Runs a future so that the panic hook attributes a panic inside it to the dashboard.
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

/// Resets the mark, but not during a panic: by then the hook has run, and the thread ends anyway.
struct HookGuard(bool);

impl Drop for HookGuard {
    fn drop(&mut self) {
        INSIDE.set(self.0);
    }
}

pub use input::InputReader;

/// Reads keys, mouse and signals. A separate thread polls crossterm, and only when input is
/// available. After a hang-up crossterm's reader loops forever, so it must not run on a runtime
/// thread or be waiting at that moment.
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

    use crate::tui::suspend;

    /// Upper bound for events between the reader thread and the loop; further input stays in the
    /// terminal.
    const MAX_QUEUED_EVENTS: usize = 256;

    /// An input event from the user.
    #[derive(Debug)]
    pub enum InputEvent {
        Event(Event),
        /// The terminal is gone, or a signal requests termination.
        Gone,
        Resized,
        /// Another process asks the dashboard to stop for a while (SIGTSTP).
        Suspend,
    }

    pub struct InputReader {
        tty: AsyncFd<OwnedFd>,
        read_request: std_mpsc::SyncSender<()>,
        events: mpsc::Receiver<Event>,
        window: Signal,
        hang_up: Signal,
        terminate: Signal,
        interrupt: Signal,
        stop: Signal,
        /// If false, a hang-up while the terminal exists is a request to reload the proxy in this
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
        /// Starts reading.
        ///
        /// # Errors
        ///
        /// There is no terminal to read from.
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
                stop: signal(suspend::stop_signal())?,
                dashboard_only: alone,
            })
        }

        /// Waits for the next event. Cancel-safe: no event is lost.
        pub async fn next(&mut self) -> InputEvent {
            loop {
                tokio::select! {
                    event = self.events.recv() => {
                        return event.map_or(InputEvent::Gone, InputEvent::Event);
                    }
                    ready = self.tty.readable() => {
                        let Ok(mut ready) = ready else { return InputEvent::Gone };
                        let state = ready.ready();
                        ready.clear_ready();
                        drop(ready);
                        if state.is_read_closed() || state.is_error() || !self.is_alive() {
                            return InputEvent::Gone;
                        }
                        // A full channel means that the thread already has a pending request.
                        self.read_request.try_send(()).unwrap_or_default();
                    }
                    _ = self.window.recv() => {
                        // crossterm has a pending event for the signal too. If it met the next key
                        // together with it, that key would wait for another one.
                        self.read_request.try_send(()).unwrap_or_default();
                        return InputEvent::Resized;
                    }
                    _ = self.hang_up.recv() => {
                        if self.dashboard_only || !self.is_alive() {
                            return InputEvent::Gone;
                        }
                    }
                    _ = self.terminate.recv() => return InputEvent::Gone,
                    _ = self.interrupt.recv() => return InputEvent::Gone,
                    _ = self.stop.recv() => return InputEvent::Suspend,
                }
            }
        }

        /// Waits until another process asks the dashboard to stop. Cancel-safe.
        pub async fn suspend_request(&mut self) {
            self.stop.recv().await;
        }

        /// Whether the terminal still exists.
        #[must_use]
        pub fn is_alive(&self) -> bool {
            rustix::termios::tcgetattr(self.tty.get_ref()).is_ok()
        }
    }
}

/// Reads keys, mouse and the console's signals.
#[cfg(not(unix))]
mod input {
    use std::io;

    use ratatui::crossterm::event::{self, Event};
    use tokio::{signal::ctrl_c, sync::mpsc};

    /// Upper bound for events between the reader thread and the loop; further input stays in the
    /// console.
    const MAX_QUEUED_EVENTS: usize = 256;

    /// An input event from the user.
    #[derive(Debug)]
    pub enum InputEvent {
        Event(Event),
        /// The console is gone, or another process requests termination.
        Gone,
        Resized,
        /// Never sent here: a console has no job control.
        Suspend,
    }

    pub struct InputReader {
        events: mpsc::Receiver<Event>,
    }

    impl InputReader {
        /// Starts reading.
        ///
        /// # Errors
        ///
        /// There is no console to read from.
        pub fn open(_alone: bool) -> io::Result<Self> {
            let (found, events) = mpsc::channel(MAX_QUEUED_EVENTS);
            std::thread::Builder::new().name("keys".to_owned()).spawn(move || {
                while let Ok(event) = event::read() {
                    if found.blocking_send(event).is_err() {
                        return;
                    }
                }
            })?;
            Ok(Self { events })
        }

        /// Waits for the next event. Cancel-safe: no event is lost.
        pub async fn next(&mut self) -> InputEvent {
            tokio::select! {
                event = self.events.recv() => match event {
                    Some(Event::Resize(..)) => InputEvent::Resized,
                    Some(event) => InputEvent::Event(event),
                    None => InputEvent::Gone,
                },
                _ = ctrl_c() => InputEvent::Gone,
            }
        }

        /// No other process asks a console program to stop.
        pub async fn suspend_request(&mut self) {
            std::future::pending().await
        }

        /// Whether the console still exists.
        #[must_use]
        pub fn is_alive(&self) -> bool {
            true
        }
    }
}

pub use input::InputEvent;
