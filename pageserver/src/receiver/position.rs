//! How far the safekeepers are with a timeline.

use ironpage_daemon::cli::Address;
use ironpage_daemon::frames::{FrameError, connect};
use ironpage_io::JoinHandle;
use ironpage_io::sync::Notify;
use ironpage_io::time::timeout;
use ironpage_layout::wire::hello::Hello;
use ironpage_layout::wire::walstream::{WalKeepalive, WalStart};
use ironpage_layout::wire::{ErrorCode, Kind};
use ironpage_layout::{Lsn, Term};
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

/// How long one safekeeper may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(3);

/// What one safekeeper says of a timeline.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Position {
    At {
        commit_lsn: Lsn,
        flush_lsn: Lsn,
    },
    /// It was never made there.
    Unknown,
    /// It did not answer; why.
    Silent(String),
}

/// Asks all safekeepers at once, and waits for no more than a majority that has the timeline: what was acknowledged, one
/// of any majority has. `from` is an LSN that they have if they have the timeline.
pub async fn positions(safekeepers: &[Address], hello: &Hello, from: Lsn) -> Vec<Position> {
    let answers = Rc::new((RefCell::new(Vec::with_capacity(safekeepers.len())), Notify::new()));
    let asked: Vec<_> = safekeepers
        .iter()
        .map(|address| {
            let (address, hello, answers) = (address.clone(), hello.clone(), answers.clone());
            ironpage_io::spawn(async move {
                let position = match timeout(ANSWER_MAX, ask(&address, &hello, from)).await {
                    Ok(Ok(position)) => position,
                    Ok(Err(FrameError::Remote { error, .. })) if error.code == ErrorCode::NotFound => Position::Unknown,
                    Ok(Err(error)) => Position::Silent(error.to_string()),
                    Err(_) => Position::Silent(format!("{address} took more than {} s to answer", ANSWER_MAX.as_secs())),
                };
                answers.0.borrow_mut().push(position);
                answers.1.notify_all();
            })
        })
        .collect();
    loop {
        let answered = answers.1.notified();
        let known = answers.0.borrow().iter().filter(|answer| matches!(answer, Position::At { .. })).count();
        if known > safekeepers.len() / 2 || answers.0.borrow().len() >= safekeepers.len() {
            break;
        }
        answered.await;
    }
    // One that is slow is of no interest any more.
    asked.iter().for_each(JoinHandle::abort);
    answers.0.take()
}

/// A stream that ends where it begins is a keepalive and nothing else, however much more is committed.
async fn ask(address: &Address, hello: &Hello, from: Lsn) -> Result<Position, FrameError> {
    let (mut reader, writer, _) = connect(address, hello).await?;
    let start = WalStart { from: from.0.into(), until: from.0.into(), uncommitted: 0.into(), reserved: 0.into() };
    writer.send(Kind::WalStart, 1, Term(0), |out| start.encode(out)).await?;
    let frame = reader.expect(&[Kind::WalKeepalive], "WalKeepalive").await?;
    let keepalive = WalKeepalive::decode(frame.payload).map_err(|error| reader.malformed(error))?;
    Ok(Position::At { commit_lsn: Lsn(keepalive.commit_lsn.get()), flush_lsn: Lsn(keepalive.flush_lsn.get()) })
}
