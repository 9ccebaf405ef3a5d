//! The world of one run: its time, the tables in memory, calls that are under way, chance, and the trace.
//!
//! The world's time is moved by the scenario alone; each replica has a clock of its own.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use angzarr_relay::event::{Root, Sequence, Timestamp};
use angzarr_relay::fleet::FleetStore;
use angzarr_relay::handler::HandlerName;
use angzarr_relay::relay_table::{Checkpoint, MemoryRelayTable};
use angzarr_relay::storage::{MemoryEvents, MemoryPositions};
use angzarr_relay::stream::{MemoryStream, ShardId};
use angzarr_relay::time::Random;
use bytes::Bytes;
use futures_util::FutureExt as _;

use crate::checker::Checker;
use crate::writer::Writing;

/// The wall time at which a run begins, in milliseconds since 1970.
const BEGINNING_MS: i64 = 1_800_000_000_000;

/// A page of the stream holds so many records at most: a short page says nothing of the head.
const PAGE_RECORDS_MAX: usize = 25;

/// The payload of an event: no two alike.
pub(crate) fn payload(root: &Root, sequence: Sequence) -> Bytes {
    format!("{root} {sequence} and what makes it longer than two chunks of the table").into()
}

/// A call under way: what it does to the tables.
type Effect = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What all parts of a run share.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) events: MemoryEvents,
    pub(crate) stream: MemoryStream,
    pub(crate) positions: MemoryPositions,
    pub(crate) table: MemoryRelayTable,
    pub(crate) chance: Random,
    pub(crate) checker: Arc<Mutex<Checker>>,
    pub(crate) trace: Arc<Mutex<Trace>>,
    pub(crate) writing: Arc<Mutex<Writing>>,
    now: Arc<Mutex<Duration>>,
    under_way: Arc<Mutex<Vec<(Duration, Effect)>>>,
}

#[derive(Default)]
pub(crate) struct Trace {
    pub(crate) lines: Vec<String>,
    pub(crate) happened: BTreeMap<&'static str, usize>,
}

impl World {
    pub(crate) fn new(seed: u64, shards: usize, checker: Checker) -> Self {
        let stream = MemoryStream::default();
        stream.shorten_pages(PAGE_RECORDS_MAX);
        let open = (0..shards).map(|_| stream.create_shard(None)).collect();
        Self {
            events: MemoryEvents::default(),
            stream,
            positions: MemoryPositions::default(),
            table: MemoryRelayTable::default(),
            chance: Random::seeded(seed),
            checker: Arc::new(Mutex::new(checker)),
            trace: Arc::default(),
            writing: Arc::new(Mutex::new(Writing::over(open))),
            now: Arc::default(),
            under_way: Arc::default(),
        }
    }

    /// The time since the run began.
    pub(crate) fn elapsed(&self) -> Duration {
        *self.now.lock().unwrap()
    }

    /// The wall time.
    pub(crate) fn now(&self) -> Timestamp {
        Timestamp::from_unix_millis(BEGINNING_MS).plus(self.elapsed())
    }

    /// Lets time go by; what is under way for longer arrives.
    pub(crate) fn pass(&self, step: Duration) {
        let now = {
            let mut now = self.now.lock().unwrap();
            *now += step;
            *now
        };
        loop {
            let due = {
                let mut under_way = self.under_way.lock().unwrap();
                let due = under_way.iter().position(|(at, _)| *at <= now);
                due.map(|place| under_way.remove(place).1)
            };
            let Some(effect) = due else { return };
            effect.now_or_never().expect("the tables answer at once");
        }
    }

    /// A call that takes so long to arrive, whatever becomes of who made it.
    pub(crate) fn later(&self, delay: Duration, effect: impl Future<Output = ()> + Send + 'static) {
        self.under_way.lock().unwrap().push((self.elapsed() + delay, Box::pin(effect)));
    }

    /// Whether a replica was declared dead, and has not joined anew.
    pub(crate) fn is_dead(&self, replica: &str) -> bool {
        let fleet = self.table.fleet().now_or_never().expect("the tables answer at once").unwrap();
        let is_its = |id: &str| id.split('~').next() == Some(replica);
        !fleet.members.iter().any(|member| is_its(member.id.as_str()) && !member.dead)
    }

    /// How far a handler is on the shards that it has begun.
    pub(crate) fn checkpoints(&self, handler: &HandlerName) -> BTreeMap<ShardId, Checkpoint> {
        let read = FleetStore::checkpoints(&self.table, handler);
        read.now_or_never().expect("the tables answer at once").unwrap()
    }

    pub(crate) fn note(&self, line: &str) {
        let at = self.elapsed().as_millis();
        self.trace.lock().unwrap().lines.push(format!("{at:>8} {line}"));
    }

    pub(crate) fn happened(&self, what: &'static str) {
        *self.trace.lock().unwrap().happened.entry(what).or_default() += 1;
    }

    /// Tells the checker; what it finds wrong stands in the trace where it was.
    pub(crate) fn check<T>(&self, act: impl FnOnce(&mut Checker) -> T) -> T {
        let mut checker = self.checker.lock().unwrap();
        checker.now = self.elapsed();
        let before = checker.violations.len();
        let answer = act(&mut checker);
        let found = checker.violations.get(before..).unwrap_or_default().to_vec();
        drop(checker);
        for violation in found {
            self.note(&format!("VIOLATION {violation}"));
        }
        answer
    }
}
