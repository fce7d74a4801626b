//! Stops the process for the shell's job control (Ctrl-Z and SIGTSTP) until it is continued.

#[cfg(unix)]
mod job_control {
    use std::{io::stdout, time::Duration};

    use rustix::process::{self, Signal};
    use tokio::signal::unix::SignalKind;

    /// How often a process that was continued in the background looks whether it is in front.
    const FOREGROUND_CHECK_INTERVAL: Duration = Duration::from_millis(200);

    /// The signal by which other processes ask a program to stop.
    #[must_use]
    pub(in crate::tui) fn stop_signal() -> SignalKind {
        SignalKind::from_raw(Signal::TSTP.as_raw())
    }

    /// Whether a shell is there that could continue the process. The shell puts each job into a
    /// process group of its own; a program that the terminal started itself would stay stopped.
    #[must_use]
    pub(in crate::tui) fn has_job_control() -> bool {
        process::getsid(None).is_ok_and(|session| session != process::getpgrp())
    }

    /// Stops this process, or the whole job as the terminal does for Ctrl-Z. Returns when it was
    /// continued and has the terminal: `bg` lets the process run without it.
    pub(in crate::tui) async fn stop_until_foreground(whole_job: bool) {
        stop(whole_job);
        while !is_foreground() {
            tokio::time::sleep(FOREGROUND_CHECK_INTERVAL).await;
        }
    }

    /// Stops this process or the whole job until it is continued.
    pub(in crate::tui) fn stop(whole_job: bool) {
        // If the system refuses, the dashboard stays.
        let stopped = if whole_job {
            process::kill_current_process_group(Signal::STOP)
        } else {
            process::kill_process(process::getpid(), Signal::STOP)
        };
        stopped.unwrap_or_default();
    }

    /// True also if the terminal is gone, so that waiting ends.
    fn is_foreground() -> bool {
        rustix::termios::tcgetpgrp(stdout()).map_or(true, |group| group == process::getpgrp())
    }
}

/// Other systems have no job control.
#[cfg(not(unix))]
mod job_control {
    /// Whether a shell is there that could continue the process.
    #[must_use]
    pub(in crate::tui) fn has_job_control() -> bool {
        false
    }

    /// Returns at once.
    pub(in crate::tui) async fn stop_until_foreground(_whole_job: bool) {}

    /// Does nothing.
    pub(in crate::tui) fn stop(_whole_job: bool) {}
}

#[cfg(unix)]
pub(super) use job_control::stop_signal;
pub(super) use job_control::{has_job_control, stop, stop_until_foreground};
