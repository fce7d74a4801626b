//! `[ledger]`: where requests are recorded, and how much is retained.

use std::time::Duration;

use toml::de::DeValue;

use crate::config::{
    problem::Report,
    reader::{TableReader, ValueError, duration, one_of, size, text, truncate},
    settings::{BodyStorage, LedgerSettings},
};

const HOUR: Duration = Duration::from_secs(3_600);
const MAX_RETENTION: Duration = Duration::from_secs(3_650 * 86_400);

pub(super) fn read_ledger(mut table: TableReader<'_>, report: &mut Report) -> LedgerSettings {
    let defaults = LedgerSettings::default();
    let bodies = one_of(&[
        ("off", BodyStorage::Off),
        ("errors", BodyStorage::Errors),
        ("all", BodyStorage::All),
    ]);
    let ledger = LedgerSettings {
        path: table.read_or("path", report, defaults.path, |value| {
            let path = text(value)?;
            if path.is_empty() {
                Err(ValueError::with_help(
                    "an empty path",
                    "write \"ledger.db\"; it is relative to the data dir",
                ))
            } else {
                Ok(path.into())
            }
        }),
        tz: table.read_or("tz", report, defaults.tz, read_zone),
        bodies: table.read_or("bodies", report, defaults.bodies, bodies),
        bodies_total: table.read_or(
            "bodies_total",
            report,
            defaults.bodies_total,
            size(0, 1 << 42),
        ),
        body_limit: table.read_or(
            "body_limit",
            report,
            defaults.body_limit,
            size(1 << 10, 1 << 30),
        ),
        retention: table.read_or("keep", report, defaults.retention, duration(HOUR, MAX_RETENTION)),
        body_retention: table.read_or(
            "keep_bodies",
            report,
            defaults.body_retention,
            duration(Duration::ZERO, MAX_RETENTION),
        ),
    };
    table.finish(report);
    ledger
}

fn read_zone(value: &DeValue<'_>) -> Result<String, ValueError> {
    let name = text(value)?;
    if name.is_empty() || jiff::tz::TimeZone::get(&name).is_ok() {
        return Ok(name);
    }
    Err(ValueError::with_help(
        format!("`{}` is no time zone that this machine knows", truncate(&name)),
        "write it like \"Europe/Berlin\", \"Asia/Shanghai\" or \"UTC\"; empty is the machine's",
    ))
}
