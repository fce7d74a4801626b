//! Reads a secret from a file that no other user may read.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read},
    path::Path,
};

use zeroize::Zeroizing;

/// Reads the only line of a file, without the line end.
///
/// The checks run on the opened file, so the checked file is the one that is read. A named pipe
/// does not block the call.
///
/// # Errors
///
/// [`FileError`]: other users can read the file, it is not a regular file, or it contains more than
/// one short line of text.
pub fn read_line(path: &Path) -> Result<Zeroizing<String>, FileError> {
    let mut options = OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(
        &mut options,
        rustix::fs::OFlags::NONBLOCK.bits().cast_signed(),
    );
    let file = options.open(path)?;
    check_private_file(&file)?;
    // Allocated at its maximum size, so that growing leaves no copy in freed memory.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_FILE_BYTES + 1));
    file.take(MAX_FILE_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > MAX_FILE_BYTES {
        return Err(FileError::TooLong);
    }
    let text =
        std::str::from_utf8(&bytes).map_err(|_| FileError::NotText)?.trim_end_matches(['\n', '\r']);
    if text.contains(['\n', '\r']) {
        return Err(FileError::MultipleLines);
    }
    Ok(Zeroizing::new(text.to_owned()))
}

fn check_private_file(file: &File) -> Result<(), FileError> {
    let meta = file.metadata()?;
    if meta.is_dir() {
        return Err(FileError::Directory);
    }
    if !meta.is_file() {
        return Err(FileError::NotAFile);
    }
    #[cfg(unix)]
    {
        let mode = std::os::unix::fs::MetadataExt::mode(&meta) & 0o7777;
        if mode & 0o077 != 0 {
            return Err(FileError::TooPermissive { mode });
        }
    }
    Ok(())
}

/// Why a file was not read as a secret.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("this is a directory")]
    Directory,
    #[error("cannot be read: {0}")]
    Io(io::Error),
    #[error("holds more than one line; a key file holds the key and nothing else")]
    MultipleLines,
    #[error("no such file")]
    Missing,
    #[error("not an ordinary file")]
    NotAFile,
    #[error("holds bytes that are not text")]
    NotText,
    #[error("others can read or change it (mode {mode:04o})")]
    TooPermissive { mode: u32 },
    #[error("holds more than 64 KiB")]
    TooLong,
}

impl From<io::Error> for FileError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::Missing,
            io::ErrorKind::IsADirectory => Self::Directory,
            _ => Self::Io(error),
        }
    }
}

impl FileError {
    /// Returns what to do next about this path.
    #[must_use]
    pub fn hint(&self, path: &Path) -> String {
        let path = path.display();
        match self {
            Self::TooPermissive { .. } => format!("`chmod 600 {path}`"),
            Self::Missing => format!("write the key to {path} (mode 600), or correct the path"),
            _ => "name a file of mode 600 that holds the key on its only line".to_owned(),
        }
    }
}

const MAX_FILE_BYTES: usize = 64 * 1024;

#[cfg(all(test, unix))]
mod tests {
    use std::{
        fs::{self, Permissions},
        io::Write as _,
        os::unix::fs::PermissionsExt,
    };

    use super::*;

    fn read(content: &[u8], mode: u32) -> Result<String, FileError> {
        let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
        file.write_all(content).expect("written");
        fs::set_permissions(file.path(), Permissions::from_mode(mode)).expect("chmod");
        read_line(file.path()).map(|text| text.to_string())
    }

    #[test]
    fn only_a_private_file_of_one_line_is_read() {
        assert_eq!(read(b"sk-abc\r\n", 0o600).expect("private"), "sk-abc");
        assert_eq!(read(b"sk-abc", 0o400).expect("read-only"), "sk-abc");
        for (content, mode, expected) in [
            (&b"sk-abc"[..], 0o644, "mode 0644"),
            (b"sk-abc", 0o620, "mode 0620"),
            (b"sk-abc\nsk-def\n", 0o600, "more than one line"),
            (b"sk-\xff", 0o600, "not text"),
            (&[b'x'; 70_000], 0o600, "64 KiB"),
        ] {
            let error = read(content, mode).expect_err(expected).to_string();
            assert!(error.contains(expected) && !error.contains("sk-"), "{error}");
        }
    }

    #[test]
    fn non_regular_file_is_refused_without_blocking() {
        let dir = tempfile::tempdir().expect("a directory");
        let pipe = dir.path().join("pipe");
        rustix::fs::mkfifoat(
            rustix::fs::CWD,
            &pipe,
            rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        )
        .expect("a pipe");

        assert!(matches!(read_line(dir.path()), Err(FileError::Directory)));
        assert!(matches!(read_line(&dir.path().join("none")), Err(FileError::Missing)));
        assert!(matches!(read_line(&pipe), Err(FileError::NotAFile)));
    }
}
