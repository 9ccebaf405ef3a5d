//! Several replicas over one set of tables, on a stream of eight shards: they share the shards, hand them over at a clean
//! stop without repeating an event, and take over what a replica held that was killed or stood still.
//!
//! What was delivered is judged where it arrives, at an HTTP service that all replicas call.

use std::collections::BTreeMap;
use std::io::BufRead as _;
use std::sync::{Arc, Mutex};

use angzarr_relay::aws::AwsClients;
use angzarr_relay::event::Sequence;
use angzarr_relay::fleet::{FleetStore as _, LeaseKind};
use angzarr_relay::handler::HandlerName;
use angzarr_relay::local::{EmbeddedDynamo, EmbeddedStreams, StreamsOptions};
use angzarr_relay::relay_table::RelayTable;
use angzarr_relay::storage::{DynamoPositions, PositionStore as _, TableNames};
use angzarr_relay::time::Clock;
use serde_json::{Value, json};

use crate::embedded::{root, sharded_tables};
use crate::outage::{Service, billing, has_all, serve};
use crate::support::{BINARY, RelayHome, RelayProcess, Writer, until};

const SHARDS: u32 = 8;
const ROOTS: u64 = 40;

/// Tables behind eight shards, a service, and replicas that deliver to it.
struct Fleet {
    dynamo: EmbeddedDynamo,
    streams: EmbeddedStreams,
    aws: AwsClients,
    service: Arc<Mutex<Service>>,
    url: String,
    replicas: Vec<(RelayHome, RelayProcess)>,
}

impl Fleet {
    async fn build() -> Self {
        let dynamo = EmbeddedDynamo::start(None).unwrap();
        let options = StreamsOptions { shards: SHARDS, ..StreamsOptions::default() };
        let (streams, aws, _) = sharded_tables(dynamo.endpoint(), RelayHome::PREFIX, options).await;
        let service = Arc::new(Mutex::new(Service::default()));
        let url = serve(service.clone()).await;
        Self { dynamo, streams, aws, service, url, replicas: Vec::new() }
    }

    /// Starts one replica more, and waits until it is ready.
    async fn start(&mut self) {
        let home = RelayHome::new();
        let rest = "flush_interval = \"200ms\"\nstart = \"beginning\"";
        let config = billing(&self.url, "sink", rest);
        home.configure_with_streams(self.dynamo.endpoint(), self.streams.endpoint(), &config);
        let relay = home.start().await;
        self.replicas.push((home, relay));
    }

    fn table(&self) -> RelayTable {
        RelayTable::new(&self.aws, &TableNames::from_prefix(RelayHome::PREFIX).relay, Clock::system())
    }

    /// How many open shards each owner holds, the largest number first.
    async fn shares(&self) -> Vec<usize> {
        let leases = self.table().leases(&handler()).await.unwrap();
        let mut shares = BTreeMap::new();
        for lease in leases.iter().filter(|lease| lease.kind == LeaseKind::Shard && !lease.finished) {
            *shares.entry(lease.owner.clone()).or_insert(0) += usize::from(lease.owner.is_some());
        }
        let mut shares: Vec<usize> = shares.into_values().filter(|share| *share > 0).collect();
        shares.sort_unstable_by(|one, other| other.cmp(one));
        shares
    }

    /// Waits until the shards are shared like that.
    async fn shared(&self, shares: &[usize]) {
        until("the shards are shared", async || (self.shares().await == shares).then_some(())).await;
    }

    /// Waits until everything has arrived, perhaps some of it again.
    async fn all_arrived(&self, writer: &Writer) {
        until("everything has arrived", async || has_all(&self.service, writer)).await;
    }

    /// How far the positions are, and how much of each root has arrived until now.
    async fn durable(&self) -> Durable {
        let names = TableNames::from_prefix(RelayHome::PREFIX);
        let positions = DynamoPositions::new(&self.aws, &names.positions, Clock::system());
        let roots: Vec<_> = (0..ROOTS).map(|number| root(&format!("r{number}"))).collect();
        let loaded = positions.load(&handler(), &roots).await.unwrap();
        let service = self.service.lock().unwrap();
        let arrived = |root: &String| service.taken.get(root).map_or(0, Vec::len);
        let roots = (0..ROOTS).map(|number| format!("r{number}"));
        roots.zip(loaded).map(|(root, standing)| (root.clone(), (arrived(&root), standing.position))).collect()
    }

