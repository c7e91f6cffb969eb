//! The frames between Ironpage's processes: one framing for consensus, WAL, pages and administration.
//!
//! ```text
//! 0        4        6        8        12       16               24               32
//! | magic  | kind   | zero   | length | crc    | request id     | term           | payload, `length` bytes
//! ```
//!
//! Little-endian throughout. `crc` is the CRC-32C of the 32 header bytes with the crc field zero,
//! continued over the payload. `request id` is the asker's and comes back in every reply to it;
//! replies come in any order. `term` is the sender's: 0 where leadership does not matter.
//!
//! A connection starts with `Hello` from the side that connected, answered by `HelloReply` or `Error`.
//! After an `Error` that answers a `Hello`, and after any malformed frame, the connection is closed.

pub mod admin;
pub mod append;
pub mod basebackup;
pub mod hello;
pub mod pages;
pub mod walstream;

use crate::crc::{crc32c, crc32c_append};
use crate::id::Term;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// "IRPG" in the order of the wire.
pub const MAGIC: u32 = u32::from_le_bytes(*b"IRPG");
/// Version of the protocol, in the hello. No other is spoken.
pub const PROTOCOL_VERSION: u16 = 1;
/// Bytes of a frame header.
pub const HEADER_SIZE: usize = 32;
/// Largest payload a frame may have. A longer one is refused before it is read.
pub const MAX_PAYLOAD: usize = 4 << 20;
/// Largest run of WAL in one `Append` or `WalData`.
pub const MAX_WAL_CHUNK: usize = 1 << 20;
/// Most blocks one `GetPages` may ask for.
pub const MAX_PAGES: u32 = 128;

/// What a frame is. The payload's layout stands at the type of the same name.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u16)]
pub enum Kind {
    Hello = 1,
    HelloReply = 2,
    Error = 3,
    // consensus: a proposer and a safekeeper
    Greeting = 0x10,
    VoteRequest = 0x11,
    VoteReply = 0x12,
    Elected = 0x13,
    Append = 0x14,
    AppendReply = 0x15,
    // WAL out of a safekeeper
    WalStart = 0x20,
    WalData = 0x21,
    WalKeepalive = 0x22,
    // pages out of a pageserver
    GetPages = 0x30,
    Pages = 0x31,
    IngestStatus = 0x32,
    IngestStatusReply = 0x33,
    // base backup out of a pageserver
    BaseBackup = 0x40,
    BaseBackupItem = 0x41,
    BaseBackupEnd = 0x42,
    // administration, of both daemons
    TimelineCreate = 0x50,
    TimelineCreated = 0x51,
    ImportItem = 0x52,
    ImportEnd = 0x53,
    Status = 0x54,
    StatusReply = 0x55,
    TimelineDelete = 0x56,
    TimelineDeleted = 0x57,
    TimelinePrefix = 0x58,
}

impl Kind {
    pub fn from_number(number: u16) -> Option<Kind> {
        use Kind::*;
        const ALL: [Kind; 28] = [
            Hello,
            HelloReply,
            Error,
            Greeting,
            VoteRequest,
            VoteReply,
            Elected,
            Append,
            AppendReply,
            WalStart,
            WalData,
            WalKeepalive,
            GetPages,
            Pages,
            IngestStatus,
            IngestStatusReply,
            BaseBackup,
            BaseBackupItem,
            BaseBackupEnd,
            TimelineCreate,
            TimelineCreated,
            ImportItem,
            ImportEnd,
            Status,
            StatusReply,
            TimelineDelete,
            TimelineDeleted,
            TimelinePrefix,
        ];
        ALL.into_iter().find(|kind| *kind as u16 == number)
    }
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy, Debug)]
#[repr(C)]
struct RawHeader {
    magic: U32,
    kind: U16,
    zero: U16,
    length: U32,
    crc: U32,
    request_id: U64,
    term: U64,
}
const _: () = assert!(size_of::<RawHeader>() == HEADER_SIZE);

/// A frame header that passed every check that needs no payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    pub kind: Kind,
    /// Bytes of payload that follow; at most `MAX_PAYLOAD`.
    pub length: usize,
    pub request_id: u64,
    pub term: Term,
    crc: u32,
    crc_of_header: u32,
}

