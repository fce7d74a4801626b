//! Checks consistency: duplicate names, aliases that lead in a circle, addresses of aiproxy itself,
//! and credentials in the wrong place. A separate check, apart from loading, finds references that
//! cannot be resolved.

use std::{collections::HashMap, path::Path};

use crate::config::{
    base_url,
    discover::Environment,
    presets,
    problem::Report,
    reader::{KeySpans, Located, SourceSpan},
    schema::{
        alert_receiver::AlertReceiver,
        alerts::AlertSettings,
        general::ServerSettings,
        keyless::KeylessListener,
        mcp::McpServer,
        model::{Alias, LogicalModel},
        project::Project,
        targets::UpstreamNames,
        upstream::{Upstream, UpstreamRow},
        upstream_key::{KeyKind, UpstreamKey, warn_literal},
    },
    settings::Settings,
    table::Written,
};
use crate::{
    base::{fs, pattern::Pattern},
    secrets::Reference,
};

/// What is checked across tables and rows, with the positions in the file.
pub(super) struct FileRows {
    pub(super) server: Written<ServerSettings>,
    pub(super) alerts: Written<AlertSettings>,
    pub(super) upstreams: Vec<UpstreamRow>,
    pub(super) names: UpstreamNames,
    pub(super) models: Vec<Written<LogicalModel>>,
    pub(super) aliases: Vec<Located<Alias>>,
    pub(super) mcp: Vec<Written<McpServer>>,
    pub(super) projects: Vec<Written<Project>>,
    pub(super) keyless: Vec<Written<KeylessListener>>,
    pub(super) receivers: Vec<Written<AlertReceiver>>,
}

/// Checks everything that one table or row cannot know.
pub(super) fn check_rows(all: &FileRows, report: &mut Report) {
    let upstreams = all.upstreams.iter().map(|row| (row.name.value.as_str(), &row.name.span));
    check_unique(upstreams, "upstreams", report);
    let projects = all.projects.iter().map(|row| (&*row.value.name, row.spans.name()));
    check_unique(projects, "projects", report);
    let servers = all.mcp.iter().map(|row| (&*row.value.name, row.spans.name()));
    check_unique(servers, "MCP servers", report);
    let models = all.models.iter().map(|row| (row.value.name.text(), row.spans.name()));
    let aliases = all.aliases.iter().map(|row| (row.value.name.text(), &row.span));
    check_unique(models.chain(aliases), "models or aliases", report);
    let receivers = all.receivers.iter().map(|row| (&*row.value.name, row.spans.name()));
    check_unique(receivers, "alert receivers", report);
    check_listeners(all, report);
    check_keyless(all, report);
    check_alerts(all, report);
    check_project_keys(all, report);
    for row in &all.upstreams {
        if let Some(Written { value, spans }) = &row.upstream {
            check_upstream(value, spans, &all.server.value, report);
        }
    }
    check_cycles(all, report);
}

fn check_project_keys(all: &FileRows, report: &mut Report) {
    let mut seen: Vec<(String, &SourceSpan)> = Vec::new();
    for Written { value: project, spans } in &all.projects {
        let (Some(key), Some(span)) = (&project.key, spans.get("key")) else { continue };
        let path = format!("project.{}.key", project.name);
        if matches!(key, Reference::Literal(_)) {
            warn_literal(span, &path, report);
        }
        let shown = match key {
            Reference::Literal(secret) => format!("{:?}", secret.digest()),
            other => other.to_string(),
        };
        match seen.iter().find(|(known, _)| *known == shown) {
            Some((_, first)) => {
                let help = Some(format!(
                    "give each project a key of its own: `aiproxy project rotate {}`",
                    project.name
                ));
                let title = format!("`{path}` is the key of another project");
                report.duplicate(span, first, title, help);
            }
            None => seen.push((shown, span)),
        }
    }
}

