//! The handler: which records go into which PutRecords call, and each root's answer.
//!
//! A group may need several calls; they go one after the other, and each is encoded just before it is sent, so that
//! memory holds one call's records. Invariant: a root has at most one record in all the calls of one group. What an
//! answer means is left to `answer`, retry to `lane`.

use async_trait::async_trait;
use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::PutRecordsRequestEntry;

use super::answer::{CallFailure, record_failure};
use super::record::{AGGREGATED_BYTES_MAX, KinesisFormat, Record};
use crate::handler::{Accepted, GroupLimits, Handler, HandlerError, RootBatch};
use crate::telemetry::record_aws_call;

/// The most records Kinesis takes in one PutRecords call.
const RECORDS_MAX: usize = 500;

/// The bytes of a PutRecords call, data and partition keys, unless configured: what every Kinesis takes.
const REQUEST_BYTES_DEFAULT: usize = 5 << 20;

/// The record limit of a stream that was not given another: 1 MiB of data and partition key.
const RECORD_BYTES_DEFAULT: usize = 1 << 20;

/// How many events of a root are asked for at once when they are aggregated. Small ones fill a record about so.
const AGGREGATED_EVENTS_MAX: usize = 500;

/// What becomes of an event that is larger than the stream takes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Oversize {
    /// It is refused for good: the handler's failure policy decides.
    #[default]
    Refuse,
    /// It goes out as a CloudEvent without data, whose `dataref` names its row.
    Reference {
        /// The name of the events table.
        events_table: String,
    },
}

/// Which stream, and in what form events are put there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KinesisSettings {
    /// The stream's name, or its ARN.
    pub stream: String,
    /// What a record holds.
    pub format: KinesisFormat,
    /// Whether several events of a root travel in one record of the Kinesis Producer Library's format.
    pub aggregate: bool,
    /// The bytes of data and partition keys in one call: 5 MiB is what every Kinesis takes, AWS takes up to 10 MiB.
    pub request_bytes_max: usize,
    /// What becomes of an event that is larger than the stream takes.
    pub oversize: Oversize,
}

impl KinesisSettings {
    /// CloudEvents, one event a record, 5 MiB a call.
    pub fn new(stream: impl Into<String>) -> Self {
        Self {
            stream: stream.into(),
            format: KinesisFormat::default(),
            aggregate: false,
            request_bytes_max: REQUEST_BYTES_DEFAULT,
            oversize: Oversize::Refuse,
        }
    }
}

/// Puts events to a Kinesis data stream. The order of a root's events in their shard is that of their sequences.
///
/// Needs `kinesis:PutRecords` on the stream; and `kinesis:DescribeStreamSummary` for records over 1 MiB alone.
#[derive(Debug)]
pub struct KinesisHandler {
    client: Client,
    settings: KinesisSettings,
}

/// The records of one call; `roots[i]` is the index in the group of the root of `records[i]`.
#[derive(Default)]
struct Call {
    records: Vec<Record>,
    roots: Vec<usize>,
    bytes: usize,
}

impl Call {
    /// Whether a record of so many bytes may still go in; the first one always does.
    fn has_room(&self, bytes: usize, bytes_max: usize) -> bool {
        self.records.is_empty() || (self.records.len() < RECORDS_MAX && self.bytes + bytes <= bytes_max)
    }

    fn push(&mut self, root: usize, record: Record) {
        self.bytes += record.bytes();
        self.roots.push(root);
        self.records.push(record);
    }
}

type Answer = Result<Accepted, HandlerError>;

impl KinesisHandler {
    /// A handler that puts to the stream of `settings`. The client's own retries should be off: `lane` retries.
    pub fn new(client: Client, settings: KinesisSettings) -> Self {
        Self { client, settings }
    }

    /// The stream's name, and its ARN, as a request takes them: one of the two.
    fn stream(&self) -> (Option<String>, Option<String>) {
        let stream = self.settings.stream.clone();
        if stream.starts_with("arn:") { (None, Some(stream)) } else { (Some(stream), None) }
    }

    /// The record that a batch begins with; none for an empty batch.
    async fn record(&self, batch: &RootBatch) -> Result<Option<Record>, HandlerError> {
        let Some(first) = batch.events.first() else { return Ok(None) };
        if !first.is_whole() {
            let (bytes, limit) = (first.payload_bytes(), self.settings.request_bytes_max);
            return self.oversize(batch, || format!("its payload has {bytes} bytes, a call takes {limit}"));
        }
        let Some(record) = Record::of(batch, self.settings.format, self.settings.aggregate) else { return Ok(None) };
        let bytes = record.bytes();
        if bytes <= RECORD_BYTES_DEFAULT {
            return Ok(Some(record));
        }
        let call = self.settings.request_bytes_max;
        if bytes > call {
            return self.oversize(batch, || format!("its record has {bytes} bytes, a call takes {call}"));
        }
        // The stream's own limit is read for large records alone, which are rare; so a limit that was raised is seen.
        let limit = match self.record_bytes_max().await {
            Ok(limit) => limit,
            Err(failure) if failure.is_denied() => RECORD_BYTES_DEFAULT,
            Err(failure) => return Err(failure.error()),
        };
        if bytes <= limit {
            return Ok(Some(record));
        }
        self.oversize(batch, || {
            format!("its record has {bytes} bytes with its partition key, the stream takes {limit}")
        })
    }

