//! `[[project]]` as written.

use std::net::IpAddr;

use toml::de::DeValue;

use super::{budget, name, patterns, row_name, upstream::reference};
use crate::{
    base::pattern::Patterns,
    config::{
        problem::Report,
        read::{At, Fault, Table, clip, count, flag, text},
        settings::{Budget, Subnet},
    },
    secrets::Reference,
};

pub(in crate::config) struct Project {
    pub(in crate::config) name: At<String>,
    pub(in crate::config) key: Option<At<Reference>>,
    pub(in crate::config) models: Option<Patterns>,
    pub(in crate::config) upstreams: Option<At<Patterns>>,
    pub(in crate::config) rpm: u32,
    pub(in crate::config) tpm: u32,
    pub(in crate::config) max_concurrency: u32,
    pub(in crate::config) budget: Vec<Budget>,
    pub(in crate::config) subnets: Vec<Subnet>,
    pub(in crate::config) admin: bool,
    pub(in crate::config) enabled: bool,
}

pub(super) fn read(mut row: Table<'_>, report: &mut Report) -> Option<Project> {
    let row_name = row_name(&mut row, "project", report, name);
    let before = report.findings.len();
    let key = row.take("key", report, reference);
    let enabled = row.or("enabled", report, true, flag);
    if let Some(name) = row_name.as_ref().filter(|name| name.value != "default")
        && key.is_none()
        && report.findings.len() == before
    {
        let help =
            format!("`aiproxy project add {}` makes one and keeps it in the keyring", name.value);
        report.absent(&row.span, format!("`project.{}` has no `key`", name.value), Some(help));
    }
    let subnets = row.list("subnets", report, subnet);
    let project = Project {
        name: row_name.clone().unwrap_or_else(|| At::new(String::new(), row.span.clone())),
        key,
        models: patterns(&mut row, "models", report).map(|at| at.value),
        upstreams: patterns(&mut row, "upstreams", report),
        rpm: row.or("rpm", report, 0, count(0, u32::MAX)),
        tpm: row.or("tpm", report, 0, count(0, u32::MAX)),
        max_concurrency: row.or("max_concurrency", report, 0, count(0, 1_000_000)),
        budget: budget::read(&mut row, report),
        subnets: subnets
            .map(|at| at.value.into_iter().map(|at| at.value).collect())
            .unwrap_or_default(),
        admin: row.or("admin", report, false, flag),
        enabled,
    };
    row.end(report);
    row_name.map(|_| project)
}

/// `127.0.0.0/8`; an address alone is a net of one.
fn subnet(value: &DeValue<'_>) -> Result<Subnet, Fault> {
    let written = text(value)?;
    let bad = || {
        Fault::with(
            format!("`{}` is not a subnet", clip(&written)),
            "write \"192.168.1.0/24\" or one address",
        )
    };
    let (addr, bits) =
        written.split_once('/').map_or((written.as_str(), None), |(addr, bits)| (addr, Some(bits)));
    let addr: IpAddr = addr.parse().map_err(|_| bad())?;
    let most = if addr.is_ipv4() { 32 } else { 128 };
    let bits = match bits {
        None => most,
        Some(bits) => bits.parse().ok().filter(|bits| *bits <= most).ok_or_else(bad)?,
    };
    Ok(Subnet { addr, bits })
}
