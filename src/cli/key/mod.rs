//! `aiproxy key`: manages provider keys, which are stored in the OS keyring and shown by name and
//! fingerprint.

mod actions;
mod add;
mod adopt;
mod list;
pub(super) mod remove;
pub(super) mod store;
pub(super) mod table;
pub(super) mod verify;

use clap::{Args, Subcommand};

use crate::{
    base::suggest,
    cli::{
        context::CommandContext,
        error::{CliError, ExitStatus},
        prompt::SecretSource,
    },
};

const ADD: &str = "\
Prompts for the key with hidden input, or reads it with --stdin or --from-env. A key is never
read from the command line, where other programs and the shell history can see it. The command
tests the key with a free call (the model list), stores it in the OS keyring as UPSTREAM/LABEL
and adds a reference to the config. An upstream that is not in the config is added from its
preset. A running proxy uses the key at once. If no keyring service is available, --vault
stores the key in a file encrypted with a passphrase. A second key of an upstream is added next
to the first. If a label is given that already has a key, the command asks before it replaces
that key; --yes replaces it without asking.

Examples:
  aiproxy key add openai
  aiproxy key add openai/work
  pass show openai | aiproxy key add openai --stdin
  aiproxy key add mycorp --preset openai --from-env CORP_KEY
  aiproxy key add --missing          prompt for each key that the config names and no store has";

const ADOPT: &str = "\
Stores each literal key of an upstream or project in the keyring and replaces it by a
reference. The rest of the file is unchanged.";

#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Store a key and use it
    #[command(after_help = ADD)]
    Add(AddKeyArgs),
    /// List keys with fingerprint, state and location
    List {
        /// List only UPSTREAM/LABEL, or all keys of UPSTREAM; implies --long
        key: Option<String>,
        /// Show what is left of the limits that the providers report
        #[arg(long)]
        long: bool,
    },
    /// Test keys with a free call to their provider
    Test {
        /// Test only this key: UPSTREAM/LABEL, or UPSTREAM if it has one key
        key: Option<String>,
    },
    /// Remove a key from the config and the keyring
    Remove {
        /// UPSTREAM/LABEL, or UPSTREAM if it has one key
        key: String,
    },
    /// Enable a key
    Enable {
        /// UPSTREAM/LABEL, or UPSTREAM if it has one key
        key: String,
    },
    /// Disable a key without deleting it
    Disable {
        /// UPSTREAM/LABEL, or UPSTREAM if it has one key
        key: String,
    },
    /// Put a key on cooldown
    Cool {
        /// UPSTREAM/LABEL, or UPSTREAM if it has one key
        key: String,
        /// Cool only this model of the upstream
        #[arg(long, value_name = "MODEL")]
        model: Option<String>,
        /// Duration: 30s, 10m, 1h [default: 10m]
        #[arg(long = "for", value_name = "SPAN", value_parser = crate::base::units::parse_duration)]
        span: Option<std::time::Duration>,
    },
    /// End a key's cooldowns and clear a rejection
    Warm {
        /// UPSTREAM/LABEL, or UPSTREAM if it has one key
        #[arg(required_unless_present = "all")]
        key: Option<String>,
        /// Warm every key and upstream
        #[arg(long, conflicts_with_all = ["key", "model"])]
        all: bool,
        /// Warm only this model of the upstream
        #[arg(long, value_name = "MODEL")]
        model: Option<String>,
    },
    /// Move keys from the config file into the keyring
    #[command(after_help = ADOPT)]
    Adopt {
        /// Use the passphrase-encrypted file of the data dir instead of the OS keyring
        #[arg(long)]
        vault: bool,
    },
}

#[derive(Debug, Args)]
pub struct AddKeyArgs {
    /// Upstream of the key: a name from the config or a preset (`aiproxy upstream presets`); or
    /// UPSTREAM/LABEL
    #[arg(required_unless_present = "missing")]
    upstream: Option<String>,
    /// Label of the key within its upstream [default: main, then key2, key3, …]
    #[arg(long, short, value_name = "NAME")]
    label: Option<String>,
    #[command(flatten)]
    source: SecretSource,
    /// Store the key in the passphrase-encrypted file of the data dir instead of the OS keyring
    #[arg(long)]
    vault: bool,
    /// Store the key without testing it
    #[arg(long)]
    no_check: bool,
    /// Create the upstream from this preset if it is not in the config
    #[arg(long, value_name = "PRESET")]
    preset: Option<String>,
    /// Prompt for every key that the config refers to and no store contains
    #[arg(long, conflicts_with_all = ["upstream", "from_env", "stdin", "preset"])]
    missing: bool,
    /// Parsed only so that the command can reject it: a key must not be on a command line.
    #[arg(long = "key", hide = true, value_name = "KEY")]
    key_argument: Option<String>,
    #[arg(hide = true)]
    more: Vec<String>,
}

