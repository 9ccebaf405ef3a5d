//! The server of many shards, asked by the real SDK: every operation, paging, filter, expiry, trims, throttles; in front
//! of each DynamoDB there is.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use angzarr_relay::aws::AwsClients;
use angzarr_relay::event::Sequence;
use angzarr_relay::local::{EmbeddedDynamo, EmbeddedStreams, KeyPart, ShardControl, ShardsError, StreamsOptions};
use angzarr_relay::storage::EventStore;
use angzarr_relay::stream::{
    Change, DynamoStream, Shard, ShardId, ShardIterator, ShardSource as _, StreamError, StreamPoint, StreamSequence,
    StreamSource as _,
};
use angzarr_relay::time::Random;
use aws_sdk_dynamodbstreams::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodbstreams::types::{ShardIteratorType, StreamStatus};

use crate::embedded::{event, events, root, sharded_clients, sharded_tables, tables};
use crate::support::{DynamoDbLocal, until};

/// Makes two tests of each scenario: in front of an embedded DynamoDB of its own, and of a DynamoDB Local that all
/// scenarios share.
macro_rules! in_front_of_each {
    ($($name:ident),* $(,)?) => {
        mod before_embedded {
            $(
                #[tokio::test]
                async fn $name() {
                    let dynamo = angzarr_relay::local::EmbeddedDynamo::start(None).unwrap();
                    super::$name(dynamo.endpoint(), concat!("shards-", stringify!($name))).await;
                }
            )*
        }
        mod before_dynamodb_local {
            $(
                #[tokio::test]
                async fn $name() {
                    let endpoint = crate::support::DynamoDbLocal::shared().await;
                    super::$name(endpoint, concat!("shards-", stringify!($name))).await;
                }
            )*
        }
    };
}

in_front_of_each!(
    shards_are_listed_in_pages,
    every_iterator_begins_where_it_says,
    requests_that_are_wrong_are_refused,
    every_record_is_in_one_shard_in_the_order_of_its_item,
    an_item_collection_is_divided_by_its_sort_key,
    a_child_that_is_not_listed_yet_is_listed_later,
    iterators_expire_on_order_and_with_their_time,
    what_is_trimmed_is_told,
    calls_above_the_rate_are_throttled,
    a_stream_that_is_disabled_is_read_to_its_end,
);

/// A table, its stream with many shards, and a way to these.
struct Sharded {
    aws: AwsClients,
    store: EventStore,
    stream: DynamoStream,
    shards: ShardControl,
    server: EmbeddedStreams,
}

impl Sharded {
    async fn start(upstream: &str, prefix: &str, options: StreamsOptions) -> Self {
        let (server, aws, names) = sharded_tables(upstream, prefix, options).await;
        let stream = DynamoStream::connect(&aws, &names.events).await.unwrap();
        let store = EventStore::new(&aws, &names.events, Random::from_entropy());
        Self { aws, store, stream, shards: server.shards(&names.events), server }
    }

    async fn with_shards(upstream: &str, prefix: &str, shards: u32) -> Self {
        Self::start(upstream, prefix, StreamsOptions { shards, ..StreamsOptions::default() }).await
    }

    /// Appends events to a root that has `from` already.
    async fn append(&self, id: &str, from: u64, count: usize) {
        self.store.append(&root(id), Sequence(from).previous(), &events(count)).await.unwrap();
    }

    /// Every shard, listed page by page.
    async fn listed(&self) -> Vec<Shard> {
        let (mut shards, mut after) = (Vec::new(), None);
        loop {
            let page = self.stream.shards(after.as_ref()).await.unwrap();
            shards.extend(page.shards);
            after = page.next;
            if after.is_none() {
                return shards;
            }
        }
    }

