//! Shards that roll, expire and are trimmed for real: DynamoDB Local with a clock 720 times as fast, on which a shard
//! lives 20 seconds, an iterator 1.25 and a record two minutes.
//!
//! Its connections idle out sooner as well, so a call that fails for want of one is made again.

use std::collections::BTreeSet;

use angzarr_relay::aws::AwsClients;
use angzarr_relay::fleet::FleetStore as _;
use angzarr_relay::handler::HandlerName;
use angzarr_relay::relay_table::{Checkpoint, RelayTable};
use angzarr_relay::storage::TableNames;
use angzarr_relay::stream::{
    Change, DynamoStream, RecordPage, Shard, ShardId, ShardIterator, ShardSource as _, StreamError, StreamPoint,
    StreamSource as _,
};
use angzarr_relay::time::Clock;

use crate::embedded::{clients, tables};
use crate::support::{DynamoDbLocal, RelayHome, Writer, until};

const SPEED: u32 = 720;

const AUDIT: &str = r#"
    [relay]
    poll_interval_max = "250ms"
    [[handlers]]
    name = "audit"
    flush_interval = "100ms"
    subscribe = [{ domain = "*" }]
    jsonl = { path = "HOME/audit.jsonl" }
"#;

/// A fast emulator with the tables, and their stream.
struct FastTable {
    emulator: DynamoDbLocal,
    aws: AwsClients,
    stream: DynamoStream,
}

impl FastTable {
    async fn start() -> Self {
        let emulator = DynamoDbLocal::start_at_speed(SPEED).await;
        let aws = clients(Some(&emulator.endpoint), None).await;
        let names = tables(&aws, RelayHome::PREFIX).await;
        let stream = DynamoStream::connect(&aws, &names.events).await.unwrap();
        Self { emulator, aws, stream }
    }

    async fn shards(&self) -> Option<Vec<Shard>> {
        let page = answered(self.stream.shards(None).await)?.unwrap();
        assert_eq!(page.next, None, "a handful of shards is one page");
        Some(page.shards)
    }

    /// What reading a shard from its horizon says.
    async fn read_from_horizon(&self, shard: &ShardId) -> Option<Result<RecordPage, StreamError>> {
        match answered(self.stream.open(shard, &StreamPoint::Horizon).await)? {
            Ok(iterator) => answered(self.stream.read(&iterator).await),
            Err(error) => Some(Err(error)),
        }
    }

    /// The sequences of the events of a closed shard, all of one root, in the order they come.
    async fn sequences_of_closed(&self, shard: &ShardId) -> Vec<u64> {
        let (mut sequences, mut from, mut iterator) = (Vec::new(), StreamPoint::Horizon, None);
        until("the end of the shard", async || {
            let at: ShardIterator = match iterator.take() {
                Some(at) => at,
                None => answered(self.stream.open(shard, &from).await)?.unwrap(),
            };
            let page = match answered(self.stream.read(&at).await)? {
                Err(StreamError::ExpiredIterator) => return None,
                other => other.unwrap(),
            };
            for record in page.records {
                let Change::Inserted(event) = record.change else { panic!("{:?} is no event", record.change) };
                sequences.push(event.sequence.0);
                from = StreamPoint::After(record.sequence);
            }
            iterator = page.next;
            iterator.is_none().then_some(())
        })
        .await;
        sequences
    }
}