/// Bytes from the network that are not a frame, or not the frame they claim to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    #[error(
        "not an Ironpage frame: it starts with {0:#010x}, not \"IRPG\" (does the other side speak this protocol, on this port?)"
    )]
    BadMagic(u32),
    #[error("frame of unknown kind {0:#x}: the other side is newer, or the stream is damaged")]
    UnknownKind(u16),
    #[error("frame header has {0:#x} in its reserved field")]
    ReservedNotZero(u16),
    #[error("frame claims {length} bytes of payload, {MAX_PAYLOAD} at most are allowed")]
    TooLong { length: usize },
    #[error("CRC of {kind:?} frame is {found:#010x}, its header says {expected:#010x}: damaged on the way")]
    BadCrc { kind: Kind, expected: u32, found: u32 },
    #[error("{what} is malformed: {why}")]
    BadPayload { what: &'static str, why: &'static str },
}

impl Header {
    /// Reads a header. The payload is checked by [`Header::check`] once it is here.
    pub fn decode(bytes: &[u8; HEADER_SIZE]) -> Result<Header, WireError> {
        let raw =
            RawHeader::read_from_bytes(bytes).map_err(|_| WireError::BadPayload { what: "frame header", why: "wrong size" })?;
        if raw.magic.get() != MAGIC {
            return Err(WireError::BadMagic(raw.magic.get()));
        }
        if raw.zero.get() != 0 {
            return Err(WireError::ReservedNotZero(raw.zero.get()));
        }
        let length = raw.length.get() as usize;
        if length > MAX_PAYLOAD {
            return Err(WireError::TooLong { length });
        }
        let kind = Kind::from_number(raw.kind.get()).ok_or(WireError::UnknownKind(raw.kind.get()))?;
        let crc_of_header = crc32c(RawHeader { crc: U32::ZERO, ..raw }.as_bytes());
        Ok(Header {
            kind,
            length,
            request_id: raw.request_id.get(),
            term: Term(raw.term.get()),
            crc: raw.crc.get(),
            crc_of_header,
        })
    }

    /// Checks the payload, of exactly `length` bytes, against the CRC.
    pub fn check(&self, payload: &[u8]) -> Result<(), WireError> {
        let found = crc32c_append(self.crc_of_header, payload);
        if payload.len() != self.length || found != self.crc {
            return Err(WireError::BadCrc { kind: self.kind, expected: self.crc, found });
        }
        Ok(())
    }
}

/// A whole frame, header and payload, appended to `out`. `payload` writes the payload behind the header.
///
/// Panics if the payload is longer than `MAX_PAYLOAD`: callers bound what they send.
pub fn encode_frame(out: &mut Vec<u8>, kind: Kind, request_id: u64, term: Term, payload: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.resize(start + HEADER_SIZE, 0);
    payload(out);
    let length = out.len() - start - HEADER_SIZE;
    assert!(length <= MAX_PAYLOAD, "{kind:?} frame of {length} bytes");
    let mut header = RawHeader {
        magic: U32::new(MAGIC),
        kind: U16::new(kind as u16),
        zero: U16::ZERO,
        length: U32::new(length as u32),
        crc: U32::ZERO,
        request_id: U64::new(request_id),
        term: U64::new(term.0),
    };
    let crc = crc32c_append(crc32c(header.as_bytes()), &out[start + HEADER_SIZE..]);
    header.crc = U32::new(crc);
    out[start..start + HEADER_SIZE].copy_from_slice(header.as_bytes());
}

/// A frame's header, its payload, and the bytes both take.
pub type SplitFrame<'a> = (Header, &'a [u8], usize);

/// The first whole frame of `bytes`, checked: its header, its payload, and the bytes it takes.
/// `Ok(None)` if more bytes are needed.
pub fn split_frame(bytes: &[u8]) -> Result<Option<SplitFrame<'_>>, WireError> {
    let Some(head) = bytes.first_chunk::<HEADER_SIZE>() else {
        return Ok(None);
    };
    let header = Header::decode(head)?;
    let end = HEADER_SIZE + header.length;
    let Some(payload) = bytes.get(HEADER_SIZE..end) else {
        return Ok(None);
    };
    header.check(payload)?;
    Ok(Some((header, payload, end)))
}

