//! A saga: opens an invoice for every paid order, once, however often it is told. It has the relay's whole command
//! line:
//! `DYNAMO_ENDPOINT=http://127.0.0.1:PORT cargo run --example saga -- run --config examples/saga.toml`
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::process::ExitCode;

use angzarr_relay::aws::{AwsClients, AwsSettings, StaticCredentials};
use angzarr_relay::cli::{InProcessHandlers, start};
use angzarr_relay::event::Root;
use angzarr_relay::handler::{Accepted, Handler, HandlerError, RootBatch};
use angzarr_relay::storage::{EventStore, NewEvent, StorageError};
use angzarr_relay::time::Random;
use async_trait::async_trait;
use tokio::sync::OnceCell;

#[derive(Default)]
struct Invoicing {
    store: OnceCell<EventStore>,
}

impl Invoicing {
    async fn connect() -> EventStore {
        let settings = AwsSettings {
            region: Some("us-east-1".into()),
            dynamodb_endpoint: std::env::var("DYNAMO_ENDPOINT").ok(),
            credentials: Some(StaticCredentials::dummy()),
            ..AwsSettings::default()
        };
        EventStore::new(&AwsClients::new(&settings).await, "angzarr-events", Random::from_entropy())
    }
}

#[async_trait]
impl Handler for Invoicing {
    async fn deliver(&self, batch: &RootBatch) -> Result<Accepted, HandlerError> {
        let store = self.store.get_or_init(Self::connect).await;
        for paid in &batch.events {
            let invoice = Root::new("invoices", "angzarr", batch.root.id())
                .map_err(|e| HandlerError::permanent(e.to_string()))?;
            let opened = NewEvent {
                event_type: "InvoiceOpened".into(),
                payload: paid.payload.clone(),
                correlation_id: paid.correlation_id.clone(),
                created_at: paid.created_at,
            };
            match store.append(&invoice, None, &[opened]).await {
                Ok(_) => println!("invoice for {}", batch.root.id()),
                Err(StorageError::LostRace { .. }) => println!("{} has its invoice already", batch.root.id()),
                Err(error) => return Err(HandlerError::retry(error.to_string())),
            }
        }
        Ok(Accepted::all(batch))
    }
}

fn main() -> ExitCode {
    start(InProcessHandlers::default().with("invoicing", Invoicing::default()))
}
