//! The checker: follows every event from the table to the handlers and judges the contract clause by clause.
//!
//! It keeps its own plain model (which events exist, what each handler accepted, what is durable) and knows nothing of
//! how the relay works. Every violation begins with the number of its clause.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use angzarr_relay::event::{Event, Root, Sequence};
use angzarr_relay::handler::HandlerName;
use angzarr_relay::lane::Subscription;
use angzarr_relay::relay_table::Registration;
use angzarr_relay::storage::{Mark, MarkState, Standing};
use angzarr_relay::telemetry::names;

use crate::receiver::DOWN;
use crate::told::Told;
use crate::world::payload;

/// So long after a position was written nobody delivers what it covers: longer than a call is waited for and a gap waits
/// for the stream.
const KNOWN_AFTER: Duration = Duration::from_secs(15);

/// So long after a handler was paused, where nothing goes wrong, nobody delivers to it.
const PAUSED_AFTER: Duration = Duration::from_secs(5);

/// What an operator has ordered back.
struct OrderedBack {
    from: Sequence,
    /// Where its position was when the order was carried out; none as long as it is not.
    to: Option<Sequence>,
    /// What is still to be given again.
    owed: BTreeSet<Sequence>,
}

/// One handler as the checker sees it.
#[derive(Default)]
struct Followed {
    accepted: BTreeMap<Root, Sequence>,
    accepted_by: BTreeMap<Root, (String, Sequence)>,
    /// What was durable when; the last is.
    durable: BTreeMap<Root, Vec<(Duration, Sequence)>>,
    marked: BTreeSet<Root>,
    /// Passed because an operator, or the policy, said so.
    skipped: BTreeSet<(Root, Sequence)>,
    ordered_back: BTreeMap<Root, Vec<OrderedBack>>,
    /// Since when it is registered, and from when on events are its own.
    registered: Option<Registration>,
    paused_at: Option<Duration>,
    /// Its effects commit with its position: what it is given again it does not apply (clause 9).
    transactional: bool,
}

impl Followed {
    fn durable(&self, root: &Root) -> Option<Sequence> {
        Some(self.durable.get(root)?.last()?.1)
    }

    /// Whether it was durable for so long.
    fn was_durable(&self, root: &Root, sequence: Sequence, before: Option<Duration>) -> bool {
        let written = self.durable.get(root).into_iter().flatten();
        written.into_iter().any(|(at, to)| before.is_some_and(|before| *at <= before) && *to >= sequence)
    }

    /// What was ordered of a root is carried out, up to its position.
    fn carried_out(&mut self, root: &Root) {
        let to = self.durable(root);
        for order in self.ordered_back.get_mut(root).into_iter().flatten() {
            order.to = order.to.or(to);
        }
    }

    fn is_ordered_back(&self, root: &Root, sequence: Sequence) -> bool {
        let orders = self.ordered_back.get(root).into_iter().flatten();
        orders.into_iter().any(|order| order.from <= sequence && order.to.is_none_or(|to| sequence <= to))
    }
}

/// A record's number on its shard, and the event it stands for.
type Streamed = (u64, Option<(Root, Sequence)>);

/// The number of a row in a replica's reading of a segment of the table, and the event.
pub(crate) type ScannedRow = (u64, Root, Sequence);

