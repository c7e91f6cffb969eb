//! Endpoints: a Postgres on a branch, and the start that is an election.
//!
//! `supervisor` is the process that keeps one running; it uses `launcher` (wins a term), `basebackup`, `wal`, `control`
//! and `ticket` (make the data directory) and `postgres` (runs it). A read-only endpoint wins nothing: `lease`
//! holds the moment it shows, `readonly` makes its data directory. `claim` tells the two apart. The verbs here speak to
//! the supervisor by signals and its state file.

pub mod basebackup;
mod claim;
mod control;
mod creation;
mod launcher;
pub mod lease;
pub mod paths;
mod postgres;
mod readonly;
mod settled;
mod shared_memory;
pub mod state;
pub mod supervisor;
mod ticket;
mod vigil;
mod wal;

pub use claim::{Wanted, claim};

use crate::cluster::{Cluster, Endpoint, branch_label};
use crate::error::{Error, Result, log_tail};
use crate::files;
use crate::port;
use crate::process::{Process, spawn_detached};
use crate::programs::Programs;
use crate::progress;
use crate::sys::{Signals, Woken};
use paths::Paths;
use state::{Phase, State};
use std::process::Command;
use std::time::{Duration, Instant};

/// How long a start may take before the command gives up on it; the supervisor does not.
const START_SECONDS_MAX: u64 = 120;
/// How long without a quorum, or without the pageserver, before the command gives up.
const STUCK_SECONDS_MAX: u64 = 30;
/// How often the state file is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// How an endpoint is stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stop {
    /// Ends sessions, brings all WAL to a quorum.
    Fast,
    /// Ends at once: what was not acknowledged may be lost.
    Immediate,
}

/// Starts an endpoint, or finds it running. Returns when it accepts connections.
pub fn start(cluster: &Cluster, endpoint: &Endpoint, programs: &Programs, signals: &Signals) -> Result<State> {
    let paths = Paths::of(cluster, endpoint);
    let address = cluster.endpoint_address(endpoint);
    let began = Instant::now();
    let (mut spawned, mut said, mut said_at): (Option<Process>, String, _) = (None, String::new(), Instant::now());
    loop {
        let supervised = state::is_supervised(&paths)?;
        let state = State::read(&paths)?;
        // Before its first word, what is there is the last one of another.
        let ours = state.filter(|state| spawned.as_ref().is_none_or(|us| *us == state.supervisor));
        match ours {
            Some(state) if supervised && state.is_up() => return Ok(state),
            Some(state)
                if !supervised && spawned.is_some() && matches!(state.phase, Phase::Stopped | Phase::Fenced | Phase::Failed) =>
            {
                return Err(did_not_start(endpoint, &paths, &state));
            }
            Some(state) if state.message != said => {
                said = state.message;
                said_at = Instant::now();
                if !said.is_empty() && spawned.is_some() {
                    progress::line(&format!("endpoint {}: {said}", endpoint.name));
                }
            }
            _ => {}
        }
        if let Some(us) = spawned.as_ref().filter(|us| !us.is_alive() && !supervised) {
            let name = format!("the supervisor of endpoint '{}'", endpoint.name);
            let (log, tail) = (paths.log.clone(), log_tail(&paths.log));
            // Its last word may have come between our two looks.
            let last = State::read(&paths)?.filter(|state| state.supervisor == *us);
            return match last {
                Some(state) => Err(did_not_start(endpoint, &paths, &state)),
                None => Err(Error::DiedAtStart { name, status: "without a word".into(), log, tail }),
            };
        }
        if !supervised && spawned.is_none() {
            if !leftover_postmaster(&paths)? {
                port::check_free(address.port(), &format!("endpoint '{}'", endpoint.name))?;
            }
            let mut command = Command::new(&programs.ironpage);
            command.arg("--dir").arg(&cluster.dir).args(["endpoint", "supervise", &endpoint.name]).current_dir("/");
            spawned = Some(spawn_detached(&mut command, &paths.log)?);
        }
        let stuck = !said.is_empty() && said_at.elapsed() > Duration::from_secs(STUCK_SECONDS_MAX);
        if stuck || began.elapsed() > Duration::from_secs(START_SECONDS_MAX) {
            let seconds = began.elapsed().as_secs();
            let why = if said.is_empty() { "it is not ready".to_string() } else { said };
            return Err(Error::Endpoint(format!(
                "endpoint '{}' is not up after {seconds} s: {why}. It keeps trying until `ironpage endpoint stop {}`; its log is {}",
                endpoint.name,
                endpoint.name,
                paths.log.display()
            )));
        }
        if let Woken::Signal(_) = signals.wait(None, LOOK_EVERY) {
            return Err(Error::Interrupted);
        }
    }
}

