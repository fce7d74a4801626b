//! Addresses and keys as other programs write them.

use crate::{
    cli::{
        prompt,
        tools::import::draft::{KeyDraft, KeyValue, UpstreamDraft},
    },
    config::{base_url, presets},
    ir::op::Dialect,
};

/// Formats a text as TOML.
pub(super) fn toml_text(text: &str) -> String {
    toml_edit::Value::from(text).to_string()
}

/// Appends the path that the other program appends, unless the address has a version already.
pub(super) fn with_path(url: &str, path: &str) -> String {
    let url = url.trim().trim_end_matches('/');
    let last = url.rsplit('/').next().unwrap_or_default();
    let has_version =
        last.strip_prefix('v').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    // A whole endpoint, such as `…/chat/completions`, is cut later.
    let is_endpoint = base_url::dialect_of(url).is_some();
    if path.is_empty() || url.ends_with(path) || has_version || is_endpoint {
        url.to_owned()
    } else {
        format!("{url}{path}")
    }
}

/// Gives an upstream its address: a preset whose own address it is, else the address and its
/// dialect.
///
/// # Errors
///
/// Why it is no address.
pub(super) fn place(
    upstream: &mut UpstreamDraft,
    url: &str,
    dialect: Dialect,
) -> Result<(), String> {
    let base = base_url::parse(url, dialect)?.base;
    let is_own = |preset: &&presets::Preset| {
        !preset.needs_url
            && preset.endpoints.iter().any(|end| end.dialect == dialect && end.base_url == base)
    };
    match presets::all().iter().find(is_own) {
        Some(preset) => upstream.preset = Some(preset.name.to_string()),
        None => {
            upstream.base_url = Some(base);
            upstream.dialect = Some(dialect);
        }
    }
    Ok(())
}

/// Reads a key: `os.environ/X`, `$X` and `${X}` name a variable, other text is the key itself.
/// Nothing if it cannot be a key.
pub(super) fn key_value(text: &str) -> Option<KeyValue> {
    let text = text.trim();
    let variable = text
        .strip_prefix("os.environ/")
        .or_else(|| text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}')))
        .or_else(|| text.strip_prefix('$'));
    let is_name = |name: &&str| {
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    };
    if let Some(name) = variable.map(|name| name.split(":-").next().unwrap_or(name)).filter(is_name)
    {
        return Some(KeyValue::Env(name.to_owned()));
    }
    prompt::parse_token(text.as_bytes().to_vec(), "it").ok().map(KeyValue::Text)
}

/// Adds a key to an upstream, once; `false` if it cannot be a key.
pub(super) fn add_key(upstream: &mut UpstreamDraft, text: &str) -> bool {
    let Some(value) = key_value(text) else { return false };
    if !upstream.keys.iter().any(|known| known.value.is_same(&value)) {
        upstream.keys.push(KeyDraft { value, limits: Vec::new() });
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_is_appended_to_a_url_without_one() {
        for (url, path, want) in [
            ("https://a.example", "/v1", "https://a.example/v1"),
            ("https://a.example/openai/", "/v1", "https://a.example/openai/v1"),
            ("https://a.example/v1/", "/v1", "https://a.example/v1"),
            ("https://a.example/api/v3", "/v1", "https://a.example/api/v3"),
            (
                "https://a.example/v1/chat/completions",
                "/v1",
                "https://a.example/v1/chat/completions",
            ),
            ("https://a.example/vendor", "/v1", "https://a.example/vendor/v1"),
        ] {
            assert_eq!(with_path(url, path), want);
        }
    }

    #[test]
    fn preset_is_recognised_by_its_address() {
        let mut upstream = UpstreamDraft::default();
        place(&mut upstream, "https://api.openai.com", Dialect::Openai).unwrap();
        assert_eq!((upstream.preset.as_deref(), upstream.base_url), (Some("openai"), None));
        let mut upstream = UpstreamDraft::default();
        place(&mut upstream, "https://a.example/x", Dialect::Openai).unwrap();
        assert_eq!(upstream.base_url.as_deref(), Some("https://a.example/x"));
    }

    #[test]
    fn variables_and_keys_are_distinguished() {
        for name in ["os.environ/A_B", "$A_B", "${A_B}", "${A_B:-x}"] {
            assert!(matches!(key_value(name), Some(KeyValue::Env(env)) if env == "A_B"), "{name}");
        }
        assert!(matches!(key_value("sk-1"), Some(KeyValue::Text(_))));
        assert!(key_value("").is_none() && key_value("two words").is_none());
    }
}
