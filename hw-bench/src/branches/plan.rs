//! How much data, for how long: what was asked for, and what disk and time allow.

use anyhow::{Context, ensure};
use serde::{Serialize, Serializer};
use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};

/// The database, what is made of it for comparison, and the copy in the cluster: never more of these at a time.
const COPIES: u64 = 3;
/// Left free whatever happens: WAL of the load at three safekeepers, the endpoints' caches, the raw file, other programs.
const RESERVE_BYTES: u64 = 6 << 30;
/// A guess at how fast a table is loaded, copied or imported, for the estimate alone.
const BYTES_PER_SECOND: u64 = 60 << 20;
/// How often the data passes through the disk: load, two copies by stock Postgres, one by cp, import.
const PASSES: u64 = 5;
/// Timed runs at a size, and all else: endpoint starts, filling up to the most branches.
const RUNS: u64 = 13;
const REST_SECONDS: u64 = 150;

/// A size of data.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Size(pub u64);

impl FromStr for Size {
    type Err = anyhow::Error;

    /// As `1M`, `512K` or `10G`: powers of 1024.
    fn from_str(text: &str) -> anyhow::Result<Size> {
        let upper = text.to_ascii_uppercase();
        let digits = upper.trim_end_matches("IB").trim_end_matches('B');
        let (digits, shift) = match digits.char_indices().next_back() {
            Some((at, 'K')) => (&digits[..at], 10),
            Some((at, 'M')) => (&digits[..at], 20),
            Some((at, 'G')) => (&digits[..at], 30),
            _ => (digits, 0),
        };
        let number: u64 = digits.parse().with_context(|| format!("'{text}' is no size: say 1M or 10G"))?;
        let bytes = number.checked_mul(1 << shift).with_context(|| format!("{text} is too much"))?;
        ensure!((64 << 10..=1 << 40).contains(&bytes), "{text} is not between 64K and 1024G");
        Ok(Size(bytes))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, shift) = match self.0 {
            0..0x10_0000 => ("KiB", 10),
            0x10_0000..0x4000_0000 => ("MiB", 20),
            _ => ("GiB", 30),
        };
        let value = format!("{:.1}", self.0 as f64 / (1u64 << shift) as f64);
        write!(f, "{} {unit}", value.trim_end_matches(".0"))
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0)
    }
}

/// A stretch of time as `90s`, `30m` or `2h`.
pub fn parse_time(text: &str) -> anyhow::Result<Duration> {
    let unit = text.char_indices().next_back();
    let (digits, seconds) = match unit {
        Some((at, 's')) => (&text[..at], 1),
        Some((at, 'm')) => (&text[..at], 60),
        Some((at, 'h')) => (&text[..at], 3600),
        _ => ("", 0),
    };
    let number: u64 = digits.parse().with_context(|| format!("'{text}' is no time: say 90s, 30m or 2h"))?;
    let seconds = number.checked_mul(seconds).filter(|seconds| (10..=86_400).contains(seconds));
    Ok(Duration::from_secs(seconds.with_context(|| format!("{text} is not between 10s and 24h"))?))
}

/// The time that may still be taken.
#[derive(Clone, Copy, Debug)]
pub struct Budget(Instant);

impl Budget {
    pub fn of(time: Duration) -> Budget {
        Budget(Instant::now() + time)
    }

    pub fn left(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    pub fn is_over(self) -> bool {
        self.left().is_zero()
    }

    /// A part of what is left.
    pub fn part(self, one_in: u32) -> Budget {
        Budget::of(self.left() / one_in)
    }
}

/// What a size is expected to take with timed runs of `seconds`.
pub fn estimate(size: Size, seconds: u64) -> Duration {
    Duration::from_secs(size.0 * PASSES / BYTES_PER_SECOND + RUNS * seconds + REST_SECONDS)
}

/// Seconds of a timed run, so that all of them fit in what is left: as asked for, or fewer.
pub fn run_seconds(asked: u64, left: Duration) -> u64 {
    (left.as_secs().saturating_sub(REST_SECONDS.min(left.as_secs() / 2)) / RUNS).clamp(1, asked.max(1))
}

/// The size that fits on the disk.
pub fn fitting(asked: Size, free_bytes: u64) -> anyhow::Result<Size> {
    let fits = Size(free_bytes.saturating_sub(RESERVE_BYTES) / COPIES);
    ensure!(
        fits.0 >= 1 << 20,
        "{} free is too little: {} stay free, and the data is there {COPIES} times; name another disk with --dir",
        Size(free_bytes),
        Size(RESERVE_BYTES)
    );
    Ok(asked.min(fits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_shown() {
        for (text, bytes, shown) in [
            ("1M", 1 << 20, "1 MiB"),
            ("10G", 10 << 30, "10 GiB"),
            ("10gb", 10 << 30, "10 GiB"),
            ("512KiB", 512 << 10, "512 KiB"),
            ("1536M", 1536 << 20, "1.5 GiB"),
            ("65536", 64 << 10, "64 KiB"),
        ] {
            let size: Size = text.parse().unwrap();
            assert_eq!((size.0, size.to_string().as_str()), (bytes, shown));
        }
        for wrong in ["", "G", "1T", "-1M", "1.5G", "0", "63K", "1025G", "99999999999999999999G", "18014398509481984K"] {
            assert!(wrong.parse::<Size>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn times_are_read() {
        assert_eq!(parse_time("90s").unwrap(), Duration::from_secs(90));
        assert_eq!(parse_time("30m").unwrap(), Duration::from_secs(1800));
        assert_eq!(parse_time("2h").unwrap(), Duration::from_secs(7200));
        for wrong in ["", "m", "30", "9s", "25h", "1d", "-1m", "5µ", "99999999999999999999h", "18446744073709551615h"] {
            assert!(parse_time(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_does_not_fit_is_made_smaller_or_refused() {
        let asked = Size(10 << 30);
        assert_eq!(fitting(asked, 100 << 30).unwrap(), asked);
        assert_eq!(fitting(asked, 21 << 30).unwrap(), Size(5 << 30));
        assert!(fitting(Size(1 << 20), 6 << 30).is_err());
    }

    #[test]
    fn runs_are_shortened_to_what_is_left() {
        assert_eq!(run_seconds(30, Duration::from_secs(3600)), 30);
        assert_eq!(run_seconds(30, Duration::from_secs(280)), 10);
        assert_eq!(run_seconds(30, Duration::ZERO), 1);
        let size = Size(1 << 20);
        assert_eq!(run_seconds(30, estimate(size, 30)), 30);
    }
}
