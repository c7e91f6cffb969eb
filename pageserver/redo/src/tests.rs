//! Hand-made pages, what must be refused, and arbitrary pages and deltas.

use crate::delta::{DeltaWriter, Kind};
use crate::page::{Item, Page, bounds, max_offset};
use crate::{Place, RedoError, apply};
use ironpage_layout::postgres::page::{init, lsn, set_lsn, special_offset};
use ironpage_layout::rel::PAGE_SIZE;
use ironpage_layout::{BlockNumber, Lsn};

pub const BLOCK: BlockNumber = BlockNumber(0x0001_0002);

pub fn at(end: u64) -> Place {
    Place { block: BLOCK, end_lsn: Lsn(end) }
}

/// One delta, made by hand.
pub fn delta<'a>(kind: Kind, write: impl FnOnce(DeltaWriter<'_>) -> DeltaWriter<'_> + 'a) -> Vec<u8> {
    let mut out = Vec::new();
    write(DeltaWriter::new(&mut out, kind));
    out
}

pub fn anew<'a>(kind: Kind, write: impl FnOnce(DeltaWriter<'_>) -> DeltaWriter<'_> + 'a) -> Vec<u8> {
    let mut out = Vec::new();
    write(DeltaWriter::initialising(&mut out, kind));
    out
}

/// A page that these deltas make out of zeros, one LSN after the other from 8 on.
pub fn page_of(deltas: &[Vec<u8>]) -> Page {
    let mut page = [0; PAGE_SIZE];
    for (number, delta) in deltas.iter().enumerate() {
        apply(&mut page, at(8 + 8 * number as u64), delta).unwrap();
    }
    page
}

/// The bytes under a line pointer.
pub fn item(page: &Page, offset: u16) -> &[u8] {
    &page[Item::get(page, offset).unwrap().range(0).unwrap()]
}

pub fn redo(page: &mut Page, delta: &[u8]) -> Result<(), RedoError> {
    let next = lsn(page).0 + 8;
    apply(page, at(next), delta)
}

/// heap_insert of `data` behind a header without null bitmap.
pub fn heap_insert(offset: u16, data: &[u8]) -> Vec<u8> {
    // infomask2, infomask, hoff, then the byte that pads the header to 24.
    let tuple = |delta: DeltaWriter<'_>| delta.u8(0).u16(offset).u32(700).u16(2).u16(0x0802).u8(24).u8(0).bytes(data).done();
    let mut out = Vec::new();
    match offset {
        1 => tuple(DeltaWriter::initialising(&mut out, Kind::HeapInsert)),
        _ => tuple(DeltaWriter::new(&mut out, Kind::HeapInsert)),
    };
    out
}

pub fn heap_page(rows: &[&[u8]]) -> Page {
    let deltas: Vec<_> = rows.iter().enumerate().map(|(number, row)| heap_insert(number as u16 + 1, row)).collect();
    page_of(&deltas)
}

/// An index tuple: TID, size and flags, key.
pub fn index_tuple(tid: [u8; 6], key: &[u8]) -> Vec<u8> {
    let size = (8 + key.len()).next_multiple_of(8);
    let mut tuple = tid.to_vec();
    tuple.extend_from_slice(&(size as u16).to_le_bytes());
    tuple.extend_from_slice(key);
    tuple.resize(size, 0);
    tuple
}

/// A leaf that is the rightmost of its level, with these tuples.
pub fn leaf(tuples: &[Vec<u8>]) -> Page {
    let items: Vec<u8> = tuples.iter().rev().flatten().copied().collect();
    page_of(&[anew(Kind::BtreePage, |delta| delta.u32(7).u32(0).u32(0).u16(1).bytes(&items))])
}

#[test]
fn a_page_that_has_the_change_stays() {
    let mut page = heap_page(&[b"one"]);
    let before = page;
    apply(&mut page, at(8), &heap_insert(2, b"two")).unwrap();
    assert!(page == before);
    apply(&mut page, at(16), &heap_insert(2, b"two")).unwrap();
    assert_eq!((max_offset(&page), lsn(&page)), (2, Lsn(16)));
    // What starts a page anew does so whatever its LSN.
    apply(&mut page, at(8), &heap_insert(1, b"new")).unwrap();
    assert_eq!((max_offset(&page), lsn(&page)), (1, Lsn(8)));
}

