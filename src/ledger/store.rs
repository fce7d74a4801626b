//! Opens and checks the ledger file, and writes batches to it.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use jiff::tz::TimeZone;
use rusqlite::{Connection, ErrorCode, TransactionBehavior};

use crate::ledger::{
    bodies::{self, Packer, StoredBody},
    daily::DailyTotals,
    migrate::{self, MigrateError},
    rows::{RowWriter, attempts_with_bills, insert_attempt, insert_request},
};
use crate::{
    base::{clock::UnixMillis, fs, id::RequestId, redact::Redactor},
    events::ledger_queue::LedgerMessage,
    ir::cost::AppliedPrice,
};

/// A file up to this size is checked completely when it is opened.
pub(super) const MAX_CHECKED_BYTES: u64 = 64 << 20;
/// Another process may lock the file for a moment.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);
/// Number of price rows cached in memory.
const MAX_CACHED_PRICES: usize = 512;

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file is damaged and must be moved aside.
    #[error("it is damaged: {0}")]
    Corrupt(String),
    /// The file belongs to another program or a newer version and is left unchanged.
    #[error("{0}")]
    Foreign(String),
    /// A full disk, a lock or missing permission; may go away.
    #[error("{0}")]
    Transient(String),
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        let code = error.sqlite_error_code();
        let text = match code {
            Some(ErrorCode::DiskFull) => "the disk is full".to_owned(),
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                "another program holds it".to_owned()
            }
            Some(ErrorCode::ReadOnly) => "it cannot be written to".to_owned(),
            _ => error.to_string(),
        };
        match code {
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => Self::Corrupt(text),
            _ => Self::Transient(text),
        }
    }
}

impl From<MigrateError> for StoreError {
    fn from(error: MigrateError) -> Self {
        match error {
            MigrateError::Sqlite(error) => error.into(),
            other => Self::Foreign(other.to_string()),
        }
    }
}

/// The open ledger file, owned by the writer thread.
pub(super) struct LedgerFile {
    pub(super) connection: Connection,
    /// Which file was opened, whatever its path names later.
    identity: Option<fs::FileIdentity>,
    zone: TimeZone,
    price_ids: Vec<(Arc<AppliedPrice>, i64)>,
    packer: Packer,
    /// Bytes that stored bodies take.
    pub(super) body_bytes: i64,
}

impl LedgerFile {
    /// Opens the file, or creates it if it does not exist.
    pub(super) fn open(path: &Path, zone: TimeZone) -> Result<Self, StoreError> {
        let transient = |error: std::io::Error| StoreError::Transient(error.to_string());
        if !path.try_exists().map_err(transient)? {
            drop(fs::create_private(path).map_err(transient)?);
        }
        let mut connection = Connection::open(path)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.set_prepared_statement_cache_capacity(64);
        // Only takes effect on a file without tables.
        connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        connection.pragma_update(None, "journal_size_limit", 64 << 20)?;
        migrate::migrate(&mut connection)?;
        let length = std::fs::metadata(path).map_or(0, |file| file.len());
        if length <= MAX_CHECKED_BYTES {
            let check_result: String =
                connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
            if check_result != "ok" {
                return Err(StoreError::Corrupt(check_result));
            }
        }
        let body_bytes = bodies::total_size(&connection)?;
        Ok(Self {
            connection,
            identity: fs::file_identity(path),
            zone,
            price_ids: Vec::new(),
            packer: Packer::default(),
            body_bytes,
        })
    }

    /// Whether the path still names the file that was opened. True where the system cannot tell.
    pub(super) fn is_at(&self, path: &Path) -> bool {
        self.identity.is_none_or(|identity| fs::file_identity(path) == Some(identity))
    }

    /// Writes the whole batch in one transaction.
    pub(super) fn write_batch<'a>(
        &mut self,
        messages: impl Iterator<Item = &'a LedgerMessage>,
        redactor: &dyn Redactor,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        let tx = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let (mut daily, mut added_bytes, mut prices) =
            (DailyTotals::default(), 0, self.price_ids.clone());
        let mut rows = RowWriter::new(&tx)?;
        for message in messages {
            match message {
                LedgerMessage::Request(entry) => {
                    let digits = entry.record.id.hex_digits();
                    let id = RequestId::text_of(&digits);
                    if insert_request(&mut rows, id, entry)? {
                        for (attempt, bill) in attempts_with_bills(entry) {
                            insert_attempt(&mut rows, id, entry, attempt, bill, &mut prices)?;
                        }
                        daily.add(entry, &self.zone);
                    }
                }
                LedgerMessage::Body(body) => {
                    added_bytes +=
                        self.packer.write(&tx, &StoredBody::redacted(body, redactor), now.0)?;
                }
                LedgerMessage::Close | LedgerMessage::Flush(_) | LedgerMessage::Tick => {}
            }
        }
        drop(rows);
        daily.write(&tx)?;
        tx.commit()?;
        // Cache the prices only after the commit.
        prices.truncate(MAX_CACHED_PRICES);
        self.price_ids = prices;
        self.body_bytes += added_bytes;
        Ok(())
    }
}

/// Moves a damaged file and its companion files aside; returns the new name.
pub(super) fn move_aside(path: &Path, now: UnixMillis) -> std::io::Result<PathBuf> {
    let stamp = now.to_string().replace(':', "");
    let stamp = stamp.split('.').next().unwrap_or_default();
    let with = |end: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(end);
        PathBuf::from(name)
    };
    let aside = with(&format!(".corrupt-{stamp}"));
    std::fs::rename(path, &aside)?;
    for end in ["-wal", "-shm"] {
        let mut name = aside.clone().into_os_string();
        name.push(end);
        // The companion file often does not exist.
        std::fs::rename(with(end), name).unwrap_or_default();
    }
    Ok(aside)
}
