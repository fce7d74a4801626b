//! aiproxy: an AI proxy on a developer's laptop.
//!
//! # Folders
//!
//! A folder may import only the folders in its row; `tests/it/architecture.rs` checks this. `core`
//! is config, events, ir and base.
//!
//! | folder | may import |
//! | --- | --- |
//! | base | – |
//! | ir, secrets | base |
//! | events, dialect | ir, base |
//! | config | secrets (references only), ir, base |
//! | pricing | config, ir, base |
//! | routing | core |
//! | upstream | config, secrets, ir, base |
//! | ledger | core |
//! | alerts, telemetry | upstream, secrets, core |
//! | demo | dialect, ir, base |
//! | mcp | upstream, secrets, core |
//! | relay | routing, dialect, upstream, pricing, core |
//! | control | relay, mcp, ledger, telemetry, routing, dialect, secrets, core |
//! | server | control, mcp, relay, routing, dialect, upstream, secrets, core |
//! | tui | control, events, base |
//! | cli | every folder above; the only place that composes parts |
//! | main | cli, secrets |
//!
//! - `relay` never sees a `Secret`. It names a `KeyId`, and `upstream` sets the header.
//! - `tui` reaches the proxy only through the control routes, attached or in the same process.
//! - Events carry names (`Arc<str>`), not ids, so `events` needs nothing from `config`.
//!
//! # One request
//!
//! 1. `server` detects HTTP/1 or HTTP/2, checks Host and Origin, maps the path to a route, and
//!    finds the caller.
//! 2. `relay::handler` takes an in-flight permit and the current `Generation` of settings.
//! 3. `relay::request` reads the body within its limits and scans it once, shallowly.
//! 4. `relay::record` reserves the ledger slot and publishes `Accepted`.
//! 5. `relay::dispatch` applies the project's limits, resolves the model name to targets, and asks
//!    `Router::decide` for a target and a key. If no key is ready, the request waits in a queue.
//! 6. `relay::attempt` replaces the model name if both sides use the same dialect, or else writes
//!    the request for the target. `upstream` adds the key, sends the request, and returns the
//!    response head.
//! 7. A failure is classified, recorded and published. `routing` then grants another attempt or
//!    not.
//! 8. `relay::attempt` buffers the response until its first content, so that the client does not
//!    see a failover.
//! 9. `relay::response` forwards frames or translated events. If the upstream breaks, `rescue`
//!    continues at another target, or the client gets the error of its dialect.
//! 10. At the end, or when the response is dropped, guards report once: the bill, the event
//!     `Ended`, and the ledger row.

pub mod alerts;
pub mod base;
pub mod cli;
pub mod config;
pub mod control;
pub mod demo;
pub mod dialect;
pub mod events;
pub mod ir;
pub mod ledger;
pub mod mcp;
pub mod pricing;
pub mod relay;
pub mod routing;
pub mod secrets;
pub mod server;
pub mod telemetry;
pub mod tui;
pub mod upstream;
