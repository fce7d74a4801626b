//! Resolves a key reference to the key itself.

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use super::{
    Reference, Secret,
    command::{self, CommandError},
    file::{self, FileError},
    keyring::{Keyring, KeyringError},
    secret::CLIENT_KEY_PREFIX,
    vault::{OpenVault, Vault, VaultError},
};

use crate::base::sync::{Mutex, RwLock};

/// Resolves references. Lives as long as the process, so that each command runs once.
pub struct SecretResolver {
    keyring: Keyring,
    vault: Arc<VaultSource>,
    env: HashMap<String, Secret>,
    /// Variables that contain keys; programs that aiproxy starts do not get them.
    withheld_env_names: RwLock<HashSet<String>>,
    commands: Mutex<HashMap<Vec<String>, CommandSlot>>,
}

/// The output of a command. It is locked while the command runs, so that concurrent callers run it
/// once.
type CommandSlot = Arc<tokio::sync::Mutex<Option<Secret>>>;

impl SecretResolver {
    /// Reads variables from `env` (the environment at the start), and withholds
    /// `provider_env_names` from the programs of `cmd:`.
    #[must_use]
    pub fn new(
        keyring: Keyring,
        vault: VaultSource,
        env: HashMap<String, String>,
        provider_env_names: HashSet<String>,
    ) -> Self {
        let env = env.into_iter().map(|(name, value)| (name, Secret::new(value))).collect();
        Self {
            keyring,
            vault: Arc::new(vault),
            env,
            withheld_env_names: RwLock::new(provider_env_names),
            commands: Mutex::default(),
        }
    }

    /// Withholds more variables that contain keys: those that `env:` references of a newly loaded
    /// config name. Call it before the first `cmd:`.
    pub fn withhold_env(&self, names: impl IntoIterator<Item = String>) {
        self.withheld_env_names.write().extend(names);
    }

    /// Returns the provider key that a reference names.
    ///
    /// # Errors
    ///
    /// [`ResolveError`] names the reference, never the value. A client key of aiproxy is refused.
    pub async fn resolve(&self, reference: &Reference) -> Result<Secret, ResolveError> {
        let secret = self.resolve_any_key(reference).await?;
        if secret.expose().starts_with(CLIENT_KEY_PREFIX) {
            return Err(ResolveError::ClientKey { reference: reference.to_string() });
        }
        Ok(secret)
    }

    /// Returns the secret that a reference names, if a client key of aiproxy is allowed too: a
    /// project's key or a webhook's secret.
    ///
    /// # Errors
    ///
    /// [`ResolveError`], but never `ClientKey`.
    pub async fn resolve_any_key(&self, reference: &Reference) -> Result<Secret, ResolveError> {
        let secret = self.read(reference).await?;
        validate_key(&secret)
            .map_err(|flaw| ResolveError::NotAKey { reference: reference.to_string(), flaw })
    }

    /// Returns the text that a reference names, which may contain spaces: the value of a header.
    ///
    /// # Errors
    ///
    /// [`ResolveError`], but never `ClientKey`.
    pub async fn resolve_header_value(
        &self,
        reference: &Reference,
    ) -> Result<Secret, ResolveError> {
        let secret = self.read(reference).await?;
        let text = secret.expose().trim();
        match text.chars().find(|c| c.is_control()) {
            Some(_) => Err(ResolveError::NotAKey {
                reference: reference.to_string(),
                flaw: InvalidKey::Control,
            }),
            None => Ok(Secret::new(text.to_owned())),
        }
    }

    async fn read(&self, reference: &Reference) -> Result<Secret, ResolveError> {
        match reference {
            Reference::Keyring(label) => self.read_keyring(label).await,
            Reference::Env(name) => self.read_env(name),
            Reference::File(path) => read_file(path).await,
            Reference::Command(words) => self.run_command(words, reference).await,
            Reference::Vault(label) => self.read_vault(label).await,
            Reference::Literal(secret) => Ok(copy_secret(secret)),
        }
    }

    /// Discards the output of a command, so that it runs again: after a 401, or when its `refresh`
    /// is due.
    pub fn forget_command(&self, reference: &Reference) {
        if let Reference::Command(words) = reference {
            self.commands.lock().remove(words);
        }
    }

