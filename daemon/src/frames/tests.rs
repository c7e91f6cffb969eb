//! Frames between two tasks of one core, over a real socket.

use super::*;
use crate::cli::Address;
use ironpage_io::net::Listener;
use ironpage_io::{Config, run, spawn};
use ironpage_layout::wire::admin::Status;
use ironpage_layout::wire::hello::{Hello, Role};
use ironpage_layout::wire::{self, MAX_PAYLOAD};
use ironpage_layout::{NodeId, TenantId, TimelineId};
use std::time::Duration;

fn hello() -> Hello {
    Hello {
        role: Role::Admin,
        tenant: TenantId([1; 16]),
        timeline: TimelineId([2; 16]),
        system_id: 7,
        postgres_version: 0,
        token: vec![9],
    }
}

/// Listens, and serves one connection by answering each frame with its payload, from a task of its own each.
fn serve() -> (Address, ironpage_io::JoinHandle<FrameError>) {
    let mut listener = Listener::bind_tcp(std::net::SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let address = listener.name().parse().unwrap();
    let served = spawn(async move {
        let accepted = match accept(listener.accept().await.unwrap()).await {
            Ok(accepted) => accepted,
            Err(error) => return error,
        };
        assert_eq!(accepted.hello, hello());
        accepted.welcome(NodeId(4)).await.unwrap();
        let Accepted { mut reader, writer, .. } = accepted;
        loop {
            match reader.next().await {
                Ok(frame) => {
                    let (writer, header, payload) = (writer.clone(), frame.header, frame.payload.to_vec());
                    spawn(async move {
                        let _ = writer.send(header.kind, header.request_id, header.term, |out| out.extend(payload)).await;
                    });
                }
                Err(error) => {
                    if let Some(reply) = error.reply() {
                        let _ = writer.send_error(0, Term(0), &reply).await;
                    }
                    writer.shutdown();
                    return error;
                }
            }
        }
    });
    (address, served)
}

#[test]
fn frames_of_all_sizes_come_back_whole() {
    run(Config::default(), || async {
        let (address, served) = serve();
        let (mut reader, writer, node) = connect(&address, &hello()).await.unwrap();
        assert_eq!(node, NodeId(4));
        let sizes = [0, 1, 4096, 65_535, 1 << 20, MAX_PAYLOAD, 3, MAX_PAYLOAD, 17];
        let sender = writer.clone();
        spawn(async move {
            for (id, size) in sizes.into_iter().enumerate() {
                sender.send(Kind::Append, id as u64, Term(5), |out| out.resize(out.len() + size, id as u8)).await.unwrap();
            }
        });
        let mut seen = [false; 9];
        for _ in sizes {
            let frame = reader.expect(&[Kind::Append], "an echo").await.unwrap();
            let id = frame.header.request_id as usize;
            assert!(frame.payload.len() == sizes[id] && frame.payload.iter().all(|byte| usize::from(*byte) == id));
            assert!(!std::mem::replace(&mut seen[id], true));
        }
        drop((reader, writer));
        let error = served.await.unwrap();
        assert!(error.is_close(), "{error}");
    })
    .unwrap();
}

#[test]
fn garbage_is_answered_with_an_error_and_the_end() {
    let damaged = |change: fn(&mut Vec<u8>)| {
        let mut bytes = Vec::new();
        wire::encode_frame(&mut bytes, Kind::Hello, 0, Term(0), |out| hello().encode(out));
        change(&mut bytes);
        bytes
    };
    let cases = [
        damaged(|bytes| bytes.splice(..4, *b"GET ").for_each(drop)),
        damaged(|bytes| bytes[8..12].copy_from_slice(&u32::MAX.to_le_bytes())),
        damaged(|bytes| *bytes.last_mut().unwrap() ^= 1),
        damaged(|bytes| {
            bytes.clear();
            wire::encode_frame(bytes, Kind::Status, 0, Term(0), |out| {
                Status { reserved: Default::default() }.encode(out);
            });
        }),
    ];
    for bytes in cases {
        run(Config::default(), || async {
            let (address, served) = serve();
            let stream = Stream::connect_tcp(address.socket, Duration::from_secs(5)).await.unwrap();
            let (read, mut write) = stream.split();
            write.write_all(bytes).await.0.unwrap();
            let mut reader = FrameReader::new(read, "server".into());
            let error = reader.expect(&[], "nothing").await.unwrap_err();
            assert!(matches!(&error, FrameError::Remote { error, .. } if error.code == ErrorCode::Protocol), "{error}");
            let end = reader.next().await.unwrap_err();
            assert!(end.is_close(), "{end}");
            assert!(served.await.unwrap().reply().is_some());
        })
        .unwrap();
    }
}

#[test]
fn shutdown_ends_a_write_nobody_reads() {
    run(Config::default(), || async {
        let mut listener = Listener::bind_tcp(std::net::SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let address: Address = listener.name().parse().unwrap();
        let _silent = Stream::connect_tcp(address.socket, Duration::from_secs(5)).await.unwrap();
        let (_reader, writer) = split(listener.accept().await.unwrap());
        let sender = writer.clone();
        let sending = spawn(async move {
            loop {
                if let Err(error) = sender.send(Kind::Pages, 0, Term(0), |out| out.resize(out.len() + MAX_PAYLOAD, 0)).await {
                    return error;
                }
            }
        });
        while !writer.is_writing() {
            ironpage_io::yield_now().await;
        }
        writer.shutdown();
        assert!(matches!(sending.await.unwrap(), FrameError::Closed { .. }));
    })
    .unwrap();
}
