//! Runs a program in the foreground: it has the terminal, and gets the signals that this process
//! gets.

use std::{io, process::Command};

/// Starts a program and waits for its end. Returns its exit code, or 128 + N if signal N ended it.
///
/// The program shares the process group of this process, so that pipes, job control and Ctrl-C work
/// as if the shell had started it. A signal of the terminal reaches the whole group and is not
/// passed on; one that was sent to this process alone is.
///
/// # Errors
///
/// The program cannot be started.
pub(super) fn run(command: &mut Command) -> io::Result<u8> {
    system::run(command)
}

#[cfg(unix)]
mod system {
    use std::{
        io::{self, IsTerminal as _},
        os::unix::process::ExitStatusExt as _,
        process::{Command, ExitStatus},
    };

    use rustix::{
        process::{
            Pid, Signal, WaitId, WaitIdOptions, getpgrp, getpid, getsid, kill_process, waitid,
        },
        termios::{OptionalActions, Termios, tcgetattr, tcgetpgrp, tcsetattr},
    };
    use signal_hook::{
        iterator::{SignalsInfo, exfiltrator::WithOrigin},
        low_level::siginfo::{Cause, Origin},
    };

    use crate::cli::serve::signals::ignored_signals;

    /// The signals that are passed on. The system stops and continues both processes together.
    const PASSED_ON: [Signal; 7] = [
        Signal::INT,
        Signal::TERM,
        Signal::HUP,
        Signal::QUIT,
        Signal::WINCH,
        Signal::USR1,
        Signal::USR2,
    ];

    pub(super) fn run(command: &mut Command) -> io::Result<u8> {
        // What `nohup` or a shell ignores stays ignored, and the program inherits that.
        let ignored = ignored_signals();
        let signals =
            PASSED_ON.map(Signal::as_raw).into_iter().filter(|n| ignored & (1 << (n - 1)) == 0);
        // Before the program starts, so that no signal ends this process alone.
        let mut received = SignalsInfo::<WithOrigin>::new(signals)?;
        let modes = TerminalModes::of_foreground();
        let mut child = command.spawn()?;
        let pid = Pid::from_child(&child);
        let handle = received.handle();
        let passer = std::thread::spawn(move || {
            for origin in received.forever() {
                if is_for_this_process(&origin)
                    && let Some(signal) = Signal::from_named_raw(origin.signal)
                {
                    // It fails only if the program has ended.
                    kill_process(pid, signal).ok();
                }
            }
        });
        // Its id stays taken until nothing is sent to it any more.
        let ended = wait_without_reaping(pid);
        handle.close();
        drop(passer.join());
        ended?;
        let status = child.wait()?;
        if status.signal().is_some() {
            modes.restore();
        }
        Ok(exit_code(status))
    }

    fn wait_without_reaping(pid: Pid) -> io::Result<()> {
        loop {
            match waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT) {
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
                Ok(_) => return Ok(()),
            }
        }
    }

    /// Whether a signal was sent to this process and not to its whole group by the terminal.
    fn is_for_this_process(origin: &Origin) -> bool {
        let by_system = match origin.cause {
            Cause::Kernel => true,
            // Such a system names no cause, but no sender either.
            _ => cfg!(not(target_os = "linux")) && origin.process.is_none_or(|by| by.pid == 0),
        };
        // Only the leader of a session gets a signal when the terminal is gone.
        let is_leader = || getsid(None).is_ok_and(|leader| leader == getpid());
        !by_system || (origin.signal == Signal::HUP.as_raw() && is_leader())
    }

    /// The code that a shell would report.
    fn exit_code(status: ExitStatus) -> u8 {
        let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
        code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
    }

    /// The modes of the terminal before a program that may end without restoring them.
    struct TerminalModes(Option<Termios>);

    impl TerminalModes {
        /// Reads them if this process is in the foreground of a terminal.
        fn of_foreground() -> Self {
            Self(is_foreground().then(|| tcgetattr(io::stdin()).ok()).flatten())
        }

        fn restore(&self) {
            if let Some(modes) = self.0.as_ref().filter(|_| is_foreground()) {
                tcsetattr(io::stdin(), OptionalActions::Drain, modes).ok();
            }
        }
    }

    /// A process in the background must not touch the terminal.
    fn is_foreground() -> bool {
        io::stdin().is_terminal() && tcgetpgrp(io::stdin()).is_ok_and(|group| group == getpgrp())
    }
}

#[cfg(not(unix))]
mod system {
    use std::{io, process::Command};

    /// Windows sends Ctrl-C to every program of the console, so that nothing is passed on.
    pub(super) fn run(command: &mut Command) -> io::Result<u8> {
        // As long as they exist, this process outlives both keys.
        let keys = (tokio::signal::windows::ctrl_c()?, tokio::signal::windows::ctrl_break()?);
        let status = command.spawn()?.wait()?;
        drop(keys);
        Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
    }
}
