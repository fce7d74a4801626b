//! Starts the programs of stdio servers and ends them with everything that they started.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use tokio::{
    process::{Child, ChildStderr, ChildStdin, ChildStdout, Command},
    sync::{mpsc, oneshot},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::base::sync::Mutex;

/// Time for a program to exit after the end of its input.
const INPUT_GRACE: Duration = Duration::from_millis(500);
/// A program that got the signal to end has this long.
const SIGNAL_GRACE: Duration = Duration::from_millis(1_500);

/// Variables that a program inherits: where it finds its tools, its user's files and the network.
/// Everything else, above all keys, stays here.
const INHERITED: &[&str] = &[
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "TERM",
    "LANG",
    "LANGUAGE",
    "TZ",
    "TMPDIR",
    "TMP",
    "TEMP",
    "DISPLAY",
    "WAYLAND_DISPLAY",
    "XAUTHORITY",
    "XDG_RUNTIME_DIR",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
    "XDG_CACHE_HOME",
    "XDG_STATE_HOME",
    "DBUS_SESSION_BUS_ADDRESS",
    "SSH_AUTH_SOCK",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "NODE_EXTRA_CA_CERTS",
    "NVM_DIR",
    "DOCKER_HOST",
    "SYSTEMROOT",
    "SYSTEMDRIVE",
    "WINDIR",
    "COMSPEC",
    "PATHEXT",
    "APPDATA",
    "LOCALAPPDATA",
    "USERPROFILE",
    "USERNAME",
    "HOMEDRIVE",
    "HOMEPATH",
    "PROGRAMDATA",
    "PROGRAMFILES",
];

/// A program to start.
pub struct Launch {
    pub program: PathBuf,
    pub args: Vec<String>,
    pub env: Vec<(OsString, OsString)>,
    pub cwd: Option<PathBuf>,
}

type SpawnResult = std::io::Result<Child>;

/// The way to the thread that starts programs.
type LaunchSender = std::sync::mpsc::Sender<(Launch, oneshot::Sender<SpawnResult>)>;

/// Starts programs from one thread that lives as long as the proxy: the signal that a child gets
/// at its parent's death belongs to the thread that started it.
pub struct ChildSpawner {
    requests: Mutex<Option<LaunchSender>>,
}

impl Default for ChildSpawner {
    fn default() -> Self {
        Self { requests: Mutex::new(None) }
    }
}

impl ChildSpawner {
    /// Starts a program in a process group of its own.
    ///
    /// # Errors
    ///
    /// The program cannot be started.
    pub async fn spawn(&self, launch: Launch) -> SpawnResult {
        let (reply, started) = oneshot::channel();
        let gone = || std::io::Error::other("the thread that starts programs is gone");
        {
            let mut requests = self.requests.lock();
            let sender = match &*requests {
                Some(sender) => sender.clone(),
                None => requests.insert(start_thread()?).clone(),
            };
            sender.send((launch, reply)).map_err(|_| gone())?;
        }
        started.await.map_err(|_| gone())?
    }
}

fn start_thread() -> std::io::Result<LaunchSender> {
    let (sender, requests) = std::sync::mpsc::channel::<(Launch, oneshot::Sender<SpawnResult>)>();
    let runtime = tokio::runtime::Handle::current();
    std::thread::Builder::new().name("mcp-children".to_owned()).spawn(move || {
        for (launch, reply) in requests {
            let _runtime = runtime.enter();
            // If the start was cancelled, the child ends when it is dropped.
            drop(reply.send(command(launch).spawn()));
        }
    })?;
    Ok(sender)
}

fn command(launch: Launch) -> Command {
    let mut command = wrapped(&launch);
    command
        .args(&launch.args)
        .env_clear()
        .envs(launch.env)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    if let Some(folder) = launch.cwd {
        command.current_dir(folder);
    }
    #[cfg(unix)]
    command.process_group(0);
    command
}

