//! A cluster: its directory, what is in it, and `cluster.json`, the only copy of what `up` decided.

use crate::api::{Api, text};
use crate::client::Peer;
use crate::endpoint;
use crate::error::{AtPath, Error, Result};
use crate::files::{self, Lasting};
use crate::port;
use crate::user::Owner;
use ironpage_layout::{Lsn, TenantId, TimelineId};
use serde::{Deserialize, Serialize};
use std::fs::{self, DirBuilder, File};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// First port if `--port-base` says nothing. Below those the kernel gives to outgoing connections (32768 to 60999 unless
/// told otherwise), one of which would now and then hold a port that a restarted daemon wants.
pub const DEFAULT_PORT_BASE: u16 = 25432;
/// Name of the first branch, and of the endpoint `up` starts on it.
pub const MAIN: &str = "main";
/// Safekeepers of a cluster; two are a quorum.
pub const SAFEKEEPERS: u16 = 3;

// Ports, counted from the base: the main endpoint, the safekeepers, the pageserver's frames and its HTTP, further endpoints.
const SAFEKEEPER_OFFSET: u16 = 1;
const PAGESERVER_OFFSET: u16 = 4;
const PAGESERVER_HTTP_OFFSET: u16 = 5;
const ENDPOINTS_OFFSET: u16 = 10;
/// Most endpoints of a cluster: what is left of a hundred ports.
const ENDPOINTS_MAX: u16 = 90;

/// A Postgres that may run on a branch.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Endpoint {
    pub name: String,
    /// Name of the tenant whose branch it is.
    pub tenant: String,
    pub branch: String,
    /// Of a read-only endpoint, what it shows; others follow their branch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Point>,
    port_offset: u16,
}

/// A moment in history that stays what it is, whatever becomes of the branch.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Point {
    #[serde(with = "text")]
    pub timeline: TimelineId,
    #[serde(with = "text")]
    pub lsn: Lsn,
}

/// What `cluster.json` holds: ports, places and endpoints. Tenants and branches are the pageserver's to keep.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Settings {
    /// Version of this file's format.
    format: u32,
    pub port_base: u16,
    /// Id of tenant main.
    #[serde(with = "text")]
    pub tenant: TenantId,
    /// Where templates and data directories lie: somewhere the user Postgres runs as can reach.
    pub compute_dir: PathBuf,
    /// Tenant main with its first branch was made.
    #[serde(default)]
    pub has_main: bool,
    pub endpoints: Vec<Endpoint>,
}

const FORMAT: u32 = 2;

/// Held by commands that change the cluster.
pub const LOCK_FILE: &str = "cluster.lock";

/// A cluster's directory and settings. Nothing in it is locked; see [`Cluster::lock`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cluster {
    pub dir: PathBuf,
    pub settings: Settings,
}

