//! libFuzzer's entry: the target is chosen by the environment variable `IRONPAGE_FUZZ_TARGET`.

#![no_main]

use std::sync::OnceLock;

static TARGET: OnceLock<fn(&[u8])> = OnceLock::new();

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let target = TARGET.get_or_init(|| {
        let wanted = std::env::var("IRONPAGE_FUZZ_TARGET").unwrap_or_default();
        let found = ironpage_fuzz::TARGETS.into_iter().find(|(name, _)| *name == wanted);
        found.unwrap_or_else(|| panic!("IRONPAGE_FUZZ_TARGET is '{wanted}', not one of {:?}", ironpage_fuzz::TARGETS)).1
    });
    target(data);
});
