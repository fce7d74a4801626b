//! Detects changes of the config file, in whatever way its editor saves.

use std::{
    path::{Path, PathBuf},
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
        let mut watcher = start_watcher(&path, &notice_tx);
        // A first check detects changes from before the watcher started.
        notice_tx.send(ChangeNotice::Changed).ok();
        loop {
            match notices.recv_timeout(if watcher.is_some() {
                Duration::from_secs(60)
            } else {
                POLL_INTERVAL
            }) {
                Ok(ChangeNotice::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Ok(ChangeNotice::Changed) => {
                    if !wait_until_settled(&notices) {
                        return;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
            let current = file_stamp(&path);
            if current != last_stamp {
                // The link may have a new target, or the folder may now exist.
                if watcher.is_none() || current.target != last_stamp.target {
                    watcher = start_watcher(&path, &notice_tx);
                }
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
}

/// Returns the current state of the file.
#[must_use]
pub fn file_stamp(path: &Path) -> FileStamp {
    let found = std::fs::metadata(path).ok();
    FileStamp {
        target: std::fs::canonicalize(path).ok(),
        modified: found.as_ref().and_then(|found| found.modified().ok()),
        length: found.map_or(0, |found| found.len()),
    }
}

/// Watches the folders of the file and of its link target. Editors rename, so watching the file
/// itself would not last. `None` if the system cannot watch.
fn start_watcher(path: &Path, notice_tx: &Sender<ChangeNotice>) -> Option<RecommendedWatcher> {
    let notice_tx = notice_tx.clone();
    let target = std::fs::canonicalize(path).ok();
    let names: Vec<_> = [Some(path), target.as_deref()]
        .into_iter()
        .flatten()
        .filter_map(|p| p.file_name().map(ToOwned::to_owned))
        .collect();
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        let relevant = match event {
            Ok(event) if event.kind.is_access() => false,
            Ok(event) => {
                event.paths.is_empty()
                    || event
                        .paths
                        .iter()
                        .any(|p| p.file_name().is_some_and(|name| names.iter().any(|n| n == name)))
            }
            Err(_) => true,
        };
        if relevant {
            notice_tx.send(ChangeNotice::Changed).ok();
        }
    })
    .ok()?;
    let mut folders: Vec<_> =
        [Some(path), target.as_deref()].into_iter().flatten().filter_map(Path::parent).collect();
    folders.dedup();
    for folder in folders {
        watcher.watch(folder, RecursiveMode::NonRecursive).ok()?;
    }
    Some(watcher)
}
