//! A read model in DynamoDB that counts every event exactly once: its writes and the position commit together. Run it
//! beside `angzarr-relay local`: `DYNAMO_ENDPOINT=http://127.0.0.1:PORT cargo run --example totals`
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::path::Path;

use angzarr_relay::config::{Config, Environment};
use angzarr_relay::handler::{HandlerError, HandlerName, Projection, RootBatch, Transactional};
use angzarr_relay::relay::{Relay, clients_for};
use angzarr_relay::storage::{DynamoPositions, TableNames};
use angzarr_relay::time::Clock;
use async_trait::async_trait;
use aws_sdk_dynamodb::types::{AttributeValue, TransactWriteItem, Update};

/// The table of the read model: here the event store's own snapshots, which nobody else uses in `local`.
const MODEL: &str = "angzarr-snapshots";

struct Totals;

#[async_trait]
impl Projection for Totals {
    /// The writes for one root's consecutive events; they happen once, or not at all and then again.
    async fn writes(&self, batch: &RootBatch) -> Result<Vec<TransactWriteItem>, HandlerError> {
        let events = batch.events.len();
        println!("{} has {events} more", batch.root.id());
        let update = Update::builder()
            .table_name(MODEL)
            .key("pk", AttributeValue::S(format!("totals of {}", batch.root)))
            .update_expression("ADD events :events")
            .expression_attribute_values(":events", AttributeValue::N(events.to_string()))
            .build()
            .map_err(|error| HandlerError::permanent(error.to_string()))?;
        Ok(vec![TransactWriteItem::builder().update(update).build()])
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let config = Config::load(
        Some(&Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/totals.toml")),
        &Environment::of_process(),
    )?;
    let (clients, tables) = (clients_for(&config).await, TableNames::from_prefix(&config.storage.dynamo.table_prefix));
    let positions = DynamoPositions::new(&clients, &tables.positions, Clock::system());
    let totals = Transactional::new(HandlerName::new("order-totals")?, positions, Totals);
    let shutdown = async { tokio::signal::ctrl_c().await.unwrap_or_default() };
    Relay::builder(config).handler("order-totals", totals).run(shutdown).await?;
    Ok(())
}
