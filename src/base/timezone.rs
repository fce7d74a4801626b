//! Time zones by name.

use jiff::tz::TimeZone;

/// Returns the zone with this name: the machine's zone for an empty name, UTC if the name is
/// unknown.
#[must_use]
pub fn timezone_by_name(name: &str) -> TimeZone {
    let named = if name.is_empty() { TimeZone::try_system() } else { TimeZone::get(name) };
    let zone = named.unwrap_or(TimeZone::UTC);
    // One zone has many names. Days counted in one of them equal those of the others.
    if zone.iana_name().is_some_and(|name| UTC_NAMES.contains(&name)) {
        TimeZone::UTC
    } else {
        zone
    }
}

const UTC_NAMES: [&str; 6] = ["Etc/UCT", "Etc/UTC", "Etc/Universal", "Etc/Zulu", "UTC", "Zulu"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_utc_are_equivalent() {
        assert!(
            ["UTC", "Etc/UTC", "Etc/Zulu", "no such zone"]
                .into_iter()
                .all(|name| timezone_by_name(name) == TimeZone::UTC)
        );
        assert_eq!(timezone_by_name("Asia/Shanghai").iana_name(), Some("Asia/Shanghai"));
    }
}