/// Why a request failed; the payload of an `Error` frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u16)]
pub enum ErrorCode {
    /// A frame did not decode, or was not allowed in this state.
    Protocol = 1,
    /// Another protocol version, WAL segment size or Postgres version.
    Unsupported = 2,
    /// No such tenant or timeline here.
    NotFound = 3,
    /// The timeline is there already, with other properties.
    Exists = 4,
    /// A higher term is known: whoever asked is no longer the primary. `term` of the frame holds it.
    Fenced = 5,
    /// The LSN is outside what this node has.
    OutOfRange = 6,
    /// Nothing can be promised for now: catching up, or overloaded. Ask again.
    Unavailable = 7,
    /// A file is poisoned after a failed write or flush, or no space is left: nothing is acknowledged.
    Storage = 8,
    /// Stored bytes failed their checksum, or a record could not be applied.
    Corrupt = 9,
    /// A WAL record this version does not know stopped ingest.
    UnknownRecord = 10,
    /// The other side is not who it says (tenant, timeline, system identifier).
    Refused = 11,
}

impl ErrorCode {
    pub fn from_number(number: u16) -> Option<ErrorCode> {
        use ErrorCode::*;
        [Protocol, Unsupported, NotFound, Exists, Fenced, OutOfRange, Unavailable, Storage, Corrupt, UnknownRecord, Refused]
            .into_iter()
            .find(|code| *code as u16 == number)
    }
}

/// What went wrong at the other side, as it said it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{message}")]
pub struct RemoteError {
    pub code: ErrorCode,
    pub message: String,
}

impl RemoteError {
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&(self.code as u16).to_le_bytes());
        // A message is for people: cut it rather than refuse to send it.
        let mut end = self.message.len().min(2000);
        while !self.message.is_char_boundary(end) {
            end -= 1;
        }
        out.extend_from_slice(&self.message.as_bytes()[..end]);
    }

    pub fn decode(payload: &[u8]) -> Result<RemoteError, WireError> {
        let bad = |why| WireError::BadPayload { what: "Error", why };
        let (code, text) = payload.split_first_chunk::<2>().ok_or(bad("no code"))?;
        let code = ErrorCode::from_number(u16::from_le_bytes(*code)).ok_or(bad("unknown code"))?;
        Ok(RemoteError { code, message: String::from_utf8_lossy(text).into_owned() })
    }
}

/// Declares fixed payloads: a zerocopy struct, its size asserted, with `encode` and `decode_prefix`.
macro_rules! payload {
    ($(#[$doc:meta])* $name:ident, $size:literal { $($(#[$fdoc:meta])* $field:ident: $type:ty),* $(,)? }) => {
        $(#[$doc])*
        #[derive(
            zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout, zerocopy::Unaligned,
            Clone, Copy, PartialEq, Eq, Debug,
        )]
        #[repr(C)]
        pub struct $name { $($(#[$fdoc])* pub $field: $type),* }
        const _: () = assert!(size_of::<$name>() == $size);

        impl $name {
            /// Appends the fixed part to `out`; what follows it is the caller's.
            pub fn encode(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(zerocopy::IntoBytes::as_bytes(self));
            }

            /// The fixed part, and the bytes behind it.
            pub fn decode_prefix(payload: &[u8]) -> Result<($name, &[u8]), $crate::wire::WireError> {
                <$name as zerocopy::FromBytes>::read_from_prefix(payload)
                    .map_err(|_| $crate::wire::WireError::BadPayload { what: stringify!($name), why: "too short" })
            }

            /// The fixed part, with nothing behind it.
            pub fn decode(payload: &[u8]) -> Result<$name, $crate::wire::WireError> {
                match $name::decode_prefix(payload)? {
                    (message, []) => Ok(message),
                    _ => Err($crate::wire::WireError::BadPayload { what: stringify!($name), why: "bytes behind its end" }),
                }
            }
        }
    };
}
pub(crate) use payload;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_comes_back_and_any_flipped_bit_is_caught() {
        let mut bytes = Vec::new();
        encode_frame(&mut bytes, Kind::Append, 7, Term(3), |out| out.extend_from_slice(b"wal"));
        let (header, payload, taken) = split_frame(&bytes).unwrap().unwrap();
        assert_eq!((header.kind, header.request_id, header.term, payload, taken), (Kind::Append, 7, Term(3), &b"wal"[..], 35));
        for short in 0..bytes.len() {
            assert_eq!(split_frame(&bytes[..short]), Ok(None));
        }
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(!matches!(split_frame(&damaged), Ok(Some(_))), "bit {bit}");
        }
    }

    #[test]
    fn a_huge_length_is_refused_before_its_bytes_are_awaited() {
        let mut bytes = Vec::new();
        encode_frame(&mut bytes, Kind::Hello, 0, Term(0), |_| ());
        bytes[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(split_frame(&bytes), Err(WireError::TooLong { length: u32::MAX as usize }));
    }
}
