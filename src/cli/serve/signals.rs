//! Receives the signals of a running proxy: stop, reload, or loss of its terminal.

use std::io;

use tokio_util::sync::CancellationToken;

/// The request behind a signal.
pub(super) enum ProcessSignal {
    Reload,
    Stop,
}

/// SIGTERM, SIGINT and SIGHUP.
#[cfg(unix)]
pub(super) struct SignalListener {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
    /// Whether the process started with a controlling terminal.
    had_terminal: bool,
}

#[cfg(unix)]
impl SignalListener {
    pub(super) fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            had_terminal: has_terminal(),
        })
    }

    pub(super) async fn next(&mut self) -> ProcessSignal {
        tokio::select! {
            _ = self.terminate.recv() => ProcessSignal::Stop,
            _ = self.interrupt.recv() => ProcessSignal::Stop,
            // SIGHUP reloads a daemon but stops a foreground process whose terminal closed.
            _ = self.hangup.recv() => if self.had_terminal && !has_terminal() { ProcessSignal::Stop } else { ProcessSignal::Reload },
        }
    }

    /// The next stop signal aborts open requests.
    pub(super) fn stop_at_once_on_next(self, now: CancellationToken) {
        let Self { mut terminate, mut interrupt, .. } = self;
        #[expect(
            clippy::disallowed_methods,
            reason = "the shutdown that it may cut short must not wait for it"
        )]
        drop(tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            now.cancel();
        }));
    }
}

#[cfg(unix)]
fn has_terminal() -> bool {
    std::fs::File::open("/dev/tty").is_ok()
}

/// Ctrl-C and Ctrl-Break; written to the platform's documentation.
#[cfg(not(unix))]
pub struct SignalListener {
    interrupt: tokio::signal::windows::CtrlC,
    close: tokio::signal::windows::CtrlBreak,
}

#[cfg(not(unix))]
impl SignalListener {
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: tokio::signal::windows::ctrl_c()?,
            close: tokio::signal::windows::ctrl_break()?,
        })
    }

    pub async fn next(&mut self) -> ProcessSignal {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.close.recv() => {}
        }
        ProcessSignal::Stop
    }

    pub fn stop_at_once_on_next(self, now: CancellationToken) {
        let Self { mut interrupt, mut close } = self;
        #[expect(
            clippy::disallowed_methods,
            reason = "the shutdown that it may cut short must not wait for it"
        )]
        drop(tokio::spawn(async move {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = close.recv() => {}
            }
            now.cancel();
        }));
    }
}
