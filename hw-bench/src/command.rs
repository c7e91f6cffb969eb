//! Programs that are run to their end. Each is in a process group of its own, so that Ctrl-C reaches us alone, and we
//! end what runs.

use crate::interrupt;
use anyhow::{Context, bail};
use std::io::{BufWriter, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// How often an interruption is looked for while a program runs.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How long an interrupted program may take to end by itself.
const END_PATIENCE: Duration = Duration::from_secs(10);

/// Runs a command to its end; its standard output, or an error that shows what it said. Ends it when interrupted.
pub fn run(command: &mut Command) -> anyhow::Result<String> {
    interrupt::check()?;
    complete(command, interrupt::asked)
}

/// Runs a command to its end whatever happens: for cleaning up.
pub fn clean_up(command: &mut Command) -> anyhow::Result<String> {
    complete(command, || false)
}

fn complete(command: &mut Command, stop: impl Fn() -> bool) -> anyhow::Result<String> {
    let child = start(command, Stdio::null())?;
    finish(command, child, stop)
}

/// Runs a command that reads what `write` writes.
pub fn feed<T>(command: &mut Command, write: impl FnOnce(&mut dyn Write) -> anyhow::Result<T>) -> anyhow::Result<(T, String)> {
    let mut child = start(command, Stdio::piped())?;
    let input = child.stdin.take().context("no standard input")?;
    let mut input = BufWriter::with_capacity(1 << 20, input);
    let written = write(&mut input).and_then(|value| Ok((value, input.flush()?)));
    drop(input);
    if interrupt::asked() {
        signal(&child, libc::SIGKILL);
    }
    // If it went away in the middle, what it said is the better error.
    let output = finish(command, child, interrupt::asked)?;
    Ok((written.map(|(value, ())| value)?, output))
}

fn start(command: &mut Command, input: Stdio) -> anyhow::Result<Child> {
    command.stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    command.spawn().with_context(|| format!("running {command:?}"))
}

fn finish(command: &Command, mut child: Child, stop: impl Fn() -> bool) -> anyhow::Result<String> {
    let (stdout, stderr) = (child.stdout.take().context("no output")?, child.stderr.take().context("no output")?);
    let (output, errors) = std::thread::scope(|scope| {
        let (ended, ends) = channel::<()>();
        let also_ended = ended.clone();
        // Each end is told by dropping its sender.
        let output = scope.spawn(move || (read(stdout), drop(ended)).0);
        let errors = scope.spawn(move || (read(stderr), drop(also_ended)).0);
        let mut told = None;
        while ends.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Timeout) {
            match told {
                None if stop() => {
                    signal(&child, libc::SIGINT);
                    told = Some(Instant::now());
                }
                Some(at) if at.elapsed() > END_PATIENCE => signal(&child, libc::SIGKILL),
                _ => {}
            }
        }
        (output.join().unwrap_or_default(), errors.join().unwrap_or_default())
    });
    let status = child.wait().with_context(|| format!("waiting for {command:?}"))?;
    if stop() {
        bail!("interrupted");
    }
    if !status.success() {
        bail!("{command:?} failed ({status}): {output}{errors}");
    }
    Ok(output)
}

fn read(mut from: impl Read) -> String {
    let mut bytes = Vec::new();
    // What came before an error is worth showing.
    let _ = from.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// To the child's whole group.
fn signal(child: &Child, signal: libc::c_int) {
    // SAFETY: kill has no preconditions; the child was not waited for yet, so its number is still its own.
    unsafe { libc::kill(-(child.id() as libc::pid_t), signal) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_and_failure_are_both_shown() {
        let said = run(Command::new("sh").args(["-c", "echo out; echo err >&2"])).unwrap();
        assert_eq!(said, "out\n");
        let error = run(Command::new("sh").args(["-c", "echo why >&2; exit 3"])).unwrap_err().to_string();
        assert!(error.contains("exit status: 3") && error.contains("why"), "{error}");
    }

    #[test]
    fn a_program_is_fed_to_its_end() {
        let (lines, said) = feed(Command::new("wc").arg("-l"), |input| {
            (0..1000).try_for_each(|n| writeln!(input, "{n}"))?;
            Ok(1000)
        })
        .unwrap();
        assert_eq!((lines, said.trim()), (1000, "1000"));
    }

    #[test]
    fn a_program_is_ended_when_asked_for() {
        let begun = Instant::now();
        let error = complete(Command::new("sleep").arg("60"), || true).unwrap_err();
        assert_eq!(error.to_string(), "interrupted");
        assert!(begun.elapsed() < END_PATIENCE);
    }
}
