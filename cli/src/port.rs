//! Ports: free or not, and who has them.

use crate::error::{Error, Result};
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

/// A port of ours: everything listens on loopback.
pub fn address(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// Fails with the port, its holder and the way out if `wanted_by` could not listen there.
pub fn check_free(port: u16, wanted_by: &str) -> Result<()> {
    match TcpListener::bind(address(port)) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            let holder = match holder(port) {
                Some(holder) => format!(" by {holder}"),
                None if is_for_outgoing(port) => {
                    " by an outgoing connection, for which the kernel uses this range (net.ipv4.ip_local_port_range)".into()
                }
                None => String::new(),
            };
            Err(Error::PortBusy { port, holder, wanted_by: wanted_by.to_string() })
        }
        Err(source) => Err(Error::Unreachable { peer: format!("the port of {wanted_by}"), address: address(port), source }),
        Ok(_) => Ok(()),
    }
}

/// Whether the kernel gives this port to outgoing connections.
fn is_for_outgoing(port: u16) -> bool {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut ends = range.split_whitespace().map(|end| end.parse::<u16>());
    matches!((ends.next(), ends.next()), (Some(Ok(first)), Some(Ok(last))) if (first..=last).contains(&port))
}

/// `pid N (name)` of a process that listens on the port, if we may see it.
fn holder(port: u16) -> Option<String> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|table| fs::read_to_string(table).unwrap_or_default());
    let inode = tables.iter().flat_map(|table| table.lines()).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let local = u16::from_str_radix(fields.get(1)?.rsplit_once(':')?.1, 16).ok()?;
        // 0A is TCP_LISTEN (net/tcp_states.h).
        (local == port && *fields.get(3)? == "0A").then(|| fields.get(9).map(|inode| inode.to_string()))?
    })?;
    let wanted = format!("socket:[{inode}]");
    let pids = fs::read_dir("/proc").ok()?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    for pid in pids {
        let Ok(fds) = fs::read_dir(format!("/proc/{pid}/fd")) else { continue };
        if fds.flatten().any(|fd| fs::read_link(fd.path()).is_ok_and(|to| to.to_str() == Some(&wanted))) {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            return Some(format!("pid {pid} ({})", name.trim()));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_names_its_holder_and_the_way_out() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let error = check_free(port, "safekeeper-1").unwrap_err().to_string();
        for part in [&port.to_string(), "safekeeper-1", "--port-base", &format!("pid {}", std::process::id())] {
            assert!(error.contains(part), "{error}");
        }
        drop(listener);
        check_free(port, "safekeeper-1").unwrap();
    }
}
