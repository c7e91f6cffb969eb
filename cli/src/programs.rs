//! The programs and libraries a cluster is made of, and where they are.

use crate::error::{Error, Result};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Every file a cluster needs to run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Programs {
    pub ironpage: PathBuf,
    pub safekeeper: PathBuf,
    pub pageserver: PathBuf,
    /// Preloaded into the stock `postgres` that replays WAL for the pageserver.
    pub redo_library: PathBuf,
    /// The extension, loaded by every endpoint.
    pub extension: PathBuf,
    /// Where `postgres`, `initdb` and `psql` are.
    pub postgres_bindir: PathBuf,
}

impl Programs {
    /// Finds them all, or says which is missing. Ours lie beside this program; the extension may be where Postgres looks instead.
    pub fn find() -> Result<Programs> {
        let ironpage = std::env::current_exe().map_err(|source| Error::Program { program: "/proc/self/exe".into(), source })?;
        let beside = ironpage.parent().unwrap_or(Path::new("/")).to_path_buf();
        let ours = |name: &str| {
            let path = beside.join(name);
            path.is_file().then_some(path).ok_or_else(|| missing(name, &beside))
        };
        let postgres_bindir = postgres_bindir()?;
        let extension = match ours("ironpage.so") {
            Ok(path) => path,
            Err(error) => {
                let installed = pg_config(&postgres_bindir, "--pkglibdir").map(|dir| Path::new(&dir).join("ironpage.so"));
                installed.filter(|path| path.is_file()).ok_or(error)?
            }
        };
        Ok(Programs {
            safekeeper: ours("safekeeper")?,
            pageserver: ours("pageserver")?,
            redo_library: ours("redo.so")?,
            extension,
            postgres_bindir,
            ironpage,
        })
    }

    pub fn postgres(&self, program: &str) -> PathBuf {
        self.postgres_bindir.join(program)
    }
}

fn missing(name: &str, dir: &Path) -> Error {
    Error::Missing { what: format!("{name} in {}", dir.display()), way_out: "`./dev build` makes it".into() }
}

/// Where PostgreSQL 15's server programs are: what `$PG_CONFIG` says, Debian's place, or the PATH.
pub fn postgres_bindir() -> Result<PathBuf> {
    let has_server = |dir: &PathBuf| dir.join("postgres").is_file();
    if let Some(chosen) = std::env::var_os("PG_CONFIG") {
        let dir = run(Path::new(&chosen), "--bindir").map(PathBuf::from);
        let dir = dir.filter(has_server).ok_or_else(|| Error::Missing {
            what: format!("the server of PG_CONFIG={}", chosen.display()),
            way_out: "point it to the pg_config of an installed PostgreSQL 15, or unset it".into(),
        })?;
        let version = server_version(&dir)?;
        if version / 10_000 != 15 {
            return Err(Error::Refused(format!(
                "PG_CONFIG={} is of PostgreSQL {}: point it to the pg_config of an installed PostgreSQL 15, or unset it",
                chosen.display(),
                version / 10_000
            )));
        }
        return Ok(dir);
    }
    let debian = PathBuf::from("/usr/lib/postgresql/15/bin");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut dirs = std::iter::once(debian).chain(std::env::split_paths(&path));
    dirs.find(|dir| has_server(dir) && server_version(dir).is_ok_and(|version| version / 10_000 == 15)).ok_or_else(|| {
        Error::Missing { what: "PostgreSQL 15".into(), way_out: "`apt-get install postgresql-15`, as `./dev` does".into() }
    })
}

/// PG_VERSION_NUM of the server in `bindir`, like 150020.
pub fn server_version(bindir: &Path) -> Result<u32> {
    let program = bindir.join("postgres");
    let text = run(&program, "--version").unwrap_or_default();
    parse_version(&text).ok_or_else(|| Error::Missing {
        what: format!("the version of {}", program.display()),
        way_out: format!("it answered '{text}' to --version; reinstall PostgreSQL 15"),
    })
}

/// `postgres (PostgreSQL) 15.20 (Debian 15.20-0+deb12u1)`
fn parse_version(text: &str) -> Option<u32> {
    let (major, minor) = text.split_whitespace().nth(2)?.split_once('.')?;
    Some(major.parse::<u32>().ok()?.checked_mul(10_000)? + minor.parse::<u32>().ok()?)
}

/// One answer of the `pg_config` that belongs to the server in `bindir`, if it is installed.
pub fn pg_config(bindir: &Path, question: &str) -> Option<String> {
    let beside = bindir.join("pg_config");
    let program = if beside.is_file() { beside } else { PathBuf::from("pg_config") };
    let same = run(&program, "--bindir")? == bindir.to_string_lossy();
    run(&program, question).filter(|_| same)
}

fn run(program: &Path, argument: &str) -> Option<String> {
    let output = Command::new(program).arg(argument).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_postgres_prints_them() {
        assert_eq!(parse_version("postgres (PostgreSQL) 15.20 (Debian 15.20-0+deb12u1)"), Some(150_020));
        assert_eq!(parse_version("postgres (PostgreSQL) 16devel"), None);
    }
}
