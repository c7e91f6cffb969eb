//! What a supervisor says about its endpoint, for every other command to read.

use super::paths::Paths;
use crate::error::{AtPath, Result};
use crate::files::{self, Lasting};
use crate::process::Process;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::path::PathBuf;

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Wins a term, takes the base backup, waits for Postgres to accept connections.
    Starting,
    Running,
    Stopping,
    Stopped,
    /// Another endpoint took over the branch: this one stays down until it is started by a user.
    Fenced,
    /// It cannot start; the message says why.
    Failed,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct State {
    pub phase: Phase,
    pub supervisor: Process,
    pub postmaster: Option<Process>,
    pub term: u64,
    pub data_dir: Option<PathBuf>,
    /// What it waits for, or why it is not running.
    pub message: String,
}

impl State {
    /// The last thing a supervisor said; `None` before the first start.
    pub fn read(paths: &Paths) -> Result<Option<State>> {
        files::read_json_of_this_boot(&paths.state)
    }

    pub fn write(&self, paths: &Paths) -> Result<()> {
        files::write_json(&paths.state, self, Lasting::ThisBoot)
    }

    /// Accepts connections, as far as the last word and the process table say.
    pub fn is_up(&self) -> bool {
        self.phase == Phase::Running && self.postmaster.as_ref().is_some_and(Process::is_alive)
    }
}

/// Held by a supervisor while it lives: there is never a second one.
pub struct SupervisorLock(#[expect(dead_code, reason = "its drop unlocks")] File);

/// `None` if another supervisor holds it.
pub fn hold(paths: &Paths) -> Result<Option<SupervisorLock>> {
    let file = File::options().write(true).create(true).truncate(false).open(&paths.lock).at("open", &paths.lock)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(SupervisorLock(file))),
        Err(fs::TryLockError::WouldBlock) => Ok(None),
        Err(fs::TryLockError::Error(error)) => Err(error).at("lock", &paths.lock),
    }
}

/// Whether a supervisor lives.
pub fn is_supervised(paths: &Paths) -> Result<bool> {
    match File::open(&paths.lock) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).at("open", &paths.lock),
        Ok(file) => match file.try_lock_shared() {
            Ok(()) => Ok(false),
            Err(fs::TryLockError::WouldBlock) => Ok(true),
            Err(fs::TryLockError::Error(error)) => Err(error).at("lock", &paths.lock),
        },
    }
}
