//! Layer files: opened when first needed, read through a bounded cache of index blocks, every byte checked.

mod cache;
mod files;
mod layer;
mod set;
mod writer;

pub use layer::{Content, Layer, Part, Piece};
pub use set::LayerSet;
pub use writer::write_layer;

use cache::BlockCache;
use files::OpenFiles;
use std::cell::{Cell, RefCell};

/// What all layers of a core share.
pub struct LayerContext {
    cache: RefCell<BlockCache>,
    files: RefCell<OpenFiles>,
    pub counters: LayerCounters,
}

/// What reads cost, since the start.
#[derive(Default)]
pub struct LayerCounters {
    pub index_hits: Cell<u64>,
    pub index_reads: Cell<u64>,
    pub run_reads: Cell<u64>,
    pub image_reads: Cell<u64>,
    pub device_bytes: Cell<u64>,
    pub filtered: Cell<u64>,
}

impl LayerContext {
    pub fn new(index_cache_bytes_max: usize, open_files_max: usize) -> LayerContext {
        LayerContext {
            cache: RefCell::new(BlockCache::new(index_cache_bytes_max)),
            files: RefCell::new(OpenFiles::new(open_files_max)),
            counters: LayerCounters::default(),
        }
    }
}

pub(crate) fn count(counter: &Cell<u64>, by: u64) {
    counter.set(counter.get() + by);
}
