//! libpq, as little of it as replication needs. The only unsafe code of this crate beside the clock of its log.

use crate::error::{Error, Result};
use std::ffi::{CStr, CString, c_char, c_int};
use std::ptr::{self, NonNull};
use std::time::Duration;

#[repr(C)]
struct PGconn {
    _opaque: [u8; 0],
}

#[repr(C)]
struct PGresult {
    _opaque: [u8; 0],
}

/// PQconninfoOption (libpq-fe.h).
#[repr(C)]
struct ConninfoOption {
    keyword: *mut c_char,
    envvar: *mut c_char,
    compiled: *mut c_char,
    val: *mut c_char,
    label: *mut c_char,
    dispchar: *mut c_char,
    dispsize: c_int,
}

unsafe extern "C" {
    fn PQconnectdbParams(keywords: *const *const c_char, values: *const *const c_char, expand_dbname: c_int) -> *mut PGconn;
    fn PQfinish(conn: *mut PGconn);
    fn PQstatus(conn: *const PGconn) -> c_int;
    fn PQerrorMessage(conn: *const PGconn) -> *const c_char;
    fn PQserverVersion(conn: *const PGconn) -> c_int;
    fn PQsocket(conn: *const PGconn) -> c_int;
    fn PQsendQuery(conn: *mut PGconn, query: *const c_char) -> c_int;
    fn PQgetResult(conn: *mut PGconn) -> *mut PGresult;
    fn PQresultStatus(result: *const PGresult) -> c_int;
    fn PQresultErrorMessage(result: *const PGresult) -> *const c_char;
    fn PQresultErrorField(result: *const PGresult, field: c_int) -> *const c_char;
    fn PQntuples(result: *const PGresult) -> c_int;
    fn PQnfields(result: *const PGresult) -> c_int;
    fn PQgetvalue(result: *const PGresult, row: c_int, column: c_int) -> *const c_char;
    fn PQgetisnull(result: *const PGresult, row: c_int, column: c_int) -> c_int;
    fn PQclear(result: *mut PGresult);
    fn PQgetCopyData(conn: *mut PGconn, buffer: *mut *mut c_char, asynchronous: c_int) -> c_int;
    fn PQputCopyData(conn: *mut PGconn, buffer: *const c_char, length: c_int) -> c_int;
    fn PQputCopyEnd(conn: *mut PGconn, error: *const c_char) -> c_int;
    fn PQflush(conn: *mut PGconn) -> c_int;
    fn PQconsumeInput(conn: *mut PGconn) -> c_int;
    fn PQfreemem(memory: *mut std::ffi::c_void);
    fn PQconninfoParse(conninfo: *const c_char, error: *mut *mut c_char) -> *mut ConninfoOption;
    fn PQconninfoFree(options: *mut ConninfoOption);
}

const CONNECTION_OK: c_int = 0;
const PGRES_COMMAND_OK: c_int = 1;
const PGRES_TUPLES_OK: c_int = 2;
const PGRES_COPY_OUT: c_int = 3;
const PGRES_COPY_BOTH: c_int = 8;
const PG_DIAG_SQLSTATE: c_int = b'C' as c_int;

/// A connection; closed when dropped.
pub struct Connection {
    raw: NonNull<PGconn>,
}

// SAFETY: libpq allows a connection to be used from any thread, by one at a time, which `&mut self` keeps.
unsafe impl Send for Connection {}

/// What a command came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    Done,
    /// Rows of columns; `None` is null.
    Rows(Vec<Vec<Option<String>>>),
    CopyOut,
    CopyBoth,
}

/// The next piece of a copy.
#[derive(Debug)]
pub enum Copied {
    Data(Message),
    /// Nothing has come yet.
    Nothing,
    /// The other side ended it; its results follow.
    End,
}

/// A message of a copy, in libpq's memory.
#[derive(Debug)]
pub struct Message {
    bytes: NonNull<u8>,
    length: usize,
}

impl std::ops::Deref for Message {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: PQgetCopyData gave `length` bytes at `bytes`, which are ours until PQfreemem in drop.
        unsafe { std::slice::from_raw_parts(self.bytes.as_ptr(), self.length) }
    }
}

impl Drop for Message {
    fn drop(&mut self) {
        // SAFETY: allocated by PQgetCopyData, freed once.
        unsafe { PQfreemem(self.bytes.as_ptr().cast()) }
    }
}

