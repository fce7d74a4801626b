//! Reads request history and single requests from the ledger. Each reader has its own read-only
//! connection.

use std::{path::Path, sync::Arc, time::Duration};

use jiff::tz::TimeZone;
use rusqlite::{Connection, InterruptHandle, OpenFlags, Row, types::Value};
use serde::{Deserialize, Serialize};

use super::{
    bodies::{self, BodyView},
    body_search::BodySearch,
    migrate,
};
use crate::ledger::{
    filter_sql::term_to_sql,
    rows::{USAGE_COLUMNS, parse_precision, usage_from_columns},
};
use crate::{
    base::{clock::UnixMillis, id::RequestId, money::NanoUsd},
    events::{
        filter::Filter,
        ledger_queue::AttemptBill,
        record::{AttemptRecord, AttemptRole, RequestRecord, RequestState},
    },
    ir::{
        cost::{Bill, Cost, CostSource},
        op::{Dialect, Op},
        reason::{failure::FailureReason, route::RouteReason},
        usage::Usage,
    },
};

/// A complete request record with its attempts and bills.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RequestDetail {
    pub record: RequestRecord,
    /// Bills of the attempts, by attempt number.
    #[serde(rename = "parts")]
    pub bills: Vec<AttemptBill>,
    pub bodies: Vec<BodyView>,
    pub demo: bool,
    pub replay_of: Option<RequestId>,
}

/// A page of a session's turns.
#[derive(Clone, Debug)]
pub struct SessionPage {
    pub turns: Vec<RequestDetail>,
    /// Whether there are older turns.
    pub has_more: bool,
}

/// A page is full when its bodies reach this size.
const MAX_PAGE_BYTES: usize = 8 << 20;

/// Why a query failed.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    #[error("`{0}` begins more than one request id")]
    Ambiguous(String),
    #[error("the ledger had no answer within {0} s; ask about a shorter time, or with fewer words")]
    TimedOut(u64),
    #[error("there is no ledger yet")]
    Missing,
    #[error("the ledger was written by a newer aiproxy")]
    Newer,
    #[error(
        "the ledger was not closed in order, and its folder is read-only: its newest part ({0}) cannot be read there; copy the folder to \
         a place that can be written"
    )]
    UnmergedWal(String),
    #[error("the ledger cannot be read: {0}")]
    Sqlite(#[from] rusqlite::Error),
    #[error("no request `{0}` in the ledger")]
    Unknown(String),
}

const READ_ONLY: OpenFlags =
    OpenFlags::SQLITE_OPEN_READ_ONLY.union(OpenFlags::SQLITE_OPEN_NO_MUTEX);

/// Opens a connection; also returns the schema version of the file.
pub(super) fn connect(path: &Path) -> Result<(Connection, i64), rusqlite::Error> {
    let connection = Connection::open_with_flags(path, READ_ONLY)?;
    connection.busy_timeout(Duration::from_secs(2))?;
    let version = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    Ok((connection, version))
}

/// Returns whether the error may come from a read-only folder. In WAL mode SQLite creates two extra
/// files even for reading, which a read-only folder prevents.
fn is_open_error(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(rusqlite::ErrorCode::CannotOpen | rusqlite::ErrorCode::ReadOnly)
    )
}

/// Opens a file that no process can write as immutable. The file is complete unless there is a WAL
/// with rows that are not merged yet.
pub(super) fn connect_immutable(path: &Path) -> Result<(Connection, i64), QueryError> {
    let mut wal_path = path.as_os_str().to_owned();
    wal_path.push("-wal");
    if std::fs::metadata(&wal_path).is_ok_and(|file| file.len() > 0) {
        return Err(QueryError::UnmergedWal(Path::new(&wal_path).display().to_string()));
    }
    let mut uri = String::from("file:");
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'/' | b'-' | b'_' | b'.' | b'~' => uri.push(char::from(*byte)),
            byte if byte.is_ascii_alphanumeric() => uri.push(char::from(*byte)),
            byte => uri.push_str(&format!("%{byte:02x}")),
        }
    }
    uri.push_str("?immutable=1");
    let connection = Connection::open_with_flags(uri, READ_ONLY | OpenFlags::SQLITE_OPEN_URI)?;
    let version = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    Ok((connection, version))
}

/// A read-only connection to the ledger.
pub struct LedgerReader {
    pub(super) connection: Connection,
    pub(super) zone: TimeZone,
}

