//! `aiproxy upstream add`: adds an upstream to the config.

use clap::Args;

use crate::{
    base::suggest,
    cli::{
        attach,
        config::edit_file,
        context::CommandContext,
        error::{CliError, ExitStatus},
        key::{self, KeyCommand},
        prompt,
    },
    config::{edit::Edit, known_address, presets, settings::Auth},
    ir::op::Dialect,
};

pub(super) const EXAMPLES: &str = "\
A preset fills in the URL, the dialect and other facts about a provider; `aiproxy upstream
presets` lists them.

Examples:
  aiproxy upstream add gemini
  aiproxy upstream add office --preset openai --base-url https://ai.example.com/v1
  aiproxy upstream add box --base-url http://192.168.1.5/v1 --dialect openai --models 'qwen*'
  pass show corp | aiproxy upstream add corp --base-url https://corp/v1 --dialect openai --stdin";

#[derive(Debug, Args)]
pub struct AddUpstreamArgs {
    /// Name in the config; its keys are NAME/LABEL
    name: String,
    /// Provider preset [default: that of the address, or without --base-url the one of that
    /// name]
    #[arg(long, value_name = "PRESET")]
    preset: Option<String>,
    /// Base URL of its API
    #[arg(long, value_name = "URL")]
    base_url: Option<String>,
    /// API dialect: openai, responses, anthropic, gemini or ollama
    #[arg(long, value_name = "NAME", value_parser = crate::cli::route::parse_dialect)]
    dialect: Option<Dialect>,
    /// Models to request from it; patterns are allowed [default: its own model list]
    #[arg(long, value_name = "MODEL,…", value_delimiter = ',')]
    models: Vec<String>,
    /// Priority; lower is tried first
    #[arg(long, value_name = "N")]
    priority: Option<u32>,
    /// Read its key from standard input and store it as `aiproxy key add` does
    #[arg(long)]
    stdin: bool,
    /// Store the key without testing it
    #[arg(long, requires = "stdin")]
    no_check: bool,
}

/// Adds the upstream, and its key if `--stdin` provides one.
///
/// # Errors
///
/// An existing name, an unknown preset, or a config that cannot be changed.
pub(super) async fn run(
    ctx: &CommandContext,
    args: AddUpstreamArgs,
) -> Result<ExitStatus, CliError> {
    let file = edit_file::load_to_change(ctx)?;
    if prompt::looks_like_key(&args.name) {
        return Err(CliError::usage("this looks like a key, not like an upstream name")
            .hint("`aiproxy key add UPSTREAM` prompts for the key"));
    }
    if file.settings.upstreams.iter().any(|u| *u.name == *args.name) {
        return Err(CliError::failed(format!("upstream `{}` already exists", args.name))
            .hint(format!("`aiproxy upstream set {} KEY=VALUE` changes it", args.name)));
    }
    let preset = match (&args.preset, &args.base_url) {
        (Some(preset), _) => Some(preset.clone()),
        (None, None) => Some(args.name.clone()),
        // The provider of a known address fills in what the URL does not say.
        (None, Some(url)) => known_address::find(url).map(|preset| preset.name.to_string()),
    };
    if let Some(preset) = preset.as_deref().filter(|preset| presets::find(preset).is_none()) {
        let suggestion = suggest::nearest(preset, presets::all().iter().map(|p| &*p.name))
            .map(|n| format!("did you mean `{n}`? "))
            .unwrap_or_default();
        return Err(CliError::failed(format!("no preset `{preset}`"))
            .hint(format!("{suggestion}for another provider, give --base-url and --dialect")));
    }
    let dialects: Vec<String> = args.dialect.iter().map(|d| d.name().to_owned()).collect();
    let mut edits = vec![Edit::AddUpstream {
        name: args.name.clone(),
        preset,
        base_url: args.base_url,
        dialects,
    }];
    let mut set = |key: &str, value| {
        edits.push(Edit::SetUpstream { name: args.name.clone(), path: key.to_owned(), value });
    };
    if !args.models.is_empty() {
        set("models", edit_file::toml_list(&args.models));
    }
    if let Some(priority) = args.priority {
        set("priority", priority.to_string());
    }
    edit_file::edit_config(ctx, &edits)?;
    if args.stdin {
        return key::run(
            ctx,
            KeyCommand::Add(key::AddKeyArgs::from_stdin(&args.name, args.no_check)),
        )
        .await;
    }
    attach::reload_if_running(ctx).await;
    let file = edit_file::load_to_change(ctx)?;
    let added = file.settings.upstreams.iter().find(|u| *u.name == *args.name);
    let keyless = added.is_some_and(|u| u.auth != Auth::None && u.keys.is_empty());
    let next = if keyless {
        format!("; `aiproxy key add {}` adds its key", args.name)
    } else {
        String::new()
    };
    ctx.print_result(&format!("upstream {} added{next}", args.name))
}
