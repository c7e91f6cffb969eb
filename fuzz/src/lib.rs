//! What the fuzz targets run: every decoder, over arbitrary bytes, must give a value or an error.
//!
//! `fuzz/libfuzzer` drives these functions with libFuzzer (`./dev fuzz`); `tests/corpus.rs` replays what
//! it found. Beyond "no panic", each checks that what decoded encodes back to the same bytes where the
//! format has one encoding.

use ironpage_layout::crc::crc32c;
use ironpage_layout::layer::BLOCK_SIZE;
use ironpage_layout::layer::Fences;
use ironpage_layout::layer::Header as LayerHeader;
use ironpage_layout::layer::check;
use ironpage_layout::layer::filter::Filter;
use ironpage_layout::layer::index::IndexBlock;
use ironpage_layout::layer::manifest::Manifest;
use ironpage_layout::postgres::bytes::Reader;
use ironpage_layout::postgres::control::ControlFile;
use ironpage_layout::postgres::page::{init, set_lsn};
use ironpage_layout::postgres::wal::record::{Block, DecodedRecord};
use ironpage_layout::postgres::wal::stream::{Next, Verify, WalStream};
use ironpage_layout::postgres::xact::{Completion, CompletionKind, HasInfo, Prepare};
use ironpage_layout::rel::PAGE_SIZE;
use ironpage_layout::value::RelCuts;
use ironpage_layout::wire::{self, Kind, admin, append, basebackup, hello, pages, walstream};
use ironpage_layout::{BlockNumber, Lsn, Value};
use ironpage_redo::{Encoded, HintBits, POSTGRES_15, Place};

/// A target: what runs over one input.
pub type Target = fn(&[u8]);

/// The targets by name.
pub const TARGETS: [(&str, Target); 4] = [("record", record), ("frame", frame), ("layer", layer), ("redo", redo)];

/// WAL as a stream from an arbitrary position, and each record's contents; then the bytes as one bare record.
pub fn record(data: &[u8]) {
    let Some((start, wal)) = data.split_first_chunk::<2>() else { return };
    // Positions near page and segment boundaries are the interesting ones.
    let start = Lsn(0x0100_0000 + (u64::from(u16::from_le_bytes(*start)) & !7));
    for verify in [Verify::Headers, Verify::Crc] {
        let mut stream = WalStream::new(start, verify);
        let (first, second) = wal.split_at(wal.len() / 2);
        for (at, piece) in [(start, first), (start + first.len() as u64, second)] {
            if stream.feed(at, piece).is_err() {
                break;
            }
            while let Ok(Next::Record(record)) = stream.next_record() {
                assert!(record.end > record.start, "a record ends behind its start");
                bare_record(record.bytes);
            }
        }
    }
    bare_record(wal);
}

fn bare_record(bytes: &[u8]) {
    if let Ok(decoded) = DecodedRecord::decode(bytes) {
        for id in 0..=32 {
            if let Some(block) = decoded.block(id) {
                let _ = DecodedRecord::restore_image(block, Lsn(0x0200_0000));
            }
        }
        for kind in [CompletionKind::Commit, CompletionKind::Abort] {
            let _ = Completion::read(kind, HasInfo::of(decoded.info), decoded.main_data);
        }
        let _ = Prepare::read(decoded.main_data);
        for block in &decoded.blocks {
            encoded(&decoded, block);
        }
    }
}

/// A record's delta for one of its blocks, and that delta applied to a page of each kind.
fn encoded(record: &DecodedRecord<'_>, block: &Block<'_>) {
    let mut delta = Vec::new();
    if let Ok(Encoded::Native) = ironpage_redo::encode(&POSTGRES_15, HintBits::Logged, record, block, &mut delta) {
        assert!(!block.will_init || ironpage_redo::initialises(&delta), "what starts a page anew needs none before");
        for special in [0, 4, 16] {
            let mut page = [0; PAGE_SIZE];
            init(&mut page, special);
            let _ = ironpage_redo::apply(&mut page, Place { block: block.block, end_lsn: Lsn(0x0200_0000) }, &delta);
        }
    }
}

/// A page of zeros, then what the bytes say: deltas, and bytes of the page made wrong. Errors leave a half-changed
/// page, which is what the next delta finds.
///
/// Each step: a length of 16 bits and as many bytes of a delta; or a length of 0xFFFF, a place of 16 bits and a byte.
pub fn redo(data: &[u8]) {
    let mut page = [0; PAGE_SIZE];
    let mut data = Reader::new(data);
    let place = Place { block: BlockNumber(7), end_lsn: Lsn(u64::MAX) };
    while let Some(length) = data.u16() {
        if length == u16::MAX {
            let (Some(at), Some(byte)) = (data.u16(), data.u8()) else { return };
            page[usize::from(at) % PAGE_SIZE] = byte;
            continue;
        }
        let Some(delta) = data.take(usize::from(length).min(data.rest().len())) else { return };
        let _ = ironpage_redo::apply(&mut page, place, delta);
        // Or the next delta would find its change made.
        set_lsn(&mut page, Lsn(0));
    }
}

