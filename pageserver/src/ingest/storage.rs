//! Creation and truncation of relation files, and relation maps (catalog/storage.c, utils/cache/relmapper.c).

use super::record::Step;
use super::{IngestError, Sink};
use ironpage_layout::postgres::bytes::Reader;
use ironpage_layout::postgres::page::{free_space, visibility};
use ironpage_layout::postgres::rmgr::{relmap, storage};
use ironpage_layout::{BlockNumber, Fork, Key, RelTag, Value};
use std::borrow::Cow;

/// sizeof(RelMapFile): all of pg_filenode.map.
const REL_MAP_SIZE: usize = 512;

fn rel(data: &mut Reader<'_>) -> Option<RelTag> {
    Some(RelTag { tablespace: data.u32()?, database: data.u32()?, relation: data.u32()? })
}

impl<S: Sink> Step<'_, S> {
    pub fn storage(&mut self, info: u8) -> Result<(), IngestError> {
        let mut data = self.main_data();
        match info {
            storage::CREATE => {
                let mut fields = || Some((rel(&mut data)?, data.u32()?));
                let (rel, fork) = fields().ok_or_else(|| self.short())?;
                let fork = u8::try_from(fork).ok().and_then(Fork::from_number);
                let fork = fork.ok_or_else(|| self.malformed("it names an unknown fork"))?;
                self.head.relations.create(rel, fork, self.end, self.sink);
                Ok(())
            }
            storage::TRUNCATE => {
                let mut fields = || Some((data.u32()?, rel(&mut data)?, data.u32()?));
                let (blocks, rel, flags) = fields().ok_or_else(|| self.short())?;
                self.truncate(rel, blocks, flags);
                Ok(())
            }
            _ => Err(self.unknown()),
        }
    }

    /// The order is that of smgr_redo: the map's boundary page needs its size from before.
    fn truncate(&mut self, rel: RelTag, blocks: u32, flags: u32) {
        let end = self.end;
        if flags & storage::TRUNCATE_HEAP != 0 {
            self.head.relations.create(rel, Fork::Main, end, self.sink);
            self.head.relations.truncate(rel, Fork::Main, blocks, end, self.sink);
        }
        if flags & storage::TRUNCATE_FSM != 0 {
            let kept = free_space::blocks_after_truncation(blocks);
            self.head.relations.truncate(rel, Fork::Fsm, kept, end, self.sink);
        }
        if flags & storage::TRUNCATE_VM != 0 {
            let BlockNumber(boundary) = visibility::map_block(blocks);
            let cuts_a_page = !blocks.is_multiple_of(visibility::HEAP_BLOCKS_PER_PAGE);
            let known = self.head.relations.blocks(rel, Fork::Vm).unwrap_or(0);
            if cuts_a_page && boundary < known {
                let key = Key::page(rel, Fork::Vm, BlockNumber(boundary));
                self.sink.put(key, end, Value::VmTruncate { heap_blocks: blocks });
            }
            let kept = boundary + u32::from(cuts_a_page);
            self.head.relations.truncate(rel, Fork::Vm, kept, end, self.sink);
        }
    }

    pub fn rel_map(&mut self, info: u8) -> Result<(), IngestError> {
        if info != relmap::UPDATE {
            return Err(self.unknown());
        }
        let mut data = self.main_data();
        let mut fields = || Some((data.u32()?, data.u32()?, data.u32()?));
        let (database, tablespace, length) = fields().ok_or_else(|| self.short())?;
        let map = data.rest();
        if length as usize != REL_MAP_SIZE || map.len() != REL_MAP_SIZE {
            return Err(self.malformed("a relation map is not 512 bytes long"));
        }
        self.head.rel_maps.insert((tablespace, database));
        self.sink.put(Key::rel_map(tablespace, database), self.end, Value::Blob(Cow::Borrowed(map)));
        Ok(())
    }
}
