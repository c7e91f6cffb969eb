//! Processes that outlive us, and how we know ours again: a pid alone may have come to mean another one.

use crate::error::{AtPath, Error, Result};
use crate::files::{self, Lasting};
use crate::sys::{self, PidFd};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// A process, told apart from later ones of the same pid by when it started and under which boot.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Process {
    pub pid: i32,
    /// Clock ticks from boot to its start: field 22 of /proc/PID/stat, proc(5).
    started_ticks: u64,
    boot_id: String,
}

impl Process {
    /// The process that has this pid now; `None` if there is none or it is a zombie.
    pub fn of(pid: i32) -> Option<Process> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let mut fields = stat.rsplit_once(") ")?.1.split(' ');
        if matches!(fields.next()?, "Z" | "X") {
            return None;
        }
        let started_ticks = fields.nth(18)?.parse().ok()?;
        let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?.trim().to_string();
        Some(Process { pid, started_ticks, boot_id })
    }

    /// What a pid file says, whether alive or not; `None` if there is none.
    pub fn read(pid_file: &Path) -> Result<Option<Process>> {
        files::read_json_of_this_boot(pid_file)
    }

    pub fn write(&self, pid_file: &Path) -> Result<()> {
        files::write_json(pid_file, self, Lasting::ThisBoot)
    }

    pub fn is_alive(&self) -> bool {
        Process::of(self.pid).as_ref() == Some(self)
    }

    /// A hold on exactly this process; `None` if it is gone.
    pub fn hold(&self) -> Option<PidFd> {
        let held = PidFd::open(self.pid).ok()?;
        self.is_alive().then_some(held)
    }

    /// Sends `signal` and waits for the end. Whether it ended in time; one that is gone already did.
    pub fn end(&self, signal: i32, timeout: Duration) -> bool {
        match self.hold() {
            Some(held) => {
                // It can only fail because the process ended meanwhile, which the wait sees.
                let _ = held.signal(signal);
                held.ended_within(timeout)
            }
            None => true,
        }
    }
}

/// Starts a program in a session of its own, its output appended to `log`.
pub fn spawn_detached(command: &mut Command, log: &Path) -> Result<Process> {
    let output = File::options().append(true).create(true).open(log).at("open", log)?;
    let error_output = output.try_clone().at("open", log)?;
    let program = Path::new(command.get_program()).to_path_buf();
    command.stdin(Stdio::null()).stdout(output).stderr(error_output);
    let child = sys::in_own_session(command).spawn().map_err(|source| Error::Program { program: program.clone(), source })?;
    let pid = child.id() as i32;
    // Ended at once, it still has its entry until we wait for it, but as a zombie.
    Process::of(pid).ok_or_else(|| {
        let tail = crate::error::log_tail(log);
        Error::DiedAtStart { name: program.display().to_string(), status: "at once".into(), log: log.to_path_buf(), tail }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_with_another_start_is_not_ours() {
        let us = Process::of(std::process::id() as i32).unwrap();
        assert!(us.is_alive());
        let earlier = Process { started_ticks: us.started_ticks - 1, ..us.clone() };
        assert!(!earlier.is_alive() && earlier.hold().is_none());
        assert!(earlier.end(libc::SIGKILL, Duration::ZERO), "another's process is left alone");
        assert!(!Process { boot_id: "another boot".into(), ..us }.is_alive());
    }

    #[test]
    fn an_ended_child_is_dead_before_anyone_waits_for_it() {
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let process = Process::of(child.id() as i32).unwrap();
        assert!(process.end(libc::SIGTERM, Duration::from_secs(10)));
        assert!(!process.is_alive());
        child.wait().unwrap();
    }
}
