//! The encrypted key file, which stores keys if no OS keyring is available.
//!
//! One file with mode 0600, replaced as a whole. It consists of a header (magic, version, Argon2id
//! costs, salt, nonce) that the encryption authenticates, a JSON map of labels to keys under
//! XChaCha20-Poly1305, and a SHA-256 of all of it. The digest is not a protection: it distinguishes
//! a damaged file from a wrong passphrase.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use argon2::{Algorithm, Argon2, Params, Version};
use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::Secret;

/// The location of the encrypted file, which is opened with a passphrase.
#[derive(Clone, Debug)]
pub struct Vault {
    path: PathBuf,
    costs: Argon2Costs,
}

impl Vault {
    /// A vault in this file, which need not exist yet.
    #[must_use]
    pub fn at(path: impl Into<PathBuf>) -> Self {
        let default = Params::default();
        let costs = Argon2Costs {
            memory_kib: default.m_cost(),
            passes: default.t_cost(),
            lanes: default.p_cost(),
        };
        Self { path: path.into(), costs }
    }

    /// Whether the file exists. If not, the next passphrase is a new one, and the command should
    /// ask for it twice.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.path.symlink_metadata().is_ok()
    }

    /// Opens the file. This takes a tenth of a second on purpose and must not run on a runtime
    /// thread. A missing file opens as empty, and the first [`OpenVault::set`] creates it.
    ///
    /// # Errors
    ///
    /// [`VaultError`]: a wrong passphrase, a damaged or newer file, or an I/O error.
    pub fn open(&self, passphrase: &Secret) -> Result<OpenVault, VaultError> {
        if passphrase.expose().is_empty() {
            return Err(VaultError::EmptyPassphrase);
        }
        let Some(bytes) = read_file(&self.path)? else {
            let mut salt = [0; SALT_BYTES];
            getrandom::fill(&mut salt).map_err(|_| VaultError::NoEntropy)?;
            let lock =
                VaultKey { costs: self.costs, salt, key: self.costs.derive(passphrase, &salt)? };
            return Ok(OpenVault {
                path: self.path.clone(),
                vault_key: lock,
                keys: BTreeMap::new(),
            });
        };
        let sealed = SealedFile::parse(&bytes)?;
        let lock = VaultKey {
            costs: sealed.costs,
            salt: sealed.salt,
            key: sealed.costs.derive(passphrase, &sealed.salt)?,
        };
        let keys = lock.decrypt(&sealed)?;
        Ok(OpenVault { path: self.path.clone(), vault_key: lock, keys })
    }
}

/// A vault opened with the right passphrase; the keys in memory are wiped on drop.
pub struct OpenVault {
    path: PathBuf,
    vault_key: VaultKey,
    keys: BTreeMap<String, Secret>,
}

impl OpenVault {
    /// Returns the key with this label.
    #[must_use]
    pub fn get(&self, label: &str) -> Option<Secret> {
        self.keys.get(label).map(copy_secret)
    }

    /// Returns all labels, sorted.
    #[must_use]
    pub fn labels(&self) -> Vec<String> {
        self.keys.keys().cloned().collect()
    }

    /// Stores a key and saves the file. Changes that another process has saved meanwhile stay.
    ///
    /// # Errors
    ///
    /// [`VaultError`]; the file is then unchanged.
    pub fn set(&mut self, label: &str, secret: &Secret) -> Result<(), VaultError> {
        self.update(|keys| keys.insert(label.to_owned(), copy_secret(secret)).is_some()).map(|_| ())
    }

    /// Removes a key and saves the file; `false` if there was no such key.
    ///
    /// # Errors
    ///
    /// [`VaultError`]; the file is then unchanged.
    pub fn remove(&mut self, label: &str) -> Result<bool, VaultError> {
        self.update(|keys| keys.remove(label).is_some())
    }

