use super::*;
use zerocopy::little_endian::U64;

fn vote(term: u64, flush: u64, record_end: u64, commit: u64) -> VoteReply {
    let history = if term == 0 { vec![] } else { vec![(Term(term), Lsn(16))] };
    VoteReply {
        granted: true,
        start_lsn: Lsn(16),
        flush_lsn: Lsn(flush),
        record_end: Lsn(record_end),
        commit_lsn: Lsn(commit),
        system_id: 7,
        history: TermHistory(history),
    }
}

fn reply(flush: u64, record_end: u64) -> AppendReply {
    AppendReply { flush_lsn: U64::new(flush), record_end: U64::new(record_end), commit_lsn: U64::ZERO }
}

fn candidate() -> (Proposer, Vec<Action>) {
    (Proposer::launch(Config::new(3, 7)), Vec::new())
}

/// A leader of term 3 from LSN 64 on, told by `members` safekeepers that they hold all of it.
fn leader(members: usize) -> Proposer {
    let history = TermHistory(vec![(Term(1), Lsn(16)), (Term(3), Lsn(64))]);
    let mut it = Proposer::resume(Config { chunk_bytes: 10, window_bytes: 25, ..Config::new(3, 7) }, history).unwrap();
    let mut out = Vec::new();
    for member in 0..members {
        it.greeting(member, NodeId(member as u64 + 1), Term(3), vote(1, 64, 64, 16), 1, &mut out).unwrap();
        it.append_reply(member, Term(3), &reply(64, 64), 1, &mut out).unwrap();
    }
    it
}

fn appends(out: &[Action], to: usize) -> Vec<(u64, usize)> {
    let append = |action: &Action| match action {
        Action::Send { member, message: Message::Append { begin, length, .. }, .. } if *member == to => Some((begin.0, *length)),
        _ => None,
    };
    out.iter().filter_map(append).collect()
}

#[test]
fn the_latest_term_beats_the_longest_log_and_torn_records_are_left_behind() {
    let (mut it, mut out) = candidate();
    it.greeting(0, NodeId(1), Term(4), vote(2, 500, 500, 16), 1, &mut out).unwrap();
    assert_eq!(out, []);
    it.greeting(2, NodeId(3), Term(5), vote(4, 200, 190, 16), 1, &mut out).unwrap();
    assert_eq!((it.term(), out.len()), (Term(6), 2));
    it.vote_reply(0, Term(6), vote(2, 500, 500, 16), 2, &mut out).unwrap();
    it.vote_reply(2, Term(6), vote(4, 200, 190, 16), 2, &mut out).unwrap();
    assert!(out.contains(&Action::Won { term: Term(6), start: Lsn(190) }));
    assert_eq!(it.leading(), Some((&TermHistory(vec![(Term(4), Lsn(16)), (Term(6), Lsn(190))]), Lsn(190))));
    // The launcher is done once a quorum knows that its start is committed.
    let told = |commit| AppendReply { commit_lsn: U64::new(commit), ..reply(190, 190) };
    it.append_reply(0, Term(6), &told(16), 3, &mut out).unwrap();
    it.append_reply(2, Term(6), &told(16), 3, &mut out).unwrap();
    assert_eq!((it.commit_lsn(), it.commit_lsn_known()), (Lsn(190), Lsn(16)));
    it.append_reply(0, Term(6), &told(190), 4, &mut out).unwrap();
    it.append_reply(2, Term(6), &told(190), 4, &mut out).unwrap();
    assert_eq!(it.commit_lsn_known(), Lsn(190));
    assert!(it.all_connected_know(Lsn(190)));
    it.greeting(1, NodeId(2), Term(4), vote(2, 500, 500, 16), 5, &mut out).unwrap();
    assert!(!it.all_connected_know(Lsn(190)));
}

#[test]
fn an_election_that_would_lose_committed_wal_is_an_error() {
    let (mut it, mut out) = candidate();
    for member in 0..2 {
        it.greeting(member, NodeId(member as u64 + 1), Term(1), vote(1, 64, 64, 16), 1, &mut out).unwrap();
    }
    it.vote_reply(0, Term(2), vote(1, 64, 64, 16), 2, &mut out).unwrap();
    let error = it.vote_reply(1, Term(2), vote(0, 50, 50, 80), 2, &mut out).unwrap_err();
    assert!(matches!(error, Error::CommittedPastElection { commit_lsn: Lsn(80), start: Lsn(64), .. }));
}

