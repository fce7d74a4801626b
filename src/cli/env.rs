//! `aiproxy env`: shell lines that point SDKs and tools at the proxy.

use clap::{Args, ValueEnum};

use crate::cli::{
    attach,
    context::CommandContext,
    error::{CliError, ExitStatus},
    expose::expose_secret,
    output,
    project::lookup,
};

pub(super) const EXAMPLES: &str = "\
The output contains a client key of this proxy, never a provider key.

Examples:
  eval \"$(aiproxy env)\"                                    sh, bash, zsh
  aiproxy env --shell fish | source
  aiproxy env --shell powershell | Out-String | Invoke-Expression
  aiproxy env ide                                          as the project `ide`";

#[derive(Clone, Debug, Args)]
pub struct EnvArgs {
    /// Project whose key the tools use
    #[arg(default_value = "default")]
    project: String,
    /// Shell syntax of the output
    #[arg(long, value_enum, default_value_t = Shell::Sh)]
    shell: Shell,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Shell {
    Fish,
    Powershell,
    Sh,
}

/// Prints the shell lines.
///
/// # Errors
///
/// The project does not exist, or its key cannot be read.
pub async fn run(ctx: &CommandContext, args: EnvArgs) -> Result<ExitStatus, CliError> {
    let base = attach::base_url(ctx).await?;
    let key = lookup::client_key(ctx, &args.project).await?;
    let variables = sdk_variables(&base, expose_secret(&key));
    if ctx.global.json {
        let map: serde_json::Map<_, _> =
            variables.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
        output::print_json(&map)?;
    } else {
        let lines: String = variables
            .iter()
            .map(|(name, value)| format!("{}\n", export_line(args.shell, name, value)))
            .collect();
        output::print(&lines)?;
    }
    Ok(ExitStatus::Ok)
}

/// Each SDK has its own names for the base URL and the key.
fn sdk_variables(base: &str, key: &str) -> Vec<(&'static str, String)> {
    vec![
        ("OPENAI_BASE_URL", format!("{base}/v1")),
        ("OPENAI_API_BASE", format!("{base}/v1")),
        ("OPENAI_API_KEY", key.to_owned()),
        ("ANTHROPIC_BASE_URL", base.to_owned()),
        ("ANTHROPIC_API_KEY", key.to_owned()),
        ("ANTHROPIC_AUTH_TOKEN", key.to_owned()),
        ("GOOGLE_GEMINI_BASE_URL", base.to_owned()),
        ("GEMINI_API_KEY", key.to_owned()),
        // A client that cannot send a credential has it in the path.
        ("OLLAMA_HOST", format!("{base}/~{key}")),
    ]
}

fn export_line(shell: Shell, name: &str, value: &str) -> String {
    match shell {
        Shell::Fish => {
            format!("set -gx {name} '{}';", value.replace('\\', "\\\\").replace('\'', "\\'"))
        }
        Shell::Powershell => format!("$env:{name} = '{}'", value.replace('\'', "''")),
        Shell::Sh => format!("export {name}='{}'", value.replace('\'', "'\\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_value_breaks_out_of_its_quotes() {
        for (shell, want) in [
            (Shell::Sh, r"export K='a'\''b\c$(d)'"),
            (Shell::Fish, r"set -gx K 'a\'b\\c$(d)';"),
            (Shell::Powershell, r"$env:K = 'a''b\c$(d)'"),
        ] {
            assert_eq!(export_line(shell, "K", r"a'b\c$(d)"), want);
        }
    }

    #[test]
    fn each_dialect_has_its_base_url_and_key() {
        let got = sdk_variables("http://127.0.0.1:8642", "aip-x");
        for want in [
            ("OPENAI_BASE_URL", "http://127.0.0.1:8642/v1"),
            ("ANTHROPIC_BASE_URL", "http://127.0.0.1:8642"),
            ("GEMINI_API_KEY", "aip-x"),
            ("OLLAMA_HOST", "http://127.0.0.1:8642/~aip-x"),
        ] {
            assert!(got.contains(&(want.0, want.1.to_owned())), "{want:?}");
        }
    }
}
