//! `ironpage follow`: processes that copy other servers and follow their WAL, each into a tenant of its own.
//!
//! A follower has a directory in the cluster's `follow/`: `settings.json` says whom it follows, `progress.json` how far it
//! is; the rest is its own. This program needs no C library: what speaks to the source is `ironpage-follow`.

use crate::api::{Kind, Reach};
use crate::cluster::{Cluster, MAIN, check_name};
use crate::error::{AtPath, Error, Result, log_tail};
use crate::files::{self, Lasting};
use crate::place::Place;
use crate::process::{Process, spawn_detached};
use crate::progress;
use crate::sys::{Signals, Woken};
use serde::{Deserialize, Serialize};
use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// How long a follower may take until it is clear that it has begun.
const BEGIN_SECONDS_MAX: u64 = 60;
const STOP_SECONDS_MAX: u64 = 10;

/// What a follower reads at its start (`Settings` of the crate `follow`).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Settings {
    source: String,
    slot: String,
    tenant: String,
    tenant_id: String,
    branch: String,
}

/// What a follower says of itself (`Progress` of the crate `follow`).
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Progress {
    pid: i32,
    state: String,
    message: String,
    source: String,
    slot: String,
    timeline: String,
    received_lsn: String,
    committed_lsn: String,
    source_lsn: String,
    lag_bytes: u64,
    lag_seconds: u64,
    backup_bytes: u64,
    updated_at: u64,
}

/// One follower in `status --json`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct FollowerStatus {
    pub tenant: String,
    /// Null if it does not run.
    pub pid: Option<i32>,
    /// stopped, starting, backup, streaming, waiting, refused
    pub state: String,
    /// Why it waits or was refused.
    pub message: String,
    /// Without its password.
    pub source: String,
    pub slot: String,
    pub received_lsn: String,
    pub committed_lsn: String,
    pub source_lsn: String,
    pub lag_bytes: u64,
    pub lag_seconds: u64,
    pub backup_bytes: u64,
    pub log: PathBuf,
}

/// What was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request<'a> {
    /// `None` goes on with a follower that is known.
    pub source: Option<&'a str>,
    pub tenant: &'a str,
    pub slot: Option<&'a str>,
    pub foreground: bool,
}

/// The files of one follower.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Follower {
    pub tenant: String,
    dir: PathBuf,
    pub log: PathBuf,
    pid_file: PathBuf,
}

impl Follower {
    fn of(cluster: &Cluster, tenant: &str) -> Follower {
        Follower {
            tenant: tenant.to_string(),
            dir: cluster.dir.join("follow").join(tenant),
            log: cluster.logs().join(format!("follow-{tenant}.log")),
            pid_file: cluster.run().join(format!("follow-{tenant}.pid")),
        }
    }

    fn settings(&self) -> Result<Option<Settings>> {
        files::read_json(&self.dir.join("settings.json"))
    }

    fn progress(&self) -> Progress {
        // It is replaced many times a second; what it says is never worth a failure.
        files::read_json(&self.dir.join("progress.json")).ok().flatten().unwrap_or_default()
    }

    pub fn process(&self) -> Result<Option<Process>> {
        Ok(Process::read(&self.pid_file)?.filter(Process::is_alive))
    }

    /// Time does not heal it: only somebody who looks at the source can.
    pub fn is_refused(&self) -> bool {
        self.progress().state == "refused"
    }

    fn command(&self, cluster: &Cluster) -> Result<Command> {
        let program = std::env::current_exe().map_err(|source| Error::Program { program: "/proc/self/exe".into(), source })?;
        let program = program.with_file_name("ironpage-follow");
        if !program.is_file() {
            let what = program.display().to_string();
            return Err(Error::Missing {
                what,
                way_out: "`./dev build` makes it; it needs libpq (apt-get install libpq-dev)".into(),
            });
        }
        let safekeepers: Vec<String> = cluster.safekeepers().iter().map(|peer| peer.address.to_string()).collect();
        let mut command = Command::new(program);
        command.arg("--dir").arg(&self.dir).arg("--safekeepers").arg(safekeepers.join(","));
        command.arg("--pageserver").arg(cluster.pageserver().address.to_string());
        command.arg("--http").arg(cluster.pageserver_http().address.to_string());
        Ok(command)
    }

