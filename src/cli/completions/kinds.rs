//! The kind of value that each argument takes. An argument with a closed list of values in its own
//! definition needs no entry.

/// What an argument names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ArgumentKind {
    /// A path of the config.
    ConfigPath,
    /// A value for the path before it.
    ConfigValue,
    Dialect,
    File,
    Folder,
    Key,
    /// A word of a log filter.
    LogFilter,
    /// A name that clients can request.
    Model,
    /// An alias or a logical model, patterns included.
    ConfiguredModel,
    Preset,
    Project,
    /// `KEY=VALUE` of a project.
    ProjectSetting,
    RequestId,
    Text,
    /// A tool that `connect` knows.
    ConnectedTool,
    /// A program that `run` starts.
    Tool,
    Upstream,
    /// An upstream of the config, or a preset that becomes one.
    UpstreamOrPreset,
    /// `KEY=VALUE` of an upstream.
    UpstreamSetting,
    UsageGroup,
}

/// Returns the kind of an argument, by its command (`key add`) and its id. `used` has the ids of the
/// options before it.
pub(super) fn kind_of(command: &str, id: &str, used: &[String]) -> ArgumentKind {
    use ArgumentKind::{
        ConfigPath, ConfigValue, ConfiguredModel, ConnectedTool, Dialect, File, Folder, Key,
        LogFilter, Model, Preset, Project, ProjectSetting, RequestId, Text, Tool, Upstream,
        UpstreamOrPreset, UpstreamSetting, UsageGroup,
    };
    match (command, id) {
        ("config get" | "config set" | "config unset", "path") => ConfigPath,
        ("config set", "value") => ConfigValue,
        ("explain" | "log replay" | "log show", "id") => RequestId,
        ("key add", "upstream") => UpstreamOrPreset,
        ("log" | "log export", "filter") => LogFilter,
        ("model add" | "project add", "name") => Text,
        ("model remove", "name") => ConfiguredModel,
        ("model forget" | "model show", "name") => Model,
        ("project set", "values") => ProjectSetting,
        ("upstream add", "name") => Preset,
        ("upstream set", "values") => UpstreamSetting,
        ("connect" | "disconnect", "tool") => ConnectedTool,
        ("run", "args") => File,
        ("usage", "by") => UsageGroup,
        // More models to compare, not the words of a question.
        ("ask", "words") if used.iter().any(|option| option == "repeat") => Model,
        (_, "config" | "file" | "files" | "token_file") => File,
        (_, "data_dir" | "dir") => Folder,
        (_, "dialect") => Dialect,
        (_, "key") => Key,
        (_, "model" | "models" | "targets") => Model,
        (_, "preset") => Preset,
        (_, "project") => Project,
        (_, "tool") => Tool,
        (_, "upstream" | "upstreams") => Upstream,
        (command, "name") if command.starts_with("project ") => Project,
        (command, "name") if command.starts_with("upstream ") => Upstream,
        _ => Text,
    }
}
