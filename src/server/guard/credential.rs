//! Finds the project of a token; compares client keys by digest in constant time, for every place
//! where a client may send one.

use std::{net::IpAddr, sync::Arc};

use arc_swap::ArcSwap;
use base64::{
    Engine as _,
    prelude::{
        BASE64_STANDARD_NO_PAD as STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD as URL_SAFE_NO_PAD,
    },
};
use http::{HeaderMap, HeaderName, header::AUTHORIZATION};
use subtle::ConstantTimeEq;
use tokio::sync::Notify;

use crate::{
    config::settings::Project,
    ir::fault::{ProxyError, ProxyErrorKind},
    secrets::{Secret, remembered::SaltedHash},
};

const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");
const X_GOOG_API_KEY: HeaderName = HeaderName::from_static("x-goog-api-key");
const API_KEY: HeaderName = HeaderName::from_static("api-key");

/// The client keys of all projects, by digest.
#[derive(Default)]
pub struct ClientKeys {
    table: ArcSwap<ClientTable>,
    /// Notified when the table was replaced.
    pub changed: Notify,
}

/// One version of the key table.
#[derive(Default)]
pub struct ClientTable {
    keys: Vec<([u8; 32], Arc<Project>)>,
    /// Valid keys of which only a hash is known.
    remembered: Vec<(SaltedHash, Arc<Project>)>,
    /// Some keys are still being read from a slow store.
    pub loading: bool,
    /// The project of all clients if `auth = false`.
    pub anonymous_project: Option<Arc<Project>>,
}

impl ClientTable {
    #[must_use]
    pub fn new(
        keys: Vec<(&Secret, Arc<Project>)>,
        loading: bool,
        anonymous_project: Option<Arc<Project>>,
    ) -> Self {
        Self {
            keys: keys.into_iter().map(|(secret, project)| (secret.digest(), project)).collect(),
            remembered: Vec::new(),
            loading,
            anonymous_project,
        }
    }

    /// Adds keys that are valid although their secret is not known.
    #[must_use]
    pub fn with_remembered(mut self, remembered: Vec<(SaltedHash, Arc<Project>)>) -> Self {
        self.remembered = remembered;
        self
    }

    /// Returns the project of a token, as it is or in Base64, which clients of some other gateways
    /// send.
    #[must_use]
    pub fn find(&self, token: &Secret) -> Option<&Arc<Project>> {
        self.find_exact(token).or_else(|| self.find_exact(&decode_base64(token)?))
    }

    /// Compares every entry, even after a match.
    fn find_exact(&self, token: &Secret) -> Option<&Arc<Project>> {
        let digest = token.digest();
        let mut found = None;
        for (known_digest, project) in &self.keys {
            if bool::from(known_digest.ct_eq(&digest)) {
                found = Some(project);
            }
        }
        found.or_else(|| {
            let mut remembered = self.remembered.iter();
            remembered.find(|(hash, _)| hash.matches(&digest)).map(|(_, project)| project)
        })
    }
}

/// A longer token is no client key in Base64.
const MAX_BASE64_BYTES: usize = 1_024;

fn decode_base64(token: &Secret) -> Option<Secret> {
    let text = token.expose();
    if text.len() > MAX_BASE64_BYTES {
        return None;
    }
    let text = text.trim_end_matches('=');
    let bytes = STANDARD_NO_PAD.decode(text).or_else(|_| URL_SAFE_NO_PAD.decode(text)).ok()?;
    String::from_utf8(bytes).ok().map(Secret::new)
}

impl ClientKeys {
    pub fn set(&self, table: ClientTable) {
        self.table.store(Arc::new(table));
        self.changed.notify_waiters();
    }

    #[must_use]
    pub fn table(&self) -> Arc<ClientTable> {
        self.table.load_full()
    }
}

