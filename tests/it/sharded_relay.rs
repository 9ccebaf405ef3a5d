//! The relay's own binary on a stream of many shards that roll and split while events are written: complete, in order,
//! each once.

use angzarr_relay::aws::AwsClients;
use angzarr_relay::local::{EmbeddedDynamo, EmbeddedStreams, KeyPart, ShardControl, StreamsOptions};

use crate::embedded::{root, sharded_tables};
use crate::support::{DynamoDbLocal, RelayHome, RelayProcess, Writer, until};

const AUDIT: &str = r#"
    [relay]
    poll_interval_max = "250ms"
    [[handlers]]
    name = "audit"
    flush_interval = "100ms"
    subscribe = [{ domain = "*" }]
    jsonl = { path = "HOME/audit.jsonl" }
"#;

/// Roots that are written to, and the one whose item collection is divided.
const ROOTS: u64 = 24;
const DIVIDED: u64 = 3;

/// A table behind a server of many shards, and a relay's folder.
pub(crate) struct Setting {
    pub(crate) home: RelayHome,
    pub(crate) aws: AwsClients,
    pub(crate) shards: ShardControl,
    _server: EmbeddedStreams,
}

impl Setting {
    pub(crate) async fn build(dynamodb: &str, config: &str, options: StreamsOptions) -> Self {
        let (server, aws, names) = sharded_tables(dynamodb, RelayHome::PREFIX, options).await;
        let home = RelayHome::new();
        home.configure_with_streams(dynamodb, server.endpoint(), config);
        Self { home, aws, shards: server.shards(&names.events), _server: server }
    }

    /// Waits until the file holds what was written, and nothing twice.
    pub(crate) async fn complete(&self, writer: &Writer) {
        until("everything is in the file", async || {
            let found = self.home.sequences("audit.jsonl");
            let count =
                |roots: &std::collections::BTreeMap<String, Vec<u64>>| roots.values().map(Vec::len).sum::<usize>();
            (count(&found) >= count(writer.written())).then_some(())
        })
        .await;
        assert_eq!(self.home.sequences("audit.jsonl"), *writer.written());
    }
}

