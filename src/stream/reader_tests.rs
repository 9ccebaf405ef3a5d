//! The reader over a stream that misbehaves: it keeps its calls few, and never stands still unseen.

use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use tokio::sync::mpsc;

use super::super::{LaneId, MemoryStream, ShardId};
use super::*;
use crate::event::{Event, Root, Sequence, Timestamp};

/// A stream in memory that counts the calls, and may never honour an iterator.
struct Counting {
    stream: MemoryStream,
    opened: AtomicUsize,
    expired: bool,
    /// Pages that cannot be decoded before they can.
    garbled: AtomicUsize,
}

#[async_trait]
impl ShardSource for Counting {
    async fn open(&self, shard: &ShardId, from: &StreamPoint) -> Result<ShardIterator, StreamError> {
        self.opened.fetch_add(1, Ordering::Relaxed);
        self.stream.open(shard, from).await
    }

    async fn fetch(&self, iterator: &ShardIterator) -> Result<Fetched, StreamError> {
        if self.expired {
            return Err(StreamError::ExpiredIterator);
        }
        let page = self.stream.read(iterator).await?;
        let garbled = |left: usize| left.checked_sub(1);
        if self.garbled.fetch_update(Ordering::Relaxed, Ordering::Relaxed, garbled).is_err() {
            return Ok(page.into());
        }
        let last = page.records.last().map(|record| record.sequence.clone());
        let decode = || Err(StreamError::Unavailable { operation: "GetRecords", source: "garbled".into() });
        Ok(Fetched::new(page.next, (last, page.records.len(), page.bytes), Box::new(decode)))
    }
}

/// A shard of so many records, and its feed.
fn shard(records: u64, expired: bool) -> (Arc<Counting>, Feed) {
    let stream = MemoryStream::default();
    let id = stream.create_shard(None);
    for sequence in 0..records {
        let event = Event {
            root: Root::new("orders", "", "r").unwrap(),
            sequence: Sequence(sequence),
            event_type: "T".into(),
            payload: bytes::Bytes::new(),
            chunked: None,
            correlation_id: None,
            traceparent: None,
            created_at: Timestamp::from_unix_millis(0),
        };
        stream.push(&id, Timestamp::from_unix_millis(0), Change::Inserted(event));
    }
    (Arc::new(Counting { stream, opened: AtomicUsize::new(0), expired, garbled: AtomicUsize::new(0) }), Feed::new(id))
}

fn parts(source: Arc<Counting>, budget: Budget) -> ReaderParts {
    ReaderParts { budget, ..ReaderParts::of(source) }
}

#[tokio::test(start_paused = true)]
async fn waiting_for_room_is_alive_and_sees_that_everybody_left() {
    let (source, feed) = shard(1, false);
    let budget = Budget::new(1000);
    let _all = budget.reserve(1000).await;
    let (notify, _notices) = mpsc::unbounded_channel();
    let lane = feed.join(LaneId(1), StreamPoint::Horizon, Timestamp::from_unix_millis(0), notify);
    let parts = parts(source, budget);
    let health = parts.health.clone();
    let reader = tokio::spawn(ShardReader::new(parts, feed).run());
    sleep(Duration::from_mins(10)).await;
    assert!(health.stuck().is_empty(), "a reader that waits for room is no reason to end the process");
    drop(lane);
    let ended = timeout(Duration::from_mins(1), reader).await;
    assert_eq!(ended.expect("the reader ends with its last lane").unwrap(), ReaderEnd::Deserted);
}

#[tokio::test(start_paused = true)]
async fn iterators_that_always_expire_are_opened_at_a_pace() {
    let (source, feed) = shard(1, true);
    let (notify, _notices) = mpsc::unbounded_channel();
    let _lane = feed.join(LaneId(1), StreamPoint::Horizon, Timestamp::from_unix_millis(0), notify);
    let reader = tokio::spawn(ShardReader::new(parts(source.clone(), Budget::new(1 << 30)), feed).run());
    sleep(Duration::from_mins(1)).await;
    let opened = source.opened.load(Ordering::Relaxed);
    assert!((3..30).contains(&opened), "{opened} calls in a minute");
    reader.abort();
}

#[tokio::test(start_paused = true)]
async fn a_lane_that_is_behind_keeps_its_iterator() {
    let (source, feed) = shard(20_000, false);
    let (notify, mut notices) = mpsc::unbounded_channel();
    let at = Timestamp::from_unix_millis(0);
    let head = StreamPoint::After(crate::stream::StreamSequence::new("20000"));
    let _leader = feed.join(LaneId(1), head, at, notify.clone());
    let lagging = feed.join(LaneId(2), StreamPoint::Horizon, at, notify);
    let reader = tokio::spawn(ShardReader::new(parts(source.clone(), Budget::new(1 << 30)), feed).run());
    let mut records = 0;
    while records < 20_000 {
        match lagging.take() {
            Some(page) => records += page.records,
            None => assert!(notices.recv().await.is_some()),
        }
        // The reader looks at what is wanted before the lane comes again.
        sleep(Duration::from_millis(1)).await;
    }
    let opened = source.opened.load(Ordering::Relaxed);
    assert!(opened <= 3, "{opened} iterators for 20 pages");
    reader.abort();
}

#[tokio::test(start_paused = true)]
async fn a_page_that_cannot_be_decoded_is_read_again_and_nothing_behind_it_comes_before() {
    let (source, feed) = shard(5_000, false);
    source.garbled.store(3, Ordering::Relaxed);
    let (notify, mut notices) = mpsc::unbounded_channel();
    let lane = feed.join(LaneId(1), StreamPoint::Horizon, Timestamp::from_unix_millis(0), notify);
    let reader = tokio::spawn(ShardReader::new(parts(source, Budget::new(1 << 30)), feed).run());
    let mut sequences = Vec::new();
    while sequences.len() < 5_000 {
        match lane.take() {
            Some(page) => sequences
                .extend(page.runs.iter().flat_map(|run| &run.rows).map(|row| super::super::row_sequence(row).0)),
            None => assert!(notices.recv().await.is_some()),
        }
    }
    assert!(sequences.into_iter().eq(0..5_000));
    reader.abort();
}

#[tokio::test(start_paused = true)]
async fn what_was_not_there_at_the_head_is_told_from_what_only_comes_late() {
    let (source, feed) = shard(1, false);
    let (notify, mut notices) = mpsc::unbounded_channel();
    let shard = feed.shard().clone();
    let lane = feed.join(LaneId(1), StreamPoint::Horizon, Timestamp::from_unix_millis(0), notify);
    let clock = Clock::starting_at(Timestamp::from_unix_millis(1_000_000));
    let parts = ReaderParts { clock: clock.clone(), ..parts(source.clone(), Budget::new(1 << 30)) };
    let reader = tokio::spawn(ShardReader::new(parts, feed).run());
    let mut absent = Vec::new();
    for age in [None, Some(Duration::ZERO), Some(TIME_SLACK * 5)] {
        if let Some(age) = age {
            sleep(Duration::from_secs(5)).await;
            let happened_at = Timestamp::from_unix_millis(1_000_000 + 5_000 - i64::try_from(age.as_millis()).unwrap());
            source.stream.push(&shard, happened_at, Change::Modified);
        }
        let page = loop {
            match lane.take() {
                Some(page) => break page,
                None => assert!(notices.recv().await.is_some()),
            }
        };
        absent.push(page.absent_at.is_some());
    }
    assert_eq!(absent, [false, true, false], "of the beginning, of now, of long ago");
    reader.abort();
}
