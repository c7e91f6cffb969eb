//! What can go wrong in a store.

use std::path::PathBuf;

/// Error of a store's operation, naming file and place.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    #[error("{dir:?} has no manifest: no timeline was ever completed there")]
    NoManifest { dir: PathBuf },
}
