//! The user Postgres runs as: ourselves, or an unprivileged one if we are root.

use crate::error::{AtPath, Error, Result};
use crate::sys;
use std::fs::{self, File};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, chown, fchown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// Whom a data directory belongs to. Everything made through it is private to that user.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Owner {
    /// `None`: we are that user ourselves, nothing changes hands.
    other: Option<(u32, u32)>,
    pub name: String,
}

impl Owner {
    /// `postgres`, or else `nobody`, if we are root; ourselves otherwise.
    pub fn of_postgres() -> Result<Owner> {
        if !sys::is_root() {
            return Ok(Owner { other: None, name: "you".into() });
        }
        let path = Path::new("/etc/passwd");
        let passwd = fs::read_to_string(path).at("read", path)?;
        let find = |name: &str| {
            passwd.lines().find_map(|line| {
                let mut fields = line.split(':');
                (fields.next() == Some(name)).then_some(())?;
                let uid = fields.nth(1)?.parse().ok().filter(|uid| *uid != 0)?;
                Some(Owner { other: Some((uid, fields.next()?.parse().ok()?)), name: name.to_string() })
            })
        };
        find("postgres").or_else(|| find("nobody")).ok_or_else(|| Error::Missing {
            what: "an unprivileged user for Postgres".into(),
            way_out: "Postgres refuses to run as root, and /etc/passwd has neither 'postgres' nor 'nobody'; `adduser --system postgres` makes one".into(),
        })
    }

    /// Its user and group, if they are not our own.
    pub fn ids(&self) -> Option<(u32, u32)> {
        self.other
    }

    /// The command will run as this user.
    pub fn run_as<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        match self.other {
            Some((uid, gid)) => command.uid(uid).gid(gid),
            None => command,
        }
    }

    /// A new file of mode 0600.
    pub fn create_file(&self, path: &Path) -> Result<File> {
        let file = File::options().write(true).create_new(true).mode(0o600).open(path).at("create", path)?;
        if let Some((uid, gid)) = self.other {
            fchown(&file, Some(uid), Some(gid)).at("change the owner of", path)?;
        }
        Ok(file)
    }

    /// A new directory of mode 0700. One that is there already is left as it is.
    pub fn create_dir(&self, path: &Path) -> Result<()> {
        match fs::DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists && path.is_dir() => return Ok(()),
            made => made.at("create directory", path)?,
        }
        if let Some((uid, gid)) = self.other {
            chown(path, Some(uid), Some(gid)).at("change the owner of", path)?;
        }
        Ok(())
    }

    /// Whether this user may enter `dir`, through all the directories above it.
    pub fn can_enter(&self, dir: &Path) -> bool {
        if self.other.is_none() {
            return true;
        }
        let mut test = Command::new("/usr/bin/test");
        test.arg("-x").arg(dir).stdin(Stdio::null()).current_dir("/");
        self.run_as(&mut test).status().is_ok_and(|status| status.success())
    }
}
