//! What can go wrong, said so that the reader knows the thing and the way out.

use crate::api::ApiCode;
use ironpage_layout::wire::{RemoteError, WireError};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    #[error("cannot {action} {path}: {source}")]
    File { action: &'static str, path: PathBuf, source: io::Error },
    #[error("{path} is damaged: {why}. It is written by `ironpage` alone; put back a copy, or `ironpage destroy` and start anew")]
    Damaged { path: PathBuf, why: String },
    #[error("the pageserver's journal {path} cannot be read: {why}")]
    Journal { path: PathBuf, why: String },
    #[error("there is no cluster in {0}: `ironpage up` makes one, `--dir DIR` names another place")]
    NoCluster(PathBuf),
    #[error("{0} holds files but no cluster.json, so it is no cluster of ours: choose another place with `--dir DIR`")]
    ForeignDirectory(PathBuf),
    #[error("another `ironpage` command works on {0} and holds its lock; it says what it does where it was started")]
    Locked(PathBuf),
    #[error(
        "port {port} on 127.0.0.1 is taken{holder}, and {wanted_by} wants it: free it, or move the whole cluster with `ironpage up --port-base N`"
    )]
    PortBusy { port: u16, holder: String, wanted_by: String },
    #[error("the ports from {0} on do not fit below 65536: choose a smaller `--port-base`")]
    PortRange(u16),
    #[error("cannot run {program}: {source}")]
    Program { program: PathBuf, source: io::Error },
    #[error("{name} ended while it started ({status}). The end of its log, {log}:\n{tail}")]
    DiedAtStart { name: String, status: String, log: PathBuf, tail: String },
    #[error("{name} is not ready after {seconds} s. The end of its log, {log}:\n{tail}")]
    NotReady { name: String, seconds: u64, log: PathBuf, tail: String },
    #[error("{name} (pid {pid}) did not end within {seconds} s of being asked to; its log is {log}")]
    DoesNotEnd { name: String, pid: i32, seconds: u64, log: PathBuf },
    #[error("{peer} ({address}) cannot be reached: {source}")]
    Unreachable { peer: String, address: SocketAddr, source: io::Error },
    #[error("{peer} ({address}) broke off: {source}")]
    Broken { peer: String, address: SocketAddr, source: io::Error },
    #[error("{peer} sent what the protocol does not allow: {source}")]
    Wire { peer: String, source: WireError },
    #[error("{peer} answered with {kind} where {wanted} was due")]
    UnexpectedFrame { peer: String, kind: String, wanted: &'static str },
    #[error("{peer} says: {source}")]
    Remote { peer: String, source: RemoteError },
    #[error("{peer} ({address}) did not answer {request}: {why}. `ironpage up` starts it, `ironpage status` names its log")]
    ApiUnreachable { peer: String, address: SocketAddr, request: String, why: String },
    #[error("{peer} ({address}) answered {request} with what is no answer: {why}. Is something else on its port?")]
    ApiStrange { peer: String, address: SocketAddr, request: String, why: String },
    #[error("{message}")]
    Api { peer: String, code: ApiCode, message: String },
    #[error("{0}")]
    Postgres(#[from] ironpage_layout::postgres::control::ControlError),
    #[error("there is no endpoint '{name}'{known}")]
    NoEndpoint { name: String, known: String },
    #[error("endpoint '{name}' is on {branch}, not {wanted}: an endpoint stays on its branch")]
    OtherBranch { name: String, branch: String, wanted: String },
    #[error("endpoint '{endpoint}' runs on {on}: `ironpage endpoint stop {endpoint}` first")]
    EndpointRuns { endpoint: String, on: String },
    #[error("'{0}' cannot be a name: 1 to 63 of the letters, digits, '-' and '_', a letter or digit first")]
    BadName(String),
    #[error(
        "no quorum for an election of branch '{branch}': {answered} of {members} safekeepers answered, {needed} are needed. {reasons}"
    )]
    NoQuorum { branch: String, answered: usize, members: usize, needed: usize, reasons: String },
    #[error(
        "branch '{0}' is gone: it was deleted, or its time to live ran out; `ironpage branch list` shows what there is, and `ironpage endpoint start NAME --branch B` starts on another"
    )]
    BranchGone(String),
    #[error("fenced: {0}")]
    Fenced(String),
    #[error("{0}")]
    Endpoint(String),
    #[error("cannot import {what}: {why}. The way out: {way_out}")]
    NotImportable { what: PathBuf, why: String, way_out: String },
    #[error("{what} is missing: {way_out}")]
    Missing { what: String, way_out: String },
    #[error("{0}")]
    Refused(String),
    #[error("interrupted")]
    Interrupted,
}

impl Error {
    /// Whether the same question may have another answer soon: the pageserver is down or busy.
    pub fn may_pass(&self) -> bool {
        match self {
            Error::ApiUnreachable { .. } | Error::ApiStrange { .. } => true,
            Error::Api { code, .. } => matches!(code, ApiCode::Unavailable | ApiCode::Internal),
            _ => false,
        }
    }
}

pub type Result<T> = std::result::Result<T, Error>;

/// Names the path and what was tried with it.
pub trait AtPath<T> {
    fn at(self, action: &'static str, path: &Path) -> Result<T>;
}

impl<T> AtPath<T> for io::Result<T> {
    fn at(self, action: &'static str, path: &Path) -> Result<T> {
        self.map_err(|source| Error::File { action, path: path.to_path_buf(), source })
    }
}

/// The last lines of a log, for an error that names the log.
pub fn log_tail(log: &Path) -> String {
    let Ok(text) = std::fs::read(log) else { return String::new() };
    let text = String::from_utf8_lossy(&text[text.len().saturating_sub(8192)..]).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    let tail = &lines[lines.len().saturating_sub(12)..];
    tail.iter().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
}
