//! Finds the argument that a partial command line is about to name, from the definition of the
//! command line.

use std::path::PathBuf;

use clap::{Arg, ArgAction, Command};

/// A command line up to its last, partial word.
#[derive(Debug)]
pub(super) struct PartialLine<'a> {
    /// The command that the words name.
    pub(super) command: &'a Command,
    /// Its name without the program's: `key add`.
    pub(super) path: String,
    /// Ids of the options before the last word.
    pub(super) used: Vec<String>,
    /// Positional arguments of the command before the last word.
    pub(super) positionals: Vec<String>,
    /// `--config` and `--data-dir`, if they are there.
    pub(super) config: Option<PathBuf>,
    pub(super) data_dir: Option<PathBuf>,
    pub(super) expected: ExpectedWord<'a>,
    /// The part of the last word that precedes the expected value, as in `--preset=`.
    pub(super) prefix: String,
}

/// The kind of the last word.
#[derive(Debug)]
pub(super) enum ExpectedWord<'a> {
    OptionName,
    Value(&'a Arg),
    /// A subcommand, if no positional argument precedes it, or a positional argument.
    Word {
        subcommands: bool,
        positional: Option<&'a Arg>,
    },
}

/// Reads the words after the program's name; the last one may be empty.
pub(super) fn read<'a>(root: &'a Command, words: &[String]) -> PartialLine<'a> {
    let (last, before) = words.split_last().map_or(("", words), |(last, rest)| (&**last, rest));
    let mut line = PartialLine {
        command: root,
        path: String::new(),
        used: Vec::new(),
        positionals: Vec::new(),
        config: None,
        data_dir: None,
        expected: ExpectedWord::OptionName,
        prefix: String::new(),
    };
    let mut pending: Option<&Arg> = None;
    let mut only_positional = false;
    for word in before {
        if let Some(arg) = pending.take() {
            line.record_option(arg, word);
        } else if only_positional {
            line.positionals.push(word.clone());
        } else if word == "--" {
            only_positional = true;
        } else if word.len() > 1 && word.starts_with('-') {
            pending = line.read_option(word);
        } else if let Some(subcommand) =
            line.command.find_subcommand(word).filter(|_| line.positionals.is_empty())
        {
            line.enter(subcommand);
        } else {
            line.positionals.push(word.clone());
        }
    }
    line.expect(last, pending, only_positional);
    line
}

impl<'a> PartialLine<'a> {
    fn enter(&mut self, subcommand: &'a Command) {
        if !self.path.is_empty() {
            self.path.push(' ');
        }
        self.path.push_str(subcommand.get_name());
        self.command = subcommand;
    }

    fn record_option(&mut self, arg: &Arg, value: &str) {
        match arg.get_id().as_str() {
            "config" => self.config = Some(expand_home(value)),
            "data_dir" => self.data_dir = Some(expand_home(value)),
            _ => {}
        }
    }

    /// Reads a word that begins with `-`; returns the option if its value is the next word.
    fn read_option(&mut self, word: &str) -> Option<&'a Arg> {
        if let Some(long) = word.strip_prefix("--") {
            let (name, value) = long.split_once('=').map_or((long, None), |(n, v)| (n, Some(v)));
            let arg = find_long(self.command, name)?;
            self.used.push(arg.get_id().to_string());
            if let Some(value) = value {
                self.record_option(arg, value);
                return None;
            }
            return takes_value(arg).then_some(arg);
        }
        let mut shorts = word.chars().skip(1);
        while let Some(short) = shorts.next() {
            let arg = find_short(self.command, short)?;
            self.used.push(arg.get_id().to_string());
            if takes_value(arg) {
                // The rest of the word is the value.
                return shorts.next().is_none().then_some(arg);
            }
        }
        None
    }

    /// Decides what the last word is.
    fn expect(&mut self, last: &str, pending: Option<&'a Arg>, only_positional: bool) {
        if let Some(arg) = pending {
            self.expect_value(arg, last, 0);
            return;
        }
        if !only_positional && last.starts_with('-') {
            if let Some((name, _)) = last.strip_prefix("--").and_then(|long| long.split_once('='))
                && let Some(arg) = find_long(self.command, name).filter(|arg| takes_value(arg))
            {
                self.expect_value(arg, last, name.len() + 3);
            } else if let Some(short) = last.chars().nth(1).filter(|short| *short != '-')
                && let Some(arg) = find_short(self.command, short).filter(|arg| takes_value(arg))
            {
                self.expect_value(arg, last, 1 + short.len_utf8());
            }
            return;
        }
        let position = self.positionals.len();
        let positional = positional_at(self.command, position);
        let subcommands = position == 0 && !only_positional;
        self.expected = ExpectedWord::Word { subcommands, positional };
        if let Some(arg) = positional {
            self.prefix = list_prefix(arg, last).to_owned();
        }
    }

    /// Expects a value that begins at this byte of the last word.
    fn expect_value(&mut self, arg: &'a Arg, last: &str, start: usize) {
        let (option, value) = last.split_at(start);
        self.expected = ExpectedWord::Value(arg);
        self.prefix = format!("{option}{}", list_prefix(arg, value));
    }
}