/// What happened so far, and what of it broke the contract.
pub(crate) struct Checker {
    subscriptions: BTreeMap<HandlerName, Subscription>,
    events: BTreeMap<Root, BTreeMap<Sequence, Event>>,
    handlers: BTreeMap<HandlerName, Followed>,
    shard_records: BTreeMap<String, Vec<Streamed>>,
    /// What each replica has read of each segment of the table. What was put there when it had gone by is the stream's.
    segment_rows: BTreeMap<(String, String), Vec<ScannedRow>>,
    /// What each replica did that it must tell: how often, by replica, metric and handler.
    deeds: BTreeMap<(String, &'static str, String), u64>,
    /// Nothing may come again.
    repeats_nothing: bool,
    /// One replica at a time, and no write arrives late.
    alone: bool,
    /// The world's time.
    pub(crate) now: Duration,
    pub(crate) violations: Vec<String>,
    pub(crate) delivered_again: usize,
}

impl Checker {
    pub(crate) fn new(subscriptions: BTreeMap<HandlerName, Subscription>, repeats_nothing: bool, alone: bool) -> Self {
        let handlers = subscriptions.keys().map(|name| (name.clone(), Followed::default())).collect();
        Self {
            subscriptions,
            events: BTreeMap::new(),
            handlers,
            shard_records: BTreeMap::new(),
            segment_rows: BTreeMap::new(),
            deeds: BTreeMap::new(),
            repeats_nothing,
            alone,
            now: Duration::ZERO,
            violations: Vec::new(),
            delivered_again: 0,
        }
    }

    /// The handlers it follows.
    pub(crate) fn handlers(&self) -> Vec<HandlerName> {
        self.handlers.keys().cloned().collect()
    }

    /// The handler's effects commit with its positions.
    pub(crate) fn is_transactional(&mut self, handler: &HandlerName) {
        self.followed(handler).transactional = true;
    }

    pub(crate) fn violate(&mut self, clause: &str, what: &str) {
        self.violations.push(format!("{clause}: {what}"));
    }

    fn followed(&mut self, handler: &HandlerName) -> &mut Followed {
        self.handlers.get_mut(handler).expect("a handler of this run")
    }

    pub(crate) fn committed(&mut self, event: &Event) {
        self.events.entry(event.root.clone()).or_default().insert(event.sequence, event.clone());
    }

    /// A record stands on a shard: an event's, or another.
    pub(crate) fn streamed(&mut self, shard: &str, number: u64, event: Option<(Root, Sequence)>) {
        self.shard_records.entry(shard.to_owned()).or_default().push((number, event));
    }

    /// A replica has read a page of a segment of the table behind a row, or from the beginning. What it read there before is
    /// void, and all of it where it came to that row on another way: as the successor of another replica.
    pub(crate) fn scanned(&mut self, replica: &str, segment: &str, after: Option<&ScannedRow>, page: Vec<ScannedRow>) {
        let rows = self.segment_rows.entry((segment.to_owned(), replica.to_owned())).or_default();
        let goes_on = after.is_some_and(|after| rows.contains(after));
        rows.retain(|(number, _, _)| goes_on && after.is_some_and(|(after, _, _)| number <= after));
        rows.extend(page);
    }

    /// The stream no longer has the records of a shard but the last `keep`: no checkpoint can be held by them.
    pub(crate) fn trimmed(&mut self, shard: &str, keep: usize) {
        if let Some(records) = self.shard_records.get_mut(shard) {
            records.drain(..records.len().saturating_sub(keep));
        }
    }

    /// The registry has a handler: from when on events are its own never changes.
    pub(crate) fn registered(&mut self, handler: &HandlerName, registration: &Registration) {
        let before = self.followed(handler).registered.replace(*registration);
        if before.is_some_and(|before| before != *registration) {
            self.violate("10", &format!("the start of {handler} was {before:?} and is {registration:?}"));
        }
    }

    pub(crate) fn paused(&mut self, handler: &HandlerName, paused: bool) {
        let now = self.now;
        self.followed(handler).paused_at = paused.then_some(now);
    }

    /// An operator, or the policy, has an event passed.
    pub(crate) fn skipped(&mut self, handler: &HandlerName, root: &Root, sequence: Sequence) {
        self.followed(handler).skipped.insert((root.clone(), sequence));
    }

    /// An operator orders a root back: what it was given up to its position, it is given again.
    pub(crate) fn ordered_back(&mut self, handler: &HandlerName, root: &Root, from: Sequence, to: Sequence) {
        let wanted = self.wanted(handler, root).into_iter();
        let owed = if self.handlers[handler].transactional {
            BTreeSet::new()
        } else {
            wanted.filter(|wanted| from <= *wanted && *wanted <= to).collect()
        };
        self.followed(handler).marked.insert(root.clone());
        self.followed(handler).ordered_back.entry(root.clone()).or_default().push(OrderedBack { from, to: None, owed });
    }

