//! Finds the program of a tool and makes its environment.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
};

use super::{recipe, recipe::RunnableTool, values::Values};
use crate::{
    cli::{
        env::hosts_without_proxy,
        error::{CliError, ExitStatus},
    },
    config::{Environment, base_url, presets, settings::Settings},
    secrets::Reference,
};

/// The exit status of shells for a command that does not exist.
const NOT_FOUND: u8 = 127;

/// Finds the program in `PATH`.
///
/// # Errors
///
/// It is not installed; the error names the command that installs it.
pub(super) fn find(tool: RunnableTool) -> Result<PathBuf, CliError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let extensions = std::env::var_os("PATHEXT").filter(|_| cfg!(windows)).unwrap_or_default();
    let extensions = extensions.to_string_lossy().to_lowercase();
    std::env::split_paths(&path)
        .filter(|folder| !folder.as_os_str().is_empty())
        .flat_map(|folder| {
            let names =
                extensions.split(';').map(|extension| format!("{}{extension}", tool.program));
            names.map(move |name| folder.join(name)).collect::<Vec<_>>()
        })
        .find(|file| is_program(file))
        .ok_or_else(|| {
            let error = CliError::failed(format!("`{}` is not installed", tool.program));
            CliError { exit: ExitStatus::Program(NOT_FOUND), ..error }
                .hint(format!("install it: {}", tool.install))
        })
}

#[cfg(unix)]
fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    path.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

#[cfg(not(unix))]
fn is_program(path: &Path) -> bool {
    path.is_file()
}

/// The changes that a program's environment gets: `None` removes a variable.
pub(super) fn environment(
    tool: RunnableTool,
    values: &Values<'_>,
    settings: &Settings,
    env: &Environment,
) -> BTreeMap<String, Option<OsString>> {
    let shell = recipe::shell_facts();
    let preset_keys = presets::all().iter().flat_map(|preset| &preset.key_env);
    let own_keys = settings.upstreams.iter().flat_map(|upstream| &upstream.keys);
    let own_keys = own_keys.filter_map(|key| match &key.reference {
        Reference::Env(name) => Some(name.to_string()),
        _ => None,
    });
    let removed = preset_keys
        .map(ToString::to_string)
        .chain(own_keys)
        .chain(shell.keys.iter().chain(&shell.addresses).cloned())
        .filter(|name| !shell.kept.contains(name))
        .chain(tool.recipe.unset.iter().cloned());
    let mut changes: BTreeMap<String, Option<OsString>> =
        removed.map(|name| (name, None)).collect();
    for (name, template) in &tool.recipe.env {
        changes.insert(name.clone(), values.text(template).map(OsString::from));
    }
    let own_host = base_url::host_port(values.base).map(|(host, _)| host);
    let hosts = hosts_without_proxy(env, own_host.as_deref());
    for name in ["NO_PROXY", "no_proxy"] {
        changes.insert(name.to_owned(), Some(OsString::from(&hosts)));
    }
    changes
}

/// Returns the arguments: those of the recipe, then those of the user.
pub(super) fn arguments(
    tool: RunnableTool,
    values: &Values<'_>,
    own: &[OsString],
) -> Vec<OsString> {
    let group = |group: &Vec<String>| -> Option<Vec<String>> {
        group.iter().map(|template| values.text(template)).collect()
    };
    let settings = tool.recipe.args.iter().filter_map(group).flatten().map(OsString::from);
    settings.chain(own.iter().map(|arg| OsStr::new(arg).to_owned())).collect()
}
