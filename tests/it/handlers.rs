//! The Kinesis handler against an embedded Kinesis that throttles and limits as AWS does.
//!
//! What was put is read back by a de-aggregator written here from the format's description, which shares no code with
//! the handler.
#![cfg(feature = "local")]
#![expect(clippy::unwrap_used, reason = "a test that panics says where")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use angzarr_relay::event::{Event, Root, Sequence, Timestamp};
use angzarr_relay::handler::{Handler, HandlerError, KinesisFormat, KinesisHandler, KinesisSettings, RootBatch};
use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::retry::RetryConfig;
use aws_sdk_kinesis::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_kinesis::types::ShardIteratorType;
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use axum::extract::{DefaultBodyLimit, Request};
use axum::middleware::{Next, from_fn};
use ferrokinesis::store::StoreOptions;
use md5::{Digest as _, Md5};
use tokio::net::TcpListener;

const STREAM: &str = "orders";

/// An embedded Kinesis with one stream, and how many PutRecords calls it got.
struct Kinesis {
    client: Client,
    puts: Arc<AtomicUsize>,
}

impl Kinesis {
    async fn start(shards: i32, enforce_limits: bool) -> Self {
        let options = StoreOptions {
            create_stream_ms: 0,
            update_stream_ms: 0,
            delete_stream_ms: 0,
            enforce_limits,
            ..StoreOptions::default()
        };
        let (app, _store) = ferrokinesis::create_app(options);
        let puts = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&puts);
        let count = from_fn(move |request: Request, next: Next| {
            let target = request.headers().get("x-amz-target").map(|target| target.as_bytes().to_vec());
            if target.is_some_and(|target| target.ends_with(b".PutRecords")) {
                counted.fetch_add(1, Ordering::Relaxed);
            }
            next.run(request)
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let app = app.layer(DefaultBodyLimit::max(20 << 20)).layer(count);
        tokio::spawn(async move { axum::serve(listener, app).await });
        let client = client(&endpoint);
        client.create_stream().stream_name(STREAM).shard_count(shards).send().await.unwrap();
        Self { client, puts }
    }

    fn handler(&self, format: KinesisFormat, aggregate: bool) -> KinesisHandler {
        let settings = KinesisSettings { format, aggregate, ..KinesisSettings::new(STREAM) };
        KinesisHandler::new(self.client.clone(), settings)
    }

    /// Every record of every shard in order: partition key and data.
    async fn records(&self) -> Vec<(String, Vec<u8>)> {
        let shards = self.client.list_shards().stream_name(STREAM).send().await.unwrap();
        let mut records = Vec::new();
        for shard in shards.shards() {
            let request = self.client.get_shard_iterator().stream_name(STREAM).shard_id(shard.shard_id());
            let answer = request.shard_iterator_type(ShardIteratorType::TrimHorizon).send().await.unwrap();
            let mut iterator = answer.shard_iterator;
            while let Some(from) = iterator {
                let page = self.client.get_records().shard_iterator(from).limit(1000).send().await.unwrap();
                let at_end = page.records.is_empty() && page.millis_behind_latest == Some(0);
                for record in page.records {
                    records.push((record.partition_key.unwrap(), record.data.into_inner()));
                }
                iterator = page.next_shard_iterator.filter(|_| !at_end);
            }
        }
        records
    }
}

fn client(endpoint: &str) -> Client {
    let http = aws_smithy_http_client::Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https();
    let config = aws_sdk_kinesis::Config::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new("key", "secret", None, None, "test"))
        .retry_config(RetryConfig::disabled())
        .endpoint_url(endpoint)
        .http_client(http)
        .build();
    Client::from_conf(config)
}

fn events(root: &Root, count: u64, payload: &[u8]) -> Vec<Arc<Event>> {
    let event = |sequence| Event {
        root: root.clone(),
        sequence: Sequence(sequence),
        event_type: "OrderPlaced".into(),
        payload: payload.to_vec().into(),
        chunked: None,
        correlation_id: None,
        traceparent: None,
        created_at: Timestamp::from_unix_millis(1_700_000_000_000),
    };
    (0..count).map(|sequence| Arc::new(event(sequence))).collect()
}

fn root(id: &str) -> Root {
    Root::new("orders", "angzarr", id).unwrap()
}

