//! Parked roots: what the tables say of them, and how an operator deals with them from the command line while the relay
//! runs.

use std::sync::{Arc, Mutex};

use angzarr_relay::aws::AwsClients;
use angzarr_relay::event::{Sequence, Timestamp};
use angzarr_relay::handler::HandlerName;
use angzarr_relay::storage::{
    Advance, DynamoMarks, DynamoPositions, Ending, Mark, MarkState, MarkStore as _, Marked, Marking,
    PositionStore as _, Skip, Standing,
};
use angzarr_relay::stream::{Branch, ShardId};
use angzarr_relay::time::Clock;
use serde_json::Value;

use crate::embedded::{clients, root, tables};
use crate::outage::{Service, billing, dynamo_with_tables, has_all_it_takes, serve, shows};
use crate::support::{RelayHome, Writer, until};

crate::scenarios!(
    a_mark_and_what_is_covered_are_written_together,
    a_mark_names_its_branch_where_it_has_one,
    what_is_left_of_a_mark_goes_only_as_it_is_known,
    a_mark_is_taken_away_only_as_it_is_known,
    a_released_root_is_deferred_and_the_order_is_seen,
    a_passed_event_moves_the_position_and_is_recorded,
);

/// Positions and marks of one handler, on tables of a scenario's own.
pub(crate) struct Tables {
    pub(crate) positions: DynamoPositions,
    pub(crate) marks: DynamoMarks,
    pub(crate) handler: HandlerName,
}

impl Tables {
    pub(crate) async fn new(aws: &AwsClients, prefix: &str) -> Self {
        let names = tables(aws, prefix).await;
        Self {
            positions: DynamoPositions::new(aws, &names.positions, Clock::system()),
            marks: DynamoMarks::new(aws, &names, Clock::system()),
            handler: HandlerName::new("h#1").unwrap(),
        }
    }

    pub(crate) async fn standing(&self, id: &str) -> Standing {
        self.positions.load(&self.handler, &[root(id)]).await.unwrap().remove(0)
    }

    async fn park(&self, id: &str, covered: Option<u64>, at: &Mark) -> Marking {
        let standing = Standing { position: covered.map(Sequence), ..self.standing(id).await };
        self.marks.mark(&self.handler, &root(id), &standing, at).await.unwrap()
    }
}

fn mark(sequence: u64) -> Mark {
    Mark::new(MarkState::Parked, Sequence(sequence), 3, "refused: 400", Timestamp::from_unix_millis(1_700_000_000_123))
}

fn at(position: Option<u64>, mark: Option<Mark>) -> Standing {
    Standing { position: position.map(Sequence), mark, passed: None }
}

async fn a_mark_and_what_is_covered_are_written_together(aws: &AwsClients, prefix: &str) {
    let tables = Tables::new(aws, prefix).await;
    assert_eq!(tables.park("new", None, &mark(0)).await, Marking::Done);
    assert_eq!(tables.standing("new").await, at(None, Some(mark(0))));
    assert_eq!(tables.park("old", Some(4), &mark(5)).await, Marking::Done);
    assert_eq!(tables.park("old", Some(4), &mark(5)).await, Marking::Done, "a lost reply is made good");
    assert_eq!(tables.standing("old").await, at(Some(4), Some(mark(5))));
    assert_eq!(tables.park("old", Some(3), &mark(4)).await, Marking::Refused, "the position never goes back");
    assert_eq!(tables.park("old", None, &mark(0)).await, Marking::Refused);
    assert_eq!(tables.standing("old").await, at(Some(4), Some(mark(5))));
    let mut listed = tables.marks.list(&tables.handler).await.unwrap();
    listed.sort_by_key(|(root, _)| root.id().to_owned());
    assert_eq!(listed, [(root("new"), mark(0)), (root("old"), mark(5))]);
    assert!(tables.marks.list(&HandlerName::new("other").unwrap()).await.unwrap().is_empty());
    assert_eq!(tables.standing("old").await.mark, Some(mark(5)));
}

