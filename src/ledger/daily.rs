//! Adds up a batch of requests by day.

use std::{collections::HashMap, sync::Arc};

use jiff::{Timestamp, tz::TimeZone};
use rusqlite::{Transaction, params};

use crate::ledger::rows::{attempts_with_bills, usage_columns};
use crate::{
    base::clock::UnixMillis,
    events::{
        ledger_queue::{AttemptBill, LedgerEntry},
        record::RequestState,
    },
    ir::cost::{Cost, Precision},
};

/// Totals of a batch by day and names, so that a busy second writes only a few rows.
#[derive(Default)]
pub(super) struct DailyTotals(HashMap<DailyKey, [i64; 19]>);

/// Day; project, client, upstream, key, model; operation; whether the upstream is the demo.
type DailyKey = (i64, [Arc<str>; 5], &'static str, bool);

impl DailyTotals {
    pub(super) fn add(&mut self, entry: &LedgerEntry, zone: &TimeZone) {
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

    pub(super) fn write(self, tx: &Transaction<'_>) -> rusqlite::Result<()> {
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
