//! What can go wrong between a page and its redo.

use super::PageTag;
use std::path::PathBuf;
use std::time::Duration;

/// Error of the redo worker. It concerns one page, or the worker's program.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum WorkerError {
    #[error("redo worker: cannot {what} {}: {error}", path.display())]
    File { what: &'static str, path: PathBuf, error: String },
    #[error("{} is not an ELF file with a build id: {way_out}", path.display())]
    NoBuildId { path: PathBuf, way_out: &'static str },
    #[error(
        "{} is PostgreSQL {found}; Ironpage supports 15 only: give the directory of a PostgreSQL 15 as --postgres-bindir",
        path.display()
    )]
    Version { path: PathBuf, found: String },
    #[error("redo worker {program} does not start: {error}")]
    Start { program: String, error: String },
    #[error(
        "redo worker {program} ended before its first answer ({status}): \
         check that redo.so was built for this postgres (make -C pageserver/redo-worker); it says why on stderr"
    )]
    Unusable { program: String, status: String },
    #[error("{page}: redo of {record} failed: {message}")]
    Redo { page: PageTag, record: String, message: String },
    #[error("{page}: {records} found the page uninitialised: a base image or an earlier record is missing")]
    Invalid { page: PageTag, records: String },
    #[error("{page}: {records} ended the redo worker ({status})")]
    Died { page: PageTag, records: String, status: String },
    #[error("{page}: {records} took the redo worker more than {after:?}; it was killed")]
    Timeout { page: PageTag, records: String, after: Duration },
    #[error("{page}: {record} has {bytes} bytes, more than the redo worker takes")]
    RecordTooLong { page: PageTag, record: String, bytes: usize },
    #[error("redo worker: its answer makes no sense")]
    BadReply,
    #[error("redo worker: stopped, the pageserver is going down")]
    Stopped,
}
