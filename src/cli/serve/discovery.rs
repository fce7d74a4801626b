//! Discovers upstreams that the config does not list: keys in the environment, local servers, the
//! demo.

use std::{sync::Arc, time::Duration};

use crate::{
    cli::serve::{args::ServeArgs, proxy_admin::ProxyAdmin},
    config::{
        Environment, IdInterner, Settings,
        discover::{self, LocalServer},
        settings::{Origin, Upstream},
    },
    events::status_message::{notice::NoticeMessage, reload::ReloadCause},
    upstream::local_probe,
};

/// Interval between scans for local servers.
const SCAN_INTERVAL: Duration = Duration::from_secs(60);

/// The upstreams found without network access: the environment's keys and the demo.
pub(super) fn discover_at_start(
    settings: &Settings,
    args: &ServeArgs,
    env: &Environment,
    ids: &mut IdInterner,
) -> (Vec<Arc<Upstream>>, Vec<Arc<NoticeMessage>>) {
    let (mut found, notes) = if settings.discover.env && !args.demo {
        discover::from_env(env, ids, &settings.timeouts)
    } else {
        (Vec::new(), Vec::new())
    };
    found.push(Arc::new(discover::demo_upstream(ids, &settings.timeouts)));
    let notice =
        |variable| Arc::new(NoticeMessage::UnusedVariable { variable: Arc::new(variable) });
    (found, notes.into_iter().map(notice).collect())
}

/// Scans for local servers now and every minute, and applies changes.
pub(super) async fn rediscover(admin: &Arc<ProxyAdmin>) {
    loop {
        let wanted = admin.engine.generation().settings.discover.local && !admin.args.demo;
        if wanted {
            let servers: Vec<(LocalServer, String)> = discover::local_servers()
                .into_iter()
                .filter_map(|server| Some((server.probe_url()?, server)))
                .map(|(url, server)| (server, url))
                .collect();
            let urls: Vec<&str> = servers.iter().map(|(_, url)| url.as_str()).collect();
            let answers = local_probe::fetch_json_bodies(&urls).await;
            let up: Vec<LocalServer> = servers
                .into_iter()
                .zip(answers)
                .filter(|(_, answer)| answer.is_some())
                .map(|((server, _), _)| server)
                .collect();
            apply_local_servers(admin, &up).await;
        }
        tokio::time::sleep(SCAN_INTERVAL).await;
    }
}

async fn apply_local_servers(admin: &Arc<ProxyAdmin>, up: &[LocalServer]) {
    let changed = {
        let mut found = admin.discovered.lock();
        let before: Vec<String> = found
            .iter()
            .filter(|upstream| upstream.origin == Origin::Local)
            .map(|upstream| upstream.name.to_string())
            .collect();
        let now: Vec<String> = up.iter().map(|server| server.name.to_string()).collect();
        if before == now {
            false
        } else {
            let timeouts = admin.engine.generation().settings.timeouts;
            let mut ids = admin.ids.lock();
            found.retain(|upstream| upstream.origin != Origin::Local);
            found.extend(
                up.iter()
                    .map(|server| Arc::new(discover::local_upstream(server, &mut ids, &timeouts))),
            );
            true
        }
    };
    if changed {
        admin.reload_config(ReloadCause::LocalServers).await;
    }
}
