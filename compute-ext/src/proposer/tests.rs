use super::*;
use ironpage_layout::wire::split_frame;

const IDENTITY: Identity =
    Identity { tenant: TenantId([1; 16]), timeline: TimelineId([2; 16]), system_id: 7, postgres_version: 150020 };

fn greeting(term: u64, flush: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_frame(&mut bytes, Kind::HelloReply, 0, Term(0), |out| HelloReply::new(NodeId(term + flush)).encode(out));
    let greeting = VoteReply {
        granted: false,
        start_lsn: Lsn(16),
        flush_lsn: Lsn(flush),
        record_end: Lsn(flush),
        commit_lsn: Lsn(16),
        system_id: 7,
        history: TermHistory::default(),
    };
    encode_frame(&mut bytes, Kind::Greeting, 0, Term(term), |out| greeting.encode(out));
    bytes
}

fn reply(term: u64, flush: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    let lsn = U64::new(flush);
    let reply = AppendReply { flush_lsn: lsn, record_end: lsn, commit_lsn: lsn };
    encode_frame(&mut bytes, Kind::AppendReply, 0, Term(term), |out| reply.encode(out));
    bytes
}

fn kinds(worker: &mut Worker, member: usize) -> Vec<Kind> {
    assert_eq!(worker.next_work(), None);
    let session = &mut worker.sessions[member];
    let (mut kinds, mut at) = (Vec::new(), 0);
    while let Some((header, _, taken)) = split_frame(&session.unsent()[at..]).unwrap() {
        kinds.push(header.kind);
        at += taken;
    }
    session.mark_sent(at);
    kinds
}

fn worker() -> Worker {
    Worker::new("1:0/10,3:0/40", IDENTITY, 1).unwrap()
}

#[test]
fn a_term_is_continued_from_hello_to_commit() {
    let mut it = worker();
    it.connected(0);
    assert_eq!(kinds(&mut it, 0), [Kind::Hello]);
    // Bytes come in pieces of any size.
    for byte in greeting(3, 64) {
        it.received(0, &[byte], 5);
    }
    assert_eq!(kinds(&mut it, 0), [Kind::Elected]);
    it.received(0, &reply(3, 64), 6);
    it.wal_available(Lsn(100), 7);
    assert_eq!(it.next_work(), Some(Work::ReadWal { member: 0, begin: Lsn(64), length: 36 }));
    assert!(it.supply(&[9; 36]) && !it.supply(&[9; 36]));
    // At once when WAL came, alone after a while, and now and then when nothing happens.
    assert_eq!(kinds(&mut it, 0), [Kind::Append]);
    it.received(0, &reply(3, 100), 8);
    assert_eq!(it.proposer.commit_lsn(), Lsn(100));
    it.tick(it.proposer.deadline_ms());
    assert_eq!(kinds(&mut it, 0), [Kind::Append]);
    assert!(it.fenced == Term(0) && it.broken.is_none());
}

#[test]
fn a_higher_term_fences_however_it_is_told() {
    let mut greeted = worker();
    greeted.connected(0);
    greeted.received(0, &greeting(4, 64), 1);
    let mut refused = worker();
    refused.connected(0);
    let mut error = Vec::new();
    let why = RemoteError { code: ErrorCode::Fenced, message: "term 4".into() };
    encode_frame(&mut error, Kind::Error, 0, Term(4), |out| why.encode(out));
    refused.received(0, &error, 1);
    for it in [&mut greeted, &mut refused] {
        while it.next_work().is_some() {}
        assert_eq!(it.fenced, Term(4));
    }
}

#[test]
fn damage_ends_the_connection_and_foreign_wal_everything() {
    let mut it = worker();
    it.connected(0);
    it.received(0, b"HTTP/1.1 400 Bad Request, and so on, and so on", 1);
    assert_eq!(it.next_work(), Some(Work::Disconnect { member: 0 }));
    assert!(it.broken.is_none() && it.messages.len() == 1);
    it.disconnected(0);
    it.connected(0);
    it.received(0, &greeting(3, 64), 2);
    it.received(0, &reply(3, 72), 2);
    assert!(it.broken.is_some());
}

#[test]
fn a_ticket_that_makes_no_sense_is_refused() {
    for bad in ["", "3", "3:0", "x:0/1", "3:0/10,2:0/20", "1:0/10,"] {
        assert!(Worker::new(bad, IDENTITY, 3).is_err(), "{bad}");
    }
}
