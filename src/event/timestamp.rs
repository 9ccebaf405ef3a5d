//! A moment of wall time as the tables hold it: ISO 8601 text, compared as a moment and never as text.
//!
//! Invariant: a [`Timestamp`] lies in the years 0 to 9999 of UTC, so it can be written in every format.

use std::fmt;
use std::time::Duration;

use time::format_description::well_known::{Iso8601, Rfc3339};
use time::{OffsetDateTime, PrimitiveDateTime, UtcOffset};

/// 0000-01-01T00:00:00Z in milliseconds since 1970: RFC 3339 writes no earlier moment.
const EARLIEST_UNIX_MILLIS: i64 = -62_167_219_200_000;
/// 9999-12-31T23:59:59.999Z: nor a later one.
const LATEST_UNIX_MILLIS: i64 = 253_402_300_799_999;

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
    /// When the text is no such time, or lies outside of the years 0 to 9999 of UTC.
    pub fn parse(text: &str) -> Result<Self, TimestampError> {
        OffsetDateTime::parse(text, &Rfc3339)
            .or_else(|_| OffsetDateTime::parse(text, &Iso8601::PARSING))
            .or_else(|_| PrimitiveDateTime::parse(text, &Iso8601::PARSING).map(PrimitiveDateTime::assume_utc))
            .ok()
            .and_then(Self::of)
            .ok_or_else(|| TimestampError { text: text.chars().take(SHOWN_CHARS_MAX).collect() })
    }

    /// None outside of the years that can be written.
    fn of(moment: OffsetDateTime) -> Option<Self> {
        moment.checked_to_offset(UtcOffset::UTC).filter(|moment| (0..=9999).contains(&moment.year())).map(Self)
    }

    /// The moment so many milliseconds after 1970-01-01; out-of-range numbers give the nearest moment there is.
    #[must_use]
    pub fn from_unix_millis(millis: i64) -> Self {
        let nanos = i128::from(millis.clamp(EARLIEST_UNIX_MILLIS, LATEST_UNIX_MILLIS)) * 1_000_000;
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

    /// This moment and so much later; this moment where that cannot be written.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        time::Duration::try_from(duration)
            .ok()
            .and_then(|span| self.0.checked_add(span))
            .and_then(Self::of)
            .unwrap_or(self)
    }

    /// This moment and so much earlier; this moment where that cannot be written.
    #[must_use]
    pub fn minus(self, duration: Duration) -> Self {
        time::Duration::try_from(duration)
            .ok()
            .and_then(|span| self.0.checked_sub(span))
            .and_then(Self::of)
            .unwrap_or(self)
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
    use proptest::prelude::*;

    /// Texts that are a time, about: the first and the last years there are, and every offset.
    fn almost_times() -> impl Strategy<Value = String> {
        let year = prop_oneof!["0000", "9999", "[0-9]{4}", "[+-][0-9]{6}"];
        let day = prop_oneof!["-01-01", "-12-31", "-[01][0-9]-[0-3][0-9]", "-W[0-5][0-9]-[0-8]"];
        let time = prop_oneof!["T00:00:00", "T23:59:59", "T[0-2][0-9]:[0-6][0-9](:[0-6][0-9])?(\\.[0-9]{1,10})?"];
        let offset = prop_oneof!["Z", "", "[+-][0-2][0-9]:[0-5][0-9]"];
        prop_oneof![
            2 => (year, day, time, offset).prop_map(|(year, day, time, offset)| format!("{year}{day}{time}{offset}")),
            1 => "(0000-01-01T00:00|9999-12-31T23:59):[0-5][0-9][+-][0-2][0-9]:[0-5][0-9]",
        ]
    }

    proptest! {
        /// What can be read can be written, and is read as the same again.
        #[test]
        fn no_text_panics(text in prop_oneof![4 => almost_times(), 1 => any::<String>()], millis: i64, span: u64) {
            let span = Duration::from_millis(span);
            let counted = Timestamp::from_unix_millis(millis);
            for moment in Timestamp::parse(&text).into_iter().chain([counted, counted.plus(span), counted.minus(span)]) {
                prop_assert_eq!(Timestamp::parse(&moment.to_string()), Ok(moment));
            }
        }

        #[test]
        fn milliseconds_survive(millis in EARLIEST_UNIX_MILLIS..=LATEST_UNIX_MILLIS) {
            let moment = Timestamp::from_unix_millis(millis);
            prop_assert_eq!(moment.unix_millis(), millis);
            prop_assert_eq!(moment, Timestamp::parse(&moment.to_string()).unwrap());
        }
    }

    #[test]
    fn a_moment_that_cannot_be_written_is_none() {
        for wrong in ["9999-12-31T23:59:59-01:00", "0000-01-01T00:00:00+01:00", "-000001-01-01T00:00:00Z"] {
            assert!(Timestamp::parse(wrong).is_err(), "{wrong}");
        }
        for (last, shown) in [(i64::MIN, "0000-01-01T00:00:00Z"), (i64::MAX, "9999-12-31T23:59:59.999Z")] {
            let last = Timestamp::from_unix_millis(last);
            assert_eq!(
                (last.to_string(), last.plus(Duration::MAX), last.minus(Duration::MAX)),
                (shown.into(), last, last)
            );
        }
    }

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
