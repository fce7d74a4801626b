//! Serves one request from reading to recording; each folder is one stage.

pub mod attempt;
pub mod background;
pub mod context;
pub mod dispatch;
pub mod engine;
pub mod handler;
pub mod heavy_work;
pub mod observe;
pub mod record;
pub mod request;
pub mod response;
pub mod state;
