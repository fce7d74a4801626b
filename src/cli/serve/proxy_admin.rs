//! Implements the control API's changes: reloads, actions and config queries.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{sync::mpsc, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    base::{id::RequestId, sanitize, sync::Mutex},
    cli::serve::{
        alert_dispatch::AlertDispatcher, args::ServeArgs, budgets, empty_config, keys::KeyLoader,
        logging::LogLevel, startup_config,
    },
    config::{
        Environment, IdInterner, discover,
        edit::Edit,
        file::{self, Paths},
        load,
        problem::{self, Problem},
        settings::{Origin, Upstream, UpstreamKey},
        watch,
    },
    control::{
        action::{Action, ActionReply},
        action_message::ActionMessage,
        admin::{Admin, BoxFuture, ReloadResult},
        snapshot::ConfigView,
    },
    events::{
        event::{EventKind, Severity},
        status_message::{
            health::HealthMessage,
            reload::{ReloadCause, ReloadMessage},
        },
    },
    ir::reason::{span::Span, text_field::Reason},
    ledger::Ledger,
    relay::{background::refresh_models, engine::Engine},
    routing::health::Scope,
    server::guard::credential::ClientKeys,
    telemetry::otlp::OtlpExporter,
};

/// How long a reload waits for references before it returns; slow ones continue in the background.
const REFERENCE_READ_WAIT: Duration = Duration::from_secs(3);
/// The duration of `cool` if none is given.
const DEFAULT_COOLDOWN: Duration = Duration::from_secs(600);

/// The state for reloads and actions.
pub struct ProxyAdmin {
    pub(super) alert_dispatcher: Arc<AlertDispatcher>,
    pub otlp_exporter: Arc<OtlpExporter>,
    pub engine: Arc<Engine>,
    pub loader: Arc<KeyLoader>,
    pub paths: Paths,
    pub env: Environment,
    pub ledger: Option<Arc<Ledger>>,
    pub ids: Mutex<IdInterner>,
    pub args: ServeArgs,
    /// Upstreams that are not in the config file.
    pub discovered: Mutex<Vec<Arc<Upstream>>>,
    pub config_view: Mutex<ConfigView>,
    pub log_level: LogLevel,
    pub clients: Arc<ClientKeys>,
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

    /// Reads the file and all references again and applies them; an invalid file changes nothing, and
    /// neither does one that became empty or vanished, unless a user asks for it.
    pub async fn reload_config(self: &Arc<Self>, cause: ReloadCause) -> ReloadResult {
        let guard = self.reload_lock.lock().await;
        let reloaded = self.apply_config(cause).await;
        drop(guard);
        reloaded
    }

