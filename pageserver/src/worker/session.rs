//! One worker process after the other, each until it dies or the pageserver stops.

use super::protocol::{self, REPLY_SIZE, RedoRecord, Reply};
use super::{IN_FLIGHT_MAX, Job, Page, Request, Shared, WorkerError};
use crate::race::{First, race};
use ironpage_io::net::{Reader, Writer};
use ironpage_io::process::{Child, Spawn, describe as describe_end};
use ironpage_io::sync::Notify;
use ironpage_io::time::timeout;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::path::Path;
use std::rc::Rc;

/// Bytes asked of the pipe at once.
const READ_SIZE: usize = 64 << 10;
/// A request buffer larger than this is given back once written.
const KEEP_SIZE: usize = 256 << 10;

/// How a session with a process ended.
enum End {
    Stopped,
    /// The pipe broke: the process is dead or dying.
    Broken,
    /// The oldest request took too long.
    TimedOut,
    BadReply,
}

/// Serves the queue until the worker is stopped.
pub async fn run(shared: Rc<Shared>) {
    loop {
        wait_for_job(&shared).await;
        if shared.stopping.get() {
            break;
        }
        match start(&shared) {
            Ok(child) => serve(&shared, child).await,
            Err(error) => fail_queued(&shared, &error),
        }
    }
    fail_queued(&shared, &WorkerError::Stopped);
}

async fn wait_for_job(shared: &Shared) {
    loop {
        let queued = shared.queued.notified();
        if !shared.queue.borrow().is_empty() || shared.stopping.get() {
            return;
        }
        queued.await;
    }
}

fn fail_queued(shared: &Shared, error: &WorkerError) {
    let queued = std::mem::take(&mut *shared.queue.borrow_mut());
    for job in queued {
        job.finish(Err(error.clone()));
    }
}

/// Requests the process has or is being sent, oldest first.
#[derive(Default)]
struct InFlight {
    jobs: RefCell<VecDeque<Job>>,
    /// A request came or was answered.
    changed: Notify,
}

impl InFlight {
    async fn wait_until(&self, condition: impl Fn(&VecDeque<Job>) -> bool) {
        loop {
            let changed = self.changed.notified();
            if condition(&self.jobs.borrow()) {
                return;
            }
            changed.await;
        }
    }
}

fn start(shared: &Shared) -> Result<Child, WorkerError> {
    let program = &shared.config.program;
    shared.count(|counters| counters.starts += 1);
    let spawn = Spawn {
        program: program.postgres.clone(),
        // The sandbox has no use for the environment. The library is named relative to its directory:
        // LD_PRELOAD is a list with blanks and colons between its entries.
        env: vec![("LD_PRELOAD".into(), program.preload())],
        env_clear: true,
        current_dir: program.library.parent().map(Path::to_path_buf),
        ..Spawn::default()
    };
    Child::spawn_with(spawn).map_err(|error| WorkerError::Start { program: program.to_string(), error: error.to_string() })
}

async fn serve(shared: &Shared, mut child: Child) {
    let in_flight = InFlight::default();
    let end = {
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else { return };
        match race(send_requests(shared, &in_flight, stdin), receive_answers(shared, &in_flight, stdout)).await {
            First::Left(end) | First::Right(end) => end,
        }
    };
    // Without its pipes a healthy process ends by itself; one that hangs, or is about to answer nonsense, does not.
    child.kill();
    let status = child.wait().await.map_or_else(|error| error.to_string(), describe_end);
    settle(shared, &in_flight, end, &status);
}

/// After the end of a process: the oldest request gets an error if it is to blame, the others go back to the queue.
fn settle(shared: &Shared, in_flight: &InFlight, end: End, status: &str) {
    let mut jobs = std::mem::take(&mut *in_flight.jobs.borrow_mut());
    if matches!(end, End::Stopped) {
        jobs.into_iter().for_each(|job| job.finish(Err(WorkerError::Stopped)));
        return;
    }
    if let Some(mut head) = jobs.pop_front() {
        match blame(shared, &head, end, status) {
            Some(error) => {
                ironpage_daemon::warn!("{error}");
                head.finish(Err(error));
            }
            None => {
                // Somebody else may have killed the process: the request gets a second chance, as the first of a new one.
                ironpage_daemon::warn!("redo worker: the process ended ({status}) with a request in hand; trying again");
                head.suspect = true;
                jobs.push_front(head);
            }
        }
    } else {
        ironpage_daemon::warn!("redo worker: the idle process ended ({status})");
    }
    let mut queue = shared.queue.borrow_mut();
    for job in jobs.into_iter().rev() {
        queue.push_front(job);
    }
}