    async fn read_keyring(&self, label: &str) -> Result<Secret, ResolveError> {
        match self.keyring.get(label).await {
            Ok(Some(secret)) => Ok(secret),
            Ok(None) => Err(ResolveError::NotInKeyring { label: label.to_owned() }),
            Err(error) => Err(ResolveError::Keyring { label: label.to_owned(), error }),
        }
    }

    fn read_env(&self, name: &str) -> Result<Secret, ResolveError> {
        self.withhold_env([name.to_owned()]);
        let value =
            self.env.get(name).ok_or_else(|| ResolveError::Unset { name: name.to_owned() })?;
        if value.expose().trim().is_empty() {
            return Err(ResolveError::EmptyVariable { name: name.to_owned() });
        }
        Ok(copy_secret(value))
    }

    async fn run_command(
        &self,
        words: &[String],
        reference: &Reference,
    ) -> Result<Secret, ResolveError> {
        let slot = {
            let mut commands = self.commands.lock();
            Arc::clone(commands.entry(words.to_vec()).or_default())
        };
        let mut slot = slot.lock().await;
        if let Some(secret) = &*slot {
            return Ok(copy_secret(secret));
        }
        let running = {
            let names = self.withheld_env_names.read();
            command::run(words, &|name| names.contains(name), COMMAND_TIMEOUT)
        };
        let secret = running
            .await
            .map_err(|error| ResolveError::Command { reference: reference.to_string(), error })?;
        *slot = Some(copy_secret(&secret));
        Ok(secret)
    }

    async fn read_vault(&self, label: &str) -> Result<Secret, ResolveError> {
        let vault = Arc::clone(&self.vault);
        let wanted = label.to_owned();
        // Deriving the key takes a tenth of a second of one core, so it must not run on a runtime
        // thread.
        let found = tokio::task::spawn_blocking(move || vault.get(&wanted)).await;
        found.unwrap_or_else(|_| Err(VaultReadError::Vault(VaultError::Busy))).map_err(|problem| {
            match problem {
                VaultReadError::NotFound => ResolveError::NotInVault { label: label.to_owned() },
                VaultReadError::NoPassphrase => {
                    ResolveError::NoPassphrase { label: label.to_owned() }
                }
                VaultReadError::PassphraseFile(path, error) => {
                    ResolveError::PassphraseFile { path, error }
                }
                VaultReadError::Vault(error) => {
                    ResolveError::Vault { label: label.to_owned(), error }
                }
            }
        })
    }
}

async fn read_file(path: &Path) -> Result<Secret, ResolveError> {
    let wanted = path.to_owned();
    let read = tokio::task::spawn_blocking(move || file::read_line(&wanted)).await;
    // Only a runtime that is shutting down cancels the task.
    let read = read.unwrap_or_else(|error| Err(FileError::Io(std::io::Error::other(error))));
    read.map(|text| Secret::new(text.as_str().to_owned()))
        .map_err(|error| ResolveError::File { path: path.to_owned(), error })
}

/// The encrypted key file and the source of its passphrase; opened once, then only read again.
pub struct VaultSource {
    vault: Option<Vault>,
    passphrase: Passphrase,
    open: Mutex<Option<OpenVault>>,
}

enum Passphrase {
    None,
    File(PathBuf),
    Typed(Secret),
}

impl VaultSource {
    /// A source without a vault.
    #[must_use]
    pub fn none() -> Self {
        Self { vault: None, passphrase: Passphrase::None, open: Mutex::new(None) }
    }

    /// A vault whose passphrase is in the file that [`PASSPHRASE_FILE`] names, if it is set.
    #[must_use]
    pub fn from_env(vault: Vault, env: &HashMap<String, String>) -> Self {
        let file = env.get(PASSPHRASE_FILE).filter(|path| !path.trim().is_empty());
        let passphrase =
            file.map_or(Passphrase::None, |path| Passphrase::File(PathBuf::from(path.trim())));
        Self { vault: Some(vault), passphrase, open: Mutex::new(None) }
    }

