//! Stream sequence numbers: decimal text of 21 to 40 digits, more than any machine integer holds, compared by (length,
//! text).

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

/// The number of a record within its shard. Numbers of different shards are not comparable in meaning.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct StreamSequence(Arc<str>);

impl StreamSequence {
    /// Takes the digits as DynamoDB wrote them; leading zeros do not count.
    #[must_use]
    pub fn new(digits: &str) -> Self {
        let significant = digits.trim_start_matches('0');
        Self(if significant.is_empty() { "0" } else { significant }.into())
    }

    /// The digits, padded as DynamoDB Streams requires at least: 21.
    #[must_use]
    pub fn digits(&self) -> String {
        format!("{:0>21}", self.0)
    }
}

impl Ord for StreamSequence {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.len().cmp(&other.0.len()).then_with(|| self.0.cmp(&other.0))
    }
}

impl PartialOrd for StreamSequence {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Debug for StreamSequence {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl fmt::Display for StreamSequence {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// A place in a shard from which to read on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum StreamPoint {
    /// The oldest record the stream still has.
    Horizon,
    /// Behind this record.
    After(StreamSequence),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_by_length_then_text() {
        let numbers = [
            "9",
            "10",
            "99",
            "100",
            "340282366920938463463374607431768211456",
            "1000000000000000000000000000000000000000",
        ];
        for pair in numbers.windows(2) {
            assert!(StreamSequence::new(pair[0]) < StreamSequence::new(pair[1]), "{pair:?}");
        }
        assert_eq!(StreamSequence::new("000100"), StreamSequence::new("100"));
        assert_eq!(StreamSequence::new("000").to_string(), "0");
        assert!(StreamPoint::Horizon < StreamPoint::After(StreamSequence::new("0")));
    }
}
