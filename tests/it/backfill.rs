//! Handlers built from the table, and what a stream lost found there: the relay's own binary on real components.

use std::collections::BTreeMap;
use std::ops::Range;

use angzarr_relay::aws::AwsClients;
use angzarr_relay::backfill::{JobStore as _, Segment};
use angzarr_relay::fleet::{FleetStore as _, Lease, LeaseKind, MemberId, Taken};
use angzarr_relay::handler::HandlerName;
use angzarr_relay::local::EmbeddedDynamo;
use angzarr_relay::relay_table::{Checkpoint, RelayTable};
use angzarr_relay::stream::{Branch, ShardId};
use angzarr_relay::time::Clock;
use aws_sdk_dynamodb::types::{StreamSpecification, StreamViewType};
use serde_json::Value;

use crate::embedded::clients;
use crate::relaying::{House, Output};
use crate::support::{DynamoDbLocal, KinesisProcess, RelayHome, Writer, fill, until};

/// One of the four segments of the table has so many rows, about.
const SEGMENT_ROWS: u64 = 25_000;

/// A life of the relay is killed when it has covered so many more of the table's 100,000 rows.
const KILLED_AFTER_ROWS: u64 = 10_000;

/// What a relay reads ahead must be a small part of the table: else all of it may be covered in one leap, after the first
/// events were given one by one.
const MEMORY_LIMIT: &str = "[relay]\nmemory_limit = \"32MiB\"";

/// Roots of the table, and the events each has before the relay does its job; the first of them get one more meanwhile.
const ROOTS: u64 = 20_000;
const BEFORE: u64 = 5;
const WRITTEN_TO: u64 = 1_000;

/// A root has so many events in the end.
fn each(root: u64) -> u64 {
    BEFORE + u64::from(root < WRITTEN_TO)
}

/// A table of a hundred thousand events and the relay's handler `copy`.
struct Large {
    _dynamodb: DynamoDbLocal,
    _kinesis: KinesisProcess,
    house: House,
}

impl Large {
    async fn build(prefix: &str) -> Self {
        let dynamodb = DynamoDbLocal::start_alone().await;
        let kinesis = KinesisProcess::start().await;
        let house = House::build(&dynamodb.endpoint, &kinesis.endpoint, prefix, 2).await;
        let settings = std::fs::read_to_string(&house.config).unwrap().replace("[relay]", MEMORY_LIMIT);
        std::fs::write(&house.config, settings).unwrap();
        Self { _dynamodb: dynamodb, _kinesis: kinesis, house }
    }

    fn copy() -> HandlerName {
        HandlerName::new("copy").unwrap()
    }

    /// Puts these events of these roots.
    async fn fill(&self, roots: Range<u64>, events: Range<u64>) {
        let rows: Vec<_> =
            roots.flat_map(|root| events.clone().map(move |event| (format!("r{root}"), event))).collect();
        fill(&self.house.aws, &self.house.names.events, &rows).await;
    }

    /// The relay has followed the stream, delivered an event of some roots, and was stopped as it should be.
    async fn follows_the_stream(&self) {
        let mut relay = self.house.start_relay().await;
        self.fill(0..FOLLOWED, 0..1).await;
        let mut output = Output::open(&self.house.aws).await;
        output.until(&self.house.aws, usize::try_from(FOLLOWED).unwrap()).await;
        until("it has a checkpoint", async || (!self.stream_checkpoints().await.is_empty()).then_some(())).await;
        assert!(relay.terminate().await.success(), "{}", relay.output());
    }

    /// Where it stands on the shards of the stream.
    async fn stream_checkpoints(&self) -> BTreeMap<ShardId, Checkpoint> {
        let table = RelayTable::new(&self.house.aws, &self.house.names.relay, Clock::system());
        let mut checkpoints = table.checkpoints(&Self::copy()).await.unwrap();
        checkpoints.retain(|shard, _| Segment::of_shard(shard).is_none());
        checkpoints
    }

    /// Rows of the table up to the checkpoints of the job's segments.
    async fn covered_rows(&self) -> u64 {
        let table = RelayTable::new(&self.house.aws, &self.house.names.relay, Clock::system());
        let Some(job) = table.job(&Self::copy()).await.unwrap().filter(|job| job.finished_at.is_none()) else {
            return 0;
        };
        let checkpoints = table.checkpoints(&Self::copy()).await.unwrap();
        let segments = Segment::all(&Self::copy(), &job).into_iter().map(|segment| segment.shard());
        let rows = segments.filter_map(|segment| checkpoints.get(&segment)).map(|checkpoint| match checkpoint {
            Checkpoint::At(place) => place.row().unwrap().0,
            Checkpoint::Finished => SEGMENT_ROWS,
        });
        rows.sum()
    }

