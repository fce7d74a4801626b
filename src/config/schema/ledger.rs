//! `[ledger]`: where the record of requests is kept, and how much of it.

use std::time::Duration;

use toml::de::DeValue;

use crate::config::{
    problem::Report,
    read::{Fault, Table, clip, duration, size, text, word},
    settings::{Bodies, Ledger},
};

const HOUR: Duration = Duration::from_secs(3_600);
const LONGEST: Duration = Duration::from_secs(3_650 * 86_400);

pub(super) fn read(mut table: Table<'_>, report: &mut Report) -> Ledger {
    let usual = Ledger::default();
    let bodies = word(&[("off", Bodies::Off), ("errors", Bodies::Errors), ("all", Bodies::All)]);
    let ledger = Ledger {
        path: table.or("path", report, usual.path, |value| {
            let path = text(value)?;
            if path.is_empty() {
                Err(Fault::with(
                    "an empty path",
                    "write \"ledger.db\"; it is relative to the data dir",
                ))
            } else {
                Ok(path.into())
            }
        }),
        tz: table.or("tz", report, usual.tz, zone),
        bodies: table.or("bodies", report, usual.bodies, bodies),
        bodies_total: table.or("bodies_total", report, usual.bodies_total, size(0, 1 << 42)),
        body_limit: table.or("body_limit", report, usual.body_limit, size(1 << 10, 1 << 30)),
        keep: table.or("keep", report, usual.keep, duration(HOUR, LONGEST)),
        keep_bodies: table.or(
            "keep_bodies",
            report,
            usual.keep_bodies,
            duration(Duration::ZERO, LONGEST),
        ),
    };
    table.end(report);
    ledger
}

fn zone(value: &DeValue<'_>) -> Result<String, Fault> {
    let name = text(value)?;
    if name.is_empty() || jiff::tz::TimeZone::get(&name).is_ok() {
        return Ok(name);
    }
    Err(Fault::with(
        format!("`{}` is no time zone that this machine knows", clip(&name)),
        "write it like \"Europe/Berlin\", \"Asia/Shanghai\" or \"UTC\"; empty is the machine's",
    ))
}
