//! Blocking connections to the daemons, in frames. Every wait has an end.

use crate::error::{Error, Result};
use ironpage_layout::wire::hello::{Hello, HelloReply, Role};
use ironpage_layout::wire::{HEADER_SIZE, Header, Kind, RemoteError, WireError, encode_frame};
use ironpage_layout::{NodeId, TenantId, Term, TimelineId};
use std::io::{self, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// A daemon as errors name it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Peer {
    pub name: String,
    pub address: SocketAddr,
}

impl Peer {
    fn broken(&self, source: io::Error) -> Error {
        let source = match source.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => io::Error::new(io::ErrorKind::TimedOut, "no answer in time"),
            io::ErrorKind::UnexpectedEof => io::Error::new(io::ErrorKind::UnexpectedEof, "it closed the connection"),
            _ => source,
        };
        Error::Broken { peer: self.name.clone(), source }
    }

    pub fn wire(&self, source: WireError) -> Error {
        Error::Wire { peer: self.name.clone(), source }
    }
}

/// What a hello says beside its role.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Identity {
    pub tenant: TenantId,
    pub timeline: TimelineId,
    pub system_id: u64,
    pub postgres_version: u32,
}

/// A connection whose hello was answered.
pub struct Client {
    pub peer: Peer,
    pub node: NodeId,
    stream: BufReader<TcpStream>,
    out: Vec<u8>,
}

impl Client {
    /// Connects and says hello. `timeout` bounds the connect, and each read and write from then on.
    pub fn connect(peer: &Peer, role: Role, identity: Identity, timeout: Duration) -> Result<Client> {
        let stream = TcpStream::connect_timeout(&peer.address, timeout).map_err(|source| Error::Unreachable {
            peer: peer.name.clone(),
            address: peer.address,
            source,
        })?;
        let set = stream.set_nodelay(true).and_then(|()| stream.set_write_timeout(Some(timeout)));
        set.and_then(|()| stream.set_read_timeout(Some(timeout))).map_err(|error| peer.broken(error))?;
        let mut client =
            Client { peer: peer.clone(), node: NodeId(0), stream: BufReader::with_capacity(64 << 10, stream), out: Vec::new() };
        let hello = Hello {
            role,
            tenant: identity.tenant,
            timeline: identity.timeline,
            system_id: identity.system_id,
            postgres_version: identity.postgres_version,
            token: Vec::new(),
        };
        client.send(Kind::Hello, |out| hello.encode(out))?;
        let payload = client.expect(Kind::HelloReply, "HelloReply")?;
        let reply = HelloReply::decode(&payload).map_err(|error| peer.wire(error))?;
        client.node = NodeId(reply.node.get());
        Ok(client)
    }

    /// A second handle of the socket: one thread reads, another writes.
    pub fn writer(&self) -> Result<TcpStream> {
        self.stream.get_ref().try_clone().map_err(|error| self.peer.broken(error))
    }

    pub fn set_read_timeout(&self, timeout: Duration) -> Result<()> {
        self.stream.get_ref().set_read_timeout(Some(timeout)).map_err(|error| self.peer.broken(error))
    }

    pub fn send(&mut self, kind: Kind, payload: impl FnOnce(&mut Vec<u8>)) -> Result<()> {
        self.out.clear();
        encode_frame(&mut self.out, kind, 1, Term(0), payload);
        match self.stream.get_mut().write_all(&self.out) {
            Ok(()) => Ok(()),
            // It may have said why before it closed.
            Err(error) => match self.receive() {
                Err(said @ Error::Remote { .. }) => Err(said),
                _ => Err(self.peer.broken(error)),
            },
        }
    }

    /// The next frame, whole and checked. An `Error` frame becomes an error.
    pub fn receive(&mut self) -> Result<(Header, Vec<u8>)> {
        let mut head = [0; HEADER_SIZE];
        self.stream.read_exact(&mut head).map_err(|error| self.peer.broken(error))?;
        let header = Header::decode(&head).map_err(|error| self.peer.wire(error))?;
        let mut payload = vec![0; header.length];
        self.stream.read_exact(&mut payload).map_err(|error| self.peer.broken(error))?;
        header.check(&payload).map_err(|error| self.peer.wire(error))?;
        if header.kind == Kind::Error {
            let source = RemoteError::decode(&payload).map_err(|error| self.peer.wire(error))?;
            return Err(Error::Remote { peer: self.peer.name.clone(), source });
        }
        Ok((header, payload))
    }

    /// The payload of the next frame, which must be of `kind`.
    pub fn expect(&mut self, kind: Kind, wanted: &'static str) -> Result<Vec<u8>> {
        let (header, payload) = self.receive()?;
        if header.kind != kind {
            return Err(Error::Unexpected { peer: self.peer.name.clone(), kind: format!("{:?}", header.kind), wanted });
        }
        Ok(payload)
    }
}
