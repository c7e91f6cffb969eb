//! What the journal says of one tenant or branch.

use super::{MetadataError, NAME_BYTES};
use crate::id::{NodeId, TenantId, TimelineId};
use crate::lsn::Lsn;
use zerocopy::little_endian::{I64, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Safekeepers of one branch at most.
pub const MAX_MEMBERS: usize = 64;

/// Names are parts of paths, settings and URLs: letters, digits, `_` and `-` of ASCII, a letter or digit first. What may be
/// an id, 32 hexadecimal digits, is no name: whoever means the id must not get what somebody gave it as a name.
pub fn is_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    NAME_BYTES.contains(&bytes.len())
        && bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
        && !(bytes.len() == 32 && bytes.iter().all(u8::is_ascii_hexdigit))
}

/// How far a tenant is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TenantState {
    Active,
    /// Its branches are being removed, then it is.
    Deleting,
}

/// An owner of branches.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TenantRecord {
    pub id: TenantId,
    pub name: String,
    pub state: TenantState,
    /// Microseconds since 1970 UTC.
    pub created_at_us: i64,
}

/// What a branch is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BranchKind {
    /// People work on it.
    Branch,
    /// What a branch was before it was restored.
    Backup,
    /// A fixed point in time under a read-only endpoint.
    Snapshot,
    /// It repeats a server elsewhere.
    Follow,
}

/// How far a branch is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BranchState {
    /// Nobody was told of it; a start removes it.
    Creating,
    Active,
    /// It is gone for everyone; what is left of it is being removed.
    Deleting,
}

/// A branch: a name for a timeline.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BranchRecord {
    pub tenant: TenantId,
    pub timeline: TimelineId,
    pub name: String,
    pub kind: BranchKind,
    pub state: BranchState,
    /// The timeline it branches from; it does so at `start_lsn`.
    pub parent: Option<TimelineId>,
    /// A record ends here, and the branch's own WAL begins.
    pub start_lsn: Lsn,
    /// Below it nothing can be read; `start_lsn` or, under a base backup that was taken while its server ran, its end.
    pub readable_lsn: Lsn,
    /// Start of the record that ends at `start_lsn`.
    pub prev_record_lsn: Lsn,
    pub system_id: u64,
    /// PG_VERSION_NUM.
    pub postgres_version: u32,
    /// Microseconds since 1970 UTC.
    pub created_at_us: i64,
    /// Microseconds since 1970 UTC; the branch goes away then. `None`: never.
    pub expires_at_us: Option<i64>,
    /// The safekeepers on which it was created, ascending: it is never created there again.
    pub safekeepers: Vec<NodeId>,
}

/// One change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Record {
    /// The tenant is so from now on.
    Tenant(TenantRecord),
    TenantGone(TenantId),
    /// The branch is so from now on.
    Branch(BranchRecord),
    BranchGone(TenantId, TimelineId),
}

macro_rules! codes {
    ($name:ident { $($variant:ident = $code:literal),+ $(,)? }) => {
        impl $name {
            fn code(self) -> u8 {
                match self { $($name::$variant => $code),+ }
            }

            fn from_code(code: u8) -> Option<$name> {
                match code { $($code => Some($name::$variant),)+ _ => None }
            }
        }
    };
}

codes!(TenantState { Active = 1, Deleting = 2 });
codes!(BranchKind { Branch = 1, Backup = 2, Snapshot = 3, Follow = 4 });
codes!(BranchState { Creating = 1, Active = 2, Deleting = 3 });

const TENANT: u16 = 1;
const TENANT_GONE: u16 = 2;
const BRANCH: u16 = 3;
const BRANCH_GONE: u16 = 4;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawHead {
    kind: U16,
    reserved: U16,
    /// Of what follows.
    length: U32,
}
const _: () = assert!(size_of::<RawHead>() == 8);

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawTenant {
    id: [u8; 16],
    created_at_us: I64,
    state: u8,
    name_length: u8,
    reserved: [u8; 6],
}
const _: () = assert!(size_of::<RawTenant>() == 32);

/// Then the name, then the safekeepers, 8 bytes each.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawBranch {
    tenant: [u8; 16],
    timeline: [u8; 16],
    parent: [u8; 16],
    start_lsn: U64,
    readable_lsn: U64,
    prev_record_lsn: U64,
    system_id: U64,
    created_at_us: I64,
    expires_at_us: I64,
    postgres_version: U32,
    safekeepers: U16,
    has_parent: u8,
    expires: u8,
    kind: u8,
    state: u8,
    name_length: u8,
    reserved: [u8; 5],
}
const _: () = assert!(size_of::<RawBranch>() == 112);

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawBranchGone {
    tenant: [u8; 16],
    timeline: [u8; 16],
}

