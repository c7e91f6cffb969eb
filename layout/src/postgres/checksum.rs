//! Data checksums: the 16 bits in a page's header (pg_checksum_page, storage/checksum_impl.h).
//!
//! 32 sums run beside each other, each over every 32nd word of the page with its own starting value, so that the
//! compiler can keep them in vector registers. They are the FNV-1a hash with one more shift.

use super::page::{Page, is_new};
use crate::rel::{BlockNumber, PAGE_SIZE};

/// Offset of pd_checksum (PageHeaderData, storage/bufpage.h).
const OFFSET: usize = 8;
const SUMS: usize = 32;
const FNV_PRIME: u32 = 16_777_619;
/// checksumBaseOffsets.
#[rustfmt::skip]
const STARTS: [u32; SUMS] = [
    0x5B1F_36E9, 0xB852_5960, 0x02AB_50AA, 0x1DE6_6D2A, 0x79FF_467A, 0x9BB9_F8A3, 0x217E_7CD2, 0x83E1_3D2C,
    0xF8D4_474F, 0xE39E_B970, 0x42C6_AE16, 0x9932_16FA, 0x7B09_3B5D, 0x98DA_FF3C, 0xF718_902A, 0x0B1C_9CDB,
    0xE58F_764B, 0x1876_36BC, 0x5D7B_3BB1, 0xE73D_E7DE, 0x92BE_C979, 0xCCA6_C0B2, 0x304A_0979, 0x85AA_43D4,
    0x7831_25BB, 0x6CA8_EAA2, 0xE407_EAC6, 0x4B5C_FC3E, 0x9FBF_8C76, 0x15CA_20BE, 0xF2CA_9FD3, 0x959B_D756,
];

fn mix(sum: u32, word: u32) -> u32 {
    let mixed = sum ^ word;
    mixed.wrapping_mul(FNV_PRIME) ^ (mixed >> 17)
}

/// What pd_checksum of this page, at this block of its fork, should be. Whatever stands there counts as 0.
pub fn of(page: &Page, block: BlockNumber) -> u16 {
    let mut sums = STARTS;
    for (row, bytes) in page.chunks_exact(SUMS * 4).enumerate() {
        for (column, (sum, word)) in sums.iter_mut().zip(bytes.chunks_exact(4)).enumerate() {
            let mut word = word.try_into().map_or(0, u32::from_le_bytes);
            if row == 0 && column == OFFSET / 4 {
                word &= 0xFFFF_0000;
            }
            *sum = mix(*sum, word);
        }
    }
    let folded = sums.into_iter().fold(0, |folded, sum| folded ^ mix(mix(sum, 0), 0));
    ((folded ^ block.0) % 65_535 + 1) as u16
}

/// What pd_checksum says.
pub fn stored(page: &Page) -> u16 {
    u16::from_le_bytes([page[OFFSET], page[OFFSET + 1]])
}

/// Makes pd_checksum right. A page that was never initialised has none (PageSetChecksumInplace, bufpage.c).
pub fn set(page: &mut Page, block: BlockNumber) {
    if !is_new(page) {
        let sum = of(page, block);
        page[OFFSET..OFFSET + 2].copy_from_slice(&sum.to_le_bytes());
    }
}

/// What is wrong with a page as a server would find it when it reads it (PageIsVerifiedExtended, bufpage.c).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PageError {
    #[error("its checksum is {expected:#06x}, its header says {found:#06x}")]
    Checksum { expected: u16, found: u16 },
    #[error("its header is none a page can have")]
    Header,
    #[error("its header is zero, the rest of it is not")]
    NewButNotZero,
}

/// Whether a server looks at a page's checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checksums {
    Off,
    On,
}

/// Looks at a page as a server does that reads it.
pub fn verify(page: &Page, block: BlockNumber, checksums: Checksums) -> Result<(), PageError> {
    /// PD_VALID_FLAG_BITS.
    const FLAGS: u16 = 0x0007;
    if is_new(page) {
        return if page.iter().all(|byte| *byte == 0) { Ok(()) } else { Err(PageError::NewButNotZero) };
    }
    if checksums == Checksums::On {
        let (expected, found) = (of(page, block), stored(page));
        if expected != found {
            return Err(PageError::Checksum { expected, found });
        }
    }
    let field = |at: usize| u16::from_le_bytes([page[at], page[at + 1]]);
    let (flags, lower, upper, special) = (field(10), field(12), field(14), field(16));
    let sane = flags & !FLAGS == 0
        && lower <= upper
        && upper <= special
        && usize::from(special) <= PAGE_SIZE
        && special.is_multiple_of(8);
    if sane { Ok(()) } else { Err(PageError::Header) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::page;

    #[test]
    fn a_page_is_verified_as_a_server_does_it() {
        let mut bytes = [0; PAGE_SIZE];
        assert_eq!(verify(&bytes, BlockNumber(3), Checksums::On), Ok(()));
        set(&mut bytes, BlockNumber(3));
        assert_eq!(bytes, [0; PAGE_SIZE], "a new page has none");
        bytes[100] = 1;
        assert_eq!(verify(&bytes, BlockNumber(3), Checksums::Off), Err(PageError::NewButNotZero));

        page::init(&mut bytes, 16);
        bytes[5000] = 77;
        set(&mut bytes, BlockNumber(3));
        let before = bytes;
        set(&mut bytes, BlockNumber(3));
        assert_eq!(bytes, before, "the old sum is not part of the new one");
        assert_eq!(verify(&bytes, BlockNumber(3), Checksums::On), Ok(()));
        assert!(matches!(verify(&bytes, BlockNumber(4), Checksums::On), Err(PageError::Checksum { .. })), "of another block");
        for at in [0, 9, 12, 23, 24, 5000, PAGE_SIZE - 1] {
            let mut damaged = bytes;
            damaged[at] ^= 0x10;
            assert!(verify(&damaged, BlockNumber(3), Checksums::On).is_err(), "byte {at}");
        }
        bytes[11] = 0x80;
        assert_eq!(verify(&bytes, BlockNumber(3), Checksums::Off), Err(PageError::Header));
    }
}
