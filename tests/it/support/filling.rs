//! Many rows put into an events table at once, as an import would.

use angzarr_relay::aws::AwsClients;
use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::{AttributeValue, PutRequest, WriteRequest};
use tokio::task::JoinSet;

/// Rows one BatchWriteItem takes.
const BATCH_ROWS: usize = 25;

/// Calls under way at once.
const FILLERS: usize = 8;

/// Puts an event of 200 bytes for each root id and sequence.
pub(crate) async fn fill(aws: &AwsClients, table: &str, rows: &[(String, u64)]) {
    let mut fillers = JoinSet::new();
    for filler in 0..FILLERS {
        let (client, table) = (aws.dynamodb.clone(), table.to_owned());
        let mine: Vec<Vec<(String, u64)>> =
            rows.chunks(BATCH_ROWS).skip(filler).step_by(FILLERS).map(<[_]>::to_vec).collect();
        fillers.spawn(async move {
            for batch in mine {
                let requests = batch.into_iter().map(|(root, sequence)| {
                    let put = PutRequest::builder()
                        .item("pk", AttributeValue::S(format!("orders#angzarr#{root}")))
                        .item("sk", AttributeValue::N(sequence.to_string()))
                        .item("event_type", AttributeValue::S("OrderPlaced".into()))
                        .item("payload", AttributeValue::B(Blob::new([7; 200])))
                        .item("created_at", AttributeValue::S("2026-01-31T12:00:00Z".into()));
                    WriteRequest::builder().put_request(put.build().unwrap()).build()
                });
                client.batch_write_item().request_items(&table, requests.collect()).send().await.unwrap();
            }
        });
    }
    while let Some(done) = fillers.join_next().await {
        done.unwrap();
    }
}
