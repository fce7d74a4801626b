//! What every connection shares.

use std::sync::Arc;

use super::guard::credential::Clients;
use crate::{config::settings::KeylessListener, control::api::ControlApi, relay::engine::Engine};

/// The server's view of the proxy.
pub struct Gate {
    pub engine: Arc<Engine>,
    pub clients: Arc<Clients>,
    pub control: Arc<ControlApi>,
    /// Who comes in here needs no credential.
    pub keyless: Option<KeylessListener>,
}
