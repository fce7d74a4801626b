//! Notices that the config file was changed, however its editor saves.

use std::{
    path::{Path, PathBuf},
    sync::mpsc::{self, RecvTimeoutError, Sender},
    thread,
    time::{Duration, SystemTime},
};

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};

/// An editor that writes in several steps is done when it has been quiet for so long.
const SETTLE_TIME: Duration = Duration::from_millis(200);
/// Where the system tells nothing, one look each.
const POLL_INTERVAL: Duration = Duration::from_secs(2);

/// Watches until it is dropped.
#[derive(Debug)]
pub struct ConfigWatch {
    stop: Sender<ChangeNotice>,
}

impl Drop for ConfigWatch {
    fn drop(&mut self) {
        // An error says that the thread has ended already.
        self.stop.send(ChangeNotice::Stop).ok();
    }
}

enum ChangeNotice {
    Changed,
    Stop,
}

/// Starts to watch a file, which need not exist. `seen` is how it was when it was last read, so
/// that a change between that and now is told too. Each change that has settled sends one `()`;
/// where one is waiting to be read already, none is added.
///
/// # Errors
///
/// The system has no thread to give.
pub fn watch_config(
    path: &Path,
    mut last_stamp: FileStamp,
    changed_tx: tokio::sync::mpsc::Sender<()>,
) -> std::io::Result<ConfigWatch> {
    let (stop, notices) = mpsc::channel();
    let notice_tx = stop.clone();
    let path = std::path::absolute(path)?;
    let run = move || {
        // Held as long as the loop runs; without it, the loop looks by itself.
        let mut watcher = start_watcher(&path, &notice_tx);
        // What changed before the system was asked to tell is seen by a first look.
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
                // The link may lead elsewhere now, or the folder may be there at last.
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

/// Waits until nothing has been told for a while; false where it is time to stop.
fn wait_until_settled(notices: &mpsc::Receiver<ChangeNotice>) -> bool {
    loop {
        match notices.recv_timeout(SETTLE_TIME) {
            Ok(ChangeNotice::Changed) => {}
            Err(RecvTimeoutError::Timeout) => return true,
            Ok(ChangeNotice::Stop) | Err(RecvTimeoutError::Disconnected) => return false,
        }
    }
}

/// What is compared to see whether the file is another.
#[derive(Debug, PartialEq, Eq)]
pub struct FileStamp {
    target: Option<PathBuf>,
    modified: Option<SystemTime>,
    length: u64,
}

/// How the file is now.
#[must_use]
pub fn file_stamp(path: &Path) -> FileStamp {
    let found = std::fs::metadata(path).ok();
    FileStamp {
        target: std::fs::canonicalize(path).ok(),
        modified: found.as_ref().and_then(|found| found.modified().ok()),
        length: found.map_or(0, |found| found.len()),
    }
}

/// Watches the folders of the file and of what it links to: editors rename, so the file itself is
/// soon another. `None` where the system cannot.
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