    async fn apply_config(self: &Arc<Self>, cause: ReloadCause) -> ReloadResult {
        let at = self.engine.clock.unix();
        let text = match file::read_config(&self.paths.config) {
            Ok(text) => text,
            Err(problem) => return self.reject_config(&[problem], ""),
        };
        let is_blank = empty_config::is_blank(text.as_deref());
        if is_blank && !cause.is_request() && self.has_config.load(Ordering::Relaxed) {
            let problem = empty_config::problem(&self.paths.config, text.as_deref());
            return self.reject_config(&[problem], "");
        }
        let loaded = {
            let mut ids = self.ids.lock();
            load::load(text.as_deref().unwrap_or_default(), &self.paths.config, &self.env, &mut ids)
        };
        let Some(settings) = loaded.settings else {
            return self.reject_config(&loaded.problems, text.as_deref().unwrap_or_default());
        };
        // The arguments of `serve` override the file, as at startup.
        let mut settings = match startup_config::apply_arguments(settings, &self.args) {
            Ok(settings) => settings,
            Err(error) => {
                return ReloadResult {
                    ok: false,
                    problems: vec![error.text.clone()],
                    text: ReloadMessage::from_text(error.text.into()).into(),
                    upstreams: 0,
                };
            }
        };
        let before = self.engine.generation();
        let addresses = |settings: &crate::config::Settings| {
            settings.keyless.iter().map(|row| row.listen.clone()).collect::<Vec<_>>()
        };
        let of_file = |settings: &crate::config::Settings| {
            (settings.ledger.path.clone(), settings.ledger.tz.clone())
        };
        let needs_restart = settings.server.listen != before.settings.server.listen
            || of_file(&settings) != of_file(&before.settings)
            || addresses(&settings) != addresses(&before.settings);
        settings.server.listen.clone_from(&before.settings.server.listen);
        let found = self.discovered.lock().clone();
        let found: Vec<_> = found
            .into_iter()
            .filter(|upstream| upstream.origin != Origin::Env || settings.discover.env)
            .collect();
        let settings = Arc::new(discover::merge_discovered(&settings, &found));
        self.has_config.store(!is_blank, Ordering::Relaxed);
        self.log_level.set(&settings.log.level);
        self.engine.apply_settings(Arc::clone(&settings));
        if let Some(ledger) = &self.ledger {
            ledger.apply_settings(&settings.ledger);
        }
        self.otlp_exporter.set_enabled(settings.otlp.url.is_some());
        budgets::reload_budgets(&self.engine, self.ledger.as_ref()).await;
        {
            let mut view = self.config_view.lock();
            *view = ConfigView {
                path: text.is_some().then(|| self.paths.config.display().to_string()),
                problems: Vec::new(),
                annotated: String::new(),
                warnings: loaded.problems.iter().map(Problem::one_line).collect(),
                applied: at,
                needs_restart,
            };
        }
        self.read_references(&settings).await;
        let count =
            settings.upstreams.iter().filter(|upstream| upstream.origin != Origin::Demo).count();
        let text = Arc::new(ReloadMessage::Applied {
            cause,
            upstreams: count,
            projects: settings.projects.len(),
            needs_restart,
        });
        tracing::info!("{text}");
        self.engine.bus.publish(at, EventKind::Config { text: Arc::clone(&text), ok: true });
        ReloadResult { ok: true, problems: Vec::new(), text, upstreams: count }
    }

