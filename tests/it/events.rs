//! The event store: what an append guarantees, and what reading shows.

use angzarr_relay::aws::AwsClients;
use angzarr_relay::event::{PAYLOAD_BYTES_MAX, Root, Sequence};
use angzarr_relay::storage::{
    Consistency, EVENT_BYTES_MAX, EventSource as _, EventStore, NewEvent, RowPage, StorageError, TableNames,
};
use angzarr_relay::time::Random;
use aws_sdk_dynamodb::types::AttributeValue;

use crate::embedded::{event, events, root, tables};

crate::scenarios!(
    appends_and_reads_events,
    append_refuses_a_lost_race,
    one_of_two_writers_wins,
    append_refuses_a_gap,
    append_writes_nothing_that_is_too_large,
    append_takes_an_event_of_exactly_the_limit,
    an_append_with_a_token_happens_once,
    reads_page_by_page,
    a_row_that_is_no_event_comes_as_an_error,
    a_missing_table_is_named,
);

async fn store(aws: &AwsClients, prefix: &str) -> EventStore {
    EventStore::new(aws, &tables(aws, prefix).await.events, Random::from_entropy())
}

async fn read(store: &EventStore, root: &Root) -> RowPage {
    store.read(root, Sequence::FIRST, Consistency::Strong, 1000).await.unwrap()
}

fn sequences(page: &RowPage) -> Vec<u64> {
    page.rows
        .iter()
        .map(|row| row.as_ref().map_or_else(|invalid| invalid.sequence.0, |event| event.sequence.0))
        .collect()
}

async fn appends_and_reads_events(aws: &AwsClients, prefix: &str) {
    let store = store(aws, prefix).await;
    let root = Root::new("or#ders", "50%", "a#b c/ü%25").unwrap();
    let bytes: Vec<u8> = (0..=255).collect();
    let first = event("OrderPlaced", &bytes);
    let second = NewEvent { correlation_id: None, ..event("OrderPaid", b"") };
    let third = event("OrderShipped", b"3");
    assert_eq!(store.append(&root, None, &[first]).await.unwrap(), Sequence(0));
    assert_eq!(store.append(&root, Some(Sequence(0)), &[second, third]).await.unwrap(), Sequence(2));

    let page = read(&store, &root).await;
    assert_eq!((sequences(&page), page.next), (vec![0, 1, 2], None));
    let event = page.rows[0].as_ref().unwrap();
    assert_eq!((&event.root, &*event.event_type, &event.payload[..]), (&root, "OrderPlaced", &bytes[..]));
    assert_eq!(event.correlation_id.as_deref(), Some("c-1"));
    assert_eq!(event.created_at.to_string(), "2026-01-31T12:00:00.123Z");
    let event = page.rows[1].as_ref().unwrap();
    assert_eq!((&event.payload[..], event.correlation_id.as_deref()), (&b""[..], None));
    assert_eq!(store.last(&root).await.unwrap(), Some(Sequence(2)));
    assert_eq!(store.last(&crate::embedded::root("other")).await.unwrap(), None);
}

fn lost(answer: Result<Sequence, StorageError>) -> (u64, Option<u64>) {
    match answer {
        Err(StorageError::LostRace { expected, actual }) => (expected.0, actual.map(|actual| actual.0)),
        other => panic!("expected a lost race, not {other:?}"),
    }
}

async fn append_refuses_a_lost_race(aws: &AwsClients, prefix: &str) {
    let store = store(aws, prefix).await;
    let root = root("1");
    store.append(&root, None, &events(3)).await.unwrap();
    assert_eq!(lost(store.append(&root, None, &events(1)).await), (0, Some(2)));
    assert_eq!(lost(store.append(&root, Some(Sequence(0)), &events(1)).await), (1, Some(2)));
    // Of these five, two are there already and three are not: none may be written.
    assert_eq!(lost(store.append(&root, Some(Sequence(0)), &events(5)).await), (1, Some(2)));
    assert_eq!(sequences(&read(&store, &root).await), [0, 1, 2]);
}