    /// What a handler is to be given of a root: behind its base, and of the types it wants.
    fn wanted(&self, handler: &HandlerName, root: &Root) -> Vec<Sequence> {
        let (subscription, followed) = (&self.subscriptions[handler], &self.handlers[handler]);
        let registered = followed.registered.filter(|_| subscription.covers(root));
        let Some(Registration { started_at }) = registered else { return Vec::new() };
        let all = || self.events.get(root).into_iter().flat_map(BTreeMap::values);
        let base = all().find(|event| started_at.is_none_or(|start| event.created_at >= start));
        let Some(base) = base.map(|event| event.sequence) else { return Vec::new() };
        let wanted = all().filter(|event| event.sequence >= base && subscription.wants(event));
        wanted
            .map(|event| event.sequence)
            .filter(|sequence| !followed.skipped.contains(&(root.clone(), *sequence)))
            .collect()
    }

    /// A handler was given an event. Clause 3: never one at or below the durable position as it can be known, and
    /// nothing again where every end was a clean one.
    pub(crate) fn delivered(&mut self, handler: &HandlerName, replica: &str, event: &Event) {
        let (root, sequence) = (&event.root, event.sequence);
        if event.payload != payload(root, sequence) {
            self.violate("2", &format!("{handler} was given {root} {sequence} with another payload"));
        }
        let followed = &self.handlers[handler];
        let again = followed.accepted.get(root).is_some_and(|accepted| sequence <= *accepted);
        let ordered_back = followed.is_ordered_back(root, sequence);
        let gives_once = !followed.transactional || self.repeats_nothing;
        let known = if self.alone || self.repeats_nothing { Some(self.now) } else { self.now.checked_sub(KNOWN_AFTER) };
        let was_durable = !ordered_back && gives_once && followed.was_durable(root, sequence, known);
        let by_itself = followed.accepted_by.get(root).is_some_and(|(by, at)| by == replica && sequence <= *at);
        let is_paused = followed.paused_at.is_some_and(|at| self.now > at + PAUSED_AFTER);
        self.delivered_again += usize::from(again);
        if was_durable {
            self.violate("3", &format!("{handler} was given {root} {sequence}, at or below its durable position"));
        }
        if again && self.repeats_nothing && !ordered_back {
            self.violate("3", &format!("{handler} was given {root} {sequence} again after a clean end"));
        }
        if by_itself && self.alone && !ordered_back {
            self.violate("3", &format!("{handler} was given {root} {sequence} twice by {replica}"));
        }
        if is_paused && self.repeats_nothing {
            self.violate("12", &format!("{handler} was given {root} {sequence} though it is paused"));
        }
        let skipped = self.handlers[handler].skipped.contains(&(root.clone(), sequence));
        if !skipped && !self.wanted(handler, root).contains(&sequence) {
            self.violate("10", &format!("{handler} was given {root} {sequence}, which is not its own"));
        }
    }

    /// A replica began a delivery after it was declared dead.
    pub(crate) fn delivered_when_dead(&mut self, handler: &HandlerName, replica: &str, root: &Root) {
        self.violate("8", &format!("{replica} is declared dead and delivers {root} to {handler}"));
    }

