//! The ledger file: opened, judged, and written in batches.

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

use super::{
    bodies::{Kept, Packer},
    migrate::{self, MigrateError},
};
use crate::{
    base::{clock::UnixMillis, disk, redact::Redactor},
    events::{
        record::{AttemptRecord, RequestRecord, RequestState},
        sink::{AttemptBill, LedgerEntry, LedgerMessage},
    },
    ir::{
        cost::{AppliedPrice, Bill, Cost, Precision},
        usage::Usage,
    },
};

/// A file of up to this size is checked as a whole when it is opened.
const CHECKED: u64 = 64 << 20;
/// Another process may hold the file for a moment.
const PATIENCE: Duration = Duration::from_secs(2);
/// Prices kept at hand.
const PRICES: usize = 512;

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// It is broken: it has to go out of the way.
    #[error("it is damaged: {0}")]
    Broken(String),
    /// It is somebody else's, or from a newer version: it stays as it is.
    #[error("{0}")]
    NotOurs(String),
    /// Full disk, lock, no permission: may pass.
    #[error("{0}")]
    Passing(String),
}

impl From<rusqlite::Error> for Trouble {
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
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => Self::Broken(text),
            _ => Self::Passing(text),
        }
    }
}

impl From<MigrateError> for Trouble {
    fn from(error: MigrateError) -> Self {
        match error {
            MigrateError::Sqlite(error) => error.into(),
            other => Self::NotOurs(other.to_string()),
        }
    }
}

/// The open file; only the ledger's thread has it.
pub(super) struct File {
    pub(super) connection: Connection,
    zone: TimeZone,
    prices: Vec<(Arc<AppliedPrice>, i64)>,
    packer: Packer,
    /// Bytes that kept bodies take.
    pub(super) bodies: i64,
}

impl File {
    /// Opens the file, making it where there is none.
    pub(super) fn open(path: &Path, zone: TimeZone) -> Result<Self, Trouble> {
        let passing = |error: std::io::Error| Trouble::Passing(error.to_string());
        if !path.try_exists().map_err(passing)? {
            drop(disk::create_private(path).map_err(passing)?);
        }
        let mut connection = Connection::open(path)?;
        connection.busy_timeout(PATIENCE)?;
        connection.set_prepared_statement_cache_capacity(64);
        // Only has an effect on a file without tables.
        connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        connection.pragma_update(None, "journal_size_limit", 64 << 20)?;
        migrate::run(&mut connection)?;
        let length = std::fs::metadata(path).map_or(0, |file| file.len());
        if length <= CHECKED {
            let said: String =
                connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
            if said != "ok" {
                return Err(Trouble::Broken(said));
            }
        }
        let bodies = super::bodies::size(&connection)?;
        Ok(Self { connection, zone, prices: Vec::new(), packer: Packer::default(), bodies })
    }

    /// Writes all of it or nothing.
    pub(super) fn write<'a>(
        &mut self,
        notes: impl Iterator<Item = &'a LedgerMessage>,
        redactor: &dyn Redactor,
        now: UnixMillis,
    ) -> Result<(), Trouble> {
        let tx = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let (mut daily, mut grown, mut prices) = (Daily::default(), 0, self.prices.clone());
        for note in notes {
            match note {
                LedgerMessage::Request(entry) => {
                    let id = entry.record.id.to_string();
                    if request(&tx, &id, entry)? {
                        for (attempt, part) in paired(entry) {
                            self::attempt(&tx, &id, entry, attempt, part, &mut prices)?;
                        }
                        daily.add(entry, &self.zone);
                    }
                }
                LedgerMessage::Body(body) => {
                    grown += self.packer.write(&tx, &Kept::of(body, redactor), now.0)?
                }
                LedgerMessage::Close | LedgerMessage::Flush(_) | LedgerMessage::Tick => {}
            }
        }
        daily.write(&tx)?;
        tx.commit()?;
        // Only now is it true.
        prices.truncate(PRICES);
        self.prices = prices;
        self.bodies += grown;
        Ok(())
    }
}

