//! Files that must not be lost, read by others, or written through somebody's link.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

/// Replaces a file in one step: a temporary file beside it, its bytes on disk, then a rename.
/// `mode` is what the file has from its first moment (ignored where there are no modes).
///
/// # Errors
///
/// Any of these steps; the old file is then as it was.
pub fn write_atomic(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let (temporary, mut file) = create_temporary(folder, path, mode)?;
    let written =
        set_mode(&file, mode).and_then(|()| file.write_all(bytes)).and_then(|()| file.sync_all());
    drop(file);
    if let Err(e) = written.and_then(|()| std::fs::rename(&temporary, path)) {
        // The error that matters is the first one; a leftover is only untidy.
        std::fs::remove_file(&temporary).ok();
        return Err(e);
    }
    sync_folder(folder);
    Ok(())
}

/// Opens a file of ours for reading and writing, made with 0600 if missing, never through a link
/// and never one that belongs to another user.
///
/// # Errors
///
/// What the system says, or that the file is not ours, or is a link.
pub fn create_private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    set_private_options(&mut options);
    let file = options.open(path).map_err(|e| explain_symlink(e, path))?;
    check_ownership(&file, path)?;
    set_mode(&file, 0o600)?;
    Ok(file)
}

/// As [`create_private`], for appending.
///
/// # Errors
///
/// As [`create_private`].
pub fn append_private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    set_private_options(&mut options);
    let file = options.open(path).map_err(|e| explain_symlink(e, path))?;
    check_ownership(&file, path)?;
    set_mode(&file, 0o600)?;
    Ok(file)
}

/// Makes a folder only we can enter, with its parents; one that exists must be ours and is closed
/// to others.
///
/// # Errors
///
/// What the system says; that something else stands there; that it belongs to another user.
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
        // A link to a folder is fine where it and the folder are ours: people move their data to
        // other disks.
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

/// Who may read a file, in octal (`644`), where others can; `None` where only its owner can or
/// modes do not exist.
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

/// An advisory lock on a file of its own; given back when dropped, also by a crash.
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
    /// The file cannot be made or locked.
    pub fn acquire(path: &Path) -> io::Result<Self> {
        let file = create_private(path)?;
        file.lock()?;
        Ok(Self { file, path: path.to_owned() })
    }

    /// Takes the lock, or `None` where another process holds it.
    ///
    /// # Errors
    ///
    /// The file cannot be made or locked.
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

    /// The locked file itself, to write who holds it.
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

/// Unix: 0600 from the first moment, and no link is followed at the last step.
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
    // A second name would let somebody read what we write under ours.
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
fn owned(_: &File, _: &Path) -> io::Result<()> {
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

/// Makes the rename itself last; some file systems cannot, which is no reason to fail.
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
    fn a_replaced_file_has_its_mode_and_leaves_nothing_behind() {
        let home = tempfile::tempdir().expect("a folder");
        let path = home.path().join("a.toml");
        write_atomic(&path, b"one", 0o600).expect("written");
        write_atomic(&path, b"two", 0o640).expect("written again");
        assert_eq!((std::fs::read(&path).expect("read"), mode(&path)), (b"two".to_vec(), 0o640));
        assert_eq!(std::fs::read_dir(home.path()).expect("listed").count(), 1);
    }

    #[test]
    fn private_files_are_never_reached_through_links() {
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
    fn folders_are_closed_to_others() {
        let home = tempfile::tempdir().expect("a folder");
        let path = home.path().join("a/b");
        create_private_dir(&path).expect("made");
        assert_eq!(mode(&path), 0o700);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("opened");
        create_private_dir(&path).expect("closed again");
        assert_eq!(mode(&path), 0o700);
    }

    #[test]
    fn a_lock_is_held_once_and_given_back() {
        let home = tempfile::tempdir().expect("a folder");
        let path = home.path().join("lock");
        let lock = FileLock::try_acquire(&path).expect("no error").expect("free");
        assert!(FileLock::try_acquire(&path).expect("no error").is_none());
        drop(lock);
        assert!(FileLock::try_acquire(&path).expect("no error").is_some());
    }
}
