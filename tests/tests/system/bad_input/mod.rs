//! What is not as it should be, from the network, on disk and around the processes: an error that names the
//! thing, no panic, and nothing lost that was acknowledged.

mod disk;
mod files;
mod frames;
mod full_disks;
mod impostors;
mod ports;
mod starts;

use crate::crash::{assert_all_there, commits_during};
use ironpage_tests::{Cluster, Process, eventually, signal, wait_until};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

const MINUTE: Duration = Duration::from_secs(60);

/// No process of the cluster panicked, of which its log would tell.
fn assert_no_panic(cluster: &Cluster) {
    for entry in std::fs::read_dir(cluster.dir.join("logs")).unwrap().flatten() {
        let log = log_of(&entry.path());
        if let Some(at) = log.find("panicked") {
            let end = log[at..].char_indices().nth(500).map_or(log.len(), |(length, _)| at + length);
            panic!("{}: {}", entry.path().display(), &log[at..end]);
        }
    }
}

fn log_of(path: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
}

/// Waits until the process has logged a line that holds all of these.
fn wait_logged(process: &Process, parts: &[&str]) {
    eventually(&format!("{} logs {parts:?}", process.name), MINUTE, || {
        log_of(&process.log).lines().any(|line| parts.iter().all(|part| line.contains(part))).then_some(())
    });
}

/// Whether `ironpage up` says something that holds `part`; it is interrupted then, for it goes on trying
/// what may yet work. False if it succeeds without.
fn up_says(cluster: &Cluster, part: &str) -> bool {
    let mut up = Command::new(Cluster::program("ironpage"));
    up.arg("--dir").arg(&cluster.dir).args(["up", "--detach"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut up = up.spawn().unwrap();
    let mut said = String::new();
    for line in BufReader::new(up.stderr.take().unwrap()).lines() {
        said += &(line.unwrap() + "\n");
        if said.contains(part) {
            signal(up.id() as i32, libc::SIGINT);
        }
    }
    let status = up.wait().unwrap();
    assert!(status.success() || said.contains(part), "{part} is not in {said}");
    said.contains(part)
}

/// The directories `ROOT/<tenant>/<timeline>` of a daemon, which has one timeline.
fn timeline_dir(root: &Path) -> PathBuf {
    let only_id = |dir: &Path| {
        let entries = std::fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
        let mut ids = entries.flatten().map(|entry| entry.path());
        let is_id = |path: &PathBuf| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            name.len() == 32 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
        };
        ids.find(is_id).unwrap_or_else(|| panic!("no id in {}", dir.display()))
    };
    only_id(&only_id(root))
}

/// Commits go on while `disturb` runs, and until some more have passed after it; none of them is lost.
fn commits_survive(cluster: &Cluster, round: u64, disturb: impl FnOnce()) -> BTreeSet<u64> {
    let count = || cluster.sql("select count(*) from acked").parse::<u64>().unwrap();
    let told = commits_during(cluster, round, || {
        let before = count();
        wait_until("commits before", MINUTE, || count() > before + 20);
        disturb();
        let after = count();
        wait_until("commits after", MINUTE, || count() > after + 20);
    });
    assert_all_there(cluster, &told);
    told
}
