//! Opens and checks the ledger file, and writes batches to it.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use jiff::{Timestamp, tz::TimeZone};
use rusqlite::{
    Connection, ErrorCode, OptionalExtension, Transaction, TransactionBehavior, params,
};

use crate::ledger::{
    bodies::{Packer, StoredBody},
    migrate::{self, MigrateError},
};
use crate::{
    base::{clock::UnixMillis, fs, redact::Redactor},
    events::{
        ledger_queue::{AttemptBill, LedgerEntry, LedgerMessage},
        record::{AttemptRecord, RequestRecord, RequestState},
    },
    ir::{
        cost::{AppliedPrice, Bill, Cost, Precision},
        usage::Usage,
    },
};

/// A file up to this size is checked completely when it is opened.
const MAX_CHECKED_BYTES: u64 = 64 << 20;
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
        let bodies = crate::ledger::bodies::total_size(&connection)?;
        Ok(Self {
            connection,
            zone,
            price_ids: Vec::new(),
            packer: Packer::default(),
            body_bytes: bodies,
        })
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
        for message in messages {
            match message {
                LedgerMessage::Request(entry) => {
                    let id = entry.record.id.to_string();
                    if insert_request(&tx, &id, entry)? {
                        for (attempt, bill) in attempts_with_bills(entry) {
                            insert_attempt(&tx, &id, entry, attempt, bill, &mut prices)?;
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

/// Iterates over attempts with their bills, in order.
fn attempts_with_bills(
    entry: &LedgerEntry,
) -> impl Iterator<Item = (&AttemptRecord, Option<&AttemptBill>)> {
    entry
        .record
        .attempts
        .iter()
        .map(|attempt| (attempt, entry.bills.iter().find(|bill| bill.number == attempt.number)))
}

fn saturating_i64(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// Inserts the row of a request; returns false if the row already exists.
fn insert_request(tx: &Transaction<'_>, id: &str, entry: &LedgerEntry) -> rusqlite::Result<bool> {
    let r: &RequestRecord = &entry.record;
    let last = r.serving_attempt();
    let usage = r.usage.unwrap_or_default();
    let cost = r.cost.unwrap_or_default();
    let duration_ms = r.duration_ms.unwrap_or_default();
    let [
        input,
        cache_read,
        write_5m,
        write_1h,
        audio_in,
        image_in,
        output,
        reasoning,
        audio_out,
        image_out,
        searches,
    ] = usage_columns(&usage);
    let changed = tx
        .prepare_cached(
            "INSERT OR IGNORE INTO request VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20,
             ?21, ?22, ?23, ?24, ?25, ?26, ?27, ?28, ?29, ?30, ?31, ?32, ?33, ?34, ?35, ?36, ?37, ?38, ?39, ?40, ?41, ?42)",
        )?
        .execute(params![
            id,
            r.at.0,
            r.at.0.saturating_add(i64::from(duration_ms)),
            &*r.project,
            &*r.client,
            r.session.as_deref(),
            r.dialect.name(),
            r.op.name(),
            &*r.requested_model,
            r.stream,
            r.state.name(),
            r.status,
            saturating_i64(r.request_bytes),
            saturating_i64(r.answer_bytes),
            saturating_i64(r.events),
            r.ttft_ms,
            duration_ms,
            r.finish.as_deref(),
            r.error.as_deref(),
            r.reason.as_deref(),
            saturating_i64(r.attempts.len() as u64),
            last.map_or("", |a| &*a.upstream),
            last.map_or("", |a| &*a.key),
            last.map_or("", |a| &*a.model),
            r.usage.is_some(),
            input,
            cache_read,
            write_5m,
            write_1h,
            audio_in,
            image_in,
            output,
            reasoning,
            audio_out,
            image_out,
            searches,
            cost.usd.map(|usd| usd.0),
            precision_name(cost.precision),
            entry.demo,
            entry.replay_of.map(|id| id.to_string()),
            saturating_i64(r.affinity_cached_tokens()),
            r.cache_miss.as_ref().and_then(|lost| serde_json::to_string(lost).ok()),
        ])?;
    Ok(changed == 1)
}

/// Returns the usage classes in the order of their columns.
pub(super) fn usage_columns(usage: &Usage) -> [i64; 11] {
    [
        usage.input,
        usage.cache_read,
        usage.cache_write_5m,
        usage.cache_write_1h,
        usage.audio_in,
        usage.image_in,
        usage.output,
        usage.reasoning,
        usage.audio_out,
        usage.image_out,
        usage.searches,
    ]
    .map(saturating_i64)
}

/// The column names of the usage classes.
pub(super) const USAGE_COLUMNS: [&str; 11] = [
    "input",
    "cache_read",
    "cache_write_5m",
    "cache_write_1h",
    "audio_in",
    "image_in",
    "output",
    "reasoning",
    "audio_out",
    "image_out",
    "searches",
];

/// Reads the usage classes from their columns; the inverse of [`usage_columns`].
pub(super) fn usage_from_columns(classes: [i64; 11]) -> Usage {
    let [
        input,
        cache_read,
        cache_write_5m,
        cache_write_1h,
        audio_in,
        image_in,
        output,
        reasoning,
        audio_out,
        image_out,
        searches,
    ] = classes.map(|n| u64::try_from(n).unwrap_or(0));
    Usage {
        input,
        cache_read,
        cache_write_5m,
        cache_write_1h,
        audio_in,
        image_in,
        output,
        reasoning,
        audio_out,
        image_out,
        searches,
        reported_cost: None,
    }
}

pub(super) fn precision_name(sure: Precision) -> &'static str {
    match sure {
        Precision::Exact => "exact",
        Precision::Estimate => "estimate",
        Precision::AtLeast => "at_least",
    }
}

fn insert_attempt(
    tx: &Transaction<'_>,
    id: &str,
    entry: &LedgerEntry,
    a: &AttemptRecord,
    attempt_bill: Option<&AttemptBill>,
    prices: &mut Vec<(Arc<AppliedPrice>, i64)>,
) -> rusqlite::Result<()> {
    static UNKNOWN_BILL: Bill = Bill {
        cost: None,
        precision: Precision::Exact,
        source: crate::ir::cost::CostSource::Unknown,
        computed: None,
        reported: None,
        price: None,
    };
    let bill = attempt_bill.map_or(&UNKNOWN_BILL, |part| &part.bill);
    let price = match &bill.price {
        Some(used) => Some(price_id(tx, used, prices)?),
        None => None,
    };
    // The usage of an only attempt is in the row of the request.
    let attempt_usage = attempt_bill
        .and_then(|part| part.usage)
        .filter(|_| entry.record.attempts.len() > 1 || entry.record.usage.is_none());
    let usage = attempt_usage.and_then(|usage| serde_json::to_string(&usage).ok());
    tx.prepare_cached(
        "INSERT OR IGNORE INTO attempt VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23)",
    )?
    .execute(params![
        id,
        a.number,
        &*a.upstream,
        &*a.key,
        &*a.fingerprint,
        &*a.model,
        attempt_bill.and_then(|part| part.reported_model.as_deref()),
        a.started_ms,
        a.head_ms,
        a.ended_ms,
        a.status,
        a.outcome.as_deref(),
        a.won,
        a.maybe_billed,
        usage,
        bill.cost.map(|cost| cost.0),
        precision_name(bill.precision),
        bill.source.name(),
        bill.computed.map(|cost| cost.0),
        bill.reported.map(|cost| cost.0),
        price,
        a.role.name(),
        a.has_affinity,
    ])?;
    Ok(())
}

/// Returns the row id of a price; equal prices share one row.
fn price_id(
    tx: &Transaction<'_>,
    used: &Arc<AppliedPrice>,
    prices: &mut Vec<(Arc<AppliedPrice>, i64)>,
) -> rusqlite::Result<i64> {
    if let Some((_, id)) = prices.iter().find(|(cached_price, _)| Arc::ptr_eq(cached_price, used)) {
        return Ok(*id);
    }
    let text = serde_json::to_string(&**used).unwrap_or_default();
    let existing_id = tx
        .prepare_cached("SELECT id FROM price WHERE used = ?1")?
        .query_row([&text], |row| row.get(0))
        .optional()?;
    let id = match existing_id {
        Some(id) => id,
        None => {
            tx.prepare_cached("INSERT INTO price (used) VALUES (?1)")?.execute([&text])?;
            tx.last_insert_rowid()
        }
    };
    prices.insert(0, (Arc::clone(used), id));
    Ok(id)
}

/// Totals of a batch by day and names, so that a busy second writes only a few rows.
#[derive(Default)]
struct DailyTotals(HashMap<DailyKey, [i64; 19]>);

/// Day; project, client, upstream, key, model; operation; whether the upstream is the demo.
type DailyKey = (i64, [Arc<str>; 5], &'static str, bool);

impl DailyTotals {
    fn add(&mut self, entry: &LedgerEntry, zone: &TimeZone) {
        let r = &entry.record;
        let finished = r.at.0.saturating_add(i64::from(r.duration_ms.unwrap_or_default()));
        let day = day_number(UnixMillis(finished), zone);
        let empty: Arc<str> = Arc::default();
        let last_index = r.attempts.len().saturating_sub(1);
        let last = r.attempts.iter().rposition(|attempt| attempt.won).unwrap_or(last_index);
        let won = i64::try_from(r.affinity_cached_tokens()).unwrap_or(i64::MAX);
        let mut add_row = |upstream: &Arc<str>,
                           key: &Arc<str>,
                           model: &Arc<str>,
                           is_final: bool,
                           attempt_bill: Option<&AttemptBill>| {
            let names = [&r.project, &r.client, upstream, key, model].map(Arc::clone);
            let sums = self.0.entry((day, names, r.op.name(), entry.demo)).or_insert([0; 19]);
            let mut row = [0; 19];
            row[0] = i64::from(is_final);
            row[1] = i64::from(is_final && r.state == RequestState::Failed);
            row[2] = i64::from(!r.attempts.is_empty());
            if let Some(usage) = attempt_bill.and_then(|part| part.usage) {
                row[3..14].copy_from_slice(&usage_columns(&usage));
            }
            row[14] = attempt_bill.and_then(|part| part.bill.cost).map_or(0, |cost| cost.0);
            let cost: Cost = r.cost.unwrap_or_default();
            row[15] = i64::from(is_final && cost.usd.is_none() && r.op.generates());
            row[16] = i64::from(is_final && cost.precision == Precision::Estimate);
            row[17] = i64::from(is_final && cost.precision == Precision::AtLeast);
            row[18] = if is_final { won } else { 0 };
            for (sum, more) in sums.iter_mut().zip(row) {
                *sum = sum.saturating_add(more);
            }
        };
        if r.attempts.is_empty() {
            add_row(&empty, &empty, &r.requested_model, true, None);
        }
        for (index, (attempt, bill)) in attempts_with_bills(entry).enumerate() {
            add_row(&attempt.upstream, &attempt.key, &attempt.model, index == last, bill);
        }
    }

    fn write(self, tx: &Transaction<'_>) -> rusqlite::Result<()> {
        let mut statement = tx.prepare_cached(
            "INSERT INTO daily VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23, ?24, ?25, ?26, ?27)
             ON CONFLICT DO UPDATE SET
               requests = requests + excluded.requests, failed = failed + excluded.failed, attempts = attempts + excluded.attempts,
               input = input + excluded.input, cache_read = cache_read + excluded.cache_read,
               cache_write_5m = cache_write_5m + excluded.cache_write_5m, cache_write_1h = cache_write_1h + excluded.cache_write_1h,
               audio_in = audio_in + excluded.audio_in, image_in = image_in + excluded.image_in,
               output = output + excluded.output, reasoning = reasoning + excluded.reasoning,
               audio_out = audio_out + excluded.audio_out, image_out = image_out + excluded.image_out,
               searches = searches + excluded.searches, cost = cost + excluded.cost, unpriced = unpriced + excluded.unpriced,
               estimated = estimated + excluded.estimated, at_least = at_least + excluded.at_least, won = won + excluded.won",
        )?;
        for ((day, [project, client, upstream, key, model], op, demo), n) in self.0 {
            statement.execute(params![
                day, &*project, &*client, &*upstream, &*key, &*model, op, demo, n[0], n[1], n[2],
                n[3], n[4], n[5], n[6], n[7], n[8], n[9], n[10], n[11], n[12], n[13], n[14], n[15],
                n[16], n[17], n[18]
            ])?;
        }
        Ok(())
    }
}

/// Returns the day in a time zone, counted since 1970-01-01.
pub(super) fn day_number(at: UnixMillis, zone: &TimeZone) -> i64 {
    let offset =
        Timestamp::from_millisecond(at.0).map_or(0, |at| i64::from(zone.to_offset(at).seconds()));
    at.0.div_euclid(1_000).saturating_add(offset).div_euclid(86_400)
}