impl Connection {
    /// Connects as a physical replication client to where `conninfo` says, in any form libpq takes.
    pub fn replication(conninfo: &str) -> Result<Connection> {
        let text = |text: &str| CString::new(text).map_err(|_| Error::Refused("the connection string has a zero byte".into()));
        // What stands before dbname is a default, what stands behind it is not for the user to say.
        let pairs = [
            ("connect_timeout", "10"),
            ("fallback_application_name", "ironpage_follow"),
            ("keepalives_idle", "30"),
            ("keepalives_interval", "10"),
            ("keepalives_count", "3"),
            ("dbname", conninfo),
            ("replication", "true"),
        ];
        let keywords: Vec<CString> = pairs.iter().map(|pair| text(pair.0)).collect::<Result<_>>()?;
        let values: Vec<CString> = pairs.iter().map(|pair| text(pair.1)).collect::<Result<_>>()?;
        let with_end =
            |all: &[CString]| -> Vec<*const c_char> { all.iter().map(|text| text.as_ptr()).chain([ptr::null()]).collect() };
        let (keywords, values) = (with_end(&keywords), with_end(&values));
        // SAFETY: two null-terminated arrays of C strings that live through the call; libpq copies what it keeps.
        let raw = unsafe { PQconnectdbParams(keywords.as_ptr(), values.as_ptr(), 1) };
        let raw = NonNull::new(raw).ok_or_else(|| Error::Source("no memory for a connection".into()))?;
        let connection = Connection { raw };
        // SAFETY: the connection is live.
        if unsafe { PQstatus(raw.as_ptr()) } != CONNECTION_OK {
            return Err(Error::Source(connection.message()));
        }
        Ok(connection)
    }

    /// PG_VERSION_NUM of the server.
    pub fn server_version(&self) -> u32 {
        // SAFETY: the connection is live.
        u32::try_from(unsafe { PQserverVersion(self.raw.as_ptr()) }).unwrap_or(0)
    }

    fn message(&self) -> String {
        // SAFETY: the connection is live; the string is copied before the next call may change it.
        let message = unsafe { PQerrorMessage(self.raw.as_ptr()) };
        one_line(&copied(message))
    }

    /// Sends a command whose results are taken with [`Connection::result`].
    pub fn send(&mut self, command: &str) -> Result<()> {
        let text = CString::new(command).map_err(|_| Error::Source("a command has a zero byte".into()))?;
        // SAFETY: live connection, a C string that libpq copies.
        match unsafe { PQsendQuery(self.raw.as_ptr(), text.as_ptr()) } {
            1 => Ok(()),
            _ => Err(Error::Source(self.message())),
        }
    }

    /// The next result of what was sent; `None` when there are no more.
    pub fn result(&mut self) -> Result<Option<Outcome>> {
        // SAFETY: live connection; the result is freed below.
        let Some(raw) = NonNull::new(unsafe { PQgetResult(self.raw.as_ptr()) }) else { return Ok(None) };
        let result = Results(raw);
        // SAFETY: a live result.
        let outcome = match unsafe { PQresultStatus(raw.as_ptr()) } {
            PGRES_COMMAND_OK => Outcome::Done,
            PGRES_TUPLES_OK => Outcome::Rows(result.rows()),
            PGRES_COPY_OUT => Outcome::CopyOut,
            PGRES_COPY_BOTH => Outcome::CopyBoth,
            _ => return Err(result.error(self)),
        };
        Ok(Some(outcome))
    }

    /// Runs a command and gives the rows of its first result.
    pub fn rows(&mut self, command: &str) -> Result<Vec<Vec<Option<String>>>> {
        self.send(command)?;
        let first = self.result()?;
        while self.result()?.is_some() {}
        match first {
            Some(Outcome::Rows(rows)) => Ok(rows),
            _ => Ok(Vec::new()),
        }
    }

    /// The next message of a copy, waiting for it.
    pub fn copied(&mut self) -> Result<Copied> {
        self.get_copy(0)
    }

    /// The next message of a copy that is here already.
    pub fn copied_now(&mut self) -> Result<Copied> {
        self.get_copy(1)
    }

    fn get_copy(&mut self, asynchronous: c_int) -> Result<Copied> {
        let mut buffer: *mut c_char = ptr::null_mut();
        // SAFETY: live connection; on a positive answer `buffer` holds so many bytes, which Message frees.
        let length = unsafe { PQgetCopyData(self.raw.as_ptr(), &mut buffer, asynchronous) };
        match (length, NonNull::new(buffer.cast::<u8>())) {
            (1.., Some(bytes)) => Ok(Copied::Data(Message { bytes, length: length as usize })),
            (0, _) => Ok(Copied::Nothing),
            (-1, _) => Ok(Copied::End),
            _ => Err(Error::Source(self.message())),
        }
    }

