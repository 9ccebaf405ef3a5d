//! Handlers and tables that misbehave, each with its outcome: nothing lost, every root in order, and a line that says what
//! is wrong. The relay's own binary on real components.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use angzarr_relay::storage::TableNames;
use aws_sdk_dynamodb::types::{AttributeDefinition, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType};
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::routing::post;
use serde_json::Value;
use tokio::net::TcpListener;

use crate::embedded::{clients, tables};
use crate::outage::{billing, dynamo_with_tables, shows};
use crate::support::{RelayHome, Throttling, Writer, root_and_sequence, until};

/// What a service does with an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reply {
    Take,
    Answer(StatusCode),
    /// No answer, for longer than anybody waits.
    Hang,
    /// The process that asks ends: it is killed with the event in its hands.
    Kill,
}

/// What was taken of each root, and how often each event was asked for.
#[derive(Debug, Default)]
struct Asked {
    taken: BTreeMap<String, Vec<u64>>,
    times: BTreeMap<(String, u64), u32>,
}

/// An HTTP service that answers as it is told: by root, sequence, and how often it was asked before.
struct Service {
    url: String,
    asked: Arc<Mutex<Asked>>,
    /// The relay to kill.
    pid: Arc<AtomicU32>,
}

impl Service {
    async fn serve(reply: impl Fn(&str, u64, u32) -> Reply + Clone + Send + Sync + 'static) -> Self {
        let (asked, pid) = (Arc::new(Mutex::new(Asked::default())), Arc::new(AtomicU32::new(0)));
        let (noted, to_kill) = (asked.clone(), pid.clone());
        let take = move |body: Bytes| async move {
            let (root, sequence) = root_and_sequence(&body);
            let before = {
                let mut noted = noted.lock().unwrap();
                let times = noted.times.entry((root.clone(), sequence)).or_default();
                std::mem::replace(times, *times + 1)
            };
            match reply(&root, sequence, before) {
                Reply::Take => {
                    noted.lock().unwrap().taken.entry(root).or_default().push(sequence);
                    StatusCode::OK
                }
                Reply::Answer(status) => status,
                Reply::Hang => std::future::pending().await,
                Reply::Kill => {
                    let pid = to_kill.load(Ordering::SeqCst).to_string();
                    assert!(Command::new("kill").args(["-s", "KILL", &pid]).status().unwrap().success());
                    std::future::pending().await
                }
            }
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/events", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, axum::Router::new().route("/events", post(take))).await });
        Self { url, asked, pid }
    }

    /// Whether it has taken, in order and once, all that was written but to these roots.
    fn has_all(&self, writer: &Writer, but: &[&str]) -> Option<()> {
        let mut expected = writer.written().clone();
        expected.retain(|root, _| !but.contains(&root.as_str()));
        let mut taken = self.asked.lock().unwrap().taken.clone();
        taken.retain(|root, _| !but.contains(&root.as_str()));
        (taken == expected).then_some(())
    }

    fn times(&self, root: &str, sequence: u64) -> u32 {
        self.asked.lock().unwrap().times.get(&(root.to_owned(), sequence)).copied().unwrap_or(0)
    }
}

/// The parked roots: the root's id, the event it stands before, and why.
fn parked(home: &RelayHome) -> Vec<(String, u64, String)> {
    let (worked, listed, said) = home.command(&["parked", "list", "--json"]);
    assert!(worked, "{said}");
    let rows = listed.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    rows.map(|row| (text(&row["root"]), row["sequence"].as_u64().unwrap(), text(&row["reason"]))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_fails_some_times_is_delivered_and_one_that_never_ends_parks_its_root_alone() {
    let dynamo = dynamo_with_tables().await;
    let mut writer = Writer::new(&clients(Some(dynamo.endpoint()), None).await);
    let service = Service::serve(|root, sequence, before| match (root, sequence) {
        ("r1", 2) if before < 1 => Reply::Answer(StatusCode::INTERNAL_SERVER_ERROR),
        ("r2", 2) if before < 10 => Reply::Answer(StatusCode::SERVICE_UNAVAILABLE),
        ("r3", 2) => Reply::Hang,
        ("r4", 2) => Reply::Answer(StatusCode::UNPROCESSABLE_ENTITY),
        _ => Reply::Take,
    })
    .await;
    let home = RelayHome::new();
    let patient = "retry = { initial = \"50ms\", max = \"100ms\", attempts = 12 }";
    let timeout = format!("{patient}\ndeliver_timeout = \"300ms\"");
    home.configure(dynamo.endpoint(), &billing(&service.url, "projector", &timeout));
    let mut relay = home.start().await;
    writer.append_to(0..20, 5).await;
    until("all other roots are through", async || service.has_all(&writer, &["r3", "r4"])).await;
    // Who fails alone may not be at fault: others must succeed meanwhile.
    let listed = until("both roots are parked", async || {
        writer.append(0).await;
        Some(parked(&home)).filter(|listed| listed.len() == 2)
    })
    .await;
    assert_eq!((listed[0].0.as_str(), listed[0].1, listed[1].0.as_str(), listed[1].1), ("r3", 2, "r4", 2));
    assert!(listed[0].2.contains("longer than") || listed[0].2.contains("timed out"), "{listed:?}");
    assert!(listed[1].2.contains("422"), "{listed:?}");
    assert_eq!((service.times("r1", 2), service.times("r2", 2)), (2, 11));
    assert!(service.times("r4", 2) <= 3, "behind others, first in its batch, then alone; never again");
    writer.append_to(0..20, 2).await;
    until("the others go on", async || service.has_all(&writer, &["r3", "r4"])).await;
    assert!(relay.terminate().await.success(), "{}", relay.output());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_fails_for_everybody_is_down_and_nobody_is_parked() {
    let dynamo = dynamo_with_tables().await;
    let mut writer = Writer::new(&clients(Some(dynamo.endpoint()), None).await);
    let down = Arc::new(AtomicU32::new(1));
    let is_down = down.clone();
    let service = Service::serve(move |_, _, _| match is_down.load(Ordering::SeqCst) {
        0 => Reply::Take,
        _ => Reply::Answer(StatusCode::INTERNAL_SERVER_ERROR),
    })
    .await;
    let home = RelayHome::new();
    let hasty = "retry = { initial = \"10ms\", max = \"50ms\", attempts = 3, age = \"1s\" }";
    home.configure(dynamo.endpoint(), &billing(&service.url, "projector", hasty));
    let mut relay = home.start().await;
    writer.append_to(0..50, 3).await;
    shows(&relay, r#"angzarr_relay_handler_up_ratio{handler="billing"}"#, 0.0).await;
    // It probes on and on: more often than one event would be tried.
    let asked = || service.asked.lock().unwrap().times.values().sum::<u32>();
    until("it was asked again and again", async || (asked() > 10).then_some(())).await;
    assert_eq!(parked(&home), []);
    let (_, problem) = relay.health("/readyz").await.unwrap();
    assert!(problem.contains("handler billing: the receiver is down"), "{problem}");
    down.store(0, Ordering::SeqCst);
    until("everything comes", async || service.has_all(&writer, &[])).await;
    assert_eq!(parked(&home), []);
    assert!(relay.terminate().await.success(), "{}", relay.output());
}

#[tokio::test(flavor = "multi_thread")]
async fn of_fifty_roots_in_flight_exactly_the_one_that_ends_the_process_parks() {
    const ATTEMPTS: u32 = 3;
    let dynamo = dynamo_with_tables().await;
    let mut writer = Writer::new(&clients(Some(dynamo.endpoint()), None).await);
    let service = Service::serve(|root, sequence, _| match (root, sequence) {
        ("r7", 1) => Reply::Kill,
        _ => Reply::Take,
    })
    .await;
    let home = RelayHome::new();
    let many = format!("max_in_flight = 50\nretry = {{ attempts = {ATTEMPTS} }}");
    home.configure(dynamo.endpoint(), &billing(&service.url, "projector", &many));
    writer.append_to(0..50, 3).await;
    let mut kills = 0;
    let mut relay = loop {
        let mut relay = home.spawn();
        service.pid.store(relay.pid(), Ordering::SeqCst);
        let ended = async {
            let before = service.times("r7", 1);
            until("the process ends, or all is through", async || {
                let killed = service.times("r7", 1) > before;
                let through = !killed && !parked(&home).is_empty();
                (killed || through).then_some(killed)
            })
            .await
        };
        if !ended.await {
            break relay;
        }
        assert!(!relay.exit().await.success());
        kills += 1;
        assert!(kills <= ATTEMPTS, "{}", relay.output());
    };
    let listed = parked(&home);
    assert_eq!(listed.iter().map(|(root, sequence, _)| (root.as_str(), *sequence)).collect::<Vec<_>>(), [("r7", 1)]);
    assert!(listed[0].2.contains("the process ended"), "{listed:?}");
    relay.wait_ready().await;
    let all = async || {
        let taken = service.asked.lock().unwrap().taken.clone();
        let others = writer.written().iter().filter(|(root, _)| *root != "r7");
        let complete = others.into_iter().all(|(root, written)| {
            // What was accepted and not yet durable at a kill comes again.
            let mut first: Vec<u64> = Vec::new();
            for sequence in taken.get(root).into_iter().flatten() {
                if !first.contains(sequence) {
                    assert!(first.iter().all(|before| before < sequence), "{root}: {taken:?}");
                    first.push(*sequence);
                }
            }
            first == *written
        });
        complete.then_some(())
    };
    until("the other roots are through", all).await;
    assert!(relay.terminate().await.success(), "{}", relay.output());
}

/// One handler that writes lines, and its positions at once.
const AUDIT: &str = r#"
    [relay]
    poll_interval_max = "250ms"
    [[handlers]]
    name = "audit"
    flush_interval = "100ms"
    subscribe = [{ domain = "*" }]
    jsonl = { path = "HOME/audit.jsonl" }
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_positions_table_that_is_throttled_or_gone_holds_nobody_up_and_is_made_up_for() {
    let dynamo = dynamo_with_tables().await;
    let way = Throttling::before(dynamo.endpoint()).await;
    let aws = clients(Some(dynamo.endpoint()), None).await;
    let names = TableNames::from_prefix(RelayHome::PREFIX);
    let mut writer = Writer::new(&aws);
    let home = RelayHome::new();
    home.configure(&way.endpoint, AUDIT);
    let mut relay = home.start().await;
    let audited = async |writer: &Writer| {
        until("all is in the file", async || (home.sequences("audit.jsonl") == *writer.written()).then_some(())).await;
    };
    let positions = async || {
        let rows = aws.dynamodb.scan().table_name(&names.positions).consistent_read(true).send().await.ok()?;
        let rows = rows.items.unwrap_or_default();
        let at = |row: &std::collections::HashMap<String, aws_sdk_dynamodb::types::AttributeValue>| {
            row["sequence"].as_n().unwrap().parse::<u64>().unwrap()
        };
        Some(rows.iter().map(at).collect::<Vec<u64>>())
    };
    let problem = async |text: &str| {
        until(text, async || relay.health("/readyz").await.filter(|(_, said)| said.contains(text))).await;
    };
    writer.append_to(0..10, 2).await;
    audited(&writer).await;

    way.throttle(Some(("BatchExecuteStatement", &names.positions)));
    writer.append_to(0..10, 2).await;
    audited(&writer).await;
    problem(&format!("BatchExecuteStatement on `{}` was throttled", names.positions)).await;
    until("it was throttled again and again", async || (way.throttled() > 10).then_some(())).await;
    assert!(positions().await.unwrap().iter().all(|position| *position <= 1), "nothing could be written");
    way.throttle(None);
    until("they are written", async || positions().await.filter(|all| *all == [3; 10])).await;

    // The table is removed by mistake: what is accepted meanwhile is written when it is back.
    aws.dynamodb.delete_table().table_name(&names.positions).send().await.unwrap();
    writer.append_to(0..10, 1).await;
    audited(&writer).await;
    problem(&names.positions).await;
    tables(&aws, RelayHome::PREFIX).await;
    until("they are written", async || positions().await.filter(|all| *all == [4; 10])).await;
    until("it is ready again", async || relay.health("/readyz").await.filter(|(status, _)| *status == 200)).await;
    assert!(relay.terminate().await.success(), "{}", relay.output());
    assert_eq!(home.sequences("audit.jsonl"), *writer.written(), "each once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_positions_table_of_another_shape_is_named_and_nothing_is_delivered_on_its_word() {
    let dynamo = dynamo_with_tables().await;
    let aws = clients(Some(dynamo.endpoint()), None).await;
    let names = TableNames::from_prefix(RelayHome::PREFIX);
    aws.dynamodb.delete_table().table_name(&names.positions).send().await.unwrap();
    let key = KeySchemaElement::builder().attribute_name("id").key_type(KeyType::Hash).build().unwrap();
    let attribute = AttributeDefinition::builder().attribute_name("id").attribute_type(ScalarAttributeType::S);
    (aws.dynamodb.create_table().table_name(&names.positions).key_schema(key))
        .attribute_definitions(attribute.build().unwrap())
        .billing_mode(BillingMode::PayPerRequest)
        .send()
        .await
        .unwrap();
    let mut writer = Writer::new(&aws);
    writer.append_to(0..5, 2).await;
    let home = RelayHome::new();
    home.configure(dynamo.endpoint(), AUDIT);
    let mut relay = home.spawn();
    until("it says so", async || {
        relay.health("/readyz").await.filter(|(status, said)| *status == 503 && said.contains(&names.positions))
    })
    .await;
    let (sound, shown, said) = home.command(&["tables", "describe"]);
    assert!(!sound && shown.contains(&names.positions) && said.contains("doctor"), "{shown} {said}");
    assert!(home.sequences("audit.jsonl").is_empty());
    aws.dynamodb.delete_table().table_name(&names.positions).send().await.unwrap();
    tables(&aws, RelayHome::PREFIX).await;
    until("all is in the file", async || (home.sequences("audit.jsonl") == *writer.written()).then_some(())).await;
    relay.wait_ready().await;
    assert!(relay.terminate_within(Duration::from_mins(1)).await.success(), "{}", relay.output());
}
