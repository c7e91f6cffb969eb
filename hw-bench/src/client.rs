//! A minimal blocking client of Ironpage's frames.

use anyhow::{Context, bail};
use ironpage_layout::wire::admin::{Status, StatusReply};
use ironpage_layout::wire::hello::{Hello, Role};
use ironpage_layout::wire::{HEADER_SIZE, Header, Kind, RemoteError, encode_frame};
use ironpage_layout::{TenantId, Term, TimelineId};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

pub struct Client {
    stream: TcpStream,
    out: Vec<u8>,
    payload: Vec<u8>,
}

impl Client {
    /// Connects and says hello.
    pub fn connect(address: &str, role: Role, tenant: TenantId, timeline: TimelineId) -> anyhow::Result<Client> {
        let stream = TcpStream::connect(address).with_context(|| format!("connecting to {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        let mut client = Client { stream, out: Vec::new(), payload: Vec::new() };
        let hello = Hello { role, tenant, timeline, system_id: 0, postgres_version: 0, token: Vec::new() };
        client.ask(Kind::Hello, |out| hello.encode(out), Kind::HelloReply)?;
        Ok(client)
    }

    /// Sends one frame and returns the payload of the answer, which must be of kind `expected`.
    pub fn ask(&mut self, kind: Kind, payload: impl FnOnce(&mut Vec<u8>), expected: Kind) -> anyhow::Result<&[u8]> {
        self.out.clear();
        encode_frame(&mut self.out, kind, 1, Term(0), payload);
        self.stream.write_all(&self.out)?;
        let mut head = [0; HEADER_SIZE];
        self.stream.read_exact(&mut head)?;
        let header = Header::decode(&head)?;
        self.payload.resize(header.length, 0);
        self.stream.read_exact(&mut self.payload)?;
        header.check(&self.payload)?;
        if header.kind == Kind::Error {
            bail!("{kind:?} was refused: {}", RemoteError::decode(&self.payload)?);
        }
        if header.kind != expected {
            bail!("{kind:?} was answered by {:?}", header.kind);
        }
        Ok(&self.payload)
    }
}

/// A daemon's status.
pub fn status(address: &str) -> anyhow::Result<StatusReply> {
    let mut client = Client::connect(address, Role::Admin, TenantId::default(), TimelineId::default())?;
    let payload = client.ask(Kind::Status, |out| Status { reserved: Default::default() }.encode(out), Kind::StatusReply)?;
    Ok(StatusReply::decode(payload)?)
}
