//! One handler's lanes driven by hand: tables in memory answer what is not held back, a script answers for the handler.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use super::super::{
    Effect, Glob, LaneSettings, Lanes, MarkOrder, OnFailure, Opening, Pattern, RepairOrder, Subscription,
    default_editions,
};
use super::contract::Contract;
use super::held::Held;
pub(super) use super::spec::{Spec, ev, evs, root_of};
use crate::event::{Root, Sequence, Timestamp};
use crate::handler::{Accepted, HandlerError, HandlerName, RootBatch};
use crate::relay_table::Checkpoint;
use crate::storage::{Advance, Advanced, Skip, Standing, StorageError};
use crate::stream::{Branch, Change, LaneId, Page, Record, ShardId, StreamPoint, StreamSequence};
use crate::time::Random;

/// The lane most tests use.
pub(super) const LANE: LaneId = LaneId(1);
/// Another.
pub(super) const OTHER: LaneId = LaneId(2);

/// More effects at one moment than this are a loop without end.
const EFFECTS_MAX: usize = 200_000;

/// What the handler answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    All,
    Take(usize),
    Retry,
    RetryAfter(Duration),
    Unavailable,
    Permanent,
    Throttled,
    /// It is not even asked: the payload lacks a chunk.
    Broken,
}

/// What the positions table answers to a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Writes {
    Work,
    Fail,
    LoseReplies,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Load,
    Repair,
    Deliver,
    Flush,
    Checkpoint,
    Mark,
}

/// What happened between the lanes and the handler.
#[derive(Debug, Clone)]
pub(super) enum Happened {
    Delivered(Root, Vec<u64>),
    Accepted(Root, Vec<u64>),
}

pub(super) fn kind(effect: &Effect) -> Kind {
    match effect {
        Effect::Load(_) => Kind::Load,
        Effect::Repair(_) => Kind::Repair,
        Effect::Deliver(_) => Kind::Deliver,
        Effect::Flush(_) => Kind::Flush,
        Effect::Checkpoint(..) => Kind::Checkpoint,
        Effect::Mark(_) | Effect::List => Kind::Mark,
    }
}

/// The lanes, their tables and a clock.
pub(super) struct Rig {
    pub(super) lanes: Lanes,
    pub(super) contract: Contract,
    pub(super) now: Instant,
    /// Everything handed to the handler, in order.
    pub(super) delivered: Vec<(Root, Vec<u64>)>,
    pub(super) repairs: Vec<RepairOrder>,
    /// So many roots were asked for.
    pub(super) loads: usize,
    pub(super) flushes: Vec<Vec<Advance>>,
    pub(super) checkpoints: Vec<(LaneId, Checkpoint)>,
    pub(super) finished: Vec<LaneId>,
    /// Lanes that were given up, and whether cleanly.
    pub(super) closed: Vec<(LaneId, bool)>,
    pub(super) log: Vec<Happened>,
    /// Reads that are held back show how it was when they were asked.
    pub(super) reads_early: bool,
    /// The shards were read to their heads just before what they show.
    pub(super) at_head: bool,
    /// Events that were passed, for the record.
    pub(super) skips: Vec<(Root, Skip)>,
    pub(super) writes: Writes,
    pub(super) checkpoints_fail: bool,
    pub(super) held: BTreeSet<Kind>,
    pub(super) waiting: VecDeque<Held>,
    once: BTreeMap<Root, VecDeque<Answer>>,
    always: BTreeMap<Root, Answer>,
    pub(super) everybody: Answer,
    pub(super) number: u64,
    pub(super) through: BTreeMap<LaneId, StreamPoint>,
}

/// The branch of a lane that a test opens.
pub(super) fn branch_of(lane: LaneId) -> Branch {
    Branch(ShardId::new(&format!("shard-{}", lane.0)))
}

/// The defaults, but that nothing is given up; a test names what it changes.
pub(super) fn settings() -> LaneSettings {
    LaneSettings { on_failure: OnFailure::Block, checkpoint_hold: Duration::from_hours(24), ..LaneSettings::default() }
}

/// A subscription to these types of every root.
pub(super) fn types(types: &[&str]) -> Subscription {
    let types = types.iter().map(|text| Glob::new(text)).collect();
    Subscription::new(vec![Pattern { domain: Glob::new("*"), types, editions: default_editions() }])
}

