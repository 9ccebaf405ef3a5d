//! A handler that applies each event exactly once: stopped at every one of its awaits, beside itself, and in a relay.

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;

use angzarr_relay::aws::AwsClients;
use angzarr_relay::config::{Config, Environment};
use angzarr_relay::event::{Event, Sequence, Timestamp};
use angzarr_relay::handler::{Accepted, Handler as _, HandlerError, HandlerName, Projection, RootBatch, Transactional};
use angzarr_relay::relay::Relay;
use angzarr_relay::storage::{DynamoPositions, PositionStore as _, TableNames};
use angzarr_relay::time::Clock;
use async_trait::async_trait;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType,
    TransactWriteItem, Update,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Barrier;
use tokio_util::sync::CancellationToken;

use crate::embedded::{clients, root, tables};
use crate::outage::dynamo_with_tables;
use crate::support::{RelayHome, Writer, until};

const MODEL: &str = "it-model";

/// Counts the events of each root in a table of its own, and how often it was asked.
struct Counts(Arc<AtomicU32>);

fn add(root: &str, events: usize) -> TransactWriteItem {
    let update = Update::builder()
        .table_name(MODEL)
        .key("pk", AttributeValue::S(root.to_owned()))
        .update_expression("ADD events :events")
        .expression_attribute_values(":events", AttributeValue::N(events.to_string()));
    TransactWriteItem::builder().update(update.build().unwrap()).build()
}

#[async_trait]
impl Projection for Counts {
    async fn writes(&self, batch: &RootBatch) -> Result<Vec<TransactWriteItem>, HandlerError> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(vec![add(batch.root.id(), batch.events.len())])
    }
}

/// Makes so many writes for an event, on items of their own.
struct Many(usize);

#[async_trait]
impl Projection for Many {
    async fn writes(&self, batch: &RootBatch) -> Result<Vec<TransactWriteItem>, HandlerError> {
        let each = batch.events.iter().flat_map(|event| (0..self.0).map(move |item| (event.sequence.0, item)));
        Ok(each.map(|(sequence, item)| add(&format!("{}-{sequence}-{item}", batch.root.id()), 1)).collect())
    }
}

async fn counted(aws: &AwsClients, item: &str) -> Option<u64> {
    let get = aws.dynamodb.get_item().table_name(MODEL).key("pk", AttributeValue::S(item.to_owned()));
    let found = get.consistent_read(true).send().await.unwrap().item?;
    found["events"].as_n().unwrap().parse().ok()
}

fn handler_name() -> HandlerName {
    HandlerName::new("counts").unwrap()
}

fn positions(aws: &AwsClients, names: &TableNames) -> DynamoPositions {
    DynamoPositions::new(aws, &names.positions, Clock::system())
}

fn batch(id: &str, sequences: std::ops::Range<u64>) -> RootBatch {
    let event = |sequence| Event {
        root: root(id),
        sequence: Sequence(sequence),
        event_type: "OrderPlaced".into(),
        payload: vec![1].into(),
        chunked: None,
        correlation_id: None,
        traceparent: None,
        created_at: Timestamp::from_unix_millis(0),
    };
    RootBatch { root: root(id), events: sequences.map(|sequence| Arc::new(event(sequence))).collect() }
}

/// Polls a future so many times at most, then drops it where it stands; none when it was not done by then.
async fn polled<T>(future: impl Future<Output = T>, mut polls: u32) -> Option<T> {
    let mut future = pin!(future);
    poll_fn(|context| {
        if polls == 0 {
            return Poll::Ready(None);
        }
        polls -= 1;
        future.as_mut().poll(context).map(Some)
    })
    .await
}

crate::scenarios!(
    stopped_at_any_await_each_event_counts_once,
    two_at_once_apply_each_event_once,
    what_does_not_fit_into_one_transaction_is_cut,
    what_breaks_a_rule_is_the_events_fault,
);

async fn stopped_at_any_await_each_event_counts_once(aws: &AwsClients, prefix: &str) {
    let names = tables(aws, prefix).await;
    create_model(aws).await;
    let asked = Arc::new(AtomicU32::new(0));
    let handler = || Transactional::new(handler_name(), positions(aws, &names), Counts(asked.clone()));
    let mut stops = 0;
    for polls in 1.. {
        let id = format!("{prefix}-{polls}");
        // Two batches in one life, so that a remembered position is stopped with as well.
        let life = async {
            let handler = handler();
            handler.deliver(&batch(&id, 0..2)).await.unwrap();
            handler.deliver(&batch(&id, 2..5)).await.unwrap();
        };
        let done = polled(life, polls).await.is_some();
        // The next life is given all of it again.
        assert_eq!(handler().deliver(&batch(&id, 0..5)).await.unwrap(), Accepted { events: 5 }, "after {polls} polls");
        assert_eq!(counted(aws, &id).await, Some(5), "after {polls} polls");
        let standing = positions(aws, &names).load(&handler_name(), &[root(&id)]).await.unwrap().remove(0);
        assert_eq!(standing.position, Some(Sequence(4)));
        stops += 1;
        if done {
            break;
        }
    }
    assert!(stops > 3, "it was stopped {stops} times");
}