#[test]
fn a_page_that_was_never_initialised_is_refused() {
    let mut page = [0; PAGE_SIZE];
    assert_eq!(apply(&mut page, at(8), &heap_insert(2, b"two")), Err(RedoError::Uninitialised));
    assert_eq!(page, [0; PAGE_SIZE]);
}

#[test]
fn deltas_are_neither_longer_nor_shorter_than_their_fields() {
    let mut confirm = delta(Kind::HeapConfirm, |delta| delta.u16(1));
    assert_eq!(redo(&mut heap_page(&[b"one"]), &confirm), Ok(()));
    confirm.push(0);
    assert!(matches!(redo(&mut heap_page(&[b"one"]), &confirm), Err(RedoError::Delta(_))));
    assert!(matches!(redo(&mut heap_page(&[b"one"]), &confirm[..2]), Err(RedoError::Delta(_))));
    assert_eq!(redo(&mut heap_page(&[b"one"]), &[99]), Err(RedoError::UnknownKind(99)));
}

/// xorshift64*: numbers that look random and are the same each time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() >> 33) as usize % end
    }

    /// Mostly small, as lengths, counts and offset numbers are.
    fn byte(&mut self) -> u8 {
        match self.below(4) {
            0 => self.next() as u8,
            1 => 0,
            _ => self.below(12) as u8,
        }
    }

    /// One of `sane` with some bytes wrong, or one of no sense at all.
    fn delta(&mut self, sane: &[Vec<u8>]) -> Vec<u8> {
        if self.below(3) > 0 {
            let mut delta = sane[self.below(sane.len())].clone();
            for _ in 0..self.below(3) {
                let at = self.below(delta.len());
                delta[at] = self.byte();
            }
            return delta;
        }
        let kind = Kind::ALL[self.below(Kind::ALL.len())] as u8;
        let mut delta = vec![kind | if self.below(8) == 0 { 0x80 } else { 0 }];
        let most = if self.below(4) == 0 { 400 } else { 40 };
        let length = self.below(most);
        delta.extend((0..length).map(|_| self.byte()));
        delta
    }

    /// A few bytes of the header, the line pointers or the rest, wrong.
    fn damage(&mut self, page: &mut Page) {
        for _ in 0..self.below(4) {
            let at = [self.below(24), 24 + self.below(200), self.below(PAGE_SIZE), PAGE_SIZE - 1 - self.below(200)];
            page[at[self.below(4)]] = self.byte();
        }
    }
}

/// Pages that each some kinds of delta are made for.
fn pages() -> Vec<Page> {
    let tuples: Vec<_> = (0..9u8).map(|number| index_tuple([0, 0, number, 0, 1, 0], &[number; 8])).collect();
    let mut posting = tuples.clone();
    // Four TIDs behind a key of eight bytes.
    let mut list = index_tuple([0, 0, 16, 0, 4, 0x20], &[1; 8]);
    list.extend((0..4u8).flat_map(|number| [0, 0, 9, 0, number, 0]));
    list[6..8].copy_from_slice(&(40u16 | 0x2000).to_le_bytes());
    posting.insert(4, list);
    let hash = |bucket| anew(Kind::HashPage, |delta| delta.u32(3).u32(bucket).u16(2));
    let mut noise = [0; PAGE_SIZE];
    let mut random = Random(5);
    noise.iter_mut().for_each(|byte| *byte = random.next() as u8);
    vec![
        heap_page(&[b"one", b"two and more", b"three", b"four", b"five", b"six"]),
        heap_page(&[&[1u8; 900][..]; 8]),
        leaf(&tuples),
        leaf(&posting),
        page_of(&[hash(1), delta(Kind::IndexInsert, |delta| delta.u16(1).bytes(&tuples[0]))]),
        page_of(&[anew(Kind::HashBitmap, |delta| delta.u16(4096))]),
        page_of(&[anew(Kind::HashMeta, |delta| delta.u32(400).u16(75).u32(2).u32(1))]),
        noise,
        [0; PAGE_SIZE],
    ]
}