/// The right to change a cluster, held until dropped.
pub struct ClusterLock(#[expect(dead_code, reason = "its drop unlocks")] File);

impl Cluster {
    /// The cluster in `dir`, which must be there.
    pub fn open(dir: &Path) -> Result<Cluster> {
        let missing = || Error::NoCluster(dir.to_path_buf());
        let dir = fs::canonicalize(dir).map_err(|_| missing())?;
        let path = dir.join("cluster.json");
        let settings: Settings = files::read_json(&path)?.ok_or_else(missing)?;
        if settings.format != FORMAT {
            let why = format!("it has format {}, this release reads {FORMAT}", settings.format);
            return Err(Error::Damaged { path, why });
        }
        Ok(Cluster { dir, settings })
    }

    /// Makes the cluster's directory, nothing in it but where `cluster.json` will be. Refuses one with files of others.
    pub fn create(dir: &Path, port_base: u16, owner: &Owner) -> Result<Cluster> {
        DirBuilder::new().recursive(true).mode(0o755).create(dir).at("create directory", dir)?;
        let dir = fs::canonicalize(dir).at("find", dir)?;
        let mut entries = fs::read_dir(&dir).at("list", &dir)?.flatten();
        if entries.any(|entry| ![LOCK_FILE].iter().any(|ours| entry.file_name() == *ours)) {
            return Err(Error::ForeignDirectory(dir));
        }
        let mut tenant = TenantId::default();
        random(&mut tenant.0)?;
        let compute_dir = if owner.can_enter(&dir) { dir.clone() } else { outside(&dir) };
        let settings = Settings { format: FORMAT, port_base, tenant, compute_dir, has_main: false, endpoints: Vec::new() };
        let mut cluster = Cluster { dir, settings };
        cluster.check_ports()?;
        cluster.endpoint_for(MAIN, MAIN, MAIN)?;
        Ok(cluster)
    }

    /// The cluster in `dir`, held against other commands that change it.
    pub fn locked(dir: &Path) -> Result<(Cluster, ClusterLock)> {
        // Before the lock, which would make a directory that is no cluster look like one.
        Cluster::open(dir)?;
        let lock = Cluster::lock(dir)?;
        Ok((Cluster::open(dir)?, lock))
    }

    /// Waits for other commands to finish with the cluster in `dir`, which exists.
    pub fn lock(dir: &Path) -> Result<ClusterLock> {
        let path = dir.join(LOCK_FILE);
        let open = || File::options().write(true).create(true).truncate(false).open(&path).at("open", &path);
        let mut file = open()?;
        let deadline = Instant::now() + Duration::from_secs(120);
        loop {
            match file.try_lock() {
                // Whoever held it may have removed it: then it locks nothing.
                Ok(()) if is_at(&file, &path) => return Ok(ClusterLock(file)),
                Ok(()) => file = open()?,
                Err(fs::TryLockError::WouldBlock) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(20)),
                Err(fs::TryLockError::WouldBlock) => return Err(Error::Locked(dir.to_path_buf())),
                Err(fs::TryLockError::Error(error)) => return Err(error).at("lock", &path),
            }
        }
    }

    pub fn save(&self) -> Result<()> {
        files::write_json(&self.dir.join("cluster.json"), &self.settings, Lasting::Durable)
    }

    /// The last port of the cluster exists.
    pub fn check_ports(&self) -> Result<()> {
        let last = self.settings.port_base.checked_add(ENDPOINTS_OFFSET + ENDPOINTS_MAX);
        last.filter(|_| self.settings.port_base > 0).map(|_| ()).ok_or(Error::PortRange(self.settings.port_base))
    }

    pub fn logs(&self) -> PathBuf {
        self.dir.join("logs")
    }

    /// Pid files, state files and locks: what is true of this boot.
    pub fn run(&self) -> PathBuf {
        self.dir.join("run")
    }

    pub fn make_directories(&self) -> Result<()> {
        for dir in [self.logs(), self.run(), self.settings.compute_dir.clone()] {
            DirBuilder::new().recursive(true).mode(0o755).create(&dir).at("create directory", &dir)?;
        }
        Ok(())
    }

    /// The cluster's files are elsewhere too, because Postgres's user cannot reach them here.
    pub fn computes_elsewhere(&self) -> bool {
        self.settings.compute_dir != self.dir
    }

    pub fn safekeepers(&self) -> Vec<Peer> {
        let peer = |id| Peer { name: format!("safekeeper-{id}"), address: self.address(SAFEKEEPER_OFFSET + id - 1) };
        (1..=SAFEKEEPERS).map(peer).collect()
    }

    pub fn pageserver(&self) -> Peer {
        Peer { name: "pageserver-1".into(), address: self.address(PAGESERVER_OFFSET) }
    }

    /// The same pageserver, where its HTTP API listens.
    pub fn pageserver_http(&self) -> Peer {
        Peer { name: "pageserver-1".into(), address: self.address(PAGESERVER_HTTP_OFFSET) }
    }

    /// Tenants and branches are the pageserver's to know.
    pub fn api(&self) -> Api {
        Api::new(self.pageserver_http())
    }

    pub fn endpoint_address(&self, endpoint: &Endpoint) -> SocketAddr {
        self.address(endpoint.port_offset)
    }

    fn address(&self, offset: u16) -> SocketAddr {
        port::address(self.settings.port_base + offset)
    }

    /// The endpoints of a branch go with its name.
    pub fn rename_branch(&mut self, tenant: &str, old: &str, new: &str) -> Result<()> {
        let ours = |endpoint: &&mut Endpoint| endpoint.tenant == tenant && endpoint.branch == old;
        self.settings.endpoints.iter_mut().filter(ours).for_each(|endpoint| endpoint.branch = new.into());
        self.save()
    }

    /// Removes stopped endpoints, durably, and their files.
    pub fn forget_endpoints(&mut self, which: impl Fn(&Endpoint) -> bool) -> Result<()> {
        let (gone, stay): (Vec<_>, Vec<_>) = self.settings.endpoints.drain(..).partition(which);
        self.settings.endpoints = stay;
        if gone.is_empty() {
            return Ok(());
        }
        self.save()?;
        gone.iter().try_for_each(|endpoint| endpoint::remove_files(self, endpoint))
    }

    pub fn endpoint(&self, name: &str) -> Result<&Endpoint> {
        let endpoints = &self.settings.endpoints;
        endpoints.iter().find(|endpoint| endpoint.name == name).ok_or_else(|| Error::NoEndpoint {
            name: name.to_string(),
            known: match endpoints.as_slice() {
                [] => ": there is none, `ironpage endpoint start NAME` makes one".into(),
                some => {
                    format!(
                        "; there is {}",
                        some.iter().map(|endpoint| format!("'{}'", endpoint.name)).collect::<Vec<_>>().join(", ")
                    )
                }
            },
        })
    }

    /// Takes over what was changed in an endpoint. The caller saves.
    pub fn update_endpoint(&mut self, changed: &Endpoint) {
        if let Some(endpoint) = self.settings.endpoints.iter_mut().find(|endpoint| endpoint.name == changed.name) {
            *endpoint = changed.clone();
        }
    }

    /// The endpoints of a branch.
    pub fn endpoints_of(&self, tenant: &str, branch: &str) -> impl Iterator<Item = &Endpoint> {
        self.settings.endpoints.iter().filter(move |endpoint| endpoint.tenant == tenant && endpoint.branch == branch)
    }

    /// The endpoint of that name, made with the next free port if it is new. The caller saves.
    pub fn endpoint_for(&mut self, name: &str, tenant: &str, branch: &str) -> Result<Endpoint> {
        check_name(name)?;
        if let Ok(endpoint) = self.endpoint(name) {
            return match endpoint.tenant == tenant && endpoint.branch == branch {
                true => Ok(endpoint.clone()),
                false => Err(Error::OtherBranch {
                    name: name.into(),
                    branch: branch_in_words(&endpoint.tenant, &endpoint.branch),
                    wanted: branch_in_words(tenant, branch),
                }),
            };
        }
        let taken: Vec<u16> = self.settings.endpoints.iter().map(|endpoint| endpoint.port_offset).collect();
        let port_offset = match name {
            MAIN => 0,
            _ => (ENDPOINTS_OFFSET..ENDPOINTS_OFFSET + ENDPOINTS_MAX)
                .find(|offset| !taken.contains(offset))
                .ok_or_else(|| Error::Refused(format!("a cluster has {ENDPOINTS_MAX} endpoints at most")))?,
        };
        let endpoint = Endpoint { name: name.into(), tenant: tenant.into(), branch: branch.into(), at: None, port_offset };
        self.settings.endpoints.push(endpoint.clone());
        Ok(endpoint)
    }
}

