//! The four operations over HTTP, as the SDKs speak them.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Response, StatusCode, header};
use serde_json::json;
use tokio::time::Instant;

use super::cursor::Cursor;
use super::fault::Fault;
use super::request::{self, DescribeStream, GetRecords, GetShardIterator, Place};
use super::served::ServedStreams;
use super::upstream::UpstreamError;

const TARGET: &str = "x-amz-target";
const SERVICE: &str = "DynamoDBStreams_20120810.";
const JSON: &str = "application/x-amz-json-1.0";

const LIST_STREAMS: &str = "ListStreams";
const DESCRIBE_STREAM: &str = "DescribeStream";
const GET_SHARD_ITERATOR: &str = "GetShardIterator";
const GET_RECORDS: &str = "GetRecords";

/// Answers a request.
pub(super) async fn answer(streams: State<Arc<ServedStreams>>, headers: HeaderMap, body: Bytes) -> Response<Body> {
    let target = headers.get(TARGET).and_then(|target| target.to_str().ok()).unwrap_or_default();
    let operation = target.strip_prefix(SERVICE).unwrap_or(target);
    let answer = match operation {
        LIST_STREAMS => list_streams(&streams, body).await,
        DESCRIBE_STREAM => describe_stream(&streams, &body).await,
        GET_SHARD_ITERATOR => get_shard_iterator(&streams, &body).await,
        GET_RECORDS => get_records(&streams, &body).await,
        other => Err(Fault::UnknownOperation(format!("the operation `{other}` is not served here"))),
    };
    let (status, body) = match answer {
        Ok(body) => (StatusCode::OK, body),
        Err(fault) => (fault.status(), fault.body()),
    };
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(JSON));
    response
}

async fn list_streams(streams: &ServedStreams, body: Bytes) -> Result<String, Fault> {
    streams.rates().count(LIST_STREAMS);
    let answer = streams.upstream.list_streams(body).await;
    answer.map(|answer| answer.to_string()).map_err(|error| match error {
        UpstreamError::Refused { message, .. } => Fault::Invalid(message),
        other => Fault::Internal(other.to_string()),
    })
}

async fn describe_stream(streams: &ServedStreams, body: &[u8]) -> Result<String, Fault> {
    {
        let mut rates = streams.rates();
        rates.count(DESCRIBE_STREAM);
        if !rates.describe(DESCRIBE_STREAM, Instant::now()) {
            return Err(Fault::Throttled);
        }
    }
    let request: DescribeStream = request::read(body)?;
    let keeper = streams.find(&request.stream_arn).await?;
    let description = keeper.stream().describe(&request)?;
    Ok(description.to_string())
}

async fn get_shard_iterator(streams: &ServedStreams, body: &[u8]) -> Result<String, Fault> {
    streams.rates().count(GET_SHARD_ITERATOR);
    let request: GetShardIterator = request::read(body)?;
    let keeper = streams.find(&request.stream_arn).await?;
    let (shard, place) = (request.shard()?, request.place()?);
    let after = if place == Place::Latest {
        // What was written before is not to be seen.
        let opened = keeper.at_head(|stream| stream.open(shard, place)).await;
        opened.map_err(|error| Fault::Internal(error.to_string()))??
    } else {
        keeper.stream().open(shard, place)?
    };
    let cursor = Cursor { stream: request.stream_arn, shard, after, given: streams.given() };
    Ok(json!({ "ShardIterator": cursor.encode() }).to_string())
}

async fn get_records(streams: &ServedStreams, body: &[u8]) -> Result<String, Fault> {
    streams.rates().count(GET_RECORDS);
    let request: GetRecords = request::read(body)?;
    let limit = request.limit()?;
    let cursor =
        Cursor::decode(&request.shard_iterator).ok_or_else(|| Fault::Invalid("Invalid ShardIterator".into()))?;
    let now = streams.given();
    if cursor.given.has_expired(now, streams.options.iterator_lifetime) {
        return Err(Fault::Expired);
    }
    if !streams.rates().read(GET_RECORDS, cursor.shard, Instant::now()) {
        return Err(Fault::LimitExceeded);
    }
    let keeper = streams.find(&cursor.stream).await?;
    keeper.stream().read(&cursor, limit, now)
}