/// The complete items of a list that is one word, as in `a,b,` of `a,b,c`.
fn list_prefix<'w>(arg: &Arg, word: &'w str) -> &'w str {
    let end = arg
        .get_value_delimiter()
        .and_then(|delimiter| word.rfind(delimiter).map(|at| at + delimiter.len_utf8()));
    &word[..end.unwrap_or(0)]
}

/// A shell expands the tilde only when it runs the command.
fn expand_home(path: &str) -> PathBuf {
    match (path.strip_prefix("~/"), std::env::home_dir()) {
        (Some(rest), Some(home)) => home.join(rest),
        _ => PathBuf::from(path),
    }
}

fn find_long<'a>(command: &'a Command, name: &str) -> Option<&'a Arg> {
    command.get_arguments().find(|arg| {
        arg.get_long() == Some(name)
            || arg.get_all_aliases().is_some_and(|aliases| aliases.contains(&name))
    })
}

fn find_short(command: &Command, short: char) -> Option<&Arg> {
    command.get_arguments().find(|arg| arg.get_short() == Some(short))
}

fn takes_value(arg: &Arg) -> bool {
    arg.get_action().takes_values()
}

/// The positional argument at this position; the last one may take any number of words.
fn positional_at(command: &Command, position: usize) -> Option<&Arg> {
    let visible: Vec<&Arg> = command.get_positionals().filter(|arg| !arg.is_hide_set()).collect();
    let repeated = || visible.last().filter(|arg| matches!(arg.get_action(), ArgAction::Append));
    visible.get(position).or_else(repeated).copied()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::cli::Cli;

    /// The command, the id of the expected argument and the prefix; `-` if an option is expected.
    fn expected(line: &str) -> (String, String, String) {
        let mut root = Cli::command();
        root.build();
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let read = read(&root, &words);
        let id = match read.expected {
            ExpectedWord::OptionName => "-".to_owned(),
            ExpectedWord::Value(arg) => arg.get_id().to_string(),
            ExpectedWord::Word { positional, .. } => {
                positional.map_or_else(String::new, |arg| arg.get_id().to_string())
            }
        };
        (read.path, id, read.prefix)
    }

    #[test]
    fn argument_under_the_cursor_is_found() {
        for (line, path, id, prefix) in [
            ("", "", "", ""),
            ("upstream show zz", "upstream show", "name", ""),
            ("--json upstream --config x show zz", "upstream show", "name", ""),
            ("upstream add x --preset openro", "upstream add", "preset", ""),
            ("upstream add x --preset=openro", "upstream add", "preset", "--preset="),
            ("upstream add x --models a,b", "upstream add", "models", "a,"),
            ("upstream add x --models=a,b", "upstream add", "models", "--models=a,"),
            ("upstream add x --pre", "upstream add", "-", ""),
            ("key add openai -l ", "key add", "label", ""),
            ("key add openai -lx", "key add", "label", "-l"),
            ("model add fast a b c", "model add", "targets", ""),
            ("project show a b", "project show", "", ""),
            ("ask -y -- -x", "ask", "model", ""),
            ("log --follow mod", "log", "filter", ""),
            ("log show ", "log show", "id", ""),
            ("config set a ", "config set", "value", ""),
        ] {
            assert_eq!(expected(line), (path.into(), id.into(), prefix.into()), "{line}");
        }
    }

    #[test]
    fn completion_reads_the_config_named_on_the_line() {
        let mut root = Cli::command();
        root.build();
        let words =
            ["--config=/a", "key", "--data-dir", "/b", "list", ""].map(str::to_owned).to_vec();
        let read = read(&root, &words);
        assert_eq!((read.config, read.data_dir), (Some("/a".into()), Some("/b".into())));
    }
}
