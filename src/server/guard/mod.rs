//! Who may come in: Host, Origin, credential, subnet; all of them, always.

pub mod credential;
pub mod host;
pub mod origin;
