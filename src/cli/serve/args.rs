//! The arguments of `aiproxy serve`.

use clap::Args;

pub(in crate::cli) const EXAMPLES: &str = "\
Without a config file, the proxy uses provider keys from the environment (OPENAI_API_KEY, …),
local servers on their default ports, and the built-in upstream `demo`.

Examples:
  aiproxy serve
  aiproxy serve --listen 127.0.0.1:9000
  aiproxy serve --tui
  aiproxy serve --demo             use only the built-in upstream: nothing leaves this machine";

/// Arguments of `serve`.
#[derive(Clone, Debug, Default, Args)]
pub struct ServeArgs {
    /// Listen on this address instead of the config's; repeatable. `8642` means loopback on IPv4
    /// and IPv6; port 0 picks a free port
    #[arg(long, value_name = "ADDR")]
    pub listen: Vec<String>,
    /// Open the dashboard in this terminal
    #[arg(long)]
    pub tui: bool,
    /// Use only the built-in upstream `demo`; ignore the upstreams of config and environment
    #[arg(long)]
    pub demo: bool,
}
