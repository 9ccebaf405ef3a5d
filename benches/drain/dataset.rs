//! The data: events of 1 KB on the stream of a fresh DynamoDB, and tables without positions for every measurement.
//!
//! The roots take turns, so that two events of a root are never in requests under way at the same time: the stream
//! brings each root's events in order, as a store's own appends do.

use angzarr_relay::aws::{AwsClients, AwsSettings, StaticCredentials};
use angzarr_relay::event::Root;
use angzarr_relay::local::EmbeddedDynamo;
use angzarr_relay::storage::{TableNames, create_all};
use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::{AttributeValue, PutRequest, WriteRequest};
use futures_util::{StreamExt as _, stream};

use super::measured::Job;
use super::support::DynamoDbLocal;

/// Items of one BatchWriteItem: the service's limit.
const BATCH_ITEMS: usize = 25;
/// Requests under way at once. Roots are at least this many batches, so that no root is in two requests.
const REQUESTS: usize = 8;
/// Bytes of one event's body.
const PAYLOAD_BYTES: usize = 1024;
/// Where files live in memory, if the machine has it.
const MEMORY_FOLDER: &str = "/dev/shm";

/// Whose DynamoDB.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Store {
    /// Amazon's emulator.
    DynamoDbLocal,
    /// The one of `angzarr-relay local`, with its tables in a file.
    Embedded,
}

impl Store {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::DynamoDbLocal => "DynamoDB Local",
            Self::Embedded => "embedded",
        }
    }
}

enum Running {
    Local(DynamoDbLocal),
    Embedded(EmbeddedDynamo, #[expect(dead_code, reason = "gone when dropped")] tempfile::TempDir),
}

/// A filled stream.
pub(crate) struct DataSet {
    running: Running,
    aws: AwsClients,
    events: usize,
}

pub(crate) async fn clients(endpoint: &str) -> AwsClients {
    AwsClients::new(&AwsSettings {
        region: Some("us-east-1".into()),
        dynamodb_endpoint: Some(endpoint.to_owned()),
        credentials: Some(StaticCredentials::dummy()),
        ..AwsSettings::default()
    })
    .await
}

/// The tables of one measurement; all share the events.
pub(crate) fn tables(measurement: &str) -> TableNames {
    TableNames { events: "drain-events".into(), ..TableNames::from_prefix(measurement) }
}

impl DataSet {
    /// Starts the store and writes the events.
    pub(crate) async fn fill(store: Store, events: usize, roots: usize) -> Self {
        let running = match store {
            Store::DynamoDbLocal => Running::Local(DynamoDbLocal::start().await),
            Store::Embedded => {
                let memory = std::path::Path::new(MEMORY_FOLDER);
                let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
                let folder = tempfile::tempdir_in(parent).unwrap();
                Running::Embedded(EmbeddedDynamo::start(Some(folder.path())).unwrap(), folder)
            }
        };
        let aws = clients(running.endpoint()).await;
        let data = Self { running, aws, events };
        create_all(&data.aws, &tables("fill"), &mut |_| {}).await.unwrap();
        let rows: Vec<WriteRequest> = (0..events).map(|number| row(number % roots, number / roots)).collect();
        let calls = rows.chunks(BATCH_ITEMS).map(|batch| data.write(batch.to_vec()));
        stream::iter(calls).buffered(REQUESTS).collect::<Vec<()>>().await;
        data
    }

    async fn write(&self, batch: Vec<WriteRequest>) {
        let request = self.aws.dynamodb.batch_write_item().request_items(&tables("fill").events, batch);
        let answer = request.send().await.unwrap();
        assert!(answer.unprocessed_items.is_none_or(|left| left.is_empty()), "an emulator left writes out");
    }

    /// Makes the tables of the relay's next measurement.
    pub(crate) async fn prepare(&self, turn: usize, handlers: usize) {
        create_all(&self.aws, &tables(&measurement(turn, handlers)), &mut |_| {}).await.unwrap();
    }

    /// A measurement: the bare loop, or the relay with so many handlers.
    pub(crate) fn job(&self, handlers: Option<usize>, turn: usize) -> Job {
        Job {
            endpoint: self.running.endpoint().to_owned(),
            measurement: measurement(turn, handlers.unwrap_or(0)),
            events: self.events,
            handlers,
        }
    }
}

impl Running {
    fn endpoint(&self) -> &str {
        match self {
            Self::Local(local) => &local.endpoint,
            Self::Embedded(embedded, _) => embedded.endpoint(),
        }
    }
}

fn measurement(turn: usize, handlers: usize) -> String {
    format!("turn-{turn}-{handlers}")
}

fn row(root: usize, sequence: usize) -> WriteRequest {
    let root = Root::new("orders", "angzarr", &format!("order-{root:08}")).unwrap();
    let put = PutRequest::builder()
        .item("pk", AttributeValue::S(root.key().into()))
        .item("sk", AttributeValue::N(sequence.to_string()))
        .item("event_type", AttributeValue::S("OrderPlaced".into()))
        .item("payload", AttributeValue::B(Blob::new(vec![0xA5; PAYLOAD_BYTES])))
        .item("correlation_id", AttributeValue::S(format!("correlation-{sequence}")))
        .item("created_at", AttributeValue::S("2026-01-31T12:00:00.123Z".into()))
        .build()
        .unwrap();
    WriteRequest::builder().put_request(put).build()
}
