//! Stores that came off others, beside a model that holds all versions a branch can see in one list.

use super::model::{random_key, random_value};
use super::*;
use ironpage_layout::KeyKind;
use std::collections::BTreeMap;

/// A timeline of the model: what was put into it alone, in the order it came.
struct Node {
    ancestor: Option<(usize, Lsn)>,
    begin: Lsn,
    versions: BTreeMap<Key, Vec<Version>>,
}

struct Model {
    nodes: Vec<Node>,
}

impl Model {
    fn put(&mut self, node: usize, key: Key, lsn: Lsn, value: &Value<'_>) {
        let versions = self.nodes[node].versions.entry(key).or_default();
        versions.push(version(lsn, value));
        // Stable: an image made by a read comes behind the deltas it includes.
        versions.sort_by_key(|version| version.lsn);
    }

    /// All versions of a key up to `lsn` that a node sees, oldest first: those of an ancestor come before its branch's.
    fn visible(&self, node: usize, key: Key, lsn: Lsn) -> Vec<Version> {
        let here = &self.nodes[node];
        let mut all = match here.ancestor {
            Some((ancestor, left_at)) => self.visible(ancestor, key, lsn.min(left_at)),
            None => Vec::new(),
        };
        all.extend(here.versions.get(&key).into_iter().flatten().filter(|version| version.lsn <= lsn).cloned());
        assert!(all.is_sorted_by_key(|version| version.lsn));
        all
    }

    fn values(&self, node: usize, key: Key, lsn: Lsn, floor: Lsn) -> Values {
        let mut values = Vec::new();
        for version in self.visible(node, key, lsn).into_iter().rev().filter(|version| version.lsn > floor) {
            let state = Value::encoded_is_state(&version.bytes);
            values.push(version);
            if state {
                break;
            }
        }
        values
    }

    fn keys(&self, node: usize) -> Vec<Key> {
        let mut keys: Vec<Key> = self.nodes[node].versions.keys().copied().collect();
        if let Some((ancestor, _)) = self.nodes[node].ancestor {
            keys.extend(self.keys(ancestor));
        }
        keys.sort();
        keys.dedup();
        keys
    }

    fn scan(&self, node: usize, kind: KeyKind, lsn: Lsn) -> Vec<(Key, Version)> {
        let range = Key::kind_range(kind);
        let keys = self.keys(node).into_iter().filter(|key| range.contains(key));
        let newest = keys.filter_map(|key| Some((key, self.visible(node, key, lsn).pop()?)));
        newest.filter(|(_, version)| version.bytes != encoded(&Value::Tombstone)).collect()
    }

    /// Whose own version an image at `lsn` is.
    fn owner(&self, node: usize, lsn: Lsn) -> usize {
        match self.nodes[node].ancestor {
            Some((ancestor, left_at)) if lsn < left_at => self.owner(ancestor, lsn),
            _ => node,
        }
    }
}

fn id(node: usize) -> TimelineId {
    TimelineId([node as u8 + 1; 16])
}

struct World {
    dir: TempDir,
    config: StoreConfig,
    random: Random,
    stores: Vec<Store>,
    model: Model,
}

impl World {
    fn path(&self, node: usize) -> PathBuf {
        self.dir.0.join(format!("{node}"))
    }

    async fn root(&mut self) {
        let record = TimelineRecord { timeline: id(0), ..record() };
        let store = Store::create(&self.path(0), record, self.config.clone()).await.unwrap();
        store.flush().await.unwrap();
        self.stores.push(store);
        self.model.nodes.push(Node { ancestor: None, begin: START, versions: BTreeMap::new() });
    }

    /// A branch of `parent` at `left_at`, which begins there or some records later.
    async fn branch(&mut self, parent: usize, left_at: Lsn) {
        let node = self.stores.len();
        let extra = self.random.below(3);
        let start_lsn = left_at + 8 * extra;
        let record = TimelineRecord {
            timeline: id(node),
            start_lsn,
            readable_lsn: start_lsn,
            ancestor: Some(Ancestor { timeline: id(parent), lsn: left_at }),
            ..record()
        };
        let store = Store::create_at(&self.path(node), record, (left_at, START), self.config.clone()).await.unwrap();
        store.set_ancestor(self.stores[parent].clone());
        self.stores.push(store);
        self.model.nodes.push(Node { ancestor: Some((parent, left_at)), begin: left_at, versions: BTreeMap::new() });
        // At the very LSN it came off at, as a branch puts its own mark.
        let key = Key::two_phase(self.random.below(30) as u32);
        let value = random_value(&mut self.random, key);
        self.put(node, key, left_at, &value);
        for _ in 0..extra {
            self.record(node, 8).await;
        }
        assert_eq!(self.stores[node].last_record_lsn(), start_lsn);
        self.stores[node].flush().await.unwrap();
    }

