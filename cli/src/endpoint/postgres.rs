//! The stock Postgres of an endpoint: its settings, its start, and when it is ready.

use super::paths::{DataDir, Paths};
use crate::cluster::{Cluster, Endpoint};
use crate::error::{AtPath, Error, Result};
use crate::files::{self, Lasting};
use crate::programs::Programs;
use crate::sys;
use crate::user::Owner;
use std::fs::{self, DirBuilder, File};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Longest postgresql.auto.conf that is kept.
const AUTO_CONF_BYTES_MAX: u64 = 1 << 20;
/// `trust` for everyone who reaches the machine's loopback: what the cluster listens on, and no more.
const HBA: &str = "# Written at every start.\n\
    local all all trust\nhost all all 127.0.0.1/32 trust\nhost all all ::1/128 trust\n\
    local replication all trust\nhost replication all 127.0.0.1/32 trust\n";

/// Defaults of an endpoint: ALTER SYSTEM may change them.
const DEFAULTS: &str = "# Written at every start: use ALTER SYSTEM for settings that should last.\n\
    max_prepared_transactions = 64\n\
    log_line_prefix = '%m [%p] '\n";

/// What the storage rests on: given on the command line, where neither ALTER SYSTEM nor ALTER ROLE overrides it.
fn fixed_settings(cluster: &Cluster, endpoint: &Endpoint, paths: &Paths) -> Vec<(&'static str, String)> {
    let address = cluster.endpoint_address(endpoint);
    let safekeepers = cluster.safekeepers().iter().map(|peer| peer.address.to_string()).collect::<Vec<_>>().join(",");
    vec![
        ("listen_addresses", address.ip().to_string()),
        ("port", address.port().to_string()),
        ("unix_socket_directories", format!("\"{}\"", paths.socket_dir(address.port()).display())),
        ("dynamic_library_path", format!("{}:$libdir", paths.library_dir().display())),
        ("shared_preload_libraries", preload_libraries(&paths.auto_conf())),
        ("wal_level", "replica".into()),
        ("fsync", "off".into()),
        ("full_page_writes", "off".into()),
        ("restart_after_crash", "off".into()),
        ("logging_collector", "off".into()),
        ("synchronous_standby_names", "walproposer".into()),
        // The walproposer's place and its slot, which keeps WAL until every safekeeper has it.
        ("max_wal_senders", "10".into()),
        ("max_replication_slots", "10".into()),
        ("max_slot_wal_keep_size", "-1".into()),
        // An archive of local WAL could hold what no quorum has, and what a later start writes otherwise.
        ("archive_mode", "off".into()),
        ("ironpage.safekeepers", safekeepers),
        ("ironpage.pageserver", cluster.pageserver().address.to_string()),
    ]
}

/// The extension first, then what ALTER SYSTEM asked for.
fn preload_libraries(auto_conf: &Path) -> String {
    let text = fs::read_to_string(auto_conf).unwrap_or_default();
    let asked = text.lines().rev().find_map(|line| {
        let (name, value) = line.split_once('=')?;
        (name.trim() == "shared_preload_libraries").then(|| value.trim().trim_matches('\'').replace("''", "'"))
    });
    match asked {
        Some(others) if !others.trim().is_empty() && others.trim() != "ironpage" => format!("ironpage, {others}"),
        _ => "ironpage".into(),
    }
}

/// Writes the configuration of a new data directory, with what ALTER SYSTEM set in earlier ones.
pub fn write_configuration(data_dir: &DataDir, paths: &Paths) -> Result<()> {
    let auto_conf = match fs::read(paths.auto_conf()) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        read => read.at("read", &paths.auto_conf())?,
    };
    let contents: [(&str, &[u8]); 4] = [
        ("postgresql.conf", DEFAULTS.as_bytes()),
        ("postgresql.auto.conf", &auto_conf),
        ("pg_hba.conf", HBA.as_bytes()),
        ("pg_ident.conf", b"# Written at every start.\n"),
    ];
    for (name, text) in contents {
        let path = data_dir.path.join(name);
        data_dir.owner.create_file(&path)?.write_all(text).at("write", &path)?;
    }
    Ok(())
}

/// Keeps what ALTER SYSTEM wrote. A directory that is gone, or half removed, changes nothing.
pub fn keep_auto_conf(data_dir: &Path, paths: &Paths) -> Result<()> {
    let path = data_dir.join("postgresql.auto.conf");
    // The directory belongs to another user: no link of theirs is followed.
    let opened = File::options().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(&path);
    let Ok(mut file) = opened else { return Ok(()) };
    let mut text = Vec::new();
    Read::by_ref(&mut file).take(AUTO_CONF_BYTES_MAX).read_to_end(&mut text).at("read", &path)?;
    if fs::read(paths.auto_conf()).is_ok_and(|kept| kept == text) {
        return Ok(());
    }
    files::replace(&paths.auto_conf(), &text, Lasting::Durable)
}

