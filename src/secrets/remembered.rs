//! Remembers client keys as salted hashes, so that a key stays valid while its store cannot be
//! read. A client key has 192 random bits, so that a fast hash is enough.

use std::{
    io,
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::Secret;
use crate::base::fs::{self, FileLock};

/// A salted hash of a key. A token can be compared with it, and nothing else can be learned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SaltedHash {
    salt: [u8; 16],
    hash: [u8; 32],
}

impl SaltedHash {
    /// Hashes a key with a new salt; `None` if the system gives no random bytes.
    #[must_use]
    pub fn of(secret: &Secret) -> Option<Self> {
        let mut salt = [0; 16];
        getrandom::fill(&mut salt).ok()?;
        Some(Self { salt, hash: hash(&salt, &secret.digest()) })
    }

    /// Returns whether a token with this digest is the key; compares in constant time.
    #[must_use]
    pub fn matches(&self, digest: &[u8; 32]) -> bool {
        bool::from(self.hash.ct_eq(&hash(&self.salt, digest)))
    }
}

fn hash(salt: &[u8; 16], digest: &[u8; 32]) -> [u8; 32] {
    Sha256::new().chain_update(salt).chain_update(digest).finalize().into()
}

/// A client key that was in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RememberedKey {
    /// Where the key is: `keyring:LABEL`, `file:PATH`, …
    pub reference: String,
    pub hash: SaltedHash,
}

/// The remembered keys of a data dir, the latest of a project first.
#[derive(Clone, Debug)]
pub struct KeyMemory {
    path: PathBuf,
}

impl KeyMemory {
    /// The memory of a data dir; makes no file yet.
    #[must_use]
    pub fn of_data_dir(data: &Path) -> Self {
        Self { path: data.join("client-keys.json") }
    }

    /// Returns the keys of a project, the latest first.
    #[must_use]
    pub fn find(&self, project: &str) -> Vec<RememberedKey> {
        let rows = self.read().keys.into_iter();
        rows.filter(|row| row.project == project).filter_map(|row| row.decode()).collect()
    }

    /// Adds a key that is in use; earlier keys of the project stay. Writes nothing if it is the
    /// latest already.
    ///
    /// # Errors
    ///
    /// The data dir cannot be written.
    pub fn remember(&self, project: &str, reference: &str, secret: &Secret) -> io::Result<()> {
        let is_same =
            |key: &RememberedKey| key.reference == reference && key.hash.matches(&secret.digest());
        if self.find(project).first().is_some_and(is_same) {
            return Ok(());
        }
        self.change(|rows| {
            rows.retain(|row| {
                row.project != project || !row.decode().is_some_and(|key| is_same(&key))
            });
            rows.splice(0..0, Row::encode(project, reference, secret));
            let mut kept = 0;
            rows.retain(|row| {
                kept += usize::from(row.project == project);
                row.project != project || kept <= MAX_KEYS
            });
        })
    }

    /// Remembers this key as the only one of its project: earlier ones are revoked.
    ///
    /// # Errors
    ///
    /// The data dir cannot be written.
    pub fn replace(&self, project: &str, reference: &str, secret: &Secret) -> io::Result<()> {
        self.change(|rows| {
            rows.retain(|row| row.project != project);
            rows.extend(Row::encode(project, reference, secret));
        })
    }

    /// Like [`KeyMemory::replace`], but writes nothing if the key is remembered already.
    ///
    /// # Errors
    ///
    /// The data dir cannot be written.
    pub fn replace_if_new(
        &self,
        project: &str,
        reference: &str,
        secret: &Secret,
    ) -> io::Result<()> {
        match self.find(project).as_slice() {
            [key] if key.reference == reference && key.hash.matches(&secret.digest()) => Ok(()),
            _ => self.replace(project, reference, secret),
        }
    }

    /// Forgets the keys of a project.
    ///
    /// # Errors
    ///
    /// The data dir cannot be written.
    pub fn forget(&self, project: &str) -> io::Result<()> {
        if self.find(project).is_empty() {
            return Ok(());
        }
        self.change(|rows| rows.retain(|row| row.project != project))
    }

