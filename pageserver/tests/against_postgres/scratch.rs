//! A stock cluster that runs the workload, and its state before.

use crate::datadir::DataDir;
use ironpage_pageserver::worker::{Worker, WorkerConfig, pin};
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const SETTINGS: &str = "
full_page_writes = off
wal_level = replica
fsync = off
max_wal_size = 4GB
wal_keep_size = 4GB
max_prepared_transactions = 8
allow_in_place_tablespaces = on
track_commit_timestamp = on
listen_addresses = ''
shared_buffers = 16MB
autovacuum_naptime = 1s
autovacuum_vacuum_threshold = 10
autovacuum_vacuum_scale_factor = 0.02
";

pub struct Scratch {
    pub dir: PathBuf,
    /// After initdb, before the first start.
    pub initial: DataDir,
    /// After the workload and a clean stop.
    pub primary: DataDir,
}

impl Scratch {
    pub fn new(name: &str, workload: impl FnOnce(&Scratch)) -> Scratch {
        Scratch::with(name, &Setup::default(), workload)
    }

    pub fn with(name: &str, setup: &Setup, workload: impl FnOnce(&Scratch)) -> Scratch {
        let dir = std::env::temp_dir().join(format!("ironpage-{name}-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        if let Some((uid, gid)) = unprivileged() {
            std::os::unix::fs::chown(&dir, Some(uid), Some(gid)).unwrap();
        }
        let (initial, primary) = (dir.join("initial"), dir.join("primary"));
        run(program("initdb")
            .arg("-D")
            .arg(&initial)
            .args(["-U", "postgres", "--no-sync", "-A", "trust", "--locale=C", "-E", "UTF8"])
            .args(setup.initdb));
        let settings = format!("{SETTINGS}unix_socket_directories = '{}'\n{}", dir.display(), setup.settings);
        fs::write(initial.join("postgresql.auto.conf"), settings).unwrap();
        copy(&initial, &primary);
        let scratch = Scratch { dir, initial: DataDir(initial), primary: DataDir(primary) };
        scratch.serve(workload);
        scratch
    }

    /// Runs the server while `workload` works on it.
    fn serve(&self, workload: impl FnOnce(&Scratch)) {
        let log = self.dir.join("primary.log");
        let control = |action: &str| {
            let mut command = program("pg_ctl");
            command.arg("-D").arg(&self.primary.0).arg("-l").arg(&log).args(["-s", "-w", "-t", "60", action]);
            command
        };
        run(&mut control("start"));
        let stop = StopOnDrop(control("stop"));
        workload(self);
        drop(stop);
    }

    pub fn client(&self, name: &str) -> Command {
        let mut command = program(name);
        command.env("PGHOST", &self.dir).env("PGUSER", "postgres");
        command
    }

    /// Runs a script in psql, its statements one by one: VACUUM and CREATE DATABASE run in no transaction.
    pub fn sql(&self, database: &str, sql: &str) {
        let script = self.dir.join("script.sql");
        fs::write(&script, sql).unwrap();
        run(self
            .client("psql")
            .args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-o", "/dev/null", "-d", database, "-f"])
            .arg(&script));
    }
}

/// What a cluster has besides what all have.
#[derive(Default)]
pub struct Setup {
    pub initdb: &'static [&'static str],
    /// Lines for its configuration; the last one of a name holds.
    pub settings: &'static str,
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            fs::remove_dir_all(&self.dir).unwrap();
        }
    }
}

struct StopOnDrop(Command);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        let status = self.0.status();
        assert!(std::thread::panicking() || status.is_ok_and(|status| status.success()), "the server did not stop");
    }
}

/// Where redo.so is, made if it is not there or old.
pub fn redo_library() -> PathBuf {
    static MADE: std::sync::Once = std::sync::Once::new();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("redo-worker");
    MADE.call_once(|| run(Command::new("make").arg("-s").arg("-C").arg(&source)));
    source.join("redo.so")
}

/// A redo worker that runs from below `dir`.
pub fn worker(dir: &Path) -> Worker {
    let program = pin(&bindir().join("postgres"), &redo_library(), &dir.join("redo-worker")).unwrap();
    Worker::new(WorkerConfig::new(program))
}

pub fn copy(from: &Path, to: &Path) {
    run(Command::new("cp").arg("-a").arg(from).arg(to));
}

pub fn bindir() -> PathBuf {
    let output = Command::new(std::env::var_os("PG_CONFIG").unwrap_or("pg_config".into())).arg("--bindir").output().unwrap();
    PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
}

/// A program of Postgres, as a user it accepts.
pub fn program(name: &str) -> Command {
    let mut command = Command::new(bindir().join(name));
    command.env("LC_ALL", "C").current_dir("/");
    if let Some((uid, gid)) = unprivileged() {
        command.uid(uid).gid(gid);
    }
    command
}

/// The user `postgres` for root, nobody else otherwise.
fn unprivileged() -> Option<(u32, u32)> {
    let id = |flag: &str, user: &[&str]| {
        let output = Command::new("id").arg(flag).args(user).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().parse::<u32>().ok()
    };
    (id("-u", &[]) == Some(0)).then(|| (id("-u", &["postgres"]).unwrap(), id("-g", &["postgres"]).unwrap()))
}

/// Runs to the end, which must be a good one.
pub fn run(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {} {}", output.status, String::from_utf8_lossy(&output.stderr));
}
