//! The relay's own binary between real components: complete, in order, once; stopped and killed in the middle.
//!
//! Events are written as a user's program would, by single puts and by transactions, while the relay runs; what came
//! out is read back from Kinesis by the public SDK.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use angzarr_relay::aws::AwsClients;
use angzarr_relay::event::Sequence;
use angzarr_relay::handler::HandlerName;
use angzarr_relay::local::{EmbeddedKinesis, KinesisOptions};
use angzarr_relay::storage::{DynamoPositions, EventStore, PositionStore, TableNames};
use angzarr_relay::time::{Clock, Random};
use aws_sdk_kinesis::error::SdkError;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::embedded::{clients, event, root, tables};
use crate::support::{DynamoDbLocal, KinesisMock, KinesisProcess, RelayProcess, free_port};

/// The Kinesis stream that everything comes out of.
pub(crate) const STREAM: &str = "orders";

/// A bound on waiting for an outcome; far above what any machine needs.
const DEADLINE: Duration = Duration::from_mins(8);

/// One set-up: tables, a stream, a configuration file.
pub(crate) struct House {
    pub(crate) aws: AwsClients,
    pub(crate) names: TableNames,
    pub(crate) config: PathBuf,
    metrics_port: u16,
    _folder: tempfile::TempDir,
}

impl House {
    pub(crate) async fn build(dynamodb: &str, kinesis: &str, prefix: &str, shards: i32) -> Self {
        let aws = clients(Some(dynamodb), Some(kinesis)).await;
        let names = tables(&aws, prefix).await;
        aws.kinesis.create_stream().stream_name(STREAM).shard_count(shards).send().await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let metrics_port = free_port();
        let config = folder.path().join("relay.toml");
        let text = format!(
            r#"
            [storage.dynamo]
            region = "us-east-1"
            table_prefix = "{prefix}"
            endpoint = "{dynamodb}"
            [kinesis]
            endpoint = "{kinesis}"
            [relay]
            poll_interval_max = "250ms"
            reconcile_interval = "1s"
            lease_duration = "2s"
            [backfill]
            max_rcu = 100
            [telemetry]
            listen = "127.0.0.1:{metrics_port}"
            admin_listen = "127.0.0.1:0"
            [[handlers]]
            name = "copy"
            kind = "sink"
            subscribe = [{{ domain = "orders" }}]
            flush_roots = 500
            kinesis = {{ stream = "{STREAM}" }}
            "#
        );
        std::fs::write(&config, text).unwrap();
        Self { aws, names, config, metrics_port, _folder: folder }
    }

    pub(crate) async fn start_relay(&self) -> RelayProcess {
        let mut relay = self.spawn_relay();
        relay.wait_ready().await;
        relay
    }

    /// Starts the relay, and does not wait for it: it is not ready while it searches the table.
    pub(crate) fn spawn_relay(&self) -> RelayProcess {
        RelayProcess::spawn(&self.config, self.metrics_port, &[])
    }

    /// Writes `each` events to each of `roots` roots, in appends of 1 to 10 events.
    fn write(&self, roots: u64, each: u64) -> JoinSet<()> {
        self.write_from(0, roots, each)
    }

    /// The same for roots that have `from` events already.
    pub(crate) fn write_from(&self, from: u64, roots: u64, each: u64) -> JoinSet<()> {
        let mut writers = JoinSet::new();
        for writer in 0..WRITERS {
            let store = EventStore::new(&self.aws, &self.names.events, Random::seeded(writer));
            writers.spawn(async move {
                let chance = Random::seeded(1000 + writer);
                let mut left: Vec<(u64, Option<Sequence>)> = (0..roots)
                    .filter(|root| root % WRITERS == writer)
                    .map(|root| (root, from.checked_sub(1).map(Sequence)))
                    .collect();
                while !left.is_empty() {
                    let pick = usize::try_from(chance.below(left.len() as u64)).unwrap();
                    let (number, last) = &mut left[pick];
                    let written = last.map_or(0, |last| last.0 + 1);
                    let count = if chance.percent(50) { 1 } else { 1 + chance.below(10) }.min(each - written);
                    let events: Vec<_> = (0..count).map(|_| event("OrderPlaced", &[7; 200])).collect();
                    *last = Some(store.append(&root(&format!("r{number}")), *last, &events).await.unwrap());
                    if written + count == each {
                        left.swap_remove(pick);
                    }
                }
            });
        }
        writers
    }

    /// The end of a life by a kill: what had come out, and what was durable.
    pub(crate) async fn killed(&self, roots: u64) -> Kill {
        let mut output = Output::open(&self.aws).await;
        output.read_to_end(&self.aws).await;
        (output.seen(), self.positions(roots).await)
    }

    async fn positions(&self, roots: u64) -> BTreeMap<String, u64> {
        let store = DynamoPositions::new(&self.aws, &self.names.positions, Clock::system());
        let copy = HandlerName::new("copy").unwrap();
        let mut positions = BTreeMap::new();
        for first in (0..roots).step_by(100) {
            let asked: Vec<_> = (first..roots.min(first + 100)).map(|number| root(&format!("r{number}"))).collect();
            for (root, standing) in asked.iter().zip(store.load(&copy, &asked).await.unwrap()) {
                if let Some(Sequence(position)) = standing.position {
                    positions.insert(root.key().to_owned(), position);
                }
            }
        }
        positions
    }
}

