//! The stream of the events table by the AWS SDK: [`StreamSource`] on DynamoDB Streams.
//!
//! Decoding is the hot path of the whole program: texts and payloads are moved out of the SDK's values, never copied.
//! Nothing is retried or paced here; that is the shard reader's. Services and emulators differ, so the errors and the
//! children of a shard are judged by what is in them, not by what was asked.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_dynamodb::types::StreamViewType;
use aws_sdk_dynamodbstreams::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodbstreams::types::{self as sdk, AttributeValue, OperationType, ShardFilterType, ShardIteratorType};
use bytes::Bytes;
use tokio::time::Instant;

use super::{
    Change, Fetched, Record, Shard, ShardId, ShardIterator, ShardPage, ShardSource, StreamError, StreamPoint,
    StreamSequence, StreamSource,
};
use crate::aws::{AwsClients, AwsFailure, classify, observe};
use crate::event::{Attribute, Root, Timestamp, columns, decode_row};
use crate::time::Clock;

/// Shards a page of DescribeStream holds at most: the service's limit.
const SHARDS_PAGE_MAX: i32 = 100;
/// Which stream is the latest is not looked at again for so long: the first listing follows the search for it.
const LOOK_HOLDS: Duration = Duration::from_millis(250);
/// Records one GetRecords asks for: the service's limit.
const READ_RECORDS_MAX: i32 = 1000;

/// The streams of one events table: the latest, and those before it as far as their shards are still read. Cheap to
/// clone.
#[derive(Debug, Clone)]
pub struct DynamoStream {
    clients: AwsClients,
    events_table: String,
    streams: Arc<Mutex<Streams>>,
    clock: Clock,
}

#[derive(Debug)]
struct Streams {
    latest: Arc<str>,
    /// When that was found out.
    looked_at: Instant,
    /// The shards of the latest.
    listed: HashSet<ShardId>,
    /// The stream before it, and its shards: they are read to their end.
    earlier: Option<(Arc<str>, HashSet<ShardId>)>,
}

impl Streams {
    /// Remembers of which stream a shard is.
    fn is_in(&mut self, shard: &ShardId, arn: &Arc<str>) {
        match &mut self.earlier {
            Some((earlier, shards)) if earlier == arn => shards.insert(shard.clone()),
            _ => self.listed.insert(shard.clone()),
        };
    }
}

impl DynamoStream {
    /// Finds the table's latest stream and checks that it carries new images.
    ///
    /// # Errors [`StreamError::NoStream`] with the command that mends it when the table, its stream or the new images
    /// are missing; otherwise as the call failed.
    pub async fn connect(clients: &AwsClients, events_table: &str) -> Result<Self, StreamError> {
        let latest = latest_stream(clients, events_table).await?.into();
        let streams = Streams { latest, looked_at: Instant::now(), listed: HashSet::new(), earlier: None };
        Ok(Self {
            clients: clients.clone(),
            events_table: events_table.to_owned(),
            streams: Arc::new(Mutex::new(streams)),
            clock: Clock::system(),
        })
    }