/// Counts as [`Counts`] does; of each batch the first two that ask wait for each other, so that both compute from the same
/// position.
struct Meets(Arc<AtomicU32>, Arc<Barrier>, Arc<Mutex<BTreeMap<u64, u32>>>);

#[async_trait]
impl Projection for Meets {
    async fn writes(&self, batch: &RootBatch) -> Result<Vec<TransactWriteItem>, HandlerError> {
        let asked_before = {
            let mut asked = self.2.lock().unwrap();
            let count = asked.entry(batch.events[0].sequence.0).or_default();
            std::mem::replace(count, *count + 1)
        };
        if asked_before < 2 {
            self.1.wait().await;
        }
        Counts(self.0.clone()).writes(batch).await
    }
}

async fn two_at_once_apply_each_event_once(aws: &AwsClients, prefix: &str) {
    let names = tables(aws, prefix).await;
    create_model(aws).await;
    let asked = Arc::new(AtomicU32::new(0));
    let (barrier, met) = (Arc::new(Barrier::new(2)), Arc::default());
    let meets = || Meets(asked.clone(), barrier.clone(), Arc::clone(&met));
    let handlers: Vec<_> =
        (0..2).map(|_| Transactional::new(handler_name(), positions(aws, &names), meets())).collect();
    for from in (0..20).step_by(4) {
        let batch = batch(prefix, from..from + 4);
        let (one, two) = tokio::join!(handlers[0].deliver(&batch), handlers[1].deliver(&batch));
        for answer in [one, two] {
            // A transaction that meets another is refused, and tried again as the lanes would.
            if answer.is_err() {
                until("it is applied", async || handlers[0].deliver(&batch).await.ok()).await;
            }
        }
    }
    assert_eq!(counted(aws, prefix).await, Some(20));
    assert!(asked.load(Ordering::Relaxed) >= 10, "each of five batches was computed twice");
}

async fn what_breaks_a_rule_is_the_events_fault(aws: &AwsClients, prefix: &str) {
    let names = tables(aws, prefix).await;
    create_model(aws).await;
    let handler = Transactional::new(handler_name(), positions(aws, &names), Nameless);
    let refused = handler.deliver(&batch(prefix, 0..1)).await;
    assert!(matches!(refused, Err(HandlerError::Permanent { .. })), "{refused:?}");
    // A handler that remembers a position, which is taken away by hand, applies what comes again.
    let handler = Transactional::new(handler_name(), positions(aws, &names), Counts(Arc::default()));
    handler.deliver(&batch(prefix, 0..2)).await.unwrap();
    let key = AttributeValue::S(format!("counts#{}", root(prefix).key()));
    aws.dynamodb.delete_item().table_name(&names.positions).key("pk", key).send().await.unwrap();
    handler.deliver(&batch(prefix, 0..2)).await.unwrap();
    assert_eq!(counted(aws, prefix).await, Some(4));
}

async fn what_does_not_fit_into_one_transaction_is_cut(aws: &AwsClients, prefix: &str) {
    let names = tables(aws, prefix).await;
    create_model(aws).await;
    let many = |writes| Transactional::new(handler_name(), positions(aws, &names), Many(writes));
    // 100 items with the position.
    let accepted = many(33).deliver(&batch(&format!("{prefix}-fits"), 0..3)).await.unwrap();
    assert_eq!(accepted, Accepted { events: 3 });
    let accepted = many(50).deliver(&batch(&format!("{prefix}-cut"), 0..2)).await.unwrap();
    assert_eq!(accepted, Accepted { events: 1 });
    let single = format!("{prefix}-single");
    assert_eq!(many(99).deliver(&batch(&single, 0..1)).await.unwrap(), Accepted { events: 1 });
    let refused = many(100).deliver(&batch(&single, 1..2)).await;
    assert!(
        matches!(&refused, Err(HandlerError::Permanent { reason, .. }) if reason.contains("100 writes")),
        "{refused:?}"
    );
    let accepted = many(40).deliver(&batch(prefix, 0..5)).await.unwrap();
    assert_eq!(accepted, Accepted { events: 2 }, "40 writes an event, 99 in all");
    assert_eq!(counted(aws, &format!("{prefix}-1-39")).await, Some(1));
    assert_eq!(counted(aws, &format!("{prefix}-2-0")).await, None);
}

/// Writes to an item with an empty key.
struct Nameless;

#[async_trait]
impl Projection for Nameless {
    async fn writes(&self, _batch: &RootBatch) -> Result<Vec<TransactWriteItem>, HandlerError> {
        Ok(vec![add("", 1)])
    }
}