    fn put(&mut self, node: usize, key: Key, lsn: Lsn, value: &Value<'_>) {
        self.model.put(node, key, lsn, value);
        self.stores[node].put(key, lsn, value);
    }

    async fn record(&mut self, node: usize, length: u64) {
        self.stores[node].ready_for_writes().await.unwrap();
        let lsn = self.stores[node].last_record_lsn() + length;
        for _ in 0..1 + self.random.below(4) {
            let key = random_key(&mut self.random);
            for _ in 0..1 + self.random.below(2) {
                let value = random_value(&mut self.random, key);
                self.put(node, key, lsn, &value);
            }
        }
        let store = &self.stores[node];
        store.set_last_record(lsn, store.last_record_lsn());
    }

    /// An LSN the node has: at its end, where it or an ancestor came off, or anywhere since the very start.
    fn lsn(&mut self, node: usize) -> Lsn {
        let last = self.stores[node].last_record_lsn();
        let mut at = node;
        for _ in 0..self.random.below(4) {
            at = self.model.nodes[at].ancestor.map_or(at, |(ancestor, _)| ancestor);
        }
        match self.random.below(6) {
            0 => last,
            1 => self.model.nodes[at].begin.min(last),
            2 => (self.model.nodes[at].begin + 8).min(last),
            _ => Lsn(START.0 + self.random.below(last.0 - START.0 + 1)),
        }
    }

    fn materialise(&mut self, node: usize) {
        let key = random_key(&mut self.random);
        if !matches!(key.kind, KeyKind::Page | KeyKind::Slru) {
            return;
        }
        let lsn = self.lsn(node);
        let page = vec![self.random.next() as u8; PAGE_SIZE];
        let made = |world: &World| world.stores.iter().map(|store| store.inner.counters.materialised.get()).sum::<u64>();
        let before = made(self);
        self.stores[node].materialise(key, lsn, &page);
        if made(self) > before {
            let owner = self.model.owner(node, lsn);
            self.model.put(owner, key, lsn, &Value::Image(Cow::Owned(page)));
        }
    }

    async fn compare(&mut self, node: usize, reads: usize) {
        for _ in 0..reads {
            let key = random_key(&mut self.random);
            let lsn = self.lsn(node);
            let floor = if self.random.below(4) == 0 { self.lsn(node) } else { Lsn::INVALID };
            let found = self.stores[node].values(key, lsn, floor).await.unwrap();
            assert!(found == self.model.values(node, key, lsn, floor), "{key} of {node} at {lsn} above {floor}");
        }
        let lsn = self.lsn(node);
        for kind in [KeyKind::RelSize, KeyKind::TwoPhase] {
            let found = self.stores[node].scan(Key::kind_range(kind), lsn).await.unwrap();
            assert_eq!(found, self.model.scan(node, kind, lsn), "{kind:?} of {node} at {lsn}");
        }
        for kind in [KeyKind::Slru, KeyKind::Page] {
            let keys: Vec<Key> = self.model.scan(node, kind, lsn).into_iter().map(|(key, _)| key).collect();
            let found = self.stores[node].live_keys(Key::kind_range(kind), lsn).await.unwrap();
            assert_eq!(found, keys, "{kind:?} of {node} at {lsn}");
        }
    }

    /// All stores from disk again.
    async fn restart(&mut self) {
        for store in &self.stores {
            store.flush().await.unwrap();
        }
        let lasts: Vec<Lsn> = self.stores.drain(..).map(|store| store.last_record_lsn()).collect();
        for (node, last) in lasts.into_iter().enumerate() {
            let store = Store::open(&self.path(node), self.config.clone()).await.unwrap();
            assert_eq!((store.last_record_lsn(), store.timeline().timeline), (last, id(node)));
            if let Some((ancestor, left_at)) = self.model.nodes[node].ancestor {
                assert_eq!(store.timeline().ancestor, Some(Ancestor { timeline: id(ancestor), lsn: left_at }));
                store.set_ancestor(self.stores[ancestor].clone());
            }
            self.stores.push(store);
        }
    }
}

