//! The embedded DynamoDB and Kinesis with clients for them, and the few things every scenario begins with.

use angzarr_relay::aws::{AwsClients, AwsSettings, StaticCredentials};
use angzarr_relay::event::{Root, Timestamp};
use angzarr_relay::local::{EmbeddedDynamo, EmbeddedKinesis, EmbeddedStreams, KinesisOptions, StreamsOptions};
use angzarr_relay::storage::{NewEvent, TableNames, create_all};

/// A fresh pair; it stops when it is dropped.
pub(crate) struct Embedded {
    pub(crate) aws: AwsClients,
    _dynamo: EmbeddedDynamo,
    _kinesis: EmbeddedKinesis,
}

impl Embedded {
    pub(crate) async fn start() -> Self {
        let dynamo = EmbeddedDynamo::start(None).unwrap();
        let kinesis = EmbeddedKinesis::start(&KinesisOptions::default()).unwrap();
        let aws = clients(Some(dynamo.endpoint()), Some(kinesis.endpoint())).await;
        Self { aws, _dynamo: dynamo, _kinesis: kinesis }
    }
}

/// Clients with credentials that any emulator accepts.
pub(crate) async fn clients(dynamodb: Option<&str>, kinesis: Option<&str>) -> AwsClients {
    AwsClients::new(&AwsSettings {
        region: Some("us-east-1".into()),
        dynamodb_endpoint: dynamodb.map(str::to_owned),
        kinesis_endpoint: kinesis.map(str::to_owned),
        credentials: Some(StaticCredentials::dummy()),
        ..AwsSettings::default()
    })
    .await
}

/// Clients whose streams are served with many shards.
pub(crate) async fn sharded_clients(dynamodb: &str, streams: &str) -> AwsClients {
    AwsClients::new(&AwsSettings {
        region: Some("us-east-1".into()),
        dynamodb_endpoint: Some(dynamodb.into()),
        streams_endpoint: Some(streams.into()),
        credentials: Some(StaticCredentials::dummy()),
        ..AwsSettings::default()
    })
    .await
}

/// Makes the tables of a prefix behind a server of many shards, that knows their shards by that.
pub(crate) async fn sharded_tables(
    dynamodb: &str,
    prefix: &str,
    options: StreamsOptions,
) -> (EmbeddedStreams, AwsClients, TableNames) {
    let server = EmbeddedStreams::start(dynamodb, options).unwrap();
    let aws = sharded_clients(dynamodb, server.endpoint()).await;
    let names = tables(&aws, prefix).await;
    (server, aws, names)
}

/// Makes the tables of a prefix.
pub(crate) async fn tables(aws: &AwsClients, prefix: &str) -> TableNames {
    let names = TableNames::from_prefix(prefix);
    create_all(aws, &names, &mut |_| {}).await.unwrap();
    names
}

pub(crate) fn root(id: &str) -> Root {
    Root::new("orders", "angzarr", id).unwrap()
}

pub(crate) fn event(event_type: &str, payload: &[u8]) -> NewEvent {
    NewEvent {
        event_type: event_type.into(),
        payload: payload.to_vec().into(),
        correlation_id: Some("c-1".into()),
        created_at: Timestamp::parse("2026-01-31T12:00:00.123Z").unwrap(),
    }
}

/// So many events of a few bytes.
pub(crate) fn events(count: usize) -> Vec<NewEvent> {
    (0..count).map(|number| event("OrderPlaced", number.to_string().as_bytes())).collect()
}