impl Rig {
    pub(super) fn new() -> Self {
        Self::with(settings())
    }

    pub(super) fn with(settings: LaneSettings) -> Self {
        Self::subscribed(settings, Subscription::everything())
    }

    /// A handler that starts at this moment.
    pub(super) fn starting_at(millis: i64) -> Self {
        Self::with(LaneSettings { started_at: Some(Timestamp::from_unix_millis(millis)), ..settings() })
    }

    pub(super) fn subscribed(settings: LaneSettings, subscription: Subscription) -> Self {
        let contract = Contract::new(subscription.clone(), settings.started_at);
        let handler = HandlerName::new("view").unwrap();
        let mut rig = Self {
            lanes: Lanes::new(handler, subscription, settings, Random::seeded(7)),
            contract,
            now: Instant::now(),
            delivered: Vec::new(),
            repairs: Vec::new(),
            loads: 0,
            flushes: Vec::new(),
            checkpoints: Vec::new(),
            finished: Vec::new(),
            closed: Vec::new(),
            log: Vec::new(),
            reads_early: false,
            at_head: true,
            skips: Vec::new(),
            writes: Writes::Work,
            checkpoints_fail: false,
            held: BTreeSet::new(),
            waiting: VecDeque::new(),
            once: BTreeMap::new(),
            always: BTreeMap::new(),
            everybody: Answer::All,
            number: 0,
            through: BTreeMap::new(),
        };
        rig.open(LANE);
        rig
    }

    pub(super) fn open(&mut self, lane: LaneId) {
        self.open_as(lane, Opening { after: StreamPoint::Horizon, branch: Some(branch_of(lane)), taken: false });
    }

    pub(super) fn open_as(&mut self, lane: LaneId, opening: Opening) {
        self.through.insert(lane, opening.after.clone());
        self.lanes.open(lane, opening, self.now);
    }

    /// Gives a lane up, within so many milliseconds.
    pub(super) fn close(&mut self, lane: LaneId, millis: u64) {
        self.lanes.close(lane, self.now + Duration::from_millis(millis), self.now);
        self.run();
    }

    /// What `LanesTask` does at the deadline of a lane that closes.
    fn end_overdue(&mut self) {
        if !self.lanes.is_overdue(self.now) {
            return;
        }
        if self.lanes.waits_for_deliveries(self.now) {
            self.waiting.retain(|held| held.kind() != Kind::Deliver);
            self.contract.in_flight.clear();
            self.lanes.deliveries_aborted(self.now);
        }
        self.lanes.end_overdue(self.now);
    }

    /// Puts rows into the table; the stream does not show them.
    pub(super) fn write(&mut self, rows: impl AsRef<[Spec]>) {
        for spec in rows.as_ref() {
            self.contract.table.insert((spec.root.clone(), Sequence(spec.sequence)), spec.row());
        }
    }

    pub(super) fn remove(&mut self, root: &str, sequence: u64) {
        self.contract.table.remove(&(root_of(root), Sequence(sequence)));
    }

    /// Shows rows on a page of the lane, in one page; they need not be in the table.
    pub(super) fn show(&mut self, lane: LaneId, rows: impl AsRef<[Spec]>, end: bool) {
        let first = self.number + 1;
        self.number += rows.as_ref().len() as u64;
        let numbered: Vec<_> = (first..).zip(rows.as_ref().iter().cloned()).collect();
        self.show_records(lane, &numbered, end);
    }

    /// Shows records under these numbers.
    pub(super) fn show_records(&mut self, lane: LaneId, records: &[(u64, Spec)], end: bool) {
        let rows = records;
        let mut records = Vec::new();
        for (number, spec) in rows {
            let sequence = StreamSequence::new(&number.to_string());
            let shown = (sequence.clone(), spec.root.clone(), Sequence(spec.sequence));
            self.contract.shown.entry(lane).or_default().push(shown);
            let change = match spec.row() {
                Ok(event) => Change::Inserted(event),
                Err(invalid) => Change::Invalid(invalid),
            };
            records.push(Record { sequence, happened_at: Timestamp::from_unix_millis(spec.created_at), change });
        }
        if end {
            self.contract.ended.insert(lane);
        }
        let mut page = Page::new(self.through[&lane].clone(), records, end);
        page.absent_at = self.at_head.then_some(self.now);
        self.through.insert(lane, page.through.clone());
        self.lanes.accept_page(lane, &page, self.now);
    }