async fn a_mark_names_its_branch_where_it_has_one(aws: &AwsClients, prefix: &str) {
    let tables = Tables::new(aws, prefix).await;
    let branch = Some(Branch(ShardId::new("shardId-00000001700000000000-0a1b2c3d")));
    let deferred = Mark { state: MarkState::Deferred, branch: branch.clone(), ..mark(5) };
    assert_eq!(tables.park("r", Some(4), &deferred).await, Marking::Done);
    assert_eq!(tables.standing("r").await.mark, Some(deferred.clone()));
    assert_eq!(tables.marks.list(&tables.handler).await.unwrap(), [(root("r"), deferred.clone())]);
    let marked = tables.marks.marked(&tables.handler).await.unwrap();
    assert_eq!(marked, Marked { deferred: vec![(root("r"), branch.clone())], ..Marked::default() });
    // A release keeps it; a mark without one has none.
    assert_eq!(tables.park("r", Some(4), &Mark { branch: branch.clone(), ..mark(5) }).await, Marking::Done);
    let parked = tables.standing("r").await;
    assert_eq!(tables.marks.release(&tables.handler, &root("r"), &parked).await.unwrap(), Marking::Done);
    assert_eq!(tables.standing("r").await.mark.and_then(|mark| mark.branch), branch);
    assert_eq!(tables.park("r", Some(4), &mark(5)).await, Marking::Done);
    assert_eq!(tables.standing("r").await.mark, Some(mark(5)));
    assert_eq!(tables.marks.list(&tables.handler).await.unwrap(), [(root("r"), mark(5))]);
}

async fn a_mark_is_taken_away_only_as_it_is_known(aws: &AwsClients, prefix: &str) {
    let tables = Tables::new(aws, prefix).await;
    tables.park("r", Some(4), &mark(5)).await;
    let unmark = async |mark: Mark| tables.marks.unmark(&tables.handler, &root("r"), &mark).await.unwrap();
    assert_eq!(unmark(mark(6)).await, Marking::Refused);
    assert_eq!(unmark(Mark { state: MarkState::Deferred, ..mark(5) }).await, Marking::Refused);
    assert_eq!(unmark(mark(5)).await, Marking::Done);
    assert_eq!(tables.standing("r").await, at(Some(4), None));
    assert!(tables.marks.list(&tables.handler).await.unwrap().is_empty());
    assert_eq!(unmark(mark(5)).await, Marking::Refused);
}

async fn what_is_left_of_a_mark_goes_only_as_it_is_known(aws: &AwsClients, prefix: &str) {
    let tables = Tables::new(aws, prefix).await;
    let marked = async || tables.marks.marked(&tables.handler).await.unwrap();
    let forget = async |ending: &Ending| tables.marks.forget(&tables.handler, &root("r"), ending).await.unwrap();
    let branch = Some(Branch(ShardId::new("shardId-00000001700000000000-0a1b2c3d")));
    let first = Mark { branch, ..mark(5) };
    tables.park("r", Some(4), &first).await;
    assert_eq!(forget(&Ending::of(&first)).await, Marking::Refused, "it is a mark still");
    let unmark = async |mark: &Mark| tables.marks.unmark(&tables.handler, &root("r"), mark).await.unwrap();
    assert_eq!(unmark(&first).await, Marking::Done);
    assert_eq!(marked().await, Marked { ending: vec![(root("r"), Ending::of(&first))], ..Marked::default() });
    // It is marked once more, and that mark is taken away, too: the first look is not the last.
    tables.park("r", Some(4), &mark(6)).await;
    assert_eq!(marked().await, Marked { parked: 1, ..Marked::default() });
    assert_eq!(unmark(&mark(6)).await, Marking::Done);
    assert_eq!(forget(&Ending::of(&first)).await, Marking::Refused);
    assert_eq!(forget(&Ending::of(&mark(6))).await, Marking::Done);
    assert_eq!(marked().await, Marked::default());
}