    async fn stop_all(&mut self) {
        for (_, relay) in &mut self.replicas {
            assert!(relay.terminate().await.success(), "{}", relay.output());
        }
    }
}

fn handler() -> HandlerName {
    HandlerName::new("billing").unwrap()
}

/// By root: how much had arrived, and the position.
type Durable = BTreeMap<String, (usize, Option<Sequence>)>;

/// First acceptances are in order without a gap; answers how many came again since then, each above what was durable.
fn judge(service: &Service, writer: &Writer, before: &Durable) -> usize {
    let mut repeats = 0;
    for (root, written) in writer.written() {
        let mut first: Vec<u64> = Vec::new();
        let (arrived, durable) = before[root];
        for (index, sequence) in service.taken[root].iter().enumerate() {
            if first.contains(sequence) {
                if index < arrived {
                    continue;
                }
                repeats += 1;
                assert!(
                    durable.is_none_or(|durable| *sequence > durable.0),
                    "{root} {sequence} was durable: {durable:?}"
                );
            } else {
                first.push(*sequence);
            }
        }
        assert_eq!(first, *written, "first acceptances of {root}");
    }
    repeats
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_that_come_and_go_share_the_shards_and_repeat_nothing() {
    let mut fleet = Fleet::build().await;
    let mut writer = Writer::new(&fleet.aws);
    fleet.start().await;
    fleet.shared(&[8]).await;
    writer.append_to(0..ROOTS, 2).await;
    fleet.start().await;
    writer.append_to(0..ROOTS, 2).await;
    fleet.shared(&[4, 4]).await;
    fleet.start().await;
    writer.append_to(0..ROOTS, 2).await;
    fleet.shared(&[3, 3, 2]).await;
    // A rolling deployment: each goes when the next is there.
    for _ in 0..3 {
        fleet.start().await;
        let (_, mut oldest) = fleet.replicas.remove(0);
        let ending = tokio::spawn(async move { (oldest.terminate().await.success(), oldest.output()) });
        writer.append_to(0..ROOTS, 3).await;
        let (clean, output) = ending.await.unwrap();
        assert!(clean, "{output}");
    }
    fleet.shared(&[3, 3, 2]).await;
    writer.append_to(0..ROOTS, 2).await;
    fleet.all_arrived(&writer).await;
    fleet.stop_all().await;
    assert_eq!(fleet.service.lock().unwrap().taken, *writer.written());
    assert_eq!(fleet.table().fleet().await.unwrap().members, [], "who stops leaves no row");
}

/// What `status --json` says now.
fn status(home: &RelayHome) -> Value {
    let (worked, said, complaint) = home.command(&["status", "--json"]);
    assert!(worked, "{complaint}");
    serde_json::from_str(&said).unwrap()
}

/// How many there are of each state among these.
fn states(shown: &Value) -> BTreeMap<String, usize> {
    let mut states = BTreeMap::new();
    for one in shown.as_array().unwrap() {
        *states.entry(one["state"].as_str().unwrap().to_owned()).or_insert(0) += 1;
    }
    states
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_shows_who_reads_what_and_says_what_is_wrong() {
    let mut fleet = Fleet::build().await;
    let mut writer = Writer::new(&fleet.aws);
    fleet.start().await;
    fleet.start().await;
    fleet.shared(&[4, 4]).await;
    writer.append_to(0..ROOTS, 2).await;
    fleet.all_arrived(&writer).await;
    let home = RelayHome::new();
    let config = billing(&fleet.url, "sink", "");
    home.configure_with_streams(fleet.dynamo.endpoint(), fleet.streams.endpoint(), &config);
    // What a replica told last is up to a heartbeat old: the lag may be of what has arrived since.
    let is_well = |shown: &Value| shown["problems"] == json!([]) && shown["handlers"][0]["lag_secs"] == 0;
    let well = until("everything is well", async || Some(status(&home)).filter(is_well)).await;
    assert_eq!(states(&well["members"]), BTreeMap::from([("member".to_owned(), 2)]));
    assert_eq!(states(&well["leases"]), BTreeMap::from([("held".to_owned(), 9)]), "eight shards and the desk");
    let handler = &well["handlers"][0];
    assert_eq!(
        (&handler["state"], &handler["replicas"], &handler["unread"]),
        (&json!("following"), &json!(2), &json!(0))
    );
    let (worked, text, _) = home.command(&["status"]);
    assert!(worked && text.starts_with("everything is well\n\nREPLICA"), "{text}");

    // Look after look, until it is stopped.
    let mut watching = std::process::Command::new(BINARY)
        .arg("--config")
        .arg(home.path("relay.toml"))
        .args(["status", "--watch", "--json"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let looks = std::io::BufReader::new(watching.stdout.take().unwrap()).lines().take(2);
    let looks: Vec<Value> = looks.map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect();
    watching.kill().unwrap();
    watching.wait().unwrap();
    assert_eq!(looks.iter().map(|look| states(&look["members"])["member"]).collect::<Vec<_>>(), [2, 2]);
    assert_ne!(looks[0]["at"], looks[1]["at"]);

    // Nobody is there to tell of it: it is seen all the same.
    for (_, mut relay) in std::mem::take(&mut fleet.replicas) {
        relay.kill();
    }
    writer.append_to(0..ROOTS, 1).await;
    let dead = until("the status knows", async || {
        Some(status(&home)).filter(|shown| shown["handlers"][0]["state"] == "not run")
    })
    .await;
    assert_eq!(states(&dead["leases"]), BTreeMap::from([("abandoned".to_owned(), 9)]));
    assert_eq!((&dead["handlers"][0]["unread"], &dead["handlers"][0]["lag_secs"].is_u64()), (&json!(8), &true));
    let problems: Vec<&str> =
        dead["problems"].as_array().unwrap().iter().filter_map(|found| found["problem"].as_str()).collect();
    assert!(problems[0].contains("no replica runs: nothing is delivered"), "{problems:?}");
    assert!(problems.iter().filter(|problem| problem.contains("has not renewed")).count() == 2, "{problems:?}");

    // The shards are told as unread until they are taken over; a parked root is named with its command.
    fleet.service.lock().unwrap().refused = Some("r3".into());
    fleet.start().await;
    writer.append_to(3..4, 1).await;
    let parked =
        until("the root is parked", async || Some(status(&home)).filter(|shown| shown["handlers"][0]["parked"] == 1))
            .await;
    assert_eq!(parked["handlers"][0]["unread"], 0);
    let mends: Vec<&str> =
        parked["problems"].as_array().unwrap().iter().filter_map(|found| found["mend"].as_str()).collect();
    assert!(mends.iter().any(|mend| mend.ends_with("parked list --handler billing")), "{mends:?}");
    fleet.stop_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_is_killed_is_taken_over() {
    let mut fleet = Fleet::build().await;
    let mut writer = Writer::new(&fleet.aws);
    for _ in 0..3 {
        fleet.start().await;
    }
    fleet.shared(&[3, 3, 2]).await;
    writer.append_to(0..ROOTS, 5).await;
    let (_, mut victim) = fleet.replicas.remove(1);
    let before = fleet.durable().await;
    victim.kill();
    writer.append_to(0..ROOTS, 5).await;
    fleet.shared(&[4, 4]).await;
    fleet.all_arrived(&writer).await;
    let repeats = judge(&fleet.service.lock().unwrap(), &writer, &before);
    eprintln!("{repeats} of {} events came again after a kill", ROOTS * 10);
    fleet.stop_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_stands_still_is_taken_over_and_joins_anew() {
    let mut fleet = Fleet::build().await;
    let mut writer = Writer::new(&fleet.aws);
    for _ in 0..2 {
        fleet.start().await;
    }
    fleet.shared(&[4, 4]).await;
    for round in 0..3 {
        writer.append_to(0..ROOTS, 3).await;
        let before = fleet.durable().await;
        let (_, victim) = &fleet.replicas[round % 2];
        victim.freeze();
        writer.append_to(0..ROOTS, 3).await;
        fleet.shared(&[8]).await;
        fleet.all_arrived(&writer).await;
        victim.thaw();
        fleet.shared(&[4, 4]).await;
        writer.append_to(0..ROOTS, 1).await;
        fleet.all_arrived(&writer).await;
        let repeats = judge(&fleet.service.lock().unwrap(), &writer, &before);
        eprintln!("{repeats} came again so far, after {} stops", round + 1);
        let lost = fleet.replicas[round % 2].1.metric("angzarr_relay_memberships_lost_total").await;
        assert!(lost.is_some_and(|lost| lost >= 1.0), "{lost:?}");
    }
    fleet.stop_all().await;
}
