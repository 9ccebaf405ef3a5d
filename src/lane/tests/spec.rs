//! The rows of a test, as it names them.

use crate::event::{Event, InvalidRow, Root, Row, Sequence, Timestamp};

/// A row as a test names it.
#[derive(Debug, Clone)]
pub(super) struct Spec {
    pub(super) root: Root,
    pub(super) sequence: u64,
    event_type: &'static str,
    pub(super) created_at: i64,
    payload: usize,
    invalid: bool,
}

/// An event of type `T`, created at 1000 ms.
pub(super) fn ev(root: &str, sequence: u64) -> Spec {
    Spec { root: root_of(root), sequence, event_type: "T", created_at: 1000, payload: 8, invalid: false }
}

/// Events of one root.
pub(super) fn evs(root: &str, sequences: impl IntoIterator<Item = u64>) -> Vec<Spec> {
    sequences.into_iter().map(|sequence| ev(root, sequence)).collect()
}

pub(super) fn root_of(id: &str) -> Root {
    Root::new("orders", "", id).unwrap()
}

impl Spec {
    pub(super) fn of(self, event_type: &'static str) -> Self {
        Self { event_type, ..self }
    }

    pub(super) fn at(self, created_at: i64) -> Self {
        Self { created_at, ..self }
    }

    /// The same event of another root.
    pub(super) fn of_root(self, root: Root) -> Self {
        Self { root, ..self }
    }

    pub(super) fn sized(self, payload: usize) -> Self {
        Self { payload, ..self }
    }

    pub(super) fn invalid(self) -> Self {
        Self { invalid: true, ..self }
    }

    pub(super) fn row(&self) -> Row {
        let (root, sequence) = (self.root.clone(), Sequence(self.sequence));
        if self.invalid {
            return Err(InvalidRow { root, sequence, reason: "test".into() });
        }
        Ok(Event {
            root,
            sequence,
            event_type: self.event_type.into(),
            payload: vec![0; self.payload].into(),
            chunked: None,
            correlation_id: None,
            traceparent: None,
            created_at: Timestamp::from_unix_millis(self.created_at),
        })
    }
}
