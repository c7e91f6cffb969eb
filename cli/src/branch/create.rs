//! `branch create`.

use crate::api::{At, Created, Kind, NewBranch};
use crate::cluster::{Cluster, MAIN, branch_in_words};
use crate::error::Result;
use crate::moment;
use crate::output::{self, Format};
use ironpage_layout::Lsn;

pub struct Wanted<'a> {
    pub name: &'a str,
    pub from: &'a str,
    pub at: Option<At>,
    pub ttl_seconds: Option<u64>,
}

pub fn create(cluster: &Cluster, tenant: &str, wanted: Wanted<'_>, format: Format) -> Result<()> {
    let new = NewBranch {
        name: wanted.name.into(),
        from: wanted.from.into(),
        at: wanted.at,
        ttl_seconds: wanted.ttl_seconds,
        kind: Kind::Branch,
    };
    let created = cluster.api().create_branch(tenant, &new)?;
    output::answer(format, &created, || in_words(tenant, &wanted, &created))
}

fn in_words(tenant: &str, wanted: &Wanted<'_>, created: &Created) -> String {
    let mut text = format!(
        "{} from '{}' at {}{}",
        branch_in_words(tenant, wanted.name),
        wanted.from,
        created.lsn,
        which_point(wanted.at, created.requested_lsn, created.lsn, created.rounded)
    );
    if let Some(expires) = created.branch.expires_at_us {
        text += &format!("\nit goes away by itself at {}", moment::local(expires));
    }
    let tenant_option = if tenant == MAIN { String::new() } else { format!(" --tenant {tenant}") };
    text + &format!("\n`ironpage endpoint start NAME --branch {}{tenant_option}` starts a Postgres on it", wanted.name)
}

/// Why it is that LSN, in brackets; nothing if it is the one that was asked for.
pub fn which_point(at: Option<At>, requested: Option<Lsn>, lsn: Lsn, rounded: bool) -> String {
    match (at, requested) {
        (None, _) => ", its head".into(),
        (Some(At::TimestampUs(us)), _) => format!(", as it was at {}", moment::local(us)),
        (Some(At::Lsn(asked)), requested) if rounded || requested.unwrap_or(asked) != lsn => {
            format!(": {} is no record's end, so it was rounded down", requested.unwrap_or(asked))
        }
        (Some(At::Lsn(_)), _) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_is_said() {
        let (asked, end) = (Lsn(0x150_0030), Lsn(0x150_0028));
        let said = which_point(Some(At::Lsn(asked)), Some(asked), end, true);
        assert!(said.contains("0/1500030") && said.contains("rounded down"), "{said}");
        assert_eq!(which_point(Some(At::Lsn(end)), Some(end), end, false), "");
        assert_eq!(which_point(None, None, end, false), ", its head");
        assert!(which_point(Some(At::TimestampUs(0)), None, end, true).contains("19"));
    }
}
