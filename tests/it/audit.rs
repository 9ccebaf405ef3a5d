//! `audit` against a running relay: what was broken by hand is found, and mended where it can be.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use angzarr_relay::aws::AwsClients;
use angzarr_relay::storage::TableNames;
use aws_sdk_dynamodb::types::AttributeValue;
use serde_json::Value;

use crate::embedded::clients;
use crate::outage::{Service, billing, dynamo_with_tables, has_all_it_takes, serve};
use crate::support::{RelayHome, Writer, until};

/// The findings of an audit by root, and whether it said that all is well.
fn audit(home: &RelayHome, arguments: &[&str]) -> (bool, BTreeMap<String, Value>) {
    let arguments = [&["audit", "--json", "--late-after", "0s"], arguments].concat();
    let (sound, stdout, stderr) = home.command(&arguments);
    let findings = stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let findings: BTreeMap<String, Value> =
        findings.map(|finding| (finding["root"].as_str().unwrap().to_owned(), finding)).collect();
    assert!(stderr.contains("roots:"), "{stderr}");
    (sound, findings)
}

/// Sets a position by hand, or takes it away.
async fn set_position(aws: &AwsClients, root: &str, sequence: Option<u64>) {
    let table = TableNames::from_prefix(RelayHome::PREFIX).positions;
    let key = AttributeValue::S(format!("billing#orders#angzarr#{root}"));
    if let Some(sequence) = sequence {
        let put = aws.dynamodb.put_item().table_name(table).item("pk", key);
        let put = put.item("sequence", AttributeValue::N(sequence.to_string()));
        put.item("updated_at", AttributeValue::S("2026-01-31T12:00:00Z".into())).send().await.unwrap();
    } else {
        aws.dynamodb.delete_item().table_name(table).key("pk", key).send().await.unwrap();
    }
}

/// Takes the reason out of the mark of a root by hand.
async fn remove_reason(aws: &AwsClients, root: &str) {
    let table = TableNames::from_prefix(RelayHome::PREFIX).positions;
    let update = aws.dynamodb.update_item().table_name(table);
    let update = update.key("pk", AttributeValue::S(format!("billing#orders#angzarr#{root}")));
    let update = update.update_expression("REMOVE mark_reason").condition_expression("attribute_exists(mark_reason)");
    update.send().await.unwrap();
}

async fn remove_event(aws: &AwsClients, root: &str, sequence: u64) {
    remove_row(aws, &format!("orders#angzarr#{root}"), sequence).await;
}

async fn remove_row(aws: &AwsClients, pk: &str, sk: u64) {
    let table = TableNames::from_prefix(RelayHome::PREFIX).events;
    let remove = aws.dynamodb.delete_item().table_name(table).key("pk", AttributeValue::S(pk.to_owned()));
    remove.key("sk", AttributeValue::N(sk.to_string())).send().await.unwrap();
}

async fn put_chunk(aws: &AwsClients, pk: &str, number: u64) {
    let table = TableNames::from_prefix(RelayHome::PREFIX).events;
    let put = aws.dynamodb.put_item().table_name(table).item("pk", AttributeValue::S(pk.to_owned()));
    let put = put.item("sk", AttributeValue::N(number.to_string())).item("chunk", AttributeValue::B(vec![1].into()));
    put.item("written_at", AttributeValue::S("2026-01-31T12:00:00Z".into())).send().await.unwrap();
}

