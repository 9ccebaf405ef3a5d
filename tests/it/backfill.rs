//! Handlers built from the table, and what a stream lost found there: the relay's own binary on real components.

use angzarr_relay::aws::AwsClients;
use angzarr_relay::handler::HandlerName;
use angzarr_relay::local::{EmbeddedDynamo, EmbeddedKinesis, KinesisOptions};
use angzarr_relay::relay_table::{Checkpoint, CheckpointStore as _, RelayTable};
use angzarr_relay::time::Clock;
use aws_sdk_dynamodb::types::{StreamSpecification, StreamViewType};
use serde_json::Value;

use crate::embedded::clients;
use crate::relaying::{House, Output};
use crate::support::{DynamoDbLocal, RelayHome, Writer, fill, until};

/// Rows of the table up to the checkpoints of its segments.
async fn covered_rows(house: &House) -> u64 {
    let table = RelayTable::new(&house.aws, &house.names.relay, Clock::system());
    let checkpoints = table.load(&HandlerName::new("copy").unwrap()).await.unwrap();
    let rows = checkpoints.values().map(|checkpoint| match checkpoint {
        Checkpoint::At(place) => place.row().unwrap().0,
        Checkpoint::Finished => SEGMENT_ROWS,
    });
    rows.sum()
}

/// Rows of one of the four segments, about.
const SEGMENT_ROWS: u64 = 25_000;

/// A life of the relay is killed when it has covered so many more of the table's 100,000 rows. However slowly positions
/// are written, at most 1,500 roots wait for them (`flush_roots`, and what one page may add): coverage comes in steps of
/// less than this.
const KILLED_AFTER_ROWS: u64 = 10_000;

fn status(home: &std::path::Path) -> Value {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_angzarr-relay"));
    let output = command.arg("--config").arg(home).args(["backfill", "status", "--json"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_events_from_before_the_handler_come_out_though_it_is_killed_twice() {
    // Some roots get one more event while the handler is built.
    let (roots, before, written_to) = (20_000, 5, 1_000);
    let each = |root: u64| before + u64::from(root < written_to);
    let dynamodb = DynamoDbLocal::start_alone().await;
    let kinesis = EmbeddedKinesis::start(&KinesisOptions::default()).unwrap();
    let house = House::build(&dynamodb.endpoint, kinesis.endpoint(), "backfill", 2).await;
    let rows: Vec<_> = (0..roots).flat_map(|root| (0..before).map(move |event| (format!("r{root}"), event))).collect();
    fill(&house.aws, &house.names.events, &rows).await;
    let mut output = Output::open(&house.aws).await;
    let mut relay = house.start_relay().await;
    let mut writing = house.write_from(before, written_to, before + 1);
    let mut kills = Vec::new();
    let mut covered = 0;
    for _ in 0..2 {
        let enough = covered + KILLED_AFTER_ROWS;
        until("so much is covered durably", async || (covered_rows(&house).await >= enough).then_some(())).await;
        relay.kill();
        covered = covered_rows(&house).await;
        let shown = status(&house.config);
        assert_eq!((shown["kind"].as_str(), shown["state"].as_str()), (Some("backfill"), Some("running")), "{shown}");
        kills.push(house.killed(roots).await);
        relay = house.start_relay().await;
    }
    while let Some(done) = writing.join_next().await {
        done.unwrap();
    }
    output.until_complete(&house.aws, 20_000, each).await;
    let scanned = relay.metric(r#"angzarr_relay_rows_scanned_total{kind="event"}"#).await;
    // What was written meanwhile is scanned too; and segments are not quite equal, where one is finished.
    let left = f64::from(u32::try_from(roots * before + written_to - covered).unwrap() + 5_000);
    assert!(scanned.is_some_and(|rows| rows <= left), "the last life began anew: {scanned:?} of {left}");
    assert!(relay.terminate().await.success(), "{}", relay.output());
    // A record may become visible behind one that was read already: the verdict reads all of it once more.
    let mut output = Output::open(&house.aws).await;
    output.read_to_end(&house.aws).await;
    // How many were repeated is the emulator's: what was accepted and not durable, however long its writes took.
    output.assert_first_in_order(roots, each, &kills);
    let shown = status(&house.config);
    assert_eq!(shown["state"].as_str(), Some("done"), "{shown}");
    assert!(shown["rows"].as_u64().is_some_and(|rows| rows >= 100_000), "{shown}");
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
    let enable = async |enabled: bool| {
        let mut stream = StreamSpecification::builder().stream_enabled(enabled);
        if enabled {
            stream = stream.stream_view_type(StreamViewType::NewImage);
        }
        let update = aws.dynamodb.update_table().table_name(&names.events);
        update.stream_specification(stream.build().unwrap()).send().await.unwrap();
    };
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
    home.configure(there.endpoint(), audit);
    let mut relay = home.start().await;
    let mut writer = writer.moved_to(&replica_aws);
    writer.append_to(0..30, 1).await;
    until("all is in the file", async || (home.sequences("audit.jsonl") == *writer.written()).then_some(())).await;
    let begun = relay.metric(r#"angzarr_relay_jobs_begun_total{handler="audit",kind="reconcile"}"#).await;
    assert_eq!(begun, Some(1.0));
    until("it is ready", async || relay.health("/readyz").await.filter(|(status, _)| *status == 200)).await;
    assert!(relay.terminate().await.success(), "{}", relay.output());
    assert_eq!(home.sequences("audit.jsonl"), *writer.written(), "each once: positions are sequences of roots");
}
