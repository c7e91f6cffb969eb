//! Multixacts (access/transam/multixact.c).

use super::control::advance_next_multi;
use super::record::Step;
use super::{IngestError, Sink};
use ironpage_layout::Value;
use ironpage_layout::key::SlruKind;
use ironpage_layout::postgres::rmgr::multixact;
use ironpage_layout::postgres::slru::{FIRST_MULTIXACT, multi_members, multi_offsets};
use std::borrow::Cow;
use zerocopy::little_endian::U32;

/// MultiXactStatusUpdate, the last one.
const STATUS_MAX: u32 = 5;

impl<S: Sink> Step<'_, S> {
    pub fn multixact(&mut self, info: u8) -> Result<(), IngestError> {
        match info {
            multixact::ZERO_OFF_PAGE => {
                let page = self.main_data().u32().ok_or_else(|| self.short())?;
                // It may have begun at the creation before; then it has an entry already.
                if self.head.begun_offsets_page.take() != Some(page) {
                    self.head.slrus.zero(SlruKind::MultiOffsets, page, self.end, self.sink);
                }
                Ok(())
            }
            multixact::ZERO_MEM_PAGE => {
                let page = self.main_data().u32().ok_or_else(|| self.short())?;
                self.head.slrus.zero(SlruKind::MultiMembers, page, self.end, self.sink);
                Ok(())
            }
            multixact::CREATE_ID => self.create_multixact(),
            multixact::TRUNCATE_ID => self.truncate_multixacts(),
            _ => Err(self.unknown()),
        }
    }

    /// RecordNewMultiXact: sets the start of this multixact's members and, as their end, that of the next one's.
    fn create_multixact(&mut self) -> Result<(), IngestError> {
        let mut data = self.main_data();
        let mut fields = || Some((data.u32()?, data.u32()?, usize::try_from(data.i32()?).ok()?));
        let (multi, offset, count) = fields().ok_or_else(|| self.short())?;
        let words = data.u32s(count.saturating_mul(2)).ok_or_else(|| self.short())?;
        let members = words.chunks_exact(2).map(|pair| match pair {
            [xid, status @ 0..=STATUS_MAX] => Some((*xid, *status as u8)),
            _ => None,
        });
        let members: Option<Vec<(u32, u8)>> = members.collect();
        let members = members.ok_or_else(|| self.malformed("a member of the multixact has an unknown status"))?;
        if multi < FIRST_MULTIXACT || members.is_empty() {
            return Err(self.malformed("it creates no multixact"));
        }

        self.begin_next_offsets_page(multi);
        let next_offset = match offset.wrapping_add(members.len() as u32) {
            0 => 1,
            next => next,
        };
        for (multi, offset) in [(multi, offset), (next_multi(multi), next_offset)] {
            let value = Value::MultiOffset { multi, offset };
            self.head.slrus.change(SlruKind::MultiOffsets, multi_offsets::page_of(multi), self.end, value, self.sink);
        }

        let numbered: Vec<(u32, (u32, u8))> =
            members.iter().enumerate().map(|(index, member)| (offset.wrapping_add(index as u32), *member)).collect();
        let page = |member: &(u32, _)| multi_members::page_of(member.0);
        for group in numbered.chunk_by(|a, b| page(a) == page(b)) {
            if let Some(first) = group.first() {
                let members = Cow::Owned(group.iter().map(|(_, member)| *member).collect());
                let value = Value::MultiMembers { first: first.0, members };
                self.head.slrus.change(SlruKind::MultiMembers, page(first), self.end, value, self.sink);
            }
        }

        let checkpoint = &mut self.control()?.checkpoint_copy;
        advance_next_multi(checkpoint, multi.wrapping_add(1), offset.wrapping_add(members.len() as u32));
        members.iter().try_for_each(|(xid, _)| self.advance_xid(*xid))
    }

    /// Minor versions before 15.16 begin the page of the next multixact only when they create that one.
    fn begin_next_offsets_page(&mut self, multi: u32) {
        self.head.begun_offsets_page = None;
        let page = multi_offsets::page_of(next_multi(multi));
        if !self.head.slrus.of(SlruKind::MultiOffsets).contains(&page) {
            self.head.slrus.zero(SlruKind::MultiOffsets, page, self.end, self.sink);
            self.head.begun_offsets_page = Some(page);
        }
    }

    fn truncate_multixacts(&mut self) -> Result<(), IngestError> {
        let mut data = self.main_data();
        let mut fields = || Some([data.u32()?, data.u32()?, data.u32()?, data.u32()?, data.u32()?]);
        let [database, _, end_multi, start_member, end_member] = fields().ok_or_else(|| self.short())?;
        let end = self.end;
        let checkpoint = &mut self.control()?.checkpoint_copy;
        checkpoint.oldest_multi = U32::new(end_multi);
        checkpoint.oldest_multi_database = U32::new(database);
        let newest_page = multi_offsets::page_of(checkpoint.next_multi.get());
        let gone = |page| multi_members::is_truncated(page, start_member, end_member);
        self.head.slrus.remove(SlruKind::MultiMembers, end, self.sink, gone);
        // PreviousMultiXactId: a page that does not exist yet is no limit.
        let last = if end_multi == FIRST_MULTIXACT { u32::MAX } else { end_multi.wrapping_sub(1) };
        let cutoff = multi_offsets::page_of(last);
        if !multi_offsets::page_precedes(newest_page, cutoff) {
            self.head.slrus.remove(SlruKind::MultiOffsets, end, self.sink, |page| multi_offsets::is_truncated(page, cutoff));
        }
        Ok(())
    }
}

/// The multixact after this one: 0 is none.
fn next_multi(multi: u32) -> u32 {
    multi.wrapping_add(1).max(FIRST_MULTIXACT)
}
