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
    /// Whether the process ends with its terminal: it started with one, and not under `nohup`.
    ends_with_terminal: bool,
}

#[cfg(unix)]
impl SignalListener {
    pub(super) fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        // The handler below replaces the disposition, so it must be read before.
        let ends_with_terminal = has_terminal() && !ignores_hangup();
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            ends_with_terminal,
        })
    }

    pub(super) async fn next(&mut self) -> ProcessSignal {
        tokio::select! {
            _ = self.terminate.recv() => ProcessSignal::Stop,
            _ = self.interrupt.recv() => ProcessSignal::Stop,
            // SIGHUP reloads a daemon but stops a foreground process whose terminal closed.
            _ = self.hangup.recv() => if self.ends_with_terminal && !has_terminal() {
                ProcessSignal::Stop
            } else {
                ProcessSignal::Reload
            },
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

/// Whether the process was started with SIGHUP ignored, as `nohup` does.
#[cfg(unix)]
fn ignores_hangup() -> bool {
    /// SIGHUP is signal 1, the lowest bit.
    const HANGUP_BIT: u64 = 1;
    ignored_signals() & HANGUP_BIT != 0
}

/// Returns the signals that this process ignores; signal N is bit N - 1. Only Linux reports this
/// without unsafe code; elsewhere it is 0, and `nohup` needs `setsid` too.
#[cfg(unix)]
pub(in crate::cli) fn ignored_signals() -> u64 {
    std::fs::read_to_string("/proc/self/status").map_or(0, |status| ignored_mask(&status))
}

/// Reads the mask of ignored signals from the text of `/proc/PID/status`.
#[cfg(unix)]
fn ignored_mask(status: &str) -> u64 {
    status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0)
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

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn ignored_signal_mask_detects_nohup() {
        for (status, ignored) in [
            ("SigBlk:\t0000000000000000\nSigIgn:\t0000000000000001\n", true),
            ("SigIgn:\t0000000000001001\nSigCgt:\t0000000000000000\n", true),
            ("SigIgn:\t0000000000001000\nSigCgt:\t0000000000000001\n", false),
            ("SigIgn:\tgarbage\n", false),
            ("", false),
        ] {
            assert_eq!(ignored_mask(status) & 1 == 1, ignored, "{status}");
        }
    }
}
