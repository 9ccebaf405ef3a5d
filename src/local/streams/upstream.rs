//! The DynamoDB in front of which the server stands, spoken to in its own JSON.
//!
//! Any emulator that takes any credentials: the signature sent is none. Retries and paces are the follower's. What is
//! made of an answer is left to the callers; that it is JSON, and of what size, is seen to here.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tokio::time::timeout;

/// How long a call may take.
const CALL_MAX: Duration = Duration::from_secs(10);

/// The largest answer: a page of records as JSON, with room for binary in base64.
const ANSWER_BYTES_MAX: usize = 16 << 20;

const STREAMS: &str = "DynamoDBStreams_20120810";
const DYNAMODB: &str = "DynamoDB_20120810";

/// What emulators take for a signature.
const AUTHORIZATION: &str = "AWS4-HMAC-SHA256 Credential=local/20260101/us-east-1/dynamodb/aws4_request, \
     SignedHeaders=host;x-amz-date;x-amz-target, Signature=0000000000000000000000000000000000000000000000000000000000000000";
const DATE: &str = "20260101T000000Z";

type Source = Box<dyn std::error::Error + Send + Sync>;

/// Why the upstream did not answer as it should.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// It is not there, or too slow.
    #[error("{operation} of the upstream failed")]
    Unreachable {
        /// The operation.
        operation: &'static str,
        /// What happened.
        #[source]
        source: Source,
    },
    /// It refused.
    #[error("{operation} of the upstream was refused: {code}: {message}")]
    Refused {
        /// The operation.
        operation: &'static str,
        /// The error's name.
        code: String,
        /// What it said.
        message: String,
    },
    /// It answered with something else than expected.
    #[error("the upstream's answer to {operation} is without {missing}")]
    Malformed {
        /// The operation.
        operation: &'static str,
        /// What is missing.
        missing: &'static str,
    },
}

impl UpstreamError {
    /// Whether it says that what was asked for is not there.
    pub(super) fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { code, .. } if code == "ResourceNotFoundException")
    }
}

/// What the upstream says about a stream.
#[derive(Debug, Clone)]
pub(super) struct StreamFacts {
    pub(super) label: String,
    pub(super) table: String,
    pub(super) view_type: String,
    pub(super) created: Value,
    pub(super) enabled: bool,
    /// Its shards, each with its parent.
    pub(super) shards: Vec<(String, Option<String>)>,
}

/// What the upstream says about a table.
#[derive(Debug, Clone)]
pub(super) struct TableFacts {
    /// The ARN of its latest stream.
    pub(super) stream: Option<String>,
    pub(super) key_schema: Value,
}

/// A page of the upstream's records.
pub(super) struct UpstreamPage {
    pub(super) records: Vec<Value>,
    pub(super) next: Option<String>,
}

/// The upstream. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Upstream {
    client: Client<HttpConnector, Full<Bytes>>,
    uri: Uri,
}

impl Upstream {
    pub(super) fn new(uri: Uri) -> Self {
        Self { client: Client::builder(TokioExecutor::new()).build_http(), uri }
    }

    async fn call(&self, service: &str, operation: &'static str, body: Bytes) -> Result<Value, UpstreamError> {
        let unreachable = |source: Source| UpstreamError::Unreachable { operation, source };
        let request = Request::post(self.uri.clone())
            .header("content-type", "application/x-amz-json-1.0")
            .header("x-amz-target", format!("{service}.{operation}"))
            .header("x-amz-date", DATE)
            .header("authorization", AUTHORIZATION)
            .body(Full::new(body))
            .map_err(|error| unreachable(error.into()))?;
        let exchange = async {
            let answer = self.client.request(request).await?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await?.to_bytes();
            Ok::<_, Source>((status, body))
        };
        let answer = timeout(CALL_MAX, exchange).await.map_err(|elapsed| unreachable(elapsed.into()))?;
        let (status, body) = answer.map_err(unreachable)?;
        let value: Value = serde_json::from_slice(&body).map_err(|error| unreachable(error.into()))?;
        if status.is_success() {
            return Ok(value);
        }
        let text = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let code = text("__type").rsplit('#').next().unwrap_or_default().to_owned();
        Err(UpstreamError::Refused { operation, code, message: text("message") + &text("Message") })
    }