    /// Reads the file again, with the passphrase it was opened with.
    ///
    /// # Errors
    ///
    /// [`VaultError::Changed`] if the file was created anew with another passphrase.
    pub fn refresh(&mut self) -> Result<(), VaultError> {
        self.keys = match read_file(&self.path)? {
            Some(bytes) => {
                let sealed = SealedFile::parse(&bytes)?;
                if sealed.salt != self.vault_key.salt {
                    return Err(VaultError::Changed);
                }
                self.vault_key.decrypt(&sealed)?
            }
            None => BTreeMap::new(),
        };
        Ok(())
    }

    fn update(
        &mut self,
        change: impl FnOnce(&mut BTreeMap<String, Secret>) -> bool,
    ) -> Result<bool, VaultError> {
        let path = self.path.clone();
        let folder =
            path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        create_private_folder(folder)?;
        let _writer = lock_for_writing(&path)?;
        self.refresh()?;
        let changed = change(&mut self.keys);
        replace_file(folder, &path, &self.vault_key.encrypt(&self.keys)?)?;
        Ok(changed)
    }
}

/// Why a vault operation failed. Never contains a value.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    #[error("another process is writing the encrypted key file")]
    Busy,
    #[error("the encrypted key file was made anew with another passphrase meanwhile")]
    Changed,
    #[error("the encrypted key file is damaged: {0}")]
    Damaged(&'static str),
    #[error("an empty passphrase protects nothing")]
    EmptyPassphrase,
    #[error("the encrypted key file {path}: cannot {action}: {error}")]
    Io { path: String, action: &'static str, error: io::Error },
    #[error("the encrypted key file is of version {0}, newer than this program reads ({VERSION})")]
    NewerVersion(u8),
    #[error("no random bytes from the operating system")]
    NoEntropy,
    #[error("the encrypted key file would be larger than {} MiB", MAX_FILE_BYTES >> 20)]
    TooLarge,
    #[error("wrong passphrase for the encrypted key file")]
    WrongPassphrase,
}

impl VaultError {
    /// Returns what to do next.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Busy | Self::Changed => "try again",
            Self::Damaged(_) => {
                "restore it from a backup, or move it away and store the keys again with `aiproxy key add UPSTREAM --vault`"
            }
            Self::EmptyPassphrase => {
                "choose a passphrase, or put one into a file of mode 600 and name it in AIPROXY_KEYS_PASSPHRASE_FILE"
            }
            Self::Io { .. } => "see that the data folder exists, belongs to you and has room",
            Self::NewerVersion(_) => "use the newer aiproxy that wrote it",
            Self::NoEntropy => "try again later; nothing was written",
            Self::TooLarge => "remove keys that are not used any more: `aiproxy key list`",
            Self::WrongPassphrase => {
                "type it again, or correct the file that AIPROXY_KEYS_PASSPHRASE_FILE names"
            }
        }
    }
}

/// The cost parameters of Argon2id. They are written into the file, so that later versions can
/// change them.
#[derive(Clone, Copy, Debug)]
struct Argon2Costs {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

impl Argon2Costs {
    fn derive(self, passphrase: &Secret, salt: &[u8]) -> Result<Zeroizing<[u8; 32]>, VaultError> {
        // A foreign file must not make aiproxy use up all memory.
        if self.memory_kib > 1 << 20 || self.passes > 64 || self.lanes > 16 {
            return Err(VaultError::Damaged("it asks for absurd amounts of memory or time"));
        }
        let refused = |_| VaultError::Damaged("it asks for impossible costs");
        let params =
            Params::new(self.memory_kib, self.passes, self.lanes, Some(32)).map_err(refused)?;
        let mut key = Zeroizing::new([0; 32]);
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(passphrase.expose().as_bytes(), salt, key.as_mut())
            .map_err(refused)?;
        Ok(key)
    }
}

/// The encryption key of the file, and the parameters it was derived from.
struct VaultKey {
    costs: Argon2Costs,
    salt: [u8; SALT_BYTES],
    key: Zeroizing<[u8; 32]>,
}

impl VaultKey {
    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new(self.key.as_ref().into())
    }

