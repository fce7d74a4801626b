//! `aiproxy serve`: builds the parts, listens, and shuts down in order.

mod alert_dispatch;
mod banner;
mod budgets;
mod demo_upstream;
mod discovery;
mod keys;
mod ledger;
mod logging;
mod process;
mod proxy_admin;
mod replay;
mod signals;
mod telemetry;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::sync::{Semaphore, mpsc};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{keys::KeyLoader, signals::ProcessSignal};
use super::args::{GlobalArgs, ServeArgs};
use crate::cli::serve::{alert_dispatch::AlertDispatcher, proxy_admin::ProxyAdmin};
use crate::cli::{
    error::{CliError, ExitStatus},
    expose::expose_secret,
    output,
};
use crate::{
    base::clock::{Clock, SystemClock},
    config::{
        Environment, IdInterner, Settings,
        file::{self, Paths},
        load::{self, parse_listen},
        problem, watch,
    },
    control::{
        active_alerts::ActiveAlerts,
        api::ControlApi,
        history::LedgerHandle,
        rundir::{ClaimError, RunDir},
    },
    demo::Demo,
    events::{
        event::{EventKind, Severity},
        ledger_queue::LedgerQueue,
    },
    relay::{
        engine::{Engine, EngineParts},
        state::{
            balances, health_checks,
            health_store::{self, HealthStore},
            model_lists::{self, ModelLists},
        },
    },
    secrets::{
        Secret,
        keyring::Keyring,
        redact::KnownSecrets,
        resolve::{SecretResolver, VaultSource},
        vault::Vault,
    },
    server::{
        guard::credential::ClientKeys,
        listen::{self, ListenError},
        state::ServerState,
    },
    telemetry::{metrics::Metrics, otlp::OtlpExporter},
    upstream::{client::UpstreamClient, keys::ProviderKeys, webhook_client::WebhookClient},
};

/// Time after the drain in which aborted streams can send their error event.
const DRAIN_GRACE: Duration = Duration::from_millis(500);

