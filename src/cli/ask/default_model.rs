//! Chooses the model for a question without one.

use crate::{
    cli::{
        attach::RunningProxy, config::edit_file, context::CommandContext, error::CliError,
        model_facts, output,
    },
    config::settings::Settings,
    control::snapshot::ModelView,
    routing::learned::LearnedRepairs,
};

/// Chooses a model that the project may request, and prints its name as a note.
///
/// # Errors
///
/// The config cannot be read, or there is no model.
pub(super) async fn choose(
    ctx: &CommandContext,
    proxy: &RunningProxy,
    project: &str,
) -> Result<String, CliError> {
    let name = find(ctx, proxy, project, |_| None).await?;
    output::print_note(&format!("note: asking {name}; name another model before the text"));
    Ok(name)
}

/// Finds the model to use if the user names none. `rank` puts some models that call tools first,
/// the lowest number before others.
///
/// # Errors
///
/// As [`choose`].
pub(in crate::cli) async fn find(
    ctx: &CommandContext,
    proxy: &RunningProxy,
    project: &str,
    rank: impl Fn(&str) -> Option<usize>,
) -> Result<String, CliError> {
    let settings = edit_file::load(ctx)?.settings;
    let models = proxy.snapshot().await?.models;
    let allowed = settings.projects.iter().find(|row| *row.name == *project);
    let offered: Vec<&ModelView> = models
        .iter()
        .filter(|model| allowed.is_none_or(|project| project.models.matches(&model.name)))
        .collect();
    let chats = || offered.iter().filter(|model| is_set_up_or_chats(&settings, model));
    let ranked = chats().filter_map(|model| Some((rank(&model.name)?, model)));
    let chosen = ranked
        .min_by_key(|(rank, _)| *rank)
        .map(|(_, model)| model)
        .or_else(|| chats().next())
        .or_else(|| offered.first())
        .ok_or_else(|| {
            CliError::failed(format!("project `{project}` has no model"))
                .hint("`aiproxy model list` shows the models")
        })?;
    Ok(chosen.name.clone())
}

/// Returns whether the user gave the name, or a target of the name is known to call tools. A model
/// list may begin with models that make vectors or pictures.
fn is_set_up_or_chats(settings: &Settings, model: &ModelView) -> bool {
    matches!(&*model.kind, "alias" | "logical")
        || model_facts::of_targets(settings, &LearnedRepairs::default(), &model.targets)
            .iter()
            .any(|target| target.facts().tools == Some(true))
}
