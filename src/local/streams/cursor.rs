//! What a shard iterator says: where to read on, and since when it holds. Pure.
//!
//! It is opaque to clients, carries a check, and is kept nowhere: reading the same one twice gives the same answer.
//! Invariant: an iterator is no longer than AWS's.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use md5::{Digest as _, Md5};

use super::name::ShardName;
use super::number::Number;

/// The longest iterator of the service.
pub(super) const ITERATOR_CHARS_MAX: usize = 2048;

/// Between the stream and the place in it, as in iterators of AWS.
const BETWEEN: &str = "|1|";
/// Between the parts of the place.
const PART: char = ' ';
/// The bytes of the check.
const CHECK_BYTES: usize = 4;

/// A place in a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cursor {
    /// The stream's ARN.
    pub(super) stream: String,
    pub(super) shard: ShardName,
    /// Read what is behind this number.
    pub(super) after: Number,
    pub(super) given: Given,
}

/// When an iterator was given out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Given {
    /// Changes with the server, and when all iterators are made to expire.
    pub(super) epoch: u64,
    /// Since the server's start.
    pub(super) at_millis: u64,
}

impl Given {
    /// Whether what was given out then has expired now.
    pub(super) fn has_expired(self, now: Self, lifetime: Duration) -> bool {
        let age = Duration::from_millis(now.at_millis.saturating_sub(self.at_millis));
        self.epoch != now.epoch || age >= lifetime
    }
}

impl Cursor {
    /// The iterator.
    pub(super) fn encode(&self) -> String {
        let Self { stream, shard, after, given } = self;
        let place = format!("{shard}{PART}{after}{PART}{}{PART}{}", given.epoch, given.at_millis);
        let bytes = [&check(stream, place.as_bytes())[..], place.as_bytes()].concat();
        format!("{stream}{BETWEEN}{}", URL_SAFE_NO_PAD.encode(bytes))
    }

    /// Reads an iterator; none when it was not given out by [`Cursor::encode`].
    pub(super) fn decode(iterator: &str) -> Option<Self> {
        if iterator.len() > ITERATOR_CHARS_MAX {
            return None;
        }
        let (stream, place) = iterator.rsplit_once(BETWEEN)?;
        let bytes = URL_SAFE_NO_PAD.decode(place).ok()?;
        let (checked, place) = bytes.split_at_checked(CHECK_BYTES)?;
        if *checked != check(stream, place) {
            return None;
        }
        let mut parts = std::str::from_utf8(place).ok()?.split(PART);
        let mut part = || parts.next();
        Some(Self {
            stream: stream.to_owned(),
            shard: ShardName::parse(part()?)?,
            after: Number::parse(part()?)?,
            given: Given { epoch: part()?.parse().ok()?, at_millis: part()?.parse().ok()? },
        })
    }
}

fn check(stream: &str, place: &[u8]) -> [u8; CHECK_BYTES] {
    let [a, b, c, d, ..]: [u8; 16] = Md5::new().chain_update(stream).chain_update(place).finalize().into();
    [a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cursor(stream: &str, upstream: u64, epoch: u64, at_millis: u64) -> Cursor {
        let after = Number::of_upstream(&upstream.to_string()).unwrap();
        Cursor { stream: stream.into(), shard: ShardName::new(upstream, 7), after, given: Given { epoch, at_millis } }
    }

    #[test]
    fn an_iterator_expires_with_its_time_and_with_its_epoch() {
        let at = |epoch, at_millis| Given { epoch, at_millis };
        let lifetime = Duration::from_secs(1);
        assert!(!at(3, 500).has_expired(at(3, 1499), lifetime));
        assert!(at(3, 500).has_expired(at(3, 1500), lifetime));
        assert!(at(3, 500).has_expired(at(4, 500), lifetime));
    }

    #[test]
    fn the_longest_iterator_is_short_enough() {
        let longest = cursor(&"a".repeat(1024), u64::MAX, u64::MAX, u64::MAX).encode();
        assert!(longest.len() <= ITERATOR_CHARS_MAX, "{}", longest.len());
    }

    #[test]
    fn what_was_not_given_out_is_not_read() {
        let good = cursor("arn", 5, 6, 7).encode();
        for wrong in [
            "",
            "|1|",
            "arn|1|",
            "garbage",
            &good[1..],
            &good[..good.len() - 1],
            &format!("x{good}"),
            &"a".repeat(3000),
        ] {
            assert_eq!(Cursor::decode(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn an_iterator_says_what_it_was_given(stream in "[a-z:|1/-]{0,40}", upstream: u64, epoch: u64, at_millis: u64) {
            let given = cursor(&stream, upstream, epoch, at_millis);
            prop_assert_eq!(Cursor::decode(&given.encode()), Some(given));
        }

        #[test]
        fn a_changed_iterator_is_refused(at in 0_usize..200, character in "[A-Za-z0-9_-]") {
            let good = cursor("arn", 5, 6, 7).encode();
            let at = at % good.len();
            let mut bad = good.clone();
            bad.replace_range(at..=at, &character);
            // Some of the last bits of base64 stand for nothing; the decoder refuses others than zero.
            prop_assert!(bad == good || Cursor::decode(&bad).is_none(), "{}", bad);
        }

        #[test]
        fn nothing_makes_it_panic(text in ".{0,300}") {
            prop_assert_eq!(Cursor::decode(&text), None);
        }
    }
}