    /// What stands in a shard behind a place: root ids and sequences; and whether the shard has ended.
    async fn read(&self, shard: &ShardId, from: &StreamPoint) -> (Vec<(String, u64)>, bool) {
        let mut iterator = self.stream.open(shard, from).await.unwrap();
        let mut found = Vec::new();
        loop {
            let page = self.stream.read(&iterator).await.unwrap();
            let is_empty = page.records.is_empty();
            found.extend(page.records.into_iter().map(|record| match record.change {
                Change::Inserted(event) => (event.root.id().to_owned(), event.sequence.0),
                other => panic!("{other:?} is no event"),
            }));
            match page.next {
                None => return (found, true),
                Some(_) if is_empty => return (found, false),
                Some(next) => iterator = next,
            }
        }
    }

    async fn read_all(&self, shard: &ShardId) -> Vec<(String, u64)> {
        self.read(shard, &StreamPoint::Horizon).await.0
    }

    /// The shards' records, until so many have come.
    async fn read_records(&self, count: usize) -> BTreeMap<ShardId, Vec<(String, u64)>> {
        until("every record is served", async || {
            let mut found = BTreeMap::new();
            for shard in self.listed().await {
                found.insert(shard.id.clone(), self.read_all(&shard.id).await);
            }
            (found.values().map(Vec::len).sum::<usize>() >= count).then_some(found)
        })
        .await
    }
}

fn key(id: &str) -> KeyPart {
    KeyPart::Text(root(id).key().to_owned())
}

fn number(sequence: u64) -> KeyPart {
    KeyPart::Number(sequence.to_string())
}

#[track_caller]
fn refused<T: std::fmt::Debug, E, R>(answer: Result<T, SdkError<E, R>>) -> String
where
    E: ProvideErrorMetadata + std::fmt::Debug,
    R: std::fmt::Debug,
{
    let error = answer.unwrap_err();
    error.as_service_error().and_then(ProvideErrorMetadata::code).unwrap_or_else(|| panic!("{error:?}")).to_owned()
}

async fn shards_are_listed_in_pages(upstream: &str, prefix: &str) {
    let sharded = Sharded::with_shards(upstream, prefix, 250).await;
    let (client, arn) = (&sharded.aws.streams, sharded.stream.arn());
    let listed = client.list_streams().table_name(format!("{prefix}-events")).send().await.unwrap();
    assert!(listed.streams().iter().any(|stream| stream.stream_arn() == Some(&*arn)), "{listed:?}");

    for limit in [None, Some(7), Some(100)] {
        let (mut ids, mut after): (Vec<String>, _) = (Vec::new(), None);
        loop {
            let call = client.describe_stream().stream_arn(&*arn).set_limit(limit);
            let page = call.set_exclusive_start_shard_id(after).send().await.unwrap().stream_description.unwrap();
            assert_eq!(page.stream_status(), Some(&StreamStatus::Enabled));
            assert_eq!(page.key_schema().len(), 2);
            assert!(page.shards().len() <= usize::try_from(limit.unwrap_or(100)).unwrap());
            for shard in page.shards() {
                let range = shard.sequence_number_range().unwrap();
                assert!(range.starting_sequence_number().is_some_and(|number| number.len() >= 21));
                assert_eq!(range.ending_sequence_number(), None, "the shard is open");
                ids.push(shard.shard_id().unwrap().to_owned());
            }
            after = page.last_evaluated_shard_id;
            if after.is_none() {
                break;
            }
        }
        assert!(ids.len() == 250 && ids.is_sorted_by(|one, two| one < two), "{limit:?}");
    }
}

