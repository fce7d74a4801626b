//! Finds a project and its key.

use crate::{
    base::suggest,
    cli::{
        attach::RunningProxy,
        client_key::{self, ClientKeyError},
        config::edit_file::{self, ConfigFile},
        context::CommandContext,
        error::CliError,
        output,
    },
    config::settings::Project,
    control::action::Action,
    secrets::{Secret, keyring::Keyring},
};

/// The key that a project's clients send.
///
/// # Errors
///
/// The project does not exist, it is disabled, or its reference does not resolve.
pub(in crate::cli) async fn client_key(
    ctx: &CommandContext,
    name: &str,
) -> Result<Secret, CliError> {
    let file = edit_file::load(ctx)?;
    let project = find_project(&file, name)?;
    if !project.enabled {
        return Err(CliError::failed(format!("project `{name}` is disabled"))
            .hint("`aiproxy project set NAME enabled=true` enables it"));
    }
    project_key(ctx, &file, project).await.map(|(secret, _)| secret)
}

/// Finds a project by its name.
///
/// # Errors
///
/// No such project; the error names the nearest.
pub(super) fn find_project<'a>(file: &'a ConfigFile, name: &str) -> Result<&'a Project, CliError> {
    let projects = &file.settings.projects;
    projects.iter().find(|p| *p.name == *name).map(|p| &**p).ok_or_else(|| {
        let suggestion = suggest::nearest(name, projects.iter().map(|p| &*p.name))
            .map(|suggestion| format!("did you mean `{suggestion}`? "))
            .unwrap_or_default();
        CliError::failed(format!("no project `{name}`"))
            .hint(format!("{suggestion}`aiproxy project add {name}` creates it"))
    })
}

/// The key that the running proxy accepts, or else the one in its store, and a description of its
/// location.
pub(super) async fn project_key(
    ctx: &CommandContext,
    file: &ConfigFile,
    project: &Project,
) -> Result<(Secret, String), CliError> {
    if let Some(secret) = key_in_use(ctx, project).await {
        let location = key_reference(file, project).await.unwrap_or_default();
        return Ok((secret, location));
    }
    match &project.key {
        Some(reference) => {
            let secret = file
                .resolver()
                .resolve_any_key(reference)
                .await
                .map_err(|e| CliError::failed(e.text()).hint(e.hint()))?;
            Ok((secret, reference.to_string()))
        }
        None => {
            let key = client_key::default_client_key(&file.paths, &Keyring::system()).await?;
            key.note().iter().for_each(|note| output::print_note(&format!("note: {note}")));
            Ok((key.secret, key.location.reference()))
        }
    }
}

/// The key that the proxy of the data dir accepts now, which may be one that cannot be read here.
async fn key_in_use(ctx: &CommandContext, project: &Project) -> Option<Secret> {
    let proxy = RunningProxy::try_connect(ctx).ok().flatten()?;
    // With --url, the token may be that of another user's proxy.
    proxy.run_info.as_ref()?;
    let question = Action::ClientKey { project: project.name.to_string() };
    let reply = proxy.client.send_action(&question).await.ok()?;
    // A proxy that does not know the key itself may accept the one in the store.
    reply.ok.then(|| Secret::new(reply.text.to_string()))
}

/// The key's reference; `None` if the key of the implicit project has not been created yet.
pub(super) async fn key_reference(file: &ConfigFile, p: &Project) -> Option<String> {
    match &p.key {
        Some(reference) => Some(reference.to_string()),
        None => match client_key::find_default_key(&file.paths, &Keyring::system()).await {
            Ok(found) => found.map(|(_, location)| location.reference()),
            Err(ClientKeyError::Keyring { location, .. }) => Some(location.reference()),
            Err(_) => None,
        },
    }
}
