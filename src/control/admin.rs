//! What the control API can change in the proxy; implemented in `cli`, which assembles the parts.

use std::{future::Future, pin::Pin, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{
    action::{Action, ActionReply},
    snapshot::ConfigView,
};
use crate::{
    events::status_message::reload::ReloadMessage, ir::reason::text_field::text_and_reason,
};

/// A boxed future, so that [`Admin`] can be a trait object.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The result of a reload.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReloadResult {
    pub ok: bool,
    /// Rendered as `file:line:column: …`.
    pub problems: Vec<String>,
    #[serde(flatten, with = "text_and_reason")]
    pub text: Arc<ReloadMessage>,
    /// Number of upstreams that are served now.
    pub upstreams: usize,
}

/// The changes that the control API can make to the proxy.
pub trait Admin: Send + Sync {
    /// Reloads the config and its references.
    fn reload(&self) -> BoxFuture<'_, ReloadResult>;

    /// Performs one action.
    fn perform(&self, action: Action) -> BoxFuture<'_, ActionReply>;

    /// Returns the current config.
    fn config(&self) -> ConfigView;
}