    /// A handler accepted an event. Clause 1: first acceptances in order without a gap.
    pub(crate) fn accepted(&mut self, handler: &HandlerName, replica: &str, root: &Root, sequence: Sequence) {
        let wanted = self.wanted(handler, root);
        let followed = self.followed(handler);
        let last = followed.accepted.get(root).copied();
        for order in followed.ordered_back.get_mut(root).into_iter().flatten() {
            order.owed.remove(&sequence);
        }
        let by = followed.accepted_by.entry(root.clone()).or_insert((replica.to_owned(), sequence));
        *by = (replica.to_owned(), if by.0 == replica { by.1.max(sequence) } else { sequence });
        if last.is_none_or(|last| sequence > last) {
            followed.accepted.insert(root.clone(), sequence);
            let skipped = followed.skipped.contains(&(root.clone(), sequence));
            let expected = wanted.into_iter().find(|wanted| last.is_none_or(|last| *wanted > last));
            if expected != Some(sequence) && !skipped {
                self.violate("1", &format!("{handler} accepted {root} {sequence} first, expected {expected:?}"));
            }
        }
    }

    /// A transaction of a handler's writes and its position took effect. Clause 9: no event is applied twice.
    pub(crate) fn applied(
        &mut self,
        handler: &HandlerName,
        replica: &str,
        root: &Root,
        applied: Vec<Sequence>,
        to: Sequence,
    ) {
        for sequence in applied {
            if self.followed(handler).accepted.get(root).is_some_and(|last| sequence <= *last) {
                self.violate("9", &format!("{handler} applied {root} {sequence} twice"));
            }
            self.accepted(handler, replica, root, sequence);
        }
        self.position(handler, root, to);
    }

    /// A position was written. Clause 4: it grows, and passes nothing that is wanted and not accepted.
    pub(crate) fn position(&mut self, handler: &HandlerName, root: &Root, to: Sequence) {
        let (wanted, now) = (self.wanted(handler, root), self.now);
        let followed = self.followed(handler);
        let before = followed.durable(root);
        let accepted = followed.accepted.get(root).copied();
        followed.durable.entry(root.clone()).or_default().push((now, to));
        if before.is_some_and(|before| to <= before) {
            self.violate("4", &format!("the position of {handler} on {root} went to {to}, not forward"));
        }
        let is_open = |wanted: &Sequence| *wanted <= to && accepted.is_none_or(|last| *wanted > last);
        if let Some(passed) = wanted.into_iter().find(is_open) {
            self.violate("4", &format!("the position of {handler} on {root} went to {to}, past {passed}"));
        }
    }

    /// A mark was written, with what the root has covered. Clause 13: an outage is no reason to park a root.
    pub(crate) fn marked(&mut self, handler: &HandlerName, root: &Root, standing: &Standing, mark: &Mark) {
        if let Some(covered) =
            standing.position.filter(|covered| self.followed(handler).durable(root) != Some(*covered))
        {
            self.position(handler, root, covered);
        }
        let followed = self.followed(handler);
        followed.marked.insert(root.clone());
        if !mark.rewound {
            followed.carried_out(root);
        }
        if mark.state == MarkState::Parked && mark.reason.contains(DOWN) {
            self.violate("13", &format!("{handler} parked {root} for an outage: {}", mark.reason));
        }
    }

    /// A mark was taken away; what is left of it stands for the root until it is forgotten.
    pub(crate) fn unmarked(&mut self, handler: &HandlerName, root: &Root) {
        self.followed(handler).carried_out(root);
    }

    /// The root was looked at after all can know that its mark is gone.
    pub(crate) fn forgotten(&mut self, handler: &HandlerName, root: &Root) {
        self.followed(handler).marked.remove(root);
    }

    /// A replica has set a checkpoint. Clause 5: every record up to it is covered, and every row that it has read.
    pub(crate) fn checkpoint(&mut self, handler: &HandlerName, replica: &str, shard: &str, through: Option<u64>) {
        let mut first_open = BTreeMap::new();
        let mut passed = None;
        let records = self.shard_records.get(shard).into_iter().flatten();
        let records = records.filter_map(|(number, event)| Some((number, event.as_ref()?)));
        let rows = self.segment_rows.get(&(shard.to_owned(), replica.to_owned())).into_iter().flatten();
        let records = records.map(|(number, (root, sequence))| (number, root, sequence));
        for (number, root, sequence) in records.chain(rows.map(|(number, root, sequence)| (number, root, sequence))) {
            if through.is_some_and(|through| *number > through) {
                continue;
            }
            let open = first_open.entry(root).or_insert_with(|| {
                let durable = self.handlers[handler].durable(root);
                self.wanted(handler, root).into_iter().find(|wanted| durable.is_none_or(|durable| *wanted > durable))
            });
            let marked = self.handlers[handler].marked.contains(root);
            if !marked && open.is_some_and(|open| open <= *sequence) {
                passed =
                    Some(format!("the checkpoint of {handler} on {shard} at {through:?} passes {root} {sequence}"));
            }
        }
        if let Some(passed) = passed {
            self.violate("5", &passed);
        }
    }

