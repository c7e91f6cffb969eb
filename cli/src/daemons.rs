//! The safekeepers and the pageserver of a cluster: how each is started, found and stopped.

use crate::client::{self, Peer};
use crate::cluster::Cluster;
use crate::error::{AtPath, Error, Result, log_tail};
use crate::port;
use crate::process::{Process, spawn_detached};
use crate::programs::Programs;
use crate::sys::{Signals, Woken};
use ironpage_layout::wire::admin::StatusReply;
use std::ffi::OsString;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

/// How long a daemon may take to answer after its start; a pageserver reads its manifests first.
const READY_SECONDS_MAX: u64 = 60;
/// How long a daemon may take to end.
const STOP_SECONDS_MAX: u64 = 30;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Safekeeper,
    Pageserver,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::Safekeeper => "safekeeper",
            Kind::Pageserver => "pageserver",
        }
    }
}

/// One daemon of the cluster, running or not.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Daemon {
    pub kind: Kind,
    pub peer: Peer,
    id: usize,
    pub dir: PathBuf,
    pub log: PathBuf,
    pid_file: PathBuf,
}

/// What a daemon is doing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum State {
    Dead,
    Starting(Process),
    Running(Process, StatusReply),
}

/// All daemons of a cluster in the order they start.
pub fn all(cluster: &Cluster) -> Vec<Daemon> {
    let daemon = |kind: Kind, id, peer: Peer| Daemon {
        kind,
        id,
        dir: cluster.dir.join(&peer.name),
        log: cluster.logs().join(format!("{}.log", peer.name)),
        pid_file: cluster.run().join(format!("{}.pid", peer.name)),
        peer,
    };
    let safekeepers = cluster.safekeepers().into_iter().enumerate().map(|(i, peer)| daemon(Kind::Safekeeper, i + 1, peer));
    safekeepers.chain([daemon(Kind::Pageserver, 1, cluster.pageserver())]).collect()
}

fn address_list<'a>(peers: impl Iterator<Item = &'a Peer>) -> String {
    peers.map(|peer| peer.address.to_string()).collect::<Vec<_>>().join(",")
}

impl Daemon {
    pub fn name(&self) -> &str {
        &self.peer.name
    }

    /// All ports it listens on.
    pub fn ports(&self, cluster: &Cluster) -> Vec<u16> {
        let http = (self.kind == Kind::Pageserver).then(|| cluster.pageserver_http().address.port());
        [self.peer.address.port()].into_iter().chain(http).collect()
    }

    /// Its process, if it lives.
    pub fn process(&self) -> Result<Option<Process>> {
        Ok(Process::read(&self.pid_file)?.filter(Process::is_alive))
    }

    pub fn state(&self, timeout: Duration) -> Result<State> {
        let Some(process) = self.process()? else { return Ok(State::Dead) };
        match client::status(&self.peer, timeout) {
            Ok(reply) => Ok(State::Running(process, reply)),
            Err(_) => Ok(State::Starting(process)),
        }
    }

    /// Starts it; it may not answer yet.
    pub fn spawn(&self, cluster: &Cluster, programs: &Programs) -> Result<Process> {
        self.ports(cluster).into_iter().try_for_each(|port| port::check_free(port, self.name()))?;
        DirBuilder::new().recursive(true).mode(0o700).create(&self.dir).at("create directory", &self.dir)?;
        let mut command = Command::new(match self.kind {
            Kind::Safekeeper => &programs.safekeeper,
            Kind::Pageserver => &programs.pageserver,
        });
        let mut option = |name: &str, value: OsString| {
            command.arg(name).arg(value);
        };
        let safekeepers = cluster.safekeepers();
        option("--id", self.id.to_string().into());
        option("--listen", self.peer.address.to_string().into());
        option("--dir", self.dir.clone().into());
        match self.kind {
            Kind::Safekeeper => {
                option("--peers", address_list(safekeepers.iter().filter(|peer| **peer != self.peer)).into());
            }
            Kind::Pageserver => {
                option("--http-listen", cluster.pageserver_http().address.to_string().into());
                option("--safekeepers", address_list(safekeepers.iter()).into());
                option("--postgres-bindir", programs.postgres_bindir.clone().into());
                option("--redo-library", programs.redo_library.clone().into());
            }
        }
        let process = spawn_detached(command.current_dir("/"), &self.log)?;
        process.write(&self.pid_file)?;
        Ok(process)
    }

    /// Waits until it answers, or ended.
    pub fn wait_ready(&self, cluster: &Cluster, process: &Process, signals: &Signals) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(READY_SECONDS_MAX);
        let log = || (self.log.clone(), log_tail(&self.log));
        loop {
            let answer = client::status(&self.peer, Duration::from_secs(5)).and_then(|_| match self.kind {
                Kind::Safekeeper => Ok(()),
                Kind::Pageserver => cluster.api().ping(),
            });
            let failure = match answer {
                Ok(()) => return Ok(()),
                Err(failure) => failure,
            };
            let Some(held) = process.hold() else {
                let (log, tail) = log();
                return Err(Error::DiedAtStart { name: self.name().into(), status: failure.to_string(), log, tail });
            };
            if Instant::now() > deadline {
                let (log, tail) = log();
                return Err(Error::NotReady { name: self.name().into(), seconds: READY_SECONDS_MAX, log, tail });
            }
            if let Woken::Signal(_) = signals.wait(Some(&held), Duration::from_millis(10)) {
                return Err(Error::Interrupted);
            }
        }
    }

    /// Asks it to end and waits. Fine if it is down.
    pub fn stop(&self) -> Result<()> {
        let Some(process) = self.process()? else { return Ok(()) };
        if !process.end(libc::SIGTERM, Duration::from_secs(STOP_SECONDS_MAX)) {
            let (name, log) = (self.name().into(), self.log.clone());
            return Err(Error::DoesNotEnd { name, pid: process.pid, seconds: STOP_SECONDS_MAX, log });
        }
        crate::files::remove_if_there(&self.pid_file)
    }
}