    /// Hands a ListStreams on as it is.
    pub(super) async fn list_streams(&self, body: Bytes) -> Result<Value, UpstreamError> {
        self.call(STREAMS, "ListStreams", body).await
    }

    pub(super) async fn table(&self, name: &str) -> Result<TableFacts, UpstreamError> {
        let operation = "DescribeTable";
        let mut answer = self.call(DYNAMODB, operation, json!({ "TableName": name }).to_string().into()).await?;
        let table = answer.get_mut("Table").ok_or(UpstreamError::Malformed { operation, missing: "Table" })?;
        let stream = table.get("LatestStreamArn").and_then(Value::as_str).map(str::to_owned);
        Ok(TableFacts { stream, key_schema: table["KeySchema"].take() })
    }

    /// All of a stream's shards, and what it is.
    pub(super) async fn stream(&self, arn: &str) -> Result<StreamFacts, UpstreamError> {
        let operation = "DescribeStream";
        let (mut shards, mut after) = (Vec::new(), Value::Null);
        loop {
            let mut request = json!({ "StreamArn": arn });
            if !after.is_null() {
                request["ExclusiveStartShardId"] = after;
            }
            let mut answer = self.call(STREAMS, operation, request.to_string().into()).await?;
            let missing = "StreamDescription";
            let stream = answer.get_mut(missing).ok_or(UpstreamError::Malformed { operation, missing })?;
            let text = |of: &Value, name: &str| of.get(name).and_then(Value::as_str).map(str::to_owned);
            let listed = stream.get("Shards").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
            for shard in listed {
                let missing = "ShardId";
                let id = text(shard, missing).ok_or(UpstreamError::Malformed { operation, missing })?;
                shards.push((id, text(shard, "ParentShardId").filter(|parent| !parent.is_empty())));
            }
            after = stream["LastEvaluatedShardId"].take();
            if after.is_null() {
                let fact = |name| text(stream, name).unwrap_or_default();
                let enabled = fact("StreamStatus") != "DISABLED";
                return Ok(StreamFacts {
                    label: fact("StreamLabel"),
                    table: fact("TableName"),
                    view_type: fact("StreamViewType"),
                    created: stream["CreationRequestDateTime"].clone(),
                    enabled,
                    shards,
                });
            }
        }
    }

    /// An iterator behind a record, or at the horizon.
    pub(super) async fn open(&self, arn: &str, shard: &str, after: Option<&str>) -> Result<String, UpstreamError> {
        let operation = "GetShardIterator";
        let mut request = json!({ "StreamArn": arn, "ShardId": shard, "ShardIteratorType": "TRIM_HORIZON" });
        if let Some(after) = after {
            request["ShardIteratorType"] = "AFTER_SEQUENCE_NUMBER".into();
            request["SequenceNumber"] = after.into();
        }
        let answer = self.call(STREAMS, operation, request.to_string().into()).await?;
        let iterator = answer.get("ShardIterator").and_then(Value::as_str).map(str::to_owned);
        iterator.ok_or(UpstreamError::Malformed { operation, missing: "ShardIterator" })
    }

    pub(super) async fn read(&self, iterator: &str) -> Result<UpstreamPage, UpstreamError> {
        let request = json!({ "ShardIterator": iterator }).to_string();
        let mut answer = self.call(STREAMS, "GetRecords", request.into()).await?;
        let records = match answer.get_mut("Records").map(Value::take) {
            Some(Value::Array(records)) => records,
            _ => Vec::new(),
        };
        Ok(UpstreamPage { records, next: answer["NextShardIterator"].as_str().map(str::to_owned) })
    }
}
