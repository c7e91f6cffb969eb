//! Limits of a store.

use std::time::Duration;

/// Limits of one store.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// The open memory layer is frozen once it takes more bytes than this.
    pub memory_bytes_max: usize,
    /// It is also frozen once its first value is this old.
    pub memory_age_max: Duration,
    /// Bytes of the cache of index blocks.
    pub index_cache_bytes_max: usize,
    /// Layer files held open at most.
    pub open_files_max: usize,
}

impl Default for StoreConfig {
    fn default() -> StoreConfig {
        StoreConfig {
            memory_bytes_max: 256 << 20,
            memory_age_max: Duration::from_secs(600),
            index_cache_bytes_max: 64 << 20,
            open_files_max: 512,
        }
    }
}
