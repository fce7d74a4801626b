//! What every connection shares.

use std::sync::Arc;

use crate::server::guard::credential::ClientKeys;
use crate::{config::settings::KeylessListener, control::api::ControlApi, relay::engine::Engine};

/// The server's view of the proxy.
pub struct ServerState {
    pub engine: Arc<Engine>,
    pub clients: Arc<ClientKeys>,
    pub control: Arc<ControlApi>,
    /// Who comes in here needs no credential.
    pub keyless: Option<KeylessListener>,
}
