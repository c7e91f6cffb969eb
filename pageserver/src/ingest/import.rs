//! A data directory that was shut down cleanly, item by item.

use super::{DATABASE_VERSION, Head, IngestError, Sink};
use ironpage_layout::postgres::control::{ControlFile, state};
use ironpage_layout::rel::PAGE_SIZE;
use ironpage_layout::wire::basebackup::Item;
use ironpage_layout::{BlockNumber, Key, Lsn, Value};
use std::borrow::Cow;

impl Head {
    /// Takes one part of a data directory and puts it into `sink` at `lsn`, where the timeline starts. A fork's size
    /// comes before its pages; pages that never come are zeros.
    pub fn import(&mut self, item: &Item<'_>, lsn: Lsn, sink: &mut impl Sink) -> Result<(), IngestError> {
        let refuse = |what: String, why| Err(IngestError::Import { what, why });
        match *item {
            Item::Control(bytes) => {
                let control = ControlFile::read(bytes)?;
                if control.state.get() != state::SHUTDOWNED {
                    return refuse("pg_control".into(), "the cluster was not shut down cleanly");
                }
                if control.checkpoint_copy.timeline.get() != 1 {
                    return refuse("pg_control".into(), "the cluster is on another Postgres timeline than 1");
                }
                // PG_DATA_CHECKSUM_VERSION (storage/bufpage.h) is the only one there is.
                if control.data_checksum_version.get() > 1 {
                    return refuse("pg_control".into(), "its data checksums are of an unknown version");
                }
                self.control = Some(control);
                let (key, value) = self.control_value()?;
                sink.put(key, lsn, value);
            }
            Item::Tablespace(oid) => {
                self.tablespaces.insert(oid);
                sink.put(Key::tablespace(oid), lsn, Value::Blob(Cow::Borrowed(&[])));
            }
            Item::Database { tablespace, database, version } => {
                if version != DATABASE_VERSION {
                    return refuse(format!("database {tablespace}/{database}"), "its PG_VERSION is not 15");
                }
                self.databases.insert((tablespace, database));
                sink.put(Key::database(tablespace, database), lsn, Value::Blob(Cow::Borrowed(version)));
            }
            Item::RelMap { tablespace, database, map } => {
                self.rel_maps.insert((tablespace, database));
                sink.put(Key::rel_map(tablespace, database), lsn, Value::Blob(Cow::Borrowed(map)));
            }
            Item::RelSize { rel, fork, blocks } => {
                self.relations.restore(rel, fork, blocks);
                sink.put(Key::rel_size(rel, fork), lsn, Value::Blob(Cow::Borrowed(&blocks.to_le_bytes())));
            }
            Item::RelPages { rel, fork, block, pages } => {
                let known = self.relations.blocks(rel, fork).unwrap_or(0);
                for (block, page) in numbered(block.0, pages) {
                    if block >= known {
                        return refuse(format!("block {block} of {rel} fork {fork:?}"), "it lies beyond the size that was sent");
                    }
                    sink.put(Key::page(rel, fork, BlockNumber(block)), lsn, page_value(page));
                }
            }
            Item::SlruPages { slru, page, pages } => {
                for (number, page) in numbered(page, pages) {
                    self.slrus.restore(slru, number);
                    sink.put(Key::slru(slru, number), lsn, page_value(page));
                }
            }
            Item::TwoPhase { xid, state } => {
                self.two_phase.insert(xid);
                sink.put(Key::two_phase(xid), lsn, Value::Blob(Cow::Borrowed(state)));
            }
        }
        Ok(())
    }
}

/// Whole pages with their numbers from `first` on.
fn numbered(first: u32, pages: &[u8]) -> impl Iterator<Item = (u32, &[u8])> {
    (first..=u32::MAX).zip(pages.chunks_exact(PAGE_SIZE))
}

fn page_value(page: &[u8]) -> Value<'_> {
    if page.iter().all(|byte| *byte == 0) { Value::ZeroPage } else { Value::Image(Cow::Borrowed(page)) }
}