/// Runs the proxy until it receives a stop request.
///
/// # Errors
///
/// A config that does not load (exit 3), an address in use or a second proxy on the same data dir
/// (exit 1).
pub async fn serve(global: &GlobalArgs, args: ServeArgs) -> Result<ExitStatus, CliError> {
    let paths = global.paths()?;
    let env = Environment::from_process();
    let mut ids = IdInterner::default();
    let stamp = watch::file_stamp(&paths.config);
    let written = read_config(&paths, &env, &mut ids)?;
    let settings = apply_arguments(written.settings, &args)?;
    // Claimed before listening, so that only one of two concurrent starts succeeds.
    let claimed = RunDir::claim(&paths.data).map_err(|e| claim_error(&e))?;
    // Installed before the proxy becomes visible, so that an early signal does not trigger the
    // default action and kill the process.
    let signals =
        signals::SignalListener::new().map_err(|e| CliError::failed(format!("signals: {e}")))?;
    let log = logging::start_logging(&settings.log, &paths.data, args.tui)?;
    let bound =
        listen::bind(&settings.server.listen, settings.server.optional_v6).map_err(listen_error)?;
    let addrs: Vec<SocketAddr> = bound.iter().map(|bound| bound.addr).collect();
    let mut open = Vec::new();
    for keyless in &settings.keyless {
        open.push((
            keyless.clone(),
            listen::bind(&keyless.listen, keyless.optional_v6).map_err(listen_error)?,
        ));
    }

    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let keys = Arc::new(ProviderKeys::default());
    let known = Arc::new(KnownSecrets::new());
    let demo = Arc::new(demo_upstream::DemoUpstream(Demo::new(Arc::clone(&clock))));
    let gateway = UpstreamClient::new(Arc::clone(&keys)).with_in_process("demo", demo);
    let (found, notes) = discovery::discover_at_start(&settings, &args, &env, &mut ids);
    let settings = Arc::new(crate::config::discover::merge_discovered(&settings, &found));
    let (rejected, rejections) = mpsc::unbounded_channel();
    let (sink, notes_of_requests) = LedgerQueue::new();
    let lists = ModelLists::new(Some(paths.data.join("models.json")), &settings.upstreams);
    let remember = HealthStore::open(paths.data.join("health.json"));
    let engine = Arc::new(Engine::new(
        EngineParts {
            clock: Arc::clone(&clock),
            upstream_client: gateway,
            keys,
            redactor: Arc::clone(&known) as _,
            model_lists: lists,
            rejected_keys: rejected,
            ledger_queue: sink,
            health_store: remember,
        },
        Arc::clone(&settings),
    ));

    for upstream in &settings.upstreams {
        engine.health_store.restore_upstream(&engine, upstream);
    }
    let metrics = Arc::new(Metrics::default());
    let (traces, traced) = OtlpExporter::new();
    let seen = telemetry::request_observer(&engine, Arc::clone(&metrics), Arc::clone(&traces));
    let ledger = ledger::start_ledger(&engine, &paths.data, notes_of_requests, seen);
    budgets::start_budgets(&engine, ledger.as_deref());
    let (tracker, stop, now) =
        (TaskTracker::new(), CancellationToken::new(), CancellationToken::new());
    let listen_text: Vec<String> = addrs.iter().map(ToString::to_string).collect();
    let token = claimed
        .publish(listen_text.clone(), clock.unix())
        .map_err(|e| CliError::failed(format!("{}: {e}", paths.data.display())))?;
    let keyring = Keyring::system();
    let vault = VaultSource::from_env(Vault::at(paths.data.join("keys.enc")), &env.vars);
    let names = crate::config::presets::all()
        .iter()
        .flat_map(|preset| &preset.key_env)
        .map(ToString::to_string)
        .collect();
    let resolver = SecretResolver::new(keyring.clone(), vault, env.vars.clone(), names);
    let loader = Arc::new(KeyLoader {
        engine: Arc::clone(&engine),
        resolver,
        known_secrets: known,
        keyring,
        paths: paths.clone(),
        default_key: Mutex::default(),
    });
    traces.set_enabled(settings.otlp.url.is_some());
    let (active_alerts, poster, host) = (
        Arc::new(ActiveAlerts::default()),
        Arc::new(WebhookClient::default()),
        process::host_name(&env.vars),
    );
    let alarms = Arc::new(AlertDispatcher::new(
        (Arc::clone(&engine), ledger.clone()),
        (Arc::clone(&metrics), Arc::clone(&active_alerts)),
        Arc::clone(&loader),
        Arc::clone(&poster),
        env.vars.clone(),
        host.clone(),
    ));
    let admin = Arc::new(ProxyAdmin {
        alert_dispatcher: Arc::clone(&alarms),
        otlp_exporter: Arc::clone(&traces),
        engine: Arc::clone(&engine),
        loader: Arc::clone(&loader),
        paths: paths.clone(),
        env,
        ledger: ledger.clone(),
        ids: Mutex::new(ids),
        args: args.clone(),
        discovered: Mutex::new(found),
        config_view: Mutex::new(written.config_view),
        log_level: log,
        clients: std::sync::OnceLock::new(),
        tracker: tracker.clone(),
        stop: stop.clone(),
        stop_now: now.clone(),
        reload_lock: tokio::sync::Mutex::new(()),
    });
    let ledger_handle =
        ledger.clone().map(|ledger| LedgerHandle { engine: Arc::clone(&engine), ledger });
    let control = ControlApi::new(
        Arc::clone(&engine),
        Arc::new(Arc::clone(&admin)),
        listen_text,
        stop.clone(),
        &token,
    );
    let control = Arc::new(
        control.with_ledger(ledger_handle).with_alerts_and_metrics(active_alerts, metrics),
    );
    let server_state = Arc::new(ServerState {
        engine: Arc::clone(&engine),
        clients: Arc::new(ClientKeys::default()),
        control,
        keyless: None,
    });
    if admin.clients.set(Arc::clone(&server_state.clients)).is_err() {
        return Err(CliError::failed("the proxy was put together twice; please report this"));
    }
    loader.mark_clients_loading(&server_state.clients, &settings);
    loader.load_immediate(&settings);

    let connection_slots = Arc::new(Semaphore::new(settings.server.max_connections));
    let closing = CancellationToken::new();
    for bound in bound {
        // Listen last, so that the first connection finds everything ready, including the run dir.
        let listener = bound.listen().map_err(listen_error)?;
        tracker.spawn(listen::accept_loop(
            listener,
            Arc::clone(&server_state),
            Arc::clone(&connection_slots),
            tracker.clone(),
            closing.clone(),
        ));
    }
    for (keyless, bound) in open {
        let server_state = Arc::new(ServerState {
            engine: Arc::clone(&engine),
            clients: Arc::clone(&server_state.clients),
            control: Arc::clone(&server_state.control),
            keyless: Some(keyless),
        });
        for bound in bound {
            let listener = bound.listen().map_err(listen_error)?;
            tracker.spawn(listen::accept_loop(
                listener,
                Arc::clone(&server_state),
                Arc::clone(&connection_slots),
                tracker.clone(),
                closing.clone(),
            ));
        }
    }
    for text in notes {
        tracing::info!("{text}");
        engine
            .bus
            .publish(clock.unix(), EventKind::Notice { text: text.into(), level: Severity::Info });
    }
    warn_about_exposure(&settings, &addrs);
    spawn_background(&tracker, &stop, &admin, &server_state, rejections);
    tracker.spawn(run_until(stop.clone(), async move { alarms.run().await }));
    let (sender, loader) = (Arc::clone(&engine), Arc::clone(&loader));
    tracker.spawn(run_until(stop.clone(), async move {
        telemetry::run_otlp_export(&sender, &loader, &poster, &traces, traced, &host).await;
    }));
    let watcher = admin.watch_config(&tracker, stamp);

    let dashboard_token = Secret::new(expose_secret(&token).to_owned());
    let dashboard = args.tui.then(|| (dashboard_token, addrs.clone()));
    if dashboard.is_none() {
        let (server_state, admin, addrs, flags) = (
            Arc::clone(&server_state),
            Arc::clone(&admin),
            addrs.clone(),
            global.path_flags(&paths),
        );
        tracker.spawn(
            async move { banner::print_banner(&server_state, &admin, &addrs, &flags).await },
        );
    }
    let outcome = wait_for_stop(&admin, signals, &stop, &now, dashboard).await;
    drop(watcher);
    shutdown(&engine, &settings, &tracker, &stop, &closing, &now).await;
    engine.health_store.save(&engine);
    if let Some(ledger) = ledger {
        ledger.close(&engine.ledger_queue).await;
    }
    drop(claimed);
    outcome
}