    fn change(&self, edit: impl FnOnce(&mut Vec<Row>)) -> io::Result<()> {
        if let Some(data) = self.path.parent() {
            fs::create_private_dir(data)?;
        }
        let _lock = FileLock::acquire(&self.path.with_extension("lock"))?;
        let mut file = self.read();
        edit(&mut file.keys);
        fs::write_atomic(&self.path, &serde_json::to_vec_pretty(&file)?, 0o600)
    }

    /// A file that is missing or cannot be read remembers nothing.
    fn read(&self) -> MemoryFile {
        let small = std::fs::metadata(&self.path).is_ok_and(|found| found.len() <= MAX_FILE_BYTES);
        let bytes = small.then(|| std::fs::read(&self.path).ok()).flatten();
        bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
    }
}

#[derive(Default, Serialize, Deserialize)]
struct MemoryFile {
    keys: Vec<Row>,
}

#[derive(Serialize, Deserialize)]
struct Row {
    project: String,
    reference: String,
    salt: String,
    hash: String,
}

impl Row {
    fn encode(project: &str, reference: &str, secret: &Secret) -> Option<Self> {
        let SaltedHash { salt, hash } = SaltedHash::of(secret)?;
        Some(Self {
            project: project.to_owned(),
            reference: reference.to_owned(),
            salt: URL_SAFE_NO_PAD.encode(salt),
            hash: URL_SAFE_NO_PAD.encode(hash),
        })
    }

    fn decode(&self) -> Option<RememberedKey> {
        let bytes = |text: &str| URL_SAFE_NO_PAD.decode(text).ok();
        let hash = SaltedHash {
            salt: bytes(&self.salt)?.try_into().ok()?,
            hash: bytes(&self.hash)?.try_into().ok()?,
        };
        Some(RememberedKey { reference: self.reference.clone(), hash })
    }
}

/// Keys remembered for a project.
const MAX_KEYS: usize = 4;
const MAX_FILE_BYTES: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Secret {
        Secret::new(text.to_owned())
    }

    #[test]
    fn keys_are_recognised_and_stored_only_as_hashes() {
        let home = tempfile::tempdir().expect("a folder");
        let memory = KeyMemory::of_data_dir(&home.path().join("data"));
        assert!(memory.find("ide").is_empty());
        memory.forget("ide").expect("nothing to forget");

        memory.remember("ide", "keyring:a", &secret("aip-one")).expect("written");
        memory.remember("default", "keyring:b", &secret("aip-two")).expect("written");
        memory.remember("ide", "keyring:a", &secret("aip-three")).expect("written");
        let written = std::fs::read_to_string(&memory.path).expect("a file");
        assert!(!written.contains("aip-"), "{written}");

        let known = |project: &str, token: &str| {
            let digest = secret(token).digest();
            memory.find(project).iter().any(|key| key.hash.matches(&digest))
        };
        assert!(known("ide", "aip-one") && known("ide", "aip-three") && !known("ide", "aip-two"));
        assert!(memory.find("ide")[0].hash.matches(&secret("aip-three").digest()), "latest first");

        memory.replace("ide", "keyring:a", &secret("aip-four")).expect("written");
        assert!(
            known("ide", "aip-four") && !known("ide", "aip-one") && known("default", "aip-two")
        );
        memory.forget("ide").expect("written");
        assert!(memory.find("ide").is_empty());
    }

    #[test]
    fn file_is_bounded_and_a_damaged_one_is_empty() {
        let home = tempfile::tempdir().expect("a folder");
        let memory = KeyMemory::of_data_dir(home.path());
        for n in 0..9 {
            memory.remember("ide", "keyring:a", &secret(&format!("aip-{n}"))).expect("written");
        }
        assert_eq!(memory.find("ide").len(), MAX_KEYS);
        let modified = || std::fs::metadata(&memory.path).and_then(|found| found.modified()).ok();
        let before = modified();
        memory.remember("ide", "keyring:a", &secret("aip-8")).expect("the same");
        assert_eq!(modified(), before);

        fs::write_atomic(&memory.path, b"{", 0o600).expect("written");
        assert!(memory.find("ide").is_empty());
        memory.remember("ide", "keyring:a", &secret("aip-new")).expect("written again");
        assert_eq!(memory.find("ide").len(), 1);
    }
}
