//! A whole layer in memory: made, read back, pinned as golden files, and damaged in every bit.

use super::index::IndexBlock;
use super::manifest::{Ancestor, LayerRecord, Manifest, TimelineRecord};
use super::*;
use crate::key::Key;
use crate::lsn::Lsn;
use crate::rel::PAGE_SIZE;
use crate::value::Value;
use std::borrow::Cow;

const LAYER_GOLDEN: &[u8] = include_bytes!("golden/layer-v1.bin");
const MANIFEST_GOLDEN: &[u8] = include_bytes!("golden/manifest-v1.bin");

type Versions = Vec<(Lsn, Vec<u8>)>;

fn timeline() -> TimelineRecord {
    TimelineRecord {
        tenant: TenantId([1; 16]),
        timeline: TimelineId([2; 16]),
        name: "main".into(),
        system_id: 7,
        postgres_version: 150_018,
        start_lsn: Lsn(0x100),
        prev_record_lsn: Lsn(0x80),
        readable_lsn: Lsn(0x110),
        ancestor: Some(Ancestor { timeline: TimelineId([3; 16]), lsn: Lsn(0xC0) }),
    }
}

fn id() -> LayerId {
    LayerId { tenant: TenantId([1; 16]), timeline: TimelineId([2; 16]), slot: Slot(3), sequence: 9 }
}

fn encoded(value: Value<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    value.encode(&mut bytes);
    bytes
}

fn image(byte: u8) -> Vec<u8> {
    encoded(Value::Image(Cow::Owned(vec![byte; PAGE_SIZE])))
}

fn record(initialises: bool, bytes: &[u8]) -> Vec<u8> {
    encoded(Value::Record { initialises, bytes: Cow::Borrowed(bytes) })
}

/// Newest first: an image below deltas, two images, no state, a blob, an image alone; and enough keys for two index blocks.
fn content() -> Vec<(Key, Versions)> {
    let key = |block| Key { block, ..Key::MIN };
    let mut content = vec![
        (key(1), vec![(Lsn(0x300), record(false, b"c")), (Lsn(0x300), record(false, b"b")), (Lsn(0x200), image(1))]),
        (
            key(2),
            vec![
                (Lsn(0x400), record(false, b"f")),
                (Lsn(0x380), image(3)),
                (Lsn(0x300), record(false, b"e")),
                (Lsn(0x200), image(2)),
            ],
        ),
        (key(3), vec![(Lsn(0x210), record(false, b"x")), (Lsn(0x208), record(false, b"y"))]),
        (key(4), vec![(Lsn(0x500), image(4))]),
    ];
    content.extend((100..170).map(|block| (key(block), vec![(Lsn(0x150), record(true, &[block as u8]))])));
    content.push((Key::control(), vec![(Lsn(0x500), encoded(Value::Blob(Cow::Borrowed(b"control"))))]));
    content
}

fn page_of(bytes: &[u8]) -> Option<Vec<u8>> {
    match Value::decode(bytes) {
        Ok(Value::Image(page)) => Some(page.into_owned()),
        _ => None,
    }
}

fn build(content: &[(Key, Versions)]) -> (Header, Vec<u8>) {
    let mut encoder = Encoder::new(id());
    let mut out = vec![0; BLOCK_SIZE];
    let pages = content.iter().flat_map(|(_, versions)| versions).filter_map(|version| page_of(&version.1));
    let mut images = pages.map(|page| encoder.image(&page, &mut out)).collect::<Vec<_>>().into_iter();
    for (key, versions) in content {
        let bodies = versions.iter().map(|(lsn, bytes)| match page_of(bytes) {
            Some(_) => (*lsn, Body::Image(images.next().unwrap())),
            None => (*lsn, Body::Inline(bytes)),
        });
        encoder.key(*key, bodies, &mut out);
    }
    let header = encoder.finish(&mut out);
    out[..BLOCK_SIZE].copy_from_slice(&header.encode());
    assert_eq!(out.len() as u64, header.file_length);
    (header, out)
}

fn slice(file: &[u8], offset: u64, length: u64) -> Result<&[u8], LayerError> {
    let end = offset.checked_add(length).and_then(|end| usize::try_from(end).ok());
    let cut = LayerError::Truncated { what: "file", offset, needed: length, found: file.len() as u64 };
    end.and_then(|end| file.get(offset as usize..end)).ok_or(cut)
}

