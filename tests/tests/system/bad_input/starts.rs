//! Starts that cannot work: another Postgres, files that are none, no permission.

use super::{assert_no_panic, up_says};
use ironpage_tests::Cluster;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const POSTGRES_BIN: &str = "/usr/lib/postgresql/15/bin";

fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}

/// A fresh directory that everybody may enter, removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let dir = Cluster::prepare(name).dir.with_extension("scratch");
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
        Scratch(dir)
    }

    fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// A program of ours, copied: what lies beside it is what it finds.
    fn program(&self, name: &str) -> PathBuf {
        let path = self.join(name);
        fs::copy(Cluster::program(name), &path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    fn script(&self, name: &str, text: &str) -> PathBuf {
        let path = self.join(name);
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn run(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// It ended with 1 and one line of an error that holds `part`, and did not panic.
fn assert_refused(output: &Output, parts: &[&str]) {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(parts.iter().all(|part| said.contains(part)) && !said.contains("panicked"), "{parts:?} in {said}");
}

fn safekeeper(program: &Path, dir: &Path) -> Command {
    let mut command = Command::new(program);
    command.args(["--id", "1", "--listen", "127.0.0.1:0", "--dir"]).arg(dir);
    command
}

fn pageserver(program: &Path, dir: &Path, bindir: &Path, library: &Path) -> Command {
    let mut command = safekeeper(program, dir);
    command.args(["--safekeepers", "127.0.0.1:9", "--postgres-bindir"]).arg(bindir).arg("--redo-library").arg(library);
    command
}

#[test]
fn the_pageserver_refuses_what_is_no_postgres_15() {
    let scratch = Scratch::new("bad-postgres");
    let (program, library) = (Cluster::program("pageserver"), Cluster::program("redo.so"));
    let start = |bindir: &Path, library: &Path| run(&mut pageserver(&program, &scratch.join("data"), bindir, library));
    let bindir = scratch.join("bin");
    assert_refused(&start(&bindir, &library), &["bin/postgres", "--postgres-bindir"]);
    fs::create_dir(&bindir).unwrap();
    scratch.script("bin/postgres", "echo 'postgres (PostgreSQL) 16.4 (Debian 16.4-1)'");
    assert_refused(&start(&bindir, &library), &["bin/postgres"]);
    // A program, but not that one; and that one, of another release.
    fs::copy("/bin/sh", bindir.join("postgres")).unwrap();
    assert_refused(&start(&bindir, &library), &["PostgreSQL", "15", "--postgres-bindir"]);
    let mut postgres = fs::read(Path::new(POSTGRES_BIN).join("postgres")).unwrap();
    let name = b"(PostgreSQL) 15.";
    let at = postgres.windows(name.len()).position(|bytes| bytes == name).expect("it says what it is");
    postgres[at + name.len() - 2] = b'6';
    fs::write(bindir.join("postgres"), postgres).unwrap();
    assert_refused(&start(&bindir, &library), &["PostgreSQL 16.", "--postgres-bindir"]);
    let missing = scratch.join("redo.so");
    assert_refused(&start(Path::new(POSTGRES_BIN), &missing), &[missing.to_str().unwrap(), "--redo-library"]);
    fs::write(&missing, "no library").unwrap();
    assert_refused(&start(Path::new(POSTGRES_BIN), &missing), &[missing.to_str().unwrap(), "--redo-library"]);
}

#[test]
fn the_command_line_refuses_what_is_no_postgres_15() {
    let scratch = Scratch::new("bad-pg-config");
    fs::create_dir(scratch.join("bin")).unwrap();
    let bindir = scratch.join("bin");
    let pg_config = scratch.script("pg_config", &format!("echo {}", bindir.display()));
    let up = || {
        let dir = scratch.join("cluster");
        let mut command = Command::new(Cluster::program("ironpage"));
        run(command.arg("--dir").arg(dir).args(["up", "--detach"]).env("PG_CONFIG", &pg_config))
    };
    assert_refused(&up(), &["PG_CONFIG", "PostgreSQL 15"]);
    for program in ["postgres", "initdb", "psql"] {
        scratch.script(&format!("bin/{program}"), "echo 'postgres (PostgreSQL) 16.4 (Debian 16.4-1)'");
    }
    assert_refused(&up(), &["16"]);
    assert!(!scratch.join("cluster/cluster.json").exists(), "a cluster was made nevertheless");
}

#[test]
fn the_extension_refuses_another_build_of_postgres() {
    let cluster = Cluster::up("bad-build");
    cluster.sql("create table acked(i bigint primary key)");
    cluster.sql("insert into acked values (1)");
    let version = cluster.sql("show server_version_num").parse::<u32>().unwrap();
    cluster.must(&["endpoint", "stop", "main"]);
    // The extension as it would be, had it been built against the headers of another minor release.
    let scratch = Scratch::new("bad-build-programs");
    let ironpage = scratch.program("ironpage");
    for name in ["safekeeper", "pageserver", "redo.so"] {
        scratch.program(name);
    }
    let mut extension = fs::read(Cluster::program("ironpage.so")).unwrap();
    let places: Vec<_> = (0..extension.len() - 4).filter(|at| extension[*at..*at + 4] == version.to_le_bytes()).collect();
    assert!(!places.is_empty(), "the extension does not know the version it was built for");
    places.iter().for_each(|at| extension[*at..*at + 4].copy_from_slice(&(version - 1).to_le_bytes()));
    fs::write(scratch.join("ironpage.so"), extension).unwrap();

    let output = run(Command::new(ironpage).arg("--dir").arg(&cluster.dir).args(["endpoint", "start", "main"]));
    let built = format!("built for PostgreSQL {}", version - 1);
    assert_refused(&output, &[&built, &version.to_string(), "./dev build"]);
    cluster.must(&["endpoint", "start", "main"]);
    assert_eq!(cluster.sql("select count(*) from acked"), "1");
    assert_no_panic(&cluster);
}

#[test]
fn directories_that_are_none_are_named() {
    let scratch = Scratch::new("bad-directories");
    let file = scratch.join("a-file");
    fs::write(&file, "not a directory").unwrap();
    let below = file.join("below");
    let (bindir, library) = (Path::new(POSTGRES_BIN), Cluster::program("redo.so"));
    for dir in [&file, &below] {
        assert_refused(&run(&mut safekeeper(&Cluster::program("safekeeper"), dir)), &[file.to_str().unwrap()]);
        assert_refused(&run(&mut pageserver(&Cluster::program("pageserver"), dir, bindir, &library)), &[file.to_str().unwrap()]);
        let mut up = Command::new(Cluster::program("ironpage"));
        assert_refused(&run(up.arg("--dir").arg(dir).args(["up", "--detach"])), &[file.to_str().unwrap()]);
    }
    // A cluster in which one of the directories became a file.
    let cluster = Cluster::up("bad-directory");
    cluster.sql("create table acked(i bigint primary key)");
    cluster.sql("insert into acked values (1)");
    cluster.must(&["down"]);
    let aside = cluster.dir.join("aside");
    for what in ["safekeeper-2", "pageserver-1", "endpoints"] {
        let path = cluster.dir.join(what);
        let named = path.to_str().unwrap();
        fs::rename(&path, &aside).unwrap();
        fs::write(&path, "not a directory").unwrap();
        if what == "endpoints" {
            assert!(up_says(&cluster, named), "{named} was not named");
        } else {
            assert_refused(&cluster.ironpage(&["up", "--detach"]), &[named]);
        }
        cluster.must(&["down"]);
        fs::remove_file(&path).unwrap();
        fs::rename(&aside, &path).unwrap();
    }
    cluster.start();
    assert_eq!(cluster.sql("select count(*) from acked"), "1");
    assert_no_panic(&cluster);
}

#[test]
fn a_missing_permission_is_named() {
    let scratch = Scratch::new("bad-permission");
    let closed = scratch.join("closed");
    fs::create_dir(&closed).unwrap();
    // Root may do everything: then the daemons run as nobody, and the directory is root's.
    let unprivileged = |mut command: Command| {
        if is_root() {
            command.uid(65_534).gid(65_534);
        }
        run(command.current_dir("/"))
    };
    let (safekeeper_program, pageserver_program) = (scratch.program("safekeeper"), scratch.program("pageserver"));
    let library = scratch.program("redo.so");
    for (mode, dir) in [(0o000, closed.clone()), (0o500, closed.clone()), (0o500, closed.join("below"))] {
        fs::set_permissions(&closed, fs::Permissions::from_mode(mode)).unwrap();
        let named = [closed.to_str().unwrap(), "ermission denied"];
        assert_refused(&unprivileged(safekeeper(&safekeeper_program, &dir)), &named);
        assert_refused(&unprivileged(pageserver(&pageserver_program, &dir, Path::new(POSTGRES_BIN), &library)), &named);
        let mut up = Command::new(scratch_ironpage(&scratch));
        up.arg("--dir").arg(&dir).args(["up", "--detach"]);
        assert_refused(&unprivileged(up), &named);
    }
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
}

/// The command line and all it wants beside it, where nobody can run it.
fn scratch_ironpage(scratch: &Scratch) -> PathBuf {
    let path = scratch.join("ironpage");
    if !path.exists() {
        scratch.program("ironpage");
        scratch.program("ironpage.so");
    }
    path
}