async fn one_of_two_writers_wins(aws: &AwsClients, prefix: &str) {
    let store = store(aws, prefix).await;
    let root = root("1");
    let mut expected = None;
    for round in 0..10_u8 {
        let writers = [event("A", &[round]), event("B", &[round])].map(|event| {
            let (store, root) = (store.clone(), root.clone());
            tokio::spawn(async move { store.append(&root, expected, &[event]).await })
        });
        let mut won = 0;
        for writer in writers {
            match writer.await.unwrap() {
                Ok(_) => won += 1,
                Err(StorageError::LostRace { .. } | StorageError::Conflict { .. }) => {}
                Err(other) => panic!("{other}"),
            }
        }
        assert_eq!(won, 1, "round {round}");
        expected = Some(Sequence(u64::from(round)));
    }
    assert_eq!(sequences(&read(&store, &root).await), (0..10).collect::<Vec<_>>());
}

async fn append_refuses_a_gap(aws: &AwsClients, prefix: &str) {
    let store = store(aws, prefix).await;
    let root = root("1");
    store.append(&root, None, &events(2)).await.unwrap();
    for count in [1, 2] {
        let answer = store.append(&root, Some(Sequence(2)), &events(count)).await;
        assert!(matches!(answer, Err(StorageError::NotContiguous { first: Sequence(3) })), "{answer:?}");
        let answer = store.append(&crate::embedded::root("new"), Some(Sequence(0)), &events(count)).await;
        assert!(matches!(answer, Err(StorageError::NotContiguous { first: Sequence(1) })), "{answer:?}");
    }
    assert_eq!(sequences(&read(&store, &root).await), [0, 1]);

    // A root that begins above 0, as a diverged edition does, takes no event 0.
    let diverged = Root::new("orders", "what-if", "1").unwrap();
    put(aws, &TableNames::from_prefix(prefix).events, &diverged, "7", true).await;
    assert_eq!(lost(store.append(&diverged, None, &events(1)).await), (0, Some(7)));
    assert_eq!(store.append(&diverged, Some(Sequence(7)), &events(1)).await.unwrap(), Sequence(8));
}

async fn append_writes_nothing_that_is_too_large(aws: &AwsClients, prefix: &str) {
    let store = store(aws, prefix).await;
    let root = root("1");
    for too_much in [
        vec![event("Small", b"1"), event("Large", &vec![0; PAYLOAD_BYTES_MAX + 1])],
        vec![event("Large", &vec![0; 300_000]); 15],
        events(101),
        vec![],
        vec![event("", b"1")],
    ] {
        let answer = store.append(&root, None, &too_much).await;
        assert!(matches!(answer, Err(StorageError::Invalid { .. })), "{answer:?}");
    }
    assert!(read(&store, &root).await.rows.is_empty());
    assert_eq!(store.append(&root, None, &events(100)).await.unwrap(), Sequence(99));
}

async fn append_takes_an_event_of_exactly_the_limit(aws: &AwsClients, prefix: &str) {
    let store = store(aws, prefix).await;
    let root = root("1");
    // Names 2+2+10+7+14+10, root 16, number 1, type 11, payload, time 24. A larger payload would go in chunks.
    let rest = 45 + 16 + 1 + 11 + 300_000 + 24;
    let correlated = |bytes: usize| NewEvent {
        correlation_id: Some("c".repeat(bytes).into()),
        ..event("OrderPlaced", &vec![7; 300_000])
    };
    let (largest, larger) = (correlated(EVENT_BYTES_MAX - rest), correlated(EVENT_BYTES_MAX - rest + 1));
    assert!(matches!(store.append(&root, None, &[larger]).await, Err(StorageError::Invalid { .. })));
    assert_eq!(store.append(&root, None, &[largest]).await.unwrap(), Sequence(0));
    // The limit is the service's own: one byte more, and it refuses too.
    let row = read(&store, &root).await.rows.remove(0).unwrap();
    let request = (aws.dynamodb.put_item())
        .table_name(TableNames::from_prefix(prefix).events)
        .item("pk", AttributeValue::S(root.key().into()))
        .item("sk", AttributeValue::N("0".into()))
        .item("event_type", AttributeValue::S(row.event_type.into()))
        .item("payload", AttributeValue::B(vec![7; row.payload.len() + 1].into()))
        .item("correlation_id", AttributeValue::S(row.correlation_id.unwrap().into()))
        .item("created_at", AttributeValue::S(row.created_at.to_string()));
    assert!(request.send().await.is_err());
}

