//! What can go wrong in a store.

use ironpage_io::IoError;
use ironpage_layout::layer::LayerError;
use std::path::PathBuf;
use std::rc::Rc;

/// Error of a store's operation, naming file and place.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    #[error("{} has no manifest: the timeline there was never completed, the directory may be removed", dir.display())]
    NoManifest { dir: PathBuf },
    #[error("{} holds a timeline already", dir.display())]
    Exists { dir: PathBuf },
    #[error("layer {} is named in the manifest and missing: restore it, or the timeline from another pageserver", path.display())]
    MissingLayer { path: PathBuf },
    #[error("{}: {source}", path.display())]
    Layer { path: PathBuf, source: LayerError },
    #[error(transparent)]
    Io(#[from] IoError),
    #[error(
        "this timeline can no longer be flushed, its pages are still served; make room or repair the disk, then restart: {reason}"
    )]
    Poisoned { reason: Rc<StoreError> },
}
