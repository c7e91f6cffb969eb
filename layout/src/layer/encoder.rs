//! Makes the bytes of a layer file, front to back.

use super::filter::{Filter, hash};
use super::index::{ENTRIES_PER_BLOCK, Entry, RawEntry, encode_block};
use super::run::encode_version;
use super::{BLOCK_SIZE, Header, ImageRef, LayerId, Salt, block_align_up};
use crate::crc::crc32c;
use crate::key::{KEY_SIZE, Key};
use crate::lsn::Lsn;
use crate::rel::PAGE_SIZE;
use crate::value::Value;

/// A version's value: encoded, or a page image elsewhere in the file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Body<'a> {
    Inline(&'a [u8]),
    Image(ImageRef),
}

impl Body<'_> {
    /// As [`Value::is_state`].
    pub fn is_state(&self) -> bool {
        match self {
            Body::Inline(bytes) => Value::encoded_is_state(bytes),
            Body::Image(_) => true,
        }
    }
}

/// Makes a layer: first all images, then all keys in order, then the end. What it appends to `out` belongs
/// to the file from offset 4096 on, without gaps; the caller may write and clear `out` between calls.
pub struct Encoder {
    id: LayerId,
    salt: Salt,
    /// Offset in the file of the next byte.
    position: u64,
    /// Offset of the runs, once they began.
    runs: Option<u64>,
    entries: Vec<RawEntry>,
    lsn_min: Lsn,
    lsn_max: Lsn,
    versions: u64,
}

impl Encoder {
    pub fn new(id: LayerId) -> Encoder {
        Encoder {
            id,
            salt: id.salt(),
            position: BLOCK_SIZE as u64,
            runs: None,
            entries: Vec::new(),
            lsn_min: Lsn::MAX,
            lsn_max: Lsn::INVALID,
            versions: 0,
        }
    }

    /// Whether no key was added.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn append(&mut self, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
        let start = out.len();
        write(out);
        self.position += (out.len() - start) as u64;
    }

    /// Zeros up to a multiple of `BLOCK_SIZE`; the section that starts there.
    fn pad(&mut self, out: &mut Vec<u8>) -> u64 {
        let padding = (block_align_up(self.position) - self.position) as usize;
        self.append(out, |out| out.resize(out.len() + padding, 0));
        self.position
    }

    /// Adds an image. Before the first key.
    pub fn image(&mut self, page: &[u8], out: &mut Vec<u8>) -> ImageRef {
        assert!(self.runs.is_none(), "images come before keys");
        assert_eq!(page.len(), PAGE_SIZE, "an image is one page");
        let block = u32::try_from(self.position / BLOCK_SIZE as u64).expect("a layer is far below 16 TiB");
        self.append(out, |out| out.extend_from_slice(page));
        ImageRef { block, crc: crc32c(page) }
    }

    /// Adds a key, behind the last one, with its versions, at least one, newest first.
    pub fn key<'a>(&mut self, key: Key, versions: impl IntoIterator<Item = (Lsn, Body<'a>)>, out: &mut Vec<u8>) {
        if self.runs.is_none() {
            self.runs = Some(self.pad(out));
        }
        let encoded = key.encode();
        assert!(self.entries.last().is_none_or(|last| last.key < encoded), "keys come in order");
        let run = self.position;
        let (salt, start) = (self.salt, out.len());
        let mut entry = Entry {
            key,
            versions: 0,
            last_lsn: Lsn::INVALID,
            state_lsn: Lsn::INVALID,
            run,
            run_length: 0,
            head_length: 0,
            image: None,
        };
        let mut head = None;
        let mut last = Lsn::MAX;
        for (lsn, body) in versions {
            assert!(lsn <= last && lsn.is_valid(), "versions come newest first");
            last = lsn;
            entry.versions += 1;
            entry.last_lsn = entry.last_lsn.max(lsn);
            self.lsn_min = self.lsn_min.min(lsn);
            let newest_state = head.is_none() && body.is_state();
            match body {
                Body::Image(image) if newest_state => entry.image = Some(image),
                _ => encode_version(salt, &encoded, lsn, &body, out),
            }
            if newest_state {
                entry.state_lsn = lsn;
                head = Some(out.len() - start);
            }
        }
        assert!(entry.versions > 0, "a key has versions");
        let length = |bytes| u32::try_from(bytes).expect("a memory layer is far below 4 GiB");
        entry.run_length = length(out.len() - start);
        entry.head_length = length(head.unwrap_or(out.len() - start));
        self.position += u64::from(entry.run_length);
        self.lsn_max = self.lsn_max.max(entry.last_lsn);
        self.versions += u64::from(entry.versions);
        self.entries.push(entry.encode());
    }

    /// Index, fences and filter. The header is for offset 0. At least one key was added.
    pub fn finish(mut self, out: &mut Vec<u8>) -> Header {
        let index = self.pad(out);
        let entries = std::mem::take(&mut self.entries);
        let (salt, mut fences, mut filter) = (self.salt, Vec::new(), Filter::new(entries.len()));
        for block in entries.chunks(ENTRIES_PER_BLOCK) {
            fences.extend_from_slice(&block[0].key);
            block.iter().for_each(|entry| filter.insert(hash(&entry.key)));
            let offset = self.position;
            self.append(out, |out| encode_block(salt, offset, block, out));
        }
        let fences_offset = self.pad(out);
        self.append(out, |out| out.extend_from_slice(&fences));
        let filter_offset = self.pad(out);
        let filter_bytes = filter.encode();
        self.append(out, |out| out.extend_from_slice(&filter_bytes));
        let file_length = self.pad(out);

        let key = |entry: Option<&RawEntry>| entry.and_then(|entry| Key::decode(&entry.key)).expect("a layer has keys");
        Header {
            id: self.id,
            lsn_min: self.lsn_min,
            lsn_max: self.lsn_max,
            key_min: key(entries.first()),
            key_max: key(entries.last()),
            keys: entries.len() as u64,
            versions: self.versions,
            runs: self.runs.unwrap_or(index),
            index,
            index_blocks: (fences.len() / KEY_SIZE) as u32,
            fences: fences_offset,
            fences_crc: crc32c(&fences),
            filter: filter_offset,
            filter_words: filter.words() as u32,
            filter_crc: crc32c(&filter_bytes),
            file_length,
        }
    }
}