impl LedgerReader {
    /// Opens the file read-only.
    ///
    /// # Errors
    ///
    /// The file does not exist, is not a ledger, or is from a newer version.
    pub fn open(path: &Path, zone: TimeZone) -> Result<Self, QueryError> {
        if !path.exists() {
            return Err(QueryError::Missing);
        }
        let (connection, version) = match connect(path) {
            Err(error) if is_open_error(&error) => connect_immutable(path)?,
            opened => opened?,
        };
        match usize::try_from(version).unwrap_or(usize::MAX) {
            0 => Err(QueryError::Missing),
            version if version > migrate::latest_version() => Err(QueryError::Newer),
            _ => Ok(Self { connection, zone }),
        }
    }

    /// Returns a handle that interrupts this reader's query from another thread.
    #[must_use]
    pub fn interrupt_handle(&self) -> InterruptHandle {
        self.connection.get_interrupt_handle()
    }

    #[must_use]
    pub fn zone(&self) -> &TimeZone {
        &self.zone
    }

    /// Returns the finished requests that match a filter, began in a range of time and before
    /// `before`: at most `limit`, newest first.
    ///
    /// # Errors
    ///
    /// SQLite fails.
    pub fn history(
        &self,
        filter: &Filter,
        (since, until): (Option<UnixMillis>, Option<UnixMillis>),
        before: Option<RequestId>,
        limit: usize,
    ) -> Result<Vec<RequestRecord>, QueryError> {
        let (mut conditions, mut values) = (vec!["1".to_owned()], Vec::new());
        for term in filter.terms() {
            conditions.push(term_to_sql(term, &mut values));
        }
        if let Some(since) = since {
            values.push(Value::from(since.0));
            conditions.push(format!("at >= ?{}", values.len()));
        }
        if let Some(until) = until {
            values.push(Value::from(until.0));
            conditions.push(format!("at < ?{}", values.len()));
        }
        if let Some(before) = before {
            values.push(Value::from(before.to_string()));
            conditions.push(format!("id < ?{}", values.len()));
        }
        let mut body_search =
            filter.body_texts().next().is_some().then(|| BodySearch::new(filter.body_texts()));
        // The search leaves fewer rows than the query.
        let rows = if body_search.is_some() { usize::MAX } else { limit };
        values.push(Value::from(i64::try_from(rows).unwrap_or(i64::MAX)));
        let sql = format!(
            "SELECT {} FROM request WHERE {} ORDER BY id DESC LIMIT ?{}",
            selected_columns(),
            conditions.join(" AND "),
            values.len()
        );
        let mut query = self.connection.prepare_cached(&sql)?;
        let rows = query.query_map(rusqlite::params_from_iter(values), |row| {
            read_request_row(row).map(|found| found.record)
        })?;
        let mut records = Vec::new();
        for record in rows {
            let record = record?;
            let is_match = match &mut body_search {
                Some(search) => search.matches(&self.connection, &record.id.to_string())?,
                None => true,
            };
            if is_match {
                records.push(record);
            }
            if records.len() >= limit {
                break;
            }
        }
        for record in &mut records {
            record.attempts = self
                .attempts(&record.id.to_string())?
                .into_iter()
                .map(|(attempt, _)| attempt)
                .collect();
        }
        Ok(records)
    }