const WRITERS: u64 = 8;

/// The number of a root `r7`, of its key.
fn number(key: &str) -> u64 {
    key.rsplit_once("#r").unwrap().1.parse().unwrap()
}

/// At the end of a life: how many events of each root had come out, and the durable position of each.
pub(crate) type Kill = (BTreeMap<String, usize>, BTreeMap<String, u64>);

/// What came out of Kinesis so far, per root, in the order of its shard.
pub(crate) struct Output {
    iterators: Vec<Option<String>>,
    roots: BTreeMap<String, Vec<u64>>,
    records: usize,
}

impl Output {
    pub(crate) async fn open(aws: &AwsClients) -> Self {
        let shards = aws.kinesis.list_shards().stream_name(STREAM).send().await.unwrap();
        let mut iterators = Vec::new();
        for shard in shards.shards() {
            let asked = aws.kinesis.get_shard_iterator().stream_name(STREAM).shard_id(shard.shard_id());
            let asked = asked.shard_iterator_type(aws_sdk_kinesis::types::ShardIteratorType::TrimHorizon);
            iterators.push(asked.send().await.unwrap().shard_iterator);
        }
        Self { iterators, roots: BTreeMap::new(), records: 0 }
    }

    /// Reads each shard once more; false when one did not answer.
    pub(crate) async fn read_on(&mut self, aws: &AwsClients) -> bool {
        let mut answered = true;
        for iterator in &mut self.iterators {
            let Some(at) = iterator.take() else { continue };
            let answer = match aws.kinesis.get_records().shard_iterator(&at).limit(2000).send().await {
                Ok(answer) => answer,
                // The emulator is busy with what it was sent: whoever waits for records has a deadline of his own.
                Err(SdkError::DispatchFailure(_) | SdkError::TimeoutError(_)) => {
                    *iterator = Some(at);
                    answered = false;
                    continue;
                }
                Err(error) => panic!("{error:?}"),
            };
            for record in &answer.records {
                let event: serde_json::Value = serde_json::from_slice(record.data.as_ref()).unwrap();
                assert_eq!(event["partitionkey"].as_str(), record.partition_key.as_deref());
                let root = event["partitionkey"].as_str().unwrap().to_owned();
                self.roots.entry(root).or_default().push(event["sequence"].as_str().unwrap().parse().unwrap());
                self.records += 1;
            }
            *iterator = answer.next_shard_iterator;
        }
        answered
    }

    /// How many events of each root have come out.
    pub(crate) fn seen(&self) -> BTreeMap<String, usize> {
        self.roots.iter().map(|(root, all)| (root.clone(), all.len())).collect()
    }

    /// Reads until every shard has nothing more.
    pub(crate) async fn read_to_end(&mut self, aws: &AwsClients) {
        loop {
            let before = self.records;
            if self.read_on(aws).await && self.records == before {
                return;
            }
        }
    }

    /// Reads on until so many records came out.
    pub(crate) async fn until(&mut self, aws: &AwsClients, records: usize) {
        let reading = async {
            while self.records < records {
                self.read_on(aws).await;
                sleep(Duration::from_millis(50)).await;
            }
        };
        let in_time = timeout(DEADLINE, reading).await.is_ok();
        assert!(in_time, "{} of {records} records came out of Kinesis", self.records);
    }

    /// Whether every root, of so many, has come out to its last event.
    pub(crate) fn is_complete(&self, roots: usize, each: impl Fn(u64) -> u64) -> bool {
        let has_come = |(root, sequences): (&String, &Vec<u64>)| sequences.contains(&(each(number(root)) - 1));
        self.roots.len() == roots && self.roots.iter().all(has_come)
    }

    /// Reads on until every root, of so many, has come out to its last event.
    pub(crate) async fn until_complete(&mut self, aws: &AwsClients, roots: usize, each: impl Fn(u64) -> u64) {
        let reading = async {
            while !self.is_complete(roots, &each) {
                self.read_on(aws).await;
                sleep(Duration::from_millis(50)).await;
            }
        };
        let in_time = timeout(DEADLINE, reading).await.is_ok();
        assert!(in_time, "not everything came out of Kinesis: {} roots, {} records", self.roots.len(), self.records);
    }

    /// Each root's events came first in order, and again only above what was durable at the kill before; how many did.
    pub(crate) fn assert_first_in_order(&self, roots: u64, each: impl Fn(u64) -> u64, kills: &[Kill]) -> usize {
        assert_eq!(self.roots.len() as u64, roots);
        let mut repeats = 0;
        for (root, sequences) in &self.roots {
            let mut first: Vec<u64> = Vec::new();
            for (index, sequence) in sequences.iter().enumerate() {
                if first.contains(sequence) {
                    repeats += 1;
                    let had_come = |seen: &BTreeMap<String, usize>| seen.get(root).copied().unwrap_or(0);
                    let durable = kills.iter().rev().find(|(seen, _)| index >= had_come(seen));
                    let durable =
                        durable.unwrap_or_else(|| panic!("{root} {sequence} came twice without a kill between"));
                    let durable = durable.1.get(root);
                    assert!(
                        durable.is_none_or(|durable| sequence > durable),
                        "{root} {sequence} was durable: {durable:?}"
                    );
                } else {
                    first.push(*sequence);
                }
            }
            assert_eq!(first, (0..each(number(root))).collect::<Vec<_>>(), "first deliveries of {root}");
        }
        repeats
    }

