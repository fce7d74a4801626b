//! Checks what surrounds the proxy: proxy variables, the clock, and tools that use it.

use std::path::Path;

use crate::{
    base::clock::{Clock, SystemClock, UnixMillis},
    config::{Environment, base_url, settings::Settings},
    control::rundir::RunInfo,
};

use super::check::Check;
use crate::cli::tools::connect;

/// Variables that send requests for `http://` addresses elsewhere.
const PROXY_VARIABLES: [&str; 4] = ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"];
/// The same for `https://` addresses only.
const HTTPS_VARIABLES: [&str; 2] = ["https_proxy", "HTTPS_PROXY"];
/// Clocks may differ by this much: certificates and limits do not mind.
const MAX_SKEW_MS: i64 = 5 * 60 * 1000;
/// Variables in which tools and SDKs have the address of their API.
const ADDRESS_VARIABLES: [&str; 5] = [
    "OPENAI_BASE_URL",
    "OPENAI_API_BASE",
    "ANTHROPIC_BASE_URL",
    "GOOGLE_GEMINI_BASE_URL",
    "OLLAMA_HOST",
];

/// Checks whether an HTTP proxy takes what tools send to this machine.
pub(super) fn check_proxies(env: &Environment, checks: &mut Vec<Check>) {
    const CHECK: &str = "proxy variables";
    let is_set = |name: &&&str| env.get(name).is_some_and(|value| !value.is_empty());
    let set: Vec<&str> = PROXY_VARIABLES.iter().filter(is_set).copied().collect();
    if set.is_empty() {
        let other = HTTPS_VARIABLES.iter().any(|name| is_set(&name));
        let text = if other {
            "only requests for https addresses go through an HTTP proxy"
        } else {
            "no HTTP proxy is set"
        };
        return checks.push(Check::ok(CHECK, "", text));
    }
    let lists = ["no_proxy", "NO_PROXY"].map(|name| env.get(name).unwrap_or_default());
    let names = set.join(", ");
    if lists.iter().any(|list| list.split(',').map(str::trim).any(covers_localhost)) {
        let text = "NO_PROXY leaves out this machine";
        return checks.push(Check::ok(CHECK, names, text));
    }
    let mut hosts: Vec<&str> = Vec::new();
    let before = lists.iter().flat_map(|list| list.split(',')).map(str::trim);
    for host in before.chain(["localhost", "127.0.0.1", "::1"]) {
        if !host.is_empty() && !hosts.contains(&host) {
            hosts.push(host);
        }
    }
    let list = hosts.join(",");
    checks.push(Check::fail(
        CHECK,
        &names,
        format!("{names} takes what tools send to 127.0.0.1, and no_proxy does not leave it out"),
        format!("`export NO_PROXY={list} no_proxy={list}`; `eval \"$(aiproxy env)\"` does it too"),
    ));
}

/// Whether an entry of NO_PROXY leaves out 127.0.0.1.
fn covers_localhost(entry: &str) -> bool {
    entry == "*" || entry.starts_with("127.0.0.1") || entry.starts_with("127.0.0.0/")
}

/// An upstream's answer: its name, when it was sent by the clock there and by the clock here.
pub(super) struct TimedAnswer {
    pub(super) upstream: String,
    pub(super) there: UnixMillis,
    pub(super) here: UnixMillis,
}

/// Compares the clock with the clocks of the upstreams; more than half must agree that it is wrong.
pub(super) fn check_clock(answers: &[TimedAnswer], checks: &mut Vec<Check>) {
    const CHECK: &str = "clock";
    let now = SystemClock.unix();
    if answers.is_empty() {
        let text = format!("{now}; no upstream answered that it could be compared with");
        return checks.push(Check::ok(CHECK, "", text));
    }
    let mut ahead: Vec<i64> = answers.iter().map(|a| a.here.0.saturating_sub(a.there.0)).collect();
    ahead.sort_unstable();
    // Of two, the one that is less wrong.
    let lower = ahead[(ahead.len() - 1) / 2];
    let upper = ahead[ahead.len() / 2];
    let middle = if lower.abs() <= upper.abs() { lower } else { upper };
    if middle.abs() <= MAX_SKEW_MS {
        let text = format!("it agrees with the upstreams ({now})");
        return checks.push(Check::ok(CHECK, "", text));
    }
    let minutes = middle.abs() / 60_000;
    let side = if middle > 0 { "ahead of" } else { "behind" };
    let names: Vec<&str> = answers.iter().take(3).map(|answer| answer.upstream.as_str()).collect();
    checks.push(Check::fail(
        CHECK,
        "",
        format!(
            "the clock here is off: {minutes} minutes {side} that of the upstreams ({})",
            names.join(", ")
        ),
        "`timedatectl set-ntp true` sets the time by NTP",
    ));
}