    fn spawn(&self, cluster: &Cluster) -> Result<Process> {
        // What the last run said is no news of this one.
        files::remove_if_there(&self.dir.join("progress.json"))?;
        let process = spawn_detached(self.command(cluster)?.current_dir("/"), &self.log)?;
        process.write(&self.pid_file)?;
        Ok(process)
    }

    /// Waits until it copies, streams or waits for something, or has ended.
    fn wait_begun(&self, process: &Process, signals: &Signals) -> Result<Progress> {
        let deadline = Instant::now() + Duration::from_secs(BEGIN_SECONDS_MAX);
        loop {
            let progress = self.progress();
            let begun = match progress.state.as_str() {
                "streaming" | "waiting" => true,
                "backup" => progress.backup_bytes > 0,
                _ => false,
            };
            let alive = process.hold();
            if begun && alive.is_some() {
                return Ok(progress);
            }
            let Some(held) = alive else {
                let progress = self.progress();
                return Err(match progress.state.as_str() {
                    "refused" => Error::Refused(format!("cannot follow into tenant '{}': {}", self.tenant, progress.message)),
                    _ => Error::DiedAtStart {
                        name: format!("follower of tenant '{}'", self.tenant),
                        status: "see its log".into(),
                        log: self.log.clone(),
                        tail: log_tail(&self.log),
                    },
                });
            };
            if Instant::now() > deadline {
                return Ok(progress);
            }
            if let Woken::Signal(_) = signals.wait(Some(&held), Duration::from_millis(20)) {
                return Err(Error::Interrupted);
            }
        }
    }

    pub fn stop(&self) -> Result<()> {
        if let Some(process) = self.process()?
            && !process.end(libc::SIGTERM, Duration::from_secs(STOP_SECONDS_MAX))
        {
            return Err(Error::DoesNotEnd {
                name: format!("follower of tenant '{}'", self.tenant),
                pid: process.pid,
                seconds: STOP_SECONDS_MAX,
                log: self.log.clone(),
            });
        }
        files::remove_if_there(&self.pid_file)
    }

    pub fn status(&self) -> FollowerStatus {
        let pid = self.process().ok().flatten().map(|process| process.pid);
        let progress = self.progress();
        let state = match (pid, progress.state.as_str()) {
            (None, "refused") => "refused",
            (None, _) => "stopped",
            (Some(_), "") => "starting",
            (Some(_), state) => state,
        };
        FollowerStatus {
            tenant: self.tenant.clone(),
            pid,
            state: state.to_string(),
            message: progress.message,
            source: progress.source,
            slot: progress.slot,
            received_lsn: progress.received_lsn,
            committed_lsn: progress.committed_lsn,
            source_lsn: progress.source_lsn,
            lag_bytes: progress.lag_bytes,
            lag_seconds: progress.lag_seconds,
            backup_bytes: progress.backup_bytes,
            log: self.log.clone(),
        }
    }
}

/// All followers of the cluster, running or not, by name.
pub fn all(cluster: &Cluster) -> Vec<Follower> {
    let Ok(entries) = fs::read_dir(cluster.dir.join("follow")) else { return Vec::new() };
    let mut names: Vec<String> = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.retain(|name| check_name(name).is_ok() && cluster.dir.join("follow").join(name).join("settings.json").is_file());
    names.sort();
    names.iter().map(|name| Follower::of(cluster, name)).collect()
}

/// `ironpage follow CONNINFO --tenant NAME`.
pub fn follow(dir: &Path, request: Request<'_>) -> Result<()> {
    let signals = Signals::catch(&[libc::SIGINT, libc::SIGTERM, libc::SIGHUP])
        .map_err(|error| Error::Refused(format!("cannot catch signals: {error}")))?;
    check_name(request.tenant)?;
    let (cluster, lock) = Cluster::locked(dir)?;
    let follower = Follower::of(&cluster, request.tenant);
    let known = follower.settings()?;
    let is_new = known.is_none();
    if let Some(process) = follower.process()? {
        let (tenant, pid) = (request.tenant, process.pid);
        return Err(Error::Refused(format!(
            "tenant '{tenant}' is followed into already, by pid {pid}; `ironpage follow --stop {tenant}` stops it"
        )));
    }
    let settings = match known {
        Some(known) => changed(known, request)?,
        None => begin(&cluster, request)?,
    };
    DirBuilder::new().recursive(true).mode(0o700).create(&follower.dir).at("create directory", &follower.dir)?;
    fs::set_permissions(&follower.dir, fs::Permissions::from_mode(0o700)).at("change the mode of", &follower.dir)?;
    files::write_json(&follower.dir.join("settings.json"), &settings, Lasting::Durable)?;
    if request.foreground {
        let mut command = follower.command(&cluster)?;
        let own = Process::of(std::process::id() as i32);
        own.map_or(Ok(()), |own| own.write(&follower.pid_file))?;
        drop(lock);
        // Signals that were caught come back with the new program.
        drop(signals);
        let program = PathBuf::from(command.get_program());
        return Err(Error::Program { program, source: command.exec() });
    }
    let process = follower.spawn(&cluster)?;
    drop(lock);
    match follower.wait_begun(&process, &signals) {
        Ok(begun) => {
            report(&follower, &process, &begun);
            Ok(())
        }
        Err(error) => {
            // What never began leaves nothing; the failure is the one to tell.
            if is_new && !follower.dir.join("state.json").exists() {
                let _ = follower.stop();
                let _ = files::remove_if_there(&follower.dir);
                let _ = cluster.api().delete_tenant(request.tenant, Reach::Alone);
            }
            Err(error)
        }
    }
}

