//! Replicas of the relay over one DynamoDB, and how their leases are shared.

use std::collections::BTreeMap;
use std::time::Duration;

use angzarr_relay::aws::{AwsClients, AwsSettings, StaticCredentials};
use angzarr_relay::fleet::{FleetStore as _, LeaseKind};
use angzarr_relay::handler::HandlerName;
use angzarr_relay::local::{EmbeddedStreams, StreamsOptions};
use angzarr_relay::relay_table::RelayTable;
use angzarr_relay::storage::{TableNames, create_all};
use angzarr_relay::time::Clock;
use tokio::time::{sleep, timeout};

use super::receiver::Replica;
use super::support::{DynamoDbLocal, RelayHome, RelayProcess};

/// For anything to settle.
const SETTLES_MAX: Duration = Duration::from_mins(3);

/// The replicas, by number.
pub(crate) struct Replicas {
    dynamodb: DynamoDbLocal,
    streams: EmbeddedStreams,
    pub(crate) aws: AwsClients,
    pub(crate) names: TableNames,
    receiver: String,
    poll: &'static str,
    started: Replica,
    pub(crate) running: BTreeMap<Replica, (RelayHome, RelayProcess)>,
}

impl Replicas {
    /// Tables and a stream of so many shards, no replica yet.
    pub(crate) async fn new(shards: u32, receiver: String, poll: &'static str) -> Self {
        let dynamodb = DynamoDbLocal::start().await;
        let options = StreamsOptions { shards, ..StreamsOptions::default() };
        let streams = EmbeddedStreams::start(&dynamodb.endpoint, options).unwrap();
        let aws = AwsClients::new(&AwsSettings {
            region: Some("us-east-1".into()),
            dynamodb_endpoint: Some(dynamodb.endpoint.clone()),
            streams_endpoint: Some(streams.endpoint().to_owned()),
            credentials: Some(StaticCredentials::dummy()),
            ..AwsSettings::default()
        })
        .await;
        let names = TableNames::from_prefix(RelayHome::PREFIX);
        create_all(&aws, &names, &mut |_| {}).await.unwrap();
        Self { dynamodb, streams, aws, names, receiver, poll, started: 0, running: BTreeMap::new() }
    }

    /// Starts one more, and waits until it is ready.
    pub(crate) async fn start(&mut self) {
        self.started += 1;
        let home = RelayHome::new();
        let config = format!(
            r#"
            [relay]
            lease_duration = "10s"
            poll_interval_max = "{}"
            [[handlers]]
            name = "bench"
            kind = "sink"
            subscribe = [{{ domain = "*" }}]
            start = "beginning"
            http = {{ url = "{}/{}" }}
            "#,
            self.poll, self.receiver, self.started
        );
        home.configure_with_streams(&self.dynamodb.endpoint, self.streams.endpoint(), &config);
        let relay = home.start().await;
        self.running.insert(self.started, (home, relay));
    }

    /// Waits until all shards are held, evenly, by those that run.
    pub(crate) async fn settled(&self, shards: usize) {
        let table = RelayTable::new(&self.aws, &self.names.relay, Clock::system());
        let handler = HandlerName::new("bench").unwrap();
        let even = shards.div_ceil(self.running.len());
        let settling = async {
            loop {
                let mut by_owner: BTreeMap<_, usize> = BTreeMap::new();
                for lease in table.leases(&handler).await.unwrap() {
                    if lease.kind == LeaseKind::Shard && !lease.announced {
                        *by_owner.entry(lease.owner).or_default() += usize::from(!lease.finished);
                    }
                }
                let held: usize = by_owner.iter().filter(|(owner, _)| owner.is_some()).map(|(_, share)| share).sum();
                if held == shards && by_owner.values().all(|share| *share <= even) {
                    return;
                }
                sleep(Duration::from_millis(200)).await;
            }
        };
        assert!(timeout(SETTLES_MAX, settling).await.is_ok(), "the shards were not shared in time");
    }
}
