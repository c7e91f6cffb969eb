//! All tenants and branches in memory, and which changes of them make sense.

use super::{BranchRecord, BranchState, Invalid, Record, TenantRecord, TenantState, is_name};
use ironpage_layout::metadata::MAX_MEMBERS;
use ironpage_layout::{TenantId, TimelineId};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// Tenants at most.
pub const TENANTS_MAX: usize = 10_000;
/// Branches of all tenants at most. A journal written anew holds all of them.
pub const BRANCHES_MAX: usize = 100_000;
/// Names of branches that a refusal lists.
const LISTED_MAX: usize = 20;

/// A pure state machine: [`State::with`] gives the state after a change, or why there is none. What it hands out
/// is shared, a copy of it is cheap beside the disk write of any change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    tenants: BTreeMap<TenantId, Rc<TenantRecord>>,
    branches: BTreeMap<(TenantId, TimelineId), Rc<BranchRecord>>,
    tenant_names: BTreeMap<Rc<str>, TenantId>,
    /// Of branches that are not being deleted: a deleted branch's name is free at once.
    branch_names: BTreeMap<(TenantId, Rc<str>), TimelineId>,
    /// Parent and child.
    children: BTreeSet<(TenantId, TimelineId, TimelineId)>,
}

impl State {
    pub fn tenants(&self) -> impl Iterator<Item = &Rc<TenantRecord>> {
        self.tenants.values()
    }

    pub fn tenant(&self, id: TenantId) -> Option<&Rc<TenantRecord>> {
        self.tenants.get(&id)
    }

    pub fn tenant_named(&self, name: &str) -> Option<&Rc<TenantRecord>> {
        self.tenant(*self.tenant_names.get(name)?)
    }

    /// All branches, those that are being made or deleted too.
    pub fn branches(&self) -> impl Iterator<Item = &Rc<BranchRecord>> {
        self.branches.values()
    }

    pub fn branches_of(&self, tenant: TenantId) -> impl Iterator<Item = &Rc<BranchRecord>> {
        self.branches.range((tenant, TimelineId([0; 16]))..=(tenant, TimelineId([0xff; 16]))).map(|(_, branch)| branch)
    }

    pub fn branch(&self, tenant: TenantId, timeline: TimelineId) -> Option<&Rc<BranchRecord>> {
        self.branches.get(&(tenant, timeline))
    }

    /// The branch of that name that is not being deleted.
    pub fn branch_named(&self, tenant: TenantId, name: &str) -> Option<&Rc<BranchRecord>> {
        self.branch(tenant, *self.branch_names.get(&(tenant, name.into()))?)
    }

    /// The branches that came off this one, those that are being deleted too.
    pub fn children(&self, tenant: TenantId, timeline: TimelineId) -> impl Iterator<Item = &Rc<BranchRecord>> {
        let range = (tenant, timeline, TimelineId([0; 16]))..=(tenant, timeline, TimelineId([0xff; 16]));
        self.children.range(range).filter_map(move |(_, _, child)| self.branch(tenant, *child))
    }

    /// All that makes this state, tenants before branches and parents before children.
    pub fn records(&self) -> Vec<Record> {
        let mut records: Vec<Record> = self.tenants().map(|tenant| Record::Tenant((**tenant).clone())).collect();
        let mut pending: Vec<&Rc<BranchRecord>> = self.branches().filter(|branch| branch.parent.is_none()).collect();
        while let Some(branch) = pending.pop() {
            records.push(Record::Branch((**branch).clone()));
            pending.extend(self.children(branch.tenant, branch.timeline));
        }
        records
    }

    /// The state after all of `records`, which are taken together: names may be swapped.
    pub fn with(&self, records: &[Record]) -> Result<State, Invalid> {
        let mut next = self.clone();
        for record in records {
            next.leave_names(record);
        }
        for record in records {
            next.take(record)?;
        }
        for record in records {
            next.check(record)?;
        }
        Ok(next)
    }

