//! Checks each upstream and key with a free call: the list of models.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;

use crate::{
    base::clock::{Clock, SystemClock, UnixMillis},
    cli::key::verify,
    config::{
        base_url, presets,
        settings::{Auth, DialectEndpoint, Origin, Settings, Upstream, UpstreamKey},
    },
    ir::{
        fault::{TransportFault, TransportKind},
        op::Dialect,
    },
    secrets::{Reference, Secret, keyring::KeyringError, resolve::SecretResolver},
    upstream::aux_client::SmallResponse,
};

use super::{
    check::{Check, CheckState},
    environment::TimedAnswer,
    verdict::{self, FreeCallVerdict},
};

/// How long an upstream may take; all are asked at once.
const TIMEOUT: Duration = Duration::from_secs(4);
/// Paths of APIs that may be missing at the end of a base URL.
const PATHS: [&str; 4] = ["/v1", "/api/v1", "/v1beta", "/openai/v1"];

/// Checks all upstreams at once, and returns their answers' times.
pub(super) async fn check(
    settings: &Settings,
    resolver: &SecretResolver,
    obstacle: Option<KeyringError>,
    checks: &mut Vec<Check>,
) -> Vec<TimedAnswer> {
    let is_remote = |upstream: &&Arc<Upstream>| upstream.origin != Origin::Demo;
    let upstreams: Vec<_> = settings.upstreams.iter().filter(is_remote).collect();
    if upstreams.is_empty() {
        let fix = "`aiproxy key add openai`, or another of `aiproxy upstream presets`";
        checks.push(Check::warn("upstream", "", "only the demo is configured", fix));
    }
    let visits = upstreams.iter().map(|upstream| {
        let visit = Visit { upstream, resolver, obstacle: obstacle.as_ref() };
        visit.run()
    });
    let mut answers = Vec::new();
    let before = checks.len();
    for report in join_all(visits).await {
        checks.extend(report.checks);
        answers.extend(report.answer);
    }
    summarise(&upstreams, before, checks);
    answers
}

/// Adds the lines about names and certificates in which nothing is wrong.
fn summarise(upstreams: &[&Arc<Upstream>], before: usize, checks: &mut Vec<Check>) {
    let urls = upstreams.iter().filter(|upstream| upstream.enabled && !upstream.local);
    let urls: Vec<&str> =
        urls.filter_map(|upstream| Some(upstream.endpoints.first()?.base_url.as_str())).collect();
    let bad = |check: &str, checks: &[Check]| {
        checks[before..].iter().any(|one| one.check == check && one.state != CheckState::Ok)
    };
    if !bad("dns", checks) {
        checks.push(Check::ok("dns", "", format!("no name failed; looked up: {}", urls.len())));
    }
    if !bad("tls", checks) {
        let count = urls.iter().filter(|url| url.starts_with("https:")).count();
        checks.push(Check::ok("tls", "", format!("no certificate failed; checked: {count}")));
    }
}

#[derive(Default)]
struct VisitReport {
    checks: Vec<Check>,
    answer: Option<TimedAnswer>,
}

struct Visit<'a> {
    upstream: &'a Arc<Upstream>,
    resolver: &'a SecretResolver,
    obstacle: Option<&'a KeyringError>,
}

