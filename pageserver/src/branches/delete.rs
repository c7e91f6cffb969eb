//! Branches that go away.
//!
//! A branch is gone for everyone once the journal says that it is being deleted. What is left of it is removed
//! behind that: its directory, children before parents, then its WAL at the safekeepers, which may take until the
//! last of them is up again. The journal forgets it when nothing is left.

use super::replace::Children;
use super::{BranchError, Branches, find_branch, find_tenant, safekeepers};
use crate::fault;
use crate::metadata::{BranchKind, BranchRecord, BranchState, MetadataError, Record, State, TenantRecord, TenantState};
use ironpage_daemon::{info, warn};
use ironpage_io::fs;
use ironpage_io::time::{sleep, timeout};
use ironpage_layout::TenantId;
use std::rc::Rc;
use std::time::Duration;

/// How long a request waits for the files to go; after that they go without it.
const REMOVAL_WAIT: Duration = Duration::from_secs(5);
/// Pause after a removal failed, doubled up to the maximum.
const RETRY_MIN: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// How far a deletion is when its request is answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Deletion {
    Done,
    /// It is gone for everyone; a safekeeper is down, or its files are many.
    GoesOn,
}

/// What a deletion takes with it, the branch itself first.
pub(super) fn subtree(
    state: &State,
    branch: &Rc<BranchRecord>,
    children: Children,
) -> Result<Vec<Rc<BranchRecord>>, BranchError> {
    let mut all = vec![branch.clone()];
    let mut at = 0;
    while let Some(above) = all.get(at).cloned() {
        at += 1;
        let below = state.children(above.tenant, above.timeline).filter(|child| child.state != BranchState::Deleting);
        all.extend(below.cloned());
    }
    if let Some(unfinished) = all.iter().find(|branch| branch.state == BranchState::Creating) {
        return Err(BranchError::not_active(unfinished));
    }
    if children == Children::Refuse && all.len() > 1 {
        return Err(BranchError::has_children(branch, all.get(1..).unwrap_or_default()));
    }
    Ok(all)
}

fn deleting(branches: &[Rc<BranchRecord>]) -> Vec<Record> {
    branches.iter().map(|branch| Record::Branch(BranchRecord { state: BranchState::Deleting, ..(**branch).clone() })).collect()
}

impl Branches {
    /// Deletes a branch; with its children and theirs if asked.
    pub async fn delete(&self, tenant: &str, branch: &str, children: Children) -> Result<Deletion, BranchError> {
        self.delete_if(tenant, branch, children, |_| true).await
    }

    /// As [`Branches::delete`], if the branch is `wanted` gone at the very moment.
    pub(super) async fn delete_if(
        &self,
        tenant: &str,
        branch: &str,
        children: Children,
        wanted: impl FnOnce(&BranchRecord) -> bool,
    ) -> Result<Deletion, BranchError> {
        let make = |state: &State| {
            let branch = find_branch(state, tenant, branch)?;
            if branch.state == BranchState::Deleting || !wanted(&branch) {
                return Ok((Vec::new(), vec![branch]));
            }
            let all = subtree(state, &branch, children)?;
            Ok::<_, BranchError>((deleting(&all), all))
        };
        let (_, all) = self.shared.journal.change(make).await?;
        fault::point("branch-delete-journalled");
        for branch in &all {
            info!("branch '{}' ({}) is being deleted", branch.name, branch.timeline);
        }
        Ok(self.wait_for_removal(|state| all.iter().all(|branch| state.branch(branch.tenant, branch.timeline).is_none())).await)
    }

    /// Deletes a tenant; with its branches if asked.
    pub async fn delete_tenant(&self, tenant: &str, children: Children) -> Result<Deletion, BranchError> {
        let make = |state: &State| {
            let tenant = find_tenant(state, tenant)?;
            let all: Vec<_> =
                state.branches_of(tenant.id).filter(|branch| branch.state != BranchState::Deleting).cloned().collect();
            if let Some(unfinished) = all.iter().find(|branch| branch.state == BranchState::Creating) {
                return Err(BranchError::not_active(unfinished));
            }
            if children == Children::Refuse && !all.is_empty() {
                return Err(BranchError::tenant_has_branches(&tenant, &all));
            }
            let mut records = vec![Record::Tenant(TenantRecord { state: TenantState::Deleting, ..(*tenant).clone() })];
            records.extend(deleting(&all));
            Ok((records, tenant.id))
        };
        let (_, id) = self.shared.journal.change(make).await?;
        fault::point("tenant-delete-journalled");
        self.forget_tenant(id).await?;
        Ok(self.wait_for_removal(|state| state.tenant(id).is_none()).await)
    }