/// A frame, then its payload as the message its kind names; then the bytes as the payload of every kind.
pub fn frame(data: &[u8]) {
    if let Ok(Some((header, payload, taken))) = wire::split_frame(data) {
        assert!(taken <= data.len() && payload.len() == header.length);
        message(header.kind, payload);
    }
    let Some((number, payload)) = data.split_first() else { return };
    if let Some(kind) = Kind::from_number(u16::from(*number)) {
        message(kind, payload);
        // The same payload in a frame of ours comes back as it went in.
        if payload.len() <= wire::MAX_PAYLOAD {
            let mut bytes = Vec::new();
            wire::encode_frame(&mut bytes, kind, 1, Default::default(), |out| out.extend_from_slice(payload));
            assert_eq!(wire::split_frame(&bytes).map(|frame| frame.map(|(_, payload, _)| payload)), Ok(Some(payload)));
        }
    }
}

fn message(kind: Kind, payload: &[u8]) {
    let again = |encode: &dyn Fn(&mut Vec<u8>)| {
        let mut out = Vec::new();
        encode(&mut out);
        assert_eq!(out, payload, "{kind:?} has one encoding");
    };
    match kind {
        Kind::Hello => drop(hello::Hello::decode(payload)),
        Kind::HelloReply => drop(hello::HelloReply::decode(payload)),
        Kind::Error => drop(wire::RemoteError::decode(payload)),
        Kind::Greeting | Kind::VoteReply => drop(append::VoteReply::decode(payload)),
        Kind::VoteRequest => drop(append::VoteRequest::decode(payload)),
        Kind::Elected => drop(append::Elected::decode(payload)),
        Kind::Append => drop(append::Append::decode_prefix(payload)),
        Kind::AppendReply => drop(append::AppendReply::decode(payload)),
        Kind::WalStart => drop(walstream::WalStart::decode(payload)),
        Kind::WalData => drop(walstream::WalData::decode_prefix(payload)),
        Kind::WalKeepalive => drop(walstream::WalKeepalive::decode(payload)),
        Kind::GetPages => drop(pages::GetPages::decode(payload)),
        Kind::Pages => drop(pages::Pages::decode_with(payload)),
        Kind::IngestStatus => drop(pages::IngestStatus::decode(payload)),
        Kind::IngestStatusReply => drop(pages::IngestStatusReply::decode(payload)),
        Kind::BaseBackup => drop(basebackup::BaseBackup::decode(payload)),
        Kind::BaseBackupItem | Kind::ImportItem => drop(basebackup::Item::decode(payload)),
        Kind::BaseBackupEnd => drop(basebackup::BaseBackupEnd::decode(payload)),
        Kind::TimelineCreate => {
            if let Ok(create) = admin::TimelineCreate::decode(payload) {
                again(&|out| create.encode(out));
            }
        }
        Kind::TimelineCreated => drop(admin::TimelineCreated::decode(payload)),
        Kind::ImportEnd => drop(admin::ImportEnd::decode(payload)),
        Kind::Status => drop(admin::Status::decode(payload)),
        Kind::StatusReply => drop(admin::StatusReply::decode(payload)),
        Kind::TimelineDelete => drop(admin::TimelineDelete::decode(payload)),
        Kind::TimelineDeleted => drop(admin::TimelineDeleted::decode(payload)),
        Kind::TimelinePrefix => drop(admin::TimelinePrefix::decode_prefix(payload)),
    }
}

/// Every part of a layer file, the manifest, the values inside, and pg_control.
pub fn layer(data: &[u8]) {
    let _ = LayerHeader::decode(data);
    let _ = Manifest::decode(data);
    // The same with the CRC made right, or nothing behind that check would ever be reached.
    let _ = LayerHeader::decode(&with_crc(&data[..data.len().min(BLOCK_SIZE)]));
    if let Ok(manifest) = Manifest::decode(&with_crc(data)) {
        let again = Manifest::decode(&manifest.encode());
        assert_eq!(again.as_ref(), Ok(&manifest), "a manifest comes back as it went out");
    }
    let (head, rest) = data.split_at(data.len().min(BLOCK_SIZE));
    let _ = check(&[with_crc(head).as_slice(), rest].concat());
    let _ = Fences::decode(data, 0, crc32c(data));
    let _ = Filter::decode(data, 0, crc32c(data));
    if let Ok(block) = IndexBlock::trusted(0, data) {
        let _ = block.find(&[0; 18]);
        for entry in block.entries().take(10_000) {
            if entry.is_err() {
                break;
            }
        }
    }
    if let Ok(value) = Value::decode(data) {
        let mut out = Vec::new();
        value.encode(&mut out);
        assert_eq!(out, data, "a value has one encoding");
    }
    if let Some(cuts) = RelCuts::decode(data) {
        assert_eq!(cuts.encode(), data, "cuts have one encoding");
    }
    let _ = ControlFile::read(data);
}

/// `data` with the CRC that a layer header and a manifest have at byte 12, over all the other bytes.
fn with_crc(data: &[u8]) -> Vec<u8> {
    let mut bytes = data.to_vec();
    if bytes.len() >= 16 {
        bytes[12..16].fill(0);
        let crc = crc32c(&bytes);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
    }
    bytes
}