    /// Finds one request by its id, by a unique prefix of the id, or by `last`.
    ///
    /// # Errors
    ///
    /// No request matches, or more than one does.
    pub fn request_detail(&self, id: &str) -> Result<RequestDetail, QueryError> {
        let unknown = || QueryError::Unknown(id.chars().take(40).collect());
        let sql = |rest: &str| format!("SELECT {} FROM {rest}", selected_columns());
        let mut found: Vec<RequestRow> = if id == "last" {
            let mut query = self
                .connection
                .prepare(&sql("(SELECT * FROM request ORDER BY id DESC LIMIT 1000) ORDER BY finished DESC, id DESC LIMIT 1"))?;
            query.query_map([], read_request_row)?.collect::<Result<_, _>>()?
        } else {
            if id.is_empty() || !id.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(unknown());
            }
            let mut query = self
                .connection
                .prepare(&sql("request WHERE id >= ?1 AND id < ?1 || 'g' LIMIT 2"))?;
            query
                .query_map([id.to_ascii_lowercase()], read_request_row)?
                .collect::<Result<_, _>>()?
        };
        if found.len() > 1 {
            return Err(QueryError::Ambiguous(id.to_owned()));
        }
        let RequestRow { mut record, demo, replay_of } = found.pop().ok_or_else(unknown)?;
        let name = record.id.to_string();
        let mut bills = Vec::new();
        for (attempt, bill) in self.attempts(&name)? {
            record.attempts.push(attempt);
            bills.push(bill);
        }
        if let ([bill], Some(usage)) = (bills.as_mut_slice(), record.usage) {
            // The usage of an only attempt is in the row of the request.
            let reported = bill.bill.reported;
            bill.usage = bill.usage.or(Some(Usage { reported_cost: reported, ..usage }));
        }
        bills.retain(|bill| bill.usage.is_some() || bill.bill.source != CostSource::Unknown);
        Ok(RequestDetail {
            bodies: bodies::read_bodies(&self.connection, &name)?,
            record,
            bills,
            demo,
            replay_of,
        })
    }

    /// Returns a session's turns since a time, newest first, as many as fit into a page.
    ///
    /// # Errors
    ///
    /// SQLite fails.
    pub fn session_page(
        &self,
        project: &str,
        session: &str,
        since: UnixMillis,
        before: Option<RequestId>,
        limit: usize,
    ) -> Result<SessionPage, QueryError> {
        let from = RequestId::min_text_at(since);
        let until = before.map_or_else(|| "g".to_owned(), |before| before.to_string());
        let mut query = self.connection.prepare_cached(
            "SELECT id FROM request WHERE id >= ?1 AND id < ?2 AND session = ?3 AND project = ?4 ORDER BY id DESC LIMIT ?5",
        )?;
        let wanted = i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1);
        let ids = query
            .query_map(rusqlite::params![from, until, session, project, wanted], |row| {
                row.get::<_, String>(0)
            })?;
        let (mut turns, mut bytes, mut more) = (Vec::new(), 0, false);
        for id in ids {
            if turns.len() >= limit || bytes > MAX_PAGE_BYTES {
                more = true;
                break;
            }
            let turn = self.request_detail(&id?)?;
            bytes +=
                turn.bodies.iter().map(|body| body.head.len() + body.tail.len()).sum::<usize>();
            turns.push(turn);
        }
        Ok(SessionPage { turns, has_more: more })
    }

    /// Returns the stored bodies of a request, even while it is running.
    ///
    /// # Errors
    ///
    /// SQLite fails.
    pub fn bodies(&self, id: RequestId) -> Result<Vec<BodyView>, QueryError> {
        Ok(bodies::read_bodies(&self.connection, &id.to_string())?)
    }

    fn attempts(&self, request: &str) -> rusqlite::Result<Vec<(AttemptRecord, AttemptBill)>> {
        let mut query = self.connection.prepare_cached(
            "SELECT number, upstream, key, fingerprint, model, started_ms, head_ms, ended_ms, status, outcome, won, maybe_billed, answered,
                    usage, cost, sure, source, computed, reported, (SELECT used FROM price WHERE id = attempt.price), task, bound
             FROM attempt WHERE request = ?1 ORDER BY number",
        )?;
        let rows = query.query_map([request], |row| {
            let text = |at| Ok::<_, rusqlite::Error>(Arc::<str>::from(row.get::<_, String>(at)?));
            let some = |at| {
                Ok::<_, rusqlite::Error>(row.get::<_, Option<String>>(at)?.map(Arc::<str>::from))
            };
            let attempt = AttemptRecord {
                number: row.get(0)?,
                role: row
                    .get::<_, String>(20)
                    .map(|name| AttemptRole::parse(&name).unwrap_or_default())?,
                has_affinity: row.get(21)?,
                upstream: text(1)?,
                key: text(2)?,
                fingerprint: text(3)?,
                model: text(4)?,
                started_ms: row.get(5)?,
                head_ms: row.get(6)?,
                ended_ms: row.get(7)?,
                status: row.get(8)?,
                outcome: some(9)?.map(|text| FailureReason::text(text).into()),
                won: row.get(10)?,
                maybe_billed: row.get(11)?,
            };
            let money = |at| Ok::<_, rusqlite::Error>(row.get::<_, Option<i64>>(at)?.map(NanoUsd));
            let source = row.get::<_, String>(16)?;
            let bill = Bill {
                cost: money(14)?,
                precision: parse_precision(&row.get::<_, String>(15)?),
                source: CostSource::ALL
                    .into_iter()
                    .find(|known| known.name() == source)
                    .unwrap_or_default(),
                computed: money(17)?,
                reported: money(18)?,
                price: row
                    .get::<_, Option<String>>(19)?
                    .and_then(|text| serde_json::from_str(&text).ok())
                    .map(Arc::new),
            };
            let usage =
                row.get::<_, Option<String>>(13)?.and_then(|text| serde_json::from_str(&text).ok());
            let attempt_bill =
                AttemptBill { number: attempt.number, reported_model: some(12)?, usage, bill };
            Ok((attempt, attempt_bill))
        })?;
        rows.collect()
    }
}

