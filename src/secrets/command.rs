//! Reads a key from a password manager: runs a program and takes the first line of its output.

use std::{
    io,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::{Child, Command},
    time::timeout,
};
use zeroize::Zeroizing;

use super::{
    Secret,
    redact::{printable, redact_key_shapes},
};

/// Runs a program without a shell and returns the first line of its output.
///
/// The program gets no input. It gets the environment of aiproxy, without the variables that
/// `forbid_env` names, those whose value looks like a key, and aiproxy's own token. At the timeout,
/// or when the future is dropped, the program is killed with everything it started. If it ends
/// normally, processes that it leaves running (an agent that caches a passphrase) are not killed.
///
/// # Errors
///
/// [`CommandError`]. It contains what the program wrote to stderr, shortened, and never what it
/// wrote to stdout.
pub fn run(
    words: &[String],
    forbid_env: &dyn Fn(&str) -> bool,
    limit: Duration,
) -> impl Future<Output = Result<Secret, CommandError>> + Send + use<> {
    let prepared = build_command(words, forbid_env);
    async move {
        let (program, mut command) = prepared?;
        let child = command.spawn().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => CommandError::NotFound { program },
            _ => CommandError::Start { program, error },
        })?;
        let mut running = RunningCommand { child, exited: false };
        timeout(limit, running.first_line()).await.unwrap_or(Err(CommandError::Timeout { limit }))
    }
}

/// Why a command returned no key. Never contains what the program wrote to stdout.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    #[error("the program wrote nothing{}", stderr_suffix(.stderr))]
    Empty { stderr: String },
    #[error("the program ended with {status}{}", stderr_suffix(.stderr))]
    Failed { status: ExitStatus, stderr: String },
    #[error("no program given")]
    NoProgram,
    #[error("no program `{program}`")]
    NotFound { program: String },
    #[error("the program wrote bytes that are not text")]
    NotText,
    #[error("the program's output cannot be read: {0}")]
    Read(io::Error),
    #[error("`{program}` cannot be started: {error}")]
    Start { program: String, error: io::Error },
    #[error("the program did not end within {} s", limit.as_secs_f32())]
    Timeout { limit: Duration },
    #[error("the program wrote more than a key")]
    OutputTooLarge,
}

impl CommandError {
    /// Returns what to do next.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NoProgram | Self::NotFound { .. } | Self::Start { .. } => {
                "install it, or give its full path; there is no shell in between"
            }
            Self::Timeout { .. } => {
                "it must not ask anything: unlock the password manager first, then `aiproxy reload`"
            }
            Self::Failed { .. } | Self::Empty { .. } => {
                "run it by hand as it stands there; it must write the key on its first line"
            }
            Self::NotText | Self::Read(_) | Self::OutputTooLarge => {
                "it must write the key, and only the key, on its first line"
            }
        }
    }
}

fn stderr_suffix(stderr: &str) -> String {
    if stderr.is_empty() { String::new() } else { format!(": {stderr}") }
}

fn build_command(
    words: &[String],
    forbid_env: &dyn Fn(&str) -> bool,
) -> Result<(String, Command), CommandError> {
    let (program, arguments) = words.split_first().ok_or(CommandError::NoProgram)?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    for (name, value) in std::env::vars_os() {
        if must_withhold(&name.to_string_lossy(), &value.to_string_lossy(), forbid_env) {
            command.env_remove(&name);
        }
    }
    // A process group of its own, so that a kill also reaches what the program starts.
    #[cfg(unix)]
    command.process_group(0);
    Ok((program.clone(), command))
}

fn must_withhold(name: &str, value: &str, forbid_env: &dyn Fn(&str) -> bool) -> bool {
    OWN_SECRET_VARIABLES.contains(&name) || forbid_env(name) || redact_key_shapes(value) != value
}

/// A started program. If this is dropped before the program has ended, its whole group is killed.
struct RunningCommand {
    child: Child,
    exited: bool,
}

