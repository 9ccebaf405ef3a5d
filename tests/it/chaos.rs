//! Twenty blows in a row at a fleet of real processes, on DynamoDB Local behind eight shards and a ferrokinesis of its own,
//! while events are written: replicas are killed, stopped, held still for longer than a lease, and started.
//!
//! What came out of Kinesis is complete, each root's first occurrences are in order, the audit is clean, and what came
//! again was not durable when a replica was struck. `ANGZARR_CHAOS_SEED` repeats the blows of an earlier run, not its timing;
//! `ANGZARR_CHAOS_BLOWS` strikes more often.

use std::collections::BTreeMap;
use std::time::Duration;

use angzarr_relay::aws::AwsClients;
use angzarr_relay::event::Sequence;
use angzarr_relay::handler::HandlerName;
use angzarr_relay::local::{EmbeddedStreams, StreamsOptions};
use angzarr_relay::storage::{DynamoPositions, PositionStore as _, TableNames};
use angzarr_relay::time::{Clock, Random};
use tokio::time::sleep;

use crate::embedded::{clients, root, sharded_tables};
use crate::relaying::{Kill, Output, STREAM};
use crate::support::{DynamoDbLocal, KinesisProcess, RelayHome, RelayProcess, Writer, until};

const SHARDS: u32 = 8;
const ROOTS: u64 = 60;
const BLOWS: u64 = 20;

/// Replicas there are at the least and at the most.
const REPLICAS: std::ops::RangeInclusive<usize> = 3..=5;

/// Longer than the leases of the replicas under test.
const HELD_STILL: Duration = Duration::from_secs(5);

/// What is done to the fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Blow {
    Kill,
    Terminate,
    HoldStill,
    Start,
}

/// The replicas, and where they work.
struct Fleet {
    dynamodb: DynamoDbLocal,
    streams: EmbeddedStreams,
    kinesis: KinesisProcess,
    aws: AwsClients,
    replicas: Vec<(RelayHome, RelayProcess)>,
}

impl Fleet {
    async fn build() -> Self {
        let dynamodb = DynamoDbLocal::start().await;
        let kinesis = KinesisProcess::start().await;
        let options = StreamsOptions { shards: SHARDS, ..StreamsOptions::default() };
        let (streams, _, _) = sharded_tables(&dynamodb.endpoint, RelayHome::PREFIX, options).await;
        let aws = clients(Some(&dynamodb.endpoint), Some(&kinesis.endpoint)).await;
        aws.kinesis.create_stream().stream_name(STREAM).shard_count(2).send().await.unwrap();
        Self { dynamodb, streams, kinesis, aws, replicas: Vec::new() }
    }

    async fn start(&mut self) {
        let home = RelayHome::new();
        let config = format!(
            r#"
            [relay]
            poll_interval_max = "250ms"
            [kinesis]
            endpoint = "{}"
            [[handlers]]
            name = "copy"
            kind = "sink"
            subscribe = [{{ domain = "*" }}]
            start = "beginning"
            kinesis = {{ stream = "{STREAM}" }}
            "#,
            self.kinesis.endpoint
        );
        home.configure_with_streams(&self.dynamodb.endpoint, self.streams.endpoint(), &config);
        let relay = home.start().await;
        self.replicas.push((home, relay));
    }

    /// What is durable, and then what has come out: what comes later again must be above the former.
    async fn struck(&self, output: &mut Output) -> Kill {
        let table = TableNames::from_prefix(RelayHome::PREFIX).positions;
        let positions = DynamoPositions::new(&self.aws, &table, Clock::system());
        let roots: Vec<_> = (0..ROOTS).map(|number| root(&format!("r{number}"))).collect();
        let loaded = positions.load(&HandlerName::new("copy").unwrap(), &roots).await.unwrap();
        let durable: BTreeMap<String, u64> = roots
            .iter()
            .zip(loaded)
            .filter_map(|(root, standing)| standing.position.map(|Sequence(at)| (root.key().to_owned(), at)))
            .collect();
        output.read_to_end(&self.aws).await;
        (output.seen(), durable)
    }

    async fn strike(&mut self, blow: Blow, chance: &Random) {
        let pick = usize::try_from(chance.below(self.replicas.len() as u64)).unwrap();
        match blow {
            Blow::Start => self.start().await,
            Blow::Kill => {
                self.replicas.remove(pick).1.kill();
            }
            Blow::Terminate => {
                let (_, mut relay) = self.replicas.remove(pick);
                assert!(relay.terminate().await.success(), "{}", relay.output());
            }
            Blow::HoldStill => {
                self.replicas[pick].1.freeze();
                sleep(HELD_STILL).await;
                self.replicas[pick].1.thaw();
            }
        }
        while self.replicas.len() < *REPLICAS.start() {
            self.start().await;
        }
    }
}

fn any_blow(chance: &Random, replicas: usize) -> Blow {
    let blows = [Blow::Kill, Blow::Terminate, Blow::HoldStill, Blow::Start];
    let may_start = u64::from(replicas < *REPLICAS.end());
    blows[usize::try_from(chance.below(3 + may_start)).unwrap()]
}

fn number_of(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_that_is_struck_twenty_times_loses_nothing_and_repeats_little() {
    let mut fleet = Fleet::build().await;
    let seed = number_of("ANGZARR_CHAOS_SEED").unwrap_or_else(|| Random::from_entropy().below(1 << 32));
    let blows = number_of("ANGZARR_CHAOS_BLOWS").unwrap_or(BLOWS);
    eprintln!("ANGZARR_CHAOS_SEED={seed}");
    let chance = Random::seeded(seed);
    let mut writer = Writer::new(&fleet.aws);
    let mut output = Output::open(&fleet.aws).await;
    for _ in 0..*REPLICAS.start() {
        fleet.start().await;
    }
    let (mut kills, mut struck) = (Vec::new(), BTreeMap::new());
    for turn in 0..blows {
        writer.append_to(0..ROOTS, 1).await;
        let blow = any_blow(&chance, fleet.replicas.len());
        eprintln!("{turn}: {blow:?} among {}", fleet.replicas.len());
        *struck.entry(format!("{blow:?}")).or_insert(0) += 1;
        if matches!(blow, Blow::Kill | Blow::HoldStill) {
            kills.push(fleet.struck(&mut output).await);
        }
        tokio::join!(writer.append_to(0..ROOTS, 2), fleet.strike(blow, &chance));
        // At times the next one comes while this one is still being made good.
        sleep(Duration::from_millis(chance.below(4_000))).await;
    }
    writer.append_to(0..ROOTS, 1).await;
    let each = blows * 3 + 1;
    output.until_complete(&fleet.aws, usize::try_from(ROOTS).unwrap(), |_| each).await;
    until("the audit is clean", async || {
        let (clean, _, _) = fleet.replicas[0].0.command(&["audit", "--late-after", "0s"]);
        clean.then_some(())
    })
    .await;
    for (_, relay) in &mut fleet.replicas {
        assert!(relay.terminate().await.success(), "{}", relay.output());
    }
    output.read_to_end(&fleet.aws).await;
    let repeats = output.assert_first_in_order(ROOTS, |_| each, &kills);
    eprintln!("{repeats} of {} events came again after {struck:?} (seed {seed})", each * ROOTS);
}
