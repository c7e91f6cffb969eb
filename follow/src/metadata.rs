//! The one thing a follower tells the pageserver's HTTP API: which safekeepers have its timeline.

use crate::config::Config;
use crate::error::{Error, Result};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(30);
/// Longest answer that is looked at.
const ANSWER_BYTES_MAX: u64 = 64 << 10;

/// Adds `members` to the branch's safekeepers. Durable when this returns.
pub fn put_safekeepers(config: &Config, timeline: &str, members: &[u64]) -> Result<()> {
    let body = serde_json::json!({ "members": members }).to_string();
    let path = format!("/v1/tenants/{}/branches/{timeline}/safekeepers", config.settings.tenant_id);
    let (status, said) = request(config, "PUT", &path, &body)?;
    if (200..300).contains(&status) {
        return Ok(());
    }
    Err(Error::Backup(format!("the pageserver answered PUT {path} with {status}: {said}")))
}

fn request(config: &Config, method: &str, path: &str, body: &str) -> Result<(u16, String)> {
    let broken = |source| Error::Broken { peer: format!("the pageserver's API at {}", config.http), source };
    let mut stream = TcpStream::connect_timeout(&config.http, TIMEOUT).map_err(|source| Error::Unreachable {
        peer: "the pageserver's API".into(),
        address: config.http,
        source,
    })?;
    let ask = || {
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            config.http,
            body.len()
        );
        stream.write_all(head.as_bytes())?;
        stream.write_all(body.as_bytes())?;
        let mut answer = Vec::new();
        stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
        Ok(answer)
    };
    let answer = ask().map_err(broken)?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, said) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| Error::Backup(format!("the pageserver's API at {} answers no HTTP", config.http)))?;
    Ok((status, said.trim().to_string()))
}
