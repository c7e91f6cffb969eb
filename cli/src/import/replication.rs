//! A base backup of a running server, over its replication protocol: by the stock pg_basebackup.

use super::data_dir::refuse;
use super::scratch::{self, Scratch};
use crate::error::{Error, Result};
use crate::programs::Programs;
use crate::progress;
use crate::sys;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// A server's address, as libpq reads it, with the password apart: arguments are seen by everyone on the machine.
#[derive(Clone, PartialEq, Eq)]
pub struct Server {
    url: String,
    password: Option<String>,
}

impl Server {
    /// `None` if the text is no URL of a Postgres server.
    pub fn parse(text: &str) -> Option<Server> {
        let rest = text.strip_prefix("postgres://").or_else(|| text.strip_prefix("postgresql://"))?;
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, behind) = rest.split_at(end);
        let plain = Server { url: format!("postgresql://{rest}"), password: None };
        let Some((user, hosts)) = authority.rsplit_once('@') else { return Some(plain) };
        let Some((name, password)) = user.split_once(':') else { return Some(plain) };
        let Some(password) = decoded(password) else { return Some(plain) };
        Some(Server { url: format!("postgresql://{name}@{hosts}{behind}"), password: Some(password) })
    }

    /// Without the password.
    pub fn name(&self) -> &Path {
        Path::new(&self.url)
    }

    fn command(&self, program: &Path, scratch: &Scratch) -> Command {
        let mut command = Command::new(program);
        command.arg("-d").arg(&self.url).current_dir("/").stdin(Stdio::null()).env("PGAPPNAME", "ironpage import");
        if let Some(password) = &self.password {
            command.env("PGPASSWORD", password);
        }
        scratch.owner.run_as(&mut command);
        sys::dies_with_us(&mut command, libc::SIGTERM);
        command
    }

    /// Takes a base backup into the scratch, with the WAL it needs.
    pub fn back_up(&self, programs: &Programs, scratch: &Scratch) -> Result<()> {
        let about = self.ask(programs, scratch)?;
        if about.version / 10_000 != 15 {
            let why = format!("it is a server of version {}, and only Postgres 15 can be imported", about.version / 10_000);
            return Err(refuse(self.name(), why, "pg_upgrade, or pg_dump and psql into an endpoint, bring its data to 15"));
        }
        scratch::check_space(about.bytes, &scratch.dir, self.name())?;
        progress::line(&format!("base backup of {}", self.url));
        let program = programs.postgres("pg_basebackup");
        let mut command = self.command(&program, scratch);
        command.arg("-D").arg(scratch.data()).args(["-Fp", "-X", "stream", "-c", "fast", "--no-sync", "--no-manifest", "-w"]);
        for (oid, location) in &about.tablespaces {
            let target = scratch.tablespace(*oid)?;
            // '=' parts the two halves, a backslash keeps it from doing so (tablespace_list_append, pg_basebackup.c).
            let escaped = |path: &str| path.replace('=', "\\=");
            command.arg("-T").arg(format!("{}={}", escaped(location), escaped(&target.to_string_lossy())));
        }
        let output = run(&mut command, &program)?;
        if output.status.success() {
            return Ok(());
        }
        let way_out = "the user needs the REPLICATION attribute and a line for 'replication' in pg_hba.conf, the server max_wal_senders of 2 more";
        Err(refuse(self.name(), format!("pg_basebackup failed: {}", said(&output)), way_out))
    }

    fn ask(&self, programs: &Programs, scratch: &Scratch) -> Result<About> {
        let program = programs.postgres("psql");
        let mut command = self.command(&program, scratch);
        command.args(["-XAtqw", "-v", "ON_ERROR_STOP=1", "-c", ABOUT]);
        let output = run(&mut command, &program)?;
        if !output.status.success() {
            let way_out =
                "the same user must be able to connect to a database and for replication; a password can stand in PGPASSWORD";
            return Err(refuse(self.name(), format!("psql failed: {}", said(&output)), way_out));
        }
        let strange = || refuse(self.name(), "it does not answer as a Postgres does", "name a Postgres 15");
        let text = String::from_utf8(output.stdout).map_err(|_| strange())?;
        let mut lines = text.lines();
        let mut number = || lines.next()?.parse::<u64>().ok();
        let (version, bytes) = (number().ok_or_else(strange)?, number().ok_or_else(strange)?);
        let tablespace = |line: &str| {
            let (oid, location) = line.split_once(' ')?;
            Some((oid.parse().ok()?, location.to_string()))
        };
        let tablespaces = lines.filter(|line| !line.is_empty()).map(|line| tablespace(line).ok_or_else(strange));
        Ok(About { version, bytes, tablespaces: tablespaces.collect::<Result<_>>()? })
    }
}

struct About {
    version: u64,
    bytes: u64,
    tablespaces: Vec<(u32, String)>,
}

/// Version; bytes of all tablespaces, 0 of those the user may not look into, and a few segments of WAL; the tablespaces
/// that are not inside the data directory.
const ABOUT: &str = "select current_setting('server_version_num');\
    select 67108864 + coalesce(sum(case when has_tablespace_privilege(oid, 'create') or pg_has_role('pg_read_all_stats', 'usage') \
        or oid in (select dattablespace from pg_database where datname = current_database()) \
        then pg_tablespace_size(oid) else 0 end), 0) from pg_tablespace;\
    select oid || ' ' || pg_tablespace_location(oid) from pg_tablespace where pg_tablespace_location(oid) like '/%'";

fn run(command: &mut Command, program: &Path) -> Result<Output> {
    command.output().map_err(|source| Error::Program { program: program.to_path_buf(), source })
}

fn said(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    text.trim().lines().collect::<Vec<_>>().join("; ")
}

/// A part of a URL without its %XX.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&byte, behind)) = rest.split_first() {
        rest = behind;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = rest.get(2..)?;
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_kept_out_of_arguments() {
        let parsed = |text| Server::parse(text).map(|server| (server.url, server.password));
        let url = |url: &str, password: Option<&str>| Some((url.to_string(), password.map(String::from)));
        assert_eq!(parsed("postgres://h/db"), url("postgresql://h/db", None));
        assert_eq!(parsed("postgresql://u@h:5432/db"), url("postgresql://u@h:5432/db", None));
        assert_eq!(parsed("postgres://u:p%40ss:x@h/db?a=b:c@d"), url("postgresql://u@h/db?a=b:c@d", Some("p@ss:x")));
        assert_eq!(parsed("postgres://u:p@h1,h2?x=1"), url("postgresql://u@h1,h2?x=1", Some("p")));
        assert_eq!(parsed("postgres:///db?host=/tmp"), url("postgresql:///db?host=/tmp", None));
        assert_eq!(parsed("/var/lib/postgresql"), None);
    }
}