    /// A replica did something that is to be counted in a metric.
    pub(crate) fn did(&mut self, replica: &str, metric: &'static str, handler: &HandlerName) {
        let deed = (replica.to_owned(), metric, handler.as_str().to_owned());
        *self.deeds.entry(deed).or_default() += 1;
    }

    /// A replica has come to a clean end. Clause 11: it has counted what it knows it did. An answer of a handler may come
    /// too late for it to know, where it stands still or is stopped meanwhile.
    pub(crate) fn told(&mut self, replica: &str, told: &Told) {
        let mut silent = Vec::new();
        for ((by, metric, handler), did) in self.deeds.iter().filter(|((by, ..), _)| by == replica) {
            let outcome = if *metric == names::EVENTS_DELIVERED { "accepted" } else { "" };
            let counted = told.counted(metric, handler, outcome);
            let may_lack = *metric == names::EVENTS_DELIVERED && !self.repeats_nothing;
            if counted > *did || (counted < *did && !may_lack) {
                silent.push(format!("{by} counted {counted} in {metric} of {handler}, and did so {did} times"));
            }
        }
        for silent in silent {
            self.violate("11", &silent);
        }
    }

    /// What the handlers have not accepted yet.
    pub(crate) fn missing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        for (handler, followed) in &self.handlers {
            for root in self.events.keys() {
                let accepted = followed.accepted.get(root).copied();
                let wanted = self.wanted(handler, root).into_iter();
                let left = wanted.filter(|wanted| accepted.is_none_or(|last| *wanted > last));
                let left: Vec<u64> = left.map(|wanted| wanted.0).collect();
                if !left.is_empty() {
                    missing.push(format!("2: {handler} never accepted {root} {left:?}"));
                }
                for order in followed.ordered_back.get(root).into_iter().flatten() {
                    let skipped = |sequence: &&Sequence| followed.skipped.contains(&(root.clone(), **sequence));
                    let owed: Vec<u64> =
                        order.owed.iter().filter(|sequence| !skipped(sequence)).map(|sequence| sequence.0).collect();
                    if !owed.is_empty() {
                        missing.push(format!("12: {handler} was not given {root} {owed:?} again, as ordered"));
                    }
                }
            }
        }
        missing
    }

    /// Whether everything was accepted, is durable, and in its course.
    pub(crate) fn is_at_rest(&mut self) -> bool {
        let before = self.violations.len();
        self.at_rest();
        let rests = self.violations.len() == before;
        self.violations.truncate(before);
        rests
    }

    /// Everything has come to rest. Clause 2: every wanted event was accepted; clause 4: and is durable.
    pub(crate) fn at_rest(&mut self) {
        self.violations.extend(self.missing());
        for root in self.events.keys().cloned().collect::<Vec<_>>() {
            for handler in self.handlers.keys().cloned().collect::<Vec<_>>() {
                let (last, durable) = (self.wanted(&handler, &root).pop(), self.handlers[&handler].durable(&root));
                if last > durable {
                    self.violate(
                        "4",
                        &format!("at rest the position of {handler} on {root} is {durable:?}, not {last:?}"),
                    );
                }
                if self.handlers[&handler].marked.contains(&root) {
                    self.violate("2", &format!("at rest {root} is still marked for {handler}"));
                }
            }
        }
    }
}