    /// Reads every reference again; slow ones continue after the reload has returned.
    async fn read_references(self: &Arc<Self>, settings: &Arc<crate::config::Settings>) {
        for key in settings.upstreams.iter().flat_map(|upstream| &upstream.keys) {
            self.loader.resolver.forget_command(&key.reference);
        }
        for reference in settings
            .alerts
            .secret
            .iter()
            .chain(settings.otlp.headers.iter().map(|(_, value)| value))
        {
            self.loader.resolver.forget_command(reference);
        }
        let (loader, settings, clients) =
            (Arc::clone(&self.loader), Arc::clone(settings), Arc::clone(&self.clients));
        let engine = Arc::clone(&self.engine);
        let (done, read) = tokio::sync::oneshot::channel();
        #[expect(
            clippy::disallowed_methods,
            reason = "may outlive the reload that began it, and must not hold up a shutdown"
        )]
        drop(tokio::spawn(async move {
            tokio::join!(loader.load_provider_keys(&settings), async {
                loader.load_client_keys(&clients, &settings).await;
            });
            // The reload may have stopped waiting, which is not an error.
            done.send(()).unwrap_or_default();
            refresh_models::refresh_all(&engine).await;
        }));
        drop(timeout(REFERENCE_READ_WAIT, read).await);
    }

    fn reject_config(&self, problems: &[Problem], source: &str) -> ReloadResult {
        let errors: Vec<Problem> = problems
            .iter()
            .filter(|problem| problem.level == crate::config::ProblemSeverity::Error)
            .cloned()
            .collect();
        let texts: Vec<String> = errors.iter().map(Problem::one_line).collect();
        let problem = texts.first().map(|first| sanitize::clean(first).into());
        let text = Arc::new(ReloadMessage::Rejected { problem });
        tracing::error!("{text}");
        self.engine.bus.publish(
            self.engine.clock.unix(),
            EventKind::Config { text: Arc::clone(&text), ok: false },
        );
        let mut view = self.config_view.lock();
        view.problems.clone_from(&texts);
        view.annotated = problem::render(&errors, source, false);
        drop(view);
        ReloadResult { ok: false, problems: texts, text, upstreams: 0 }
    }

    async fn execute(self: Arc<Self>, action: Action) -> Result<ActionMessage, ActionMessage> {
        let (engine, now) = (&self.engine, self.engine.clock.mono());
        match action {
            Action::Cool { key, model, for_ms } => {
                let (_, found) = self.find_key(&key)?;
                let span = for_ms.map_or(DEFAULT_COOLDOWN, Duration::from_millis);
                let scope = model
                    .as_deref()
                    .map_or(Scope::Key(found.id), |model| Scope::KeyModel(found.id, model.into()));
                engine.router.cool(&scope, span, now);
                let name = Arc::clone(&found.name);
                Ok(self.publish_health(HealthMessage::CooledByUser { name, span: Span(span) }))
            }
            Action::CoolUpstream { upstream, for_ms } => {
                let found = self.find_upstream(&upstream)?;
                let span = for_ms.map_or(DEFAULT_COOLDOWN, Duration::from_millis);
                engine.router.cool(&Scope::Upstream(found.id), span, now);
                let name = Arc::clone(&found.name);
                Ok(self.publish_health(HealthMessage::CooledByUser { name, span: Span(span) }))
            }
            Action::Warm { key: None, .. } => {
                engine.router.warm(&Scope::All);
                engine.network.reset();
                Ok(self.publish_health(HealthMessage::Warmed { name: None }))
            }
            Action::Warm { key: Some(key), model } => {
                let (_, found) = self.find_key(&key)?;
                let scope = model
                    .as_deref()
                    .map_or(Scope::Key(found.id), |model| Scope::KeyModel(found.id, model.into()));
                engine.router.warm(&scope);
                let name = Some(Arc::clone(&found.name));
                Ok(self.publish_health(HealthMessage::Warmed { name }))
            }
            Action::WarmUpstream { upstream } => {
                let found = self.find_upstream(&upstream)?;
                engine.router.warm(&Scope::Upstream(found.id));
                let name = Some(Arc::clone(&found.name));
                Ok(self.publish_health(HealthMessage::Warmed { name }))
            }
            Action::EnableKey { key } => self.set_key_enabled(&key, true).await,
            Action::DisableKey { key } => self.set_key_enabled(&key, false).await,
            Action::EnableUpstream { upstream } => self.set_upstream_enabled(&upstream, true).await,
            Action::DisableUpstream { upstream } => {
                self.set_upstream_enabled(&upstream, false).await
            }
            Action::Test { key } => {
                let (upstream, found) = self.find_key(&key)?;
                self.loader.check_key(&upstream, &found).await?;
                Ok(ActionMessage::KeyWorks { name: Arc::clone(&found.name) })
            }
            Action::Reload => {
                let reloaded = self.reload_config(ReloadCause::Requested).await;
                if reloaded.ok {
                    Ok(ActionMessage::Reload { result: reloaded.text })
                } else {
                    Err(ActionMessage::text(reloaded.problems.join("\n")))
                }
            }
            Action::Kill { id } => {
                let id = engine
                    .bus
                    .view(|live| live.find(&id).map(|record| record.id))
                    .or_else(|| RequestId::parse(&id))
                    .ok_or(ActionMessage::UnknownRequest)?;
                if engine.cancellations.cancel(id) {
                    Ok(ActionMessage::Aborted { id })
                } else {
                    Err(ActionMessage::NotRunning { id })
                }
            }
            Action::Replay { id, model } => {
                let (original, id) = self.replay(&id, model).await?;
                Ok(ActionMessage::SentAgain { original, id })
            }
            Action::TestAlerts => self.alert_dispatcher.send_test().await,
            Action::Stop { now } => {
                if now {
                    self.stop_now.cancel();
                }
                self.stop.cancel();
                Ok(ActionMessage::Stopping)
            }
        }
    }

    /// Publishes a change that a user made.
    fn publish_health(&self, change: HealthMessage) -> ActionMessage {
        let subject = change.subject();
        let change = Arc::new(change);
        let (text, level) = (Arc::clone(&change), Severity::Info);
        let event = EventKind::Health { subject, text, level };
        self.engine.bus.publish(self.engine.clock.unix(), event);
        self.engine.notify_waiters();
        ActionMessage::Health { change }
    }

    /// Finds a key by `upstream/label`, or by its upstream if that has one key.
    fn find_key(&self, name: &str) -> Result<(Arc<Upstream>, Arc<UpstreamKey>), ActionMessage> {
        let settings = Arc::clone(&self.engine.generation().settings);
        let all = || {
            settings
                .upstreams
                .iter()
                .flat_map(|upstream| upstream.keys.iter().map(move |key| (upstream, key)))
        };
        if let Some((upstream, key)) = all().find(|(_, key)| *key.name == *name) {
            return Ok((Arc::clone(upstream), Arc::clone(key)));
        }
        let of_upstream: Vec<_> = all().filter(|(upstream, _)| *upstream.name == *name).collect();
        match of_upstream.as_slice() {
            [(upstream, key)] => Ok((Arc::clone(upstream), Arc::clone(key))),
            [] => Err(ActionMessage::UnknownKey { name: name.into() }),
            keys => Err(ActionMessage::SeveralKeys {
                name: name.into(),
                keys: keys.iter().map(|(_, key)| Arc::clone(&key.name)).collect(),
            }),
        }
    }

    fn find_upstream(&self, name: &str) -> Result<Arc<Upstream>, ActionMessage> {
        let settings = Arc::clone(&self.engine.generation().settings);
        let found = settings.upstreams.iter().find(|upstream| *upstream.name == *name).cloned();
        found.ok_or_else(|| ActionMessage::UnknownUpstream { name: name.into() })
    }

    async fn set_key_enabled(
        self: &Arc<Self>,
        name: &str,
        enabled: bool,
    ) -> Result<ActionMessage, ActionMessage> {
        let (upstream, key) = self.find_key(name)?;
        ensure_in_file(&upstream)?;
        let edit = Edit::SetKeyEnabled {
            upstream: upstream.name.to_string(),
            label: key.label.to_string(),
            enabled,
        };
        self.switch(edit, &key.name, enabled).await
    }

    async fn set_upstream_enabled(
        self: &Arc<Self>,
        name: &str,
        enabled: bool,
    ) -> Result<ActionMessage, ActionMessage> {
        let upstream = self.find_upstream(name)?;
        ensure_in_file(&upstream)?;
        let edit = Edit::SetUpstreamEnabled { name: upstream.name.to_string(), enabled };
        self.switch(edit, &upstream.name, enabled).await
    }

    /// Enables or disables a key or an upstream by an edit of the config file.
    async fn switch(
        self: &Arc<Self>,
        edit: Edit,
        name: &Arc<str>,
        enabled: bool,
    ) -> Result<ActionMessage, ActionMessage> {
        file::edit_config(&self.paths.config, &self.env, &[edit])
            .map_err(|error| ActionMessage::text(error.to_string()))?;
        let name = Arc::clone(name);
        let cause = ReloadCause::Switched { name: Arc::clone(&name), enabled };
        let reloaded = self.reload_config(cause).await;
        match reloaded.ok {
            true => Ok(ActionMessage::Switched { name, enabled }),
            false => Err(ActionMessage::Reload { result: reloaded.text }),
        }
    }
}

fn ensure_in_file(upstream: &Upstream) -> Result<(), ActionMessage> {
    match upstream.origin {
        Origin::File => Ok(()),
        Origin::Demo => Err(ActionMessage::BuiltIn),
        Origin::Env | Origin::Local => {
            Err(ActionMessage::NotInFile { name: Arc::clone(&upstream.name) })
        }
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
        self.config_view.lock().clone()
    }
}
