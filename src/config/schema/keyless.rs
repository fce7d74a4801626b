//! `[[keyless]]` as written.

use std::net::SocketAddr;

use toml::de::DeValue;

use super::{name, upstream::dialect};
use crate::{
    config::{
        listen,
        problem::Report,
        read::{At, Fault, Table, text},
    },
    ir::op::Dialect,
};

pub(in crate::config) struct Keyless {
    pub(in crate::config) listen: At<(Vec<SocketAddr>, bool)>,
    pub(in crate::config) project: Option<At<String>>,
    pub(in crate::config) dialects: Vec<Dialect>,
}

pub(super) fn read(mut row: Table<'_>, report: &mut Report) -> Option<Keyless> {
    let before = report.findings.len();
    let listen = row.take("listen", report, address);
    let project = row.take("project", report, name);
    let dialects = row
        .list("dialects", report, dialect)
        .map(|list| list.value.into_iter().map(|at| at.value).collect());
    if listen.is_none() && report.findings.len() == before {
        report.absent(
            &row.span,
            "a [[keyless]] without `listen`".to_owned(),
            Some("add a line `listen = \"127.0.0.1:11435\"`".to_owned()),
        );
    }
    row.end(report);
    Some(Keyless {
        listen: listen?,
        project,
        dialects: dialects.unwrap_or_else(|| vec![Dialect::Ollama]),
    })
}

/// Only this machine's own clients may do without a credential.
fn address(value: &DeValue<'_>) -> Result<(Vec<SocketAddr>, bool), Fault> {
    let written = text(value)?;
    let (list, both) =
        listen::parse(&written).map_err(|sentence| match sentence.split_once("; ") {
            Some((what, help)) => Fault::with(what, help),
            None => Fault::new(sentence),
        })?;
    match list.iter().find(|at| !at.ip().to_canonical().is_loopback() || at.port() == 0) {
        Some(at) => Err(Fault::with(
            format!(
                "a keyless listener at {at}: it would be open to more than this machine's own clients"
            ),
            "listen on 127.0.0.1 or [::1], with a port of its own",
        )),
        None => Ok((list, both)),
    }
}
