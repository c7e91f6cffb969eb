//! `ironpage.launch`: what the extension must know of the election its data directory was made for.
//! It takes the file away when the postmaster starts, so that no directory starts twice.

use crate::error::{AtPath, Result};
use crate::user::Owner;
use ironpage_layout::wire::append::TermHistory;
use ironpage_layout::{Lsn, TenantId, Term, TimelineId};
use std::io::Write;
use std::path::Path;

/// Name in the data directory.
const FILE: &str = "ironpage.launch";

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ticket {
    pub term: Term,
    /// End of the WAL when the term was won; the checkpoint record is the first after it.
    pub start_lsn: Lsn,
    pub tenant: TenantId,
    pub timeline: TimelineId,
    pub system_id: u64,
    pub history: TermHistory,
}

impl Ticket {
    fn text(&self) -> String {
        let history: Vec<String> = self.history.0.iter().map(|(term, start)| format!("{term}:{start}")).collect();
        format!(
            "term={}\nstart_lsn={}\ntenant={}\ntimeline={}\nsystem_id={}\nhistory={}\n",
            self.term,
            self.start_lsn,
            self.tenant,
            self.timeline,
            self.system_id,
            history.join(",")
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
        let ticket = Ticket {
            term: Term(7),
            start_lsn: Lsn(0x1_0000_0028),
            tenant: TenantId([0xab; 16]),
            timeline: TimelineId([1; 16]),
            system_id: 99,
            history: TermHistory(vec![(Term(1), Lsn(0x1953000)), (Term(7), Lsn(0x1_0000_0028))]),
        };
        let wanted = "term=7\nstart_lsn=1/28\ntenant=abababababababababababababababab\n\
            timeline=01010101010101010101010101010101\nsystem_id=99\nhistory=1:0/1953000,7:1/28\n";
        assert_eq!(ticket.text(), wanted);
    }
}