/// On Linux this program starts itself, asks to be killed when its parent dies, and becomes the
/// program that is wanted: the kernel keeps that wish.
#[cfg(target_os = "linux")]
fn wrapped(launch: &Launch) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg("mcp").arg("child").arg(std::process::id().to_string()).arg("--");
    command.arg(&launch.program);
    command
}

#[cfg(not(target_os = "linux"))]
fn wrapped(launch: &Launch) -> Command {
    Command::new(&launch.program)
}

/// Becomes `program` as a child of process `parent`; returns only if that is impossible.
#[cfg(target_os = "linux")]
#[must_use]
pub fn become_child(parent: u32, program: &Path, args: &[OsString]) -> std::io::Error {
    use std::os::unix::process::CommandExt;
    let wish = rustix::process::Signal::KILL;
    if let Err(error) = rustix::process::set_parent_process_death_signal(Some(wish)) {
        return error.into();
    }
    // The parent may have died before the wish was there.
    let now = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get().unsigned_abs());
    if now != Some(parent) {
        return std::io::Error::other("the proxy that started this is gone");
    }
    std::process::Command::new(program).args(args).exec()
}

/// Elsewhere children are started directly.
#[cfg(not(target_os = "linux"))]
#[must_use]
pub fn become_child(_parent: u32, _program: &Path, _args: &[OsString]) -> std::io::Error {
    std::io::Error::other("this is needed on Linux only")
}

/// Returns the variables that a program inherits.
#[must_use]
pub fn inherited_env() -> Vec<(OsString, OsString)> {
    std::env::vars_os()
        .filter(|(name, _)| {
            name.to_str().is_some_and(|name| {
                name.starts_with("LC_") || INHERITED.iter().any(|known| same_name(known, name))
            })
        })
        .collect()
}

fn same_name(known: &str, name: &str) -> bool {
    if cfg!(windows) { known.eq_ignore_ascii_case(name) } else { known == name }
}

/// Finds a program as a shell would.
///
/// # Errors
///
/// A sentence that names the program.
pub fn find_program(program: &str, env: &[(OsString, OsString)]) -> Result<PathBuf, String> {
    let is_path = program.contains(std::path::MAIN_SEPARATOR) || program.contains('/');
    if is_path {
        let path = PathBuf::from(program);
        return if path.is_file() {
            Ok(path)
        } else {
            Err(format!("`{program}` is not there, so it cannot be started"))
        };
    }
    let path = env.iter().rev().find(|(name, _)| name == "PATH").map(|(_, value)| value);
    let names = if cfg!(windows) {
        vec![format!("{program}.exe"), format!("{program}.cmd"), program.to_owned()]
    } else {
        vec![program.to_owned()]
    };
    path.into_iter()
        .flat_map(std::env::split_paths)
        .flat_map(|folder| names.iter().map(move |name| folder.join(name)).collect::<Vec<_>>())
        .find(|path| path.is_file())
        .ok_or_else(|| format!("no program `{program}` is in PATH, so it cannot be started"))
}

/// The pipes of a started program.
pub struct ChildPipes {
    pub stdin: ChildStdin,
    pub stdout: ChildStdout,
    pub stderr: ChildStderr,
}

/// A running program.
#[derive(Clone)]
pub struct RunningChild {
    /// Asks for its end.
    pub stop: CancellationToken,
    /// It has ended, and so has everything in its group.
    pub ended: CancellationToken,
    pub pid: Option<u32>,
    status: Arc<Mutex<String>>,
}

impl RunningChild {
    /// Watches over a started program until it has ended; `None` if its pipes are missing.
    pub fn watch(mut child: Child, tracker: &TaskTracker) -> Option<(Self, ChildPipes)> {
        let pipes = ChildPipes {
            stdin: child.stdin.take()?,
            stdout: child.stdout.take()?,
            stderr: child.stderr.take()?,
        };
        let running = Self {
            stop: CancellationToken::new(),
            ended: CancellationToken::new(),
            pid: child.id(),
            status: Arc::default(),
        };
        let watcher = running.clone();
        tracker.spawn(async move { watcher.run(child).await });
        Some((running, pipes))
    }

