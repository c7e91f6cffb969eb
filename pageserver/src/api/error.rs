//! Errors as HTTP answers.

use crate::branches::{BranchError, Refusal};
use ironpage_daemon::http::Response;

/// Why a request was refused.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    #[error(transparent)]
    Branch(#[from] BranchError),
    #[error("{0}")]
    BadRequest(String),
    #[error("there is no {0} here: see /openapi.json")]
    NoRoute(String),
    #[error("{method} is not for this path, {allow} is")]
    Method { method: String, allow: String },
}

/// HTTP's status, and the code that says more.
pub fn status_and_code(refusal: Refusal) -> (u16, &'static str) {
    match refusal {
        Refusal::NotFound => (404, "not_found"),
        Refusal::Exists => (409, "exists"),
        Refusal::BadRequest => (400, "bad_request"),
        Refusal::HasChildren => (409, "has_children"),
        Refusal::OutOfRange => (422, "out_of_range"),
        Refusal::Conflict => (409, "conflict"),
        Refusal::Unavailable => (503, "unavailable"),
        Refusal::Internal => (500, "internal"),
    }
}

impl ApiError {
    /// Whether someone should look at it.
    pub fn is_ours(&self) -> bool {
        self.status_and_code().0 >= 500
    }

    fn status_and_code(&self) -> (u16, &'static str) {
        match self {
            ApiError::Branch(error) => status_and_code(error.refusal()),
            ApiError::BadRequest(_) => (400, "bad_request"),
            ApiError::NoRoute(_) => (404, "not_found"),
            ApiError::Method { .. } => (405, "bad_request"),
        }
    }

    pub fn response(&self) -> Response {
        let (status, code) = self.status_and_code();
        let mut response = Response::error(status, code, self.to_string());
        if let ApiError::Method { allow, .. } = self {
            response.allow = Some(allow.clone());
        }
        response
    }
}
