//! The model that a tool uses, and its limits.

use super::recipe::RunnableTool;
use crate::cli::{
    ask::default_model,
    attach::RunningProxy,
    context::CommandContext,
    error::CliError,
    model::{self, TokenLimits},
    output,
};

/// A model and what is known of its limits.
pub(super) struct ToolModel {
    pub(super) name: String,
    /// Tokens of request and response together: the smallest of its targets.
    pub(super) context: Option<u64>,
    /// Tokens of a response.
    pub(super) output: Option<u64>,
}

/// Takes the model that the user names, or chooses one and says which.
///
/// # Errors
///
/// The config or the state of the proxy cannot be read, or the project has no model.
pub(super) async fn choose(
    ctx: &CommandContext,
    proxy: &RunningProxy,
    tool: RunnableTool,
    project: &str,
    named: Option<String>,
) -> Result<ToolModel, CliError> {
    let name = match named {
        Some(name) => name,
        None => {
            let rank = |name: &str| tool.recipe.preference(name);
            let name = default_model::find(ctx, proxy, project, rank).await?;
            output::print_note(&format!("note: {} uses {name}; --model names another", tool.name));
            name
        }
    };
    let TokenLimits { context, output } = model::limits(ctx, &name).await?;
    Ok(ToolModel { name, context, output })
}
