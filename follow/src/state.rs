//! What a follower must not forget: which timeline it fills, from which source, and how far making it came.

use crate::error::{AtPath, Error, Result};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

const STATE_FILE: &str = "state.json";

/// Durable before what it speaks of happens.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct State {
    /// The slot at the source is ours: made by us, or about to be.
    pub slot_is_ours: bool,
    pub copy: Option<Copy>,
}

/// The base backup that became our timeline.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Copy {
    /// 32 hex digits.
    pub timeline: String,
    pub system_id: u64,
    pub postgres_version: u32,
    /// LSNs as text.
    pub start_lsn: String,
    pub prev_record_lsn: String,
    pub readable_lsn: String,
    /// The pageserver has answered that it is durable.
    pub imported: bool,
    /// Numbers of the safekeepers that have the timeline, and that may never be given it again.
    pub safekeepers: Vec<u64>,
}

impl State {
    pub fn read(dir: &Path) -> Result<State> {
        let path = dir.join(STATE_FILE);
        match fs::read_to_string(&path) {
            Ok(text) => serde_json::from_str(&text).map_err(|error| {
                Error::Refused(format!("{} is damaged: {error}; follow anew into another tenant", path.display()))
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(State::default()),
            Err(error) => Err(error).at("read", &path),
        }
    }

    /// Durable when this returns.
    pub fn write(&self, dir: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self).map_err(|error| Error::Refused(error.to_string()))?;
        let (path, new) = (dir.join(STATE_FILE), dir.join("state.json.new"));
        let mut file = File::create(&new).at("create", &new)?;
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).at("write", &new)?;
        fs::rename(&new, &path).at("rename", &new)?;
        File::open(dir).and_then(|dir| dir.sync_all()).at("flush", dir)
    }
}