    fn encrypt(&self, keys: &BTreeMap<String, Secret>) -> Result<Vec<u8>, VaultError> {
        let shown: BTreeMap<&str, &str> =
            keys.iter().map(|(label, key)| (label.as_str(), key.expose())).collect();
        // Enough capacity for every character escaped, so that growing leaves no copy in freed
        // memory.
        let capacity =
            shown.iter().map(|(label, key)| 6 * (label.len() + key.len()) + 8).sum::<usize>() + 2;
        let mut plain = Zeroizing::new(Vec::with_capacity(capacity));
        serde_json::to_writer(&mut *plain, &shown).map_err(|_| VaultError::TooLarge)?;
        if plain.len() > MAX_FILE_BYTES / 2 {
            return Err(VaultError::TooLarge);
        }

        let mut nonce = [0; NONCE_BYTES];
        getrandom::fill(&mut nonce).map_err(|_| VaultError::NoEntropy)?;
        let mut out = MAGIC.to_vec();
        out.push(VERSION);
        for cost in [self.costs.memory_kib, self.costs.passes, self.costs.lanes] {
            out.extend(cost.to_le_bytes());
        }
        out.extend(self.salt);
        out.extend(nonce);
        let payload = Payload { msg: &plain, aad: &out };
        let sealed = self
            .cipher()
            .encrypt(XNonce::from_slice(&nonce), payload)
            .map_err(|_| VaultError::TooLarge)?;
        out.extend(sealed);
        out.extend(Sha256::digest(&out));
        Ok(out)
    }

    fn decrypt(&self, sealed: &SealedFile<'_>) -> Result<BTreeMap<String, Secret>, VaultError> {
        let payload = Payload { msg: sealed.ciphertext, aad: sealed.header };
        let plain = self
            .cipher()
            .decrypt(XNonce::from_slice(&sealed.nonce), payload)
            .map_err(|_| VaultError::WrongPassphrase)?;
        let plain = Zeroizing::new(plain);
        let keys: BTreeMap<String, String> = serde_json::from_slice(&plain)
            .map_err(|_| VaultError::Damaged("it holds no map of keys"))?;
        Ok(keys.into_iter().map(|(label, key)| (label, Secret::new(key))).collect())
    }
}

/// The parts of a file whose digest is correct.
struct SealedFile<'a> {
    header: &'a [u8],
    costs: Argon2Costs,
    salt: [u8; SALT_BYTES],
    nonce: [u8; NONCE_BYTES],
    ciphertext: &'a [u8],
}

impl<'a> SealedFile<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self, VaultError> {
        let cut = VaultError::Damaged("it is cut short");
        let Some(rest) = bytes.strip_prefix(MAGIC) else {
            return Err(VaultError::Damaged("it does not begin like one"));
        };
        let (&version, rest) = rest.split_first().ok_or(cut)?;
        if version != VERSION {
            return Err(if version > VERSION {
                VaultError::NewerVersion(version)
            } else {
                VaultError::Damaged("its version is unknown")
            });
        }
        let parts = || {
            let (&memory, rest) = rest.split_first_chunk::<4>()?;
            let (&passes, rest) = rest.split_first_chunk::<4>()?;
            let (&lanes, rest) = rest.split_first_chunk::<4>()?;
            let (&salt, rest) = rest.split_first_chunk::<SALT_BYTES>()?;
            let (&nonce, rest) = rest.split_first_chunk::<NONCE_BYTES>()?;
            let (text, &digest) = rest.split_last_chunk::<32>()?;
            let costs = Argon2Costs {
                memory_kib: u32::from_le_bytes(memory),
                passes: u32::from_le_bytes(passes),
                lanes: u32::from_le_bytes(lanes),
            };
            Some((costs, salt, nonce, text, digest))
        };
        let (costs, salt, nonce, text, digest) =
            parts().ok_or(VaultError::Damaged("it is cut short"))?;
        let (whole, header) = (bytes.len() - digest.len(), bytes.len() - digest.len() - text.len());
        if Sha256::digest(&bytes[..whole]).as_slice() != digest {
            return Err(VaultError::Damaged("its checksum is wrong"));
        }
        Ok(Self { header: &bytes[..header], costs, salt, nonce, ciphertext: text })
    }
}