async fn every_iterator_begins_where_it_says(upstream: &str, prefix: &str) {
    let sharded = Sharded::with_shards(upstream, prefix, 1).await;
    let shard = sharded.shards.open().await.unwrap().remove(0);
    sharded.append("a", 0, 1).await;
    sharded.append("a", 1, 1).await;
    sharded.append("a", 2, 1).await;
    let (client, arn) = (&sharded.aws.streams, sharded.stream.arn());
    let open = async |kind: ShardIteratorType, number: Option<&str>| {
        let call = client.get_shard_iterator().stream_arn(&*arn).shard_id(shard.as_str()).shard_iterator_type(kind);
        let answer = call.set_sequence_number(number.map(str::to_owned)).send().await;
        let iterator = answer.unwrap().shard_iterator.unwrap();
        assert!(iterator.len() <= 2048);
        iterator
    };
    let read = async |iterator: &str| {
        let answer = client.get_records().shard_iterator(iterator).send().await.unwrap();
        assert!(answer.next_shard_iterator.is_some());
        let numbers = answer.records().iter().map(|record| record.dynamodb().unwrap().sequence_number().unwrap());
        numbers.map(str::to_owned).collect::<Vec<_>>()
    };
    let latest = open(ShardIteratorType::Latest, None).await;
    let horizon = open(ShardIteratorType::TrimHorizon, None).await;
    let numbers = read(&horizon).await;
    assert!(numbers.len() == 3 && numbers.is_sorted_by(|one, two| one < two), "{numbers:?}");
    assert_eq!(read(&horizon).await, numbers, "the same iterator reads the same");
    let at = open(ShardIteratorType::AtSequenceNumber, Some(&numbers[1])).await;
    assert_eq!(read(&at).await, numbers[1..]);
    let after = open(ShardIteratorType::AfterSequenceNumber, Some(&numbers[1])).await;
    assert_eq!(read(&after).await, numbers[2..]);
    assert_eq!(read(&latest).await, Vec::<String>::new());
    sharded.append("a", 3, 1).await;
    let newest = until("the newest is served", async || read(&latest).await.pop()).await;
    assert!(newest > numbers[2]);
    // One record a page, to the end of the closed shard.
    sharded.shards.roll(&shard).await.unwrap();
    let (mut iterator, mut pages) = (Some(horizon), Vec::new());
    while let Some(at) = iterator {
        let answer = client.get_records().shard_iterator(at).limit(1).send().await.unwrap();
        pages.push(answer.records().len());
        iterator = answer.next_shard_iterator;
    }
    assert_eq!(pages, [1, 1, 1, 1]);
}

async fn requests_that_are_wrong_are_refused(upstream: &str, prefix: &str) {
    const VALIDATION: &str = "ValidationException";
    const NOT_FOUND: &str = "ResourceNotFoundException";
    let sharded = Sharded::with_shards(upstream, prefix, 2).await;
    let shard = sharded.shards.open().await.unwrap().remove(0);
    let (client, arn) = (&sharded.aws.streams, sharded.stream.arn());
    let open = |id: &str| {
        let call = client.get_shard_iterator().stream_arn(&*arn).shard_id(id);
        call.shard_iterator_type(ShardIteratorType::TrimHorizon)
    };
    let good = open(shard.as_str()).send().await.unwrap().shard_iterator.unwrap();
    assert_eq!(refused(client.get_records().shard_iterator(&good).limit(1001).send().await), VALIDATION);
    assert_eq!(refused(client.get_records().shard_iterator("garbage").send().await), VALIDATION);
    assert_eq!(refused(client.get_records().shard_iterator(format!("{good}A")).send().await), VALIDATION);
    assert_eq!(refused(open(shard.as_str()).sequence_number("1".repeat(21)).send().await), VALIDATION);
    for unknown in ["shardId-00000001700000000000-0a1b2c3d", "shardId-00000001-of-somebody-else"] {
        let answer = open(unknown).send().await;
        assert_eq!(refused(answer), NOT_FOUND, "{unknown}");
        assert!(matches!(
            sharded.stream.open(&ShardId::new(unknown), &StreamPoint::Horizon).await,
            Err(StreamError::Gone)
        ));
    }
    let other = format!("{}-not", &*arn);
    assert_eq!(refused(client.describe_stream().stream_arn(other).send().await), NOT_FOUND);
    assert_eq!(refused(client.describe_stream().stream_arn("no arn at all").send().await), NOT_FOUND);
    // What is not of DynamoDB Streams is not served.
    let misled = sharded_clients(sharded.server.endpoint(), sharded.server.endpoint()).await;
    assert_eq!(refused(misled.dynamodb.list_tables().send().await), "UnknownOperationException");
}