/// Moves a broken file out of the way, with what belongs to it; tells its new name.
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
        // Often there is none.
        std::fs::rename(with(end), name).unwrap_or_default();
    }
    Ok(aside)
}

/// Attempts with their bills, in order.
fn paired(entry: &LedgerEntry) -> impl Iterator<Item = (&AttemptRecord, Option<&AttemptBill>)> {
    entry
        .record
        .attempts
        .iter()
        .map(|attempt| (attempt, entry.bills.iter().find(|part| part.number == attempt.number)))
}

fn int(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// Writes the row of a request; false where it is there already.
fn request(tx: &Transaction<'_>, id: &str, entry: &LedgerEntry) -> rusqlite::Result<bool> {
    let r: &RequestRecord = &entry.record;
    let last = r.serving_attempt();
    let usage = r.usage.unwrap_or_default();
    let cost = r.cost.unwrap_or_default();
    let took = r.duration_ms.unwrap_or_default();
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
    ] = classes(&usage);
    let changed = tx
        .prepare_cached(
            "INSERT OR IGNORE INTO request VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20,
             ?21, ?22, ?23, ?24, ?25, ?26, ?27, ?28, ?29, ?30, ?31, ?32, ?33, ?34, ?35, ?36, ?37, ?38, ?39, ?40, ?41, ?42)",
        )?
        .execute(params![
            id,
            r.at.0,
            r.at.0.saturating_add(i64::from(took)),
            &*r.project,
            &*r.client,
            r.session.as_deref(),
            r.dialect.name(),
            r.op.name(),
            &*r.requested_model,
            r.stream,
            r.state.name(),
            r.status,
            int(r.request_bytes),
            int(r.answer_bytes),
            int(r.events),
            r.ttft_ms,
            took,
            r.finish.as_deref(),
            r.error.as_deref(),
            r.reason.as_deref(),
            int(r.attempts.len() as u64),
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
            sure(cost.precision),
            entry.demo,
            entry.replay_of.map(|id| id.to_string()),
            int(r.affinity_cached_tokens()),
            r.cache_miss.as_ref().and_then(|lost| serde_json::to_string(lost).ok()),
        ])?;
    Ok(changed == 1)
}

/// The classes of usage in the order of their columns.
pub(super) fn classes(usage: &Usage) -> [i64; 11] {
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
    .map(int)
}

/// The names of those columns.
pub(super) const CLASSES: [&str; 11] = [
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

/// The other way round.
pub(super) fn usage(classes: [i64; 11]) -> Usage {
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

pub(super) fn sure(sure: Precision) -> &'static str {
    match sure {
        Precision::Exact => "exact",
        Precision::Estimate => "estimate",
        Precision::AtLeast => "at_least",
    }
}

fn attempt(
    tx: &Transaction<'_>,
    id: &str,
    entry: &LedgerEntry,
    a: &AttemptRecord,
    part: Option<&AttemptBill>,
    prices: &mut Vec<(Arc<AppliedPrice>, i64)>,
) -> rusqlite::Result<()> {
    static NOBODY_KNOWS: Bill = Bill {
        cost: None,
        precision: Precision::Exact,
        source: crate::ir::cost::CostSource::Unknown,
        computed: None,
        reported: None,
        price: None,
    };
    let bill = part.map_or(&NOBODY_KNOWS, |part| &part.bill);
    let price = match &bill.price {
        Some(used) => Some(price(tx, used, prices)?),
        None => None,
    };
    // Of an only attempt it stands in the request's own row.
    let own = part
        .and_then(|part| part.usage)
        .filter(|_| entry.record.attempts.len() > 1 || entry.record.usage.is_none());
    let usage = own.and_then(|usage| serde_json::to_string(&usage).ok());
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
        part.and_then(|part| part.reported_model.as_deref()),
        a.started_ms,
        a.head_ms,
        a.ended_ms,
        a.status,
        a.outcome.as_deref(),
        a.won,
        a.maybe_billed,
        usage,
        bill.cost.map(|cost| cost.0),
        sure(bill.precision),
        bill.source.name(),
        bill.computed.map(|cost| cost.0),
        bill.reported.map(|cost| cost.0),
        price,
        a.role.name(),
        a.has_affinity,
    ])?;
    Ok(())
}