    fn with<T>(&self, act: impl FnOnce(&mut Streams) -> T) -> T {
        act(&mut self.streams.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The latest stream's ARN. A stream that was disabled and enabled again has another one.
    #[must_use]
    pub fn arn(&self) -> Arc<str> {
        self.with(|streams| streams.latest.clone())
    }

    /// Looks which stream is the latest, unless that was just done.
    async fn look(&self) -> Result<(), StreamError> {
        if self.with(|streams| streams.looked_at.elapsed() < LOOK_HOLDS) {
            return Ok(());
        }
        let latest: Arc<str> = latest_stream(&self.clients, &self.events_table).await?.into();
        self.with(|streams| {
            streams.looked_at = Instant::now();
            if latest != streams.latest {
                let listed = std::mem::take(&mut streams.listed);
                streams.earlier = Some((std::mem::replace(&mut streams.latest, latest), listed));
            }
        });
        Ok(())
    }

    /// The other streams that a shard may be of, once it was looked which is the latest: whoever has not listed the shards
    /// does not know of which stream one is.
    async fn others(&self, than: &Arc<str>) -> Result<Vec<Arc<str>>, StreamError> {
        self.look().await?;
        Ok(self.with(|streams| {
            let earlier = streams.earlier.iter().map(|(arn, _)| arn.clone());
            std::iter::once(streams.latest.clone()).chain(earlier).filter(|arn| arn != than).collect()
        }))
    }

    async fn children_in(&self, arn: &str, parent: &ShardId) -> Result<Vec<Shard>, StreamError> {
        let filter = sdk::ShardFilter::builder().r#type(ShardFilterType::ChildShards).shard_id(parent.as_str()).build();
        let call = self.clients.streams.describe_stream().stream_arn(arn).shard_filter(filter);
        let answer = observe("DescribeStream", call.send())
            .await
            .map_err(|error| failed("DescribeStream", "dynamodb:DescribeStream", error))?;
        let listed = shards_of(answer.stream_description)?.shards.unwrap_or_default();
        // Emulators ignore the filter.
        Ok(listed.into_iter().filter_map(shard).filter(|shard| shard.parent.as_ref() == Some(parent)).collect())
    }

    async fn open_in(&self, arn: &str, shard: &ShardId, from: &StreamPoint) -> Result<ShardIterator, StreamError> {
        let call = self.clients.streams.get_shard_iterator().stream_arn(arn).shard_id(shard.as_str());
        let call = match from {
            StreamPoint::Horizon => call.shard_iterator_type(ShardIteratorType::TrimHorizon),
            StreamPoint::After(sequence) => {
                call.shard_iterator_type(ShardIteratorType::AfterSequenceNumber).sequence_number(sequence.digits())
            }
        };
        let answer = observe("GetShardIterator", call.send())
            .await
            .map_err(|error| failed("GetShardIterator", "dynamodb:GetShardIterator", error))?;
        answer.shard_iterator.map(ShardIterator).ok_or_else(|| lacking("GetShardIterator", Lacking("a shard iterator")))
    }

    fn arn_of(&self, shard: &ShardId) -> Arc<str> {
        self.with(|streams| match &streams.earlier {
            Some((earlier, shards)) if shards.contains(shard) => earlier.clone(),
            _ => streams.latest.clone(),
        })
    }
}

async fn latest_stream(clients: &AwsClients, events_table: &str) -> Result<String, StreamError> {
    let answer = observe("DescribeTable", clients.dynamodb.describe_table().table_name(events_table).send()).await;
    let description = match answer {
        Ok(answer) => answer.table,
        Err(error) if classify(&*error) == AwsFailure::NotFound => None,
        Err(error) => return Err(failed("DescribeTable", "dynamodb:DescribeTable", error)),
    };
    let Some(description) = description else {
        let reason = format!("the table `{events_table}` does not exist; create it with `angzarr-relay tables create`");
        return Err(StreamError::NoStream { reason });
    };
    let stream = description.stream_specification.filter(|stream| stream.stream_enabled);
    let (Some(stream), Some(arn)) = (stream, description.latest_stream_arn) else {
        let command = clients.enable_stream_command(events_table);
        let reason = format!("the table `{events_table}` has no stream; enable it with `{command}`");
        return Err(StreamError::NoStream { reason });
    };
    match stream.stream_view_type {
        Some(StreamViewType::NewImage | StreamViewType::NewAndOldImages) => Ok(arn),
        other => {
            let found = other.as_ref().map_or("none", StreamViewType::as_str);
            let (disable, enable) =
                (clients.disable_stream_command(events_table), clients.enable_stream_command(events_table));
            let reason = format!(
                "the stream of `{events_table}` has the view type {found} and carries no new images; \
                 replace it with `{disable}` and then `{enable}`"
            );
            Err(StreamError::NoStream { reason })
        }
    }
}

fn decode(record: sdk::Record, clock: &Clock) -> Result<Record, Malformed> {
    let body = record.dynamodb.ok_or(Malformed("body"))?;
    let sequence = StreamSequence::new(body.sequence_number.as_deref().ok_or(Malformed("sequence number"))?);
    let happened_at = (body.approximate_creation_date_time)
        .and_then(|moment| moment.to_millis().ok())
        .map_or_else(|| clock.now(), Timestamp::from_unix_millis);
    let change = match record.event_name {
        Some(OperationType::Insert) => inserted(body.new_image, body.keys),
        Some(OperationType::Remove) => Change::Removed(body.keys.as_ref().and_then(root_of)),
        _ => Change::Modified,
    };
    Ok(Record { sequence, happened_at, change })
}

type Image = HashMap<String, AttributeValue>;

/// The root in a row's key; none when it is no event key.
fn root_of(keys: &Image) -> Option<Root> {
    match keys.get(columns::PK) {
        Some(AttributeValue::S(pk)) => Root::parse(pk).ok(),
        _ => None,
    }
}

fn inserted(new_image: Option<Image>, keys: Option<Image>) -> Change {
    let imageless = new_image.is_none();
    // The keys alone decode as far as the root and the sequence that an error must name.
    let mut change = Change::of_row(decode_row(new_image.or(keys).unwrap_or_default()));
    if let (true, Change::Invalid(invalid)) = (imageless, &mut change) {
        invalid.reason = "the stream record carries no new image: the stream's view type is wrong".into();
    }
    change
}

impl Attribute for AttributeValue {
    fn into_text(self) -> Option<String> {
        if let Self::S(text) = self { Some(text) } else { None }
    }

    fn into_number(self) -> Option<String> {
        if let Self::N(digits) = self { Some(digits) } else { None }
    }

    fn into_binary(self) -> Option<Bytes> {
        if let Self::B(blob) = self { Some(blob.into_bytes()) } else { None }
    }
}

/// The service answered with something that is no stream record.
#[derive(Debug, thiserror::Error)]
#[error("a stream record without a {0}")]
struct Malformed(&'static str);

fn shard(shard: sdk::Shard) -> Option<Shard> {
    Some(Shard {
        id: ShardId::new(&shard.shard_id?),
        parent: shard.parent_shard_id.filter(|parent| !parent.is_empty()).map(|parent| ShardId::new(&parent)),
    })
}

/// The answer to a call lacks what every such answer has: something on the way has lost it, and it says nothing.
#[derive(Debug, thiserror::Error)]
#[error("an answer without {0}")]
struct Lacking(&'static str);

fn lacking(operation: &'static str, error: impl std::error::Error + Send + Sync + 'static) -> StreamError {
    StreamError::Unavailable { operation, source: Box::new(error) }
}

/// What DescribeStream says: without it the stream is not one without shards.
fn shards_of(description: Option<sdk::StreamDescription>) -> Result<sdk::StreamDescription, StreamError> {
    description.ok_or_else(|| lacking("DescribeStream", Lacking("a description of the stream")))
}

fn failed<E, R>(operation: &'static str, action: &'static str, error: Box<SdkError<E, R>>) -> StreamError
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    R: std::fmt::Debug + Send + Sync + 'static,
{
    let service = error.as_service_error();
    let code = service.and_then(ProvideErrorMetadata::code).unwrap_or_default();
    let message = service.and_then(ProvideErrorMetadata::message).unwrap_or_default();
    if code.ends_with("ExpiredIteratorException") {
        return StreamError::ExpiredIterator;
    }
    if code.ends_with("TrimmedDataAccessException") {
        return StreamError::Trimmed;
    }
    // DynamoDB Local lists shards past their 24 hours and refuses to read them so.
    if message.contains("Invalid ShardId in ShardIterator") {
        return StreamError::Gone;
    }
    match classify(&*error) {
        AwsFailure::NotFound => StreamError::Gone,
        AwsFailure::Throttled => StreamError::Throttled { operation },
        AwsFailure::Denied => StreamError::Denied { action, source: error },
        _ => StreamError::Unavailable { operation, source: error },
    }
}

#[async_trait]
impl StreamSource for DynamoStream {
    fn name(&self) -> String {
        self.arn().to_string()
    }

    async fn shards(&self, after: Option<&ShardId>) -> Result<ShardPage, StreamError> {
        if after.is_none() {
            // A listing begins with a look which stream it is of.
            self.look().await?;
            self.with(|streams| streams.listed.clear());
        }
        let arn = self.arn();
        let call = (self.clients.streams.describe_stream())
            .stream_arn(&*arn)
            .limit(SHARDS_PAGE_MAX)
            .set_exclusive_start_shard_id(after.map(ToString::to_string));
        let answer = observe("DescribeStream", call.send())
            .await
            .map_err(|error| failed("DescribeStream", "dynamodb:DescribeStream", error))?;
        let description = shards_of(answer.stream_description)?;
        let shards: Vec<Shard> = description.shards.unwrap_or_default().into_iter().filter_map(shard).collect();
        self.with(|streams| streams.listed.extend(shards.iter().map(|shard| shard.id.clone())));
        Ok(ShardPage { shards, next: description.last_evaluated_shard_id.map(|id| ShardId::new(&id)) })
    }

    async fn children(&self, parent: &ShardId) -> Result<Vec<Shard>, StreamError> {
        let taken_to_be = self.arn_of(parent);
        match self.children_in(&taken_to_be, parent).await {
            Err(StreamError::Gone) => {}
            answer => return answer,
        }
        for arn in self.others(&taken_to_be).await? {
            match self.children_in(&arn, parent).await {
                Err(StreamError::Gone) => {}
                answer => return answer,
            }
        }
        Err(StreamError::Gone)
    }
}

#[async_trait]
impl ShardSource for DynamoStream {
    async fn open(&self, shard: &ShardId, from: &StreamPoint) -> Result<ShardIterator, StreamError> {
        let taken_to_be = self.arn_of(shard);
        match self.open_in(&taken_to_be, shard, from).await {
            Err(StreamError::Gone) => {}
            answer => return answer,
        }
        for arn in self.others(&taken_to_be).await? {
            match self.open_in(&arn, shard, from).await {
                Err(StreamError::Gone) => {}
                answer => {
                    self.with(|streams| streams.is_in(shard, &arn));
                    return answer;
                }
            }
        }
        Err(StreamError::Gone)
    }

    async fn fetch(&self, iterator: &ShardIterator) -> Result<Fetched, StreamError> {
        let call = self.clients.streams.get_records().shard_iterator(&iterator.0).limit(READ_RECORDS_MAX);
        let answer = observe("GetRecords", call.send())
            .await
            .map_err(|error| failed("GetRecords", "dynamodb:GetRecords", error))?;
        let next = answer.next_shard_iterator.filter(|next| !next.is_empty()).map(ShardIterator);
        if answer.records.is_none() && next.is_none() {
            // Only an answer that has come whole may end a shard.
            return Err(lacking("GetRecords", Lacking("records")));
        }
        let found = answer.records.unwrap_or_default();
        let bodies = || found.iter().filter_map(|record| record.dynamodb.as_ref());
        let bytes = bodies().filter_map(|body| usize::try_from(body.size_bytes?).ok()).sum();
        let last = bodies().next_back().and_then(|body| body.sequence_number.as_deref()).map(StreamSequence::new);
        let (records, clock) = (found.len(), self.clock.clone());
        Ok(Fetched::new(
            next,
            (last, records, bytes),
            Box::new(move || {
                let decoded = found.into_iter().map(|record| decode(record, &clock)).collect::<Result<_, _>>();
                decoded.map_err(|error| lacking("GetRecords", error))
            }),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::testing::{AnyValue, any_row, into_sdk_value};
    use aws_smithy_types::{Blob, DateTime};
    use proptest::prelude::*;

    into_sdk_value!(AttributeValue);

    const COLUMNS: [&str; 5] = ["pk", "sk", "event_type", "payload", "created_at"];

    /// Whatever a service may answer with for a row, and a good key in every other.
    fn any_image() -> impl Strategy<Value = Option<HashMap<String, AnyValue>>> {
        let image = (any_row(&COLUMNS), any::<bool>()).prop_map(|(mut row, keyed)| {
            if keyed {
                row.insert("pk".to_owned(), AnyValue::S("orders##1".to_owned()));
                row.insert("sk".to_owned(), AnyValue::N("7".to_owned()));
            }
            row
        });
        proptest::option::weighted(0.8, image)
    }

    fn image_of(row: Option<HashMap<String, AnyValue>>) -> Option<Image> {
        row.map(|row| row.into_iter().map(|(name, value)| (name, value.into())).collect())
    }

    proptest! {
        /// Whatever GetRecords answers with: a record is decoded as its row is, or it is none.
        #[test]
        fn any_record_is_decoded_as_its_row_is(
            (keys, new_image) in (any_image(), any_image()),
            (bodiless, number) in (proptest::bool::weighted(0.1), proptest::option::weighted(0.9, "[0-9]{1,40}|.{0,9}")),
            (secs, nanos) in (any::<i64>(), any::<u32>()),
            event_name in proptest::option::of("INSERT|MODIFY|REMOVE|OTHER"),
        ) {
            let body = sdk::StreamRecord::builder()
                .set_keys(image_of(keys.clone()))
                .set_new_image(image_of(new_image.clone()))
                .set_sequence_number(number.clone())
                .approximate_creation_date_time(DateTime::from_secs_and_nanos(secs, nanos % 1_000_000_000))
                .build();
            let record = sdk::Record::builder()
                .set_event_name(event_name.as_deref().map(OperationType::from))
                .set_dynamodb((!bodiless).then_some(body))
                .build();
            let decoded = decode(record, &Clock::system());
            prop_assert_eq!(decoded.is_err(), bodiless || number.is_none());
            let Ok(decoded) = decoded else { return Ok(()) };
            prop_assert_eq!(Some(decoded.sequence), number.as_deref().map(StreamSequence::new));
            match (event_name.as_deref(), decoded.change) {
                (Some("INSERT"), change) => {
                    let row = decode_row(new_image.clone().or(keys).unwrap_or_default());
                    let same = match (&change, Change::of_row(row)) {
                        (Change::Inserted(one), Change::Inserted(two)) => *one == two && new_image.is_some(),
                        (Change::Invalid(one), Change::Invalid(two)) => {
                            (&one.root, one.sequence) == (&two.root, two.sequence)
                                && (new_image.is_none() || one.reason == two.reason)
                        }
                        // A record without its image is never an event.
                        (Change::Invalid(one), Change::Inserted(_)) => new_image.is_none() && one.reason.contains("image"),
                        (Change::ForeignKey { problem: one }, Change::ForeignKey { problem: two }) => *one == two,
                        (one, two) => matches!((one, two), (Change::Chunk, Change::Chunk)),
                    };
                    prop_assert!(same, "{:?}", change);
                }
                (Some("REMOVE"), Change::Removed(root)) => {
                    let pk = keys.as_ref().and_then(|keys| keys.get("pk"));
                    let pk = if let Some(AnyValue::S(pk)) = pk { Root::parse(pk).ok() } else { None };
                    prop_assert_eq!(root, pk);
                }
                (_, change) => prop_assert!(matches!(change, Change::Modified)),
            }
        }
    }

    fn image(body: bool) -> Image {
        let mut image = Image::from([
            ("pk".to_owned(), AttributeValue::S("orders##1".into())),
            ("sk".to_owned(), AttributeValue::N("7".into())),
        ]);
        if body {
            image.insert("event_type".into(), AttributeValue::S("OrderPlaced".into()));
            image.insert("payload".into(), AttributeValue::B(Blob::new(vec![0, 255])));
            image.insert("created_at".into(), AttributeValue::S("2026-01-31T12:00:00Z".into()));
        }
        image
    }

    #[test]
    fn an_insert_is_an_event() {
        let Change::Inserted(event) = inserted(Some(image(true)), Some(image(false))) else { panic!("an event") };
        assert_eq!((event.root.key(), event.sequence.0, &event.payload[..]), ("orders##1", 7, &[0, 255][..]));
    }

    #[test]
    fn an_insert_without_an_image_names_its_row_and_the_reason() {
        let Change::Invalid(invalid) = inserted(None, Some(image(false))) else { panic!("invalid") };
        assert_eq!((invalid.root.key(), invalid.sequence.0), ("orders##1", 7));
        assert!(invalid.reason.contains("no new image"), "{}", invalid.reason);
        let Change::Invalid(invalid) = inserted(Some(image(false)), None) else { panic!("invalid") };
        assert!(invalid.reason.contains("event_type"), "{}", invalid.reason);
        assert!(matches!(inserted(None, None), Change::ForeignKey { .. }));
    }
}
