//! Clients of one dialect over upstreams of another, over real HTTP.

mod agents;
mod documents;
mod forms;
mod hostile;
mod open_responses;
mod pains;
mod requests;
mod rescue;
mod scenes;
mod stored;
mod tools;
