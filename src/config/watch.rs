//! Notices that the config file was changed, however its editor saves.

use std::{
    path::{Path, PathBuf},
    sync::mpsc::{self, RecvTimeoutError, Sender},
    thread,
    time::{Duration, SystemTime},
};

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};

/// An editor that writes in several steps is done when it has been quiet for so long.
const SETTLE: Duration = Duration::from_millis(200);
/// Where the system tells nothing, one look each.
const LOOK: Duration = Duration::from_secs(2);

/// Watches until it is dropped.
#[derive(Debug)]
pub struct Watch {
    stop: Sender<Told>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        // An error says that the thread has ended already.
        self.stop.send(Told::Stop).ok();
    }
}

enum Told {
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
pub fn start(
    path: &Path,
    mut seen: Stamp,
    tell: tokio::sync::mpsc::Sender<()>,
) -> std::io::Result<Watch> {
    let (stop, told) = mpsc::channel();
    let told_by_system = stop.clone();
    let path = std::path::absolute(path)?;
    let run = move || {
        // Held as long as the loop runs; without it, the loop looks by itself.
        let mut watcher = watcher(&path, &told_by_system);
        // What changed before the system was asked to tell is seen by a first look.
        told_by_system.send(Told::Changed).ok();
        loop {
            match told.recv_timeout(if watcher.is_some() { Duration::from_secs(60) } else { LOOK })
            {
                Ok(Told::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Ok(Told::Changed) => {
                    if !settled(&told) {
                        return;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
            let now = stamp(&path);
            if now != seen {
                // The link may lead elsewhere now, or the folder may be there at last.
                if watcher.is_none() || now.target != seen.target {
                    watcher = self::watcher(&path, &told_by_system);
                }
                seen = now;
                if matches!(
                    tell.try_send(()),
                    Err(tokio::sync::mpsc::error::TrySendError::Closed(()))
                ) {
                    return;
                }
            }
        }
    };
    thread::Builder::new().name("config-watch".to_owned()).spawn(run)?;
    Ok(Watch { stop })
}

/// Waits until nothing has been told for a while; false where it is time to stop.
fn settled(told: &mpsc::Receiver<Told>) -> bool {
    loop {
        match told.recv_timeout(SETTLE) {
            Ok(Told::Changed) => {}
            Err(RecvTimeoutError::Timeout) => return true,
            Ok(Told::Stop) | Err(RecvTimeoutError::Disconnected) => return false,
        }
    }
}

/// What is compared to see whether the file is another.
#[derive(Debug, PartialEq, Eq)]
pub struct Stamp {
    target: Option<PathBuf>,
    modified: Option<SystemTime>,
    length: u64,
}

/// How the file is now.
#[must_use]
pub fn stamp(path: &Path) -> Stamp {
    let found = std::fs::metadata(path).ok();
    Stamp {
        target: std::fs::canonicalize(path).ok(),
        modified: found.as_ref().and_then(|found| found.modified().ok()),
        length: found.map_or(0, |found| found.len()),
    }
}

/// Watches the folders of the file and of what it links to: editors rename, so the file itself is
/// soon another. `None` where the system cannot.
fn watcher(path: &Path, tell: &Sender<Told>) -> Option<RecommendedWatcher> {
    let tell = tell.clone();
    let target = std::fs::canonicalize(path).ok();
    let names: Vec<_> = [Some(path), target.as_deref()]
        .into_iter()
        .flatten()
        .filter_map(|p| p.file_name().map(ToOwned::to_owned))
        .collect();
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        let ours = match event {
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
        if ours {
            tell.send(Told::Changed).ok();
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
