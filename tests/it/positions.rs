//! Positions: they only grow, whatever their caller believes the table holds.

use angzarr_relay::aws::AwsClients;
use angzarr_relay::event::{Root, Sequence, Timestamp};
use angzarr_relay::handler::HandlerName;
use angzarr_relay::storage::{
    Advance, Advanced, DynamoMarks, DynamoPositions, Mark, MarkState, MarkStore as _, Marking, PositionStore as _,
    Standing, StorageError, TableNames,
};
use angzarr_relay::time::Clock;
use aws_sdk_dynamodb::types::AttributeValue;

use crate::embedded::{root, tables};

crate::scenarios!(
    positions_only_grow,
    a_wrong_belief_changes_nothing,
    a_row_with_marks_alone_gets_its_position,
    many_positions_go_in_batches,
    an_unreadable_position_is_an_error,
    lists_by_handler_and_root,
    preloads_within_its_pages,
    a_missing_table_fails_each_advance,
);

fn name(name: &str) -> HandlerName {
    HandlerName::new(name).unwrap()
}

async fn store(aws: &AwsClients, prefix: &str) -> DynamoPositions {
    let moment = Timestamp::parse("2026-01-31T12:00:00Z").unwrap();
    DynamoPositions::new(aws, &tables(aws, prefix).await.positions, Clock::starting_at(moment))
}

fn to(root: &Root, from: Option<u64>, to: u64) -> Advance {
    Advance { root: root.clone(), from: from.map(Sequence), to: Sequence(to) }
}

async fn advance(store: &DynamoPositions, handler: &HandlerName, advances: &[Advance]) -> Vec<Advanced> {
    store.advance(handler, advances).await.into_iter().map(Result::unwrap).collect()
}

const WRITTEN: Advanced = Advanced::Written;

fn refused(durable: u64) -> Advanced {
    Advanced::Refused { durable: Sequence(durable) }
}

async fn load(store: &DynamoPositions, handler: &HandlerName, roots: &[Root]) -> Vec<Option<Sequence>> {
    store.load(handler, roots).await.unwrap().into_iter().map(|standing| standing.position).collect()
}

async fn positions_only_grow(aws: &AwsClients, prefix: &str) {
    let store = store(aws, prefix).await;
    let (handler, other, root) = (name("h#1%"), name("other"), root("a#b"));
    assert_eq!(load(&store, &handler, std::slice::from_ref(&root)).await, [None]);
    assert_eq!(advance(&store, &handler, &[to(&root, None, 5)]).await, [WRITTEN]);
    assert_eq!(advance(&store, &handler, &[to(&root, Some(5), 9)]).await, [WRITTEN]);
    assert_eq!(advance(&store, &handler, &[to(&root, Some(5), 9)]).await, [refused(9)]);
    assert_eq!(advance(&store, &handler, &[to(&root, Some(5), 7)]).await, [refused(9)]);
    assert_eq!(load(&store, &handler, std::slice::from_ref(&root)).await, [Some(Sequence(9))]);
    assert_eq!(load(&store, &other, std::slice::from_ref(&root)).await, [None]);

    let item = (aws.dynamodb.get_item())
        .table_name(TableNames::from_prefix(prefix).positions)
        .key("pk", AttributeValue::S("h%231%25#orders#angzarr#a#b".into()))
        .send()
        .await
        .unwrap()
        .item
        .unwrap();
    assert_eq!(item["sequence"], AttributeValue::N("9".into()));
    assert_eq!(item["updated_at"].as_s().unwrap()[..19], *"2026-01-31T12:00:00");
    assert_eq!(item.len(), 3);
}

