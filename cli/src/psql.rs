//! `ironpage psql`: becomes psql, connected to a branch.

use crate::cluster::Cluster;
use crate::connstr;
use crate::error::{Error, Result};
use crate::programs::postgres_bindir;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Returns only if it fails.
pub fn psql(cluster: &Cluster, tenant: &str, branch: &str, arguments: &[OsString]) -> Result<()> {
    let endpoint = connstr::endpoint_of(cluster, tenant, branch)?;
    let beside = postgres_bindir()?.join("psql");
    let program = if beside.is_file() { beside } else { "psql".into() };
    let source = Command::new(&program).arg("-d").arg(connstr::of(cluster, endpoint)).args(arguments).exec();
    Err(Error::Program { program, source })
}