    /// A vault whose passphrase was typed by a person.
    #[must_use]
    pub fn with_passphrase(vault: Vault, passphrase: Secret) -> Self {
        Self {
            vault: Some(vault),
            passphrase: Passphrase::Typed(passphrase),
            open: Mutex::new(None),
        }
    }

    fn get(&self, label: &str) -> Result<Secret, VaultReadError> {
        let vault =
            self.vault.as_ref().filter(|vault| vault.exists()).ok_or(VaultReadError::NotFound)?;
        let mut open = self.open.lock();
        // With the derived key available, reading again is cheap.
        let known = match open.as_mut().map(OpenVault::refresh) {
            Some(Ok(())) => open.as_ref(),
            None | Some(Err(VaultError::Changed)) => None,
            Some(Err(error)) => return Err(VaultReadError::Vault(error)),
        };
        if let Some(known) = known {
            return known.get(label).ok_or(VaultReadError::NotFound);
        }
        let opened = match &self.passphrase {
            Passphrase::None => return Err(VaultReadError::NoPassphrase),
            Passphrase::Typed(passphrase) => vault.open(passphrase),
            Passphrase::File(path) => vault.open(
                &read_passphrase(path)
                    .map_err(|e| VaultReadError::PassphraseFile(path.clone(), e))?,
            ),
        };
        let secret = open.insert(opened.map_err(VaultReadError::Vault)?).get(label);
        secret.ok_or(VaultReadError::NotFound)
    }
}

/// Reads the passphrase from a file of mode 600, on its only line; spaces count.
///
/// # Errors
///
/// [`FileError`].
pub fn read_passphrase(path: &Path) -> Result<Secret, FileError> {
    file::read_line(path).map(|text| Secret::new(text.as_str().to_owned()))
}

enum VaultReadError {
    NoPassphrase,
    NotFound,
    PassphraseFile(PathBuf, FileError),
    Vault(VaultError),
}

/// Returns the key without surrounding white space.
fn validate_key(secret: &Secret) -> Result<Secret, InvalidKey> {
    let text = secret.expose().trim();
    let flaw = text.chars().find_map(|c| match c {
        '\n' | '\r' => Some(InvalidKey::Newline),
        c if c.is_whitespace() => Some(InvalidKey::Space),
        c if c.is_control() => Some(InvalidKey::Control),
        c if !c.is_ascii() => Some(InvalidKey::NotAscii),
        _ => None,
    });
    match flaw {
        Some(flaw) => Err(flaw),
        None if text.is_empty() => Err(InvalidKey::Empty),
        None if text.starts_with(['"', '\'']) || text.ends_with(['"', '\'']) => {
            Err(InvalidKey::Quoted)
        }
        None => Ok(Secret::new(text.to_owned())),
    }
}

/// Why a value cannot be a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKey {
    #[error("key contains a control character")]
    Control,
    #[error("key is empty")]
    Empty,
    #[error("key contains a newline")]
    Newline,
    #[error("key contains a character that is not ASCII")]
    NotAscii,
    #[error("key is in quotes")]
    Quoted,
    #[error("key contains a space")]
    Space,
}

fn copy_secret(secret: &Secret) -> Secret {
    Secret::new(secret.expose().to_owned())
}

/// Why a reference returned no key: names the reference, never the value.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    #[error("`{reference}`: {error}")]
    Command { reference: String, error: CommandError },
    #[error("`env:{name}`: the variable is set, but empty")]
    EmptyVariable { name: String },
    #[error("`file:{}`: {error}", path.display())]
    File { path: PathBuf, error: FileError },
    #[error("`keyring:{label}`: {error}")]
    Keyring { label: String, error: KeyringError },
    #[error("`vault:{label}`: the encrypted key file needs its passphrase")]
    NoPassphrase { label: String },
    #[error("`{reference}`: {flaw}")]
    NotAKey { reference: String, flaw: InvalidKey },
    #[error("`keyring:{label}`: no such entry in the OS keyring")]
    NotInKeyring { label: String },
    #[error("`vault:{label}`: no such entry in the encrypted key file")]
    NotInVault { label: String },
    #[error("`{reference}`: this is a client key of aiproxy (`aip-…`), not a provider's key")]
    ClientKey { reference: String },
    #[error("the passphrase file {}: {error}", path.display())]
    PassphraseFile { path: PathBuf, error: FileError },
    #[error("`env:{name}`: {name} is not set")]
    Unset { name: String },
    #[error("`vault:{label}`: {error}")]
    Vault { label: String, error: VaultError },
}

