//! What a follower is told when it starts.

use crate::client::Peer;
use crate::error::{AtPath, Error, Result};
use ironpage_layout::TenantId;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Name of [`Settings`] in a follower's directory.
pub const SETTINGS_FILE: &str = "settings.json";

/// Whom to follow, and into what: a file of its own, because a connection string may hold a password.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Settings {
    /// As libpq takes it.
    pub source: String,
    pub slot: String,
    /// Name and number (32 hex digits) of the tenant.
    pub tenant: String,
    pub tenant_id: String,
    /// Name of the branch.
    pub branch: String,
}

/// All of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    pub dir: PathBuf,
    pub settings: Settings,
    pub tenant: TenantId,
    /// In the order of their numbers.
    pub safekeepers: Vec<Peer>,
    pub pageserver: Peer,
    /// Where the pageserver's HTTP API listens.
    pub http: SocketAddr,
}

impl Config {
    /// `safekeepers` are addresses separated by commas.
    pub fn read(dir: &Path, safekeepers: &str, pageserver: &str, http: &str) -> Result<Config> {
        let path = dir.join(SETTINGS_FILE);
        let bad = |why: String| Error::Refused(format!("{}: {why}", path.display()));
        let text = std::fs::read_to_string(&path).at("read", &path)?;
        let settings: Settings = serde_json::from_str(&text).map_err(|error| bad(error.to_string()))?;
        let tenant = settings.tenant_id.parse().map_err(|_| bad("tenant_id is not 32 hex digits".into()))?;
        let address = |text: &str| {
            text.parse::<SocketAddr>().map_err(|_| Error::Refused(format!("'{text}' is no address like 127.0.0.1:25433")))
        };
        let safekeepers: Vec<Peer> = safekeepers
            .split(',')
            .enumerate()
            .map(|(index, text)| Ok(Peer { name: format!("safekeeper-{}", index + 1), address: address(text)? }))
            .collect::<Result<_>>()?;
        let pageserver = Peer { name: "pageserver-1".into(), address: address(pageserver)? };
        Ok(Config { dir: dir.to_path_buf(), settings, tenant, safekeepers, pageserver, http: address(http)? })
    }
}
