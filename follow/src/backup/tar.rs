//! The tar format as far as Postgres writes it (tarCreateHeader, port/tar.c): plain ustar, files of up to 8 GiB.

use std::io::{self, Read};

const BLOCK: usize = 512;

/// Files of an archive that is read from front to back.
pub struct Archive<R> {
    reader: R,
    /// What is left of the entry given last, with its padding.
    left: u64,
}

/// A file of an archive; reads end where it does.
pub struct Entry<'a, R> {
    archive: &'a mut Archive<R>,
    path: String,
    size: u64,
    unread: u64,
}

impl<R: Read> Archive<R> {
    pub fn new(reader: R) -> Archive<R> {
        Archive { reader, left: 0 }
    }

    /// The next entry that is a file; `None` at the end.
    pub fn next(&mut self) -> io::Result<Option<Entry<'_, R>>> {
        loop {
            self.skip()?;
            let mut head = [0; BLOCK];
            if !self.fill(&mut head)? || head.iter().all(|byte| *byte == 0) {
                return Ok(None);
            }
            let (path, size, kind) = parse(&head).ok_or_else(|| bad("the archive is damaged: a file header has a wrong sum"))?;
            if kind == b'0' || kind == 0 {
                self.left = size.next_multiple_of(BLOCK as u64);
                return Ok(Some(Entry { archive: self, path, size, unread: size }));
            }
            // Directories and links have no contents.
            self.left = 0;
        }
    }

    fn skip(&mut self) -> io::Result<()> {
        let skipped = io::copy(&mut (&mut self.reader).take(self.left), &mut io::sink())?;
        if skipped < self.left {
            return Err(bad("the archive ends within a file"));
        }
        self.left = 0;
        Ok(())
    }

    /// False at the end of the archive.
    fn fill(&mut self, head: &mut [u8; BLOCK]) -> io::Result<bool> {
        let mut got = 0;
        while let Some(rest) = head.get_mut(got..).filter(|rest| !rest.is_empty()) {
            match self.reader.read(rest)? {
                0 if got == 0 => return Ok(false),
                0 => return Err(bad("the archive ends within a header")),
                read => got += read,
            }
        }
        Ok(true)
    }
}

impl<R> Entry<'_, R> {
    pub fn path(&self) -> &str {
        &self.path
    }

    pub fn size(&self) -> u64 {
        self.size
    }
}

impl<R: Read> Read for Entry<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = buffer.len().min(usize::try_from(self.unread).unwrap_or(usize::MAX));
        let Some(buffer) = buffer.get_mut(..wanted).filter(|buffer| !buffer.is_empty()) else { return Ok(0) };
        let read = self.archive.reader.read(buffer)?;
        if read == 0 {
            return Err(bad("the archive ends within a file"));
        }
        self.unread -= read as u64;
        self.archive.left -= read as u64;
        Ok(read)
    }
}

fn bad(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// Name, size and type flag of a header whose checksum is right.
fn parse(head: &[u8; BLOCK]) -> Option<(String, u64, u8)> {
    let text = |from: usize, length: usize| {
        let field = head.get(from..from + length)?;
        String::from_utf8(field.split(|byte| *byte == 0).next()?.to_vec()).ok()
    };
    let octal = |from, length| u64::from_str_radix(text(from, length)?.trim(), 8).ok();
    // The checksum counts its own field as blanks.
    let sum: u64 = head.iter().enumerate().map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u64::from(*byte) }).sum();
    if octal(148, 8)? != sum {
        return None;
    }
    let path = text(0, 100)?;
    let path = path.strip_prefix("./").unwrap_or(&path).to_string();
    Some((path, octal(124, 12)?, *head.get(156)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, kind: u8, contents: &[u8]) -> Vec<u8> {
        let mut head = [0u8; BLOCK];
        head[..name.len()].copy_from_slice(name.as_bytes());
        head[124..136].copy_from_slice(format!("{:011o} ", contents.len()).as_bytes());
        head[148..156].fill(b' ');
        head[156] = kind;
        let sum: u32 = head.iter().map(|byte| u32::from(*byte)).sum();
        head[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        let mut bytes = head.to_vec();
        bytes.extend_from_slice(contents);
        bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
        bytes
    }

    #[test]
    fn files_come_out_whether_they_are_read_or_not() {
        let mut bytes =
            [file("base", b'5', b""), file("base/1/1259", b'0', &[7; 700]), file("PG_VERSION", b'0', b"15\n")].concat();
        bytes.extend_from_slice(&[0; 2 * BLOCK]);
        let mut archive = Archive::new(&bytes[..]);
        assert_eq!(
            archive.next().unwrap().map(|entry| (entry.path().to_string(), entry.size())),
            Some(("base/1/1259".into(), 700))
        );
        let mut text = String::new();
        archive.next().unwrap().unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "15\n");
        assert!(archive.next().unwrap().is_none());
    }

    #[test]
    fn an_archive_that_is_cut_or_damaged_is_an_error() {
        let whole = [file("a", b'0', &[7; 700]), file("b", b'0', b"x")].concat();
        for cut in [100, BLOCK + 10, BLOCK * 3 + 5] {
            let mut archive = Archive::new(&whole[..cut]);
            let outcome = (|| {
                while archive.next()?.is_some() {}
                io::Result::Ok(())
            })();
            assert!(outcome.is_err(), "{cut}");
        }
        let mut flipped = whole.clone();
        flipped[1] ^= 1;
        assert!(Archive::new(&flipped[..]).next().is_err());
    }
}
