//! Feeds finished requests to the metrics and traces, and exports the traces.

use std::sync::{Arc, atomic::Ordering};

use tokio::sync::mpsc::Receiver;

use super::keys::load::KeyLoader;
use crate::{
    config::settings::OtlpSettings,
    events::ledger_queue::LedgerEntry,
    relay::engine::Engine,
    secrets::Secret,
    telemetry::{
        metrics::Metrics,
        otlp::{FinishedRequest, OtlpExporter},
        traces::TraceParent,
    },
    upstream::webhook_client::WebhookClient,
};

/// Returns the callback that the ledger's thread runs for each finished request.
pub(super) fn request_observer(
    engine: &Arc<Engine>,
    metrics: Arc<Metrics>,
    traces: Arc<OtlpExporter>,
) -> Box<dyn FnMut(&LedgerEntry) + Send> {
    let engine = Arc::downgrade(engine);
    Box::new(move |entry| {
        metrics.record(entry);
        if traces.is_enabled()
            && let Some(engine) = engine.upgrade()
        {
            let heads = engine.recent_headers.find(entry.record.id);
            let parent = heads.and_then(|(request_headers, _)| {
                request_headers
                    .iter()
                    .find(|(name, _)| name == "traceparent")
                    .and_then(|(_, value)| TraceParent::parse(value))
            });
            traces.offer(entry, parent);
        }
    })
}

/// Exports traces while an exporter is configured.
pub(super) async fn run_otlp_export(
    engine: &Engine,
    loader: &KeyLoader,
    poster: &WebhookClient,
    traces: &OtlpExporter,
    mut reader: Receiver<Box<FinishedRequest>>,
    host: &str,
) {
    let mut failing = false;
    while let Some(batch) = OtlpExporter::collect_batch(&mut reader).await {
        let otlp = engine.generation().settings.otlp.clone();
        let Some(url) = &otlp.url else { continue };
        let sent = match read_otlp_headers(loader, &otlp).await {
            Ok(credentials) => traces.send_batch(poster, url, &credentials, &batch, host).await,
            Err(why) => Err(why),
        };
        match sent {
            Ok(()) if failing => {
                failing = false;
                tracing::info!(
                    "traces are sent again; {} requests were not traced",
                    traces.dropped.load(Ordering::Relaxed)
                );
            }
            Ok(()) => {}
            Err(why) if !failing => {
                failing = true;
                tracing::warn!("traces are not sent: {why}");
            }
            Err(why) => tracing::debug!("traces are not sent: {why}"),
        }
    }
}

async fn read_otlp_headers(
    loader: &KeyLoader,
    otlp: &OtlpSettings,
) -> Result<Vec<(String, Secret)>, String> {
    let mut found = Vec::new();
    for (name, reference) in &otlp.headers {
        let secret = loader.resolver.resolve_header_value(reference).await;
        let secret = secret.map_err(|error| {
            format!("`otlp.headers.{name}`: {}; {}", error.text(), error.hint())
        })?;
        found.push((name.clone(), secret));
    }
    Ok(found)
}
