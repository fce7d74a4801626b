//! Checks the data dir: whether it can be written, its disk, who can read it, and the ledger.

use std::path::Path;

use crate::{
    base::fs::mode_open_to_others,
    cli::config::edit_file::ConfigFile,
    ledger::{
        check::{FileState, check_file},
        store::StoreError,
    },
    secrets::Reference,
};

use super::check::Check;

/// With less than this the ledger soon cannot be written.
const MIN_FREE_BYTES: u64 = 64 << 20;
/// With less than this there is a warning.
const LOW_FREE_BYTES: u64 = 512 << 20;
/// Files of the data dir that let their reader act as the owner.
const PRIVATE_FILES: [&str; 3] = ["keys.enc", "run/token", "client.key"];

pub(super) fn check(file: &ConfigFile, is_running: bool, checks: &mut Vec<Check>) {
    let data = &file.paths.data;
    checks.push(check_writable(data));
    checks.extend(check_disk(data));
    check_permissions(file, checks);
    checks.push(check_ledger(&data.join(&file.settings.ledger.path), is_running));
}

/// The folder itself, or the nearest one above that exists.
fn existing(data: &Path) -> &Path {
    data.ancestors().find(|folder| folder.exists()).unwrap_or(data)
}

fn check_writable(data: &Path) -> Check {
    const CHECK: &str = "data dir";
    let (shown, folder) = (data.display(), existing(data));
    let exists = folder == data;
    match can_write(folder) {
        Ok(()) if exists => Check::ok(CHECK, shown.to_string(), "it can be written"),
        Ok(()) => Check::ok(CHECK, shown.to_string(), "`aiproxy serve` will make it"),
        Err(error) => {
            let place = folder.display();
            let text = format!("{place} cannot be written: {error}");
            let fix = format!(
                "`chmod u+rwx {place}` or `chown` as its owner, remount it writable, or name another \
                 with --data-dir or AIPROXY_DATA_DIR"
            );
            Check::fail(CHECK, shown.to_string(), text, fix)
        }
    }
}

#[cfg(unix)]
fn can_write(folder: &Path) -> std::io::Result<()> {
    use rustix::fs::{Access, access};
    if !folder.is_dir() {
        return Err(std::io::Error::other("it is no folder"));
    }
    Ok(access(folder, Access::WRITE_OK | Access::EXEC_OK)?)
}

#[cfg(not(unix))]
fn can_write(folder: &Path) -> std::io::Result<()> {
    let found = std::fs::metadata(folder)?;
    if found.permissions().readonly() {
        return Err(std::io::Error::other("it is read-only"));
    }
    Ok(())
}

#[cfg(unix)]
fn check_disk(data: &Path) -> Option<Check> {
    const CHECK: &str = "disk";
    let found = rustix::fs::statvfs(existing(data)).ok()?;
    let free = found.f_bavail.saturating_mul(found.f_frsize);
    let subject = data.display().to_string();
    let no_entries = found.f_files > 0 && found.f_favail == 0;
    let text = if no_entries {
        "its disk has no room for another file".to_owned()
    } else {
        format!("free space on its disk: {}", mebibytes(free))
    };
    let fix = "delete files there, keep less (`aiproxy config set ledger.keep 7d`, \
               `aiproxy config set ledger.bodies_total 64MiB`), or name another with --data-dir";
    Some(if no_entries || free < MIN_FREE_BYTES {
        Check::fail(CHECK, subject, format!("nearly full: {text}"), fix)
    } else if free < LOW_FREE_BYTES {
        Check::warn(CHECK, subject, text, fix)
    } else {
        Check::ok(CHECK, subject, text)
    })
}

#[cfg(not(unix))]
fn check_disk(_data: &Path) -> Option<Check> {
    None
}

fn check_permissions(file: &ConfigFile, checks: &mut Vec<Check>) {
    const CHECK: &str = "permissions";
    let before = checks.len();
    let (config, data) = (&file.paths.config, &file.paths.data);
    let settings = &file.settings;
    let of_upstreams = settings.upstreams.iter().flat_map(|upstream| &upstream.keys);
    let references = of_upstreams.map(|key| &key.reference);
    let mut references = references.chain(settings.projects.iter().filter_map(|p| p.key.as_ref()));
    if references.any(|reference| matches!(reference, Reference::Literal(_))) {
        let shown = config.display().to_string();
        checks.push(match mode_open_to_others(config) {
            Some(mode) => Check::fail(
                CHECK,
                &shown,
                format!("keys stand in it in plain text, and others can read it (mode {mode})"),
                format!("`aiproxy key adopt` moves them to the keyring; `chmod 600 {shown}`"),
            ),
            None => Check::warn(
                CHECK,
                shown,
                "keys stand in it in plain text",
                "`aiproxy key adopt` moves them to the keyring",
            ),
        });
    }
    let private = PRIVATE_FILES.iter().map(|name| data.join(name));
    for path in private.filter(|path| path.is_file()) {
        if let Some(mode) = mode_open_to_others(&path) {
            let text = format!("others can read it (mode {mode})");
            checks.push(Check::fail(CHECK, path.display().to_string(), text, chmod(&path, "600")));
        }
    }
    if let Some(mode) = mode_open_to_others(data).filter(|_| data.is_dir()) {
        let text = format!("others can look into it (mode {mode})");
        checks.push(Check::warn(CHECK, data.display().to_string(), text, chmod(data, "700")));
    }
    if checks.len() == before {
        checks.push(Check::ok(CHECK, "", "no other user can read keys"));
    }
}

/// A size for people, rounded up.
fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}

fn chmod(path: &Path, mode: &str) -> String {
    format!("`chmod {mode} {}`", path.display())
}

fn check_ledger(path: &Path, in_use: bool) -> Check {
    const CHECK: &str = "ledger";
    let shown = path.display().to_string();
    match check_file(path, in_use) {
        Ok(FileState::Missing) => Check::ok(CHECK, shown, "none yet"),
        Ok(FileState::Sound { bytes, complete: true }) => {
            Check::ok(CHECK, shown, format!("sound, {}", mebibytes(bytes)))
        }
        Ok(FileState::Sound { bytes, complete: false }) => {
            let text = format!("it opens; {} are too many to read all", mebibytes(bytes));
            Check::ok(CHECK, shown, text)
        }
        Err(StoreError::Corrupt(why)) => {
            let fix = format!(
                "`aiproxy stop`, then `mv {shown} {shown}.damaged`: `aiproxy serve` begins a new one"
            );
            Check::fail(CHECK, shown, format!("damaged: {why}"), fix)
        }
        Err(error) => {
            let fix = "name another file: `aiproxy config set ledger.path FILE`";
            Check::fail(CHECK, shown, format!("it cannot be read: {error}"), fix)
        }
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use crate::base::fs::write_atomic;
    use crate::cli::tools::doctor::check::CheckState;

    #[test]
    fn missing_folder_is_checked_by_its_parent() {
        let home = tempfile::tempdir().unwrap();
        let check = check_writable(&home.path().join("a/b"));
        assert_eq!((check.state, check.fix), (CheckState::Ok, None));
        write_atomic(&home.path().join("file"), b"", 0o600).unwrap();
        assert_eq!(check_writable(&home.path().join("file/b")).state, CheckState::Fail);
        assert!(check_disk(home.path()).is_some());
    }
}
