//! Detects changes of the config file, in whatever way its editor saves.

use std::{
    collections::VecDeque,
    ffi::OsString,
    path::{Component, Path, PathBuf},
    sync::mpsc::{self, RecvTimeoutError, Sender},
    thread,
    time::{Duration, SystemTime},
};

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};

/// How long the file must be unchanged before it is read, since some editors write in several
/// steps.
const SETTLE_TIME: Duration = Duration::from_millis(200);
/// How often the file is checked if the system sends no notices.
const POLL_INTERVAL: Duration = Duration::from_secs(2);
/// How often it is checked besides, since network file systems send no notices of other machines.
const SLOW_POLL_INTERVAL: Duration = Duration::from_secs(10);
/// Links on the way to a file; more are a circle.
const MAX_LINKS: usize = 40;

/// Watches the file until it is dropped.
#[derive(Debug)]
pub struct ConfigWatch {
    stop: Sender<ChangeNotice>,
}

impl Drop for ConfigWatch {
    fn drop(&mut self) {
        // An error means that the thread has already ended.
        self.stop.send(ChangeNotice::Stop).ok();
    }
}

enum ChangeNotice {
    Changed,
    Stop,
}

/// Starts to watch a file, which need not exist. `seen` is its state when it was last read, so that
/// a change since then is reported too. Each settled change sends one `()`; if one is still unread,
/// no other is added.
///
/// # Errors
///
/// The system cannot start a thread.
pub fn watch_config(
    path: &Path,
    mut last_stamp: FileStamp,
    changed_tx: tokio::sync::mpsc::Sender<()>,
) -> std::io::Result<ConfigWatch> {
    let (stop, notices) = mpsc::channel();
    let notice_tx = stop.clone();
    let path = std::path::absolute(path)?;
    let run = move || {
        // Lives as long as the loop. Without it, the loop polls.
        let mut plan = WatchPlan::of(&path);
        let mut watcher = start_watcher(&plan, &notice_tx);
        // A first check detects changes from before the watcher started.
        notice_tx.send(ChangeNotice::Changed).ok();
        loop {
            let interval = if watcher.is_some() { SLOW_POLL_INTERVAL } else { POLL_INTERVAL };
            let is_noticed = match notices.recv_timeout(interval) {
                Ok(ChangeNotice::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Ok(ChangeNotice::Changed) if !wait_until_settled(&notices) => return,
                Ok(ChangeNotice::Changed) => true,
                Err(RecvTimeoutError::Timeout) => false,
            };
            // A link may have a new target, and a folder may be new. One that was removed and made
            // anew cannot be distinguished from the old one, whose watch has ended.
            let current_plan = WatchPlan::of(&path);
            if is_noticed || current_plan != plan {
                plan = current_plan;
                watcher = start_watcher(&plan, &notice_tx);
            }
            let current = file_stamp(&path);
            if current != last_stamp {
                last_stamp = current;
                if matches!(
                    changed_tx.try_send(()),
                    Err(tokio::sync::mpsc::error::TrySendError::Closed(()))
                ) {
                    return;
                }
            }
        }
    };
    thread::Builder::new().name("config-watch".to_owned()).spawn(run)?;
    Ok(ConfigWatch { stop })
}

/// Waits until no notice has arrived for a while; returns false if it is time to stop.
fn wait_until_settled(notices: &mpsc::Receiver<ChangeNotice>) -> bool {
    loop {
        match notices.recv_timeout(SETTLE_TIME) {
            Ok(ChangeNotice::Changed) => {}
            Err(RecvTimeoutError::Timeout) => return true,
            Ok(ChangeNotice::Stop) | Err(RecvTimeoutError::Disconnected) => return false,
        }
    }
}

/// Compared to detect whether the file has changed.
#[derive(Debug, PartialEq, Eq)]
pub struct FileStamp {
    target: Option<PathBuf>,
    modified: Option<SystemTime>,
    length: u64,
    inode: u64,
}

/// Returns the current state of the file.
#[must_use]
pub fn file_stamp(path: &Path) -> FileStamp {
    let found = std::fs::metadata(path).ok();
    FileStamp {
        target: std::fs::canonicalize(path).ok(),
        modified: found.as_ref().and_then(|found| found.modified().ok()),
        length: found.as_ref().map_or(0, std::fs::Metadata::len),
        inode: found.as_ref().map_or(0, inode),
    }
}

#[cfg(unix)]
fn inode(found: &std::fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::ino(found)
}

#[cfg(not(unix))]
fn inode(_: &std::fs::Metadata) -> u64 {
    0
}

/// What must be watched to notice every change of the file. Editors rename, so watching the file
/// itself would not last; a link anywhere on the way to it may get another target.
#[derive(Debug, PartialEq, Eq)]
struct WatchPlan {
    /// Folders that contain the file, its folder, or a link on the way, each with its inode.
    folders: Vec<(PathBuf, u64)>,
    /// The names of those in the folders.
    names: Vec<OsString>,
}

impl WatchPlan {
    fn of(path: &Path) -> Self {
        let mut plan = Self { folders: Vec::new(), names: Vec::new() };
        let mut at = PathBuf::new();
        let mut left: VecDeque<OsString> = components(path);
        let mut links = 0;
        while let Some(name) = left.pop_front() {
            let next = at.join(&name);
            let target = std::fs::read_link(&next).ok().filter(|_| links < MAX_LINKS);
            if target.is_some() || left.len() <= 1 {
                plan.add(&at, &name);
            }
            match target {
                Some(target) => {
                    links += 1;
                    for name in components(&target).into_iter().rev() {
                        left.push_front(name);
                    }
                    if target.is_absolute() {
                        at = PathBuf::new();
                    }
                }
                None if name == ".." => drop(at.pop()),
                None => at = next,
            }
        }
        plan
    }

    fn add(&mut self, folder: &Path, name: &OsString) {
        // A relative path and a root have no folder to watch.
        if folder.as_os_str().is_empty() {
            return;
        }
        if !self.folders.iter().any(|(known, _)| known == folder) {
            let inode = std::fs::metadata(folder).as_ref().map_or(0, inode);
            self.folders.push((folder.to_owned(), inode));
        }
        if !self.names.contains(name) {
            self.names.push(name.clone());
        }
    }
}

fn components(path: &Path) -> VecDeque<OsString> {
    let parts = path.components().filter(|part| !matches!(part, Component::CurDir));
    parts.map(|part| part.as_os_str().to_owned()).collect()
}

/// Watches the folders of a plan. `None` if the system cannot watch all of them.
fn start_watcher(plan: &WatchPlan, notice_tx: &Sender<ChangeNotice>) -> Option<RecommendedWatcher> {
    let notice_tx = notice_tx.clone();
    let names = plan.names.clone();
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        let is_named = |path: &PathBuf| {
            path.file_name().is_some_and(|name| names.iter().any(|known| known == name))
        };
        let relevant = match event {
            Ok(event) if event.kind.is_access() => false,
            Ok(event) => event.paths.is_empty() || event.paths.iter().any(is_named),
            Err(_) => true,
        };
        if relevant {
            notice_tx.send(ChangeNotice::Changed).ok();
        }
    })
    .ok()?;
    for (folder, _) in &plan.folders {
        watcher.watch(folder, RecursiveMode::NonRecursive).ok()?;
    }
    Some(watcher)
}