/// All versions of a key, newest first, with every check a pageserver makes.
fn read(file: &[u8], record: &LayerRecord, key: Key) -> Result<Option<Versions>, LayerError> {
    let header = record.decode_header(&timeline(), file)?;
    let encoded = key.encode();
    let fences = Fences::decode(slice(file, header.fences, header.fences_length())?, header.fences, header.fences_crc)?;
    let filter = filter::Filter::decode(slice(file, header.filter, header.filter_length())?, header.filter, header.filter_crc)?;
    let Some(block) = fences.block_of(&encoded).filter(|_| filter.may_hold(filter::hash(&encoded))) else {
        return Ok(None);
    };
    let offset = header.index_block(block);
    let index = IndexBlock::decode(header.salt(), offset, slice(file, offset, BLOCK_SIZE as u64)?)?;
    let Some(entry) = index.find(&encoded)? else { return Ok(None) };
    let page = |image: ImageRef| {
        let page = slice(file, image.offset(), PAGE_SIZE as u64)?;
        image.check(page)?;
        Ok(super::tests::encoded(Value::Image(Cow::Borrowed(page))))
    };
    let run = slice(file, entry.run, u64::from(entry.run_length))?;
    let (head, tail) = run.split_at(entry.head_length as usize);
    let mut versions = Vec::new();
    let decoded = |offset, bytes| run::decode(header.salt(), &encoded, offset, bytes);
    for (lsn, body) in decoded(entry.run, head)? {
        versions.push((lsn, body));
    }
    versions.extend(entry.image.map(|image| (entry.state_lsn, Body::Image(image))));
    versions.extend(decoded(entry.run + head.len() as u64, tail)?);
    let bytes = |(lsn, body)| match body {
        Body::Inline(bytes) => Ok((lsn, bytes.to_vec())),
        Body::Image(image) => Ok((lsn, page(image)?)),
    };
    versions.into_iter().map(bytes).collect::<Result<_, _>>().map(Some)
}

#[test]
fn a_layer_gives_back_what_went_in() {
    let content = content();
    let (header, file) = build(&content);
    assert_eq!((header.lsn_min, header.lsn_max), (Lsn(0x150), Lsn(0x500)));
    assert_eq!((header.keys, header.index_blocks), (75, 2));
    let record = LayerRecord::of(&header);
    for (key, versions) in &content {
        assert_eq!(read(&file, &record, *key).unwrap().as_ref(), Some(versions), "{key}");
    }
    for absent in [0, 5, 99, 170, 1 << 20] {
        assert_eq!(read(&file, &record, Key { block: absent, ..Key::MIN }), Ok(None));
    }
}

#[test]
fn a_whole_layer_is_checked() {
    let (header, file) = build(&content());
    assert_eq!(check(&file), Ok(header));
    for length in (0..file.len()).step_by(333) {
        assert!(check(&file[..length]).is_err(), "cut to {length}");
    }
    // Zeros behind a section belong to none; runs end in the block before the index.
    let used = |at: u64| {
        at < header.index - BLOCK_SIZE as u64
            || (header.index..header.fences + header.fences_length()).contains(&at)
            || (header.filter..header.filter + header.filter_length()).contains(&at)
    };
    let mut damaged = file.clone();
    for at in (0..file.len()).step_by(7).filter(|at| used(*at as u64) || file[*at] != 0) {
        damaged[at] ^= 0x10;
        assert!(check(&damaged).is_err(), "byte {at}");
        damaged[at] ^= 0x10;
    }
}

/// A writer gone mad, or an attacker: sums are right, contents are not. An error is due, never a panic.
#[test]
fn nonsense_with_right_sums_is_an_error_or_a_sound_layer() {
    let (header, file) = build(&content());
    let mut random = 0x2545_f491_4f6c_dd1du64;
    let mut next = move || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    for round in 0..20_000 {
        let mut bad = file.clone();
        let block = if round % 2 == 0 { 0 } else { header.index as usize };
        let at = block + (next() as usize) % if block == 0 { 184 } else { 400 };
        bad[at] = if next() % 2 == 0 { next() as u8 } else { 0xff };
        let (crc_at, salt) =
            if block == 0 { (12, crc32c(&[])) } else { (block, header.salt().crc(&[&(block as u64).to_le_bytes()])) };
        bad[crc_at..crc_at + 4].fill(0);
        let crc = crc32c_append(salt, &bad[block..block + BLOCK_SIZE]);
        bad[crc_at..crc_at + 4].copy_from_slice(&crc.to_le_bytes());
        let _ = check(&bad);
    }
}

