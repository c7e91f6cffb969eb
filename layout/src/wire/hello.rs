//! How a connection starts.

use super::{WireError, payload};
use crate::id::{NodeId, TenantId, TimelineId};
use zerocopy::little_endian::{U16, U32, U64};

/// What the side that connected wants to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u16)]
pub enum Role {
    /// A proposer of WAL, to a safekeeper.
    Proposer = 1,
    /// A reader of WAL, to a safekeeper: a pageserver, or a launcher that recovers.
    WalReader = 2,
    /// A compute that asks for pages, to a pageserver.
    PageReader = 3,
    /// The command line, to either: creates, imports, status, base backups.
    Admin = 4,
}

impl Role {
    pub fn from_number(number: u16) -> Option<Role> {
        [Role::Proposer, Role::WalReader, Role::PageReader, Role::Admin].into_iter().find(|role| *role as u16 == number)
    }
}

payload! {
    /// First frame of a connection.
    RawHello, 64 {
        version: U16,
        role: U16,
        /// Feature bits; none is defined, unknown ones are ignored.
        features: U32,
        tenant: [u8; 16],
        /// Zero for `Admin` connections that concern no single timeline.
        timeline: [u8; 16],
        /// System identifier of the Postgres cluster, 0 if not known.
        system_id: U64,
        /// PG_VERSION_NUM of the compute, 0 if it is none.
        postgres_version: U32,
        /// Bytes of token that follow.
        token_length: U32,
        reserved: U64,
    }
}

/// First frame of a connection, checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hello {
    pub role: Role,
    pub tenant: TenantId,
    pub timeline: TimelineId,
    pub system_id: u64,
    pub postgres_version: u32,
    pub token: Vec<u8>,
}

impl Hello {
    pub fn encode(&self, out: &mut Vec<u8>) {
        RawHello {
            version: U16::new(super::PROTOCOL_VERSION),
            role: U16::new(self.role as u16),
            features: U32::ZERO,
            tenant: self.tenant.0,
            timeline: self.timeline.0,
            system_id: U64::new(self.system_id),
            postgres_version: U32::new(self.postgres_version),
            token_length: U32::new(self.token.len() as u32),
            reserved: U64::ZERO,
        }
        .encode(out);
        out.extend_from_slice(&self.token);
    }

    pub fn decode(payload: &[u8]) -> Result<Hello, WireError> {
        let bad = |why| WireError::BadPayload { what: "Hello", why };
        let (raw, token) = RawHello::decode_prefix(payload)?;
        if raw.version.get() != super::PROTOCOL_VERSION {
            return Err(bad("another protocol version than 1: run the same release on both sides"));
        }
        if raw.token_length.get() as usize != token.len() {
            return Err(bad("token length does not fit the frame"));
        }
        Ok(Hello {
            role: Role::from_number(raw.role.get()).ok_or(bad("unknown role"))?,
            tenant: TenantId(raw.tenant),
            timeline: TimelineId(raw.timeline),
            system_id: raw.system_id.get(),
            postgres_version: raw.postgres_version.get(),
            token: token.to_vec(),
        })
    }
}

payload! {
    /// The answer to a hello that is welcome.
    HelloReply, 16 {
        version: U16,
        reserved: U16,
        features: U32,
        node: U64,
    }
}

impl HelloReply {
    pub fn new(node: NodeId) -> HelloReply {
        HelloReply {
            version: U16::new(super::PROTOCOL_VERSION),
            reserved: U16::ZERO,
            features: U32::ZERO,
            node: U64::new(node.0),
        }
    }
}