fn check_unique<'a>(
    names: impl Iterator<Item = (&'a str, &'a SourceSpan)>,
    what: &str,
    report: &mut Report,
) {
    let mut seen: HashMap<&str, &SourceSpan> = HashMap::new();
    for (name, span) in names {
        match seen.get(name) {
            Some(first) => report.duplicate(
                span,
                first,
                format!("two {what} are called `{name}`"),
                Some("rename one of them".to_owned()),
            ),
            None => drop(seen.insert(name, span)),
        }
    }
}

fn check_listeners(all: &FileRows, report: &mut Report) {
    let Written { value: server, spans } = &all.server;
    let mut addresses = server.listen.addresses.iter();
    let public_addr = addresses.find(|at| !at.ip().to_canonical().is_loopback());
    if let (Some(public_addr), false) = (public_addr, server.auth) {
        let span = spans.get("auth").or(spans.get("listen")).cloned().unwrap_or(0..0);
        let help = "remove `auth = false`, or listen on 127.0.0.1 and [::1] only".to_owned();
        report.error(&span, format!("`server.auth` is off while `server.listen` has {public_addr}, which other machines can reach"), Some(help));
    }
}

fn check_alerts(all: &FileRows, report: &mut Report) {
    let (alerts, Some(at)) = (&all.alerts.value, all.alerts.spans.get("secret")) else { return };
    if matches!(alerts.secret, Some(Reference::Literal(_))) {
        let help = "keep it elsewhere and name the place: \"env:NAME\", \"file:PATH\" or \"keyring:LABEL\"".to_owned();
        report.warn(at, "`alerts.secret`: a secret stands in the file itself", Some(help));
    }
    if alerts.secret.is_some() && alerts.webhook.is_none() && alerts.feishu.is_none() {
        report.warn(
            at,
            "`alerts.secret` signs nothing: there is neither `webhook` nor `feishu`",
            None,
        );
    }
}

fn check_keyless(all: &FileRows, report: &mut Report) {
    for Written { value: row, spans } in &all.keyless {
        if let Some(span) = spans.get("project").filter(|_| *row.project != *"default")
            && !all.projects.iter().any(|project| project.value.name == row.project)
        {
            let help = format!("`aiproxy project add {}` makes it", row.project);
            report.error(span, format!("no project is called `{}`", row.project), Some(help));
        }
        let main = &all.server.value.listen.addresses;
        let mut same = row.listen.addresses.iter().filter(|at| main.contains(at));
        if let (Some(same), Some(span)) = (same.next(), spans.get("listen")) {
            let help =
                "give the keyless listener a port of its own, such as 127.0.0.1:11435".to_owned();
            report.error(span, format!("{same} is where `server.listen` listens"), Some(help));
        }
    }
}

fn check_upstream(
    upstream: &Upstream,
    spans: &KeySpans,
    server: &ServerSettings,
    report: &mut Report,
) {
    let name = &upstream.name;
    if let Some(end) = upstream
        .endpoints
        .iter()
        .find(|end| base_url::is_local_listener(&end.base_url, &server.listen.addresses))
    {
        let span = spans.get("base_url").unwrap_or(spans.name());
        let help = "name the provider's address, or listen on another port".to_owned();
        report.error(
            span,
            format!("`upstream.{name}.base_url`: {} is this proxy itself; requests would go in a circle", end.base_url),
            Some(help),
        );
    }
    if let Some(span) = spans.get("insecure_tls").filter(|_| upstream.insecure_tls) {
        let help = "to trust a company's own authority, name it in `ca_file`".to_owned();
        report.warn(
            span,
            format!("`upstream.{name}.insecure_tls`: anybody on the way can read and change what is sent, keys included"),
            Some(help),
        );
    }
    let needs =
        upstream.preset.as_deref().and_then(presets::find).is_some_and(presets::Preset::needs_key);
    if needs && upstream.keys.is_empty() && upstream.enabled {
        report.warn(
            spans.name(),
            format!("`upstream.{name}` has no key"),
            Some(format!("`aiproxy key add {name}` adds one")),
        );
    }
}