    async fn wait_for_removal(&self, is_done: impl Fn(&State) -> bool) -> Deletion {
        self.remove_deleting();
        let done = async {
            loop {
                let removed = self.shared.removed.notified();
                if is_done(&self.state()) {
                    return;
                }
                removed.await;
            }
        };
        match timeout(REMOVAL_WAIT, done).await {
            Ok(()) => Deletion::Done,
            Err(_) => Deletion::GoesOn,
        }
    }

    /// Begins to remove everything that is journalled as being deleted and is not yet being removed.
    pub(super) fn remove_deleting(&self) {
        let state = self.state();
        for branch in state.branches().filter(|branch| branch.state == BranchState::Deleting) {
            if self.shared.removing.borrow_mut().insert((branch.tenant, branch.timeline)) {
                let (branches, branch) = (self.clone(), branch.clone());
                drop(ironpage_io::spawn(async move {
                    branches.remove(&branch).await;
                    branches.shared.removing.borrow_mut().remove(&(branch.tenant, branch.timeline));
                    branches.shared.removed.notify_all();
                }));
            }
        }
        for tenant in state.tenants().filter(|tenant| tenant.state == TenantState::Deleting) {
            let (branches, id) = (self.clone(), tenant.id);
            drop(ironpage_io::spawn(async move {
                if let Err(error) = branches.forget_tenant(id).await {
                    warn!("tenant {id} is not deleted yet: {error}");
                }
            }));
        }
    }

    /// Removes what is left of a branch, however long that takes.
    async fn remove(&self, branch: &BranchRecord) {
        loop {
            let removed = self.shared.removed.notified();
            if self.state().children(branch.tenant, branch.timeline).next().is_none() {
                break;
            }
            removed.await;
        }
        let mut retry = RETRY_MIN;
        while let Err(error) = self.shared.timelines.delete(branch.tenant, branch.timeline).await {
            if retry == RETRY_MIN {
                warn!("branch '{}' ({}): its files are still there: {error}; trying on", branch.name, branch.timeline);
            }
            sleep(retry).await;
            retry = (retry * 2).min(RETRY_MAX);
        }
        fault::point("branch-delete-removed");
        // Of a snapshot no safekeeper was ever told.
        if branch.kind != BranchKind::Snapshot {
            safekeepers::forget(branch, &self.shared.safekeepers).await;
        }
        fault::point("branch-delete-forgotten");
        let gone = Record::BranchGone(branch.tenant, branch.timeline);
        if let Err(error) = self.shared.journal.commit(&[gone]).await {
            warn!("branch '{}' ({}) is gone, which cannot be journalled: {error}", branch.name, branch.timeline);
            return;
        }
        fault::point("branch-delete-gone");
        info!("branch '{}' ({}) is gone", branch.name, branch.timeline);
        if let Err(error) = self.forget_tenant(branch.tenant).await {
            warn!("tenant {} is not deleted yet: {error}", branch.tenant);
        }
    }

    /// Ends the deletion of a tenant that has no branches any more.
    async fn forget_tenant(&self, id: TenantId) -> Result<(), BranchError> {
        let make = |state: &State| match state.tenant(id) {
            Some(tenant) if tenant.state == TenantState::Deleting && state.branches_of(id).next().is_none() => {
                Ok::<_, BranchError>((vec![Record::TenantGone(id)], true))
            }
            _ => Ok((Vec::new(), false)),
        };
        let (_, is_gone) = self.shared.journal.change(make).await?;
        if is_gone {
            fault::point("tenant-delete-gone");
            info!("tenant {id} is gone");
            self.shared.removed.notify_all();
            self.remove_tenant_dir(id).await?;
        }
        Ok(())
    }

    /// Removes the directory of a tenant that is gone. All of its branches are, so it is empty.
    async fn remove_tenant_dir(&self, id: TenantId) -> Result<(), BranchError> {
        let dir = self.shared.dir.join(id.to_string());
        if fs::exists(&dir).await.map_err(MetadataError::from)?
            && fs::read_dir(&dir).await.is_ok_and(|names| names.is_empty())
            && let Err(error) = fs::remove_dir_all(&dir).await
        {
            warn!("the empty directory of tenant {id} stays: {error}");
        }
        Ok(())
    }

    /// At a start: the process may have ended between a tenant's end and that of its directory.
    pub(super) async fn remove_dirs_of_gone_tenants(&self) -> Result<(), BranchError> {
        let state = self.state();
        for name in fs::read_dir(&self.shared.dir).await.map_err(MetadataError::from)? {
            if let Some(id) = name.parse().ok()
                && state.tenant(id).is_none()
            {
                self.remove_tenant_dir(id).await?;
            }
        }
        Ok(())
    }
}
