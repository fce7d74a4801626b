//! A pseudo-terminal: starts a program in it, presses keys and reads the screen.

use std::{
    io::{Read, Write},
    path::Path,
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    time::{Duration, Instant},
};

use portable_pty::{Child, CommandBuilder, MasterPty, PtySize, native_pty_system};

use super::{TEST_TIMEOUT, home::Home};

/// The cursor position query, which every terminal answers.
const CURSOR_QUERY: &[u8] = b"\x1b[6n";

/// A program in its own terminal; killed when dropped.
pub(crate) struct Terminal {
    master: Box<dyn MasterPty + Send>,
    writer: Box<dyn Write + Send>,
    child: Box<dyn Child + Send + Sync>,
    parser: vt100::Parser,
    bytes: Receiver<Vec<u8>>,
    /// All output of the program.
    pub(crate) raw: Vec<u8>,
}

impl Terminal {
    /// Starts `aiproxy` with these arguments.
    pub(crate) fn start(home: &Home, args: &[&str], rows: u16, columns: u16) -> Self {
        Self::run(env!("CARGO_BIN_EXE_aiproxy").as_ref(), home, args, rows, columns)
    }

    /// Starts a program with these arguments.
    pub(crate) fn run(program: &Path, home: &Home, args: &[&str], rows: u16, columns: u16) -> Self {
        let size = PtySize { rows, cols: columns, pixel_width: 0, pixel_height: 0 };
        let pair = native_pty_system().openpty(size).expect("a terminal");
        let mut command = CommandBuilder::new(program);
        command.env_clear();
        for (name, value) in home.env() {
            command.env(name, value);
        }
        command.env("TERM", "xterm-256color");
        command.cwd(home.path());
        command.args(args);
        let child = pair.slave.spawn_command(command).expect("start aiproxy in a terminal");
        // An open slave would keep the reader from reaching the end.
        drop(pair.slave);
        let (sender, bytes) = channel();
        let mut reader = pair.master.try_clone_reader().expect("a reader");
        let writer = pair.master.take_writer().expect("a writer");
        std::thread::spawn(move || {
            let mut piece = [0; 8 * 1024];
            while let Ok(count @ 1..) = reader.read(&mut piece) {
                if sender.send(piece[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self {
            master: pair.master,
            writer,
            child,
            parser: vt100::Parser::new(rows, columns, 0),
            bytes,
            raw: Vec::new(),
        }
    }

    /// Returns the process id of the program.
    pub(crate) fn pid(&self) -> u32 {
        self.child.process_id().expect("a process")
    }

    pub(crate) fn press(&mut self, keys: &str) {
        self.writer.write_all(keys.as_bytes()).expect("press keys");
        self.writer.flush().expect("press keys");
    }

    pub(crate) fn resize(&mut self, rows: u16, columns: u16) {
        let size = PtySize { rows, cols: columns, pixel_width: 0, pixel_height: 0 };
        self.master.resize(size).expect("resize");
        self.parser.screen_mut().set_size(rows, columns);
    }

    pub(crate) fn screen(&self) -> String {
        self.parser.screen().contents()
    }

    /// Reads until the screen contains this text.
    pub(crate) fn wait_for_text(&mut self, wanted: &str) -> String {
        self.wait_for(wanted, |screen| screen.contains(wanted))
    }

    /// Reads until the screen satisfies `test`.
    pub(crate) fn wait_for(&mut self, what: &str, test: impl Fn(&str) -> bool) -> String {
        let end = Instant::now() + TEST_TIMEOUT;
        while !test(&self.screen()) {
            let left = end.saturating_duration_since(Instant::now());
            assert!(self.read_more(left), "the screen never showed {what:?}:\n{}", self.screen());
        }
        self.screen()
    }

    /// Reads the next output of the program; returns false if the program ended or the time is
    /// over.
    fn read_more(&mut self, patience: Duration) -> bool {
        match self.bytes.recv_timeout(patience) {
            Ok(bytes) => {
                self.parser.process(&bytes);
                if bytes.windows(CURSOR_QUERY.len()).any(|window| window == CURSOR_QUERY) {
                    let (row, column) = self.parser.screen().cursor_position();
                    self.press(&format!("\x1b[{};{}R", row + 1, column + 1));
                }
                self.raw.extend(bytes);
                true
            }
            Err(RecvTimeoutError::Disconnected | RecvTimeoutError::Timeout) => false,
        }
    }

    /// Waits until the program ends and returns its exit code. All output until then is in `raw`.
    pub(crate) fn exit_code(&mut self) -> u32 {
        let end = Instant::now() + TEST_TIMEOUT;
        while self.read_more(end.saturating_duration_since(Instant::now())) {}
        super::poll_until("the program in the terminal to end", || {
            self.child.try_wait().expect("the child")
        })
        .exit_code()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