async fn every_record_is_in_one_shard_in_the_order_of_its_item(upstream: &str, prefix: &str) {
    const ROOTS: u64 = 12;
    const ROUNDS: u64 = 6;
    let sharded = Sharded::with_shards(upstream, prefix, 3).await;
    let mut lived: Vec<BTreeSet<ShardId>> = Vec::new();
    for round in 0..ROUNDS {
        lived.push(sharded.shards.open().await.unwrap().into_iter().collect());
        for number in 0..ROOTS {
            sharded.append(&format!("r{number}"), round * 2, 2).await;
        }
        let open = sharded.shards.open().await.unwrap();
        assert_eq!(open.iter().cloned().collect::<BTreeSet<_>>(), lived[lived.len() - 1]);
        let pick = &open[usize::try_from(round).unwrap() % open.len()];
        if round % 2 == 0 {
            sharded.shards.roll(pick).await.unwrap();
        } else {
            sharded.shards.split(pick).await.unwrap();
        }
    }
    let records = sharded.read_records(usize::try_from(ROOTS * ROUNDS * 2).unwrap()).await;
    assert_eq!(records.values().map(Vec::len).sum::<usize>(), usize::try_from(ROOTS * ROUNDS * 2).unwrap());
    assert!(records.values().filter(|found| !found.is_empty()).count() > 3);
    // A parent's id is less than its child's, so this is an order in which a reader may go.
    let mut roots: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for (shard, found) in &records {
        for (root, sequence) in found {
            roots.entry(root).or_default().push(*sequence);
            let round = usize::try_from(sequence / 2).unwrap();
            assert!(lived[round].contains(shard), "{root} {sequence} is in {shard}, which was not open then");
        }
    }
    for (root, mut sequences) in roots {
        // Two events of one transaction are two items: their order is the upstream's.
        sequences.chunks_mut(2).for_each(<[u64]>::sort_unstable);
        assert!(sequences.iter().copied().eq(0..ROUNDS * 2), "{root}: {sequences:?}");
    }
    let lineage = sharded.shards.all().await.unwrap();
    let closed: BTreeSet<_> = lineage.iter().filter(|shard| !shard.open).map(|shard| &shard.id).collect();
    assert_eq!(closed.len(), usize::try_from(ROUNDS).unwrap());
    for shard in &lineage {
        assert!(shard.parent.as_ref().is_none_or(|parent| closed.contains(parent) && *parent < shard.id));
        assert_eq!(sharded.read(&shard.id, &StreamPoint::Horizon).await.1, !shard.open);
        assert_eq!(shard.records, records[&shard.id].len());
    }
}

async fn an_item_collection_is_divided_by_its_sort_key(upstream: &str, prefix: &str) {
    let sharded = Sharded::with_shards(upstream, prefix, 1).await;
    let first = sharded.shards.open().await.unwrap().remove(0);
    sharded.append("a", 0, 3).await;
    let [low, high] = sharded.shards.split_collection(key("a"), number(8)).await.unwrap();
    let of_item = async |sequence| sharded.shards.of_item(key("a"), Some(number(sequence))).await.unwrap();
    assert_eq!([of_item(7).await, of_item(8).await, of_item(10).await], [low.clone(), high.clone(), high.clone()]);
    for from in 3..12 {
        sharded.append("a", from, 1).await;
    }
    let records = sharded.read_records(12).await;
    let sequences = |shard: &ShardId| records[shard].iter().map(|(_, sequence)| *sequence).collect::<BTreeSet<_>>();
    assert_eq!(
        [sequences(&first), sequences(&low), sequences(&high)],
        [(0..3).collect(), (3..8).collect(), (8..12).collect()]
    );
    assert!(matches!(
        sharded.shards.split_collection(key("a"), number(8)).await,
        Err(ShardsError::Indivisible(shard)) if shard == high
    ));
}