    async fn run(&self, mut child: Child) {
        let exited = tokio::select! {
            exited = child.wait() => Some(exited),
            () = self.stop.cancelled() => None,
        };
        let exited = match exited {
            Some(exited) => exited,
            None => match tokio::time::timeout(INPUT_GRACE, child.wait()).await {
                Ok(exited) => exited,
                Err(_) => {
                    signal_group(self.pid, false);
                    match tokio::time::timeout(SIGNAL_GRACE, child.wait()).await {
                        Ok(exited) => exited,
                        Err(_) => {
                            signal_group(self.pid, true);
                            drop(child.start_kill());
                            child.wait().await
                        }
                    }
                }
            },
        };
        // What the program itself started is in its group.
        signal_group(self.pid, true);
        *self.status.lock() = match exited {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        };
        self.ended.cancel();
    }

    /// Returns how it ended: `exit status: 1`.
    #[must_use]
    pub fn status(&self) -> String {
        self.status.lock().clone()
    }
}

#[cfg(unix)]
fn signal_group(pid: Option<u32>, kill: bool) {
    use rustix::process::{Pid, Signal, kill_process_group};
    let signal = if kill { Signal::KILL } else { Signal::TERM };
    if let Some(group) = pid.and_then(|pid| Pid::from_raw(pid.cast_signed())) {
        // An error means that the group is already empty.
        let _ = kill_process_group(group, signal);
    }
}

#[cfg(not(unix))]
fn signal_group(_pid: Option<u32>, _kill: bool) {}

/// The newest lines that a program wrote to its standard error.
#[derive(Debug, Default)]
pub struct ErrorLines(Mutex<std::collections::VecDeque<String>>);

/// Lines that are kept of one server.
const MAX_LINES: usize = 500;
/// Characters that are kept of one line.
const MAX_LINE: usize = 1_000;

impl ErrorLines {
    /// Keeps a line, without control characters.
    pub fn push(&self, line: &str) {
        let line = strip_escapes(line);
        let line = crate::base::sanitize::clean(line.trim_end());
        let line = crate::base::sanitize::truncate_end(&line, MAX_LINE).into_owned();
        let mut lines = self.0.lock();
        if lines.len() >= MAX_LINES {
            lines.pop_front();
        }
        lines.push_back(line);
    }

    /// Returns the lines, oldest first.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.0.lock().iter().cloned().collect()
    }

    /// Returns the newest line that is not empty.
    #[must_use]
    pub fn last(&self) -> Option<String> {
        self.0.lock().iter().rev().find(|line| !line.is_empty()).cloned()
    }
}

/// Removes colour codes and other escape sequences of terminals.
fn strip_escapes(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '\u{1b}' {
            out.push(c);
            continue;
        }
        if chars.next_if_eq(&'[').is_some() {
            // The sequence ends with a letter.
            while chars.next().is_some_and(|c| !('\u{40}'..='\u{7e}').contains(&c)) {}
        }
    }
    out
}

/// Sends texts to a program, one a line.
pub type LineSender = mpsc::Sender<String>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_lines_are_bounded_and_plain() {
        let lines = ErrorLines::default();
        for i in 0..2_000 {
            lines.push(&format!("line {i} \u{1b}[31m{}", "x".repeat(5_000)));
        }
        let kept = lines.lines();
        assert_eq!(kept.len(), MAX_LINES);
        assert!(kept.iter().all(|line| !line.contains(['\u{1b}']) && line.len() < 1_100));
        assert!(lines.last().is_some_and(|line| line.starts_with("line 1999 x")));
    }

    #[test]
    fn a_program_that_is_missing_is_named() {
        let error = find_program("/nonexistent/server", &[]).expect_err("missing");
        assert!(error.contains("/nonexistent/server"), "{error}");
        assert!(find_program("no-such-program-here", &inherited_env()).is_err());
    }
}
