//! Checks the keyring, without a prompt.

use std::time::Duration;

use crate::{
    config::settings::Settings,
    secrets::{
        Reference,
        keyring::{Keyring, KeyringError},
    },
};

use super::check::Check;

const CHECK: &str = "keyring";
/// A keyring that answers does so at once.
const TIMEOUT: Duration = Duration::from_secs(3);
/// An entry that does not exist; only whether an answer comes counts.
const ENTRY: &str = "doctor/none";

/// Checks whether keys can be read; returns what prevents it.
pub(super) async fn check(settings: &Settings, checks: &mut Vec<Check>) -> Option<KeyringError> {
    let of_upstreams = settings.upstreams.iter().flat_map(|upstream| &upstream.keys);
    let references = of_upstreams.map(|key| &key.reference);
    let references = references.chain(settings.projects.iter().filter_map(|p| p.key.as_ref()));
    let is_keyring = |reference: &&Reference| matches!(reference, Reference::Keyring(_));
    let count = references.filter(is_keyring).count();
    let keyring = Keyring::system().with_timeout(TIMEOUT);
    let obstacle = match keyring.obstacle().await {
        None => keyring.get(ENTRY).await.err(),
        obstacle => obstacle,
    };
    checks.push(match &obstacle {
        None => Check::ok(CHECK, "", format!("it answers; keys of the config in it: {count}")),
        Some(error) if count > 0 => {
            let text = format!("{error}; keys of the config in it: {count}");
            Check::fail(CHECK, "", text, fix(error))
        }
        Some(error) => {
            let text = format!("{error}; the config refers to no key in it");
            Check::ok(CHECK, "", text)
        }
    });
    obstacle
}

fn fix(error: &KeyringError) -> String {
    let begin = match error {
        KeyringError::NoService(_) => {
            "start a keyring in the session (gnome-keyring or KWallet, on D-Bus); or "
        }
        KeyringError::Locked => "log in to the desktop, or ",
        _ => "",
    };
    format!("{begin}{}", error.hint())
}
