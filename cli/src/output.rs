//! Answers on stdout: for people, or as one line of JSON for scripts.

use crate::error::{Error, Result};
use serde::Serialize;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    People,
    Json,
}

impl Format {
    pub fn of(json: bool) -> Format {
        if json { Format::Json } else { Format::People }
    }
}

/// Prints what was asked for in the form that was.
pub fn answer<T: Serialize>(format: Format, value: &T, people: impl FnOnce() -> String) -> Result<()> {
    match format {
        Format::People => println!("{}", people()),
        Format::Json => {
            let text = serde_json::to_string(value);
            println!("{}", text.map_err(|error| Error::Refused(format!("cannot print the answer as JSON: {error}")))?);
        }
    }
    Ok(())
}
