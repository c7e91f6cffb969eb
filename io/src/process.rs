//! Child processes, their pipes read and written through the ring.

use std::ffi::{OsStr, OsString};
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::rc::Rc;
use std::sync::Arc;

use crate::driver::{Handle, Op};
use crate::error::{Errno, IoError};
use crate::executor::{Operation, Payload};
use crate::net::half::{Endpoint, Medium};
use crate::net::{Reader, Writer};

/// What a child's standard error is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Stderr {
    /// This process's own.
    #[default]
    Inherit,
    /// [`Child::stderr`]
    Pipe,
    Null,
}

/// How to start a child.
#[derive(Debug, Clone, Default)]
pub struct Spawn {
    pub program: PathBuf,
    pub args: Vec<OsString>,
    pub env: Vec<(OsString, OsString)>,
    /// Give the child nothing of this process's environment.
    pub env_clear: bool,
    pub current_dir: Option<PathBuf>,
    pub stderr: Stderr,
}

/// A child process with pipes to its standard input and output. Dropping it kills the child.
pub struct Child {
    child: std::process::Child,
    program: Arc<str>,
    pidfd: Rc<Handle>,
    status: Option<ExitStatus>,
    /// Taken out to use it from another task, or dropped to close it.
    pub stdin: Option<Writer>,
    pub stdout: Option<Reader>,
    pub stderr: Option<Reader>,
}

struct Waiting {
    _pidfd: Rc<Handle>,
}

impl Payload for Waiting {}

impl Child {
    /// Starts `program` with more environment than this process's. Blocks for the fork and exec, a
    /// millisecond or so.
    pub fn spawn<A, E, K, V>(program: impl AsRef<OsStr>, args: A, env: E) -> Result<Self, IoError>
    where
        A: IntoIterator,
        A::Item: AsRef<OsStr>,
        E: IntoIterator<Item = (K, V)>,
        K: AsRef<OsStr>,
        V: AsRef<OsStr>,
    {
        Self::spawn_with(Spawn {
            program: program.as_ref().into(),
            args: args.into_iter().map(|arg| arg.as_ref().to_owned()).collect(),
            env: env.into_iter().map(|(key, value)| (key.as_ref().to_owned(), value.as_ref().to_owned())).collect(),
            ..Spawn::default()
        })
    }

    /// As [`spawn`](Self::spawn), with all options. The child dies also when the thread that started it
    /// does, so that a killed daemon leaves none behind.
    pub fn spawn_with(spawn: Spawn) -> Result<Self, IoError> {
        let program: Arc<str> = spawn.program.display().to_string().into();
        let failed = |operation, errno| IoError::Process { operation, program: program.clone(), errno };
        let mut command = Command::new(&spawn.program);
        if spawn.env_clear {
            command.env_clear();
        }
        if let Some(dir) = &spawn.current_dir {
            command.current_dir(dir);
        }
        command.args(&spawn.args).envs(spawn.env).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(match spawn.stderr {
            Stderr::Inherit => Stdio::inherit(),
            Stderr::Pipe => Stdio::piped(),
            Stderr::Null => Stdio::null(),
        });
        // SAFETY: prctl is async-signal-safe and touches nothing of the parent.
        unsafe {
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            });
        }
        let mut child = command.spawn().map_err(|error| failed("start", error.into()))?;
        let pidfd = match open_pidfd(child.id()) {
            Ok(pidfd) => pidfd,
            Err(errno) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(failed("watch", errno));
            }
        };
        let end = |fd: OwnedFd, what: &str| {
            let name = format!("{what} of {program}").into();
            Rc::new(Endpoint { handle: Handle::kernel(fd), medium: Medium::Pipe, name })
        };
        let stdin = child.stdin.take().map(|pipe| Writer::new(end(pipe.into(), "standard input")));
        let stdout = child.stdout.take().map(|pipe| Reader::new(end(pipe.into(), "standard output")));
        let stderr = child.stderr.take().map(|pipe| Reader::new(end(pipe.into(), "standard error")));
        Ok(Self { child, program, pidfd: Rc::new(pidfd), status: None, stdin, stdout, stderr })
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends SIGKILL; without effect if the child has ended. Reap it by [`wait`](Self::wait).
    pub fn kill(&mut self) {
        // Fails only if the child has been reaped.
        let _ = self.child.kill();
    }

    /// Waits until the child has ended. Dropping the future changes nothing.
    pub async fn wait(&mut self) -> Result<ExitStatus, IoError> {
        loop {
            let reaped = match self.status {
                Some(status) => Some(status),
                None => self.child.try_wait().map_err(|error| self.failed("wait for", error.into()))?,
            };
            if let Some(status) = reaped {
                self.status = reaped;
                return Ok(status);
            }
            let op = Op::Poll { fd: self.pidfd.raw(), events: libc::POLLIN as u32 };
            // SAFETY: the payload shares the descriptor; no memory is involved.
            let (outcome, _) = unsafe { Operation::submit(op, Waiting { _pidfd: self.pidfd.clone() }) }.await;
            match Errno::check(outcome.result) {
                Err(errno) if !errno.is_transient() => return Err(self.failed("wait for", errno)),
                _ => {}
            }
        }
    }

    /// The end of the child, if it has come; does not wait.
    pub fn try_wait(&mut self) -> Result<Option<ExitStatus>, IoError> {
        if self.status.is_none() {
            self.status = self.child.try_wait().map_err(|error| self.failed("wait for", error.into()))?;
        }
        Ok(self.status)
    }

    fn failed(&self, operation: &'static str, errno: Errno) -> IoError {
        IoError::Process { operation, program: self.program.clone(), errno }
    }
}

impl Drop for Child {
    /// Kills and reaps: after SIGKILL that takes no longer than the kernel needs to end the process.
    fn drop(&mut self) {
        if self.status.is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// The child is ours and not reaped, so its number names no other process.
fn open_pidfd(pid: u32) -> Result<Handle, Errno> {
    // SAFETY: plain system call.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid as libc::pid_t, 0) };
    if fd < 0 {
        return Err(Errno::last());
    }
    // SAFETY: just created, owned by nobody else.
    Ok(Handle::kernel(unsafe { OwnedFd::from_raw_fd(fd as i32) }))
}

/// How a child ended, for a log line: `exit code 1`, `signal 11`.
pub fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "an unknown end".into(),
    }
}

#[cfg(test)]
mod tests;
