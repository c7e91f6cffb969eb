//! Frames made by hand, so that they can be wrong: what a stranger on the network may send.
//!
//! The layout is that of the protocol's description: 32 bytes of header (magic, kind, zero, length, CRC,
//! request id, term, all little-endian) and the payload.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

pub const HELLO: u16 = 1;
pub const HELLO_REPLY: u16 = 2;
pub const ERROR: u16 = 3;
pub const VOTE_REQUEST: u16 = 0x11;
pub const VOTE_REPLY: u16 = 0x12;
pub const APPEND: u16 = 0x14;
pub const WAL_START: u16 = 0x20;
pub const WAL_DATA: u16 = 0x21;
pub const GET_PAGES: u16 = 0x30;
pub const PAGES: u16 = 0x31;
pub const BASE_BACKUP: u16 = 0x40;
pub const STATUS: u16 = 0x54;

/// Roles of a hello.
pub const PROPOSER: u16 = 1;
pub const WAL_READER: u16 = 2;
pub const PAGE_READER: u16 = 3;
pub const ADMIN: u16 = 4;

/// Codes of errors.
pub const PROTOCOL: u16 = 1;
pub const UNSUPPORTED: u16 = 2;
pub const NOT_FOUND: u16 = 3;
pub const FENCED: u16 = 5;
pub const OUT_OF_RANGE: u16 = 6;
pub const REFUSED: u16 = 11;

/// CRC-32C, a bit at a time.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0x82F6_3B78 } else { crc >> 1 })
    })
}

/// A frame as it should be.
pub fn frame(kind: u16, term: u64, payload: &[u8]) -> Vec<u8> {
    let mut bytes = b"IRPG".to_vec();
    bytes.extend(kind.to_le_bytes());
    bytes.extend([0; 2]);
    bytes.extend((payload.len() as u32).to_le_bytes());
    bytes.extend([0; 4]);
    bytes.extend(7u64.to_le_bytes());
    bytes.extend(term.to_le_bytes());
    bytes.extend(payload);
    sealed(bytes)
}

/// The frame with its CRC made right again.
pub fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes[12..16].fill(0);
    let crc = crc32c(&bytes);
    bytes[12..16].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// Whom a hello is from.
#[derive(Clone, Copy)]
pub struct Identity {
    pub tenant: [u8; 16],
    pub timeline: [u8; 16],
    pub system_id: u64,
    pub postgres_version: u32,
}

impl Identity {
    pub fn hello(&self, role: u16) -> Vec<u8> {
        let mut payload = Vec::new();
        payload.extend(1u16.to_le_bytes());
        payload.extend(role.to_le_bytes());
        payload.extend([0; 4]);
        payload.extend(self.tenant);
        payload.extend(self.timeline);
        payload.extend(self.system_id.to_le_bytes());
        payload.extend(self.postgres_version.to_le_bytes());
        payload.extend([0; 12]);
        frame(HELLO, 0, &payload)
    }
}

/// 32 hexadecimal digits.
pub fn id(text: &str) -> [u8; 16] {
    std::array::from_fn(|at| u8::from_str_radix(&text[at * 2..at * 2 + 2], 16).unwrap())
}

/// A reply, taken apart.
#[derive(Debug)]
pub struct Reply {
    pub kind: u16,
    pub term: u64,
    pub payload: Vec<u8>,
}

impl Reply {
    /// Code and text of an error; panics if it is none.
    pub fn error(&self, what: &str) -> (u16, String) {
        assert_eq!(self.kind, ERROR, "{what}: {self:?}");
        (u16::from_le_bytes([self.payload[0], self.payload[1]]), String::from_utf8_lossy(&self.payload[2..]).into_owned())
    }
}

/// A connection that says what it likes.
pub struct Stranger {
    stream: TcpStream,
}

impl Stranger {
    pub fn connect(address: &str) -> Stranger {
        let stream = TcpStream::connect(address).unwrap_or_else(|error| panic!("{address}: {error}"));
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
        Stranger { stream }
    }

    /// The other side may have closed already, which the next reply tells.
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    pub fn end(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// The next reply, checked; `None` at the end of the connection. Panics if neither comes.
    pub fn reply(&mut self, what: &str) -> Option<Reply> {
        let mut head = [0; 32];
        let mut got = 0;
        while got < head.len() {
            match self.stream.read(&mut head[got..]) {
                Ok(0) if got == 0 => return None,
                Ok(0) => panic!("{what}: the connection ended within a frame"),
                Ok(more) => got += more,
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset && got == 0 => return None,
                Err(error) => panic!("{what}: no answer: {error}"),
            }
        }
        let field =
            |at: usize, bytes: usize| head[at..at + bytes].iter().rev().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
        let mut payload = vec![0; field(8, 4) as usize];
        self.stream.read_exact(&mut payload).unwrap_or_else(|error| panic!("{what}: {error}"));
        let whole = [&head[..], &payload].concat();
        assert_eq!(sealed(whole.clone()), whole, "{what}: the reply's CRC");
        Some(Reply { kind: field(4, 2) as u16, term: field(24, 8), payload })
    }

    pub fn expect(&mut self, kind: u16, what: &str) -> Reply {
        let reply = self.reply(what).unwrap_or_else(|| panic!("{what}: the connection ended"));
        assert_eq!(reply.kind, kind, "{what}: {}", String::from_utf8_lossy(&reply.payload));
        reply
    }

    /// The next reply is an error of this code whose text holds `part`, and then the connection ends.
    pub fn expect_refusal(&mut self, code: u16, part: &str, what: &str) {
        let reply = self.reply(what).unwrap_or_else(|| panic!("{what}: closed without a word"));
        let (found, text) = reply.error(what);
        assert!(found == code && text.contains(part), "{what}: error {found}: {text}");
        assert!(self.reply(what).is_none(), "{what}: the connection stayed open");
    }
}

#[test]
fn crc32c_has_its_check_value() {
    assert_eq!(crc32c(b"123456789"), 0xE306_9283);
}
