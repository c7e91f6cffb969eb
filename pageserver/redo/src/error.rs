//! What can be wrong with a delta, a page or a record.

/// A page could not be changed as its delta says. The page is spoilt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RedoError {
    #[error("the page was never initialised: its base or a change before this one is missing")]
    Uninitialised,
    #[error("the delta is damaged: {0}")]
    Delta(&'static str),
    #[error("the delta is of kind {0}, which this version does not know: it is damaged or from a newer version")]
    UnknownKind(u8),
    #[error("the page is not the one the delta was made for, or damaged: {0}")]
    Page(&'static str),
}

/// A record cannot be what Postgres wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the record contradicts itself: {0}")]
pub struct EncodeError(pub &'static str);
