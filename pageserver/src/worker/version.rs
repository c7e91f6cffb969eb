//! Which Postgres a binary is.

use super::WorkerError;
use ironpage_io::process::Child;
use ironpage_io::time::timeout;
use std::path::Path;
use std::time::Duration;

const ANSWER_MAX: Duration = Duration::from_secs(10);

/// The version `postgres` says it has, like `15.20 (Debian 15.20-0+deb12u1)`. An error unless it is a 15.
pub async fn check_version(postgres: &Path) -> Result<String, WorkerError> {
    let failed = |error: String| WorkerError::Start { program: postgres.display().to_string(), error };
    let mut child = Child::spawn(postgres, ["--version"], [("LC_ALL", "C")]).map_err(|error| failed(error.to_string()))?;
    let Some(mut stdout) = child.stdout.take() else { return Err(failed("it has no output".into())) };
    let mut text = Vec::new();
    let reading = timeout(ANSWER_MAX, async {
        while text.len() < 4096 && stdout.read_into(&mut text, 4096).await.is_ok_and(|count| count > 0) {}
    });
    reading.await.map_err(|_| failed("it does not answer to --version".into()))?;
    let text = String::from_utf8_lossy(&text);
    // "postgres (PostgreSQL) 15.20 (Debian 15.20-0+deb12u1)"
    let version = text.split_once("(PostgreSQL) ").map(|(_, version)| version.trim());
    match version {
        Some(version) if version.starts_with("15.") => Ok(version.to_string()),
        other => {
            Err(WorkerError::Version { path: postgres.to_path_buf(), found: other.unwrap_or("of unknown version").to_string() })
        }
    }
}