/// A name that leads to other names.
struct NameLink<'a> {
    name: &'a Pattern,
    span: &'a SourceSpan,
    next: Vec<&'a str>,
}

/// Reports aliases that lead back to themselves.
fn check_cycles(all: &FileRows, report: &mut Report) {
    let is_name =
        |target: &&str| all.names.split_target(target).0.is_none() && !target.contains(['*', '?']);
    let mut steps = Vec::new();
    for Written { value: model, spans } in &all.models {
        let unbound = model.targets.iter().filter(|target| target.upstream.is_none());
        let next = unbound.map(|target| &*target.model).filter(is_name).collect();
        steps.push(NameLink { name: &model.name, span: spans.name(), next });
    }
    for Located { value: alias, span } in &all.aliases {
        let next = Some(&*alias.target).filter(is_name).into_iter().collect();
        steps.push(NameLink { name: &alias.name, span, next });
    }
    // 0: unvisited, 1: on the current path, 2: done.
    let mut state = vec![0_u8; steps.len()];
    for start in 0..steps.len() {
        visit(start, &steps, &mut state, &mut Vec::new(), report);
    }
}

fn visit(
    at: usize,
    steps: &[NameLink<'_>],
    state: &mut [u8],
    trail: &mut Vec<usize>,
    report: &mut Report,
) {
    if state[at] == 2 {
        return;
    }
    if state[at] == 1 {
        let begin = trail.iter().position(|step| *step == at).unwrap_or(0);
        let names: Vec<_> = trail[begin..]
            .iter()
            .chain([&at])
            .map(|step| format!("`{}`", steps[*step].name.text()))
            .collect();
        let help = Some(
            "let one of them name a model that an upstream serves, as in \"openai:gpt-4o\""
                .to_owned(),
        );
        report.error(steps[at].span, format!("names in a circle: {}", names.join(" → ")), help);
        return;
    }
    // A chain of 200 names is a mistake as well, and must not exhaust the stack.
    if trail.len() < 200 {
        state[at] = 1;
        trail.push(at);
        for next in &steps[at].next {
            // A pattern may lead to a name that it matches itself: that name is then a model's own.
            if let Some(next) =
                target_index(next, steps).filter(|next| *next != at || steps[at].name.is_exact())
            {
                visit(next, steps, state, trail, report);
            }
        }
        trail.pop();
    }
    state[at] = 2;
}

/// Finds where a name leads: exact names first, then patterns other than `*`.
fn target_index(name: &str, steps: &[NameLink<'_>]) -> Option<usize> {
    let exact = steps.iter().position(|step| step.name.is_exact() && step.name.text() == name);
    exact.or_else(|| {
        steps.iter().position(|step| {
            !step.name.is_exact() && !step.name.is_any() && step.name.matches(name)
        })
    })
}

/// Returns the references of the config that cannot be resolved, without using the keyring or
/// running a command. Each message names the reference, never its value.
#[must_use]
pub fn check_references(settings: &Settings, env: &Environment) -> Vec<String> {
    let mut out = Vec::new();
    for upstream in settings.upstreams.iter().filter(|upstream| upstream.enabled) {
        for key in &upstream.keys {
            out.extend(check_provider_key(upstream, key, env));
        }
        if let Some(file) = &upstream.ca_file
            && let Err(e) = std::fs::metadata(file)
        {
            out.push(format!(
                "`upstream.{}.ca_file`: {}: {}",
                upstream.name,
                file.display(),
                io_error_text(&e)
            ));
        }
    }
    for project in settings.projects.iter().filter(|project| project.enabled) {
        let found = project.key.as_ref().and_then(|reference| reference_problem(reference, env));
        out.extend(found.map(|problem| format!("key of project `{}`: {problem}", project.name)));
    }
    let secret =
        settings.alerts.secret.as_ref().and_then(|reference| reference_problem(reference, env));
    out.extend(secret.map(|problem| format!("`alerts.secret`: {problem}")));
    for receiver in &settings.alert_receivers {
        let secret = receiver.secret.as_ref();
        let problem = secret.and_then(|reference| reference_problem(reference, env));
        let name = &receiver.name;
        out.extend(problem.map(|problem| format!("secret of alert receiver `{name}`: {problem}")));
    }
    for (name, reference) in &settings.otlp.headers {
        out.extend(
            reference_problem(reference, env)
                .map(|problem| format!("`otlp.headers.{name}`: {problem}")),
        );
    }
    out
}

fn check_provider_key(upstream: &Upstream, key: &UpstreamKey, env: &Environment) -> Option<String> {
    let problem = reference_problem(&key.reference, env);
    let problem = problem.or_else(|| {
        let Reference::Env(name) = &key.reference else { return None };
        let value = env.get(name)?.trim();
        let preset = upstream.preset.as_deref().and_then(presets::find)?;
        match KeyKind::detect(value) {
            KeyKind::Client => Some(format!(
                "env:{name} holds a client key of aiproxy (aip-…), not a key of a provider"
            )),
            KeyKind::Provider(other) if other != &*preset.name && preset.key_prefix.is_some() => {
                let title = presets::find(other).map_or(other, |other| &other.title);
                Some(format!("env:{name} looks like a key of {title}, not of {}", preset.title))
            }
            KeyKind::Provider(_) | KeyKind::Unknown => None,
        }
    })?;
    Some(format!("key `{}`: {problem}", key.name))
}

fn reference_problem(reference: &Reference, env: &Environment) -> Option<String> {
    match reference {
        Reference::Env(name) => match env.get(name) {
            None => Some(format!("env:{name} is not set")),
            Some(value) if value.trim().is_empty() => Some(format!("env:{name} is set but empty")),
            Some(value) if value.trim().contains(|c: char| c.is_whitespace() || c.is_control()) => {
                Some(format!("env:{name} has spaces or line ends inside: no key has"))
            }
            Some(value) if value.starts_with("aip-") => {
                Some(format!("env:{name} holds a client key of aiproxy (aip-…)"))
            }
            Some(_) => None,
        },
        Reference::File(path) => file_problem(path),
        Reference::Command(words) => program_problem(words.first()?, env),
        Reference::Keyring(_) | Reference::Literal(_) | Reference::Vault(_) => None,
    }
}

fn file_problem(path: &Path) -> Option<String> {
    let shown = format!("file:{}", path.display());
    match std::fs::metadata(path) {
        Err(e) => Some(format!("{shown}: {}", io_error_text(&e))),
        Ok(found) if !found.is_file() => Some(format!("{shown} is not a file")),
        Ok(_) => {
            let mode = fs::mode_open_to_others(path)?;
            Some(format!("{shown}: others can read it (mode {mode}); `chmod 600` closes it"))
        }
    }
}

fn program_problem(name: &str, env: &Environment) -> Option<String> {
    if name.contains('/') {
        return std::fs::metadata(name).err().map(|e| format!("cmd:{name}: {}", io_error_text(&e)));
    }
    let found = std::env::split_paths(env.get("PATH")?)
        .any(|folder| folder.join(name).is_file() || folder.join(format!("{name}.exe")).is_file());
    (!found).then(|| format!("cmd:{name}: there is no such program on the PATH"))
}

/// Returns an I/O error in words.
pub(super) fn io_error_text(e: &std::io::Error) -> String {
    match e.kind() {
        std::io::ErrorKind::NotFound => "there is no such file".to_owned(),
        std::io::ErrorKind::PermissionDenied => "it may not be read".to_owned(),
        _ => e.to_string(),
    }
}
