//! `branch diff`: what pg_dumpall says of the schemas of two branches, as a unified diff.

use crate::api::Branch;
use crate::cluster::{Cluster, Endpoint, branch_in_words, random};
use crate::connstr;
use crate::endpoint::{self, Stop, lease};
use crate::error::{AtPath, Error, Result};
use crate::files;
use crate::output::{self, Format};
use crate::place::Place;
use crate::programs::Programs;
use crate::progress;
use crate::sys::Signals;
use serde_json::json;
use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

/// How long an endpoint that was started for this may take to end.
const STOP_PATIENCE: Duration = Duration::from_secs(60);
/// Exit code when the schemas differ, as diff(1) has it.
const DIFFERENT: u8 = 1;

pub fn diff(dir: &Path, tenant: &str, a: &str, b: &str, format: Format) -> Result<ExitCode> {
    let cluster = Cluster::open(dir)?;
    let programs = Programs::find()?;
    let signals = Signals::catch(&[libc::SIGINT, libc::SIGTERM, libc::SIGHUP])
        .map_err(|error| Error::Refused(format!("cannot catch signals: {error}")))?;
    // Both exist before anything is started.
    let branches = [Place::find(&cluster, tenant, a)?.branch, Place::find(&cluster, tenant, b)?.branch];
    let scratch = Scratch::new(&cluster)?;
    let mut dumps = Vec::new();
    for (number, branch) in branches.iter().enumerate() {
        let dump = scratch.0.join(number.to_string());
        let text = schema(dir, tenant, branch, &programs, &signals)?;
        fs::write(&dump, text).at("write", &dump)?;
        dumps.push(dump);
    }
    let mut command = Command::new("diff");
    command.arg("-u").args(["--label", a, "--label", b]).args(&dumps).stdin(Stdio::null()).stderr(Stdio::inherit());
    let output = command.output().map_err(|source| Error::Program { program: "diff".into(), source })?;
    let same = match output.status.code() {
        Some(0) => true,
        Some(1) => false,
        _ => return Err(Error::Refused(format!("diff failed ({})", output.status))),
    };
    let text = String::from_utf8_lossy(&output.stdout);
    match format {
        Format::Json => output::answer(format, &json!({ "same": same, "diff": text }), String::new)?,
        Format::People => print!("{text}"),
    }
    Ok(if same { ExitCode::SUCCESS } else { ExitCode::from(DIFFERENT) })
}

/// Files of this command alone, gone when it ends.
struct Scratch(PathBuf);

impl Scratch {
    fn new(cluster: &Cluster) -> Result<Scratch> {
        let dir = cluster.run().join(format!("diff-{}", std::process::id()));
        files::remove_if_there(&dir)?;
        DirBuilder::new().mode(0o700).create(&dir).at("create directory", &dir)?;
        Ok(Scratch(dir))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = files::remove_if_there(&self.0);
    }
}

/// The schema of all databases of a branch, from the endpoint that runs on it or one that runs for this alone.
fn schema(dir: &Path, tenant: &str, branch: &Branch, programs: &Programs, signals: &Signals) -> Result<String> {
    let cluster = Cluster::open(dir)?;
    if let Some(endpoint) = connstr::serving(&cluster, tenant, &branch.name) {
        return dump(&cluster, endpoint, programs);
    }
    let temporary = Temporary::start(dir, tenant, branch, programs, signals)?;
    let text = dump(&temporary.cluster, &temporary.endpoint, programs);
    temporary.end()?;
    text
}

fn dump(cluster: &Cluster, endpoint: &Endpoint, programs: &Programs) -> Result<String> {
    let program = programs.postgres("pg_dumpall");
    let mut command = Command::new(&program);
    // Tablespaces lie inside their endpoint: their places differ and mean nothing.
    command.args(["--schema-only", "--no-role-passwords", "--no-tablespaces", "-w", "-d"]).arg(connstr::of(cluster, endpoint));
    let output = command.stdin(Stdio::null()).output().map_err(|source| Error::Program { program, source })?;
    if !output.status.success() {
        return Err(Error::Endpoint(format!(
            "pg_dumpall of endpoint '{}' failed ({}): {}",
            endpoint.name,
            output.status,
            String::from_utf8_lossy(&output.stderr).trim_end()
        )));
    }
    Ok(comparable(&String::from_utf8_lossy(&output.stdout)))
}

/// Without the lines whose key is another in each dump: \restrict of pg_dump since 15.14.
fn comparable(dump: &str) -> String {
    let random = |line: &str| line.starts_with("\\restrict ") || line.starts_with("\\unrestrict ");
    dump.lines().filter(|line| !random(line)).fold(String::new(), |text, line| text + line + "\n")
}

/// An endpoint that runs for this command alone, read-only: a branch that nobody may write to has a schema too, and the
/// comparison leaves no trace in any history.
struct Temporary {
    cluster: Cluster,
    endpoint: Endpoint,
}

impl Temporary {
    fn start(dir: &Path, tenant: &str, branch: &Branch, programs: &Programs, signals: &Signals) -> Result<Temporary> {
        let mut suffix = [0; 4];
        random(&mut suffix)?;
        let name = format!("diff-{:08x}", u32::from_le_bytes(suffix));
        progress::line(&format!("no endpoint runs on {}: starting one for this", branch_in_words(tenant, &branch.name)));
        let (mut cluster, lock) = Cluster::locked(dir)?;
        let mut endpoint = cluster.endpoint_for(&name, tenant, &branch.name)?;
        let snapshot = lease::create(&cluster, tenant, &name, &branch.id.to_string(), None)?;
        endpoint.at = Some(lease::point_of(&snapshot.branch)?);
        cluster.update_endpoint(&endpoint);
        cluster.save()?;
        drop(lock);
        let temporary = Temporary { cluster, endpoint };
        match endpoint::start(&temporary.cluster, &temporary.endpoint, programs, signals) {
            Ok(_) => Ok(temporary),
            Err(error) => {
                // The first failure is the one to tell.
                let _ = temporary.end();
                Err(error)
            }
        }
    }

    fn end(self) -> Result<()> {
        endpoint::stop(&self.cluster, &self.endpoint, Stop::Fast, STOP_PATIENCE)?;
        lease::release_of_stopped(&self.cluster, &self.endpoint);
        let (mut cluster, _lock) = Cluster::locked(&self.cluster.dir)?;
        cluster.forget_endpoints(|endpoint| endpoint.name == self.endpoint.name)
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn two_dumps_of_one_schema_compare_equal() {
        let dump = |key: &str| format!("-- Roles\n\\restrict {key}\nCREATE TABLE t();\n\\unrestrict {key}\n");
        assert_eq!(super::comparable(&dump("abc")), super::comparable(&dump("xyz")));
        assert_eq!(super::comparable("a\nb"), "a\nb\n");
    }
}
