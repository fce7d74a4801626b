//! Initialises budgets at startup and after a reload with the amounts already spent according to
//! the ledger.

use std::{collections::HashMap, sync::Arc};

use jiff::Timestamp;

use crate::{
    base::{clock::UnixMillis, money::NanoUsd},
    config::settings::Period,
    ledger::{
        Ledger, LedgerReader,
        time_range::TimeRange,
        totals::{GroupBy, UsageReport},
    },
    relay::engine::Engine,
    routing::budget::Holder,
};

/// Applies the budgets of the current settings. Reads the ledger only if there are new budgets.
pub(super) fn start_budgets(engine: &Engine, ledger: Option<&Ledger>) {
    let new = engine.configure_budgets();
    if let (false, Some(ledger)) = (new.is_empty(), ledger) {
        restore_spending(engine, ledger, &new);
    }
}

/// Like [`start_budgets`], on a blocking thread.
pub(super) async fn reload_budgets(engine: &Arc<Engine>, ledger: Option<&Arc<Ledger>>) {
    let new = engine.configure_budgets();
    if let (false, Some(ledger)) = (new.is_empty(), ledger) {
        let (engine, ledger) = (Arc::clone(engine), Arc::clone(ledger));
        let restored =
            tokio::task::spawn_blocking(move || restore_spending(&engine, &ledger, &new)).await;
        restored.unwrap_or_else(
            |error| tracing::warn!(%error, "cannot read from the ledger what budgets have spent"),
        );
    }
}

fn restore_spending(engine: &Engine, ledger: &Ledger, new: &[(Holder, Period, UnixMillis)]) {
    // A ledger without a file has no data. The ledger reports its other errors itself.
    let Ok(reader) = ledger.reader() else { return };
    let mut views: HashMap<(&'static str, i64), Option<UsageReport>> = HashMap::new();
    for (holder, per, from) in new {
        let by = match holder {
            Holder::All | Holder::Project(_) => GroupBy::Project,
            Holder::Upstream(_) => GroupBy::Upstream,
            Holder::Key(_) => GroupBy::Key,
        };
        let view = views
            .entry((by.name(), from.0))
            .or_insert_with(|| usage_since(engine, &reader, by, *from));
        if let Some(spent) = view.as_ref().map(|view| spent_by(view, holder)) {
            engine.budgets.raise_spent(holder, *per, *from, spent);
        }
    }
}

/// The usage since the day on which a period began. The ledger has daily sums even after the
/// individual requests are deleted.
fn usage_since(
    engine: &Engine,
    reader: &LedgerReader,
    by: GroupBy,
    from: UnixMillis,
) -> Option<UsageReport> {
    let day = Timestamp::from_millisecond(from.0).ok()?.to_zoned(reader.zone().clone()).date();
    reader.usage(by, TimeRange::Date(day), None, engine.clock.unix()).ok()
}

fn spent_by(view: &UsageReport, holder: &Holder) -> NanoUsd {
    let (Holder::Project(name) | Holder::Upstream(name) | Holder::Key(name)) = holder else {
        return view.total.cost;
    };
    view.rows.iter().find(|row| *row.name == **name).map(|row| row.totals.cost).unwrap_or_default()
}
