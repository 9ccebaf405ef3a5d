//! The checker: follows every event from the table to the handlers and judges the contract clause by clause.
//!
//! It keeps its own plain model (which events exist, what each handler accepted, what is durable) and knows nothing of
//! how the relay works.

use std::collections::{BTreeMap, BTreeSet};

use angzarr_relay::event::{Event, Root, Sequence};
use angzarr_relay::handler::HandlerName;
use angzarr_relay::lane::Subscription;

use crate::world::payload;

/// One handler as the checker sees it.
#[derive(Default)]
struct Followed {
    accepted: BTreeMap<Root, Sequence>,
    accepted_in_life: BTreeMap<Root, (u64, Sequence)>,
    durable: BTreeMap<Root, Sequence>,
    marked: BTreeSet<Root>,
    clean: bool,
}

/// A record's number on its shard, and the event it stands for.
type Streamed = (u64, Option<(Root, Sequence)>);

/// What happened so far, and what of it broke the contract.
pub(crate) struct Checker {
    subscriptions: BTreeMap<HandlerName, Subscription>,
    events: BTreeMap<Root, BTreeMap<Sequence, Event>>,
    handlers: BTreeMap<HandlerName, Followed>,
    shard_records: BTreeMap<String, Vec<Streamed>>,
    life: u64,
    /// Several replicas run at once: a life is not a process any more.
    side_by_side: bool,
    pub(crate) violations: Vec<String>,
    pub(crate) delivered_again: usize,
}

impl Checker {
    pub(crate) fn new(subscriptions: BTreeMap<HandlerName, Subscription>) -> Self {
        let handlers = subscriptions.keys().map(|name| (name.clone(), Followed::default())).collect();
        Self {
            subscriptions,
            events: BTreeMap::new(),
            handlers,
            shard_records: BTreeMap::new(),
            life: 0,
            side_by_side: false,
            violations: Vec::new(),
            delivered_again: 0,
        }
    }

    pub(crate) fn committed(&mut self, event: &Event) {
        self.events.entry(event.root.clone()).or_default().insert(event.sequence, event.clone());
    }

    /// A record stands on a shard: an event's, or another.
    pub(crate) fn streamed(&mut self, shard: &str, number: u64, event: Option<(Root, Sequence)>) {
        self.shard_records.entry(shard.to_owned()).or_default().push((number, event));
    }

    /// A page of a segment of the table was read: what was read of it behind the page before is void.
    pub(crate) fn scanned(&mut self, segment: &str, rows: Vec<(u64, Root, Sequence)>) {
        let Some((first, _, _)) = rows.first() else { return };
        let records = self.shard_records.entry(segment.to_owned()).or_default();
        records.retain(|(number, _)| number < first);
        records.extend(rows.into_iter().map(|(number, root, sequence)| (number, Some((root, sequence)))));
    }

    /// The stream no longer has the records of a shard but the last `keep`: no checkpoint can be held by them.
    pub(crate) fn trimmed(&mut self, shard: &str, keep: usize) {
        if let Some(records) = self.shard_records.get_mut(shard) {
            records.drain(..records.len().saturating_sub(keep));
        }
    }

    pub(crate) fn life_begins(&mut self) {
        self.life += 1;
    }

    /// Replicas run side by side. Without faults they hand over what they hold, and nothing is given again.
    pub(crate) fn side_by_side(&mut self, faulty: bool) {
        self.side_by_side = true;
        for followed in self.handlers.values_mut() {
            followed.clean = !faulty;
        }
    }

    /// The relay stopped cleanly, with every position written.
    pub(crate) fn stopped_cleanly(&mut self) {
        for followed in self.handlers.values_mut() {
            followed.clean = true;
        }
    }

    pub(crate) fn crashed(&mut self) {
        for followed in self.handlers.values_mut() {
            followed.clean = false;
        }
    }

    fn wanted(&self, handler: &HandlerName, root: &Root) -> Vec<Sequence> {
        let subscription = &self.subscriptions[handler];
        if !subscription.covers(root) {
            return Vec::new();
        }
        let events = self.events.get(root).into_iter().flat_map(BTreeMap::values);
        events.filter(|event| subscription.wants(event)).map(|event| event.sequence).collect()
    }

