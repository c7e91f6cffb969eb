//! Which changes make sense.

use super::super::state::State;
use super::super::{BranchRecord, BranchState, Invalid, Record, TenantRecord, TenantState};
use super::{branch, child, gone, tenant};
use BranchState::{Active, Creating, Deleting};
use ironpage_layout::{Lsn, NodeId, TenantId, TimelineId};

fn after(records: &[Record]) -> State {
    let start = State::default().with(&[Record::Tenant(tenant(1, "t"))]).unwrap();
    records.iter().fold(start, |state, record| state.with(std::slice::from_ref(record)).unwrap())
}

fn b(record: BranchRecord) -> Record {
    Record::Branch(record)
}

#[test]
fn names_are_unique_while_they_are_in_use() {
    let state = after(&[b(branch(1, "main", Active))]);
    let refused = state.with(&[b(branch(2, "main", Creating))]).unwrap_err();
    assert_eq!(refused, Invalid::BranchExists { tenant: "t".into(), name: "main".into() });
    assert!(matches!(state.with(&[Record::Tenant(tenant(2, "t"))]), Err(Invalid::TenantExists { .. })));
    // The other tenant has names of its own.
    let other = BranchRecord { tenant: TenantId([2; 16]), ..branch(2, "main", Active) };
    let state = state.with(&[Record::Tenant(tenant(2, "u")), b(other)]).unwrap();
    // A deleted branch's name is free at once, and found as the new one's.
    let state = state.with(&[b(branch(1, "main", Deleting))]).unwrap();
    assert!(state.branch_named(TenantId([1; 16]), "main").is_none());
    let state = state.with(&[b(branch(3, "main", Creating))]).unwrap();
    let state = state.with(&[gone(1)]).unwrap();
    assert_eq!(state.branch_named(TenantId([1; 16]), "main").unwrap().timeline, TimelineId([3; 16]));
    for bad in ["", "ä", "a b", "../x", "-", "x'; drop", &"x".repeat(64)] {
        assert!(matches!(state.with(&[b(branch(9, bad, Creating))]), Err(Invalid::Name { .. })), "{bad}");
        assert!(matches!(state.with(&[Record::Tenant(tenant(9, bad))]), Err(Invalid::Name { .. })), "{bad}");
    }
}

#[test]
fn names_are_swapped_in_one_batch() {
    let state = after(&[b(branch(1, "main", Active)), b(child(2, 1, Creating))]);
    let switch = [b(branch(1, "backup", Active)), b(BranchRecord { name: "main".into(), ..child(2, 1, Active) })];
    for switch in [switch.clone(), [switch[1].clone(), switch[0].clone()]] {
        let state = state.with(&switch).unwrap();
        let named = |name| state.branch_named(TenantId([1; 16]), name).map(|branch| branch.timeline.0[0]);
        assert_eq!((named("main"), named("backup"), named("b2")), (Some(2), Some(1), None));
    }
    assert!(state.with(&switch[1..]).is_err(), "half of it is nothing");
}

#[test]
fn what_is_read_is_not_deleted() {
    let state = after(&[b(branch(1, "main", Active)), b(child(2, 1, Active)), b(child(3, 2, Creating))]);
    let refused = state.with(&[b(branch(1, "main", Deleting))]).unwrap_err();
    assert_eq!(refused, Invalid::HasChildren { name: "main".into(), children: "'b2'".into() });
    let all = [b(branch(1, "main", Deleting)), b(child(2, 1, Deleting)), b(child(3, 2, Deleting))];
    let state = state.with(&all).unwrap();
    assert!(matches!(state.with(&[gone(2)]), Err(Invalid::HasChildren { .. })), "the parent goes after its child");
    assert!(state.with(&[b(child(4, 2, Creating))]).is_err(), "nothing comes off what is being deleted");
    let state = state.with(&[gone(3)]).unwrap().with(&[gone(2)]).unwrap().with(&[gone(1)]).unwrap();
    assert_eq!(state.branches().count(), 0);
    assert!(matches!(state.with(&[b(child(4, 2, Creating))]), Err(Invalid::NoParent { .. })));
}

