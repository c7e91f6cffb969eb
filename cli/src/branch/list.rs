//! `branch list`.

use crate::api::Branch;
use crate::cluster::Cluster;
use crate::connstr;
use crate::error::Result;
use crate::moment;
use crate::output::{self, Format};
use ironpage_layout::TimelineId;
use serde::Serialize;
use std::collections::BTreeMap;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shape {
    Flat,
    Tree,
}

/// A branch as the API has it, with what this machine knows.
#[derive(Serialize)]
struct Listed<'a> {
    #[serde(flatten)]
    branch: &'a Branch,
    /// The endpoint that runs on it.
    endpoint: Option<&'a str>,
}

pub fn list(cluster: &Cluster, tenant: &str, shape: Shape, format: Format) -> Result<()> {
    let mut branches = cluster.api().branches(tenant)?;
    branches.sort_by(|a, b| (a.created_at_us, &a.name).cmp(&(b.created_at_us, &b.name)));
    let order = match shape {
        Shape::Flat => branches.iter().map(|branch| (String::new(), branch)).collect(),
        Shape::Tree => tree(&branches),
    };
    let endpoint = |branch: &Branch| connstr::serving(cluster, tenant, &branch.name).map(|endpoint| endpoint.name.as_str());
    let listed: Vec<_> = order.iter().map(|(_, branch)| Listed { branch, endpoint: endpoint(branch) }).collect();
    output::answer(format, &listed, || table(&order, endpoint))
}

/// Children below their parents, with the lines that lead to them.
fn tree(branches: &[Branch]) -> Vec<(String, &Branch)> {
    let mut children: BTreeMap<Option<TimelineId>, Vec<&Branch>> = BTreeMap::new();
    let known = |id: TimelineId| branches.iter().any(|branch| branch.id == id);
    for branch in branches {
        // What has a parent that is not listed is shown as a root.
        children.entry(branch.parent_id.filter(|parent| known(*parent))).or_default().push(branch);
    }
    let mut order = Vec::new();
    // Depth first without recursion: branches of branches go to any depth. What comes first is pushed last.
    let mut pending: Vec<(&Branch, String, String)> = Vec::new();
    let mut push = |pending: &mut Vec<_>, parent: Option<TimelineId>, lines: &str| {
        let below = children.remove(&parent).unwrap_or_default();
        for (index, child) in below.iter().enumerate().rev() {
            let last = index + 1 == below.len();
            let (own, inner) = match (parent, last) {
                (None, _) => (String::new(), String::new()),
                (Some(_), true) => (format!("{lines}└─ "), format!("{lines}   ")),
                (Some(_), false) => (format!("{lines}├─ "), format!("{lines}│  ")),
            };
            pending.push((*child, own, inner));
        }
    };
    push(&mut pending, None, "");
    while let Some((branch, own, inner)) = pending.pop() {
        order.push((own, branch));
        push(&mut pending, Some(branch.id), &inner);
    }
    order
}

fn table<'a>(order: &[(String, &Branch)], endpoint: impl Fn(&Branch) -> Option<&'a str>) -> String {
    let width = order.iter().map(|(lines, branch)| lines.chars().count() + branch.name.len()).max().unwrap_or(0).max(16);
    let parents = order.iter().filter_map(|(_, branch)| branch.parent.as_ref()).map(String::len).max().unwrap_or(0).max(12);
    let mut text = format!(
        "{:<width$} {:<8} {:<parents$} {:<14} {:<14} {:>14} {:<32} {:<32} ENDPOINT",
        "NAME", "KIND", "PARENT", "BRANCHED AT", "HEAD", "BYTES", "CREATED", "GOES AWAY"
    );
    for (lines, branch) in order {
        text += &format!(
            "\n{:<width$} {:<8} {:<parents$} {:<14} {:<14} {:>14} {:<32} {:<32} {}",
            format!("{lines}{}", branch.name),
            branch.kind,
            branch.parent.as_deref().unwrap_or("-"),
            branch.parent_lsn.map_or("-".into(), |lsn| lsn.to_string()),
            branch.last_record_lsn.to_string(),
            branch.logical_size,
            moment::local(branch.created_at_us),
            branch.expires_at_us.map_or("-".into(), moment::local),
            endpoint(branch).unwrap_or("-"),
        );
        if let Some(stopped) = branch.stopped.as_deref().filter(|stopped| !stopped.is_empty()) {
            text += &format!("\n{:<width$} ingest stopped: {stopped}", "");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_has_children_below_their_parents() {
        let branch = |id: u8, name: &str, parent: Option<u8>| -> Branch {
            let parent_id = parent.map_or("null".into(), |parent| format!("\"{}\"", TimelineId([parent; 16])));
            let text = format!(
                r#"{{"id":"{}","tenant":"main","name":"{name}","kind":"branch","parent":null,"parent_id":{parent_id},"parent_lsn":null,
                "start_lsn":"0/1","readable_lsn":"0/1","prev_record_lsn":"0/1","state":"active","system_id":"1","postgres_version":150020,
                "created_at_us":0,"expires_at_us":null,"safekeepers":[],"last_record_lsn":"0/1","disk_consistent_lsn":"0/1","logical_size":0}}"#,
                TimelineId([id; 16])
            );
            serde_json::from_str(&text).unwrap()
        };
        let branches = [
            branch(1, "main", None),
            branch(2, "a", Some(1)),
            branch(3, "b", Some(1)),
            branch(4, "a1", Some(2)),
            branch(5, "a2", Some(2)),
            branch(6, "b1", Some(3)),
            branch(7, "orphan", Some(99)),
        ];
        let shown: Vec<_> = tree(&branches).into_iter().map(|(lines, branch)| format!("{lines}{}", branch.name)).collect();
        assert_eq!(shown, ["main", "├─ a", "│  ├─ a1", "│  └─ a2", "└─ b", "   └─ b1", "orphan"]);
    }
}