impl Drop for RunningCommand {
    fn drop(&mut self) {
        #[cfg(unix)]
        if !self.exited
            && let Some(group) =
                self.child.id().and_then(|id| rustix::process::Pid::from_raw(id.cast_signed()))
        {
            // The program may have ended in this very moment; then there is no process to kill.
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
    }
}

impl RunningCommand {
    async fn first_line(&mut self) -> Result<Secret, CommandError> {
        let (mut stdout, mut stderr) = (self.child.stdout.take(), self.child.stderr.take());
        let (mut line, mut tail) = (FirstLine::new(), OutputTail::default());
        let mut buffer = Zeroizing::new(vec![0; CHUNK_BYTES]);
        let mut errors = Zeroizing::new(vec![0; CHUNK_BYTES]);
        let status = loop {
            tokio::select! {
                biased;
                n = read_pipe(&mut stdout, &mut buffer) => line.feed(&buffer[..n.map_err(CommandError::Read)?])?,
                n = read_pipe(&mut stderr, &mut errors) => tail.feed(&errors[..n.unwrap_or(0)]),
                status = self.child.wait() => break status.map_err(CommandError::Read)?,
            }
        };
        self.exited = true;
        // By now all output of the program is in the pipes. Their end may never arrive, because
        // another process that it started may still have them open.
        let rest = async {
            while stdout.is_some() {
                let n = read_pipe(&mut stdout, &mut buffer).await.map_err(CommandError::Read)?;
                line.feed(&buffer[..n])?;
            }
            while stderr.is_some() {
                let n = read_pipe(&mut stderr, &mut errors).await.unwrap_or(0);
                tail.feed(&errors[..n]);
            }
            Ok(())
        };
        timeout(PIPE_GRACE, rest).await.unwrap_or(Ok(()))?;

        let text = line.text();
        let stderr = || tail.to_safe_line(text.unwrap_or_default());
        if !status.success() {
            return Err(CommandError::Failed { status, stderr: stderr() });
        }
        match text {
            Err(_) => Err(CommandError::NotText),
            Ok(text) if text.trim().is_empty() => Err(CommandError::Empty { stderr: stderr() }),
            Ok(text) => Ok(Secret::new(text.to_owned())),
        }
    }
}

/// Reads the available bytes. At the end of the pipe it becomes `None`, and a pipe that is `None`
/// is never ready.
async fn read_pipe<R: AsyncRead + Unpin>(
    pipe: &mut Option<R>,
    buffer: &mut [u8],
) -> io::Result<usize> {
    let Some(open) = pipe else { return std::future::pending().await };
    let n = open.read(buffer).await;
    if !matches!(n, Ok(1..)) {
        *pipe = None;
    }
    n
}

/// The first line of a stream; the rest is counted and discarded.
struct FirstLine {
    bytes: Zeroizing<Vec<u8>>,
    complete: bool,
    bytes_read: usize,
}

impl FirstLine {
    fn new() -> Self {
        // Allocated at its maximum size, so that growing leaves no copy in freed memory.
        Self {
            bytes: Zeroizing::new(Vec::with_capacity(MAX_LINE_BYTES)),
            complete: false,
            bytes_read: 0,
        }
    }

    fn feed(&mut self, chunk: &[u8]) -> Result<(), CommandError> {
        self.bytes_read += chunk.len();
        if !self.complete {
            let end = memchr::memchr(b'\n', chunk);
            self.complete = end.is_some();
            let part = &chunk[..end.unwrap_or(chunk.len())];
            if self.bytes.len() + part.len() > MAX_LINE_BYTES {
                return Err(CommandError::OutputTooLarge);
            }
            self.bytes.extend_from_slice(part);
        }
        if self.bytes_read > MAX_OUTPUT_BYTES { Err(CommandError::OutputTooLarge) } else { Ok(()) }
    }

    fn text(&self) -> Result<&str, std::str::Utf8Error> {
        Ok(std::str::from_utf8(&self.bytes)?.trim_end_matches('\r'))
    }
}

/// The last bytes of a stream.
#[derive(Default)]
struct OutputTail(Zeroizing<Vec<u8>>);

impl OutputTail {
    fn feed(&mut self, chunk: &[u8]) {
        self.0.extend_from_slice(chunk);
        let over = self.0.len().saturating_sub(MAX_TAIL_BYTES);
        self.0.drain(..over);
    }

    /// Returns one printable line, without the key in case the program echoed it.
    fn to_safe_line(&self, key: &str) -> String {
        let text = String::from_utf8_lossy(&self.0);
        let text = if key.trim().is_empty() {
            text
        } else {
            text.replace(key.trim(), crate::base::redact::REDACTED).into()
        };
        printable(&text, MAX_SHOWN_CHARS)
    }
}

/// Variables of aiproxy that contain credentials.
const OWN_SECRET_VARIABLES: [&str; 2] = ["AIPROXY_TOKEN", "AIPROXY_KEYS_PASSPHRASE_FILE"];
const CHUNK_BYTES: usize = 4096;
const MAX_LINE_BYTES: usize = 64 * 1024;
const MAX_OUTPUT_BYTES: usize = 1024 * 1024;
const MAX_TAIL_BYTES: usize = 1024;
const MAX_SHOWN_CHARS: usize = 300;
/// How long the pipes of a program that has ended may stay open.
const PIPE_GRACE: Duration = Duration::from_millis(250);

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    async fn sh(script: &str) -> Result<Secret, CommandError> {
        let words = ["/bin/sh", "-c", script].map(str::to_owned);
        run(&words, &|name| name == "PATH", Duration::from_secs(20)).await
    }

