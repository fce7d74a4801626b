//! Discovers upstreams without configuration: keys in the environment, servers on this machine, and
//! the demo.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use super::{
    IdInterner, Settings, base_url,
    presets::{self, Preset},
    schema::{DISCOVERED_PRIORITY, targets::DEMO_NAME},
    settings::{DialectEndpoint, Origin, Timeouts, Upstream, UpstreamKey},
};
use crate::{
    base::pattern::Patterns,
    ir::{op::Dialect, reason::unused_variable::UnusedVariable},
    secrets::Reference,
};

/// The variables of a process, as captured once. Values may be keys, so `Debug` shows names only.
#[derive(Clone, Default)]
pub struct Environment {
    pub vars: HashMap<String, String>,
}

impl Environment {
    /// Captures the environment of this process; skips variables that are not UTF-8.
    #[must_use]
    pub fn from_process() -> Self {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Self { vars: std::env::vars_os().filter_map(text).collect() }
    }

    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.vars.get(name).map(String::as_str)
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Self {
        Self { vars: pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect() }
    }
}

impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.vars.keys()).finish()
    }
}

/// Returns an upstream for every preset whose variable contains a key, and a note for each variable
/// that contains something else.
#[must_use]
pub fn from_env(
    env: &Environment,
    ids: &mut IdInterner,
    timeouts: &Timeouts,
) -> (Vec<Arc<Upstream>>, Vec<UnusedVariable>) {
    let (mut found, mut notes) = (Vec::new(), Vec::new());
    for preset in presets::all() {
        let mut upstream = from_preset(preset, Origin::Env, ids, timeouts);
        let mut seen = Vec::new();
        for name in &preset.key_env {
            let Some(value) = env.get(name).map(str::trim).filter(|value| !value.is_empty()) else {
                continue;
            };
            if value.starts_with("aip-") {
                notes.push(UnusedVariable::ClientKey {
                    variable: (**name).into(),
                    provider: preset.title.as_str().into(),
                });
            } else if value.contains(|c: char| c.is_whitespace() || c.is_control()) {
                notes.push(UnusedVariable::Spaces { variable: (**name).into() });
            } else if preset.needs_url {
                notes.push(UnusedVariable::NeedsUrl {
                    variable: (**name).into(),
                    provider: preset.title.as_str().into(),
                    upstream: Arc::clone(&preset.name),
                });
            } else if !seen.contains(&value) {
                seen.push(value);
                upstream.keys.push(Arc::new(env_key(&upstream.name, name, ids)));
            }
        }
        if !upstream.keys.is_empty() {
            found.push(Arc::new(upstream));
        }
    }
    (found, notes)
}

fn env_key(upstream: &str, variable: &str, ids: &mut IdInterner) -> UpstreamKey {
    let reference = Reference::Env(variable.to_owned());
    UpstreamKey { reference, ..UpstreamKey::default() }.named(upstream, variable.to_owned(), ids)
}

/// A server that may run on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalServer {
    pub preset: Arc<str>,
    pub name: Arc<str>,
    /// Base URL of its preferred dialect.
    pub base_url: String,
    /// Absolute path on the server: a GET there returns 200 if it runs.
    pub probe_path: String,
}

impl LocalServer {
    /// Returns the URL that tests whether the server runs.
    #[must_use]
    pub fn probe_url(&self) -> Option<String> {
        let (host, port) = base_url::host_port(&self.base_url)?;
        Some(format!("http://{host}:{port}{}", self.probe_path))
    }
}

/// Returns the servers to probe.
#[must_use]
pub fn local_servers() -> Vec<LocalServer> {
    let local = presets::all().iter().filter(|preset| preset.is_local());
    local
        .map(|preset| LocalServer {
            preset: preset.name.clone(),
            name: preset.name.clone(),
            base_url: preset.endpoints[0].base_url.clone(),
            probe_path: preset.probe_path.clone().unwrap_or_else(|| "/v1/models".to_owned()),
        })
        .collect()
}

/// Returns the upstream for a local server that answered.
#[must_use]
pub fn local_upstream(server: &LocalServer, ids: &mut IdInterner, timeouts: &Timeouts) -> Upstream {
    let Some(preset) = presets::find(&server.preset) else {
        let end = DialectEndpoint {
            dialect: Dialect::Openai,
            base_url: server.base_url.clone(),
            query: None,
        };
        return minimal_upstream(&server.name, vec![end], Origin::Local, ids, timeouts);
    };
    from_preset(preset, Origin::Local, ids, timeouts)
}

/// Returns the upstream inside this process; it supports every dialect and costs nothing.
#[must_use]
pub fn demo_upstream(ids: &mut IdInterner, timeouts: &Timeouts) -> Upstream {
    let dialects =
        [Dialect::Openai, Dialect::Responses, Dialect::Anthropic, Dialect::Gemini, Dialect::Ollama];
    let ends = dialects.map(|dialect| DialectEndpoint {
        dialect,
        base_url: "demo:".to_owned(),
        query: None,
    });
    let mut upstream = minimal_upstream(DEMO_NAME, ends.to_vec(), Origin::Demo, ids, timeouts);
    upstream.ask_usage = true;
    upstream.models =
        Patterns::parse(["echo", "lorem", "tools", "think", "flaky", "strict", "embed"]).ok();
    upstream
}

