//! Deletes old rows in small batches and keeps the ledger file within its size limit.

use std::time::Duration;

use rusqlite::TransactionBehavior;

use super::bodies;
use crate::ledger::store::{LedgerFile, StoreError};
use crate::{
    base::{clock::UnixMillis, id::RequestId},
    config::settings::LedgerSettings as Settings,
};

/// Rows deleted in one transaction, which bounds how long writers and readers wait.
const BATCH_ROWS: usize = 500;
/// Space for rows, in addition to the bodies; enough for ten million rows.
const MAX_ROW_BYTES: i64 = 4 << 30;

/// Deletes bodies beyond their age or size limit and requests beyond their age limit. Returns
/// whether there is more to delete.
pub(super) fn enforce(
    file: &mut LedgerFile,
    settings: &Settings,
    now: UnixMillis,
) -> Result<bool, StoreError> {
    let before =
        |span: Duration| now.0.saturating_sub(i64::try_from(span.as_millis()).unwrap_or(i64::MAX));
    let total = i64::try_from(settings.bodies_total).unwrap_or(i64::MAX);
    let tx = file.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let (removed, freed) = bodies::drop_oldest(
        &tx,
        before(settings.body_retention),
        file.body_bytes.saturating_sub(total).max(0),
        BATCH_ROWS,
    )?;
    let cutoff = before(settings.retention);
    let mut old: Vec<String> = {
        let mut query = tx.prepare_cached(
            "SELECT id FROM request WHERE id < ?1 AND finished < ?2 ORDER BY id LIMIT ?3",
        )?;
        query
            .query_map(
                (RequestId::min_text_at(UnixMillis(cutoff)), cutoff, BATCH_ROWS as i64),
                |row| row.get(0),
            )?
            .collect::<Result<_, _>>()?
    };
    let number = |name: &str| tx.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let used =
        (number("page_count")? - number("freelist_count")?).saturating_mul(number("page_size")?);
    if old.is_empty() && used > total.saturating_add(MAX_ROW_BYTES) {
        let mut query = tx.prepare_cached("SELECT id FROM request ORDER BY id LIMIT ?1")?;
        old = query.query_map([BATCH_ROWS as i64], |row| row.get(0))?.collect::<Result<_, _>>()?;
    }
    for id in &old {
        tx.prepare_cached("DELETE FROM attempt WHERE request = ?1")?.execute([id])?;
        tx.prepare_cached("DELETE FROM request WHERE id = ?1")?.execute([id])?;
    }
    tx.commit()?;
    file.body_bytes = (file.body_bytes - freed).max(0);
    let more = removed >= BATCH_ROWS
        || old.len() >= BATCH_ROWS
        || (removed > 0 && file.body_bytes > total);
    if !more && (removed > 0 || !old.is_empty()) {
        // Returns free pages to the disk, a few at a time.
        file.connection.execute_batch("PRAGMA incremental_vacuum(2000)")?;
    }
    Ok(more)
}
