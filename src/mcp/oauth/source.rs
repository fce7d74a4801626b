//! Gives the requests of one server their token; several at once cause one refresh.

use std::sync::Arc;

use super::token_set::TokenSet;
use crate::{
    base::clock::Clock,
    mcp::wire::tokens::{TokenFuture, TokenSource},
    secrets::keyring::Keyring,
    upstream::web_client::WebClient,
};

/// The tokens of one server.
pub struct KeyringTokens {
    server: Arc<str>,
    keyring: Keyring,
    web: Arc<WebClient>,
    clock: Arc<dyn Clock>,
    /// Locked while a token is read or refreshed, so that others wait for it.
    current: tokio::sync::Mutex<Option<TokenSet>>,
}

impl KeyringTokens {
    #[must_use]
    pub fn new(
        server: Arc<str>,
        keyring: Keyring,
        web: Arc<WebClient>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { server, keyring, web, clock, current: tokio::sync::Mutex::default() }
    }
}

impl TokenSource for KeyringTokens {
    fn token(&self, refused: bool) -> TokenFuture<'_> {
        Box::pin(async move {
            let mut current = self.current.lock().await;
            let now = self.clock.unix();
            let is_usable = |tokens: &TokenSet| !refused && !tokens.is_over(now);
            if let Some(tokens) = current.as_ref().filter(|tokens| is_usable(tokens)) {
                return tokens.header();
            }
            // A login in the meantime may have brought new ones.
            let stored = TokenSet::load(&self.keyring, &self.server).await?;
            let is_new = current.as_ref().is_none_or(|known| !known.same_as(&stored));
            if is_new && !stored.is_over(now) && (!refused || current.is_some()) {
                return current.insert(stored).header();
            }
            match stored.refreshed(&self.web, now).await {
                Ok(next) => {
                    if let Err(why) = next.store(&self.keyring, &self.server).await {
                        tracing::warn!(server = %self.server, %why, "a refreshed token is not kept");
                    }
                    current.insert(next).header()
                }
                Err(why) => {
                    tracing::warn!(server = %self.server, %why, "a token cannot be refreshed");
                    *current = None;
                    None
                }
            }
        })
    }
}
