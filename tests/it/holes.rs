//! Holes of the events table that a handler passes, and what appears in one later: on the tables, and as its operator
//! meets it.

use angzarr_relay::aws::AwsClients;
use angzarr_relay::event::{Sequence, Timestamp};
use angzarr_relay::storage::{
    Advance, Hole, Mark, MarkState, MarkStore as _, Marking, Pass, Passed, PositionStore as _, Standing,
};
use serde_json::Value;

use crate::embedded::{clients, root};
use crate::outage::dynamo_with_tables;
use crate::parking::Tables;
use crate::support::{RelayHome, fill, until};

crate::scenarios!(
    a_passed_hole_moves_the_position_and_is_kept_and_recorded,
    a_hole_is_passed_only_by_who_knows_how_the_root_stands,
    what_appeared_in_a_hole_is_released_or_left_out,
);

impl Tables {
    async fn pass(&self, id: &str, standing: &Standing, first: u64, last: u64) -> Marking {
        let hole = Hole { first: Sequence(first), last: Sequence(last) };
        let passed = standing.passed.as_deref().cloned().unwrap_or_default().with(hole).unwrap();
        let pass = Pass { hole, passed, reason: "a hole".into() };
        self.marks.pass(&self.handler, &root(id), standing, &pass).await.unwrap()
    }

    async fn advance(&self, id: &str, from: Option<u64>, to: u64) {
        let advance = Advance { root: root(id), from: from.map(Sequence), to: Sequence(to) };
        self.positions.advance(&self.handler, &[advance]).await.remove(0).unwrap();
    }
}

fn passed(standing: &Standing) -> Option<String> {
    standing.passed.as_deref().map(Passed::to_string)
}

async fn a_passed_hole_moves_the_position_and_is_kept_and_recorded(aws: &AwsClients, prefix: &str) {
    let tables = Tables::new(aws, prefix).await;
    // Nothing was written of the root so far, though two events were accepted.
    let accepted = Standing { position: Some(Sequence(1)), ..Standing::default() };
    assert_eq!(tables.pass("r", &accepted, 2, 3).await, Marking::Done);
    let standing = tables.standing("r").await;
    assert_eq!((standing.position, passed(&standing)), (Some(Sequence(3)), Some("2-3".into())));
    // The position goes on, and the holes stay.
    tables.advance("r", Some(3), 7).await;
    let standing = tables.standing("r").await;
    assert_eq!((standing.position, passed(&standing)), (Some(Sequence(7)), Some("2-3".into())));
    assert_eq!(tables.pass("r", &standing, 8, 8).await, Marking::Done);
    let standing = tables.standing("r").await;
    assert_eq!((standing.position, passed(&standing)), (Some(Sequence(8)), Some("2-3,8".into())));
    let known = tables.positions.preload(std::slice::from_ref(&tables.handler), 10).await.unwrap();
    assert_eq!(known.positions, [(tables.handler.clone(), root("r"), standing)], "read ahead, too");
    let skips = tables.marks.skips(&tables.handler).await.unwrap();
    assert_eq!(skips.iter().map(|(_, skip, _)| skip.sequence.0).collect::<Vec<_>>(), [2, 8]);
    // A root that was ordered back has its position behind the hole already.
    assert_eq!(tables.pass("r", &tables.standing("r").await, 5, 5).await, Marking::Done);
    assert_eq!(tables.standing("r").await.position, Some(Sequence(8)));
}

async fn a_hole_is_passed_only_by_who_knows_how_the_root_stands(aws: &AwsClients, prefix: &str) {
    let tables = Tables::new(aws, prefix).await;
    let nothing = Standing::default();
    assert_eq!(tables.pass("r", &nothing, 0, 1).await, Marking::Done);
    assert_eq!(tables.pass("r", &nothing, 0, 1).await, Marking::Refused, "the reply to the first was lost");
    let known = tables.standing("r").await;
    tables.advance("r", Some(1), 9).await;
    assert_eq!(tables.pass("r", &known, 2, 2).await, Marking::Refused, "the position is beyond it");
    let known = tables.standing("r").await;
    let mark = Mark::new(MarkState::Parked, Sequence(10), 1, "refused", Timestamp::from_unix_millis(0));
    assert_eq!(tables.marks.mark(&tables.handler, &root("r"), &known, &mark).await.unwrap(), Marking::Done);
    assert_eq!(tables.pass("r", &known, 10, 12).await, Marking::Refused, "it is parked");
    let standing = tables.standing("r").await;
    assert_eq!((standing.position, passed(&standing)), (Some(Sequence(9)), Some("0-1".into())), "a mark keeps them");
}