fn copy_secret(secret: &Secret) -> Secret {
    Secret::new(secret.expose().to_owned())
}

/// Reads the file; `None` if there is no file.
fn read_file(path: &Path) -> Result<Option<Vec<u8>>, VaultError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error(path, "open it")(error)),
    };
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(io_error(path, "read it"))?;
    if bytes.len() > MAX_FILE_BYTES {
        Err(VaultError::Damaged("it is too large"))
    } else {
        Ok(Some(bytes))
    }
}

/// Replaces the file atomically. No other user can read it at any moment.
fn replace_file(folder: &Path, path: &Path, bytes: &[u8]) -> Result<(), VaultError> {
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(|_| VaultError::NoEntropy)?;
    let fresh = with_suffix(path, &format!(".{:016x}.new", u64::from_le_bytes(random)));
    let write = || {
        let mut file = private_options().write(true).create_new(true).open(&fresh)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&fresh, path)?;
        #[cfg(unix)]
        File::open(folder)?.sync_all()?;
        Ok(())
    };
    write().map_err(|error| {
        // The leftover is encrypted, and the first error is the one that matters.
        drop(fs::remove_file(&fresh));
        io_error(folder, "write it")(error)
    })
}

/// Locks the lock file until the returned file is dropped. The lock file stays in place: removing
/// it would let two processes in.
fn lock_for_writing(path: &Path) -> Result<File, VaultError> {
    let path = with_suffix(path, ".lock");
    let file = private_options()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(io_error(&path, "lock it"))?;
    for _ in 0..LOCK_TRIES {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
            Err(TryLockError::Error(error)) => return Err(io_error(&path, "lock it")(error)),
        }
    }
    Err(VaultError::Busy)
}

fn private_options() -> OpenOptions {
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600).custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed());
    }
    // Some systems refuse a lock on a file that is only open for reading.
    options.read(true);
    options
}

fn create_private_folder(folder: &Path) -> Result<(), VaultError> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder).map_err(io_error(folder, "make its folder"))
}

