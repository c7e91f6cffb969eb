//! Bad input, bad disks, bad starts: a clear answer, no panic, nothing acknowledged lost.

// The tests are no daemon: std's calls are right here.
#![allow(clippy::disallowed_methods)]

mod common;

use common::client::{Client, hello};
use common::wal::{self, Random, START, TENANT, TIMELINE};
use common::{Daemon, TestDir, command, fails_to_start, free_port};
use ironpage_layout::wire::append::{AppendReply, Elected, TermHistory};
use ironpage_layout::wire::hello::{Hello, Role};
use ironpage_layout::wire::{ErrorCode, Kind, RemoteError, encode_frame};
use ironpage_layout::{Lsn, TenantId, Term, TimelineId};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::Command;

fn created(name: &str) -> (TestDir, Daemon) {
    let dir = TestDir::new(name);
    let daemon = Daemon::start(&dir.0);
    Client::admin(daemon.address).create(&wal::create()).unwrap();
    (dir, daemon)
}

/// What the daemon answers to `bytes` on a fresh connection, before it closes.
fn answer(daemon: &Daemon, bytes: &[u8]) -> Option<RemoteError> {
    let mut client = Client::open(daemon.address);
    client.stream.write_all(bytes).unwrap();
    let frame = client.try_receive().unwrap()?;
    assert_eq!(frame.header.kind, Kind::Error);
    // A reset is an end too: it had not read all we sent.
    assert!(!matches!(client.try_receive(), Ok(Some(_))), "still open after an error");
    Some(RemoteError::decode(&frame.payload).unwrap())
}

#[test]
fn garbage_on_the_socket_ends_one_connection_and_nothing_else() {
    let (_dir, mut daemon) = created("garbage");
    let mut good = Vec::new();
    encode_frame(&mut good, Kind::Hello, 0, Term(0), |out| hello(Role::Proposer).encode(out));
    let changed = |at: usize, value: &[u8]| {
        let mut bytes = good.clone();
        bytes[at..at + value.len()].copy_from_slice(value);
        bytes
    };
    let cases = [
        ("magic", b"GET / HTTP/1.1\r\nHost: here\r\n\r\n..........".to_vec()),
        ("kind", changed(4, &[0x77, 0x77])),
        ("reserved", changed(6, &[1])),
        ("length", changed(8, &u32::MAX.to_le_bytes())),
        ("CRC", changed(12, &[1, 2, 3, 4])),
        ("payload", changed(40, &[0xFF])),
    ];
    for (what, bytes) in cases {
        let error = answer(&daemon, &bytes).unwrap();
        assert_eq!(error.code, ErrorCode::Protocol, "{what}: {error}");
    }
    // Garbage instead of a frame, later on; and a close within a frame.
    let mut random = Random(4);
    for round in 0..200 {
        let role = [Role::Proposer, Role::WalReader, Role::Admin][round % 3];
        let mut client = Client::connect(daemon.address, &hello(role)).unwrap();
        let mut bytes = Vec::new();
        if round % 2 == 0 {
            bytes.extend((0..random.below(200) + 40).map(|_| random.below(256) as u8));
        } else {
            // A whole frame with a right CRC and a random payload.
            let kinds = [
                Kind::VoteRequest,
                Kind::Elected,
                Kind::Append,
                Kind::AppendReply,
                Kind::WalStart,
                Kind::TimelineCreate,
                Kind::Status,
                Kind::Hello,
                Kind::GetPages,
                Kind::Error,
            ];
            let kind = kinds[random.below(10) as usize];
            let length = [0, 8, 16, 24, 64, 100][random.below(6) as usize];
            let payload: Vec<u8> = (0..length).map(|_| random.below(256) as u8).collect();
            // Term 0: a vote for a wild term would bind the timeline.
            encode_frame(&mut bytes, kind, 3, Term(0), |out| out.extend(payload));
        }
        let _ = client.stream.write_all(&bytes);
        if round % 5 == 0 {
            continue;
        }
        let _ = client.stream.shutdown(std::net::Shutdown::Write);
        while let Ok(Some(_)) = client.try_receive() {}
    }
    assert!(daemon.is_running());
    assert_eq!(daemon.status().timelines[0].flush_lsn, START);
}

