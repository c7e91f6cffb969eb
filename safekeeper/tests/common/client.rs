//! Frames over a blocking socket.

use super::PATIENCE;
use super::wal::{SYSTEM_ID, TENANT, TIMELINE};
use ironpage_layout::wire::admin::{Status, StatusReply, TimelineCreate, TimelineDelete, TimelinePrefix};
use ironpage_layout::wire::append::{Append, AppendReply, Elected, TermHistory, VoteReply, VoteRequest};
use ironpage_layout::wire::hello::{Hello, Role};
use ironpage_layout::wire::walstream::{WalData, WalStart};
use ironpage_layout::wire::{self, Header, Kind, MAX_WAL_CHUNK, RemoteError};
use ironpage_layout::{Lsn, Term, TimelineId};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

pub struct Frame {
    pub header: Header,
    pub payload: Vec<u8>,
}

pub struct Client {
    pub stream: TcpStream,
    buffer: Vec<u8>,
}

pub fn hello(role: Role) -> Hello {
    Hello { role, tenant: TENANT, timeline: TIMELINE, system_id: SYSTEM_ID, postgres_version: 0, token: Vec::new() }
}

impl Client {
    pub fn open(address: SocketAddr) -> Client {
        let stream = TcpStream::connect_timeout(&address, PATIENCE).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Client { stream, buffer: Vec::new() }
    }

    /// Connects and says hello; the error is the daemon's.
    pub fn connect(address: SocketAddr, hello: &Hello) -> Result<Client, RemoteError> {
        let mut client = Client::open(address);
        client.send(Kind::Hello, Term(0), |out| hello.encode(out));
        let reply = client.receive()?;
        assert_eq!(reply.header.kind, Kind::HelloReply);
        Ok(client)
    }

    pub fn admin(address: SocketAddr) -> Client {
        Client::connect(address, &hello(Role::Admin)).unwrap()
    }

    /// A proposer, and what it was greeted with.
    pub fn proposer(address: SocketAddr) -> (Client, Term, VoteReply) {
        let mut client = Client::connect(address, &hello(Role::Proposer)).unwrap();
        let greeting = client.receive().unwrap();
        assert_eq!(greeting.header.kind, Kind::Greeting);
        (client, greeting.header.term, VoteReply::decode(&greeting.payload).unwrap())
    }

    pub fn reader(address: SocketAddr) -> Client {
        Client::connect(address, &hello(Role::WalReader)).unwrap()
    }

    pub fn send(&mut self, kind: Kind, term: Term, payload: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = Vec::new();
        wire::encode_frame(&mut bytes, kind, 1, term, payload);
        self.stream.write_all(&bytes).unwrap();
    }

    /// The next frame; an `Error` frame is an error.
    pub fn receive(&mut self) -> Result<Frame, RemoteError> {
        match self.try_receive() {
            Ok(Some(frame)) if frame.header.kind == Kind::Error => Err(RemoteError::decode(&frame.payload).unwrap()),
            Ok(Some(frame)) => Ok(frame),
            other => panic!("no frame: {:?}", other.map(|_| "closed")),
        }
    }

    /// The next frame, `None` if the connection was closed; a timeout or a reset is an error.
    pub fn try_receive(&mut self) -> std::io::Result<Option<Frame>> {
        loop {
            if let Some((header, payload, taken)) = wire::split_frame(&self.buffer).unwrap() {
                let frame = Frame { header, payload: payload.to_vec() };
                self.buffer.drain(..taken);
                return Ok(Some(frame));
            }
            let mut chunk = [0; 65_536];
            match self.stream.read(&mut chunk)? {
                0 => return Ok(None),
                count => self.buffer.extend_from_slice(&chunk[..count]),
            }
        }
    }

    /// Creates a timeline; its prefix is the end of `wal::prefix()`.
    pub fn create(&mut self, create: &TimelineCreate) -> Result<(), RemoteError> {
        let prefix = super::wal::prefix();
        self.create_with(create, &prefix[prefix.len() - create.prefix_length as usize..])
    }