impl AddKeyArgs {
    /// Equivalent to `key add NAME --stdin`.
    pub(super) fn from_stdin(upstream: &str, no_check: bool) -> Self {
        Self {
            upstream: Some(upstream.to_owned()),
            label: None,
            source: SecretSource { stdin: true, from_env: None },
            vault: false,
            no_check,
            preset: None,
            missing: false,
            key_argument: None,
            more: Vec::new(),
        }
    }
}

/// Runs a `key` command.
///
/// # Errors
///
/// As the individual commands.
pub async fn run(ctx: &CommandContext, command: KeyCommand) -> Result<ExitStatus, CliError> {
    match command {
        KeyCommand::Add(args) => add::run(ctx, args).await,
        KeyCommand::Adopt { vault } => adopt::run(ctx, vault).await,
        KeyCommand::Cool { key, model, span } => actions::cool(ctx, key, model, span).await,
        KeyCommand::Disable { key } => actions::set_enabled(ctx, &key, false).await,
        KeyCommand::Enable { key } => actions::set_enabled(ctx, &key, true).await,
        KeyCommand::List { key, long } => list::run(ctx, key.as_deref(), long).await,
        KeyCommand::Remove { key } => remove::run(ctx, &key).await,
        KeyCommand::Test { key } => actions::test(ctx, key).await,
        KeyCommand::Warm { key, model, .. } => actions::warm(ctx, key, model).await,
    }
}

/// Resolves `KEY` to (upstream, label).
///
/// # Errors
///
/// No such key (the error names the nearest), or an upstream with several keys.
pub(super) fn find_key<'a>(
    requested: &str,
    known: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Result<(String, String), CliError> {
    let known: Vec<(&str, &str)> = known.into_iter().collect();
    if let Some((upstream, label)) = known.iter().find(|(upstream, label)| {
        requested.strip_prefix(upstream).and_then(|r| r.strip_prefix('/')) == Some(label)
    }) {
        return Ok(((*upstream).to_owned(), (*label).to_owned()));
    }
    let of_upstream: Vec<_> = known.iter().filter(|(upstream, _)| *upstream == requested).collect();
    let names: Vec<String> =
        known.iter().map(|(upstream, label)| format!("{upstream}/{label}")).collect();
    match of_upstream[..] {
        [(upstream, label)] => Ok(((*upstream).to_owned(), (*label).to_owned())),
        [] => {
            let upstreams = known.iter().map(|(upstream, _)| *upstream);
            let suggestion =
                suggest::nearest(requested, names.iter().map(String::as_str).chain(upstreams));
            let suggestion =
                suggestion.map(|name| format!("did you mean `{name}`? ")).unwrap_or_default();
            Err(CliError::failed(format!("no key `{requested}`"))
                .hint(format!("{suggestion}`aiproxy key list` shows all")))
        }
        _ => {
            let labels: Vec<_> =
                of_upstream.iter().map(|(upstream, label)| format!("{upstream}/{label}")).collect();
            Err(CliError::failed(format!("`{requested}` has {} keys", of_upstream.len()))
                .hint(format!("use one of {}", labels.join(", "))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_is_found_by_name_or_by_an_upstream_with_one_key() {
        let known = [("openai", "work"), ("openai", "home"), ("groq", "main"), ("a/b", "c")];
        assert_eq!(find_key("openai/work", known).unwrap(), ("openai".into(), "work".into()));
        assert_eq!(find_key("groq", known).unwrap(), ("groq".into(), "main".into()));
        assert_eq!(find_key("a/b/c", known).unwrap(), ("a/b".into(), "c".into()));
        assert!(find_key("openai", known).unwrap_err().hint.unwrap().contains("openai/home"));
        assert!(
            find_key("openai/wrok", known).unwrap_err().hint.unwrap().contains("`openai/work`")
        );
        assert!(find_key("gorq", known).unwrap_err().hint.unwrap().contains("`groq`"));
        assert!(find_key("nobody", known).unwrap_err().hint.unwrap().contains("key list"));
    }
}
