//! Reading the stream: what is written to the events table comes out of it, told apart by what it is.

use std::collections::HashMap;

use angzarr_relay::aws::AwsClients;
use angzarr_relay::event::Sequence;
use angzarr_relay::storage::{EventStore, TableNames};
use angzarr_relay::stream::{
    Change, DynamoStream, Record, Shard, ShardId, ShardSource as _, StreamError, StreamPoint, StreamSource as _,
};
use angzarr_relay::time::Random;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType,
    StreamSpecification, StreamViewType,
};

use crate::embedded::{clients, event, events, root, tables};
use crate::support::{DynamoDbLocal, until};

crate::scenarios!(
    brings_every_event_once,
    tells_changes_apart,
    goes_on_behind_a_record,
    a_table_without_a_stream_is_mended_by_a_command,
    an_unknown_stream_is_gone,
);

/// How often a reader asks for a page before it gives up: emulators show a write at once or a few reads later.
const READS_MAX: usize = 200;

async fn shards(stream: &DynamoStream) -> Vec<Shard> {
    let (mut shards, mut after) = (Vec::new(), None);
    loop {
        let page = stream.shards(after.as_ref()).await.unwrap();
        shards.extend(page.shards);
        after = page.next;
        if after.is_none() {
            return shards;
        }
    }
}

/// Reads a shard from a place until it has so many records.
async fn read(stream: &DynamoStream, shard: &ShardId, from: &StreamPoint, count: usize) -> Vec<Record> {
    let mut iterator = stream.open(shard, from).await.unwrap();
    let (mut records, mut bytes) = (Vec::new(), 0);
    for _ in 0..READS_MAX {
        let page = stream.read(&iterator).await.unwrap();
        assert_eq!(page.records.is_empty(), page.bytes == 0);
        bytes += page.bytes;
        records.extend(page.records);
        if records.len() >= count {
            assert!(bytes > 0);
            return records;
        }
        iterator = page.next.expect("the shard is open");
    }
    panic!("{} of {count} records came", records.len());
}

async fn connect(aws: &AwsClients, prefix: &str) -> (DynamoStream, EventStore) {
    let names = tables(aws, prefix).await;
    let stream = DynamoStream::connect(aws, &names.events).await.unwrap();
    (stream, EventStore::new(aws, &names.events, Random::from_entropy()))
}

async fn brings_every_event_once(aws: &AwsClients, prefix: &str) {
    let (stream, store) = connect(aws, prefix).await;
    let bytes: Vec<u8> = (0..=255).collect();
    for id in ["a", "b"] {
        store.append(&root(id), None, &[event("OrderPlaced", &bytes)]).await.unwrap();
        store.append(&root(id), Some(Sequence(0)), &events(100)).await.unwrap();
    }
    let shards = shards(&stream).await;
    assert_eq!(shards.len(), 1);
    assert!(stream.children(&shards[0].id).await.unwrap().is_empty(), "an open shard has no children");
    let records = read(&stream, &shards[0].id, &StreamPoint::Horizon, 202).await;
    assert!(records.is_sorted_by(|one, two| one.sequence < two.sequence));
    let mut found: HashMap<String, Vec<u64>> = HashMap::new();
    for record in &records {
        let Change::Inserted(event) = &record.change else { panic!("{record:?}") };
        assert!(record.happened_at.unix_millis() > 1_700_000_000_000);
        if event.sequence == Sequence::FIRST {
            assert_eq!(&event.payload[..], &bytes[..]);
        }
        found.entry(event.root.id().to_owned()).or_default().push(event.sequence.0);
    }
    for sequences in found.values_mut() {
        sequences.sort_unstable();
        assert_eq!(*sequences, (0..=100).collect::<Vec<_>>());
    }
    assert_eq!(found.len(), 2);
}

async fn put(aws: &AwsClients, table: &str, pk: &str, sk: &str, payload: AttributeValue) {
    (aws.dynamodb.put_item())
        .table_name(table)
        .item("pk", AttributeValue::S(pk.into()))
        .item("sk", AttributeValue::N(sk.into()))
        .item("event_type", AttributeValue::S("T".into()))
        .item("payload", payload)
        .item("created_at", AttributeValue::S("2026-01-31T12:00:00Z".into()))
        .send()
        .await
        .unwrap();
}

async fn tells_changes_apart(aws: &AwsClients, prefix: &str) {
    let (stream, _) = connect(aws, prefix).await;
    let table = TableNames::from_prefix(prefix).events;
    let bytes = |byte: u8| AttributeValue::B(vec![byte].into());
    put(aws, &table, "orders##1", "0", bytes(1)).await;
    put(aws, &table, "orders##1", "0", bytes(2)).await;
    put(aws, &table, "orders##1", "1", AttributeValue::S("secret".into())).await;
    put(aws, &table, "no key of ours", "1", bytes(1)).await;
    put(aws, &table, "orders##1", "-1", bytes(1)).await;
    let key = [("pk", AttributeValue::S("orders##1".into())), ("sk", AttributeValue::N("0".into()))];
    let key = key.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    aws.dynamodb.delete_item().table_name(&table).set_key(Some(key)).send().await.unwrap();

    let shard = shards(&stream).await.remove(0);
    let records = read(&stream, &shard.id, &StreamPoint::Horizon, 6).await;
    let shown: Vec<String> = records
        .iter()
        .map(|record| match &record.change {
            Change::Inserted(event) => format!("event {}", event.sequence),
            Change::Invalid(invalid) => {
                assert!(!invalid.reason.contains("secret"));
                format!("invalid {}", invalid.sequence)
            }
            Change::ForeignKey { .. } => "foreign".into(),
            Change::Chunk => "chunk".into(),
            Change::Modified => "modified".into(),
            Change::Removed(root) => format!("removed {}", root.as_ref().unwrap()),
        })
        .collect();
    assert_eq!(shown, ["event 0", "modified", "invalid 1", "foreign", "foreign", "removed orders##1"]);
}

