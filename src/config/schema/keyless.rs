//! `[[keyless]]` as written.

use std::net::SocketAddr;

use toml::de::DeValue;

use super::{read_name, upstream::read_dialect};
use crate::{
    config::{
        listen,
        problem::Report,
        reader::{Located, TableReader, ValueError, text},
    },
    ir::op::Dialect,
};

pub(in crate::config) struct RawKeyless {
    pub(in crate::config) listen: Located<(Vec<SocketAddr>, bool)>,
    pub(in crate::config) project: Option<Located<String>>,
    pub(in crate::config) dialects: Vec<Dialect>,
}

pub(super) fn read_keyless(mut row: TableReader<'_>, report: &mut Report) -> Option<RawKeyless> {
    let before = report.findings.len();
    let listen = row.read("listen", report, read_loopback);
    let project = row.read("project", report, read_name);
    let dialects = row
        .read_list("dialects", report, read_dialect)
        .map(|list| list.value.into_iter().map(|at| at.value).collect());
    if listen.is_none() && report.findings.len() == before {
        report.missing(
            &row.span,
            "a [[keyless]] without `listen`".to_owned(),
            Some("add a line `listen = \"127.0.0.1:11435\"`".to_owned()),
        );
    }
    row.finish(report);
    Some(RawKeyless {
        listen: listen?,
        project,
        dialects: dialects.unwrap_or_else(|| vec![Dialect::Ollama]),
    })
}

/// Reads the listen addresses: only clients on this machine may omit a credential.
fn read_loopback(value: &DeValue<'_>) -> Result<(Vec<SocketAddr>, bool), ValueError> {
    let written = text(value)?;
    let (list, both) = listen::parse_addr(&written).map_err(ValueError::from_sentence)?;
    match list.iter().find(|at| !at.ip().to_canonical().is_loopback() || at.port() == 0) {
        Some(at) => Err(ValueError::with_help(
            format!(
                "a keyless listener at {at}: it would be open to more than this machine's own clients"
            ),
            "listen on 127.0.0.1 or [::1], with a port of its own",
        )),
        None => Ok((list, both)),
    }
}
