//! `[[project]]`: who may use the proxy, and how much.

use std::{net::IpAddr, sync::Arc};

use toml::de::DeValue;
use toml_edit::Value;

use super::{
    MAX_COUNT,
    budget::{Budget, BudgetRows},
    names::{PatternList, REFERENCE, read_name, read_row_name},
    path_base::PathBase,
};
use crate::{
    base::pattern::Patterns,
    config::{
        kinds::{Flag, List, Maybe, TEXT, Text, ValueKind, count},
        problem::Report,
        reader::{TableReader, ValueError, text, truncate},
        table::{ConfigTable, Written, config},
    },
    secrets::Reference,
};

config! {
    /// A group of clients with a key and limits of its own. `default` always exists.
    #[derive(Clone, Debug)]
    pub struct Project in "project" {
        /// Reference to its client key
        key: Option<Reference> = None, Maybe(REFERENCE);
        /// Models that it may use
        models: Patterns = Patterns::any(), PatternList;
        /// Upstreams that may serve it
        upstreams: Patterns = Patterns::any(), PatternList;
        /// MCP servers that it may use
        mcp: Patterns = Patterns::any(), PatternList;
        /// Requests per minute; 0 is unlimited
        rpm: u32 = 0, count(0, u32::MAX);
        /// Tokens per minute, input and output; 0 is unlimited
        tpm: u32 = 0, count(0, u32::MAX);
        /// Concurrent requests, others wait; 0 is unlimited
        max_concurrency: u32 = 0, count(0, MAX_COUNT);
        /// Spending limit; beyond it requests are refused until the period ends
        budget: Vec<Budget> = Vec::new(), BudgetRows;
        /// Networks of its clients; empty is all
        subnets: Vec<Subnet> = Vec::new(), List(SUBNET);
        /// Whether it may control the proxy
        admin: bool = false, Flag;
        /// Whether its key is accepted
        enabled: bool = true, Flag;
    }
    described {
        /// Name of the project
        "name": TEXT.describe(), required;
    }
    derived {
        name: Arc<str> = "default".into();
    }
}

/// Reads a row; `None` if it has no usable name.
pub(in crate::config) fn read_project(
    mut row: TableReader<'_>,
    path_base: &PathBase<'_>,
    report: &mut Report,
) -> Option<Written<Project>> {
    let name = read_row_name(&mut row, "project", report, read_name);
    let mut project = Project::read_keys(&mut row, Project::default(), report);
    let spans = row.finish(report);
    let name = name?;
    if name.value != "default" && spans.get("key").is_none() {
        let help = format!("`aiproxy project rotate {}` makes one", name.value);
        report.missing(&spans.table, format!("`project.{}` has no `key`", name.value), Some(help));
    }
    project.name = name.value.into();
    project.key = project.key.map(|key| path_base.absolute_reference(key));
    Some(Written { value: project, spans })
}

/// Writes a row for `config show`.
pub(in crate::config) fn write_project(project: &Project) -> Vec<(&'static str, Value)> {
    let mut keys = vec![("name", Value::from(&*project.name))];
    keys.extend(project.written_keys());
    keys
}

/// An address and the number of bits that clients share with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subnet {
    pub addr: IpAddr,
    pub bits: u8,
}

impl Subnet {
    #[must_use]
    pub fn contains(&self, addr: IpAddr) -> bool {
        use IpAddr::{V4, V6};
        match (self.addr, addr.to_canonical()) {
            (V4(net), V4(ip)) => {
                u32::from(net) >> (32 - u32::from(self.bits)).min(31)
                    == u32::from(ip) >> (32 - u32::from(self.bits)).min(31)
                    || self.bits == 0
            }
            (V6(net), V6(ip)) => {
                self.bits == 0
                    || u128::from(net) >> (128 - u32::from(self.bits)).min(127)
                        == u128::from(ip) >> (128 - u32::from(self.bits)).min(127)
            }
            _ => false,
        }
    }
}

const SUBNET: Text<Subnet> = Text {
    type_name: "subnet",
    read: read_subnet,
    write: |net| Some(format!("{}/{}", net.addr, net.bits)),
};

/// Reads `127.0.0.0/8`; an address alone is a subnet of one address.
fn read_subnet(value: &DeValue<'_>) -> Result<Subnet, ValueError> {
    let written = text(value)?;
    let bad = || {
        ValueError::with_help(
            format!("`{}` is not a subnet", truncate(&written)),
            "write \"192.168.1.0/24\" or one address",
        )
    };
    let (addr, bits) =
        written.split_once('/').map_or((written.as_str(), None), |(addr, bits)| (addr, Some(bits)));
    let addr: IpAddr = addr.parse().map_err(|_| bad())?;
    let max_bits = if addr.is_ipv4() { 32 } else { 128 };
    let bits = match bits {
        None => max_bits,
        Some(bits) => bits.parse().ok().filter(|bits| *bits <= max_bits).ok_or_else(bad)?,
    };
    Ok(Subnet { addr, bits })
}
