//! A moment of wall time as the tables hold it: ISO 8601 text, compared as a moment and never as text.

use std::fmt;
use std::time::Duration;

use time::format_description::well_known::{Iso8601, Rfc3339};
use time::{OffsetDateTime, PrimitiveDateTime, UtcOffset};

/// A moment of wall time, in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(OffsetDateTime);

/// The text is no ISO 8601 moment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an ISO 8601 time such as 2026-01-31T12:00:00Z")]
pub struct TimestampError {
    /// What was found, shortened.
    pub text: String,
}

/// How much of a wrong text an error shows.
const SHOWN_CHARS_MAX: usize = 40;

impl Timestamp {
    /// Reads ISO 8601 text; a time without an offset is taken as UTC.
    ///
    /// # Errors
    /// When the text is no such time.
    pub fn parse(text: &str) -> Result<Self, TimestampError> {
        OffsetDateTime::parse(text, &Rfc3339)
            .or_else(|_| OffsetDateTime::parse(text, &Iso8601::PARSING))
            .or_else(|_| PrimitiveDateTime::parse(text, &Iso8601::PARSING).map(PrimitiveDateTime::assume_utc))
            .map(|moment| Self(moment.to_offset(UtcOffset::UTC)))
            .map_err(|_| TimestampError { text: text.chars().take(SHOWN_CHARS_MAX).collect() })
    }

    /// The moment so many milliseconds after 1970-01-01; out-of-range numbers give the nearest moment there is.
    #[must_use]
    pub fn from_unix_millis(millis: i64) -> Self {
        let nanos = i128::from(millis) * 1_000_000;
        Self(OffsetDateTime::from_unix_timestamp_nanos(nanos).unwrap_or(OffsetDateTime::UNIX_EPOCH))
    }

    /// Milliseconds since 1970-01-01, negative before it.
    #[must_use]
    pub fn unix_millis(self) -> i64 {
        i64::try_from(self.0.unix_timestamp_nanos() / 1_000_000).unwrap_or(i64::MAX)
    }

    /// How long ago `earlier` was at this moment; zero when it was not earlier.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::try_from(self.0 - earlier.0).unwrap_or(Duration::ZERO)
    }

    /// This moment and so much later.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        time::Duration::try_from(duration).ok().and_then(|span| self.0.checked_add(span)).map_or(self, Self)
    }

    /// This moment and so much earlier.
    #[must_use]
    pub fn minus(self, duration: Duration) -> Self {
        time::Duration::try_from(duration).ok().and_then(|span| self.0.checked_sub(span)).map_or(self, Self)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.format(&Rfc3339).map_err(|_| fmt::Error)?;
        formatter.write_str(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_offsets_fractions_and_bare_times() {
        let moment = Timestamp::parse("2026-01-31T12:00:00Z").unwrap();
        for same in
            ["2026-01-31T13:00:00+01:00", "2026-01-31T12:00:00.000000Z", "2026-01-31T12:00:00", "20260131T120000Z"]
        {
            assert_eq!(Timestamp::parse(same), Ok(moment), "{same}");
        }
        assert_eq!(moment.to_string(), "2026-01-31T12:00:00Z");
    }

    #[test]
    fn refuses_what_is_no_time() {
        for wrong in ["", "yesterday", "2026-13-01T00:00:00Z", "1700000000"] {
            assert!(Timestamp::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn counts_time_between_moments() {
        let early = Timestamp::from_unix_millis(1_000);
        let late = early.plus(Duration::from_millis(1_500));
        assert_eq!(late.since(early), Duration::from_millis(1_500));
        assert_eq!(early.since(late), Duration::ZERO);
        assert_eq!(late.unix_millis(), 2_500);
    }
}
