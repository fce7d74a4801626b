//! One dialect's clients over another's upstreams, over real HTTP.

mod documents;
mod forms;
mod hostile;
mod pains;
mod requests;
mod rescue;
mod scenes;
mod stored;
mod tools;
