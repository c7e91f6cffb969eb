//! Moments and spans as people write them: LSNs, times in some zone, `7d`.

use crate::api::At;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{Span, SpanRelativeTo, Timestamp, Unit};

/// What `--at` takes: an LSN, or a time.
pub fn parse_at(text: &str) -> Result<At, String> {
    if let Ok(lsn) = text.parse() {
        return Ok(At::Lsn(lsn));
    }
    parse_time_in(text, &TimeZone::system()).map(At::TimestampUs).map_err(|why| {
        format!(
            "{why}. It is an LSN like 0/1500028, or a time like 2026-11-22T14:00:00Z, '2026-11-22 14:00:00.5+01' or '2026-11-22 14:00:00' (of this machine's zone)"
        )
    })
}

/// A time, in microseconds since 1970, UTC. Without an offset it is of this machine's zone.
pub fn parse_time(text: &str) -> Result<i64, String> {
    parse_time_in(text, &TimeZone::system()).map_err(|why| {
        format!("{why}. A time is like 2026-11-22T14:00:00Z, '2026-11-22 14:00:00.5+01' or '2026-11-22 14:00:00' (of this machine's zone)")
    })
}

fn parse_time_in(text: &str, zone: &TimeZone) -> Result<i64, String> {
    let text = text.trim();
    // With an offset or Z, it says all by itself.
    if let Ok(timestamp) = text.parse::<Timestamp>() {
        return Ok(microseconds(timestamp));
    }
    let civil: DateTime = text.parse().map_err(|error| format!("'{text}' is no moment: {error}"))?;
    let ambiguous = zone.to_ambiguous_timestamp(civil);
    if ambiguous.is_ambiguous() {
        return Err(format!("'{text}' happened twice or never, for the clock was changed there: write its offset from UTC"));
    }
    ambiguous.compatible().map(microseconds).map_err(|error| format!("'{text}' is no moment: {error}"))
}

/// Rounded down, as a point in history must not be later than what was asked for.
fn microseconds(timestamp: Timestamp) -> i64 {
    timestamp.as_nanosecond().div_euclid(1000) as i64
}

/// A time to live in seconds: `7d`, `12h`, `30m`, `1d 12h`; a day has 24 hours.
pub fn parse_ttl(text: &str) -> Result<u64, String> {
    let way_out = "a time to live is like 7d, 12h or 30m, a second at least";
    let span: Span = text.trim().parse().map_err(|error| format!("{error}: {way_out}"))?;
    match span.total((Unit::Second, SpanRelativeTo::days_are_24_hours())) {
        Ok(seconds) if (1.0..=1e11).contains(&seconds) => Ok(seconds as u64),
        Ok(_) => Err(way_out.into()),
        Err(error) => Err(format!("{error}: {way_out}")),
    }
}

/// `2026-11-22 14:00:00.123456+01:00`, in this machine's zone; Postgres and `--at` read it.
pub fn local(microseconds: i64) -> String {
    in_zone(microseconds, TimeZone::system())
}

/// RFC 3339, in UTC.
pub fn utc(microseconds: i64) -> String {
    Timestamp::from_microsecond(microseconds)
        .map(|timestamp| format!("{timestamp:.6}"))
        .unwrap_or_else(|_| format!("{microseconds} us since 1970"))
}

fn in_zone(microseconds: i64, zone: TimeZone) -> String {
    match Timestamp::from_microsecond(microseconds) {
        Ok(timestamp) => timestamp.to_zoned(zone).strftime("%Y-%m-%d %H:%M:%S%.6f%:z").to_string(),
        Err(_) => format!("{microseconds} us since 1970"),
    }
}

/// Microseconds since 1970, by this machine's clock.
pub fn now() -> i64 {
    microseconds(Timestamp::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn berlin() -> TimeZone {
        // Its rules as POSIX has them: no zone files needed.
        TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap()
    }

    #[test]
    fn times_are_read_in_every_form_that_is_promised() {
        let wanted = 1_795_356_000_000_000; // 2026-11-22 14:00:00 UTC
        for text in [
            "2026-11-22T14:00:00Z",
            "2026-11-22t14:00:00z",
            "2026-11-22T15:00:00+01:00",
            "2026-11-22 14:00:00Z",
            "2026-11-22 14:00:00+00",
            "2026-11-22 15:00:00+01",
            "2026-11-22 10:30:00-03:30",
            "2026-11-22 15:00:00",
            "2026-11-22T15:00:00",
            " 2026-11-22 15:00:00.000000 ",
        ] {
            assert_eq!(parse_time_in(text, &berlin()), Ok(wanted), "{text}");
        }
        assert_eq!(parse_time_in("2026-11-22 15:00:00.123456", &berlin()), Ok(wanted + 123_456));
        assert_eq!(parse_time_in("2026-11-22T14:00:00.1234567Z", &berlin()), Ok(wanted + 123_456));
        assert_eq!(parse_time_in("1969-12-31T23:59:59.9999999Z", &berlin()), Ok(-1));
        assert_eq!(parse_time_in("2026-07-01 12:00:00", &berlin()), parse_time_in("2026-07-01T10:00:00Z", &berlin()));
        for bad in
            ["", "yesterday", "2026-13-01 00:00:00", "2026-02-29T00:00:00Z", "14:00", "1795356000", "2026-11-22 14:00:00+1"]
        {
            let error = parse_time_in(bad, &berlin()).unwrap_err();
            assert!(error.contains(bad), "{error}");
        }
        for twice_or_never in ["2026-10-25 02:30:00", "2026-03-29 02:30:00"] {
            assert!(parse_time_in(twice_or_never, &berlin()).unwrap_err().contains("offset"));
        }
    }

    #[test]
    fn what_is_printed_is_read_back() {
        for us in [0, 1_795_356_000_123_456, 1_795_356_000_000_001] {
            assert_eq!(parse_time(&local(us)), Ok(us));
            assert_eq!(parse_time(&utc(us)), Ok(us));
        }
        assert_eq!(in_zone(1_795_356_000_500_000, berlin()), "2026-11-22 15:00:00.500000+01:00");
        assert_eq!(utc(1_795_356_000_500_000), "2026-11-22T14:00:00.500000Z");
    }

    #[test]
    fn a_moment_is_an_lsn_or_a_time() {
        assert_eq!(parse_at("0/1500028"), Ok(At::Lsn(ironpage_layout::Lsn(0x150_0028))));
        assert_eq!(parse_at("2026-11-22T14:00:00Z"), Ok(At::TimestampUs(1_795_356_000_000_000)));
        for bad in ["0/", "0/15000280000", "now", "-5"] {
            assert!(parse_at(bad).unwrap_err().contains("0/1500028"), "{bad}");
        }
    }

    #[test]
    fn times_to_live_are_spans() {
        for (text, seconds) in [
            ("7d", 604_800),
            ("12h", 43_200),
            ("30m", 1800),
            ("1d12h", 129_600),
            ("1d 12h", 129_600),
            ("45s", 45),
            ("2w", 1_209_600),
        ] {
            assert_eq!(parse_ttl(text), Ok(seconds), "{text}");
        }
        for bad in ["", "7", "d", "-1d", "0s", "soon", "1mo", "1y"] {
            assert!(parse_ttl(bad).is_err(), "{bad}");
        }
    }
}