#[test]
fn states_go_forward_and_identities_stay() {
    let state = after(&[b(branch(1, "main", Creating)), b(branch(1, "main", Active))]);
    let old = branch(1, "main", Active);
    let with_safekeepers = BranchRecord { safekeepers: vec![NodeId(1), NodeId(3)], ..old.clone() };
    let state = state.with(&[b(with_safekeepers.clone())]).unwrap();
    for wrong in [
        b(branch(1, "main", Creating)),
        b(BranchRecord { system_id: 8, ..with_safekeepers.clone() }),
        b(BranchRecord { start_lsn: Lsn(32), ..with_safekeepers.clone() }),
        b(BranchRecord { parent: Some(TimelineId([1; 16])), ..with_safekeepers.clone() }),
        // A safekeeper that once had it must never get it anew.
        b(BranchRecord { safekeepers: vec![NodeId(3)], ..old.clone() }),
        b(BranchRecord { safekeepers: vec![NodeId(3), NodeId(1)], ..old.clone() }),
    ] {
        assert!(matches!(state.with(std::slice::from_ref(&wrong)), Err(Invalid::Fixed { .. })), "{wrong:?}");
    }
    assert!(matches!(state.with(&[gone(1)]), Err(Invalid::Fixed { .. })), "an active branch does not vanish");
    assert!(matches!(state.with(&[gone(7)]), Err(Invalid::NoBranch { .. })));
    assert!(state.with(&[b(BranchRecord { expires_at_us: Some(9), ..with_safekeepers })]).is_ok());
}

#[test]
fn tenants_go_when_they_are_empty() {
    let id = TenantId([1; 16]);
    let state = after(&[b(branch(1, "main", Active))]);
    assert!(matches!(state.with(&[Record::TenantGone(id)]), Err(Invalid::TenantHasBranches { .. })));
    let deleting = TenantRecord { state: TenantState::Deleting, ..tenant(1, "t") };
    let state = state.with(&[Record::Tenant(deleting), b(branch(1, "main", Deleting))]).unwrap();
    assert!(matches!(state.with(&[b(branch(2, "x", Creating))]), Err(Invalid::TenantDeleting { .. })));
    assert!(state.with(&[Record::Tenant(tenant(1, "t"))]).is_err());
    let state = state.with(&[gone(1)]).unwrap().with(&[Record::TenantGone(id)]).unwrap();
    assert!(state.tenant_named("t").is_none());
    assert!(matches!(state.with(&[b(branch(2, "x", Creating))]), Err(Invalid::NoTenant { .. })));
}

/// Random changes: whatever was taken can be written out and read back, and the indexes are those of the records.
#[test]
fn any_state_comes_back_from_its_records() {
    let mut seed = 1u64;
    let mut random = move |below: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % below
    };
    let mut state = after(&[]);
    let (mut taken, mut refused) = (0, 0);
    for _ in 0..20_000 {
        let number = 1 + random(12) as u8;
        let branch_state = [Creating, Active, Deleting][random(3) as usize];
        let parent = random(13) as u8;
        let mut record = match parent {
            0 => branch(number, "", branch_state),
            parent => child(number, parent, branch_state),
        };
        record.name = format!("n{}", random(8));
        let records = match random(6) {
            0 => vec![gone(number)],
            1 => {
                // A change of one that is there.
                let there = state.branch(TenantId([1; 16]), TimelineId([number; 16]));
                there
                    .map(|there| b(BranchRecord { state: branch_state, name: record.name, ..(**there).clone() }))
                    .into_iter()
                    .collect()
            }
            _ => vec![b(record)],
        };
        match state.with(&records) {
            Ok(next) => {
                taken += 1;
                state = next;
                let again = state.records().iter().fold(State::default(), |state, record| {
                    state.with(std::slice::from_ref(record)).unwrap_or_else(|error| panic!("{error}: {record:?}"))
                });
                assert_eq!(again, state);
            }
            Err(_) => refused += 1,
        }
    }
    assert!(taken > 1000 && refused > 1000, "{taken} taken, {refused} refused");
}