impl Record {
    /// Appends the record to `out`. Names longer than [`NAME_BYTES`] and more than [`MAX_MEMBERS`] safekeepers are
    /// the caller's error.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let at = out.len();
        out.extend_from_slice(&[0; size_of::<RawHead>()]);
        let kind = match self {
            Record::Tenant(tenant) => {
                let raw = RawTenant {
                    id: tenant.id.0,
                    created_at_us: I64::new(tenant.created_at_us),
                    state: tenant.state.code(),
                    name_length: length_of(&tenant.name),
                    reserved: [0; 6],
                };
                out.extend_from_slice(raw.as_bytes());
                out.extend_from_slice(tenant.name.as_bytes());
                TENANT
            }
            Record::TenantGone(id) => {
                out.extend_from_slice(&id.0);
                TENANT_GONE
            }
            Record::Branch(branch) => {
                assert!(branch.safekeepers.len() <= MAX_MEMBERS, "a branch on {} safekeepers", branch.safekeepers.len());
                let raw = RawBranch {
                    tenant: branch.tenant.0,
                    timeline: branch.timeline.0,
                    parent: branch.parent.unwrap_or_default().0,
                    start_lsn: U64::new(branch.start_lsn.0),
                    readable_lsn: U64::new(branch.readable_lsn.0),
                    prev_record_lsn: U64::new(branch.prev_record_lsn.0),
                    system_id: U64::new(branch.system_id),
                    created_at_us: I64::new(branch.created_at_us),
                    expires_at_us: I64::new(branch.expires_at_us.unwrap_or_default()),
                    postgres_version: U32::new(branch.postgres_version),
                    safekeepers: U16::new(branch.safekeepers.len() as u16),
                    has_parent: u8::from(branch.parent.is_some()),
                    expires: u8::from(branch.expires_at_us.is_some()),
                    kind: branch.kind.code(),
                    state: branch.state.code(),
                    name_length: length_of(&branch.name),
                    reserved: [0; 5],
                };
                out.extend_from_slice(raw.as_bytes());
                out.extend_from_slice(branch.name.as_bytes());
                branch.safekeepers.iter().for_each(|id| out.extend_from_slice(&id.0.to_le_bytes()));
                BRANCH
            }
            Record::BranchGone(tenant, timeline) => {
                out.extend_from_slice(RawBranchGone { tenant: tenant.0, timeline: timeline.0 }.as_bytes());
                BRANCH_GONE
            }
        };
        let length = (out.len() - at - size_of::<RawHead>()) as u32;
        let head = RawHead { kind: U16::new(kind), reserved: U16::new(0), length: U32::new(length) };
        out[at..at + size_of::<RawHead>()].copy_from_slice(head.as_bytes());
    }

    /// Reads the record at the front of `bytes`, which lie at `offset` of the file, and says how long it is.
    pub fn decode(bytes: &[u8], offset: u64) -> Result<(Record, usize), MetadataError> {
        let bad = |why: &str| MetadataError::Damaged { offset, why: why.to_string() };
        let (head, rest) = RawHead::read_from_prefix(bytes).map_err(|_| bad("a record is cut short"))?;
        let length = head.length.get() as usize;
        let body = rest.get(..length).ok_or_else(|| bad("a record is cut short"))?;
        let record = match head.kind.get() {
            TENANT => decode_tenant(body).map(Record::Tenant),
            TENANT_GONE => <[u8; 16]>::try_from(body).map(|id| Record::TenantGone(TenantId(id))).map_err(|_| "a tenant's id"),
            BRANCH => decode_branch(body).map(Record::Branch),
            BRANCH_GONE => RawBranchGone::read_from_bytes(body)
                .map(|raw| Record::BranchGone(TenantId(raw.tenant), TimelineId(raw.timeline)))
                .map_err(|_| "a branch's ids"),
            _ => Err("a record of unknown kind"),
        };
        let record = record.map_err(|why| bad(&format!("{why} cannot be read")))?;
        Ok((record, size_of::<RawHead>() + length))
    }
}

fn length_of(name: &str) -> u8 {
    assert!(NAME_BYTES.contains(&name.len()), "a name of {} bytes", name.len());
    name.len() as u8
}

fn decode_name(rest: &[u8], length: u8) -> Result<(String, &[u8]), &'static str> {
    let (name, rest) = rest.split_at_checked(usize::from(length)).ok_or("a name cut short")?;
    let name = std::str::from_utf8(name).ok().filter(|name| is_name(name)).ok_or("a name")?;
    Ok((name.to_string(), rest))
}

fn decode_tenant(body: &[u8]) -> Result<TenantRecord, &'static str> {
    let (raw, rest) = RawTenant::read_from_prefix(body).map_err(|_| "a tenant")?;
    let (name, rest) = decode_name(rest, raw.name_length)?;
    if !rest.is_empty() {
        return Err("a tenant with something behind it");
    }
    Ok(TenantRecord {
        id: TenantId(raw.id),
        name,
        state: TenantState::from_code(raw.state).ok_or("a tenant's state")?,
        created_at_us: raw.created_at_us.get(),
    })
}

fn decode_branch(body: &[u8]) -> Result<BranchRecord, &'static str> {
    let (raw, rest) = RawBranch::read_from_prefix(body).map_err(|_| "a branch")?;
    let (name, rest) = decode_name(rest, raw.name_length)?;
    let (members, rest) = rest.as_chunks::<8>();
    if !rest.is_empty() || members.len() != usize::from(raw.safekeepers.get()) || members.len() > MAX_MEMBERS {
        return Err("a branch's safekeepers");
    }
    Ok(BranchRecord {
        tenant: TenantId(raw.tenant),
        timeline: TimelineId(raw.timeline),
        name,
        kind: BranchKind::from_code(raw.kind).ok_or("a branch's kind")?,
        state: BranchState::from_code(raw.state).ok_or("a branch's state")?,
        parent: (raw.has_parent != 0).then_some(TimelineId(raw.parent)),
        start_lsn: Lsn(raw.start_lsn.get()),
        readable_lsn: Lsn(raw.readable_lsn.get()),
        prev_record_lsn: Lsn(raw.prev_record_lsn.get()),
        system_id: raw.system_id.get(),
        postgres_version: raw.postgres_version.get(),
        created_at_us: raw.created_at_us.get(),
        expires_at_us: (raw.expires != 0).then_some(raw.expires_at_us.get()),
        safekeepers: members.iter().map(|id| NodeId(u64::from_le_bytes(*id))).collect(),
    })
}
