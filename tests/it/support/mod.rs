//! Shared test fixtures: a separate home, a scripted upstream, the real program, a client and a
//! terminal.

pub(crate) mod client;
pub(crate) mod home;
pub mod keyring;
pub(crate) mod proxy;
#[cfg(unix)]
pub(crate) mod pty;
pub(crate) mod upstream;

use std::time::{Duration, Instant};

/// Upper bound for every wait in a test.
pub(crate) const TEST_TIMEOUT: Duration = Duration::from_secs(20);

/// Polls until there is a value; the panic message contains what was awaited.
pub(crate) fn poll_until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + TEST_TIMEOUT;
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(Instant::now() < end, "waited {TEST_TIMEOUT:?} for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