#[test]
fn heads_end_with_the_newest_state() {
    let (header, file) = build(&content());
    let entry = |block| {
        let offset = header.index_block(0);
        let index = IndexBlock::decode(header.salt(), offset, &file[offset as usize..][..BLOCK_SIZE]).unwrap();
        index.find(&Key { block, ..Key::MIN }.encode()).unwrap().unwrap()
    };
    // A version of one byte is tag and byte behind its header.
    let one = (run::VERSION_HEADER_SIZE + 2) as u32;
    let image_version = (run::VERSION_HEADER_SIZE + 4) as u32;
    assert_eq!((entry(1).head_length, entry(1).run_length, entry(1).state_lsn), (2 * one, 2 * one, Lsn(0x200)));
    assert_eq!((entry(2).head_length, entry(2).run_length), (one, 2 * one + image_version));
    assert_eq!((entry(3).head_length, entry(3).state_lsn, entry(3).image), (2 * one, Lsn::INVALID, None));
    assert_eq!((entry(4).run_length, entry(4).versions, entry(4).state_lsn), (0, 1, Lsn(0x500)));
    assert_eq!((entry(100).head_length, entry(100).state_lsn), (one, Lsn(0x150)));
}

#[test]
fn the_formats_are_the_golden_files() {
    let (header, file) = build(&content());
    assert!(file == LAYER_GOLDEN, "the layer format changed: it needs a new version and a new golden file");
    assert!(manifest(&header).encode() == MANIFEST_GOLDEN, "the manifest format changed: it needs a new version");
    assert_eq!(Manifest::decode(MANIFEST_GOLDEN), Ok(manifest(&header)));
}

fn manifest(header: &Header) -> Manifest {
    Manifest {
        timeline: timeline(),
        slot_bits: 2,
        disk_consistent_lsn: Lsn(0x500),
        prev_record_lsn: Lsn(0x400),
        next_sequence: 10,
        layers: vec![LayerRecord::of(header)],
    }
}

#[test]
fn any_flipped_bit_of_a_layer_gives_an_error_or_the_right_value() {
    let content = content();
    let (header, file) = build(&content);
    let record = LayerRecord::of(&header);
    let keys: Vec<&(Key, Versions)> = content.iter().take(5).chain(content.last()).collect();
    let mut errors = 0;
    // Pages are long and alike: every 97th bit of them stands for all.
    let bits = (0..file.len() * 8).filter(|bit| !(BLOCK_SIZE..header.runs as usize).contains(&(bit / 8)) || bit % 97 == 0);
    let mut damaged = file.clone();
    for bit in bits {
        damaged[bit / 8] ^= 1 << (bit % 8);
        for (key, versions) in &keys {
            match read(&damaged, &record, *key) {
                Ok(found) => assert_eq!(found.as_ref(), Some(versions), "bit {bit}, {key}"),
                Err(_) => errors += 1,
            }
        }
        damaged[bit / 8] ^= 1 << (bit % 8);
    }
    assert!(errors > 50_000, "only {errors} reads failed");
}

#[test]
fn a_cut_layer_is_an_error() {
    let content = content();
    let (header, file) = build(&content);
    let record = LayerRecord::of(&header);
    for length in (0..file.len()).step_by(61) {
        if let Ok(found) = read(&file[..length], &record, content[0].0) {
            assert_eq!(found.as_ref(), Some(&content[0].1));
        }
        assert!(read(&file[..length.min(4095)], &record, content[0].0).is_err());
    }
}

#[test]
fn a_layer_of_another_tenant_is_named_as_such() {
    let (header, file) = build(&content());
    let other = TimelineRecord { tenant: TenantId([9; 16]), ..timeline() };
    let error = LayerRecord::of(&header).decode_header(&other, &file).unwrap_err();
    assert!(matches!(error, LayerError::Foreign { what: "tenant", .. }), "{error}");
    let renamed = LayerRecord { sequence: 10, ..LayerRecord::of(&header) };
    assert!(matches!(renamed.decode_header(&timeline(), &file), Err(LayerError::Foreign { what: "flush", .. })));
}

#[test]
fn any_flipped_bit_or_cut_of_a_manifest_is_an_error() {
    let (header, _) = build(&content());
    let bytes = manifest(&header).encode();
    for bit in 0..bytes.len() * 8 {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(Manifest::decode(&damaged).is_err(), "bit {bit}");
    }
    for length in 0..bytes.len() {
        assert!(Manifest::decode(&bytes[..length]).is_err());
    }
    let longer = [&bytes[..], &[0]].concat();
    assert!(Manifest::decode(&longer).is_err());
}

/// Writes the golden files anew, when a version is added: `cargo test -p ironpage-layout -- --ignored write_golden`.
#[test]
#[ignore = "writes files"]
#[allow(clippy::disallowed_methods)] // A tool, not the library.
fn write_golden_files() {
    let (header, file) = build(&content());
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/src/layer/golden");
    std::fs::write(format!("{directory}/layer-v1.bin"), file).unwrap();
    std::fs::write(format!("{directory}/manifest-v1.bin"), manifest(&header).encode()).unwrap();
}
