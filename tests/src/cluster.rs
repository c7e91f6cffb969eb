//! A cluster as `ironpage up` makes it.

use crate::{Session, eventually};
use serde::Deserialize;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

/// `status --json`.
#[derive(Deserialize, Clone, Debug)]
pub struct Status {
    pub processes: Vec<Process>,
    pub branches: Vec<Branch>,
}

#[derive(Deserialize, Clone, Debug)]
pub struct Process {
    pub kind: String,
    pub name: String,
    pub pid: Option<i32>,
    pub state: String,
    pub listen: Vec<String>,
    pub data_dir: PathBuf,
    pub log: PathBuf,
    /// What the daemon counts, by name.
    #[serde(default)]
    pub counters: std::collections::BTreeMap<String, u64>,
}

#[derive(Deserialize, Clone, Debug)]
pub struct Branch {
    pub name: String,
    pub tenant: String,
    pub id: String,
    pub parent: Option<String>,
    pub parent_lsn: Option<String>,
    pub last_record_lsn: String,
    pub commit_lsn: String,
    pub disk_consistent_lsn: String,
    pub logical_size: u64,
    pub endpoint: Option<String>,
}

/// A running cluster in a directory of its own; stopped and removed when dropped.
pub struct Cluster {
    pub dir: PathBuf,
    pub port_base: u16,
}

const POSTGRES_BIN: &str = "/usr/lib/postgresql/15/bin";
const MINUTE: Duration = Duration::from_secs(60);

/// Each cluster takes 40 ports; the first free range from here on.
static NEXT_PORT: AtomicU16 = AtomicU16::new(0);

fn free_port_base() -> u16 {
    // Apart from other test processes on the machine, and below the ephemeral ports.
    let first = 12_000 + (std::process::id() % 400) as u16 * 40;
    loop {
        let base = first + NEXT_PORT.fetch_add(40, Ordering::Relaxed) % 4_000;
        if (0..40).all(|offset| std::net::TcpListener::bind(("127.0.0.1", base + offset)).is_ok()) {
            return base;
        }
    }
}

impl Cluster {
    /// `ironpage up --detach` in a fresh directory. Panics with the logs' ends if it fails.
    pub fn up(name: &str) -> Cluster {
        let cluster = Cluster::prepare(name);
        cluster.start();
        cluster
    }

    /// A directory and ports, with nothing started.
    pub fn prepare(name: &str) -> Cluster {
        let base = std::env::var_os("IRONPAGE_TEST_DIR").map_or_else(|| PathBuf::from("/var/tmp/ironpage-tests"), PathBuf::from);
        let dir = base.join(format!("{name}-{}", std::process::id()));
        std::fs::create_dir_all(&base).unwrap_or_else(|error| panic!("{}: {error}", base.display()));
        Cluster { dir, port_base: free_port_base() }
    }

    /// `ironpage up --detach`, on a new or an existing directory.
    pub fn start(&self) {
        self.must(&["up", "--detach", "--port-base", &self.port_base.to_string()]);
    }

    /// Runs `ironpage` on this cluster.
    pub fn ironpage(&self, arguments: &[&str]) -> Output {
        let program = Cluster::program("ironpage");
        let output =
            Command::new(&program).arg("--dir").arg(&self.dir).args(arguments).stdin(std::process::Stdio::null()).output();
        output.unwrap_or_else(|error| panic!("{}: {error}", program.display()))
    }

