//! Replays what fuzzing found worth keeping, so that it stays decoded or refused without a panic.

use std::path::Path;

#[test]
#[allow(clippy::disallowed_methods)]
fn the_corpus_replays() {
    for (name, target) in ironpage_fuzz::TARGETS {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
        let mut inputs = 0;
        for entry in std::fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display())) {
            let path = entry.unwrap().path();
            println!("{}", path.display());
            target(&std::fs::read(&path).unwrap());
            inputs += 1;
        }
        assert!(inputs > 0, "no corpus in {}", directory.display());
    }
}
