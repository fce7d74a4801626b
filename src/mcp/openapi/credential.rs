//! The credential of an API. It is in requests only: never in a schema, a result or an error.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::{
    config::settings::McpServer,
    secrets::{Reference, Secret, resolve::SecretResolver},
};

/// How a request shows who sends it.
#[derive(Default)]
pub(super) struct ApiCredential {
    headers: HeaderMap,
    /// A parameter in the address, already encoded.
    query: Option<Secret>,
    secret: Option<Secret>,
}

impl ApiCredential {
    /// Reads the references of a row.
    ///
    /// # Errors
    ///
    /// A sentence that names the reference.
    pub(super) async fn read(row: &McpServer, resolver: &SecretResolver) -> Result<Self, String> {
        let Some(auth) = &row.auth else { return Ok(Self::default()) };
        let read = |reference: &Reference| {
            let reference = reference.clone();
            async move {
                let read = resolver.resolve_header_value(&reference).await;
                read.map_err(|error| format!("`auth`: {}", error.text()))
            }
        };
        let name = auth.name.clone();
        if let Some(reference) = &auth.bearer {
            let secret = read(reference).await?;
            let text = Secret::new(format!("Bearer {}", secret.expose()));
            return Self::with_header(header::AUTHORIZATION, &text, secret);
        }
        if let Some(reference) = &auth.basic {
            let secret = read(reference).await?;
            let coded = STANDARD.encode(secret.expose());
            let text = Secret::new(format!("Basic {coded}"));
            return Self::with_header(header::AUTHORIZATION, &text, secret);
        }
        if let Some(reference) = &auth.header {
            let secret = read(reference).await?;
            let name = name.unwrap_or_else(|| "X-Api-Key".to_owned());
            let header = HeaderName::from_bytes(name.as_bytes());
            let header = header.map_err(|_| "`auth.name` is no name of a header".to_owned())?;
            let value = Secret::new(secret.expose().to_owned());
            return Self::with_header(header, &value, secret);
        }
        if let Some(reference) = &auth.query {
            let secret = read(reference).await?;
            let name = name.unwrap_or_else(|| "api_key".to_owned());
            let pair = format!(
                "{}={}",
                super::request::encode(&name),
                super::request::encode(secret.expose())
            );
            let query = Some(Secret::new(pair));
            let (headers, secret) = (HeaderMap::new(), Some(secret));
            return Ok(Self { headers, query, secret });
        }
        Ok(Self::default())
    }

    fn with_header(name: HeaderName, value: &Secret, secret: Secret) -> Result<Self, String> {
        let value: HeaderValue =
            value.header_value().ok_or("the credential cannot be sent in a header")?;
        let mut headers = HeaderMap::new();
        headers.insert(name, value);
        Ok(Self { headers, query: None, secret: Some(secret) })
    }

    /// Adds the credential to a request.
    pub(super) fn apply(&self, url: &mut reqwest::Url, headers: &mut HeaderMap) {
        for (name, value) in &self.headers {
            headers.insert(name, value.clone());
        }
        if let Some(pair) = &self.query {
            let query = match url.query() {
                Some(query) if !query.is_empty() => format!("{query}&{}", pair.expose()),
                _ => pair.expose().to_owned(),
            };
            url.set_query(Some(&query));
        }
    }

    /// Removes the credential from a text.
    pub(super) fn hide(&self, text: &str) -> String {
        match &self.secret {
            Some(secret) if secret.expose().len() > 3 => text.replace(secret.expose(), "•••"),
            _ => text.to_owned(),
        }
    }
}