#[test]
fn who_is_not_meant_here_is_told_so() {
    let (_dir, daemon) = created("wrong");
    let refused = |change: fn(&mut Hello)| {
        let mut hello = hello(Role::Proposer);
        change(&mut hello);
        Client::connect(daemon.address, &hello).err().unwrap()
    };
    let error = refused(|hello| hello.tenant = TenantId([1; 16]));
    assert_eq!(error.code, ErrorCode::NotFound);
    let error = refused(|hello| hello.timeline = TimelineId([1; 16]));
    assert!(error.code == ErrorCode::NotFound && error.message.contains(&TimelineId([1; 16]).to_string()), "{error}");
    let error = refused(|hello| hello.system_id = 5);
    assert!(error.code == ErrorCode::Refused && error.message.contains("another Postgres cluster"), "{error}");
    assert_eq!(refused(|hello| hello.postgres_version = 170_002).code, ErrorCode::Unsupported);
    assert_eq!(refused(|hello| hello.role = Role::PageReader).code, ErrorCode::Refused);

    let mut admin = Client::admin(daemon.address);
    admin.create(&wal::create()).unwrap();
    let mut other = wal::create();
    other.system_id = 1;
    assert_eq!(admin.create(&other).unwrap_err().code, ErrorCode::Exists);
    let mut create = wal::create();
    create.timeline = TimelineId([3; 16]);
    create.postgres_version = 160_004;
    assert_eq!(admin.create(&create).unwrap_err().code, ErrorCode::Unsupported);
    for start in [Lsn(0), Lsn(0x0100_0018), Lsn(0x0100_0031), Lsn(u64::MAX), Lsn(1 << 63)] {
        let mut create = wal::create();
        create.timeline = TimelineId([3; 16]);
        create.start_lsn = start;
        assert_eq!(admin.create(&create).unwrap_err().code, ErrorCode::Protocol, "{start}");
    }
    let mut create = wal::create();
    create.timeline = TimelineId([3; 16]);
    create.prefix_length -= 1;
    assert_eq!(admin.create(&create).unwrap_err().code, ErrorCode::Protocol);
    assert_eq!(admin.status().timelines.len(), 1);

    let mut reader = Client::reader(daemon.address);
    let before = reader.read_wal(0, Lsn(0x00FF_FF00), START, 0).unwrap_err();
    assert!(before.code == ErrorCode::OutOfRange && before.message.contains("0/FFFF00"), "{before}");
}

#[test]
fn a_proposer_that_breaks_the_protocol_changes_nothing() {
    let (_dir, daemon) = created("protocol");
    let mut writer = wal::writer();
    let ends = wal::fill(&mut writer, &mut Random(9), 50_000);
    let end = *ends.last().unwrap();
    let elect = |term: u64| {
        let (mut proposer, _, _) = Client::proposer(daemon.address);
        assert!(proposer.vote(term).unwrap().1.granted);
        proposer.elected(term, &[(term, START)]).unwrap();
        proposer
    };
    // WAL before the history, with a gap, before the term's start.
    let (mut proposer, _, _) = Client::proposer(daemon.address);
    proposer.append(0, START, START, b"wal");
    assert_eq!(proposer.append_reply().unwrap_err().code, ErrorCode::Protocol);
    let mut proposer = elect(1);
    proposer.append(1, end, START, b"wal");
    assert!(proposer.append_reply().unwrap_err().message.contains("gap"));
    let mut proposer = elect(2);
    proposer.append(2, Lsn(START.0 - 8), START, &[0; 16]);
    assert_eq!(proposer.append_reply().unwrap_err().code, ErrorCode::Protocol);
    let mut proposer = elect(3);
    proposer.append(3, Lsn(u64::MAX - 3), START, &[0; 16]);
    assert_eq!(proposer.append_reply().unwrap_err().code, ErrorCode::Protocol);
    // A history that is none.
    for history in [vec![], vec![(4, Lsn(u64::MAX))], vec![(4, Lsn(START.0 + 1))], vec![(5, START)]] {
        let (mut proposer, _, _) = Client::proposer(daemon.address);
        let history = TermHistory(history.into_iter().map(|(term, start)| (Term(term), start)).collect());
        proposer.send(Kind::Elected, Term(4), |out| Elected { history }.encode(out));
        assert_eq!(proposer.append_reply().unwrap_err().code, ErrorCode::Protocol);
    }
    // WAL that does not decode, or zeros: refused whole, and what was before goes on.
    let mut proposer = elect(6);
    proposer.append(6, START, START, wal::slice(&writer, START, ends[3]));
    proposer.wait_flushed(ends[3]).unwrap();
    let mut bad = wal::slice(&writer, ends[3], end).to_vec();
    bad[17] = 0x7F;
    proposer.append(6, ends[3], START, &bad);
    let error = proposer.append_reply().unwrap_err();
    assert!(error.code == ErrorCode::Corrupt && error.message.contains("resource manager"), "{error}");
    let mut proposer = elect_on(&daemon, 7, &[(6, START), (7, ends[3])]);
    proposer.append(7, ends[3], START, &[0; 64]);
    assert_eq!(proposer.append_reply().unwrap_err().code, ErrorCode::Corrupt);
    let mut proposer = elect_on(&daemon, 8, &[(6, START), (7, ends[3]), (8, ends[3])]);
    proposer.append(8, ends[3], ends[3], wal::slice(&writer, ends[3], end));
    assert_eq!(proposer.wait_flushed(end).unwrap().record_end.get(), end.0);
}

