//! What the control API can do to the proxy; implemented where the parts are put together.

use std::{future::Future, pin::Pin};

use serde::{Deserialize, Serialize};

use super::{
    action::{Action, Reply},
    snapshot::ConfigView,
};

/// A boxed future, so that the trait can be an object.
pub type Doing<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What came of a reload.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Reloaded {
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
    fn reload(&self) -> Doing<'_, Reloaded>;

    /// Does one act.
    fn act(&self, action: Action) -> Doing<'_, Reply>;

    /// The config as it stands.
    fn config(&self) -> ConfigView;
}
