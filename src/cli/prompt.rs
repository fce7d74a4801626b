//! Asks the person at the terminal, and takes in secrets: hidden prompt, standard input or a
//! variable, never argv.

use std::io::{self, BufRead, IsTerminal, Read, Write};

use super::CommandContext;
use crate::cli::{
    error::{CliError, ExitStatus},
    expose::expose_secret,
};
use crate::secrets::Secret;

/// A key is text of one line; nothing known is longer than a JSON service account.
const MAX_KEY_BYTES: usize = 16 * 1024;

/// Where a secret is typed or piped in from.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct SecretSource {
    /// Read the key from standard input instead of asking: `pass show openai | aiproxy key add
    /// openai --stdin`
    #[arg(long, conflicts_with = "from_env")]
    pub stdin: bool,
    /// Read the key from this environment variable
    #[arg(long, value_name = "NAME")]
    pub from_env: Option<String>,
}

impl SecretSource {
    /// Whether the secret comes without a person being asked.
    #[must_use]
    pub fn is_noninteractive(&self) -> bool {
        self.stdin || self.from_env.is_some()
    }

    /// That somebody is there to be asked, where the secret does not come by itself.
    ///
    /// # Errors
    ///
    /// No terminal.
    pub fn ensure_promptable(&self, what: &str) -> Result<(), CliError> {
        if self.is_noninteractive() || io::stdin().is_terminal() {
            return Ok(());
        }
        Err(CliError::failed(format!("no terminal to ask for {what}"))
            .hint("run with --stdin or --from-env NAME"))
    }

    /// Reads and checks the secret.
    ///
    /// # Errors
    ///
    /// No terminal to ask at; text that cannot be a key (see [`checked`]).
    pub async fn read(&self, what: &str) -> Result<Secret, CliError> {
        if let Some(name) = &self.from_env {
            let text = std::env::var_os(name)
                .ok_or_else(|| CliError::failed(format!("the variable {name} is not set")))?;
            return parse_provider_key(text.into_encoded_bytes(), &format!("the variable {name}"));
        }
        if self.stdin {
            return parse_provider_key(read_stdin_key().await?, "standard input");
        }
        self.ensure_promptable(what)?;
        let question = format!("{what} (hidden): ");
        match read_blocking(|| rpassword::prompt_password(question)).await {
            Ok(text) => parse_provider_key(text.into_bytes(), "the prompt"),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                Err(CliError::quiet(ExitStatus::Failed))
            }
            Err(error) => Err(CliError::failed(format!("the prompt: {error}"))
                .hint("run with --stdin or --from-env NAME")),
        }
    }
}

/// Reads on a thread of its own: a person may take long, and Ctrl-C is heard meanwhile.
async fn read_blocking<T: Send + 'static>(
    read: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(read).await.unwrap_or_else(|e| Err(io::Error::other(e)))
}

/// Standard input as text, up to so many bytes.
///
/// # Errors
///
/// It cannot be read, or is no text.
pub async fn read_stdin_text(limit: u64) -> Result<String, CliError> {
    let read = read_blocking(move || {
        let mut text = String::new();
        io::stdin().lock().take(limit).read_to_string(&mut text).map(|_| text)
    });
    read.await.map_err(|e| CliError::failed(format!("standard input: {e}")))
}

/// Standard input, up to what could be a key.
async fn read_stdin_key() -> Result<Vec<u8>, CliError> {
    let limit = u64::try_from(MAX_KEY_BYTES).unwrap_or(u64::MAX) + 3;
    let read = read_blocking(move || {
        let mut bytes = Vec::new();
        io::stdin().lock().take(limit).read_to_end(&mut bytes).map(|_| bytes)
    });
    read.await.map_err(|e| CliError::failed(format!("standard input: {e}")))
}

/// Takes bytes as a key: one trailing newline is cut, anything that is no single line of visible
/// text is refused, and so is a key of our own making, which would send a provider request back to
/// us.
///
/// # Errors
///
/// What is wrong with it, never what it is.
pub fn parse_provider_key(bytes: Vec<u8>, from: &str) -> Result<Secret, CliError> {
    let secret = parse_token(bytes, from)?;
    if expose_secret(&secret).starts_with("aip-") {
        return Err(CliError::failed(format!("{from} holds a client key of this proxy (`aip-…`), not a key of a provider"))
            .hint("after `eval \"$(aiproxy env)\"` OPENAI_API_KEY holds our own token; use the provider's key"));
    }
    Ok(secret)
}

/// As [`checked`], for tokens of any kind.
///
/// # Errors
///
/// As [`checked`].
pub fn parse_token(mut bytes: Vec<u8>, from: &str) -> Result<Secret, CliError> {
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
    }
    let error = |text: &str| Err(CliError::failed(format!("{from} {text}")));
    if bytes.is_empty() {
        return error("holds no key: it is empty");
    }
    if bytes.len() > MAX_KEY_BYTES {
        return error("holds more than 16 KiB: that is no key");
    }
    if bytes.contains(&b'\n') || bytes.contains(&b'\r') {
        return error("holds more than one line: a key is a single line");
    }
    let Ok(text) = String::from_utf8(bytes) else {
        return error("holds binary data: a key is text");
    };
    if text.chars().any(|c| c.is_control()) {
        return error("holds control characters: a key is plain text");
    }
    if text.chars().any(char::is_whitespace) {
        return error("holds spaces: a key has none");
    }
    if !text.is_ascii() {
        return error("holds characters that no HTTP header can carry: a key is ASCII");
    }
    Ok(Secret::new(text))
}

