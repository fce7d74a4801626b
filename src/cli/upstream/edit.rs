//! Changes upstreams of the config: `set`, `enable`, `disable` and `remove`.

use super::lookup::ensure_known;
use crate::{
    cli::{
        attach,
        config::edit_file,
        context::CommandContext,
        error::{CliError, ExitStatus},
        prompt, status,
    },
    config::edit::Edit,
};

pub(super) const EXAMPLES: &str = "\
Values are TOML; anything that does not parse as TOML is taken as a string. The keys are those
of [[upstream]] in the config (`aiproxy config schema`).

Examples:
  aiproxy upstream set office priority=5 max_concurrency=8
  aiproxy upstream set office 'models=[\"qwen*\"]' timeouts.first_byte=30s";

/// Checks that the name is in the file. A discovered upstream has no row to change.
fn ensure_in_file(file: &edit_file::ConfigFile, name: &str) -> Result<(), CliError> {
    // A row with an error may not have been read; then the edit itself looks for it.
    if file.has_errors {
        return Ok(());
    }
    let merged = file.with_discovered();
    if !file.settings.upstreams.iter().any(|u| *u.name == *name)
        && let Some(found) = merged.upstreams.iter().find(|u| *u.name == *name)
    {
        return Err(CliError::failed(format!(
            "`{name}` was discovered ({}) and is not in the config",
            status::origin_name(found.origin)
        ))
        .hint(format!("`aiproxy upstream add {name}` adds it")));
    }
    ensure_known(name, file.settings.upstreams.iter().map(|u| &*u.name))
}

/// Enables or disables an upstream.
pub(super) async fn set_enabled(
    ctx: &CommandContext,
    name: &str,
    on: bool,
) -> Result<ExitStatus, CliError> {
    ensure_in_file(&edit_file::load_to_change(ctx)?, name)?;
    edit_file::edit_config(
        ctx,
        &[Edit::SetUpstreamEnabled { name: name.to_owned(), enabled: on }],
    )?;
    attach::reload_if_running(ctx).await;
    ctx.print_result(&format!("{name} is {}", if on { "enabled" } else { "disabled" }))
}

/// Changes settings of an upstream.
pub(super) async fn set(
    ctx: &CommandContext,
    name: &str,
    values: &[String],
) -> Result<ExitStatus, CliError> {
    ensure_in_file(&edit_file::load_to_change(ctx)?, name)?;
    let set = |(path, value)| Edit::SetUpstream { name: name.to_owned(), path, value };
    edit_file::edit_config(
        ctx,
        &edit_file::parse_assignments(values)?.into_iter().map(set).collect::<Vec<_>>(),
    )?;
    attach::reload_if_running(ctx).await;
    ctx.print_result(&format!("upstream {name} changed"))
}

/// Removes an upstream from the config. Its keys stay in their store.
pub(super) async fn remove(ctx: &CommandContext, name: &str) -> Result<ExitStatus, CliError> {
    ensure_in_file(&edit_file::load_to_change(ctx)?, name)?;
    prompt::confirm(ctx, &format!("remove upstream {name} from the config?")).await?;
    edit_file::edit_config(ctx, &[Edit::RemoveUpstream { name: name.to_owned() }])?;
    attach::reload_if_running(ctx).await;
    ctx.print_result(&format!("upstream {name} removed; its stored keys were not deleted"))
}
