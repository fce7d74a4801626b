//! Time zones by name.

use jiff::tz::TimeZone;

/// The zone of this name; the machine's for the empty one, UTC where there is none.
#[must_use]
pub fn zone(name: &str) -> TimeZone {
    let named = if name.is_empty() { TimeZone::try_system() } else { TimeZone::get(name) };
    named.unwrap_or(TimeZone::UTC)
}
