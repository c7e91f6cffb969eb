//! Databases and tablespaces (commands/dbcommands.c, commands/tablespace.c).

use super::record::Step;
use super::{DATABASE_VERSION, IngestAction, IngestError, Sink};
use ironpage_layout::postgres::rmgr::{database, tablespace};
use ironpage_layout::{Fork, Key, Oid, RelTag, Value};
use std::borrow::Cow;

/// A database was copied file by file: CREATE DATABASE with STRATEGY = FILE_COPY, or moved to another tablespace.
///
/// The copy's sizes, directory and map are put already, but not the contents. For each of `forks` read the blocks
/// of the first relation and put them as images of the second; copy the blob under the first of `rel_map` to the
/// second. Both at the record's end, as which the source is to be read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CopyDatabase {
    /// (from, to, fork, blocks)
    pub forks: Vec<(RelTag, RelTag, Fork, u32)>,
    /// (from, to), if the source has one.
    pub rel_map: Option<(Key, Key)>,
}

impl<S: Sink> Step<'_, S> {
    pub fn database(&mut self, info: u8) -> Result<IngestAction, IngestError> {
        let mut data = self.main_data();
        match info {
            database::CREATE_FILE_COPY => {
                let mut fields = || Some((data.u32()?, data.u32()?, data.u32()?, data.u32()?));
                let (database, tablespace, from_database, from_tablespace) = fields().ok_or_else(|| self.short())?;
                let copy = self.copy_database((from_tablespace, from_database), (tablespace, database));
                Ok(IngestAction::CopyDatabase(copy))
            }
            database::CREATE_WAL_LOG => {
                let mut fields = || Some((data.u32()?, data.u32()?));
                let (database, tablespace) = fields().ok_or_else(|| self.short())?;
                self.create_database(tablespace, database);
                Ok(IngestAction::None)
            }
            database::DROP => {
                let mut fields = || Some((data.u32()?, usize::try_from(data.i32()?).ok()?));
                let (database, count) = fields().ok_or_else(|| self.short())?;
                for tablespace in data.u32s(count).ok_or_else(|| self.short())? {
                    self.drop_database(tablespace, database);
                }
                Ok(IngestAction::None)
            }
            _ => Err(self.unknown()),
        }
    }

    fn create_database(&mut self, tablespace: Oid, database: Oid) {
        self.head.databases.insert((tablespace, database));
        self.sink.put(Key::database(tablespace, database), self.end, Value::Blob(Cow::Borrowed(DATABASE_VERSION)));
    }

    fn drop_database(&mut self, tablespace: Oid, database: Oid) {
        self.head.relations.drop_database(tablespace, database, self.end, self.sink);
        if self.head.rel_maps.remove(&(tablespace, database)) {
            self.sink.put(Key::rel_map(tablespace, database), self.end, Value::Tombstone);
        }
        if self.head.databases.remove(&(tablespace, database)) {
            self.sink.put(Key::database(tablespace, database), self.end, Value::Tombstone);
        }
    }

    /// dbase_redo: what lies in the way of the copy goes first.
    fn copy_database(&mut self, from: (Oid, Oid), to: (Oid, Oid)) -> CopyDatabase {
        self.drop_database(to.0, to.1);
        self.create_database(to.0, to.1);
        let mut forks = Vec::new();
        for (source, fork, blocks) in self.head.relations.of_database(from.0, from.1) {
            let target = RelTag { tablespace: to.0, database: to.1, relation: source.relation };
            self.head.relations.create(target, fork, self.end, self.sink);
            self.head.relations.extend(target, fork, blocks, self.end, self.sink);
            forks.push((source, target, fork, blocks));
        }
        let has_map = self.head.rel_maps.contains(&from);
        if has_map {
            self.head.rel_maps.insert(to);
        }
        CopyDatabase { forks, rel_map: has_map.then(|| (Key::rel_map(from.0, from.1), Key::rel_map(to.0, to.1))) }
    }

    pub fn tablespace(&mut self, info: u8) -> Result<(), IngestError> {
        let oid = self.main_data().u32().ok_or_else(|| self.short())?;
        let value = match info {
            tablespace::CREATE => {
                self.head.tablespaces.insert(oid);
                Value::Blob(Cow::Borrowed(&[]))
            }
            tablespace::DROP => {
                self.head.tablespaces.remove(&oid);
                // Directories of databases inside it are empty by now, and go with it.
                let inside: Vec<_> = self.head.databases.iter().filter(|at| at.0 == oid).copied().collect();
                for (tablespace, database) in inside {
                    self.drop_database(tablespace, database);
                }
                Value::Tombstone
            }
            _ => return Err(self.unknown()),
        };
        self.sink.put(Key::tablespace(oid), self.end, value);
        Ok(())
    }
}