fn did_not_start(endpoint: &Endpoint, paths: &Paths, state: &State) -> Error {
    let (name, log, tail) = (format!("endpoint '{}'", endpoint.name), paths.log.clone(), log_tail(&paths.log));
    Error::DiedAtStart { name, status: state.message.clone(), log, tail }
}

/// Stops an endpoint. Fine if it is down.
pub fn stop(cluster: &Cluster, endpoint: &Endpoint, how: Stop, patience: Duration) -> Result<()> {
    let paths = Paths::of(cluster, endpoint);
    let Some(state) = State::read(&paths)? else { return Ok(()) };
    let signal = match how {
        Stop::Fast => libc::SIGINT,
        Stop::Immediate => libc::SIGQUIT,
    };
    // Without a supervisor nothing but a postmaster that outlived it can run.
    let process = if state.supervisor.is_alive() { Some(state.supervisor) } else { state.postmaster };
    let Some(process) = process else { return Ok(()) };
    if process.end(signal, patience) {
        return Ok(());
    }
    Err(Error::DoesNotEnd {
        name: format!("endpoint '{}'", endpoint.name),
        pid: process.pid,
        seconds: patience.as_secs(),
        log: paths.log,
    })
}

/// Whether anything of an endpoint runs.
pub fn runs(cluster: &Cluster, endpoint: &Endpoint) -> bool {
    let state = State::read(&Paths::of(cluster, endpoint)).ok().flatten();
    state.is_some_and(|state| state.supervisor.is_alive() || state.postmaster.is_some_and(|postmaster| postmaster.is_alive()))
}

/// Removes what a stopped endpoint left behind, but its log.
pub fn remove_files(cluster: &Cluster, endpoint: &Endpoint) -> Result<()> {
    let paths = Paths::of(cluster, endpoint);
    [&paths.dir, &paths.state, &paths.lock].into_iter().try_for_each(|path| files::remove_if_there(path))
}

/// What an endpoint is doing, in one word.
pub fn phase_in_words(state: Option<&State>) -> &'static str {
    match state {
        Some(state) if state.is_up() => "running",
        Some(state) if state.supervisor.is_alive() => match state.phase {
            Phase::Stopping => "stopping",
            _ => "starting",
        },
        Some(State { phase: Phase::Fenced, .. }) => "fenced",
        Some(State { phase: Phase::Failed, .. }) => "failed",
        _ => "stopped",
    }
}

/// What of its branch an endpoint shows.
pub fn shows(endpoint: &Endpoint) -> String {
    endpoint.at.map_or("head".into(), |point| format!("read-only at {}", point.lsn))
}

/// One line for each endpoint.
pub fn list(cluster: &Cluster) -> Result<()> {
    println!("{:<16} {:<16} {:<24} {:<10} {:<8} {:<22} DATA DIRECTORY", "NAME", "BRANCH", "SHOWS", "STATE", "PID", "LISTENS ON");
    for endpoint in &cluster.settings.endpoints {
        let state = State::read(&Paths::of(cluster, endpoint))?;
        let pid =
            state.as_ref().filter(|state| state.is_up()).and_then(|state| state.postmaster.as_ref()).map(|it| it.pid.to_string());
        let data_dir = state.as_ref().and_then(|state| state.data_dir.as_ref()).map(|dir| dir.display().to_string());
        println!(
            "{:<16} {:<16} {:<24} {:<10} {:<8} {:<22} {}",
            endpoint.name,
            branch_label(&endpoint.tenant, &endpoint.branch),
            shows(endpoint),
            phase_in_words(state.as_ref()),
            pid.unwrap_or_else(|| "-".into()),
            cluster.endpoint_address(endpoint),
            data_dir.unwrap_or_else(|| "-".into())
        );
    }
    Ok(())
}

/// A postmaster that outlived its supervisor: the next one stops it before it needs the port.
fn leftover_postmaster(paths: &Paths) -> Result<bool> {
    Ok(State::read(paths)?.and_then(|state| state.postmaster).is_some_and(|postmaster| postmaster.is_alive()))
}
