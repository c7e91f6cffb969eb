//! The program itself: what it says when it cannot start, and how it ends.

use crate::scratch::{bindir, redo_library};
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

fn pageserver(dir: &Path, listen: &str, bindir: &Path, library: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pageserver"));
    command.args(["--id", "1", "--listen", listen, "--safekeepers", "127.0.0.1:1"]);
    command.arg("--dir").arg(dir).arg("--postgres-bindir").arg(bindir).arg("--redo-library").arg(library);
    command.stdin(Stdio::null()).stderr(Stdio::piped());
    command
}

/// What a start that must fail says.
fn refusal(mut command: Command) -> String {
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(!text.contains("panicked"), "{text}");
    text
}

fn scratch_dir(name: &str) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("ironpage-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

#[test]
fn a_start_that_fails_names_the_thing_and_the_way_out() {
    // A directory whose name is a list to the dynamic loader.
    let dir = scratch_dir("start with: blanks");
    let (bin, library) = (bindir(), redo_library());
    let any = "127.0.0.1:0";
    let taken = TcpListener::bind(any).unwrap();
    let busy = taken.local_addr().unwrap().to_string();
    let text = refusal(pageserver(&dir, &busy, &bin, &library));
    assert!(text.contains(&busy) && text.contains("--listen"), "{text}");
    let text = refusal(pageserver(&dir, any, Path::new("/nowhere"), &library));
    assert!(text.contains("/nowhere/postgres") && text.contains("--postgres-bindir"), "{text}");
    let text = refusal(pageserver(&dir, any, &bin, Path::new("/nowhere/redo.so")));
    assert!(text.contains("/nowhere/redo.so") && text.contains("--redo-library"), "{text}");
    let text = refusal(pageserver(Path::new("/proc/nowhere"), any, &bin, &library));
    assert!(text.contains("/proc/nowhere"), "{text}");
    // A library that is none of ours is preloaded, and postgres runs as it always does.
    let text = refusal(pageserver(&dir, any, &bin, &bin.join("postgres")));
    assert!(text.contains("redo.so was built for this postgres"), "{text}");

    // A script has no build id; one that has it may still be another version.
    std::fs::write(dir.join("postgres"), "#!/bin/sh\necho 'postgres (PostgreSQL) 14.9'\n").unwrap();
    std::fs::set_permissions(dir.join("postgres"), PermissionsExt::from_mode(0o755)).unwrap();
    let text = refusal(pageserver(&dir, any, &dir, &library));
    assert!(text.contains("is not an ELF file with a build id") && text.contains("--postgres-bindir"), "{text}");
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn sigterm_ends_it_cleanly_and_a_second_one_is_kept_out_meanwhile() {
    let dir = scratch_dir("sigterm");
    let (bin, library) = (bindir(), redo_library());
    let mut daemon = pageserver(&dir, "127.0.0.1:0", &bin, &library).spawn().unwrap();
    let mut lines = BufReader::new(daemon.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.contains("listening on 127.0.0.1:")), "it says when it is ready");
    let text = refusal(pageserver(&dir, "127.0.0.1:0", &bin, &library));
    assert!(text.contains("another process uses it"), "{text}");
    // SAFETY: a signal to a child that has not been waited for.
    unsafe { libc::kill(daemon.id() as i32, libc::SIGTERM) };
    assert!(lines.any(|line| line.contains("stopped")));
    assert_eq!(daemon.wait().unwrap().code(), Some(0));
    std::fs::remove_dir_all(&dir).unwrap();
}