#[cfg(all(test, unix))]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;
    use crate::base::fs::write_atomic;

    fn write(path: &Path, text: &str) {
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        write_atomic(path, text.as_bytes(), 0o600).expect("written");
    }

    /// Makes a link anew, in one step as tools do.
    fn point(link: &Path, target: &str) {
        let next = link.with_file_name("next-link");
        symlink(target, &next).expect("linked");
        fs::rename(&next, link).expect("replaced");
    }

    /// Checks that each change is noticed sooner than a poll would.
    fn check(path: &Path, changes: &[&dyn Fn()]) {
        let (changed_tx, mut changed) = tokio::sync::mpsc::channel(1);
        let _watch = watch_config(path, file_stamp(path), changed_tx).expect("watched");
        thread::sleep(SETTLE_TIME * 3);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let runtime = runtime.expect("a runtime");
        for (number, change) in changes.iter().enumerate() {
            change();
            let noticed = runtime.block_on(async {
                tokio::time::timeout(SLOW_POLL_INTERVAL / 2, changed.recv()).await
            });
            assert!(noticed.is_ok(), "change {number} is not noticed");
        }
    }

    #[test]
    fn watch_follows_a_volume_whose_data_folder_is_replaced() {
        let home = tempfile::tempdir().expect("a folder");
        let root = home.path().canonicalize().expect("there");
        for n in 1..=3 {
            write(&root.join(format!("..{n}/config.toml")), &format!("# {n}\n"));
        }
        point(&root.join("..data"), "..1");
        symlink("..data/config.toml", root.join("config.toml")).expect("linked");
        check(
            &root.join("config.toml"),
            &[&|| point(&root.join("..data"), "..2"), &|| point(&root.join("..data"), "..3")],
        );
    }

    #[test]
    fn watch_follows_linked_and_recreated_folders() {
        let home = tempfile::tempdir().expect("a folder");
        let root = home.path().canonicalize().expect("there");
        for name in ["a", "b"] {
            write(&root.join(format!("dots/{name}/config.toml")), &format!("# {name}\n"));
        }
        let link = root.join("home/.config/aiproxy");
        fs::create_dir_all(link.parent().expect("a folder")).expect("made");
        symlink("../../dots/a", &link).expect("linked");
        let config = root.join("dots/b/config.toml");
        check(
            &link.join("config.toml"),
            &[
                &|| point(&link, "../../dots/b"),
                &|| write(&config, "# saved\n"),
                &|| {
                    fs::remove_dir_all(root.join("dots/b")).expect("removed");
                    write(&config, "# made anew\n");
                },
                &|| write(&config, "# saved again\n"),
            ],
        );
    }

    #[test]
    fn symlink_loop_terminates() {
        let home = tempfile::tempdir().expect("a folder");
        symlink("b", home.path().join("a")).expect("linked");
        symlink("a", home.path().join("b")).expect("linked");
        assert!(!WatchPlan::of(&home.path().join("a/config.toml")).folders.is_empty());
    }
}
