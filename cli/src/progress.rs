//! What a command is doing, for whoever waits: on stderr, so that stdout is for answers.

pub fn line(message: &str) {
    eprintln!("{message}");
}

/// An amount as a person reads it.
pub fn bytes(bytes: u64) -> String {
    let mut amount = bytes as f64;
    for unit in ["bytes", "KiB", "MiB", "GiB"] {
        if amount < 1024.0 {
            return if unit == "bytes" { format!("{bytes} bytes") } else { format!("{amount:.1} {unit}") };
        }
        amount /= 1024.0;
    }
    format!("{amount:.1} TiB")
}
