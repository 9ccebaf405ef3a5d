//! Outages: an endpoint that is not there yet, goes away or stays silent halts what needs it, marks nothing, holds
//! nobody else, and is made up for when it is back; an event that one handler refuses stops its root alone.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use angzarr_relay::local::{EmbeddedDynamo, EmbeddedKinesis, KinesisOptions};
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::routing::post;
use tokio::net::TcpListener;

use crate::embedded::{clients, tables};
use crate::relaying::Output;
use crate::support::{Forwarder, RelayHome, RelayProcess, Writer, root_and_sequence, until};

/// What a relay may need to stop after its `shutdown_grace` of 1 s: less than any time-out of a call, more than a busy
/// machine takes.
const STOP_MAX: Duration = Duration::from_secs(6);

/// One handler that writes lines, and nothing else.
const AUDIT_ONLY: &str = r#"
    [relay]
    poll_interval_max = "250ms"
    reconcile_interval = "100ms"
    shutdown_grace = "1s"
    [[handlers]]
    name = "audit"
    flush_interval = "1m"
    subscribe = [{ domain = "*" }]
    jsonl = { path = "HOME/audit.jsonl" }
"#;

const AUDIT_LAG: &str = r#"angzarr_relay_handler_lag_seconds{handler="audit"}"#;

pub(crate) async fn dynamo_with_tables() -> EmbeddedDynamo {
    let dynamo = EmbeddedDynamo::start(None).unwrap();
    tables(&clients(Some(dynamo.endpoint()), None).await, RelayHome::PREFIX).await;
    dynamo
}

/// Waits until a series shows a value that `fits`; the value.
async fn shown(relay: &RelayProcess, series: &str, fits: impl Fn(f64) -> bool) -> f64 {
    until(series, async || relay.metric(series).await.filter(|value| fits(*value))).await
}

/// Waits until a series shows a value.
pub(crate) async fn shows(relay: &RelayProcess, series: &str, value: f64) {
    until(&format!("{series} {value}"), async || (relay.metric(series).await == Some(value)).then_some(())).await;
}

