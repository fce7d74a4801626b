//! One request, from read to done; the files are its stages.

pub mod attempt;
pub mod dispatch;
pub mod engine;
pub mod handler;
pub mod observe;
pub mod record;
pub mod request;
pub mod response;
pub mod state;
