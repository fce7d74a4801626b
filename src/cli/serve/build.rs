//! Builds the parts of the proxy and connects them.

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::AtomicBool},
};

use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    base::{
        clock::{Clock, SystemClock},
        sync::Mutex,
    },
    cli::{
        error::CliError,
        serve::{
            alert_dispatch::AlertDispatcher,
            args::ServeArgs,
            budgets,
            demo_upstream::DemoUpstream,
            discovery,
            keys::{load::KeyLoader, retry::RetrySchedule},
            ledger,
            logging::LogControl,
            mcp, process,
            proxy_admin::ProxyAdmin,
            telemetry,
        },
    },
    config::{Environment, IdInterner, Settings, discover, file::Paths, presets, settings::KeyId},
    control::{
        active_alerts::ActiveAlerts, api::ControlApi, history::LedgerHandle, rundir::DataDirLock,
        snapshot::ConfigView,
    },
    demo::Demo,
    events::{ledger_queue::LedgerQueue, status_message::notice::NoticeMessage},
    relay::{
        background::save_health,
        engine::{Engine, EngineParts},
        state::{
            health_store::HealthStore, learned_store::LearnedStore, model_lists::ModelLists,
            resource_owners::ResourceOwners,
        },
    },
    secrets::{
        Secret,
        keyring::Keyring,
        redact::KnownSecrets,
        resolve::{SecretResolver, VaultSource},
        vault::Vault,
    },
    server::{guard::credential::ClientKeys, state::ServerState},
    telemetry::{
        metrics::Metrics,
        otlp::{FinishedRequest, OtlpExporter},
    },
    upstream::{client::UpstreamClient, keys::ProviderKeys, webhook_client::WebhookClient},
};

/// The results of the steps before the proxy is built.
pub(super) struct StartInput {
    pub(super) paths: Paths,
    pub(super) env: Environment,
    pub(super) ids: IdInterner,
    pub(super) args: ServeArgs,
    /// The settings of file and arguments, without discovered upstreams.
    pub(super) settings: Settings,
    pub(super) config_view: ConfigView,
    pub(super) log: LogControl,
    pub(super) addrs: Vec<SocketAddr>,
}

/// The connected parts. Only the ledger's thread runs so far.
pub(super) struct Proxy {
    pub(super) admin: Arc<ProxyAdmin>,
    pub(super) server_state: Arc<ServerState>,
    /// The settings at startup, including discovered upstreams.
    pub(super) settings: Arc<Settings>,
    /// The token of the control API.
    pub(super) token: Secret,
    /// What was discovered, as sentences for the log.
    pub(super) discovery_notes: Vec<Arc<NoticeMessage>>,
    /// Says that bodies are stored from now on.
    pub(super) body_note: Option<Arc<NoticeMessage>>,
    pub(super) task_inputs: TaskInputs,
}

/// Receivers and clients of the background tasks.
pub(super) struct TaskInputs {
    /// Keys that their provider rejected.
    pub(super) rejected_keys: mpsc::UnboundedReceiver<KeyId>,
    /// Requests to be exported as traces.
    pub(super) finished_requests: mpsc::Receiver<Box<FinishedRequest>>,
    pub(super) webhook_client: Arc<WebhookClient>,
    pub(super) host: String,
}

/// Builds the proxy and publishes its address and token in the run dir.
///
/// # Errors
///
/// The run dir cannot be written.
pub(super) fn build(input: StartInput, run_dir: &DataDirLock) -> Result<Proxy, CliError> {
    let StartInput { paths, env, mut ids, args, settings, config_view, log, addrs } = input;
    let (discovered, discovery_notes) =
        discovery::discover_at_start(&settings, &args, &env, &mut ids);
    let settings = Arc::new(discover::merge_discovered(&settings, &discovered));
    let known_secrets = Arc::new(KnownSecrets::new());
    let (rejected_sender, rejected_keys) = mpsc::unbounded_channel();
    let (ledger_queue, ledger_messages) = LedgerQueue::new();
    let engine = build_engine(&paths, &settings, &known_secrets, rejected_sender, ledger_queue);

    let metrics = Arc::new(Metrics::default());
    let (otlp_exporter, finished_requests) = OtlpExporter::new();
    otlp_exporter.set_enabled(settings.otlp.url.is_some());
    let on_request =
        telemetry::request_observer(&engine, Arc::clone(&metrics), Arc::clone(&otlp_exporter));
    let (ledger, body_note) =
        ledger::start_ledger(&engine, &paths.data, ledger_messages, on_request);
    budgets::start_budgets(&engine, ledger.as_deref());
    let listen_texts: Vec<String> = addrs.iter().map(ToString::to_string).collect();
    let token = run_dir
        .publish(listen_texts.clone(), engine.clock.unix())
        .map_err(|e| CliError::failed(format!("{}: {e}", paths.data.display())))?;

    let clients = Arc::new(ClientKeys::default());
    let loader = Arc::new(build_key_loader(&engine, known_secrets, &paths, &env, &clients));
    let active_alerts = Arc::new(ActiveAlerts::default());
    let webhook_client = Arc::new(WebhookClient::default());
    let host = process::host_name(&env.vars);
    let alert_dispatcher = Arc::new(AlertDispatcher {
        engine: Arc::clone(&engine),
        metrics: Arc::clone(&metrics),
        ledger: ledger.clone(),
        loader: Arc::clone(&loader),
        active_alerts: Arc::clone(&active_alerts),
        webhook_client: Arc::clone(&webhook_client),
        env: env.vars.clone(),
        host: host.clone(),
        memory: Mutex::default(),
    });
    loader.mark_clients_loading(&settings);
    loader.load_immediate(&settings);
    let stop = CancellationToken::new();
    let mcp = mcp::build_hub(&engine, &loader, &stop);
    let admin = Arc::new(ProxyAdmin {
        mcp,
        alert_dispatcher,
        otlp_exporter,
        engine,
        loader,
        paths,
        env,
        ledger,
        ids: Mutex::new(ids),
        args,
        discovered: Mutex::new(discovered),
        has_config: AtomicBool::new(config_view.path.is_some()),
        config_view: Mutex::new(config_view),
        log,
        tracker: TaskTracker::new(),
        stop,
        stop_now: CancellationToken::new(),
        reload_lock: tokio::sync::Mutex::new(()),
    });
    let server_state = build_server(&admin, listen_texts, &token, active_alerts, metrics);
    let task_inputs = TaskInputs { rejected_keys, finished_requests, webhook_client, host };
    Ok(Proxy { admin, server_state, settings, token, discovery_notes, body_note, task_inputs })
}

