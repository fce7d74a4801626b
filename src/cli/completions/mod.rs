//! Shell completions and man pages, generated from the command-line definition.
//!
//! The scripts for bash, zsh and fish call `aiproxy __complete` at each Tab, so that they offer the
//! names of the config. The call prints the kind of its answer and one candidate a line, and nothing
//! else, whatever happens.

mod command_line;
mod kinds;
mod scripts;
mod values;
mod words;

use std::{ffi::OsString, path::PathBuf};

use clap::{Arg, ArgAction, Args, Command, builder::PossibleValue};
use clap_complete::Shell;

use crate::cli::{
    completions::{
        command_line::{ExpectedWord, PartialLine},
        kinds::ArgumentKind,
        values::CompletionCandidate,
        words::BashLine,
    },
    context::GlobalArgs,
    error::{self, CliError, ExitStatus},
    output,
};

pub(super) const EXAMPLES: &str = "\
In bash, zsh and fish, Tab also completes the names of the config: upstreams, keys, models,
projects. They are read from the config file at each Tab.

Examples:
  aiproxy completions bash > ~/.local/share/bash-completion/completions/aiproxy
  aiproxy completions zsh > ~/.zfunc/_aiproxy        with `fpath+=~/.zfunc` before compinit
  aiproxy completions fish > ~/.config/fish/completions/aiproxy.fish";

/// The first argument of a call by a shell script.
const REQUEST: &str = "__complete";

#[derive(Clone, Debug, Args)]
pub struct CompletionArgs {
    /// Shell to complete in
    shell: Shell,
}

#[derive(Clone, Debug, Args)]
pub struct ManArgs {
    /// Folder for the pages, created if it is missing
    dir: PathBuf,
}

/// Prints the completions of a shell.
///
/// # Errors
///
/// Standard output is closed.
pub fn print_completions(args: &CompletionArgs, command: Command) -> Result<ExitStatus, CliError> {
    output::print(&scripts::script(args.shell, command))?;
    Ok(ExitStatus::Ok)
}

/// Writes one man page per command.
///
/// # Errors
///
/// The folder cannot be written.
pub fn write_man_pages(args: &ManArgs, command: Command) -> Result<ExitStatus, CliError> {
    std::fs::create_dir_all(&args.dir)
        .and_then(|()| clap_mangen::generate_to(command, &args.dir))
        .map_err(|e| error::path_error(&args.dir, &e))?;
    output::print_line(&format!("man pages written to {}", args.dir.display()))?;
    Ok(ExitStatus::Ok)
}

/// Answers a call by a shell script; returns whether the arguments are one. Errors are not
/// reported, because they would appear in the middle of the line that the user types.
pub fn answer_request(args: impl IntoIterator<Item = OsString>, command: Command) -> bool {
    let mut args = args.into_iter().skip(1).map(|arg| arg.to_string_lossy().into_owned());
    if args.next().as_deref() != Some(REQUEST) {
        return false;
    }
    let shell = args.next().unwrap_or_default();
    let rest: Vec<String> = args.collect();
    drop(output::print(&answer(&shell, &rest, command)));
    true
}

/// The answer for `bash WORD_BREAKS LINE`, `zsh PROGRAM WORD…` or `fish PROGRAM WORD…`.
fn answer(shell: &str, rest: &[String], command: Command) -> String {
    if shell == "bash" {
        let [word_breaks, line] = rest else { return String::new() };
        let line = words::split(line);
        let found = find_candidates(line.words.get(1..).unwrap_or_default(), command);
        return bash_answer(&found, &line, word_breaks);
    }
    let found = find_candidates(rest.get(1..).unwrap_or_default(), command);
    let mut out = format!("{}\n", found.kind);
    for CompletionCandidate { value, help } in &found.candidates {
        out.push_str(&format!("{value}\t{help}\n"));
    }
    out
}

fn bash_answer(found: &Completions, line: &BashLine, word_breaks: &str) -> String {
    let typed = line.words.last().map_or("", String::as_str);
    let matching: Vec<&CompletionCandidate> =
        found.candidates.iter().filter(|row| row.value.starts_with(typed)).collect();
    let is_open = |row: &&CompletionCandidate| row.value.ends_with(['=', ':']);
    let kind = match found.kind {
        "values" if !matching.is_empty() && matching.iter().all(is_open) => "open",
        kind => kind,
    };
    let mut out = format!("{kind}\n");
    for row in matching {
        out.push_str(&words::insertion(&row.value, line, word_breaks));
        out.push('\n');
    }
    out
}

/// What completes a line.
#[derive(Debug)]
struct Completions {
    /// `files` and `folders` leave it to the shell; else `values`.
    kind: &'static str,
    candidates: Vec<CompletionCandidate>,
}

/// Finds the candidates for the last of these words after the program's name.
fn find_candidates(words: &[String], mut root: Command) -> Completions {
    root.build();
    let line = command_line::read(&root, words);
    let typed = words.last().map_or("", String::as_str);
    let mut found = match &line.expected {
        ExpectedWord::OptionName => Completions { kind: "values", candidates: options(&line) },
        ExpectedWord::Value(arg) => values_of(arg, &line, typed),
        ExpectedWord::Word { subcommands, positional } => {
            let mut found = positional.map_or_else(
                || Completions { kind: "values", candidates: Vec::new() },
                |arg| values_of(arg, &line, typed),
            );
            if *subcommands {
                found.candidates.splice(0..0, subcommands_of(line.command));
            }
            found
        }
    };
    let is_one_line = |text: &str| !text.contains(char::is_control);
    found.candidates.retain(|row| !row.value.is_empty() && is_one_line(&row.value));
    for row in &mut found.candidates {
        row.help.retain(|c| !c.is_control());
    }
    found
}

