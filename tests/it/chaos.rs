//! Twenty blows in a row at a fleet of real processes, on DynamoDB Local behind eight shards and a ferrokinesis of its own,
//! while events are written. Replicas are killed, stopped, held still for longer than a lease, and started; the network of
//! one or of all of them fails in each way there is; the disk of the one that writes lines becomes full.
//!
//! The verdict is given by another program, `tests/verdict`, which reads tables, Kinesis and file when all have stopped; it is
//! told what was durable whenever something was struck, so that it knows what may have come again. The relay's own audit is
//! clean, too. Every kind of blow comes once before any comes twice. `ANGZARR_CHAOS_SEED` repeats the blows of an earlier
//! run, not its timing; `ANGZARR_CHAOS_BLOWS` strikes more often, and with fewer than there are kinds not every kind comes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use angzarr_relay::aws::AwsClients;
use angzarr_relay::event::Sequence;
use angzarr_relay::handler::HandlerName;
use angzarr_relay::local::{EmbeddedStreams, StreamsOptions};
use angzarr_relay::storage::{DynamoPositions, PositionStore as _, TableNames};
use angzarr_relay::time::{Clock, Random};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::embedded::{clients, root, sharded_tables};
use crate::relaying::{Output, STREAM};
use crate::support::{DynamoDbLocal, Fault, FaultyWay, KinesisProcess, RelayHome, RelayProcess, Writer, until};
use crate::verdict::judged;

const SHARDS: u32 = 8;
const ROOTS: u64 = 60;
const BLOWS: u64 = 20;

/// Replicas there are at the least and at the most.
const REPLICAS: std::ops::RangeInclusive<usize> = 3..=5;

/// Longer than the leases of the replicas under test.
const HELD_STILL: Duration = Duration::from_secs(5);

/// So long that there mostly is something that a blow can make come again.
const FLUSH_INTERVAL: &str = "3s";

/// How long a disk is full after that was noticed, at the most.
const FULL_MAX: Duration = Duration::from_secs(3);

/// How long a network fails: about as long as a lease, and on from there.
const NETWORK_MIN: Duration = Duration::from_secs(2);
const NETWORK_MORE: Duration = Duration::from_secs(3);

/// What the disk still takes when it becomes full: less than an event, or a few.
const ROOM_BYTES: u64 = 4000;

/// How many in a hundred blows to the network meet all replicas.
const ALL_PERCENT: u64 = 40;

/// So long without an event, with everything mended, is far above every time-out and every wait of a relay.
const QUIET_MAX: Duration = Duration::from_mins(2);

/// Between two looks at what has come.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The file of the handler `lines`.
const LINES: &str = "lines.jsonl";

/// What is done to the fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Blow {
    Kill,
    Terminate,
    HoldStill,
    Start,
    FullDisk,
    Network(Fault),
}

const KINDS: [Blow; 10] = [
    Blow::Kill,
    Blow::Terminate,
    Blow::HoldStill,
    Blow::Start,
    Blow::FullDisk,
    Blow::Network(Fault::Latency),
    Blow::Network(Fault::Resets),
    Blow::Network(Fault::LostReplies),
    Blow::Network(Fault::HalfOpen),
    Blow::Network(Fault::Narrow),
];

impl Blow {
    /// Whether it may make a relay repeat what it has not written as a position.
    fn may_repeat(self) -> bool {
        matches!(self, Self::Kill | Self::HoldStill | Self::Network(_))
    }
}

/// One process, and its ways to DynamoDB, to the streams and to Kinesis.
struct Replica {
    relay: RelayProcess,
    /// None: the keeper, whose folder outlives it.
    home: Option<RelayHome>,
    ways: [Arc<FaultyWay>; 3],
    /// Its network has failed: what it says to its end is not asked.
    was_cut_off: bool,
}

impl Replica {
    fn is_keeper(&self) -> bool {
        self.home.is_none()
    }
}

/// The replicas, and where they work.
struct Fleet {
    dynamodb: DynamoDbLocal,
    streams: EmbeddedStreams,
    kinesis: KinesisProcess,
    aws: AwsClients,
    replicas: Vec<Replica>,
    /// The folder of the one replica at a time that runs the handler `lines`, too.
    keeper: RelayHome,
    /// What is drawn for connections.
    weather: Random,
    /// Brings the network back, and says how much the fault has met.
    healing: Option<JoinHandle<(Fault, usize)>>,
    /// What each fault has met.
    met: BTreeMap<Fault, usize>,
    /// What stood how whenever something was struck, for the verdict.
    strikes: Vec<Value>,
}

