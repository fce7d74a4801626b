//! Checks the ledger file without changing it.

use std::path::Path;

use crate::ledger::{
    migrate,
    query::{QueryError, connect, connect_immutable},
    store::{MAX_CHECKED_BYTES, StoreError},
};

/// What a check found.
#[derive(Debug, PartialEq, Eq)]
pub enum FileState {
    Missing,
    /// Its size in bytes, and whether every page was read.
    Sound {
        bytes: u64,
        complete: bool,
    },
}

/// Reads the file, completely if it is not large. `in_use` says that a proxy writes to it.
///
/// # Errors
///
/// It is damaged, belongs to a newer version, or cannot be read.
pub fn check_file(path: &Path, in_use: bool) -> Result<FileState, StoreError> {
    let bytes = match std::fs::metadata(path) {
        Ok(file) => file.len(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(FileState::Missing);
        }
        Err(error) => return Err(StoreError::Transient(error.to_string())),
    };
    // Reading a file in WAL mode creates two more files, which only a file in use needs.
    let opened = if in_use {
        connect(path).map_err(StoreError::from)
    } else {
        connect_immutable(path).or_else(|error| match error {
            QueryError::UnmergedWal(_) => connect(path).map_err(StoreError::from),
            QueryError::Sqlite(error) => Err(error.into()),
            other => Err(StoreError::Transient(other.to_string())),
        })
    };
    let (connection, version) = opened?;
    if usize::try_from(version).is_ok_and(|version| version > migrate::latest_version()) {
        return Err(StoreError::Foreign("it was written by a newer aiproxy".to_owned()));
    }
    let complete = bytes <= MAX_CHECKED_BYTES;
    if complete {
        let found: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        if found != "ok" {
            return Err(StoreError::Corrupt(found));
        }
    } else {
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
    }
    Ok(FileState::Sound { bytes, complete })
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;
    use crate::base::fs::write_atomic;

    #[test]
    fn damage_is_found_without_changing_the_file() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("ledger.db");
        assert_eq!(check_file(&path, false).unwrap(), FileState::Missing);
        let db = Connection::open(&path).unwrap();
        db.execute_batch("CREATE TABLE a (x); INSERT INTO a VALUES (zeroblob(40000))").unwrap();
        drop(db);
        assert!(matches!(check_file(&path, false), Ok(FileState::Sound { complete: true, .. })));

        let mut cut = std::fs::read(&path).unwrap();
        cut[4096..12_288].fill(0xa5);
        for bytes in [&cut[..], b"this is no database at all, not even close to one"] {
            write_atomic(&path, bytes, 0o600).unwrap();
            assert!(matches!(check_file(&path, false), Err(StoreError::Corrupt(_))));
            assert_eq!(std::fs::read(&path).unwrap(), bytes);
            assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 1);
        }
    }
}