/// Returns the settings with the discovered upstreams added at a lower priority. `found` is the
/// complete list, so earlier discovered ones are removed. A discovered upstream yields to one in
/// the file with the same name, preset or address. If one of aiproxy's own listeners answers at the
/// usual address of a local server, it is ignored.
#[must_use]
pub fn merge_discovered(settings: &Settings, found: &[Arc<Upstream>]) -> Settings {
    let mut upstreams: Vec<_> = settings
        .upstreams
        .iter()
        .filter(|upstream| upstream.origin == Origin::File)
        .cloned()
        .collect();
    for new in found {
        let taken = upstreams.iter().any(|known| is_same_upstream(known, new));
        let is_local = new.endpoints.iter().any(|end| {
            base_url::is_local_listener(&end.base_url, &settings.server.listen.addresses)
        });
        if !taken && !is_local {
            upstreams.push(new.clone());
        }
    }
    Settings { upstreams, ..settings.clone() }
}

fn is_same_upstream(known: &Upstream, new: &Upstream) -> bool {
    let host_and_port = |end: &DialectEndpoint| {
        let (host, port) = base_url::host_port(&end.base_url)?;
        // All names of this machine count as one host.
        let host = if base_url::is_loopback(&host)
            || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
        {
            String::new()
        } else {
            host
        };
        Some((host, port))
    };
    let address = |a: &DialectEndpoint| {
        new.endpoints.iter().any(|b| {
            a.base_url == b.base_url
                || (known.local
                    && new.local
                    && host_and_port(a).is_some()
                    && host_and_port(a) == host_and_port(b))
        })
    };
    known.name == new.name
        || (known.preset.is_some() && known.preset == new.preset)
        || known.endpoints.iter().any(address)
}

fn from_preset(
    preset: &Preset,
    origin: Origin,
    ids: &mut IdInterner,
    timeouts: &Timeouts,
) -> Upstream {
    let facts = Upstream::of_preset(preset);
    Upstream { origin, ..discovered(&preset.name, facts, ids, timeouts) }
}

/// Returns an upstream that is known by its endpoints only.
fn minimal_upstream(
    name: &str,
    endpoints: Vec<DialectEndpoint>,
    origin: Origin,
    ids: &mut IdInterner,
    timeouts: &Timeouts,
) -> Upstream {
    let facts = Upstream { endpoints, local: true, ..Upstream::default() };
    Upstream { origin, ..discovered(name, facts, ids, timeouts) }
}

fn discovered(name: &str, facts: Upstream, ids: &mut IdInterner, timeouts: &Timeouts) -> Upstream {
    Upstream {
        id: ids.upstream_id(name),
        name: name.into(),
        priority: DISCOVERED_PRIORITY,
        timeouts: *timeouts,
        ..facts
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::load::load;

    fn settings(text: &str, ids: &mut IdInterner) -> Settings {
        let loaded = load(text, Path::new("/etc/x/config.toml"), &Environment::default(), ids);
        loaded.settings.unwrap_or_else(|| panic!("{:#?}", loaded.problems))
    }

    #[test]
    fn provider_keys_in_the_environment_become_upstreams() {
        let mut ids = IdInterner::default();
        let env: Environment = [
            ("GROQ_API_KEY", "gsk_x"),
            ("OPENAI_API_KEY", "aip-ours"),
            ("GEMINI_API_KEY", "AIza1"),
            ("GOOGLE_API_KEY", "AIza1"),
            ("MISTRAL_API_KEY", "  "),
            ("XAI_API_KEY", "two words"),
        ]
        .into_iter()
        .collect();
        let base = settings("", &mut ids);

        let (found, notes) = from_env(&env, &mut ids, &base.timeouts);

        let names: Vec<_> = found.iter().map(|u| (&*u.name, u.keys.len(), u.priority)).collect();
        assert_eq!(names, [("gemini", 1, 50), ("groq", 1, 50)]);
        assert_eq!(notes.len(), 2, "{notes:?}");
        assert!(
            matches!(
                &notes[0],
                UnusedVariable::ClientKey { variable, .. } if **variable == *"OPENAI_API_KEY"
            ),
            "{notes:?}"
        );
        assert!(!format!("{notes:?}").contains("aip-ours"));
        assert!(!format!("{env:?}").contains("gsk_x"));
    }

    #[test]
    fn config_file_overrides_discovered_upstreams() {
        let mut ids = IdInterner::default();
        let text = "[[upstream]]\nname = \"mine\"\npreset = \"groq\"\nkeys = [\"env:X\"]\n[[upstream]]\nname = \"box\"\nbase_url = \"http://localhost:11434\"\ndialect = \"ollama\"\n";
        let base = settings(text, &mut ids);
        let env = [("GROQ_API_KEY", "gsk_x"), ("DEEPSEEK_API_KEY", "sk-y")].into_iter().collect();
        let (mut found, _) = from_env(&env, &mut ids, &base.timeouts);
        for server in local_servers() {
            found.push(Arc::new(local_upstream(&server, &mut ids, &base.timeouts)));
        }

        let merged = merge_discovered(&base, &found);

        let names: Vec<_> = merged.upstreams.iter().map(|u| &*u.name).collect();
        assert_eq!(names, ["mine", "box", "deepseek", "lmstudio", "llamacpp", "vllm"]);
        assert_eq!(
            merge_discovered(&merged, &[]).upstreams.len(),
            2,
            "what is found no more is gone"
        );
    }

    #[test]
    fn discovery_skips_the_address_of_aiproxy() {
        let mut ids = IdInterner::default();
        let base = settings("[server]\nlisten = \"8080\"\n", &mut ids);
        let found: Vec<_> = local_servers()
            .iter()
            .map(|s| Arc::new(local_upstream(s, &mut ids, &base.timeouts)))
            .collect();
        assert!(!merge_discovered(&base, &found).upstreams.iter().any(|u| &*u.name == "llamacpp"));
    }
}