/// Deltas that fit one of these pages, of the kinds that chance alone does not make.
fn deltas() -> Vec<Vec<u8>> {
    let new = index_tuple([0, 0, 9, 0, 1, 0], &[1; 8]);
    let mut image = anew(Kind::Image, |delta| delta.u8(0).u16(100).u16(8000).u16(192).bytes(&[1; 192]));
    image.extend([Kind::HeapConfirm as u8, 1, 0]);
    vec![
        image,
        anew(Kind::Image, |delta| delta.u8(1).u16(24).u16(8150).u16(5).bytes(&[0b10, 3, 0x0F, 1, 23])),
        delta(Kind::HeapUpdate, |delta| {
            let head = delta.u8(0x38).u16(2).u8(0).u32(9).u32(9).u16(7).u16(2).u16(3);
            head.u16(2).u16(2).u8(24).bytes(b"\0more")
        }),
        delta(Kind::HeapInplace, |delta| delta.u16(1).bytes(b"eno")),
        delta(Kind::HeapPrune, |delta| delta.u16(1).u16(1).u16(1).u16(2).u16(3).u16(5).u16(6)),
        heap_insert(7, b"seven"),
        delta(Kind::HeapDelete, |delta| delta.u8(0).u16(1).u8(0).u32(9).u32(9)),
        delta(Kind::HeapUpdateOld, |delta| delta.u8(0).u16(1).u8(0).u32(9).u32(9).u32(5).u16(1)),
        delta(Kind::HeapLock, |delta| delta.u16(2).u8(2).u32(9)),
        delta(Kind::HeapLockUpdated, |delta| delta.u16(2).u8(2).u32(9)),
        delta(Kind::BtreeInsertPosting, |delta| delta.u16(6).u16(1).bytes(&new)),
        delta(Kind::BtreeSplitLeft, |delta| delta.u8(3).u16(6).u16(6).u16(1).u32(9).bytes(&new).bytes(&new)),
        delta(Kind::BtreeDelete, |delta| delta.u16(3).u16(1).u16(1).u16(2).u16(3).u16(5).u16(2).u16(0).u16(2)),
        delta(Kind::BtreeDedup, |delta| delta.u16(1).u16(3).u16(5).u16(2)),
        delta(Kind::BtreeHalfDeadParent, |delta| delta.u16(2)),
        delta(Kind::HashMove, |delta| delta.u8(1).u32(9).u16(2).u16(1).u16(2).bytes(&new).bytes(&new)),
    ]
}

#[test]
fn arbitrary_pages_and_deltas_end_in_a_page_or_an_error() {
    let mut random = Random(0x1234_5678_9ABC_DEF1);
    let (pages, deltas) = (pages(), deltas());
    let (mut done, mut refused) = (vec![0; 256], 0);
    for _ in 0..if cfg!(miri) { 300 } else { 150_000 } {
        let mut page = pages[random.below(pages.len())];
        random.damage(&mut page);
        // Some at the end of whatever the one before left of the page.
        for _ in 0..1 + random.below(3) {
            let delta = random.delta(&deltas);
            match apply(&mut page, at(u64::MAX), &delta) {
                Ok(()) => done[usize::from(delta[0])] += 1,
                Err(_) => refused += 1,
            }
            set_lsn(&mut page, Lsn(0));
        }
    }
    let never: Vec<_> = Kind::ALL.into_iter().filter(|kind| done[*kind as usize] + done[*kind as usize | 0x80] == 0).collect();
    assert!(refused > 0 && (cfg!(miri) || never.is_empty()), "never applied: {never:?}");
}

#[test]
fn lying_headers_are_refused() {
    // pd_lower, pd_upper, pd_special.
    for (field, value) in [(12, 20u16), (12, 9000), (14, 24), (14, 8200), (16, 8200), (16, 100)] {
        let mut page = heap_page(&[b"one", b"two"]);
        page[field..field + 2].copy_from_slice(&value.to_le_bytes());
        assert!(bounds(&page).is_err(), "{field} {value}");
        assert!(matches!(redo(&mut page, &heap_insert(3, b"three")), Err(RedoError::Page(_))), "{field} {value}");
    }
    let mut page = [0; PAGE_SIZE];
    init(&mut page, 0);
    assert_eq!(special_offset(&page), 8192);
    // A B-tree's special space on a page that has none.
    let sibling = delta(Kind::BtreeSibling, |delta| delta.u8(0).u32(4));
    assert!(matches!(redo(&mut page, &sibling), Err(RedoError::Page(_))));
}