    pub fn create_with(&mut self, create: &TimelineCreate, prefix: &[u8]) -> Result<(), RemoteError> {
        self.send(Kind::TimelineCreate, Term(0), |out| create.encode(out));
        let mut begin = create.start_lsn.0.wrapping_sub(prefix.len() as u64);
        for chunk in prefix.chunks(MAX_WAL_CHUNK) {
            self.send(Kind::TimelinePrefix, Term(0), |out| {
                TimelinePrefix { begin_lsn: begin.into() }.encode(out);
                out.extend_from_slice(chunk);
            });
            begin = begin.wrapping_add(chunk.len() as u64);
        }
        self.receive().map(|frame| assert_eq!(frame.header.kind, Kind::TimelineCreated))
    }

    pub fn send_delete(&mut self, timeline: TimelineId) {
        let delete = TimelineDelete { tenant: TENANT.0, timeline: timeline.0 };
        self.send(Kind::TimelineDelete, Term(0), |out| delete.encode(out));
    }

    pub fn delete(&mut self, timeline: TimelineId) -> Result<(), RemoteError> {
        self.send_delete(timeline);
        self.receive().map(|frame| assert_eq!(frame.header.kind, Kind::TimelineDeleted))
    }

    pub fn status(&mut self) -> StatusReply {
        self.send(Kind::Status, Term(0), |out| Status { reserved: Default::default() }.encode(out));
        StatusReply::decode(&self.receive().unwrap().payload).unwrap()
    }

    pub fn vote(&mut self, term: u64) -> Result<(Term, VoteReply), RemoteError> {
        self.send(Kind::VoteRequest, Term(term), |out| VoteRequest { reserved: Default::default() }.encode(out));
        let frame = self.receive_kind(Kind::VoteReply)?;
        Ok((frame.header.term, VoteReply::decode(&frame.payload).unwrap()))
    }

    pub fn elected(&mut self, term: u64, history: &[(u64, Lsn)]) -> Result<(Term, AppendReply), RemoteError> {
        let history = TermHistory(history.iter().map(|(term, start)| (Term(*term), *start)).collect());
        self.send(Kind::Elected, Term(term), |out| Elected { history }.encode(out));
        self.append_reply()
    }

    pub fn append(&mut self, term: u64, begin: Lsn, commit: Lsn, wal: &[u8]) {
        let append = Append { begin_lsn: begin.0.into(), commit_lsn: commit.0.into() };
        self.send(Kind::Append, Term(term), |out| {
            append.encode(out);
            out.extend_from_slice(wal);
        });
    }

    pub fn append_reply(&mut self) -> Result<(Term, AppendReply), RemoteError> {
        let frame = self.receive_kind(Kind::AppendReply)?;
        Ok((frame.header.term, AppendReply::decode(&frame.payload).unwrap()))
    }

    fn receive_kind(&mut self, kind: Kind) -> Result<Frame, RemoteError> {
        loop {
            let frame = self.receive()?;
            if frame.header.kind == kind {
                return Ok(frame);
            }
        }
    }

    /// Waits until all before `end` is flushed.
    pub fn wait_flushed(&mut self, end: Lsn) -> Result<AppendReply, RemoteError> {
        loop {
            let (_, reply) = self.append_reply()?;
            if reply.flush_lsn.get() >= end.0 {
                return Ok(reply);
            }
        }
    }

    pub fn start_wal(&mut self, term: u64, from: Lsn, until: Lsn, uncommitted: u32) {
        let start = WalStart {
            from: from.0.into(),
            until: until.0.into(),
            uncommitted: uncommitted.into(),
            reserved: Default::default(),
        };
        self.send(Kind::WalStart, Term(term), |out| start.encode(out));
    }

    /// All WAL from `from` to `until`, committed, or uncommitted for the holder of `term`.
    pub fn read_wal(&mut self, term: u64, from: Lsn, until: Lsn, uncommitted: u32) -> Result<Vec<u8>, RemoteError> {
        self.start_wal(term, from, until, uncommitted);
        let mut wal = Vec::new();
        loop {
            let frame = self.receive()?;
            if frame.header.kind == Kind::WalData {
                let (data, bytes) = WalData::decode_prefix(&frame.payload).unwrap();
                assert_eq!(data.begin_lsn.get(), from.0 + wal.len() as u64);
                wal.extend_from_slice(bytes);
            } else if from + wal.len() as u64 >= until {
                assert_eq!(frame.header.kind, Kind::WalKeepalive);
                return Ok(wal);
            }
        }
    }
}