async fn an_append_with_a_token_happens_once(aws: &AwsClients, prefix: &str) {
    let store = store(aws, prefix).await;
    let root = root("1");
    for (expected, batch, token) in [(None, events(1), "one"), (Some(Sequence(0)), events(3), "two")] {
        let first = store.append_with_token(&root, expected, &batch, token).await.unwrap();
        let again = store.append_with_token(&root, expected, &batch, token).await.unwrap();
        assert_eq!(first, again);
        lost(store.append_with_token(&root, expected, &batch, "other").await);
    }
    assert_eq!(sequences(&read(&store, &root).await), [0, 1, 2, 3]);
    for token in ["", &"x".repeat(37)] {
        let answer = store.append_with_token(&root, Some(Sequence(3)), &events(1), token).await;
        assert!(matches!(answer, Err(StorageError::Invalid { .. })), "{answer:?}");
    }
}

async fn reads_page_by_page(aws: &AwsClients, prefix: &str) {
    let store = store(aws, prefix).await;
    let root = root("1");
    store.append(&root, None, &events(10)).await.unwrap();
    let (mut from, mut read) = (Some(Sequence(2)), Vec::new());
    while let Some(at) = from {
        let page = store.read_consistent(&root, at, Sequence(8), 3).await.unwrap();
        assert!(page.rows.len() <= 3);
        read.extend(sequences(&page));
        from = page.next;
    }
    assert_eq!(read, [2, 3, 4, 5, 6, 7, 8]);
    let nothing = store.read_consistent(&root, Sequence(5), Sequence(4), 3).await.unwrap();
    assert!(nothing.rows.is_empty() && nothing.next.is_none());
    // Four rows of 300 KB are more than the 1 MB of a page.
    let large = crate::embedded::root("large");
    store.append(&large, None, &vec![event("Large", &vec![0; 300_000]); 5]).await.unwrap();
    let page = store.read(&large, Sequence::FIRST, Consistency::Eventual, 100).await.unwrap();
    let next = page.next.expect("there is more");
    assert_eq!(next.0, page.rows.len() as u64);
    let rest = store.read(&large, next, Consistency::Eventual, 100).await.unwrap();
    assert_eq!(page.rows.len() + rest.rows.len(), 5);
}

async fn put(aws: &AwsClients, table: &str, root: &Root, sk: &str, good: bool) {
    let request = (aws.dynamodb.put_item())
        .table_name(table)
        .item("pk", AttributeValue::S(root.key().into()))
        .item("sk", AttributeValue::N(sk.into()))
        .item("event_type", AttributeValue::S("T".into()))
        .item("created_at", AttributeValue::S("2026-01-31T12:00:00Z".into()));
    let payload = if good { AttributeValue::B(vec![1].into()) } else { AttributeValue::S("secret".into()) };
    request.item("payload", payload).send().await.unwrap();
}

async fn a_row_that_is_no_event_comes_as_an_error(aws: &AwsClients, prefix: &str) {
    let store = store(aws, prefix).await;
    let (root, table) = (root("1"), TableNames::from_prefix(prefix).events);
    for (sk, good) in [("0", true), ("0.5", true), ("1", false), ("2", true)] {
        put(aws, &table, &root, sk, good).await;
    }
    let page = read(&store, &root).await;
    assert_eq!(sequences(&page), [0, 1, 2]);
    let invalid = page.rows[1].as_ref().unwrap_err();
    assert!(invalid.reason.contains("payload") && !invalid.reason.contains("secret"), "{invalid}");
    // A page that ends between two whole numbers goes on behind it.
    let page = store.read_consistent(&root, Sequence(0), Sequence(2), 2).await.unwrap();
    assert_eq!((sequences(&page), page.next), (vec![0], Some(Sequence(1))));
}

async fn a_missing_table_is_named(aws: &AwsClients, prefix: &str) {
    let store = EventStore::new(aws, prefix, Random::from_entropy());
    let answer = store.append(&root("1"), None, &events(1)).await;
    assert!(matches!(&answer, Err(StorageError::NoTable { table }) if table == prefix), "{answer:?}");
}