/// Returns the token of a request: Bearer, x-api-key, x-goog-api-key, `?key=` (on Gemini paths), or
/// the key of a `/~KEY` path.
#[must_use]
pub fn extract_token(
    headers: &HeaderMap,
    query_key: Option<&str>,
    path_key: Option<&str>,
) -> Option<Secret> {
    let header = |name: &HeaderName| {
        headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .map(str::trim)
            .filter(|text| !text.is_empty())
    };
    // Some clients leave `Bearer` out of Authorization, and some write it in their own header too.
    let bearer = header(&AUTHORIZATION)
        .and_then(|text| strip_bearer(text).or((!text.contains(' ')).then_some(text)));
    let header = |name: &HeaderName| header(name).map(|text| strip_bearer(text).unwrap_or(text));
    // A request often has several tokens: an SDK sends both Bearer and its own header. The first
    // aiproxy client key is used.
    let is_client_key = |text: &&str| text.starts_with("aip-");
    if let Some(client_key) = path_key.into_iter().chain(bearer).find(is_client_key) {
        return Some(Secret::new(client_key.to_owned()));
    }
    let all = [
        path_key,
        bearer,
        header(&X_API_KEY),
        header(&X_GOOG_API_KEY),
        header(&API_KEY),
        query_key,
    ];
    let client_key = all.iter().flatten().find(|text| is_client_key(text));
    client_key.or_else(|| all.iter().flatten().next()).map(|text| Secret::new((*text).to_owned()))
}

/// Returns what follows `Bearer `; `None` for other texts.
fn strip_bearer(text: &str) -> Option<&str> {
    let (scheme, rest) = text.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| rest.trim())
}

/// Builds the error for a request without a known token.
#[must_use]
pub fn unauthorized(token: Option<&Secret>) -> ProxyError {
    let message = match token {
        None => {
            "aiproxy token missing: send the client key as Bearer token, x-api-key or x-goog-api-key; `aiproxy project show --reveal` prints it"
        }
        Some(token) if looks_like_provider_key(token) => {
            "this looks like a provider's key, but aiproxy wants its own client key (aip-…); `aiproxy project show --reveal` prints it"
        }
        Some(_) => "aiproxy token not known; `aiproxy project show --reveal` prints the right one",
    };
    ProxyError::new(ProxyErrorKind::Unauthorized, message)
}

fn looks_like_provider_key(token: &Secret) -> bool {
    ["sk-", "AIza", "gsk_", "xai-", "hf_", "nvapi-", "pplx-"]
        .iter()
        .any(|prefix| token.expose().starts_with(prefix))
}

/// Checks whether the project may be used from this address.
///
/// # Errors
///
/// 403 with the address.
pub fn check_subnet(project: &Project, addr: IpAddr) -> Result<(), ProxyError> {
    if project.subnets.is_empty() || project.subnets.iter().any(|net| net.contains(addr)) {
        return Ok(());
    }
    let message = format!(
        "project `{}` may not be used from {addr}; `subnets` of that project in the config says from where",
        project.name
    );
    Err(ProxyError::new(ProxyErrorKind::Forbidden, message).code("subnet_not_allowed"))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn unreadable_key_is_recognised_by_its_hash() {
        let secret = |text: &str| Secret::new(text.to_owned());
        let named = |name: &str| Arc::new(Project { name: name.into(), ..Project::default() });
        let hash = SaltedHash::of(&secret("aip-kept")).expect("random bytes");
        let read = secret("aip-read");
        let table = ClientTable::new(vec![(&read, named("one"))], false, None)
            .with_remembered(vec![(hash, named("two"))]);
        for (token, want) in
            [("aip-read", Some("one")), ("aip-kept", Some("two")), ("aip-other", None)]
        {
            assert_eq!(table.find(&secret(token)).map(|project| &*project.name), want, "{token}");
        }
    }

    #[test]
    fn key_is_read_from_every_header_form() {
        for (name, value, expected) in [
            ("authorization", "Bearer aip-k", Some("aip-k")),
            ("authorization", "bearer  aip-k", Some("aip-k")),
            ("authorization", "aip-k", Some("aip-k")),
            ("authorization", "Basic aip-k", None),
            ("x-api-key", "aip-k", Some("aip-k")),
            ("x-api-key", "Bearer aip-k", Some("aip-k")),
            ("x-api-key", "a key with spaces", Some("a key with spaces")),
            ("x-goog-api-key", "BEARER aip-k", Some("aip-k")),
            ("api-key", " ", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(name, HeaderValue::from_static(value));
            let token = extract_token(&headers, None, None);
            assert_eq!(token.as_ref().map(Secret::expose), expected, "{name}: {value}");
        }
    }
}
