//! `aiproxy serve`: puts the parts together, listens, and ends in order.

mod admin;
mod alerts;
mod banner;
mod budgets;
mod discovery;
mod keys;
mod ledger;
mod local;
mod logging;
mod process;
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

use self::{admin::Hands, alerts::Alarms, keys::KeyLoader, signals::Signal};
use super::{
    args::{Global, ServeArgs},
    exit::{CliError, Exit},
    out,
    reveal::reveal,
};
use crate::{
    base::clock::{Clock, SystemClock},
    config::{
        Environment, IdInterner, Settings, file,
        file::Paths,
        load::{self, parse_listen},
        problem, watch,
    },
    control::{
        alerts::ActiveAlerts,
        api::ControlApi,
        history::LedgerHandle,
        rundir::{ClaimError, RunDir},
    },
    demo::Demo,
    events::{
        kind::{EventKind, Severity},
        sink::LedgerQueue,
    },
    relay::{
        balance,
        engine::{Engine, EngineParts},
        lists::{self, ModelLists},
        probes,
        remember::{self, HealthStore},
    },
    secrets::{
        Secret,
        keyring::Keyring,
        redact::KnownSecrets,
        resolve::{SecretResolver, VaultSource},
        vault::Vault,
    },
    server::{
        gate::ServerState,
        guard::credential::ClientKeys,
        listen::{self, ListenError},
    },
    telemetry::{metrics::Metrics, otlp::OtlpExporter},
    upstream::{keys::ProviderKeys, post::WebhookClient, send::UpstreamClient},
};

/// After the drain, cut streams have this long to take their error event.
const FAREWELL: Duration = Duration::from_millis(500);

