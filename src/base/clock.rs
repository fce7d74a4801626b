//! Time as values: a monotonic instant that passes during suspend, and a wall-clock stamp.

use std::{
    fmt,
    ops::{Add, Sub},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::base::sync::Mutex;

/// An instant of a clock that continues while the machine sleeps (`CLOCK_BOOTTIME` if the system
/// has it).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mono(pub Duration);

impl Mono {
    /// Returns the time from `earlier` to this instant; zero if `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Mono {
    type Output = Self;
    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(span))
    }
}

impl Sub<Duration> for Mono {
    type Output = Self;
    fn sub(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(span))
    }
}

/// Milliseconds since 1970 in UTC. It may jump when the system clock is set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnixMillis(pub i64);

impl fmt::Display for UnixMillis {
    /// Writes RFC 3339 in UTC, to the millisecond.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(at) => write!(f, "{at:.3}"),
            Err(_) => f.write_str("unknown time"),
        }
    }
}

/// The source of time; tests pass a [`FakeClock`].
pub trait Clock: Send + Sync {
    fn mono(&self) -> Mono;
    fn unix(&self) -> UnixMillis;

    /// Returns the wall-clock time of a monotonic instant, by the current offset between the
    /// clocks.
    fn unix_at(&self, at: Mono) -> UnixMillis {
        let (mono, unix) = (self.mono(), self.unix());
        let ahead = i64::try_from(at.since(mono).as_millis()).unwrap_or(i64::MAX);
        let behind = i64::try_from(mono.since(at).as_millis()).unwrap_or(i64::MAX);
        UnixMillis(unix.0.saturating_add(ahead).saturating_sub(behind))
    }
}

/// The machine's clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn mono(&self) -> Mono {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
        Mono(Duration::new(seconds, u32::try_from(now.tv_nsec).unwrap_or_default()))
    }

    // Darwin's CLOCK_MONOTONIC and Windows' QueryPerformanceCounter both continue while the machine
    // sleeps.
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    #[expect(
        clippy::disallowed_methods,
        reason = "the system clock is the one place that reads the time"
    )]
    fn mono(&self) -> Mono {
        static START: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
        Mono(START.get_or_init(std::time::Instant::now).elapsed() + Duration::from_secs(1))
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the system clock is the one place that reads the time"
    )]
    fn unix(&self) -> UnixMillis {
        let since =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        UnixMillis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }
}

/// A clock that a test moves by hand.
#[derive(Debug)]
pub struct FakeClock(Mutex<(Mono, UnixMillis)>);

impl Default for FakeClock {
    fn default() -> Self {
        Self(Mutex::new((Mono(Duration::from_secs(1_000)), UnixMillis(1_700_000_000_000))))
    }
}

impl FakeClock {
    /// Advances both clocks.
    pub fn advance(&self, span: Duration) {
        let mut at = self.0.lock();
        at.0 = at.0 + span;
        at.1.0 += i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
    }
}

impl Clock for FakeClock {
    fn mono(&self) -> Mono {
        self.0.lock().0
    }
    fn unix(&self) -> UnixMillis {
        self.0.lock().1
    }
}