const REQUEST_COLUMNS: &str = "id, at, project, client, session, dialect, op, asked, stream, state, status, request_bytes, answer_bytes, events, ttft_ms, \
     duration_ms, finish, error, reason, counted, cost, sure, demo, replay_of, cache_lost, user, ip";
const REQUEST_COLUMN_COUNT: usize = 27;

fn selected_columns() -> String {
    format!("{REQUEST_COLUMNS}, {}", USAGE_COLUMNS.join(", "))
}

struct RequestRow {
    record: RequestRecord,
    demo: bool,
    replay_of: Option<RequestId>,
}

fn read_request_row(row: &Row<'_>) -> rusqlite::Result<RequestRow> {
    let text = |at| Ok::<_, rusqlite::Error>(Arc::<str>::from(row.get::<_, String>(at)?));
    let some =
        |at| Ok::<_, rusqlite::Error>(row.get::<_, Option<String>>(at)?.map(Arc::<str>::from));
    let count = |at| Ok::<_, rusqlite::Error>(u64::try_from(row.get::<_, i64>(at)?).unwrap_or(0));
    let id = row.get::<_, String>(0)?;
    let id = RequestId::parse(&id).ok_or_else(|| rusqlite::Error::InvalidColumnName(id))?;
    let mut classes = [0; USAGE_COLUMNS.len()];
    for (index, class) in classes.iter_mut().enumerate() {
        *class = row.get(REQUEST_COLUMN_COUNT + index)?;
    }
    let record = RequestRecord {
        cache_miss: row
            .get::<_, Option<String>>(24)?
            .and_then(|text| serde_json::from_str(&text).ok()),
        id,
        at: UnixMillis(row.get(1)?),
        project: text(2)?,
        client: text(3)?,
        session: some(4)?,
        user: some(25)?,
        ip: some(26)?.and_then(|text| text.parse().ok()),
        dialect: Dialect::parse(&text(5)?).unwrap_or(Dialect::Openai),
        op: Op::parse(&text(6)?).unwrap_or(Op::Raw),
        requested_model: text(7)?,
        stream: row.get(8)?,
        state: RequestState::parse(&text(9)?).unwrap_or(RequestState::Failed),
        status: row.get(10)?,
        request_bytes: count(11)?,
        answer_bytes: count(12)?,
        events: count(13)?,
        ttft_ms: row.get(14)?,
        duration_ms: Some(row.get(15)?),
        finish: some(16)?,
        error: some(17)?,
        reason: some(18)?.map(|text| RouteReason::Text { text }.into()),
        usage: row.get::<_, bool>(19)?.then(|| usage_from_columns(classes)),
        cost: Some(Cost {
            usd: row.get::<_, Option<i64>>(20)?.map(NanoUsd),
            precision: parse_precision(&row.get::<_, String>(21)?),
        }),
        attempts: Vec::new(),
    };
    let replay_of = row.get::<_, Option<String>>(23)?.and_then(|id| RequestId::parse(&id));
    Ok(RequestRow { record, demo: row.get(22)?, replay_of })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn immutable_file_is_readable() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("100% #1 ledger?.db");
        let written = Connection::open(&path).unwrap();
        written.pragma_update(None, "journal_mode", "WAL").unwrap();
        written.pragma_update(None, "user_version", 3).unwrap();
        let refused = connect_immutable(&path).map(|(_, version)| version);
        assert!(
            matches!(&refused, Err(QueryError::UnmergedWal(wal)) if wal.ends_with("db-wal")),
            "{refused:?}"
        );
        written.close().unwrap();

        assert_eq!(connect_immutable(&path).unwrap().1, 3);
    }
}
