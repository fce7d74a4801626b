//! Starts the ledger next to the engine and monitors it.

use std::{path::Path, sync::Arc, time::Duration};

use tokio::sync::mpsc::Receiver;

use crate::{
    base::units,
    config::settings::{BodyStorage, LedgerSettings},
    events::{
        event::{EventKind, Severity},
        ledger_queue::{LedgerEntry, LedgerMessage},
        status_message::notice::NoticeMessage,
    },
    ledger::{Ledger, WriterConfig},
    relay::{engine::Engine, record::attempt_guard::publish_notice},
};

/// How often an idle ledger looks whether its file is still there and has old rows to delete.
const TICK_INTERVAL: Duration = Duration::from_secs(4);
/// Ticks between reports of bodies that were not stored.
const TICKS_PER_REPORT: u32 = 15;

/// Starts the ledger's thread. If it cannot start, the proxy logs an error and serves without a
/// ledger. If the ledger is new and stores bodies, the second value says so.
pub(super) fn start_ledger(
    engine: &Arc<Engine>,
    data: &Path,
    messages: Receiver<LedgerMessage>,
    on_request: Box<dyn FnMut(&LedgerEntry) + Send>,
) -> (Option<Arc<Ledger>>, Option<Arc<NoticeMessage>>) {
    let settings = engine.generation().settings.ledger.clone();
    let path = data.join(&settings.path);
    let body_note = (!path.exists()).then(|| describe_body_storage(&settings)).flatten();
    if let Some(note) = &body_note {
        // The startup panel shows it; the dashboard and `aiproxy log` read it from the bus.
        engine.bus.publish(
            engine.clock.unix(),
            EventKind::Notice { text: Arc::clone(note), level: Severity::Info },
        );
    }
    let publisher = Arc::clone(engine);
    let start = WriterConfig {
        path,
        settings,
        messages,
        clock: Arc::clone(&engine.clock),
        redactor: Arc::clone(&engine.redactor),
        report: Box::new(move |level, notice| publish_notice(&publisher, level, notice)),
        on_request,
    };
    match Ledger::start(start) {
        Ok(ledger) => (Some(Arc::new(ledger)), body_note),
        Err(error) => {
            publish_notice(
                engine,
                Severity::Error,
                NoticeMessage::LedgerNotStarted { problem: error.to_string().into() },
            );
            (None, None)
        }
    }
}

/// Which bodies are stored, for how long, and how to turn that off. `None` if none are stored.
fn describe_body_storage(settings: &LedgerSettings) -> Option<Arc<NoticeMessage>> {
    let only_failed = match settings.bodies {
        BodyStorage::All => false,
        BodyStorage::Errors => true,
        BodyStorage::Off => return None,
    };
    let notice = NoticeMessage::BodiesStored {
        only_failed,
        keep: units::print_duration(settings.body_retention).into(),
        limit: units::print_size(settings.bodies_total).into(),
    };
    Some(notice.into())
}

/// Looks after the file and deletes old rows even while the proxy is idle, and reports bodies that
/// were not stored. Dropped requests raise an alert.
pub(super) async fn monitor(engine: &Engine) {
    let mut reported = 0;
    for tick in 1_u32.. {
        tokio::time::sleep(TICK_INTERVAL).await;
        engine.ledger_queue.tick();
        if !tick.is_multiple_of(TICKS_PER_REPORT) {
            continue;
        }
        let skipped = engine.ledger_queue.skipped_bodies();
        if skipped > reported {
            let notice = NoticeMessage::BodiesSkipped { requests: skipped - reported };
            publish_notice(engine, Severity::Warn, notice);
            reported = skipped;
        }
    }
}
