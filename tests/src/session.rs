//! One open connection: a psql that is fed statements and answers one by one.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

/// What became of a statement.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Its rows, unaligned; the command succeeded as far as the client was told.
    Success(String),
    /// psql said so and left: an error, or the connection was lost.
    Failed(String),
    /// No answer within the time.
    Waiting,
}

/// A psql process; killed when dropped.
pub struct Session {
    child: Child,
    stdin: ChildStdin,
    lines: Receiver<String>,
    sent: u64,
}

impl Session {
    /// Starts psql by `command`, which names the server already.
    pub fn start(mut command: Command) -> Session {
        command.args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1"]);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starting psql");
        let stdin = child.stdin.take().expect("psql has a standard input");
        let stdout = child.stdout.take().expect("psql has a standard output");
        Session { child, stdin, lines: read_lines(stdout), sent: 0 }
    }

    /// Process id of the psql, to interrupt or kill the client.
    pub fn client_pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// Sends a statement without waiting for its answer.
    pub fn send(&mut self, sql: &str) -> bool {
        self.sent += 1;
        writeln!(self.stdin, "{sql};\n\\echo done-{}", self.sent).and_then(|()| self.stdin.flush()).is_ok()
    }

    /// The answer to the last statement sent, for which this waits up to `limit`.
    pub fn answer(&mut self, limit: Duration) -> Outcome {
        let marker = format!("done-{}", self.sent);
        let begun = std::time::Instant::now();
        let mut rows: Vec<String> = Vec::new();
        loop {
            match self.lines.recv_timeout(limit.saturating_sub(begun.elapsed())) {
                Ok(line) if line == marker => return Outcome::Success(rows.join("\n")),
                Ok(line) => rows.push(line),
                Err(RecvTimeoutError::Timeout) => return Outcome::Waiting,
                Err(RecvTimeoutError::Disconnected) => {
                    let mut message = String::new();
                    if let Some(mut stderr) = self.child.stderr.take() {
                        let _ = stderr.read_to_string(&mut message);
                    }
                    return Outcome::Failed(message);
                }
            }
        }
    }

    /// Sends a statement and waits for its answer.
    pub fn run(&mut self, sql: &str, limit: Duration) -> Outcome {
        if !self.send(sql) {
            return self.answer(Duration::from_secs(1));
        }
        self.answer(limit)
    }

    /// As [`Session::run`] for what must succeed within a minute.
    pub fn must(&mut self, sql: &str) -> String {
        match self.run(sql, Duration::from_secs(60)) {
            Outcome::Success(rows) => rows,
            other => panic!("{sql}: {other:?}"),
        }
    }
}

fn read_lines(stdout: ChildStdout) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines() {
            let Ok(line) = line else { return };
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
