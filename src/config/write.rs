//! Writes the config file, or says why it cannot be written.

use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use super::edit::{EditError, ReadOnlyFile, lines};
use crate::{base::fs, config::redact_toml};

/// Checks that the file can be replaced. `before` and `after` are its text without and with the
/// change that the error then shows.
///
/// # Errors
///
/// [`EditError::ReadOnly`].
pub fn check_writable(path: &Path, before: &str, after: &str) -> Result<(), EditError> {
    let target = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let Some(Obstacle { mut reason, remedy }) = find_obstacle(&target) else { return Ok(()) };
    let is_link = target != *path && std::path::absolute(path).is_ok_and(|path| path != target);
    if is_link {
        reason = format!("it is a link to {}, and {reason}", target.display());
    }
    let (line, lines) =
        if before == after { (0, String::new()) } else { lines::changed_lines(before, after) };
    Err(EditError::ReadOnly(Box::new(ReadOnlyFile {
        path: path.to_owned(),
        reason,
        remedy,
        line,
        lines: redact_toml::mask_secrets(&lines),
    })))
}

/// Replaces the file's text; mode and owner stay. A file that is a mount point of its own, as in
/// containers, cannot be replaced and is written instead.
///
/// # Errors
///
/// The system's error.
pub fn replace(target: &Path, text: &str) -> io::Result<()> {
    let found = std::fs::metadata(target).ok();
    match fs::write_atomic(target, text.as_bytes(), mode(found.as_ref())) {
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
            let mut file = std::fs::OpenOptions::new().write(true).truncate(true).open(target)?;
            file.write_all(text.as_bytes())?;
        }
        written => written?,
    }
    restore_owner(target, found.as_ref());
    Ok(())
}

/// Why a file cannot be replaced, and the way out.
struct Obstacle {
    reason: String,
    remedy: String,
}

#[cfg(unix)]
fn find_obstacle(target: &Path) -> Option<Obstacle> {
    use rustix::fs::{Access, access};
    use std::os::unix::fs::PermissionsExt as _;
    let elsewhere = "change it where it is made (NixOS, home-manager, a ConfigMap, a mounted \
                     volume), or name a file that can be written with --config or AIPROXY_CONFIG";
    let found = std::fs::metadata(target).ok();
    let folder = existing_folder(target);
    let refusal = found.as_ref().and_then(|_| access(target, Access::WRITE_OK).err());
    let refusal = refusal.or_else(|| access(&folder, Access::WRITE_OK | Access::EXEC_OK).err());
    if refusal == Some(rustix::io::Errno::ROFS) {
        return Some(Obstacle {
            reason: "its file system is read-only".to_owned(),
            remedy: elsewhere.to_owned(),
        });
    }
    let mode = found.as_ref().map(|found| found.permissions().mode() & 0o777);
    if let Some(mode) = mode.filter(|mode| mode & 0o222 == 0) {
        let remedy = match refusal {
            None => format!("`chmod u+w {}` allows changes", target.display()),
            Some(_) => elsewhere.to_owned(),
        };
        return Some(Obstacle { reason: format!("its mode is {mode:o}"), remedy });
    }
    refusal.map(|_| Obstacle {
        reason: format!("this user cannot write in {}", folder.display()),
        remedy: elsewhere.to_owned(),
    })
}

#[cfg(not(unix))]
fn find_obstacle(target: &Path) -> Option<Obstacle> {
    let found = std::fs::metadata(target).ok()?;
    found.permissions().readonly().then(|| Obstacle {
        reason: "its attribute reported_text so".to_owned(),
        remedy: format!("`attrib -R {}` allows changes", target.display()),
    })
}

/// Returns the folder in which a file is made: its own, or the nearest one that exists.
#[cfg(unix)]
fn existing_folder(target: &Path) -> PathBuf {
    let mut folders = target.ancestors().skip(1);
    folders.find(|folder| folder.exists()).unwrap_or(Path::new("/")).to_owned()
}

#[cfg(unix)]
fn mode(found: Option<&std::fs::Metadata>) -> u32 {
    use std::os::unix::fs::PermissionsExt as _;
    found.map_or(0o600, |found| found.permissions().mode() & 0o777)
}

#[cfg(not(unix))]
fn mode(_: Option<&std::fs::Metadata>) -> u32 {
    0o600
}

/// Gives the file back to its owner if an administrator changed it.
#[cfg(unix)]
fn restore_owner(target: &Path, before: Option<&std::fs::Metadata>) {
    use std::os::unix::fs::MetadataExt as _;
    let owner = |found: &std::fs::Metadata| (found.uid(), found.gid());
    let (Some(before), Ok(now)) = (before.map(owner), std::fs::metadata(target)) else { return };
    if before != owner(&now) {
        let (user, group) =
            (rustix::fs::Uid::from_raw(before.0), rustix::fs::Gid::from_raw(before.1));
        // Only an administrator may; for others the file belongs to the one who changed it.
        rustix::fs::chown(target, Some(user), Some(group)).unwrap_or_default();
    }
}

#[cfg(not(unix))]
fn restore_owner(_: &Path, _: Option<&std::fs::Metadata>) {}

#[cfg(all(test, unix))]
mod tests {
    use std::{
        fs::Permissions,
        os::unix::fs::{PermissionsExt as _, symlink},
    };

    use super::*;

    #[test]
    fn read_only_file_error_has_the_needed_change() {
        let home = tempfile::tempdir().expect("a folder");
        let (store, link) = (home.path().join("store.toml"), home.path().join("config.toml"));
        fs::write_atomic(&store, b"a = 1\n", 0o600).expect("written");
        symlink(&store, &link).expect("linked");
        assert!(check_writable(&link, "a = 1\n", "a = 2\n").is_ok());

        std::fs::set_permissions(&store, Permissions::from_mode(0o444)).expect("changed");
        let change = "a = 1\nkeys = [\"sk-secret-value-0123\"]\n";
        let Err(EditError::ReadOnly(reply)) = check_writable(&link, "a = 1\n", change) else {
            panic!("not refused");
        };
        let store = store.canonicalize().expect("there");
        assert!(reply.reason.contains(&store.display().to_string()), "{}", reply.reason);
        assert!(reply.reason.contains("444") && reply.remedy.contains("chmod u+w"), "{reply:?}");
        assert_eq!(reply.line, 2);
        assert!(reply.lines.starts_with("keys = ["), "{}", reply.lines);
        assert!(!reply.lines.contains("secret-value"), "{}", reply.lines);
    }

    #[test]
    fn replaced_file_has_the_same_mode() {
        let home = tempfile::tempdir().expect("a folder");
        let path = home.path().join("c.toml");
        replace(&path, "a").expect("made");
        let mode_of = |path: &Path| mode(std::fs::metadata(path).ok().as_ref());
        assert_eq!(mode_of(&path), 0o600);
        std::fs::set_permissions(&path, Permissions::from_mode(0o664)).expect("changed");
        replace(&path, "b").expect("replaced");
        assert_eq!(mode_of(&path), 0o664);
    }
}