    /// Frees the names of what a record changes.
    fn leave_names(&mut self, record: &Record) {
        match record {
            Record::Tenant(TenantRecord { id, .. }) | Record::TenantGone(id) => {
                if let Some(old) = self.tenants.get(id) {
                    self.tenant_names.remove(&*old.name);
                }
            }
            Record::Branch(BranchRecord { tenant, timeline, .. }) | Record::BranchGone(tenant, timeline) => {
                if let Some(old) = self.branches.get(&(*tenant, *timeline)).filter(|old| old.state != BranchState::Deleting) {
                    self.branch_names.remove(&(*tenant, old.name.as_str().into()));
                }
            }
        }
    }

    fn take(&mut self, record: &Record) -> Result<(), Invalid> {
        match record {
            Record::Tenant(tenant) => self.take_tenant(tenant),
            Record::Branch(branch) => self.take_branch(branch),
            Record::TenantGone(id) => match self.tenants.remove(id) {
                Some(_) => Ok(()),
                None => Err(Invalid::NoTenant { tenant: *id }),
            },
            Record::BranchGone(tenant, timeline) => match self.branches.remove(&(*tenant, *timeline)) {
                Some(old) if old.state == BranchState::Active => {
                    Err(Invalid::Fixed { timeline: *timeline, what: "an active branch, deleted without a trace," })
                }
                Some(old) => {
                    if let Some(parent) = old.parent {
                        self.children.remove(&(*tenant, parent, *timeline));
                    }
                    Ok(())
                }
                None => Err(Invalid::NoBranch { tenant: *tenant, timeline: *timeline }),
            },
        }
    }

    fn take_tenant(&mut self, tenant: &TenantRecord) -> Result<(), Invalid> {
        if !is_name(&tenant.name) {
            return Err(Invalid::Name { name: tenant.name.clone() });
        }
        let old = self.tenants.insert(tenant.id, Rc::new(tenant.clone()));
        if old.is_some_and(|old| old.state == TenantState::Deleting && tenant.state != TenantState::Deleting) {
            return Err(Invalid::TenantDeleting { name: tenant.name.clone() });
        }
        if self.tenants.len() > TENANTS_MAX {
            return Err(Invalid::TooMany { what: "tenants", max: TENANTS_MAX });
        }
        match self.tenant_names.insert(tenant.name.as_str().into(), tenant.id) {
            Some(other) if other != tenant.id => Err(Invalid::TenantExists { name: tenant.name.clone() }),
            _ => Ok(()),
        }
    }

    fn take_branch(&mut self, branch: &BranchRecord) -> Result<(), Invalid> {
        let (tenant, timeline) = (branch.tenant, branch.timeline);
        if !is_name(&branch.name) {
            return Err(Invalid::Name { name: branch.name.clone() });
        }
        if branch.safekeepers.len() > MAX_MEMBERS {
            return Err(Invalid::TooMany { what: "safekeepers of a branch", max: MAX_MEMBERS });
        }
        let fixed = |what| Err(Invalid::Fixed { timeline, what });
        if !branch.safekeepers.is_sorted_by(|a, b| a < b) {
            return fixed("the list of its safekeepers");
        }
        // Parents come first, so that nothing is its own ancestor.
        if let Some(parent) = branch.parent.filter(|parent| !self.branches.contains_key(&(tenant, *parent))) {
            return Err(Invalid::NoParent { timeline, parent });
        }
        match self.branches.insert((tenant, timeline), Rc::new(branch.clone())) {
            Some(old) => {
                if let Some(what) = forbidden(&old, branch) {
                    return fixed(what);
                }
            }
            None => {
                if self.branches.len() > BRANCHES_MAX {
                    return Err(Invalid::TooMany { what: "branches", max: BRANCHES_MAX });
                }
                if let Some(parent) = branch.parent {
                    self.children.insert((tenant, parent, timeline));
                }
            }
        }
        if branch.state == BranchState::Deleting {
            return Ok(());
        }
        match self.branch_names.insert((tenant, branch.name.as_str().into()), timeline) {
            Some(other) if other != timeline => {
                let tenant = self.tenants.get(&tenant).map_or_else(String::new, |tenant| tenant.name.clone());
                Err(Invalid::BranchExists { tenant, name: branch.name.clone() })
            }
            _ => Ok(()),
        }
    }

