//! The journal's bytes: they come back, they are pinned, torn is told from damaged.

use super::*;
use crate::id::{NodeId, TenantId, TimelineId};
use crate::lsn::Lsn;

fn tenant() -> TenantRecord {
    TenantRecord { id: TenantId([1; 16]), name: "main".into(), state: TenantState::Active, created_at_us: 1_795_345_200_123_456 }
}

fn branch(number: u8, kind: BranchKind, state: BranchState) -> BranchRecord {
    BranchRecord {
        tenant: TenantId([1; 16]),
        timeline: TimelineId([number; 16]),
        name: format!("b-{number}_x"),
        kind,
        state,
        parent: (number > 1).then_some(TimelineId([number - 1; 16])),
        start_lsn: Lsn(0x0123_4568),
        readable_lsn: Lsn(0x0123_4570),
        prev_record_lsn: Lsn(0x0123_4500),
        system_id: 0x1234_5678_9abc_def0,
        postgres_version: 150_018,
        created_at_us: -5,
        expires_at_us: number.is_multiple_of(2).then_some(i64::from(number)),
        safekeepers: (1..=u64::from(number % 4)).map(NodeId).collect(),
    }
}

fn batches() -> Vec<Vec<Record>> {
    let branch = |number, kind, state| Record::Branch(branch(number, kind, state));
    vec![
        vec![Record::Tenant(tenant())],
        vec![branch(1, BranchKind::Branch, BranchState::Creating)],
        vec![branch(1, BranchKind::Follow, BranchState::Active), branch(2, BranchKind::Backup, BranchState::Active)],
        vec![branch(3, BranchKind::Snapshot, BranchState::Deleting), Record::BranchGone(TenantId([1; 16]), TimelineId([2; 16]))],
        vec![Record::Tenant(TenantRecord { state: TenantState::Deleting, id: TenantId([9; 16]), ..tenant() })],
        vec![Record::TenantGone(TenantId([9; 16]))],
    ]
}

/// A journal of [`batches`], and where each of them ends.
fn journal() -> (Vec<u8>, Vec<usize>) {
    let mut bytes = FileHead { first_sequence: 7 }.encode().to_vec();
    let ends = batches().into_iter().zip(7..).map(|(records, sequence)| {
        encode_batch(sequence, &records, &mut bytes);
        bytes.len()
    });
    let ends = ends.collect();
    (bytes, ends)
}

#[test]
fn the_bytes_are_those_of_version_1() {
    let golden = include_bytes!("golden/metadata-v1.bin");
    let (bytes, _) = journal();
    assert!(bytes == golden, "the metadata journal's bytes changed: that is a new format version");
}

#[test]
fn a_journal_comes_back() {
    let (bytes, ends) = journal();
    let mut reading = Batches::new(&bytes).unwrap();
    for ((records, end), sequence) in batches().into_iter().zip(ends).zip(7..) {
        let batch = reading.next_batch().unwrap().unwrap();
        assert_eq!((batch.sequence, batch.records), (sequence, records));
        assert_eq!(reading.end(), end as u64);
    }
    assert!(reading.next_batch().unwrap().is_none() && reading.torn().is_none());
    let journal = read(&bytes).unwrap();
    assert_eq!((journal.end, journal.next_sequence, journal.torn), (bytes.len() as u64, 13, None));
    assert_eq!(journal.catalogue.tenants.len(), 1);
    let left: Vec<u8> = journal.catalogue.branches.keys().map(|(_, timeline)| timeline.0[0]).collect();
    assert_eq!(left, [1, 3]);
}

#[test]
fn cut_anywhere_it_ends_at_the_last_whole_batch() {
    let (bytes, ends) = journal();
    for length in 0..bytes.len() {
        let cut = &bytes[..length];
        if length < FILE_HEAD_SIZE {
            assert_eq!(read(cut), Err(MetadataError::NoHead { found: length as u64 }));
            continue;
        }
        let journal = read(cut).unwrap();
        let whole = ends.iter().copied().filter(|end| *end <= length).max().unwrap_or(FILE_HEAD_SIZE);
        assert_eq!(journal.end, whole as u64);
        assert_eq!(journal.torn.map_or(0, |torn| torn.bytes), (length - whole) as u64);
        // The file was made longer before the bytes came. A batch that ends in zeros may be whole that way.
        let is_whole = |end: &usize| *end <= length || bytes[length..*end].iter().all(|byte| *byte == 0);
        let whole = ends.iter().copied().filter(is_whole).max().unwrap_or(FILE_HEAD_SIZE);
        let mut zeros = cut.to_vec();
        zeros.resize(length.next_multiple_of(SECTOR) + SECTOR, 0);
        assert_eq!(read(&zeros).unwrap().end, whole as u64, "zeros from {length} on");
    }
}

const SECTOR: usize = 512;

#[test]
fn every_damaged_bit_is_found() {
    let (bytes, ends) = journal();
    let whole = read(&bytes).unwrap();
    for bit in 0..bytes.len() * 8 {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        match read(&damaged) {
            Err(MetadataError::Damaged { offset, .. }) => assert!(offset <= (bit / 8) as u64, "bit {bit}"),
            Err(MetadataError::BadMagic { .. }) => assert!(bit / 8 < 8),
            // A length nobody can vouch for may reach past the end; then only the last batch is given up.
            Ok(journal) => panic!("bit {bit}: {:?} of {:?}, ends {ends:?}", journal.torn, whole.end),
            Err(other) => panic!("bit {bit}: {other}"),
        }
    }
}

#[test]
fn other_versions_and_other_files_are_named() {
    let mut head = FileHead { first_sequence: 1 }.encode();
    head[8] = 2;
    // The CRC of a head of version 2.
    head[12..16].fill(0);
    let crc = crate::crc::crc32c(&head);
    head[12..16].copy_from_slice(&crc.to_le_bytes());
    assert_eq!(read(&head), Err(MetadataError::BadVersion { found: 2 }));
    assert!(matches!(read(&[7; 100]), Err(MetadataError::BadMagic { .. })));
}

#[test]
fn a_sequence_that_jumps_is_damage() {
    let mut bytes = FileHead { first_sequence: 1 }.encode().to_vec();
    encode_batch(2, &[Record::Tenant(tenant())], &mut bytes);
    let error = read(&bytes).unwrap_err();
    assert!(error.to_string().contains("offset 32") && error.to_string().contains("batch 2 where 1 is due"), "{error}");
}

#[test]
fn names() {
    for good in ["main", "a", "A_2-x", "0", &"x".repeat(63), &"a".repeat(31), &"x".repeat(32)] {
        assert!(is_name(good), "{good}");
    }
    for bad in
        ["", "-a", "_a", "a b", "a/b", "..", "ä", "a\0", "a'--", "\u{202e}a", &"x".repeat(64), &"0a".repeat(16), &"F".repeat(32)]
    {
        assert!(!is_name(bad), "{bad}");
    }
}

#[test]
fn garbage_is_refused_without_a_panic() {
    let (bytes, _) = journal();
    for at in FILE_HEAD_SIZE..bytes.len() {
        let _ = Record::decode(&bytes[at..], at as u64);
        let mut moved = bytes[..FILE_HEAD_SIZE].to_vec();
        moved.extend_from_slice(&bytes[at..]);
        let _ = read(&moved);
    }
}
