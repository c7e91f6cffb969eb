//! Checks a whole layer file in memory, as far as it can be without the manifest.

use super::filter::{Filter, hash};
use super::index::{Entry, IndexBlock};
use super::{BLOCK_SIZE, Body, Fences, Header, ImageRef, LayerError, run};
use crate::lsn::Lsn;
use crate::rel::PAGE_SIZE;

/// Every CRC, and that header, fences, filter, index, runs and images agree. `file` is all of it.
pub fn check(file: &[u8]) -> Result<Header, LayerError> {
    let header = Header::decode(file)?;
    if file.len() as u64 != header.file_length {
        let (needed, found) = (header.file_length, file.len() as u64);
        return Err(LayerError::Truncated { what: "layer", offset: 0, needed, found });
    }
    let fences_bytes = part(file, "fences", header.fences, header.fences_length())?;
    let fences = Fences::decode(fences_bytes, header.fences, header.fences_crc)?;
    let filter_bytes = part(file, "filter", header.filter, header.filter_length())?;
    let filter = Filter::decode(filter_bytes, header.filter, header.filter_crc)?;
    let mut seen = Seen { keys: 0, versions: 0, last: None };
    for number in 0..header.index_blocks {
        let offset = header.index_block(number);
        let block = IndexBlock::decode(header.salt(), offset, part(file, "index block", offset, BLOCK_SIZE as u64)?)?;
        for entry in block.entries() {
            let entry = entry?;
            let key = entry.key.encode();
            if fences.block_of(&key) != Some(number) || !filter.may_hold(hash(&key)) {
                return Err(malformed("index block", offset, "fences or filter deny one of its keys"));
            }
            check_entry(file, &header, &entry, &mut seen)?;
        }
    }
    if seen.last != Some(header.key_max) || (seen.keys, seen.versions) != (header.keys, header.versions) {
        return Err(malformed("layer header", 0, "its counts or last key are not those of the index"));
    }
    Ok(header)
}

/// What the index held so far.
struct Seen {
    keys: u64,
    versions: u64,
    last: Option<crate::Key>,
}

fn check_entry(file: &[u8], header: &Header, entry: &Entry, seen: &mut Seen) -> Result<(), LayerError> {
    let wrong = |why| Err(malformed("index entry", entry.run, why));
    if entry.key < header.key_min || seen.last.is_some_and(|last| last >= entry.key) {
        return wrong("its key is out of order");
    }
    let end = entry.run.checked_add(u64::from(entry.run_length));
    if entry.run < header.runs || end.is_none_or(|end| end > header.index) {
        return wrong("it points outside the runs");
    }
    let bytes = part(file, "run", entry.run, u64::from(entry.run_length))?;
    let (head, tail) = bytes.split_at_checked(entry.head_length as usize).ok_or(malformed("run", entry.run, "cut short"))?;
    let key = entry.key.encode();
    let mut versions = run::decode(header.salt(), &key, entry.run, head)?;
    let before = versions.iter().filter(|(_, body)| body.is_state()).count();
    versions.extend(entry.image.map(|image| (entry.state_lsn, Body::Image(image))));
    let state = versions.last().filter(|(_, body)| body.is_state()).map_or(Lsn::INVALID, |version| version.0);
    versions.extend(run::decode(header.salt(), &key, entry.run + head.len() as u64, tail)?);
    if before + usize::from(entry.image.is_some()) > 1 || state != entry.state_lsn {
        return wrong("its head does not end with the newest state");
    }
    if versions.len() as u64 != u64::from(entry.versions) || versions.first().map(|version| version.0) != Some(entry.last_lsn) {
        return wrong("its count or newest LSN is not that of the run");
    }
    let in_range = |lsn| (header.lsn_min..=header.lsn_max).contains(&lsn);
    if !versions.is_sorted_by(|a, b| a.0 >= b.0) || !versions.iter().all(|version| in_range(version.0)) {
        return wrong("its versions are out of order, or outside the layer's LSNs");
    }
    for (_, body) in &versions {
        if let Body::Image(image) = body {
            check_image(file, header, image)?;
        }
    }
    seen.keys += 1;
    seen.versions += versions.len() as u64;
    seen.last = Some(entry.key);
    Ok(())
}

fn check_image(file: &[u8], header: &Header, image: &ImageRef) -> Result<(), LayerError> {
    if image.offset() < BLOCK_SIZE as u64 || image.offset() + PAGE_SIZE as u64 > header.runs {
        return Err(malformed("image", image.offset(), "it lies outside the images"));
    }
    image.check(part(file, "page image", image.offset(), PAGE_SIZE as u64)?)
}

fn malformed(what: &'static str, offset: u64, why: &'static str) -> LayerError {
    LayerError::Malformed { what, offset, why }
}

fn part<'a>(file: &'a [u8], what: &'static str, offset: u64, length: u64) -> Result<&'a [u8], LayerError> {
    let found = (file.len() as u64).saturating_sub(offset);
    let cut = LayerError::Truncated { what, offset, needed: length, found };
    let start = usize::try_from(offset).map_err(|_| cut.clone())?;
    file.get(start..).and_then(|rest| rest.get(..usize::try_from(length).ok()?)).ok_or(cut)
}
