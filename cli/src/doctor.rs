//! `ironpage doctor`: what this machine lacks for a cluster, and the way out.

use crate::cluster::{Cluster, DEFAULT_PORT_BASE};
use crate::daemons;
use crate::endpoint::{paths::Paths, state::State};
use crate::error::Result;
use crate::port;
use crate::programs::{Programs, pg_config, postgres_bindir, server_version};
use crate::sys;
use crate::user::Owner;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Space below which nobody should begin: WAL is not trimmed yet.
const SPACE_WARN_BYTES: u64 = 10 << 30;
const SPACE_FAIL_BYTES: u64 = 1 << 30;
/// Locked memory below which the daemons' rings may not fit.
const MEMLOCK_MIN_BYTES: u64 = 1 << 20;

/// One line of the report.
struct Finding {
    level: Level,
    what: &'static str,
    text: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Level {
    Ok,
    Warn,
    Fail,
}

fn ok(what: &'static str, text: impl Into<String>) -> Finding {
    Finding { level: Level::Ok, what, text: text.into() }
}

fn warn(what: &'static str, text: impl Into<String>) -> Finding {
    Finding { level: Level::Warn, what, text: text.into() }
}

fn fail(what: &'static str, text: impl Into<String>) -> Finding {
    Finding { level: Level::Fail, what, text: text.into() }
}

/// Prints all findings. Success if none is a failure.
pub fn doctor(dir: &Path) -> Result<ExitCode> {
    let mut findings = vec![kernel(), io_uring(), direct_io(dir), memlock(), space(dir), user(dir)];
    findings.extend(postgres());
    findings.push(programs());
    findings.extend(ports(dir));
    for finding in &findings {
        let level = match finding.level {
            Level::Ok => "ok",
            Level::Warn => "warn",
            Level::Fail => "FAIL",
        };
        println!("{level:<5} {:<12} {}", finding.what, finding.text);
    }
    let failed = findings.iter().any(|finding| finding.level == Level::Fail);
    Ok(if failed { ExitCode::from(1) } else { ExitCode::SUCCESS })
}

/// `6.18.2-foo` as (6, 18).
fn parse_release(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn kernel() -> Finding {
    let text = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let text = text.trim();
    match parse_release(text) {
        Some(release) if release >= (6, 1) => ok("kernel", text),
        _ => fail("kernel", format!("'{text}': Linux 6.1 or later is needed; Debian 12's own kernel will do")),
    }
}

fn io_uring() -> Finding {
    match sys::io_uring_allowed() {
        Ok(()) => ok("io_uring", "allowed"),
        Err(error) => {
            let setting = fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
            let setting = setting.trim();
            let way_out = match setting {
                "1" | "2" => format!("kernel.io_uring_disabled is {setting}: `sysctl kernel.io_uring_disabled=0` allows it"),
                _ => "no sysctl forbids it, so perhaps a container's seccomp profile does".to_string(),
            };
            fail("io_uring", format!("refused ({error}). {way_out}"))
        }
    }
}

/// The nearest directory above `dir` that exists.
fn existing(dir: &Path) -> PathBuf {
    let absolute = std::path::absolute(dir).unwrap_or_else(|_| dir.to_path_buf());
    absolute.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("/")).to_path_buf()
}

fn direct_io(dir: &Path) -> Finding {
    let dir = existing(dir);
    match sys::direct_io_works(&dir) {
        Ok(()) => ok("direct I/O", format!("works in {}", dir.display())),
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            fail("direct I/O", format!("no file can be made in {}: choose a directory of yours with --dir", dir.display()))
        }
        Err(error) => fail(
            "direct I/O",
            format!("not in {} ({error}): choose --dir on ext4, xfs or btrfs, not on an overlay", dir.display()),
        ),
    }
}

/// The rings are all that the daemons lock: a few hundred KiB each (buffers are not registered, huge pages not used).
fn memlock() -> Finding {
    match sys::memlock_limit() {
        Ok(Some(limit)) if limit < MEMLOCK_MIN_BYTES => {
            let limit = limit >> 10;
            warn("memlock", format!("{limit} KiB may be too little for the daemons' rings; raise memlock in limits.conf to 8192"))
        }
        Ok(Some(limit)) => ok("memlock", format!("{} KiB", limit >> 10)),
        Ok(None) => ok("memlock", "unlimited"),
        Err(error) => warn("memlock", format!("cannot tell: {error}")),
    }
}