/// Why the oldest request fails; `None` if it shall be tried again.
fn blame(shared: &Shared, head: &Job, end: End, status: &str) -> Option<WorkerError> {
    let status = status.to_string();
    match (end, &head.request) {
        (End::BadReply, _) => Some(WorkerError::BadReply),
        (End::TimedOut, Request::Redo { page, records, .. }) => {
            Some(WorkerError::Timeout { page: *page, records: describe(records), after: shared.config.timeout })
        }
        (End::Broken, _) if !head.suspect => None,
        (End::Broken, Request::Redo { page, records, .. }) if shared.proven.get() => {
            Some(WorkerError::Died { page: *page, records: describe(records), status })
        }
        _ => Some(WorkerError::Unusable { program: shared.config.program.to_string(), status }),
    }
}

/// Sends what is queued, `IN_FLIGHT_MAX` requests ahead of the answers at most.
async fn send_requests(shared: &Shared, in_flight: &InFlight, mut pipe: Writer) -> End {
    let mut bytes = Vec::new();
    loop {
        wait_for_job(shared).await;
        if shared.stopping.get() {
            return End::Stopped;
        }
        in_flight.wait_until(|jobs| jobs.len() < IN_FLIGHT_MAX).await;
        let Some(job) = shared.queue.borrow_mut().pop_front() else { continue };
        bytes.clear();
        job.request.encode(&mut bytes);
        in_flight.jobs.borrow_mut().push_back(job);
        in_flight.changed.notify_all();
        let (result, written) = pipe.write_all(bytes).await;
        bytes = written;
        if result.is_err() {
            return End::Broken;
        }
        if bytes.capacity() > KEEP_SIZE {
            bytes = Vec::new();
        }
    }
}

async fn receive_answers(shared: &Shared, in_flight: &InFlight, mut pipe: Reader) -> End {
    let mut bytes = Vec::with_capacity(REPLY_SIZE);
    loop {
        in_flight.wait_until(|jobs| !jobs.is_empty()).await;
        let answer = timeout(shared.config.timeout, async {
            while bytes.len() < REPLY_SIZE {
                if !matches!(pipe.read_into(&mut bytes, READ_SIZE).await, Ok(1..)) {
                    return Err(End::Broken);
                }
            }
            Ok(())
        });
        match answer.await {
            Ok(Ok(())) => {}
            Ok(Err(end)) => return end,
            Err(_) => return End::TimedOut,
        }
        let Some(reply) = bytes.first_chunk::<REPLY_SIZE>().and_then(protocol::decode_reply) else {
            return End::BadReply;
        };
        bytes.drain(..REPLY_SIZE);
        shared.proven.set(true);
        let Some(job) = in_flight.jobs.borrow_mut().pop_front() else {
            return End::BadReply;
        };
        in_flight.changed.notify_all();
        let result = answer_of(&job.request, reply);
        job.finish(result);
    }
}

/// Which records a request held, for messages.
fn describe(records: &[RedoRecord]) -> String {
    match records {
        [] => "no record".to_string(),
        [one] => one.to_string(),
        [first, .., last] => format!("one of {} records, from {first} to {last},", records.len()),
    }
}

fn answer_of(request: &Request, reply: Reply) -> Result<Page, WorkerError> {
    match (reply, request) {
        (Reply::Page(page), _) => Ok(page),
        (Reply::Invalid, Request::Redo { page, records, .. }) => {
            Err(WorkerError::Invalid { page: *page, records: describe(records) })
        }
        (Reply::Failed { record, message }, Request::Redo { page, records, .. }) => {
            let record = records.get(record).map_or_else(|| "no record".to_string(), RedoRecord::to_string);
            Err(WorkerError::Redo { page: *page, record, message })
        }
        (_, Request::Ping) => Err(WorkerError::BadReply),
    }
}