    /// What must hold once all records are taken.
    fn check(&self, record: &Record) -> Result<(), Invalid> {
        match record {
            Record::Tenant(_) => Ok(()),
            Record::TenantGone(id) => match names(self.branches_of(*id)) {
                None => Ok(()),
                Some(branches) => Err(Invalid::TenantHasBranches { tenant: *id, branches }),
            },
            Record::Branch(branch) => {
                let tenant = branch.tenant;
                let owner = self.tenants.get(&tenant).ok_or(Invalid::NoTenant { tenant })?;
                if branch.state == BranchState::Creating && owner.state == TenantState::Deleting {
                    return Err(Invalid::TenantDeleting { name: owner.name.clone() });
                }
                self.check_parent(branch)?;
                self.check_children(branch)
            }
            Record::BranchGone(tenant, timeline) => match names(self.children(*tenant, *timeline)) {
                None => Ok(()),
                Some(children) => Err(Invalid::HasChildren { name: timeline.to_string(), children }),
            },
        }
    }

    /// A child keeps what it reads: its parent is deleted with it at the earliest.
    fn check_parent(&self, branch: &BranchRecord) -> Result<(), Invalid> {
        let Some(parent) = branch.parent else { return Ok(()) };
        match self.branch(branch.tenant, parent) {
            Some(above) if branch.state == BranchState::Deleting || above.state == BranchState::Active => Ok(()),
            _ => Err(Invalid::NoParent { timeline: branch.timeline, parent }),
        }
    }

    fn check_children(&self, branch: &BranchRecord) -> Result<(), Invalid> {
        if branch.state != BranchState::Deleting {
            return Ok(());
        }
        let staying = self.children(branch.tenant, branch.timeline).filter(|child| child.state != BranchState::Deleting);
        match names(staying) {
            None => Ok(()),
            Some(children) => Err(Invalid::HasChildren { name: branch.name.clone(), children }),
        }
    }
}

/// The names of branches, as a refusal lists them; `None` if there is none.
fn names<'a>(branches: impl Iterator<Item = &'a Rc<BranchRecord>>) -> Option<String> {
    let names: Vec<String> = branches.map(|branch| format!("'{}'", branch.name)).collect();
    match names.len() {
        0 => None,
        1..=LISTED_MAX => Some(names.join(", ")),
        all => Some(format!("{} and {} more", names.get(..LISTED_MAX)?.join(", "), all - LISTED_MAX)),
    }
}

/// What of a branch changes although it must not.
fn forbidden(old: &BranchRecord, new: &BranchRecord) -> Option<&'static str> {
    use BranchState::{Active, Creating, Deleting};
    let is_forward = matches!(
        (old.state, new.state),
        (Creating, Creating | Active | Deleting) | (Active, Active | Deleting) | (Deleting, Deleting)
    );
    [
        ("its state", !is_forward),
        ("its parent", old.parent != new.parent),
        ("its start", old.state != Creating && (old.start_lsn, old.prev_record_lsn) != (new.start_lsn, new.prev_record_lsn)),
        ("the server it belongs to", (old.system_id, old.postgres_version) != (new.system_id, new.postgres_version)),
        ("the list of its safekeepers", !old.safekeepers.iter().all(|member| new.safekeepers.contains(member))),
    ]
    .into_iter()
    .find_map(|(what, changes)| changes.then_some(what))
}
