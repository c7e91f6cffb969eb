//! Stock Postgres for comparison: alone, or with one synchronous standby.

use crate::Options;
use crate::command::{clean_up, run};
use crate::interrupt;
use anyhow::Context;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// A Postgres that listens on 127.0.0.1, ours or stock.
#[derive(Clone, Copy)]
pub struct Server {
    pub port: u16,
    pub database: &'static str,
}

impl Server {
    /// The same server, another database.
    pub fn of(self, database: &'static str) -> Server {
        Server { database, ..self }
    }

    /// One of Postgres's own clients, told where the server is.
    pub fn client(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.args(["-h", "127.0.0.1", "-U", "postgres", "-p", &self.port.to_string()]);
        command
    }

    pub fn sql(&self, options: &Options, sql: &str) -> anyhow::Result<String> {
        let mut psql = self.client(&options.postgres_bindir.join("psql"));
        Ok(run(psql.args(["-d", self.database, "-XAtq", "-v", "ON_ERROR_STOP=1", "-c", sql]))?.trim().to_string())
    }

    pub fn pgbench_init(&self, options: &Options, scale: u32) -> anyhow::Result<()> {
        let mut pgbench = self.client(&options.postgres_bindir.join("pgbench"));
        run(pgbench.args(["-i", "-q", "-s", &scale.to_string(), self.database])).map(drop)
    }

    /// Transactions per second of pgbench's TPC-B with `clients` clients for `options.seconds`; `arguments` may ask for another script.
    pub fn pgbench(&self, options: &Options, clients: u32, arguments: &[&str]) -> anyhow::Result<f64> {
        let mut pgbench = self.client(&options.postgres_bindir.join("pgbench"));
        let (clients, seconds) = (clients.to_string(), options.seconds.to_string());
        pgbench.args(["-n", "-c", &clients, "-j", "2", "-T", &seconds]).args(arguments).arg(self.database);
        let text = run(&mut pgbench)?;
        let line = text.lines().find(|line| line.starts_with("tps = ")).context("pgbench printed no tps")?;
        line.split_whitespace().nth(2).and_then(|tps| tps.parse().ok()).with_context(|| format!("no number in '{line}'"))
    }

    /// Time from now until a first row comes back.
    pub fn first_row(&self, options: &Options, begun: Instant) -> anyhow::Result<Duration> {
        loop {
            match self.sql(options, "select 1") {
                Ok(_) => return Ok(begun.elapsed()),
                Err(error) if begun.elapsed() > Duration::from_secs(60) || interrupt::asked() => return Err(error),
                Err(_) => {}
            }
        }
    }
}

/// A stock primary, and perhaps its standby; stopped and removed on drop.
pub struct Stock {
    bindir: PathBuf,
    directories: Vec<PathBuf>,
    pub server: Server,
}

impl Stock {
    /// initdb and start, as the unprivileged user when we are root.
    pub fn start(options: &Options, name: &str, port: u16, settings: &str, standby: bool) -> anyhow::Result<Stock> {
        let base = options.dir.join(name);
        let primary = base.join("primary");
        std::fs::create_dir_all(&base).with_context(|| format!("creating {}", base.display()))?;
        if is_root() {
            run(Command::new("chown").arg("postgres").arg(&base))?;
        }
        let mut stock =
            Stock { bindir: options.postgres_bindir.clone(), directories: vec![], server: Server { port, database: "postgres" } };
        run(stock
            .tool("initdb")
            .args(["-U", "postgres", "-N", "-E", "UTF8", "--locale=C.UTF-8", "-A", "trust", "-D"])
            .arg(&primary))?;
        let socket = base.display().to_string();
        let common = format!("port={port}\nunix_socket_directories='{socket}'\nlisten_addresses='127.0.0.1'\n{settings}\n");
        append(&primary.join("postgresql.conf"), &common)?;
        stock.directories.push(primary.clone());
        stock.pg_ctl_start(&primary)?;
        if standby {
            let copy = base.join("standby");
            let connection = format!("host=127.0.0.1 port={port} user=postgres application_name=standby");
            run(stock.tool("pg_basebackup").args(["-R", "-X", "stream", "-c", "fast", "-d", &connection, "-D"]).arg(&copy))?;
            append(&copy.join("postgresql.conf"), &format!("port={}\n", port + 1))?;
            stock.directories.push(copy.clone());
            stock.pg_ctl_start(&copy)?;
            stock.server.sql(options, "alter system set synchronous_standby_names = 'standby'")?;
            stock.server.sql(options, "select pg_reload_conf()")?;
        }
        Ok(stock)
    }

    fn tool(&self, program: &str) -> Command {
        let program = self.bindir.join(program);
        if is_root() {
            let mut command = Command::new("setpriv");
            command.args(["--reuid=postgres", "--regid=postgres", "--init-groups"]).arg(program);
            command
        } else {
            Command::new(program)
        }
    }

    fn pg_ctl_start(&self, directory: &Path) -> anyhow::Result<()> {
        let log = directory.join("server.log");
        run(self.tool("pg_ctl").arg("-D").arg(directory).arg("-l").arg(log).args(["-w", "start"])).map(drop)
    }

    /// The primary's data directory.
    pub fn primary(&self) -> anyhow::Result<&Path> {
        Ok(self.directories.first().context("never started")?)
    }

    /// Stops the primary; its standby goes on.
    pub fn stop_primary(&self) -> anyhow::Result<()> {
        let primary = self.primary()?;
        run(self.tool("pg_ctl").arg("-D").arg(primary).args(["-m", "fast", "-w", "stop"])).map(drop)
    }

    /// Starts the stopped primary; the time until a first row.
    pub fn timed_start(&self, options: &Options) -> anyhow::Result<Duration> {
        let primary = self.primary()?;
        let begun = Instant::now();
        let mut command = self.tool("pg_ctl");
        run(command.arg("-D").arg(primary).arg("-l").arg(primary.join("server.log")).args(["-W", "start"]))?;
        self.server.first_row(options, begun)
    }
}

impl Drop for Stock {
    fn drop(&mut self) {
        for directory in self.directories.iter().rev() {
            let _ = clean_up(self.tool("pg_ctl").arg("-D").arg(directory).args(["-m", "immediate", "-w", "stop"]));
            if directory.exists()
                && let Err(error) = std::fs::remove_dir_all(directory)
            {
                eprintln!("ironpage-bench: removing {}: {error}", directory.display());
            }
        }
    }
}

fn is_root() -> bool {
    // SAFETY: geteuid has no preconditions.
    unsafe { libc::geteuid() == 0 }
}

fn append(path: &Path, text: &str) -> anyhow::Result<()> {
    use std::io::Write;
    let mut file = std::fs::OpenOptions::new().append(true).open(path).with_context(|| format!("opening {}", path.display()))?;
    file.write_all(text.as_bytes()).with_context(|| format!("writing {}", path.display()))
}