impl Visit<'_> {
    async fn run(self) -> VisitReport {
        let name = self.upstream.name.to_string();
        let mut report = VisitReport::default();
        if !self.upstream.enabled {
            report.checks.push(Check::ok("upstream", name, "switched off"));
            return report;
        }
        let Some(end) = self.upstream.endpoints.first() else { return report };
        let mut secrets = Vec::new();
        for key in self.upstream.keys.iter().filter(|key| key.enabled) {
            match self.secret(key).await {
                Ok(secret) => secrets.push((key, secret)),
                Err(check) => report.checks.push(check),
            }
        }
        let needs_key = self.upstream.auth != Auth::None;
        if needs_key && secrets.is_empty() && report.checks.is_empty() {
            let fix = format!("`aiproxy key add {name}`");
            report.checks.push(Check::fail("key", &name, "the upstream has no key", fix));
        }
        let first = secrets.first().map(|(_, secret)| secret);
        let answer = match self.fetch(end, first).await {
            Ok(answer) => answer,
            Err(check) => {
                report.checks.push(check);
                return report;
            }
        };
        report.answer = self.timed(&answer);
        let verdict = verdict::read(end.dialect, &answer);
        report.checks.push(self.address_check(end, &answer, verdict, first).await);
        if matches!(verdict, FreeCallVerdict::NotThere { .. } | FreeCallVerdict::Broken(_)) {
            return report;
        }
        let others = secrets.iter().skip(1).map(|(_, secret)| self.fetch(end, Some(secret)));
        let others = join_all(others).await.into_iter().map(|answer| match answer {
            Ok(answer) => verdict::read(end.dialect, &answer),
            Err(_) => FreeCallVerdict::Broken(0),
        });
        for ((key, _), verdict) in secrets.iter().zip([verdict].into_iter().chain(others)) {
            report.checks.push(self.key_check(key, verdict));
        }
        report
    }

    /// Reads a key, or says why it cannot be read.
    async fn secret(&self, key: &UpstreamKey) -> Result<Secret, Check> {
        const CHECK: &str = "key";
        let name = key.name.to_string();
        if let (Reference::Keyring(entry), Some(error)) = (&key.reference, self.obstacle) {
            let text = format!("`keyring:{entry}` cannot be read: {error}");
            return Err(Check::fail(CHECK, name, text, error.hint()));
        }
        match tokio::time::timeout(TIMEOUT, self.resolver.resolve(&key.reference)).await {
            Ok(Ok(secret)) => Ok(secret),
            Ok(Err(error)) => {
                let fix = error.hint().replace("UPSTREAM", &self.upstream.name);
                Err(Check::fail(CHECK, name, format!("missing: {}", error.text()), fix))
            }
            Err(_) => {
                let text = format!("it could not be read within {} s", TIMEOUT.as_secs());
                let fix = format!("`aiproxy key test {}` shows more", key.name);
                Err(Check::fail(CHECK, name, text, fix))
            }
        }
    }

    async fn fetch(
        &self,
        end: &DialectEndpoint,
        secret: Option<&Secret>,
    ) -> Result<SmallResponse, Check> {
        let fetch = verify::fetch_models(self.upstream, end, secret);
        match tokio::time::timeout(TIMEOUT, fetch).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(fault)) => Err(self.fault_check(&fault)),
            Err(_) => {
                let text = format!("no answer within {} s", TIMEOUT.as_secs());
                Err(Check::fail("upstream", &*self.upstream.name, text, self.address_fix()))
            }
        }
    }

    fn address_fix(&self) -> String {
        let name = &self.upstream.name;
        if self.upstream.local {
            format!(
                "start the server there, or `aiproxy upstream set {name} base_url=URL`, or \
                 `aiproxy upstream disable {name}`"
            )
        } else {
            format!(
                "check the network; if the address is wrong, `aiproxy upstream set {name} \
                 base_url=URL`"
            )
        }
    }

    fn fault_check(&self, fault: &TransportFault) -> Check {
        let name = self.upstream.name.to_string();
        let text = fault.reason.to_string();
        match fault.kind {
            TransportKind::Dns => {
                let text = format!("{text}: the name does not resolve");
                Check::fail("dns", name, text, self.address_fix())
            }
            TransportKind::Tls => {
                let fix = format!(
                    "if you trust it, `aiproxy upstream set {name} ca_file=/PATH/TO/CA.pem` with the \
                     certificate of its issuer"
                );
                Check::fail("tls", name, text, fix)
            }
            _ => Check::fail("upstream", name, text, self.address_fix()),
        }
    }

    fn timed(&self, answer: &SmallResponse) -> Option<TimedAnswer> {
        let date = answer.headers.get("date")?.to_str().ok()?;
        let at = httpdate::parse_http_date(date).ok()?;
        let since = at.duration_since(std::time::UNIX_EPOCH).ok()?;
        let there = UnixMillis(i64::try_from(since.as_millis()).ok()?);
        Some(TimedAnswer {
            upstream: self.upstream.name.to_string(),
            there,
            here: SystemClock.unix(),
        })
    }

    /// The line about the address: whether an API is there.
    async fn address_check(
        &self,
        end: &DialectEndpoint,
        answer: &SmallResponse,
        verdict: FreeCallVerdict,
        secret: Option<&Secret>,
    ) -> Check {
        const CHECK: &str = "upstream";
        let name = self.upstream.name.to_string();
        let status = answer.status.as_u16();
        let page = match verdict {
            FreeCallVerdict::Broken(_) => {
                let text = format!("it answers with status {status}");
                let fix = format!("wait, or `aiproxy upstream disable {name}`");
                return Check::fail(CHECK, name, text, fix);
            }
            FreeCallVerdict::NotThere { page } => page,
            _ => {
                let host = base_url::origin_of(&end.base_url);
                return Check::ok(CHECK, name, format!("it answers at {host}"));
            }
        };
        if let Some(url) = self.other_base(end, secret).await {
            let text = format!("status {status} at {}; the API is at {url}", end.base_url);
            let fix = format!("`aiproxy upstream set {name} base_url={url}`");
            return Check::fail(CHECK, name, text, fix);
        }
        if page {
            let text = format!("status {status} and a web page at {}, no API", end.base_url);
            return Check::fail(CHECK, name, text, self.address_fix());
        }
        let text = format!("it answers and lists no models (status {status})");
        Check::warn(CHECK, &name, text, self.ask_fix())
    }

    /// Returns the base URL at which the API is, if a part of the path is missing.
    async fn other_base(&self, end: &DialectEndpoint, secret: Option<&Secret>) -> Option<String> {
        let base = end.base_url.trim_end_matches('/');
        let fits = |path: &&&str| (**path == "/v1beta") == (end.dialect == Dialect::Gemini);
        let tries = PATHS.iter().filter(fits).filter(|path| !base.ends_with(**path));
        let tries: Vec<DialectEndpoint> = tries
            .map(|path| DialectEndpoint { base_url: format!("{base}{path}"), ..end.clone() })
            .collect();
        let answers = join_all(tries.iter().map(|end| self.fetch(end, secret))).await;
        let found = answers.iter().position(|answer| {
            let is_api = |verdict| {
                !matches!(verdict, FreeCallVerdict::NotThere { .. } | FreeCallVerdict::Broken(_))
            };
            answer.as_ref().is_ok_and(|answer| is_api(verdict::read(end.dialect, answer)))
        });
        found.map(|at| tries[at].base_url.clone())
    }

    /// The line about a key.
    fn key_check(&self, key: &UpstreamKey, verdict: FreeCallVerdict) -> Check {
        const CHECK: &str = "key";
        let name = key.name.to_string();
        let upstream = &self.upstream.name;
        match verdict {
            FreeCallVerdict::Works(count) => {
                Check::ok(CHECK, name, format!("accepted; models: {count}"))
            }
            FreeCallVerdict::Rejected => {
                let fix = format!(
                    "`aiproxy key add {upstream}` with a new one, then `aiproxy key remove {name}`"
                );
                Check::fail(CHECK, name, "the provider rejects it (401)", fix)
            }
            FreeCallVerdict::NoCredit => {
                let page = self.upstream.key_page.as_deref();
                let page = page.map(|page| format!(" ({page})")).unwrap_or_default();
                let fix = format!(
                    "add credit in the provider's billing page{page}, or `aiproxy key disable {name}`"
                );
                Check::fail(CHECK, name, "its account has no credit", fix)
            }
            FreeCallVerdict::Forbidden => {
                let text = "it may not list models; only a paid call proves it";
                Check::warn(CHECK, name, text, self.ask_fix())
            }
            FreeCallVerdict::Limited => {
                let text = "the provider limits it at the moment (429)";
                Check::warn(CHECK, name, text, "wait; `aiproxy key list` shows when it is free")
            }
            FreeCallVerdict::NotThere { .. } | FreeCallVerdict::Broken(_) => {
                Check::warn(CHECK, name, "it could not be tried", self.ask_fix())
            }
        }
    }

    /// The paid call that proves what a free one cannot.
    fn ask_fix(&self) -> String {
        let preset = self.upstream.preset.as_deref().and_then(presets::find);
        let lists_none = preset.is_some_and(|preset| preset.models.is_some());
        let why = if lists_none { "its provider publishes no list; " } else { "" };
        format!("{why}`aiproxy ask {}:MODEL hello` proves it with a paid call", self.upstream.name)
    }
}
