//! The pageserver ends in the midst of a change, wherever that can make a difference: the change is made or it is not, and
//! can be made then.
//!
//! `pageserver --list-fault-points` says where it can be had to end, which the programs that `./dev test` builds can.

use super::{start, stop};
use crate::amount;
use ironpage_tests::{Cluster, Process, wait_until};
use serde_json::Value;
use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

const MINUTE: Duration = Duration::from_secs(60);
/// How long what is half at a start may take to be ended.
const HALF_MAX: Duration = Duration::from_secs(20);

/// What the pageserver is doing when it ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Change {
    /// A tenant, with the import of its branch main.
    Tenant,
    CreateAtHead,
    CreateInThePast,
    Reset,
    Restore,
    Delete,
    /// A branch's own end at its time.
    Expiry,
    Rename,
    DeleteTenant,
}

/// Which changes pass a point, and whether they are made if the process ends there.
fn passing(point: &str) -> (Vec<Change>, bool) {
    let (operation, step) = point.rsplit_once('-').unwrap_or_else(|| panic!("{point} is named like no fault point"));
    let changes = match operation {
        "import" => vec![Change::Tenant],
        "branch-create" => vec![Change::CreateAtHead, Change::CreateInThePast],
        "branch-reset" => vec![Change::Reset],
        "branch-restore" => vec![Change::Restore],
        "branch-delete" => vec![Change::Delete, Change::Expiry],
        "tenant-delete" => vec![Change::DeleteTenant],
        "metadata" => vec![Change::Rename],
        _ => panic!("{point} is new: say here which command passes it"),
    };
    let is_made = match (operation, step) {
        ("branch-delete" | "tenant-delete", _) | (_, "active" | "switched" | "written" | "rewritten") => true,
        (_, "journalled" | "made" | "unwritten") => false,
        _ => panic!("{point} is new: say here whether the change is made then"),
    };
    (changes, is_made)
}

fn fault_points() -> Vec<String> {
    let program = Cluster::program("pageserver");
    let output = Command::new(&program).arg("--list-fault-points").output().expect("running the pageserver");
    assert!(
        output.status.success(),
        "{} is built without fault points: `./dev test` builds it with them (cargo's --features ironpage-pageserver/fault-points)",
        program.display()
    );
    String::from_utf8_lossy(&output.stdout).lines().map(String::from).collect()
}

/// A cluster whose pageserver the test starts and ends itself.
struct World {
    pageserver: Child,
    /// As the cluster started it.
    process: Process,
    line: Command,
    /// What table t has on main, and on branch f if there is one; numbers are never used twice.
    main: Vec<u64>,
    f: Option<Vec<u64>>,
    last: u64,
    cluster: Cluster,
}

impl Drop for World {
    fn drop(&mut self) {
        // Before the cluster is destroyed, which ends what it knows.
        let _ = self.pageserver.kill();
        let _ = self.pageserver.wait();
    }
}

impl World {
    fn new() -> World {
        let cluster = Cluster::up("branch-faults");
        let process = cluster.nth("pageserver", 0);
        let mut line = cluster.command_of(&process);
        cluster.kill(&process);
        let pageserver = line.spawn().expect("starting the pageserver");
        let mut world = World { pageserver, process, line, main: Vec::new(), f: None, last: 0, cluster };
        world.cluster.sql("create table t(i bigint primary key)");
        world.insert("main");
        world
    }

    fn kill(&mut self) {
        self.pageserver.kill().expect("it is ours");
        self.pageserver.wait().expect("it was killed");
    }

    /// Starts the pageserver, which ends at `fault` if one is given, and waits until it answers.
    fn start(&mut self, fault: Option<&str>) {
        match fault {
            Some(point) => self.line.env("IRONPAGE_FAULT", point),
            None => self.line.env_remove("IRONPAGE_FAULT"),
        };
        self.pageserver = self.line.spawn().expect("starting the pageserver");
        wait_until("the pageserver answers", MINUTE, || self.cluster.ironpage(&["branch", "list"]).status.success());
    }

    /// Waits until the process ended by itself at the point, which its log says.
    fn assert_ended_at(&mut self, point: &str) {
        let mut ended = None;
        wait_until(&format!("the pageserver ends at {point}"), MINUTE, || {
            ended = self.pageserver.try_wait().expect("it is ours");
            ended.is_some()
        });
        assert_eq!(ended.and_then(|status| status.signal()), Some(libc::SIGABRT), "{point}");
        let log = std::fs::read(&self.process.log).unwrap();
        let log = String::from_utf8_lossy(&log);
        let last = log.lines().last().unwrap_or_default();
        assert!(last.contains(&format!("fault point {point}: the process ends here")), "{point}: its log ends with {last}");
    }