/// The append that wrote the chunks of an event.
async fn payload_append(aws: &AwsClients, root: &str, sequence: u64) -> String {
    let table = TableNames::from_prefix(RelayHome::PREFIX).events;
    let get = aws.dynamodb.get_item().table_name(table);
    let get = get.key("pk", AttributeValue::S(format!("orders#angzarr#{root}")));
    let answer = get.key("sk", AttributeValue::N(sequence.to_string())).send().await.unwrap();
    answer.item.unwrap()["append_id"].as_s().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_broken_by_hand_is_found_and_mended_where_it_can_be() {
    let dynamo = dynamo_with_tables().await;
    let aws = clients(Some(dynamo.endpoint()), None).await;
    let mut writer = Writer::new(&aws);
    let service = Arc::new(Mutex::new(Service { refused: Some("r3".into()), ..Service::default() }));
    let url = serve(service.clone()).await;
    let home = RelayHome::new();
    home.configure(dynamo.endpoint(), &billing(&url, "projector", "flush_interval = \"50ms\""));
    let mut relay = home.start().await;
    writer.append_to(0..10, 6).await;
    until("the other roots are through", async || has_all_it_takes(&service, &writer)).await;
    for number in [7, 8] {
        writer.append_payload(number, &vec![1; 800_000]).await;
    }
    until("nothing but the parked root is found", async || {
        let (sound, findings) = audit(&home, &[]);
        (sound && findings.len() == 1 && findings["r3"]["finding"] == "parked").then_some(())
    })
    .await;

    // A position that is gone, one that was set back, one set beyond the newest event, and an event that is gone.
    set_position(&aws, "r0", None).await;
    set_position(&aws, "r1", Some(2)).await;
    set_position(&aws, "r2", Some(60)).await;
    remove_event(&aws, "r4", 2).await;
    // Chunks that an append left behind, and an event that lacks one of its own.
    let append_id = payload_append(&aws, "r8", 6).await;
    for number in 0..2 {
        put_chunk(&aws, &format!("#chunk#orders#angzarr#r7#6#another{append_id}"), number).await;
    }
    remove_row(&aws, &format!("#chunk#orders#angzarr#r8#6#{append_id}"), 1).await;
    let (sound, findings) = audit(&home, &[]);
    assert!(!sound);
    let found: Vec<(&str, &str)> =
        findings.iter().map(|(root, finding)| (root.as_str(), finding["finding"].as_str().unwrap())).collect();
    assert_eq!(
        found,
        [
            ("r0", "missing"),
            ("r1", "missing"),
            ("r2", "ahead"),
            ("r3", "parked"),
            ("r4", "hole"),
            ("r7", "orphaned"),
            ("r8", "incomplete")
        ]
    );
    assert!(findings["r1"]["what"].as_str().unwrap().starts_with("event 3 "), "{findings:?}");

    let (sound, _) = audit(&home, &["--repair"]);
    assert!(!sound, "what was wrong is told though it was ordered to be mended");
    until("what was missing is delivered, and the rest is told still", async || {
        let (_, findings) = audit(&home, &[]);
        findings.keys().eq(["r2", "r3", "r4", "r8"]).then_some(())
    })
    .await;
    // Positions say what was delivered: without them it is delivered again, from behind them on and in order.
    let taken = service.lock().unwrap().taken.clone();
    assert_eq!(taken["r0"], [0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 5]);
    assert_eq!(taken["r1"], [0, 1, 2, 3, 4, 5, 3, 4, 5]);

    // The relay is stopped: what it has not been given is missing; at its next start it is not any more.
    assert!(relay.terminate().await.success(), "{}", relay.output());
    writer.append_to(5..7, 1).await;
    let (sound, findings) = audit(&home, &["--handler", "billing"]);
    assert!(!sound && findings.contains_key("r5") && findings.contains_key("r6"), "{findings:?}");
    // A position that is edited forward looks delivered, and that is said; a mark that says nothing of why is told.
    writer.append_to(9..10, 1).await;
    assert!(audit(&home, &[]).1.contains_key("r9"));
    set_position(&aws, "r9", Some(6)).await;
    remove_reason(&aws, "r3").await;
    let (_, findings) = audit(&home, &[]);
    assert!(!findings.contains_key("r9") && findings["r3"]["finding"] == "unexplained", "{findings:?}");
    let (_, _, said) = home.command(&["audit", "--repair"]);
    assert!(said.contains("edited forward within the events looks delivered"), "{said}");
    let mut relay = home.start().await;
    until("it is delivered", async || audit(&home, &[]).1.keys().eq(["r2", "r3", "r4", "r8"]).then_some(())).await;
    assert!(relay.terminate().await.success(), "{}", relay.output());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_saga_is_given_nothing_again_unless_it_is_said() {
    let dynamo = dynamo_with_tables().await;
    let aws = clients(Some(dynamo.endpoint()), None).await;
    let mut writer = Writer::new(&aws);
    let service = Arc::new(Mutex::new(Service::default()));
    let url = serve(service.clone()).await;
    let home = RelayHome::new();
    home.configure(dynamo.endpoint(), &billing(&url, "saga", "start = \"beginning\""));
    let mut relay = home.start().await;
    // The backfill is over: else the stream, which comes after it, finds the position that is edited below and believes it.
    until("the backfill is over", async || {
        let (_, status, _) = home.command(&["backfill", "status", "--json"]);
        status.lines().any(|line| line.contains(r#""state":"done""#)).then_some(())
    })
    .await;
    writer.append_to(0..3, 2).await;
    until("all is through", async || has_all_it_takes(&service, &writer)).await;
    until("all is well", async || audit(&home, &[]).0.then_some(())).await;
    set_position(&aws, "r1", Some(0)).await;
    audit(&home, &["--repair"]);
    let (_, findings) = audit(&home, &["--repair", "--rerun-side-effects"]);
    assert_eq!(findings["r1"]["finding"], "missing", "the first was refused");
    until("it is delivered", async || (service.lock().unwrap().taken["r1"] == [0, 1, 1]).then_some(())).await;
    until("all is well", async || audit(&home, &[]).1.is_empty().then_some(())).await;
    assert!(relay.terminate().await.success(), "{}", relay.output());
}