fn elect_on(daemon: &Daemon, term: u64, history: &[(u64, Lsn)]) -> Client {
    let (mut proposer, _, _) = Client::proposer(daemon.address);
    assert!(proposer.vote(term).unwrap().1.granted);
    proposer.elected(term, history).unwrap();
    proposer
}

#[test]
fn a_start_that_cannot_succeed_says_what_to_do() {
    let dir = TestDir::new("starts");
    let running = Daemon::start(&dir.0.join("one"));
    let port = running.address.port();
    let (code, log) = fails_to_start(&mut command(&dir.0.join("two"), 2, port, &[]));
    assert!(code == Some(1) && log.contains(&format!("cannot listen on 127.0.0.1:{port}")) && log.contains("--listen"), "{log}");
    let (code, log) = fails_to_start(&mut command(&dir.0.join("one"), 1, 0, &[]));
    assert!(code == Some(1) && log.contains("another process uses it") && log.contains("--dir"), "{log}");

    std::fs::write(dir.0.join("file"), "").unwrap();
    let (code, log) = fails_to_start(&mut command(&dir.0.join("file"), 1, 0, &[]));
    assert!(code == Some(1) && log.contains("file") && log.lines().count() == 1, "{log}");
    for arguments in [&["--id", "0"][..], &["--listen", "nowhere"], &["--id", "1", "--listen", "127.0.0.1:0"]] {
        let (code, log) = fails_to_start(Command::new(env!("CARGO_BIN_EXE_safekeeper")).args(arguments));
        assert!(code == Some(1) && !log.contains("panicked"), "{log}");
    }
    // Only root can become somebody who may not.
    let closed = dir.0.join("closed");
    std::fs::create_dir(&closed).unwrap();
    std::fs::set_permissions(&closed, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    if running_as_root() {
        // The program too may lie where only root can go.
        let program = std::env::temp_dir().join(format!("ironpage-safekeeper-{}", std::process::id()));
        std::fs::copy(env!("CARGO_BIN_EXE_safekeeper"), &program).unwrap();
        let mut command = Command::new(&program);
        command.args(["--id", "1", "--listen", "127.0.0.1:0", "--dir"]).arg(&closed);
        let (code, log) = fails_to_start(command.current_dir("/").uid(65_534).gid(65_534));
        std::fs::remove_file(&program).unwrap();
        assert!(code == Some(1) && log.contains("closed") && log.contains("ermission denied"), "{log}");
    } else {
        std::fs::set_permissions(&closed, std::os::unix::fs::PermissionsExt::from_mode(0o500)).unwrap();
        let (code, log) = fails_to_start(&mut command(&closed, 1, 0, &[]));
        assert!(code == Some(1) && log.contains("closed") && log.contains("ermission denied"), "{log}");
    }
}

fn running_as_root() -> bool {
    std::fs::read_to_string("/proc/self/status").unwrap().lines().any(|line| line.starts_with("Uid:\t0\t"))
}

#[test]
fn a_restart_right_after_kill_9_gets_port_and_directory_back() {
    let dir = TestDir::new("again");
    let port = free_port();
    let mut daemon = Daemon::start_as(&dir.0, 1, port, &[]);
    for _ in 0..20 {
        // A connection that is in use, and a listener that waits.
        let client = Client::admin(daemon.address);
        daemon.kill();
        daemon = Daemon::start_as(&dir.0, 1, port, &[]);
        drop(client);
    }
}

#[test]
fn a_damaged_control_file_stops_one_timeline_and_is_named() {
    let (dir, daemon) = created("control");
    let mut second = wal::create();
    second.timeline = TimelineId([4; 16]);
    Client::admin(daemon.address).create(&second).unwrap();
    daemon.kill();
    let path = dir.0.join(TENANT.to_string()).join(TIMELINE.to_string()).join("control");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[75] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let mut daemon = Daemon::start(&dir.0);
    let line = daemon.wait_for_log("cannot be used");
    assert!(line.contains(path.to_str().unwrap()) && line.contains("CRC"), "{line}");
    let error = Client::connect(daemon.address, &hello(Role::Proposer)).err().unwrap();
    assert!(error.code == ErrorCode::Corrupt && error.message.contains("restore it"), "{error}");
    let mut other = hello(Role::WalReader);
    other.timeline = second.timeline;
    Client::connect(daemon.address, &other).unwrap();
    let status = daemon.status();
    let of = |id: TimelineId| status.timelines.iter().find(|timeline| timeline.timeline == id).unwrap().stopped.clone();
    assert!(of(TIMELINE).contains("CRC") && of(second.timeline).is_empty());
    // Too long to be one.
    std::fs::write(&path, vec![0; 2 << 20]).unwrap();
    assert!(Client::connect(daemon.address, &hello(Role::Proposer)).err().unwrap().message.contains("at most"));
}

/// On a file system of 56 MiB of its own, which vanishes with the process. Run a second time when the first
/// is gone, in the same place, with more space.
#[test]
fn a_full_disk_stops_acknowledging_and_loses_nothing() {
    let dir = TestDir::new("full");
    let safekeeper = command(&dir.0.join("data"), 1, 0, &[]);
    let script =
        "mount -t tmpfs -o size=56m none \"$0\" && head -c 4000000 /dev/zero > \"$0/ballast\" && mkdir \"$0/data\" || exit 9
        setpriv --pdeathsig KILL \"$@\" & echo \"pid $!\" >&2; wait $!
        mount -o remount,size=200m \"$0\"; exec \"$@\"";
    let mut shell = Command::new("unshare");
    shell.args(if running_as_root() { &["-m"][..] } else { &["-Urm"] }).args(["sh", "-c", script]).arg(&dir.0);
    shell.arg(safekeeper.get_program()).args(safekeeper.get_args());
    let mut daemon = Daemon::from_command(&mut shell);
    let pid = daemon.wait_for_log("pid ").rsplit(' ').next().unwrap().to_string();

    let mut admin = Client::admin(daemon.address);
    admin.create(&wal::create()).unwrap();
    let mut second = wal::create();
    second.timeline = TimelineId([4; 16]);
    admin.create(&second).unwrap();
    let mut proposer = elect_on(&daemon, 1, &[(1, START)]);
    let mut writer = wal::writer();
    let end = *wal::fill(&mut writer, &mut Random(8), 60 << 20).last().unwrap();
    let mut stream = proposer.stream.try_clone().unwrap();
    let all = wal::slice(&writer, START, end).to_vec();
    let sender = std::thread::spawn(move || {
        for (index, bytes) in all.chunks(100_000).enumerate() {
            let append = ironpage_layout::wire::append::Append {
                begin_lsn: (START.0 + index as u64 * 100_000).into(),
                commit_lsn: u64::MAX.into(),
            };
            let mut frame = Vec::new();
            encode_frame(&mut frame, Kind::Append, 1, Term(1), |out| {
                append.encode(out);
                out.extend_from_slice(bytes);
            });
            if stream.write_all(&frame).is_err() {
                return;
            }
        }
    });
    let mut acked = AppendReply { flush_lsn: START.0.into(), record_end: START.0.into(), commit_lsn: START.0.into() };
    let error = loop {
        match proposer.append_reply() {
            Ok((_, reply)) => acked = reply,
            Err(error) => break error,
        }
    };
    assert!(error.code == ErrorCode::Storage && error.message.contains("No space left"), "{error}");
    assert!(error.message.contains("free space"), "{error}");
    drop(proposer);
    sender.join().unwrap();
    let record_end = Lsn(acked.record_end.get());
    assert!(record_end > START && record_end < end);

    // It says so to whoever comes, and acknowledges nothing.
    let again = Client::connect(daemon.address, &hello(Role::Proposer)).err().unwrap();
    assert_eq!(again.code, ErrorCode::Storage);
    let status = daemon.status();
    let stopped = |id| status.timelines.iter().find(|timeline| timeline.timeline == id).unwrap().stopped.clone();
    assert!(stopped(TIMELINE).contains("No space left") && stopped(second.timeline).is_empty());
    // What is committed can still be read, and the other timeline goes on: its segment has its space.
    let commit = Lsn(acked.commit_lsn.get());
    assert!(Client::reader(daemon.address).read_wal(0, START, commit, 0).unwrap() == wal::slice(&writer, START, commit));
    let mut other = hello(Role::Proposer);
    other.timeline = second.timeline;
    let mut proposer = Client::connect(daemon.address, &other).unwrap();
    proposer.receive().unwrap();
    proposer.append(0, START, START, &[]);
    assert_eq!(proposer.append_reply().unwrap_err().code, ErrorCode::Protocol, "alive, and as strict as ever");

    // With space, and after a restart, it goes on where it was.
    assert!(Command::new("kill").arg(pid).status().unwrap().success());
    daemon.restarted();
    let (_, _, greeting) = Client::proposer(daemon.address);
    assert!(greeting.record_end >= record_end, "{record_end} was acknowledged, {} is there", greeting.record_end);
    let from = greeting.record_end;
    let mut proposer = elect_on(&daemon, 2, &[(1, START), (2, from)]);
    proposer.append(2, from, from, wal::slice(&writer, from, (from + 1_000_000).min(end)));
    proposer.wait_flushed((from + 1_000_000).min(end)).unwrap();
    assert!(Client::reader(daemon.address).read_wal(2, START, from, 1).unwrap() == wal::slice(&writer, START, from));
}
