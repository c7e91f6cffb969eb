//! A blocking connection to a daemon, in frames. Every wait has an end.

use crate::error::{Error, Result};
use ironpage_layout::wire::hello::{Hello, HelloReply, Role};
use ironpage_layout::wire::{HEADER_SIZE, Header, Kind, RemoteError, WireError, admin, encode_frame};
use ironpage_layout::{NodeId, TenantId, Term, TimelineId};
use std::io::{self, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;
use zerocopy::little_endian::U64;

/// Bytes read ahead: base backups are many small frames.
const READ_AHEAD: usize = 256 << 10;

/// The daemon at the other end, as errors name it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Peer {
    pub name: String,
    pub address: SocketAddr,
}

impl Peer {
    fn unreachable(&self, source: io::Error) -> Error {
        Error::Unreachable { peer: self.name.clone(), address: self.address, source }
    }

    fn broken(&self, source: io::Error) -> Error {
        Error::Broken { peer: self.name.clone(), address: self.address, source }
    }

    pub fn wire(&self, source: WireError) -> Error {
        Error::Wire { peer: self.name.clone(), source }
    }
}

/// What a hello of ours says beside its role.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Identity {
    pub tenant: TenantId,
    pub timeline: TimelineId,
    /// 0 if not known.
    pub system_id: u64,
    /// PG_VERSION_NUM, 0 if not known.
    pub postgres_version: u32,
}

/// A connection whose hello was answered.
pub struct Client {
    pub peer: Peer,
    /// Who it says it is.
    pub node: NodeId,
    stream: BufReader<TcpStream>,
    out: Vec<u8>,
}

impl Client {
    /// Connects and says hello. `timeout` bounds the connect, and from then on each read and write.
    pub fn connect(peer: &Peer, role: Role, identity: Identity, timeout: Duration) -> Result<Client> {
        let stream = TcpStream::connect_timeout(&peer.address, timeout).map_err(|error| peer.unreachable(error))?;
        let set = stream.set_nodelay(true).and_then(|()| stream.set_write_timeout(Some(timeout)));
        set.and_then(|()| stream.set_read_timeout(Some(timeout))).map_err(|error| peer.broken(error))?;
        let stream = BufReader::with_capacity(READ_AHEAD, stream);
        let mut client = Client { peer: peer.clone(), node: NodeId(0), stream, out: Vec::new() };
        let hello = Hello {
            role,
            tenant: identity.tenant,
            timeline: identity.timeline,
            system_id: identity.system_id,
            postgres_version: identity.postgres_version,
            token: Vec::new(),
        };
        client.send(Kind::Hello, 0, Term(0), |out| hello.encode(out))?;
        let (_, payload) = client.expect(Kind::HelloReply, "HelloReply")?;
        let reply = HelloReply::decode(&payload).map_err(|error| client.peer.wire(error))?;
        client.node = NodeId(reply.node.get());
        Ok(client)
    }

    /// A second handle of the socket: one thread reads, another writes.
    pub fn writer(&self) -> Result<TcpStream> {
        self.stream.get_ref().try_clone().map_err(|error| self.peer.broken(error))
    }

    /// From now on each read and write may take so long.
    pub fn set_timeouts(&self, timeout: Duration) -> Result<()> {
        let set = self.stream.get_ref().set_write_timeout(Some(timeout));
        set.map_err(|error| self.peer.broken(error))?;
        self.set_read_timeout(timeout)
    }

    pub fn set_read_timeout(&self, timeout: Duration) -> Result<()> {
        self.stream.get_ref().set_read_timeout(Some(timeout)).map_err(|error| self.peer.broken(error))
    }

    pub fn send(&mut self, kind: Kind, request_id: u64, term: Term, payload: impl FnOnce(&mut Vec<u8>)) -> Result<()> {
        self.out.clear();
        encode_frame(&mut self.out, kind, request_id, term, payload);
        self.stream.get_mut().write_all(&self.out).map_err(|error| self.peer.broken(error))
    }