fn with_suffix(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

fn io_error(path: &Path, doing: &'static str) -> impl FnOnce(io::Error) -> VaultError {
    let path = path.display().to_string();
    move |error| VaultError::Io { path, action: doing, error }
}

const MAGIC: &[u8] = b"aiproxy vault\n";
const VERSION: u8 = 1;
const SALT_BYTES: usize = 16;
const NONCE_BYTES: usize = 24;
const MAX_FILE_BYTES: usize = 4 << 20;
/// Two seconds in all; a writer locks the file for milliseconds.
const LOCK_TRIES: u32 = 100;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Secret {
        Secret::new(text.to_owned())
    }

    /// A vault that opens quickly, in a folder of its own.
    fn vault() -> (tempfile::TempDir, Vault) {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("data/keys.enc");
        (dir, Vault { path, costs: Argon2Costs { memory_kib: 64, passes: 1, lanes: 1 } })
    }

    #[test]
    fn keys_are_decrypted_with_the_passphrase_only() {
        let (_dir, vault) = vault();
        let mut open = vault.open(&secret("correct horse")).expect("a new one");
        open.set("openai/work", &secret("sk-\"quoted\"\u{e4}")).expect("saved");
        open.set("openai/home", &secret("sk-home")).expect("saved");

        let again = vault.open(&secret("correct horse")).expect("the right passphrase");
        assert_eq!(again.labels(), ["openai/home", "openai/work"]);
        assert_eq!(again.get("openai/work").expect("kept").expose(), "sk-\"quoted\"\u{e4}");
        assert!(again.get("none").is_none());
        assert!(matches!(vault.open(&secret("wrong")), Err(VaultError::WrongPassphrase)));
        assert!(matches!(vault.open(&secret("")), Err(VaultError::EmptyPassphrase)));
        let bytes = fs::read(&vault.path).expect("the file");
        assert!(!bytes.windows(5).any(|w| w == b"sk-ho" || w == b"opena"));
    }

    #[test]
    fn damage_is_distinguished_from_a_wrong_passphrase() {
        let (_dir, vault) = vault();
        vault.open(&secret("p")).expect("new").set("a", &secret("sk-a")).expect("saved");
        let whole = fs::read(&vault.path).expect("the file");

        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            assert!(matches!(SealedFile::parse(&bytes), Err(VaultError::Damaged(_))), "byte {at}");
            assert!(
                matches!(SealedFile::parse(&whole[..at]), Err(VaultError::Damaged(_))),
                "cut at {at}"
            );
        }
        let mut newer = whole;
        newer[MAGIC.len()] = VERSION + 1;
        assert!(matches!(SealedFile::parse(&newer), Err(VaultError::NewerVersion(2))));
    }

    #[test]
    fn kdf_costs_from_a_forged_file_are_bounded() {
        for costs in [
            Argon2Costs { memory_kib: u32::MAX, passes: 1, lanes: 1 },
            Argon2Costs { memory_kib: 64, passes: 0, lanes: 1 },
        ] {
            assert!(matches!(
                costs.derive(&secret("p"), &[0; SALT_BYTES]),
                Err(VaultError::Damaged(_))
            ));
        }
    }

    #[test]
    fn tampered_header_is_rejected() {
        let (_dir, vault) = vault();
        let open = vault.open(&secret("p")).expect("new");
        let mut bytes = open
            .vault_key
            .encrypt(&BTreeMap::from([("a".to_owned(), secret("sk-a"))]))
            .expect("sealed");
        // The costs, with a corrected checksum.
        bytes[MAGIC.len() + 1] ^= 1;
        let end = bytes.len() - 32;
        let digest = Sha256::digest(&bytes[..end]);
        bytes[end..].copy_from_slice(&digest);

        let sealed = SealedFile::parse(&bytes).expect("the checksum is right");
        assert!(matches!(open.vault_key.decrypt(&sealed), Err(VaultError::WrongPassphrase)));
    }

    #[test]
    fn concurrent_writers_lose_no_keys() {
        let (_dir, vault) = vault();
        vault.open(&secret("p")).expect("new").set("first", &secret("sk-1")).expect("saved");
        let (mut one, mut two) =
            (vault.open(&secret("p")).expect("open"), vault.open(&secret("p")).expect("open"));

        one.set("one", &secret("sk-one")).expect("saved");
        assert!(two.remove("first").expect("saved"));
        two.set("two", &secret("sk-two")).expect("saved");
        one.refresh().expect("read again");

        assert_eq!(one.labels(), ["one", "two"]);
        let guard = lock_for_writing(&vault.path).expect("free");
        assert!(matches!(one.set("late", &secret("sk-late")), Err(VaultError::Busy)));
        drop(guard);
    }

    #[test]
    fn vault_replaced_meanwhile_is_not_overwritten() {
        let (_dir, vault) = vault();
        let mut one = vault.open(&secret("p")).expect("new");
        vault.open(&secret("q")).expect("new").set("a", &secret("sk-a")).expect("saved");

        assert!(matches!(one.set("b", &secret("sk-b")), Err(VaultError::Changed)));
        assert_eq!(vault.open(&secret("q")).expect("as it was").labels(), ["a"]);
    }

    #[cfg(unix)]
    #[test]
    fn file_is_private_and_no_temporary_file_is_left() {
        use std::os::unix::fs::PermissionsExt;
        let (_dir, vault) = vault();
        vault.open(&secret("p")).expect("new").set("a", &secret("sk-a")).expect("saved");

        let folder = vault.path.parent().expect("a folder");
        assert_eq!(fs::metadata(folder).expect("made").permissions().mode() & 0o777, 0o700);
        let mut names = Vec::new();
        for entry in fs::read_dir(folder).expect("readable") {
            let entry = entry.expect("an entry");
            assert_eq!(entry.metadata().expect("there").permissions().mode() & 0o777, 0o600);
            names.push(entry.file_name().into_string().expect("text"));
        }
        names.sort();
        assert_eq!(names, ["keys.enc", "keys.enc.lock"]);
    }
}
