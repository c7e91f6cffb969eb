//! Dependencies point one way; ARCHITECTURE.md says which.

use std::path::Path;

/// What each crate may use of ours.
const ALLOWED: [(&str, &[&str]); 13] = [
    ("layout", &[]),
    ("io", &[]),
    ("safekeeper/consensus", &["layout"]),
    ("daemon", &["layout", "io"]),
    ("safekeeper", &["layout", "io", "daemon", "consensus"]),
    ("pageserver", &["layout", "io", "daemon", "redo"]),
    ("pageserver/redo", &["layout"]),
    ("compute-ext", &["layout", "consensus"]),
    ("cli", &["layout", "consensus"]),
    ("follow", &["layout", "consensus"]),
    ("fuzz", &["layout", "redo"]),
    ("hw-bench", &["layout"]),
    ("tests", &[]),
];

#[test]
fn dependencies_point_one_way() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    for (folder, allowed) in ALLOWED {
        let manifest = std::fs::read_to_string(root.join(folder).join("Cargo.toml")).unwrap();
        let dependencies = manifest.split("[dependencies]").nth(1).unwrap_or("");
        // What tests alone use does not shape the program.
        let dependencies = dependencies.split("[dev-dependencies]").next().unwrap_or("");
        for line in dependencies.lines() {
            if let Some(name) = line.strip_prefix("ironpage-").and_then(|rest| rest.split([' ', '.', '=']).next()) {
                assert!(allowed.contains(&name), "{folder} must not depend on {name}");
            }
        }
    }
}
