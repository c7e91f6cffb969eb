//! What can go wrong in a store.

use ironpage_io::IoError;
use ironpage_layout::layer::LayerError;
use ironpage_layout::{Lsn, TimelineId};
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
    #[error("timeline {timeline} came off timeline {ancestor}, which is not open: its directory is gone, or was never restored")]
    NoAncestor { timeline: TimelineId, ancestor: TimelineId },
    /// After a restart, for as long as the ancestor reads its WAL again.
    #[error("timeline {ancestor} is ingested up to {last}, its branch {timeline} needs it up to {needed}")]
    AncestorBehind { timeline: TimelineId, ancestor: TimelineId, last: Lsn, needed: Lsn },
    #[error("the store is closed: its timeline is being deleted")]
    Closed,
    #[error(transparent)]
    Io(#[from] IoError),
    #[error(
        "this timeline can no longer be flushed, its pages are still served; make room or repair the disk, then restart: {reason}"
    )]
    Poisoned { reason: Rc<StoreError> },
}
