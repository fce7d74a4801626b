//! `aiproxy serve`: builds the parts, listens, and shuts down in order.

mod actions;
mod alert_dispatch;
pub mod args;
mod background;
mod banner;
mod budgets;
mod build;
mod demo_upstream;
mod discovery;
mod empty_config;
mod keys;
mod ledger;
mod listeners;
mod logging;
mod mcp;
mod mcp_calls;
mod process;
mod proxy_admin;
mod reload;
mod replay;
mod service_manager;
mod shutdown;
pub(in crate::cli) mod signals;
mod startup_config;
mod telemetry;

use std::{net::SocketAddr, sync::Arc};

use tokio_util::sync::CancellationToken;

use crate::{
    base::sanitize,
    cli::{
        context::GlobalArgs,
        error::{CliError, ExitStatus},
        expose::expose_secret,
        serve::{
            args::ServeArgs,
            build::{Proxy, StartInput},
            listeners::Listeners,
            service_manager::{ServiceState, report_state},
            signals::SignalListener,
        },
    },
    config::{Environment, IdInterner, watch},
    control::rundir::{ClaimError, RunDir},
    events::{
        event::{EventKind, Severity},
        status_message::notice::NoticeMessage,
    },
    relay::background::save_health,
    secrets::Secret,
};

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
    let loaded = startup_config::read_config(&paths, &env, &mut ids)?;
    let settings = startup_config::apply_arguments(loaded.settings, &args)?;
    // Claimed before listening, so that only one of two concurrent starts succeeds.
    let run_dir = RunDir::claim(&paths.data).map_err(|e| claim_error(&e))?;
    // Installed before the proxy becomes visible, so that an early signal does not trigger the
    // default action and kill the process.
    let signals = SignalListener::new().map_err(|e| CliError::failed(format!("signals: {e}")))?;
    let log = logging::start_logging(&settings.log, &paths.data, args.tui)?;
    let listeners = Listeners::bind(&settings)?;
    let addrs = listeners.addrs();
    let (with_dashboard, path_flags) = (args.tui, global.path_flags(&paths));

    let proxy = build::build(
        StartInput {
            paths,
            env,
            ids,
            args,
            settings,
            config_view: loaded.config_view,
            log,
            addrs: addrs.clone(),
        },
        &run_dir,
    )?;
    let closing = CancellationToken::new();
    // Listen last, so that the first connection finds everything ready, including the run dir.
    listeners.accept(
        &proxy.server_state,
        proxy.settings.server.max_connections,
        &proxy.admin.tracker,
        &closing,
    )?;
    announce(&proxy, &addrs, run_dir.problem());
    report_state(ServiceState::Ready);
    let Proxy { admin, server_state, settings, token, body_note, task_inputs, .. } = proxy;
    background::spawn_tasks(&admin, task_inputs);
    let watcher = admin.watch_config(&admin.tracker, stamp);

    let dashboard =
        with_dashboard.then(|| (Secret::new(expose_secret(&token).to_owned()), &*addrs));
    if !with_dashboard {
        let (admin, addrs) = (Arc::clone(&admin), addrs.clone());
        admin.tracker.clone().spawn(async move {
            let note = body_note.as_deref();
            banner::print_banner(&server_state, &admin, &addrs, &path_flags, note).await;
        });
    }
    let outcome = shutdown::wait_for_stop(&admin, signals, dashboard).await;
    report_state(ServiceState::Stopping);
    drop(watcher);
    shutdown::shutdown(&admin, settings.server.drain, &closing).await;
    admin.mcp.shutdown().await;
    save_health::save(&admin.engine, true);
    if let Some(ledger) = admin.ledger.clone() {
        ledger.close(&admin.engine.ledger_queue).await;
    }
    drop(run_dir);
    outcome
}

/// Logs what was discovered and which settings are dangerous.
fn announce(proxy: &Proxy, addrs: &[SocketAddr], data_problem: Option<&std::io::Error>) {
    let engine = &proxy.admin.engine;
    if let Some(problem) = data_problem {
        let path = proxy.admin.paths.data.display().to_string();
        let notice: Arc<_> = NoticeMessage::DataDirNotWritable {
            path: sanitize::clean(&path).into(),
            problem: problem.to_string().into(),
        }
        .into();
        tracing::warn!("{notice}");
        let kind = EventKind::Notice { text: notice, level: Severity::Warn };
        engine.bus.publish(engine.clock.unix(), kind);
    }
    for notice in &proxy.discovery_notes {
        tracing::info!("{notice}");
        engine.bus.publish(
            engine.clock.unix(),
            EventKind::Notice { text: Arc::clone(notice), level: Severity::Info },
        );
    }
    listeners::warn_about_exposure(&proxy.settings, addrs);
}

fn claim_error(error: &ClaimError) -> CliError {
    CliError::failed(error.to_string()).hint(error.hint())
}
