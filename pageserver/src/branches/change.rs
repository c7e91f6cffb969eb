//! Changes of a branch's record alone: its name, when it goes away, who has its WAL.

use super::{BranchError, Branches, find_branch, now_us};
use crate::metadata::{BranchRecord, BranchState, Record};
use ironpage_layout::NodeId;
use std::rc::Rc;

/// Longest time to live: a thousand years, in seconds.
const TTL_SECONDS_MAX: u64 = 1000 * 366 * 86_400;

/// When a branch goes away by itself: microseconds since 1970 UTC.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Expiry(pub Option<i64>);

impl Expiry {
    /// So many seconds from now, or never.
    pub fn of(ttl_seconds: Option<u64>) -> Result<Expiry, BranchError> {
        match ttl_seconds {
            None => Ok(Expiry(None)),
            Some(seconds @ 1..=TTL_SECONDS_MAX) => Ok(Expiry(Some(now_us().saturating_add(seconds as i64 * 1_000_000)))),
            Some(_) => Err(BranchError::BadRequest {
                why: format!("ttl_seconds is from 1 to {TTL_SECONDS_MAX}, or null for a branch that stays"),
            }),
        }
    }
}

/// What is to change; `None` stays.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Change {
    pub name: Option<String>,
    pub expiry: Option<Expiry>,
}

impl Branches {
    /// Renames a branch, or says anew when it goes away.
    pub async fn change(&self, tenant: &str, branch: &str, change: Change) -> Result<Rc<BranchRecord>, BranchError> {
        self.rewrite(tenant, branch, |branch| {
            if let Some(name) = change.name {
                branch.name = name;
            }
            if let Some(Expiry(expires_at_us)) = change.expiry {
                branch.expires_at_us = expires_at_us;
            }
            Ok(())
        })
        .await
    }

    /// Remembers durably that these safekeepers have the branch's WAL: it is never created on them again.
    pub async fn add_safekeepers(&self, tenant: &str, branch: &str, members: &[NodeId]) -> Result<Rc<BranchRecord>, BranchError> {
        if members.is_empty() || members.contains(&NodeId(0)) {
            let why = "members is a list of safekeepers' numbers, of 1 or more each".to_string();
            return Err(BranchError::BadRequest { why });
        }
        let branch = self
            .rewrite(tenant, branch, |branch| {
                branch.safekeepers.extend_from_slice(members);
                branch.safekeepers.sort_unstable();
                branch.safekeepers.dedup();
                Ok(())
            })
            .await?;
        if let Ok(timeline) = self.timeline(&branch) {
            timeline.wake_receiver();
        }
        Ok(branch)
    }

    /// Replaces the record of an active branch.
    async fn rewrite(
        &self,
        tenant: &str,
        branch: &str,
        edit: impl FnOnce(&mut BranchRecord) -> Result<(), BranchError>,
    ) -> Result<Rc<BranchRecord>, BranchError> {
        let (_, changed) = self
            .shared
            .journal
            .change(|state| {
                let old = find_branch(state, tenant, branch)?;
                if old.state != BranchState::Active {
                    return Err(BranchError::not_active(&old));
                }
                let mut new = (*old).clone();
                edit(&mut new)?;
                let records = if new == *old { Vec::new() } else { vec![Record::Branch(new.clone())] };
                Ok((records, Rc::new(new)))
            })
            .await?;
        Ok(changed)
    }
}
