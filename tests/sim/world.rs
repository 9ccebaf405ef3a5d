//! The world of one run: the tables and the stream in memory, the writer's side of them, and the trace.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use angzarr_relay::event::{Chunked, Event, Root, Sequence, cut};
use angzarr_relay::relay_table::MemoryRelayTable;
use angzarr_relay::storage::{MemoryEvents, MemoryPositions};
use angzarr_relay::stream::{Change, MemoryStream, ShardId};
use angzarr_relay::time::{Clock, Random};
use bytes::Bytes;
use tokio::time::Instant;

use crate::checker::Checker;

/// The size of a chunk, in bytes.
const CHUNK_BYTES: usize = 20;

/// The payload of an event: no two alike.
pub(crate) fn payload(root: &Root, sequence: Sequence) -> Bytes {
    format!("{root} {sequence} and what makes it longer than two chunks of the table").into()
}

/// What all parts of a run share.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) events: MemoryEvents,
    pub(crate) stream: MemoryStream,
    pub(crate) positions: MemoryPositions,
    pub(crate) table: MemoryRelayTable,
    pub(crate) clock: Clock,
    pub(crate) chance: Random,
    pub(crate) checker: Arc<Mutex<Checker>>,
    pub(crate) trace: Arc<Mutex<Trace>>,
    pub(crate) writing: Arc<Mutex<Writing>>,
    began: Instant,
}

#[derive(Default)]
pub(crate) struct Trace {
    pub(crate) lines: Vec<String>,
    pub(crate) happened: BTreeMap<&'static str, usize>,
}

/// What the writer keeps.
#[derive(Default)]
pub(crate) struct Writing {
    open: Vec<ShardId>,
    closed: Vec<ShardId>,
    last: BTreeMap<Root, Sequence>,
    pushed: u64,
}

impl World {
    pub(crate) fn new(seed: u64, shards: usize, checker: Checker) -> Self {
        let stream = MemoryStream::default();
        let open = (0..shards).map(|_| stream.create_shard(None)).collect();
        Self {
            events: MemoryEvents::default(),
            stream,
            positions: MemoryPositions::default(),
            table: MemoryRelayTable::default(),
            clock: Clock::starting_at(angzarr_relay::event::Timestamp::from_unix_millis(1_800_000_000_000)),
            chance: Random::seeded(seed),
            checker: Arc::new(Mutex::new(checker)),
            trace: Arc::default(),
            writing: Arc::new(Mutex::new(Writing { open, ..Writing::default() })),
            began: Instant::now(),
        }
    }

    pub(crate) fn note(&self, line: &str) {
        let at = self.began.elapsed().as_millis();
        self.trace.lock().unwrap().lines.push(format!("{at:>8} {line}"));
    }

    pub(crate) fn happened(&self, what: &'static str) {
        *self.trace.lock().unwrap().happened.entry(what).or_default() += 1;
    }

    pub(crate) fn check<T>(&self, act: impl FnOnce(&mut Checker) -> T) -> T {
        act(&mut self.checker.lock().unwrap())
    }

    /// Appends events that the stream never brings.
    pub(crate) fn write_unstreamed(&self, root: &Root, types: &[&str]) {
        self.write(root, types, &mut self.writing.lock().unwrap());
    }

    fn write(&self, root: &Root, types: &[&str], writing: &mut Writing) -> Vec<Event> {
        let mut made = Vec::new();
        for event_type in types {
            let sequence = writing.last.get(root).map_or(Sequence::FIRST, |last| last.next());
            writing.last.insert(root.clone(), sequence);
            let mut event = Event {
                root: root.clone(),
                sequence,
                event_type: (*event_type).into(),
                payload: payload(root, sequence),
                chunked: None,
                correlation_id: None,
                traceparent: None,
                created_at: self.clock.now(),
            };
            if self.chance.percent(5) {
                self.store_in_chunks(&mut event);
            }
            self.events.put(event.clone());
            self.check(|checker| checker.committed(&event));
            made.push(event);
        }
        made
    }

