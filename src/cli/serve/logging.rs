//! The process log: writes to stderr or a file, as text or JSON. aiproxy logs at the configured
//! level, libraries only warnings.

use std::{
    fs::OpenOptions,
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use tracing_subscriber::{
    Layer, Registry, filter::Targets, fmt, layer::SubscriberExt, reload, util::SubscriberInitExt,
};

use crate::base::{fs, sync::Mutex};
use crate::cli::error::CliError;
use crate::config::settings::LogSettings;

/// Size at which a log file is rotated, and the number of rotated files.
const MAX_FILE_BYTES: u64 = 10 << 20;
const MAX_FILES: usize = 3;

/// Controls the active log.
pub struct LogControl {
    level: reload::Handle<Targets, Registry>,
    /// `None` if the log goes to stderr.
    file: Option<Arc<LogFile>>,
}

impl LogControl {
    /// Changes the level.
    pub fn set_level(&self, level: &str) {
        // The subscriber lives as long as the process, so this cannot fail.
        drop(self.level.modify(|targets| *targets = level_filter(level)));
    }

    /// Opens the log file by its name again, in case that another program moved it away. If that
    /// fails, the open file stays in use.
    pub fn reopen_file(&self) {
        let Some(file) = &self.file else { return };
        if let Err(error) = file.reopen() {
            tracing::warn!("log file {}: {error}", file.path.display());
        }
    }
}

/// Starts logging.
///
/// # Errors
///
/// The file cannot be written.
pub(super) fn start_logging(
    log: &LogSettings,
    data: &Path,
    dashboard: bool,
) -> Result<LogControl, CliError> {
    let (level, handle) = reload::Layer::new(level_filter(&log.level));
    // With a dashboard the terminal is not available for logs.
    let file = log.file.as_deref().or(dashboard.then_some(Path::new("aiproxy.log")));
    // A relative path must not depend on the folder in which the process was started.
    let path = file.map(|file| data.join(file));
    let file = match path {
        Some(path) => Some(Arc::new(
            LogFile::open(path.clone())
                .map_err(|e| CliError::failed(format!("log file {}: {e}", path.display())))?,
        )),
        None => None,
    };
    let layer: Box<dyn Layer<_> + Send + Sync> = match file.clone() {
        Some(file) => format_layer(log.json, false, move || LogWriter::File(Arc::clone(&file))),
        None => {
            let colour = io::stderr().is_terminal() && crate::cli::output::color_enabled();
            format_layer(log.json, colour, || LogWriter::Stderr)
        }
    };
    // Only tests run two proxies in one process; the first one's log serves both.
    drop(tracing_subscriber::registry().with(level).with(layer).try_init());
    Ok(LogControl { level: handle, file })
}

fn format_layer<W>(
    json: bool,
    colour: bool,
    writer: W,
) -> Box<
    dyn Layer<tracing_subscriber::layer::Layered<reload::Layer<Targets, Registry>, Registry>>
        + Send
        + Sync,
>
where
    W: Fn() -> LogWriter + Send + Sync + 'static,
{
    if json {
        return Box::new(fmt::layer().json().flatten_event(true).with_writer(writer));
    }
    Box::new(fmt::layer().with_ansi(colour).with_target(false).with_writer(writer))
}

fn level_filter(level: &str) -> Targets {
    let own_level = level.parse().unwrap_or(tracing::Level::INFO);
    Targets::new()
        .with_default(tracing::Level::WARN.min(own_level))
        .with_target("aiproxy", own_level)
}

/// The destination of log lines.
enum LogWriter {
    Stderr,
    File(Arc<LogFile>),
}

impl Write for LogWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match self {
            // A closed pipe must not stop the proxy; only the line is lost.
            Self::Stderr => drop(io::stderr().write_all(line)),
            Self::File(file) => file.write(line),
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A log file with rotation by size.
struct LogFile {
    path: PathBuf,
    file_and_size: Mutex<(std::fs::File, u64)>,
}

impl LogFile {
    fn open(path: PathBuf) -> io::Result<Self> {
        if let Some(folder) = path.parent().filter(|folder| !folder.exists()) {
            fs::create_private_dir(folder)?;
        }
        let file = open_append(&path)?;
        let size = file.metadata()?.len();
        Ok(Self { path, file_and_size: Mutex::new((file, size)) })
    }

    fn write(&self, line: &[u8]) {
        let mut open = self.file_and_size.lock();
        if open.1 + line.len() as u64 > MAX_FILE_BYTES
            && let Ok(file) = self.rotate()
        {
            *open = (file, 0);
        }
        // A full disk loses log lines, never requests.
        if open.0.write_all(line).is_ok() {
            open.1 += line.len() as u64;
        }
    }

    fn reopen(&self) -> io::Result<()> {
        let file = open_append(&self.path)?;
        let size = file.metadata()?.len();
        *self.file_and_size.lock() = (file, size);
        Ok(())
    }

    fn rotate(&self) -> io::Result<std::fs::File> {
        let aside = |n: usize| self.path.with_extension(format!("log.{n}"));
        for n in (1..MAX_FILES - 1).rev() {
            // The older file may not exist yet.
            drop(std::fs::rename(aside(n), aside(n + 1)));
        }
        std::fs::rename(&self.path, aside(1))?;
        open_append(&self.path)
    }
}

fn open_append(path: &Path) -> io::Result<std::fs::File> {
    let mut options = OpenOptions::new();
    options.create(true).append(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600).custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed());
    }
    options.open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotated_log_file_is_reopened() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.log");
        let log = LogFile::open(path.clone()).unwrap();
        log.write(b"one\n");
        std::fs::rename(&path, folder.path().join("a.log.old")).unwrap();
        log.write(b"two\n");
        log.reopen().unwrap();
        log.write(b"three\n");
        let text = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
        assert_eq!((text("a.log.old").as_str(), text("a.log").as_str()), ("one\ntwo\n", "three\n"));

        // A name that cannot be opened leaves the open file in use.
        std::fs::rename(&path, folder.path().join("b.log")).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert!(log.reopen().is_err());
        log.write(b"four\n");
        assert_eq!(text("b.log"), "three\nfour\n");
    }
}
