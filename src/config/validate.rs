//! Checks consistency: duplicate names, targets that lead nowhere or in a circle, addresses of
//! aiproxy itself, and credentials in the wrong place. A separate check, apart from loading, finds
//! references that cannot be resolved.

use std::{collections::HashMap, path::Path};

use crate::config::{
    Environment, base_url, presets,
    problem::Report,
    reader::{Located, SourceSpan, truncate},
    schema::{
        RawConfig,
        model::{RawAlias, RawModel, RawTarget},
        upstream::{self as written, KeyKind, RawBaseUrl},
    },
    settings::{ServerSettings, Settings, Upstream, UpstreamKey},
    table::Written,
};
use crate::{
    base::{fs, pattern::Pattern, suggest},
    secrets::Reference,
};

/// The name of the upstream that always exists.
pub const DEMO_NAME: &str = "demo";

/// Checks for duplicate names, listeners open to everyone, and client keys in the file.
pub(super) fn check_names(all: &RawConfig, report: &mut Report) {
    check_unique(
        all.upstreams.iter().map(|row| (row.name.value.as_str(), &row.name.span)),
        "upstreams",
        report,
    );
    check_unique(
        all.projects.iter().map(|row| (row.name.value.as_str(), &row.name.span)),
        "projects",
        report,
    );
    let models = all.models.iter().map(|row| (row.name.value.text(), &row.name.span));
    let aliases = all.aliases.iter().map(|row| (row.name.value.text(), &row.name.span));
    check_unique(models.chain(aliases), "models or aliases", report);
    check_listeners(all, report);
    check_keyless(all, report);
    check_alerts(all, report);
    let mut seen: Vec<(String, &SourceSpan)> = Vec::new();
    for row in &all.projects {
        let Some(key) = &row.key else { continue };
        if matches!(key.value, Reference::Literal(_)) {
            warn_literal(&key.span, &format!("project.{}.key", row.name.value), report);
        }
        let shown = match &key.value {
            Reference::Literal(secret) => format!("{:?}", secret.digest()),
            other => other.to_string(),
        };
        match seen.iter().find(|(known, _)| *known == shown) {
            Some((_, first)) => {
                let help = Some(
                    "give each project a key of its own: `aiproxy project rotate NAME`".to_owned(),
                );
                report.duplicate(
                    &key.span,
                    first,
                    format!("`project.{}.key` is the key of another project", row.name.value),
                    help,
                );
            }
            None => seen.push((shown, &key.span)),
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

fn check_listeners(all: &RawConfig, report: &mut Report) {
    let Written { value: server, spans } = &all.server;
    let mut addresses = server.listen.addresses.iter();
    let public_addr = addresses.find(|at| !at.ip().to_canonical().is_loopback());
    if let (Some(public_addr), false) = (public_addr, server.auth) {
        let span = spans.get("auth").or(spans.get("listen")).cloned().unwrap_or(0..0);
        let help = "remove `auth = false`, or listen on 127.0.0.1 and [::1] only".to_owned();
        report.error(&span, format!("`server.auth` is off while `server.listen` has {public_addr}, which other machines can reach"), Some(help));
    }
}

fn check_alerts(all: &RawConfig, report: &mut Report) {
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

fn check_keyless(all: &RawConfig, report: &mut Report) {
    for row in &all.keyless {
        if let Some(name) = row.project.as_ref().filter(|name| name.value != "default")
            && !all.projects.iter().any(|project| project.name.value == name.value)
        {
            let help = format!("`aiproxy project add {}` makes it", name.value);
            report.error(&name.span, format!("no project is called `{}`", name.value), Some(help));
        }
        if let Some(same) =
            row.listen.value.0.iter().find(|at| all.server.value.listen.addresses.contains(at))
        {
            let help =
                "give the keyless listener a port of its own, such as 127.0.0.1:11435".to_owned();
            report.error(
                &row.listen.span,
                format!("{same} is where `server.listen` listens"),
                Some(help),
            );
        }
    }
}

/// Checks one upstream.
pub(super) fn check_upstream(
    row: &written::RawUpstream,
    upstream: &Upstream,
    server: &ServerSettings,
    report: &mut Report,
) {
    let name = &row.name.value;
    if let Some(end) = upstream
        .endpoints
        .iter()
        .find(|end| base_url::is_local_listener(&end.base_url, &server.listen.addresses))
    {
        let span = match &row.base_url {
            Some(RawBaseUrl::Single(url)) => url.span.clone(),
            Some(RawBaseUrl::PerDialect(_, span)) => span.clone(),
            None => row.name.span.clone(),
        };
        let help = "name the provider's address, or listen on another port".to_owned();
        report.error(
            &span,
            format!("`upstream.{name}.base_url`: {} is this proxy itself; requests would go in a circle", end.base_url),
            Some(help),
        );
    }
    if let Some(at) = row.insecure_tls.as_ref().filter(|at| at.value) {
        let help = "to trust a company's own authority, name it in `ca_file`".to_owned();
        report.warn(
            &at.span,
            format!("`upstream.{name}.insecure_tls`: anybody on the way can read and change what is sent, keys included"),
            Some(help),
        );
    }
    for key in &row.keys {
        let path = format!("upstream.{name}.keys");
        match (&key.reference.value, key.key_kind) {
            (Reference::Literal(_), KeyKind::Client) => {
                let help = format!("put the provider's key there: `aiproxy key add {name}`");
                report.error(
                    &key.reference.span,
                    format!(
                        "`{path}`: this is a client key of aiproxy (aip-…), not a key of a provider"
                    ),
                    Some(help),
                );
            }
            (Reference::Literal(_), key_kind) => {
                warn_literal(&key.reference.span, &path, report);
                if let (KeyKind::Provider(other), Some(preset)) =
                    (key_kind, upstream.preset.as_deref().and_then(presets::find))
                    && other != &*preset.name
                    && preset.key_prefix.is_some()
                {
                    let title = presets::find(other).map_or(other, |other| &other.title);
                    report.warn(
                        &key.reference.span,
                        format!(
                            "`{path}`: this looks like a key of {title}, not of {}",
                            preset.title
                        ),
                        None,
                    );
                }
            }
            _ => {}
        }
    }
    let needs =
        upstream.preset.as_deref().and_then(presets::find).is_some_and(presets::Preset::needs_key);
    if needs && upstream.keys.is_empty() && row.keys.is_empty() && upstream.enabled {
        report.warn(
            &row.name.span,
            format!("`upstream.{name}` has no key"),
            Some(format!("`aiproxy key add {name}` adds one")),
        );
    }
}

fn warn_literal(span: &SourceSpan, path: &str, report: &mut Report) {
    let help = "`aiproxy key adopt` moves it into the keyring".to_owned();
    report.warn(span, format!("`{path}`: a key stands in the file itself"), Some(help));
}

/// Splits `upstream:model` if the first part is an upstream: in the file, of a preset (it may be
/// discovered), or `demo`.
pub(super) fn split_target<'a>(
    text: &'a str,
    upstreams: &[written::RawUpstream],
) -> (Option<&'a str>, &'a str) {
    match text.split_once(':') {
        Some((upstream, model)) if upstream_exists(upstream, upstreams) && !model.is_empty() => {
            (Some(upstream), model)
        }
        _ => (None, text),
    }
}

fn upstream_exists(name: &str, upstreams: &[written::RawUpstream]) -> bool {
    name == DEMO_NAME
        || presets::find(name).is_some()
        || upstreams.iter().any(|row| row.name.value == name)
}

/// Checks the targets of models and aliases: unknown upstreams and circles.
pub(super) fn check_targets(
    models: &[RawModel],
    aliases: &[RawAlias],
    upstreams: &[written::RawUpstream],
    report: &mut Report,
) {
    for row in models {
        for target in &row.targets {
            match target {
                RawTarget::Name(text) => check_prefix(
                    text,
                    &format!("model.{}.targets", row.name.value.text()),
                    upstreams,
                    report,
                ),
                RawTarget::Table { upstream: Some(at), .. }
                    if !upstream_exists(&at.value, upstreams) =>
                {
                    report_unknown_upstream(
                        at,
                        &at.value,
                        &format!("model.{}.targets", row.name.value.text()),
                        None,
                        upstreams,
                        report,
                    );
                }
                RawTarget::Table { .. } => {}
            }
        }
    }
    for row in aliases {
        check_prefix(&row.target, &format!("aliases.{}", row.name.value.text()), upstreams, report);
    }
    check_cycles(models, aliases, upstreams, report);
}

/// Reports a target of the form `x:y` whose `x` is not an upstream, unless it is a model name with
/// a colon in it.
fn check_prefix(
    text: &Located<String>,
    path: &str,
    upstreams: &[written::RawUpstream],
    report: &mut Report,
) {
    let Some((upstream, model)) = text.value.split_once(':') else { return };
    if upstream_exists(upstream, upstreams) || upstream == "re" {
        return;
    }
    // `llama3:8b`, `qwen2.5:latest`, `vendor/model:free`
    let tag = model.starts_with(|c: char| c.is_ascii_digit()) || model == "latest";
    let model_name =
        upstream.contains(['/', '.', '*']) || upstream.chars().any(|c| c.is_ascii_digit());
    let near = nearest_upstream(upstream, upstreams);
    if tag || (model_name && near.is_none()) {
        return;
    }
    report_unknown_upstream(text, upstream, path, Some(model), upstreams, report);
}

fn nearest_upstream<'a>(name: &str, upstreams: &'a [written::RawUpstream]) -> Option<&'a str> {
    let names = upstreams
        .iter()
        .map(|row| row.name.value.as_str())
        .chain(presets::all().iter().map(|preset| &*preset.name));
    suggest::nearest(name, names)
}

fn report_unknown_upstream<T>(
    at: &Located<T>,
    name: &str,
    path: &str,
    model: Option<&str>,
    upstreams: &[written::RawUpstream],
    report: &mut Report,
) {
    let help = match (nearest_upstream(name, upstreams), model) {
        (Some(known), _) => format!("did you mean `{known}`?"),
        (None, Some(model)) => {
            format!(
                "`aiproxy upstream add {name}` adds it; a model whose name has a colon is written {{ model = \"{name}:{model}\" }}"
            )
        }
        (None, None) => format!("`aiproxy upstream add {name}` adds it"),
    };
    report.error(
        &at.span,
        format!("`{path}`: there is no upstream `{}`", truncate(name)),
        Some(help),
    );
}

/// A name that leads to other names.
struct NameLink<'a> {
    name: &'a Pattern,
    span: &'a SourceSpan,
    next: Vec<&'a str>,
}

/// Reports aliases that lead back to themselves.
fn check_cycles(
    models: &[RawModel],
    aliases: &[RawAlias],
    upstreams: &[written::RawUpstream],
    report: &mut Report,
) {
    let names_only = |target: &'_ str| {
        split_target(target, upstreams).0.is_none() && !target.contains(['*', '?'])
    };
    let mut steps = Vec::new();
    for row in models {
        let next = row.targets.iter().filter_map(|target| match target {
            RawTarget::Name(text) => Some(text.value.as_str()),
            RawTarget::Table { upstream: None, model, .. } => Some(model.value.as_str()),
            RawTarget::Table { .. } => None,
        });
        steps.push(NameLink {
            name: &row.name.value,
            span: &row.name.span,
            next: next.filter(|t| names_only(t)).collect(),
        });
    }
    for row in aliases {
        let next = Some(row.target.value.as_str()).filter(|t| names_only(t)).into_iter().collect();
        steps.push(NameLink { name: &row.name.value, span: &row.name.span, next });
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
