//! The real components behave as the other tests take for granted: a smoke test each, by the real SDK.
//!
//! What is checked here is the emulator, not the relay: when one of these fails, look at the machine before the code.

use std::process::Command;
use std::time::Duration;

use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType,
    StreamSpecification, StreamViewType,
};
use aws_sdk_dynamodbstreams::types::{Shard, ShardIteratorType};
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::ShardIteratorType as KinesisIteratorType;
use tokio::time::sleep;

use crate::support::{DynamoDbLocal, KinesisMock, node, sdk_config};

const TABLE: &str = "smoke";
const POLL_EVERY: Duration = Duration::from_millis(250);
/// Two minutes of polls: at speed 720 a day of the emulator's.
const POLLS_MAX: u32 = 480;
const SPEED: u32 = 720;

/// Creates a table with a stream; the stream's ARN.
async fn streamed_table(dynamo: &aws_sdk_dynamodb::Client) -> String {
    let stream = StreamSpecification::builder().stream_enabled(true).stream_view_type(StreamViewType::NewImage);
    let key = KeySchemaElement::builder().attribute_name("pk").key_type(KeyType::Hash).build();
    let attribute = AttributeDefinition::builder().attribute_name("pk").attribute_type(ScalarAttributeType::S).build();
    let created = dynamo
        .create_table()
        .table_name(TABLE)
        .billing_mode(BillingMode::PayPerRequest)
        .key_schema(key.expect("the key is complete"))
        .attribute_definitions(attribute.expect("the attribute is complete"))
        .stream_specification(stream.build().expect("the stream is complete"))
        .send()
        .await
        .expect("the table is created");
    let table = created.table_description.expect("a new table is described");
    table.latest_stream_arn.expect("a table with a stream has its ARN")
}

async fn put(dynamo: &aws_sdk_dynamodb::Client, key: &str) {
    let key = AttributeValue::S(key.to_owned());
    dynamo.put_item().table_name(TABLE).item("pk", key).send().await.expect("the item is put");
}

async fn shards(streams: &aws_sdk_dynamodbstreams::Client, stream: &str) -> Vec<Shard> {
    let described = streams.describe_stream().stream_arn(stream).send().await.expect("the stream is described");
    described.stream_description.and_then(|stream| stream.shards).unwrap_or_default()
}

/// An iterator at the beginning of a shard.
async fn horizon(streams: &aws_sdk_dynamodbstreams::Client, stream: &str, shard: &Shard) -> String {
    let shard = shard.shard_id.clone().expect("a shard has an id");
    let iterator = streams.get_shard_iterator().stream_arn(stream).shard_id(shard);
    let iterator = iterator.shard_iterator_type(ShardIteratorType::TrimHorizon).send().await;
    iterator.expect("the iterator is given").shard_iterator.expect("an open shard has an iterator")
}

#[tokio::test]
async fn dynamodb_local_brings_a_put_through_the_stream() {
    let emulator = DynamoDbLocal::start().await;
    let settings = sdk_config(&emulator.endpoint);
    let dynamo = aws_sdk_dynamodb::Client::new(&settings);
    let streams = aws_sdk_dynamodbstreams::Client::new(&settings);
    let stream = streamed_table(&dynamo).await;
    put(&dynamo, "first").await;

    let shards = shards(&streams, &stream).await;
    assert_eq!(shards.len(), 1, "{shards:?}");
    let mut iterator = Some(horizon(&streams, &stream, &shards[0]).await);
    for _ in 0..POLLS_MAX {
        let page = streams.get_records().set_shard_iterator(iterator).send().await.expect("the shard is read");
        if let Some(record) = page.records.unwrap_or_default().pop() {
            let image = record.dynamodb.and_then(|change| change.new_image).unwrap_or_default();
            assert_eq!(image["pk"], aws_sdk_dynamodbstreams::types::AttributeValue::S("first".into()));
            return;
        }
        iterator = page.next_shard_iterator;
        sleep(POLL_EVERY).await;
    }
    panic!("the put did not come through the stream");
}

#[tokio::test]
async fn dynamodb_local_at_speed_rolls_the_shard_and_expires_an_iterator() {
    let emulator = DynamoDbLocal::start_at_speed(SPEED).await;
    let settings = sdk_config(&emulator.endpoint);
    let dynamo = aws_sdk_dynamodb::Client::new(&settings);
    let streams = aws_sdk_dynamodbstreams::Client::new(&settings);
    let stream = streamed_table(&dynamo).await;
    put(&dynamo, "first").await;

    let first = shards(&streams, &stream).await.remove(0);
    let iterator = horizon(&streams, &stream, &first).await;
    let (mut expired, mut child) = (false, None);
    for polls in 0..POLLS_MAX {
        // A shard rolls when it is written to.
        put(&dynamo, &format!("item {polls}")).await;
        if !expired && let Err(error) = streams.get_records().shard_iterator(&iterator).send().await {
            let error = error.into_service_error();
            assert!(error.is_expired_iterator_exception(), "{error:?}");
            expired = true;
        }
        child = shards(&streams, &stream).await.into_iter().find(|shard| shard.parent_shard_id == first.shard_id);
        if expired && child.is_some() {
            return;
        }
        sleep(POLL_EVERY).await;
    }
    panic!("in {POLLS_MAX} polls: iterator expired: {expired}; child of the first shard: {child:?}");
}

#[tokio::test]
async fn kinesis_mock_gives_back_what_was_put() {
    let emulator = KinesisMock::start().await;
    let kinesis = aws_sdk_kinesis::Client::new(&sdk_config(&emulator.endpoint));
    kinesis.create_stream().stream_name(TABLE).shard_count(1).send().await.expect("the stream is created");
    for _ in 0..POLLS_MAX {
        let described = kinesis.describe_stream_summary().stream_name(TABLE).send().await;
        let summary = described.expect("the stream is described").stream_description_summary;
        if summary.is_some_and(|summary| summary.stream_status == aws_sdk_kinesis::types::StreamStatus::Active) {
            break;
        }
        sleep(POLL_EVERY).await;
    }
    let put = kinesis.put_record().stream_name(TABLE).partition_key("root").data(Blob::new("payload")).send().await;
    let shard = put.expect("the record is put").shard_id;

    let iterator = kinesis.get_shard_iterator().stream_name(TABLE).shard_id(shard);
    let iterator = iterator.shard_iterator_type(KinesisIteratorType::TrimHorizon).send().await;
    let iterator = iterator.expect("the iterator is given").shard_iterator;
    let page = kinesis.get_records().set_shard_iterator(iterator).send().await.expect("the shard is read");
    let records: Vec<_> = page.records.iter().map(|record| (record.partition_key(), record.data().as_ref())).collect();
    assert_eq!(records, [(Some("root"), b"payload".as_slice())]);
}

#[tokio::test]
async fn kinesis_mock_presents_a_certificate() {
    let emulator = KinesisMock::start().await;
    let ask = r#"
        const { hostname, port } = new URL(process.argv[1]);
        const socket = require("tls").connect({ host: hostname, port, rejectUnauthorized: false }, () => {
            console.log(socket.getPeerCertificate().fingerprint256);
            socket.end();
        });
    "#;
    let asked = Command::new(node()).args(["-e", ask, &emulator.tls_endpoint]).output().expect("node runs");
    let fingerprint = String::from_utf8_lossy(&asked.stdout);
    assert_eq!(fingerprint.trim().split(':').count(), 32, "no certificate: {asked:?}");
}
