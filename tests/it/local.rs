//! The embedded services themselves: large requests, limits, data that outlives them, an endpoint that is down.

use angzarr_relay::event::Sequence;
use angzarr_relay::local::{EmbeddedDynamo, EmbeddedKinesis, KinesisOptions};
use angzarr_relay::storage::{EventStore, StorageError};
use angzarr_relay::stream::{DynamoStream, ShardSource as _, StreamPoint, StreamSource as _};
use angzarr_relay::time::Random;
use aws_sdk_kinesis::types::{PutRecordsRequestEntry, ShardIteratorType};

use crate::embedded::{clients, events, root, tables};

fn entry(bytes: usize) -> PutRecordsRequestEntry {
    PutRecordsRequestEntry::builder().data(vec![7; bytes].into()).partition_key("k").build().unwrap()
}

#[tokio::test]
async fn tables_and_their_stream_outlive_the_service() {
    let data = tempfile::tempdir().unwrap();
    let root = root("1");
    for round in 0..2_u64 {
        let dynamo = EmbeddedDynamo::start(Some(data.path())).unwrap();
        let aws = clients(Some(dynamo.endpoint()), None).await;
        let names = tables(&aws, "it-data").await;
        let store = EventStore::new(&aws, &names.events, Random::from_entropy());
        let expected = Sequence(round * 5).previous();
        assert_eq!(store.last(&root).await.unwrap(), expected);
        store.append(&root, expected, &events(5)).await.unwrap();
        let stream = DynamoStream::connect(&aws, &names.events).await.unwrap();
        let shard = stream.shards(None).await.unwrap().shards.remove(0);
        let iterator = stream.open(&shard.id, &StreamPoint::Horizon).await.unwrap();
        let read = stream.read(&iterator).await.unwrap().records.len() as u64;
        assert_eq!(read, (round + 1) * 5);
    }
}

#[tokio::test]
async fn streams_outlive_the_service() {
    let data = tempfile::tempdir().unwrap();
    let options = KinesisOptions { data: Some(data.path().to_owned()), ..KinesisOptions::default() };
    for round in 0..2 {
        let kinesis = EmbeddedKinesis::start(&options).unwrap();
        let client = clients(None, Some(kinesis.endpoint())).await.kinesis;
        if round == 0 {
            client.create_stream().stream_name("orders").shard_count(1).send().await.unwrap();
        }
        client.put_records().stream_name("orders").records(entry(10)).send().await.unwrap();
        let shards = client.list_shards().stream_name("orders").send().await.unwrap().shards.unwrap();
        let iterator = (client.get_shard_iterator())
            .stream_name("orders")
            .shard_id(shards[0].shard_id())
            .shard_iterator_type(ShardIteratorType::TrimHorizon)
            .send()
            .await
            .unwrap();
        let read = client.get_records().shard_iterator(iterator.shard_iterator.unwrap()).send().await.unwrap();
        assert_eq!(read.records.len(), round + 1);
    }
}

#[tokio::test]
async fn kinesis_takes_large_requests_and_enforces_limits_when_asked() {
    for enforce_limits in [false, true] {
        let options = KinesisOptions { enforce_limits, ..KinesisOptions::default() };
        let kinesis = EmbeddedKinesis::start(&options).unwrap();
        let client = clients(None, Some(kinesis.endpoint())).await.kinesis;
        client.create_stream().stream_name("orders").shard_count(40).send().await.unwrap();
        let records = (0..5).map(|_| entry(1_000_000)).collect();
        let answer = client.put_records().stream_name("orders").set_records(Some(records)).send().await.unwrap();
        assert_eq!(answer.failed_record_count() > Some(0), enforce_limits);
    }
}

#[tokio::test]
async fn an_endpoint_that_is_down_is_unavailable() {
    let dynamo = EmbeddedDynamo::start(None).unwrap();
    let aws = clients(Some(dynamo.endpoint()), None).await;
    drop(dynamo);
    let store = EventStore::new(&aws, "it-down", Random::from_entropy());
    let answer = store.append(&root("1"), None, &events(1)).await;
    assert!(matches!(answer, Err(StorageError::Unavailable { operation: "Query", .. })), "{answer:?}");
}

#[test]
fn data_that_cannot_be_used_is_an_error() {
    let data = tempfile::tempdir().unwrap();
    let file = data.path().join("file");
    std::fs::write(&file, b"x").unwrap();
    let error = EmbeddedDynamo::start(Some(&file)).unwrap_err();
    assert!(error.to_string().contains("data of the embedded DynamoDB"), "{error}");
    assert!(EmbeddedKinesis::start(&KinesisOptions { data: Some(file), ..KinesisOptions::default() }).is_err());
}
