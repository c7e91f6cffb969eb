//! Where an endpoint's files are.
//!
//! ```text
//! DIR/run/endpoint-NAME.json, .lock       what its supervisor says; held while it lives
//! DIR/logs/postgres-NAME.log              the supervisor's lines and Postgres's
//! COMPUTE_DIR/endpoints/NAME/
//!     t<TERM>/                            data directory of one start; all in it is a cache
//!     r<NUMBER>/                          that of a start of a read-only endpoint, which has no term
//!     socket/                             Postgres's unix socket, unless the path is too long for one
//!     lib/ironpage.so                     the extension, where Postgres's user can read it
//!     postgresql.auto.conf                what ALTER SYSTEM set, kept from start to start
//! ```
//! Postgres's user owns the data directory and the socket's, and nothing else.

use crate::cluster::{Cluster, Endpoint};
use crate::user::Owner;
use ironpage_layout::Term;
use std::fs;
use std::path::{Path, PathBuf};

/// Longest path of a unix socket (sun_path), less the name Postgres gives it and its lock file.
const SOCKET_DIR_LENGTH_MAX: usize = 107 - "/.s.PGSQL.65535.lock".len();

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Paths {
    pub dir: PathBuf,
    pub log: PathBuf,
    pub state: PathBuf,
    pub lock: PathBuf,
}

/// A data directory and whose it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DataDir {
    pub path: PathBuf,
    pub owner: Owner,
}

impl Paths {
    pub fn of(cluster: &Cluster, endpoint: &Endpoint) -> Paths {
        let name = &endpoint.name;
        Paths {
            dir: cluster.settings.compute_dir.join("endpoints").join(name),
            log: cluster.logs().join(format!("postgres-{name}.log")),
            state: cluster.run().join(format!("endpoint-{name}.json")),
            lock: cluster.run().join(format!("endpoint-{name}.lock")),
        }
    }

    /// Named after the term, unless there is one of that or a higher number: a branch that was reset or restored counts its
    /// terms from the beginning, and those of its old timeline may just be being removed.
    pub fn data_dir(&self, term: Term, owner: &Owner) -> DataDir {
        let number = self.last('t').filter(|last| *last >= term.0).map_or(term.0, |last| last.saturating_add(1));
        DataDir { path: self.dir.join(format!("t{number}")), owner: owner.clone() }
    }

    /// One that no start has used: backends of a killed postmaster may still write to the last one.
    pub fn read_only_data_dir(&self, owner: &Owner) -> DataDir {
        let last = self.last('r').unwrap_or(0);
        DataDir { path: self.dir.join(format!("r{}", last.saturating_add(1))), owner: owner.clone() }
    }

    /// Highest number of a data directory that is there.
    fn last(&self, kind: char) -> Option<u64> {
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        entries.filter_map(|entry| numbered(entry.file_name().to_str()?, kind)).max()
    }

    /// Whether `path` is a data directory some start of this endpoint made.
    pub fn is_data_dir(&self, path: &Path) -> bool {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        path.parent() == Some(&self.dir) && ['t', 'r'].into_iter().any(|kind| numbered(name, kind).is_some())
    }

    pub fn auto_conf(&self) -> PathBuf {
        self.dir.join("postgresql.auto.conf")
    }

    pub fn library_dir(&self) -> PathBuf {
        self.dir.join("lib")
    }

    /// A short path for the unix socket: below the endpoint, or else below /tmp.
    pub fn socket_dir(&self, port: u16) -> PathBuf {
        let below = self.dir.join("socket");
        if below.as_os_str().len() <= SOCKET_DIR_LENGTH_MAX { below } else { PathBuf::from(format!("/tmp/ironpage-{port}")) }
    }
}

/// The number of a data directory's name.
fn numbered(name: &str, kind: char) -> Option<u64> {
    name.strip_prefix(kind)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_data_directory_takes_the_place_of_another() {
        let dir = std::env::temp_dir().join(format!("ironpage-paths-{}", std::process::id()));
        let none = PathBuf::new();
        let paths = Paths { dir: dir.clone(), log: none.clone(), state: none.clone(), lock: none };
        let owner = Owner::of_postgres().unwrap();
        let (primary, reader) = (|term| paths.data_dir(Term(term), &owner).path, || paths.read_only_data_dir(&owner).path);
        assert_eq!((primary(1), reader()), (dir.join("t1"), dir.join("r1")));
        for there in ["t1", "t5", "r2", "lib"] {
            fs::create_dir_all(dir.join(there)).unwrap();
        }
        assert_eq!((primary(1), primary(5), primary(6)), (dir.join("t6"), dir.join("t6"), dir.join("t6")));
        assert_eq!((primary(9), reader()), (dir.join("t9"), dir.join("r3")));
        fs::remove_dir_all(dir).unwrap();
    }
}