async fn a_wrong_belief_changes_nothing(aws: &AwsClients, prefix: &str) {
    let store = store(aws, prefix).await;
    let (handler, here, gone) = (name("h"), root("here"), root("gone"));
    assert_eq!(advance(&store, &handler, &[to(&here, None, 5)]).await, [WRITTEN]);
    // Believed new, but there; believed there, but new.
    let answers = advance(&store, &handler, &[to(&here, None, 6), to(&gone, Some(3), 4)]).await;
    assert_eq!(answers, [WRITTEN, WRITTEN]);
    let answers = advance(&store, &handler, &[to(&here, None, 6), to(&gone, None, 2)]).await;
    assert_eq!(answers, [refused(6), refused(4)]);
    let found = load(&store, &handler, &[gone, here.clone(), here]).await;
    assert_eq!(found, [Some(Sequence(4)), Some(Sequence(6)), Some(Sequence(6))]);
}

async fn put(aws: &AwsClients, prefix: &str, key: &str, attribute: &str, value: AttributeValue) {
    (aws.dynamodb.put_item())
        .table_name(TableNames::from_prefix(prefix).positions)
        .item("pk", AttributeValue::S(key.into()))
        .item(attribute, value)
        .send()
        .await
        .unwrap();
}

async fn a_row_with_marks_alone_gets_its_position(aws: &AwsClients, prefix: &str) {
    let store = store(aws, prefix).await;
    let handler = name("h");
    for (id, from) in [("1", None), ("2", Some(0))] {
        let root = root(id);
        let mark = Mark::new(MarkState::Parked, Sequence(0), 3, "refused", Timestamp::from_unix_millis(1000));
        let marks = DynamoMarks::new(aws, &TableNames::from_prefix(prefix), Clock::system());
        assert_eq!(marks.mark(&handler, &root, &Standing::default(), &mark).await.unwrap(), Marking::Done);
        let standing = store.load(&handler, std::slice::from_ref(&root)).await.unwrap().remove(0);
        assert_eq!(standing, Standing { position: None, mark: Some(mark), passed: None });
        assert_eq!(load(&store, &handler, std::slice::from_ref(&root)).await, [None]);
        assert_eq!(advance(&store, &handler, &[to(&root, from, 1)]).await, [WRITTEN]);
        assert_eq!(advance(&store, &handler, &[to(&root, None, 1)]).await, [refused(1)]);
        let item = (aws.dynamodb.get_item())
            .table_name(TableNames::from_prefix(prefix).positions)
            .key("pk", AttributeValue::S(format!("h#{}", root.key())))
            .send()
            .await
            .unwrap()
            .item
            .unwrap();
        assert_eq!(item["mark"], AttributeValue::S("parked".into()), "the mark stays");
    }
}

async fn many_positions_go_in_batches(aws: &AwsClients, prefix: &str) {
    let store = store(aws, prefix).await;
    let handler = name("h");
    let roots: Vec<Root> = (0..230).map(|number| root(&number.to_string())).collect();
    // Every third is there already, beyond what will be written.
    let there: Vec<Advance> = roots.iter().step_by(3).map(|root| to(root, None, 10)).collect();
    assert!(advance(&store, &handler, &there).await.iter().all(|answer| *answer == WRITTEN));
    let advances: Vec<Advance> = roots.iter().map(|root| to(root, None, 1)).collect();
    for (number, answer) in advance(&store, &handler, &advances).await.into_iter().enumerate() {
        assert_eq!(answer, if number % 3 == 0 { refused(10) } else { WRITTEN }, "{number}");
    }
    let found = load(&store, &handler, &roots[..100]).await;
    for (number, sequence) in found.into_iter().enumerate() {
        assert_eq!(sequence, Some(Sequence(if number % 3 == 0 { 10 } else { 1 })), "{number}");
    }
    assert!(matches!(store.load(&handler, &roots[..101]).await, Err(StorageError::Invalid { .. })));
    assert!(store.load(&handler, &[]).await.unwrap().is_empty());
    assert!(store.advance(&handler, &[]).await.is_empty());
}