/// Checks whether the tools of this shell use this proxy.
pub(super) fn check_tools(
    env: &Environment,
    settings: &Settings,
    running: Option<&RunInfo>,
    data: &Path,
    checks: &mut Vec<Check>,
) {
    const CHECK: &str = "tools";
    let mut ports: Vec<u16> = settings.server.listen.addresses.iter().map(|a| a.port()).collect();
    ports.extend(settings.keyless.iter().flat_map(|row| &row.listen.addresses).map(|a| a.port()));
    let own = running.iter().flat_map(|info| &info.listen);
    ports.extend(own.filter_map(|addr| addr.rsplit(':').next()?.parse::<u16>().ok()));
    for found in connect::connected_tools(data) {
        let tool = &*found.tool;
        checks.push(match found.ports.iter().find(|port| !ports.contains(port)) {
            Some(port) => {
                let text = format!("{tool} sends to port {port} of this machine, not to aiproxy");
                Check::warn(CHECK, tool, text, format!("`aiproxy connect {tool}` corrects it"))
            }
            None => Check::ok(CHECK, tool, "its files point to aiproxy"),
        });
    }
    let mut connected = Vec::new();
    for name in ADDRESS_VARIABLES {
        let Some(url) = env.get(name).filter(|url| url.contains("://")) else { continue };
        let Some((host, port)) = base_url::host_port(url) else { continue };
        if !base_url::is_loopback(&host) {
            continue;
        }
        if ports.contains(&port) {
            connected.push(name);
        } else {
            let text = format!("{name} sends tools to port {port} of this machine, not to aiproxy");
            let fix = "`eval \"$(aiproxy env)\"` connects the tools of this shell";
            checks.push(Check::warn(CHECK, name, text, fix));
        }
    }
    checks.push(if connected.is_empty() {
        let text = "the variables of this shell connect none; `aiproxy env` prints some that do";
        Check::ok(CHECK, "", text)
    } else {
        Check::ok(CHECK, connected.join(", "), "they connect the tools of this shell")
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::tools::doctor::check::CheckState;

    fn env(vars: &[(&str, &str)]) -> Environment {
        let vars = vars.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        Environment { vars }
    }

    #[test]
    fn http_proxy_must_exclude_loopback() {
        for (vars, state) in [
            (&[][..], CheckState::Ok),
            (&[("https_proxy", "http://p:1")], CheckState::Ok),
            (&[("http_proxy", "http://p:1")], CheckState::Fail),
            (&[("ALL_PROXY", "socks5://p:1"), ("NO_PROXY", "a.example")], CheckState::Fail),
            (&[("HTTP_PROXY", "http://p:1"), ("no_proxy", "a, 127.0.0.1")], CheckState::Ok),
            (&[("HTTP_PROXY", "http://p:1"), ("NO_PROXY", "*")], CheckState::Ok),
        ] {
            let mut checks = Vec::new();
            check_proxies(&env(vars), &mut checks);
            assert_eq!(checks[0].state, state, "{vars:?}");
            if state == CheckState::Fail {
                assert!(checks[0].fix.as_ref().unwrap().contains("no_proxy="), "{checks:?}");
            }
        }
    }

    #[test]
    fn clock_skew_needs_a_majority_of_upstreams() {
        const HOURS: i64 = 2 * 3_600_000;
        for (ahead, state) in [
            (&[][..], CheckState::Ok),
            (&[20_000], CheckState::Ok),
            (&[HOURS], CheckState::Fail),
            (&[-HOURS, -HOURS], CheckState::Fail),
            (&[0, HOURS], CheckState::Ok),
            (&[0, HOURS, HOURS], CheckState::Fail),
        ] {
            let answer = |ahead: &i64| TimedAnswer {
                upstream: "a".to_owned(),
                there: UnixMillis(0),
                here: UnixMillis(*ahead),
            };
            let answers: Vec<_> = ahead.iter().map(answer).collect();
            let mut checks = Vec::new();
            check_clock(&answers, &mut checks);
            assert_eq!(checks[0].state, state, "{ahead:?}");
        }
    }
}