/// Puts the extension where Postgres's user can read it, whatever directory it was built in.
pub fn install_library(paths: &Paths, programs: &Programs) -> Result<()> {
    let dir = paths.library_dir();
    DirBuilder::new().recursive(true).mode(0o755).create(&dir).at("create directory", &dir)?;
    let target = dir.join("ironpage.so");
    let bytes = fs::read(&programs.extension).at("read", &programs.extension)?;
    if fs::read(&target).is_ok_and(|there| there == bytes) {
        return Ok(());
    }
    // A running Postgres keeps the file it mapped: the new one takes its name, not its bytes.
    let temporary = dir.join(format!("ironpage.so.{}", std::process::id()));
    let mut file = File::options().write(true).create_new(true).mode(0o755).open(&temporary).at("create", &temporary)?;
    file.write_all(&bytes).at("write", &temporary)?;
    fs::rename(&temporary, &target).at("replace", &target)
}

/// The unix socket's directory, without what a killed postmaster left in it.
fn prepare_socket_dir(dir: &Path, port: u16, owner: &Owner) -> Result<()> {
    owner.create_dir(dir)?;
    for name in [format!(".s.PGSQL.{port}"), format!(".s.PGSQL.{port}.lock")] {
        files::remove_if_there(&dir.join(name))?;
    }
    Ok(())
}

/// Starts the postmaster, with `more` settings that nothing overrides. It ends with this thread: nobody else would see to
/// it.
pub fn start(
    cluster: &Cluster,
    endpoint: &Endpoint,
    paths: &Paths,
    programs: &Programs,
    data_dir: &DataDir,
    more: Vec<(&'static str, String)>,
) -> Result<Child> {
    let port = cluster.endpoint_address(endpoint).port();
    prepare_socket_dir(&paths.socket_dir(port), port, &data_dir.owner)?;
    let program = programs.postgres("postgres");
    let mut command = Command::new(&program);
    command.arg("-D").arg(&data_dir.path).current_dir("/").stdin(Stdio::null()).stdout(Stdio::inherit());
    for (name, value) in fixed_settings(cluster, endpoint, paths).into_iter().chain(more) {
        command.arg("-c").arg(format!("{name}={value}"));
    }
    // The environment of whoever typed the command is not the server's.
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("PG") || name.starts_with("LC_") || name == "LANG") {
            command.env_remove(name);
        }
    }
    command.env("LC_ALL", "C.UTF-8");
    data_dir.owner.run_as(&mut command);
    sys::in_own_session(&mut command);
    sys::dies_with_us(&mut command, libc::SIGQUIT);
    command.spawn().map_err(|source| Error::Program { program, source })
}

/// Whether the postmaster says that it accepts connections: line 8 of postmaster.pid (utils/pidfile.h), as pg_ctl reads it.
pub fn is_ready(data_dir: &Path, pid: u32) -> bool {
    let Ok(text) = fs::read_to_string(data_dir.join("postmaster.pid")) else { return false };
    let mut lines = text.lines();
    lines.next() == Some(&pid.to_string()) && lines.nth(6).is_some_and(|status| status.trim() == "ready")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_extension_stays_preloaded_whatever_alter_system_says() {
        let path = std::env::temp_dir().join(format!("ironpage-auto-{}", std::process::id()));
        let with = |text: &str| {
            fs::write(&path, text).unwrap();
            preload_libraries(&path)
        };
        assert_eq!(with("# nothing\n"), "ironpage");
        assert_eq!(with("shared_preload_libraries = ''\n"), "ironpage");
        assert_eq!(
            with("work_mem = '1MB'\nshared_preload_libraries = 'pg_stat_statements, auto_explain'\n"),
            "ironpage, pg_stat_statements, auto_explain"
        );
        fs::remove_file(&path).unwrap();
        assert_eq!(preload_libraries(&path), "ironpage");
    }

    #[test]
    fn a_postmaster_is_ready_when_its_file_says_so() {
        let dir = std::env::temp_dir().join(format!("ironpage-ready-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let file = "17\n/data\n1\n5432\n/tmp\n127.0.0.1\n  123456    98\nready   \n";
        fs::write(dir.join("postmaster.pid"), file).unwrap();
        assert!(is_ready(&dir, 17) && !is_ready(&dir, 18));
        fs::write(dir.join("postmaster.pid"), file.replace("ready", "starting")).unwrap();
        assert!(!is_ready(&dir, 17));
        fs::remove_dir_all(dir).unwrap();
    }
}
