//! `ironpage.launch`: what the extension must know of the start its data directory was made for.
//! It takes the file away when the postmaster starts, so that no directory starts twice.

use crate::error::{AtPath, Result};
use crate::user::Owner;
use ironpage_layout::wire::append::TermHistory;
use ironpage_layout::{Lsn, TenantId, Term, TimelineId};
use std::io::Write;
use std::path::Path;

/// Name in the data directory.
const FILE: &str = "ironpage.launch";

/// What Postgres is started as.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Mode {
    /// With a term that was won; the history ends with it.
    Primary { term: Term, history: TermHistory },
    /// A hot standby that stays where it starts.
    ReadOnly,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ticket {
    pub mode: Mode,
    /// End of the WAL that Postgres starts from; the checkpoint record is the first after it.
    pub start_lsn: Lsn,
    pub tenant: TenantId,
    pub timeline: TimelineId,
    pub system_id: u64,
}

impl Ticket {
    fn text(&self) -> String {
        let mode = match &self.mode {
            Mode::Primary { term, history } => {
                let history: Vec<String> = history.0.iter().map(|(term, start)| format!("{term}:{start}")).collect();
                format!("mode=primary\nterm={term}\nhistory={}", history.join(","))
            }
            Mode::ReadOnly => "mode=read-only\nterm=0".to_string(),
        };
        format!(
            "{mode}\nstart_lsn={}\ntenant={}\ntimeline={}\nsystem_id={}\n",
            self.start_lsn, self.tenant, self.timeline, self.system_id
        )
    }

    /// Need not be durable: the directory of a machine that crashed is never started again.
    pub fn write(&self, data_dir: &Path, owner: &Owner) -> Result<()> {
        let path = data_dir.join(FILE);
        let mut file = owner.create_file(&path)?;
        file.write_all(self.text().as_bytes()).at("write", &path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_what_the_extension_reads() {
        let history = TermHistory(vec![(Term(1), Lsn(0x1953000)), (Term(7), Lsn(0x1_0000_0028))]);
        let ticket = Ticket {
            mode: Mode::Primary { term: Term(7), history },
            start_lsn: Lsn(0x1_0000_0028),
            tenant: TenantId([0xab; 16]),
            timeline: TimelineId([1; 16]),
            system_id: 99,
        };
        let rest = "start_lsn=1/28\ntenant=abababababababababababababababab\n\
            timeline=01010101010101010101010101010101\nsystem_id=99\n";
        assert_eq!(ticket.text(), format!("mode=primary\nterm=7\nhistory=1:0/1953000,7:1/28\n{rest}"));
        let ticket = Ticket { mode: Mode::ReadOnly, ..ticket };
        assert_eq!(ticket.text(), format!("mode=read-only\nterm=0\n{rest}"));
    }
}
