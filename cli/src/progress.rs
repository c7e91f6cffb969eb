//! What a command is doing, for whoever waits: on stderr, so that stdout is for answers.

pub fn line(message: &str) {
    eprintln!("{message}");
}
