//! What the files of a data directory are, by their names.

use super::BASE;
use ironpage_layout::key::SlruKind;
use ironpage_layout::rel::{GLOBAL_TABLESPACE, Oid};
use ironpage_layout::{Fork, RelTag};

/// A file that is part of the database; all else (settings, statistics, WAL) stays at the source.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DataFile {
    Control,
    /// PG_VERSION of a database.
    Version {
        tablespace: Oid,
        database: Oid,
    },
    /// pg_filenode.map of a database, or of global/ (database 0).
    RelationMap {
        tablespace: Oid,
        database: Oid,
    },
    Relation(RelationFile),
    Slru {
        slru: SlruKind,
        segment: u32,
    },
    TwoPhase {
        xid: u32,
    },
}

/// One file of a relation's fork.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RelationFile {
    pub rel: RelTag,
    pub fork: Fork,
    /// Which gibibyte of it.
    pub segment: u32,
}

/// What the file at `path` is, in the archive of `tablespace` or in the base's. Free space maps are left out: they are
/// hints, and no WAL keeps them right.
pub fn of(tablespace: Option<Oid>, path: &str) -> Option<DataFile> {
    let parts: Vec<&str> = path.split('/').collect();
    if let Some(tablespace) = tablespace {
        return match parts[..] {
            // TABLESPACE_VERSION_DIRECTORY: releases share a tablespace's directory.
            [version, database, name] if version.starts_with("PG_15_") => in_database(tablespace, database.parse().ok()?, name),
            _ => None,
        };
    }
    match parts[..] {
        ["global", "pg_control"] => Some(DataFile::Control),
        ["global", name] => in_database(GLOBAL_TABLESPACE, 0, name),
        ["base", database, name] => in_database(BASE, database.parse().ok()?, name),
        ["pg_twophase", name] if name.len() == 8 => Some(DataFile::TwoPhase { xid: u32::from_str_radix(name, 16).ok()? }),
        [.., name] => {
            let directory = path.strip_suffix(name)?.strip_suffix('/')?;
            let slru = SlruKind::ALL.into_iter().find(|slru| slru.directory() == directory)?;
            let segment = u32::from_str_radix(name, 16).ok().filter(|_| name.len() >= 4)?;
            Some(DataFile::Slru { slru, segment })
        }
        [] => None,
    }
}

fn in_database(tablespace: Oid, database: Oid, name: &str) -> Option<DataFile> {
    match name {
        "PG_VERSION" => return Some(DataFile::Version { tablespace, database }),
        "pg_filenode.map" => return Some(DataFile::RelationMap { tablespace, database }),
        _ => {}
    }
    let (stem, segment) = match name.split_once('.') {
        Some((stem, segment)) => (stem, segment.parse().ok().filter(|segment| *segment > 0)?),
        None => (name, 0),
    };
    let (relation, suffix) = stem.split_at(stem.find('_').unwrap_or(stem.len()));
    let fork = Fork::ALL.into_iter().find(|fork| fork.suffix() == suffix).filter(|fork| *fork != Fork::Fsm)?;
    let relation = relation.parse().ok()?;
    Some(DataFile::Relation(RelationFile { rel: RelTag { tablespace, database, relation }, fork, segment }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_known_by_their_names() {
        let relation = |tablespace, database, relation, fork, segment| {
            Some(DataFile::Relation(RelationFile { rel: RelTag { tablespace, database, relation }, fork, segment }))
        };
        assert_eq!(of(None, "global/1262"), relation(1664, 0, 1262, Fork::Main, 0));
        assert_eq!(of(None, "base/5/16384.3"), relation(1663, 5, 16384, Fork::Main, 3));
        assert_eq!(of(None, "base/5/16384_vm.1"), relation(1663, 5, 16384, Fork::Vm, 1));
        assert_eq!(of(Some(16999), "PG_15_202209061/5/16384_init"), relation(16999, 5, 16384, Fork::Init, 0));
        assert_eq!(of(Some(16999), "PG_14_202107181/5/16384"), None);
        assert_eq!(of(None, "base/5/PG_VERSION"), Some(DataFile::Version { tablespace: 1663, database: 5 }));
        assert_eq!(of(None, "global/pg_filenode.map"), Some(DataFile::RelationMap { tablespace: 1664, database: 0 }));
        assert_eq!(of(None, "pg_xact/00A1"), Some(DataFile::Slru { slru: SlruKind::Clog, segment: 0xA1 }));
        assert_eq!(of(None, "pg_multixact/members/0000"), Some(DataFile::Slru { slru: SlruKind::MultiMembers, segment: 0 }));
        assert_eq!(of(None, "pg_twophase/000002F0"), Some(DataFile::TwoPhase { xid: 0x2F0 }));
        for other in [
            "PG_VERSION",
            "backup_label",
            "base/5/16384_fsm",
            "base/5/t3_16384",
            "pg_wal/000000010000000000000001",
            "pg_stat/x",
            "",
        ] {
            assert_eq!(of(None, other), None, "{other}");
        }
    }
}