/// Waits for a reason to stop.
async fn wait_for_stop(
    admin: &Arc<ProxyAdmin>,
    mut signals: signals::SignalListener,
    stop: &CancellationToken,
    now: &CancellationToken,
    dashboard: Option<(Secret, Vec<SocketAddr>)>,
) -> Result<ExitStatus, CliError> {
    let dashboard = async {
        match dashboard {
            Some((token, addrs)) => super::tui::run_in_process(&admin.paths, &addrs, token).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(dashboard);
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(ExitStatus::Ok),
            ended = &mut dashboard => {
                stop.cancel();
                return ended;
            }
            signal = signals.next() => match signal {
                ProcessSignal::Stop => {
                    tracing::info!("stopping: open requests may finish; once more stops at once");
                    stop.cancel();
                    signals.stop_at_once_on_next(now.clone());
                    return Ok(ExitStatus::Ok);
                }
                ProcessSignal::Reload => {
                    let hands = Arc::clone(admin);
                    let reloaded = hands.reload_config("SIGHUP").await;
                    tracing::debug!(ok = reloaded.ok, "reload asked for by signal");
                }
            },
        }
    }
}

/// Lets open requests finish, then aborts the rest with an error event.
async fn shutdown(
    engine: &Arc<Engine>,
    settings: &Settings,
    tracker: &TaskTracker,
    stop: &CancellationToken,
    closing: &CancellationToken,
    now: &CancellationToken,
) {
    engine.start_draining();
    stop.cancel();
    closing.cancel();
    tracker.close();
    engine.bus.publish(
        engine.clock.unix(),
        EventKind::Notice { text: "stopping".into(), level: Severity::Info },
    );
    tokio::select! {
        () = tracker.wait() => return,
        () = tokio::time::sleep(settings.server.drain) => tracing::warn!(requests = engine.cancellations.running(), "drain is over; open requests are cut"),
        () = now.cancelled() => {}
    }
    engine.cancellations.cancel_all();
    drop(tokio::time::timeout(DRAIN_GRACE, tracker.wait()).await);
}