pub(crate) async fn reading(relay: &RelayProcess) -> Option<f64> {
    relay.metric(r#"angzarr_relay_shards{state="reading"}"#).await
}

/// Rolls, splits and closes shards while somebody writes.
async fn reshard(shards: &ShardControl) {
    for turn in 0..6 {
        let open = shards.open().await.unwrap();
        let pick = &open[turn * 5 % open.len()];
        match turn % 3 {
            0 => drop(shards.roll(pick).await.unwrap()),
            1 => drop(shards.split(pick).await.unwrap()),
            _ => {
                let child = shards.close(pick).await.unwrap();
                shards.split(&open[(turn * 5 + 1) % open.len()]).await.unwrap();
                shards.list(&child).await.unwrap();
            }
        }
    }
}

async fn comes_out_complete(dynamodb: &str) {
    let setting = Setting::build(dynamodb, AUDIT, StreamsOptions { shards: 8, ..StreamsOptions::default() }).await;
    let mut writer = Writer::new(&setting.aws);
    let mut relay = setting.home.start().await;
    writer.append_to(0..ROOTS, 2).await;
    until("every shard is read", async || (reading(&relay).await == Some(8.0)).then_some(())).await;

    // From its fifth event on, this root's are in another shard.
    let divided = KeyPart::Text(root(&format!("r{DIVIDED}")).key().to_owned());
    let [low, high] = setting.shards.split_collection(divided, KeyPart::Number("5".into())).await.unwrap();
    writer.append_to(0..ROOTS, 4).await;
    setting.complete(&writer).await;
    let shards = setting.shards.all().await.unwrap();
    let records = |id| shards.iter().find(|shard| shard.id == id).unwrap().records;
    assert!(records(low) > 0 && records(high) > 0, "both shards of the divided collection have been written to");

    tokio::join!(writer.append_to(0..ROOTS, 6), reshard(&setting.shards));
    setting.complete(&writer).await;
    let shards = setting.shards.all().await.unwrap();
    let open = u32::try_from(shards.iter().filter(|shard| shard.open).count()).unwrap();
    let of_open = Some(f64::from(open));
    until("the relay reads the open shards", async || (reading(&relay).await == of_open).then_some(())).await;
    // A clean stop, changes meanwhile, and on.
    assert!(relay.terminate().await.success(), "{}", relay.output());
    tokio::join!(writer.append_to(0..ROOTS, 2), reshard(&setting.shards));
    let mut relay = setting.home.start().await;
    setting.shards.expire_iterators().await.unwrap();
    writer.append_to(0..ROOTS, 1).await;
    setting.complete(&writer).await;
    assert!(relay.terminate().await.success(), "{}", relay.output());
    setting.complete(&writer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_over_shards_that_roll_and_split_come_out_complete_on_embedded() {
    let dynamo = EmbeddedDynamo::start(None).unwrap();
    comes_out_complete(dynamo.endpoint()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_over_shards_that_roll_and_split_come_out_complete_on_dynamodb_local() {
    let emulator = DynamoDbLocal::start().await;
    comes_out_complete(&emulator.endpoint).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_trimmed_while_the_relay_was_stopped_comes_from_the_table() {
    let dynamo = EmbeddedDynamo::start(None).unwrap();
    let options = StreamsOptions { shards: 4, ..StreamsOptions::default() };
    let setting = Setting::build(dynamo.endpoint(), AUDIT, options).await;
    let mut writer = Writer::new(&setting.aws);
    let mut relay = setting.home.start().await;
    writer.append_to(0..ROOTS, 2).await;
    setting.complete(&writer).await;
    assert!(relay.terminate().await.success(), "{}", relay.output());

    // One shard is trimmed, one has vanished, two say nothing of it.
    writer.append_to(0..ROOTS, 2).await;
    let open = setting.shards.open().await.unwrap();
    setting.shards.trim_all(&open[0]).await.unwrap();
    setting.shards.roll(&open[1]).await.unwrap();
    setting.shards.remove(&open[1]).await.unwrap();
    let mut relay = setting.home.start().await;
    writer.append_to(0..ROOTS, 1).await;
    setting.complete(&writer).await;
    let begun = relay.metric(r#"angzarr_relay_jobs_begun_total{handler="audit",kind="reconcile"}"#).await;
    assert!(begun.is_some_and(|begun| begun >= 1.0), "{begun:?}");
    assert!(relay.terminate().await.success(), "{}", relay.output());
    setting.complete(&writer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_finds_ten_thousand_shards_at_the_rate_the_service_allows() {
    const SHARDS: u32 = 10_000;
    /// Shards in a page of DescribeStream.
    const PAGE: u32 = 100;
    let dynamo = EmbeddedDynamo::start(None).unwrap();
    let options = StreamsOptions { shards: SHARDS, describes_per_second: Some(10), ..StreamsOptions::default() };
    let config = AUDIT.replace(r#"poll_interval_max = "250ms""#, r#"poll_interval_max = "1m""#);
    let setting = Setting::build(dynamo.endpoint(), &config, options).await;
    let mut writer = Writer::new(&setting.aws);
    writer.append_to(0..ROOTS, 2).await;
    let mut relay = setting.home.start().await;
    let describes = setting.shards.calls().await.unwrap()["DescribeStream"];
    assert!(describes.made >= u64::from(SHARDS / PAGE) && describes.throttled == 0, "{describes:?}");
    until("every shard is read", async || (reading(&relay).await == Some(f64::from(SHARDS))).then_some(())).await;
    setting.complete(&writer).await;
    assert!(relay.terminate().await.success(), "{}", relay.output());
}
