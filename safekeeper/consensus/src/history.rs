//! Comparing and extending term histories.

use crate::error::{Error, Result};
use ironpage_layout::wire::append::TermHistory;
use ironpage_layout::{Lsn, Term};

/// First LSN up to which a log with history `ours` and end `end` is known to equal the log of `theirs`.
///
/// Entries that agree in term and start were written by the same leader, so the logs agree until either
/// side's next entry, or our end. Before the first entry lies what the timeline was created with.
pub fn common_point(ours: &TermHistory, end: Lsn, theirs: &TermHistory) -> Lsn {
    let equal = ours.0.iter().zip(&theirs.0).take_while(|(a, b)| a == b).count();
    let ends_at = |history: &TermHistory| history.0.get(equal).map_or(Lsn::MAX, |entry| entry.1);
    end.min(ends_at(ours)).min(ends_at(theirs))
}

/// The history of a leader of `term` that starts at `at` behind a log with history `base`. A term that
/// left no WAL before `at` is dropped: it names no byte, and elections that led to nothing must not fill the
/// history, whose length is bounded.
pub fn extended(base: &TermHistory, term: Term, at: Lsn) -> TermHistory {
    let mut entries: Vec<_> = base.0.iter().copied().filter(|entry| entry.1 < at).collect();
    entries.push((term, at));
    TermHistory(entries)
}

/// Term of the newest entry, 0 if there is none.
pub fn last_term(history: &TermHistory) -> Term {
    history.0.last().map_or(Term(0), |entry| entry.0)
}

/// Where the newest term started.
pub fn last_start(history: &TermHistory) -> Lsn {
    history.0.last().map_or(Lsn::INVALID, |entry| entry.1)
}

/// Checks that `history` grows and that its newest entry is `term`'s.
pub fn check(history: &TermHistory, term: Term) -> Result<()> {
    let grows = history.0.windows(2).all(|pair| match pair {
        [a, b] => a.0 < b.0 && a.1 <= b.1,
        _ => true,
    });
    if !grows || history.0.is_empty() || last_term(history) != term {
        return Err(Error::BadHistory { term });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(entries: &[(u64, u64)]) -> TermHistory {
        TermHistory(entries.iter().map(|(term, start)| (Term(*term), Lsn(*start))).collect())
    }

    #[test]
    fn logs_are_common_until_the_first_entry_that_differs() {
        let common =
            |ours: &[(u64, u64)], end: u64, theirs: &[(u64, u64)]| common_point(&history(ours), Lsn(end), &history(theirs)).0;
        assert_eq!(common(&[], 10, &[(3, 10)]), 10);
        assert_eq!(common(&[(1, 10)], 200, &[(2, 10)]), 10);
        assert_eq!(common(&[(1, 10)], 100, &[(1, 10), (2, 90)]), 90);
        assert_eq!(common(&[(1, 10)], 100, &[(1, 10), (2, 120)]), 100);
        assert_eq!(common(&[(1, 10), (2, 90)], 200, &[(1, 10), (3, 95)]), 90);
        assert_eq!(common(&[(1, 10), (2, 90)], 60, &[(1, 10), (3, 95)]), 60);
        assert_eq!(common(&[(1, 10), (2, 90)], 200, &[(1, 10), (2, 90)]), 200);
    }

    #[test]
    fn a_new_leader_drops_entries_that_name_nothing_in_its_log() {
        let base = history(&[(1, 10), (2, 90), (3, 95)]);
        assert_eq!(extended(&base, Term(4), Lsn(90)), history(&[(1, 10), (4, 90)]));
        assert_eq!(extended(&base, Term(4), Lsn(91)), history(&[(1, 10), (2, 90), (4, 91)]));
        // Logs of the dropped term and of one it followed are cut where it began.
        assert_eq!(common_point(&history(&[(1, 10), (2, 90)]), Lsn(200), &history(&[(1, 10), (4, 90)])), Lsn(90));
        assert_eq!(common_point(&history(&[(1, 10), (2, 90)]), Lsn(90), &history(&[(1, 10), (4, 90)])), Lsn(90));
        assert!(check(&base, Term(3)).is_ok() && check(&base, Term(4)).is_err());
        assert!(check(&history(&[(2, 5), (1, 9)]), Term(1)).is_err());
        assert!(check(&history(&[]), Term(0)).is_err());
    }
}