impl Fleet {
    async fn build(weather: Random) -> Self {
        let dynamodb = DynamoDbLocal::start().await;
        let kinesis = KinesisProcess::start().await;
        let options = StreamsOptions { shards: SHARDS, ..StreamsOptions::default() };
        let (streams, _, _) = sharded_tables(&dynamodb.endpoint, RelayHome::PREFIX, options).await;
        let aws = clients(Some(&dynamodb.endpoint), Some(&kinesis.endpoint)).await;
        aws.kinesis.create_stream().stream_name(STREAM).shard_count(2).send().await.unwrap();
        let (keeper, met) = (RelayHome::new(), BTreeMap::new());
        let (replicas, strikes) = (Vec::new(), Vec::new());
        Self { dynamodb, streams, kinesis, aws, replicas, keeper, weather, healing: None, met, strikes }
    }

    /// Starts one more: the keeper, when there is none.
    async fn start(&mut self) {
        let way = async |endpoint: &str| Arc::new(FaultyWay::to(endpoint, self.weather.clone()).await);
        let ways =
            [way(&self.dynamodb.endpoint).await, way(self.streams.endpoint()).await, way(&self.kinesis.endpoint).await];
        let home = self.keeper_at().map(|_| RelayHome::new());
        let mut config = format!(
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
            flush_interval = "{FLUSH_INTERVAL}"
            kinesis = {{ stream = "{STREAM}" }}
            "#,
            ways[2].endpoint
        );
        if home.is_none() {
            let lines = format!(
                r#"
                [[handlers]]
                name = "lines"
                subscribe = [{{ domain = "*" }}]
                start = "beginning"
                flush_interval = "{FLUSH_INTERVAL}"
                jsonl = {{ path = "HOME/{LINES}" }}
                "#
            );
            config.push_str(&lines);
        }
        let place = home.as_ref().unwrap_or(&self.keeper);
        place.configure_with_streams(&ways[0].endpoint, &ways[1].endpoint, &config);
        let relay = place.start().await;
        self.replicas.push(Replica { relay, home, ways, was_cut_off: false });
    }

    fn keeper_at(&self) -> Option<usize> {
        self.replicas.iter().position(Replica::is_keeper)
    }

    /// Notes what is durable, and then what has come out: what comes later again must be above the former.
    async fn note(&mut self, what: String, output: &mut Output) {
        let durable = [self.durable("copy").await, self.durable("lines").await];
        output.read_to_end(&self.aws).await;
        let mut arrived = [output.seen(), BTreeMap::new()];
        for (id, sequences) in self.keeper.sequences(LINES) {
            arrived[1].insert(root(&id).key().to_owned(), sequences.len());
        }
        let standings = |at: usize| -> Value {
            let roots = (0..ROOTS).map(|number| root(&format!("r{number}")).key().to_owned());
            let standing = |root: &str| json!({ "arrived": arrived[at].get(root).copied().unwrap_or(0), "durable": durable[at].get(root) });
            roots.map(|root| (root.clone(), standing(&root))).collect::<serde_json::Map<_, _>>().into()
        };
        self.strikes.push(json!({ "what": what, "handlers": { "copy": standings(0), "lines": standings(1) } }));
    }

    async fn durable(&self, handler: &str) -> BTreeMap<String, u64> {
        let table = TableNames::from_prefix(RelayHome::PREFIX).positions;
        let positions = DynamoPositions::new(&self.aws, &table, Clock::system());
        let roots: Vec<_> = (0..ROOTS).map(|number| root(&format!("r{number}"))).collect();
        let loaded = positions.load(&HandlerName::new(handler).unwrap(), &roots).await.unwrap();
        let known = roots.iter().zip(loaded);
        known.filter_map(|(root, at)| at.position.map(|Sequence(at)| (root.key().to_owned(), at))).collect()
    }

