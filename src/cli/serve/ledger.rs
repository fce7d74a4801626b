//! Starts the ledger next to the engine and monitors it.

use std::{path::Path, sync::Arc, time::Duration};

use tokio::sync::mpsc::Receiver;

use crate::{
    base::units,
    config::settings::BodyStorage,
    events::{
        event::{EventKind, Severity},
        ledger_queue::{LedgerEntry, LedgerMessage},
    },
    ledger::{Ledger, WriterConfig},
    relay::engine::Engine,
};

/// Interval between the ledger's cleanups of old rows while it is idle.
const MAINTENANCE_INTERVAL: Duration = Duration::from_secs(60);

/// Starts the ledger's thread. If it cannot start, the proxy logs a warning and serves without a
/// ledger.
pub(super) fn start_ledger(
    engine: &Arc<Engine>,
    data: &Path,
    notes: Receiver<LedgerMessage>,
    seen: Box<dyn FnMut(&LedgerEntry) + Send>,
) -> Option<Arc<Ledger>> {
    let settings = engine.generation().settings.ledger.clone();
    let path = data.join(&settings.path);
    if !path.exists() && settings.bodies != BodyStorage::Off {
        let what = if settings.bodies == BodyStorage::All {
            "requests and answers"
        } else {
            "requests that fail"
        };
        let text = format!(
            "{what} are kept in {} for {}, at most {}, without secrets; `bodies = \"off\"` under [ledger] keeps none",
            path.display(),
            units::print_duration(settings.body_retention),
            units::print_size(settings.bodies_total)
        );
        publish_notice(engine, Severity::Info, text);
    }
    let publisher = Arc::clone(engine);
    let start = WriterConfig {
        path,
        settings,
        messages: notes,
        clock: Arc::clone(&engine.clock),
        redactor: Arc::clone(&engine.redactor),
        report: Box::new(move |level, text| publish_notice(&publisher, level, text)),
        on_request: seen,
    };
    match Ledger::start(start) {
        Ok(ledger) => Some(Arc::new(ledger)),
        Err(error) => {
            publish_notice(
                engine,
                Severity::Error,
                format!("requests are not recorded: no thread for the ledger: {error}"),
            );
            None
        }
    }
}

fn publish_notice(engine: &Engine, level: Severity, text: String) {
    match level {
        Severity::Error => tracing::error!("{text}"),
        Severity::Info => tracing::info!("{text}"),
        Severity::Warn => tracing::warn!("{text}"),
    }
    engine.bus.publish(engine.clock.unix(), EventKind::Notice { text: text.into(), level });
}

/// Deletes old rows even while the proxy is idle, and reports bodies that were not stored. Dropped
/// requests raise an alert.
pub(super) async fn monitor(engine: &Engine) {
    let mut reported = 0;
    loop {
        tokio::time::sleep(MAINTENANCE_INTERVAL).await;
        engine.ledger_queue.tick();
        let skipped = engine.ledger_queue.skipped_bodies();
        if skipped > reported {
            let text = format!(
                "the bodies of {} requests were not kept: too much came at once; the requests are recorded",
                skipped - reported
            );
            publish_notice(engine, Severity::Warn, text);
            reported = skipped;
        }
    }
}
