//! Replicas that differ: in the handlers they are configured with, as in a rolling deployment, and in what they know of the
//! relay's table.

use std::sync::{Arc, Mutex};

use angzarr_relay::aws::AwsClients;
use angzarr_relay::local::{EmbeddedDynamo, EmbeddedStreams, StreamsOptions};
use angzarr_relay::storage::TableNames;
use aws_sdk_dynamodb::types::AttributeValue;
use serde_json::{Value, json};

use crate::embedded::sharded_tables;
use crate::outage::{Service, has_all, serve};
use crate::support::{RelayHome, RelayProcess, Writer, until};

/// So many that their even share by one, two or three replicas leaves none of these without any.
const SHARDS: u32 = 5;
const ROOTS: u64 = 20;

/// Tables behind five shards, and a service for each of two handlers.
struct Setting {
    dynamo: EmbeddedDynamo,
    streams: EmbeddedStreams,
    aws: AwsClients,
    services: [(Arc<Mutex<Service>>, String); 2],
}

const BILLING: usize = 0;
const SHIPPING: usize = 1;
const NAMES: [&str; 2] = ["billing", "shipping"];

impl Setting {
    async fn build() -> Self {
        let dynamo = EmbeddedDynamo::start(None).unwrap();
        let options = StreamsOptions { shards: SHARDS, ..StreamsOptions::default() };
        let (streams, aws, _) = sharded_tables(dynamo.endpoint(), RelayHome::PREFIX, options).await;
        let services = [Arc::<Mutex<Service>>::default(), Arc::default()];
        let [billing, shipping] = services;
        let urls = [serve(billing.clone()).await, serve(shipping.clone()).await];
        let [billing_url, shipping_url] = urls;
        Self { dynamo, streams, aws, services: [(billing, billing_url), (shipping, shipping_url)] }
    }

    /// A folder with a configuration of these handlers.
    fn home(&self, handlers: &[usize]) -> RelayHome {
        let home = RelayHome::new();
        let mut config = "[relay]\npoll_interval_max = \"250ms\"\n".to_owned();
        for handler in handlers {
            let (name, url) = (NAMES[*handler], &self.services[*handler].1);
            let of_handler = format!(
                "[[handlers]]\nname = \"{name}\"\nkind = \"sink\"\nstart = \"beginning\"\nflush_interval = \"200ms\"\nsubscribe = [{{ domain = \"*\" }}]\nhttp = {{ url = \"{url}\" }}\n"
            );
            config.push_str(&of_handler);
        }
        home.configure_with_streams(self.dynamo.endpoint(), self.streams.endpoint(), &config);
        home
    }

    async fn start(&self, handlers: &[usize]) -> (RelayHome, RelayProcess) {
        let home = self.home(handlers);
        let relay = home.start().await;
        (home, relay)
    }

    /// Waits until a handler has had everything, each event once.
    async fn has_all(&self, handler: usize, writer: &Writer) {
        let service = &self.services[handler].0;
        until("everything has arrived", async || has_all(service, writer)).await;
        assert_eq!(service.lock().unwrap().taken, *writer.written(), "each event once");
    }
}

