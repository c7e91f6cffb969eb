//! The other side of the pageserver's port.

use ironpage_daemon::cli::Address;
use ironpage_daemon::frames::{FrameError, FrameReader, FrameWriter, connect};
use ironpage_layout::wire::admin::{Status, StatusReply};
use ironpage_layout::wire::basebackup::{BaseBackup, Item};
use ironpage_layout::wire::hello::{Hello, Role};
use ironpage_layout::wire::pages::{GetPages, IngestStatus, IngestStatusReply, Pages};
use ironpage_layout::wire::{ErrorCode, Kind, RemoteError};
use ironpage_layout::{Lsn, RelTag, TenantId, Term, TimelineId};

pub const TENANT: TenantId = TenantId([1; 16]);
pub const TIMELINE: TimelineId = TimelineId([2; 16]);

pub fn hello(role: Role) -> Hello {
    Hello { role, tenant: TENANT, timeline: TIMELINE, system_id: 0, postgres_version: 150_020, token: Vec::new() }
}

pub struct Client {
    pub reader: FrameReader,
    pub writer: FrameWriter,
    next_id: u64,
}

/// A reply: what it is, its term and its payload.
pub struct Reply {
    pub kind: Kind,
    pub id: u64,
    pub term: Term,
    pub payload: Vec<u8>,
}

impl Reply {
    /// The error it is.
    pub fn error(&self) -> RemoteError {
        assert_eq!(self.kind, Kind::Error);
        RemoteError::decode(&self.payload).unwrap()
    }

    pub fn code(&self) -> ErrorCode {
        self.error().code
    }
}

impl Client {
    pub async fn connect(address: &Address, role: Role) -> Client {
        Client::try_connect(address, &hello(role)).await.unwrap()
    }

    pub async fn try_connect(address: &Address, hello: &Hello) -> Result<Client, FrameError> {
        let (reader, writer, node) = connect(address, hello).await?;
        assert_eq!(node.0, 7);
        Ok(Client { reader, writer, next_id: 0 })
    }

    pub async fn send(&mut self, kind: Kind, term: Term, payload: impl FnOnce(&mut Vec<u8>)) -> u64 {
        self.next_id += 1;
        self.writer.send(kind, self.next_id, term, payload).await.unwrap();
        self.next_id
    }

    pub async fn receive(&mut self) -> Reply {
        let frame = self.reader.next().await.unwrap();
        let (header, payload) = (frame.header, frame.payload.to_vec());
        Reply { kind: header.kind, id: header.request_id, term: header.term, payload }
    }

    pub async fn ask(&mut self, kind: Kind, term: Term, payload: impl FnOnce(&mut Vec<u8>)) -> Reply {
        let id = self.send(kind, term, payload).await;
        let reply = self.receive().await;
        assert_eq!(reply.id, id);
        reply
    }

    pub async fn get(&mut self, term: Term, request: GetPages) -> Reply {
        self.ask(Kind::GetPages, term, |out| request.encode(out)).await
    }

    /// last_record_lsn and the term the pageserver knows, once `lsn` is there or a while has passed.
    pub async fn wait_for(&mut self, term: Term, lsn: Lsn) -> (Lsn, Term) {
        let request = IngestStatus { wait_for: lsn.0.into(), wait_ms_max: 30_000.into(), reserved: 0.into() };
        let reply = self.ask(Kind::IngestStatus, term, |out| request.encode(out)).await;
        let status = IngestStatusReply::decode(&reply.payload).unwrap();
        (Lsn(status.last_record_lsn.get()), reply.term)
    }

    pub async fn status(&mut self) -> StatusReply {
        let reply = self.ask(Kind::Status, Term(0), |out| Status { reserved: 0.into() }.encode(out)).await;
        assert_eq!(reply.kind, Kind::StatusReply);
        StatusReply::decode(&reply.payload).unwrap()
    }

    /// The frames of a base backup, the last one its end or an error.
    pub async fn base_backup(&mut self, term: Term, lsn: Lsn, wait_ms_max: u32) -> (Vec<Vec<u8>>, Reply) {
        self.base_backup_with(0, term, lsn, wait_ms_max).await
    }

    pub async fn base_backup_with(&mut self, flags: u32, term: Term, lsn: Lsn, wait_ms_max: u32) -> (Vec<Vec<u8>>, Reply) {
        let request = BaseBackup { lsn: lsn.0.into(), wait_ms_max: wait_ms_max.into(), flags: flags.into() };
        self.send(Kind::BaseBackup, term, |out| request.encode(out)).await;
        let mut items = Vec::new();
        loop {
            let reply = self.receive().await;
            if reply.kind != Kind::BaseBackupItem {
                return (items, reply);
            }
            Item::decode(&reply.payload).unwrap();
            items.push(reply.payload);
        }
    }
}

/// A request for the newest state of blocks of a main fork.
pub fn newest(rel: RelTag, block: u32, count: u32, not_modified_since: Lsn) -> GetPages {
    GetPages {
        tablespace: rel.tablespace.into(),
        database: rel.database.into(),
        relation: rel.relation.into(),
        fork: 0,
        class: 0,
        reserved: [0; 2],
        block: block.into(),
        count: count.into(),
        request_lsn: 0.into(),
        not_modified_since: not_modified_since.0.into(),
        wait_ms_max: 10_000.into(),
        reserved2: 0.into(),
    }
}

/// The pages of a reply that has them, and the relation's size.
pub fn pages(reply: &Reply) -> (Vec<u8>, u32) {
    assert_eq!(reply.kind, Kind::Pages, "{}", if reply.kind == Kind::Error { reply.error().message } else { String::new() });
    let (head, _, pages) = Pages::decode_with(&reply.payload).unwrap();
    (pages.to_vec(), head.relation_blocks.get())
}