    #[tokio::test]
    async fn first_line_of_the_output_is_the_key() {
        for script in [
            "echo sk-one; echo more",
            "printf sk-one",
            "printf 'sk-one\r\nuser: me\n'",
            "echo sk-one; echo warning >&2",
        ] {
            assert_eq!(sh(script).await.expect(script).expose(), "sk-one", "{script}");
        }
    }

    #[tokio::test]
    async fn forbidden_variables_do_not_reach_the_program() {
        // A shell sets PATH itself if it got none, but does not export it.
        assert_eq!(
            sh("env | grep -c ^PATH= || true").await.unwrap_or_else(|e| panic!("{e}")).expose(),
            "0"
        );
    }

    #[test]
    fn variables_with_keys_are_withheld_by_name_and_by_form() {
        let forbid: &dyn Fn(&str) -> bool = &|name| name == "SOME_API_KEY";
        for (name, value, kept_back) in [
            ("SOME_API_KEY", "anything", true),
            ("AIPROXY_TOKEN", "anything", true),
            ("MY_OWN_NAME", "sk-0123456789abcdef0123", true),
            ("HOME", "/home/me", false),
            ("PASSWORD_STORE_DIR", "/home/me/.password-store", false),
        ] {
            assert_eq!(must_withhold(name, value, forbid), kept_back, "{name}");
        }
    }

    #[tokio::test]
    async fn failures_are_reported_without_the_key() {
        for (script, expected) in [
            (
                "echo sk-one; echo 'vault is \u{1b}[1mlocked for sk-one' >&2; exit 3",
                "exit status: 3: vault is  [1mlocked for [redacted]",
            ),
            ("exit 0", "wrote nothing"),
            ("echo; echo sk-one", "wrote nothing"),
            ("printf 'sk-\\377\\n'", "not text"),
            ("head -c 70000 /dev/zero", "more than a key"),
            ("echo sk-one; yes", "more than a key"),
            ("kill -9 $$", "SIGKILL"),
        ] {
            let error = sh(script).await.expect_err(script).to_string();
            assert!(error.contains(expected) && !error.contains("sk-one"), "{script}: {error}");
        }
        let nowhere =
            run(&["/nowhere/pass".to_owned()], &|_| false, PIPE_GRACE).await.expect_err("nowhere");
        assert_eq!(nowhere.to_string(), "no program `/nowhere/pass`");
        assert!(matches!(run(&[], &|_| false, PIPE_GRACE).await, Err(CommandError::NoProgram)));
    }

    #[tokio::test]
    async fn leftover_child_process_does_not_delay_the_result() {
        assert_eq!(
            sh("sleep 600 & echo $!").await.map(|pid| kill(pid.expose())).expect("a pid"),
            Ok(())
        );
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn timeout_kills_the_whole_process_group() {
        let dir = tempfile::tempdir().expect("a folder");
        let pid_file = dir.path().join("pid");
        let script =
            format!("sleep 600 & echo $! > {0}.new; mv {0}.new {0}; wait", pid_file.display());
        let words = ["/bin/sh", "-c", &script].map(str::to_owned);

        // Long enough for a busy machine to write the number.
        let error = run(&words, &|_| false, Duration::from_secs(2)).await.expect_err("it waits");

        assert_eq!(error.to_string(), "the program did not end within 2 s");
        let pid = std::fs::read_to_string(pid_file).expect("its number");
        // A kill does not take effect at once, and a killed process may wait until its parent reaps
        // it.
        let runs = || {
            std::fs::read_to_string(format!("/proc/{}/stat", pid.trim()))
                .is_ok_and(|state| !state.contains(") Z"))
        };
        let gone = async {
            while runs() {
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(20), gone).await.expect("it still runs");
    }

    fn kill(pid: &str) -> rustix::io::Result<()> {
        let pid =
            pid.parse().ok().and_then(rustix::process::Pid::from_raw).expect("a process number");
        rustix::process::kill_process(pid, rustix::process::Signal::KILL)
    }
}