impl ResolveError {
    /// Returns the error as a sentence without a full stop.
    #[must_use]
    pub fn text(&self) -> String {
        self.to_string()
    }

    /// Returns the error and what to do next, for a key of this upstream.
    #[must_use]
    pub fn message_with_hint(&self, upstream: &str) -> String {
        format!("{}; {}", self.text(), self.hint().replace("UPSTREAM", upstream))
    }

    /// Returns what to do next, as a command if possible.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::Command { error, .. } => error.hint().to_owned(),
            Self::EmptyVariable { name } | Self::Unset { name } => {
                format!("set {name} where aiproxy starts and `aiproxy restart`, or keep the key in the keyring: `aiproxy key add UPSTREAM`")
            }
            Self::File { path, error } | Self::PassphraseFile { path, error } => error.hint(path),
            Self::Keyring { error, .. } => error.hint().to_owned(),
            Self::NoPassphrase { .. } => {
                format!("put it into a file of mode 600 and start with {PASSPHRASE_FILE}=FILE, or start `aiproxy serve` on a terminal")
            }
            Self::NotAKey { .. } => "store the key alone, as the provider shows it: `aiproxy key add UPSTREAM`".to_owned(),
            Self::NotInKeyring { label } => add_command(label, ""),
            Self::NotInVault { label } => add_command(label, " --vault"),
            Self::ClientKey { .. } => "a shell that ran `aiproxy env` has it in the provider's variable; start aiproxy from another one, or \
                                    store the provider's key: `aiproxy key add UPSTREAM`"
                .to_owned(),
            Self::Vault { error, .. } => error.hint().to_owned(),
        }
    }
}

/// Returns the command that stores the missing key. Labels are `UPSTREAM/LABEL` or
/// `client/PROJECT`, with the data dir behind it.
fn add_command(label: &str, option: &str) -> String {
    match label.split_once('/') {
        Some(("client", rest)) => {
            let project = rest.split('/').next().unwrap_or(rest);
            format!("`aiproxy project rotate {project}` makes a new one")
        }
        Some((upstream, "main")) => format!("`aiproxy key add {upstream}{option}`"),
        Some((upstream, label)) => format!("`aiproxy key add {upstream} --label {label}{option}`"),
        None => format!("`aiproxy key add UPSTREAM{option}`, then name its entry in `keys`"),
    }
}

