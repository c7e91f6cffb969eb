//! Links libpq, which speaks to the source: its conninfo, TLS and password files are what people know.
#![allow(clippy::disallowed_methods)]

use std::process::Command;

fn main() {
    println!("cargo:rerun-if-env-changed=PG_CONFIG");
    // libpq-dev has a pg_config of its own; either knows where the library lies.
    let pg_config = std::env::var("PG_CONFIG").unwrap_or_else(|_| "pg_config".into());
    if let Ok(output) = Command::new(pg_config).arg("--libdir").output()
        && output.status.success()
    {
        println!("cargo:rustc-link-search=native={}", String::from_utf8_lossy(&output.stdout).trim());
    }
    println!("cargo:rustc-link-lib=dylib=pq");
}
