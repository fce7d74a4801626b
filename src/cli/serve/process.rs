//! Facts about this machine and its other processes.

use std::net::SocketAddr;

/// `max_buffered = "auto"`: the smaller of this and a quarter of the memory.
const MAX_BUFFER_BYTES: u64 = 512 << 20;

/// The default upper bound for buffered body bytes.
#[must_use]
pub(super) fn buffer_limit() -> u64 {
    available_memory().map_or(MAX_BUFFER_BYTES, |bytes| MAX_BUFFER_BYTES.min(bytes / 4))
}

/// Memory available to this process: the machine's, or less if a cgroup limits it.
#[cfg(target_os = "linux")]
fn available_memory() -> Option<u64> {
    let total = rustix::system::sysinfo();
    let machine = (total.totalram as u64).saturating_mul(u64::from(total.mem_unit));
    let cgroup = std::fs::read_to_string("/proc/self/cgroup").ok();
    let path = cgroup
        .as_deref()
        .and_then(|text| text.lines().find_map(|line| line.strip_prefix("0::")))
        .unwrap_or("/")
        .trim_end_matches('/');
    let group =
        [format!("/sys/fs/cgroup{path}/memory.max"), "/sys/fs/cgroup/memory.max".to_owned()];
    let limit = group
        .iter()
        .find_map(|file| std::fs::read_to_string(file).ok()?.trim().parse::<u64>().ok());
    Some(limit.map_or(machine, |limit| limit.min(machine)))
}

#[cfg(not(target_os = "linux"))]
fn available_memory() -> Option<u64> {
    None
}

/// Name and pid of the process that listens on an address, if the system provides them.
#[cfg(target_os = "linux")]
#[must_use]
pub(super) fn process_listening_on(addr: SocketAddr) -> Option<String> {
    let wanted = format!(":{:04X}", addr.port());
    let mut inodes = Vec::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        for line in std::fs::read_to_string(table).unwrap_or_default().lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            // Local address, state LISTEN, inode.
            if fields.len() > 9 && fields[1].ends_with(&wanted) && fields[3] == "0A" {
                inodes.push(format!("socket:[{}]", fields[9]));
            }
        }
    }
    for process in std::fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok())
        else {
            continue;
        };
        let Ok(open) = std::fs::read_dir(process.path().join("fd")) else { continue };
        let is_listener = open.flatten().any(|fd| {
            std::fs::read_link(fd.path())
                .is_ok_and(|link| inodes.iter().any(|inode| link.as_os_str() == inode.as_str()))
        });
        if is_listener {
            let name = std::fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return Some(format!("{} (pid {pid})", crate::base::sanitize::clean(name.trim())));
        }
    }
    None
}

#[cfg(not(target_os = "linux"))]
#[must_use]
pub(super) fn process_listening_on(_addr: SocketAddr) -> Option<String> {
    None
}

/// The host name.
#[cfg(unix)]
pub(super) fn host_name(_: &std::collections::HashMap<String, String>) -> String {
    crate::base::sanitize::clean(&rustix::system::uname().nodename().to_string_lossy()).into_owned()
}

/// The host name.
#[cfg(not(unix))]
pub(super) fn host_name(env: &std::collections::HashMap<String, String>) -> String {
    env.get("COMPUTERNAME")
        .map(|name| crate::base::sanitize::clean(name).into_owned())
        .unwrap_or_default()
}
