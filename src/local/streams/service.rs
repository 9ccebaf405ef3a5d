//! The four operations over HTTP, as the SDKs speak them; and what goes wrong with them on the way.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Response, StatusCode, header};
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::cursor::Cursor;
use super::cut;
use super::fault::Fault;
use super::mischief::Mischief;
use super::operation::Operation;
use super::request::{self, DescribeStream, GetRecords, GetShardIterator, Place};
use super::served::ServedStreams;
use super::upstream::UpstreamError;

const TARGET: &str = "x-amz-target";
const SERVICE: &str = "DynamoDBStreams_20120810.";
const JSON: &str = "application/x-amz-json-1.0";

/// Answers a request, as it should or with the mischief that its call meets.
pub(super) async fn answer(streams: State<Arc<ServedStreams>>, headers: HeaderMap, body: Bytes) -> Response<Body> {
    let target = headers.get(TARGET).and_then(|target| target.to_str().ok()).unwrap_or_default();
    let name = target.strip_prefix(SERVICE).unwrap_or(target);
    let Some(operation) = Operation::named(name) else {
        let unknown = Fault::UnknownOperation(format!("the operation `{name}` is not served here"));
        return written(Err(unknown), None);
    };
    streams.rates().count(operation.name());
    let drawn = streams.misbehaviour().draw(operation);
    let mischief = drawn.map(|drawn| drawn.mischief);
    if mischief == Some(Mischief::Late) {
        sleep(streams.options.lateness).await;
    }
    let answer = match mischief.and_then(Mischief::refusal) {
        Some(fault) => Err(fault),
        None if mischief == Some(Mischief::Cut) => Ok(String::new()),
        None => {
            let mut bend = Bend { mischief, struck: false };
            let answer = carry_out(&streams, operation, body, &mut bend).await;
            if let Some(drawn) = drawn.filter(|drawn| drawn.mischief.may_miss()) {
                streams.misbehaviour().settle(drawn, bend.struck);
            }
            answer
        }
    };
    written(answer, mischief)
}

/// What the answer to a call is bent by, and whether that made it another one.
struct Bend {
    mischief: Option<Mischief>,
    struck: bool,
}

async fn carry_out(
    streams: &ServedStreams,
    operation: Operation,
    body: Bytes,
    bend: &mut Bend,
) -> Result<String, Fault> {
    match operation {
        Operation::ListStreams => list_streams(streams, body).await,
        Operation::DescribeStream => describe_stream(streams, &body, bend).await,
        Operation::GetShardIterator => get_shard_iterator(streams, &body).await,
        Operation::GetRecords => get_records(streams, &body, bend).await,
    }
}

fn written(answer: Result<String, Fault>, mischief: Option<Mischief>) -> Response<Body> {
    let (status, body) = match answer {
        Ok(body) => (StatusCode::OK, body),
        Err(fault) => (fault.status(), fault.body()),
    };
    let mut response = match mischief {
        Some(Mischief::Cut | Mischief::CutReply) => cut::before(),
        Some(Mischief::HalfReply) => cut::in_the_middle(&body.into()),
        Some(Mischief::EmptyReply) => Response::new(Body::empty()),
        _ => Response::new(body.into()),
    };
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(JSON));
    response
}

async fn list_streams(streams: &ServedStreams, body: Bytes) -> Result<String, Fault> {
    let answer = streams.upstream.list_streams(body).await;
    answer.map(|answer| answer.to_string()).map_err(|error| match error {
        UpstreamError::Refused { message, .. } => Fault::Invalid(message),
        other => Fault::Internal(other.to_string()),
    })
}

async fn describe_stream(streams: &ServedStreams, body: &[u8], bend: &mut Bend) -> Result<String, Fault> {
    if !streams.rates().describe(Operation::DescribeStream.name(), Instant::now()) {
        return Err(Fault::Throttled);
    }
    let request: DescribeStream = request::read(body)?;
    let keeper = streams.find(&request.stream_arn).await?;
    let stream = keeper.stream();
    let mut description = stream.describe(&request, None)?;
    if bend.mischief.is_some() {
        let changed = stream.describe(&request, bend.mischief)?;
        bend.struck = changed != description;
        description = changed;
    }
    Ok(description.to_string())
}

async fn get_shard_iterator(streams: &ServedStreams, body: &[u8]) -> Result<String, Fault> {
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

async fn get_records(streams: &ServedStreams, body: &[u8], bend: &mut Bend) -> Result<String, Fault> {
    let request: GetRecords = request::read(body)?;
    let limit = request.limit()?;
    let cursor =
        Cursor::decode(&request.shard_iterator).ok_or_else(|| Fault::Invalid("Invalid ShardIterator".into()))?;
    let now = streams.given();
    if cursor.given.has_expired(now, streams.options.iterator_lifetime) {
        return Err(Fault::Expired);
    }
    if !streams.rates().read(Operation::GetRecords.name(), cursor.shard, Instant::now()) {
        return Err(Fault::LimitExceeded);
    }
    let keeper = streams.find(&cursor.stream).await?;
    let mut stream = keeper.stream();
    let changed = match bend.mischief {
        Some(Mischief::Repeated) => stream.read_again(&cursor, limit, now),
        Some(Mischief::Empty) => stream.read_nothing(&cursor, now),
        Some(Mischief::Trimmed) => {
            bend.struck = stream.trim_page(&cursor, limit);
            None
        }
        _ => None,
    };
    bend.struck |= changed.is_some();
    changed.map_or_else(|| stream.read(&cursor, limit, now), Ok)
}
