//! `ironpage up`: everything that is down is started, what is there is left alone.

use crate::cluster::{Cluster, DEFAULT_PORT_BASE, LOCK_FILE, MAIN};
use crate::connstr;
use crate::daemons::{self, Daemon};
use crate::down;
use crate::endpoint::{self, paths::Paths, state::State};
use crate::error::{AtPath, Error, Result};
use crate::follow;
use crate::port;
use crate::process::Process;
use crate::programs::Programs;
use crate::progress;
use crate::sys::{Signals, Woken};
use crate::template::Template;
use crate::tenant;
use crate::user::Owner;
use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::time::Duration;

/// How often a cluster in the foreground looks whether all of it still runs.
const LOOK_EVERY: Duration = Duration::from_millis(500);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// Stays until Ctrl-C, then stops everything.
    Foreground,
    /// Returns when all is ready.
    Detach,
}

pub fn up(dir: &Path, port_base: Option<u16>, mode: Mode) -> Result<()> {
    let signals = Signals::catch(&[libc::SIGINT, libc::SIGTERM, libc::SIGHUP])
        .map_err(|error| Error::Refused(format!("cannot catch signals: {error}")))?;
    let programs = Programs::find()?;
    let ran_before = matches!(Cluster::open(dir).as_ref().map(down::first_running), Ok(Ok(Some(_))));
    let outcome = start(dir, port_base, &programs, &signals);
    match (mode, outcome) {
        (Mode::Foreground, Ok(cluster)) => stay(&cluster, &signals),
        (_, Ok(_)) => Ok(()),
        (_, Err(Error::Interrupted)) => {
            progress::line("interrupted: stopping what was started");
            down::down(&Cluster::open(dir)?)?;
            Err(Error::Interrupted)
        }
        (Mode::Foreground, Err(error)) if !ran_before => {
            if let Ok(cluster) = Cluster::open(dir) {
                progress::line("it failed: stopping what was started");
                // The first failure is the one to tell.
                let _ = down::down(&cluster);
            }
            Err(error)
        }
        (_, Err(error)) => Err(error),
    }
}

/// Brings the cluster up and prints how to reach it.
fn start(dir: &Path, port_base: Option<u16>, programs: &Programs, signals: &Signals) -> Result<Cluster> {
    DirBuilder::new().recursive(true).mode(0o755).create(dir).at("create directory", dir)?;
    let _lock = Cluster::lock(dir)?;
    let owner = Owner::of_postgres()?;
    let mut cluster = match Cluster::open(dir) {
        Err(Error::NoCluster(_)) => create(dir, port_base.unwrap_or(DEFAULT_PORT_BASE), &owner).inspect_err(|_| {
            // Nothing was made but the lock: what is left of the attempt goes, unless the directory is somebody's.
            let _ = fs::remove_file(dir.join(LOCK_FILE)).and_then(|()| fs::remove_dir(dir));
        })?,
        opened => moved(opened?, port_base)?,
    };
    cluster.make_directories()?;
    cluster.save()?;
    progress::line(&format!("cluster in {}, logs in {}", cluster.dir.display(), cluster.logs().display()));
    if cluster.computes_elsewhere() {
        let (elsewhere, name) = (cluster.settings.compute_dir.display(), &owner.name);
        progress::line(&format!(
            "data directories in {elsewhere}: user {name}, whom Postgres runs as, cannot enter the cluster's"
        ));
    }
    start_daemons(&cluster, programs, signals)?;
    create_main(&mut cluster, programs, &owner)?;
    follow::start_all(&cluster)?;
    if let Some(other) = connstr::serving(&cluster, MAIN, MAIN).filter(|endpoint| endpoint.name != MAIN) {
        // A start of endpoint main would take the branch from it.
        progress::line(&format!("endpoint {} runs on branch main: left alone", other.name));
        println!("{}", connstr::of(&cluster, other));
        return Ok(cluster);
    }
    let Ok(main) = cluster.endpoint(MAIN).cloned() else {
        // It went with its branch.
        progress::line("there is no endpoint main any more: `ironpage endpoint start NAME --branch B` starts another");
        return Ok(cluster);
    };
    let was_up = State::read(&Paths::of(&cluster, &main))?.is_some_and(|state| state.is_up());
    let state = endpoint::start(&cluster, &main, programs, signals)?;
    let pid = state.postmaster.map(|postmaster| postmaster.pid).unwrap_or_default();
    report(MAIN_ENDPOINT, if was_up { "runs" } else { "started" }, pid, &cluster.endpoint_address(&main).to_string());
    println!("{}", connstr::of(&cluster, &main));
    Ok(cluster)
}

fn create(dir: &Path, port_base: u16, owner: &Owner) -> Result<Cluster> {
    let cluster = Cluster::create(dir, port_base, owner)?;
    check_ports(&cluster)?;
    Ok(cluster)
}

