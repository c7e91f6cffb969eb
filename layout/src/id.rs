//! Identities. Each is a type of its own, so that none is taken for another.

use std::fmt;
use std::str::FromStr;

macro_rules! hex_id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub [u8; 16]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<$name, ParseIdError> {
                let error = || ParseIdError { what: $what, text: text.to_string() };
                if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
                    return Err(error());
                }
                let mut id = [0; 16];
                for (byte, pair) in id.iter_mut().zip(text.as_bytes().chunks(2)) {
                    let pair = std::str::from_utf8(pair).map_err(|_| error())?;
                    *byte = u8::from_str_radix(pair, 16).map_err(|_| error())?;
                }
                Ok($name(id))
            }
        }
    };
}

hex_id!(
    /// A tenant: owner of timelines, unit of isolation.
    TenantId,
    "a tenant id"
);
hex_id!(
    /// A timeline: one branch's history. All branches share Postgres timeline 1; this is what tells them apart.
    TimelineId,
    "a timeline id"
);

/// The text is not 32 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not {what}: 32 hexadecimal digits are")]
pub struct ParseIdError {
    what: &'static str,
    text: String,
}

/// Leadership of a timeline's WAL. Grows by one with every election; 0 is before the first.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Term(pub u64);

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A safekeeper's or pageserver's number in its cluster, from its command line; never 0.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct NodeId(pub u64);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Part of a tenant's key space, the unit of ownership; `0..2^n`, n in the tenant's manifest.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Slot(pub u16);
