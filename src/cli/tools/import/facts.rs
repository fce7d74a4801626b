//! Facts about the programs whose files are read: the tables of `assets/import.toml`.

use std::{collections::BTreeMap, sync::LazyLock};

use serde::Deserialize;

const FACTS_TOML: &str = include_str!("../../../../assets/import.toml");

type NameTable = BTreeMap<String, String>;

#[derive(Default, Deserialize)]
struct Facts {
    channel_types: BTreeMap<String, NameTable>,
    channel_type_names: NameTable,
    channel_paths: NameTable,
    litellm_providers: NameTable,
    ignored: Ignored,
    reasons: NameTable,
}

#[derive(Default, Deserialize)]
struct Ignored {
    keys: Vec<String>,
}

/// A test proves that the file can be read.
static FACTS: LazyLock<Facts> = LazyLock::new(|| toml::from_str(FACTS_TOML).unwrap_or_default());

/// What can be read, for messages and help.
const READABLE: &str = "\
LiteLLM config.yaml, claude-code-router config.json, CLIProxyAPI config.yaml,
channel exports of One-API and new-api (JSON), the AI Proxy's config.yaml (channels, modelconfigs),
YAML with upstreams and project_auth, JSON with providers \"NAME|URL|KEY\" and tokens,
an env file with LLM_PROVIDERS and LLM_PROVIDER_ID_…";

/// The kind of channel that is any server of the OpenAI dialect.
pub(super) const COMPATIBLE: &str = "compatible";

/// Returns the hint that names what can be read.
pub(super) fn readable_hint() -> String {
    format!("nothing was changed; these can be read: {READABLE}")
}

/// Returns the preset of a channel's type, given by number or name.
pub(super) fn channel_preset(format: &str, kind: &str) -> Option<&'static str> {
    let numbers = FACTS.channel_types.get(format)?;
    if let Some(preset) = numbers.get(kind) {
        return Some(preset);
    }
    let name = kind.to_ascii_lowercase();
    let known = FACTS.channel_type_names.get(&name).map(String::as_str);
    known.or_else(|| crate::config::presets::find(&name).map(|preset| &*preset.name))
}

/// Returns what a program of channels appends to the address of one.
pub(super) fn channel_path(preset: &str) -> &'static str {
    FACTS.channel_paths.get(preset).map_or("/v1", String::as_str)
}

/// Returns the preset of a provider as LiteLLM names it.
pub(super) fn litellm_preset(provider: &str) -> Option<&'static str> {
    let known = FACTS.litellm_providers.get(provider).map(String::as_str);
    known.or_else(|| crate::config::presets::find(provider).map(|preset| &*preset.name))
}

/// Returns whether a key of a file carries no setting.
pub(super) fn is_ignored(key: &str) -> bool {
    FACTS.ignored.keys.iter().any(|known| known == key)
}

/// Returns why a setting has no equal.
pub(super) fn reason(key: &str) -> &'static str {
    let known = FACTS.reasons.get(key).or_else(|| FACTS.reasons.get("*"));
    known.map_or("there is no such setting here", String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::presets;

    #[test]
    fn every_channel_type_maps_to_a_known_preset() {
        let types = FACTS
            .channel_types
            .values()
            .chain([&FACTS.channel_type_names, &FACTS.litellm_providers]);
        for preset in types.flat_map(|table| table.values()) {
            assert!(preset == COMPATIBLE || presets::find(preset).is_some(), "{preset}");
        }
        assert_eq!(FACTS.channel_types.len(), 3);
        for preset in FACTS.channel_paths.keys() {
            assert!(presets::find(preset).is_some(), "{preset}");
        }
    }
}
