//! The state machine against its rules, the journal on disks that fail.

mod disk;
mod model;

use super::{BranchKind, BranchRecord, BranchState, Record, TenantRecord, TenantState};
use ironpage_layout::{Lsn, TenantId, TimelineId};

fn tenant(number: u8, name: &str) -> TenantRecord {
    TenantRecord { id: TenantId([number; 16]), name: name.into(), state: TenantState::Active, created_at_us: 1 }
}

fn branch(number: u8, name: &str, state: BranchState) -> BranchRecord {
    BranchRecord {
        tenant: TenantId([1; 16]),
        timeline: TimelineId([number; 16]),
        name: name.into(),
        kind: BranchKind::Branch,
        state,
        parent: None,
        start_lsn: Lsn(24),
        readable_lsn: Lsn(24),
        prev_record_lsn: Lsn(8),
        system_id: 7,
        postgres_version: 150_018,
        created_at_us: 1,
        expires_at_us: None,
        safekeepers: Vec::new(),
    }
}

fn child(number: u8, parent: u8, state: BranchState) -> BranchRecord {
    BranchRecord { parent: Some(TimelineId([parent; 16])), ..branch(number, &format!("b{number}"), state) }
}

fn gone(number: u8) -> Record {
    Record::BranchGone(TenantId([1; 16]), TimelineId([number; 16]))
}
