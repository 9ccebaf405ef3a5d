//! Rows of the events table put together, root by root and payload by payload. Pure.
//!
//! A parallel Scan puts a partition key into one segment and its rows one behind the other, the lowest sequence first; so
//! a root is complete when the next one begins, and nothing but the one at hand is kept. Rows whose key is no event key
//! are passed.

use crate::event::{ChunkKey, Root, Sequence};

/// Roots handed on together: as many as one read of positions takes.
const BATCH_ROOTS: usize = 100;

/// What the table holds of a root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootKeys {
    /// The root.
    pub root: Root,
    /// Its first sequence.
    pub first: Sequence,
    /// Its last.
    pub last: Sequence,
    /// How many there are.
    pub count: u64,
}

impl RootKeys {
    /// How many sequences are missing between the first and the last.
    #[must_use]
    pub fn missing(&self) -> u64 {
        (self.last.0 - self.first.0).saturating_sub(self.count - 1)
    }
}

/// What the table holds of one payload in chunks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PayloadKeys {
    /// Whose payload, as which append wrote it.
    pub key: ChunkKey,
    /// How many chunks there are; none where an event's row names them and they were not met.
    pub chunks: u64,
    /// The number of the last.
    pub last: Sequence,
}

/// Keys that were met, put together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyBatch {
    /// The roots.
    pub roots: Vec<RootKeys>,
    /// The payloads in chunks: of chunk rows that were met, and of event rows that name some.
    pub payloads: Vec<PayloadKeys>,
}

/// Puts rows that follow each other together by root.
#[derive(Debug, Default)]
pub(super) struct Roots {
    current: Option<RootKeys>,
    complete: Vec<RootKeys>,
    payload: Option<PayloadKeys>,
    payloads: Vec<PayloadKeys>,
}

impl Roots {
    fn add_chunk(&mut self, key: ChunkKey, number: Sequence) {
        match &mut self.payload {
            Some(payload) if payload.key == key => {
                payload.chunks += 1;
                payload.last = payload.last.max(number);
            }
            _ => {
                let next = PayloadKeys { key, chunks: 1, last: number };
                self.payloads.extend(self.payload.replace(next));
            }
        }
    }

    /// Takes a row of the table, by its key and the append that wrote its payload in chunks; one whose key is nobody's is
    /// passed.
    pub(super) fn add_row(&mut self, pk: &str, number: Sequence, append_id: Option<&str>) {
        if ChunkKey::is_chunk(pk) {
            if let Some(key) = ChunkKey::parse(pk) {
                self.add_chunk(key, number);
            }
        } else if let Ok(root) = Root::parse(pk) {
            if let Some(append_id) = append_id {
                let key = ChunkKey { root: root.clone(), sequence: number, append_id: append_id.into() };
                self.payloads.push(PayloadKeys { key, chunks: 0, last: Sequence::FIRST });
            }
            self.add(root, number);
        }
    }

    /// A full batch, or what is left at the end.
    pub(super) fn batch(&mut self, at_end: bool) -> Option<KeyBatch> {
        let some = self.complete.len() + self.payloads.len();
        if some == 0 || (some < BATCH_ROOTS && !at_end) {
            return None;
        }
        let roots = self.complete.drain(..self.complete.len().min(BATCH_ROOTS)).collect();
        let payloads = self.payloads.drain(..self.payloads.len().min(BATCH_ROOTS)).collect();
        Some(KeyBatch { roots, payloads })
    }

    fn add(&mut self, root: Root, sequence: Sequence) {
        match &mut self.current {
            Some(keys) if keys.root == root => {
                keys.last = keys.last.max(sequence);
                keys.count += 1;
            }
            _ => {
                let next = RootKeys { root, first: sequence, last: sequence, count: 1 };
                self.complete.extend(self.current.replace(next));
            }
        }
    }

