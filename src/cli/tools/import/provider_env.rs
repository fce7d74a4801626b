//! Reads an env file of `LLM_PROVIDERS` and `LLM_PROVIDER_ID_…`, whose proxy appends `/v1` to each
//! address and takes its token in Base64.

use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::{
    cli::tools::import::{
        address::{add_key, key_value, place, toml_text, with_path},
        draft::{Draft, ProjectDraft, UpstreamDraft},
        facts,
        source::ImportSource,
    },
    ir::op::Dialect,
};

const IDS: &str = "LLM_PROVIDERS";
const TOKEN: &str = "APIPROXY_AUTH_TOKEN";
/// Where its models are listed unless it says otherwise.
const MODELS_PATH: &str = "/v1/models";

/// Returns whether the variables are those of this program.
pub(super) fn is_ours(variables: &[(String, String)]) -> bool {
    variables
        .iter()
        .any(|(name, _)| name == TOKEN || name == IDS || name.starts_with("LLM_PROVIDER_"))
}

/// The variables that were not taken yet.
struct Variables(Vec<(String, String)>);

impl Variables {
    /// Takes a variable; the last one counts, case does not. Nothing if it is empty.
    fn take(&mut self, name: &str) -> Option<String> {
        let is_it = |(known, _): &(String, String)| known.eq_ignore_ascii_case(name);
        let value = self.0.iter().rfind(|pair| is_it(pair)).map(|(_, value)| value.clone());
        self.0.retain(|pair| !is_it(pair));
        value.filter(|value| !value.is_empty())
    }
}

pub(super) fn read(source: &ImportSource, variables: Vec<(String, String)>, draft: &mut Draft) {
    let mut variables = Variables(variables);
    let ids = variables.take(IDS).unwrap_or_default();
    for id in ids.split(',').map(str::trim).filter(|id| !id.is_empty()) {
        read_provider(source, id, &mut variables, draft);
    }
    match variables.take(TOKEN) {
        // Clients send the token in Base64, so that is the key.
        Some(token) => match key_value(&STANDARD.encode(token)) {
            Some(key) => {
                let name = "apiproxy".to_owned();
                draft.projects.push(ProjectDraft { name, key, models: None });
            }
            None => draft.lose(TOKEN, "it cannot be a key", source.line_of(TOKEN)),
        },
        None => draft.lose(TOKEN, "it is not set, and its default is publicly known", 0),
    }
    if let Some(level) = variables.take("LOG_LEVEL") {
        draft.log_level(&level, "LOG_LEVEL");
    }
    for (name, value) in variables.0 {
        if value.is_empty() {
            continue;
        }
        let line = source.line_of(&name);
        let key = name
            .strip_prefix("LLM_PROVIDER_")
            .map_or(name.as_str(), |rest| rest.split_once('_').map_or(rest, |(_, key)| key));
        let reason = if key == name.as_str() {
            facts::reason(&name)
        } else {
            "LLM_PROVIDERS does not list its provider"
        };
        draft.lose(name.clone(), reason, line);
    }
}

fn read_provider(source: &ImportSource, id: &str, variables: &mut Variables, draft: &mut Draft) {
    let mut take = |key: &str| variables.take(&format!("LLM_PROVIDER_{id}_{key}"));
    let (url, key) = (take("BASE_URL"), take("API_KEY"));
    let keys = take("API_KEYS").unwrap_or_default();
    let (title, weight, region) = (take("NAME"), take("WEIGHT"), take("REGION"));
    let (rps, statuses) = (take("MAX_QPS"), take("RETRYABLE_STATUS_CODES"));
    let models_path = take("MODELS_PATH");
    let costs: Vec<_> =
        ["COST_INPUT", "COST_OUTPUT"].into_iter().filter(|key| take(key).is_some()).collect();
    let line = source.line_of(IDS);
    let Some(url) = url else {
        let why = "LLM_PROVIDERS lists it, but nothing says its BASE_URL";
        return draft.lose(format!("LLM_PROVIDER_{id}"), why, line);
    };
    let mut upstream = UpstreamDraft { name: id.to_owned(), ..UpstreamDraft::default() };
    if let Err(why) = place(&mut upstream, &with_path(&url, "/v1"), Dialect::Openai) {
        let name = format!("LLM_PROVIDER_{id}_BASE_URL");
        let line = source.line_of(&name);
        return draft.lose(name, why, line);
    }
    let found = key.iter().map(String::as_str).chain(keys.split(',').map(str::trim));
    for key in found.filter(|key| !key.is_empty()) {
        if !add_key(&mut upstream, key) {
            draft.lose(format!("LLM_PROVIDER_{id}_API_KEY"), "it cannot be a key", line);
        }
    }
    if upstream.keys.is_empty() {
        draft.lose(format!("LLM_PROVIDER_{id}"), "it has no API_KEY", line);
    }
    let number = |text: Option<String>| text.and_then(|text| text.parse::<f64>().ok());
    if let Some(weight) = number(weight).filter(|n| (0.001..=1e6).contains(n)) {
        upstream.fields.push(("weight", format!("{weight:?}")));
    }
    if let Some(rps) = number(rps).filter(|n| (0.0..=1e6).contains(n)) {
        upstream.fields.push(("max_rps", format!("{rps:?}")));
    }
    if let Some(region) = region {
        upstream.fields.push(("region", toml_text(&region)));
    }
    if let Some(statuses) = statuses {
        match retry_statuses(&statuses) {
            Some(list) => upstream.fields.push(("retry_statuses", list)),
            None => {
                let name = format!("LLM_PROVIDER_{id}_RETRYABLE_STATUS_CODES");
                let line = source.line_of(&name);
                draft.lose(name, "it is no list of statuses", line);
            }
        }
    }
    if title.is_some_and(|title| !title.eq_ignore_ascii_case(id)) {
        let name = format!("LLM_PROVIDER_{id}_NAME");
        let line = source.line_of(&name);
        draft.lose(name, format!("the upstream is called `{id}`, as in the names of models"), line);
    }
    if models_path.is_some_and(|path| path != MODELS_PATH) {
        let name = format!("LLM_PROVIDER_{id}_MODELS_PATH");
        let line = source.line_of(&name);
        draft.lose(name, "models are listed where the dialect says; `models` names them", line);
    }
    for key in costs {
        let name = format!("LLM_PROVIDER_{id}_{key}");
        let line = source.line_of(&name);
        draft.lose(name, facts::reason(key), line);
    }
    draft.upstreams.push(upstream);
}

/// Reads `429,500,502-504` as a list of TOML; `None` if it is not one.
fn retry_statuses(text: &str) -> Option<String> {
    let mut out = toml_edit::Array::new();
    for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
        let (low, high) = word.split_once('-').unwrap_or((word, word));
        let status = |text: &str| {
            text.trim().parse::<u16>().ok().filter(|status| (100..=599).contains(status))
        };
        let (low, high) = (status(low)?, status(high)?);
        if low > high {
            return None;
        }
        out.push(word);
    }
    (!out.is_empty()).then(|| toml_edit::Value::Array(out).to_string())
}
