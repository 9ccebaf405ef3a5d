//! Payloads too large for one row: how they are stored, what is seen of damage, and that they reach every handler whole.

use std::collections::HashMap;

use angzarr_relay::aws::AwsClients;
use angzarr_relay::event::{ChunkKey, Event, Root, Sequence};
use angzarr_relay::local::{EmbeddedKinesis, KinesisOptions};
use angzarr_relay::storage::{Consistency, EventStore, StorageError, TableNames};
use angzarr_relay::time::Random;
use aws_sdk_dynamodb::types::AttributeValue;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::embedded::{clients, event, root, tables};
use crate::outage::dynamo_with_tables;
use crate::support::{DynamoDbLocal, RelayHome, Writer, until};

crate::scenarios!(
    a_payload_in_chunks_comes_back_whole,
    of_two_writers_one_has_its_chunks_in_the_event,
    an_append_with_a_token_writes_the_same_chunks_again,
    damaged_chunks_are_seen,
);

/// The smallest chunk that the configuration allows.
const CHUNK: usize = 25_000;

async fn store(aws: &AwsClients, prefix: &str, chunk_bytes: usize) -> EventStore {
    let store = EventStore::new(aws, &tables(aws, prefix).await.events, Random::from_entropy());
    store.with_chunk_bytes(chunk_bytes)
}

/// Bytes that repeat in no chunk.
fn payload(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| u8::try_from((at / 7 + at / 25_000) % 251).unwrap()).collect()
}

async fn read(store: &EventStore, root: &Root) -> Vec<Event> {
    let page = store.read(root, Sequence::FIRST, Consistency::Strong, 1000).await.unwrap();
    page.rows.into_iter().map(Result::unwrap).collect()
}

/// Every row of the table whose key is a chunk's.
async fn chunk_rows(aws: &AwsClients, prefix: &str) -> Vec<HashMap<String, AttributeValue>> {
    let (table, mut rows, mut start) = (TableNames::from_prefix(prefix).events, Vec::new(), None);
    loop {
        let scan = aws.dynamodb.scan().table_name(&table).consistent_read(true).set_exclusive_start_key(start);
        let answer = scan.send().await.unwrap();
        rows.extend(answer.items.unwrap_or_default());
        start = answer.last_evaluated_key.filter(|key| !key.is_empty());
        if start.is_none() {
            rows.retain(|row| ChunkKey::is_chunk(row["pk"].as_s().unwrap()));
            return rows;
        }
    }
}

async fn a_payload_in_chunks_comes_back_whole(aws: &AwsClients, prefix: &str) {
    let (small, large) = (CHUNK, 350 << 10);
    tables(aws, prefix).await;
    // Beside each other, in one transaction, and, beyond 4 MB, before their events.
    for (id, chunk_bytes, sizes, chunks) in [
        ("a#1", small, vec![small + 1], 2),
        ("b", small, vec![10, small, small * 3, 0, small * 2 + 1], 3 + 3),
        ("c", large, vec![5 << 20, 20, 1 << 20], 15 + 3),
    ] {
        let before = chunk_rows(aws, prefix).await.len();
        let store = store(aws, prefix, chunk_bytes).await;
        let root = root(id);
        let events: Vec<_> = sizes.iter().map(|bytes| event("OrderPlaced", &payload(*bytes))).collect();
        store.append(&root, None, &events).await.unwrap();
        assert_eq!(chunk_rows(aws, prefix).await.len() - before, chunks, "{id}");
        let found = read(&store, &root).await;
        assert_eq!(found.len(), sizes.len());
        for (event, bytes) in found.iter().zip(&sizes) {
            assert_eq!((event.payload_bytes(), event.chunked.is_some()), (*bytes, *bytes > chunk_bytes));
            assert!(event.is_whole() || event.payload.is_empty());
            assert!(store.payload(event).await.unwrap() == payload(*bytes), "{id}: {bytes} bytes");
        }
    }
}