const MAIN_ENDPOINT: &str = "endpoint main";

fn report(name: &str, what: &str, pid: i32, address: &str) {
    progress::line(&format!("{name:<14} {what:<8} {address:<22} pid {pid}"));
}

/// All ports that `up` needs are free: said before anything is made.
fn check_ports(cluster: &Cluster) -> Result<()> {
    if let Ok(main) = cluster.endpoint(MAIN) {
        port::check_free(cluster.endpoint_address(main).port(), "endpoint 'main'")?;
    }
    for daemon in daemons::all(cluster) {
        daemon.ports(cluster).into_iter().try_for_each(|port| port::check_free(port, daemon.name()))?;
    }
    Ok(())
}

/// The cluster on another range of ports, if asked for and nothing of it runs.
fn moved(mut cluster: Cluster, port_base: Option<u16>) -> Result<Cluster> {
    let Some(base) = port_base.filter(|base| *base != cluster.settings.port_base) else { return Ok(cluster) };
    if let Some(name) = down::first_running(&cluster)? {
        let old = cluster.settings.port_base;
        return Err(Error::Refused(format!(
            "{name} runs on ports from {old} on; `ironpage down` first, then the cluster can move to {base}"
        )));
    }
    cluster.settings.port_base = base;
    cluster.check_ports()?;
    check_ports(&cluster)?;
    Ok(cluster)
}

fn start_daemons(cluster: &Cluster, programs: &Programs, signals: &Signals) -> Result<()> {
    let mut started: Vec<(Daemon, Process)> = Vec::new();
    for daemon in daemons::all(cluster) {
        match daemon.process()? {
            Some(process) => report(daemon.name(), "runs", process.pid, &daemon.peer.address.to_string()),
            None => {
                let process = daemon.spawn(cluster, programs)?;
                started.push((daemon, process));
            }
        }
    }
    for (daemon, process) in &started {
        daemon.wait_ready(cluster, process, signals)?;
        report(daemon.name(), "started", process.pid, &daemon.peer.address.to_string());
    }
    Ok(())
}

/// Makes tenant main with branch main from the template, at the first `up` or where an earlier one was cut short. The tenant
/// is never made again: a pageserver that lost its directory must not pass for a new one, and an empty database for what was.
fn create_main(cluster: &mut Cluster, programs: &Programs, owner: &Owner) -> Result<()> {
    let api = cluster.api();
    let tenant = match api.find_tenant(MAIN)? {
        Some(tenant) if tenant.id == cluster.settings.tenant => tenant,
        Some(tenant) => {
            return Err(Error::Damaged {
                path: cluster.dir.join("cluster.json"),
                why: format!("tenant main is {} at the pageserver and {} in it", tenant.id, cluster.settings.tenant),
            });
        }
        None if cluster.settings.has_main => {
            let dirs = daemons::all(cluster).into_iter().filter(|daemon| daemon.kind == daemons::Kind::Pageserver);
            let dirs: Vec<_> = dirs.map(|daemon| daemon.dir.display().to_string()).collect();
            return Err(Error::Refused(format!(
                "the pageserver knows no tenant main, which this cluster had: its directory {} was lost or emptied. Put a copy of it \
                 back while the cluster is down; `ironpage destroy` gives up all data",
                dirs.join(", ")
            )));
        }
        None => api.create_tenant(MAIN, Some(cluster.settings.tenant))?,
    };
    if !tenant::is_complete(&tenant) {
        tenant::complete(cluster, &tenant, Template::of(cluster, programs, owner)?)?;
    }
    if !cluster.settings.has_main {
        cluster.settings.has_main = true;
        cluster.save()?;
    }
    Ok(())
}

/// Waits for Ctrl-C and stops the cluster; ends too if another command stopped it.
fn stay(cluster: &Cluster, signals: &Signals) -> Result<()> {
    progress::line("running; Ctrl-C stops everything, data stays");
    let mut missing: Vec<String> = Vec::new();
    loop {
        if let Woken::Signal(_) = signals.wait(None, LOOK_EVERY) {
            progress::line("stopping");
            let _lock = Cluster::lock(&cluster.dir)?;
            return down::down(&Cluster::open(&cluster.dir)?);
        }
        // Started since by other commands, or stopped: the cluster is what its files say.
        let Ok(now) = Cluster::open(&cluster.dir) else { return Ok(()) };
        let down_now = down::not_running(&now)?;
        if down::first_running(&now)?.is_none() {
            progress::line("the cluster was stopped");
            return Ok(());
        }
        for (name, log) in down_now.iter().filter(|(name, _)| !missing.contains(name)) {
            progress::line(&format!("{name} is down; its log is {}; `ironpage up` starts it again", log.display()));
        }
        missing = down_now.into_iter().map(|(name, _)| name).collect();
    }
}