    /// Takes what the socket has, waiting for it or for `wake` to be readable, `limit` at most.
    pub fn wait(&mut self, wake: c_int, limit: Duration) -> Result<()> {
        // SAFETY: the connection is live.
        let socket = unsafe { PQsocket(self.raw.as_ptr()) };
        let mut fds = [socket, wake].map(|fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 });
        let limit = c_int::try_from(limit.as_millis()).unwrap_or(c_int::MAX);
        // SAFETY: two pollfds that live through the call.
        let ready = unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, limit) };
        if ready < 0 && std::io::Error::last_os_error().kind() != std::io::ErrorKind::Interrupted {
            return Err(Error::Source(format!("poll: {}", std::io::Error::last_os_error())));
        }
        // SAFETY: the connection is live.
        if fds[0].revents != 0 && unsafe { PQconsumeInput(self.raw.as_ptr()) } != 1 {
            return Err(Error::Source(self.message()));
        }
        Ok(())
    }

    /// Sends a message into a copy.
    pub fn put(&mut self, bytes: &[u8]) -> Result<()> {
        let length = c_int::try_from(bytes.len()).map_err(|_| Error::Source("a message is too long".into()))?;
        // SAFETY: live connection; libpq copies the bytes.
        let put = unsafe { PQputCopyData(self.raw.as_ptr(), bytes.as_ptr().cast(), length) };
        // SAFETY: live connection.
        if put != 1 || unsafe { PQflush(self.raw.as_ptr()) } < 0 {
            return Err(Error::Source(self.message()));
        }
        Ok(())
    }

    /// Our end of a copy is over.
    pub fn put_end(&mut self) -> Result<()> {
        // SAFETY: live connection; null means no error.
        match unsafe { PQputCopyEnd(self.raw.as_ptr(), ptr::null()) } {
            1 => Ok(()),
            _ => Err(Error::Source(self.message())),
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // SAFETY: live until here, finished once.
        unsafe { PQfinish(self.raw.as_ptr()) }
    }
}

struct Results(NonNull<PGresult>);

impl Results {
    fn rows(&self) -> Vec<Vec<Option<String>>> {
        let raw = self.0.as_ptr();
        // SAFETY: a live result.
        let (rows, columns) = unsafe { (PQntuples(raw), PQnfields(raw)) };
        let value = |row, column| {
            // SAFETY: row and column lie within the result; the string is copied while it lives.
            unsafe { (PQgetisnull(raw, row, column) == 0).then(|| copied(PQgetvalue(raw, row, column))) }
        };
        (0..rows).map(|row| (0..columns).map(|column| value(row, column)).collect()).collect()
    }

    fn error(&self, connection: &Connection) -> Error {
        // SAFETY: a live result; both strings are copied while it lives, null is taken for empty.
        let (message, sqlstate) = unsafe {
            (copied(PQresultErrorMessage(self.0.as_ptr())), copied(PQresultErrorField(self.0.as_ptr(), PG_DIAG_SQLSTATE)))
        };
        if sqlstate.is_empty() {
            return Error::Source(if message.is_empty() { connection.message() } else { one_line(&message) });
        }
        Error::SourceSays { sqlstate, message: one_line(&message) }
    }
}

impl Drop for Results {
    fn drop(&mut self) {
        // SAFETY: a live result, cleared once.
        unsafe { PQclear(self.0.as_ptr()) }
    }
}

/// What a connection string says, its password left out: for people to read.
pub fn without_password(conninfo: &str) -> Result<String> {
    let refused = |why: String| Error::Refused(format!("the connection string is not one: {why}"));
    let text = CString::new(conninfo).map_err(|_| refused("it has a zero byte".into()))?;
    let mut error: *mut c_char = ptr::null_mut();
    // SAFETY: a C string, and a place for a message, which is freed below.
    let options = unsafe { PQconninfoParse(text.as_ptr(), &mut error) };
    let Some(first) = NonNull::new(options) else {
        let why = one_line(&copied(error));
        // SAFETY: null, or allocated by PQconninfoParse.
        unsafe { PQfreemem(error.cast()) };
        return Err(refused(why));
    };
    let mut said = Vec::new();
    let mut at = first.as_ptr();
    // SAFETY: the array ends with an entry whose keyword is null; it lives until PQconninfoFree below.
    unsafe {
        while !(*at).keyword.is_null() {
            let (keyword, value) = (copied((*at).keyword), copied((*at).val));
            // dispchar "*" marks what is secret.
            if !value.is_empty() && !copied((*at).dispchar).contains('*') {
                said.push(format!("{keyword}={value}"));
            }
            at = at.add(1);
        }
        PQconninfoFree(first.as_ptr());
    }
    Ok(said.join(" "))
}

/// A C string as ours; empty for null.
fn copied(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: libpq's strings end with a zero byte and live as long as what they were asked of.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

fn one_line(text: &str) -> String {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connection_strings_of_both_forms_are_shown_without_their_password() {
        let shown = without_password("postgres://joe:secret@db.example:5433/app").unwrap();
        assert_eq!(shown, "user=joe dbname=app host=db.example port=5433");
        assert_eq!(without_password("host=/tmp password=x").unwrap(), "host=/tmp");
        assert!(without_password("host").is_err());
    }

    #[test]
    fn a_server_that_is_not_there_is_an_error_in_one_line() {
        let error = Connection::replication("host=127.0.0.1 port=1").err().unwrap().to_string();
        assert!(error.contains("127.0.0.1") && !error.contains('\n'), "{error}");
    }
}