    async fn strike(&mut self, blow: Blow, chance: &Random) {
        let pick = usize::try_from(chance.below(self.replicas.len() as u64)).unwrap();
        match blow {
            Blow::Start => {
                // A full fleet is rolled on.
                if self.replicas.len() == *REPLICAS.end() {
                    self.terminate(pick).await;
                }
                self.start().await;
            }
            Blow::Kill => {
                self.replicas.remove(pick).relay.kill();
            }
            Blow::Terminate => self.terminate(pick).await,
            Blow::HoldStill => {
                self.replicas[pick].relay.freeze();
                sleep(HELD_STILL).await;
                self.replicas[pick].relay.thaw();
            }
            Blow::FullDisk => self.fill_disk(chance).await,
            Blow::Network(fault) => {
                let met = if chance.percent(ALL_PERCENT) { 0..self.replicas.len() } else { pick..pick + 1 };
                self.cut_off(fault, NETWORK_MIN + chance.up_to(NETWORK_MORE), met);
            }
        }
        while self.replicas.len() < *REPLICAS.start() {
            self.start().await;
        }
    }

    /// Stops one; without a network it can but end in time.
    async fn terminate(&mut self, at: usize) {
        let mut replica = self.replicas.remove(at);
        let ended = replica.relay.terminate().await;
        assert!(replica.was_cut_off || ended.success(), "{}", replica.relay.output());
    }

    /// Lets the file of lines grow by a little only, until that is noticed, and for a while more.
    async fn fill_disk(&mut self, chance: &Random) {
        if self.keeper_at().is_none() {
            self.start().await;
        }
        let relay = &self.replicas[self.keeper_at().unwrap()].relay;
        let length = std::fs::metadata(self.keeper.path(LINES)).map_or(0, |file| file.len());
        relay.limit_files(Some(length + chance.below(ROOM_BYTES)));
        let up = r#"angzarr_relay_handler_up_ratio{handler="lines"}"#;
        until("a full disk is noticed", async || (relay.metric(up).await == Some(0.0)).then_some(())).await;
        sleep(chance.up_to(FULL_MAX)).await;
        relay.limit_files(None);
    }

    /// Takes some replicas' network into a state, and brings it back later, whatever is struck meanwhile.
    fn cut_off(&mut self, fault: Fault, lasts: Duration, met: std::ops::Range<usize>) {
        let mut ways = Vec::new();
        for replica in &mut self.replicas[met] {
            replica.was_cut_off = true;
            ways.extend(replica.ways.clone());
        }
        let met = |ways: &[Arc<FaultyWay>]| ways.iter().map(|way| way.met()).sum::<usize>();
        self.healing = Some(tokio::spawn(async move {
            let before = met(&ways);
            for way in &ways {
                way.set(Some(fault));
            }
            sleep(lasts).await;
            for way in &ways {
                way.set(None);
            }
            (fault, met(&ways) - before)
        }));
    }

    /// Waits until no network fails.
    async fn heal(&mut self) {
        if let Some(healing) = self.healing.take() {
            let (fault, met) = healing.await.unwrap();
            *self.met.entry(fault).or_default() += met;
        }
    }

    /// Waits until everything has come out and the audit is clean, and stops all with the last events just given. What does
    /// not come is for the verdict to name.
    async fn finish(&mut self, writer: &mut Writer, payloads: &Random, output: &mut Output) {
        self.heal().await;
        if self.keeper_at().is_none() {
            self.start().await;
        }
        if self.all_came(writer, output).await {
            until("the audit is clean", async || self.is_audit_clean().then_some(())).await;
            append(writer, 1, payloads).await;
            self.all_came(writer, output).await;
        }
        for replica in &mut self.replicas {
            assert!(replica.relay.terminate().await.success(), "{}", replica.relay.output());
        }
    }

    /// Waits until everything has come out; false when for long nothing has, and something is missing.
    async fn all_came(&self, writer: &Writer, output: &mut Output) -> bool {
        let each = |number: u64| writer.written()[&format!("r{number}")].len() as u64;
        let (mut came, mut since) = (0, Instant::now());
        while since.elapsed() < QUIET_MAX {
            output.read_on(&self.aws).await;
            let lines = self.keeper.sequences(LINES);
            let has_come =
                |(id, all): (&String, &Vec<u64>)| lines.get(id).is_some_and(|came| came.contains(&all[all.len() - 1]));
            if output.is_complete(usize::try_from(ROOTS).unwrap(), each) && writer.written().iter().all(has_come) {
                return true;
            }
            let now = output.seen().into_values().sum::<usize>() + lines.values().map(Vec::len).sum::<usize>();
            if now != came {
                (came, since) = (now, Instant::now());
            }
            sleep(LOOK_EVERY).await;
        }
        false
    }

