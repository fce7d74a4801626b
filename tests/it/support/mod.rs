//! What the tests stand on: a home of their own, a scripted upstream, the real program, a client, a
//! terminal.

pub(crate) mod client;
pub(crate) mod home;
pub mod keyring;
pub(crate) mod proxy;
#[cfg(unix)]
pub(crate) mod pty;
pub(crate) mod upstream;

use std::time::{Duration, Instant};

/// Nothing in a test waits longer.
pub(crate) const TEST_TIMEOUT: Duration = Duration::from_secs(20);

/// Looks again and again until there is something to see; the panic says what was waited for.
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