    /// A handler was given an event. Clause 3: never one at or below the durable position, nor one it accepted in this
    /// life, nor any that it accepted before a clean stop.
    pub(crate) fn delivered(&mut self, handler: &HandlerName, event: &Event) {
        let (root, sequence) = (&event.root, event.sequence);
        if event.payload != payload(root, sequence) {
            self.violations.push(format!("{handler} was given {root} {sequence} with another payload"));
        }
        let followed = &self.handlers[handler];
        // Beside others it may have been written since it was read.
        let is_durable = followed.durable.get(root).is_some_and(|durable| sequence <= *durable);
        if is_durable && (!self.side_by_side || followed.clean) {
            let text = format!("3: {handler} was given {root} {sequence}, at or below its durable position");
            self.violations.push(text);
        }
        let again = followed.accepted.get(root).is_some_and(|accepted| sequence <= *accepted);
        if again {
            self.delivered_again += 1;
            let in_this_life = followed.accepted_in_life.get(root);
            let one_process = !self.side_by_side;
            if in_this_life.is_some_and(|(life, accepted)| one_process && *life == self.life && sequence <= *accepted) {
                self.violations.push(format!("3: {handler} was given {root} {sequence} twice in one life"));
            }
            if followed.clean {
                self.violations.push(format!("3: {handler} was given {root} {sequence} again after a clean stop"));
            }
        }
        if !self.wanted(handler, root).contains(&sequence) {
            self.violations
                .push(format!("subscription: {handler} was given {root} {sequence}, which it does not want"));
        }
    }

    /// A handler accepted an event. Clause 1: first acceptances in order without a gap.
    pub(crate) fn accepted(&mut self, handler: &HandlerName, root: &Root, sequence: Sequence) {
        let wanted = self.wanted(handler, root);
        let life = self.life;
        let Some(followed) = self.handlers.get_mut(handler) else { return };
        let last = followed.accepted.get(root).copied();
        if last.is_none_or(|last| sequence > last) {
            let expected = wanted.into_iter().find(|wanted| last.is_none_or(|last| *wanted > last));
            if expected != Some(sequence) {
                self.violations.push(format!("1: {handler} accepted {root} {sequence} first, expected {expected:?}"));
            }
            followed.accepted.insert(root.clone(), sequence);
        }
        let in_life = followed.accepted_in_life.entry(root.clone()).or_insert((life, sequence));
        *in_life = if in_life.0 == life { (life, in_life.1.max(sequence)) } else { (life, sequence) };
    }

    /// A position was written. Clause 4: it grows, and passes nothing that is wanted and not accepted.
    pub(crate) fn position(&mut self, handler: &HandlerName, root: &Root, to: Sequence) {
        let wanted = self.wanted(handler, root);
        let Some(followed) = self.handlers.get_mut(handler) else { return };
        if followed.durable.get(root).is_some_and(|durable| to <= *durable) {
            self.violations.push(format!("4: the position of {handler} on {root} went to {to}, not forward"));
        }
        let accepted = followed.accepted.get(root).copied();
        if let Some(passed) =
            wanted.into_iter().find(|wanted| *wanted <= to && accepted.is_none_or(|last| *wanted > last))
        {
            self.violations.push(format!("4: the position of {handler} on {root} went to {to}, past {passed}"));
        }
        followed.durable.insert(root.clone(), to);
    }

    /// A mark was written with what the root has covered: its position, which may be there already.
    pub(crate) fn covered(&mut self, handler: &HandlerName, root: &Root, to: Sequence) {
        if self.handlers[handler].durable.get(root) != Some(&to) {
            self.position(handler, root, to);
        }
    }

    /// A root was marked, or its mark taken away.
    pub(crate) fn mark(&mut self, handler: &HandlerName, root: &Root, marked: bool) {
        let Some(followed) = self.handlers.get_mut(handler) else { return };
        if marked {
            followed.marked.insert(root.clone());
        } else {
            followed.marked.remove(root);
        }
    }

    /// A checkpoint was set. Clause 5: every record up to it is covered.
    pub(crate) fn checkpoint(&mut self, handler: &HandlerName, shard: &str, through: Option<u64>) {
        let mut first_open = BTreeMap::new();
        let mut violation = None;
        for (number, event) in self.shard_records.get(shard).into_iter().flatten() {
            let Some((root, sequence)) = event.as_ref().filter(|_| through.is_none_or(|through| *number <= through))
            else {
                continue;
            };
            let open = first_open.entry(root).or_insert_with(|| {
                let durable = self.handlers[handler].durable.get(root).copied();
                self.wanted(handler, root).into_iter().find(|wanted| durable.is_none_or(|durable| *wanted > durable))
            });
            let marked = self.handlers[handler].marked.contains(root);
            if !marked && open.is_some_and(|open| open <= *sequence) {
                violation =
                    Some(format!("5: the checkpoint of {handler} on {shard} at {through:?} passes {root} {sequence}"));
            }
        }
        self.violations.extend(violation);
    }

    /// What the handlers have not accepted yet.
    pub(crate) fn missing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        for (handler, followed) in &self.handlers {
            for root in self.events.keys() {
                let accepted = followed.accepted.get(root).copied();
                let left =
                    self.wanted(handler, root).into_iter().filter(|wanted| accepted.is_none_or(|last| *wanted > last));
                let left: Vec<u64> = left.map(|wanted| wanted.0).collect();
                if !left.is_empty() {
                    missing.push(format!("2: {handler} never accepted {root} {left:?}"));
                }
            }
        }
        missing
    }

    /// Everything has come to rest. Clause 2: every wanted event was accepted.
    pub(crate) fn at_rest(&mut self) {
        self.violations.extend(self.missing());
    }
}