/// Runs `work` until the proxy stops.
async fn run_until(stop: CancellationToken, work: impl Future<Output = ()>) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = work => {}
    }
}

fn spawn_background(
    tracker: &TaskTracker,
    stop: &CancellationToken,
    admin: &Arc<ProxyAdmin>,
    server_state: &Arc<ServerState>,
    rejections: mpsc::UnboundedReceiver<crate::config::settings::KeyId>,
) {
    let until_stop =
        |stop: CancellationToken, work: std::pin::Pin<Box<dyn Future<Output = ()> + Send>>| {
            run_until(stop, work)
        };
    let engine = Arc::clone(&server_state.engine);
    let (loader, clients) = (Arc::clone(&admin.loader), Arc::clone(&server_state.clients));
    let first = async move {
        let settings = Arc::clone(&engine.generation().settings);
        tokio::join!(
            loader.load_provider_keys(&settings),
            loader.load_client_keys(&clients, &settings)
        );
        model_lists::run(&engine).await;
    };
    tracker.spawn(until_stop(stop.clone(), Box::pin(first)));
    let suspend_engine = Arc::clone(&server_state.engine);
    tracker.spawn(until_stop(
        stop.clone(),
        Box::pin(async move { watch_suspend(&suspend_engine).await }),
    ));
    let saver = Arc::clone(&server_state.engine);
    let save_health = async move {
        loop {
            tokio::time::sleep(health_store::SAVE_INTERVAL).await;
            saver.health_store.save(&saver);
        }
    };
    tracker.spawn(until_stop(stop.clone(), Box::pin(save_health)));
    let balance_engine = Arc::clone(&server_state.engine);
    tracker.spawn(until_stop(
        stop.clone(),
        Box::pin(async move { balances::run(&balance_engine).await }),
    ));
    let probe_engine = Arc::clone(&server_state.engine);
    tracker.spawn(until_stop(
        stop.clone(),
        Box::pin(async move { health_checks::run(&probe_engine).await }),
    ));
    let ledger_engine = Arc::clone(&server_state.engine);
    tracker.spawn(until_stop(
        stop.clone(),
        Box::pin(async move { ledger::monitor(&ledger_engine).await }),
    ));
    let loader = Arc::clone(&admin.loader);
    tracker.spawn(until_stop(stop.clone(), Box::pin(async move { loader.run(rejections).await })));
    let discovery_admin = Arc::clone(admin);
    tracker.spawn(until_stop(
        stop.clone(),
        Box::pin(async move { discovery::rediscover(&discovery_admin).await }),
    ));
}

/// Drops pooled connections after the machine was suspended, before a request uses a dead one. The
/// same loop removes connections that died otherwise.
async fn watch_suspend(engine: &Engine) {
    const POLL_INTERVAL: Duration = Duration::from_secs(10);
    loop {
        let (boot, runtime_clock) = (engine.clock.mono(), tokio::time::Instant::now());
        tokio::time::sleep(POLL_INTERVAL).await;
        engine.upstream_client.drop_stale();
        // One clock advances while the machine is suspended, the other does not.
        if engine.clock.mono().since(boot) > runtime_clock.elapsed() + POLL_INTERVAL {
            tracing::info!("the machine slept; idle connections are dropped");
            engine.upstream_client.drop_idle();
        }
    }
}

