//! Tests of files on the real ring.

use std::cell::Cell;
use std::future::Future;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Poll;

use super::{File, Options, create_dir_all, exists, read, read_dir, remove_dir_all, remove_file, rename, write_atomic};
use crate::buf::ALIGNMENT;
use crate::error::Errno;
use crate::{Config, IoBuf, IoError, run, spawn, yield_now};

const READ_WRITE: Options =
    Options { read: true, write: true, create: true, create_new: false, truncate: false, direct: false, dsync: false };
const DIRECT: Options = Options { direct: true, ..READ_WRITE };

struct Dir(PathBuf);

impl Dir {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("ironpage-io-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn pattern(len: usize, seed: usize) -> IoBuf {
    let mut buf = IoBuf::zeroed(len);
    buf.iter_mut().enumerate().for_each(|(index, byte)| *byte = (index * 7 + index / 4096 + seed) as u8);
    buf
}

/// Polls once, so that the operation is submitted, and drops the future.
async fn poll_once_and_drop<F: Future>(future: F) {
    let mut future = Box::pin(future);
    std::future::poll_fn(|cx| {
        assert!(future.as_mut().poll(cx).is_pending());
        Poll::Ready(())
    })
    .await;
}

#[test]
fn what_was_written_is_read_and_ends_short_at_eof() {
    let dir = Dir::new();
    run(Config::default(), || async {
        for (name, options) in [("buffered", READ_WRITE), ("direct", DIRECT)] {
            let file = File::open(dir.path(name), options).await.unwrap();
            let data = pattern(5 * ALIGNMENT, 1);
            let (result, data) = file.write_all_at(data, 0).await;
            result.unwrap();
            file.sync_data().await.unwrap();
            let (result, buf) = file.read_exact_at(IoBuf::zeroed(2 * ALIGNMENT), ALIGNMENT as u64).await;
            result.unwrap();
            assert_eq!(buf[..], data[ALIGNMENT..3 * ALIGNMENT]);
            // An end in the middle of a block, as direct reads see it too.
            file.set_len(5 * ALIGNMENT as u64 - 100).await.unwrap();
            assert_eq!(file.size().await.unwrap(), 5 * ALIGNMENT as u64 - 100);
            let (result, buf) = file.read_at(buf, 4 * ALIGNMENT as u64).await;
            assert_eq!((result.unwrap(), buf.len()), (ALIGNMENT - 100, 2 * ALIGNMENT));
            assert_eq!(buf[..ALIGNMENT - 100], data[4 * ALIGNMENT..5 * ALIGNMENT - 100]);
            let (result, buf) = file.read_exact_at(buf, 4 * ALIGNMENT as u64).await;
            assert!(matches!(result, Err(IoError::UnexpectedEof { wanted: 8192, got: 3996, .. })), "{result:?}");
            let (result, _) = file.read_at(buf, 1 << 30).await;
            assert_eq!(result.unwrap(), 0);
        }
    })
    .unwrap();
}

#[test]
fn durable_writes_and_zeros() {
    let dir = Dir::new();
    run(Config::default(), || async {
        for (name, options) in [("linked", DIRECT), ("dsync", Options { dsync: true, ..DIRECT })] {
            let file = File::open(dir.path(name), options).await.unwrap();
            file.fill_zeros(0, (3 << 20) + 8192).await.unwrap();
            assert_eq!(file.size().await.unwrap(), (3 << 20) + 8192);
            let (result, data) = file.write_durable_at(pattern(8192, 2), 1 << 20).await;
            result.unwrap();
            let whole = read(dir.path(name)).await.unwrap();
            assert_eq!(whole[1 << 20..(1 << 20) + 8192], data[..]);
            assert!(whole[..1 << 20].iter().chain(&whole[(1 << 20) + 8192..]).all(|byte| *byte == 0));
        }
    })
    .unwrap();
}

#[test]
fn many_operations_beyond_the_queue() {
    let dir = Dir::new();
    run(Config { sq_entries: 8, ..Config::default() }, || async {
        let file = File::open(dir.path("f"), DIRECT).await.unwrap();
        const BLOCKS: usize = 256;
        let (result, _) = file.write_all_at(pattern(BLOCKS * ALIGNMENT, 0), 0).await;
        result.unwrap();
        let whole = pattern(BLOCKS * ALIGNMENT, 0);
        let count = Rc::new(Cell::new(0));
        let tasks: Vec<_> = (0..3000)
            .map(|number| {
                let (file, count) = (file.clone(), count.clone());
                spawn(async move {
                    let block = number * 31 % BLOCKS;
                    let (result, buf) = file.read_exact_at(IoBuf::zeroed(ALIGNMENT), (block * ALIGNMENT) as u64).await;
                    result.unwrap();
                    count.set(count.get() + 1);
                    (block, buf)
                })
            })
            .collect();
        for task in tasks {
            let (block, buf) = task.await.unwrap();
            assert_eq!(buf[..], whole[block * ALIGNMENT..(block + 1) * ALIGNMENT]);
        }
        assert_eq!(count.get(), 3000);
    })
    .unwrap();
}

#[test]
fn a_failed_write_poisons_the_file() {
    run(Config::default(), || async {
        let full = || File::open("/dev/full", Options { write: true, ..Options::default() });
        for durable in [false, true] {
            let file = full().await.unwrap();
            let other = file.clone();
            let (result, buf) = match durable {
                false => file.write_all_at(pattern(4096, 0), 8192).await,
                true => file.write_durable_at(pattern(4096, 0), 8192).await,
            };
            let error = result.unwrap_err();
            assert_eq!(error.errno(), Some(Errno(libc::ENOSPC)));
            let text = error.to_string();
            assert!(text.contains("/dev/full at offset 8192, 4096 bytes"), "{text}");
            assert_eq!(buf.len(), 4096);
            assert!(other.is_poisoned());
            let (result, _) = other.write_all_at(buf, 0).await;
            let again = result.unwrap_err();
            assert!(matches!(again, IoError::Poisoned { .. }));
            assert!(again.to_string().contains(&text), "{again}");
            assert!(matches!(other.sync_data().await, Err(IoError::Poisoned { .. })));
            assert!(matches!(other.set_len(0).await, Err(IoError::Poisoned { .. })));
            assert!(matches!(other.fill_zeros(0, 1).await, Err(IoError::Poisoned { .. })));
        }
        // The device cannot be flushed: EINVAL.
        let file = full().await.unwrap();
        assert_eq!(file.sync_data().await.unwrap_err().errno(), Some(Errno(libc::EINVAL)));
        assert!(matches!(file.sync_data().await, Err(IoError::Poisoned { .. })));
    })
    .unwrap();
}

#[test]
fn a_dropped_write_ends_poisons_and_is_waited_for() {
    let dir = Dir::new();
    run(Config::default(), || async {
        let full = File::open("/dev/full", Options { write: true, ..Options::default() }).await.unwrap();
        poll_once_and_drop(full.write_all_at(pattern(4096, 0), 0)).await;
        assert!(matches!(full.sync_data().await, Err(IoError::Poisoned { .. })));

        let file = File::open(dir.path("f"), DIRECT).await.unwrap();
        poll_once_and_drop(file.write_durable_at(pattern(1 << 20, 4), 1 << 20)).await;
        poll_once_and_drop(file.write_all_at(pattern(1 << 20, 3), 0)).await;
        poll_once_and_drop(file.sync_data()).await;
        let (result, buf) = file.read_exact_at(IoBuf::zeroed(2 << 20), 0).await;
        result.unwrap();
        assert_eq!(buf[..1 << 20], pattern(1 << 20, 3)[..]);
        assert_eq!(buf[1 << 20..], pattern(1 << 20, 4)[..]);
        file.sync_data().await.unwrap();
        // The buffer of a dropped read is not reused while the kernel writes to it.
        for _ in 0..100 {
            poll_once_and_drop(file.read_at(IoBuf::zeroed(1 << 20), 0)).await;
            let other = IoBuf::zeroed(1 << 20);
            yield_now().await;
            assert!(other.iter().all(|byte| *byte == 0));
        }
    })
    .unwrap();
}

#[test]
fn a_core_that_ends_waits_for_its_operations() {
    let dir = Dir::new();
    for round in 0..20 {
        let path = dir.path("f");
        run(Config::default(), || async {
            let file = File::open(path, DIRECT).await.unwrap();
            for index in 0..16 {
                let file = file.clone();
                drop(spawn(async move {
                    let (result, _) = file.write_all_at(pattern(1 << 18, round), index << 18).await;
                    result.unwrap();
                }));
            }
            yield_now().await;
        })
        .unwrap();
        let written = std::fs::read(dir.path("f")).unwrap();
        assert_eq!(written.len(), 16 << 18);
        assert!(written.chunks(1 << 18).all(|chunk| *chunk == pattern(1 << 18, round)[..]));
    }
}

#[test]
fn errors_name_path_operation_and_reason() {
    let dir = Dir::new();
    run(Config::default(), || async {
        let missing = File::open(dir.path("missing"), Options { read: true, ..Options::default() }).await.unwrap_err();
        assert!(missing.is_not_found());
        assert!(missing.to_string().starts_with("open of ") && missing.to_string().contains("missing failed: No such file"));
        let file = File::open(dir.path("f"), DIRECT).await.unwrap();
        let new = Options { create_new: true, ..READ_WRITE };
        assert!(File::open(dir.path("f"), new).await.unwrap_err().is_already_exists());
        file.fill_zeros(0, 8192).await.unwrap();
        let (result, _) = file.read_at(IoBuf::zeroed(4096), 100).await;
        assert!(matches!(result, Err(IoError::Misaligned { offset: 100, .. })), "{result:?}");
        let error = File::open("/proc/version", Options { read: true, direct: true, ..Options::default() }).await.unwrap_err();
        assert!(error.to_string().contains("/proc/version lies on"), "{error}");
        let file = File::open(dir.path("f"), Options { read: true, ..Options::default() }).await.unwrap();
        let (result, _) = file.write_all_at(pattern(1, 0), 0).await;
        assert_eq!(result.unwrap_err().errno(), Some(Errno(libc::EBADF)));
    })
    .unwrap();
}

#[test]
fn names() {
    let dir = Dir::new();
    run(Config::default(), || async {
        let sub = dir.path("a/b");
        create_dir_all(&sub).await.unwrap();
        create_dir_all(&sub).await.unwrap();
        for content in [&b"one"[..], b"", &pattern((1 << 20) + 5, 9)] {
            write_atomic(sub.join("x"), content).await.unwrap();
            assert_eq!(read(sub.join("x")).await.unwrap(), content);
        }
        write_atomic(sub.join("y"), b"two").await.unwrap();
        assert_eq!(read_dir(&sub).await.unwrap(), ["x", "y"]);
        rename(sub.join("y"), sub.join("x")).await.unwrap();
        assert_eq!(read(sub.join("x")).await.unwrap(), b"two");
        assert!(!exists(sub.join("y")).await.unwrap() && exists(&sub).await.unwrap());
        remove_file(sub.join("x")).await.unwrap();
        assert!(remove_file(sub.join("x")).await.unwrap_err().is_not_found());
        remove_dir_all(dir.path("a")).await.unwrap();
        assert!(!exists(dir.path("a")).await.unwrap());
    })
    .unwrap();
}