fn is_at(file: &File, path: &Path) -> bool {
    let same = |(a, b): (fs::Metadata, fs::Metadata)| a.dev() == b.dev() && a.ino() == b.ino();
    file.metadata().ok().zip(fs::metadata(path).ok()).is_some_and(same)
}

/// `branch 'dev'`, with its tenant unless that is the cluster's own.
pub fn branch_in_words(tenant: &str, branch: &str) -> String {
    match tenant {
        MAIN => format!("branch '{branch}'"),
        other => format!("branch '{branch}' of tenant '{other}'"),
    }
}

/// `dev`, or `tenant/dev`: what tables and counters show.
pub fn branch_label(tenant: &str, branch: &str) -> String {
    match tenant {
        MAIN => branch.to_string(),
        other => format!("{other}/{branch}"),
    }
}

/// Names are parts of paths, of settings and of status lines.
pub fn check_name(name: &str) -> Result<()> {
    let fits = (1..=63).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        && name.as_bytes()[0].is_ascii_alphanumeric();
    if fits { Ok(()) } else { Err(Error::BadName(name.to_string())) }
}

pub fn random(bytes: &mut [u8]) -> Result<()> {
    getrandom::fill(bytes).map_err(|error| Error::Refused(format!("the kernel gives no random numbers: {error}")))
}