    /// Writes rows and shows them, and lets follow what follows at once.
    pub(super) fn page(&mut self, rows: impl AsRef<[Spec]>) {
        self.page_of(LANE, rows);
    }

    pub(super) fn page_of(&mut self, lane: LaneId, rows: impl AsRef<[Spec]>) {
        self.write(rows.as_ref());
        self.show(lane, rows, false);
        self.run();
    }

    /// The shard ends.
    pub(super) fn end(&mut self, lane: LaneId) {
        self.show(lane, [], true);
        self.run();
    }

    /// Another replica's position, which these lanes do not know of.
    pub(super) fn elsewhere(&mut self, root: &str, position: u64) {
        self.contract.positions.insert(root_of(root), Sequence(position));
    }

    /// The handler's next answers for a root.
    pub(super) fn script(&mut self, root: &str, answers: impl IntoIterator<Item = Answer>) {
        self.once.entry(root_of(root)).or_default().extend(answers);
    }

    /// The handler's answer for a root from now on.
    pub(super) fn always(&mut self, root: &str, answer: Answer) {
        self.always.insert(root_of(root), answer);
    }

    /// Carries out everything there is to do now.
    pub(super) fn run(&mut self) {
        for _ in 0..EFFECTS_MAX {
            self.end_overdue();
            let effect = self.lanes.next_effect(self.now);
            self.closed.extend(self.lanes.take_closed());
            let Some(effect) = effect else { return };
            self.take(effect);
        }
        panic!("effects without end at one moment");
    }

    /// Lets time go by, from deadline to deadline; then the lanes look after what waits, as they do once a second.
    pub(super) fn advance(&mut self, by: Duration) {
        let until = self.now + by;
        self.run();
        for _ in 0..EFFECTS_MAX {
            match self.lanes.next_deadline(self.now) {
                Some(at) if at <= until => {
                    assert!(at > self.now, "a deadline is due and nothing is done: a busy loop");
                    self.now = at;
                    self.run();
                }
                _ => {
                    self.now = until;
                    self.lanes.resume_next();
                    self.lanes.purge_next(until);
                    return self.run();
                }
            }
        }
        panic!("deadlines without end");
    }

    pub(super) fn millis(&mut self, millis: u64) {
        self.advance(Duration::from_millis(millis));
    }

    /// Long enough for every wait of a default configuration to be over once.
    pub(super) fn rest(&mut self) {
        self.advance(Duration::from_mins(2));
    }

    /// What the handler was given of a root, first attempts and later ones.
    pub(super) fn of(&self, root: &str) -> Vec<u64> {
        let root = root_of(root);
        self.delivered.iter().filter(|(of, _)| *of == root).flat_map(|(_, events)| events.clone()).collect()
    }

    pub(super) fn position(&self, root: &str) -> Option<u64> {
        self.contract.positions.get(&root_of(root)).map(|position| position.0)
    }

    /// The lane's last checkpoint, as the number of the record.
    pub(super) fn checkpoint(&self, lane: LaneId) -> Option<u64> {
        let last = self.checkpoints.iter().rev().find(|(of, _)| *of == lane)?;
        match &last.1 {
            Checkpoint::At(sequence) => sequence.to_string().parse().ok(),
            Checkpoint::Finished => Some(u64::MAX),
        }
    }

    fn take(&mut self, effect: Effect) {
        match &effect {
            Effect::Load(roots) => {
                assert!(!roots.is_empty());
                self.loads += roots.len();
            }
            Effect::Repair(order) => self.repairs.push(order.clone()),
            Effect::Deliver(group) => {
                for batch in group {
                    self.contract.delivers(batch);
                    let events: Vec<u64> = batch.events.iter().map(|event| event.sequence.0).collect();
                    self.log.push(Happened::Delivered(batch.root.clone(), events.clone()));
                    self.delivered.push((batch.root.clone(), events));
                }
            }
            Effect::Flush(advances) => {
                assert!(self.held(Kind::Flush) == 0, "one flush at a time");
                let mut roots = BTreeSet::new();
                for advance in advances {
                    self.contract.writes(advance);
                    assert!(roots.insert(advance.root.clone()), "only the newest position of a root is written");
                }
                self.flushes.push(advances.clone());
            }
            Effect::Mark(MarkOrder::Mark { root, standing: Standing { position: Some(covered), .. }, .. }) => {
                self.contract.covers(root, *covered);
            }
            Effect::Mark(MarkOrder::Pass { root, standing, pass }) => self.contract.passes(root, standing, pass),
            Effect::Mark(_) | Effect::List => {}
            Effect::Checkpoint(lane, checkpoint) => {
                self.contract.checks(*lane, checkpoint);
                self.checkpoints.push((*lane, checkpoint.clone()));
            }
        }
        self.answer_or_hold(effect);
    }

