//! Which relation forks exist, how large they are, and when they were cut.

use super::Sink;
use ironpage_layout::rel::PAGE_SIZE;
use ironpage_layout::value::RelCuts;
use ironpage_layout::{BlockNumber, Fork, Key, Lsn, Oid, RelTag, Value};
use std::borrow::Cow;
use std::collections::HashMap;

#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct ForkState {
    blocks: u32,
    cuts: RelCuts,
}

/// All forks of all relations of a timeline at its head.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Relations {
    forks: HashMap<(RelTag, Fork), ForkState>,
    total_blocks: u64,
}

impl Relations {
    /// Blocks of a fork; `None` if it does not exist.
    pub fn blocks(&self, rel: RelTag, fork: Fork) -> Option<u32> {
        self.forks.get(&(rel, fork)).map(|state| state.blocks)
    }

    /// When a fork was cut; `None` if it does not exist.
    pub fn cuts(&self, rel: RelTag, fork: Fork) -> Option<&RelCuts> {
        self.forks.get(&(rel, fork)).map(|state| &state.cuts)
    }

    /// All forks and their sizes, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (RelTag, Fork, u32)> {
        self.forks.iter().map(|((rel, fork), state)| (*rel, *fork, state.blocks))
    }

    /// Bytes of all forks.
    pub fn logical_size(&self) -> u64 {
        self.total_blocks * PAGE_SIZE as u64
    }

    /// A fork as it was stored or is imported, without a former life.
    pub fn restore(&mut self, rel: RelTag, fork: Fork, blocks: u32) {
        let state = self.forks.entry((rel, fork)).or_default();
        self.total_blocks = self.total_blocks - u64::from(state.blocks) + u64::from(blocks);
        state.blocks = blocks;
    }

    /// The cuts of a fork that exists, as they were stored. Those of a fork that is gone are not needed: its next life hides them.
    pub fn restore_cuts(&mut self, rel: RelTag, fork: Fork, cuts: RelCuts) {
        if let Some(state) = self.forks.get_mut(&(rel, fork)) {
            state.cuts = cuts;
        }
    }

    /// The fork exists from `lsn` on, empty. Nothing if it does already.
    pub fn create(&mut self, rel: RelTag, fork: Fork, lsn: Lsn, sink: &mut impl Sink) {
        if self.forks.contains_key(&(rel, fork)) {
            return;
        }
        self.begin_life(rel, fork, lsn, sink);
        put_size(rel, fork, 0, lsn, sink);
    }

    /// The fork has `block`, and exists.
    pub fn cover(&mut self, rel: RelTag, fork: Fork, block: BlockNumber, lsn: Lsn, sink: &mut impl Sink) {
        self.extend(rel, fork, block.0.saturating_add(1), lsn, sink);
    }

    /// The fork has at least `blocks`, and exists.
    pub fn extend(&mut self, rel: RelTag, fork: Fork, blocks: u32, lsn: Lsn, sink: &mut impl Sink) {
        if !self.forks.contains_key(&(rel, fork)) {
            self.begin_life(rel, fork, lsn, sink);
        }
        if let Some(state) = self.forks.get_mut(&(rel, fork))
            && state.blocks < blocks
        {
            self.total_blocks += u64::from(blocks - state.blocks);
            state.blocks = blocks;
            put_size(rel, fork, blocks, lsn, sink);
        }
    }

    /// The fork has no more than `blocks`. Nothing if it had no more before, or does not exist.
    pub fn truncate(&mut self, rel: RelTag, fork: Fork, blocks: u32, lsn: Lsn, sink: &mut impl Sink) {
        if let Some(state) = self.forks.get_mut(&(rel, fork))
            && state.blocks > blocks
        {
            self.total_blocks -= u64::from(state.blocks - blocks);
            state.blocks = blocks;
            state.cuts.cut(lsn, blocks);
            put_cuts(rel, fork, &state.cuts, lsn, sink);
            put_size(rel, fork, blocks, lsn, sink);
        }
    }

    /// All forks of the relation are gone.
    pub fn drop_relation(&mut self, rel: RelTag, lsn: Lsn, sink: &mut impl Sink) {
        for fork in Fork::ALL {
            self.drop_fork(rel, fork, lsn, sink);
        }
    }

    /// All relations of a database in a tablespace are gone.
    pub fn drop_database(&mut self, tablespace: Oid, database: Oid, lsn: Lsn, sink: &mut impl Sink) {
        for (rel, fork, _) in self.of_database(tablespace, database) {
            self.drop_fork(rel, fork, lsn, sink);
        }
    }

    /// The forks of a database in a tablespace, in order.
    pub fn of_database(&self, tablespace: Oid, database: Oid) -> Vec<(RelTag, Fork, u32)> {
        let of = |rel: &RelTag| rel.tablespace == tablespace && rel.database == database;
        let mut found: Vec<_> = self.iter().filter(|(rel, ..)| of(rel)).collect();
        found.sort_unstable();
        found
    }

    fn drop_fork(&mut self, rel: RelTag, fork: Fork, lsn: Lsn, sink: &mut impl Sink) {
        if let Some(mut state) = self.forks.remove(&(rel, fork)) {
            self.total_blocks -= u64::from(state.blocks);
            state.cuts.cut(lsn, 0);
            put_cuts(rel, fork, &state.cuts, lsn, sink);
            sink.put(Key::rel_size(rel, fork), lsn, Value::Tombstone);
        }
    }

    /// A file number may be used again long after its first relation went, when nothing here remembers that: each life
    /// begins with a cut. It lies just before the record's end, so that the record's own values are not of the past.
    fn begin_life(&mut self, rel: RelTag, fork: Fork, lsn: Lsn, sink: &mut impl Sink) {
        let state = self.forks.entry((rel, fork)).or_default();
        state.cuts.cut(Lsn(lsn.0.saturating_sub(1)), 0);
        put_cuts(rel, fork, &state.cuts, lsn, sink);
    }
}