    fn insert(&mut self, endpoint: &str) {
        self.last += 1;
        self.cluster.sql_on(endpoint, &format!("insert into t values ({})", self.last));
        let rows = if endpoint == "main" { &mut self.main } else { self.f.get_or_insert_default() };
        rows.push(self.last);
    }

    fn assert_rows(&self, endpoint: &str, rows: &[u64], after: &str) {
        let wanted: Vec<_> = rows.iter().map(u64::to_string).collect();
        let shown = self.cluster.sql_on(endpoint, "select string_agg(i::text, ',' order by i) from t");
        assert_eq!(shown, wanted.join(","), "endpoint {endpoint} after {after}");
    }

    /// Branch f, with a row of its own, known to the safekeepers.
    fn make_f(&mut self) {
        if self.f.is_none() {
            self.cluster.must(&["branch", "create", "f"]);
            self.f = Some(self.main.clone());
            start(&self.cluster, "f");
            self.insert("f");
            stop(&self.cluster, "f");
        }
    }

    fn delete_f(&mut self) {
        if self.f.take().is_some() {
            self.cluster.must(&["branch", "delete", "f"]);
        }
    }

    /// Branch f has what it should, from nothing but what is kept outside, and takes writes.
    fn check_f(&mut self, after: &str) {
        start(&self.cluster, "f");
        self.assert_rows("f", self.f.as_deref().unwrap_or_default(), after);
        self.insert("f");
        stop(&self.cluster, "f");
    }

    fn tenants(&self) -> Vec<Value> {
        self.cluster.json(&["tenant", "list"]).as_array().unwrap().clone()
    }

    fn branches_of(&self, tenant: &str) -> Vec<Value> {
        self.cluster.json(&["--tenant", tenant, "branch", "list"]).as_array().unwrap().clone()
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = self.branches_of("main").iter().map(|branch| text(&branch["name"])).collect();
        names.sort();
        names
    }

