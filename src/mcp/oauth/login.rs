//! The login itself: the address for the browser, and the answer that it brings back to this
//! machine.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};

use super::{
    discovery::{AuthorizationServer, discover, register},
    form,
    token_set::TokenSet,
};
use crate::{
    base::clock::UnixMillis, mcp::servers::parts::random_token, upstream::web_client::WebClient,
};

const PAGE: &str = "<!doctype html><title>aiproxy</title><p>You can close this page.</p>";
const MAX_LINE: u64 = 16 << 10;

/// A login that waits for the browser.
pub struct PendingLogin {
    /// What the user opens.
    pub address: String,
    listener: TcpListener,
    server: AuthorizationServer,
    client: String,
    redirect: String,
    state: String,
    verifier: String,
}

impl PendingLogin {
    /// Prepares a login at an MCP server.
    ///
    /// # Errors
    ///
    /// A sentence: the server or its authorization server cannot be used.
    pub async fn begin(web: &WebClient, url: &str) -> Result<Self, String> {
        let server = discover(web, url).await?;
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(|e| e.to_string())?;
        let port = listener.local_addr().map_err(|e| e.to_string())?.port();
        let redirect = format!("http://127.0.0.1:{port}/callback");
        let client = register(web, &server, &redirect).await?;
        let random = || random_token().ok_or_else(|| "the system has no randomness".to_owned());
        let state = random()?;
        let verifier = format!("{}{}", random()?, random()?);
        let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(verifier.as_bytes()));
        let query = form(&[
            ("response_type", "code"),
            ("client_id", &client),
            ("redirect_uri", &redirect),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
            ("state", &state),
            ("resource", &server.resource),
            ("scope", &server.scope),
        ]);
        let joint = if server.authorization_endpoint.contains('?') { '&' } else { '?' };
        let address = format!("{}{joint}{query}", server.authorization_endpoint);
        Ok(Self { address, listener, server, client, redirect, state, verifier })
    }

    /// Waits for the browser and returns the tokens.
    ///
    /// # Errors
    ///
    /// The user or the server refused.
    pub async fn finish(self, web: &WebClient, now: UnixMillis) -> Result<TokenSet, String> {
        let code = loop {
            let (stream, _) = self.listener.accept().await.map_err(|e| e.to_string())?;
            if let Some(answer) = self.take_answer(stream).await {
                break answer?;
            }
        };
        let pairs = [
            ("grant_type", "authorization_code"),
            ("code", code.as_str()),
            ("redirect_uri", self.redirect.as_str()),
            ("code_verifier", self.verifier.as_str()),
        ];
        let server = &self.server;
        TokenSet::request(web, &server.token_endpoint, &self.client, &server.resource, &pairs, now)
            .await
    }

    /// Reads one request of the browser; `None` if it is not the answer.
    async fn take_answer(&self, mut stream: TcpStream) -> Option<Result<String, String>> {
        let mut line = String::new();
        {
            use tokio::io::AsyncReadExt;
            let mut reader = BufReader::new((&mut stream).take(MAX_LINE));
            reader.read_line(&mut line).await.ok()?;
        }
        let target = line.split(' ').nth(1)?.to_owned();
        let url = reqwest::Url::parse(&format!("http://127.0.0.1{target}")).ok()?;
        if url.path() != "/callback" {
            let head = "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            drop(stream.write_all(head.as_bytes()).await);
            return None;
        }
        let value = |name: &str| {
            url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
        };
        let answer =
            self.judge(value("state"), value("iss").as_deref(), value("code"), value("error"));
        let page = match &answer {
            Ok(_) => PAGE.to_owned(),
            Err(_) => "<!doctype html><title>aiproxy</title><p>The login failed.</p>".to_owned(),
        };
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: text/html; charset=utf-8\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{page}",
            page.len()
        );
        drop(stream.write_all(head.as_bytes()).await);
        drop(stream.shutdown().await);
        Some(answer)
    }

    fn judge(
        &self,
        state: Option<String>,
        issuer: Option<&str>,
        code: Option<String>,
        error: Option<String>,
    ) -> Result<String, String> {
        let state = state.unwrap_or_default();
        if !bool::from(state.as_bytes().ct_eq(self.state.as_bytes())) {
            return Err("the browser brought the answer of another login".to_owned());
        }
        let is_own = match issuer {
            Some(issuer) => {
                issuer.trim_end_matches('/') == self.server.issuer.trim_end_matches('/')
            }
            None => !self.server.names_issuer,
        };
        if !is_own {
            return Err(
                "the answer comes from another server than the one that was asked".to_owned()
            );
        }
        if let Some(error) = error {
            let error = crate::base::sanitize::clean(&error).into_owned();
            return Err(format!("the server refused the login: {error}"));
        }
        code.filter(|code| !code.is_empty()).ok_or_else(|| "the answer has no code".to_owned())
    }
}
