//! The connection to a program: one message a line over its standard input and output.

use std::{ffi::OsString, sync::Arc};

use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader},
    process::{ChildStderr, ChildStdin, ChildStdout},
    sync::mpsc,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    base::sanitize,
    config::settings::McpServer,
    mcp::{
        message::RpcMessage,
        wire::calls::{CallFault, OpenCalls},
        wire::process::{
            ChildSpawner, ErrorLines, Launch, LineSender, RunningChild, find_program, inherited_env,
        },
    },
    secrets::resolve::SecretResolver,
};

/// The longest line that is taken.
pub const MAX_LINE_BYTES: usize = 64 << 20;
/// Messages that wait for a program that does not read.
const MAX_WAITING_LINES: usize = 64;

/// The connection.
pub struct StdioWire {
    lines: LineSender,
    child: RunningChild,
}

impl StdioWire {
    /// Starts the program of a server.
    ///
    /// # Errors
    ///
    /// A sentence: a reference that cannot be read, or a program that cannot be started.
    pub async fn start(
        row: &McpServer,
        resolver: &SecretResolver,
        spawner: &ChildSpawner,
        calls: &Arc<OpenCalls>,
        errors: &Arc<ErrorLines>,
        tracker: &TaskTracker,
    ) -> Result<Self, String> {
        let launch = launch(row, resolver).await?;
        let program = launch.program.display().to_string();
        let child = spawner
            .spawn(launch)
            .await
            .map_err(|error| format!("`{program}` cannot be started: {error}"))?;
        let (child, pipes) = RunningChild::watch(child, tracker)
            .ok_or_else(|| format!("`{program}` was started without pipes"))?;
        let (lines, waiting) = mpsc::channel(MAX_WAITING_LINES);
        tracker.spawn(write_lines(pipes.stdin, waiting, child.stop.clone()));
        tracker.spawn(keep_errors(pipes.stderr, Arc::clone(errors)));
        let reader =
            OutputReader { calls: Arc::clone(calls), lines: lines.clone(), child: child.clone() };
        tracker.spawn(reader.run(pipes.stdout, Arc::clone(errors)));
        Ok(Self { lines, child })
    }

    /// Sends one message.
    ///
    /// # Errors
    ///
    /// The program has ended.
    pub async fn send(&self, line: String) -> Result<(), CallFault> {
        let gone = |_| CallFault::Closed("the program has ended".into());
        self.lines.send(line).await.map_err(gone)
    }

    /// Sends a message if the program reads; others may be lost.
    pub fn try_send(&self, line: String) {
        drop(self.lines.try_send(line));
    }

    /// Asks the program to end.
    pub fn stop(&self) {
        self.child.stop.cancel();
    }

    /// Cancelled when the program has ended.
    #[must_use]
    pub fn ended(&self) -> &CancellationToken {
        &self.child.ended
    }

    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.pid
    }
}

async fn launch(row: &McpServer, resolver: &SecretResolver) -> Result<Launch, String> {
    let mut env = inherited_env();
    for (name, reference) in &row.env {
        let value = resolver
            .resolve_header_value(reference)
            .await
            .map_err(|error| format!("the variable {name}: {}", error.text()))?;
        env.retain(|(known, _)| known.to_str() != Some(name));
        env.push((OsString::from(name), OsString::from(value.expose())));
    }
    let program = find_program(row.command.as_deref().unwrap_or_default(), &env)?;
    let home = env.iter().find(|(name, _)| name == "HOME" || name == "USERPROFILE");
    let cwd = row.cwd.clone().or_else(|| home.map(|(_, value)| value.into()));
    let cwd = cwd.filter(|folder| row.cwd.is_some() || folder.is_dir());
    Ok(Launch { program, args: row.args.clone(), env, cwd })
}

