//! The counters of pg_control, kept up to date between checkpoints as recovery does.

use ironpage_layout::postgres::control::{CheckPoint, ControlFile};
use ironpage_layout::postgres::slru::{is_normal_xid, precedes, xid_precedes};
use zerocopy::little_endian::{U32, U64};

/// AdvanceNextFullTransactionIdPastXid (access/transam/varsup.c): next_xid is behind `xid`, epochs counted.
pub fn advance_next_xid(control: &mut ControlFile, xid: u32) {
    let next = control.checkpoint_copy.next_xid.get();
    let next_xid = next as u32;
    if !is_normal_xid(xid) || xid_precedes(xid, next_xid) {
        return;
    }
    // TransactionIdAdvance: permanent xids are skipped.
    let after = match xid.wrapping_add(1) {
        permanent if !is_normal_xid(permanent) => ironpage_layout::postgres::slru::FIRST_NORMAL_XID,
        normal => normal,
    };
    let epoch = (next >> 32) + u64::from(after < next_xid);
    control.checkpoint_copy.next_xid = U64::new(epoch << 32 | u64::from(after));
}

/// MultiXactAdvanceNextMXact (access/transam/multixact.c).
pub fn advance_next_multi(checkpoint: &mut CheckPoint, multi: u32, offset: u32) {
    if precedes(checkpoint.next_multi.get(), multi) {
        checkpoint.next_multi = U32::new(multi);
    }
    if precedes(checkpoint.next_multi_offset.get(), offset) {
        checkpoint.next_multi_offset = U32::new(offset);
    }
}

/// The newest transaction with a commit time is `xid` or a later one (TransactionTreeSetCommitTsData).
pub fn advance_newest_commit_ts(checkpoint: &mut CheckPoint, xid: u32) {
    if xid_precedes(checkpoint.newest_commit_ts_xid.get(), xid) {
        checkpoint.newest_commit_ts_xid = U32::new(xid);
    }
}

/// An online checkpoint: its counters are those of its beginning, so they only ever raise ours; next_oid is left
/// to its own records (xlog_redo, access/transam/xlog.c).
pub fn apply_online_checkpoint(control: &mut ControlFile, checkpoint: &CheckPoint) {
    let current = control.checkpoint_copy;
    let mut merged = *checkpoint;
    merged.next_xid = U64::new(current.next_xid.get().max(checkpoint.next_xid.get()));
    merged.next_oid = current.next_oid;
    merged.next_multi = current.next_multi;
    merged.next_multi_offset = current.next_multi_offset;
    advance_next_multi(&mut merged, checkpoint.next_multi.get(), checkpoint.next_multi_offset.get());
    if !xid_precedes(current.oldest_xid.get(), checkpoint.oldest_xid.get()) {
        merged.oldest_xid = current.oldest_xid;
        merged.oldest_xid_database = current.oldest_xid_database;
    }
    if !precedes(current.oldest_multi.get(), checkpoint.oldest_multi.get()) {
        merged.oldest_multi = current.oldest_multi;
        merged.oldest_multi_database = current.oldest_multi_database;
    }
    merged.oldest_commit_ts_xid = current.oldest_commit_ts_xid;
    merged.newest_commit_ts_xid = current.newest_commit_ts_xid;
    if control.track_commit_timestamp != 0 && checkpoint.newest_commit_ts_xid.get() != 0 {
        merged.oldest_commit_ts_xid = checkpoint.oldest_commit_ts_xid;
        advance_newest_commit_ts(&mut merged, checkpoint.newest_commit_ts_xid.get());
    }
    control.checkpoint_copy = merged;
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::FromZeros;

    fn next_after(next: u64, xid: u32) -> u64 {
        let mut control = ControlFile::new_zeroed();
        control.checkpoint_copy.next_xid = U64::new(next);
        advance_next_xid(&mut control, xid);
        control.checkpoint_copy.next_xid.get()
    }

    #[test]
    fn transaction_numbers_wrap_into_the_next_epoch() {
        assert_eq!(next_after(700, 699), 700);
        assert_eq!(next_after(700, 700), 701);
        assert_eq!(next_after(700, 0), 700);
        assert_eq!(next_after(700, 2), 700);
        assert_eq!(next_after(0x2_FFFF_FFF0, u32::MAX), 0x3_0000_0003);
        assert_eq!(next_after(0x2_FFFF_FFF0, 5), 0x3_0000_0006);
        assert_eq!(next_after(0x3_0000_0005, u32::MAX), 0x3_0000_0005);
    }

    #[test]
    fn an_online_checkpoint_never_turns_a_counter_back() {
        let mut control = ControlFile::new_zeroed();
        control.checkpoint_copy.next_xid = U64::new(800);
        control.checkpoint_copy.next_oid = U32::new(24576);
        control.checkpoint_copy.next_multi = U32::new(9);
        control.checkpoint_copy.oldest_xid = U32::new(700);
        let mut checkpoint = control.checkpoint_copy;
        checkpoint.next_xid = U64::new(790);
        checkpoint.next_oid = U32::new(30000);
        checkpoint.next_multi = U32::new(7);
        checkpoint.next_multi_offset = U32::new(4);
        checkpoint.oldest_xid = U32::new(720);
        checkpoint.redo = U64::new(77);
        apply_online_checkpoint(&mut control, &checkpoint);
        let now = control.checkpoint_copy;
        assert_eq!((now.next_xid.get(), now.next_oid.get(), now.next_multi.get()), (800, 24576, 9));
        assert_eq!((now.next_multi_offset.get(), now.oldest_xid.get(), now.redo.get()), (4, 720, 77));
    }
}