fn subcommands_of(command: &Command) -> impl Iterator<Item = CompletionCandidate> {
    command.get_subcommands().filter(|subcommand| !subcommand.is_hide_set()).map(|subcommand| {
        let about = subcommand.get_about().map(ToString::to_string).unwrap_or_default();
        CompletionCandidate::new(subcommand.get_name(), about)
    })
}

/// The options that the line may still have.
fn options(line: &PartialLine<'_>) -> Vec<CompletionCandidate> {
    let is_used = |arg: &Arg| {
        let is_repeated = matches!(arg.get_action(), ArgAction::Append | ArgAction::Count);
        !is_repeated && line.used.iter().any(|id| arg.get_id() == id.as_str())
    };
    let mut out = Vec::new();
    for arg in line.command.get_arguments().filter(|arg| !arg.is_hide_set() && !is_used(arg)) {
        if let Some(long) = arg.get_long() {
            let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
            out.push(CompletionCandidate::new(format!("--{long}"), help));
        }
    }
    out
}

/// The values of an argument, each after the prefix that is already typed.
fn values_of(arg: &Arg, line: &PartialLine<'_>, typed: &str) -> Completions {
    let typed = typed.get(line.prefix.len()..).unwrap_or_default();
    let listed: Vec<PossibleValue> = arg.get_possible_values();
    let kind = kinds::kind_of(&line.path, arg.get_id().as_str(), &line.used);
    let candidates: Vec<CompletionCandidate> = if listed.is_empty() {
        let global = GlobalArgs {
            config: line.config.clone(),
            data_dir: line.data_dir.clone(),
            ..GlobalArgs::default()
        };
        match (kind, line.positionals.last()) {
            (ArgumentKind::ConfigValue, Some(path)) => values::of_setting(path),
            _ => values::values(kind, typed, &global),
        }
    } else {
        let visible = listed.iter().filter(|value| !value.is_hide_set());
        visible
            .map(|value| {
                let help = value.get_help().map(ToString::to_string).unwrap_or_default();
                CompletionCandidate::new(value.get_name(), help)
            })
            .collect()
    };
    let kind = match kind {
        _ if !listed.is_empty() => "values",
        ArgumentKind::File => "files",
        ArgumentKind::Folder => "folders",
        _ => "values",
    };
    let prefixed = |row: CompletionCandidate| CompletionCandidate {
        value: format!("{}{}", line.prefix, row.value),
        ..row
    };
    Completions { kind, candidates: candidates.into_iter().map(prefixed).collect() }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::cli::Cli;

    /// The answer to fish for these words after the program's name.
    fn fish(line: &str) -> String {
        let words = std::iter::once("aiproxy").chain(line.split(' ')).map(str::to_owned);
        answer("fish", &words.collect::<Vec<_>>(), Cli::command())
    }

    #[test]
    fn commands_options_and_fixed_values_are_completed() {
        for (line, want) in [
            ("", "upstream\tManage upstreams"),
            ("key ", "add\tStore a key"),
            ("key add --mis", "--missing\t"),
            ("completions ", "fish\t"),
            ("upstream add x --dialect ", "anthropic\t"),
            ("upstream add x --preset=", "--preset=openai\t"),
            ("model add x y --strategy ", "\n"),
            ("usage --by ", "session\t"),
            ("log ", "state:\t"),
            ("log ", "show\tShow everything"),
            ("upstream set box ", "priority=\t"),
            ("upstream set box dialect=", "dialect=anthropic\t"),
            ("run ", "claude-code\tClaude Code\n"),
            ("config set tui.theme ", "contrast\t"),
            ("config set upstream.box.enabled ", "false\t"),
            ("config set server.max_requests ", ""),
        ] {
            let got = fish(line);
            assert!(got.starts_with("values\n") && got.contains(want), "{line}: {got}");
        }
        assert_eq!(fish("--config "), "files\n");
        assert_eq!(fish("man "), "folders\n");
        assert!(!fish("key add --missing --").contains("--missing"));
        assert!(!fish("key ").contains("--key"));
    }

    #[test]
    fn bash_gets_only_the_part_that_readline_inserts() {
        let bash = |line: &str| {
            let words = vec![" \t\n\"'@><=;|&(:".to_owned(), line.to_owned()];
            answer("bash", &words, Cli::command())
        };
        assert_eq!(bash("aiproxy upstr"), "values\nupstream\n");
        assert_eq!(bash("aiproxy upstream add x --dialect=anth"), "values\nanthropic\n");
        assert_eq!(bash("aiproxy upstream set box prior"), "open\npriority=\n");
        assert_eq!(bash("aiproxy upstream set box enabled=t"), "values\ntrue\n");
        assert_eq!(bash("aiproxy log state:f"), "values\nfailed\n");
    }

    #[test]
    fn only_completion_requests_are_answered() {
        let args = |args: &[&str]| args.iter().map(OsString::from).collect::<Vec<_>>();
        assert!(!answer_request(args(&["aiproxy", "key", "list"]), Cli::command()));
        assert_eq!(answer("bash", &[], Cli::command()), "");
        assert!(answer("zsh", &[], Cli::command()).contains("upstream\t"));
    }
}
