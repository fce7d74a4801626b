//! Writes requests and attempts as rows of the ledger, and names their columns.

use std::{
    borrow::Cow,
    fmt::{Display, Write},
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use rusqlite::{CachedStatement, OptionalExtension, ToSql, Transaction, params, params_from_iter};

use crate::{
    events::{
        ledger_queue::{AttemptBill, LedgerEntry},
        record::{AttemptRecord, RequestRecord},
    },
    ir::{
        cost::{AppliedPrice, Bill, CostSource, Precision, PriceClass},
        usage::Usage,
    },
};

/// Iterates over attempts with their bills, in order.
pub(super) fn attempts_with_bills(
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

/// Writes the rows of a batch; its statements are prepared once.
pub(super) struct RowWriter<'a> {
    tx: &'a Transaction<'a>,
    request: CachedStatement<'a>,
    attempt: CachedStatement<'a>,
}

impl<'a> RowWriter<'a> {
    pub(super) fn new(tx: &'a Transaction<'a>) -> rusqlite::Result<Self> {
        let request = tx.prepare_cached(INSERT_REQUEST)?;
        Ok(Self { tx, request, attempt: tx.prepare_cached(INSERT_ATTEMPT)? })
    }
}

const INSERT_REQUEST: &str = "INSERT OR IGNORE INTO request VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20,
             ?21, ?22, ?23, ?24, ?25, ?26, ?27, ?28, ?29, ?30, ?31, ?32, ?33, ?34, ?35, ?36, ?37, ?38, ?39, ?40, ?41, ?42, ?43, ?44)";
const INSERT_ATTEMPT: &str = "INSERT OR IGNORE INTO attempt VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23)";

/// Returns the text of a client's address; most clients are on this machine.
fn ip_text(ip: Option<IpAddr>) -> Option<Cow<'static, str>> {
    ip.map(|ip| match ip {
        IpAddr::V4(Ipv4Addr::LOCALHOST) => "127.0.0.1".into(),
        other => other.to_canonical().to_string().into(),
    })
}

/// Length that most reasons fit in.
const REASON_BYTES: usize = 160;

/// Returns a reason's text.
fn reason_text(reason: &impl Display) -> String {
    let mut text = String::with_capacity(REASON_BYTES);
    // Writing to a text cannot fail.
    let _written = write!(text, "{reason}");
    text
}

/// Inserts the row of a request; returns false if the row already exists.
pub(super) fn insert_request(
    rows: &mut RowWriter<'_>,
    id: &str,
    entry: &LedgerEntry,
) -> rusqlite::Result<bool> {
    let r: &RequestRecord = &entry.record;
    let last = r.serving_attempt();
    let cost = r.cost.unwrap_or_default();
    let duration_ms = r.duration_ms.unwrap_or_default();
    let usage = usage_columns(&r.usage.unwrap_or_default());
    let before = params![
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
        r.reason.as_deref().map(reason_text),
        saturating_i64(r.attempts.len() as u64),
        last.map_or("", |a| &*a.upstream),
        last.map_or("", |a| &*a.key),
        last.map_or("", |a| &*a.model),
        r.usage.is_some(),
    ];
    let ip = ip_text(r.ip);
    let after = params![
        cost.usd.map(|usd| usd.0),
        precision_name(cost.precision),
        entry.demo,
        entry.replay_of.map(|id| id.to_string()),
        saturating_i64(r.affinity_cached_tokens()),
        r.cache_miss.as_ref().and_then(|lost| serde_json::to_string(lost).ok()),
        r.user.as_deref(),
        ip.as_deref(),
    ];
    let usage = usage.each_ref().map(|count| count as &dyn ToSql);
    let values = before.iter().chain(&usage).chain(after);
    let changed = rows.request.execute(params_from_iter(values))?;
    Ok(changed == 1)
}

/// Returns the usage classes in the order of their columns.
pub(super) fn usage_columns(usage: &Usage) -> [i64; USAGE_COLUMNS.len()] {
    PriceClass::USED.map(|class| saturating_i64(class.count(usage)))
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

pub(super) fn parse_precision(text: &str) -> Precision {
    match text {
        "estimate" => Precision::Estimate,
        "at_least" => Precision::AtLeast,
        _ => Precision::Exact,
    }
}

/// Inserts the row of an attempt; `prices` are the rows of prices known so far.
pub(super) fn insert_attempt(
    rows: &mut RowWriter<'_>,
    id: &str,
    entry: &LedgerEntry,
    a: &AttemptRecord,
    attempt_bill: Option<&AttemptBill>,
    prices: &mut Vec<(Arc<AppliedPrice>, i64)>,
) -> rusqlite::Result<()> {
    static UNKNOWN_BILL: Bill = Bill {
        cost: None,
        precision: Precision::Exact,
        source: CostSource::Unknown,
        computed: None,
        reported: None,
        price: None,
    };
    let bill = attempt_bill.map_or(&UNKNOWN_BILL, |part| &part.bill);
    let price = match &bill.price {
        Some(used) => Some(price_id(rows.tx, used, prices)?),
        None => None,
    };
    // The usage of an only attempt is in the row of the request.
    let attempt_usage = attempt_bill
        .and_then(|part| part.usage)
        .filter(|_| entry.record.attempts.len() > 1 || entry.record.usage.is_none());
    let usage = attempt_usage.and_then(|usage| serde_json::to_string(&usage).ok());
    rows.attempt.execute(params![
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
        a.outcome.as_ref().map(ToString::to_string),
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
