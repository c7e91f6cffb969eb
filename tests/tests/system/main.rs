//! Whole-system tests. Each makes its own cluster; run them one at a time (`--test-threads=1`).
//!
//! `IRONPAGE_SOAK=1` gives the long form: more rounds, more time.

#![allow(clippy::disallowed_methods)]

mod bad_input;
mod branch_starts;
mod branches;
mod cache;
mod commits;
mod crash;
mod dependencies;
mod durability;
mod failure_cases;
mod fencing;
mod first_steps;
mod follow;
mod import_export;
mod load;
mod planted;
mod quorum;
mod time_travel;
mod wal_ends;

/// How often or how long something is done: the short form, and the long one.
fn amount<T>(short: T, soak: T) -> T {
    if std::env::var_os("IRONPAGE_SOAK").is_some() { soak } else { short }
}
