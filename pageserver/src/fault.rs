//! Places where a test ends the process as a crash would: with the feature `fault-points`, the process aborts at
//! the point that the environment variable `IRONPAGE_FAULT` names, and `--list-fault-points` prints them all. Without the
//! feature there are none of these. The whole-system test of branches walks them; a release build has none.

/// All of them, in the order in which an operation passes them. At each a change is between two steps: after a
/// start it must have happened wholly or not at all.
pub const POINTS: [&str; 21] = [
    "import-journalled",
    "import-made",
    "import-active",
    "branch-create-journalled",
    "branch-create-made",
    "branch-create-active",
    "branch-reset-journalled",
    "branch-reset-made",
    "branch-reset-switched",
    "branch-restore-journalled",
    "branch-restore-made",
    "branch-restore-switched",
    "branch-delete-journalled",
    "branch-delete-removed",
    "branch-delete-forgotten",
    "branch-delete-gone",
    "tenant-delete-journalled",
    "tenant-delete-gone",
    "metadata-unwritten",
    "metadata-written",
    "metadata-rewritten",
];

/// Aborts if the test asked for it here.
#[cfg(feature = "fault-points")]
pub fn point(name: &'static str) {
    assert!(POINTS.contains(&name), "{name} is not in the list of fault points");
    if is_wanted(name) {
        ironpage_daemon::error!("fault point {name}: the process ends here");
        std::process::abort();
    }
}

#[cfg(not(feature = "fault-points"))]
#[inline(always)]
pub fn point(_name: &'static str) {}

/// Whether the process is to end at this point: what leads there rarely may then do so at once.
#[cfg(feature = "fault-points")]
pub fn is_wanted(name: &'static str) -> bool {
    std::env::var_os("IRONPAGE_FAULT").is_some_and(|wanted| wanted == name)
}

#[cfg(not(feature = "fault-points"))]
#[inline(always)]
pub fn is_wanted(_name: &'static str) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::POINTS;
    use std::path::Path;

    /// Every point of the list is passed in exactly one place, and no other is.
    #[test]
    #[allow(clippy::disallowed_methods)]
    fn the_list_is_what_the_code_has() {
        fn walk(dir: &Path, found: &mut Vec<String>) {
            for entry in std::fs::read_dir(dir).unwrap().flatten() {
                let path = entry.path();
                if path.is_dir() {
                    walk(&path, found);
                } else if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("fault.rs") {
                    let text = std::fs::read_to_string(&path).unwrap();
                    let calls = text.split("fault::point(\"").skip(1);
                    found.extend(calls.filter_map(|rest| rest.split('"').next()).map(String::from));
                }
            }
        }
        let mut found = Vec::new();
        walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
        found.sort();
        let mut listed = POINTS.map(String::from);
        listed.sort();
        assert_eq!(found, listed);
    }
}
