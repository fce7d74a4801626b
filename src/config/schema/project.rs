//! `[[project]]` as written.

use std::net::IpAddr;

use toml::de::DeValue;

use super::{budget, read_name, read_patterns, read_row_name, upstream::read_reference};
use crate::{
    base::pattern::Patterns,
    config::{
        problem::Report,
        reader::{Located, TableReader, ValueError, count, flag, text, truncate},
        settings::{Budget, Subnet},
    },
    secrets::Reference,
};

pub(in crate::config) struct RawProject {
    pub(in crate::config) name: Located<String>,
    pub(in crate::config) key: Option<Located<Reference>>,
    pub(in crate::config) models: Option<Patterns>,
    pub(in crate::config) upstreams: Option<Located<Patterns>>,
    pub(in crate::config) rpm: u32,
    pub(in crate::config) tpm: u32,
    pub(in crate::config) max_concurrency: u32,
    pub(in crate::config) budget: Vec<Budget>,
    pub(in crate::config) subnets: Vec<Subnet>,
    pub(in crate::config) admin: bool,
    pub(in crate::config) enabled: bool,
}

pub(super) fn read_project(mut row: TableReader<'_>, report: &mut Report) -> Option<RawProject> {
    let row_name = read_row_name(&mut row, "project", report, read_name);
    let before = report.findings.len();
    let key = row.read("key", report, read_reference);
    let enabled = row.read_or("enabled", report, true, flag);
    if let Some(name) = row_name.as_ref().filter(|name| name.value != "default")
        && key.is_none()
        && report.findings.len() == before
    {
        let help =
            format!("`aiproxy project add {}` makes one and keeps it in the keyring", name.value);
        report.missing(&row.span, format!("`project.{}` has no `key`", name.value), Some(help));
    }
    let subnets = row.read_list("subnets", report, read_subnet);
    let project = RawProject {
        name: row_name.clone().unwrap_or_else(|| Located::new(String::new(), row.span.clone())),
        key,
        models: read_patterns(&mut row, "models", report).map(|at| at.value),
        upstreams: read_patterns(&mut row, "upstreams", report),
        rpm: row.read_or("rpm", report, 0, count(0, u32::MAX)),
        tpm: row.read_or("tpm", report, 0, count(0, u32::MAX)),
        max_concurrency: row.read_or("max_concurrency", report, 0, count(0, 1_000_000)),
        budget: budget::read_budgets(&mut row, report),
        subnets: subnets
            .map(|at| at.value.into_iter().map(|at| at.value).collect())
            .unwrap_or_default(),
        admin: row.read_or("admin", report, false, flag),
        enabled,
    };
    row.finish(report);
    row_name.map(|_| project)
}

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
