//! Implements the control API's changes: reloads, actions and config queries.

use std::sync::{Arc, atomic::AtomicBool};

use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    base::sync::Mutex,
    cli::serve::{
        alert_dispatch::AlertDispatcher, args::ServeArgs, keys::load::KeyLoader,
        logging::LogControl,
    },
    config::{Environment, IdInterner, file::Paths, settings::Upstream, watch},
    control::{
        action::{Action, ActionReply},
        action_message::ActionMessage,
        admin::{Admin, BoxFuture, ReloadResult},
        snapshot::ConfigView,
    },
    events::status_message::reload::ReloadCause,
    ledger::Ledger,
    mcp::servers::hub::McpHub,
    relay::engine::Engine,
    telemetry::otlp::OtlpExporter,
};

/// The state for reloads and actions.
pub struct ProxyAdmin {
    pub(super) alert_dispatcher: Arc<AlertDispatcher>,
    pub otlp_exporter: Arc<OtlpExporter>,
    pub engine: Arc<Engine>,
    pub loader: Arc<KeyLoader>,
    pub paths: Paths,
    pub env: Environment,
    pub ledger: Option<Arc<Ledger>>,
    /// The MCP servers.
    pub mcp: Arc<McpHub>,
    pub ids: Mutex<IdInterner>,
    pub args: ServeArgs,
    /// Upstreams that are not in the config file.
    pub discovered: Mutex<Vec<Arc<Upstream>>>,
    pub config_view: Mutex<ConfigView>,
    pub log: LogControl,
    pub tracker: TaskTracker,
    pub stop: CancellationToken,
    pub stop_now: CancellationToken,
    /// Whether the config file that is in force states anything.
    pub has_config: AtomicBool,
    /// Allows one reload at a time.
    pub reload_lock: tokio::sync::Mutex<()>,
}

impl ProxyAdmin {
    /// Watches the config file until the returned value is dropped.
    pub fn watch_config(
        self: &Arc<Self>,
        tracker: &TaskTracker,
        read: watch::FileStamp,
    ) -> Option<watch::ConfigWatch> {
        let (notify, mut changes) = mpsc::channel(1);
        let watch = match watch::watch_config(&self.paths.config, read, notify) {
            Ok(watch) => watch,
            Err(error) => {
                tracing::warn!(%error, "the config file cannot be watched; `aiproxy reload` applies changes");
                return None;
            }
        };
        let (admin, stop) = (Arc::clone(self), self.stop.clone());
        tracker.spawn(async move {
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    change = changes.recv() => match change {
                        Some(()) => {
                            drop(admin.reload_config(ReloadCause::FileChanged).await);
                        }
                        None => return,
                    },
                }
            }
        });
        Some(watch)
    }
}

impl Admin for Arc<ProxyAdmin> {
    fn reload(&self) -> BoxFuture<'_, ReloadResult> {
        Box::pin(self.reload_config(ReloadCause::Requested))
    }

    fn perform(&self, action: Action) -> BoxFuture<'_, ActionReply> {
        let admin = Arc::clone(self);
        Box::pin(async move {
            let done = admin.execute(action).await;
            let id = match &done {
                Ok(ActionMessage::SentAgain { id, .. }) => Some(*id),
                _ => None,
            };
            let ok = done.is_ok();
            let (Ok(message) | Err(message)) = done;
            ActionReply { ok, text: message.into(), id }
        })
    }

    fn config(&self) -> ConfigView {
        let mut view = self.config_view.lock().clone();
        view.warnings.extend(self.loader.warnings(&self.engine.generation().settings));
        view
    }
}
