//! Stream sequence numbers: decimal text of 21 to 40 digits, more than any machine integer holds, compared by (length,
//! text). A place in a scan of the table is one, too: the number of rows before it, and the key to go on behind.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

/// The number of a record within its shard. Numbers of different shards are not comparable in meaning.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct StreamSequence(Arc<str>);

/// Between the parts of a place in a scan.
const PART: char = '@';

impl StreamSequence {
    /// Takes the digits as DynamoDB wrote them; leading zeros do not count.
    #[must_use]
    pub fn new(digits: &str) -> Self {
        let significant = digits.trim_start_matches('0');
        Self(if significant.is_empty() { "0" } else { significant }.into())
    }

    /// A place in a scan that nobody reads on from.
    #[must_use]
    pub(crate) fn of_number(rows: u64) -> Self {
        Self(rows.to_string().into())
    }

    /// The place of the row that is the `rows`-th of a scan and has this key.
    #[must_use]
    pub fn of_row(rows: u64, sk: &str, pk: &str) -> Self {
        Self(format!("{rows}{PART}{sk}{PART}{pk}").into())
    }

    /// Of a place in a scan: the number of rows up to it, and the key there, `sk` and `pk`.
    #[must_use]
    pub fn row(&self) -> Option<(u64, &str, &str)> {
        let (rows, key) = self.0.split_once(PART)?;
        let (sk, pk) = key.split_once(PART)?;
        Some((rows.parse().ok()?, sk, pk))
    }

    /// Reads what [`StreamSequence::digits`] wrote; none when it is neither a number nor a place in a scan.
    #[must_use]
    pub fn parse(written: &str) -> Option<Self> {
        let sequence = Self::new(written);
        let number = sequence.magnitude();
        let whole = number.len() == sequence.0.len() || sequence.row().is_some();
        (!written.is_empty() && whole && number.bytes().all(|digit| digit.is_ascii_digit())).then_some(sequence)
    }

    /// The digits, padded to the 21 that DynamoDB Streams requires at least; [`StreamSequence::parse`] undoes it.
    #[must_use]
    pub fn digits(&self) -> String {
        format!("{:0>21}", self.0)
    }

    fn magnitude(&self) -> &str {
        self.0.split(PART).next().unwrap_or_default()
    }
}

impl Ord for StreamSequence {
    fn cmp(&self, other: &Self) -> Ordering {
        let (one, two) = (self.magnitude(), other.magnitude());
        one.len().cmp(&two.len()).then_with(|| one.cmp(two)).then_with(|| self.0.cmp(&other.0))
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
    use proptest::prelude::*;

    /// The digits as a number of forty places, the most that DynamoDB writes.
    fn places(digits: &str) -> String {
        format!("{digits:0>40}")
    }

    proptest! {
        #[test]
        fn numbers_are_ordered_by_their_value(one in "0{0,3}[0-9]{1,37}", two in "0{0,3}[0-9]{1,37}") {
            let (first, second) = (StreamSequence::new(&one), StreamSequence::new(&two));
            prop_assert_eq!(first.cmp(&second), places(&one).cmp(&places(&two)));
            prop_assert_eq!(first == second, places(&one) == places(&two));
            prop_assert!(first.digits().len() >= 21 && places(&first.digits()) == places(&one));
            prop_assert_eq!(StreamSequence::parse(&one), Some(first.clone()));
            prop_assert_eq!(StreamSequence::parse(&first.digits()), Some(first));
        }

        #[test]
        fn any_place_in_a_scan_survives_being_written(rows in 1_u64.., sk in "-?[0-9]{1,38}", pk: String) {
            let place = StreamSequence::of_row(rows, &sk, &pk);
            let read = StreamSequence::parse(&place.digits()).unwrap();
            prop_assert_eq!(read.row(), Some((rows, sk.as_str(), pk.as_str())));
            prop_assert_eq!(StreamSequence::of_number(rows).cmp(&place), Ordering::Less);
            prop_assert_eq!(StreamSequence::of_number(rows + 1).cmp(&place), Ordering::Greater);
            prop_assert_eq!(read, place);
        }

        /// What can be read is read as the same when it was written again, and equal are those of which neither is less.
        #[test]
        fn no_text_panics(one in prop_oneof!["[0-9@a]{0,8}", any::<String>()], two in "[0-9@a]{0,8}") {
            if let Some(read) = StreamSequence::parse(&one) {
                prop_assert_eq!(StreamSequence::parse(&read.digits()), Some(read));
            }
            let (first, second) = (StreamSequence::new(&one), StreamSequence::new(&two));
            prop_assert_eq!(first.cmp(&second) == Ordering::Equal, first == second);
            prop_assert_eq!(first.cmp(&second), second.cmp(&first).reverse());
            prop_assert_eq!(first.partial_cmp(&second), Some(first.cmp(&second)));
        }
    }

    #[test]
    fn a_place_in_a_scan_is_ordered_by_its_rows_and_survives_being_written() {
        let places = [(9, "7", "orders##b@1"), (10, "0", "a##1"), (1000, "123456", "")];
        for pair in places.windows(2) {
            let [one, two] = [pair[0], pair[1]].map(|(rows, sk, pk)| StreamSequence::of_row(rows, sk, pk));
            assert!(one < two);
        }
        for (rows, sk, pk) in places {
            let place = StreamSequence::of_row(rows, sk, pk);
            let read = StreamSequence::parse(&place.digits()).unwrap();
            assert_eq!((read.row(), &read), (Some((rows, sk, pk)), &place));
        }
        for wrong in ["", "12x", "@1@k", "1@2"] {
            assert_eq!(StreamSequence::parse(wrong), None, "{wrong}");
        }
        assert_eq!(StreamSequence::parse("00012").unwrap().row(), None);
    }

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
        assert_eq!(format!("{:?}", StreamSequence::new("0100")), "100");
        assert!(StreamPoint::Horizon < StreamPoint::After(StreamSequence::new("0")));
    }
}