    fn status(&self) -> Value {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_angzarr-relay"));
        let config = command.arg("--config").arg(&self.house.config);
        let output = config.args(["backfill", "status", "--json"]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Lets the relay do a job while more is written. It is killed twice in the middle, goes on where it was, and all comes
    /// out in order.
    async fn does_its_job(&self, kind: &str) {
        let aws = &self.house.aws;
        let mut output = Output::open(aws).await;
        let mut relay = self.house.spawn_relay();
        let mut writing = self.house.write_from(BEFORE, WRITTEN_TO, BEFORE + 1);
        let (mut kills, mut covered) = (Vec::new(), 0);
        if kind == "reconcile" {
            until("it says that it searches the table", async || {
                let (code, text) = relay.health("/readyz").await?;
                (code == 503 && text.contains("reconcile of copy: the table is searched: ")).then_some(())
            })
            .await;
        }
        for _ in 0..2 {
            let enough = covered + KILLED_AFTER_ROWS;
            until("so much is covered durably", async || (self.covered_rows().await >= enough).then_some(())).await;
            relay.kill();
            covered = self.covered_rows().await;
            let shown = self.status();
            assert_eq!((shown["kind"].as_str(), shown["state"].as_str()), (Some(kind), Some("running")), "{shown}");
            for figure in ["rows", "roots", "rows_in_table", "rows_per_sec", "left_secs", "read_units"] {
                assert!(shown[figure].as_f64().is_some_and(|figure| figure > 0.0), "{figure}: {shown}");
            }
            kills.push(self.house.killed(ROOTS).await);
            relay = self.house.spawn_relay();
        }
        while let Some(done) = writing.join_next().await {
            done.unwrap();
        }
        output.until_complete(aws, usize::try_from(ROOTS).unwrap(), each).await;
        until("the job is done", async || (self.status()["state"] == "done").then_some(())).await;
        let scanned = relay.metric(r#"angzarr_relay_rows_scanned_total{kind="event"}"#).await;
        // What was written meanwhile is scanned too; and segments are not quite equal, where one is finished.
        let left = f64::from(u32::try_from(ROOTS * BEFORE + WRITTEN_TO - covered).unwrap() + 5_000);
        assert!(scanned.is_some_and(|rows| rows <= left), "the last life began anew: {scanned:?} of {left}");
        until("it is ready", async || relay.health("/readyz").await.filter(|(code, _)| *code == 200)).await;
        assert!(relay.terminate().await.success(), "{}", relay.output());
        let log = relay.output();
        assert!(log.contains("[####################] 100 %") && log.contains("capacity_units="), "{log}");
        let shown = self.status();
        assert!(shown["rows"].as_u64().is_some_and(|rows| rows >= 100_000), "{shown}");
        // A record may become visible behind one that was read already: the verdict reads all of it once more.
        let mut output = Output::open(aws).await;
        output.read_to_end(aws).await;
        // How many were repeated is the emulator's: what was accepted and not durable, however long its writes took.
        output.assert_first_in_order(ROOTS, each, &kills);
    }
}

/// Roots of which the relay has delivered an event by the stream before all else.
const FOLLOWED: u64 = 100;

async fn enable_stream(aws: &AwsClients, table: &str, enabled: bool) {
    let mut stream = StreamSpecification::builder().stream_enabled(enabled);
    if enabled {
        stream = stream.stream_view_type(StreamViewType::NewImage);
    }
    let update = aws.dynamodb.update_table().table_name(table);
    update.stream_specification(stream.build().unwrap()).send().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_events_from_before_the_handler_come_out_though_it_is_killed_twice() {
    let large = Large::build("backfill").await;
    large.fill(0..ROOTS, 0..BEFORE).await;
    large.does_its_job("backfill").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_events_behind_a_trimmed_checkpoint_come_out_though_it_is_killed_twice() {
    let large = Large::build("trimmed").await;
    large.follows_the_stream().await;
    large.fill(0..FOLLOWED, 1..BEFORE).await;
    large.fill(FOLLOWED..ROOTS, 0..BEFORE).await;
    // The shard it was reading is trimmed, as after a day.
    let table = RelayTable::new(&large.house.aws, &large.house.names.relay, Clock::system());
    let of_shards = |lease: &Lease| lease.kind == LeaseKind::Shard;
    let read: Vec<Lease> = table.leases(&Large::copy()).await.unwrap().into_iter().filter(of_shards).collect();
    let checkpoints = large.stream_checkpoints().await;
    for lease in read {
        assert!(table.forget(&lease).await.unwrap());
        let shard = ShardId::new("shardId-00000001600000000000-0a1b2c3d");
        let gone = Lease::new(Large::copy(), shard.clone(), LeaseKind::Shard, Branch::of(&shard), None);
        table.add(std::slice::from_ref(&gone)).await.unwrap();
        let owner = MemberId::new("test~1");
        let held = gone.taken(&owner);
        assert!(table.change(&gone, &held).await.unwrap().is_some());
        let taken = Taken { owner, epoch: held.epoch };
        assert!(table.checkpoint(&gone.key(), &taken, &checkpoints[&lease.shard]).await.unwrap());
        assert!(table.change(&held, &held.released(true)).await.unwrap().is_some());
    }
    large.does_its_job("reconcile").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_events_from_while_the_stream_was_off_come_out_though_it_is_killed_twice() {
    let large = Large::build("off").await;
    large.follows_the_stream().await;
    enable_stream(&large.house.aws, &large.house.names.events, false).await;
    large.fill(0..FOLLOWED, 1..BEFORE).await;
    large.fill(FOLLOWED..ROOTS, 0..BEFORE).await;
    enable_stream(&large.house.aws, &large.house.names.events, true).await;
    large.does_its_job("reconcile").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_while_the_table_had_no_stream_is_found_in_the_table() {
    let dynamodb = DynamoDbLocal::start().await;
    let aws = clients(Some(&dynamodb.endpoint), None).await;
    let names = crate::embedded::tables(&aws, RelayHome::PREFIX).await;
    let home = RelayHome::new();
    let audit = r#"
        [relay]
        poll_interval_max = "250ms"
        reconcile_interval = "500ms"
        [[handlers]]
        name = "audit"
        subscribe = [{ domain = "*" }]
        jsonl = { path = "HOME/audit.jsonl" }
    "#;
    home.configure(&dynamodb.endpoint, audit);
    let mut writer = Writer::new(&aws);
    let mut relay = home.start().await;
    let enable = async |enabled| enable_stream(&aws, &names.events, enabled).await;
    for round in 1..=2 {
        writer.append_to(0..20, 2).await;
        until("what the stream brought is in the file", async || {
            (home.sequences("audit.jsonl") == *writer.written()).then_some(())
        })
        .await;
        enable(false).await;
        until("the relay says that there is no stream", async || {
            let (code, text) = relay.health("/readyz").await?;
            (code == 503 && text.contains("no stream")).then_some(())
        })
        .await;
        writer.append_to(10..30, 2).await;
        enable(true).await;
        until("all that was written is in the file", async || {
            (home.sequences("audit.jsonl") == *writer.written()).then_some(())
        })
        .await;
        until("the relay is ready", async || relay.health("/readyz").await.filter(|(code, _)| *code == 200)).await;
        let begun = relay.metric(r#"angzarr_relay_jobs_begun_total{handler="audit",kind="reconcile"}"#).await;
        assert_eq!(begun, Some(f64::from(round)));
    }
    assert!(relay.terminate().await.success(), "{}", relay.output());
    assert_eq!(home.sequences("audit.jsonl"), *writer.written(), "each once");

    // The same while nobody watches.
    enable(false).await;
    writer.append_to(0..30, 1).await;
    enable(true).await;
    let mut relay = home.start().await;
    until("all of it is in the file", async || (home.sequences("audit.jsonl") == *writer.written()).then_some(()))
        .await;
    assert!(relay.terminate().await.success(), "{}", relay.output());
}

/// Copies every row of a table from one DynamoDB to another.
async fn copy_rows(from: &AwsClients, to: &AwsClients, table: &str) {
    let mut start = None;
    loop {
        let scan = from.dynamodb.scan().table_name(table).consistent_read(true).set_exclusive_start_key(start);
        let answer = scan.send().await.unwrap();
        for item in answer.items.unwrap_or_default() {
            to.dynamodb.put_item().table_name(table).set_item(Some(item)).send().await.unwrap();
        }
        start = answer.last_evaluated_key.filter(|key| !key.is_empty());
        if start.is_none() {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn positions_carry_over_to_another_regions_replica_of_the_table() {
    let here = EmbeddedDynamo::start(None).unwrap();
    let there = EmbeddedDynamo::start(None).unwrap();
    let (home_aws, replica_aws) =
        (clients(Some(here.endpoint()), None).await, clients(Some(there.endpoint()), None).await);
    let names = crate::embedded::tables(&home_aws, RelayHome::PREFIX).await;
    crate::embedded::tables(&replica_aws, RelayHome::PREFIX).await;
    let home = RelayHome::new();
    let audit = r#"
        [relay]
        poll_interval_max = "250ms"
        [[handlers]]
        name = "audit"
        subscribe = [{ domain = "*" }]
        jsonl = { path = "HOME/audit.jsonl" }
    "#;
    home.configure(here.endpoint(), audit);
    let mut writer = Writer::new(&home_aws);
    let mut relay = home.start().await;
    writer.append_to(0..20, 3).await;
    until("all is in the file", async || (home.sequences("audit.jsonl") == *writer.written()).then_some(())).await;
    assert!(relay.terminate().await.success(), "{}", relay.output());

    // Written after the relay here has stopped, and replicated with all the rest; the stream there is another one.
    writer.append_to(10..30, 2).await;
    for table in [&names.events, &names.positions, &names.relay] {
        copy_rows(&home_aws, &replica_aws, table).await;
    }
    // Told to fail, it says what is lost and what finds it, and notes that for whoever starts it next.
    home.configure(there.endpoint(), &audit.replace("[relay]", "[relay]\non_trim = \"fail\""));
    let mut refused = home.spawn();
    assert_eq!(refused.exit().await.code(), Some(1));
    let said = refused.output();
    assert!(said.contains("handler `audit`: the table has another stream now"), "{said}");
    assert!(said.contains("with relay.on_trim = \"reconcile\" the relay finds it and goes on"), "{said}");
    home.configure(there.endpoint(), audit);
    let mut relay = home.start().await;
    let mut writer = writer.moved_to(&replica_aws);
    writer.append_to(0..30, 1).await;
    until("all is in the file", async || (home.sequences("audit.jsonl") == *writer.written()).then_some(())).await;
    until("it has looked into the table", async || {
        let (_, status, _) = home.command(&["backfill", "status", "--json"]);
        (status.contains(r#""kind":"reconcile""#) && status.contains(r#""state":"done""#)).then_some(())
    })
    .await;
    until("it is ready", async || relay.health("/readyz").await.filter(|(status, _)| *status == 200)).await;
    assert!(relay.terminate().await.success(), "{}", relay.output());
    assert_eq!(home.sequences("audit.jsonl"), *writer.written(), "each once: positions are sequences of roots");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_taken_out_of_the_configuration_catches_up_when_it_comes_back_and_a_renamed_one_is_new() {
    let dynamo = EmbeddedDynamo::start(None).unwrap();
    let aws = clients(Some(dynamo.endpoint()), None).await;
    crate::embedded::tables(&aws, RelayHome::PREFIX).await;
    let home = RelayHome::new();
    let handlers = |names: &[&str]| {
        let handler = |name: &&str| {
            format!(
                "[[handlers]]\nname = \"{name}\"\nsubscribe = [{{ domain = \"*\" }}]\njsonl = {{ path = \"HOME/{name}\" }}\n"
            )
        };
        let all: String = names.iter().map(handler).collect();
        home.configure(dynamo.endpoint(), &format!("[relay]\npoll_interval_max = \"250ms\"\n{all}"));
    };
    let mut writer = Writer::new(&aws);
    for names in [&["stays", "goes"][..], &["stays"], &["stays", "goes", "renamed"]] {
        handlers(names);
        let mut relay = home.start().await;
        writer.append_to(0..20, 3).await;
        for name in names {
            until("all is in the file", async || (home.sequences(name) == *writer.written()).then_some(())).await;
        }
        assert!(relay.terminate().await.success(), "{}", relay.output());
        for name in names {
            assert_eq!(home.sequences(name), *writer.written(), "{name}: each once");
        }
    }
}
