//! What was done to connect a tool, written before it is done: enough to undo it exactly.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    base::fs::{self, FileLock},
    cli::{
        error::{CliError, path_error},
        tools::edit::{FileSyntax, Setting},
    },
};

/// The folder of the journals, in the data dir.
const FOLDER: &str = "connect";
const LOCK: &str = ".lock";

/// The record of one connected tool. It is private: it may contain keys that stood in the tool's
/// own files before.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Journal {
    pub(super) tool: String,
    /// The project that the tool uses.
    pub(super) project: String,
    /// The project that was made for the tool, which may be another one.
    pub(super) made_project: Option<String>,
    /// What aiproxy's own config was before, and the text that was put into it.
    pub(super) config: Option<ConfigChange>,
    pub(super) files: Vec<FileChange>,
    /// Folders that were made, the outermost first.
    pub(super) folders: Vec<PathBuf>,
}

/// The change of aiproxy's own config.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(super) struct ConfigChange {
    /// `None` if there was no file.
    pub(super) before: Option<String>,
    /// What was put into it, in this order; known once that was done.
    pub(super) inserted: Vec<String>,
}

/// The change of one file.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct FileChange {
    /// The path as the tool knows it.
    pub(super) path: PathBuf,
    /// The file behind links.
    pub(super) real: PathBuf,
    pub(super) format: FileSyntax,
    /// `None` if there was no file.
    pub(super) before: Option<String>,
    pub(super) mode: Option<u32>,
    /// The text that was written last; `None` if it contains the key.
    pub(super) after: Option<String>,
    /// SHA-256 of every text that was written, in hex.
    pub(super) written: Vec<String>,
    pub(super) settings: Vec<Setting>,
}

impl FileChange {
    /// The file that is written before it takes its place.
    pub(super) fn temporary(&self) -> PathBuf {
        let name = self.real.file_name().unwrap_or_default().to_string_lossy();
        self.real.with_file_name(format!(".{name}.aiproxy-new"))
    }

    /// Returns whether the text is one that was written here.
    pub(super) fn is_written(&self, text: &str) -> bool {
        self.written.contains(&digest(text))
    }
}

pub(super) fn digest(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Waits until no other command connects or disconnects.
///
/// # Errors
///
/// The data dir cannot be written.
pub(super) fn lock(data: &Path) -> Result<FileLock, CliError> {
    let folder = data.join(FOLDER);
    fs::create_private_dir(&folder)
        .and_then(|()| FileLock::acquire(&folder.join(LOCK)))
        .map_err(|error| path_error(&folder, &error))
}

/// The folder of a tool's own files in the data dir.
pub(super) fn tool_folder(data: &Path, tool: &str) -> PathBuf {
    data.join(FOLDER).join(tool)
}

fn journal_path(data: &Path, tool: &str) -> PathBuf {
    data.join(FOLDER).join(format!("{tool}.json"))
}

impl Journal {
    /// Reads the journal of a tool; `None` if the tool is not connected.
    ///
    /// # Errors
    ///
    /// The journal cannot be read.
    pub(super) fn read(data: &Path, tool: &str) -> Result<Option<Self>, CliError> {
        let path = journal_path(data, tool);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(path_error(&path, &error)),
        };
        let journal = serde_json::from_slice(&bytes);
        journal.map(Some).map_err(|error| {
            CliError::failed(format!("{}: {error}", path.display()))
                .hint("the file was changed by another program; restore it, or remove it")
        })
    }

    /// Returns the ports of this machine in the settings that were made.
    pub(super) fn ports(&self) -> Vec<u16> {
        let settings = self.files.iter().flat_map(|file| &file.settings);
        let mut ports: Vec<u16> = settings
            .flat_map(|setting| {
                let text = setting.to.to_string();
                let urls = text.split("http://127.0.0.1:").skip(1);
                let digits = urls.map(|rest| rest.split(|c: char| !c.is_ascii_digit()).next());
                digits.filter_map(|port| port?.parse().ok()).collect::<Vec<_>>()
            })
            .collect();
        ports.sort_unstable();
        ports.dedup();
        ports
    }

    /// Writes the journal to the disk.
    ///
    /// # Errors
    ///
    /// The data dir cannot be written.
    pub(super) fn write(&self, data: &Path) -> Result<(), CliError> {
        let path = journal_path(data, &self.tool);
        let text = serde_json::to_vec(self).map_err(|e| CliError::failed(e.to_string()))?;
        fs::write_atomic(&path, &text, 0o600).map_err(|error| path_error(&path, &error))
    }

    /// Removes the journal.
    ///
    /// # Errors
    ///
    /// The file cannot be removed.
    pub(super) fn remove(data: &Path, tool: &str) -> Result<(), CliError> {
        let path = journal_path(data, tool);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(path_error(&path, &error)),
            _ => Ok(()),
        }
    }
}

/// Replaces a file in one step. A mode of `None` is that of a new file.
///
/// # Errors
///
/// The system's error; the old file is then unchanged.
pub(super) fn replace_file(change: &FileChange, text: &str, mode: Option<u32>) -> io::Result<()> {
    let temporary = change.temporary();
    drop(std::fs::remove_file(&temporary));
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(mode.unwrap_or(0o666));
    }
    let written = options.open(&temporary).and_then(|mut file| {
        // The mode of the old file is not narrowed by the umask.
        #[cfg(unix)]
        if let Some(mode) = mode {
            use std::os::unix::fs::PermissionsExt;
            file.set_permissions(std::fs::Permissions::from_mode(mode))?;
        }
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&temporary, &change.real)
    });
    if written.is_err() {
        drop(std::fs::remove_file(&temporary));
    }
    #[cfg(not(unix))]
    let _ = mode;
    written
}