async fn of_two_writers_one_has_its_chunks_in_the_event(aws: &AwsClients, prefix: &str) {
    // In one transaction, of which the loser leaves nothing; and, beyond 4 MB, before the event.
    for (id, chunk_bytes, bytes, left) in [("1", CHUNK, CHUNK * 3, 3), ("2", 350 << 10, 5 << 20, 30)] {
        let (store, root) = (store(aws, prefix, chunk_bytes).await, root(id));
        let before = chunk_rows(aws, prefix).await.len();
        let payloads = [payload(bytes), vec![7; bytes]];
        let events = payloads.clone().map(|payload| [event("OrderPlaced", &payload)]);
        let (one, two) = tokio::join!(store.append(&root, None, &events[0]), store.append(&root, None, &events[1]));
        let won = [&one, &two].map(Result::is_ok);
        assert!(won[0] != won[1], "{one:?} {two:?}");
        let lost = [one, two].into_iter().find_map(Result::err).unwrap();
        assert!(matches!(lost, StorageError::LostRace { .. }), "{lost}");
        let found = read(&store, &root).await;
        let winner = usize::from(won[1]);
        assert!(store.payload(&found[0]).await.unwrap() == payloads[winner]);
        assert_eq!(chunk_rows(aws, prefix).await.len() - before, left, "what the loser left belongs to nothing");
    }
}

async fn an_append_with_a_token_writes_the_same_chunks_again(aws: &AwsClients, prefix: &str) {
    let (store, root) = (store(aws, prefix, CHUNK).await, root("1"));
    let mut expected = None;
    // In one transaction, and before it: 100 items are its most.
    for (bytes, chunks) in [(CHUNK * 3, 3), (CHUNK * 120, 120)] {
        let (event, before) = ([event("OrderPlaced", &payload(bytes))], chunk_rows(aws, prefix).await.len());
        let token = format!("the/token#{chunks}");
        let first = store.append_with_token(&root, expected, &event, &token).await.unwrap();
        assert_eq!(store.append_with_token(&root, expected, &event, &token).await.unwrap(), first);
        assert_eq!(chunk_rows(aws, prefix).await.len() - before, chunks);
        expected = Some(first);
    }
    for event in read(&store, &root).await {
        assert!(store.payload(&event).await.unwrap() == payload(event.payload_bytes()));
    }
}

async fn damaged_chunks_are_seen(aws: &AwsClients, prefix: &str) {
    let (store, root) = (store(aws, prefix, CHUNK).await, root("1"));
    store.append(&root, None, &[event("OrderPlaced", &payload(CHUNK * 3))]).await.unwrap();
    let event = read(&store, &root).await.remove(0);
    let row = chunk_rows(aws, prefix).await.into_iter().find(|row| row["sk"].as_n().unwrap() == "1").unwrap();
    let table = TableNames::from_prefix(prefix).events;
    let unreadable = async || match store.payload(&event).await {
        Err(error @ StorageError::Unreadable { .. }) => error.to_string(),
        other => panic!("{other:?}"),
    };
    let mut other = row.clone();
    other.insert("chunk".into(), AttributeValue::B(vec![0; CHUNK].into()));
    aws.dynamodb.put_item().table_name(&table).set_item(Some(other)).send().await.unwrap();
    assert!(unreadable().await.contains("SHA-256"));
    let delete = aws.dynamodb.delete_item().table_name(&table);
    delete.key("pk", row["pk"].clone()).key("sk", row["sk"].clone()).send().await.unwrap();
    assert!(unreadable().await.contains("missing"));
    aws.dynamodb.put_item().table_name(&table).set_item(Some(row)).send().await.unwrap();
    assert!(store.payload(&event).await.unwrap() == payload(CHUNK * 3));
}

const STREAM: &str = "large";