    /// As [`Cluster::ironpage`] for what must succeed; its standard output.
    pub fn must(&self, arguments: &[&str]) -> String {
        let output = self.ironpage(arguments);
        if !output.status.success() {
            let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
            panic!("ironpage {arguments:?}: {}\n{}{}\n{}", output.status, said[0], said[1], self.log_ends());
        }
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// As [`Cluster::must`] with `--json`: what was answered.
    pub fn json(&self, arguments: &[&str]) -> serde_json::Value {
        let text = self.must(&[arguments, &["--json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{arguments:?}: {error}\n{text}"))
    }

    /// As [`Cluster::ironpage`] for what must fail with this exit code; what it said.
    pub fn must_fail(&self, code: i32, arguments: &[&str]) -> String {
        let output = self.ironpage(arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "ironpage {arguments:?}: {said}");
        assert!(!said.contains("panicked"), "{said}");
        said
    }

    /// A binary of the build under test: beside this test's own, or in `IRONPAGE_BIN`.
    pub fn program(name: &str) -> PathBuf {
        let own = std::env::current_exe().expect("the path of this test");
        let beside = own.parent().and_then(Path::parent).expect("a test lies in deps/").to_path_buf();
        std::env::var_os("IRONPAGE_BIN").map_or(beside, PathBuf::from).join(name)
    }

    pub fn status(&self) -> Status {
        let text = self.must(&["status", "--json"]);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("status --json: {error}\n{text}"))
    }

    /// The process of this kind and name; panics if status does not know it.
    pub fn process(&self, kind: &str, name: &str) -> Process {
        let status = self.status();
        let found = status.processes.iter().find(|process| process.kind == kind && process.name == name);
        found.unwrap_or_else(|| panic!("no {kind} {name} in {status:?}")).clone()
    }

    /// The `number`th process of this kind, from 0.
    pub fn nth(&self, kind: &str, number: usize) -> Process {
        let mut all: Vec<_> = self.status().processes.into_iter().filter(|process| process.kind == kind).collect();
        assert!(number < all.len(), "only {} of {kind}", all.len());
        all.swap_remove(number)
    }

    pub fn branch(&self, name: &str) -> Branch {
        let status = self.status();
        status
            .branches
            .iter()
            .find(|branch| branch.tenant == "main" && branch.name == name)
            .unwrap_or_else(|| panic!("no branch {name} in {status:?}"))
            .clone()
    }

    /// SIGKILL to one process; waits until it is gone.
    pub fn kill(&self, process: &Process) {
        let pid = process.pid.unwrap_or_else(|| panic!("{process:?} has no pid"));
        signal(pid, libc::SIGKILL);
        eventually("the killed process is gone", MINUTE, || (!alive(pid)).then_some(()));
    }

    /// How to start a running daemon again by itself, which `up` does only with all that is down.
    pub fn command_of(&self, process: &Process) -> Command {
        let path = format!("/proc/{}/cmdline", process.pid.unwrap_or_else(|| panic!("{process:?} has no pid")));
        let line = std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let mut words = line.split(|byte| *byte == 0).filter(|word| !word.is_empty()).map(std::ffi::OsStr::from_bytes);
        let mut command = Command::new(words.next().expect("a command line has a program"));
        let log = std::fs::OpenOptions::new().append(true).open(&process.log).expect("the log exists");
        command.args(words).stdin(std::process::Stdio::null()).stderr(log);
        command
    }

    /// A client program pointed at an endpoint.
    pub fn client(&self, program: &str, endpoint: &str) -> Command {
        let process = self.process("postgres", endpoint);
        let address = process.listen.first().unwrap_or_else(|| panic!("{process:?} listens nowhere"));
        let (host, port) = address.rsplit_once(':').unwrap_or_else(|| panic!("no port in {address}"));
        let mut command = Command::new(Path::new(POSTGRES_BIN).join(program));
        command.args(["-h", host, "-p", port, "-U", "postgres"]).env("PGCONNECT_TIMEOUT", "10");
        command
    }

    /// Runs SQL on endpoint main; rows, or what psql said.
    pub fn try_sql(&self, sql: &str) -> Result<String, String> {
        self.try_sql_in("postgres", sql)
    }

    pub fn try_sql_in(&self, database: &str, sql: &str) -> Result<String, String> {
        self.try_sql_on("main", database, sql)
    }

    pub fn try_sql_on(&self, endpoint: &str, database: &str, sql: &str) -> Result<String, String> {
        let mut psql = self.client("psql", endpoint);
        let output = psql.args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-d", database, "-c", sql]).output().expect("running psql");
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_string())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }

    /// As [`Cluster::try_sql`] for what must succeed.
    pub fn sql(&self, sql: &str) -> String {
        self.try_sql(sql).unwrap_or_else(|error| panic!("{sql}: {error}\n{}", self.log_ends()))
    }

    /// As [`Cluster::sql`] on another endpoint.
    pub fn sql_on(&self, endpoint: &str, sql: &str) -> String {
        let outcome = self.try_sql_on(endpoint, "postgres", sql);
        outcome.unwrap_or_else(|error| panic!("{sql} on {endpoint}: {error}\n{}", self.log_ends()))
    }