/// The scenarios on DynamoDB Local share one.
async fn create_model(aws: &AwsClients) {
    if aws.dynamodb.describe_table().table_name(MODEL).send().await.is_err() {
        let column = "pk";
        let key = KeySchemaElement::builder().attribute_name(column).key_type(KeyType::Hash).build().unwrap();
        let definition = AttributeDefinition::builder().attribute_name(column).attribute_type(ScalarAttributeType::S);
        let create = aws.dynamodb.create_table().table_name(MODEL).billing_mode(BillingMode::PayPerRequest);
        let create = create.key_schema(key).attribute_definitions(definition.build().unwrap());
        // Another scenario may be faster.
        create.send().await.ok();
        until("the table is there", async || {
            aws.dynamodb.describe_table().table_name(MODEL).send().await.ok().map(|_| ())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_hands_events_to_a_transactional_handler_and_writes_no_position_itself() {
    let dynamo = dynamo_with_tables().await;
    let aws = clients(Some(dynamo.endpoint()), None).await;
    create_model(&aws).await;
    let names = TableNames::from_prefix(RelayHome::PREFIX);
    let mut writer = Writer::new(&aws);
    let config = format!(
        r#"
        [storage.dynamo]
        region = "us-east-1"
        table_prefix = "{}"
        endpoint = "{}"
        [relay]
        poll_interval_max = "100ms"
        [telemetry]
        listen = "127.0.0.1:0"
        admin_listen = "127.0.0.1:0"
        [[handlers]]
        name = "counts"
        kind = "projector"
        subscribe = [{{ domain = "*" }}]
        "#,
        RelayHome::PREFIX,
        dynamo.endpoint()
    );
    let config = Config::parse(&config, "the test", &Environment::default()).unwrap();
    for life in 1..=2 {
        let handler = Transactional::new(handler_name(), positions(&aws, &names), Counts(Arc::default()));
        let stop = CancellationToken::new();
        let relay = Relay::builder(config.clone()).handler("counts", handler).run(stop.clone().cancelled_owned());
        let test = async {
            writer.append_to(0..10, 4).await;
            until("all is counted", async || {
                for number in 0..10 {
                    (counted(&aws, &format!("r{number}")).await? == 4 * life).then_some(())?;
                }
                Some(())
            })
            .await;
            stop.cancel();
        };
        let (outcome, ()) = tokio::join!(relay, test);
        outcome.unwrap();
    }
    let roots: Vec<_> = (0..10).map(|number| root(&format!("r{number}"))).collect();
    let standings = positions(&aws, &names).load(&handler_name(), &roots).await.unwrap();
    assert!(standings.iter().all(|standing| standing.position == Some(Sequence(7))), "{standings:?}");
}

/// One message of HTTP/1.1, of which the length is known.
async fn message(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let (mut bytes, mut part) = (Vec::new(), [0; 4096]);
    loop {
        let head_end = bytes.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4);
        if let Some(head_end) = head_end {
            let head = String::from_utf8_lossy(&bytes[..head_end]).to_lowercase();
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length:"))
                .map_or(0, |length| length.trim().parse::<usize>().unwrap());
            if bytes.len() >= head_end + length {
                return Some(bytes);
            }
        }
        match stream.read(&mut part).await {
            Ok(0) | Err(_) => return None,
            Ok(read) => bytes.extend_from_slice(&part[..read]),
        }
    }
}

/// Stands before a DynamoDB, and loses the replies to so many transactions; notes the tokens of all.
async fn losing_replies(server: &str, mut lost: u32, tokens: Arc<Mutex<Vec<String>>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let server = server.trim_start_matches("http://").to_owned();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let Some(request) = message(&mut client).await else { continue };
            let mut upstream = TcpStream::connect(&server).await.unwrap();
            upstream.write_all(&request).await.unwrap();
            let answer = message(&mut upstream).await.unwrap();
            let text = String::from_utf8_lossy(&request);
            if text.to_lowercase().contains("transactwriteitems") {
                let token = text.split("\"ClientRequestToken\":\"").nth(1).and_then(|rest| rest.split('"').next());
                tokens.lock().unwrap().push(token.unwrap().to_owned());
                if lost > 0 {
                    lost -= 1;
                    continue;
                }
            }
            client.write_all(&answer).await.ok();
        }
    });
    endpoint
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_whose_reply_is_lost_is_sent_again_with_its_token() {
    let dynamo = dynamo_with_tables().await;
    let aws = clients(Some(dynamo.endpoint()), None).await;
    create_model(&aws).await;
    let names = TableNames::from_prefix(RelayHome::PREFIX);
    let tokens = Arc::new(Mutex::new(Vec::new()));
    let endpoint = losing_replies(dynamo.endpoint(), 2, tokens.clone()).await;
    let unreliable = clients(Some(&endpoint), None).await;
    let asked = Arc::new(AtomicU32::new(0));
    let handler = Transactional::new(handler_name(), positions(&unreliable, &names), Counts(asked.clone()));
    assert_eq!(handler.deliver(&batch("lost", 0..3)).await.unwrap(), Accepted { events: 3 });
    let tokens = tokens.lock().unwrap().clone();
    assert!(tokens.len() == 3 && tokens.iter().all(|token| *token == tokens[0]), "{tokens:?}");
    assert_eq!((counted(&aws, "lost").await, asked.load(Ordering::Relaxed)), (Some(3), 1));
}
