//! Another timeline takes a branch's name: reset and restore.
//!
//! The new timeline is made under a name nobody uses; one batch of the journal then gives it the branch's name. So
//! the name is always there, and means the old timeline or the new one.

use super::create::{Made, Steps, unchanged};
use super::delete::subtree;
use super::{BranchError, Branches, find_branch, now_us};
use crate::fault;
use crate::metadata::{BranchKind, BranchRecord, BranchState, Record, State};
use crate::timeline::{At, BranchPoint};
use ironpage_daemon::info;
use ironpage_daemon::log::utc_compact;
use ironpage_layout::TenantId;
use ironpage_layout::metadata::NAME_BYTES;
use std::rc::Rc;

/// A branch that was restored.
#[derive(Clone, Debug)]
pub struct Restored {
    pub branch: Rc<BranchRecord>,
    /// What the branch was before.
    pub backup: Rc<BranchRecord>,
    pub point: BranchPoint,
}

/// What happens to a branch's children.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Children {
    /// They are in the way.
    Refuse,
    /// They go with it.
    Include,
}

impl Children {
    /// As the API's field and parameter `recursive` has it.
    pub fn of(recursive: bool) -> Children {
        if recursive { Children::Include } else { Children::Refuse }
    }
}

impl Branches {
    /// The branch goes on from its parent's present head; what it was is deleted.
    pub async fn reset(&self, tenant: &str, branch: &str, children: Children) -> Result<Rc<BranchRecord>, BranchError> {
        let state = self.state();
        let old = find_branch(&state, tenant, branch)?;
        only_ordinary(&old, "reset")?;
        let parent = old.parent.and_then(|parent| state.branch(old.tenant, parent)).ok_or_else(|| BranchError::Conflict {
            why: format!("branch '{}' has no parent to be reset to: it is a root", old.name),
        })?;
        subtree(&state, &old, children)?;
        let steps = Steps { journalled: || fault::point("branch-reset-journalled"), made: || fault::point("branch-reset-made") };
        let made = self.make(parent, hidden_name(&old), old.kind, At::Head, &steps).await?;
        let switch = |state: &State| {
            let old = unchanged(state, &old)?;
            let (new, mut records) = (successor(&made, &old), Vec::new());
            for gone in subtree(state, &old, children)? {
                records.push(Record::Branch(BranchRecord { state: BranchState::Deleting, ..(*gone).clone() }));
            }
            records.push(Record::Branch(new.clone()));
            Ok::<_, BranchError>((records, Rc::new(new)))
        };
        let new = match self.shared.journal.change(switch).await {
            Ok((_, new)) => new,
            Err(error) => return Err(self.unmade(&made.record, error).await),
        };
        fault::point("branch-reset-switched");
        self.start_receiver(made.timeline);
        self.remove_deleting();
        info!("branch '{}' is reset: it is {} from {} on", new.name, new.timeline, new.start_lsn);
        Ok(new)
    }

    /// The branch goes on from a moment of its own past; what it was stays as a branch of kind backup.
    pub async fn restore(&self, tenant: &str, branch: &str, at: At) -> Result<Restored, BranchError> {
        let old = self.branch(tenant, branch)?;
        only_ordinary(&old, "restored")?;
        let steps =
            Steps { journalled: || fault::point("branch-restore-journalled"), made: || fault::point("branch-restore-made") };
        let made = self.make(&old, hidden_name(&old), old.kind, at, &steps).await?;
        let switch = |state: &State| {
            let old = unchanged(state, &old)?;
            let new = successor(&made, &old);
            let name = backup_name(state, old.tenant, &old.name);
            let backup = BranchRecord { name, kind: BranchKind::Backup, expires_at_us: None, ..(*old).clone() };
            let records = vec![Record::Branch(backup.clone()), Record::Branch(new.clone())];
            Ok::<_, BranchError>((records, (Rc::new(new), Rc::new(backup))))
        };
        let (new, backup) = match self.shared.journal.change(switch).await {
            Ok((_, output)) => output,
            Err(error) => return Err(self.unmade(&made.record, error).await),
        };
        fault::point("branch-restore-switched");
        self.start_receiver(made.timeline);
        info!("branch '{}' is restored to {}: it is {}, and was '{}'", new.name, new.start_lsn, new.timeline, backup.name);
        Ok(Restored { branch: new, backup, point: made.point })
    }
}

fn only_ordinary(branch: &BranchRecord, what: &str) -> Result<(), BranchError> {
    let why = match (branch.state, branch.kind) {
        (BranchState::Active, BranchKind::Branch | BranchKind::Backup) => return Ok(()),
        (BranchState::Active, BranchKind::Snapshot) => "belongs to a read-only endpoint",
        (BranchState::Active, BranchKind::Follow) => "follows a server",
        _ => return Err(BranchError::not_active(branch)),
    };
    Err(BranchError::Conflict { why: format!("branch '{}' {why}: it cannot be {what}; make a branch of it", branch.name) })
}

/// The new timeline in the old one's place. It has no safekeepers yet.
fn successor(made: &Made, old: &BranchRecord) -> BranchRecord {
    BranchRecord {
        name: old.name.clone(),
        kind: BranchKind::Branch,
        state: BranchState::Active,
        expires_at_us: old.expires_at_us,
        readable_lsn: made.timeline.record().readable_lsn,
        ..made.record.clone()
    }
}

/// A name for the time before the switch. It is unlikely in the extreme, and would be refused, if someone has it.
fn hidden_name(old: &BranchRecord) -> String {
    let id = old.timeline.to_string();
    format!("replacing-{}-{:x}", id.get(..8).unwrap_or_default(), now_us())
}

/// `NAME-before-20261122T110000`, the name cut to fit, with a number if it is taken.
fn backup_name(state: &State, tenant: TenantId, name: &str) -> String {
    let time = utc_compact(ironpage_io::time::wall_clock());
    let numbers = std::iter::once(String::new()).chain((2..).map(|number| format!("-{number}")));
    let mut names = numbers.map(|number| {
        let tail = format!("-before-{time}{number}");
        let kept = NAME_BYTES.end() - tail.len();
        // Names are ASCII.
        format!("{}{tail}", name.get(..kept).unwrap_or(name))
    });
    names.find(|name| state.branch_named(tenant, name).is_none()).unwrap_or_default()
}
