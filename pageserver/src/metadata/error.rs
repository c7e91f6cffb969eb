//! Why a change is refused, or the journal is of no use.

use ironpage_io::IoError;
use ironpage_layout::metadata::MetadataError as FormatError;
use ironpage_layout::{TenantId, TimelineId};
use std::path::PathBuf;
use std::rc::Rc;

/// A change that makes no sense in the present state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Invalid {
    #[error(
        "'{name}' is no name: 1 to 63 letters, digits, '_' and '-' of ASCII, a letter or digit first; not 32 hexadecimal digits, which are an id"
    )]
    Name { name: String },
    #[error("there is a tenant '{name}' already")]
    TenantExists { name: String },
    #[error("there is a branch '{name}' already in tenant '{tenant}'")]
    BranchExists { tenant: String, name: String },
    #[error("there is no tenant {tenant}")]
    NoTenant { tenant: TenantId },
    #[error("tenant '{name}' is being deleted")]
    TenantDeleting { name: String },
    #[error("tenant {tenant} has branches: {branches}; delete them first")]
    TenantHasBranches { tenant: TenantId, branches: String },
    #[error("there is no branch {timeline} in tenant {tenant}")]
    NoBranch { tenant: TenantId, timeline: TimelineId },
    #[error("branch {timeline} has no parent {parent} to come off")]
    NoParent { timeline: TimelineId, parent: TimelineId },
    #[error("branch '{name}' has children: {children}")]
    HasChildren { name: String, children: String },
    #[error("branch {timeline}: {what} cannot change so")]
    Fixed { timeline: TimelineId, what: &'static str },
    #[error("more than {max} {what}: delete some first")]
    TooMany { what: &'static str, max: usize },
}

/// Why the journal cannot be used.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum MetadataError {
    #[error(transparent)]
    Invalid(#[from] Invalid),
    #[error(transparent)]
    Io(#[from] IoError),
    #[error("{}: {error}; restore the file from a copy: without it nobody knows which branches there are", path.display())]
    Format { path: PathBuf, error: FormatError },
    #[error("{}: damage at offset {offset}: a change there contradicts those before it: {error}; restore the file from a copy", path.display())]
    Contradiction { path: PathBuf, offset: u64, error: Invalid },
    /// What is on disk is not known any more.
    #[error(
        "no metadata can be changed any more, the last change may or may not have happened; make room or repair the disk, then restart: {reason}"
    )]
    Poisoned { reason: Rc<str> },
}
