//! A projector: counts orders by their last event. Run it beside `angzarr-relay local`:
//! `DYNAMO_ENDPOINT=http://127.0.0.1:PORT cargo run --example projector`
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;

use angzarr_relay::config::{Config, Environment};
use angzarr_relay::event::Root;
use angzarr_relay::handler::{Accepted, Handler, HandlerError, RootBatch};
use angzarr_relay::relay::Relay;
use async_trait::async_trait;

#[derive(Default)]
struct OrderCounts {
    last_event: Mutex<BTreeMap<Root, String>>,
}

#[async_trait]
impl Handler for OrderCounts {
    /// One root's consecutive events, in order. Given again after a crash: this view does not mind.
    async fn deliver(&self, batch: &RootBatch) -> Result<Accepted, HandlerError> {
        let mut orders = self.last_event.lock().map_err(|_| HandlerError::retry("the view is broken"))?;
        for event in &batch.events {
            orders.insert(event.root.clone(), event.event_type.to_string());
        }
        let mut counts = BTreeMap::<&str, usize>::new();
        for event_type in orders.values() {
            *counts.entry(event_type).or_default() += 1;
        }
        println!("{counts:?}");
        Ok(Accepted::all(batch))
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let config = Config::load(
        Some(&Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/projector.toml")),
        &Environment::of_process(),
    )?;
    let shutdown = async { tokio::signal::ctrl_c().await.unwrap_or_default() };
    Relay::builder(config).handler("order-counts", OrderCounts::default()).run(shutdown).await?;
    Ok(())
}