async fn a_released_root_is_deferred_and_the_order_is_seen(aws: &AwsClients, prefix: &str) {
    let tables = Tables::new(aws, prefix).await;
    tables.park("r", None, &mark(0)).await;
    let before = tables.marks.orders().await.unwrap();
    assert_eq!(tables.marks.marked(&tables.handler).await.unwrap(), Marked { parked: 1, ..Marked::default() });
    let parked = tables.standing("r").await;
    let release = async || tables.marks.release(&tables.handler, &root("r"), &parked).await.unwrap();
    assert_eq!(release().await, Marking::Done);
    assert_eq!(release().await, Marking::Refused, "it is parked no longer");
    let marked = tables.marks.marked(&tables.handler).await.unwrap();
    assert_eq!(marked, Marked { deferred: vec![(root("r"), None)], ..Marked::default() });
    let released = tables.standing("r").await.mark.unwrap();
    assert_eq!((released.state, released.sequence, released.attempts), (MarkState::Deferred, Sequence(0), 0));
    assert_eq!(tables.marks.orders().await.unwrap(), before + 1);
}

async fn a_passed_event_moves_the_position_and_is_recorded(aws: &AwsClients, prefix: &str) {
    let tables = Tables::new(aws, prefix).await;
    tables.park("r", Some(4), &mark(5)).await;
    let parked = tables.standing("r").await;
    assert_eq!(tables.marks.skip(&tables.handler, &root("r"), &parked).await.unwrap(), Marking::Done);
    let standing = tables.standing("r").await;
    assert_eq!(standing.position, Some(Sequence(5)));
    assert_eq!(standing.mark.map(|mark| (mark.state, mark.sequence)), Some((MarkState::Deferred, Sequence(6))));
    // By the relay itself: the record alone.
    let skip = Skip { sequence: Sequence(7), attempts: 2, reason: "refused".into() };
    tables.marks.record_skip(&tables.handler, &root("r"), &skip).await.unwrap();
    let recorded = (aws.dynamodb.query())
        .table_name(format!("{prefix}-relay"))
        .key_condition_expression("pk = :pk")
        .expression_attribute_values(":pk", aws_sdk_dynamodb::types::AttributeValue::S("skipped#h%231".into()))
        .send()
        .await
        .unwrap();
    let sequences: Vec<&str> = recorded.items().iter().map(|item| item["sequence"].as_n().unwrap().as_str()).collect();
    assert_eq!(sequences, ["5", "7"]);
    // A position that somebody moved on is not set back.
    tables.park("moved", Some(4), &mark(5)).await;
    let parked = tables.standing("moved").await;
    let advance = Advance { root: root("moved"), from: Some(Sequence(4)), to: Sequence(9) };
    tables.positions.advance(&tables.handler, &[advance]).await.remove(0).unwrap();
    assert_eq!(tables.marks.skip(&tables.handler, &root("moved"), &parked).await.unwrap(), Marking::Refused);
    assert_eq!(tables.standing("moved").await.position, Some(Sequence(9)));
}