/// Names the file that holds the vault's passphrase.
pub const PASSPHRASE_FILE: &str = "AIPROXY_KEYS_PASSPHRASE_FILE";
const COMMAND_TIMEOUT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    fn resolver(env: &[(&str, &str)], vault: VaultSource) -> SecretResolver {
        let env =
            env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        SecretResolver::new(Keyring::unavailable("none in this test"), vault, env, HashSet::new())
    }

    async fn read(resolver: &SecretResolver, reference: &str) -> Result<String, ResolveError> {
        let reference = Reference::parse(reference).expect("a reference");
        resolver.resolve(&reference).await.map(|secret| secret.expose().to_owned())
    }

    #[tokio::test]
    async fn variables_are_trimmed_and_invalid_values_named() {
        let env = [
            ("GOOD", " sk-good\n"),
            ("EMPTY", " "),
            ("SPACE", "sk-a sk-b"),
            ("LINES", "sk-a\nsk-b"),
            ("CURLY", "sk-a\u{201d}"),
            ("QUOTED", "\"sk-a\""),
            ("BELL", "sk-\u{7}a"),
            ("OURS", "aip-0123"),
        ];
        let resolver = resolver(&env, VaultSource::none());

        assert_eq!(read(&resolver, "env:GOOD").await.expect("good"), "sk-good");
        for (name, text) in [
            ("UNSET", "`env:UNSET`: UNSET is not set"),
            ("EMPTY", "`env:EMPTY`: the variable is set, but empty"),
            ("SPACE", "`env:SPACE`: key contains a space"),
            ("LINES", "`env:LINES`: key contains a newline"),
            ("CURLY", "`env:CURLY`: key contains a character that is not ASCII"),
            ("QUOTED", "`env:QUOTED`: key is in quotes"),
            ("BELL", "`env:BELL`: key contains a control character"),
            ("OURS", "`env:OURS`: this is a client key of aiproxy (`aip-…`), not a provider's key"),
        ] {
            let error = read(&resolver, &format!("env:{name}")).await.expect_err(name);
            assert_eq!(error.text(), text);
            assert!(error.hint().contains('`'), "{}", error.hint());
        }
        let ours = resolver
            .resolve_any_key(&Reference::Env("OURS".to_owned()))
            .await
            .expect("right for a client");
        assert_eq!(ours.expose(), "aip-0123");
    }

    #[test]
    fn reference_is_resolved_on_any_thread() {
        fn sendable<T: Send>(_: &T) {}
        let resolver = resolver(&[], VaultSource::none());
        sendable(&resolver.resolve(&Reference::Env("NAME".to_owned())));
    }

    #[tokio::test]
    async fn missing_secret_error_has_the_command_that_stores_it() {
        let resolver = resolver(&[], VaultSource::none());

        assert_eq!(
            read(&resolver, "vault:openai/work").await.expect_err("no vault").hint(),
            "`aiproxy key add openai --label work --vault`"
        );
        assert_eq!(add_command("openai/main", ""), "`aiproxy key add openai`");
        assert_eq!(add_command("client/ide", ""), "`aiproxy project rotate ide` makes a new one");
        assert_eq!(add_command("client/ide/0a1b2c3d", ""), add_command("client/ide", ""));
        let keyring = read(&resolver, "keyring:openai/work").await.expect_err("no keyring");
        assert_eq!(
            keyring.text(),
            "`keyring:openai/work`: no OS keyring service: none in this test"
        );
        assert!(keyring.hint().contains("--vault"));
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn command_output_is_cached_until_invalidated() {
        let dir = tempfile::tempdir().expect("a folder");
        let count = dir.path().join("count");
        let text = format!(
            "cmd:/bin/sh -c 'echo x >> {0}; echo sk-run-$(wc -l < {0}) $HOME_KEY'",
            count.display()
        );
        let reference = Reference::parse(&text.replace(" $HOME_KEY", "")).expect("a reference");
        let resolver = resolver(&[], VaultSource::none());

        let (one, two) = tokio::join!(resolver.resolve(&reference), resolver.resolve(&reference));
        assert_eq!(
            (one.expect("a key").expose(), two.expect("the same").expose()),
            ("sk-run-1", "sk-run-1")
        );
        resolver.forget_command(&reference);
        assert_eq!(resolver.resolve(&reference).await.expect("again").expose(), "sk-run-2");
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn vault_opens_with_a_passphrase_from_a_private_file() {
        use std::{fs, io::Write as _, os::unix::fs::OpenOptionsExt};
        let dir = tempfile::tempdir().expect("a folder");
        let (path, pass) = (dir.path().join("keys.enc"), dir.path().join("pass"));
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&pass)
            .expect("made");
        file.write_all(b"two words\n").expect("written");
        let vault = Vault::at(&path);
        let mut open = vault.open(&Secret::new("two words".to_owned())).expect("new");
        open.set("openai/work", &Secret::new("sk-vault".to_owned())).expect("saved");

        let env = HashMap::from([(PASSPHRASE_FILE.to_owned(), pass.display().to_string())]);
        let resolver = resolver(&[], VaultSource::from_env(vault.clone(), &env));
        assert_eq!(read(&resolver, "vault:openai/work").await.expect("kept"), "sk-vault");
        open.set("openai/late", &Secret::new("sk-late".to_owned())).expect("saved");
        assert_eq!(read(&resolver, "vault:openai/late").await.expect("read again"), "sk-late");
        assert!(matches!(
            read(&resolver, "vault:none/x").await,
            Err(ResolveError::NotInVault { .. })
        ));

        let mute = self::resolver(&[], VaultSource::from_env(vault, &HashMap::new()));
        assert!(matches!(
            read(&mute, "vault:openai/work").await,
            Err(ResolveError::NoPassphrase { .. })
        ));
    }
}