/// Builds the HTTP server's state, with the control API.
fn build_server(
    admin: &Arc<ProxyAdmin>,
    listen_texts: Vec<String>,
    token: &Secret,
    active_alerts: Arc<ActiveAlerts>,
    metrics: Arc<Metrics>,
) -> Arc<ServerState> {
    let engine = Arc::clone(&admin.engine);
    let ledger_handle =
        admin.ledger.clone().map(|ledger| LedgerHandle { engine: Arc::clone(&engine), ledger });
    let control = ControlApi::new(
        Arc::clone(&engine),
        Arc::new(Arc::clone(admin)),
        listen_texts,
        admin.stop.clone(),
        token,
    )
    .with_ledger(ledger_handle)
    .with_mcp(Arc::clone(&admin.mcp))
    .with_alerts_and_metrics(active_alerts, metrics);
    Arc::new(ServerState {
        mcp: Arc::clone(&admin.mcp),
        engine,
        clients: Arc::clone(&admin.loader.clients),
        control: Arc::new(control),
        keyless: None,
        probes: Arc::default(),
    })
}

/// Builds the engine with the health that an earlier process saved.
fn build_engine(
    paths: &Paths,
    settings: &Arc<Settings>,
    known_secrets: &Arc<KnownSecrets>,
    rejected_keys: mpsc::UnboundedSender<KeyId>,
    ledger_queue: LedgerQueue,
) -> Arc<Engine> {
    let clock = Arc::new(SystemClock);
    let learned = LearnedStore::open(&paths.data, clock.unix());
    let resource_owners = ResourceOwners::open(&paths.data, clock.unix());
    let keys = Arc::new(ProviderKeys::default());
    let demo = Arc::new(DemoUpstream(Demo::new(Arc::clone(&clock) as _)));
    let engine = Arc::new(Engine::new(
        EngineParts {
            clock,
            upstream_client: UpstreamClient::new(Arc::clone(&keys)).with_in_process("demo", demo),
            keys,
            redactor: Arc::clone(known_secrets) as _,
            model_lists: ModelLists::new(Some(paths.data.join("models.json")), &settings.upstreams),
            rejected_keys,
            ledger_queue,
            health_store: HealthStore::open(paths.data.join("health.json")),
            learned,
            resource_owners,
        },
        Arc::clone(settings),
    ));
    for upstream in &settings.upstreams {
        save_health::restore_upstream(&engine, upstream);
    }
    engine
}

fn build_key_loader(
    engine: &Arc<Engine>,
    known_secrets: Arc<KnownSecrets>,
    paths: &Paths,
    env: &Environment,
    clients: &Arc<ClientKeys>,
) -> KeyLoader {
    let keyring = Keyring::system();
    let vault = VaultSource::from_env(Vault::at(paths.data.join("keys.enc")), &env.vars);
    let provider_variables =
        presets::all().iter().flat_map(|preset| &preset.key_env).map(ToString::to_string).collect();
    KeyLoader {
        engine: Arc::clone(engine),
        resolver: Arc::new(SecretResolver::new(
            keyring.clone(),
            vault,
            env.vars.clone(),
            provider_variables,
        )),
        known_secrets,
        keyring,
        paths: paths.clone(),
        clients: Arc::clone(clients),
        default_key: Mutex::default(),
        client_keys: Mutex::default(),
        in_use: Mutex::default(),
        retries: RetrySchedule::default(),
    }
}