/// The sequence in a CloudEvent, checked against its partition key.
fn sequence(partition_key: &str, cloudevent: &[u8]) -> u64 {
    let event: serde_json::Value = serde_json::from_slice(cloudevent).unwrap();
    assert_eq!(event["partitionkey"], partition_key);
    event["sequence"].as_str().unwrap().parse().unwrap()
}

/// The user records of a Kinesis record: itself, or what is aggregated in it.
fn deaggregate(partition_key: &str, data: &[u8]) -> Vec<(String, Vec<u8>)> {
    let Some(rest) = data.strip_prefix(&[0xF3, 0x89, 0x9A, 0xC2]) else {
        return vec![(partition_key.to_owned(), data.to_vec())];
    };
    let (mut message, digest) = rest.split_at(rest.len() - 16);
    assert_eq!(Md5::digest(message).as_slice(), digest);
    let (mut keys, mut users) = (Vec::new(), Vec::new());
    while !message.is_empty() {
        match field(&mut message) {
            (1, Field::Bytes(key)) => keys.push(String::from_utf8(key.to_vec()).unwrap()),
            (3, Field::Bytes(user)) => users.push(user),
            other => panic!("{other:?}"),
        }
    }
    users
        .into_iter()
        .map(|mut user| {
            let (mut key, mut data) = (None, None);
            while !user.is_empty() {
                match field(&mut user) {
                    (1, Field::Number(index)) => key = Some(keys[usize::try_from(index).unwrap()].clone()),
                    (3, Field::Bytes(bytes)) => data = Some(bytes.to_vec()),
                    other => panic!("{other:?}"),
                }
            }
            (key.unwrap(), data.unwrap())
        })
        .collect()
}

#[derive(Debug)]
enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

fn field<'a>(message: &mut &'a [u8]) -> (u64, Field<'a>) {
    let tag = varint(message);
    let value = varint(message);
    match tag & 7 {
        0 => (tag >> 3, Field::Number(value)),
        2 => {
            let (bytes, rest) = message.split_at(usize::try_from(value).unwrap());
            *message = rest;
            (tag >> 3, Field::Bytes(bytes))
        }
        wire => panic!("wire type {wire}"),
    }
}