    /// The next frame, whole and checked. An `Error` frame becomes an error.
    pub fn receive(&mut self) -> Result<(Header, Vec<u8>)> {
        let mut head = [0; HEADER_SIZE];
        self.stream.read_exact(&mut head).map_err(|error| self.peer.broken(readable(error)))?;
        let header = Header::decode(&head).map_err(|error| self.peer.wire(error))?;
        let mut payload = vec![0; header.length];
        self.stream.read_exact(&mut payload).map_err(|error| self.peer.broken(readable(error)))?;
        header.check(&payload).map_err(|error| self.peer.wire(error))?;
        if header.kind == Kind::Error {
            let source = RemoteError::decode(&payload).map_err(|error| self.peer.wire(error))?;
            return Err(Error::Remote { peer: self.peer.name.clone(), source });
        }
        Ok((header, payload))
    }

    /// The next frame, which must be of `kind`.
    pub fn expect(&mut self, kind: Kind, wanted: &'static str) -> Result<(Header, Vec<u8>)> {
        let (header, payload) = self.receive()?;
        if header.kind != kind {
            return Err(self.unexpected(header.kind, wanted));
        }
        Ok((header, payload))
    }

    pub fn unexpected(&self, kind: Kind, wanted: &'static str) -> Error {
        Error::UnexpectedFrame { peer: self.peer.name.clone(), kind: format!("{kind:?}"), wanted }
    }
}

/// A timeout and an end of stream in words.
fn readable(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => io::Error::new(io::ErrorKind::TimedOut, "no answer in time"),
        io::ErrorKind::UnexpectedEof => io::Error::new(io::ErrorKind::UnexpectedEof, "it closed the connection"),
        _ => error,
    }
}

/// A daemon's state.
pub fn status(peer: &Peer, timeout: Duration) -> Result<admin::StatusReply> {
    let mut client = Client::connect(peer, Role::Admin, Identity::default(), timeout)?;
    client.send(Kind::Status, 1, Term(0), |out| admin::Status { reserved: U64::ZERO }.encode(out))?;
    let (_, payload) = client.expect(Kind::StatusReply, "StatusReply")?;
    admin::StatusReply::decode(&payload).map_err(|error| peer.wire(error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    /// A daemon that answers one connection's first bytes with `answer`.
    fn daemon(answer: Vec<u8>) -> Peer {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.read_exact(&mut [0; HEADER_SIZE + 64]).unwrap();
            stream.write_all(&answer).unwrap();
        });
        Peer { name: "safekeeper-1".into(), address }
    }

    #[test]
    fn what_is_no_answer_is_an_error_that_names_the_daemon() {
        let mut refused = Vec::new();
        let error = RemoteError { code: ironpage_layout::wire::ErrorCode::Refused, message: "another cluster".into() };
        encode_frame(&mut refused, Kind::Error, 0, Term(0), |out| error.encode(out));
        let mut wrong_kind = Vec::new();
        encode_frame(&mut wrong_kind, Kind::Status, 0, Term(0), |out| out.extend_from_slice(&[0; 8]));
        let mut flipped = wrong_kind.clone();
        flipped[HEADER_SIZE] ^= 1;
        let cases = [
            (refused, "safekeeper-1 says: another cluster"),
            (wrong_kind, "safekeeper-1 answered with Status where HelloReply was due"),
            (flipped, "safekeeper-1 sent what the protocol does not allow: CRC"),
            (b"HTTP/1.1 400 Bad Request\r\n\r\nand more".to_vec(), "not an Ironpage frame"),
            (Vec::new(), "it closed the connection"),
        ];
        for (answer, wanted) in cases {
            let error = status(&daemon(answer), Duration::from_secs(5)).unwrap_err().to_string();
            assert!(error.contains(wanted), "{error}");
        }
    }
}
