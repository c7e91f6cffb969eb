//! A timeline at its newest record.

use super::relations::Relations;
use super::slru::SlruPages;
use super::{IngestAction, IngestError, Sink, record};
use ironpage_layout::history::{History, NO_COMMIT, bucket_of};
use ironpage_layout::key::SlruKind;
use ironpage_layout::postgres::control::ControlFile;
use ironpage_layout::postgres::wal::Record;
use ironpage_layout::value::RelCuts;
use ironpage_layout::wire::basebackup::Item;
use ironpage_layout::{BlockNumber, Fork, Key, KeyKind, Lsn, Oid, RelTag, Value};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

/// What the PG_VERSION file of each database says.
pub const DATABASE_VERSION: &[u8] = b"15\n";

/// The in-memory state of one timeline at `last_record_lsn`: all that ingest needs to know of the past.
#[derive(Clone, PartialEq, Debug)]
pub struct Head {
    pub(super) relations: Relations,
    pub(super) slrus: SlruPages,
    /// (tablespace, database)
    pub(super) databases: BTreeSet<(Oid, Oid)>,
    pub(super) tablespaces: BTreeSet<Oid>,
    /// (tablespace, database)
    pub(super) rel_maps: BTreeSet<(Oid, Oid)>,
    pub(super) two_phase: BTreeSet<u32>,
    /// How far each replication origin came: its LSN, and ours.
    pub(super) origins: BTreeMap<u16, (Lsn, Lsn)>,
    pub(super) control: Option<ControlFile>,
    pub(super) last_record_lsn: Lsn,
    pub(super) prev_record_lsn: Lsn,
    /// As of `last_record_lsn`.
    pub(super) history: History,
    /// A page of multixact offsets that began before its own record (RecordNewMultiXact, multixact.c).
    pub(super) begun_offsets_page: Option<u32>,
    /// Up to here pages may be newer than the record being taken, or gone: an import of a base backup (see
    /// [`Head::set_consistent_from`]).
    pub(super) consistent_from: Lsn,
}

impl Head {
    /// An empty timeline, to import into: it has `start_lsn`, a record end, and `prev`, the start of that record.
    pub fn new(start_lsn: Lsn, prev: Lsn) -> Head {
        Head {
            relations: Relations::default(),
            slrus: SlruPages::default(),
            databases: BTreeSet::new(),
            tablespaces: BTreeSet::new(),
            rel_maps: BTreeSet::new(),
            two_phase: BTreeSet::new(),
            origins: BTreeMap::new(),
            control: None,
            last_record_lsn: start_lsn,
            prev_record_lsn: prev,
            history: History {
                commit_time: NO_COMMIT,
                commit_time_max: NO_COMMIT,
                before: Lsn::INVALID,
                prev_record_lsn: Lsn::INVALID,
            },
            begun_offsets_page: None,
            consistent_from: Lsn::INVALID,
        }
    }

    /// What was imported is a base backup that ended at `lsn`: its files are of different times before that, each as new as
    /// the timeline's start or newer. Redo skips what a page has already; what is ours is a value that does not depend on
    /// the one before, or, like bits of a visibility map, ends the same when it is done once more. A relation that was
    /// dropped or truncated meanwhile may lack pages that records before change (log_invalid_page, xlogutils.c).
    pub fn set_consistent_from(&mut self, lsn: Lsn) {
        self.consistent_from = lsn;
    }

    /// The head at `last_record_lsn`, from what was stored as of then: the newest value, encoded, of each key of all kinds
    /// but `Page`. Of `Slru` keys only those that live may come; their values do not matter and may be empty. Of `History`
    /// keys only that of the bucket of `last_record_lsn` is needed.
    pub fn load<V: AsRef<[u8]>>(
        last_record_lsn: Lsn,
        prev: Lsn,
        stored: impl IntoIterator<Item = (Key, V)>,
    ) -> Result<Head, IngestError> {
        let mut head = Head::new(last_record_lsn, prev);
        let mut cuts = Vec::new();
        for (key, bytes) in stored {
            head.load_one(key, bytes.as_ref(), &mut cuts)?;
        }
        // Sizes and cuts may come in any order.
        for (key, fork, decoded) in cuts {
            head.relations.restore_cuts(key, fork, decoded);
        }
        head.control()?;
        if head.history.prev_record_lsn != prev {
            return Err(IngestError::NoHistory { lsn: last_record_lsn });
        }
        Ok(head)
    }