fn varint(message: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = message.split_first().unwrap();
        *message = rest;
        value |= u64::from(byte & 0x7F) << shift;
        if byte & 0x80 == 0 {
            return value;
        }
    }
    panic!("a varint of more than ten bytes")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hot_root_is_aggregated() {
    const EVENTS: u64 = 50_000;
    let kinesis = Kinesis::start(2, false).await;
    let handler = kinesis.handler(KinesisFormat::CloudEvents, true);
    let (hot, limits) = (root("hot"), handler.limits());
    let all = events(&hot, EVENTS, &[b'x'; 300]);
    let mut done = 0;
    while done < all.len() {
        let until = all.len().min(done + limits.events_per_root);
        let accepted =
            handler.deliver(&RootBatch { root: hot.clone(), events: all[done..until].to_vec() }).await.unwrap();
        assert!(accepted.events > 0);
        done += accepted.events;
    }
    let calls = kinesis.puts.load(Ordering::Relaxed);
    assert!(calls <= 2_500, "{calls} calls");

    let mut expected = 0;
    for (key, data) in kinesis.records().await {
        for (user_key, cloudevent) in deaggregate(&key, &data) {
            assert_eq!(user_key, hot.key());
            assert_eq!(sequence(&user_key, &cloudevent), expected);
            expected += 1;
        }
    }
    assert_eq!(expected, EVENTS);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partial_failures_keep_every_root_in_order_and_lose_nothing() {
    const ROOTS: usize = 400;
    const EVENTS: usize = 5;
    // Two shards take 2,000 records a second between them; 2,000 come at once, in several rounds.
    let kinesis = Kinesis::start(2, true).await;
    let handler = kinesis.handler(KinesisFormat::CloudEvents, false);
    let roots: Vec<_> = (0..ROOTS).map(|number| root(&format!("root-{number}"))).collect();
    let all: Vec<_> = roots.iter().map(|root| events(root, EVENTS as u64, &[b'x'; 2_000])).collect();
    let mut done = vec![0; ROOTS];
    let mut partial_calls = 0;
    loop {
        let waiting: Vec<_> = (0..ROOTS).filter(|index| done[*index] < EVENTS).collect();
        if waiting.is_empty() {
            break;
        }
        let group: Vec<_> = waiting
            .iter()
            .map(|index| RootBatch {
                root: roots[*index].clone(),
                events: vec![Arc::clone(&all[*index][done[*index]])],
            })
            .collect();
        let answers = handler.deliver_group(&group).await;
        assert_eq!(answers.len(), group.len());
        let mut refused = 0;
        for (index, answer) in waiting.iter().zip(answers) {
            match answer {
                Ok(accepted) => done[*index] += accepted.events,
                Err(HandlerError::Throttled { reason, .. }) => {
                    assert!(reason.contains("ProvisionedThroughputExceeded"), "{reason}");
                    refused += 1;
                }
                Err(error) => panic!("{error:?}"),
            }
        }
        if refused > 0 {
            partial_calls += usize::from(refused < group.len());
            // The limits are over a second of real time, which a test cannot move: the wait between attempts.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    assert!(partial_calls > 0, "no call failed in part, so nothing was shown");

    let mut seen: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for (key, data) in kinesis.records().await {
        let sequence = sequence(&key, &data);
        seen.entry(key).or_default().push(sequence);
    }
    assert_eq!(seen.len(), ROOTS);
    for (key, sequences) in seen {
        assert_eq!(sequences, [0, 1, 2, 3, 4], "{key}");
    }
}

#[tokio::test]
async fn a_group_larger_than_a_call_is_sent_in_several() {
    let kinesis = Kinesis::start(1, false).await;
    let handler = kinesis.handler(KinesisFormat::Payload, false);
    // 30 times 390,000 bytes are 11.2 MiB: three calls of 5 MiB. And 501 roots are more than one call takes.
    let large: Vec<_> = (0..30).map(|number| root(&format!("large-{number}"))).collect();
    let small: Vec<_> = (0..501).map(|number| root(&format!("small-{number}"))).collect();
    for (roots, payload, calls) in [(&large, vec![7; 390_000], 3), (&small, vec![7; 10], 2)] {
        let before = kinesis.puts.load(Ordering::Relaxed);
        let group: Vec<_> =
            roots.iter().map(|root| RootBatch { root: root.clone(), events: events(root, 1, &payload) }).collect();
        for answer in handler.deliver_group(&group).await {
            assert_eq!(answer.unwrap().events, 1);
        }
        assert_eq!(kinesis.puts.load(Ordering::Relaxed) - before, calls);
    }
    let keys: Vec<_> = kinesis.records().await.into_iter().map(|(key, _)| key).collect();
    assert_eq!(keys, large.iter().chain(&small).map(|root| root.key().to_owned()).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_record_over_the_streams_limit_is_permanent_for_its_root_alone() {
    let kinesis = Kinesis::start(1, false).await;
    let handler = kinesis.handler(KinesisFormat::Payload, false);
    let (giant, fits) = (root("giant"), root("fits"));
    let group = [
        RootBatch { root: giant.clone(), events: events(&giant, 1, &vec![7; 1_100_000]) },
        RootBatch { root: fits.clone(), events: events(&fits, 1, b"small") },
    ];
    let answers = handler.deliver_group(&group).await;
    let Err(HandlerError::Permanent { reason, .. }) = &answers[0] else { panic!("{answers:?}") };
    assert!(reason.contains("1100020 bytes") && reason.contains("takes 1048576"), "{reason}");
    assert!(answers[1].is_ok());
}

#[tokio::test]
async fn a_missing_stream_and_a_dead_endpoint_are_outages() {
    let kinesis = Kinesis::start(1, false).await;
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dead = format!("http://{}", nobody.local_addr().unwrap());
    drop(nobody);
    let arn = "arn:aws:kinesis:us-east-1:000000000000:stream/other";
    for (client, stream) in [(&kinesis.client, "other"), (&kinesis.client, arn), (&client(&dead), STREAM)] {
        let handler = KinesisHandler::new(client.clone(), KinesisSettings::new(stream));
        let root = root("a");
        let error = handler.deliver(&RootBatch { events: events(&root, 1, b"x"), root }).await.unwrap_err();
        let HandlerError::Unavailable { reason, .. } = error else { panic!("{error:?}") };
        assert!(reason.contains(stream), "{reason}");
    }
    let arn = "arn:aws:kinesis:us-east-1:000000000000:stream/orders";
    let handler = KinesisHandler::new(kinesis.client.clone(), KinesisSettings::new(arn));
    let root = root("a");
    assert!(handler.deliver(&RootBatch { events: events(&root, 1, b"x"), root }).await.is_ok());
}
