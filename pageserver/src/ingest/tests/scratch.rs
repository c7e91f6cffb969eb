//! A stock Postgres in a directory of its own, gone with the test.

use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const WORKLOAD: &str = include_str!("workload.sql");
const MULTIXACTS: &str = include_str!("multixacts.pgbench");

/// An initdb'd data directory. Everything in it runs as an unprivileged user.
pub struct Scratch {
    dir: PathBuf,
    bindir: PathBuf,
    user: Option<(u32, u32)>,
}

impl Scratch {
    pub fn init() -> Scratch {
        let bindir = run_for_output(Command::new("pg_config").arg("--bindir"));
        let bindir = PathBuf::from(bindir.trim());
        assert!(bindir.join("initdb").exists(), "Postgres 15 is needed: {} has no initdb", bindir.display());
        let number = |flag: &str| run_for_output(Command::new("id").args([flag, "postgres"])).trim().parse().expect("a number");
        let root = run_for_output(Command::new("id").arg("-u")).trim() == "0";
        let user = root.then(|| (number("-u"), number("-g")));
        let dir = std::env::temp_dir().join(format!("ironpage-ingest-{}", std::process::id()));
        std::fs::create_dir(&dir).expect("a fresh directory");
        if let Some((uid, gid)) = user {
            chown(&dir, Some(uid), Some(gid)).expect("chown");
        }
        let scratch = Scratch { dir, bindir, user };
        let data = scratch.dir.join("data");
        let data = data.to_str().expect("UTF-8");
        scratch.run("initdb", &["-D", data, "-U", "postgres", "-A", "trust", "--no-sync", "--locale=C", "-E", "UTF8"]);
        scratch
    }

    /// A path below the data directory.
    pub fn path(&self, below: &str) -> PathBuf {
        self.dir.join("data").join(below)
    }

    pub fn read(&self, below: &str) -> Vec<u8> {
        std::fs::read(self.path(below)).unwrap_or_else(|error| panic!("{below}: {error}"))
    }

    /// Writes a file as the user Postgres runs as.
    pub fn write(&self, below: &str, bytes: &[u8]) {
        let path = self.path(below);
        std::fs::write(&path, bytes).unwrap_or_else(|error| panic!("{below}: {error}"));
        if let Some((uid, gid)) = self.user {
            chown(&path, Some(uid), Some(gid)).expect("chown");
        }
    }

    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.bindir.join(program));
        command.args(arguments).current_dir(&self.dir).env("LC_ALL", "C").env("PGHOST", &self.dir).env("PGUSER", "postgres");
        if let Some((uid, gid)) = self.user {
            command.uid(uid).gid(gid).env("HOME", &self.dir);
        }
        command
    }

    /// Runs one of Postgres's programs; its output, if it succeeds.
    pub fn run(&self, program: &str, arguments: &[&str]) -> String {
        run_for_output(&mut self.command(program, arguments))
    }

    pub fn psql(&self, database: &str, sql: &str) -> String {
        self.run("psql", &["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", database, "-c", sql])
    }

    pub fn start(&self, settings: &[(&str, &str)]) {
        let mut options = format!(
            "-c listen_addresses= -c unix_socket_directories={} -c fsync=off -c max_prepared_transactions=8 \
             -c wal_keep_size=8GB -c max_wal_size=8GB -c allow_in_place_tablespaces=on -c max_wal_senders=2",
            self.dir.display()
        );
        for (name, value) in settings {
            options.push_str(&format!(" -c {name}={value}"));
        }
        let log = self.dir.join("log");
        let (data, log) = (self.path(""), log.to_str().expect("UTF-8"));
        let data = data.to_str().expect("UTF-8");
        // The postmaster keeps what it inherits: no pipe of ours, or reading it would never end.
        let mut command = self.command("pg_ctl", &["-D", data, "-w", "-s", "-l", log, "-o", &options, "start"]);
        let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status().expect("pg_ctl");
        assert!(status.success(), "{}", std::fs::read_to_string(log).unwrap_or_default());
    }

    pub fn stop(&self) {
        let data = self.path("");
        self.run("pg_ctl", &["-D", data.to_str().expect("UTF-8"), "-w", "-s", "-m", "fast", "stop"]);
    }

    /// Starts, does a bit of everything, and stops.
    pub fn run_workload(&self, settings: &[(&str, &str)]) {
        self.start(settings);
        let file = |name: &str, text: &str| {
            let path = self.dir.join(name);
            std::fs::write(&path, text).expect("a script");
            path.to_str().expect("UTF-8").to_string()
        };
        let workload = file("workload.sql", WORKLOAD);
        self.run("psql", &["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", "postgres", "-f", &workload]);
        self.run("pgbench", &["-i", "-q", "-s", "1", "postgres"]);
        self.run("pgbench", &["-n", "-c", "4", "-t", "150", "postgres"]);
        let multixacts = file("multixacts.pgbench", MULTIXACTS);
        self.run("pgbench", &["-n", "-c", "6", "-t", "600", "-f", &multixacts, "postgres"]);
        // template0 too, so that limits move and old SLRU segments go.
        self.psql("postgres", "UPDATE pg_database SET datallowconn = true");
        let options = "-c vacuum_freeze_min_age=0 -c vacuum_freeze_table_age=0 \
                       -c vacuum_multixact_freeze_min_age=0 -c vacuum_multixact_freeze_table_age=0";
        run_for_output(self.command("vacuumdb", &["-a", "-F", "-q"]).env("PGOPTIONS", options));
        self.stop();
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if self.path("postmaster.pid").exists() {
            let data = self.path("");
            let arguments = ["-D", data.to_str().unwrap_or_default(), "-m", "immediate", "-w", "stop"];
            let _ = self.command("pg_ctl", &arguments).output();
        }
        if std::thread::panicking() {
            eprintln!("kept for a look: {}", self.dir.display());
        } else {
            let _ = std::fs::remove_dir_all(&self.dir);
        }
    }
}

fn run_for_output(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {} {error}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Files directly in a directory, sorted by name.
pub fn files_in(dir: &Path) -> Vec<(String, PathBuf)> {
    let entries = std::fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let mut files: Vec<_> = entries
        .map(|entry| entry.expect("an entry"))
        .map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.path()))
        .collect();
    files.sort();
    files
}
