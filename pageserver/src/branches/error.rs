//! Why a request about tenants or branches is refused.

use crate::metadata::{BranchRecord, BranchState, Invalid, MetadataError, TenantRecord};
use crate::timeline::{HeadError, TimelineError};
use ironpage_layout::Lsn;
use std::path::PathBuf;
use std::rc::Rc;

/// What kind of refusal it is; each is a code of the API.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    NotFound,
    Exists,
    BadRequest,
    HasChildren,
    OutOfRange,
    /// Something else is under way, or the state does not allow it.
    Conflict,
    /// Later it may work.
    Unavailable,
    Internal,
}

/// Why it was refused, or failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BranchError {
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    #[error(transparent)]
    Timeline(#[from] TimelineError),
    #[error("there is no tenant '{name}'")]
    NoTenant { name: String },
    #[error("there is no branch '{name}' in tenant '{tenant}'")]
    NoBranch { tenant: String, name: String },
    #[error("branch '{name}' is {}", condition(*state))]
    NotActive { name: String, state: BranchState },
    #[error("there is a branch '{name}' already in tenant '{tenant}'")]
    Exists { tenant: String, name: String },
    #[error("{what} has children, which read it: {children}; delete them first, or ask for recursive=true")]
    HasChildren { what: String, children: String },
    #[error("no commit at or before {lsn} is known on branch '{name}', whose history begins at {start}")]
    NoCommit { name: String, lsn: Lsn, start: Lsn },
    #[error("tenant '{name}' has branches: {branches}; delete them first, or ask for recursive=true")]
    HasBranches { name: String, branches: String },
    #[error("{why}")]
    BadRequest { why: String },
    #[error("{why}")]
    Conflict { why: String },
    #[error("branch '{name}' is in the metadata, and its timeline is not in {}: restore the directory from a copy", path.display())]
    Missing { name: String, path: PathBuf },
    #[error("the kernel gives no random numbers: {why}")]
    Random { why: String },
}

impl From<Invalid> for BranchError {
    fn from(error: Invalid) -> BranchError {
        BranchError::Metadata(error.into())
    }
}

impl BranchError {
    pub(super) fn not_active(branch: &BranchRecord) -> BranchError {
        BranchError::NotActive { name: branch.name.clone(), state: branch.state }
    }

    pub(super) fn has_children(branch: &BranchRecord, children: &[Rc<BranchRecord>]) -> BranchError {
        BranchError::HasChildren { what: format!("branch '{}'", branch.name), children: names(children) }
    }

    pub(super) fn tenant_has_branches(tenant: &TenantRecord, branches: &[Rc<BranchRecord>]) -> BranchError {
        BranchError::HasBranches { name: tenant.name.clone(), branches: names(branches) }
    }

    pub fn refusal(&self) -> Refusal {
        match self {
            BranchError::Metadata(MetadataError::Invalid(invalid)) => match invalid {
                Invalid::Name { .. } => Refusal::BadRequest,
                Invalid::TenantExists { .. } | Invalid::BranchExists { .. } => Refusal::Exists,
                Invalid::NoTenant { .. } | Invalid::NoBranch { .. } => Refusal::NotFound,
                Invalid::TenantHasBranches { .. } | Invalid::HasChildren { .. } => Refusal::HasChildren,
                _ => Refusal::Conflict,
            },
            BranchError::Metadata(MetadataError::Poisoned { .. }) => Refusal::Unavailable,
            BranchError::Metadata(_) | BranchError::Missing { .. } | BranchError::Random { .. } => Refusal::Internal,
            BranchError::Timeline(error) => match error {
                TimelineError::NotFound { .. } => Refusal::NotFound,
                TimelineError::Exists { .. } => Refusal::Exists,
                TimelineError::OutOfRange { .. } => Refusal::OutOfRange,
                TimelineError::HasChildren { .. } => Refusal::HasChildren,
                TimelineError::Unavailable { .. } | TimelineError::Busy { .. } | TimelineError::Wait(_) => Refusal::Unavailable,
                TimelineError::Head(HeadError::Ancestor(_)) => Refusal::Unavailable,
                TimelineError::StartLsn { .. } | TimelineError::Incomplete { .. } | TimelineError::Item { .. } => {
                    Refusal::BadRequest
                }
                _ => Refusal::Internal,
            },
            BranchError::NoTenant { .. } | BranchError::NoBranch { .. } => Refusal::NotFound,
            BranchError::Exists { .. } => Refusal::Exists,
            BranchError::HasChildren { .. } | BranchError::HasBranches { .. } => Refusal::HasChildren,
            BranchError::NoCommit { .. } => Refusal::OutOfRange,
            BranchError::BadRequest { .. } => Refusal::BadRequest,
            BranchError::NotActive { state: BranchState::Deleting, .. } | BranchError::Conflict { .. } => Refusal::Conflict,
            BranchError::NotActive { .. } => Refusal::Unavailable,
        }
    }
}

fn condition(state: BranchState) -> &'static str {
    match state {
        BranchState::Creating => "still being made; try again",
        BranchState::Active => "not open; try again",
        BranchState::Deleting => "being deleted",
    }
}

/// Names of branches that a refusal lists.
const LISTED_MAX: usize = 20;

fn names(branches: &[Rc<BranchRecord>]) -> String {
    let names = branches.iter().take(LISTED_MAX).map(|branch| format!("'{}'", branch.name)).collect::<Vec<_>>().join(", ");
    match branches.len().checked_sub(LISTED_MAX) {
        None | Some(0) => names,
        Some(more) => format!("{names} and {more} more"),
    }
}