/// The config as loaded at startup.
pub(super) struct LoadedConfig {
    pub settings: Settings,
    pub config_view: crate::control::snapshot::ConfigView,
}

fn read_config(
    paths: &Paths,
    env: &Environment,
    ids: &mut IdInterner,
) -> Result<LoadedConfig, CliError> {
    let text =
        file::read_config(&paths.config).map_err(|problem| CliError::config(problem.one_line()))?;
    if text.is_none() && paths.explicit {
        return Err(CliError::config(format!(
            "{}: no such file; `aiproxy config init` writes one",
            paths.config.display()
        )));
    }
    let source = text.clone().unwrap_or_default();
    let loaded = load::load(&source, &paths.config, env, ids);
    let Some(settings) = loaded.settings else {
        output::print_note(&problem::render(
            &loaded.problems,
            &source,
            output::Styler::stderr().is_enabled(),
        ));
        return Err(CliError::config(format!(
            "{} has errors; nothing was started",
            paths.config.display()
        ))
        .hint("`aiproxy config edit` opens it, `aiproxy config check` checks it"));
    };
    let view = crate::control::snapshot::ConfigView {
        path: text.is_some().then(|| paths.config.display().to_string()),
        problems: Vec::new(),
        annotated: String::new(),
        warnings: loaded.problems.iter().map(problem::Problem::one_line).collect(),
        applied: SystemClock.unix(),
        needs_restart: false,
    };
    Ok(LoadedConfig { settings, config_view: view })
}

/// Applies the command-line arguments on top of the settings.
pub(super) fn apply_arguments(
    mut settings: Settings,
    args: &ServeArgs,
) -> Result<Settings, CliError> {
    if !args.listen.is_empty() {
        let (mut addrs, mut optional) = (Vec::new(), false);
        for text in &args.listen {
            let (more, v6) =
                parse_listen(text).map_err(|e| CliError::usage(format!("--listen {text}: {e}")))?;
            addrs.extend(more);
            optional |= v6;
        }
        if !settings.server.auth && addrs.iter().any(|addr| !addr.ip().is_loopback()) {
            return Err(CliError::usage(
                "--listen: an address that others can reach needs `auth = true` under [server]",
            ));
        }
        (settings.server.listen, settings.server.optional_v6) = (addrs, optional);
    }
    if args.demo {
        settings.upstreams.clear();
        settings.models.clear();
        settings.aliases.clear();
    }
    if settings.server.max_buffered.is_none() {
        settings.server.max_buffered = Some(process::buffer_limit());
    }
    Ok(settings)
}

fn warn_about_exposure(settings: &Settings, addrs: &[SocketAddr]) {
    for upstream in settings.upstreams.iter().filter(|upstream| upstream.insecure_tls) {
        tracing::warn!(upstream = %upstream.name, "insecure_tls is on: anybody between here and there can read the key");
    }
    if let Some(addr) = addrs.iter().find(|addr| !addr.ip().is_loopback()) {
        tracing::warn!(%addr, "listening beyond this machine; every request needs a client key");
    }
}

fn claim_error(error: &ClaimError) -> CliError {
    CliError::failed(error.to_string()).hint(error.hint())
}

fn listen_error(error: ListenError) -> CliError {
    use std::io::ErrorKind;
    let ListenError { addr, source } = error;
    match source.kind() {
        ErrorKind::AddrInUse => {
            let by = process::process_listening_on(addr)
                .map_or_else(String::new, |process| format!(" by {process}"));
            CliError::failed(format!("{addr} is in use{by}"))
                .hint("`aiproxy serve --listen 127.0.0.1:PORT` listens elsewhere; `aiproxy status` shows whether it is aiproxy")
        }
        ErrorKind::PermissionDenied => {
            CliError::failed(format!("{addr}: no permission to listen there"))
                .hint("ports below 1024 belong to the system; choose a higher one")
        }
        ErrorKind::AddrNotAvailable => {
            CliError::failed(format!("{addr} is no address of this machine"))
                .hint("`listen` under [server] says where")
        }
        _ => CliError::failed(format!("{addr}: {source}")),
    }
}
