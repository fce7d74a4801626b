//! `[ledger]`: where requests are recorded, and how much is retained.

use std::{path::PathBuf, time::Duration};

use toml::de::DeValue;

use super::{DAY, HOUR};
use crate::config::{
    choices::BodyStorage,
    kinds::{ByteSize, Flag, Text, TimeSpan, Words},
    reader::{ValueError, text, truncate},
    table::config,
};

const MAX_RETENTION: Duration = DAY.saturating_mul(3_650);

config! {
    /// The history of all requests.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct LedgerSettings in "ledger" {
        /// Database of all requests; relative to the data folder
        path: PathBuf = "ledger.db".into(), PATH;
        /// Time zone of days; empty is the machine's
        tz: String = String::new(), ZONE;
        /// Record the client's address and the end user that a request names
        callers: bool = true, Flag;
        /// Which request and response bodies are stored; secrets are removed
        bodies: BodyStorage = BodyStorage::All, Words(BodyStorage::ALL);
        /// Maximum bytes of all stored bodies; the oldest are removed first
        bodies_total: u64 = 256 << 20, ByteSize(0, 1 << 42);
        /// Maximum bytes of one body: half from its beginning and half from its end
        body_limit: u64 = 4 << 20, ByteSize(1 << 10, 1 << 30);
        /// How long requests are kept; sums by day stay
        retention as "keep": Duration = DAY.saturating_mul(90), TimeSpan(HOUR, MAX_RETENTION);
        /// How long bodies are kept
        body_retention as "keep_bodies": Duration = DAY.saturating_mul(3),
            TimeSpan(Duration::ZERO, MAX_RETENTION);
    }
}

const PATH: Text<PathBuf> = Text {
    type_name: "path",
    read: |value| match text(value)? {
        path if path.is_empty() => Err(ValueError::with_help(
            "an empty path",
            "write \"ledger.db\"; it is relative to the data dir",
        )),
        path => Ok(path.into()),
    },
    write: |path| Some(path.display().to_string()),
};

const ZONE: Text<String> =
    Text { type_name: "time zone", read: read_zone, write: |zone| Some(zone.clone()) };

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
