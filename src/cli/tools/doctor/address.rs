//! Checks the addresses on which the proxy listens, and who has them.

use std::{
    io::ErrorKind,
    net::{SocketAddr, TcpListener},
};

use crate::{
    config::{file::Paths, settings::Settings},
    control::rundir::{RunDir, RunInfo, dial_address},
};

use super::check::Check;

const VERSION: &str = env!("CARGO_PKG_VERSION");
const CHECK: &str = "port";
/// Ports after a taken one that are looked at for a free one.
const MAX_NEXT_PORTS: u16 = 50;

pub(super) fn check(
    paths: &Paths,
    settings: &Settings,
    running: Option<&RunInfo>,
    checks: &mut Vec<Check>,
) {
    checks.push(match running {
        Some(info) if info.version != VERSION => {
            let text = format!("version {} runs, this command is {VERSION}", info.version);
            Check::warn("proxy", format!("pid {}", info.pid), text, "`aiproxy restart`")
        }
        Some(info) => {
            let text = format!("it runs at {}", info.listen.join(", "));
            Check::ok("proxy", format!("pid {}", info.pid), text)
        }
        None if RunDir::is_locked(&paths.data) => {
            Check::ok("proxy", "", "it is starting and does not listen yet")
        }
        None => Check::warn("proxy", "", "it is not running", "`aiproxy serve` starts it"),
    });
    let server = &settings.server.listen;
    for addr in &server.addresses {
        let optional = server.optional_v6 && addr.is_ipv6();
        checks.extend(check_one(*addr, running, optional, "server.listen"));
    }
    for listener in settings.keyless.iter().flat_map(|row| &row.listen.addresses) {
        checks.extend(check_one(*listener, running, false, "`listen` of [[keyless]]"));
    }
}

fn check_one(
    addr: SocketAddr,
    running: Option<&RunInfo>,
    optional: bool,
    setting: &str,
) -> Option<Check> {
    let subject = addr.to_string();
    // It has its listeners, also those for clients without a key, which it does not name.
    if let Some(info) = running
        && owner(addr.port()).is_none_or(|(pid, _)| pid == info.pid)
    {
        let is_named =
            info.listen.iter().any(|known| dial_address(known) == dial_address(&subject));
        let is_free = TcpListener::bind(addr).is_ok();
        return Some(match (is_named, is_free, optional) {
            (true, ..) | (false, false, _) => Check::ok(CHECK, subject, "the proxy listens there"),
            (false, true, true) => return None,
            (false, true, false) => {
                let text = "the running proxy does not listen there";
                Check::warn(CHECK, subject, text, "`aiproxy restart`")
            }
        });
    }
    let Err(error) = TcpListener::bind(addr) else {
        return Some(Check::ok(CHECK, subject, "free"));
    };
    Some(match error.kind() {
        ErrorKind::AddrInUse => {
            let who = owner(addr.port()).map_or_else(
                || "another program".to_owned(),
                |(pid, name)| format!("{name} (pid {pid})"),
            );
            let other = next_free(addr).map_or_else(|| "ADDRESS".to_owned(), |a| a.to_string());
            let fix = if setting == "server.listen" {
                format!(
                    "stop that program, or `aiproxy serve --listen {other}`, or for good \
                     `aiproxy config set server.listen {other}`"
                )
            } else {
                format!("stop that program, or name another address in {setting}")
            };
            Check::fail(CHECK, &subject, format!("port {} is taken by {who}", addr.port()), fix)
        }
        _ if optional => return None,
        ErrorKind::PermissionDenied => {
            let text = "ports below 1024 need a privilege that this user has not";
            Check::fail(CHECK, subject, text, format!("name a port above 1024 in {setting}"))
        }
        _ => {
            let text = format!("this machine cannot listen there: {error}");
            Check::fail(CHECK, subject, text, format!("name another address in {setting}"))
        }
    })
}

fn next_free(addr: SocketAddr) -> Option<SocketAddr> {
    let ports = (addr.port()..).skip(1).take(usize::from(MAX_NEXT_PORTS));
    let mut addrs = ports.map(|port| SocketAddr::new(addr.ip(), port));
    addrs.find(|addr| TcpListener::bind(addr).is_ok())
}

/// Finds the process that listens on a port, and its name.
#[cfg(target_os = "linux")]
fn owner(port: u16) -> Option<(u32, String)> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(std::fs::read_to_string);
    let rows = tables.iter().flatten().flat_map(|table| table.lines().skip(1));
    let sockets: Vec<String> = rows.filter_map(|row| listening_socket(row, port)).collect();
    if sockets.is_empty() {
        return None;
    }
    for process in std::fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let Ok(files) = std::fs::read_dir(process.path().join("fd")) else { continue };
        let has_it = files.flatten().any(|file| {
            let target = std::fs::read_link(file.path()).unwrap_or_default();
            target.to_str().is_some_and(|target| sockets.iter().any(|known| known == target))
        });
        if has_it {
            let name = std::fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return Some((pid, name.trim().to_owned()));
        }
    }
    None
}

/// Returns the socket of a row of `/proc/net/tcp` that listens on the port.
#[cfg(target_os = "linux")]
fn listening_socket(row: &str, port: u16) -> Option<String> {
    const LISTENING: &str = "0A";
    let mut words = row.split_whitespace();
    let (local, state) = (words.nth(1)?, words.nth(1)?);
    let found = u16::from_str_radix(local.rsplit(':').next()?, 16).ok()?;
    let inode = words.nth(5)?;
    (state == LISTENING && found == port).then(|| format!("socket:[{inode}]"))
}

#[cfg(not(target_os = "linux"))]
fn owner(_port: u16) -> Option<(u32, String)> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_in_use_is_reported_with_its_owner() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = taken.local_addr().unwrap();
        let check = check_one(addr, None, false, "server.listen").unwrap();
        assert!(check.text.contains("is taken by"), "{check:?}");
        assert!(check.fix.unwrap().contains("--listen 127.0.0.1:"));
        #[cfg(target_os = "linux")]
        assert!(check.text.contains(&format!("pid {}", std::process::id())), "{}", check.text);
        drop(taken);
        assert_eq!(check_one(addr, None, false, "server.listen").unwrap().text, "free");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn listening_sockets_are_read_from_the_kernel_table() {
        let row = "  0: 0100007F:21C2 00000000:0000 0A 00000000:00000000 00:00000000 00000000 \
                   1000        0 41234 1 0000000000000000 100 0 0 10 0";
        assert_eq!(listening_socket(row, 8642).as_deref(), Some("socket:[41234]"));
        assert_eq!(listening_socket(row, 8643), None);
        assert_eq!(listening_socket("  sl  local", 1), None);
    }
}