    /// What the relay's own command says.
    fn is_audit_clean(&self) -> bool {
        self.keeper.command(&["audit", "--late-after", "0s"]).0
    }

    /// What the other program says.
    fn verdict(&self) -> (Option<i32>, String) {
        let strikes = self.keeper.path("strikes.json");
        std::fs::write(&strikes, Value::from(self.strikes.clone()).to_string()).unwrap();
        judged(&[
            "--dynamodb",
            &self.dynamodb.endpoint,
            "--kinesis",
            &self.kinesis.endpoint,
            "--prefix",
            RelayHome::PREFIX,
            "--output",
            &format!("copy=kinesis:{STREAM}"),
            "--output",
            &format!("lines=jsonl:{}", self.keeper.path(LINES).display()),
            "--strikes",
            strikes.to_str().unwrap(),
        ])
    }
}

/// Draws without putting back, so that each kind comes before any comes again.
fn draw(deck: &mut Vec<Blow>, chance: &Random) -> Blow {
    if deck.is_empty() {
        deck.extend(KINDS);
    }
    deck.swap_remove(usize::try_from(chance.below(deck.len() as u64)).unwrap())
}

fn number_of(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap())
}

/// Appends `each` events to every root, of sizes that matter to a narrow network.
async fn append(writer: &mut Writer, each: u64, chance: &Random) {
    for number in (0..each).flat_map(|_| 0..ROOTS) {
        let payload = chance.token().repeat(usize::try_from(1 + chance.below(30)).unwrap());
        writer.append_payload(number, payload.as_bytes()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_that_is_struck_twenty_times_loses_nothing_and_repeats_little() {
    let seed = number_of("ANGZARR_CHAOS_SEED").unwrap_or_else(|| Random::from_entropy().below(1 << 32));
    let blows = number_of("ANGZARR_CHAOS_BLOWS").unwrap_or(BLOWS);
    eprintln!("ANGZARR_CHAOS_SEED={seed}");
    // One for each that draws, so that none changes what another draws.
    let [chance, payloads, weather] = [0, 1, 2].map(|which| Random::seeded(seed.wrapping_mul(3) + which));
    let mut fleet = Fleet::build(weather).await;
    let mut writer = Writer::new(&fleet.aws);
    let mut output = Output::open(&fleet.aws).await;
    for _ in 0..*REPLICAS.start() {
        fleet.start().await;
    }
    let (mut deck, mut struck) = (Vec::new(), BTreeMap::new());
    for turn in 0..blows {
        append(&mut writer, 1, &payloads).await;
        let blow = draw(&mut deck, &chance);
        if matches!(blow, Blow::Network(_)) {
            fleet.heal().await;
        }
        eprintln!("{turn}: {blow:?} among {}", fleet.replicas.len());
        *struck.entry(blow).or_insert(0) += 1;
        if blow.may_repeat() {
            fleet.note(format!("{blow:?} ({turn})"), &mut output).await;
        }
        tokio::join!(append(&mut writer, 2, &payloads), fleet.strike(blow, &chance));
        // At times the next one comes while this one is still being made good.
        sleep(Duration::from_millis(chance.below(3_000))).await;
    }
    append(&mut writer, 1, &payloads).await;
    fleet.finish(&mut writer, &payloads, &mut output).await;
    let (code, said) = fleet.verdict();
    eprintln!("{said}");
    eprintln!("struck {struck:?}, the network met {:?} (seed {seed})", fleet.met);
    assert_eq!(code, Some(0), "seed {seed}: {said}");
    assert!(fleet.is_audit_clean(), "the relay's own audit finds something (seed {seed})");
    if blows >= KINDS.len() as u64 {
        assert_eq!(struck.len(), KINDS.len(), "every kind of blow came");
        assert!(fleet.met.len() == 5 && fleet.met.values().all(|met| *met > 0), "every fault met something");
    }
}
