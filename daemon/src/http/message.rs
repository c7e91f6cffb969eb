//! A request and its answer, whole in memory.

use hyper::Method;
use serde::Serialize;

/// A request whose body is here.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: Method,
    /// As sent, still percent-encoded.
    pub path: String,
    /// What stands behind the `?`, as sent.
    pub query: String,
    pub body: Vec<u8>,
}

/// An answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Response {
    /// 200 to 599.
    pub status: u16,
    /// JSON, or nothing.
    pub body: Vec<u8>,
    /// The header `Allow`, which says what to do about a 405.
    pub allow: Option<String>,
}

impl Response {
    /// `body` as JSON.
    pub fn json(status: u16, body: &impl Serialize) -> Response {
        // What we answer with has text for keys, the only thing that could fail.
        let body = serde_json::to_vec(body)
            .unwrap_or_else(|error| format!("{{\"error\":{{\"code\":\"internal\",\"message\":\"{error}\"}}}}").into_bytes());
        Response { status, body, allow: None }
    }

    /// `{"error":{"code":...,"message":...}}`, the form of every error.
    pub fn error(status: u16, code: &str, message: impl Into<String>) -> Response {
        #[derive(Serialize)]
        struct Body<'a> {
            error: Error<'a>,
        }
        #[derive(Serialize)]
        struct Error<'a> {
            code: &'a str,
            message: String,
        }
        Response::json(status, &Body { error: Error { code, message: message.into() } })
    }
}