async fn write_lines(
    mut stdin: ChildStdin,
    mut lines: mpsc::Receiver<String>,
    stop: CancellationToken,
) {
    loop {
        let line = tokio::select! {
            () = stop.cancelled() => return,
            line = lines.recv() => line,
        };
        let Some(mut line) = line else { return };
        line.push('\n');
        let write = async {
            stdin.write_all(line.as_bytes()).await?;
            stdin.flush().await
        };
        tokio::select! {
            () = stop.cancelled() => return,
            written = write => if written.is_err() { return },
        }
    }
}

async fn keep_errors(stderr: ChildStderr, errors: Arc<ErrorLines>) {
    let mut reader = BufReader::new(stderr);
    while let Ok(Some(line)) = read_line(&mut reader, 64 << 10).await {
        errors.push(&String::from_utf8_lossy(line.bytes()));
    }
}

/// Reads what a program writes.
struct OutputReader {
    calls: Arc<OpenCalls>,
    lines: LineSender,
    child: RunningChild,
}

impl OutputReader {
    async fn run(self, stdout: ChildStdout, errors: Arc<ErrorLines>) {
        let mut reader = BufReader::with_capacity(64 << 10, stdout);
        while let Ok(Some(line)) = read_line(&mut reader, MAX_LINE_BYTES).await {
            match line {
                Line::Whole(bytes) => self.take(&bytes, &errors),
                Line::TooLong(head) => self.refuse(&head),
            }
        }
        // The pipe ends a moment before the status is known.
        self.child.stop.cancel();
        self.child.ended.cancelled().await;
        let last = errors.last().map(|line| format!(": {line}")).unwrap_or_default();
        self.calls.close(&format!("the program has ended ({}){last}", self.child.status()));
    }

    fn take(&self, line: &[u8], errors: &ErrorLines) {
        let line = line.trim_ascii();
        if line.is_empty() {
            return;
        }
        match RpcMessage::parse(line) {
            Ok(message) => {
                if let Some(reply) = self.calls.receive(message, None) {
                    drop(self.lines.try_send(reply));
                }
            }
            Err(_) => {
                let text = String::from_utf8_lossy(&line[..line.len().min(200)]).into_owned();
                tracing::debug!(line = %sanitize::clean(&text), "noise on a server's output");
                errors.push(&text);
            }
        }
    }

    /// Ends the call whose answer is too long, or all calls if its id cannot be read.
    fn refuse(&self, head: &[u8]) {
        let fault = CallFault::Closed(
            format!("the server answered with more than {} MiB", MAX_LINE_BYTES >> 20).into(),
        );
        let text = String::from_utf8_lossy(head);
        let id = text.split_once("\"id\":").and_then(|(_, rest)| {
            let digits: String =
                rest.trim_start().chars().take_while(char::is_ascii_digit).collect();
            digits.parse().ok()
        });
        match id {
            Some(id) => self.calls.fail(id, fault),
            None => self.calls.fail_all(&fault),
        }
    }
}

enum Line {
    Whole(Vec<u8>),
    /// Only its beginning.
    TooLong(Vec<u8>),
}

impl Line {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Whole(bytes) | Self::TooLong(bytes) => bytes,
        }
    }
}

/// Reads a line; of one above the limit only the beginning, and the rest is skipped.
async fn read_line<R: AsyncRead + Unpin>(
    reader: &mut BufReader<R>,
    limit: usize,
) -> std::io::Result<Option<Line>> {
    let (mut line, mut too_long) = (Vec::new(), false);
    loop {
        let chunk = reader.fill_buf().await?;
        if chunk.is_empty() {
            let rest = (!line.is_empty()).then_some(line);
            return Ok(
                rest.map(|line| if too_long { Line::TooLong(line) } else { Line::Whole(line) })
            );
        }
        let end = memchr::memchr(b'\n', chunk);
        let taken = end.map_or(chunk.len(), |end| end + 1);
        if !too_long {
            if line.len() + taken > limit {
                too_long = true;
                line.truncate(1 << 10);
                line.shrink_to_fit();
            } else {
                line.extend_from_slice(&chunk[..taken]);
            }
        }
        reader.consume(taken);
        if end.is_some() {
            return Ok(Some(if too_long { Line::TooLong(line) } else { Line::Whole(line) }));
        }
    }
}