/// Of each handler: by how many replicas it is run, how many shards it has, and how many owners these.
fn status(home: &RelayHome) -> [(u64, usize, usize); 2] {
    let (worked, said, complaint) = home.command(&["status", "--json"]);
    assert!(worked, "{complaint}");
    let status: Value = serde_json::from_str(&said).unwrap();
    let handlers = status["handlers"].as_array().unwrap();
    NAMES.map(|name| {
        let replicas = handlers
            .iter()
            .find(|handler| handler["handler"] == name)
            .map_or(0, |handler| handler["replicas"].as_u64().unwrap());
        let leases = status["leases"].as_array().unwrap().iter();
        let held: Vec<&Value> = leases
            .filter(|lease| lease["handler"] == name && lease["kind"] == "shard" && lease["state"] == "held")
            .map(|lease| &lease["owner"])
            .collect();
        let mut owners = held.clone();
        owners.sort_by_key(ToString::to_string);
        owners.dedup();
        (replicas, held.len(), owners.len())
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_that_changes_the_handlers_runs_each_where_it_is_configured() {
    let setting = Setting::build().await;
    let mut writer = Writer::new(&setting.aws);
    let watcher = setting.home(&[BILLING]);
    let shared = async |expected: [(u64, usize, usize); 2]| {
        until("the shards are shared so", async || (status(&watcher) == expected).then_some(())).await;
    };
    // Two with the old configuration.
    let (_first_home, mut first) = setting.start(&[BILLING]).await;
    let (_second_home, mut second) = setting.start(&[BILLING]).await;
    shared([(2, 5, 2), (0, 0, 0)]).await;
    writer.append_to(0..ROOTS, 2).await;

    // The new one brings a handler; the old ones do not know it.
    let (_third_home, mut third) = setting.start(&[BILLING, SHIPPING]).await;
    writer.append_to(0..ROOTS, 2).await;
    shared([(3, 5, 3), (1, 5, 1)]).await;
    writer.append_to(0..ROOTS, 2).await;
    setting.has_all(BILLING, &writer).await;
    setting.has_all(SHIPPING, &writer).await;

    // The old ones go, another new one comes.
    let stopped = tokio::spawn(async move {
        let ends = [first.terminate().await.success(), second.terminate().await.success()];
        (ends, first.output())
    });
    let (_fourth_home, mut fourth) = setting.start(&[BILLING, SHIPPING]).await;
    writer.append_to(0..ROOTS, 2).await;
    let (ends, output) = stopped.await.unwrap();
    assert_eq!(ends, [true, true], "{output}");
    shared([(2, 5, 2), (2, 5, 2)]).await;
    writer.append_to(0..ROOTS, 2).await;
    setting.has_all(BILLING, &writer).await;
    setting.has_all(SHIPPING, &writer).await;

    // Back to a configuration without one of them: it stands still, is told as not run, and goes on when it is back.
    let (_fifth_home, mut fifth) = setting.start(&[BILLING]).await;
    for relay in [&mut third, &mut fourth] {
        assert!(relay.terminate().await.success(), "{}", relay.output());
    }
    shared([(1, 5, 1), (0, 0, 0)]).await;
    writer.append_to(0..ROOTS, 2).await;
    setting.has_all(BILLING, &writer).await;
    let (_sixth_home, mut sixth) = setting.start(&[BILLING, SHIPPING]).await;
    setting.has_all(SHIPPING, &writer).await;
    for relay in [&mut fifth, &mut sixth] {
        assert!(relay.terminate().await.success(), "{}", relay.output());
    }
    for handler in [BILLING, SHIPPING] {
        assert_eq!(setting.services[handler].0.lock().unwrap().taken, *writer.written());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_refuses_a_table_that_a_version_it_does_not_know_keeps() {
    let setting = Setting::build().await;
    let text = |value: &str| AttributeValue::S(value.to_owned());
    let newer = (setting.aws.dynamodb.put_item())
        .table_name(TableNames::from_prefix(RelayHome::PREFIX).relay)
        .item("pk", text("fleet"))
        .item("sk", text("schema"))
        .item("version", AttributeValue::N("2".to_owned()));
    newer.send().await.unwrap();
    let home = setting.home(&[BILLING]);
    let mut relay = home.spawn();
    assert_eq!(relay.exit().await.code(), Some(1));
    let output = relay.output();
    assert!(output.contains("has schema 2, and this version (0.1.0) knows schema 1 only"), "{output}");
    assert!(output.contains("touches nothing"), "{output}");
    let rows = setting.aws.dynamodb.scan().table_name(TableNames::from_prefix(RelayHome::PREFIX).relay).send().await;
    assert_eq!(json!(rows.unwrap().count()), json!(1), "it has written nothing");
}
