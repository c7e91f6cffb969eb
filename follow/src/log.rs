//! Log lines, in the form the daemons use.

use std::time::{SystemTime, UNIX_EPOCH};

pub fn info(message: &str) {
    line("INFO", message);
}

pub fn warn(message: &str) {
    line("WARN", message);
}

fn line(level: &str, message: &str) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    eprintln!("{} {level} {message}", timestamp(now.as_millis() as u64));
}

/// `2026-11-22T11:00:00.123Z`, from milliseconds since 1970.
fn timestamp(ms: u64) -> String {
    let seconds = (ms / 1000) as libc::time_t;
    // SAFETY: an all-zero tm is a valid value of that plain struct.
    let mut tm: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to live locals; gmtime_r writes only into `tm`.
    unsafe { libc::gmtime_r(&seconds, &mut tm) };
    let (year, month) = (tm.tm_year + 1900, tm.tm_mon + 1);
    format!("{year:04}-{month:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z", tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec, ms % 1000)
}

#[cfg(test)]
mod tests {
    #[test]
    fn times_are_what_date_prints() {
        assert_eq!(super::timestamp(1_709_210_096_789), "2024-02-29T12:34:56.789Z");
    }
}