fn up(handler: &str) -> String {
    format!(r#"angzarr_relay_handler_up_ratio{{handler="{handler}"}}"#)
}

/// Reads a handler's lag twice: it has grown in between, by more than what one look is off.
async fn assert_lag_grows(relay: &RelayProcess, series: &str) {
    let first = shown(relay, series, |lag| lag > 0.0).await;
    shown(relay, series, |lag| lag > first + 1.0).await;
}

async fn audited(home: &RelayHome, writer: &Writer) {
    until("everything is in the file", async || (home.sequences("audit.jsonl") == *writer.written()).then_some(()))
        .await;
}

/// Nobody has marked a root as stuck.
async fn assert_nothing_stuck(relay: &RelayProcess, handler: &str) {
    for state in ["blocked", "retrying", "hole"] {
        let stuck = format!(r#"angzarr_relay_stuck_roots{{handler="{handler}",state="{state}"}}"#);
        assert_eq!(relay.metric(&stuck).await, Some(0.0), "{state}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_kinesis_halts_its_handler_alone_and_everything_comes_when_it_is_back() {
    let (dynamo, mut way) = (dynamo_with_tables().await, Forwarder::refusing());
    let kinesis = EmbeddedKinesis::start(&KinesisOptions::default()).unwrap();
    let aws = clients(Some(dynamo.endpoint()), Some(kinesis.endpoint())).await;
    aws.kinesis.create_stream().stream_name("orders").shard_count(1).send().await.unwrap();
    let (mut writer, mut output) = (Writer::new(&aws), Output::open(&aws).await);
    let home = RelayHome::new();
    let copy = r#"
        [[handlers]]
        name = "copy"
        subscribe = [{ domain = "*" }]
        kinesis = { stream = "orders" }
        [kinesis]
    "#;
    home.configure(dynamo.endpoint(), &format!("{AUDIT_ONLY}{copy}endpoint = \"{}\"", way.endpoint));
    let mut relay = home.start().await;
    let copy_lag = r#"angzarr_relay_handler_lag_seconds{handler="copy"}"#;
    // First the endpoint is not there yet, then it goes away.
    for round in 1..=2 {
        writer.append_to(0..20, 10).await;
        shows(&relay, &up("copy"), 0.0).await;
        audited(&home, &writer).await;
        shows(&relay, AUDIT_LAG, 0.0).await;
        assert_lag_grows(&relay, copy_lag).await;
        assert_eq!(relay.metric(&up("audit")).await, Some(1.0));
        assert_nothing_stuck(&relay, "copy").await;

        way.forward(kinesis.endpoint());
        output.until(&aws, 20 * 10 * round).await;
        shows(&relay, &up("copy"), 1.0).await;
        shows(&relay, copy_lag, 0.0).await;
        output.assert_each_once_in_order(20, 10 * round as u64);
        // Nothing is in flight, so nobody is left in doubt whether it was taken.
        way.cut();
    }
    assert!(relay.terminate().await.success(), "{}", relay.output());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_waits_for_a_dynamodb_that_is_not_there_yet() {
    let mut way = Forwarder::refusing();
    let home = RelayHome::new();
    home.configure(&way.endpoint, AUDIT_ONLY);
    let mut relay = home.spawn();
    let (status, problem) = until("/readyz answers", async || relay.health("/readyz").await).await;
    assert_eq!(status, 503, "{problem}");
    until("the problem is named", async || {
        let (status, problem) = relay.health("/readyz").await?;
        assert_eq!(status, 503, "{problem}");
        problem.contains("events table: DescribeTable failed").then_some(())
    })
    .await;
    assert_eq!(relay.health("/livez").await.map(|(status, _)| status), Some(200));

    let dynamo = dynamo_with_tables().await;
    let mut writer = Writer::new(&clients(Some(dynamo.endpoint()), None).await);
    writer.append_to(0..5, 2).await;
    way.forward(dynamo.endpoint());
    relay.wait_ready().await;
    audited(&home, &writer).await;

    // It goes away in the middle of reading the stream: not ready, and back by itself.
    shows(&relay, r#"angzarr_relay_shards{state="reading"}"#, 1.0).await;
    way.cut();
    until("it is not ready", async || {
        relay.health("/readyz").await.filter(|(status, problem)| *status == 503 && problem.contains("stream: "))
    })
    .await;
    assert_eq!(relay.health("/livez").await.map(|(status, _)| status), Some(200));
    writer.append_to(0..5, 2).await;
    way.forward(dynamo.endpoint());
    relay.wait_ready().await;
    audited(&home, &writer).await;
    assert!(relay.terminate().await.success(), "{}", relay.output());
}

/// Stops a relay while DynamoDB keeps it waiting for an answer: it goes all the same, in time and without an error.
async fn assert_stops(way: &Forwarder, mut relay: RelayProcess) {
    until("the relay waits for an answer", async || way.keeps_somebody_waiting().then_some(())).await;
    let status = relay.terminate_within(STOP_MAX).await;
    assert!(status.success(), "{status}: {}", relay.output());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_stops_within_its_grace_whatever_dynamodb_does() {
    let dynamo = dynamo_with_tables().await;
    let aws = clients(Some(dynamo.endpoint()), None).await;
    let mut writer = Writer::new(&aws);
    let home = RelayHome::new();
    let mut way = Forwarder::refusing();
    home.configure(&way.endpoint, AUDIT_ONLY);

    // It refuses.
    let mut relay = home.spawn();
    until("/livez answers", async || relay.health("/livez").await).await;
    let status = relay.terminate_within(STOP_MAX).await;
    assert!(status.success(), "{status}: {}", relay.output());

    // It is silent from the start.
    way.silence();
    let relay = home.spawn();
    until("/livez answers", async || relay.health("/livez").await).await;
    assert_stops(&way, relay).await;

    // It becomes silent while handlers are being registered, for which the table is missing.
    let relay_table = format!("{}-relay", RelayHome::PREFIX);
    aws.dynamodb.delete_table().table_name(&relay_table).send().await.unwrap();
    way.forward(dynamo.endpoint());
    let relay = home.spawn();
    until("the relay's table is missed", async || {
        relay.health("/readyz").await.filter(|(_, problem)| problem.contains("relay table: "))
    })
    .await;
    way.silence();
    assert_stops(&way, relay).await;

    // It becomes silent while events flow and positions wait to be written.
    tables(&aws, RelayHome::PREFIX).await;
    way.forward(dynamo.endpoint());
    let relay = home.start().await;
    writer.append_to(0..5, 2).await;
    audited(&home, &writer).await;
    way.silence();
    assert_stops(&way, relay).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_relay_has_no_lag() {
    let dynamo = dynamo_with_tables().await;
    let mut writer = Writer::new(&clients(Some(dynamo.endpoint()), None).await);
    let home = RelayHome::new();
    home.configure(dynamo.endpoint(), AUDIT_ONLY);
    let mut relay = home.start().await;
    let reads = r#"angzarr_relay_aws_calls_total{operation="GetRecords",outcome="ok"}"#;
    for events in [0, 3] {
        writer.append_to(0..5, events).await;
        audited(&home, &writer).await;
        shows(&relay, AUDIT_LAG, 0.0).await;
        // Idle for so many reads.
        let before = shown(&relay, reads, |_| true).await;
        let idle = async || {
            assert_eq!(relay.metric(AUDIT_LAG).await, Some(0.0));
            relay.metric(reads).await.filter(|now| *now >= before + 8.0)
        };
        until("eight more reads", idle).await;
    }
    assert!(relay.terminate().await.success(), "{}", relay.output());
}

/// What an HTTP service was given: the sequences of each root it took, and the root it refuses.
#[derive(Debug, Default)]
pub(crate) struct Service {
    pub(crate) refused: Option<String>,
    pub(crate) taken: BTreeMap<String, Vec<u64>>,
}

/// Whether it has taken, in order and once, every event but those of the root it refuses.
pub(crate) fn has_all_it_takes(service: &Mutex<Service>, writer: &Writer) -> Option<()> {
    let service = service.lock().unwrap();
    let mut expected = writer.written().clone();
    expected.retain(|root, _| service.refused.as_ref() != Some(root));
    (service.taken == expected).then_some(())
}

/// Whether everything that was written has arrived, perhaps some of it again.
pub(crate) fn has_all(service: &Mutex<Service>, writer: &Writer) -> Option<()> {
    let taken = &service.lock().unwrap().taken;
    let has_all = |(root, written): (&String, &Vec<u64>)| {
        taken.get(root).is_some_and(|taken| written.iter().all(|sequence| taken.contains(sequence)))
    };
    writer.written().iter().all(has_all).then_some(())
}

/// The configuration of a handler `billing` of this service.
pub(crate) fn billing(url: &str, kind: &str, rest: &str) -> String {
    format!(
        r#"
        [relay]
        poll_interval_max = "250ms"
        [[handlers]]
        name = "billing"
        kind = "{kind}"
        subscribe = [{{ domain = "*" }}]
        http = {{ url = "{url}" }}
        {rest}
        "#
    )
}

/// Serves on a free port for the rest of the test; the URL.
pub(crate) async fn serve(service: Arc<Mutex<Service>>) -> String {
    let take = move |body: Bytes| async move {
        let (root, sequence) = root_and_sequence(&body);
        let mut service = service.lock().unwrap();
        if service.refused.as_ref() == Some(&root) {
            return StatusCode::BAD_REQUEST;
        }
        service.taken.entry(root).or_default().push(sequence);
        StatusCode::OK
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/events", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, axum::Router::new().route("/events", post(take))).await });
    url
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_that_blocks_stops_alone_and_goes_on_by_itself() {
    let dynamo = dynamo_with_tables().await;
    let mut writer = Writer::new(&clients(Some(dynamo.endpoint()), None).await);
    let service = Arc::new(Mutex::new(Service { refused: Some("r3".into()), ..Service::default() }));
    let url = serve(service.clone()).await;
    let home = RelayHome::new();
    let blocking = "retry = { initial = \"100ms\", max = \"500ms\" }\non_failure = \"block\"";
    home.configure(dynamo.endpoint(), &billing(&url, "projector", blocking));
    let mut relay = home.start().await;
    // A root that blocks a scan is deferred, so that the scan comes to its end; here it is to block a shard.
    shows(&relay, r#"angzarr_relay_jobs_begun_total{handler="billing",kind="backfill"}"#, 1.0).await;
    shows(&relay, r#"angzarr_relay_jobs{handler="billing",kind="backfill"}"#, 0.0).await;
    writer.append_to(0..10, 6).await;
    until("the other roots are through", async || has_all_it_takes(&service, &writer)).await;
    let lag = r#"angzarr_relay_handler_lag_seconds{handler="billing"}"#;
    let blocked = r#"angzarr_relay_stuck_roots{handler="billing",state="blocked"}"#;
    shows(&relay, blocked, 1.0).await;
    assert_lag_grows(&relay, lag).await;
    assert_eq!(relay.metric(&up("billing")).await, Some(1.0));

    // Others still go on, behind the stopped root and in front of what it missed meanwhile.
    writer.append_to(0..10, 2).await;
    until("the other roots are through again", async || has_all_it_takes(&service, &writer)).await;
    service.lock().unwrap().refused = None;
    until("the root goes on", async || has_all_it_takes(&service, &writer)).await;
    shows(&relay, blocked, 0.0).await;
    shows(&relay, lag, 0.0).await;
    assert!(relay.terminate().await.success(), "{}", relay.output());
    assert_eq!(service.lock().unwrap().taken, *writer.written());
}