#[test]
fn a_refused_vote_loses_and_a_higher_term_fences() {
    let (mut it, mut out) = candidate();
    it.greeting(0, NodeId(1), Term(1), vote(1, 64, 64, 16), 1, &mut out).unwrap();
    it.greeting(1, NodeId(2), Term(1), vote(1, 64, 64, 16), 1, &mut out).unwrap();
    it.vote_reply(0, Term(2), VoteReply { granted: false, ..vote(1, 64, 64, 16) }, 2, &mut out).unwrap();
    assert_eq!(out.last(), Some(&Action::Lost { seen: Term(2) }));

    let (mut it, mut out) = (leader(3), Vec::new());
    it.append_reply(1, Term(4), &reply(64, 64), 2, &mut out).unwrap();
    it.append_reply(0, Term(3), &reply(64, 64), 2, &mut out).unwrap();
    assert_eq!(out, [Action::Fenced { seen: Term(4) }]);
    assert!(it.leading().is_none());
}

#[test]
fn whole_records_in_a_quorum_are_committed_and_stay_so() {
    let (mut it, mut out) = (leader(2), Vec::new());
    assert_eq!((it.commit_lsn(), it.everywhere()), (Lsn(64), Lsn(64)));
    it.wal_available(Lsn(100), 2, &mut out);
    it.append_reply(0, Term(3), &reply(90, 88), 2, &mut out).unwrap();
    assert_eq!(it.commit_lsn(), Lsn(64));
    it.append_reply(1, Term(3), &reply(84, 80), 2, &mut out).unwrap();
    assert_eq!(it.commit_lsn(), Lsn(80));
    it.disconnected(0);
    it.greeting(0, NodeId(1), Term(3), vote(1, 88, 88, 16), 3, &mut out).unwrap();
    it.append_reply(0, Term(3), &reply(88, 88), 3, &mut out).unwrap();
    it.append_reply(1, Term(3), &reply(100, 100), 3, &mut out).unwrap();
    assert_eq!((it.commit_lsn(), it.everywhere()), (Lsn(88), Lsn(64)));
    assert!(out.iter().filter(|action| matches!(action, Action::Committed(_))).count() == 2);
}

#[test]
fn wal_goes_out_in_chunks_within_the_window_and_again_on_a_new_connection() {
    let (mut it, mut out) = (leader(1), Vec::new());
    it.wal_available(Lsn(200), 2, &mut out);
    assert_eq!(appends(&out, 0), [(64, 10), (74, 10), (84, 10)]);
    out.clear();
    it.append_reply(0, Term(3), &reply(74, 70), 3, &mut out).unwrap();
    assert_eq!(appends(&out, 0), [(94, 10)]);
    out.clear();
    it.disconnected(0);
    it.wal_available(Lsn(210), 4, &mut out);
    it.greeting(0, NodeId(1), Term(3), vote(1, 70, 70, 16), 4, &mut out).unwrap();
    assert!(matches!(&out[..], [Action::Send { message: Message::Elected(_), .. }]));
    it.append_reply(0, Term(3), &reply(70, 70), 4, &mut out).unwrap();
    assert_eq!(appends(&out, 0), [(70, 10), (80, 10), (90, 10)]);
}

#[test]
fn a_member_without_the_terms_start_hears_heartbeats_until_it_recovered() {
    let (mut it, mut out) = (leader(0), Vec::new());
    it.wal_available(Lsn(80), 1, &mut out);
    it.greeting(0, NodeId(1), Term(1), vote(1, 40, 40, 16), 1, &mut out).unwrap();
    it.append_reply(0, Term(3), &reply(40, 40), 2, &mut out).unwrap();
    out.clear();
    it.tick(it.deadline_ms(), &mut out);
    assert_eq!(appends(&out, 0), [(40, 0)]);
    it.append_reply(0, Term(3), &reply(64, 64), 400, &mut out).unwrap();
    assert_eq!(appends(&out, 0)[1..], [(64, 10), (74, 6)]);
}

#[test]
fn who_does_not_answer_is_connected_to_anew_and_who_answers_twice_is_refused() {
    let (mut it, mut out) = (leader(1), Vec::new());
    it.wal_available(Lsn(70), 10, &mut out);
    it.tick(10 + it.config.reply_timeout_ms + 1, &mut out);
    assert!(out.iter().any(|action| matches!(action, Action::Disconnect { member: 0, .. })));
    let twin = it.greeting(1, NodeId(1), Term(3), vote(1, 64, 64, 16), 1, &mut out);
    assert_eq!(twin, Err(Error::TwinMember { member: NodeId(1) }));
    let stranger = VoteReply { system_id: 8, ..vote(1, 64, 64, 16) };
    let stranger = it.greeting(1, NodeId(2), Term(3), stranger, 1, &mut out);
    assert!(matches!(stranger, Err(Error::OtherSystem { .. })));
    let ahead = leader(2).append_reply(0, Term(3), &reply(72, 72), 2, &mut out);
    assert!(matches!(ahead, Err(Error::AheadOfLeader { .. })));
}
