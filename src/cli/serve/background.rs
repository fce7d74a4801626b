//! Spawns the tasks that run until the proxy stops.

use std::{sync::Arc, time::Duration};

use crate::{
    cli::serve::{build::TaskInputs, discovery, ledger, proxy_admin::ProxyAdmin, telemetry},
    relay::{
        background::{check_health, poll_balances, refresh_models, save_health},
        engine::Engine,
    },
};

/// Spawns every background task. Each ends when the proxy stops.
pub(super) fn spawn_tasks(admin: &Arc<ProxyAdmin>, inputs: TaskInputs) {
    let TaskInputs { rejected_keys, finished_requests, webhook_client, host } = inputs;
    let engine = || Arc::clone(&admin.engine);
    let loader = || Arc::clone(&admin.loader);

    let (first_engine, first_loader) = (engine(), loader());
    spawn(admin, async move {
        let settings = Arc::clone(&first_engine.generation().settings);
        tokio::join!(
            first_loader.load_provider_keys(&settings),
            first_loader.load_client_keys(&settings)
        );
        refresh_models::run(&first_engine).await;
    });
    let suspend_engine = engine();
    spawn(admin, async move { watch_suspend(&suspend_engine).await });
    let health_engine = engine();
    spawn(admin, async move {
        loop {
            tokio::time::sleep(save_health::SAVE_INTERVAL).await;
            save_health::save(&health_engine, false);
        }
    });
    let balance_engine = engine();
    spawn(admin, async move { poll_balances::run(&balance_engine).await });
    let check_engine = engine();
    spawn(admin, async move { check_health::run(&check_engine).await });
    let ledger_engine = engine();
    spawn(admin, async move { ledger::monitor(&ledger_engine).await });
    let key_loader = loader();
    spawn(admin, async move { key_loader.run(rejected_keys).await });
    let retry_loader = loader();
    spawn(admin, async move { retry_loader.run_retries().await });
    let discovery_admin = Arc::clone(admin);
    spawn(admin, async move { discovery::rediscover(&discovery_admin).await });
    let alert_dispatcher = Arc::clone(&admin.alert_dispatcher);
    spawn(admin, async move { alert_dispatcher.run().await });
    let (otlp_engine, otlp_loader) = (engine(), loader());
    let otlp_exporter = Arc::clone(&admin.otlp_exporter);
    spawn(admin, async move {
        telemetry::run_otlp_export(
            &otlp_engine,
            &otlp_loader,
            &webhook_client,
            &otlp_exporter,
            finished_requests,
            &host,
        )
        .await;
    });
}

/// Runs `work` until it ends or the proxy stops.
fn spawn(admin: &ProxyAdmin, work: impl Future<Output = ()> + Send + 'static) {
    let stop = admin.stop.clone();
    admin.tracker.spawn(async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = work => {}
        }
    });
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
            tracing::info!("the machine was suspended; dropping idle connections");
            engine.upstream_client.drop_idle();
        }
    }
}
