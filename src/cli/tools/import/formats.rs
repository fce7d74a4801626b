//! Recognises whose file it is, and reads it.

use serde_json::Value;

use crate::cli::{
    error::CliError,
    tools::import::{
        channels, cli_proxy, code_router,
        draft::Draft,
        facts, litellm, piped_json, provider_env,
        source::{Content, ImportSource},
        upstreams_yaml,
    },
};

/// A program whose files can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    AiProxyYaml,
    CliProxyApi,
    CodeRouter,
    LiteLlm,
    NewApi,
    OneApi,
    PipedJson,
    ProviderEnv,
    UpstreamsYaml,
}

impl Format {
    /// The name in JSON.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::AiProxyYaml => channels::YAML,
            Self::CliProxyApi => "cliproxyapi",
            Self::CodeRouter => "claude-code-router",
            Self::LiteLlm => "litellm",
            Self::NewApi => channels::NEW_API,
            Self::OneApi => channels::ONE_API,
            Self::PipedJson => "providers-json",
            Self::ProviderEnv => "providers-env",
            Self::UpstreamsYaml => "upstreams-yaml",
        }
    }

    /// The name for people.
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::AiProxyYaml => "a config of the AI Proxy with channels",
            Self::CliProxyApi => "a config of CLIProxyAPI",
            Self::CodeRouter => "a config of claude-code-router",
            Self::LiteLlm => "a config of LiteLLM",
            Self::NewApi => "a channel export of new-api",
            Self::OneApi => "a channel export of One-API",
            Self::PipedJson => "a JSON config with providers and tokens",
            Self::ProviderEnv => "an env file with LLM_PROVIDERS",
            Self::UpstreamsYaml => "a YAML config with upstreams and project_auth",
        }
    }

    /// Recognises the content.
    pub(super) fn detect(content: &Content) -> Option<Self> {
        let tree = match content {
            Content::Env(variables) => {
                return provider_env::is_ours(variables).then_some(Self::ProviderEnv);
            }
            Content::Tree(tree) => tree,
        };
        let rows = |key: &str| tree.get(key).and_then(Value::as_array);
        let has_row = |key: &str, field: &str| {
            rows(key).is_some_and(|rows| rows.iter().any(|row| row.get(field).is_some()))
        };
        if rows("model_list").is_some() || tree.get("litellm_settings").is_some() {
            return Some(Self::LiteLlm);
        }
        if has_row("Providers", "name")
            || has_row("providers", "api_base_url")
            || tree.get("Router").is_some_and(Value::is_object)
        {
            return Some(Self::CodeRouter);
        }
        if rows("providers").is_some_and(|rows| rows.iter().all(Value::is_string)) {
            return Some(Self::PipedJson);
        }
        if has_row("upstreams", "base_url") || rows("project_auth").is_some() {
            return Some(Self::UpstreamsYaml);
        }
        let is_answer = tree.get("success").is_some() || tree.get("total").is_some();
        if !is_answer && (has_row("channels", "type_name") || has_row("channels", "type")) {
            return Some(Self::AiProxyYaml);
        }
        if let Some(rows) = channels::rows_of(tree) {
            let is_new = channels::exporter(rows) == channels::NEW_API;
            return Some(if is_new { Self::NewApi } else { Self::OneApi });
        }
        cli_proxy::MARKS.iter().any(|key| rows(key).is_some()).then_some(Self::CliProxyApi)
    }
}

/// Reads the file.
///
/// # Errors
///
/// A syntax error with its line, an entry that its own program would refuse, or a file of no known
/// program.
pub(super) fn read(source: &ImportSource) -> Result<(Format, Draft), CliError> {
    let content = source.parse().map_err(|error| error.hint(facts::readable_hint()))?;
    let Some(format) = Format::detect(&content) else {
        return Err(CliError::config(format!(
            "{}: not a file that can be imported",
            source.path.display()
        ))
        .hint(facts::readable_hint()));
    };
    let mut draft = Draft::default();
    match content {
        Content::Env(variables) => provider_env::read(source, variables, &mut draft),
        Content::Tree(tree) => match format {
            Format::AiProxyYaml => channels::read_yaml(source, tree, &mut draft),
            Format::CliProxyApi => cli_proxy::read(source, tree, &mut draft),
            Format::CodeRouter => code_router::read(source, tree, &mut draft),
            Format::LiteLlm => litellm::read(source, tree, &mut draft),
            Format::NewApi | Format::OneApi => {
                channels::read_export(source, format.name(), &tree, &mut draft);
            }
            Format::PipedJson => piped_json::read(source, tree, &mut draft)?,
            Format::ProviderEnv => {}
            Format::UpstreamsYaml => upstreams_yaml::read(source, tree, &mut draft),
        },
    }
    Ok((format, draft))
}