/// Runs the proxy until it is told to stop.
///
/// # Errors
///
/// A config that does not load (exit 3), an address in use or a second proxy on the same data dir
/// (exit 1).
pub async fn serve(global: &Global, args: ServeArgs) -> Result<Exit, CliError> {
    let place = global.place()?;
    let env = Environment::from_process();
    let mut ids = IdInterner::default();
    let stamp = watch::file_stamp(&place.config);
    let written = read_config(&place, &env, &mut ids)?;
    let settings = with_arguments(written.settings, &args)?;
    // Claimed before anything is listened on, so that two starts at once cannot both believe they
    // are the one.
    let claimed = RunDir::claim(&place.data).map_err(|e| claim_error(&e))?;
    // Before anybody can know of this proxy: a signal that comes early must not find the system's
    // default, death.
    let signals = signals::Signals::new().map_err(|e| CliError::failed(format!("signals: {e}")))?;
    let log = logging::start(&settings.log, &place.data, args.tui)?;
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
    let demo = Arc::new(local::DemoUpstream(Demo::new(Arc::clone(&clock))));
    let gateway = UpstreamClient::new(Arc::clone(&keys)).with_in_process("demo", demo);
    let (found, notes) = discovery::at_start(&settings, &args, &env, &mut ids);
    let settings = Arc::new(crate::config::discover::merge_discovered(&settings, &found));
    let (rejected, rejections) = mpsc::unbounded_channel();
    let (sink, notes_of_requests) = LedgerQueue::new();
    let lists = ModelLists::new(Some(place.data.join("models.json")), &settings.upstreams);
    let remember = HealthStore::open(place.data.join("health.json"));
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
    let seen = telemetry::tap(&engine, Arc::clone(&metrics), Arc::clone(&traces));
    let ledger = ledger::start(&engine, &place.data, notes_of_requests, seen);
    budgets::start(&engine, ledger.as_deref());
    let (tracker, stop, now) =
        (TaskTracker::new(), CancellationToken::new(), CancellationToken::new());
    let listen_text: Vec<String> = addrs.iter().map(ToString::to_string).collect();
    let token = claimed
        .publish(listen_text.clone(), clock.unix())
        .map_err(|e| CliError::failed(format!("{}: {e}", place.data.display())))?;
    let keyring = Keyring::system();
    let vault = VaultSource::from_env(Vault::at(place.data.join("keys.enc")), &env.vars);
    let names = crate::config::presets::all()
        .iter()
        .flat_map(|preset| &preset.key_env)
        .map(ToString::to_string)
        .collect();
    let resolver = SecretResolver::new(keyring.clone(), vault, env.vars.clone(), names);
    let loader = Arc::new(KeyLoader {
        engine: Arc::clone(&engine),
        resolver,
        known,
        keyring,
        place: place.clone(),
        default_key: Mutex::default(),
    });
    traces.set_enabled(settings.otlp.url.is_some());
    let (standing, poster, host) = (
        Arc::new(ActiveAlerts::default()),
        Arc::new(WebhookClient::default()),
        process::host(&env.vars),
    );
    let alarms = Arc::new(Alarms::new(
        (Arc::clone(&engine), ledger.clone()),
        (Arc::clone(&metrics), Arc::clone(&standing)),
        Arc::clone(&loader),
        Arc::clone(&poster),
        env.vars.clone(),
        host.clone(),
    ));
    let hands = Arc::new(Hands {
        alarms: Arc::clone(&alarms),
        traces: Arc::clone(&traces),
        engine: Arc::clone(&engine),
        loader: Arc::clone(&loader),
        place: place.clone(),
        env,
        ledger: ledger.clone(),
        ids: Mutex::new(ids),
        args: args.clone(),
        found: Mutex::new(found),
        view: Mutex::new(written.view),
        log,
        clients: std::sync::OnceLock::new(),
        tracker: tracker.clone(),
        stop: stop.clone(),
        now: now.clone(),
        reloading: tokio::sync::Mutex::new(()),
    });
    let books = ledger.clone().map(|ledger| LedgerHandle { engine: Arc::clone(&engine), ledger });
    let control = ControlApi::new(
        Arc::clone(&engine),
        Arc::new(Arc::clone(&hands)),
        listen_text,
        stop.clone(),
        &token,
    );
    let control = Arc::new(control.with_ledger(books).with_alerts_and_metrics(standing, metrics));
    let gate = Arc::new(ServerState {
        engine: Arc::clone(&engine),
        clients: Arc::new(ClientKeys::default()),
        control,
        keyless: None,
    });
    if hands.clients.set(Arc::clone(&gate.clients)).is_err() {
        return Err(CliError::failed("the proxy was put together twice; please report this"));
    }
    loader.expect_clients(&gate.clients, &settings);
    loader.load_known(&settings);

    let places = Arc::new(Semaphore::new(settings.server.max_connections));
    let closing = CancellationToken::new();
    for bound in bound {
        // Only now, so that who gets through finds everything in place, the run dir too.
        let listener = bound.listen().map_err(listen_error)?;
        tracker.spawn(listen::accept_loop(
            listener,
            Arc::clone(&gate),
            Arc::clone(&places),
            tracker.clone(),
            closing.clone(),
        ));
    }
    for (keyless, bound) in open {
        let gate = Arc::new(ServerState {
            engine: Arc::clone(&engine),
            clients: Arc::clone(&gate.clients),
            control: Arc::clone(&gate.control),
            keyless: Some(keyless),
        });
        for bound in bound {
            let listener = bound.listen().map_err(listen_error)?;
            tracker.spawn(listen::accept_loop(
                listener,
                Arc::clone(&gate),
                Arc::clone(&places),
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
    warn_about(&settings, &addrs);
    spawn_background(&tracker, &stop, &hands, &gate, rejections);
    tracker.spawn(until(stop.clone(), async move { alarms.run().await }));
    let (sender, loader) = (Arc::clone(&engine), Arc::clone(&loader));
    tracker.spawn(until(stop.clone(), async move {
        telemetry::send(&sender, &loader, &poster, &traces, traced, &host).await
    }));
    let watcher = hands.watch(&tracker, stamp);

    let shown = Secret::new(reveal(&token).to_owned());
    let dashboard = args.tui.then(|| (shown, addrs.clone()));
    if dashboard.is_none() {
        let (gate, hands, addrs, flags) =
            (Arc::clone(&gate), Arc::clone(&hands), addrs.clone(), global.flags(&place));
        tracker.spawn(async move { banner::print(&gate, &hands, &addrs, &flags).await });
    }
    let outcome = run(&hands, signals, &stop, &now, dashboard).await;
    drop(watcher);
    finish(&engine, &settings, &tracker, &stop, &closing, &now).await;
    engine.health_store.save(&engine);
    if let Some(ledger) = ledger {
        ledger.close(&engine.ledger_queue).await;
    }
    drop(claimed);
    outcome
}

/// Waits for a reason to stop.
async fn run(
    hands: &Arc<Hands>,
    mut signals: signals::Signals,
    stop: &CancellationToken,
    now: &CancellationToken,
    dashboard: Option<(Secret, Vec<SocketAddr>)>,
) -> Result<Exit, CliError> {
    let dashboard = async {
        match dashboard {
            Some((token, addrs)) => super::tui::in_process(&hands.place, &addrs, token).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(dashboard);
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(Exit::Ok),
            ended = &mut dashboard => {
                stop.cancel();
                return ended;
            }
            signal = signals.next() => match signal {
                Signal::Stop => {
                    tracing::info!("stopping: open requests may finish; once more stops at once");
                    stop.cancel();
                    signals.stop_at_once_on_next(now.clone());
                    return Ok(Exit::Ok);
                }
                Signal::Reload => {
                    let hands = Arc::clone(hands);
                    let reloaded = hands.reload_now("SIGHUP").await;
                    tracing::debug!(ok = reloaded.ok, "reload asked for by signal");
                }
            },
        }
    }
}

/// Lets open requests finish, then cuts what is left with an error event.
async fn finish(
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
    drop(tokio::time::timeout(FAREWELL, tracker.wait()).await);
}

/// Works until the proxy stops.
async fn until(stop: CancellationToken, work: impl Future<Output = ()>) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = work => {}
    }
}

fn spawn_background(
    tracker: &TaskTracker,
    stop: &CancellationToken,
    hands: &Arc<Hands>,
    gate: &Arc<ServerState>,
    rejections: mpsc::UnboundedReceiver<crate::config::settings::KeyId>,
) {
    let until_stop =
        |stop: CancellationToken, work: std::pin::Pin<Box<dyn Future<Output = ()> + Send>>| {
            until(stop, work)
        };
    let engine = Arc::clone(&gate.engine);
    let (loader, clients) = (Arc::clone(&hands.loader), Arc::clone(&gate.clients));
    let first = async move {
        let settings = Arc::clone(&engine.generation().settings);
        tokio::join!(loader.load(&settings), loader.load_clients(&clients, &settings));
        lists::run(&engine).await;
    };
    tracker.spawn(until_stop(stop.clone(), Box::pin(first)));
    let sleeper = Arc::clone(&gate.engine);
    tracker.spawn(until_stop(stop.clone(), Box::pin(async move { notice_sleep(&sleeper).await })));
    let keeper = Arc::clone(&gate.engine);
    let keep = async move {
        loop {
            tokio::time::sleep(remember::SAVE_INTERVAL).await;
            keeper.health_store.save(&keeper);
        }
    };
    tracker.spawn(until_stop(stop.clone(), Box::pin(keep)));
    let teller = Arc::clone(&gate.engine);
    tracker.spawn(until_stop(stop.clone(), Box::pin(async move { balance::run(&teller).await })));
    let prober = Arc::clone(&gate.engine);
    tracker.spawn(until_stop(stop.clone(), Box::pin(async move { probes::run(&prober).await })));
    let looked_after = Arc::clone(&gate.engine);
    tracker.spawn(until_stop(
        stop.clone(),
        Box::pin(async move { ledger::look_after(&looked_after).await }),
    ));
    let loader = Arc::clone(&hands.loader);
    tracker.spawn(until_stop(stop.clone(), Box::pin(async move { loader.tend(rejections).await })));
    let finder = Arc::clone(hands);
    tracker.spawn(until_stop(
        stop.clone(),
        Box::pin(async move { discovery::look_again(&finder).await }),
    ));
}

/// After the machine slept, connections that were kept are dead: they are dropped before a request
/// finds out. Those that died otherwise are swept away on the same rounds.
async fn notice_sleep(engine: &Engine) {
    const LOOK: Duration = Duration::from_secs(10);
    loop {
        let (boot, awake) = (engine.clock.mono(), tokio::time::Instant::now());
        tokio::time::sleep(LOOK).await;
        engine.upstream_client.drop_stale();
        // The one clock goes on while the machine sleeps, the other does not.
        if engine.clock.mono().since(boot) > awake.elapsed() + LOOK {
            tracing::info!("the machine slept; idle connections are dropped");
            engine.upstream_client.drop_idle();
        }
    }
}

/// A config as the start found it.
pub(super) struct Written {
    pub settings: Settings,
    pub view: crate::control::snapshot::ConfigView,
}

fn read_config(
    place: &Paths,
    env: &Environment,
    ids: &mut IdInterner,
) -> Result<Written, CliError> {
    let text =
        file::read_config(&place.config).map_err(|problem| CliError::config(problem.one_line()))?;
    if text.is_none() && place.explicit {
        return Err(CliError::config(format!(
            "{}: no such file; `aiproxy config init` writes one",
            place.config.display()
        )));
    }
    let source = text.clone().unwrap_or_default();
    let loaded = load::load(&source, &place.config, env, ids);
    let Some(settings) = loaded.settings else {
        out::note(&problem::render(&loaded.problems, &source, out::Paint::stderr().is_on()));
        return Err(CliError::config(format!(
            "{} has errors; nothing was started",
            place.config.display()
        ))
        .hint("`aiproxy config edit` opens it, `aiproxy config check` checks it"));
    };
    let view = crate::control::snapshot::ConfigView {
        path: text.is_some().then(|| place.config.display().to_string()),
        problems: Vec::new(),
        annotated: String::new(),
        warnings: loaded.problems.iter().map(problem::Problem::one_line).collect(),
        applied: SystemClock.unix(),
        needs_restart: false,
    };
    Ok(Written { settings, view })
}

/// The settings with what the command line says on top.
pub(super) fn with_arguments(
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

fn warn_about(settings: &Settings, addrs: &[SocketAddr]) {
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
            let by =
                process::listening_on(addr).map_or_else(String::new, |who| format!(" by {who}"));
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
