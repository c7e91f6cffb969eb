//! Errors as the other side gets them.

use crate::branches::{BranchError, Refusal};
use crate::reconstruct::ReconstructError;
use crate::store::StoreError;
use crate::timeline::{HeadError, TimelineError, WaitError};
use crate::worker::WorkerError;
use ironpage_layout::Term;
use ironpage_layout::wire::{ErrorCode, RemoteError, WireError};

/// Why a request failed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    code: ErrorCode,
    message: String,
    /// The term of the `Error` frame; the timeline's if none.
    pub term: Option<Term>,
}

pub fn refusal(code: ErrorCode, message: String) -> Failure {
    Failure { code, message, term: None }
}

impl Failure {
    /// The same, with `term` in the frame that tells of it.
    pub fn with_term(self, term: Term) -> Failure {
        Failure { term: Some(term), ..self }
    }

    pub fn remote(&self) -> RemoteError {
        RemoteError { code: self.code, message: self.message.clone() }
    }

    pub fn code(&self) -> ErrorCode {
        self.code
    }

    pub fn message(&self) -> &str {
        &self.message
    }
}

impl From<WireError> for Failure {
    fn from(error: WireError) -> Failure {
        refusal(ErrorCode::Protocol, error.to_string())
    }
}

impl From<WaitError> for Failure {
    fn from(error: WaitError) -> Failure {
        let code = match &error {
            WaitError::Stopped(stopped) => stopped.code,
            WaitError::Late { .. } => ErrorCode::Unavailable,
            WaitError::Deleted { .. } => ErrorCode::NotFound,
        };
        refusal(code, error.to_string())
    }
}

impl From<ReconstructError> for Failure {
    fn from(error: ReconstructError) -> Failure {
        let code = match &error {
            ReconstructError::Deleted { .. } => ErrorCode::NotFound,
            ReconstructError::Store(StoreError::AncestorBehind { .. }) => ErrorCode::Unavailable,
            ReconstructError::Store(_) => ErrorCode::Storage,
            ReconstructError::Worker(WorkerError::Stopped) => ErrorCode::Unavailable,
            _ => ErrorCode::Corrupt,
        };
        refusal(code, error.to_string())
    }
}

impl From<TimelineError> for Failure {
    fn from(error: TimelineError) -> Failure {
        let code = match &error {
            TimelineError::Exists { .. } => ErrorCode::Exists,
            TimelineError::Busy { .. } => ErrorCode::Unavailable,
            TimelineError::NotFound { .. } => ErrorCode::NotFound,
            TimelineError::OutOfRange { .. } => ErrorCode::OutOfRange,
            TimelineError::HasChildren { .. } => ErrorCode::Refused,
            TimelineError::Damaged { .. } => ErrorCode::Corrupt,
            TimelineError::Unavailable { .. } => ErrorCode::Unavailable,
            TimelineError::PostgresVersion { .. } => ErrorCode::Unsupported,
            TimelineError::StartLsn { .. } | TimelineError::Incomplete { .. } | TimelineError::Item { .. } => ErrorCode::Protocol,
            TimelineError::Import(_) => ErrorCode::Refused,
            TimelineError::Head(HeadError::Store(_)) => ErrorCode::Storage,
            TimelineError::Head(HeadError::Ancestor(_)) => ErrorCode::Unavailable,
            TimelineError::Head(_) => ErrorCode::Corrupt,
            TimelineError::Ingest(stop) => stop.code(),
            TimelineError::Wait(wait) => return Failure::from(wait.clone()),
            TimelineError::Store(_) | TimelineError::Unknown { .. } | TimelineError::Io(_) => ErrorCode::Storage,
        };
        refusal(code, error.to_string())
    }
}

impl From<BranchError> for Failure {
    fn from(error: BranchError) -> Failure {
        let code = match (&error, error.refusal()) {
            (BranchError::Timeline(_), _) => {
                let BranchError::Timeline(error) = error else { unreachable!("matched just above") };
                return error.into();
            }
            (_, Refusal::NotFound) => ErrorCode::NotFound,
            (_, Refusal::Exists) => ErrorCode::Exists,
            (_, Refusal::BadRequest) => ErrorCode::Protocol,
            (_, Refusal::Unavailable) => ErrorCode::Unavailable,
            (_, Refusal::Internal) => ErrorCode::Storage,
            (_, Refusal::HasChildren | Refusal::OutOfRange | Refusal::Conflict) => ErrorCode::Refused,
        };
        refusal(code, error.to_string())
    }
}