fn parked(home: &RelayHome) -> Vec<Value> {
    let (worked, listed, said) = home.command(&["parked", "list", "--json"]);
    assert!(worked, "{said}");
    listed.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poisoned_root_parks_and_is_released_from_the_command_line() {
    let dynamo = dynamo_with_tables().await;
    let mut writer = Writer::new(&clients(Some(dynamo.endpoint()), None).await);
    let service = Arc::new(Mutex::new(Service { refused: Some("r3".into()), ..Service::default() }));
    let url = serve(service.clone()).await;
    let home = RelayHome::new();
    home.configure(dynamo.endpoint(), &billing(&url, "projector", ""));
    let mut relay = home.start().await;
    writer.append_to(0..10, 6).await;
    until("the other roots are through", async || has_all_it_takes(&service, &writer)).await;
    let listed = until("the root is parked", async || Some(parked(&home)).filter(|listed| !listed.is_empty())).await;
    assert_eq!(
        (&listed[0]["handler"], &listed[0]["root"], &listed[0]["sequence"]),
        (&"billing".into(), &"r3".into(), &0.into())
    );
    assert_eq!(listed.len(), 1);
    for (arguments, count) in [
        (["--handler", "billing"], 1),
        (["--handler", "another"], 0),
        (["--domain", "orders"], 1),
        (["--domain", "carts"], 0),
    ] {
        let (_, listed, said) = home.command(&[&["parked", "list", "--json"], &arguments[..]].concat());
        assert_eq!(listed.lines().count(), count, "{arguments:?}: {listed}{said}");
    }
    shows(&relay, r#"angzarr_relay_stuck_roots{handler="billing",state="parked"}"#, 1.0).await;
    // A parked root holds neither lag nor checkpoint, and what comes later is left in the table.
    shows(&relay, r#"angzarr_relay_handler_lag_seconds{handler="billing"}"#, 0.0).await;
    shows(&relay, r#"angzarr_relay_roots_parked_total{handler="billing"}"#, 1.0).await;
    writer.append_to(0..10, 3).await;
    until("the other roots are through again", async || has_all_it_takes(&service, &writer)).await;
    let (_, shown, said) = home.command(&["parked", "show", "billing", "orders", "r3"]);
    assert!(shown.contains("400") && shown.contains("before its event 0"), "{shown}{said}");

    // A park survives a new start.
    assert!(relay.terminate().await.success(), "{}", relay.output());
    let mut relay = home.start().await;
    writer.append_to(0..10, 1).await;
    until("the other roots go on", async || has_all_it_takes(&service, &writer)).await;
    assert_eq!(parked(&home).len(), 1);

    // The handler is mended; the root is released, and delivered to its end.
    service.lock().unwrap().refused = None;
    let (worked, released, said) = home.command(&["parked", "release", "billing", "orders", "r3"]);
    assert!(worked && released.contains("released 1"), "{released}{said}");
    until("the root goes on", async || has_all_it_takes(&service, &writer)).await;
    until("its mark is gone", async || parked(&home).is_empty().then_some(())).await;
    shows(&relay, r#"angzarr_relay_stuck_roots{handler="billing",state="parked"}"#, 0.0).await;
    let (worked, _, said) = home.command(&["parked", "release", "billing", "orders", "r3"]);
    assert!(!worked && said.contains("is not parked") && said.lines().count() == 1, "{said}");
    writer.append_to(0..10, 2).await;
    until("it has joined the stream", async || has_all_it_takes(&service, &writer)).await;
    assert!(relay.terminate().await.success(), "{}", relay.output());
    assert_eq!(service.lock().unwrap().taken, *writer.written());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poisoned_event_is_passed_by_an_operator_while_the_relay_is_stopped() {
    let dynamo = dynamo_with_tables().await;
    let mut writer = Writer::new(&clients(Some(dynamo.endpoint()), None).await);
    let service = Arc::new(Mutex::new(Service { refused: Some("r1".into()), ..Service::default() }));
    let url = serve(service.clone()).await;
    let home = RelayHome::new();
    home.configure(dynamo.endpoint(), &billing(&url, "saga", "start = \"beginning\""));
    let mut relay = home.start().await;
    writer.append_to(0..3, 4).await;
    until("the root is parked", async || (parked(&home).len() == 1).then_some(())).await;
    until("the other roots are through", async || has_all_it_takes(&service, &writer)).await;
    assert!(relay.terminate().await.success(), "{}", relay.output());

    let (worked, _, said) = home.command(&["parked", "release", "billing", "--all"]);
    assert!(!worked && said.contains("--rerun-side-effects"), "{said}");
    let (worked, passed, said) = home.command(&["parked", "skip", "billing", "orders", "r1"]);
    assert!(worked && passed.contains("passed"), "{passed}{said}");
    service.lock().unwrap().refused = None;
    let mut relay = home.start().await;
    until("what follows is delivered", async || {
        (service.lock().unwrap().taken.get("r1").map(Vec::as_slice) == Some(&[1, 2, 3])).then_some(())
    })
    .await;
    // What was passed is found, and can be ordered after all.
    let (worked, skipped, said) = home.command(&["parked", "skipped", "--json"]);
    let skipped: Value = serde_json::from_str(skipped.trim()).unwrap_or_else(|_| panic!("{worked} {skipped} {said}"));
    assert_eq!((&skipped["root"], &skipped["sequence"]), (&"r1".into(), &0.into()));
    let back = ["rewind", "billing", "--domain", "orders", "--root", "r1", "--to", "0", "--rerun-side-effects"];
    until("it is ordered", async || home.command(&back).0.then_some(())).await;
    until("it is delivered, and what follows it again", async || {
        let taken = service.lock().unwrap().taken["r1"].clone();
        (taken == [1, 2, 3, 0, 1, 2, 3]).then_some(())
    })
    .await;
    assert!(relay.terminate().await.success(), "{}", relay.output());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_handler_holds_no_other_survives_a_new_start_and_catches_up() {
    let dynamo = dynamo_with_tables().await;
    let mut writer = Writer::new(&clients(Some(dynamo.endpoint()), None).await);
    let service = Arc::new(Mutex::new(Service::default()));
    let url = serve(service.clone()).await;
    let home = RelayHome::new();
    let audit = r#"
        [[handlers]]
        name = "audit"
        subscribe = [{ domain = "*" }]
        jsonl = { path = "HOME/audit.jsonl" }
    "#;
    // So that it warns as soon as anything waits.
    let settings = billing(&url, "projector", audit).replace("[relay]", "[relay]\nsafety_alarm = \"24h\"");
    home.configure(dynamo.endpoint(), &settings);
    let audited = async |writer: &Writer| {
        until("the other goes on", async || (home.sequences("audit.jsonl") == *writer.written()).then_some(())).await;
    };
    let mut relay = home.start().await;
    writer.append_to(0..5, 3).await;
    until("both have everything", async || has_all_it_takes(&service, &writer)).await;
    audited(&writer).await;

    let (worked, paused, said) = home.command(&["pause", "billing"]);
    assert!(worked && paused.contains("resume billing"), "{paused}{said}");
    shows(&relay, r#"angzarr_relay_handler_paused_ratio{handler="billing"}"#, 1.0).await;
    let before = service.lock().unwrap().taken.clone();
    writer.append_to(0..5, 3).await;
    audited(&writer).await;
    let safety = async |handler: &str| {
        relay.metric(&format!("angzarr_relay_safety_clock_seconds{{handler=\"{handler}\"}}")).await
    };
    let day = 24.0 * 3600.0;
    until("the clock of what waits runs down", async || safety("billing").await.filter(|left| *left < day)).await;
    shows(&relay, r#"angzarr_relay_safety_clock_seconds{handler="audit"}"#, day).await;
    until("it warns", async || {
        relay.output().contains("the stream will trim what the handler has not been given").then_some(())
    })
    .await;
    assert!(relay.terminate().await.success(), "{}", relay.output());
    let mut relay = home.start().await;
    writer.append_to(0..5, 3).await;
    audited(&writer).await;
    assert_eq!(service.lock().unwrap().taken, before, "it was given nothing");

    let (worked, _, said) = home.command(&["resume", "billing"]);
    assert!(worked, "{said}");
    until("it has caught up", async || has_all_it_takes(&service, &writer)).await;
    assert!(relay.terminate().await.success(), "{}", relay.output());
}
