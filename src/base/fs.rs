//! Files that must not be lost, read by other users, or written through a foreign link.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

/// Replaces a file atomically: writes a temporary file next to it, syncs it to disk, then renames
/// it. The file has `mode` from its first moment (ignored on systems without modes).
///
/// # Errors
///
/// Any of these steps fails. The old file is then unchanged.
pub fn write_atomic(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let (temporary, mut file) = create_temporary(folder, path, mode)?;
    let written =
        set_mode(&file, mode).and_then(|()| file.write_all(bytes)).and_then(|()| file.sync_all());
    drop(file);
    if let Err(e) = written.and_then(|()| std::fs::rename(&temporary, path)) {
        // The first error is the one that matters; a leftover file is only untidy.
        std::fs::remove_file(&temporary).ok();
        return Err(e);
    }
    sync_folder(folder);
    Ok(())
}

/// Opens a private file for reading and writing, and creates it with 0600 if it is missing. Refuses
/// a link and a file that belongs to another user.
///
/// # Errors
///
/// The system's error, or the file belongs to another user or is a link.
pub fn create_private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    open_private(options, path)
}

/// Like [`create_private`], for appending.
///
/// # Errors
///
/// The same as [`create_private`].
pub fn append_private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    open_private(options, path)
}

fn open_private(mut options: OpenOptions, path: &Path) -> io::Result<File> {
    set_private_options(&mut options);
    let file = options.open(path).map_err(|e| explain_symlink(e, path))?;
    check_ownership(&file, path)?;
    set_mode(&file, 0o600)?;
    Ok(file)
}

/// Creates a folder that only this user can enter, with its parents. An existing folder must belong
/// to this user and is closed to others.
///
/// # Errors
///
/// The system's error, the path is not a folder, or it belongs to another user.
pub fn create_private_dir(path: &Path) -> io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
        let found = std::fs::symlink_metadata(path)?;
        // A link to a folder is fine if the link and the folder belong to this user: people move
        // their data to other disks.
        let target = std::fs::metadata(path)?;
        if found.uid() != rustix::process::geteuid().as_raw()
            || target.uid() != rustix::process::geteuid().as_raw()
        {
            return Err(foreign_owner_error(path));
        }
        if target.permissions().mode() & 0o077 != 0 {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))?;
        }
    }
    Ok(())
}

/// Which file a path names, whatever the path: its device and its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileIdentity(u64, u64);

/// Returns the identity of the file at the path; `None` if there is none, or the system has no such
/// numbers.
#[must_use]
pub fn file_identity(path: &Path) -> Option<FileIdentity> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt as _;
        let file = std::fs::metadata(path).ok()?;
        Some(FileIdentity(file.dev(), file.ino()))
    }
    #[cfg(not(unix))]
    {
        let _ = path;
        None
    }
}

/// Returns the file's mode in octal (`644`) if other users can read it; `None` if only its owner
/// can or modes do not exist.
#[must_use]
pub fn mode_open_to_others(path: &Path) -> Option<String> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(path).ok()?.permissions().mode() & 0o777;
        (mode & 0o077 != 0).then(|| format!("{mode:o}"))
    }
    #[cfg(not(unix))]
    {
        let _ = path;
        None
    }
}

/// An advisory lock on a separate file; released when dropped, even after a crash.
#[derive(Debug)]
pub struct FileLock {
    file: File,
    path: PathBuf,
}

impl FileLock {
    /// Waits until the lock is free.
    ///
    /// # Errors
    ///
    /// The file cannot be created or locked.
    pub fn acquire(path: &Path) -> io::Result<Self> {
        let file = create_private(path)?;
        file.lock()?;
        Ok(Self { file, path: path.to_owned() })
    }

    /// Acquires the lock; `None` if another process has it.
    ///
    /// # Errors
    ///
    /// The file cannot be created or locked.
    pub fn try_acquire(path: &Path) -> io::Result<Option<Self>> {
        let file = create_private(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self { file, path: path.to_owned() })),
            Err(std::fs::TryLockError::WouldBlock) => Ok(None),
            Err(std::fs::TryLockError::Error(e)) => Err(e),
        }
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the locked file itself, to write into it which process locked it.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }
}

fn create_temporary(folder: &Path, path: &Path, mode: u32) -> io::Result<(PathBuf, File)> {
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    for _ in 0..16 {
        let mut salt = [0; 6];
        getrandom::fill(&mut salt).map_err(|e| io::Error::other(e.to_string()))?;
        let salt: String = salt.iter().map(|byte| format!("{byte:02x}")).collect();
        let temporary = folder.join(format!(".{name}.{salt}.tmp"));
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode & 0o777);
        #[cfg(not(unix))]
        let _ = mode;
        match options.open(&temporary) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            other => return other.map(|file| (temporary, file)),
        }
    }
    Err(io::Error::new(io::ErrorKind::AlreadyExists, "sixteen temporary names were taken"))
}