    /// An open psql on endpoint main.
    pub fn session(&self) -> Session {
        self.session_on("main")
    }

    pub fn session_on(&self, endpoint: &str) -> Session {
        let mut psql = self.client("psql", endpoint);
        psql.args(["-d", "postgres"]);
        Session::start(psql)
    }

    /// Runs pgbench to its end; what it printed.
    pub fn pgbench(&self, arguments: &[&str]) -> String {
        let output = self.client("pgbench", "main").args(arguments).arg("postgres").output().expect("running pgbench");
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "pgbench {arguments:?}: {said}\n{}", self.log_ends());
        said
    }

    /// A pgbench in the background.
    pub fn pgbench_start(&self, arguments: &[&str]) -> std::process::Child {
        let mut command = self.client("pgbench", "main");
        command.args(arguments).arg("postgres").stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        command.spawn().expect("starting pgbench")
    }

    /// Waits until endpoint main answers.
    pub fn wait_ready(&self, limit: Duration) {
        eventually("endpoint main answers", limit, || self.try_sql("select 1").ok());
    }

    /// One of the extension's counters. The first call on a cluster declares the function, which is a commit.
    pub fn counter(&self, name: &str) -> i64 {
        let query = format!("select value from ironpage_stats() where name = '{name}'");
        let value = self.try_sql(&query).unwrap_or_else(|_| {
            let declare = "create function ironpage_stats(out name text, out value bigint) returns setof record \
                           language c strict as 'ironpage', 'ironpage_stats'";
            self.sql(declare);
            self.sql(&query)
        });
        value.parse().unwrap_or_else(|_| panic!("counter {name} is '{value}': {}", self.sql("select * from ironpage_stats()")))
    }

    /// A counter of the pageserver.
    pub fn pageserver_counter(&self, name: &str) -> u64 {
        let pageserver = self.nth("pageserver", 0);
        *pageserver.counters.get(name).unwrap_or_else(|| panic!("no counter {name} in {pageserver:?}"))
    }

    /// Waits until all safekeepers have flushed what was committed when asked.
    pub fn wait_safekeepers_level(&self, limit: Duration) {
        let flushed = |status: &Status| -> Vec<u64> {
            let safekeepers = status.processes.iter().filter(|process| process.kind == "safekeeper");
            safekeepers.map(|process| process.counters.get("flush_lsn:main").copied().unwrap_or(0)).collect()
        };
        let target = flushed(&self.status()).into_iter().max().unwrap_or(0);
        eventually("all safekeepers are level", limit, || flushed(&self.status()).iter().all(|lsn| *lsn >= target).then_some(()));
    }

    /// The extension's settings survive in postgresql.auto.conf; this sets them and restarts endpoint main.
    pub fn set_and_restart(&self, settings: &[(&str, &str)]) {
        for (name, value) in settings {
            self.sql(&format!("alter system set {name} = '{value}'"));
        }
        self.must(&["endpoint", "stop", "main"]);
        self.must(&["endpoint", "start", "main"]);
    }

    /// The last lines of every log.
    pub fn log_ends(&self) -> String {
        let mut text = String::new();
        let Ok(entries) = std::fs::read_dir(self.dir.join("logs")) else { return text };
        for entry in entries.flatten() {
            let log = std::fs::read(entry.path()).unwrap_or_default();
            let log = String::from_utf8_lossy(&log);
            let lines: Vec<_> = log.lines().collect();
            text += &format!("--- {}\n{}\n", entry.path().display(), lines[lines.len().saturating_sub(25)..].join("\n"));
        }
        text
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.log_ends());
            if std::env::var_os("IRONPAGE_KEEP").is_some() {
                return;
            }
        }
        if self.dir.exists() {
            let output = self.ironpage(&["destroy"]);
            if !output.status.success() {
                eprintln!("ironpage destroy: {}", String::from_utf8_lossy(&output.stderr));
            }
        }
    }
}

/// Sends a signal; a process that is gone already is no error.
pub fn signal(pid: i32, signal: i32) {
    // SAFETY: kill has no memory preconditions.
    unsafe { libc::kill(pid, signal) };
}

/// Whether the process exists and is no zombie.
pub fn alive(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}
