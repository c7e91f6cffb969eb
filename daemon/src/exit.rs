//! How a daemon ends: a start that fails says so in one line that names the thing and the way out.

use crate::log::{self, Level};
use std::process::ExitCode;

/// Turns the result of a daemon's main into its exit code: 0, or 1 with the error in one line of the log.
/// The causes of an error stand behind it, separated by colons; a cause whose text its parent already
/// holds is left out.
pub fn code<E: AsRef<dyn std::error::Error + 'static>>(result: Result<(), E>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::write(Level::Error, format_args!("{}", chain(error.as_ref())));
            ExitCode::FAILURE
        }
    }
}

/// An error with its causes, in one line.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let part = error.to_string();
        if !text.contains(&part) {
            text.push_str(": ");
            text.push_str(&part);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot open the drawer")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn causes_stand_behind_the_error() {
        let error = Outer(std::io::Error::other("it is locked"));
        assert_eq!(chain(&error), "cannot open the drawer: it is locked");
    }
}
