//! The transactional handler of the simulation: its writes are entries, one for each event, which commit with its position.
//!
//! It misbehaves as a receiver does, while its writes are made. What was applied the checker learns where the transaction
//! takes effect (`faulty_tables`), whether the handler lives to see it or not.

use std::slice::from_ref;
use std::sync::Arc;

use angzarr_relay::event::Sequence;
use angzarr_relay::handler::{
    Accepted, GroupLimits, Handler, HandlerError, Projection, RootBatch, Transactional, WRITES_MAX,
};
use angzarr_relay::telemetry::names;
use angzarr_relay::time::Clock;
use async_trait::async_trait;
use aws_sdk_dynamodb::types::{AttributeValue, Put, TransactWriteItem};

use crate::faulty::Faulty;
use crate::receiver::Receiver;

/// The key of an entry: the sequence of its event.
const ENTRY: &str = "sequence";

/// The writes for an event.
fn entry(sequence: Sequence) -> TransactWriteItem {
    let put = Put::builder().table_name("entries").item(ENTRY, AttributeValue::N(sequence.to_string()));
    TransactWriteItem::builder().put(put.build().unwrap()).build()
}

/// The event an entry is for.
pub(crate) fn sequence_of(write: &TransactWriteItem) -> Sequence {
    Sequence(write.put().unwrap().item()[ENTRY].as_n().unwrap().parse().unwrap())
}

struct Entries(Arc<Receiver>);

#[async_trait]
impl Projection for Entries {
    async fn writes(&self, batch: &RootBatch) -> Result<Vec<TransactWriteItem>, HandlerError> {
        let taken = self.0.take(batch).await?.events;
        match batch.events.len() {
            all if taken == all => Ok(batch.events.iter().map(|event| entry(event.sequence)).collect()),
            1 => Err(HandlerError::retry("not now")),
            // More than fits: it is asked for those of fewer events.
            _ => Ok(vec![entry(Sequence::FIRST); WRITES_MAX + 1]),
        }
    }
}

/// A transactional handler whose projection misbehaves.
pub(crate) struct Ledger {
    receiver: Arc<Receiver>,
    transactional: Transactional<Entries>,
}

impl Ledger {
    pub(crate) fn new(receiver: Receiver, positions: Faulty, clock: Clock) -> Self {
        let (name, random) = (receiver.name.clone(), receiver.world.chance.clone());
        let receiver = Arc::new(receiver);
        let transactional = Transactional::new(name, positions, Entries(receiver.clone())).with_time(clock, random);
        Self { receiver, transactional }
    }
}

#[async_trait]
impl Handler for Ledger {
    async fn deliver(&self, batch: &RootBatch) -> Result<Accepted, HandlerError> {
        let Receiver { world, name, replica, .. } = &*self.receiver;
        self.receiver.begin(from_ref(batch));
        let accepted = self.transactional.deliver(batch).await?;
        for _ in 0..accepted.events {
            world.check(|checker| checker.did(replica, names::EVENTS_DELIVERED, name));
        }
        world.note(&format!("{replica} accepted {name} {} {}", batch.root, accepted.events));
        Ok(accepted)
    }

    fn limits(&self) -> GroupLimits {
        self.transactional.limits()
    }

    fn commits_positions(&self) -> bool {
        self.transactional.commits_positions()
    }
}