fn put_size(rel: RelTag, fork: Fork, blocks: u32, lsn: Lsn, sink: &mut impl Sink) {
    sink.put(Key::rel_size(rel, fork), lsn, Value::Blob(Cow::Borrowed(&blocks.to_le_bytes())));
}

fn put_cuts(rel: RelTag, fork: Fork, cuts: &RelCuts, lsn: Lsn, sink: &mut impl Sink) {
    sink.put(Key::rel_cuts(rel, fork), lsn, Value::Blob(Cow::Owned(cuts.encode())));
}

#[cfg(test)]
mod tests {
    use super::*;
    use ironpage_layout::KeyKind;

    const REL: RelTag = RelTag { tablespace: 1663, database: 5, relation: 16384 };

    /// The last size and cuts put for `REL`'s main fork.
    #[derive(Default)]
    struct Last {
        size: Option<Value<'static>>,
        cuts: RelCuts,
        puts: usize,
    }

    impl Sink for Last {
        fn put(&mut self, key: Key, _: Lsn, value: Value<'_>) {
            let mut bytes = Vec::new();
            value.encode(&mut bytes);
            self.puts += 1;
            match (key.kind, value) {
                (KeyKind::RelCuts, Value::Blob(bytes)) => self.cuts = RelCuts::decode(&bytes).unwrap(),
                (KeyKind::RelSize, Value::Tombstone) => self.size = Some(Value::Tombstone),
                (KeyKind::RelSize, Value::Blob(bytes)) => self.size = Some(Value::Blob(Cow::Owned(bytes.into_owned()))),
                other => panic!("{other:?}"),
            }
        }
    }

    fn blob(blocks: u32) -> Option<Value<'static>> {
        Some(Value::Blob(Cow::Owned(blocks.to_le_bytes().to_vec())))
    }

    #[test]
    fn a_reused_file_number_does_not_see_its_former_life() {
        let (mut relations, mut last) = (Relations::default(), Last::default());
        relations.create(REL, Fork::Main, Lsn(80), &mut last);
        assert_eq!((relations.blocks(REL, Fork::Main), &last.size), (Some(0), &blob(0)));
        relations.cover(REL, Fork::Main, BlockNumber(9), Lsn(160), &mut last);
        assert_eq!((relations.logical_size(), &last.size), (10 * 8192, &blob(10)));
        relations.truncate(REL, Fork::Main, 4, Lsn(240), &mut last);
        assert_eq!((last.cuts.cut_of(3), last.cuts.cut_of(4)), (Lsn(79), Lsn(240)));
        let puts = last.puts;
        relations.truncate(REL, Fork::Main, 7, Lsn(248), &mut last);
        relations.create(REL, Fork::Main, Lsn(248), &mut last);
        relations.cover(REL, Fork::Main, BlockNumber(3), Lsn(248), &mut last);
        assert_eq!((last.puts, relations.logical_size()), (puts, 4 * 8192));

        relations.drop_relation(REL, Lsn(320), &mut last);
        assert_eq!((relations.blocks(REL, Fork::Main), relations.logical_size()), (None, 0));
        assert_eq!((last.size.clone(), last.cuts.cut_of(0)), (Some(Value::Tombstone), Lsn(320)));
        // The first touch of its next life keeps its own value, and none of the former.
        relations.cover(REL, Fork::Main, BlockNumber(0), Lsn(400), &mut last);
        assert_eq!((last.size.clone(), last.cuts.cut_of(0)), (blob(1), Lsn(399)));
    }

    #[test]
    fn dropping_a_database_leaves_the_others() {
        let (mut relations, mut last) = (Relations::default(), Last::default());
        relations.restore(REL, Fork::Main, 2);
        relations.restore(RelTag { database: 6, ..REL }, Fork::Main, 3);
        relations.restore(RelTag { tablespace: 20000, ..REL }, Fork::Init, 4);
        relations.drop_database(1663, 5, Lsn(80), &mut last);
        assert_eq!(relations.logical_size(), 7 * 8192);
        assert_eq!(relations.of_database(1663, 6).len(), 1);
        assert_eq!(relations.of_database(1663, 5), []);
    }
}