    fn load_one(&mut self, key: Key, bytes: &[u8], cuts: &mut Vec<(RelTag, Fork, RelCuts)>) -> Result<(), IngestError> {
        let bad = |why| IngestError::Stored { key, why };
        if key.kind == KeyKind::Slru {
            let slru = u8::try_from(key.tablespace).ok().and_then(SlruKind::from_number).ok_or(bad("no such SLRU"))?;
            self.slrus.restore(slru, key.block);
            return Ok(());
        }
        let blob = match Value::decode(bytes).map_err(|_| bad("its value does not decode"))? {
            Value::Tombstone => return Ok(()),
            Value::Blob(blob) => blob,
            _ => return Err(bad("its value is neither a blob nor a tombstone")),
        };
        let fork = || Fork::from_number(key.fork).ok_or(bad("no such fork"));
        match key.kind {
            KeyKind::RelSize => {
                let blocks = <[u8; 4]>::try_from(&blob[..]).map_err(|_| bad("a size is not 4 bytes long"))?;
                self.relations.restore(key.rel(), fork()?, u32::from_le_bytes(blocks));
            }
            KeyKind::RelCuts => {
                cuts.push((key.rel(), fork()?, RelCuts::decode(&blob).ok_or(bad("its cuts do not grow"))?));
            }
            KeyKind::RelMap => _ = self.rel_maps.insert((key.tablespace, key.database)),
            KeyKind::Database => _ = self.databases.insert((key.tablespace, key.database)),
            KeyKind::Tablespace => _ = self.tablespaces.insert(key.tablespace),
            KeyKind::TwoPhase => _ = self.two_phase.insert(key.relation),
            KeyKind::Control => self.control = Some(ControlFile::read(&blob)?),
            KeyKind::ReplicationOrigin => {
                let origin = u16::try_from(key.relation).map_err(|_| bad("no such origin"))?;
                let lsns = <[u8; 16]>::try_from(&blob[..]).map_err(|_| bad("it is not 16 bytes long"))?;
                let both = u128::from_le_bytes(lsns);
                self.origins.insert(origin, (Lsn(both as u64), Lsn((both >> 64) as u64)));
            }
            KeyKind::History if key == Key::history(bucket_of(self.last_record_lsn)) => {
                self.history = History::decode(&blob).ok_or(bad("it is no history"))?;
            }
            KeyKind::History => {}
            KeyKind::Page | KeyKind::Slru => return Err(bad("it is not part of a head")),
        }
        Ok(())
    }

    /// Takes the record that follows `last_record_lsn` and puts what it changes into `sink`, at its end. Its
    /// CRC is taken to be right. After an error the head is no longer that of any LSN.
    pub fn ingest(&mut self, record: &Record<'_>, sink: &mut impl Sink) -> Result<IngestAction, IngestError> {
        record::ingest(self, record, sink)
    }

    /// End of the last record taken.
    pub fn last_record_lsn(&self) -> Lsn {
        self.last_record_lsn
    }

    /// Start of the last record taken.
    pub fn prev_record_lsn(&self) -> Lsn {
        self.prev_record_lsn
    }

    /// Bytes of all relations.
    pub fn logical_size(&self) -> u64 {
        self.relations.logical_size()
    }

    /// Blocks of a fork; `None` if it does not exist.
    pub fn relation_blocks(&self, rel: RelTag, fork: Fork) -> Option<u32> {
        self.relations.blocks(rel, fork)
    }

    /// When a fork was cut; `None` if it does not exist.
    pub fn relation_cuts(&self, rel: RelTag, fork: Fork) -> Option<&RelCuts> {
        self.relations.cuts(rel, fork)
    }

    /// All forks of all relations and their sizes, in no order.
    pub fn relation_forks(&self) -> impl Iterator<Item = (RelTag, Fork, u32)> {
        self.relations.iter()
    }

    /// Pages an SLRU has, in numerical order.
    pub fn slru_pages(&self, slru: SlruKind) -> &BTreeSet<u32> {
        self.slrus.of(slru)
    }

    /// Transactions that are prepared.
    pub fn two_phase_xids(&self) -> &BTreeSet<u32> {
        &self.two_phase
    }

    /// pg_control, its checkpoint fields as a shutdown checkpoint at `last_record_lsn` would have them, but for `redo`.
    pub fn control(&self) -> Result<&ControlFile, IngestError> {
        self.control.as_ref().ok_or(IngestError::NoControl)
    }

    /// What to store of [`Head::control`] whenever the head is to be loaded again as of `last_record_lsn`.
    pub fn control_value(&self) -> Result<(Key, Value<'static>), IngestError> {
        Ok((Key::control(), Value::Blob(Cow::Owned(self.control()?.to_bytes().to_vec()))))
    }

    /// What a base backup at `last_record_lsn` needs and the head knows: `control`, which is what is to be sent as
    /// such, the directories, and all sizes but those of free space maps. The rest is [`Head::basebackup_keys`].
    pub fn basebackup_items<'a>(&'a self, control: &'a [u8]) -> impl Iterator<Item = Item<'a>> {
        let tablespaces = self.tablespaces.iter().map(|oid| Item::Tablespace(*oid));
        let databases = self.databases.iter().map(|(tablespace, database)| Item::Database {
            tablespace: *tablespace,
            database: *database,
            version: DATABASE_VERSION,
        });
        let sizes = self.relations.iter().filter(|(_, fork, _)| *fork != Fork::Fsm);
        let sizes = sizes.map(|(rel, fork, blocks)| Item::RelSize { rel, fork, blocks });
        std::iter::once(Item::Control(control)).chain(tablespaces).chain(databases).chain(sizes)
    }

    /// Keys whose values a base backup at `last_record_lsn` needs besides: relation maps, SLRU pages, prepared
    /// transactions, and the pages of init forks.
    pub fn basebackup_keys(&self) -> impl Iterator<Item = Key> {
        let maps = self.rel_maps.iter().map(|(tablespace, database)| Key::rel_map(*tablespace, *database));
        let slrus = SlruKind::ALL.into_iter();
        let slrus = slrus.flat_map(|slru| self.slrus.of(slru).iter().map(move |page| Key::slru(slru, *page)));
        let two_phase = self.two_phase.iter().map(|xid| Key::two_phase(*xid));
        let init = self.relations.iter().filter(|(_, fork, _)| *fork == Fork::Init);
        let init = init.flat_map(|(rel, fork, blocks)| (0..blocks).map(move |block| Key::page(rel, fork, BlockNumber(block))));
        maps.chain(slrus).chain(two_phase).chain(init)
    }
}