/// A place for computes of the cluster in `dir` that any user can reach. The name comes from the path, so it is found again.
fn outside(dir: &Path) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    // FNV-1a, 64 bits: stable over releases, and a path's clash with another is as likely as winning twice.
    let hash = dir
        .as_os_str()
        .as_bytes()
        .iter()
        .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3));
    Path::new("/var/lib/ironpage").join(format!("{hash:016x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("ironpage-cluster-{name}-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        dir
    }

    #[test]
    fn settings_come_back_and_ports_follow_the_base() {
        let dir = scratch("settings");
        let owner = Owner::of_postgres().unwrap();
        let mut cluster = Cluster::create(&dir, 40000, &owner).unwrap();
        let second = cluster.endpoint_for("second", MAIN, MAIN).unwrap();
        let third = cluster.endpoint_for("third", MAIN, MAIN).unwrap();
        assert_eq!(cluster.endpoint_for("second", MAIN, MAIN).unwrap(), second);
        assert!(matches!(cluster.endpoint_for("second", MAIN, "other"), Err(Error::OtherBranch { .. })));
        let other_tenant = cluster.endpoint_for("second", "other", MAIN).unwrap_err().to_string();
        assert!(other_tenant.contains("branch 'main', not branch 'main' of tenant 'other'"), "{other_tenant}");
        assert_eq!(cluster.endpoints_of(MAIN, MAIN).count(), 3);
        assert_eq!(cluster.endpoints_of("other", MAIN).count(), 0);
        cluster.save().unwrap();
        let opened = Cluster::open(&dir).unwrap();
        assert_eq!(opened, cluster);
        let port = |name: &str| opened.endpoint_address(opened.endpoint(name).unwrap()).port();
        assert_eq!((port(MAIN), port("second"), port("third")), (40000, 40010, 40011));
        assert_eq!(third.branch, MAIN);
        assert_eq!(opened.safekeepers().iter().map(|peer| peer.address.port()).collect::<Vec<_>>(), [40001, 40002, 40003]);
        assert_eq!((opened.pageserver().address.port(), opened.pageserver_http().address.port()), (40004, 40005));
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_directory_of_others_and_ports_beyond_the_last_are_refused() {
        let dir = scratch("foreign");
        let owner = Owner::of_postgres().unwrap();
        assert!(matches!(Cluster::create(&dir, 65500, &owner), Err(Error::PortRange(65500))));
        fs::write(dir.join("letter.txt"), "dear").unwrap();
        assert!(matches!(Cluster::create(&dir, 40000, &owner), Err(Error::ForeignDirectory(_))));
        assert!(matches!(Cluster::open(&dir), Err(Error::NoCluster(_))));
        fs::write(dir.join("cluster.json"), "{").unwrap();
        assert!(matches!(Cluster::open(&dir), Err(Error::Damaged { .. })));
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn names_are_safe_in_paths() {
        for good in ["main", "a", "Test_2-x", &"x".repeat(63)] {
            check_name(good).unwrap();
        }
        for bad in ["", "..", "a/b", "-a", "a b", "ä", &"x".repeat(64)] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }
}
