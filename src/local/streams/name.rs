//! The name of a virtual shard, as AWS writes them: `shardId-<20 digits of milliseconds>-<hash>`. Pure.
//!
//! Invariant: names are ordered as their texts are, and a later one is greater, so a parent stands before its children.

use std::fmt;

use crate::stream::ShardId;

const BEGIN: &str = "shardId-";
const MILLIS_DIGITS: usize = 20;
const MARK_DIGITS: usize = 8;

/// Odd, so that different indexes have different marks.
const MARK_STRIDE: u32 = 0x9E37_79B1;
/// So that the marks of two changes differ, too, mostly.
const MILLIS_STRIDE: u64 = 0x9E37_79B9_7F4A_7C15;

/// A shard's name; small enough for ten thousand of them, each in several maps.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct ShardName {
    made_unix_millis: u64,
    mark: u32,
}

impl ShardName {
    /// The name of the `index`-th of the shards that were made together.
    pub(super) fn new(made_unix_millis: u64, index: u32) -> Self {
        let mixed = made_unix_millis.wrapping_mul(MILLIS_STRIDE) >> u32::BITS;
        let of_change = u32::try_from(mixed).unwrap_or_default();
        Self { made_unix_millis, mark: index.wrapping_mul(MARK_STRIDE) ^ of_change }
    }

    /// Reads a name; none when it is none of these.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (millis, mark) = text.strip_prefix(BEGIN)?.split_once('-')?;
        let digits = |text: &str, count| text.len() == count && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !digits(millis, MILLIS_DIGITS) || !digits(mark, MARK_DIGITS) {
            return None;
        }
        Some(Self { made_unix_millis: millis.parse().ok()?, mark: u32::from_str_radix(mark, 16).ok()? })
    }

    pub(super) fn made_unix_millis(self) -> u64 {
        self.made_unix_millis
    }

    pub(super) fn id(self) -> ShardId {
        ShardId::new(&self.to_string())
    }
}

impl fmt::Display for ShardName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{BEGIN}{:020}-{:08x}", self.made_unix_millis, self.mark)
    }
}

impl fmt::Debug for ShardName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_name_has_the_form_and_the_length_of_those_of_aws() {
        let name = ShardName::new(1_700_000_000_000, 0).to_string();
        assert!((28..=65).contains(&name.len()), "{name}");
        assert_eq!(ShardId::new(&name).created_unix_millis(), Some(1_700_000_000_000));
    }

    #[test]
    fn what_is_no_name_is_not_read() {
        for wrong in ["", "shardId-", "shardId-1-00000001", "shardId-0000000000000000000a-00000001", "x"] {
            assert_eq!(ShardName::parse(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn names_are_ordered_as_their_texts_and_read_back(one: (u64, u32), two: (u64, u32)) {
            let [one, two] = [one, two].map(|(millis, index)| ShardName::new(millis, index));
            prop_assert_eq!(one.cmp(&two), one.to_string().cmp(&two.to_string()));
            prop_assert_eq!(ShardName::parse(&one.to_string()), Some(one));
        }

        #[test]
        fn shards_made_together_have_different_names(one: u32, two: u32) {
            prop_assume!(one != two);
            prop_assert_ne!(ShardName::new(5, one), ShardName::new(5, two));
        }
    }
}
