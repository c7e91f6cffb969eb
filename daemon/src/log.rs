//! The log: one line an event, to stderr, `2026-11-22T11:00:00.123Z INFO message`.
//!
//! Whoever supervises the daemon decides where stderr goes; there is no log file of our own to rotate.

use std::fmt;
use std::io::Write;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// How much an event matters. `Error`: someone must act. `Warn`: something was survived.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum Level {
    Error,
    Warn,
    Info,
    Debug,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Level::Error => "ERROR",
            Level::Warn => "WARN",
            Level::Info => "INFO",
            Level::Debug => "DEBUG",
        })
    }
}

static LEVEL: AtomicU8 = AtomicU8::new(Level::Info as u8);

/// Events less important than `level` are not written from now on.
pub fn set_level(level: Level) {
    LEVEL.store(level as u8, Ordering::Relaxed);
}

/// Whether an event of `level` would be written.
pub fn enabled(level: Level) -> bool {
    level as u8 <= LEVEL.load(Ordering::Relaxed)
}

/// Writes one line. The macros [`crate::error!`], [`crate::warn!`], [`crate::info!`] and [`crate::debug!`] are the way here.
pub fn write(level: Level, message: fmt::Arguments<'_>) {
    // One write per line, so that lines of several processes in one file stay whole. A stderr that is
    // gone must not stop a daemon.
    let line = line(ironpage_io::time::wall_clock(), level, &message.to_string());
    let _ = std::io::stderr().write_all(line.as_bytes());
}

fn line(now: SystemTime, level: Level, message: &str) -> String {
    let message = message.trim_end().replace('\n', " | ");
    format!("{} {level} {message}\n", timestamp(now))
}

/// `now` in UTC, as RFC 3339 with milliseconds.
fn timestamp(now: SystemTime) -> String {
    let ms = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
    let (seconds, ms) = (ms / 1000, ms % 1000);
    let (year, month, day) = date_of(seconds / 86_400);
    let second = seconds % 86_400;
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{ms:03}Z", second / 3600, second / 60 % 60, second % 60)
}

/// `now` in UTC as `20261122T110000`, for names.
pub fn utc_compact(now: SystemTime) -> String {
    let text = timestamp(now);
    text.chars().take_while(|c| *c != '.').filter(|c| !matches!(c, '-' | ':')).collect()
}

/// Year, month and day of the Gregorian calendar, `days` after 1970-01-01. Counts in years that start in
/// March, so that the leap day is a year's last.
fn date_of(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468; // since 0000-03-01
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

/// Logs an event someone must act on.
#[macro_export]
macro_rules! error {
    ($($arg:tt)*) => { $crate::log!($crate::log::Level::Error, $($arg)*) };
}

/// Logs something that was survived.
#[macro_export]
macro_rules! warn {
    ($($arg:tt)*) => { $crate::log!($crate::log::Level::Warn, $($arg)*) };
}

/// Logs an event of normal life.
#[macro_export]
macro_rules! info {
    ($($arg:tt)*) => { $crate::log!($crate::log::Level::Info, $($arg)*) };
}

/// Logs what only a developer wants; formatted only if wanted.
#[macro_export]
macro_rules! debug {
    ($($arg:tt)*) => { $crate::log!($crate::log::Level::Debug, $($arg)*) };
}

/// Logs at the given level; the four macros beside it are shorter.
#[macro_export]
macro_rules! log {
    ($level:expr, $($arg:tt)*) => {
        if $crate::log::enabled($level) {
            $crate::log::write($level, ::std::format_args!($($arg)*));
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_line_is_one_line_with_a_utc_time() {
        let at = |s: u64, ms: u64| UNIX_EPOCH + Duration::from_millis(s * 1000 + ms);
        assert_eq!(line(at(1_795_345_200, 123), Level::Info, "a\nb\n"), "2026-11-22T11:00:00.123Z INFO a | b\n");
        assert_eq!(utc_compact(at(1_795_345_200, 123)), "20261122T110000");
        assert_eq!(timestamp(at(0, 0)), "1970-01-01T00:00:00.000Z");
        assert_eq!(timestamp(at(951_782_399, 999)), "2000-02-28T23:59:59.999Z");
        assert_eq!(timestamp(at(951_782_400, 0)), "2000-02-29T00:00:00.000Z");
        assert_eq!(timestamp(at(951_868_800, 0)), "2000-03-01T00:00:00.000Z");
    }
}