    /// Takes the payload out of the event's row.
    fn store_in_chunks(&self, event: &mut Event) {
        let append_id = format!("{} {}", event.root, event.sequence);
        self.events.put_chunks(&append_id, cut(&event.payload, CHUNK_BYTES).collect());
        event.chunked = Some(Box::new(Chunked::new(&event.payload, CHUNK_BYTES, &append_id)));
        event.payload = Bytes::new();
        self.happened("payload in chunks");
    }

    /// Appends events to a root: into the table at once, into the stream in any order, perhaps not all of them.
    pub(crate) fn append(&self, root: &Root, types: &[&str], faults: bool) {
        let mut writing = self.writing.lock().unwrap();
        let mut made = self.write(root, types, &mut writing);
        if faults && made.len() > 1 && self.chance.percent(40) {
            let other = usize::try_from(self.chance.below(made.len() as u64 - 1)).unwrap() + 1;
            made.swap(0, other);
            self.happened("transaction reordered");
        }
        for event in made {
            if faults && self.chance.percent(4) {
                self.happened("record dropped");
                self.note(&format!("dropped {} {}", event.root, event.sequence));
                continue;
            }
            let shard = self.shard_of(root, &mut writing, faults);
            writing.pushed += 1;
            self.check(|checker| {
                checker.streamed(shard.as_str(), writing.pushed, Some((root.clone(), event.sequence)));
            });
            self.note(&format!("wrote {} {} to {shard}", event.root, event.sequence));
            self.stream.push(&shard, self.clock.now(), Change::Inserted(event));
        }
    }

    /// A root stays in one shard but for now and then, as an item collection that is split does.
    fn shard_of(&self, root: &Root, writing: &mut Writing, faults: bool) -> ShardId {
        let place = if faults && self.chance.percent(5) {
            self.chance.below(1000)
        } else {
            root.key().bytes().map(u64::from).sum()
        };
        writing.open[usize::try_from(place).unwrap() % writing.open.len()].clone()
    }

    pub(crate) fn push_noise(&self) {
        let mut writing = self.writing.lock().unwrap();
        let place = usize::try_from(self.chance.below(writing.open.len() as u64)).unwrap();
        let change = match self.chance.below(4) {
            0 => Change::Modified,
            1 => Change::Removed(None),
            2 => Change::Chunk,
            _ => Change::ForeignKey { problem: "somebody else's".into() },
        };
        writing.pushed += 1;
        self.check(|checker| checker.streamed(writing.open[place].as_str(), writing.pushed, None));
        self.stream.push(&writing.open[place], self.clock.now(), change);
    }

    /// Rolls or splits one of the open shards.
    pub(crate) fn reshard(&self) {
        let mut writing = self.writing.lock().unwrap();
        let place = usize::try_from(self.chance.below(writing.open.len() as u64)).unwrap();
        let shard = writing.open.remove(place);
        let children = if writing.open.len() < 4 && self.chance.percent(50) { 2 } else { 1 };
        self.happened(if children == 2 { "shard split" } else { "shard rolled" });
        self.note(&format!("closed {shard}, {children} children"));
        writing.open.extend(self.stream.close_shard(&shard, children));
        writing.closed.push(shard);
    }

    /// Trims a closed shard, or takes it away whole.
    pub(crate) fn trim(&self) {
        let mut writing = self.writing.lock().unwrap();
        if writing.closed.is_empty() {
            return;
        }
        let shard = writing.closed.remove(0);
        self.happened("stream trimmed");
        if self.chance.percent(50) {
            self.note(&format!("removed {shard}"));
            self.stream.remove_shard(&shard);
            self.check(|checker| checker.trimmed(shard.as_str(), 0));
        } else {
            self.note(&format!("trimmed {shard}"));
            self.stream.trim(&shard, 1);
            self.check(|checker| checker.trimmed(shard.as_str(), 1));
        }
    }
}
