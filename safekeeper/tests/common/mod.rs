//! A real safekeeper process, and a client of it over a blocking socket.

// Each test file uses its own part of this.
#![allow(dead_code)]

pub mod client;
pub mod wal;

use ironpage_layout::wire::admin::StatusReply;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// Longest any single wait of a test may take.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A directory of one test, removed when it passed.
pub struct TestDir(pub PathBuf);

impl TestDir {
    pub fn new(name: &str) -> TestDir {
        static LAST: AtomicU64 = AtomicU64::new(0);
        let number = LAST.fetch_add(1, Ordering::Relaxed);
        let base = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
        let dir = base.join(format!("{name}-{}-{number}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).unwrap();
        TestDir(dir)
    }
}

impl Drop for TestDir {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}

/// A port nobody listens on just now.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A running safekeeper; killed when dropped.
pub struct Daemon {
    child: Child,
    pub address: SocketAddr,
    log: Receiver<String>,
    seen: Vec<String>,
}

impl Daemon {
    /// Starts safekeeper 1 on a free port.
    pub fn start(dir: &Path) -> Daemon {
        Daemon::start_as(dir, 1, 0, &[])
    }

    pub fn start_as(dir: &Path, id: u64, port: u16, peers: &[u16]) -> Daemon {
        Daemon::from_command(&mut command(dir, id, port, peers))
    }

    /// Runs `command` and waits until it listens.
    pub fn from_command(command: &mut Command) -> Daemon {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (sender, log) = channel();
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let mut daemon = Daemon { child, address: ([127, 0, 0, 1], 0).into(), log, seen: Vec::new() };
        daemon.restarted();
        daemon
    }

    /// Waits until the command, which starts safekeepers one after the other, has its first or next one.
    pub fn restarted(&mut self) {
        self.seen.retain(|line| !line.contains("listening on "));
        let line = self.wait_for_log("listening on ");
        self.address = line.rsplit(' ').next().unwrap().parse().unwrap();
    }

    /// The first line of the log, from the start on, that contains `text`.
    pub fn wait_for_log(&mut self, text: &str) -> String {
        if let Some(line) = self.seen.iter().find(|line| line.contains(text)) {
            return line.clone();
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.log.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if line.contains(text) {
                        return line;
                    }
                }
                Err(error) => panic!("no '{text}' in the log ({error}):\n{}", self.seen.join("\n")),
            }
        }
    }

    /// kill -9.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM, and how it ended.
    pub fn stop(mut self) -> ExitStatus {
        let kill = Command::new("kill").arg(self.child.id().to_string()).status().unwrap();
        assert!(kill.success());
        self.child.wait().unwrap()
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn status(&self) -> StatusReply {
        client::Client::admin(self.address).status()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("log of {}:", self.address);
            self.seen.iter().cloned().chain(self.log.try_iter()).for_each(|line| eprintln!("    {line}"));
        }
    }
}

pub fn command(dir: &Path, id: u64, port: u16, peers: &[u16]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_safekeeper"));
    command.args(["--id", &id.to_string(), "--listen", &format!("127.0.0.1:{port}"), "--dir"]).arg(dir);
    if !peers.is_empty() {
        let peers: Vec<_> = peers.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        command.args(["--peers", &peers.join(",")]);
    }
    command
}

/// Runs a daemon that must not start: its exit code and what it said.
pub fn fails_to_start(command: &mut Command) -> (Option<i32>, String) {
    let output = command.output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}
