//! A user's program that appends events, one at a time, and remembers what it has written. A call that fails is made
//! again, with the same token, so that an event is written once.

use std::collections::BTreeMap;

use angzarr_relay::aws::AwsClients;
use angzarr_relay::event::Sequence;
use angzarr_relay::storage::{EventStore, StorageError, TableNames};
use angzarr_relay::time::Random;

use super::{RelayHome, until};
use crate::embedded::{event, root};

/// Appends to the roots `r0`, `r1`, and so on.
#[derive(Debug)]
pub(crate) struct Writer {
    store: EventStore,
    written: BTreeMap<String, Vec<u64>>,
}

impl Writer {
    /// Writes to the events table of the relays under test.
    pub(crate) fn new(aws: &AwsClients) -> Self {
        let table = TableNames::from_prefix(RelayHome::PREFIX).events;
        Self { store: EventStore::new(aws, &table, Random::from_entropy()), written: BTreeMap::new() }
    }

    /// Goes on with the same roots in another DynamoDB.
    pub(crate) fn moved_to(self, aws: &AwsClients) -> Self {
        Self { written: self.written, ..Self::new(aws) }
    }

    /// Appends one event to a root.
    pub(crate) async fn append(&mut self, number: u64) {
        self.append_payload(number, b"0").await;
    }

    /// Appends one event with this payload to a root.
    pub(crate) async fn append_payload(&mut self, number: u64, payload: &[u8]) {
        let event = [event("OrderPlaced", payload)];
        let id = format!("r{number}");
        let written = self.written.entry(id.clone()).or_default();
        let last = written.last().copied().map(Sequence);
        let token = format!("{id}-{}", written.len());
        let appended = until("the event is written", async || {
            match self.store.append_with_token(&root(&id), last, &event, &token).await {
                Err(StorageError::Unavailable { .. }) => None,
                other => Some(other.unwrap()),
            }
        })
        .await;
        written.push(appended.0);
    }

    /// Appends `each` events to each of `roots`, in turn.
    pub(crate) async fn append_to(&mut self, roots: std::ops::Range<u64>, each: u64) {
        for _ in 0..each {
            for number in roots.clone() {
                self.append(number).await;
            }
        }
    }

    /// The sequences of each root, by the root's id.
    pub(crate) fn written(&self) -> &BTreeMap<String, Vec<u64>> {
        &self.written
    }
}