    fn oversize(&self, batch: &RootBatch, what: impl Fn() -> String) -> Result<Option<Record>, HandlerError> {
        match &self.settings.oversize {
            Oversize::Reference { events_table } => Ok(Record::reference(batch, events_table)),
            Oversize::Refuse => Err(HandlerError::permanent(format!(
                "the event is too large for the stream `{}`: {}; set oversize = \"reference\", or raise a smaller limit of \
                 the stream with UpdateMaxRecordSize",
                self.settings.stream,
                what()
            ))),
        }
    }

    async fn record_bytes_max(&self) -> Result<usize, CallFailure> {
        const OPERATION: &str = "DescribeStreamSummary";
        let (name, arn) = self.stream();
        let answer = self.client.describe_stream_summary().set_stream_name(name).set_stream_arn(arn).send().await;
        let answer = answer.map_err(|error| CallFailure::of(OPERATION, &self.settings.stream, &error));
        record_aws_call(OPERATION, answer.as_ref().err().map_or("ok", |failure| failure.outcome));
        let kib = answer?.stream_description_summary.and_then(|summary| summary.max_record_size_in_kib);
        Ok(kib.and_then(|kib| usize::try_from(kib).ok()).map_or(RECORD_BYTES_DEFAULT, |kib| kib << 10))
    }

    /// Sends a call and puts down the answer of each of its roots.
    async fn send(&self, call: Call, answers: &mut [Option<Answer>]) -> Result<(), CallFailure> {
        if call.records.is_empty() {
            return Ok(());
        }
        let events: Vec<usize> = call.records.iter().map(|record| record.events).collect();
        let outcome = self.put(call.records).await;
        record_aws_call("PutRecords", outcome.as_ref().err().map_or("ok", |failure| failure.outcome));
        match outcome {
            Ok(results) => {
                for ((root, events), result) in call.roots.into_iter().zip(events).zip(results) {
                    answers[root] = Some(result.map_or(Ok(Accepted { events }), Err));
                }
                Ok(())
            }
            Err(failure) => {
                for root in call.roots {
                    answers[root] = Some(Err(failure.error()));
                }
                Err(failure)
            }
        }
    }

    /// One PutRecords call; for each record why it was not taken.
    async fn put(&self, records: Vec<Record>) -> Result<Vec<Option<HandlerError>>, CallFailure> {
        let count = records.len();
        let stream = &self.settings.stream;
        let mut entries = Vec::with_capacity(count);
        for record in records {
            let entry = PutRecordsRequestEntry::builder()
                .partition_key(record.partition_key)
                .data(Blob::new(record.data))
                .build()
                .map_err(|error| CallFailure::of_entry(stream, &error))?;
            entries.push(entry);
        }
        let (name, arn) = self.stream();
        let request = self.client.put_records().set_stream_name(name).set_stream_arn(arn).set_records(Some(entries));
        let output = request.send().await.map_err(|error| CallFailure::of("PutRecords", stream, &error))?;
        if output.records.len() != count {
            return Err(CallFailure::of_count(stream, count, output.records.len()));
        }
        Ok(output.records.iter().map(|result| record_failure(stream, result)).collect())
    }

    /// The answers of a group, as far as its calls came; `Err` tells the roots left over why.
    async fn deliver_calls(&self, group: &[RootBatch], answers: &mut [Option<Answer>]) -> Result<(), CallFailure> {
        let mut call = Call::default();
        for (index, batch) in group.iter().enumerate() {
            let record = match self.record(batch).await {
                Ok(Some(record)) => record,
                Ok(None) => {
                    answers[index] = Some(Ok(Accepted { events: 0 }));
                    continue;
                }
                Err(error) => {
                    answers[index] = Some(Err(error));
                    continue;
                }
            };
            if !call.has_room(record.bytes(), self.settings.request_bytes_max) {
                self.send(std::mem::take(&mut call), answers).await?;
            }
            call.push(index, record);
        }
        self.send(call, answers).await
    }
}

#[async_trait]
impl Handler for KinesisHandler {
    async fn deliver(&self, batch: &RootBatch) -> Answer {
        let mut answers = self.deliver_group(std::slice::from_ref(batch)).await;
        answers.pop().unwrap_or(Ok(Accepted { events: 0 }))
    }

    /// One root's events at a time are one record, so one event unless aggregated. The bytes are payload bytes:
    /// CloudEvents are about a third larger, and a group that turns out too large for one call is sent in several.
    fn limits(&self) -> GroupLimits {
        let bytes = self.settings.request_bytes_max / 4 * 3;
        let (events_per_root, bytes_per_root) =
            if self.settings.aggregate { (AGGREGATED_EVENTS_MAX, AGGREGATED_BYTES_MAX) } else { (1, bytes) };
        let payload_bytes_max = self.settings.request_bytes_max;
        GroupLimits { roots: RECORDS_MAX, events_per_root, bytes_per_root, bytes, payload_bytes_max }
    }

    async fn deliver_group(&self, group: &[RootBatch]) -> Vec<Answer> {
        let mut answers: Vec<Option<Answer>> = group.iter().map(|_| None).collect();
        let outcome = self.deliver_calls(group, &mut answers).await;
        let left_over = || match &outcome {
            Ok(()) => HandlerError::unavailable("the record was in no call"),
            Err(failure) => failure.error(),
        };
        answers.into_iter().map(|answer| answer.unwrap_or_else(|| Err(left_over()))).collect()
    }
}
