//! Starts the ledger next to the engine and monitors it.

use std::{path::Path, sync::Arc, time::Duration};

use tokio::sync::mpsc::Receiver;

use crate::{
    base::units,
    config::settings::{BodyStorage, LedgerSettings},
    events::{
        event::{EventKind, Severity},
        ledger_queue::{LedgerEntry, LedgerMessage},
    },
    ledger::{Ledger, WriterConfig},
    relay::engine::Engine,
};

/// Interval between the ledger's cleanups of old rows while it is idle.
const MAINTENANCE_INTERVAL: Duration = Duration::from_secs(60);

/// Starts the ledger's thread. If it cannot start, the proxy logs an error and serves without a
/// ledger. If the ledger is new and stores bodies, the second value says so.
pub(super) fn start_ledger(
    engine: &Arc<Engine>,
    data: &Path,
    messages: Receiver<LedgerMessage>,
    on_request: Box<dyn FnMut(&LedgerEntry) + Send>,
) -> (Option<Arc<Ledger>>, Option<String>) {
    let settings = engine.generation().settings.ledger.clone();
    let path = data.join(&settings.path);
    let body_note = (!path.exists()).then(|| describe_body_storage(&settings)).flatten();
    if let Some(note) = &body_note {
        // The startup panel shows it; the dashboard and `aiproxy log` read it from the bus.
        engine.bus.publish(
            engine.clock.unix(),
            EventKind::Notice { text: note.as_str().into(), level: Severity::Info },
        );
    }
    let publisher = Arc::clone(engine);
    let start = WriterConfig {
        path,
        settings,
        messages,
        clock: Arc::clone(&engine.clock),
        redactor: Arc::clone(&engine.redactor),
        report: Box::new(move |level, text| publish_notice(&publisher, level, text)),
        on_request,
    };
    match Ledger::start(start) {
        Ok(ledger) => (Some(Arc::new(ledger)), body_note),
        Err(error) => {
            publish_notice(
                engine,
                Severity::Error,
                format!("requests are not recorded: cannot start the ledger's thread: {error}"),
            );
            (None, None)
        }
    }
}

/// Which bodies are stored, for how long, and how to turn that off. `None` if none are stored.
fn describe_body_storage(settings: &LedgerSettings) -> Option<String> {
    let bodies = match settings.bodies {
        BodyStorage::All => "requests and answers are stored",
        BodyStorage::Errors => "failed requests and their answers are stored",
        BodyStorage::Off => return None,
    };
    Some(format!(
        "{bodies} for {}, at most {}; `aiproxy config set ledger.bodies off` stores none",
        units::print_duration(settings.body_retention),
        units::print_size(settings.bodies_total)
    ))
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
                "the bodies of {} requests were not stored: too many at once; the requests themselves are recorded",
                skipped - reported
            );
            publish_notice(engine, Severity::Warn, text);
            reported = skipped;
        }
    }
}