/// The number of a price; the same one has one row.
fn price(
    tx: &Transaction<'_>,
    used: &Arc<AppliedPrice>,
    prices: &mut Vec<(Arc<AppliedPrice>, i64)>,
) -> rusqlite::Result<i64> {
    if let Some((_, id)) = prices.iter().find(|(known, _)| Arc::ptr_eq(known, used)) {
        return Ok(*id);
    }
    let text = serde_json::to_string(&**used).unwrap_or_default();
    let known = tx
        .prepare_cached("SELECT id FROM price WHERE used = ?1")?
        .query_row([&text], |row| row.get(0))
        .optional()?;
    let id = match known {
        Some(id) => id,
        None => {
            tx.prepare_cached("INSERT INTO price (used) VALUES (?1)")?.execute([&text])?;
            tx.last_insert_rowid()
        }
    };
    prices.insert(0, (Arc::clone(used), id));
    Ok(id)
}

/// Sums of a batch by day and names, so that a busy second writes a few rows.
#[derive(Default)]
struct Daily(HashMap<Place, [i64; 19]>);

/// Day; project, client, upstream, key, model; operation; whether it is the demo.
type Place = (i64, [Arc<str>; 5], &'static str, bool);

impl Daily {
    fn add(&mut self, entry: &LedgerEntry, zone: &TimeZone) {
        let r = &entry.record;
        let finished = r.at.0.saturating_add(i64::from(r.duration_ms.unwrap_or_default()));
        let day = day(UnixMillis(finished), zone);
        let nothing: Arc<str> = Arc::default();
        let newest = r.attempts.len().saturating_sub(1);
        let last = r.attempts.iter().rposition(|attempt| attempt.won).unwrap_or(newest);
        let won = i64::try_from(r.affinity_cached_tokens()).unwrap_or(i64::MAX);
        let mut book = |upstream: &Arc<str>,
                        key: &Arc<str>,
                        model: &Arc<str>,
                        final_one: bool,
                        part: Option<&AttemptBill>| {
            let names = [&r.project, &r.client, upstream, key, model].map(Arc::clone);
            let sums = self.0.entry((day, names, r.op.name(), entry.demo)).or_insert([0; 19]);
            let mut row = [0; 19];
            row[0] = i64::from(final_one);
            row[1] = i64::from(final_one && r.state == RequestState::Failed);
            row[2] = i64::from(!r.attempts.is_empty());
            if let Some(usage) = part.and_then(|part| part.usage) {
                row[3..14].copy_from_slice(&classes(&usage));
            }
            row[14] = part.and_then(|part| part.bill.cost).map_or(0, |cost| cost.0);
            let cost: Cost = r.cost.unwrap_or_default();
            row[15] = i64::from(final_one && cost.usd.is_none() && r.op.generates());
            row[16] = i64::from(final_one && cost.precision == Precision::Estimate);
            row[17] = i64::from(final_one && cost.precision == Precision::AtLeast);
            row[18] = if final_one { won } else { 0 };
            for (sum, more) in sums.iter_mut().zip(row) {
                *sum = sum.saturating_add(more);
            }
        };
        if r.attempts.is_empty() {
            book(&nothing, &nothing, &r.requested_model, true, None);
        }
        for (index, (attempt, part)) in paired(entry).enumerate() {
            book(&attempt.upstream, &attempt.key, &attempt.model, index == last, part);
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

/// The day in a time zone, counted since 1970.
pub(super) fn day(at: UnixMillis, zone: &TimeZone) -> i64 {
    let offset =
        Timestamp::from_millisecond(at.0).map_or(0, |at| i64::from(zone.to_offset(at).seconds()));
    at.0.div_euclid(1_000).saturating_add(offset).div_euclid(86_400)
}