    pub(super) fn answer(&mut self, effect: Effect) {
        match effect {
            Effect::Load(roots) => {
                let found = self.load(roots);
                self.load_answered(found);
            }
            Effect::Repair(order) => {
                let repaired = self.repair(&order);
                self.lanes.repaired(&order.root, repaired, self.now);
            }
            Effect::Deliver(group) => {
                let (mut answers, mut broken) = (Vec::new(), Vec::new());
                for batch in group {
                    match self.handle(batch) {
                        (batch, Some(answer)) => answers.push((batch, answer)),
                        (batch, None) => broken.push((batch, HandlerError::permanent("a chunk is missing"))),
                    }
                }
                self.lanes.delivered(answers, Duration::from_millis(1), self.now);
                self.lanes.not_deliverable(broken, self.now);
            }
            Effect::Flush(advances) => {
                let results = advances.into_iter().map(|advance| self.write_position(advance)).collect();
                self.lanes.flushed(results, self.now);
            }
            Effect::Mark(order) => {
                let result = self.change_mark(&order);
                self.lanes.marked(order, result, self.now);
            }
            Effect::List => self.lanes.resume(self.listed(), self.now),
            Effect::Checkpoint(lane, checkpoint) => {
                if self.lanes.checkpointed(lane, checkpoint, !self.checkpoints_fail, self.now) {
                    self.finished.push(lane);
                }
            }
        }
    }

    pub(super) fn tell(&mut self, root: &Root, position: Option<Sequence>) {
        if let Some(position) = position {
            let told = self.contract.told.entry(root.clone()).or_insert(position);
            *told = position.max(*told);
        }
    }

    fn handle(&mut self, batch: RootBatch) -> (RootBatch, Option<Result<Accepted, HandlerError>>) {
        self.contract.in_flight.remove(&batch.root);
        let scripted = self.once.get_mut(&batch.root).and_then(VecDeque::pop_front);
        let answer = scripted.or(self.always.get(&batch.root).copied()).unwrap_or(self.everybody);
        let answer = match answer {
            Answer::All => Ok(Accepted::all(&batch)),
            Answer::Take(events) => Ok(Accepted { events }),
            Answer::Retry => Err(HandlerError::retry("not now")),
            Answer::RetryAfter(wait) => {
                Err(HandlerError::Retry { reason: "later".into(), after: Some(wait), source: None })
            }
            Answer::Throttled => Err(HandlerError::throttled("later, please")),
            Answer::Unavailable => Err(HandlerError::unavailable("down")),
            Answer::Permanent => Err(HandlerError::permanent("never")),
            Answer::Broken => return (batch, None),
        };
        if let Ok(Accepted { events: 1.. }) = answer {
            let taken = answer.as_ref().map_or(0, |accepted| accepted.events).min(batch.events.len());
            self.contract.accepts(&batch.root, batch.events[taken - 1].sequence);
            let events = batch.events[..taken].iter().map(|event| event.sequence.0).collect();
            self.log.push(Happened::Accepted(batch.root.clone(), events));
        }
        (batch, Some(answer))
    }

    fn write_position(&mut self, advance: Advance) -> (Advance, Result<Advanced, StorageError>) {
        let lost = || Err(StorageError::Throttled { operation: "test", table: "positions".into() });
        if self.writes == Writes::Fail {
            return (advance, lost());
        }
        let durable = self.contract.positions.get(&advance.root).copied();
        let result = match durable {
            Some(durable) if durable >= advance.to => Advanced::Refused { durable },
            _ => {
                self.contract.positions.insert(advance.root.clone(), advance.to);
                Advanced::Written
            }
        };
        if self.writes == Writes::LoseReplies {
            return (advance, lost());
        }
        let root = advance.root.clone();
        self.tell(&root, self.contract.positions.get(&root).copied());
        (advance, Ok(result))
    }
}