/// On Unix: 0600 from the first moment, and a link at the last path component is not followed.
fn set_private_options(options: &mut OpenOptions) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        let flags = rustix::fs::OFlags::NOFOLLOW.bits() | rustix::fs::OFlags::CLOEXEC.bits();
        options.mode(0o600).custom_flags(i32::try_from(flags).unwrap_or_default());
    }
    #[cfg(not(unix))]
    let _ = options;
}

fn explain_symlink(e: io::Error, path: &Path) -> io::Error {
    if std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_symlink()) {
        return io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{} is a symbolic link; remove it", path.display()),
        );
    }
    e
}

#[cfg(unix)]
fn check_ownership(file: &File, path: &Path) -> io::Result<()> {
    use std::os::unix::fs::MetadataExt as _;
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{} is not a file", path.display()),
        ));
    }
    if found.uid() != rustix::process::geteuid().as_raw() {
        return Err(foreign_owner_error(path));
    }
    // Through a second name another user could read what is written under this one.
    if found.nlink() > 1 {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{} has a second name (hard link); remove it", path.display()),
        ));
    }
    Ok(())
}

#[cfg(not(unix))]
#[expect(clippy::unnecessary_wraps, reason = "the same signature as where there are owners")]
fn check_ownership(_: &File, _: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(unix)]
fn foreign_owner_error(path: &Path) -> io::Error {
    io::Error::new(
        io::ErrorKind::PermissionDenied,
        format!("{} belongs to another user", path.display()),
    )
}

#[cfg(unix)]
fn set_mode(file: &File, mode: u32) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    if file.metadata()?.permissions().mode() & 0o777 == mode & 0o777 {
        return Ok(());
    }
    file.set_permissions(std::fs::Permissions::from_mode(mode & 0o777))
}

#[cfg(not(unix))]
#[expect(clippy::unnecessary_wraps, reason = "the same signature as where there are modes")]
fn set_mode(_: &File, _: u32) -> io::Result<()> {
    Ok(())
}

/// Makes the rename itself durable. Some file systems cannot do this, which is not an error.
fn sync_folder(folder: &Path) {
    #[cfg(unix)]
    if let Ok(folder) = File::open(folder) {
        folder.sync_all().ok();
    }
    #[cfg(not(unix))]
    let _ = folder;
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).expect("it exists").permissions().mode() & 0o777
    }

    #[test]
    fn replaced_file_has_its_mode_and_leaves_no_temporary_file() {
        let home = tempfile::tempdir().expect("a folder");
        let path = home.path().join("a.toml");
        write_atomic(&path, b"one", 0o600).expect("written");
        write_atomic(&path, b"two", 0o640).expect("written again");
        assert_eq!((std::fs::read(&path).expect("read"), mode(&path)), (b"two".to_vec(), 0o640));
        assert_eq!(std::fs::read_dir(home.path()).expect("listed").count(), 1);
    }

    #[test]
    fn private_files_are_never_opened_through_links() {
        let home = tempfile::tempdir().expect("a folder");
        let (real, link, hard) =
            (home.path().join("real"), home.path().join("link"), home.path().join("hard"));
        create_private(&real).expect("made");
        assert_eq!(mode(&real), 0o600);
        symlink(&real, &link).expect("linked");
        assert!(create_private(&link).expect_err("a link").to_string().contains("symbolic link"));
        std::fs::hard_link(&real, &hard).expect("linked");
        assert!(append_private(&real).expect_err("two names").to_string().contains("hard link"));
    }

    #[test]
    fn folders_are_private_to_the_user() {
        let home = tempfile::tempdir().expect("a folder");
        let path = home.path().join("a/b");
        create_private_dir(&path).expect("made");
        assert_eq!(mode(&path), 0o700);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("opened");
        create_private_dir(&path).expect("closed again");
        assert_eq!(mode(&path), 0o700);
    }

    #[test]
    fn lock_is_exclusive_and_released_on_drop() {
        let home = tempfile::tempdir().expect("a folder");
        let path = home.path().join("lock");
        let lock = FileLock::try_acquire(&path).expect("no error").expect("free");
        assert!(FileLock::try_acquire(&path).expect("no error").is_none());
        drop(lock);
        assert!(FileLock::try_acquire(&path).expect("no error").is_some());
    }
}
