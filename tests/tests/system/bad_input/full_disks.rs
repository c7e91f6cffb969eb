//! A full disk under each of the three: nothing acknowledged is lost, the log says what is the matter, and
//! with room again a restart resumes.

use super::disk::Disk;
use super::{MINUTE, assert_no_panic, commits_survive, log_of, wait_logged};
use crate::crash::{assert_all_there, commits_during};
use ironpage_tests::{Cluster, Outcome, Process, eventually};
use std::fs::OpenOptions;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Writes so many MB of WAL and commits.
fn bulk(mb: u32) -> String {
    format!("insert into bulk select repeat(md5(g::text), 60) from generate_series(1, {}) g", mb * 500)
}

fn cluster(name: &str) -> Cluster {
    let cluster = Cluster::up(name);
    cluster.set_and_restart(&[("ironpage.fence_after_ms", "600000"), ("ironpage.cache_size", "16MB"), ("shared_buffers", "8MB")]);
    cluster.sql("create table acked(i bigint primary key)");
    cluster.sql("create table bulk(pad text)");
    cluster.sql("alter table bulk alter pad set storage external");
    cluster
}

fn pid(process: &Process) -> i32 {
    process.pid.unwrap_or_else(|| panic!("{process:?} has no pid"))
}

#[test]
fn a_safekeeper_without_space_acknowledges_nothing_and_comes_back() {
    let cluster = cluster("full-safekeeper");
    cluster.must(&["down"]);
    let safekeepers = || [cluster.nth("safekeeper", 0), cluster.nth("safekeeper", 1)];
    let disks = safekeepers().map(|safekeeper| Disk::under(&safekeeper.data_dir, 200));
    cluster.start();
    let [one, other] = safekeepers();
    let mut told = commits_survive(&cluster, 1, || {
        disks[0].fill(&[pid(&one)]);
        cluster.sql(&bulk(48));
        wait_logged(&one, &["ERROR", "nothing more is acknowledged", disks[0].error()]);
    });
    // The second takes the quorum with it.
    let mut waiting = cluster.session();
    told.append(&mut commits_survive(&cluster, 2, || {}));
    disks[1].fill(&[pid(&other)]);
    waiting.send(&bulk(48));
    wait_logged(&other, &["ERROR", "nothing more is acknowledged", disks[1].error()]);
    assert_eq!(waiting.answer(Duration::from_secs(2)), Outcome::Waiting);
    let mut later = cluster.session();
    assert_eq!(later.run("insert into acked values (1)", Duration::from_secs(2)), Outcome::Waiting);
    assert_eq!([one.pid, other.pid], safekeepers().map(|safekeeper| safekeeper.pid), "they say what is wrong, and live");

    for (disk, safekeeper) in disks.iter().zip(safekeepers()) {
        disk.free(&[pid(&safekeeper)]);
        cluster.kill(&safekeeper);
    }
    cluster.start();
    assert_eq!(waiting.answer(MINUTE), Outcome::Success(String::new()));
    assert_eq!(later.answer(MINUTE), Outcome::Success(String::new()));
    cluster.wait_safekeepers_level(MINUTE);
    // They are a quorum by themselves: whatever the third alone had is here.
    cluster.kill(&cluster.nth("safekeeper", 2));
    cluster.must(&["endpoint", "stop", "main"]);
    cluster.must(&["endpoint", "start", "main"]);
    assert_all_there(&cluster, &told);
    assert_eq!(cluster.sql("select count(*) from bulk"), (2 * 48 * 500).to_string());
    assert_no_panic(&cluster);
}

/// The pageserver as the cluster started it, but with little memory, so that it writes soon.
struct Small {
    child: Child,
}

impl Small {
    fn in_place_of(pageserver: &Process, cluster: &Cluster) -> Small {
        let arguments = std::fs::read(format!("/proc/{}/cmdline", pid(pageserver))).unwrap();
        let arguments = String::from_utf8(arguments).unwrap();
        let mut arguments = arguments.trim_end_matches('\0').split('\0');
        let mut command = Command::new(arguments.next().unwrap());
        command.args(arguments).args(["--memory-layer-mib", "8"]);
        cluster.kill(pageserver);
        let log = OpenOptions::new().append(true).open(&pageserver.log).unwrap();
        Small { child: command.stdin(Stdio::null()).stderr(log).spawn().unwrap() }
    }

    fn pid(&self) -> i32 {
        self.child.id() as i32
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_pageserver_without_space_serves_on_and_catches_up() {
    let cluster = cluster("full-pageserver");
    cluster.must(&["down"]);
    let disk = Disk::under(&cluster.nth("pageserver", 0).data_dir, 300);
    cluster.start();
    let pageserver = cluster.nth("pageserver", 0);
    let small = Small::in_place_of(&pageserver, &cluster);
    cluster.sql(&bulk(40));
    assert!(log_of(&pageserver.log).matches("listening on").count() >= 2, "the second pageserver runs");
    let told = commits_survive(&cluster, 1, || {
        disk.fill(&[small.pid()]);
        cluster.sql(&bulk(40));
        wait_logged(&pageserver, &["ERROR", "make room", disk.error()]);
    });
    // What it has it serves, and the rest is in the cache.
    let fetched = cluster.counter("fetches");
    assert_eq!(cluster.sql("select count(*), count(md5(pad)) from bulk"), "40000|40000");
    assert!(cluster.counter("fetches") > fetched, "no read came from the pageserver");
    assert_all_there(&cluster, &told);

    disk.free(&[small.pid()]);
    drop(small);
    cluster.start();
    cluster.must(&["endpoint", "stop", "main"]);
    cluster.must(&["endpoint", "start", "main"]);
    assert_all_there(&cluster, &told);
    assert_eq!(cluster.sql("select count(*), count(md5(pad)) from bulk"), "40000|40000");
    assert_no_panic(&cluster);
}

/// The postmaster and all it started.
fn family(postmaster: i32) -> Vec<i32> {
    let children = std::fs::read_to_string(format!("/proc/{postmaster}/task/{postmaster}/children")).unwrap_or_default();
    std::iter::once(postmaster).chain(children.split_whitespace().map(|pid| pid.parse().unwrap())).collect()
}

#[test]
fn a_compute_without_space_loses_nothing_it_acknowledged() {
    let cluster = cluster("full-compute");
    let directory = cluster.process("postgres", "main").data_dir.parent().unwrap().to_path_buf();
    cluster.must(&["down"]);
    let disk = Disk::under(&directory, 300);
    cluster.start();
    let told = commits_during(&cluster, 1, || {
        cluster.sql(&bulk(1));
        let postgres = cluster.process("postgres", "main");
        disk.fill(&family(pid(&postgres)));
        let error = cluster.try_sql(&bulk(100)).expect_err("100 MB found no room");
        assert!(error.contains(disk.error()) || error.contains("connection"), "{error}");
        wait_logged(&postgres, &[disk.error()]);
    });
    disk.free(&[]);
    let back = || cluster.ironpage(&["endpoint", "start", "main"]).status.success() && cluster.try_sql("select 1").is_ok();
    eventually("the endpoint is back", MINUTE, || back().then_some(()));
    assert_all_there(&cluster, &told);
    assert_eq!(cluster.sql("select count(*) from bulk"), "500");
    commits_survive(&cluster, 2, || drop(cluster.sql(&bulk(20))));
    assert_no_panic(&cluster);
}