fn report(follower: &Follower, process: &Process, begun: &Progress) {
    let what = match begun.state.as_str() {
        "backup" => "takes a base backup".to_string(),
        "streaming" => format!("streams from {}", begun.received_lsn),
        "waiting" => format!("waits: {}", begun.message),
        _ => "starts".to_string(),
    };
    progress::line(&format!("follower of {} {what}, pid {}; its log is {}", begun.source, process.pid, follower.log.display()));
    progress::line(&format!(
        "`ironpage status` shows how far it is; `ironpage branch create NAME --tenant {}` makes a branch",
        follower.tenant
    ));
}

/// The settings of a follower that is known, with what was said anew.
fn changed(mut known: Settings, request: Request<'_>) -> Result<Settings> {
    if let Some(slot) = request.slot.filter(|slot| *slot != known.slot) {
        return Err(Error::Refused(format!(
            "tenant '{}' follows by slot '{}', not '{slot}': only there is the WAL it lacks",
            known.tenant, known.slot
        )));
    }
    // The same server by another address, perhaps; the follower finds out whether it is.
    if let Some(source) = request.source {
        known.source = source.to_string();
    }
    Ok(known)
}

/// A new follower, and a tenant for it.
fn begin(cluster: &Cluster, request: Request<'_>) -> Result<Settings> {
    let tenant = request.tenant;
    let Some(source) = request.source else {
        return Err(Error::Refused(format!(
            "nothing is followed into tenant '{tenant}' yet: say whom, like `ironpage follow postgres://user@host --tenant {tenant}`"
        )));
    };
    if tenant == MAIN {
        return Err(Error::Refused(
            "tenant 'main' is the cluster's own: name another for what is followed, with --tenant".into(),
        ));
    }
    let slot = match request.slot {
        Some(slot) => slot.to_string(),
        None => slot_name(tenant),
    };
    let fits = (1..=63).contains(&slot.len())
        && slot.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    if !fits {
        return Err(Error::Refused(format!(
            "'{slot}' cannot be a slot: Postgres takes 1 to 63 of lower-case letters, digits and '_'"
        )));
    }
    let api = cluster.api();
    let there = match api.find_tenant(tenant)? {
        // Left by an attempt that was cut off.
        Some(there) if api.branches(tenant)?.is_empty() => there,
        Some(_) => {
            return Err(Error::Refused(format!("tenant '{tenant}' has branches already: follow into another one (--tenant)")));
        }
        None => api.create_tenant(tenant, None)?,
    };
    Ok(Settings {
        source: source.to_string(),
        slot,
        tenant: tenant.to_string(),
        tenant_id: there.id.to_string(),
        branch: MAIN.to_string(),
    })
}

/// `ironpage_` and the tenant's name as far as a slot may be named so.
fn slot_name(tenant: &str) -> String {
    let name = tenant.to_ascii_lowercase().replace('-', "_");
    format!("ironpage_{name}").chars().take(63).collect()
}

/// What becomes of the slot at the source.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Slot {
    /// It keeps WAL there, so that following can go on.
    Keep,
    Drop,
}