fn space(dir: &Path) -> Finding {
    let dir = existing(dir);
    match sys::free_space(&dir) {
        Ok(bytes) => {
            let text = format!("{} GiB free in {}", bytes >> 30, dir.display());
            match bytes {
                0..SPACE_FAIL_BYTES => fail("disk space", format!("{text}: free some, WAL alone takes more")),
                SPACE_FAIL_BYTES..SPACE_WARN_BYTES => {
                    warn("disk space", format!("{text}: WAL is kept for good in this release, it will fill"))
                }
                _ => ok("disk space", text),
            }
        }
        Err(error) => fail("disk space", format!("cannot tell in {}: {error}", dir.display())),
    }
}

fn user(dir: &Path) -> Finding {
    let dir = existing(dir);
    match Owner::of_postgres() {
        Ok(owner) if !sys::is_root() => ok("user", format!("Postgres runs as {}", owner.name)),
        Ok(owner) if owner.can_enter(&dir) => ok("user", format!("Postgres will run as '{}'", owner.name)),
        Ok(owner) => {
            let text = format!(
                "Postgres will run as '{}', who cannot enter {}: its data goes below /var/lib/ironpage",
                owner.name,
                dir.display()
            );
            ok("user", text)
        }
        Err(error) => fail("user", error.to_string()),
    }
}

fn postgres() -> Vec<Finding> {
    let bindir = match postgres_bindir() {
        Ok(bindir) => bindir,
        Err(error) => return vec![fail("postgres", error.to_string())],
    };
    let mut findings = vec![match server_version(&bindir) {
        Ok(version) if version / 10_000 == 15 => ok("postgres", format!("15.{} in {}", version % 10_000, bindir.display())),
        Ok(version) => fail("postgres", format!("{version} in {}: only PostgreSQL 15 is supported", bindir.display())),
        Err(error) => fail("postgres", error.to_string()),
    }];
    findings.extend(["initdb", "psql"].into_iter().filter(|name| !bindir.join(name).is_file()).map(|name| {
        fail("postgres", format!("{name} is missing in {}: reinstall postgresql-15 and postgresql-client-15", bindir.display()))
    }));
    findings.push(match pg_config(&bindir, "--includedir-server").filter(|dir| Path::new(dir).join("postgres.h").is_file()) {
        Some(dir) => ok("headers", dir),
        None => {
            warn("headers", "none: after an update of Postgres the extension cannot be rebuilt; install postgresql-server-dev-15")
        }
    });
    findings
}

fn programs() -> Finding {
    match Programs::find() {
        Ok(programs) => ok("extension", programs.extension.display().to_string()),
        Err(error) => fail("extension", error.to_string()),
    }
}

fn ports(dir: &Path) -> Vec<Finding> {
    let Ok(cluster) = Cluster::open(dir) else {
        let base = DEFAULT_PORT_BASE;
        return match (base..base + 6).find_map(|port| port::check_free(port, "a new cluster").err()) {
            Some(error) => vec![warn("ports", error.to_string())],
            None => vec![ok("ports", format!("{base} to {} are free", base + 5))],
        };
    };
    let mut wanted: Vec<(u16, String)> = Vec::new();
    for daemon in daemons::all(&cluster).iter().filter(|daemon| daemon.process().is_ok_and(|process| process.is_none())) {
        wanted.extend(daemon.ports(&cluster).into_iter().map(|port| (port, daemon.name().to_string())));
    }
    for endpoint in &cluster.settings.endpoints {
        let state = State::read(&Paths::of(&cluster, endpoint)).ok().flatten();
        let lives = state.is_some_and(|state| state.postmaster.is_some_and(|postmaster| postmaster.is_alive()));
        if !lives {
            wanted.push((cluster.endpoint_address(endpoint).port(), format!("endpoint '{}'", endpoint.name)));
        }
    }
    let busy: Vec<Finding> = wanted
        .iter()
        .filter_map(|(port, name)| port::check_free(*port, name).err())
        .map(|error| fail("ports", error.to_string()))
        .collect();
    if busy.is_empty() { vec![ok("ports", format!("free or ours, from {} on", cluster.settings.port_base))] } else { busy }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_releases_are_compared_by_number() {
        assert_eq!(parse_release("6.18.2-x86_64"), Some((6, 18)));
        assert!(parse_release("5.10.0-28-amd64").unwrap() < (6, 1) && parse_release("6.1.0-9-amd64").unwrap() >= (6, 1));
        assert_eq!(parse_release("linux"), None);
    }
}
