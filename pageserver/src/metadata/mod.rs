//! Which tenants and branches there are: the truth of a cluster, in one file.
//!
//! [`State`] says what changes make sense, [`Journal`] makes them durable. Nobody is told of a change, and no
//! file of a branch is touched because of it, before the journal has returned. Nothing here knows timelines, so
//! that another place of truth can take the journal's place.

mod error;
mod journal;
mod state;

pub use error::{Invalid, MetadataError};
pub use ironpage_layout::metadata::{BranchKind, BranchRecord, BranchState, Record, TenantRecord, TenantState, is_name};
pub use journal::Journal;
pub use state::State;

#[cfg(test)]
mod tests;
