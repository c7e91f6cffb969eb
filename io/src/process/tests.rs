//! Tests of children and of the signals that end us.

use std::time::Duration;

use super::{Child, Spawn, Stderr, describe};
use crate::time::timeout;
use crate::{Config, IoError, run, spawn};

#[test]
fn cat_gives_back_what_it_gets() {
    run(Config::default(), || async {
        let mut child = Child::spawn("cat", [""; 0], [("", ""); 0]).unwrap();
        let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        stdin.write_all(b"hello".to_vec()).await.0.unwrap();
        let (result, bytes) = stdout.read(Vec::new(), 100).await;
        assert_eq!((result.unwrap(), &bytes[..]), (5, &b"hello"[..]));
        // More than a pipe holds, both ways at once.
        let sent: Vec<u8> = (0..4 << 20).map(|index: u32| (index / 3) as u8).collect();
        let expected = sent.clone();
        let writer = spawn(async move { stdin.write_all(sent).await.0.unwrap() });
        let mut got = Vec::new();
        while stdout.read_into(&mut got, 1 << 16).await.unwrap() > 0 {}
        assert!(got == expected);
        writer.await.unwrap();
        let status = child.wait().await.unwrap();
        assert_eq!((describe(status), status), ("exit code 0".into(), child.wait().await.unwrap()));
    })
    .unwrap();
}

#[test]
fn a_child_is_killed_and_waited_for() {
    run(Config::default(), || async {
        let mut child = Child::spawn("cat", [""; 0], [("", ""); 0]).unwrap();
        assert!(timeout(Duration::from_millis(2), child.wait()).await.is_err());
        assert_eq!(child.try_wait().unwrap(), None);
        child.kill();
        assert_eq!(describe(child.wait().await.unwrap()), "signal 9");
        child.kill();
        // Dropping one kills it too.
        let mut child = Child::spawn("cat", [""; 0], [("", ""); 0]).unwrap();
        let mut stdout = child.stdout.take().unwrap();
        drop(child);
        assert_eq!(stdout.read(Vec::new(), 1).await.0.unwrap(), 0);
        // Writing to what has ended is an error, not a signal.
        let mut child = Child::spawn("true", [""; 0], [("", ""); 0]).unwrap();
        child.wait().await.unwrap();
        let error = child.stdin.as_mut().unwrap().write_all(vec![1]).await.0.unwrap_err();
        assert!(error.is_disconnected(), "{error}");
    })
    .unwrap();
}

#[test]
fn environment_and_standard_error() {
    run(Config::default(), || async {
        let mut child = Child::spawn_with(Spawn {
            program: "/bin/sh".into(),
            args: vec!["-c".into(), "echo $COLOUR >&2; exit 3".into()],
            env: vec![("COLOUR".into(), "blue".into())],
            env_clear: true,
            stderr: Stderr::Pipe,
            ..Spawn::default()
        })
        .unwrap();
        let mut text = Vec::new();
        while child.stderr.as_mut().unwrap().read_into(&mut text, 100).await.unwrap() > 0 {}
        assert_eq!((&text[..], child.wait().await.unwrap().code()), (&b"blue\n"[..], Some(3)));
        let error = Child::spawn("/nonexistent/program", [""; 0], [("", ""); 0]).err().unwrap();
        assert!(matches!(error, IoError::Process { .. }) && error.to_string().contains("/nonexistent/program"));
    })
    .unwrap();
}
