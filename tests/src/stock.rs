//! A stock Postgres beside the cluster: where imports come from, and what starts on an export.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const BIN: &str = "/usr/lib/postgresql/15/bin";

/// A data directory; its server, which listens on a socket beside it, is stopped when dropped.
pub struct Stock {
    pub dir: PathBuf,
    /// Names the socket; nothing listens on such a port.
    port: u16,
}

impl Stock {
    /// initdb.
    pub fn init(dir: &Path, arguments: &[&str]) -> Stock {
        let stock = Stock::on(dir);
        must(tool("initdb").arg("-D").arg(dir).args(["-U", "postgres", "--no-sync", "-A", "trust"]).args(arguments));
        stock
    }

    /// What is there already.
    pub fn on(dir: &Path) -> Stock {
        Stock { dir: dir.to_path_buf(), port: 5432 }
    }

    /// A directory of tests that the user Postgres runs as may write.
    pub fn scratch(name: &str) -> PathBuf {
        let base = std::env::var_os("IRONPAGE_TEST_DIR").map_or_else(|| PathBuf::from("/var/tmp/ironpage-tests"), PathBuf::from);
        let dir = base.join(format!("stock-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
        if let Some((uid, gid)) = postgres_user() {
            std::os::unix::fs::chown(&dir, Some(uid), Some(gid)).expect("giving a directory away");
        }
        dir
    }

    fn socket_dir(&self) -> &Path {
        self.dir.parent().expect("a data directory has a parent")
    }

    /// Starts the server; panics with the end of its log if it does not come up.
    pub fn start(&self) {
        let output = self.pg_ctl(&["start", "-w", "-t", "60"]);
        assert!(output.status.success(), "{}\n{}", said(&output), std::fs::read_to_string(self.log()).unwrap_or_default());
    }

    fn log(&self) -> PathBuf {
        self.dir.with_extension("log")
    }

    fn pg_ctl(&self, arguments: &[&str]) -> Output {
        let options =
            format!("-c listen_addresses='' -c unix_socket_directories={} -p {}", self.socket_dir().display(), self.port);
        let mut command = tool("pg_ctl");
        command.arg("-D").arg(&self.dir).arg("-l").arg(self.log()).args(arguments);
        if arguments.first() == Some(&"start") {
            command.arg("-o").arg(options);
        }
        run(&mut command)
    }

    /// Stops it cleanly.
    pub fn stop(&self) {
        self.stop_in("fast");
    }

    /// Stops it in a mode of pg_ctl.
    pub fn stop_in(&self, mode: &str) {
        let output = self.pg_ctl(&["stop", "-m", mode, "-w"]);
        assert!(output.status.success(), "{}", said(&output));
    }

    /// A client program pointed at it.
    pub fn client(&self, program: &str) -> Command {
        let mut command = tool(program);
        command.arg("-h").arg(self.socket_dir()).args(["-p", &self.port.to_string(), "-U", "postgres"]);
        command
    }

    /// For `ironpage import`.
    pub fn url(&self) -> String {
        format!("postgres:///postgres?host={}&port={}&user=postgres", self.socket_dir().display(), self.port)
    }

    pub fn sql_in(&self, database: &str, sql: &str) -> String {
        must(self.client("psql").args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-d", database, "-c", sql]))
    }

    pub fn sql(&self, sql: &str) -> String {
        self.sql_in("postgres", sql)
    }

    /// pg_checksums --check, on a server that is down.
    pub fn check_checksums(&self) -> String {
        must(tool("pg_checksums").arg("--check").arg("-D").arg(&self.dir))
    }
}

impl Drop for Stock {
    fn drop(&mut self) {
        if self.dir.join("postmaster.pid").exists() {
            self.pg_ctl(&["stop", "-m", "immediate"]);
        }
    }
}

/// All that pg_dumpall says of a server, without what differs between copies: the places of tablespaces, and the random
/// words that newer minors of pg_dump guard their scripts with.
pub fn dump(mut client: Command) -> String {
    let text = must(client.args(["--no-sync", "-l", "postgres"]));
    let plain = |line: &str| match line.split_once(" LOCATION ") {
        Some((tablespace, _)) => tablespace.to_string(),
        None => line.to_string(),
    };
    let lines = text.lines().filter(|line| !line.starts_with("\\restrict") && !line.starts_with("\\unrestrict"));
    lines.map(plain).collect::<Vec<_>>().join("\n")
}

/// pg_amcheck on all databases finds nothing.
pub fn amcheck(mut client: Command) {
    let output = run(client.args(["--all", "--heapallindexed", "--parent-check"]));
    assert!(output.status.success() && output.stdout.is_empty(), "pg_amcheck: {}", said(&output));
}

/// Runs a program of Postgres as the user it must run as.
pub fn tool(program: &str) -> Command {
    let mut command = Command::new(Path::new(BIN).join(program));
    command.current_dir("/").stdin(Stdio::null()).env("PGCONNECT_TIMEOUT", "10").env("LC_ALL", "C.UTF-8");
    if let Some((uid, gid)) = postgres_user() {
        command.uid(uid).gid(gid);
    }
    command
}

fn postgres_user() -> Option<(u32, u32)> {
    // SAFETY: geteuid cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        return None;
    }
    let passwd = std::fs::read_to_string("/etc/passwd").ok()?;
    let line = passwd.lines().find(|line| line.starts_with("postgres:"))?;
    let mut fields = line.split(':').skip(2).map(|field| field.parse().ok());
    Some((fields.next()??, fields.next()??))
}

fn run(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// Standard output of what must succeed.
pub fn must(command: &mut Command) -> String {
    let output = run(command);
    assert!(output.status.success(), "{command:?}: {}", said(&output));
    String::from_utf8_lossy(&output.stdout).trim_end().to_string()
}

fn said(output: &Output) -> String {
    let parts = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    format!("{}: {}", output.status, parts.concat())
}
