//! The tokens of one server, as the keyring keeps them.

use serde_json::{Value, json};

use super::form;
use crate::{
    base::clock::UnixMillis,
    secrets::{Secret, keyring::Keyring},
    upstream::web_client::WebClient,
};

/// A token is refreshed this long before it ends.
const EARLY_MS: i64 = 5_000;
const MAX_BYTES: usize = 1 << 20;

/// What a login gave, and what a refresh needs.
pub struct TokenSet {
    access: Secret,
    refresh: Option<Secret>,
    client: String,
    token_endpoint: String,
    resource: String,
    ends: Option<UnixMillis>,
}

/// Returns the entry of a server in the keyring.
fn label(server: &str) -> String {
    format!("mcp-login/{server}")
}

impl TokenSet {
    /// Asks for tokens with these pairs.
    ///
    /// # Errors
    ///
    /// A sentence that quotes no token.
    pub async fn request(
        web: &WebClient,
        token_endpoint: &str,
        client: &str,
        resource: &str,
        pairs: &[(&str, &str)],
        now: UnixMillis,
    ) -> Result<Self, String> {
        let mut all = vec![("client_id", client), ("resource", resource)];
        all.extend_from_slice(pairs);
        let request = web.for_url(token_endpoint).await?.post(token_endpoint);
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        let request = request.header("accept", "application/json").body(form(&all));
        let failed = |error: reqwest::Error| format!("{token_endpoint}: {}", error.without_url());
        let mut response = request.send().await.map_err(failed)?;
        let status = response.status();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            body.extend_from_slice(&chunk);
            if body.len() > MAX_BYTES {
                return Err(format!("{token_endpoint}: the answer is too long"));
            }
        }
        let value: Value = serde_json::from_slice(&body).unwrap_or_default();
        let text = |name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
        let Some(access) = text("access_token").filter(|_| status.is_success()) else {
            let error = text("error").unwrap_or_else(|| "no token".to_owned());
            let error = crate::base::sanitize::clean(&error).into_owned();
            return Err(format!("{token_endpoint}: HTTP {status}: {error}"));
        };
        let lives = value.get("expires_in").and_then(Value::as_i64);
        Ok(Self {
            access: Secret::new(access),
            refresh: text("refresh_token").map(Secret::new),
            client: client.to_owned(),
            token_endpoint: token_endpoint.to_owned(),
            resource: resource.to_owned(),
            ends: lives.map(|seconds| UnixMillis(now.0.saturating_add(seconds * 1_000))),
        })
    }

    /// Returns the tokens of a server; `None` if there was no login.
    pub async fn load(keyring: &Keyring, server: &str) -> Option<Self> {
        let stored = keyring.get(&label(server)).await.ok().flatten()?;
        let value: Value = serde_json::from_str(stored.expose()).ok()?;
        let text = |name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
        Some(Self {
            access: Secret::new(text("access")?),
            refresh: text("refresh").map(Secret::new),
            client: text("client")?,
            token_endpoint: text("token_endpoint")?,
            resource: text("resource")?,
            ends: value.get("ends").and_then(Value::as_i64).map(UnixMillis),
        })
    }

    /// Keeps the tokens in the keyring.
    ///
    /// # Errors
    ///
    /// There is no keyring, or it refuses.
    pub async fn store(&self, keyring: &Keyring, server: &str) -> Result<(), String> {
        let value = json!({
            "access": self.access.expose(),
            "refresh": self.refresh.as_ref().map(Secret::expose),
            "client": self.client,
            "token_endpoint": self.token_endpoint,
            "resource": self.resource,
            "ends": self.ends.map(|at| at.0),
        });
        let stored = keyring.set(&label(server), &Secret::new(value.to_string())).await;
        stored.map_err(|error| error.to_string())
    }

    /// Whether the token has ended, or soon will.
    #[must_use]
    pub fn is_over(&self, now: UnixMillis) -> bool {
        self.ends.is_some_and(|ends| now.0 + EARLY_MS >= ends.0)
    }

    /// Whether both have the same token.
    #[must_use]
    pub fn same_as(&self, other: &Self) -> bool {
        self.access.digest() == other.access.digest()
    }

    /// Returns the value of the Authorization header.
    #[must_use]
    pub fn header(&self) -> Option<http::HeaderValue> {
        Secret::new(format!("Bearer {}", self.access.expose())).header_value()
    }

    /// Exchanges the refresh token for new ones.
    ///
    /// # Errors
    ///
    /// No refresh token is known, or the server refuses it.
    pub async fn refreshed(&self, web: &WebClient, now: UnixMillis) -> Result<Self, String> {
        let Some(refresh) = &self.refresh else {
            return Err("the token has ended and cannot be refreshed".to_owned());
        };
        let pairs = [("grant_type", "refresh_token"), ("refresh_token", refresh.expose())];
        let (endpoint, client) = (&self.token_endpoint, &self.client);
        let mut next = Self::request(web, endpoint, client, &self.resource, &pairs, now).await?;
        // Servers that do not rotate it leave it out.
        if next.refresh.is_none() {
            next.refresh = Some(Secret::new(refresh.expose().to_owned()));
        }
        Ok(next)
    }
}
