//! What the safekeepers are told of branches.

use crate::metadata::{BranchKind, BranchRecord};
use ironpage_daemon::cli::Address;
use ironpage_daemon::frames::{FrameError, connect};
use ironpage_daemon::warn;
use ironpage_io::time::{sleep, timeout};
use ironpage_layout::wire::Kind;
use ironpage_layout::wire::admin::{TimelineDelete, TimelineDeleted};
use ironpage_layout::wire::hello::{Hello, Role};
use ironpage_layout::{NodeId, Term};
use std::time::Duration;

/// How long a safekeeper may take to remove a branch's WAL.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// Pause after one could not be reached, doubled up to the maximum.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);

/// Removes a branch's WAL everywhere. It returns once every safekeeper that is known to have it has removed it, and
/// the others were asked: one may have it although it was never registered, if what created it there was cut off.
pub async fn forget(branch: &BranchRecord, safekeepers: &[Address]) {
    let mut members = branch.safekeepers.clone();
    // A root is made at the safekeepers with its import, before anybody registers them.
    let needs_all = branch.parent.is_none() && branch.kind != BranchKind::Follow;
    let mut retry = RETRY_MIN;
    let mut asked = vec![false; safekeepers.len()];
    loop {
        let mut failure = None;
        for (address, asked) in safekeepers.iter().zip(&mut asked) {
            if *asked {
                continue;
            }
            match forget_at(branch, address).await {
                Ok(node) => {
                    members.retain(|member| *member != node);
                    *asked = true;
                }
                Err(error) => failure = Some(error),
            }
        }
        let all_asked = asked.iter().all(|asked| *asked);
        if members.is_empty() && (all_asked || !needs_all) {
            return;
        }
        if all_asked {
            let missing: Vec<String> = members.iter().map(NodeId::to_string).collect();
            let (name, missing) = (&branch.name, missing.join(", "));
            warn!("branch '{name}' ({}): safekeepers {missing} are not configured here; its WAL there stays", branch.timeline);
            return;
        }
        if retry == RETRY_MIN {
            let why = failure.map_or_else(String::new, |error| error.to_string());
            warn!("branch '{}' ({}): its WAL is not removed everywhere: {why}; trying on", branch.name, branch.timeline);
        }
        sleep(retry).await;
        retry = (retry * 2).min(RETRY_MAX);
    }
}

/// Which safekeeper it was.
async fn forget_at(branch: &BranchRecord, address: &Address) -> Result<NodeId, FrameError> {
    let hello = Hello {
        role: Role::Admin,
        tenant: branch.tenant,
        timeline: branch.timeline,
        system_id: branch.system_id,
        postgres_version: 0,
        token: Vec::new(),
    };
    let exchange = async {
        let (mut reader, writer, node) = connect(address, &hello).await?;
        let delete = TimelineDelete { tenant: branch.tenant.0, timeline: branch.timeline.0 };
        writer.send(Kind::TimelineDelete, 1, Term(0), |out| delete.encode(out)).await?;
        let reply = TimelineDeleted::decode(reader.expect(&[Kind::TimelineDeleted], "TimelineDeleted").await?.payload).map(drop);
        reply.map_err(|error| reader.malformed(error))?;
        Ok(node)
    };
    let late = || FrameError::Timeout { peer: address.text.clone(), what: "TimelineDelete", seconds: ANSWER_MAX.as_secs() };
    timeout(ANSWER_MAX, exchange).await.unwrap_or_else(|_| Err(late()))
}