    pub(super) fn end(&mut self) {
        self.complete.extend(self.current.take());
        self.payloads.extend(self.payload.take());
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use proptest::prelude::*;

    /// The rows of a table in the order of a Scan: partition by partition, each by its sort key. A row of `orders##{n}`
    /// may name an append; chunks stand under the keys of events.
    fn tables() -> impl Strategy<Value = Vec<(String, u64, Option<String>)>> {
        let root = || "[ab]{1,2}".prop_map(|id| format!("orders##{id}"));
        let chunk =
            (root(), 0_u64..3, "[xy]").prop_map(|(root, number, append)| format!("#chunk#{root}#{number}#{append}"));
        let pk = prop_oneof![4 => root(), 2 => chunk, 1 => "nobody's", 1 => "#chunk#nobody's"];
        let row = (pk, 0_u64..6, proptest::option::weighted(0.2, "[xy]"));
        proptest::collection::vec(row, 0..60).prop_map(|rows| {
            let rows: BTreeMap<(String, u64), Option<String>> =
                rows.into_iter().map(|(pk, sk, append)| ((pk, sk), append)).collect();
            rows.into_iter().map(|((pk, sk), append)| (pk, sk, append)).collect()
        })
    }

    proptest! {
        /// Against the plain way, which has the whole table in memory.
        #[test]
        fn agrees_with_all_rows_looked_through_for_each_root(table in tables()) {
            let mut roots = Roots::default();
            for (pk, sk, append_id) in &table {
                roots.add_row(pk, Sequence(*sk), append_id.as_deref());
            }
            roots.end();
            let found = roots.batch(true).unwrap_or_default();
            prop_assert_eq!(roots.batch(true), None);

            let mut of_partition: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
            for (pk, sk, _) in &table {
                of_partition.entry(pk).or_default().push(*sk);
            }
            let is_chunk = |pk: &str| pk.starts_with("#chunk#orders");
            let mut expected = Vec::new();
            for (pk, sks) in of_partition.iter().filter(|(pk, _)| pk.starts_with("orders")) {
                let (first, last) = (sks.iter().min().unwrap(), sks.iter().max().unwrap());
                let missing = (*first..*last).filter(|sequence| !sks.contains(sequence)).count() as u64;
                expected.push(((*pk).to_owned(), *first, *last, sks.len() as u64, missing));
            }
            let shown = |keys: &RootKeys| (keys.root.key().to_owned(), keys.first.0, keys.last.0, keys.count, keys.missing());
            prop_assert_eq!(found.roots.iter().map(shown).collect::<Vec<_>>(), expected);

            let mut expected: Vec<(String, u64, u64)> = (of_partition.iter())
                .filter(|(pk, _)| is_chunk(pk))
                .map(|(pk, sks)| ((*pk).to_owned(), sks.len() as u64, *sks.iter().max().unwrap()))
                .collect();
            for (pk, sk, append_id) in &table {
                let named = append_id.iter().filter(|_| pk.starts_with("orders"));
                expected.extend(named.map(|append_id| (format!("#chunk#{pk}#{sk}#{append_id}"), 0, 0)));
            }
            let shown = |payload: &PayloadKeys| (payload.key.to_string(), payload.chunks, payload.last.0);
            let mut payloads: Vec<_> = found.payloads.iter().map(shown).collect();
            payloads.sort();
            expected.sort();
            prop_assert_eq!(payloads, expected);
        }
    }

    #[test]
    fn batches_hold_a_hundred_and_wait_until_they_are_full() {
        let mut roots = Roots::default();
        assert_eq!(roots.batch(true), None, "there is nothing");
        let mut shown = Vec::new();
        for number in 0..=250 {
            roots.add_row(&format!("d##{number}"), Sequence(0), Some("x").filter(|_| number % 5 == 0));
            shown.extend(roots.batch(false).map(|batch| (number, batch.roots.len(), batch.payloads.len())));
        }
        assert_eq!(shown, [(83, 83, 17), (166, 83, 17), (250, 84, 17)]);
        for number in 0..250 {
            roots.add_row(&format!("e##{number}"), Sequence(0), None);
        }
        roots.end();
        let sizes: Vec<_> = std::iter::from_fn(|| roots.batch(true)).map(|batch| batch.roots.len()).collect();
        assert_eq!(sizes, [100, 100, 51]);
    }

    #[test]
    fn rows_are_put_together_by_root() {
        let root = |id| Root::new("d", "", id).unwrap();
        let mut roots = Roots::default();
        for (id, sequence) in [("a", 0), ("a", 1), ("a", 3), ("b", 5), ("c", 0)] {
            roots.add(root(id), Sequence(sequence));
        }
        assert_eq!(roots.complete.len(), 2, "the last may have more rows");
        roots.end();
        let shown: Vec<_> = (roots.complete.iter())
            .map(|keys| (keys.root.id(), keys.first.0, keys.last.0, keys.count, keys.missing()))
            .collect();
        assert_eq!(shown, [("a", 0, 3, 3, 1), ("b", 5, 5, 1, 0), ("c", 0, 0, 1, 0)]);
    }

    #[test]
    fn chunks_are_put_together_by_payload_and_named_by_events() {
        let root = Root::new("d", "", "a").unwrap();
        let key = |sequence, append_id: &str| ChunkKey {
            root: root.clone(),
            sequence: Sequence(sequence),
            append_id: append_id.into(),
        };
        let mut roots = Roots::default();
        for number in [0, 1, 5] {
            roots.add_row(&key(7, "x").to_string(), Sequence(number), None);
        }
        roots.add_row(&key(7, "y").to_string(), Sequence(0), None);
        roots.add_row("d##a", Sequence(7), Some("x"));
        roots.end();
        let batch = roots.batch(true).unwrap();
        assert_eq!(batch.roots.len(), 1);
        let found: Vec<_> =
            batch.payloads.iter().map(|payload| (&*payload.key.append_id, payload.chunks, payload.last.0)).collect();
        assert_eq!(found, [("x", 3, 5), ("x", 0, 0), ("y", 1, 0)]);
        assert_eq!(roots.batch(true), None);
    }
}