    pub(crate) fn assert_each_once_in_order(&self, roots: u64, each: u64) {
        assert_eq!(self.roots.len() as u64, roots);
        for (root, sequences) in &self.roots {
            assert_eq!(*sequences, (0..each).collect::<Vec<_>>(), "{root}");
        }
    }
}

/// Relays `each` events of each of `roots` roots, while they are written.
async fn comes_out_complete_in_order_each_once(kinesis: &str, prefix: &str, roots: u64, each: u64) {
    let dynamodb = DynamoDbLocal::start().await;
    let house = House::build(&dynamodb.endpoint, kinesis, prefix, 4).await;
    let mut relay = house.start_relay().await;
    let mut writing = house.write(roots, each);
    while let Some(done) = writing.join_next().await {
        done.unwrap();
    }
    let mut output = Output::open(&house.aws).await;
    let events = roots * each;
    output.until(&house.aws, usize::try_from(events).unwrap()).await;
    let metrics = relay.metrics().await;
    assert!(relay.terminate().await.success(), "{}", relay.output());
    output.read_on(&house.aws).await;
    // What Kinesis took without saying so in time would rightly come again: here it always answers.
    let calls: Vec<&str> = metrics.lines().filter(|line| line.contains(r#"operation="PutRecords""#)).collect();
    let answered = calls.len() == 1 && calls[0].contains(r#"outcome="ok""#);
    assert!(answered, "{calls:?}\n{}", relay.output());
    output.assert_each_once_in_order(roots, each);
    let delivered = format!(r#"angzarr_relay_events_delivered_total{{handler="copy",outcome="accepted"}} {events}"#);
    assert!(metrics.contains(&delivered), "{metrics}");
    let positions = house.positions(roots).await;
    assert_eq!(positions.len() as u64, roots);
    assert!(positions.values().all(|position| *position == each - 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_thousand_events_come_out_of_kinesis_complete_in_order_each_once() {
    let kinesis = KinesisProcess::start().await;
    comes_out_complete_in_order_each_once(&kinesis.endpoint, "bulk", 500, 40).await;
}

/// Few events: it slows with what it holds, and a call that is not answered in time is rightly made again.
#[tokio::test(flavor = "multi_thread")]
async fn events_come_out_of_another_kinesis_complete_in_order_each_once() {
    let kinesis = KinesisMock::start().await;
    comes_out_complete_in_order_each_once(&kinesis.endpoint, "other", 100, 15).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_in_the_middle_loses_nothing_and_repeats_nothing() {
    let (roots, each) = (100, 60);
    let dynamodb = DynamoDbLocal::start().await;
    let kinesis = EmbeddedKinesis::start(&KinesisOptions::default()).unwrap();
    let house = House::build(&dynamodb.endpoint, kinesis.endpoint(), "stop", 2).await;
    let mut output = Output::open(&house.aws).await;
    let mut relay = house.start_relay().await;
    let mut writing = house.write(roots, each);
    for records in [500, 2500] {
        output.until(&house.aws, records).await;
        assert!(relay.terminate().await.success(), "{}", relay.output());
        relay = house.start_relay().await;
    }
    while let Some(done) = writing.join_next().await {
        done.unwrap();
    }
    output.until_complete(&house.aws, 100, |_| each).await;
    assert!(relay.terminate().await.success());
    output.read_on(&house.aws).await;
    output.assert_each_once_in_order(roots, each);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_in_the_middle_loses_nothing_and_repeats_only_what_was_not_written() {
    let (roots, each) = (100, 60);
    let dynamodb = DynamoDbLocal::start().await;
    let kinesis = EmbeddedKinesis::start(&KinesisOptions::default()).unwrap();
    let house = House::build(&dynamodb.endpoint, kinesis.endpoint(), "kill", 2).await;
    let mut output = Output::open(&house.aws).await;
    let mut relay = house.start_relay().await;
    let mut writing = house.write(roots, each);
    let mut kills = Vec::new();
    for records in [500, 2500] {
        output.until(&house.aws, records).await;
        relay.kill();
        kills.push(house.killed(roots).await);
        relay = house.start_relay().await;
    }
    while let Some(done) = writing.join_next().await {
        done.unwrap();
    }
    output.until_complete(&house.aws, 100, |_| each).await;
    assert!(relay.terminate().await.success());
    let mut output = Output::open(&house.aws).await;
    output.read_to_end(&house.aws).await;

    let repeats = output.assert_first_in_order(roots, |_| each, &kills);
    assert!(repeats < 6000, "{repeats} repeats");
}
