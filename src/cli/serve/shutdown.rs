//! Waits for the end of the proxy and shuts it down in order.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use crate::{
    cli::{
        error::{CliError, ExitStatus},
        serve::{
            proxy_admin::ProxyAdmin,
            signals::{ProcessSignal, SignalListener},
        },
        tui,
    },
    events::{
        event::{EventKind, Severity},
        status_message::{notice::NoticeMessage, reload::ReloadCause},
    },
    secrets::Secret,
};

/// Time after the drain in which aborted streams can send their error event.
const DRAIN_GRACE: Duration = Duration::from_millis(500);

/// Waits for a reason to stop: a signal, a stop request, or the end of the dashboard.
///
/// # Errors
///
/// The dashboard failed.
pub(super) async fn wait_for_stop(
    admin: &Arc<ProxyAdmin>,
    mut signals: SignalListener,
    dashboard: Option<(Secret, &[SocketAddr])>,
) -> Result<ExitStatus, CliError> {
    let dashboard = async {
        match dashboard {
            Some((token, addrs)) => {
                tui::dashboard::run_in_process(&admin.paths, addrs, token).await
            }
            None => std::future::pending().await,
        }
    };
    tokio::pin!(dashboard);
    loop {
        tokio::select! {
            () = admin.stop.cancelled() => return Ok(ExitStatus::Ok),
            ended = &mut dashboard => {
                admin.stop.cancel();
                return ended;
            }
            signal = signals.next() => match signal {
                ProcessSignal::Stop => {
                    tracing::info!("stopping: running requests may finish; repeat the signal to stop at once");
                    admin.stop.cancel();
                    signals.stop_at_once_on_next(admin.stop_now.clone());
                    return Ok(ExitStatus::Ok);
                }
                ProcessSignal::Reload => {
                    let reloaded = admin.reload_config(ReloadCause::Signal).await;
                    tracing::debug!(ok = reloaded.ok, "reload requested by signal");
                }
            },
        }
    }
}

/// Lets open requests finish for up to `drain`, then aborts the rest with an error event.
pub(super) async fn shutdown(admin: &ProxyAdmin, drain: Duration, closing: &CancellationToken) {
    let (engine, tracker) = (&admin.engine, &admin.tracker);
    engine.start_draining();
    admin.stop.cancel();
    closing.cancel();
    tracker.close();
    engine.bus.publish(
        engine.clock.unix(),
        EventKind::Notice { text: NoticeMessage::Stopping.into(), level: Severity::Info },
    );
    tokio::select! {
        () = tracker.wait() => return,
        () = tokio::time::sleep(drain) => tracing::warn!(requests = engine.cancellations.running(), "drain time is over; aborting running requests"),
        () = admin.stop_now.cancelled() => {}
    }
    engine.cancellations.cancel_all();
    drop(tokio::time::timeout(DRAIN_GRACE, tracker.wait()).await);
}
