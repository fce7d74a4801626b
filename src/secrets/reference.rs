//! Key references: `keyring:LABEL`, `env:NAME`, `file:PATH`, `cmd:PROGRAM ARGS`, `vault:LABEL`, or
//! the key itself.

use std::{fmt, path::PathBuf, sync::Arc};

use super::Secret;

/// A parsed key reference. `Debug` and `Display` never show a literal key.
#[derive(Clone)]
pub enum Reference {
    /// OS keyring entry: service `aiproxy`, user LABEL.
    Keyring(String),
    Env(String),
    /// Absolute, or relative to the config file's folder (`resolve` makes it absolute).
    File(PathBuf),
    /// Program and arguments, split as a shell would, without any expansion.
    Command(Vec<String>),
    Vault(String),
    /// A key written into the config itself; it works, with a warning.
    Literal(Arc<Secret>),
}

impl Reference {
    /// Parses a reference as written; text without a known scheme is a literal key.
    ///
    /// # Errors
    ///
    /// The message of the config problem: an empty label, an unclosed quote, or a literal that
    /// looks like a mistake.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let Some((scheme, rest)) = text.split_once(':') else { return Self::literal(text) };
        let named = |what: &str| {
            if rest.is_empty() {
                Err(format!("`{scheme}:` needs {what}"))
            } else {
                Ok(rest.to_owned())
            }
        };
        match scheme {
            "keyring" => Ok(Self::Keyring(named("a label, as in `keyring:openai/work`")?)),
            "vault" => Ok(Self::Vault(named("a label, as in `vault:openai/work`")?)),
            "env" => Ok(Self::Env(named("the name of a variable, as in `env:OPENAI_API_KEY`")?)),
            "file" => Ok(Self::File(PathBuf::from(named("a path")?))),
            "cmd" => {
                Ok(Self::Command(split_words(&named("a program, as in `cmd:pass show openai`")?)?))
            }
            _ => Self::literal(text),
        }
    }

    fn literal(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("an empty key; use a reference such as `keyring:openai/work`".to_owned());
        }
        if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err("neither a key nor a reference: keys have no spaces; references begin with keyring:, env:, file:, cmd: or vault:"
                .to_owned());
        }
        Ok(Self::Literal(Arc::new(Secret::new(text.to_owned()))))
    }

    /// Returns the label of a key without a label in the config; `None` for a literal, which the
    /// config numbers.
    #[must_use]
    pub fn default_label(&self) -> Option<String> {
        let last = |text: &str| text.rsplit('/').next().unwrap_or(text).to_owned();
        match self {
            Self::Keyring(label) | Self::Vault(label) => Some(last(label)),
            Self::Env(name) => Some(name.clone()),
            Self::File(path) => path.file_name().map(|name| name.to_string_lossy().into_owned()),
            Self::Command(words) => words.first().map(|program| last(program)),
            Self::Literal(_) => None,
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Keyring(label) => write!(f, "keyring:{label}"),
            Self::Env(name) => write!(f, "env:{name}"),
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Command(words) => write!(f, "cmd:{}", words.join(" ")),
            Self::Vault(label) => write!(f, "vault:{label}"),
            Self::Literal(secret) => write!(f, "literal ({})", secret.fingerprint()),
        }
    }
}

impl fmt::Debug for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Splits a command line at spaces. Single and double quotes group; a backslash outside single
/// quotes escapes.
fn split_words(line: &str) -> Result<Vec<String>, String> {
    let (mut out, mut word, mut open, mut quote) = (Vec::new(), String::new(), false, None);
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (None, '\'' | '"') => (quote, open) = (Some(c), true),
            (None | Some('"'), '\\') => {
                word.push(chars.next().ok_or("a backslash at the end of the command")?);
                open = true;
            }
            (None, c) if c.is_whitespace() => {
                if open {
                    out.push(std::mem::take(&mut word));
                }
                open = false;
            }
            (_, c) => {
                word.push(c);
                open = true;
            }
        }
    }
    if quote.is_some() {
        return Err("a quote in the command is not closed".to_owned());
    }
    if open {
        out.push(word);
    }
    if out.is_empty() { Err("`cmd:` needs a program".to_owned()) } else { Ok(out) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_parsed_and_have_a_default_label() {
        for (text, shown, label) in [
            ("keyring:openai/work", "keyring:openai/work", Some("work")),
            ("env:OPENAI_API_KEY", "env:OPENAI_API_KEY", Some("OPENAI_API_KEY")),
            ("file:/run/key.txt", "file:/run/key.txt", Some("key.txt")),
            (
                "cmd:/usr/bin/pass 'show it'  openai",
                "cmd:/usr/bin/pass show it openai",
                Some("pass"),
            ),
        ] {
            let reference = Reference::parse(text).expect(text);
            assert_eq!(
                (reference.to_string().as_str(), reference.default_label().as_deref()),
                (shown, label)
            );
        }
        let literal = Reference::parse("sk-secretsecret").expect("literal");
        assert!(!format!("{literal:?}").contains("secretsecret"));
        assert!(
            Reference::parse("cmd:'open").is_err()
                && Reference::parse("env:").is_err()
                && Reference::parse("a b").is_err()
        );
    }
}