async fn an_unreadable_position_is_an_error(aws: &AwsClients, prefix: &str) {
    let store = store(aws, prefix).await;
    let (handler, root) = (name("h"), root("1"));
    put(aws, prefix, &format!("h#{}", root.key()), "sequence", AttributeValue::S("7".into())).await;
    assert!(matches!(store.load(&handler, std::slice::from_ref(&root)).await, Err(StorageError::Unreadable { .. })));
    for from in [None, Some(3)] {
        let answers = store.advance(&handler, &[to(&root, from, 9)]).await;
        assert!(matches!(answers[..], [Err(StorageError::Unreadable { .. })]), "{answers:?}");
    }
}

async fn lists_by_handler_and_root(aws: &AwsClients, prefix: &str) {
    let store = store(aws, prefix).await;
    let (one, two) = (root("x"), Root::new("o", "", "rders#angzarr#x#orders#angzarr#x").unwrap());
    for handler in ["h", "h2", "h#1"] {
        advance(&store, &name(handler), &[to(&one, None, 1), to(&two, None, 2)]).await;
    }
    let list = async |handler: Option<&str>, root: Option<&Root>| {
        let handler = handler.map(name);
        let page = store.list(handler.as_ref(), root, None).await.unwrap();
        assert_eq!(page.next, None);
        let mut rows: Vec<_> = page.rows.iter().map(|row| (row.handler.to_string(), row.sequence.0)).collect();
        rows.sort();
        rows
    };
    let rows =
        |rows: &[(&str, u64)]| rows.iter().map(|(name, sequence)| ((*name).to_owned(), *sequence)).collect::<Vec<_>>();
    assert_eq!(list(Some("h"), None).await, rows(&[("h", 1), ("h", 2)]));
    assert_eq!(list(None, Some(&one)).await, rows(&[("h", 1), ("h#1", 1), ("h2", 1)]));
    assert_eq!(list(Some("h#1"), Some(&two)).await, rows(&[("h#1", 2)]));
    assert_eq!(list(Some("nobody"), Some(&two)).await, rows(&[]));
    assert_eq!(list(None, None).await.len(), 6);
}

async fn preloads_within_its_pages(aws: &AwsClients, prefix: &str) {
    let store = store(aws, prefix).await;
    let (handler, other) = (name("h"), name("other"));
    advance(&store, &handler, &[to(&root("1"), None, 1), to(&root("2"), None, 2)]).await;
    advance(&store, &other, &[to(&root("1"), None, 3)]).await;
    let preloaded = store.preload(std::slice::from_ref(&handler), 1).await.unwrap();
    let mut positions: Vec<_> =
        preloaded.positions.into_iter().map(|(handler, root, standing)| (handler, root, standing.position)).collect();
    positions.sort();
    let expected = |id, sequence| (handler.clone(), root(id), Some(Sequence(sequence)));
    assert_eq!(positions, [expected("1", 1), expected("2", 2)]);
    assert!(preloaded.complete);
    // Six rows of 400 KB are more than a page, wherever they lie.
    for number in 0..6 {
        let value = AttributeValue::S("x".repeat(399_000));
        put(aws, prefix, &format!("large#d##{number}"), "other", value).await;
    }
    assert!(!store.preload(std::slice::from_ref(&handler), 1).await.unwrap().complete);
    assert!(!store.preload(std::slice::from_ref(&handler), 0).await.unwrap().complete);
    let preloaded = store.preload(&[handler], 10).await.unwrap();
    assert_eq!((preloaded.positions.len(), preloaded.complete), (2, true));
}

async fn a_missing_table_fails_each_advance(aws: &AwsClients, prefix: &str) {
    let store = DynamoPositions::new(aws, prefix, Clock::system());
    let answers = store.advance(&name("h"), &[to(&root("1"), None, 1), to(&root("2"), Some(0), 1)]).await;
    assert_eq!(answers.len(), 2);
    for answer in answers {
        assert!(matches!(answer, Err(StorageError::NoTable { .. })), "{answer:?}");
    }
}