async fn a_child_that_is_not_listed_yet_is_listed_later(upstream: &str, prefix: &str) {
    let sharded = Sharded::with_shards(upstream, prefix, 2).await;
    let [first, second] = sharded.shards.open().await.unwrap().try_into().unwrap();
    let child = sharded.shards.close(&first).await.unwrap();
    assert!(sharded.read(&first, &StreamPoint::Horizon).await.1, "the shard is closed");
    assert_eq!(sharded.stream.children(&first).await.unwrap(), []);
    assert_eq!(sharded.listed().await.len(), 2);
    for id in 0..20 {
        sharded.append(&format!("r{id}"), 0, 1).await;
    }
    sharded.shards.list(&child).await.unwrap();
    let expected = Shard { id: child.clone(), parent: Some(first.clone()) };
    assert_eq!(sharded.stream.children(&first).await.unwrap(), std::slice::from_ref(&expected));
    assert!(sharded.listed().await.contains(&expected));
    let records = sharded.read_records(20).await;
    assert!(!records[&child].is_empty() && records[&first].is_empty());
    assert_eq!(records[&child].len() + records[&second].len(), 20);
}

async fn iterators_expire_on_order_and_with_their_time(upstream: &str, prefix: &str) {
    let lifetime = Duration::from_millis(300);
    let options = StreamsOptions { iterator_lifetime: lifetime, ..StreamsOptions::default() };
    let sharded = Sharded::start(upstream, prefix, options).await;
    let shard = sharded.shards.open().await.unwrap().remove(0);
    let iterator = sharded.stream.open(&shard, &StreamPoint::Horizon).await.unwrap();
    until("the iterator expires", async || match sharded.stream.read(&iterator).await {
        Ok(_) => None,
        Err(StreamError::ExpiredIterator) => Some(()),
        Err(error) => panic!("{error:?}"),
    })
    .await;

    let long = Sharded::with_shards(upstream, &format!("{prefix}-order"), 1).await;
    let shard = long.shards.open().await.unwrap().remove(0);
    let iterator = long.stream.open(&shard, &StreamPoint::Horizon).await.unwrap();
    let next = long.stream.read(&iterator).await.unwrap().next.unwrap();
    long.shards.expire_iterators().await.unwrap();
    for old in [&iterator, &next] {
        assert_eq!(
            refused(long.aws.streams.get_records().shard_iterator(&old.0).send().await),
            "ExpiredIteratorException"
        );
    }
    assert_eq!(long.read_all(&shard).await, []);
}

async fn what_is_trimmed_is_told(upstream: &str, prefix: &str) {
    let sharded = Sharded::with_shards(upstream, prefix, 1).await;
    let shard = sharded.shards.open().await.unwrap().remove(0);
    for from in 0..4 {
        sharded.append("a", from, 1).await;
    }
    sharded.read_records(4).await;
    let begin = sharded.stream.open(&shard, &StreamPoint::Horizon).await.unwrap();
    let numbers: Vec<StreamSequence> =
        sharded.stream.read(&begin).await.unwrap().records.into_iter().map(|record| record.sequence).collect();
    sharded.shards.trim(&shard, &numbers[1]).await.unwrap();
    let is_trimmed = |answer: Result<ShardIterator, StreamError>| matches!(answer, Err(StreamError::Trimmed));
    assert!(matches!(sharded.stream.read(&begin).await, Err(StreamError::Trimmed)));
    assert!(is_trimmed(sharded.stream.open(&shard, &StreamPoint::After(numbers[0].clone())).await));
    let a = |sequences: std::ops::Range<u64>| sequences.map(|sequence| ("a".to_owned(), sequence)).collect::<Vec<_>>();
    assert_eq!(sharded.read_all(&shard).await, a(2..4));
    assert_eq!(sharded.read(&shard, &StreamPoint::After(numbers[1].clone())).await.0, a(2..4));

    // A closed shard whose day is over vanishes.
    let open = sharded.shards.remove(&shard).await;
    assert!(matches!(open, Err(ShardsError::Open(_))), "{open:?}");
    let child = sharded.shards.roll(&shard).await.unwrap();
    let iterator = sharded.stream.open(&shard, &StreamPoint::Horizon).await.unwrap();
    sharded.shards.remove(&shard).await.unwrap();
    assert_eq!(sharded.listed().await, [Shard { id: child.clone(), parent: Some(shard.clone()) }]);
    assert!(matches!(sharded.stream.read(&iterator).await, Err(StreamError::Trimmed)));
    assert!(matches!(sharded.stream.open(&shard, &StreamPoint::Horizon).await, Err(StreamError::Gone)));
    sharded.append("a", 4, 1).await;
    sharded.read_records(1).await;
    sharded.shards.trim_all(&child).await.unwrap();
    assert_eq!(sharded.read_all(&child).await, []);
}

