//! Which pages the SLRUs have, and when new ones begin.

use super::Sink;
use ironpage_layout::key::SlruKind;
use ironpage_layout::{Key, Lsn, Value};
use std::collections::BTreeSet;

/// The pages of all SLRUs of a timeline at its head.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SlruPages {
    pages: [BTreeSet<u32>; 4],
}

impl SlruPages {
    /// Pages of one SLRU, in numerical order.
    pub fn of(&self, slru: SlruKind) -> &BTreeSet<u32> {
        let [clog, offsets, members, commit_ts] = &self.pages;
        match slru {
            SlruKind::Clog => clog,
            SlruKind::MultiOffsets => offsets,
            SlruKind::MultiMembers => members,
            SlruKind::CommitTs => commit_ts,
        }
    }

    fn of_mut(&mut self, slru: SlruKind) -> &mut BTreeSet<u32> {
        let [clog, offsets, members, commit_ts] = &mut self.pages;
        match slru {
            SlruKind::Clog => clog,
            SlruKind::MultiOffsets => offsets,
            SlruKind::MultiMembers => members,
            SlruKind::CommitTs => commit_ts,
        }
    }

    /// The page exists, as stored or imported.
    pub fn restore(&mut self, slru: SlruKind, page: u32) {
        self.of_mut(slru).insert(page);
    }

    /// The page begins, or begins again, as zeros.
    pub fn zero(&mut self, slru: SlruKind, page: u32, lsn: Lsn, sink: &mut impl Sink) {
        self.of_mut(slru).insert(page);
        sink.put(Key::slru(slru, page), lsn, Value::ZeroPage);
    }

    /// Changes a page. One that never began reads as zeros to recovery (SlruPhysicalReadPage, slru.c), and begins here.
    pub fn change(&mut self, slru: SlruKind, page: u32, lsn: Lsn, value: Value<'_>, sink: &mut impl Sink) {
        if !self.of(slru).contains(&page) {
            self.zero(slru, page, lsn, sink);
        }
        sink.put(Key::slru(slru, page), lsn, value);
    }

    /// The pages `gone` says are gone.
    pub fn remove(&mut self, slru: SlruKind, lsn: Lsn, sink: &mut impl Sink, gone: impl Fn(u32) -> bool) {
        self.of_mut(slru).retain(|page| {
            let gone = gone(*page);
            if gone {
                sink.put(Key::slru(slru, *page), lsn, Value::Tombstone);
            }
            !gone
        });
    }
}
