//! The keyring of the session: how it is connected to, and whether keys in it can be read without a
//! prompt.

use std::sync::Arc;

use keyring_core::CredentialStore;
#[cfg(all(unix, not(any(target_os = "macos", target_os = "ios", target_os = "android"))))]
use zbus::{
    blocking::Connection,
    zvariant::{OwnedObjectPath, OwnedValue},
};

use super::keyring_error::KeyringError;
#[cfg(all(unix, not(any(target_os = "macos", target_os = "ios", target_os = "android"))))]
use super::keyring_error::classify;
#[cfg(not(all(
    unix,
    not(any(target_os = "macos", target_os = "ios", target_os = "android"))
)))]
use super::{keyring_error::MAX_SHOWN_CHARS, redact::printable};

#[cfg(all(unix, not(any(target_os = "macos", target_os = "ios", target_os = "android"))))]
/// Connects anew each time: `keyring::Entry` tries once per process and then reuses that result.
pub(super) fn connect() -> Result<Arc<CredentialStore>, KeyringError> {
    if !has_session_bus() {
        return Err(KeyringError::NoService("no session bus runs for this user".to_owned()));
    }
    match zbus_secret_service_keyring_store::Store::new() {
        Ok(store) => Ok(store),
        Err(error) => Err(match classify(error) {
            KeyringError::Other(why) => KeyringError::NoService(why),
            other => other,
        }),
    }
}

#[cfg(all(unix, not(any(target_os = "macos", target_os = "ios", target_os = "android"))))]
/// Whether there is a bus at the address that the store would use. The check does not load the
/// store's libraries, which are large.
fn has_session_bus() -> bool {
    let named = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let folder = || {
        let default_dir = || format!("/run/user/{}", rustix::process::getuid().as_raw()).into();
        named("XDG_RUNTIME_DIR").map_or_else(default_dir, std::path::PathBuf::from)
    };
    named("DBUS_SESSION_BUS_ADDRESS").is_some() || folder().join("bus").exists()
}

#[cfg(all(unix, not(any(target_os = "macos", target_os = "ios", target_os = "android"))))]
/// Asks whether the default collection is locked, over a connection of its own.
#[derive(Default)]
pub(super) struct LockProbe(Option<Connection>);

#[cfg(all(unix, not(any(target_os = "macos", target_os = "ios", target_os = "android"))))]
impl LockProbe {
    /// Returns the obstacle to reading the default collection, if one is known; never shows a
    /// prompt.
    pub(super) fn obstacle(&mut self) -> Option<KeyringError> {
        if !has_session_bus() {
            return Some(KeyringError::NoService("no session bus runs for this user".to_owned()));
        }
        let connection = match self.0.take() {
            Some(connection) => connection,
            None => Connection::session().ok()?,
        };
        // After an error the next call connects anew.
        let found = default_collection_lock(&connection).ok()?;
        self.0 = Some(connection);
        match found {
            Some(false) => None,
            Some(true) => Some(KeyringError::Locked),
            None => Some(KeyringError::NoService("it has no default collection".to_owned())),
        }
    }
}

#[cfg(all(unix, not(any(target_os = "macos", target_os = "ios", target_os = "android"))))]
/// Returns whether the default collection is locked; `None` if there is none.
fn default_collection_lock(connection: &Connection) -> zbus::Result<Option<bool>> {
    const SERVICE: &str = "org.freedesktop.secrets";
    let alias = connection.call_method(
        Some(SERVICE),
        "/org/freedesktop/secrets",
        Some("org.freedesktop.Secret.Service"),
        "ReadAlias",
        &("default",),
    )?;
    let collection: OwnedObjectPath = alias.body().deserialize()?;
    if collection.as_str() == "/" {
        return Ok(None);
    }
    let property = ("org.freedesktop.Secret.Collection", "Locked");
    let reply = connection.call_method(
        Some(SERVICE),
        &collection,
        Some("org.freedesktop.DBus.Properties"),
        "Get",
        &property,
    )?;
    let value: OwnedValue = reply.body().deserialize()?;
    Ok(Some(bool::try_from(value)?))
}

/// Keychain and Credential Manager say themselves that they are locked.
#[cfg(not(all(unix, not(any(target_os = "macos", target_os = "ios", target_os = "android")))))]
#[derive(Default)]
struct LockProbe;

#[cfg(not(all(unix, not(any(target_os = "macos", target_os = "ios", target_os = "android")))))]
impl LockProbe {
    fn obstacle(&mut self) -> Option<KeyringError> {
        None
    }
}

#[cfg(not(all(unix, not(any(target_os = "macos", target_os = "ios", target_os = "android")))))]
fn connect() -> Result<Arc<CredentialStore>, KeyringError> {
    let status = keyring::Entry::store_status()
        .as_ref()
        .map_err(|error| printable(&error.to_string(), MAX_SHOWN_CHARS));
    status
        .and_then(|()| {
            keyring_core::get_default_store().ok_or_else(|| "none for this system".to_owned())
        })
        .map_err(KeyringError::NoService)
}
