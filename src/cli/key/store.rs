//! The store for a command's keys: the OS keyring or the encrypted file of the data dir.

use std::{io::IsTerminal, time::Duration};

use crate::{
    cli::{error::CliError, prompt},
    config::file::Paths,
    secrets::{
        Reference, Secret,
        keyring::{Keyring, KeyringError},
        resolve::{self, PASSPHRASE_FILE},
        vault::{OpenVault, Vault, VaultError},
    },
};

/// Allows time for the user to type the keyring's own passphrase.
const UNLOCK_TIMEOUT: Duration = Duration::from_secs(120);

/// An open key store.
pub(in crate::cli) enum KeyStore {
    Keyring(Keyring),
    Vault(Box<OpenVault>),
}

impl KeyStore {
    /// Opens the OS keyring and checks that it can store a key.
    pub(in crate::cli) async fn open_keyring() -> Result<Self, CliError> {
        let keyring = Keyring::system().with_timeout(unlock_timeout());
        keyring.probe().await.map_err(|e| keyring_error(&e))?;
        Ok(Self::Keyring(keyring))
    }

    /// Opens the encrypted file with the passphrase from AIPROXY_KEYS_PASSPHRASE_FILE or from a
    /// prompt.
    pub(in crate::cli) async fn open_vault(paths: &Paths) -> Result<Self, CliError> {
        let vault = vault_file(paths);
        let passphrase = match std::env::var_os(PASSPHRASE_FILE).filter(|path| !path.is_empty()) {
            Some(path) => resolve::read_passphrase(path.as_ref())
                .map_err(|e| CliError::failed(format!("{PASSPHRASE_FILE}: {e}")))?,
            None => prompt::ask_passphrase(vault.exists()).await?,
        };
        // Blocks for 0.1 s by design (key derivation); no other task runs here.
        let open = vault.open(&passphrase).map_err(|e| vault_error(&e))?;
        Ok(Self::Vault(Box::new(open)))
    }

    /// The reference to an entry of this store.
    pub(in crate::cli) fn reference(&self, label: &str) -> String {
        match self {
            Self::Keyring(_) => format!("keyring:{label}"),
            Self::Vault(_) => format!("vault:{label}"),
        }
    }

    /// The entry that a reference names, if the reference points into this store.
    pub(in crate::cli) fn entry_name<'a>(&self, reference: &'a Reference) -> Option<&'a str> {
        match (self, reference) {
            (Self::Keyring(_), Reference::Keyring(entry))
            | (Self::Vault(_), Reference::Vault(entry)) => Some(entry),
            _ => None,
        }
    }

    /// The store's name for messages.
    pub(in crate::cli) fn display_name(&self) -> &'static str {
        match self {
            Self::Keyring(_) => "the OS keyring",
            Self::Vault(_) => "the encrypted key file",
        }
    }

    pub(in crate::cli) async fn get(&self, label: &str) -> Result<Option<Secret>, CliError> {
        match self {
            Self::Keyring(keyring) => keyring.get(label).await.map_err(|e| keyring_error(&e)),
            Self::Vault(vault) => Ok(vault.get(label)),
        }
    }

    pub(in crate::cli) async fn put(
        &mut self,
        label: &str,
        secret: &Secret,
    ) -> Result<(), CliError> {
        match self {
            Self::Keyring(keyring) => {
                keyring.set(label, secret).await.map_err(|e| keyring_error(&e))
            }
            Self::Vault(vault) => vault.set(label, secret).map_err(|e| vault_error(&e)),
        }
    }

    /// Deletes an entry; `false` if there was none.
    pub(in crate::cli) async fn delete(&mut self, label: &str) -> Result<bool, CliError> {
        match self {
            Self::Keyring(keyring) => keyring.delete(label).await.map_err(|e| keyring_error(&e)),
            Self::Vault(vault) => vault.remove(label).map_err(|e| vault_error(&e)),
        }
    }
}

/// The encrypted file of a data dir.
pub(in crate::cli) fn vault_file(paths: &Paths) -> Vault {
    Vault::at(paths.data.join("keys.enc"))
}

/// The unlock timeout, which is shorter if no user can answer a prompt.
fn unlock_timeout() -> Duration {
    if std::io::stdin().is_terminal() || std::io::stderr().is_terminal() {
        UNLOCK_TIMEOUT
    } else {
        Duration::from_secs(10)
    }
}

pub(in crate::cli) fn keyring_error(error: &KeyringError) -> CliError {
    CliError::failed(error.to_string()).hint(error.hint())
}

fn vault_error(error: &VaultError) -> CliError {
    CliError::failed(error.to_string()).hint(error.hint())
}