async fn what_appeared_in_a_hole_is_released_or_left_out(aws: &AwsClients, prefix: &str) {
    let tables = Tables::new(aws, prefix).await;
    for (id, left_out) in [("released", false), ("left-out", true)] {
        let accepted = Standing { position: Some(Sequence(1)), ..Standing::default() };
        tables.pass(id, &accepted, 2, 5).await;
        tables.advance(id, Some(5), 8).await;
        let mark = Mark::new(MarkState::Parked, Sequence(4), 0, "it is there", Timestamp::from_unix_millis(0));
        let known = tables.standing(id).await;
        assert_eq!(tables.marks.mark(&tables.handler, &root(id), &known, &mark).await.unwrap(), Marking::Done);
        let parked = tables.standing(id).await;
        let order = async |standing: &Standing| {
            let (handler, root) = (&tables.handler, root(id));
            if left_out {
                return tables.marks.skip(handler, &root, standing).await.unwrap();
            }
            tables.marks.release(handler, &root, standing).await.unwrap()
        };
        assert_eq!(order(&parked).await, Marking::Done);
        assert_eq!(order(&parked).await, Marking::Refused, "it is parked no longer");
        let standing = tables.standing(id).await;
        let mark = standing.mark.clone().unwrap();
        assert_eq!((standing.position, mark.state), (Some(Sequence(8)), MarkState::Deferred));
        let expected = if left_out { (5, false, "2-3,5") } else { (4, true, "2-3") };
        assert_eq!((mark.sequence.0, mark.rewound, passed(&standing).unwrap().as_str()), expected);
    }
}

fn rows(sequences: &[u64]) -> Vec<(String, u64)> {
    sequences.iter().map(|sequence| ("r".to_owned(), *sequence)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hole_is_passed_and_its_root_parks_when_it_fills() {
    let dynamo = dynamo_with_tables().await;
    let aws = clients(Some(dynamo.endpoint()), None).await;
    let events = format!("{}-events", RelayHome::PREFIX);
    let home = RelayHome::new();
    let copy = r#"
        [relay]
        poll_interval_max = "250ms"
        hole_timeout = "1s"
        [[handlers]]
        name = "copy"
        subscribe = [{ domain = "*" }]
        on_hole = "pass"
        jsonl = { path = "HOME/copy.jsonl" }
    "#;
    home.configure(dynamo.endpoint(), copy);
    let mut relay = home.start().await;
    let given = async |sequences: &[u64]| {
        until("these events are given", async || {
            (home.sequences("copy.jsonl").get("r").map(Vec::as_slice) == Some(sequences)).then_some(())
        })
        .await;
    };
    fill(&aws, &events, &rows(&[0, 1])).await;
    given(&[0, 1]).await;
    fill(&aws, &events, &rows(&[4, 5])).await;
    given(&[0, 1, 4, 5]).await;
    assert_eq!(relay.metric(r#"angzarr_relay_holes_total{handler="copy"}"#).await, Some(1.0));
    let json = |arguments: &[&str]| -> Vec<Value> {
        let (_, stdout, stderr) = home.command(arguments);
        let lines = stdout.lines().map(serde_json::from_str);
        lines.collect::<Result<_, _>>().unwrap_or_else(|_| panic!("{stdout}{stderr}"))
    };
    let skipped = json(&["parked", "skipped", "--json"]);
    assert_eq!((&skipped[0]["root"], &skipped[0]["sequence"]), (&"r".into(), &2.into()));
    assert!(skipped[0]["reason"].as_str().unwrap().contains("2-3"), "{skipped:?}");
    until("nothing is wrong for this handler", async || {
        let (sound, stdout, _) = home.command(&["audit", "--json", "--late-after", "0s"]);
        (sound && stdout.is_empty()).then_some(())
    })
    .await;

    // One of the two appears while the relay is stopped.
    assert!(relay.terminate().await.success(), "{}", relay.output());
    fill(&aws, &events, &rows(&[3])).await;
    let found = json(&["audit", "--json"]);
    assert_eq!((found.len(), &found[0]["finding"]), (1, &"filled".into()), "{found:?}");
    let mut relay = home.start().await;
    let parked = async || json(&["parked", "list", "--json"]);
    let listed = until("the root is parked", async || Some(parked().await).filter(|listed| !listed.is_empty())).await;
    assert_eq!((&listed[0]["sequence"], listed.len()), (&3.into(), 1));
    let (worked, released, said) = home.command(&["parked", "release", "copy", "--all"]);
    assert!(worked && released.contains("released 1"), "{released}{said}");
    fill(&aws, &events, &rows(&[6])).await;
    given(&[0, 1, 4, 5, 3, 4, 5, 6]).await;
    until("its mark is gone", async || parked().await.is_empty().then_some(())).await;
    assert!(relay.terminate().await.success(), "{}", relay.output());
}