/// `ironpage follow --stop NAME`.
pub fn stop(dir: &Path, tenant: &str, slot: Slot) -> Result<()> {
    let (cluster, _lock) = Cluster::locked(dir)?;
    let follower = Follower::of(&cluster, tenant);
    let settings = follower.settings()?;
    let settings = settings.ok_or_else(|| Error::Refused(format!("nothing is followed into tenant '{tenant}'")))?;
    follower.stop()?;
    if slot == Slot::Keep {
        progress::line(&format!(
            "stopped; slot {} keeps WAL at the source until it goes on: `ironpage follow --tenant {tenant}`, or \
             `ironpage follow --stop {tenant} --drop-slot` to give it up",
            settings.slot
        ));
        return Ok(());
    }
    let mut command = follower.command(&cluster)?;
    let log = File::options().append(true).create(true).open(&follower.log).at("open", &follower.log)?;
    let program = PathBuf::from(command.get_program());
    let status = command.arg("--drop-slot").stderr(log).status().map_err(|source| Error::Program { program, source })?;
    if !status.success() {
        return Err(Error::Refused(format!(
            "stopped, but slot {} is not dropped. The end of the log, {}:\n{}",
            settings.slot,
            follower.log.display(),
            log_tail(&follower.log)
        )));
    }
    files::remove_if_there(&follower.dir)?;
    progress::line(&format!("stopped for good, slot {} is dropped; tenant '{tenant}' stays with its branches", settings.slot));
    Ok(())
}

/// Starts the followers that are down, but for those that were refused or stopped by hand.
pub fn start_all(cluster: &Cluster) -> Result<()> {
    for follower in all(cluster) {
        if follower.process()?.is_none() && !follower.is_refused() && follower.should_run() {
            let process = follower.spawn(cluster)?;
            progress::line(&format!("follower of tenant {} started, pid {}", follower.tenant, process.pid));
        }
    }
    Ok(())
}

impl Follower {
    /// Its pid file is there: nobody stopped it by hand.
    pub fn should_run(&self) -> bool {
        self.pid_file.is_file()
    }

    /// Ends it without forgetting that it ran: `up` starts it again.
    pub fn pause(&self) -> Result<()> {
        let process = self.process()?;
        self.stop()?;
        process.map_or(Ok(()), |process| process.write(&self.pid_file))
    }
}

/// Nothing is followed into the tenant now.
pub fn check_stopped(cluster: &Cluster, tenant: &str) -> Result<()> {
    match Follower::of(cluster, tenant).process()? {
        None => Ok(()),
        Some(process) => Err(Error::Refused(format!(
            "tenant '{tenant}' is followed into by pid {}: `ironpage follow --stop {tenant} --drop-slot` first",
            process.pid
        ))),
    }
}

/// Removes what is known of the follower of a tenant that is deleted.
pub fn forget(cluster: &Cluster, tenant: &str) -> Result<()> {
    let follower = Follower::of(cluster, tenant);
    let Some(settings) = follower.settings()? else { return Ok(()) };
    follower.stop()?;
    files::remove_if_there(&follower.dir)?;
    progress::line(&format!(
        "slot {} stays at the source and keeps WAL there: drop it with pg_drop_replication_slot",
        settings.slot
    ));
    Ok(())
}

/// A branch that follows another server has one writer: its follower.
pub fn check_writable(place: &Place) -> Result<()> {
    if place.branch.kind != Kind::Follow {
        return Ok(());
    }
    let (tenant, branch) = (&place.branch.tenant, &place.branch.name);
    Err(Error::Refused(format!(
        "branch '{branch}' of tenant '{tenant}' follows another server, so nobody else writes it: `ironpage branch create NAME --from \
         {branch} --tenant {tenant}` makes a branch of it to write on, and `ironpage endpoint start NAME --branch {branch} --tenant \
         {tenant} --at LSN|TIMESTAMP` reads it as it was"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_named_as_postgres_wants_it() {
        assert_eq!(slot_name("Prod-1"), "ironpage_prod_1");
        assert_eq!(slot_name(&"x".repeat(63)).len(), 63);
    }

    #[test]
    fn a_known_follower_keeps_its_slot_and_may_be_told_a_new_address() {
        let known = Settings {
            source: "host=a".into(),
            slot: "s".into(),
            tenant: "t".into(),
            tenant_id: "00".into(),
            branch: "main".into(),
        };
        let request = Request { source: Some("host=b"), tenant: "t", slot: None, foreground: false };
        assert_eq!(changed(known.clone(), request).unwrap().source, "host=b");
        assert!(changed(known, Request { slot: Some("other"), ..request }).is_err());
    }
}