/// An answer of the service itself; none when the call did not reach it.
fn answered<T>(answer: Result<T, StreamError>) -> Option<Result<T, StreamError>> {
    match answer {
        Err(StreamError::Unavailable { .. }) => None,
        other => Some(other),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_rolls_into_its_child_and_an_old_iterator_expires() {
    let table = FastTable::start().await;
    let mut writer = Writer::new(&table.aws);
    writer.append(0).await;
    let first = until("the shards are listed", async || table.shards().await).await.remove(0);
    let open = async || answered(table.stream.open(&first.id, &StreamPoint::Horizon).await);
    let iterator = until("an iterator", open).await.unwrap();
    until("the iterator expires", async || match answered(table.stream.read(&iterator).await)? {
        Err(StreamError::ExpiredIterator) => Some(()),
        other => other.map(|_| None).unwrap(),
    })
    .await;

    let child = until("the shard has a child", async || {
        // A shard rolls when it is written to.
        writer.append(0).await;
        let mut children = answered(table.stream.children(&first.id).await)?.unwrap();
        assert!(children.len() <= 1, "{children:?}");
        children.pop()
    })
    .await;
    assert_eq!(child.parent.as_ref(), Some(&first.id));
    let in_parent = table.sequences_of_closed(&first.id).await;
    assert!(in_parent.iter().copied().eq(0..in_parent.len() as u64), "{in_parent:?}");
    // The write that rolled the shard may stand in either of them; the next stands in the child.
    let in_child = until("the child holds a record", async || {
        writer.append(0).await;
        let page = table.read_from_horizon(&child.id).await?.unwrap();
        (!page.records.is_empty()).then_some(page)
    })
    .await;
    let Some(Change::Inserted(event)) = in_child.records.first().map(|record| &record.change) else {
        panic!("the child begins with {:?}", in_child.records.first())
    };
    assert_eq!(event.sequence.0, in_parent.len() as u64, "the child goes on where its parent ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_follows_a_stream_that_rolls_three_times_and_stops_on_the_way() {
    const ROOTS: u64 = 20;
    let table = FastTable::start().await;
    let mut writer = Writer::new(&table.aws);
    let home = RelayHome::new();
    home.configure(&table.emulator.endpoint, AUDIT);
    let mut relay = home.start().await;
    let mut turn = 0;
    for shards in 2..=4 {
        until("another roll", async || {
            writer.append(turn % ROOTS).await;
            turn += 1;
            table.shards().await.filter(|listed| listed.len() >= shards)
        })
        .await;
        // It is stopped from the first roll to the second.
        match shards {
            2 => assert!(relay.terminate().await.success(), "{}", relay.output()),
            3 => relay = home.start().await,
            _ => {}
        }
    }
    until("everything is in the file", async || (home.sequences("audit.jsonl") == *writer.written()).then_some(()))
        .await;
    let state = |state: &str| format!(r#"angzarr_relay_shards{{state="{state}"}}"#);
    until("the parents are left behind", async || {
        let reading = relay.metric(&state("reading")).await?;
        (reading <= 1.0 && relay.metric(&state("waiting")).await == Some(0.0)).then_some(())
    })
    .await;
    assert!(relay.terminate().await.success(), "{}", relay.output());
    assert_eq!(home.sequences("audit.jsonl"), *writer.written());

    let parents: BTreeSet<ShardId> = until("the shards are listed", async || table.shards().await)
        .await
        .into_iter()
        .filter_map(|shard| shard.parent)
        .collect();
    assert!(parents.len() >= 3, "{parents:?}");
    let relay_table = RelayTable::new(&table.aws, &TableNames::from_prefix(RelayHome::PREFIX).relay, Clock::system());
    let checkpoints = relay_table.checkpoints(&HandlerName::new("audit").unwrap()).await.unwrap();
    for parent in parents {
        assert_eq!(checkpoints.get(&parent), Some(&Checkpoint::Finished), "{parent}: {checkpoints:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_was_stopped_for_longer_than_the_stream_keeps_goes_on_from_the_table() {
    const TICKER: u64 = 99;
    let table = FastTable::start().await;
    let mut writer = Writer::new(&table.aws);
    let home = RelayHome::new();
    home.configure(&table.emulator.endpoint, AUDIT);
    let mut relay = home.start().await;
    writer.append_to(0..20, 3).await;
    until("everything is in the file", async || (home.sequences("audit.jsonl") == *writer.written()).then_some(()))
        .await;
    assert!(relay.terminate().await.success(), "{}", relay.output());

    // Written while nobody reads, and trimmed before anybody does.
    writer.append_to(0..20, 2).await;
    let listed = until("the shards are listed", async || table.shards().await).await;
    // An id begins with the time: the last is the newest.
    let missed = listed.into_iter().map(|shard| shard.id).max().unwrap();
    until("what was missed is trimmed", async || {
        writer.append(TICKER).await;
        match table.read_from_horizon(&missed).await? {
            Err(StreamError::Gone) => Some(()),
            // While it drops one record after the other, the horizon may move between the two calls.
            Err(StreamError::Trimmed | StreamError::ExpiredIterator) | Ok(_) => None,
            Err(other) => panic!("{other:?}"),
        }
    })
    .await;

    // Half of the roots get one more event, which says what was missed; of the others the stream says nothing any more.
    writer.append_to(0..10, 1).await;
    let mut relay = home.start().await;
    until("everything is in the file", async || (home.sequences("audit.jsonl") == *writer.written()).then_some(()))
        .await;
    let trimmed = relay.metric("angzarr_relay_stream_trimmed_total").await;
    assert!(trimmed.is_some_and(|times| times > 0.0), "{trimmed:?}");
    let begun = relay.metric(r#"angzarr_relay_jobs_begun_total{handler="audit",kind="reconcile"}"#).await;
    assert_eq!(begun, Some(1.0));
    assert!(relay.terminate().await.success(), "{}", relay.output());
    assert!(!relay.output().contains("panicked"), "{}", relay.output());
    assert_eq!(home.sequences("audit.jsonl"), *writer.written());
}