/// Every CloudEvent of the stream so far.
async fn kinesis_events(aws: &AwsClients) -> Vec<Value> {
    let asked = aws.kinesis.get_shard_iterator().stream_name(STREAM).shard_id("shardId-000000000000");
    let asked = asked.shard_iterator_type(aws_sdk_kinesis::types::ShardIteratorType::TrimHorizon);
    let mut iterator = asked.send().await.unwrap().shard_iterator;
    let mut events = Vec::new();
    while let Some(at) = iterator {
        let answer = aws.kinesis.get_records().shard_iterator(at).send().await.unwrap();
        if answer.records.is_empty() {
            return events;
        }
        events
            .extend(answer.records.iter().map(|record| serde_json::from_slice::<Value>(record.data.as_ref()).unwrap()));
        iterator = answer.next_shard_iterator;
    }
    events
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_event_reaches_every_handler_in_its_place() {
    let dynamodb = DynamoDbLocal::start().await;
    let kinesis = EmbeddedKinesis::start(&KinesisOptions::default()).unwrap();
    let aws = clients(Some(&dynamodb.endpoint), Some(kinesis.endpoint())).await;
    tables(&aws, RelayHome::PREFIX).await;
    aws.kinesis.create_stream().stream_name(STREAM).shard_count(1).send().await.unwrap();
    let home = RelayHome::new();
    let handlers = r#"
        [kinesis]
        endpoint = "KINESIS"
        [relay]
        hole_timeout = "1s"
        [[handlers]]
        name = "audit"
        subscribe = [{ domain = "*" }]
        jsonl = { path = "HOME/audit.jsonl" }
        [[handlers]]
        name = "copy"
        subscribe = [{ domain = "*" }]
        kinesis = { stream = "large", oversize = "reference" }
        [[handlers]]
        name = "small"
        subscribe = [{ domain = "*" }]
        kinesis = { stream = "large" }
    "#;
    home.configure(&dynamodb.endpoint, &handlers.replace("KINESIS", kinesis.endpoint()));
    // Half is found by a scan, half comes by the stream.
    let mut writer = Writer::new(&aws);
    let large = [20 << 20, 400 << 10, 900 << 10];
    for (number, bytes) in (0..).zip(large) {
        writer.append_payload(number, &[1]).await;
        writer.append_payload(number, &payload(bytes)).await;
    }
    let mut relay = home.start().await;
    for (number, bytes) in (0..).zip(large) {
        writer.append_payload(number, &[2]).await;
        writer.append_payload(number, &payload(bytes)).await;
    }
    until("all is in the file", async || (home.sequences("audit.jsonl") == *writer.written()).then_some(())).await;
    let lines = std::fs::read_to_string(home.path("audit.jsonl")).unwrap();
    for line in lines.lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        let sequence: usize = event["sequence"].as_str().unwrap().parse().unwrap();
        let number: usize = event["subject"].as_str().unwrap()[1..].parse().unwrap();
        let expected = if sequence.is_multiple_of(2) {
            vec![u8::try_from(sequence / 2 + 1).unwrap()]
        } else {
            payload(large[number])
        };
        assert!(STANDARD.decode(event["data_base64"].as_str().unwrap()).unwrap() == expected, "{number} {sequence}");
    }
    // A Kinesis record takes 1 MiB, CloudEvents are a third larger than their payload.
    until("all but what is too large is in the stream", async || {
        let events = kinesis_events(&aws).await;
        (events.len() == 12 + (12 - 3 - 3)).then_some(())
    })
    .await;
    let events = kinesis_events(&aws).await;
    let references: Vec<&str> = events.iter().filter_map(|event| event["dataref"].as_str()).collect();
    assert_eq!(references.len(), 4, "{references:?}");
    let table = TableNames::from_prefix(RelayHome::PREFIX).events;
    assert_eq!(references[0], format!("dynamodb://{table}/orders%23angzarr%23r0/1"));
    assert!(events.iter().all(|event| event["dataref"].is_string() != event["data_base64"].is_string()));
    until("the handler without references has parked both roots", async || {
        (relay.metric(r#"angzarr_relay_roots_parked_total{handler="small"}"#).await == Some(2.0)).then_some(())
    })
    .await;
    assert!(relay.output().contains("set oversize = \"reference\""), "{}", relay.output());
    assert!(relay.terminate().await.success(), "{}", relay.output());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_stores_a_payload_in_chunks_of_the_configured_size() {
    let dynamo = dynamo_with_tables().await;
    let aws = clients(Some(dynamo.endpoint()), None).await;
    let home = RelayHome::new();
    home.configure(dynamo.endpoint(), "[relay]");
    let configured = std::fs::read_to_string(home.path("relay.toml")).unwrap();
    std::fs::write(home.path("payload"), vec![7; 100_000]).unwrap();
    let file = home.path("payload");
    let append = |sequence: &str| {
        let arguments =
            ["append", "orders", "1", "--type", "T", "--expected", sequence, "--file", file.to_str().unwrap()];
        home.command(&arguments)
    };
    let set = |size: &str| {
        let sized = configured.replace("[storage.dynamo]", &format!("[storage.dynamo]\nchunk_size = \"{size}\""));
        std::fs::write(home.path("relay.toml"), sized).unwrap();
    };
    set("25KB");
    let (worked, _, said) = append("0");
    assert!(worked, "{said}");
    set("24KB");
    let (worked, _, said) = append("1");
    assert!(!worked && said.contains("storage.dynamo.chunk_size"), "{said}");
    let table = TableNames::from_prefix(RelayHome::PREFIX).events;
    let rows = aws.dynamodb.scan().table_name(table).send().await.unwrap().items.unwrap();
    let event = rows.iter().find(|row| row.contains_key("payload_chunks")).unwrap();
    assert_eq!((event["payload_chunks"].as_n().unwrap().as_str(), rows.len()), ("4", 5));
}