    /// Nothing is on disk but what the metadata has, anywhere, and nothing is being made or deleted, within a while.
    fn assert_nothing_is_half(&self, after: &str) {
        let begun = Instant::now();
        while let Err(half) = self.whole() {
            assert!(begun.elapsed() < HALF_MAX, "{half}, {HALF_MAX:?} after {after}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn whole(&self) -> Result<(), String> {
        let is_half = |it: &&Value| it["state"] != "active";
        let tenants = self.tenants();
        if let Some(half) = tenants.iter().find(is_half) {
            return Err(half.to_string());
        }
        let mut branches = Vec::new();
        for tenant in &tenants {
            let of_it = self.branches_of(&text(&tenant["name"]));
            branches.extend(of_it.into_iter().map(|branch| (text(&tenant["id"]), branch)));
        }
        if let Some(half) = branches.iter().map(|(_, branch)| branch).find(is_half) {
            return Err(half.to_string());
        }
        let daemons = self.cluster.status().processes.into_iter().filter(|process| process.kind != "postgres");
        for daemon in daemons {
            let number = daemon.name.rsplit_once('-').and_then(|(_, number)| number.parse::<u64>().ok()).expect("a number");
            let has = |branch: &Value| {
                daemon.kind == "pageserver" || branch["safekeepers"].as_array().unwrap().contains(&Value::from(number))
            };
            let wanted = branches.iter().filter(|(_, branch)| has(branch));
            let wanted: BTreeSet<_> = wanted.map(|(tenant, branch)| format!("{tenant}/{}", text(&branch["id"]))).collect();
            let found = timelines_in(&daemon);
            if found != wanted {
                return Err(format!("{} has {found:?} instead of {wanted:?}", daemon.name));
            }
            // Safekeepers know no tenants; they keep the empty directory for the next timeline.
            if daemon.kind == "safekeeper" {
                continue;
            }
            let is_tenant = |path: &PathBuf| tenants.iter().any(|tenant| path.ends_with(text(&tenant["id"])));
            if let Some(stranger) = ids_in(&daemon.data_dir).iter().find(|path| !is_tenant(path)) {
                return Err(format!("{} stands for no tenant", stranger.display()));
            }
        }
        Ok(())
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text")).to_string()
}

/// The directories of tenants or, in one of these, of timelines.
fn ids_in(path: &Path) -> Vec<PathBuf> {
    let is_id = |path: &PathBuf| path.file_name().is_some_and(|name| name.len() == 32 && path.is_dir());
    std::fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path()).filter(is_id).collect()
}

/// `TENANT/TIMELINE` of every directory of a timeline.
fn timelines_in(daemon: &Process) -> BTreeSet<String> {
    let timelines = ids_in(&daemon.data_dir).into_iter().flat_map(|tenant| ids_in(&tenant));
    timelines.map(|path| path.strip_prefix(&daemon.data_dir).unwrap().to_string_lossy().into_owned()).collect()
}

impl World {
    /// One change, in the midst of which the pageserver ends at the point.
    fn walk(&mut self, point: &str, change: Change, is_made: bool) {
        let what = format!("{change:?} to {point}");
        eprintln!("{what}");
        let at = self.prepare(change);
        let before = self.branches_of("main");
        let command = arguments(change, &at);
        let command: Vec<&str> = command.iter().map(String::as_str).collect();

        self.kill();
        self.start(Some(point));
        let output = self.cluster.ironpage(&command);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if change == Change::Expiry {
            assert!(output.status.success(), "{what}: {said}");
        } else {
            // Nobody was told that it is made, nor anything that is not so.
            assert_eq!(output.status.code(), Some(1), "{what}: {said}");
            assert!(!said.contains("panicked"), "{what}: {said}");
        }
        self.assert_ended_at(point);
        self.start(None);

        self.assert_nothing_is_half(&what);
        self.account(change, is_made, &what, &before);
        self.insert("main");
        self.assert_rows("main", &self.main, &what);
        self.again(change, is_made, &what, &command);
        self.assert_nothing_is_half(&format!("{what}, and once more"));
    }

    /// What the change needs; an LSN of the past, if it wants one.
    fn prepare(&mut self, change: Change) -> String {
        let lsn = |world: &World, endpoint: &str| world.cluster.sql_on(endpoint, "select pg_current_wal_insert_lsn()");
        match change {
            Change::CreateAtHead | Change::Expiry => self.delete_f(),
            Change::CreateInThePast => {
                self.delete_f();
                let at = lsn(self, "main");
                // It is not the head, and not in it.
                self.insert("main");
                return at;
            }
            Change::Reset | Change::Delete | Change::Rename => self.make_f(),
            Change::Restore => {
                self.make_f();
                start(&self.cluster, "f");
                let at = lsn(self, "f");
                self.insert("f");
                stop(&self.cluster, "f");
                return at;
            }
            Change::Tenant => {
                if self.tenants().len() > 1 {
                    self.cluster.must(&["tenant", "delete", "acme", "--recursive"]);
                }
            }
            Change::DeleteTenant => {
                if self.tenants().len() == 1 {
                    self.cluster.must(&["tenant", "create", "acme"]);
                }
                self.cluster.must(&["--tenant", "acme", "endpoint", "start", "acme"]);
                self.cluster.must(&["endpoint", "stop", "acme"]);
            }
        }
        String::new()
    }

    /// Whether it is made is what it should be; then what is to be where.
    fn account(&mut self, change: Change, is_made: bool, what: &str, before: &[Value]) {
        let names = self.names();
        let id = |branches: &[Value]| branches.iter().find(|branch| branch["name"] == "f").map(|branch| text(&branch["id"]));
        let (id_before, id) = (id(before), id(&self.branches_of("main")));
        let wanted: &[&str] = match (change, is_made) {
            (Change::CreateAtHead, true) => {
                self.f = Some(self.main.clone());
                &["f", "main"]
            }
            (Change::CreateInThePast, true) => {
                self.f = Some(self.main[..self.main.len() - 1].to_vec());
                &["f", "main"]
            }
            (Change::Reset, true) => {
                assert_ne!(id, id_before, "{what}");
                self.f = Some(self.main.clone());
                &["f", "main"]
            }
            (Change::Restore, true) => {
                assert_ne!(id, id_before, "{what}");
                let backup = names.iter().find(|name| name.starts_with("f-before-"));
                let backup = backup.unwrap_or_else(|| panic!("{what}: no backup in {names:?}")).clone();
                assert_eq!(names, ["f", &backup, "main"], "{what}");
                // What it was until then is all there.
                self.cluster.must(&["endpoint", "start", "backup", "--branch", &backup]);
                let rows = self.f.as_mut().expect("it was there");
                let all = rows.clone();
                rows.pop();
                self.assert_rows("backup", &all, what);
                stop(&self.cluster, "backup");
                return;
            }
            (Change::Delete, true) => {
                self.f = None;
                &["main"]
            }
            (Change::Rename, true) => &["g", "main"],
            (Change::CreateAtHead | Change::CreateInThePast | Change::Expiry, _) => &["main"],
            (Change::Reset | Change::Restore | Change::Delete | Change::Rename, false) => {
                assert_eq!(id, id_before, "{what}");
                &["f", "main"]
            }
            (Change::Tenant | Change::DeleteTenant, _) => {
                let acme = self.tenants().into_iter().find(|tenant| tenant["name"] == "acme");
                match change {
                    Change::DeleteTenant => assert_eq!(acme, None, "{what}"),
                    // The tenant is made before its branch is.
                    _ => assert_eq!(acme.map(|tenant| tenant["branches"].clone()), Some(u64::from(is_made).into()), "{what}"),
                }
                return;
            }
        };
        assert_eq!(names, wanted, "{what}");
    }

    /// The same command once more: what is not made is made then, and what is made is said to be. Branch f has its rows.
    fn again(&mut self, change: Change, is_made: bool, what: &str, command: &[&str]) {
        let exists = |world: &World| {
            let said = world.cluster.must_fail(1, command);
            assert!(said.contains("already") || said.contains("exists"), "{what}: {said}");
        };
        let is_gone = |world: &World| {
            let said = world.cluster.must_fail(1, command);
            assert!(said.contains("no "), "{what}: {said}");
        };
        match (change, is_made) {
            (Change::CreateAtHead | Change::CreateInThePast, true) => exists(self),
            (Change::CreateAtHead, false) => {
                self.cluster.must(command);
                self.f = Some(self.main.clone());
            }
            (Change::CreateInThePast, false) => {
                self.cluster.must(command);
                // One row after the LSN, and one after the crash.
                self.f = Some(self.main[..self.main.len() - 2].to_vec());
            }
            (Change::Reset, _) => {
                self.check_f(what);
                self.cluster.must(command);
                self.f = Some(self.main.clone());
            }
            (Change::Restore, true) => {
                self.check_f(what);
                let backup = self.names().remove(1);
                self.cluster.must(&["branch", "delete", &backup, "--recursive"]);
                assert_eq!(self.names(), ["main"]);
                self.f = None;
                return;
            }
            (Change::Restore, false) => {
                self.check_f(what);
                self.cluster.must(command);
                let rows = self.f.as_mut().expect("it was there");
                // Since the LSN: one before the crash, one after it.
                rows.truncate(rows.len() - 2);
                self.check_f(what);
                let backup = self.names().remove(1);
                self.cluster.must(&["branch", "delete", &backup, "--recursive"]);
                self.f = None;
                return;
            }
            (Change::Delete, _) => {
                // The endpoints of what is gone are left, which this removes; then there is nothing.
                self.cluster.must(command);
                return is_gone(self);
            }
            (Change::Expiry, _) => return,
            (Change::Rename, true) => {
                // The endpoints of the old name are left, which this brings along; then there is nothing.
                self.cluster.must(command);
                is_gone(self);
                self.cluster.must(&["branch", "rename", "g", "f"]);
            }
            (Change::Rename, false) => {
                self.cluster.must(command);
                self.cluster.must(&["branch", "rename", "g", "f"]);
            }
            (Change::Tenant, _) => {
                if is_made {
                    exists(self);
                } else {
                    self.cluster.must(command);
                }
                self.cluster.must(&["--tenant", "acme", "endpoint", "start", "acme"]);
                self.cluster.sql_on("acme", "create table theirs(i int)");
                stop(&self.cluster, "acme");
                return;
            }
            (Change::DeleteTenant, _) => return is_gone(self),
        }
        self.check_f(what);
    }
}

/// The command that makes the change.
fn arguments(change: Change, at: &str) -> Vec<String> {
    let words: &[&str] = match change {
        Change::Tenant => &["tenant", "create", "acme"],
        Change::CreateAtHead => &["branch", "create", "f"],
        Change::CreateInThePast => &["branch", "create", "f", "--at", at],
        Change::Reset => &["branch", "reset", "f"],
        Change::Restore => &["branch", "restore", "f", "--at", at],
        Change::Delete => &["branch", "delete", "f"],
        Change::Expiry => &["branch", "create", "f", "--ttl", "1s"],
        Change::Rename => &["branch", "rename", "f", "g"],
        Change::DeleteTenant => &["tenant", "delete", "acme", "--recursive"],
    };
    words.iter().map(|word| word.to_string()).collect()
}

#[test]
fn a_change_is_made_or_not_wherever_the_pageserver_ends() {
    let points = fault_points();
    assert!(!points.is_empty());
    let mut world = World::new();
    for (number, point) in points.iter().enumerate() {
        let (changes, is_made) = passing(point);
        // In the short form, one of them at each point.
        let chosen = amount(&changes[number % changes.len()..][..1], &changes[..]);
        for change in chosen {
            world.walk(point, *change, is_made);
        }
    }
}
