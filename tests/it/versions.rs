//! Events given again, and versions of a handler side by side: from the command line, against a running relay.

use std::collections::BTreeMap;

use angzarr_relay::aws::AwsClients;
use angzarr_relay::event::{Root, Sequence};
use angzarr_relay::handler::HandlerName;
use angzarr_relay::storage::{DynamoPositions, EventStore, NewEvent, PositionStore as _, TableNames};
use angzarr_relay::time::{Clock, Random};
use aws_sdk_dynamodb::types::AttributeValue;
use serde_json::Value;

use crate::embedded::{clients, event, root};
use crate::outage::dynamo_with_tables;
use crate::support::{RelayHome, Writer, until};

/// The head of a configuration whose relay looks often.
const RELAY: &str = "
    [relay]
    poll_interval_max = \"250ms\"
    reconcile_interval = \"500ms\"
";

/// A handler that writes a file of its name.
fn handler(name: &str, kind: &str) -> String {
    format!(
        "
        [[handlers]]
        name = \"{name}\"
        kind = \"{kind}\"
        start = \"beginning\"
        subscribe = [{{ domain = \"*\" }}]
        jsonl = {{ path = \"HOME/{name}.jsonl\" }}
        "
    )
}

fn good(home: &RelayHome, arguments: &[&str]) -> String {
    let (success, stdout, stderr) = home.command(arguments);
    assert!(success, "{arguments:?}: {stderr}");
    stdout
}

fn refused(home: &RelayHome, arguments: &[&str], why: &str) {
    let (success, stdout, stderr) = home.command(arguments);
    assert!(!success && stderr.contains(why), "{arguments:?}: {stdout} {stderr}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_is_given_again_to_its_end_and_its_position_stays() {
    let dynamo = dynamo_with_tables().await;
    let aws = clients(Some(dynamo.endpoint()), None).await;
    let home = RelayHome::new();
    home.configure(dynamo.endpoint(), &[RELAY, &handler("view", "projector"), &handler("billing", "saga")].concat());
    let mut writer = Writer::new(&aws);
    writer.append_to(0..5, 6).await;
    let mut relay = home.start().await;
    for file in ["view.jsonl", "billing.jsonl"] {
        until("all is in the file", async || (home.sequences(file) == *writer.written()).then_some(())).await;
    }
    let one_root = ["rewind", "view", "--domain", "orders", "--root", "r1", "--to"];
    // Its position must be durable before there is anything to go back from.
    until("it is ordered", async || home.command(&[&one_root[..], &["3"]].concat()).0.then_some(())).await;
    let mut expected: BTreeMap<String, Vec<u64>> = writer.written().clone();
    expected.get_mut("r1").unwrap().extend([3, 4, 5]);
    until("the root was given again", async || (home.sequences("view.jsonl") == expected).then_some(())).await;
    writer.append_to(0..5, 1).await;
    for sequences in expected.values_mut() {
        sequences.push(6);
    }
    until("what came later follows", async || (home.sequences("view.jsonl") == expected).then_some(())).await;
    // As long as it is marked, it is ordered back already.
    let positions = DynamoPositions::new(&aws, &TableNames::from_prefix(RelayHome::PREFIX).positions, Clock::system());
    let (view, given_again) = (HandlerName::new("view").unwrap(), [root("r1")]);
    let unmarked = async || positions.load(&view, &given_again).await.unwrap()[0].mark.is_none().then_some(());
    until("its mark is gone", unmarked).await;

    // Stopped, it takes the order up at its next start; and all roots of a domain at once.
    assert!(relay.terminate().await.success(), "{}", relay.output());
    refused(&home, &["rewind", "view", "--domain", "orders", "--root", "r1", "--to", "7"], "nothing was ordered");
    refused(&home, &["rewind", "view", "--domain", "nobodys", "--to", "beginning"], "nothing was ordered");
    refused(&home, &["rewind", "billing", "--to", "beginning"], "--rerun-side-effects");
    refused(&home, &["rewind", "unknown", "--to", "beginning"], "has no handler `unknown`");
    assert!(good(&home, &["rewind", "view", "--domain", "orders", "--to", "beginning"]).starts_with("5 roots"));
    refused(&home, &["rewind", "view", "--to", "beginning"], "nothing was ordered");
    for sequences in expected.values_mut() {
        sequences.extend(0..7);
    }
    let mut relay = home.start().await;
    until("everything was given again", async || (home.sequences("view.jsonl") == expected).then_some(())).await;
    until("no root is marked any more", async || {
        let all = ["rewind", "view", "--domain", "orders", "--root", "r0", "--to", "6"];
        home.command(&all).0.then_some(())
    })
    .await;
    assert!(relay.terminate().await.success(), "{}", relay.output());
    assert_eq!(home.sequences("billing.jsonl"), *writer.written(), "nothing was given to the saga again");
    good(&home, &["rewind", "billing", "--to", "6", "--rerun-side-effects"]);
    let (_, positions, _) = home.command(&["positions", "--handler", "view", "--json"]);
    let positions: Vec<Value> = positions.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(positions.len() == 5 && positions.iter().all(|row| row["sequence"] == 6), "{positions:?}");
}

/// The versions of `view`: version, state, and whether it is configured.
fn versions(home: &RelayHome) -> Vec<(u64, String, bool)> {
    let listed = good(home, &["versions", "list", "--handler", "view", "--json"]);
    let rows = listed.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let shown = |row: Value| {
        assert_eq!(row["handler"], "view");
        (row["version"].as_u64().unwrap(), row["state"].as_str().unwrap().to_owned(), row["configured"] == true)
    };
    rows.map(shown).collect()
}

/// The partition keys of a table that begin with this.
async fn keys(aws: &AwsClients, table: &str, prefix: &str) -> usize {
    let rows = aws.dynamodb.scan().table_name(table).consistent_read(true).send().await.unwrap().items.unwrap();
    rows.iter().filter(|row| row["pk"].as_s().unwrap().starts_with(prefix)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_version_is_built_beside_the_old_one_which_is_dropped_after() {
    let dynamo = dynamo_with_tables().await;
    let aws = clients(Some(dynamo.endpoint()), None).await;
    let home = RelayHome::new();
    let (old, new) = (handler("view", "projector"), handler("view@2", "projector"));
    home.configure(dynamo.endpoint(), &[RELAY, &old].concat());
    let mut writer = Writer::new(&aws);
    let mut relay = home.start().await;
    writer.append_to(0..20, 5).await;
    until("all is in the file", async || (home.sequences("view.jsonl") == *writer.written()).then_some(())).await;
    assert!(relay.terminate().await.success(), "{}", relay.output());

    home.configure(dynamo.endpoint(), &[RELAY, &old, &new].concat());
    let mut relay = home.start().await;
    writer.append_to(0..20, 5).await;
    for file in ["view.jsonl", "view@2.jsonl"] {
        until("all is in the file", async || (home.sequences(file) == *writer.written()).then_some(())).await;
    }
    until("both are complete", async || {
        let complete = [(1, "complete".to_owned(), true), (2, "complete".to_owned(), true)];
        (versions(&home) == complete).then_some(())
    })
    .await;
    refused(&home, &["versions", "drop", "view"], "is in the configuration");
    home.configure(dynamo.endpoint(), &[RELAY, &new].concat());
    refused(&home, &["versions", "drop", "view@1"], "a relay runs `view`");
    assert!(relay.terminate().await.success(), "{}", relay.output());

    let mut relay = home.start().await;
    let names = TableNames::from_prefix(RelayHome::PREFIX);
    assert_eq!(keys(&aws, &names.positions, "view#").await, 20);
    assert!(good(&home, &["versions", "drop", "view@1"]).contains("with its 20 positions"));
    assert_eq!(keys(&aws, &names.positions, "view#").await, 0);
    assert_eq!(keys(&aws, &names.relay, "leases#view#").await, 0);
    assert_eq!(versions(&home), [(2, "complete".to_owned(), true)]);
    refused(&home, &["versions", "drop", "view"], "has never run");
    writer.append_to(0..20, 1).await;
    until("the new one goes on", async || (home.sequences("view@2.jsonl") == *writer.written()).then_some(())).await;
    assert!(relay.terminate().await.success(), "{}", relay.output());
    assert_eq!(home.sequences("view@2.jsonl"), *writer.written(), "each once");
}

/// Appends one event, created now, to each of a few roots of a domain.
async fn append_now(aws: &AwsClients, domain: &str, sequence: u64) {
    let table = TableNames::from_prefix(RelayHome::PREFIX).events;
    let store = EventStore::new(aws, &table, Random::from_entropy());
    for id in ["r0", "r1"] {
        let event = NewEvent { created_at: Clock::system().now(), ..event("Happened", b"1") };
        let root = Root::new(domain, "angzarr", id).unwrap();
        store.append(&root, sequence.checked_sub(1).map(Sequence), &[event]).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wider_subscription_gives_a_saga_nothing_from_before() {
    let dynamo = dynamo_with_tables().await;
    let aws = clients(Some(dynamo.endpoint()), None).await;
    let home = RelayHome::new();
    let saga = |subscribe: &str| {
        let all = "[{ domain = \"*\" }]";
        let text = [RELAY, &handler("billing", "saga")].concat().replace(all, subscribe);
        home.configure(dynamo.endpoint(), &text);
    };
    let run = async |expected: &[u64]| {
        let relay = home.start().await;
        let expected: BTreeMap<String, Vec<u64>> =
            ["r0", "r1"].map(|id| (id.to_owned(), expected.to_vec())).into_iter().collect();
        until("what is expected is in the file", async || (home.sequences("billing.jsonl") == expected).then_some(()))
            .await;
        relay
    };
    saga("[{ domain = \"orders\" }]");
    append_now(&aws, "orders", 0).await;
    append_now(&aws, "stock", 0).await;
    let mut relay = run(&[0]).await;
    append_now(&aws, "stock", 1).await;
    assert!(relay.terminate().await.success(), "{}", relay.output());
    // What was written while it was stopped is the saga's where it had subscribed to it, and history where it had not.
    append_now(&aws, "orders", 1).await;
    append_now(&aws, "stock", 2).await;
    saga("[{ domain = \"orders\" }, { domain = \"stock\" }]");
    let mut relay = run(&[0, 1]).await;
    append_now(&aws, "stock", 3).await;
    append_now(&aws, "stock", 4).await;
    let expected: BTreeMap<String, Vec<u64>> =
        ["r0", "r1"].map(|id| (id.to_owned(), vec![0, 1, 3, 4])).into_iter().collect();
    until("the new ones are in the file", async || (home.sequences("billing.jsonl") == expected).then_some(())).await;
    assert!(relay.terminate().await.success(), "{}", relay.output());
    let (sound, findings, _) = home.command(&["audit", "--late-after", "0s"]);
    assert!(sound && findings.is_empty(), "{findings}");
    append_now(&aws, "stock", 5).await;
    let mut relay = home.start().await;
    let expected: BTreeMap<String, Vec<u64>> =
        ["r0", "r1"].map(|id| (id.to_owned(), vec![0, 1, 3, 4, 5])).into_iter().collect();
    until("a new start adds nothing", async || (home.sequences("billing.jsonl") == expected).then_some(())).await;
    assert!(relay.terminate().await.success(), "{}", relay.output());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edition_that_is_deleted_takes_its_positions_with_it_and_may_begin_anew() {
    let dynamo = dynamo_with_tables().await;
    let aws = clients(Some(dynamo.endpoint()), None).await;
    let names = TableNames::from_prefix(RelayHome::PREFIX);
    let home = RelayHome::new();
    let editions = "[{ domain = \"*\", editions = [\"angzarr\", \"what-if*\"] }]\non_edition_delete = \"purge\"";
    let text = [RELAY, &handler("view", "projector")].concat().replace("[{ domain = \"*\" }]", editions);
    home.configure(dynamo.endpoint(), &text.replace("[relay]", "[relay]\n    hole_timeout = \"500ms\""));
    let mut relay = home.start().await;
    let put = async |edition: &str, sequence: u64| {
        let put = aws.dynamodb.put_item().table_name(&names.events);
        let put = put.item("pk", AttributeValue::S(format!("orders#{edition}#r0")));
        let put = put.item("sk", AttributeValue::N(sequence.to_string()));
        let put = put.item("event_type", AttributeValue::S("Happened".into()));
        let put = put.item("payload", AttributeValue::B(vec![1].into()));
        put.item("created_at", AttributeValue::S("2026-01-31T12:00:00Z".into())).send().await.unwrap();
    };
    let given = async |expected: &[u64]| {
        until("the events are in the file", async || {
            (home.sequences("view.jsonl").get("r0").map(Vec::as_slice) == Some(expected)).then_some(())
        })
        .await;
    };
    // It diverges after the event 6 of the main timeline; another edition is nobody's.
    for sequence in 7..9 {
        put("what-if-1", sequence).await;
    }
    put("other", 0).await;
    given(&[7, 8]).await;
    let positions = async || keys(&aws, &names.positions, "view#orders#what-if-1#").await;
    until("its position is written", async || (positions().await == 1).then_some(())).await;
    for sequence in 7..9 {
        let remove = aws.dynamodb.delete_item().table_name(&names.events);
        let remove = remove.key("pk", AttributeValue::S("orders#what-if-1#r0".into()));
        remove.key("sk", AttributeValue::N(sequence.to_string())).send().await.unwrap();
    }
    until("its position is gone", async || (positions().await == 0).then_some(())).await;
    for sequence in 3..5 {
        put("what-if-1", sequence).await;
    }
    given(&[7, 8, 3, 4]).await;
    assert!(relay.terminate().await.success(), "{}", relay.output());
}
