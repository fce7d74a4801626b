//! `aiproxy env`: shell lines that point SDKs and tools at the proxy.

use clap::{Args, ValueEnum};

use crate::{
    cli::{
        attach,
        context::CommandContext,
        error::{CliError, ExitStatus},
        expose::expose_secret,
        output,
        project::lookup,
    },
    config::Environment,
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

/// The syntax of a shell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Shell {
    Fish,
    Powershell,
    #[default]
    Sh,
}

/// Prints the shell lines.
///
/// # Errors
///
/// The project does not exist, or its key cannot be read.
pub async fn run(ctx: &CommandContext, args: EnvArgs) -> Result<ExitStatus, CliError> {
    print_lines(ctx, &args.project, args.shell).await
}

/// Prints the lines for the key of a project.
///
/// # Errors
///
/// As [`run`].
pub(super) async fn print_lines(
    ctx: &CommandContext,
    project: &str,
    shell: Shell,
) -> Result<ExitStatus, CliError> {
    let base = attach::base_url(ctx).await?;
    let key = lookup::client_key(ctx, project).await?;
    let mut variables = sdk_variables(&base, expose_secret(&key));
    if let Some(list) = no_proxy(&Environment::from_process()) {
        variables.extend(["NO_PROXY", "no_proxy"].map(|name| (name, list.clone())));
    }
    if ctx.global.json {
        let map: serde_json::Map<_, _> =
            variables.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
        output::print_json(&map)?;
    } else {
        let lines: String = variables
            .iter()
            .map(|(name, value)| format!("{}\n", export_line(shell, name, value)))
            .chain([format!("{}\n", unset_line(shell, SECOND_ANTHROPIC_KEY))])
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
        ("ANTHROPIC_AUTH_TOKEN", key.to_owned()),
        ("GOOGLE_GEMINI_BASE_URL", base.to_owned()),
        ("GEMINI_API_KEY", key.to_owned()),
        // A client that cannot send a credential has it in the path.
        ("OLLAMA_HOST", format!("{base}/~{key}")),
    ]
}

/// With this variable next to `ANTHROPIC_AUTH_TOKEN`, Claude Code warns of two credentials; one from
/// before must not stay.
const SECOND_ANTHROPIC_KEY: &str = "ANTHROPIC_API_KEY";

/// Names of this machine that a request for the proxy may have as its host.
const LOCAL_HOSTS: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// Returns a list of hosts that are reached without an HTTP proxy: those of before, and this
/// machine. `None` if no HTTP proxy is set.
fn no_proxy(env: &Environment) -> Option<String> {
    let is_set = |name: &&str| env.get(name).is_some_and(|value| !value.is_empty());
    let proxies =
        ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];
    if !proxies.iter().any(is_set) {
        return None;
    }
    Some(hosts_without_proxy(env, None))
}

/// Returns the hosts that are reached without an HTTP proxy: those of before, this machine, and one
/// more.
pub(super) fn hosts_without_proxy(env: &Environment, more: Option<&str>) -> String {
    let mut hosts: Vec<&str> = Vec::new();
    let before = ["NO_PROXY", "no_proxy"].into_iter().filter_map(|name| env.get(name));
    let before = before.flat_map(|list| list.split(',')).map(str::trim);
    for host in before.chain(LOCAL_HOSTS).chain(more) {
        if !host.is_empty() && !hosts.contains(&host) {
            hosts.push(host);
        }
    }
    hosts.join(",")
}

fn unset_line(shell: Shell, name: &str) -> String {
    match shell {
        Shell::Fish => format!("set -e {name};"),
        Shell::Powershell => format!("Remove-Item Env:{name} -ErrorAction SilentlyContinue"),
        Shell::Sh => format!("unset {name}"),
    }
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
    fn values_are_quoted_for_the_shell() {
        for (shell, want) in [
            (Shell::Sh, r"export K='a'\''b\c$(d)'"),
            (Shell::Fish, r"set -gx K 'a\'b\\c$(d)';"),
            (Shell::Powershell, r"$env:K = 'a''b\c$(d)'"),
        ] {
            assert_eq!(export_line(shell, "K", r"a'b\c$(d)"), want);
        }
    }

    #[test]
    fn loopback_is_excluded_from_the_http_proxy() {
        let env = |vars: &[(&str, &str)]| Environment {
            vars: vars.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
        };
        assert_eq!(no_proxy(&env(&[("NO_PROXY", "a.example")])), None);
        assert_eq!(
            no_proxy(&env(&[("https_proxy", "http://p:1")])).as_deref(),
            Some("localhost,127.0.0.1,::1")
        );
        let both = [("HTTP_PROXY", "http://p:1"), ("NO_PROXY", "a, localhost"), ("no_proxy", "b")];
        assert_eq!(no_proxy(&env(&both)).as_deref(), Some("a,localhost,b,127.0.0.1,::1"));
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
