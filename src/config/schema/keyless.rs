//! `[[keyless]]`: listeners for clients that cannot send a credential.

use std::sync::Arc;

use toml::de::DeValue;

use super::{
    general::ListenAddresses,
    names::{DialectName, NAME},
};
use crate::{
    config::{
        kinds::{List, Text},
        listen,
        problem::Report,
        reader::{TableReader, ValueError, text},
        table::{ConfigTable, Written, config},
    },
    ir::op::Dialect,
};

config! {
    /// A listener on this machine whose clients need no credential.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct KeylessListener in "keyless" {
        /// Address on this machine at which clients without a credential are served
        listen: ListenAddresses = ListenAddresses::default(), LOOPBACK, required;
        /// Project that its requests belong to
        project: Arc<str> = "default".into(), NAME;
        /// Dialects that clients may use there
        dialects: Vec<Dialect> = vec![Dialect::Ollama], List(DialectName);
    }
}

/// Reads a row; `None` if it has no usable address.
pub(in crate::config) fn read_keyless(
    mut row: TableReader<'_>,
    report: &mut Report,
) -> Option<Written<KeylessListener>> {
    let before = report.findings.len();
    let value = KeylessListener::read_keys(&mut row, KeylessListener::default(), report);
    let readable = report.findings.len() == before;
    let spans = row.finish(report);
    if spans.get("listen").is_none() {
        report.missing(
            &spans.table,
            "a [[keyless]] without `listen`".to_owned(),
            Some("add a line `listen = \"127.0.0.1:11435\"`".to_owned()),
        );
        return None;
    }
    readable.then_some(Written { value, spans })
}

/// The addresses of a listener that only clients on this machine can reach.
const LOOPBACK: Text<ListenAddresses> = Text {
    type_name: "address",
    read: read_loopback,
    write: |listen| listen.addresses.first().map(ToString::to_string),
};

fn read_loopback(value: &DeValue<'_>) -> Result<ListenAddresses, ValueError> {
    let (addresses, optional_v6) =
        listen::parse_addr(&text(value)?).map_err(ValueError::from_sentence)?;
    match addresses.iter().find(|at| !at.ip().to_canonical().is_loopback() || at.port() == 0) {
        Some(at) => Err(ValueError::with_help(
            format!(
                "a keyless listener at {at}: it would be open to more than this machine's own clients"
            ),
            "listen on 127.0.0.1 or [::1], with a port of its own",
        )),
        None => Ok(ListenAddresses { addresses, optional_v6 }),
    }
}