/// Asks for the passphrase of the encrypted key file; twice where it is a new one.
///
/// # Errors
///
/// No terminal to ask at; two different answers.
pub async fn ask_passphrase(exists: bool) -> Result<Secret, CliError> {
    if !io::stderr().is_terminal() {
        return Err(CliError::failed(
            "no terminal to ask for the passphrase of the encrypted key file",
        )
        .hint("put it into a file of mode 600 and name that in AIPROXY_KEYS_PASSPHRASE_FILE"));
    }
    let ask = async |question: &'static str| match read_blocking(move || {
        rpassword::prompt_password(question)
    })
    .await
    {
        Ok(text) => Ok(Secret::new(text)),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => {
            Err(CliError::quiet(ExitStatus::Failed))
        }
        Err(error) => Err(CliError::failed(format!("the prompt: {error}"))),
    };
    if exists {
        return ask("passphrase of the encrypted key file: ").await;
    }
    let first = ask("a new passphrase for the encrypted key file: ").await?;
    let again = ask("the same again: ").await?;
    if first.digest() == again.digest() {
        Ok(first)
    } else {
        Err(CliError::failed("the two passphrases differ; nothing was stored"))
    }
}

/// Asks before something is lost; `--yes` answers.
///
/// # Errors
///
/// "No" ends the command; so does the lack of a terminal.
pub async fn confirm(ctx: &CommandContext, question: &str) -> Result<(), CliError> {
    if ctx.global.yes {
        return Ok(());
    }
    if !io::stdin().is_terminal() {
        return Err(
            CliError::failed(format!("{question} — no terminal to ask at")).hint("run with --yes")
        );
    }
    match ask_line(&format!("{question} [y/N] ")).await?.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(CliError::failed("nothing was changed")),
    }
}

/// Asks for a line of plain text.
///
/// # Errors
///
/// The end of standard input.
pub async fn ask_line(question: &str) -> Result<String, CliError> {
    {
        let mut err = io::stderr().lock();
        // A question that cannot be shown is answered by nobody; reading goes on all the same.
        drop(write!(err, "{question}").and_then(|()| err.flush()));
    }
    let line = read_blocking(|| {
        let mut line = String::new();
        io::stdin().lock().take(4096).read_line(&mut line).map(|_| line)
    });
    let line = line.await.map_err(|e| CliError::failed(format!("standard input: {e}")))?;
    if line.is_empty() { Err(CliError::failed("no answer")) } else { Ok(line) }
}

/// Whether a word looks like a credential: it must not stand on a command line.
#[must_use]
pub fn looks_like_key(word: &str) -> bool {
    let known = ["sk-", "gsk_", "AIza", "xai-", "aip-", "nvapi-", "hf_", "pplx-", "r8_", "Bearer "]
        .iter()
        .any(|p| word.starts_with(p));
    let dense = word.len() >= 30
        && word.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        && word.bytes().filter(u8::is_ascii_digit).count() >= 4;
    (known && word.len() >= 12) || dense
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_single_line_of_visible_text_is_a_key() {
        for (bytes, why) in [
            (&b""[..], "empty"),
            (b"\n", "empty"),
            (b"a\nb\n", "more than one line"),
            (b"a\n\n", "more than one line"),
            (b"sk-\xff\xfe", "binary"),
            (b"sk-\x00abc", "control"),
            (b"sk abc", "spaces"),
            ("sk-ключ".as_bytes(), "ASCII"),
            (b"aip-0123456789", "client key"),
            (&[b'x'; 20_000], "16 KiB"),
        ] {
            let error = parse_provider_key(bytes.to_vec(), "standard input").expect_err(why);
            assert!(error.text.contains(why), "{}: {why}", error.text);
            assert_eq!(error.exit, ExitStatus::Failed);
        }
        for good in [&b"sk-abc"[..], b"sk-abc\n", b"sk-abc\r\n"] {
            assert_eq!(
                parse_provider_key(good.to_vec(), "standard input").expect("a key").fingerprint(),
                Secret::new("sk-abc".into()).fingerprint()
            );
        }
    }

    #[test]
    fn keys_are_told_from_names() {
        for (word, want) in [
            ("openai", false),
            ("my-very-long-upstream-name-in-the-office", false),
            ("sk-proj-0123456789abcdef", true),
            ("gsk_0123456789abcdef", true),
            ("0123456789abcdef0123456789abcdef", true),
            ("integrate.api.example.com", false),
        ] {
            assert_eq!(looks_like_key(word), want, "{word}");
        }
    }
}