async fn calls_above_the_rate_are_throttled(upstream: &str, prefix: &str) {
    let options = StreamsOptions {
        shards: 2,
        describes_per_second: Some(10),
        reads_per_second: Some(2),
        ..StreamsOptions::default()
    };
    let sharded = Sharded::start(upstream, prefix, options).await;
    let throttled = until("too many calls", async || {
        let calls = (0..30).map(|_| sharded.stream.shards(None));
        futures_util::future::join_all(calls).await.into_iter().find_map(Result::err)
    })
    .await;
    assert!(matches!(throttled, StreamError::Throttled { operation: "DescribeStream" }), "{throttled:?}");
    let arn = sharded.stream.arn();
    let code = until("too many calls", async || {
        let calls = (0..30).map(|_| sharded.aws.streams.describe_stream().stream_arn(&*arn).send());
        let answers = futures_util::future::join_all(calls).await;
        answers.into_iter().find(Result::is_err).map(refused)
    })
    .await;
    assert_eq!(code, "ThrottlingException");

    let [one, other] = sharded.shards.open().await.unwrap().try_into().unwrap();
    let [one, other] = [
        sharded.stream.open(&one, &StreamPoint::Horizon).await.unwrap(),
        sharded.stream.open(&other, &StreamPoint::Horizon).await.unwrap(),
    ];
    let throttled = until("too many reads of one shard", async || {
        let reads = futures_util::future::join_all((0..10).map(|_| sharded.stream.read(&one))).await;
        reads.into_iter().find_map(Result::err)
    })
    .await;
    assert!(matches!(throttled, StreamError::Throttled { operation: "GetRecords" }), "{throttled:?}");
    sharded.stream.read(&other).await.unwrap();
    let calls = sharded.shards.calls().await.unwrap();
    assert!(calls["DescribeStream"].made > 10 && calls["DescribeStream"].throttled > 0, "{calls:?}");
    assert!(calls["GetRecords"].throttled > 0 && calls["GetShardIterator"].made == 2, "{calls:?}");
}

async fn a_stream_that_is_disabled_is_read_to_its_end(upstream: &str, prefix: &str) {
    let sharded = Sharded::with_shards(upstream, prefix, 2).await;
    let open = sharded.shards.open().await.unwrap();
    for id in 0..10 {
        sharded.append(&format!("r{id}"), 0, 1).await;
    }
    sharded.read_records(10).await;
    let specification = aws_sdk_dynamodb::types::StreamSpecification::builder().stream_enabled(false).build().unwrap();
    let disable = sharded.aws.dynamodb.update_table().table_name(format!("{prefix}-events"));
    disable.stream_specification(specification).send().await.unwrap();
    let mut records = 0;
    for shard in &open {
        let found = until("the shard ends", async || {
            let (found, ended) = sharded.read(shard, &StreamPoint::Horizon).await;
            ended.then_some(found)
        });
        records += found.await.len();
    }
    assert_eq!(records, 10);
}

