//! What the control API can do to the proxy; implemented where the parts are put together.

use std::{future::Future, pin::Pin};

use serde::{Deserialize, Serialize};

use super::{
    action::{Action, ActionReply},
    snapshot::ConfigView,
};

/// A boxed future, so that the trait can be an object.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What came of a reload.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReloadResult {
    pub ok: bool,
    /// Rendered: `file:line:column: …`.
    pub problems: Vec<String>,
    pub text: String,
    /// Upstreams that are served now.
    pub upstreams: usize,
}

/// The hands of the control API.
pub trait Admin: Send + Sync {
    /// Reads config and references again.
    fn reload(&self) -> BoxFuture<'_, ReloadResult>;

    /// Does one act.
    fn perform(&self, action: Action) -> BoxFuture<'_, ActionReply>;

    /// The config as it stands.
    fn config(&self) -> ConfigView;
}
