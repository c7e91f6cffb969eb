//! Paths, queries and bodies, as whoever sent them.

use super::error::ApiError;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;

fn bad(why: impl Into<String>) -> ApiError {
    ApiError::BadRequest(why.into())
}

/// The parts of a path, decoded one by one: an encoded slash is part of a name and no separator.
pub fn path(path: &str) -> Result<Vec<String>, ApiError> {
    let rest = path.strip_prefix('/').ok_or_else(|| bad("the path does not begin with '/'"))?;
    rest.split('/').map(|part| percent_decode(part, "path")).collect()
}

fn percent_decode(text: &str, what: &str) -> Result<String, ApiError> {
    let wrong = || bad(format!("the {what} has a '%' without two hexadecimal digits, or is no UTF-8"));
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, after) = rest.split_at_checked(2).ok_or_else(wrong)?;
        let digits = std::str::from_utf8(digits).ok().filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
        bytes.push(digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()).ok_or_else(wrong)?);
        rest = after;
    }
    String::from_utf8(bytes).map_err(|_| wrong())
}

/// The query's parameters.
#[derive(Debug)]
pub struct Query(BTreeMap<String, String>);

impl Query {
    pub fn parse(query: &str) -> Result<Query, ApiError> {
        let mut parameters = BTreeMap::new();
        for part in query.split('&').filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let (name, value) = (percent_decode(name, "query")?, percent_decode(value, "query")?);
            if parameters.insert(name, value).is_some() {
                return Err(bad("a parameter of the query is there twice"));
            }
        }
        Ok(Query(parameters))
    }

    /// No parameters are taken here.
    pub fn none(&self) -> Result<(), ApiError> {
        self.only(&[])
    }

    /// Refuses what nobody would look at.
    pub fn only(&self, known: &[&str]) -> Result<(), ApiError> {
        match self.0.keys().find(|name| !known.contains(&name.as_str())) {
            None => Ok(()),
            Some(name) if known.is_empty() => Err(bad(format!("'{}': nothing is asked in the query here", name.escape_debug()))),
            Some(name) => Err(bad(format!("'{}' is not asked here, {} is", name.escape_debug(), known.join(", ")))),
        }
    }

    /// A parameter that must be there.
    pub fn required<T: std::str::FromStr>(&self, name: &str, form: &str) -> Result<T, ApiError> {
        let text = self.0.get(name).ok_or_else(|| bad(format!("the query has no {name}=, which is {form}")))?;
        text.parse().map_err(|_| bad(format!("{name}='{}' is not {form}", text.escape_debug())))
    }

    /// False if it is not there.
    pub fn flag(&self, name: &str) -> Result<bool, ApiError> {
        match self.0.get(name).map(String::as_str) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(other) => Err(bad(format!("{name}='{}' is neither true nor false", other.escape_debug()))),
        }
    }
}

/// The body, an object with known fields.
pub fn body<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(bad("the body is empty; it is to be a JSON object"));
    }
    serde_json::from_slice(bytes).map_err(|error| bad(format!("the body: {error}")))
}

/// As [`body`], or all fields left out.
pub fn body_or_default<T: DeserializeOwned + Default>(bytes: &[u8]) -> Result<T, ApiError> {
    if bytes.iter().all(u8::is_ascii_whitespace) { Ok(T::default()) } else { body(bytes) }
}

/// Tells `null` from a field that is not there, with `#[serde(default)]`.
pub fn nullable<'de, D: serde::Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(from).map(Some)
}