fn agrees_with_the_model(seed: u64, config: StoreConfig, rounds: u64, branches_max: usize) {
    let (dir, model) = (TempDir::new(), Model { nodes: Vec::new() });
    on_ring(|| async {
        let mut world = World { dir, config, random: Random(seed), stores: Vec::new(), model };
        world.root().await;
        for round in 0..rounds {
            let node = world.random.below(world.stores.len() as u64) as usize;
            let length = 8 * (1 + world.random.below(20));
            world.record(node, length).await;
            match world.random.below(60) {
                0..3 if world.stores.len() < branches_max => {
                    // Deep chains: mostly of the last one made.
                    let parent = if world.random.below(3) == 0 { node } else { world.stores.len() - 1 };
                    let begin = world.model.nodes[parent].begin;
                    let last = world.stores[parent].last_record_lsn();
                    let left_at = match world.random.below(3) {
                        0 => last,
                        1 => begin,
                        _ => Lsn(begin.0 + world.random.below((last.0 - begin.0) / 8 + 1) * 8),
                    };
                    world.branch(parent, left_at).await;
                }
                3..6 => world.compare(node, 10).await,
                6 => world.stores[node].flush().await.unwrap(),
                7..12 => world.materialise(node),
                12 if round % 3 == 0 => world.restart().await,
                _ => {}
            }
        }
        for node in 0..world.stores.len() {
            world.compare(node, 100).await;
        }
        world.restart().await;
        for node in 0..world.stores.len() {
            world.compare(node, 100).await;
        }
        assert!(world.stores.len() == branches_max, "{} branches", world.stores.len());
    });
}

#[test]
fn branches_of_branches_agree_with_the_model() {
    (1..5).for_each(|seed| agrees_with_the_model(seed, StoreConfig::default(), 900, 12));
}

#[test]
fn branches_of_branches_agree_with_the_model_under_tight_limits() {
    let config =
        StoreConfig { memory_bytes_max: 64 << 10, index_cache_bytes_max: 8192, open_files_max: 2, ..StoreConfig::default() };
    (5..8).for_each(|seed| agrees_with_the_model(seed, config.clone(), 900, 12));
}

#[test]
fn an_ancestor_that_is_behind_or_missing_is_said_and_never_read_past() {
    let dir = TempDir::new();
    on_ring(|| async {
        let config = StoreConfig::default();
        let (parent_dir, child_dir) = (dir.0.join("parent"), dir.0.join("child"));
        let parent = Store::create(&parent_dir, record(), config.clone()).await.unwrap();
        ingest(&parent, START + 8, &[(page_key(1), image(1))]);
        parent.flush().await.unwrap();
        ingest(&parent, START + 16, &[(page_key(1), image(2))]);
        let left_at = START + 16;
        let branch = TimelineRecord {
            timeline: TimelineId([9; 16]),
            start_lsn: left_at,
            readable_lsn: left_at,
            ancestor: Some(Ancestor { timeline: record().timeline, lsn: left_at }),
            ..record()
        };
        let child = Store::create_at(&child_dir, branch, (left_at, START), config.clone()).await.unwrap();
        child.set_ancestor(parent.clone());
        child.flush().await.unwrap();
        // What the parent gets later is not the child's.
        ingest(&parent, START + 24, &[(page_key(1), image(3))]);
        assert!(child.values(page_key(1), Lsn::MAX, Lsn::INVALID).await.unwrap() == [version(START + 16, &image(2))]);
        drop((parent, child));

        // The parent's second record was only in memory: without it the child would get the page from before.
        let (parent, child) =
            (Store::open(&parent_dir, config.clone()).await.unwrap(), Store::open(&child_dir, config.clone()).await.unwrap());
        let error = child.values(page_key(1), Lsn::MAX, Lsn::INVALID).await.unwrap_err();
        assert!(matches!(error, StoreError::NoAncestor { .. }), "{error}");
        child.set_ancestor(parent.clone());
        let error = child.values(page_key(1), Lsn::MAX, Lsn::INVALID).await.unwrap_err();
        assert!(matches!(error, StoreError::AncestorBehind { last, needed, .. } if (last, needed) == (START + 8, left_at)));
        assert!(child.live_keys(Key::kind_range(KeyKind::Page), Lsn::MAX).await.is_err());
        ingest(&parent, START + 16, &[(page_key(1), image(2))]);
        assert!(child.values(page_key(1), Lsn::MAX, Lsn::INVALID).await.unwrap() == [version(START + 16, &image(2))]);

        // Closed, a store writes no more.
        ingest(&child, START + 24, &[(page_key(1), image(4))]);
        child.close().await;
        assert!(matches!(child.flush().await, Err(StoreError::Closed)));
        assert!(matches!(child.ready_for_writes().await, Err(StoreError::Closed)));
    });
}