#[tokio::test]
async fn an_upstream_whose_shards_roll_is_followed() {
    const ROLLS: usize = 2;
    let emulator = DynamoDbLocal::start_at_speed(720).await;
    let sharded = until("the table and its server", async || {
        let server =
            EmbeddedStreams::start(&emulator.endpoint, StreamsOptions { shards: 3, ..StreamsOptions::default() });
        let server = server.unwrap();
        let aws = sharded_clients(&emulator.endpoint, server.endpoint()).await;
        let names = tables(&aws, "rolling").await;
        let stream = DynamoStream::connect(&aws, &names.events).await.ok()?;
        let store = EventStore::new(&aws, &names.events, Random::from_entropy());
        Some(Sharded { aws, store, stream, shards: server.shards(&names.events), server })
    })
    .await;
    let upstream = crate::embedded::clients(Some(&emulator.endpoint), None).await;
    let rolling = DynamoStream::connect(&upstream, "rolling-events").await.unwrap();
    let mut written = 0;
    until("the upstream's shard has rolled", async || {
        let token = format!("t{written}");
        let (root, event) = (root("a"), [event("OrderPlaced", b"1")]);
        let appended = sharded.store.append_with_token(&root, Sequence(written).previous(), &event, &token);
        written += u64::from(appended.await.is_ok());
        let listed = rolling.shards(None).await.ok()?.shards;
        (listed.len() > ROLLS).then_some(())
    })
    .await;
    let sequences = until("everything is served", async || {
        let mut sequences = Vec::new();
        for shard in sharded.listed().await {
            sequences.extend(sharded.read_all(&shard.id).await.into_iter().map(|(_, sequence)| sequence));
        }
        (sequences.len() as u64 >= written).then_some(sequences)
    })
    .await;
    assert!(sequences.iter().copied().eq(0..written), "{written}: {sequences:?}");
}

#[tokio::test]
async fn the_shards_are_the_same_after_a_restart() {
    let (data, dynamo) = (tempfile::tempdir().unwrap(), EmbeddedDynamo::start(None).unwrap());
    let options = StreamsOptions { shards: 4, data: Some(data.path().to_owned()), ..StreamsOptions::default() };
    let (mut lives, mut kept_back) = (Vec::new(), None);
    for life in 0..3_u64 {
        let sharded = Sharded::start(dynamo.endpoint(), "it-restart", options.clone()).await;
        let before = sharded.read_records(usize::try_from(life * 12).unwrap()).await;
        if let Some((shards, records)) = lives.last() {
            assert_eq!(&sharded.shards.all().await.unwrap(), shards);
            assert_eq!(&before, records);
        }
        if let Some(child) = kept_back.take() {
            sharded.shards.list(&child).await.unwrap();
        }
        for id in 0..12 {
            sharded.append(&format!("r{id}"), life, 1).await;
        }
        let open = sharded.shards.open().await.unwrap();
        sharded.shards.roll(&open[0]).await.unwrap();
        sharded.shards.split(&open[1]).await.unwrap();
        kept_back = Some(sharded.shards.close(&open[2]).await.unwrap());
        sharded.shards.split_collection(key("r5"), number(life + 1)).await.unwrap();
        let records = sharded.read_records(usize::try_from((life + 1) * 12).unwrap()).await;
        lives.push((sharded.shards.all().await.unwrap(), records));
    }
}

#[tokio::test]
async fn ten_thousand_shards_are_listed_and_read() {
    const SHARDS: u32 = 10_000;
    let dynamo = EmbeddedDynamo::start(None).unwrap();
    let options = StreamsOptions { shards: SHARDS, ..StreamsOptions::default() };
    let sharded = Sharded::start(dynamo.endpoint(), "it-many", options).await;
    for id in 0..50 {
        sharded.append(&format!("r{id}"), 0, 1).await;
    }
    let listed = sharded.listed().await;
    assert_eq!(listed.len(), SHARDS as usize);
    let mut busy = Vec::new();
    until("every record is served", async || {
        let all = sharded.shards.all().await.unwrap();
        busy = all.into_iter().filter(|shard| shard.records > 0).collect();
        (busy.iter().map(|shard| shard.records).sum::<usize>() == 50).then_some(())
    })
    .await;
    let mut found = BTreeSet::new();
    for shard in &busy {
        found.extend(sharded.read_all(&shard.id).await);
    }
    assert_eq!(found.len(), 50);
}