async fn goes_on_behind_a_record(aws: &AwsClients, prefix: &str) {
    let (stream, store) = connect(aws, prefix).await;
    for number in 0..5 {
        store.append(&root("a"), Sequence(number).previous(), &events(1)).await.unwrap();
    }
    let shard = shards(&stream).await.remove(0);
    let all = read(&stream, &shard.id, &StreamPoint::Horizon, 5).await;
    let rest = read(&stream, &shard.id, &StreamPoint::After(all[2].sequence.clone()), 2).await;
    let numbers = |records: &[Record]| records.iter().map(|record| record.sequence.clone()).collect::<Vec<_>>();
    assert_eq!(numbers(&rest), numbers(&all[3..]));
    // Behind the last: nothing, and yet not the end.
    let iterator = stream.open(&shard.id, &StreamPoint::After(all[4].sequence.clone())).await.unwrap();
    let page = stream.read(&iterator).await.unwrap();
    assert!(page.records.is_empty() && page.next.is_some());
}

async fn a_table_without_a_stream_is_mended_by_a_command(aws: &AwsClients, prefix: &str) {
    let missing = DynamoStream::connect(aws, prefix).await.unwrap_err();
    assert!(matches!(&missing, StreamError::NoStream { reason } if reason.contains("tables create")), "{missing}");
    for (table, view) in [(format!("{prefix}-none"), None), (format!("{prefix}-keys"), Some(StreamViewType::KeysOnly))]
    {
        let mut request = aws.dynamodb.create_table().table_name(&table).billing_mode(BillingMode::PayPerRequest);
        for (name, role, kind) in
            [("pk", KeyType::Hash, ScalarAttributeType::S), ("sk", KeyType::Range, ScalarAttributeType::N)]
        {
            request = request
                .key_schema(KeySchemaElement::builder().attribute_name(name).key_type(role).build().unwrap())
                .attribute_definitions(
                    AttributeDefinition::builder().attribute_name(name).attribute_type(kind).build().unwrap(),
                );
        }
        let stream = view
            .map(|view| StreamSpecification::builder().stream_enabled(true).stream_view_type(view).build().unwrap());
        request.set_stream_specification(stream).send().await.unwrap();
        let error = DynamoStream::connect(aws, &table).await.unwrap_err().to_string();
        let command = format!(
            "`aws dynamodb update-table --table-name {table} --stream-specification \
             StreamEnabled=true,StreamViewType=NEW_IMAGE --region us-east-1"
        );
        assert!(error.contains(&command), "{error}");
    }
}

/// Of two readers of the same table one lists the shards only; the other is told of them, as a replica is by its leases.
/// The embedded one gives the shards of every stream the same name.
#[tokio::test(flavor = "multi_thread")]
async fn a_shard_of_a_stream_that_was_not_listed_is_found() {
    let emulator = DynamoDbLocal::start().await;
    let (aws, prefix) = (&clients(Some(&emulator.endpoint), None).await, "unlisted");
    let (lists, store) = connect(aws, prefix).await;
    let told = DynamoStream::connect(aws, &TableNames::from_prefix(prefix).events).await.unwrap();
    let last = store.append(&root("a"), None, &events(2)).await.unwrap();
    let before = shards(&lists).await.remove(0);
    let stream_is = async |enabled: bool| {
        let specification = StreamSpecification::builder().stream_enabled(enabled);
        let specification =
            if enabled { specification.stream_view_type(StreamViewType::NewImage) } else { specification };
        let table = TableNames::from_prefix(prefix).events;
        let update = aws.dynamodb.update_table().table_name(table).stream_specification(specification.build().unwrap());
        update.send().await.unwrap();
    };
    stream_is(false).await;
    stream_is(true).await;
    store.append(&root("a"), Some(last), &events(3)).await.unwrap();
    let after = until("the new stream is listed", async || {
        shards(&lists).await.into_iter().find(|shard| shard.id != before.id && shard.parent.is_none())
    })
    .await;
    assert_eq!(read(&told, &after.id, &StreamPoint::Horizon, 3).await.len(), 3);
    assert_eq!(read(&told, &before.id, &StreamPoint::Horizon, 2).await.len(), 2, "the one before is read to its end");
    assert_eq!(told.name(), lists.name());
}

async fn an_unknown_stream_is_gone(aws: &AwsClients, prefix: &str) {
    let (stream, store) = connect(aws, prefix).await;
    store.append(&root("a"), None, &events(1)).await.unwrap();
    let shard = shards(&stream).await.remove(0);
    let garbage = angzarr_relay::stream::ShardIterator("garbage".into());
    assert!(stream.read(&garbage).await.is_err());
    aws.dynamodb.delete_table().table_name(TableNames::from_prefix(prefix).events).send().await.unwrap();
    if let Err(error) = stream.open(&shard.id, &StreamPoint::Horizon).await {
        assert!(matches!(error, StreamError::Gone | StreamError::NoStream { .. }), "{error:?}");
    }
}
